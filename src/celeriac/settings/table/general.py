"""Settings without a section: content, times and modules."""

from __future__ import annotations

from celeriac.settings.model import Setting

GENERAL: tuple[Setting, ...] = (
    Setting(
        "accept_content",
        "CELERY_ACCEPT_CONTENT",
        ("json",),
        "list",
        "Serializers (or content types) that are accepted in incoming messages.",
    ),
    Setting("enable_utc", "ENABLE_UTC", True, "bool", "Write times into messages and schedules in UTC."),
    Setting("imports", "CELERY_IMPORTS", (), "list", "Modules that a worker imports first when it starts."),
    Setting("include", "CELERY_INCLUDE", (), "list", "Modules that a worker imports after `imports`."),
    Setting(
        "timezone",
        "CELERY_TIMEZONE",
        None,
        "any",
        "Zone name or tzinfo of schedules and of naive times; Django's TIME_ZONE is read too.",
    ),
)
