"""Settings that Celery 5.7 added, those that Celery reads without declaring them, and our own."""

from __future__ import annotations

from celeriac.settings.model import Kind, Setting

NEWER: tuple[Setting, ...] = (
    Setting(
        "beat_enable_remote_control",
        "BEAT_ENABLE_REMOTE_CONTROL",
        False,
        "bool",
        "Have the periodic scheduler listen to remote control.",
        has_effect=False,
    ),
    Setting(
        "beat_remote_control_max_tick_age",
        "BEAT_REMOTE_CONTROL_MAX_TICK_AGE",
        None,
        "seconds",
        "Longest time since its last look at the schedule that a scheduler may answer for.",
        has_effect=False,
    ),
    Setting(
        "broker_pool_acquire_timeout",
        "BROKER_POOL_ACQUIRE_TIMEOUT",
        None,
        "seconds",
        "Longest wait for a free broker connection.",
        has_effect=False,
    ),
    Setting(
        "database_engine_callback",
        "DATABASE_ENGINE_CALLBACK",
        None,
        "any",
        "Called with SQLAlchemy's engine once it is made.",
        has_effect=False,
    ),
    Setting(
        "result_chord_expires",
        "RESULT_CHORD_EXPIRES",
        None,
        "seconds",
        "Lifetime of what is kept for a chord; None does as `result_expires`.",
        has_effect=False,
    ),
    Setting(
        "result_failure_expires",
        "RESULT_FAILURE_EXPIRES",
        None,
        "seconds",
        "Lifetime of the results of failed tasks; None does as `result_expires`.",
        has_effect=False,
    ),
    Setting(
        "task_acks_on_failure",
        "TASK_ACKS_ON_FAILURE",
        None,
        "bool",
        "`task_acks_on_failure_or_timeout` for failed tasks alone.",
    ),
    Setting(
        "task_acks_on_timeout",
        "TASK_ACKS_ON_TIMEOUT",
        None,
        "bool",
        "`task_acks_on_failure_or_timeout` for timed-out tasks alone.",
    ),
    Setting(
        "task_repr_maxlevels",
        "TASK_REPR_MAXLEVELS",
        3,
        "int",
        "How deep arguments are shown in logs and events.",
        has_effect=False,
    ),
    Setting(
        "task_retry_on_worker_lost",
        "TASK_RETRY_ON_WORKER_LOST",
        False,
        "bool",
        "Retry a task when its process died.",
        has_effect=False,
    ),
    Setting(
        "worker_log_datefmt",
        "WORKER_LOG_DATEFMT",
        None,
        "text",
        "Format of the times in log lines.",
    ),
    Setting(
        "worker_pool_start_method",
        "WORKER_POOL_START_METHOD",
        "fork",
        "text",
        "How the pool's processes begin: as copies of a small process (fork, forkserver), or anew with the "
        "worker's command line (spawn), for modules that do not survive a fork.",
    ),
    Setting(
        "worker_task_log_datefmt",
        "WORKER_TASK_LOG_DATEFMT",
        None,
        "text",
        "Format of the times in the log lines that tasks write.",
    ),
)

_DAEMON_OPTIONS: tuple[tuple[str, Kind, str], ...] = (
    ("logfile", "text", "Log file"),
    ("pidfile", "text", "Process id file"),
    ("uid", "any", "User"),
    ("gid", "any", "Group"),
    ("umask", "any", "File mode mask"),
    ("executable", "text", "Python interpreter"),
)
_DAEMON_SETTINGS: tuple[Setting, ...] = tuple(
    Setting(f"{daemon}_{name}", f"{daemon}_{name}".upper(), None, kind, f"{what} of `celery {daemon}`.")
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
        has_effect=False,
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
        "beat_http_address",
        "BEAT_HTTP_ADDRESS",
        None,
        "text",
        "Where a scheduler answers /livez, /readyz and /metrics: host:port or unix:path; None: nowhere.",
    ),
    Setting(
        "beat_store_url",
        "BEAT_STORE_URL",
        None,
        "text",
        "Where schedulers agree on who sends what: Redis, a database (db+postgresql://…), an SQLite file. "
        "None: the file that `-s` names, else the broker, or with RabbitMQ the result store if it can.",
    ),
    Setting(
        "publish_timeout_seconds",
        "PUBLISH_TIMEOUT_SECONDS",
        5.0,
        "number",
        "Longest time that sending may take: connect, write and confirm together.",
    ),
    Setting(
        "task_limits_url",
        "TASK_LIMITS_URL",
        None,
        "text",
        "Where tasks are counted that are limited in all workers together; None: at the broker, or with "
        "RabbitMQ at the result store.",
    ),
    Setting(
        "task_lock_seconds",
        "TASK_LOCK_SECONDS",
        3600.0,
        "number",
        "Longest time for which a call of a unique task that no worker runs keeps others out; one for later "
        "counts from its time.",
    ),
    Setting(
        "task_priority_high_first",
        "TASK_PRIORITY_HIGH_FIRST",
        False,
        "bool",
        "9 is the most urgent priority on every broker, and 0 the least. Else Redis has it the other way "
        "round, and RabbitMQ knows priorities only where `task_queue_max_priority` is set, as with Celery.",
    ),
    Setting(
        "task_revoked_expires",
        "TASK_REVOKED_EXPIRES",
        86400.0,
        "number",
        "Seconds that broker and workers remember what was revoked.",
    ),
    Setting(
        "task_eager_serializes",
        "TASK_EAGER_SERIALIZES",
        False,
        "bool",
        "Have all that runs eagerly, steps of workflows too, take its arguments and give its result as the "
        "serializers bring them back: a tuple is a list, a set an error, as with a worker.",
    ),
    Setting(
        "task_max_deliveries",
        "TASK_MAX_DELIVERIES",
        3,
        "int",
        "A task that was handed out so often and never finished becomes a dead letter.",
    ),
    Setting(
        "task_dead_letter",
        "TASK_DEAD_LETTER",
        None,
        "bool",
        "Keep the message of a task whose last retry has failed as a dead letter.",
    ),
    Setting(
        "worker_http_address",
        "WORKER_HTTP_ADDRESS",
        None,
        "text",
        "Where a worker answers /livez, /readyz and /metrics: host:port or unix:path; None: nowhere.",
    ),
    Setting(
        "worker_lease_seconds",
        "WORKER_LEASE_SECONDS",
        15.0,
        "number",
        "Seconds after which a worker that gives no sign loses what it had taken.",
    ),
    Setting(
        "worker_shutdown_timeout",
        "WORKER_SHUTDOWN_TIMEOUT",
        None,
        "seconds",
        "Longest time that a warm shutdown waits for running tasks; then it is cold. None: however long.",
    ),
    Setting(
        "worker_watchdog_seconds",
        "WORKER_WATCHDOG_SECONDS",
        60.0,
        "number",
        "A worker that receives nothing for so long, with room and messages in its queue, ends; 0 = never.",
    ),
    Setting(
        "worker_max_message_bytes",
        "WORKER_MAX_MESSAGE_BYTES",
        64 * 1024 * 1024,
        "int",
        "Largest message body, unpacked, that a worker reads.",
    ),
)
