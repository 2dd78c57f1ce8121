"""Run a program after gevent or eventlet has patched the standard library: before anything else is loaded.

    python patched.py gevent script.py arguments
    python patched.py gevent -m module arguments

It is run as a file of its own, for to import it from its package would load half of what is to be patched.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Patch, and run what the command line says as if nothing had been before it."""
    del sys.path[0]  # this folder
    _patch(sys.argv[1])
    import os
    import runpy

    del sys.argv[:2]
    what = sys.argv[0]
    if what == "-m":
        sys.path.insert(0, os.getcwd())
        del sys.argv[0]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    elif what == "-c":
        sys.path.insert(0, "")
        code = sys.argv.pop(1)
        exec(compile(code, "<string>", "exec"), sys.modules["__main__"].__dict__)  # noqa: S102 - as asked for
    else:
        sys.path.insert(0, os.path.dirname(os.path.abspath(what)))
        runpy.run_path(what, run_name="__main__")


def _patch(kind: str) -> None:
    import importlib

    if kind == "gevent":
        importlib.import_module("gevent.monkey").patch_all()
        return
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that it is deprecated; who chooses it has decided
        importlib.import_module("eventlet").monkey_patch()


if __name__ == "__main__":
    main()
