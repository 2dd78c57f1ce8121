"""Workflows as values: signatures, and what is made of them. Algebra only; an app sends it."""

from __future__ import annotations

from celeriac.canvas import joining as joining
from celeriac.canvas.chain import _chain, chain
from celeriac.canvas.chord import _chord, chord
from celeriac.canvas.group import group
from celeriac.canvas.maps import chunks, send_map, xmap, xstarmap
from celeriac.canvas.sender import Sender
from celeriac.canvas.signature import Signature, maybe_signature, maybe_subtask, signature, subtask
from celeriac.canvas.stamps import StampingVisitor

__all__ = [
    "Sender",
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
    "send_map",
    "signature",
    "subtask",
    "xmap",
    "xstarmap",
]
