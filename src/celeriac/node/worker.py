"""The worker: a node in this process, from the app's modules to the exit code."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any, NoReturn

import msgspec

from celeriac import connections, limits, pools
from celeriac.app import Celeriac
from celeriac.control.gossip import Gossip
from celeriac.control.mailbox import Mailbox
from celeriac.control.mingle import Mingle
from celeriac.control.state import State
from celeriac.errors import ConfigError
from celeriac.execute.executor import Executor
from celeriac.node.companion import Companion
from celeriac.node.health.address import HttpAddress, http_address
from celeriac.node.heart import DEFAULT_SECONDS
from celeriac.node.leases import lease_seconds
from celeriac.node.link import RetryPolicy
from celeriac.node.node import EX_FAILURE, Node
from celeriac.node.node_settings import NodeSettings
from celeriac.node.options import NodeOptions
from celeriac.node.osignals import Signals, meaning
from celeriac.node.outage import OutagePolicy
from celeriac.node.shutdown import How, say
from celeriac.node.statedb import StateDB
from celeriac.node.watchdog import Watchdog
from celeriac.pools import heap
from celeriac.pools.base import PoolOptions, nothing
from celeriac.pools.prefork.spawned import Invitation
from celeriac.pools.solo import SoloPool
from celeriac.ports import ConsumeSpec, Pool, Transport
from celeriac.queues import Exchange, Queue

logger: logging.Logger = logging.getLogger("celery.apps.worker")

_LEAVE_SECONDS = 1.0  # for a task in the main thread that is told to end at once
_HURRIES_BEFORE_EXIT = 3  # who asks so often for a cold shutdown does not want to wait for it


class Worker:
    """Runs a node in this process until it is told to stop.

    1. load what the app consists of, and say to its hooks that a worker begins
    2. fork what has to be forked, then start the loop
    3. obey the signals of the operating system
    4. end, or begin anew in the same process (HUP; a task in the main thread that does not end)

    Args:
        app: The app.
        options: What the command line says.
        in_child: Called first in each process of the pool, with its place there, from 1.
        program: The command line that makes such a worker again, for `worker_pool_start_method` ``spawn``.
        companions: Make what lives with the worker; None: ``Celeriac.on_worker``.

    Raises:
        ConfigError: A setting or an option makes no sense.
        QueueNotFound: A queue is asked for that may not be made.
    """

    def __init__(
        self,
        app: Celeriac,
        options: NodeOptions,
        in_child: Callable[[int], None] = nothing,
        program: Sequence[str] = (),
        companions: Sequence[Callable[[Worker], Companion | None]] | None = None,
    ) -> None:
        self.app = app
        self.options = options
        self.hostname: str = options.hostname
        conf = app.conf
        app.hooks.celeryd_init.send(
            sender=self.hostname, instance=self, conf=conf, options=_as_given(options)
        )
        conf.include = tuple(dict.fromkeys([*(conf.include or ()), *options.include]))
        app.import_modules()
        app.finalize()
        app.hooks.celeryd_after_setup.send(sender=self.hostname, instance=self, conf=conf)
        self._lease_seconds = lease_seconds(conf.worker_lease_seconds)
        self._http: HttpAddress | None = http_address(conf.worker_http_address)
        _check_app(app)
        self.queues: tuple[Queue, ...] = _queues(app, options)
        self.pool_kind: str = options.pool or conf.worker_pool
        size = options.concurrency or conf.worker_concurrency or len(os.sched_getaffinity(0))
        most, fewest = options.autoscale or (size, size)
        self._pool_options = PoolOptions(
            size=fewest,
            most=most,
            max_tasks_per_child=options.max_tasks_per_child or conf.worker_max_tasks_per_child,
            max_memory_per_child_kib=options.max_memory_per_child_kib or conf.worker_max_memory_per_child,
            start_timeout_seconds=conf.worker_proc_alive_timeout,
            before_fork=lambda: app.hooks.worker_before_create_process.send(sender=self.pool),
            program=_program(self.pool_kind, conf.worker_pool_start_method, program),
            in_child=in_child,
        )
        pid = os.getpid()
        self.pool: Pool = pools.make(
            self.pool_kind,
            self._pool_options,
            lambda: Executor(app, self.hostname, own_process=os.getpid() != pid),
        )
        if program and isinstance(self.pool, SoloPool) and _in_main_thread():
            self.pool.on_stuck = self._begin_anew
        if options.autoscale is not None and self.pool.size != fewest:
            raise ConfigError(
                f"The {self.pool_kind} pool has {self.pool.size} slot; it cannot be autoscaled."
            )
        self.concurrency: int = most if options.autoscale is not None else self.pool.size
        self.state_file: str | None = options.statedb or conf.worker_state_db or None
        self.exitcode: int | None = None
        self.node: Node | None = None  # as soon as it runs
        self._transport: Transport | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._on_ready: Callable[[], None] = lambda: None
        self._hurries = 0
        self._interrupts = 0
        self._restarts = False
        self._asked: How | None = None
        makers = Celeriac.on_worker if companions is None else companions
        self.companions: list[Companion] = [made for make in makers if (made := make(self)) is not None]

    def run(self, on_ready: Callable[[], None] = lambda: None) -> int:
        """Work until told to stop and return the exit code.

        Args:
            on_ready: Called when the broker is connected and the slots are ready.

        Raises:
            ConfigError: Nothing can listen at the address of ``worker_http_address``.
        """
        self._on_ready = on_ready
        if self._http is not None:
            self._http.release(self._http.bind())  # told here; it is bound for good when all is forked
        if self.pool_kind not in pools.PATCHED:
            self.app.hooks.worker_init.send(sender=self)
        _ = self.app.backend  # with the transport loaded here, once, not in every child; connects to nothing
        self.pool.open()
        self._begin()
        in_main = _in_main_thread()
        if in_main:
            gc.freeze()  # what is loaded by now stays: there is no use in looking at it again and again
        loop = asyncio.new_event_loop()
        with Signals(loop, self._on_signal) if in_main else nullcontext():
            code = self._run_beside(self.pool, loop) if isinstance(self.pool, SoloPool) else self._run(loop)
        self._end_companions()
        self._close()
        if self._restarts:
            _execute_again()
        return code if self.exitcode is None else self.exitcode

    def run_as_child(self, invited: Invitation) -> NoReturn:
        """Be a process of the pool of the worker that has started this program."""
        if self.pool_kind in pools.PATCHED:  # here are the modules that the tasks will see, not in the node
            self.app.hooks.worker_init.send(sender=self)
        greenlets = self.pool_kind in pools.PATCHED
        pools.serve(
            invited,
            lambda: Executor(self.app, self.hostname, own_process=True, in_greenlet=greenlets),
            msgspec.structs.replace(self._pool_options, tell=self._tell_of_pool),
        )

    def _tell_of_pool(self, host: object, moment: str, **facts: Any) -> None:  # Any: the signal's arguments
        """Send the signal of a moment in the life of the eventlet pool; gevent's has none in Celery."""
        if self.pool_kind == "eventlet":
            self.app.hooks.get(f"eventlet_pool_{moment}").send(host, **facts)

    def stop(self, how: How = "warm", exitcode: int | None = None) -> None:
        """Ask the worker to stop; may be called from any thread.

        Args:
            how: ``warm`` lets running tasks end, ``cold`` does not.
            exitcode: What `run` shall return.
        """
        if exitcode is not None:
            self.exitcode = exitcode
        self._asked = how
        if self.node is not None:
            self.node.stop(how)

    # --- inside --------------------------------------------------------------------------------------

    def _begin(self) -> None:
        try:
            for companion in self.companions:
                companion.begin()
        except Exception as exc:
            logger.critical("Unrecoverable error: %r", exc, exc_info=True)
            self.stop("cold", EX_FAILURE)

    def _run(self, loop: asyncio.AbstractEventLoop) -> int:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            return runner.run(self._main())

    def _run_beside(self, pool: SoloPool, loop: asyncio.AbstractEventLoop) -> int:
        """Run tasks in this thread and the loop in another one."""
        codes: list[int] = []

        def node() -> None:
            try:
                codes.append(self._run(loop))
            finally:
                pool.leave()
            if self._asked == "cold" and not pool.has_left(0.0 if self._restarts else _LEAVE_SECONDS):
                # What became of its message is told: it must not go on here.
                if self._restarts:
                    self._end_companions()
                    _execute_again()
                os._exit(self.exitcode or 0)

        thread = threading.Thread(target=node, name="celeriac-node")
        thread.start()
        pool.serve_here()
        thread.join()
        return codes[0] if codes else EX_FAILURE

    async def _main(self) -> int:
        self._transport = _transport_to_read(self.app)
        self.node = node = Node(self.app, self._node_settings(), self.pool, self._transport)
        node.herald.on = bool(
            self.app.conf.worker_send_task_events if self.options.events is None else self.options.events
        )
        node.run_beside("events", node.heart)
        self._keep_company(node, self._transport)
        if self.state_file:
            node.run_beside("statedb", StateDB(self.state_file, node.revoked, self.app.clock))
        if node.reminder is not None:  # after who hears of what is revoked from now on
            node.run_beside("reminder", node.reminder)
        watchdog: Watchdog | None = None
        if watchdog_seconds := self.app.conf.worker_watchdog_seconds:
            watchdog = Watchdog(node.link, node.receiver, node.queues, watchdog_seconds)
            node.run_beside("watchdog", watchdog)
        for companion in self.companions:
            companion.join(node)
        if self._asked is not None:
            node.stop(self._asked)
        async with nullcontext() if self._http is None else _asked_over_http(self._http, node, watchdog):
            return await node.run(self._ready)

    def _keep_company(self, node: Node, transport: Transport) -> None:
        """Have the node hear commands, and other workers."""
        gossip, fanout = None, transport.fanout()
        if transport.caps.gossip and not self.options.without_gossip:
            gossip = Gossip(node, fanout)
            node.run_beside("gossip", gossip)
        if self.app.conf.worker_enable_remote_control:
            panel = self.app.panel
            node.paused.hears = True
            state = State(node, panel, panel.consumer_of(self, node), gossip)
            node.run_beside("control", Mailbox(state, fanout))
            if not self.options.without_mingle:
                node.run_beside("mingle", Mingle(node, transport))

    def _ready(self) -> None:
        self.app.hooks.worker_ready.send(sender=self.node)
        logger.info("%s ready.", self.hostname)
        heap.trim()
        self._on_ready()

    def _node_settings(self) -> NodeSettings:
        conf, options = self.app.conf, self.options
        asked = self._asked_per_slot()
        multiplier = 1 if asked is None else asked
        retry: bool = conf.broker_connection_retry
        at_start = conf.broker_connection_retry_on_startup
        return NodeSettings(
            hostname=self.hostname,
            spec=ConsumeSpec(
                queues=self.queues,
                node=self.hostname,
                prefetch=self.concurrency * multiplier,
                lease_seconds=self._lease_seconds,
                siblings=tuple(self.app.router.queues.values()),
            ),
            slots=self.concurrency,
            fair=asked is None,
            autoscale=options.autoscale,
            retry=RetryPolicy(
                retry=retry,
                retry_on_startup=retry if at_start is None else at_start,
                max_retries=conf.broker_connection_max_retries,
                retry_refusals=conf.broker_channel_error_retry,
            ),
            outage=OutagePolicy(
                cancel_running=conf.worker_cancel_long_running_tasks_on_connection_loss,
                fetch_less=conf.worker_enable_prefetch_count_reduction,
                least_prefetch=max(1, multiplier),
            ),
            time_limit=options.time_limit or conf.task_time_limit,
            soft_time_limit=options.soft_time_limit or conf.task_soft_time_limit,
            soft_shutdown_seconds=conf.worker_soft_shutdown_timeout,
            soft_shutdown_when_idle=conf.worker_enable_soft_shutdown_on_idle,
            heartbeat_seconds=None
            if options.without_heartbeat
            else float(options.heartbeat_interval or DEFAULT_SECONDS),
            revoked_seconds=conf.task_revoked_expires,
            warm_shutdown_seconds=conf.worker_shutdown_timeout,
            measured=self._http is not None,
        )

    def _asked_per_slot(self) -> int | None:
        """Return how many messages per slot somebody has asked for, 0 = no limit; None: nobody has."""
        conf = self.app.conf
        if conf.worker_disable_prefetch:
            return 1
        if self.options.prefetch_multiplier is not None:
            return self.options.prefetch_multiplier
        if conf.origin("worker_prefetch_multiplier")[0] == "default":
            return None
        multiplier: int = conf.worker_prefetch_multiplier
        return multiplier

    def _begin_anew(self) -> None:
        """Get rid of a task that nothing else can end: hand back what waits and execute the program again."""
        self._restarts = self._restarts or self._asked is None
        self.stop("cold", 0)

    def _end_companions(self) -> None:
        for companion in reversed(self.companions):
            companion.end(cold=self._asked == "cold")
        self.app.hooks.worker_shutdown.send(sender=self)

    def _close(self) -> None:
        if self._transport is not None and self._transport is not self.app.transport:
            self._transport.close()
        self.app.close()

    # --- signals ---------------------------------------------------------------------------------------

    def _on_signal(self, number: int) -> None:
        """Act on a signal, on the loop."""
        number = meaning(number)
        if number == signal.SIGHUP:
            self._on_hangup()
            return
        self._restarts = False  # who asks for an end after asking for a new beginning wants the end
        if number == signal.SIGINT:
            self._on_interrupt()
        elif number == signal.SIGQUIT:
            self._shut_down(number, "cold", 0)
        else:
            say("worker: Warm shutdown (MainProcess)")
            self._shut_down(number, "warm", 0)

    def _on_interrupt(self) -> None:
        self._interrupts += 1
        if self._interrupts == 1:
            say("worker: Hitting Ctrl+C again will initiate cold shutdown, terminating all running tasks!")
            say("worker: Warm shutdown (MainProcess)")
            self._shut_down(signal.SIGINT, "warm", EX_FAILURE)
        else:
            if self._interrupts == 2:
                say("worker: Hitting Ctrl+C again will terminate all running tasks!")
            self._shut_down(signal.SIGINT, "cold", 0)

    def _on_hangup(self) -> None:
        if self._asked is not None or (sys.__stdout__ is not None and sys.__stdout__.isatty()):
            return
        say(f"Restarting celery worker ({' '.join(sys.orig_argv)})")
        self._restarts = True
        self._shut_down(signal.SIGHUP, "warm", 0)

    def _shut_down(self, number: int, how: How, exitcode: int) -> None:
        if how == "cold":
            self._hurries += 1
            if self._hurries == _HURRIES_BEFORE_EXIT:
                # The children die with us.
                os._exit(EX_FAILURE if number == signal.SIGINT else exitcode)
        self.app.hooks.worker_shutting_down.send(
            sender=self.hostname, sig=signal.Signals(number).name, how=how.title(), exitcode=exitcode
        )
        self.stop(how, exitcode)


def _queues(app: Celeriac, options: NodeOptions) -> tuple[Queue, ...]:
    router = app.router
    if options.queues:
        router.select(options.queues)
    if options.exclude_queues:
        router.deselect(options.exclude_queues)
    if app.conf.worker_direct:
        own = Queue(
            name=f"{options.hostname}.dq2", exchange=Exchange(name="C.dq2"), routing_key=options.hostname
        )
        router.add(own)
    return router.consume_from()


def _transport_to_read(app: Celeriac) -> Transport:
    """Return the broker to consume from, which need not be the one that the app sends to."""
    if connections.broker_url(app.conf, write=False) == connections.broker_url(app.conf, write=True):
        return app.transport
    return connections.connect_broker(app.conf, app_name=app.main, write=False)


def _check_app(app: Celeriac) -> None:
    """Find out before anything runs whether there is the app's time zone, and who counts and locks tasks.

    Raises:
        ConfigError: There is no such time zone; limited tasks cannot be counted, or unique ones locked; a
            limit that a task has by the settings makes no sense.
    """
    app.now()  # each task's end is dated
    tasks = app.tasks.values()
    for task in tasks:
        limits.check(task)
    if any(task.concurrency_limit is not None or task.rate_limit_scope == "global" for task in tasks):
        connections.connect_permits(app.conf, _transport_to_read(app), app_name=app.main)
    if app.uniques:
        connections.connect_locks(app.conf, _transport_to_read(app), app_name=app.main)


def _asked_over_http(
    address: HttpAddress, node: Node, watchdog: Watchdog | None
) -> AbstractAsyncContextManager[Any]:  # Any: nobody asks what is entered
    """Return what answers those who ask over HTTP how the node is."""
    # Here, for the tables of HTTP would be in the memory of every worker.
    from celeriac.node.health.node_condition import NodeCondition
    from celeriac.node.health.server import HealthServer

    return HealthServer(NodeCondition(node, watchdog), address)


def _as_given(options: NodeOptions) -> dict[str, Any]:
    """Return the options as receivers of hooks see them."""
    given = msgspec.structs.asdict(options)
    return {**given, **given.pop("extra")}


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def own_program() -> list[str]:
    """Return the command line of this process, with the interpreter."""
    return [sys.executable, *sys.orig_argv[1:]]


def _program(pool_kind: str, method: str, program: Sequence[str]) -> tuple[str, ...]:
    """Return what children begin with: nothing where they are forked, or where there are none."""
    if pool_kind in pools.PATCHED:
        return tuple(program)
    if pool_kind not in {"prefork", "processes"} or method in {
        "fork",
        "forkserver",
    }:  # the forker is a server that forks
        return ()
    if method != "spawn":
        raise ConfigError(f"worker_pool_start_method is {method!r}; there are fork, forkserver and spawn.")
    if not program:
        raise ConfigError(
            "worker_pool_start_method is 'spawn', which begins each child with the worker's own command "
            "line, and this worker has none: it runs inside of another program. Use the worker command."
        )
    return tuple(program)


def _execute_again() -> None:
    """Replace this process by a new one with the same command line."""
    program = own_program()
    os.execv(program[0], program)  # noqa: S606 - our own command line
