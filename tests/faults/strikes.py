"""What is broken, how, and how it is mended: one function per fault, to be called while the system works.

Each returns when the fault is over and whatever was broken is whole again, or gone for good.
"""

from __future__ import annotations

import os
import signal
import socket
import time

from celeriac.message import Envelope, Outgoing, Props
from faults.field import LEASE_SECONDS, QUEUE, Field, Node
from faults.proxy import BOTH, Direction, Proxy
from redis_probe import command
from servers import RabbitServer, Server
from servers.ports import LOOPBACK

OUTAGE_SECONDS = 1.0
LONGER_THAN_A_LEASE_SECONDS = 2 * LEASE_SECONDS
CUTS = 20

_CUTS: tuple[tuple[Direction, ...], ...] = (("to_server",), BOTH)

# What passes at the steps of the protocols; AMQP: class and method at the beginning of a frame's payload.
STEPS: dict[str, dict[str, tuple[bytes, ...]]] = {
    "redis": {
        "receiving": (b"EVALSHA", b"BLMOVE"),
        "settling": (b"HDEL", b"EVALSHA"),
        "storing": (b"celery-task-meta-",),
    },
    "amqp": {
        "receiving": (b"\x00\x3c\x00\x3c",),  # basic.deliver
        "settling": (b"\x00\x3c\x00\x50",),  # basic.ack
        "storing": (),
    },
}


def _server(field: Field) -> Server:
    assert field.broker.server is not None
    return field.broker.server


def _proxy(field: Field) -> Proxy:
    assert field.broker.proxy is not None
    return field.broker.proxy


def _victim(field: Field) -> Node:
    """Return the worker that everything happens to: the first one."""
    return field.nodes[0]


def _held_pid(field: Field) -> int:
    """Return the process that runs the held task."""
    return next(
        entry.pid for entry in field.entries() if entry.what == "start" and entry.key.startswith("hold")
    )


def nothing(field: Field) -> None:
    """Break nothing: the calls themselves do."""
    field.wait_for("end", 5)


# --- processes ---


def kill_child(field: Field) -> None:
    """Kill -9 the process that runs a task."""
    os.kill(_held_pid(field), signal.SIGKILL)


def kill_children(field: Field) -> None:
    """Kill -9 any child of the pool, ten times."""
    for _ in range(10):
        children = [
            process for process in _victim(field).family()[1:] if not process.children()
        ]  # not the forker
        if children:
            field.dice.choice(children).kill()
        time.sleep(field.dice.uniform(0.05, 0.3))


def kill_forker(field: Field) -> None:
    """Kill -9 the process that forks the children: the worker ends, and another one goes on."""
    family = _victim(field).family()
    forker = next(process for process in family[1:] if process.children())
    forker.kill()
    field.gone(family[1:])


def kill_node(field: Field) -> None:
    """Kill -9 the main process; nothing of the worker stays behind."""
    family = _victim(field).family()
    _victim(field).signal(signal.SIGKILL)
    field.gone(family)


def kill_machine(field: Field) -> None:
    """Kill -9 all processes of a worker at once."""
    family = _victim(field).family()
    _victim(field).signal_all(signal.SIGKILL)
    field.gone(family)


def freeze_node(field: Field) -> None:
    """Stop the main process for two leases, then let it go on."""
    _victim(field).signal(signal.SIGSTOP)
    time.sleep(LONGER_THAN_A_LEASE_SECONDS)
    _victim(field).signal(signal.SIGCONT)


def freeze_machine(field: Field) -> None:
    """Stop all processes of a worker for two leases, then let them go on."""
    _victim(field).signal_all(signal.SIGSTOP)
    time.sleep(LONGER_THAN_A_LEASE_SECONDS)
    _victim(field).signal_all(signal.SIGCONT)


def kill_clients(field: Field) -> None:
    """Kill -9 clients while they send, five of them."""
    for number in range(5):
        sender = field.start_sender(f"c{number}", 10_000, "quick", 0.0)
        field.wait_for("confirmed", [f"c{number}-{field.dice.randrange(20)}"])
        time.sleep(field.dice.uniform(0, 0.01))
        sender.end()


def kill_clients_that_were_told(field: Field) -> None:
    """Kill -9 clients as soon as their one call is confirmed, five of them."""
    for number in range(5):
        sender = field.start_sender(f"c{number}", 1, "quick", 0.0)
        field.wait_for("confirmed", [f"c{number}-0"])
        sender.end()


def deploy(field: Field) -> None:
    """Replace the worker three times: TERM, ten seconds of patience, KILL."""
    for _ in range(3):
        old = field.nodes[-1]
        field.start_worker()
        field.wait_for("end", len([entry for entry in field.entries() if entry.what == "end"]) + 5)
        old.signal(signal.SIGTERM)
        time.sleep(field.dice.uniform(0, 0.3))
        old.signal_all(signal.SIGKILL)


def stop_and_replace(field: Field) -> None:
    """Replace the worker three times with all the patience it needs."""
    field.release()
    for _ in range(3):
        old = field.nodes[-1]
        old.signal(signal.SIGTERM)
        field.start_worker()
        assert old.program.finish() == 0


# --- the broker ---


def restart_broker(field: Field) -> None:
    """Restart the broker in good order."""
    _server(field).restart()


def kill_broker(field: Field) -> None:
    """Kill -9 the broker, and start it again."""
    _server(field).kill()
    time.sleep(field.dice.uniform(0, OUTAGE_SECONDS))
    _server(field).start()


def freeze_broker(field: Field) -> None:
    """Stop the broker for longer than a lease."""
    _server(field).freeze()
    time.sleep(LONGER_THAN_A_LEASE_SECONDS)
    _server(field).thaw()


def forget_scripts(field: Field) -> None:
    """Have Redis forget all scripts, ten times."""
    for _ in range(10):
        command(field.broker.url, "SCRIPT", "FLUSH")
        time.sleep(0.1)


def end_connections(field: Field) -> None:
    """Have the broker end all connections, ten times."""
    for _ in range(10):
        field.broker.disconnect_all()
        time.sleep(field.dice.uniform(0.1, 0.5))


def no_room_for_connections(field: Field) -> None:
    """Let the broker take no connection more, and end those that there are."""
    with socket.create_connection((LOOPBACK, _server(field).port), 10) as operator:
        operator.sendall(b"CONFIG SET maxclients 1\r\n")
        assert operator.recv(100) == b"+OK\r\n"
        _proxy(field).cut()
        time.sleep(OUTAGE_SECONDS)
        operator.sendall(b"CONFIG SET maxclients 10000\r\n")
        assert operator.recv(100) == b"+OK\r\n"


# --- the network ---


def cut(field: Field) -> None:
    """Reset the worker's connections."""
    _proxy(field).cut()


def cut_often(field: Field) -> None:
    """Reset the worker's connections again and again, during one task."""
    for _ in range(CUTS):
        _proxy(field).cut()
        time.sleep(field.dice.uniform(0, 0.3))


def refuse(field: Field) -> None:
    """Refuse connections for a while, after a reset."""
    _proxy(field).refuse()
    _proxy(field).cut()
    time.sleep(OUTAGE_SECONDS)
    _proxy(field).admit()


def black_hole(field: Field) -> None:
    """Swallow everything in both directions, longer than a lease."""
    with field.lull():
        _proxy(field).block()
    time.sleep(LONGER_THAN_A_LEASE_SECONDS)
    _proxy(field).heal()


def short_black_hole(field: Field) -> None:
    """Swallow everything in both directions for a moment."""
    _proxy(field).block()
    time.sleep(OUTAGE_SECONDS)
    _proxy(field).heal()


def forget_connections(field: Field) -> None:
    """Carry nothing any more on what is connected, and tell nobody; who connects anew is served."""
    with field.lull():
        _proxy(field).forget()


def deaf(field: Field) -> None:
    """The worker is heard and hears nothing, longer than a lease."""
    _proxy(field).block("to_client")
    time.sleep(LONGER_THAN_A_LEASE_SECONDS)
    _proxy(field).heal()


def mute(field: Field) -> None:
    """The worker hears and is not heard, longer than a lease."""
    with field.lull():
        _proxy(field).block("to_server")
    time.sleep(LONGER_THAN_A_LEASE_SECONDS)
    _proxy(field).heal()


def cut_off_amid_tasks(field: Field) -> None:
    """Swallow what the worker says, perhaps also what it hears, just when tasks begin and end."""
    _proxy(field).block(*field.dice.choice(_CUTS))
    time.sleep(LONGER_THAN_A_LEASE_SECONDS)
    _proxy(field).heal()


def slow_line(field: Field) -> None:
    """Deliver everything half a second late, longer than a lease."""
    _proxy(field).slow(0.5)
    time.sleep(LONGER_THAN_A_LEASE_SECONDS)
    _proxy(field).heal()


def slices(field: Field) -> None:
    """Deliver everything in packets of one to seven bytes."""
    _proxy(field).slice(field.dice.randint(1, 7))
    field.wait_for("end", len([entry for entry in field.entries() if entry.what == "end"]) + 20)
    _proxy(field).heal()


def break_at_steps(field: Field) -> None:
    """Reset connections at each step of the protocol: before it, in its middle, and before its answer."""
    amqp = isinstance(_server(field), RabbitServer)
    for step, patterns in STEPS["amqp" if amqp else "redis"].items():
        for pattern in patterns:
            for keep in field.dice.sample((0, len(pattern), field.dice.randint(1, 40), None), 2):
                direction = "to_client" if amqp and step == "receiving" else "to_server"
                trap = _proxy(field).trap(direction, pattern, keep=keep)  # type: ignore[arg-type]
                assert trap.sprung.wait(20), f"nothing like {pattern!r} has passed"
    _proxy(field).heal()


def move_broker(field: Field) -> None:
    """Give the broker's name another address, after a time in which the name is not known."""
    hosts = field.folder / "hosts"
    hosts.write_text("")
    _proxy(field).refuse()
    _proxy(field).cut()
    time.sleep(OUTAGE_SECONDS)
    _proxy(field).move("127.0.0.2")
    hosts.write_text(_proxy(field).host)


# --- clients ---


def lose_confirms(field: Field) -> None:
    """Reset the client's connection when the broker has a message and is about to say so, five times."""
    proxy = field.broker.client_proxy
    assert proxy is not None
    confirm = b"\x00\x3c\x00\x50" if isinstance(_server(field), RabbitServer) else b":"
    for _ in range(5):
        assert proxy.trap("to_client", confirm, keep=0).sprung.wait(20), "nothing was confirmed"
        time.sleep(field.dice.uniform(0, 0.2))


def send_rubbish(field: Field) -> None:
    """Send messages that nobody can read or run, between the others."""
    producer = field.app.transport.producer()
    good = {"task": "faults.work", "id": "rubbish", "lang": "py"}
    rubbish = [
        ({}, b"", None),
        ({}, b"\xff\x00", "application/octet-stream"),
        (good, b"{", "application/json"),
        (good, b"[1, 2, 3, 4]", "application/json"),
        (good, b"[" * 100_000, "application/json"),
        (good, b"cposix\nsystem\n.", "application/x-python-serialize"),
        ({**good, "task": "nobody.knows"}, b"[[], {}, {}]", "application/json"),
        ({**good, "compression": "application/x-gzip"}, b"no gzip", "application/json"),
    ]
    for headers, body, kind in rubbish:
        envelope = Envelope(headers=dict(headers), body=body, content_type=kind, properties=Props())
        producer.send([Outgoing(envelope=envelope, routing_key=QUEUE)], deadline=10.0)
    producer.close()
    field.until(lambda: len(field.letters()) >= len(rubbish) or None, "all of it to be given up")


def many_at_once(field: Field) -> None:
    """Have 300 calls come due in the same seconds, while the worker is replaced."""
    field.send("quick", 300, countdown=4.0)
    field.start_worker()
    field.nodes[0].signal(signal.SIGTERM)


# --- the machine ---


def set_clock(field: Field) -> None:
    """Set the first worker's wall clock an hour forward and half a day back, each for more than a lease."""
    assert field.clock is not None
    for seconds in (3600, -43_200):
        field.clock.jump(seconds)
        time.sleep(1.2 * LEASE_SECONDS)


# --- results ---


def kill_results(field: Field) -> None:
    """Reset, refuse and swallow what goes to the result store."""
    proxy = field.broker.results_proxy
    assert proxy is not None
    proxy.refuse()
    proxy.cut()
    time.sleep(OUTAGE_SECONDS)
    proxy.admit()
    proxy.block()
    time.sleep(OUTAGE_SECONDS)
    proxy.heal()
