"""A private RabbitMQ."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence

from servers.ports import LOOPBACK, free_port
from servers.server import Server, until
from servers.watchdog import watchdog


class RabbitServer(Server):
    """RabbitMQ with a node name, port mapper, cookie and folders of its own; user ``guest``, vhost ``/``.

    `ctl` is what an operator has; the other methods do the same in the server, in 20 ms instead of a second.
    """

    program = "rabbitmq-server"
    package = "rabbitmq-server"
    start_seconds = 120.0  # 3 on a machine that has nothing else to do

    def __init__(self) -> None:
        super().__init__()
        self._mapper: subprocess.Popen[bytes] | None = None
        self._mapper_port = 0
        self._dist_port = 0

    @classmethod
    def find(cls, name: str, *folders: str) -> str:
        """Look past Debian's wrappers, which change to the public server's user and folders."""
        return super().find(name, "/usr/lib/rabbitmq/bin", *folders)

    @property
    def address(self) -> str:
        """Host and port."""
        return f"{LOOPBACK}:{self.port}"

    @property
    def url(self) -> str:
        """The URL of the vhost ``/``."""
        return f"amqp://guest:guest@{self.address}//"

    def fresh_url(self) -> str:
        """Make an empty vhost and return its URL."""
        name = f"test_{next(self._fresh)}"
        self.add_vhost(name)
        self.allow("guest", name)
        return f"amqp://guest:guest@{self.address}/{name}"

    def add_vhost(self, name: str) -> None:
        """Make an empty vhost, as ``rabbitmqctl add_vhost`` does."""
        self.evaluate(f'rabbit_vhost:add(<<"{name}">>, <<"guest">>).')

    def add_user(self, name: str, password: str, tag: str) -> None:
        """Make a user, as ``rabbitmqctl add_user`` and ``set_user_tags`` do."""
        self.evaluate(
            f'rabbit_auth_backend_internal:add_user(<<"{name}">>, <<"{password}">>, <<"guest">>), '
            f'rabbit_auth_backend_internal:set_tags(<<"{name}">>, [{tag}], <<"guest">>).'
        )

    def allow(self, user: str, vhost: str, *, configure: str = ".*") -> None:
        """Let a user write and read everything in a vhost, as ``rabbitmqctl set_permissions`` does.

        Args:
            user: Who.
            vhost: Where.
            configure: What the user may make, as a regular expression.
        """
        self.evaluate(
            f'rabbit_auth_backend_internal:set_permissions(<<"{user}">>, <<"{vhost}">>, '
            f'<<"{configure}">>, <<".*">>, <<".*">>, <<"guest">>).'
        )

    def ctl(self, *arguments: str) -> str:
        """Run rabbitmqctl (it takes about a second) and return what it printed.

        Raises:
            subprocess.CalledProcessError: It refused.
        """
        return self._call([self.find("rabbitmqctl"), "--quiet", "--node", self._node, *arguments])

    def evaluate(self, expression: str) -> str:
        """Evaluate Erlang in the server."""
        answer = until(lambda: self._evaluated(expression), self.start_seconds, "RabbitMQ's Erlang to answer")
        if not answer.startswith("{ok,"):
            raise RuntimeError(f"{expression} -> {answer}")
        return answer

    def prepare(self) -> None:
        """Write the settings."""
        self._end_mapper()  # of a first attempt, on another port
        self._mapper_port = free_port()
        self._dist_port = free_port()
        (self.folder / ".erlang.cookie").write_text("CELERIAC" + os.urandom(8).hex())
        (self.folder / ".erlang.cookie").chmod(0o400)
        (self.folder / "env.conf").touch()
        (self.folder / "enabled_plugins").write_text("[].\n")
        (self.folder / "rabbitmq.conf").write_text(
            "disk_free_limit.absolute = 10MB\nlog.console = true\nlog.console.level = warning\n"
        )

    def command(self) -> Sequence[str]:
        """Return the command line."""
        return [self.find("rabbitmq-server")]

    def environment(self) -> Mapping[str, str]:
        """Return an environment in which nothing of a public server is left."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("RABBITMQ_", "ERL_"))}
        return {
            **clean,
            "HOME": str(self.folder),  # the cookie
            "ERL_EPMD_PORT": str(self._mapper_port),
            "ERL_EPMD_ADDRESS": LOOPBACK,
            "RABBITMQ_NODENAME": self._node,
            "RABBITMQ_NODE_IP_ADDRESS": LOOPBACK,
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_BASE": str(self.folder),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": str(self.folder / "env.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "enabled_plugins"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(self.folder / "generated"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(self.folder / "advanced.config"),
            "RABBITMQ_PID_FILE": str(self.folder / "pid"),
            # Its schedulers spin for work by default, which two cores under test cannot spare.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none",
        }

    def answers(self) -> bool:
        """Whether it answers a greeting of an AMQP version that does not exist with the one that does."""
        return self._says(b"AMQP\x00\x00\x00\x00", b"AMQP\x00\x00\x09\x01")

    def shut_down(self) -> None:
        """End the Erlang machine in good order."""
        self.evaluate("init:stop().")

    def kill(self) -> None:
        """Kill -9; what it has declared is on disk before: it says so to clients a moment too early."""
        with self._lock:
            if self.running:
                self.evaluate("mnesia:sync_log(), [dets:sync(Table) || Table <- dets:all()].")
            super().kill()

    def stop(self) -> None:
        """End it and, with it, its port mapper."""
        super().stop()
        with self._lock:
            self._end_mapper()

    @property
    def _node(self) -> str:
        return f"celeriac{self.port}@localhost"

    def _run(self) -> None:
        if self._mapper is None:
            mapper = [self.find("epmd", "/usr/lib/erlang/bin"), "-address", LOOPBACK]
            self._mapper = subprocess.Popen(
                [*mapper, "-port", str(self._mapper_port)],
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            watchdog.tell("group", self._mapper.pid)
        super()._run()

    def _end_mapper(self) -> None:
        mapper, self._mapper = self._mapper, None
        if mapper is not None:
            mapper.kill()
            mapper.wait()
            watchdog.tell("ended", mapper.pid)

    def _evaluated(self, expression: str) -> str | None:
        """Return what the server makes of it; None when it cannot be reached yet."""
        cookie = (self.folder / ".erlang.cookie").read_text()
        caller = ["-c", cookie, "-n", self._node, "-timeout", "30", "-e"]
        try:
            return self._call([self.find("erl_call", "/usr/lib/erlang/bin"), *caller], expression + "\n")
        except subprocess.CalledProcessError as exc:
            if "failed to connect" in exc.stderr:
                return None
            raise RuntimeError(f"{expression} -> {exc.stdout}{exc.stderr}") from exc

    def _call(self, command: Sequence[str], question: str | None = None) -> str:
        done = subprocess.run(
            command,
            input=question,
            env=self.environment(),
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        return done.stdout
