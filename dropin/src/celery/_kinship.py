"""Makes our errors catchable under the names that kombu and billiard have for them.

Programs write ``except kombu.exceptions.OperationalError`` around ``delay()`` and import
``SoftTimeLimitExceeded`` from billiard. ``except`` looks at real base classes only, and the core must not
import either package, so the drop-in adds the base classes: when the program imports those packages, not
before, because they would be half of the time that ``import celery`` takes.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import TYPE_CHECKING, Final

from celeriac import errors

if TYPE_CHECKING:
    from importlib.abc import Loader  # 0.8 MB and 9 ms at run time: it brings tempfile, shutil and lzma along

# Module: our class and the name of theirs that it becomes a kind of.
KIN: Final[dict[str, tuple[tuple[type[BaseException], str], ...]]] = {
    "kombu.exceptions": (
        (errors.TransportError, "OperationalError"),
        (errors.EncodeError, "EncodeError"),
        (errors.DecodeError, "DecodeError"),
        (errors.ContentRefused, "ContentDisallowed"),
    ),
    "billiard.exceptions": (
        (errors.SoftTimeLimitExceeded, "SoftTimeLimitExceeded"),
        (errors.TimeLimitExceeded, "TimeLimitExceeded"),
        (errors.WorkerLostError, "WorkerLostError"),
    ),
}


def install() -> None:
    """See to it that our errors are kin to theirs, now or when their module is imported."""
    for name in KIN:
        if name in sys.modules:
            make_kin(sys.modules[name])
    if _WATCH not in sys.meta_path:
        sys.meta_path.insert(0, _WATCH)


def uninstall() -> None:
    """Undo it."""
    sys.meta_path[:] = [finder for finder in sys.meta_path if finder is not _WATCH]
    for name, pairs in KIN.items():
        for ours, theirs in pairs:
            module = sys.modules.get(name)
            ours.__bases__ = tuple(
                base for base in ours.__bases__ if base is not getattr(module, theirs, None)
            )


def make_kin(module: ModuleType) -> None:
    """Add the classes of one of the modules to the bases of ours."""
    for ours, name in KIN[module.__name__]:
        theirs = getattr(module, name)
        if not issubclass(ours, theirs):
            ours.__bases__ = (*ours.__bases__, theirs)


class _Watch:
    """Finds the two modules as Python would, with a loader that calls `make_kin` afterwards."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in KIN:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _ThenMakeKin(spec.loader)  # type: ignore[assignment]  # a loader but for the base class
        return spec


class _ThenMakeKin:
    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self._loader  # nobody else has to know
        self._loader.exec_module(module)
        make_kin(module)


_WATCH: Final = _Watch()
