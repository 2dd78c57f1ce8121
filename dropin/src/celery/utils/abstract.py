"""What can be called like a task, for ``isinstance``."""

from __future__ import annotations

from celeriac.canvas.signature import Signature as CallableSignature
from celeriac.task import Task as CallableTask

__all__ = ("CallableSignature", "CallableTask")
