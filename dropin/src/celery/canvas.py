"""Signatures and what is made of them: Celeriac's own classes."""

from __future__ import annotations

from celeriac.canvas import (
    Signature,
    StampingVisitor,
    _chain,
    _chord,
    chain,
    chord,
    chunks,
    group,
    maybe_signature,
    maybe_subtask,
    signature,
    subtask,
    xmap,
    xstarmap,
)
from celery import _state  # noqa: F401 - signatures without an app are sent by the current one

__all__ = (
    "Signature",
    "StampingVisitor",
    "_chain",
    "_chord",
    "chain",
    "chord",
    "chunks",
    "group",
    "maybe_signature",
    "maybe_subtask",
    "signature",
    "subtask",
    "xmap",
    "xstarmap",
)
