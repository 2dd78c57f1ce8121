"""What a client holds of the tasks that it has sent: their state and, once there is one, their result."""

from __future__ import annotations

from celeriac.context import allow_join_result, denied_join_result
from celeriac.result.base import ResultBase, assert_will_not_block
from celeriac.result.eager import EagerResult
from celeriac.result.many import GroupResult, ResultSet, result_from_tuple
from celeriac.result.single import AsyncResult

__all__ = [
    "AsyncResult",
    "EagerResult",
    "GroupResult",
    "ResultBase",
    "ResultSet",
    "allow_join_result",
    "assert_will_not_block",
    "denied_join_result",
    "result_from_tuple",
]
