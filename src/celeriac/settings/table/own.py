"""Settings that Celery reads without declaring them, and settings of our own."""

from __future__ import annotations

from celeriac.settings.model import Kind, Setting

_DAEMON_OPTIONS: tuple[tuple[str, Kind, str], ...] = (
    ("logfile", "text", "Log file"),
    ("pidfile", "text", "Process id file"),
    ("uid", "any", "User"),
    ("gid", "any", "Group"),
    ("umask", "any", "File mode mask"),
    ("executable", "text", "Python interpreter"),
)
_DAEMON_SETTINGS: tuple[Setting, ...] = tuple(
    Setting(
        f"{daemon}_{name}", f"{daemon}_{name}".upper(), None, kind, f"{what} of `celery {daemon}`.", False
    )
    for daemon in ("worker", "beat", "events")
    for name, kind, what in _DAEMON_OPTIONS
)

UNDECLARED: tuple[Setting, ...] = (
    Setting(
        "override_backends",
        "OVERRIDE_BACKENDS",
        None,
        "dict",
        "Result stores by alias: a dotted name for each.",
    ),
    Setting(
        "result_backend_thread_safe",
        "RESULT_BACKEND_THREAD_SAFE",
        None,
        "bool",
        "Share one result store object between threads (always done here).",
        has_effect=False,
    ),
    Setting(
        "redis_backend_health_check_interval",
        "REDIS_BACKEND_HEALTH_CHECK_INTERVAL",
        None,
        "seconds",
        "Seconds after which an idle connection to a Redis result store is tested before use.",
    ),
    Setting(
        "redis_backend_credential_provider",
        "REDIS_BACKEND_CREDENTIAL_PROVIDER",
        None,
        "any",
        "Object or dotted name of what supplies user and password.",
        has_effect=False,
    ),
    Setting(
        "redis_client_name",
        "REDIS_CLIENT_NAME",
        None,
        "text",
        "Name under which Redis lists our connections.",
        has_effect=False,
    ),
    Setting(
        "cassandra_secure_bundle_path",
        "CASSANDRA_SECURE_BUNDLE_PATH",
        None,
        "text",
        "Another name of `cassandra_bundle_path`.",
        has_effect=False,
    ),
    *_DAEMON_SETTINGS,
)

OWN: tuple[Setting, ...] = (
    Setting(
        "publish_timeout_seconds",
        "PUBLISH_TIMEOUT_SECONDS",
        5.0,
        "number",
        "Longest time that sending may take: connect, write and confirm together.",
    ),
    Setting(
        "task_max_deliveries",
        "TASK_MAX_DELIVERIES",
        3,
        "int",
        "A task that was handed out so often and never finished becomes a dead letter.",
    ),
    Setting(
        "worker_lease_seconds",
        "WORKER_LEASE_SECONDS",
        15.0,
        "number",
        "Seconds after which a worker that gives no sign loses what it had taken.",
    ),
    Setting(
        "worker_max_message_bytes",
        "WORKER_MAX_MESSAGE_BYTES",
        64 * 1024 * 1024,
        "int",
        "Largest message body, unpacked, that a worker reads.",
    ),
)
