"""The reference of what programs import from `celeriac`: signatures and first paragraphs, from the source."""

from __future__ import annotations

import ast
import importlib
import inspect
import textwrap
import typing
from collections.abc import Iterator
from types import ModuleType
from typing import Any

_WIDE = 100  # characters; longer signatures have a line for every parameter
# Methods without a name of their own that programs use; the others of the kind are Python's business.
_OPERATORS = frozenset(
    {"__await__", "__call__", "__enter__", "__getitem__", "__invert__", "__iter__", "__len__", "__or__"}
)


def page() -> str:
    """Return all public names with their signatures and what they do."""
    package = importlib.import_module("celeriac")
    names = {name: getattr(package, name) for name in package.__all__ if not name.startswith("_")}
    lines = [
        "# Python interface",
        "",
        "What `from celeriac import …` offers.",
        "With the drop-in, `from celery import …` has the same objects.",
        "",
        "<!-- Made by `make docs` from src/celeriac; do not edit. -->",
    ]
    for name, value in names.items():
        if inspect.isclass(value):
            lines += ["", f"## {name}", *_class(value)]
        elif not inspect.ismodule(value):
            lines += ["", f"## {name}", *_function(value)]
    for name, value in names.items():
        if inspect.ismodule(value) and name != "canvas":  # whose names are all above
            lines += ["", f"## celeriac.{name}", *_module(value)]
    return "\n".join(lines) + "\n"


def _module(module: ModuleType) -> Iterator[str]:
    yield ""
    yield _markdown((inspect.getdoc(module) or "").replace("::\n\n", ""))
    yield ""
    members = {k: v for k, v in vars(module).items() if not k.startswith("_")}
    for name, value in members.items():
        if getattr(value, "__module__", None) != module.__name__:
            continue
        if inspect.isclass(value):
            bases = ", ".join(f"`{base.__name__}`" for base in value.__bases__)
            yield f"- `{name}` (a kind of {bases}): {_first_paragraph(value)}"
        else:
            yield f"- `{_signature(value, name)}`: {_first_paragraph(value)}"
    yield from _attributes(ast.parse(inspect.getsource(module)), inspect.getsource(module))


def _function(function: Any) -> Iterator[str]:  # Any: as `inspect` takes them
    yield ""
    yield from _code(_signature(function, function.__name__, wide=_WIDE))
    yield ""
    yield _first_paragraph(function)


def _class(cls: type[Any]) -> Iterator[str]:
    public = _public_base(cls)
    yield ""
    if cls.__init__ is not object.__init__ and inspect.isfunction(cls.__init__):
        yield from _code(_signature(cls.__init__, cls.__name__, wide=_WIDE).removesuffix(" -> None"))
        yield ""
    yield _first_paragraph(cls)
    if public is not None:
        yield ""
        yield f"It is a kind of `{public.__name__}` and has all that this has."
    arguments = _section(cls, "Args")
    if arguments:
        yield ""
        yield from (f"- `{name}`: {_markdown(text)}" for name, text in arguments)
    members: dict[str, str] = {}
    for owner in _own_classes(cls, public):
        for name, line in _members(owner):
            members.setdefault(name, line)
    if members:
        yield ""
        yield "Members:"
        yield ""
        yield from members.values()


def _public_base(cls: type[Any]) -> type[Any] | None:
    """Return the nearest class that has a section of its own and that this one extends."""
    package = importlib.import_module("celeriac")
    public = {id(getattr(package, name)) for name in package.__all__}
    return next((base for base in cls.__mro__[1:] if id(base) in public), None)


def _own_classes(cls: type[Any], public: type[Any] | None) -> list[type[Any]]:
    """Return it and those that it extends, without what its public base has."""
    known = () if public is None else public.__mro__
    return [c for c in cls.__mro__ if c not in known and c.__module__.partition(".")[0] == "celeriac"]


def _members(cls: type[Any]) -> Iterator[tuple[str, str]]:
    source = textwrap.dedent(inspect.getsource(cls))
    yield from (
        (line.split("`")[1].partition(":")[0], line)
        for line in _attributes(ast.parse(source).body[0], source)
    )
    for name, value in vars(cls).items():
        if name.startswith("_") and name not in _OPERATORS:
            continue
        if isinstance(value, property):
            returned = ast.unparse(_definition(value.fget).returns or ast.Constant(None))
            yield name, f"- `{name}: {returned}`: {_first_paragraph(value)}"
        elif inspect.isfunction(value) or isinstance(value, (classmethod, staticmethod)):
            function = value if inspect.isfunction(value) else value.__func__
            if function.__name__ != name:
                yield name, f"- `{name}`: the same as `{function.__name__}`"
            else:
                ways = " or ".join(f"`{way}`" for way in _signature(function, name).splitlines())
                yield name, f"- {ways}: {_first_paragraph(function)}"


def _attributes(node: ast.AST, source: str) -> Iterator[str]:
    """Yield what a module or class declares with a type, with the comment behind it."""
    lines = source.splitlines()
    for statement in getattr(node, "body", []):
        if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
            continue
        name = statement.target.id
        if name.startswith("_"):
            continue
        kind = ast.unparse(statement.annotation)
        value = (
            ""
            if statement.value is None or len(ast.unparse(statement.value)) > 60
            else f" = {ast.unparse(statement.value)}"
        )
        _, _, comment = lines[(statement.end_lineno or statement.lineno) - 1].partition("  # ")
        remark = "" if comment.startswith(("type:", "noqa:", "Any:")) else comment
        yield f"- `{name}: {kind}{value}`" + (f": {remark}" if remark else "")


def _signature(function: Any, name: str, *, wide: int = 1_000_000) -> str:
    """Return the call as it is declared, all ways of it; what is wider than so many characters is parted."""
    ways = typing.get_overloads(function) or [function]
    return "\n".join(_way(_definition(way), name, wide) for way in ways)


def _way(node: ast.FunctionDef | ast.AsyncFunctionDef, name: str, wide: int) -> str:
    parameters = _parameters(node.args)
    if parameters and parameters[0].partition(":")[0] in ("self", "cls"):
        parameters = parameters[2 if "/" in parameters[1:2] else 1 :]
    start = "await " if isinstance(node, ast.AsyncFunctionDef) else ""
    returned = "" if node.returns is None else f" -> {ast.unparse(node.returns)}"
    line = f"{start}{name}({', '.join(parameters)}){returned}"
    if len(line) <= wide:
        return line
    return "\n".join([f"{start}{name}(", *(f"    {parameter}," for parameter in parameters), f"){returned}"])


def _parameters(arguments: ast.arguments) -> list[str]:
    positional = [*arguments.posonlyargs, *arguments.args]
    missing: list[ast.expr | None] = [None] * (len(positional) - len(arguments.defaults))
    parts = [
        _parameter(argument, default)
        for argument, default in zip(positional, [*missing, *arguments.defaults], strict=True)
    ]
    if arguments.posonlyargs:
        parts.insert(len(arguments.posonlyargs), "/")
    if arguments.vararg is not None:
        parts.append(f"*{_parameter(arguments.vararg, None)}")
    elif arguments.kwonlyargs:
        parts.append("*")
    parts += map(_parameter, arguments.kwonlyargs, arguments.kw_defaults)
    if arguments.kwarg is not None:
        parts.append(f"**{_parameter(arguments.kwarg, None)}")
    return parts


def _parameter(argument: ast.arg, default: ast.expr | None) -> str:
    kind = "" if argument.annotation is None else f": {ast.unparse(argument.annotation)}"
    return f"{argument.arg}{kind}" + ("" if default is None else f" = {ast.unparse(default)}")


def _definition(function: Any) -> ast.FunctionDef | ast.AsyncFunctionDef:
    node = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    assert isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    return node


def _code(signature: str) -> list[str]:
    return ["```python", signature, "```"]


def _first_paragraph(value: Any) -> str:
    return _markdown(" ".join((inspect.getdoc(value) or "").partition("\n\n")[0].split()))


def _markdown(text: str) -> str:
    return text.replace("``", "`")


def _section(value: Any, title: str) -> list[tuple[str, str]]:
    """Return name and text of each entry of a section of a docstring, such as ``Args``."""
    text = inspect.getdoc(value) or ""
    _, _, after = text.partition(f"\n{title}:\n")
    entries: list[tuple[str, str]] = []
    for line in after.splitlines():
        if not line.startswith("    "):
            break
        if not line.startswith("     "):
            name, _, rest = line.strip().partition(": ")
            entries.append((name, rest))
        elif entries:
            entries[-1] = (entries[-1][0], f"{entries[-1][1]} {line.strip()}")
    return entries
