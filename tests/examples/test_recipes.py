"""What ``docs/recipes.md`` shows is in the examples, which other tests here run, word by word."""

from __future__ import annotations

import re

from processes import ROOT

BLOCK = re.compile(r"^```python\n# (\S+)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def test_each_recipe_is_a_part_of_an_example() -> None:
    text = (ROOT / "docs" / "recipes.md").read_text()

    shown = BLOCK.findall(text)

    assert len(shown) == text.count("```python")
    assert [(path, part) for path, part in shown if part not in (ROOT / path).read_text()] == []
    assert {path.split("/")[1] for path, _ in shown} == {"django", "flask", "fastapi"}
