"""Where a RabbitMQ is and how to get in: the broker URL and its options, read once; errors that name them."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from celeriac.errors import BrokerUnreachable, ConfigError, DecodeError, TransportError
from celeriac.net.url import Url, mask, parse
from celeriac.transports.amqp.connection import Login, Lost, Refused

CONNECT_SECONDS: Final = 4.0  # Celery's broker_connection_timeout
HEARTBEAT_SECONDS: Final = 120  # Celery's broker_heartbeat
_TLS_SCHEMES: Final = frozenset({"amqps", "pyamqps"})
# Trying again changes nothing: access refused, not found, declared otherwise, and our own mistakes.
_FINAL_CODES: Final = frozenset({403, 404, 406, 501, 502, 503, 504, 505, 540})
_NOT_ALLOWED: Final = 530  # an unknown vhost, or too many connections for now


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """One RabbitMQ, and how we enter."""

    shown: str  # the URL without its password
    host: str
    port: int
    login: Login
    tls: ssl.SSLContext | None = None
    server_name: str | None = None  # the name that the certificate has to have
    connect_seconds: float = CONNECT_SECONDS

    def failure(self, exc: BaseException) -> TransportError:
        """Return what happened to the connection in our own words: which broker, what it said, what to do."""
        if isinstance(exc, TransportError):
            return exc
        if isinstance(exc, Refused):
            return TransportError(
                f"RabbitMQ at {self.shown} refused: {exc}{_advice(exc)}.", retryable=_may_retry(exc)
            )
        return TransportError(f"The connection to RabbitMQ at {self.shown} was lost: {_reason(exc)}.")

    @staticmethod
    def ended(exc: Exception) -> Lost | Refused:
        """Return why a connection is over, as the rest of the transport knows it."""
        return exc if isinstance(exc, Lost | Refused) else Lost(_reason(exc))

    def unreachable(self, exc: BaseException) -> BrokerUnreachable:
        """Return why no connection came about."""
        if isinstance(exc, BrokerUnreachable):
            return exc
        if not isinstance(exc, Refused):
            return BrokerUnreachable(f"No connection to RabbitMQ at {self.shown}: {_reason(exc)}.")
        advice = _advice(exc) or "; see RabbitMQ's log"
        error = BrokerUnreachable(f"RabbitMQ at {self.shown} refused the connection: {exc}{advice}.")
        error.retryable = _may_retry(exc)
        return error


# By code and a piece of what RabbitMQ says, the first that fits.
_ADVICE: Final = (
    (403, "login", "check the user and the password in the broker URL"),
    (403, "", "check the user's permissions (rabbitmqctl list_permissions)"),
    (404, "exchange", "declare the exchange, or mend the routing of the task"),
    (405, "", "another connection uses it for itself alone"),
    (406, "inequivalent", "another program has declared it otherwise: agree on its settings, or delete it"),
    (406, "acknowledgement", "a task took longer: raise consumer_timeout in rabbitmq.conf"),
    (406, "message size", "raise max_message_size in rabbitmq.conf, or send where to find the data"),
    (530, "", "check the virtual host in the broker URL (rabbitmqctl list_vhosts)"),
)


def _advice(exc: Refused) -> str:
    text = str(exc)
    for code, piece, advice in _ADVICE:
        if code == exc.code and piece in text:
            return f"; {advice}"
    return ""


def _may_retry(exc: Refused) -> bool:
    if exc.code == _NOT_ALLOWED:
        return "not found" not in str(exc)
    return exc.code not in _FINAL_CODES


def _reason(exc: BaseException) -> str:
    if isinstance(exc, ssl.SSLCertVerificationError):
        return f"its certificate cannot be trusted: {exc.verify_message} (broker_use_ssl has ca_certs)"
    if isinstance(exc, DecodeError):
        return f"what answers there does not speak AMQP ({exc})"
    if isinstance(exc, socket.gaierror):
        return f"its host name is not known ({exc.strerror})"
    if isinstance(exc, TimeoutError):
        return str(exc) or "no answer in time"
    if isinstance(exc, ssl.SSLError):
        return f"no TLS could be agreed on: {exc}"  # its number is none of the system's
    if isinstance(exc, OSError) and exc.errno:
        return os.strerror(exc.errno)  # asyncio puts words of its own into strerror
    return str(exc) or type(exc).__name__


def read(url: str, options: Mapping[str, Any]) -> tuple[Address, ...]:
    """Return the brokers that a URL names, several when it is a list with ``;`` between.

    Args:
        url: ``amqp://user:password@host:5672/vhost?heartbeat=10``. No vhost and ``//`` mean ``/``.
        options: ``connect_timeout`` (seconds), ``heartbeat`` (at most so many seconds
            apart; 0 = none), ``login_method`` (PLAIN or EXTERNAL),
            ``ssl`` (True or a dict with ``ca_certs``, ``certfile``, ``keyfile``, ``cert_reqs``,
            ``server_hostname``), ``client_name``.

    Raises:
        ConfigError: The URL or an option makes no sense.
    """
    return tuple(_one(part.strip(), options) for part in url.split(";") if part.strip())


def _one(text: str, options: Mapping[str, Any]) -> Address:
    url = parse(text)
    given = {**options, **url.query}
    secure = options.get("ssl") or url.scheme in _TLS_SCHEMES
    return Address(
        shown=mask(text),
        host=url.host or "localhost",
        port=url.port or (5671 if secure else 5672),
        login=Login(
            user=url.user or "guest",
            password=url.password if url.password is not None else "guest",
            vhost=url.path or "/",
            mechanism=str(given.get("login_method") or "PLAIN").upper(),
            heartbeat_seconds=int(_number("heartbeat", given.get("heartbeat"), HEARTBEAT_SECONDS, text)),
            name=str(options.get("client_name") or options.get("app_name") or ""),
        ),
        tls=_tls(options.get("ssl"), url, text) if secure else None,
        server_name=_settings(options.get("ssl")).get("server_hostname") or url.host or "localhost",
        connect_seconds=_number("connect_timeout", given.get("connect_timeout"), CONNECT_SECONDS, text),
    )


def _number(name: str, value: Any, default: float, url: str) -> float:
    if value is None or value == "":
        return default
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = -1.0
    if not 0 <= number <= 65535:
        raise ConfigError(
            f"{name} of the broker {mask(url)} has to be seconds from 0 to 65535, not {value!r}."
        )
    return number


def _settings(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _tls(option: Any, url: Url, text: str) -> ssl.SSLContext:
    """Make the TLS context; certificates are verified unless ``cert_reqs`` or ``verify`` says otherwise."""
    chosen = _settings(option)
    ca = chosen.get("ca_certs") or url.query.get("cacertfile")
    certificate = chosen.get("certfile") or url.query.get("certfile")
    key = chosen.get("keyfile") or url.query.get("keyfile")
    requirement = chosen.get("cert_reqs", ssl.CERT_REQUIRED)
    trusting = requirement in (ssl.CERT_NONE, "none", "CERT_NONE") or url.query.get("verify") == "verify_none"
    try:
        context = ssl.create_default_context(cafile=ca)
        if trusting:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        elif requirement == ssl.CERT_OPTIONAL:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_OPTIONAL
        if chosen.get("ciphers"):
            context.set_ciphers(chosen["ciphers"])
        if certificate:
            context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as exc:
        raise ConfigError(f"The TLS options of the broker {mask(text)} cannot be used: {exc}.") from exc
    return context
