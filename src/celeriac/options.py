"""The options of a call: their names, and what is done about a misspelt one.

Celery sends unknown options along as message properties, and programs use that; so only a name that is a
slip of the keyboard away from a real option is refused. Left alone, ``countdwn=60`` would run at once.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Final

from celeriac.errors import UsageError
from celeriac.settings.spelling import Speller

logger: logging.Logger = logging.getLogger(__name__)

OPTIONS: Final = tuple(
    """
    add_to_parent argsrepr chain chord compression confirm_timeout connection countdown declare delivery_mode
    eta exchange exchange_type expiration expires group_id group_index headers ignore_result immediate
    kwargsrepr link link_error mandatory origin parent_id priority producer publisher queue
    replaced_task_nesting reply_to result_cls retries retry retry_policy root_id route_name router
    routing_key serializer shadow soft_time_limit stamped_headers task_id task_type time_limit timeout utc
    """.split()  # noqa: SIM905 - fifty quoted names in a column say no more
)
_SPELLER: Final = Speller(OPTIONS)


def check_spelling(names: Iterable[str], task: str, *, strict: bool) -> None:
    """Look for misspelt options among those that are not ours.

    Args:
        names: The names that no option has.
        task: Whose call it is, for the message.
        strict: Whether a misspelt one is an error; else it is logged.

    Raises:
        UsageError: One is misspelt, and ``strict``.
    """
    for name in names:
        meant = _SPELLER.closest(name)
        if meant is None:
            continue
        text = f"There is no option {name!r} for a call of {task}; did you mean {meant!r}?"
        if strict:
            raise UsageError(text)
        logger.warning("%s It is sent along as a message property.", text)
