"""Signatures and what is made of them: Celeriac's own classes."""

from __future__ import annotations

from celeriac.canvas.signature import Signature, maybe_signature, signature
from celery import _state  # noqa: F401 - signatures without an app are sent by the current one

__all__ = ("Signature", "maybe_signature", "maybe_subtask", "signature", "subtask")

subtask = signature
maybe_subtask = maybe_signature
