"""The class of signals."""

from __future__ import annotations

from typing import Final

from celeriac.hooks import Signal

__all__ = ("Signal",)

NO_RECEIVERS: Final = object()  # of Celery's inner workings; some import it
