"""Asks a worker over HTTP how it is, at a socket in the file system."""

from __future__ import annotations

import http.client
import re
import socket
import time

TIMEOUT = 60.0


class OverUnix(http.client.HTTPConnection):
    """HTTP to a socket in the file system."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(TIMEOUT)
        self.sock.connect(self._path)


def ask(path: str, what: str, method: str = "GET") -> tuple[int, str]:
    connection = OverUnix(path)
    try:
        connection.request(method, what)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def until(path: str, what: str, status: int) -> str:
    """Ask again until the answer has a status, and return its text."""
    deadline = time.monotonic() + TIMEOUT
    while True:
        try:
            found, text = ask(path, what)
        except (FileNotFoundError, ConnectionError) as exc:  # nobody listens yet, or only to see if it can
            found, text = 0, str(exc)
        if found == status:
            return text
        assert time.monotonic() < deadline, (found, text)
        time.sleep(0.01)


def figure(text: str, name: str) -> float:
    """Return one figure; the name with its labels."""
    (value,) = re.findall(rf"^{re.escape(name)} (.+)$", text, re.MULTILINE)
    return float(value)
