"""The proxy breaks what it is told to break, and nothing else."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from faults.proxy import Proxy
from servers.ports import LOOPBACK, free_port

TIMEOUT = 20.0
SILENCE_SECONDS = 0.3  # long enough to see that nothing comes


class Echo:
    """A server that answers with what it gets, and remembers it."""

    def __init__(self) -> None:
        self._listener = socket.create_server((LOOPBACK, 0))
        self.port: int = self._listener.getsockname()[1]
        self.heard = b""
        self.news = threading.Condition()
        self.resets = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def wait_for(self, text: bytes) -> None:
        with self.news:
            assert self.news.wait_for(lambda: text in self.heard, TIMEOUT), self.heard

    def wait_for_reset(self) -> None:
        with self.news:
            assert self.news.wait_for(lambda: self.resets > 0, TIMEOUT)

    def close(self) -> None:
        self._listener.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(65536):
                    with self.news:
                        self.heard += data
                        self.news.notify_all()
                    connection.sendall(data)
            except ConnectionResetError:
                with self.news:
                    self.resets += 1
                    self.news.notify_all()


@pytest.fixture
def echo() -> Iterator[Echo]:
    server = Echo()
    yield server
    server.close()


@pytest.fixture
def proxy(echo: Echo) -> Iterator[Proxy]:
    with Proxy(echo.port) as proxy:
        yield proxy


@pytest.fixture
def client(proxy: Proxy) -> Iterator[socket.socket]:
    with socket.create_connection((LOOPBACK, proxy.port), TIMEOUT) as client:
        client.sendall(b"hello")
        assert heard(client, 5) == b"hello"
        yield client


def heard(client: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = client.recv(size - len(data))
        if not more:
            break
        data += more
    return data


def silent(client: socket.socket) -> bool:
    client.settimeout(SILENCE_SECONDS)
    try:
        client.recv(1)
    except TimeoutError:
        return True
    finally:
        client.settimeout(TIMEOUT)
    return False


def test_a_cut_resets_both_sides(proxy: Proxy, client: socket.socket, echo: Echo) -> None:
    assert proxy.cut() == 1

    with pytest.raises(ConnectionResetError):
        client.recv(1)
    echo.wait_for_reset()
    assert proxy.connections == 0


def test_nobody_is_let_in_until_it_admits_again(proxy: Proxy, client: socket.socket) -> None:
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((LOOPBACK, proxy.port), TIMEOUT)
    client.sendall(b"still here")
    assert heard(client, 10) == b"still here"

    proxy.admit()

    with socket.create_connection((LOOPBACK, proxy.port), TIMEOUT) as second:
        second.sendall(b"x")
        assert heard(second, 1) == b"x"


def test_a_black_hole_swallows_answers_only_and_gives_them_back(
    proxy: Proxy, client: socket.socket, echo: Echo
) -> None:
    proxy.block("to_client")
    client.sendall(b"question")
    echo.wait_for(b"question")
    assert silent(client)

    proxy.heal()

    assert heard(client, 8) == b"question"


def test_a_black_hole_swallows_questions(proxy: Proxy, client: socket.socket, echo: Echo) -> None:
    proxy.block("to_server")
    client.sendall(b"question")
    assert silent(client)
    assert b"question" not in echo.heard

    proxy.heal()

    assert heard(client, 8) == b"question"


def test_a_black_hole_hides_that_the_other_side_has_gone(proxy: Proxy, client: socket.socket) -> None:
    proxy.block()
    client.close()
    assert proxy.connections == 1


@pytest.mark.parametrize(("keep", "arrives"), [(0, b"hello12"), (2, b"hello12ST"), (None, b"hello12STOP34")])
def test_a_trap_breaks_in_the_middle(
    proxy: Proxy, client: socket.socket, echo: Echo, keep: int | None, arrives: bytes
) -> None:
    trap = proxy.trap("to_server", b"STOP", keep=keep)

    client.sendall(b"12STOP34")

    assert trap.sprung.wait(TIMEOUT)
    echo.wait_for_reset()
    assert echo.heard == arrives
    with socket.create_connection((LOOPBACK, proxy.port), TIMEOUT) as second:
        second.sendall(b"STOP")
        assert heard(second, 4) == b"STOP"  # it has sprung once


def test_a_trap_sees_what_comes_in_pieces(proxy: Proxy, client: socket.socket, echo: Echo) -> None:
    trap = proxy.trap("to_server", b"STOP", keep=0)
    for piece in (b"S", b"T", b"O"):
        client.sendall(piece)
        assert heard(client, 1) == piece

    client.sendall(b"P")

    assert trap.sprung.wait(TIMEOUT)
    assert echo.heard == b"helloSTO"


def test_slices_and_delays_keep_the_bytes_in_order(proxy: Proxy, client: socket.socket) -> None:
    text = bytes(range(256)) * 8
    proxy.slice(7)
    proxy.slow(0.01)

    client.sendall(text)

    assert heard(client, len(text)) == text


def test_it_moves_to_another_address(proxy: Proxy, client: socket.socket) -> None:
    proxy.move("127.0.0.2")

    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((LOOPBACK, proxy.port), TIMEOUT)
    with socket.create_connection(("127.0.0.2", proxy.port), TIMEOUT) as second:
        second.sendall(b"x")
        assert heard(second, 1) == b"x"


def test_a_server_that_is_away_resets(echo: Echo) -> None:
    def talk(port: int) -> bytes:
        with socket.create_connection((LOOPBACK, port), TIMEOUT) as client:
            client.sendall(b"x")
            return heard(client, 1)

    with Proxy(free_port()) as proxy:
        with pytest.raises((ConnectionResetError, BrokenPipeError)):  # it depends on who is faster
            talk(proxy.port)

        proxy.retarget(echo.port)

        assert talk(proxy.port) == b"x"
