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

before_task_publish = HOOKS.before_task_publish
after_task_publish = HOOKS.after_task_publish
task_sent = HOOKS.task_sent
task_received = HOOKS.task_received
task_prerun = HOOKS.task_prerun
task_postrun = HOOKS.task_postrun
task_success = HOOKS.task_success
task_retry = HOOKS.task_retry
task_failure = HOOKS.task_failure
task_internal_error = HOOKS.task_internal_error
task_revoked = HOOKS.task_revoked
task_unknown = HOOKS.task_unknown
task_rejected = HOOKS.task_rejected
import_modules = HOOKS.import_modules
celeryd_init = HOOKS.celeryd_init
celeryd_after_setup = HOOKS.celeryd_after_setup
worker_init = HOOKS.worker_init
worker_before_create_process = HOOKS.worker_before_create_process
worker_process_init = HOOKS.worker_process_init
worker_process_shutdown = HOOKS.worker_process_shutdown
worker_ready = HOOKS.worker_ready
heartbeat_sent = HOOKS.heartbeat_sent
worker_shutting_down = HOOKS.worker_shutting_down
worker_shutdown = HOOKS.worker_shutdown
setup_logging = HOOKS.setup_logging
after_setup_logger = HOOKS.after_setup_logger
after_setup_task_logger = HOOKS.after_setup_task_logger
beat_init = HOOKS.beat_init
beat_embedded_init = HOOKS.beat_embedded_init
eventlet_pool_started = HOOKS.eventlet_pool_started
eventlet_pool_preshutdown = HOOKS.eventlet_pool_preshutdown
eventlet_pool_postshutdown = HOOKS.eventlet_pool_postshutdown
eventlet_pool_apply = HOOKS.eventlet_pool_apply
user_preload_options = HOOKS.user_preload_options
