"""Remote control: Celeriac's."""

from __future__ import annotations

from celeriac.remote.control import Control, flatten_reply
from celeriac.remote.inspection import Inspect

__all__ = ("Control", "Inspect", "flatten_reply")
