"""A user's shell in an example's folder, and the mail server that the examples talk to."""

from __future__ import annotations

import socketserver
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from queue import Queue

from processes import Program, run, user_environment


class Shell:
    """A user in a copy of an example's folder.

    Args:
        folder: The copy.
        home: Home folder of the user.
        settings: Environment variables, such as CELERY_BROKER_URL for the private server.
    """

    def __init__(self, folder: Path, home: Path, settings: dict[str, str]) -> None:
        self.folder = folder
        self.environment = user_environment(home, **settings)
        self._programs = ExitStack()

    def start(self, *command: str) -> Program:
        """Start a program in the background."""
        return self._programs.enter_context(Program(command, cwd=self.folder, env=self.environment))

    def run(self, *command: str) -> str:
        """Run a program to its end and return what it printed."""
        return run(command, cwd=self.folder, env=self.environment)

    def attempt(self, *command: str) -> tuple[int, str]:
        """Run a program to its end and return its exit code and what it printed."""
        with Program(command, cwd=self.folder, env=self.environment) as program:
            return program.finish(), program.output

    def python(self, code: str) -> str:
        """Type something into Python."""
        return self.run("python", "-c", code)

    def close(self) -> None:
        """End what still runs."""
        self._programs.close()


OpenShell = Callable[..., Shell]


class SmtpSink(socketserver.ThreadingTCPServer):
    """A mail server that takes every message and keeps it."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Mail)
        self.messages: Queue[tuple[list[str], str]] = Queue()

    @property
    def port(self) -> int:
        """Where it listens."""
        port: int = self.server_address[1]
        return port


class _Mail(socketserver.StreamRequestHandler):
    server: SmtpSink

    def handle(self) -> None:
        """Speak as much SMTP (RFC 5321) as a sender needs."""
        self._say("220 sink ready")
        recipients: list[str] = []
        while line := self.rfile.readline().decode().rstrip("\r\n"):
            verb = line.split(":", 1)[0].upper()
            if verb == "RCPT TO":
                recipients.append(line.partition(":")[2].strip().strip("<>"))
            if verb == "DATA":
                self._say("354 go on")
                text = []
                while (part := self.rfile.readline().decode()) not in {".\r\n", ""}:
                    text.append(part)
                self.server.messages.put((recipients, "".join(text)))
            if verb == "QUIT":
                self._say("221 bye")
                return
            self._say("250 sink")

    def _say(self, text: str) -> None:
        self.wfile.write(f"{text}\r\n".encode())
