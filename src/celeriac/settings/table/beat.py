"""Settings of the periodic scheduler."""

from __future__ import annotations

from celeriac.settings.model import Setting

BEAT: tuple[Setting, ...] = (
    Setting(
        "beat_cron_starting_deadline",
        "CELERYBEAT_CRON_STARTING_DEADLINE",
        None,
        "int",
        "Seconds after its time that a missed crontab entry may still be sent.",
    ),
    Setting(
        "beat_max_loop_interval",
        "CELERYBEAT_MAX_LOOP_INTERVAL",
        0,
        "seconds",
        "Longest sleep between two looks at the schedule; 0 is the scheduler's own.",
    ),
    Setting(
        "beat_schedule",
        "CELERYBEAT_SCHEDULE",
        {},
        "dict",
        "Periodic tasks, by name of the entry.",
    ),
    Setting(
        "beat_schedule_filename",
        "CELERYBEAT_SCHEDULE_FILENAME",
        "celerybeat-schedule",
        "text",
        "File that keeps when entries ran last; one that you name is used instead of the broker.",
    ),
    Setting(
        "beat_scheduler",
        "CELERYBEAT_SCHEDULER",
        "celery.beat:PersistentScheduler",
        "any",
        "Class, dotted name or entry point of the scheduler.",
    ),
    Setting(
        "beat_sync_every",
        "CELERYBEAT_SYNC_EVERY",
        0,
        "int",
        "Save the schedule after so many tasks; 0 saves by the clock.",
    ),
)
