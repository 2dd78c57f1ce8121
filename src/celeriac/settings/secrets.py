"""Shows settings and URLs without the secrets in them."""

from __future__ import annotations

import re
from typing import Any, Final

HIDDEN: Final = "********"

_PASSWORD = re.compile(r"(?<=://)([^/@:\s]*):([^@\s]*)@")
_SECRET_QUERY = re.compile(r"(?i)([?&](?:password|passwd|secret|token|credential)[^=&]*=)[^&\s]*")
_SECRET_NAME = re.compile(
    r"API|TOKEN|KEY|SECRET|PASS|PROFANITIES_LIST|SIGNATURE|DATABASE|BEAT_DBURI", re.IGNORECASE
)
_NO_SECRETS = frozenset({"task_default_routing_key"})


def mask_url(url: str) -> str:
    """Return the URL with its password replaced by ``**``, fit for logs and errors."""
    return _SECRET_QUERY.sub(r"\1**", _PASSWORD.sub(r"\1:**@", url))


def censor(name: str, value: Any) -> Any:  # Any: a setting's value
    """Return the value as it may be shown: eight asterisks where the name says that it is a secret."""
    if isinstance(value, dict):
        return {key: censor(str(key), inner) for key, inner in value.items()}
    if value and _SECRET_NAME.search(name) and name not in _NO_SECRETS and not isinstance(value, bool):
        return HIDDEN
    if isinstance(value, str):
        return mask_url(value)
    if isinstance(value, (list, tuple)):
        return [mask_url(item) if isinstance(item, str) else item for item in value]
    return value
