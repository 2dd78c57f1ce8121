"""The signals: one of each for the process, sent by every app and worker in it."""

from __future__ import annotations

from celeriac.hooks import Hooks, Signal

__all__ = (
    "Signal",
    "after_setup_logger",
    "after_setup_task_logger",
    "after_task_publish",
    "beat_embedded_init",
    "beat_init",
    "before_task_publish",
    "celeryd_after_setup",
    "celeryd_init",
    "eventlet_pool_apply",
    "eventlet_pool_postshutdown",
    "eventlet_pool_preshutdown",
    "eventlet_pool_started",
    "heartbeat_sent",
    "import_modules",
    "setup_logging",
    "task_failure",
    "task_internal_error",
    "task_postrun",
    "task_prerun",
    "task_received",
    "task_rejected",
    "task_retry",
    "task_revoked",
    "task_sent",
    "task_success",
    "task_unknown",
    "user_preload_options",
    "worker_before_create_process",
    "worker_init",
    "worker_process_init",
    "worker_process_shutdown",
    "worker_ready",
    "worker_shutdown",
    "worker_shutting_down",
)

HOOKS = Hooks()

before_task_publish: Signal = HOOKS.before_task_publish
after_task_publish: Signal = HOOKS.after_task_publish
task_sent: Signal = HOOKS.task_sent
task_received: Signal = HOOKS.task_received
task_prerun: Signal = HOOKS.task_prerun
task_postrun: Signal = HOOKS.task_postrun
task_success: Signal = HOOKS.task_success
task_retry: Signal = HOOKS.task_retry
task_failure: Signal = HOOKS.task_failure
task_internal_error: Signal = HOOKS.task_internal_error
task_revoked: Signal = HOOKS.task_revoked
task_unknown: Signal = HOOKS.task_unknown
task_rejected: Signal = HOOKS.task_rejected
import_modules: Signal = HOOKS.import_modules
celeryd_init: Signal = HOOKS.celeryd_init
celeryd_after_setup: Signal = HOOKS.celeryd_after_setup
worker_init: Signal = HOOKS.worker_init
worker_before_create_process: Signal = HOOKS.worker_before_create_process
worker_process_init: Signal = HOOKS.worker_process_init
worker_process_shutdown: Signal = HOOKS.worker_process_shutdown
worker_ready: Signal = HOOKS.worker_ready
heartbeat_sent: Signal = HOOKS.heartbeat_sent
worker_shutting_down: Signal = HOOKS.worker_shutting_down
worker_shutdown: Signal = HOOKS.worker_shutdown
setup_logging: Signal = HOOKS.setup_logging
after_setup_logger: Signal = HOOKS.after_setup_logger
after_setup_task_logger: Signal = HOOKS.after_setup_task_logger
beat_init: Signal = HOOKS.beat_init
beat_embedded_init: Signal = HOOKS.beat_embedded_init
eventlet_pool_started: Signal = HOOKS.eventlet_pool_started
eventlet_pool_preshutdown: Signal = HOOKS.eventlet_pool_preshutdown
eventlet_pool_postshutdown: Signal = HOOKS.eventlet_pool_postshutdown
eventlet_pool_apply: Signal = HOOKS.eventlet_pool_apply
user_preload_options: Signal = HOOKS.user_preload_options
