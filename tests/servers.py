"""Private servers of the test run: Redis, RabbitMQ, PostgreSQL and memcached on free loopback ports.

Each keeps its data in a temporary directory of its own and never touches a server that was there before.
They start when a test first asks for them (`conftest.py` has the fixtures) and end with the run, also when
the run is killed: a watchdog process holds the reading end of a pipe whose writing end dies with the tests,
and then ends every server it was told of.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, TypeVar

LOOPBACK = "127.0.0.1"
POLL_SECONDS = 0.02  # between looks at a foreign server that is starting: it has no signal to wait for
STOP_SECONDS = 10.0

Answer = TypeVar("Answer")


class MissingServer(Exception):
    """The server's program is not installed; the text says how to install it."""


class ServerEnded(RuntimeError):
    """The server ended before it answered; the text has the end of its log."""


def required() -> bool:
    """Whether a missing server is a failure (CI, ``make test``) and not a reason to skip."""
    return os.environ.get("CI", "").lower() in {"1", "true"} or bool(
        os.environ.get("CELERIAC_REQUIRE_SERVERS")
    )


# --- ports, processes ---------------------------------------------------------------------------------

_taken: set[int] = set()
_ports = threading.Lock()


def free_port() -> int:
    """Return a loopback port that nobody listens on and that this function has not returned before."""
    with _ports:
        while True:
            with socket.create_server((LOOPBACK, 0)) as probe:
                port: int = probe.getsockname()[1]
            if port not in _taken:
                _taken.add(port)
                return port


_WATCHDOG = """
import os, shutil, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
groups, folders = set(), []
for line in sys.stdin:
    verb, _, what = line.rstrip("\\n").partition(" ")
    if verb == "group":
        groups.add(int(what))
    elif verb == "ended":
        groups.discard(int(what))
    elif verb == "folder":
        folders.append(what)
    elif verb == "end":
        break
for group in groups:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        pass
for folder in folders:
    shutil.rmtree(folder, ignore_errors=True)
"""


class Watchdog:
    """A process that outlives the tests by a moment, to end what they started.

    Duties: 1. remember process groups and temporary folders; 2. when this process is gone, however that came
    about, kill the groups and remove the folders.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    def tell(self, verb: str, what: object) -> None:
        """Pass on one line: ``group`` or ``ended`` with a process group's id, ``folder`` with a path."""
        with self._lock:
            if self._process is None:
                self._process = subprocess.Popen(
                    [sys.executable, "-I", "-S", "-c", _WATCHDOG],
                    stdin=subprocess.PIPE,
                    text=True,
                    start_new_session=True,
                )
            assert self._process.stdin is not None
            self._process.stdin.write(f"{verb} {what}\n")
            self._process.stdin.flush()

    def close(self) -> None:
        """Let it do its work now and wait until it has."""
        with self._lock:
            process, self._process = self._process, None
        if process is not None:
            process.communicate("end\n", timeout=STOP_SECONDS)


watchdog = Watchdog()


def temporary_folder(prefix: str, owner: str | None = None) -> Path:
    """Return a new folder that is removed when the test run ends; ``owner`` is a user's name."""
    folder = Path(tempfile.mkdtemp(prefix=f"celeriac-{prefix}-"))
    watchdog.tell("folder", folder)
    if owner is not None:
        shutil.chown(folder, owner)
    return folder


def until(look: Callable[[], Answer | None], timeout: float, what: str) -> Answer:
    """Call ``look`` until it returns something other than None.

    Only for what has no signal to wait for: a foreign server that starts.
    """
    deadline = time.monotonic() + timeout
    while True:
        if (answer := look()) is not None:
            return answer
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout} s for {what}")
        time.sleep(POLL_SECONDS)


# --- what all servers have ------------------------------------------------------------------------------


class Server:
    """One private server process.

    Duties: 1. start: find the program, make the data folder, run it on its port, wait until it answers;
    2. kill, freeze, thaw, restart: what tests of failures need, the data stays; 3. stop: end it for good.
    """

    program: ClassVar[str]
    package: ClassVar[str]  # Debian's name
    start_seconds: ClassVar[float] = 20.0
    _all: ClassVar[list[Server]] = []
    _owner: ClassVar[int] = os.getpid()  # a forked child that exits must not stop its parent's servers

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.RLock()
        self._fresh = itertools.count(1)
        self.port = 0
        self.folder = Path()

    # --- for the kinds ---

    def prepare(self) -> None:
        """Make what the server needs before its first start."""

    def command(self) -> Sequence[str]:
        """Return the command line that runs it in the foreground."""
        raise NotImplementedError

    def environment(self) -> Mapping[str, str]:
        """Return its environment."""
        return os.environ

    def user(self) -> str | None:
        """Return the name of the user to run as; None = as we are."""
        return None

    def answers(self) -> bool:
        """Whether it can be used now."""
        raise NotImplementedError

    def shut_down(self) -> None:
        """Ask it to end by itself."""
        assert self._process is not None
        self._process.terminate()

    # --- for tests ---

    @property
    def pid(self) -> int:
        """The process id of the server."""
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether its process lives."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it and return when it answers; again after `kill` with the same port and data."""
        with self._lock:
            if self.running:
                return
            if self._process is not None:
                self._run()
                return
            self._set_up()
            try:
                self._run()
            except ServerEnded:
                # A free port can be found, but not reserved: somebody may have been faster.
                self._set_up()
                self._run()

    def kill(self) -> None:
        """Kill -9, as a power cut would; `start` brings it back."""
        with self._lock:
            self._signal(signal.SIGKILL)
            self._reap()

    def restart(self) -> None:
        """End it in good order and start it again."""
        self.stop()
        self.start()

    def freeze(self) -> None:
        """Stop its clock: connections stay open and nobody answers, as behind a black hole."""
        self._signal(signal.SIGSTOP)
        # On a busy machine its threads go on for a moment, in which it would still answer.
        until(
            lambda: set("".join(self._thread_states())) <= {"T", "Z"} or None,
            STOP_SECONDS,
            "it to stand still",
        )

    def thaw(self) -> None:
        """Let it go on after `freeze`."""
        self._signal(signal.SIGCONT)

    def stop(self) -> None:
        """End it in good order, by force when it takes too long; does nothing when it is not running."""
        with self._lock:
            if not self.running:
                return
            self.thaw()
            assert self._process is not None
            try:
                self.shut_down()
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                pass  # it had its time
            finally:
                self._signal(signal.SIGKILL)
                self._reap()

    @classmethod
    def stop_all(cls) -> None:
        """Stop every server of this process, the last started first, and remove their data."""
        if os.getpid() != cls._owner:
            return
        try:
            while cls._all:
                cls._all.pop().stop()
        finally:
            watchdog.close()  # ends what is left when one of them would not

    @classmethod
    def find(cls, name: str, *folders: str) -> str:
        """Return the path of a program of this server.

        Raises:
            MissingServer: It is not installed.
        """
        path = os.pathsep.join([*folders, os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
        found = shutil.which(name, path=path)
        if found is None:
            raise MissingServer(f"{name} is not installed: sudo apt-get install -y {cls.package}")
        return found

    def log(self) -> str:
        """Return what the server has printed so far."""
        path = self.folder / "server.log"
        return path.read_text(errors="replace") if path.exists() else ""

    # --- inside ---

    def _set_up(self) -> None:
        self.find(self.program)
        self.port = free_port()
        self.folder = temporary_folder(self.program, self.user())
        self.prepare()
        Server._all.append(self)

    def _run(self) -> None:
        user = self.user()
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                self.command(),
                cwd=self.folder,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                user=user,
                group=pwd.getpwnam(user).pw_gid if user else None,
                extra_groups=[] if user else None,
            )
        watchdog.tell("group", self._process.pid)
        try:
            until(lambda: self._ready_or_dead() or None, self.start_seconds, f"{self.program} to answer")
        except TimeoutError as exc:
            raise RuntimeError(f"{exc}; its log:\n{self.log()[-4000:]}") from None

    def _ready_or_dead(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise ServerEnded(f"{self.program} ended with {self._process.returncode}:\n{self.log()[-4000:]}")
        return self.answers()

    def _signal(self, number: int) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def _thread_states(self) -> Iterator[str]:
        """Yield the state of every thread of its process group, one letter each, as ``ps`` shows them."""
        for entry in Path("/proc").glob("[0-9]*/task/[0-9]*/stat"):
            with contextlib.suppress(OSError):  # it has ended meanwhile
                state, _, group, *_ = entry.read_text().rpartition(")")[2].split()
                if int(group) == self.pid:
                    yield state

    def _reap(self) -> None:
        assert self._process is not None
        self._process.wait()
        watchdog.tell("ended", self._process.pid)

    def _says(self, question: bytes, answer: bytes) -> bool:
        """Whether the port answers a line with another."""
        try:
            with socket.create_connection((LOOPBACK, self.port), timeout=1.0) as connection:
                connection.sendall(question)
                return connection.recv(64).startswith(answer)
        except OSError:
            return False


atexit.register(Server.stop_all)


def unprivileged(*names: str) -> str | None:
    """Return the first of the users that exists when we are root (some servers refuse root), else None."""
    if os.geteuid() != 0:
        return None
    for name in (*names, "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise MissingServer("no unprivileged user to run the server as: adduser --system celeriac")


# --- the four kinds -----------------------------------------------------------------------------------------


class RedisServer(Server):
    """Redis, durable over `kill` and `start` (append-only file), with 1,000 databases to hand out.

    Args:
        *options: More options, as on redis-server's command line.
    """

    program = "redis-server"
    package = "redis-server"

    def __init__(self, *options: str) -> None:
        super().__init__()
        self._options = options

    @property
    def url(self) -> str:
        """The server without a database."""
        return f"redis://{LOOPBACK}:{self.port}"

    @property
    def socket_path(self) -> Path:
        """The Unix socket that it listens on, too."""
        return self.folder / "redis.sock"

    def fresh_url(self) -> str:
        """Return the URL of a database that nobody has used yet (channels are not per database)."""
        return f"{self.url}/{next(self._fresh)}"

    def command(self) -> Sequence[str]:
        """Return the command line."""
        settings = {
            "--port": str(self.port),
            "--bind": LOOPBACK,
            "--unixsocket": str(self.socket_path),
            "--dir": str(self.folder),
            "--databases": "1000",
            "--save": "",
            "--appendonly": "yes",
            "--appendfsync": "no",  # the operating system outlives our kill -9
        }
        return [self.find("redis-server"), *itertools.chain(*settings.items()), *self._options]

    def answers(self) -> bool:
        """Whether it has loaded its data; one with a password says so and is ready as well."""
        return self._says(b"PING\r\n", b"+PONG") or self._says(b"PING\r\n", b"-NOAUTH")


class MemcachedServer(Server):
    """memcached with 64 MB; everything is gone after `kill`."""

    program = "memcached"
    package = "memcached"

    @property
    def address(self) -> str:
        """Host and port, as `cache+memcached://` takes it."""
        return f"{LOOPBACK}:{self.port}"

    @property
    def url(self) -> str:
        """The URL of a result backend on it."""
        return f"cache+memcached://{self.address}/"

    def user(self) -> str | None:
        """It refuses to run as root."""
        return unprivileged("memcache")

    def command(self) -> Sequence[str]:
        """Return the command line."""
        return [self.find("memcached"), "-l", LOOPBACK, "-p", str(self.port), "-U", "0", "-m", "64"]

    def shut_down(self) -> None:
        """Kill it: it has nothing to save, and takes a second to end by itself."""
        assert self._process is not None
        self._process.kill()

    def answers(self) -> bool:
        """Whether it serves."""
        return self._says(b"version\r\n", b"VERSION")


class PostgresServer(Server):
    """PostgreSQL with fsync off and a Unix socket of its own; the user is ``celeriac``, without password."""

    program = "postgres"
    package = "postgresql"
    start_seconds = 30.0

    @classmethod
    def find(cls, name: str, *folders: str) -> str:
        """Look where Debian keeps it, too: it puts only the client on the PATH."""
        versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: -float(p.parent.name))
        return super().find(name, *map(str, versions), *folders)

    @property
    def url(self) -> str:
        """The URL of the database ``postgres``, as psycopg takes it."""
        return self._url("postgresql", "postgres")

    def fresh_url(self, scheme: str = "postgresql") -> str:
        """Make an empty database and return its URL; ``scheme`` such as ``db+postgresql``."""
        name = f"test_{next(self._fresh)}"
        psql = self.find("psql")
        subprocess.run(
            [psql, "-qAt", "-d", self.url, "-c", f"CREATE DATABASE {name} STRATEGY file_copy"]
            if self._version() >= 15
            else [psql, "-qAt", "-d", self.url, "-c", f"CREATE DATABASE {name}"],
            check=True,
            capture_output=True,
        )
        return self._url(scheme, name)

    def user(self) -> str | None:
        """It refuses to run as root."""
        return unprivileged("postgres")

    def prepare(self) -> None:
        """Make the cluster."""
        user = self.user()
        options = ["-U", "celeriac", "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync"]
        subprocess.run(
            [self.find("initdb"), "-D", str(self.folder / "data"), *options],
            check=True,
            capture_output=True,
            cwd=self.folder,
            user=user,
            group=pwd.getpwnam(user).pw_gid if user else None,
            extra_groups=[] if user else None,
        )

    def command(self) -> Sequence[str]:
        """Return the command line."""
        settings = {
            "listen_addresses": LOOPBACK,
            "port": str(self.port),
            "unix_socket_directories": str(self.folder),
            "fsync": "off",  # the operating system outlives our kill -9
            "full_page_writes": "off",
            "max_connections": "200",
            "shared_buffers": "32MB",
        }
        options = itertools.chain.from_iterable(("-c", f"{k}={v}") for k, v in settings.items())
        return [self.find("postgres"), "-D", str(self.folder / "data"), *options]

    def answers(self) -> bool:
        """Whether it takes queries."""
        asked = subprocess.run(
            [self.find("pg_isready"), "-q", "-h", LOOPBACK, "-p", str(self.port)], check=False
        )
        return asked.returncode == 0

    def shut_down(self) -> None:
        """Ask for a fast shutdown: sessions are ended, data is kept."""
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)

    def _version(self) -> int:
        return int((self.folder / "data" / "PG_VERSION").read_text().split(".")[0])

    def _url(self, scheme: str, database: str) -> str:
        return f"{scheme}://celeriac@{LOOPBACK}:{self.port}/{database}"


class RabbitServer(Server):
    """RabbitMQ with a node name, port mapper, cookie and folders of its own; user ``guest``, vhost ``/``.

    Users and vhosts are added by `ctl`, as an operator does it.
    """

    program = "rabbitmq-server"
    package = "rabbitmq-server"
    start_seconds = 60.0

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
        self.evaluate(
            f'rabbit_vhost:add(<<"{name}">>, <<"guest">>), '
            f'rabbit_auth_backend_internal:set_permissions(<<"guest">>, <<"{name}">>, '
            '<<".*">>, <<".*">>, <<".*">>, <<"guest">>).'
        )
        return f"amqp://guest:guest@{self.address}/{name}"

    def ctl(self, *arguments: str) -> str:
        """Run rabbitmqctl (it takes about a second) and return what it printed.

        Raises:
            subprocess.CalledProcessError: It refused.
        """
        return self._call([self.find("rabbitmqctl"), "--quiet", "--node", self._node, *arguments])

    def evaluate(self, expression: str) -> str:
        """Evaluate Erlang in the server, quicker than `ctl`: 20 ms instead of a second."""
        cookie = (self.folder / ".erlang.cookie").read_text()
        caller = ["-c", cookie, "-n", self._node, "-timeout", "30", "-e"]
        answer = self._call([self.find("erl_call", "/usr/lib/erlang/bin"), *caller], expression + "\n")
        if not answer.startswith("{ok,"):
            raise RuntimeError(f"{expression} -> {answer}")
        return answer

    def prepare(self) -> None:
        """Write the settings."""
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

    def stop(self) -> None:
        """End it and, with it, its port mapper."""
        super().stop()
        with self._lock:
            mapper, self._mapper = self._mapper, None
            if mapper is not None:
                mapper.kill()
                mapper.wait()
                watchdog.tell("ended", mapper.pid)

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
