"""Broker URLs of RabbitMQ, as Celery's users write them."""

from __future__ import annotations

import ssl
from typing import Any

import pytest

from celeriac.errors import ConfigError
from celeriac.transports import connect
from celeriac.transports.amqp import AmqpTransport
from celeriac.transports.amqp.address import read


@pytest.mark.parametrize(
    ("url", "host", "port", "user", "password", "vhost"),
    [
        ("amqp://", "localhost", 5672, "guest", "guest", "/"),
        ("amqp", "localhost", 5672, "guest", "guest", "/"),
        ("amqp://guest@localhost//", "localhost", 5672, "guest", "guest", "/"),
        (
            "pyamqp://jimmy:jimmy123@localhost/jimmy_vhost",
            "localhost",
            5672,
            "jimmy",
            "jimmy123",
            "jimmy_vhost",
        ),
        ("amqp://u:p@h:1234", "h", 1234, "u", "p", "/"),
        ("amqp://u:p@h:1234/", "h", 1234, "u", "p", "/"),
        ("amqp://u:p@h/%2F", "h", 5672, "u", "p", "/"),
        ("amqp://u:p%40ss%2F@h//slashed", "h", 5672, "u", "p@ss/", "/slashed"),
        ("librabbitmq://u:@h/v", "h", 5672, "u", "guest", "v"),
        ("amqps://u:p@h/v", "h", 5671, "u", "p", "v"),
        ("amqp://[::1]:99/v", "::1", 99, "guest", "guest", "v"),
    ],
)
def test_urls_are_read_as_celery_reads_them(
    url: str, host: str, port: int, user: str, password: str, vhost: str
) -> None:
    [address] = read(url, {})

    assert (address.host, address.port) == (host, port)
    assert (address.login.user, address.login.password, address.login.vhost) == (user, password, vhost)


def test_the_password_is_never_shown() -> None:
    transport = connect("amqp://u:sekrit@one/v;amqp://u:sekrit@two/v")

    assert isinstance(transport, AmqpTransport)
    assert transport.address == "amqp://u:**@one/v; amqp://u:**@two/v"


def test_query_and_options_set_the_terms() -> None:
    [address] = read("amqp://h//?heartbeat=7&connection_timeout=3000", {"connect_timeout": 1.5})
    [other] = read("amqp://h//", {"heartbeat": 20, "login_method": "external", "client_name": "me"})

    assert (address.login.heartbeat_seconds, address.connect_seconds) == (7, 1.5)
    assert (other.login.heartbeat_seconds, other.login.mechanism, other.login.name) == (20, "EXTERNAL", "me")


def test_tls_verifies_unless_told_not_to() -> None:
    [strict] = read("amqps://h//", {})
    [by_option] = read("amqp://h//", {"ssl": True})
    [lax] = read("amqp://h//", {"ssl": {"cert_reqs": ssl.CERT_NONE, "server_hostname": "other"}})
    [lax_by_query] = read("amqps://h//?verify=verify_none", {})
    [plain] = read("amqp://h//", {})

    assert plain.tls is None
    for address in (strict, by_option):
        assert address.tls is not None
        assert (address.tls.verify_mode, address.tls.check_hostname) == (ssl.CERT_REQUIRED, True)
        assert (address.port, address.server_name) == (5671, "h")
    for address in (lax, lax_by_query):
        assert address.tls is not None
        assert address.tls.verify_mode == ssl.CERT_NONE
    assert lax.server_name == "other"


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("amqp://h:port//", {}),
        ("amqp://u:sekrit@h//?heartbeat=often", {}),
        ("amqp://u:sekrit@h//", {"connect_timeout": -1}),
        ("amqp://u:sekrit@h//", {"ssl": {"ca_certs": "/no/such/file.pem"}}),
    ],
)
def test_what_makes_no_sense_is_told_without_the_password(url: str, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        read(url, options)

    assert "sekrit" not in str(caught.value)
