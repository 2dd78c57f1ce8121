"""The class of signals."""

from __future__ import annotations

from celeriac.hooks import Signal

__all__ = ("Signal",)
