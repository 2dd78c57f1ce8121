"""What `celeriac` offers: each name is there, documented, and the same for people and for type checkers."""

from __future__ import annotations

import ast
import inspect
from importlib.metadata import version

import pytest

import celeriac
from celeriac.version import VERSION
from processes import ROOT

NAMES = [name for name in celeriac.__all__ if not name.startswith("_")]


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_is_there_and_says_what_it_is_for(name: str) -> None:
    value = getattr(celeriac, name)

    assert name in dir(celeriac)
    assert inspect.getdoc(value)
    assert inspect.getdoc(value) != inspect.getdoc(dict), "the documentation of a base class is none"


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_is_in_the_reference(name: str) -> None:
    page = (ROOT / "docs" / "reference" / "api.md").read_text()
    title = f"celeriac.{name}" if inspect.ismodule(getattr(celeriac, name)) else name

    assert f"\n## {title}\n" in page or name == "canvas"  # its names have sections of their own


def test_type_checkers_see_the_names_that_there_are() -> None:
    tree = ast.parse((ROOT / "src" / "celeriac" / "__init__.py").read_text())
    [block] = [node for node in tree.body if isinstance(node, ast.If)]
    seen = [alias.asname for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names]

    assert sorted(seen, key=str) == sorted(NAMES)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        celeriac.nothing  # noqa: B018


def test_there_is_one_version() -> None:
    assert celeriac.__version__ == VERSION == version("celeriac")
