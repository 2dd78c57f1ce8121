"""The tasks of an app, by name."""

from __future__ import annotations

from celeriac.registry import Registry as TaskRegistry

__all__ = ("TaskRegistry",)
