"""Imports go down only, and there is no cycle: functions' imports included."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src" / "celeriac"
DROPIN = Path(__file__).resolve().parents[2] / "dropin" / "src" / "celery"

FLOORS: dict[str, int] = {
    **dict.fromkeys(["errors", "states", "ids", "clock", "version", "forklock"], 0),
    **dict.fromkeys(
        [
            "message",
            "steps",
            "queues",
            "letters",
            "wire",
            "codecs",
            "settings",
            "canvas",
            "schedules",
            "routing",
            "limits",
            "latest",
            "ages",
            "backoff",
            "tries",
            "saferepr",
            "parameters",
            "keypath",
            "uniqueness",
            "rounds",
            "signum",
        ],
        1,
    ),
    **dict.fromkeys(
        [
            "ports",
            "permits",
            "pauses",
            "locks",
            "bursts",
            "revocations",
            "timetable",
            "drivers",
            "net",
            "transports",
            "backends",
        ],
        2,
    ),
    **dict.fromkeys(
        [
            "app",
            "task",
            "client",
            "composer",
            "guard",
            "result",
            "registry",
            "options",
            "hooks",
            "context",
            "run",
            "eager",
            "retry",
            "awaiting",
            "connections",
            "annotation",
            "discovery",
            "followup",
            "standard_tasks",
            "security",
            "validation",
            "component",
            "configured",
            "tasked",
            "connected",
            "lending",
            "declaration",
            "replacement",
            "addition",
            "task_hooks",
            "copies",
            "patience",
            "moving",
            "polling",
            "progress",
            "remote",
            "events",
            "addresses",
            "bugreport",
        ],
        3,
    ),
    **dict.fromkeys(["node", "pools", "execute", "control", "beat"], 4),
    **dict.fromkeys(["cli", "web", "contrib", "testing", "multi", "__main__"], 5),
}
ROOT_MAY_IMPORT_UP_TO = 3  # `celeriac/__init__.py` offers the names of floors 0-3


def modules(root: Path) -> dict[str, Path]:
    """Return every module below a package, by dotted name."""
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = (root.name, *path.relative_to(root).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(name: str, path: Path, known: dict[str, Path]) -> set[str]:
    """Return the modules of ``known`` that a module imports anywhere in its text, TYPE_CHECKING included."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    targets: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            targets |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                anchor = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*anchor, base] if base else anchor)
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                targets.add(inner if inner in known else base)
    return {t for t in targets if t in known and t != name}


def floor(name: str) -> int:
    """Return the floor of a module; the package itself may reach what it re-exports."""
    parts = name.split(".")
    return ROOT_MAY_IMPORT_UP_TO if len(parts) == 1 else FLOORS[parts[1]]


@functools.cache
def graph() -> dict[str, set[str]]:
    """Return who imports whom within the core."""
    known = modules(SOURCE)
    return {name: imports(name, path, known) for name, path in known.items()}


pytestmark = pytest.mark.together("floors")  # all modules are read once


def test_every_module_has_a_floor() -> None:
    unknown = {name for name in graph() if len(name.split(".")) > 1 and name.split(".")[1] not in FLOORS}

    assert unknown == set()


def test_imports_go_down_only() -> None:
    upward = [
        f"{name} (floor {floor(name)}) imports {target} (floor {floor(target)})"
        for name, targets in graph().items()
        for target in targets
        if floor(target) > floor(name)
    ]

    assert upward == []


def test_nobody_in_the_core_imports_the_root_package() -> None:
    inward = [name for name, targets in graph().items() if "celeriac" in targets]

    assert inward == [], "import the module that has the name: the root package imports floors 0-3"


def test_there_is_no_import_cycle() -> None:
    edges = graph()
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, "cycle: " + " -> ".join([*trail[trail.index(name) :], name])
        if name not in done:
            for target in sorted(edges[name]):
                visit(target, (*trail, name))
            done.add(name)

    for name in sorted(edges):
        visit(name, ())


def test_the_core_never_imports_the_drop_in() -> None:
    for name, path in modules(SOURCE).items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert (node.module or "").split(".")[0] != "celery", f"{name} imports the drop-in"
            elif isinstance(node, ast.Import):
                assert all(a.name.split(".")[0] != "celery" for a in node.names), (
                    f"{name} imports the drop-in"
                )
