"""TLS contexts from options as Celery's users write them. Loads `ssl` (10 ms, 4 MB): import when needed."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any, Final

from celeriac.errors import ConfigError

_CERTIFICATE: Final = {
    "required": ssl.CERT_REQUIRED,
    "optional": ssl.CERT_OPTIONAL,
    "none": ssl.CERT_NONE,
}


def context_from(options: Mapping[str, Any]) -> ssl.SSLContext:  # Any: as users write them
    """Return a client's context.

    Args:
        options: ``cert_reqs`` (a constant of `ssl` or required, optional, none; required when not given),
            ``ca_certs``, ``ca_path``, ``certfile``, ``keyfile``, ``check_hostname``; each also with the
            prefix ``ssl_``.

    Raises:
        ConfigError: An option has a value that cannot be, or a file cannot be read.
    """
    chosen = {key.removeprefix("ssl_"): value for key, value in options.items()}
    try:
        context = ssl.create_default_context(cafile=chosen.get("ca_certs"), capath=chosen.get("ca_path"))
        if chosen.get("certfile"):
            context.load_cert_chain(chosen["certfile"], chosen.get("keyfile"))
    except OSError as exc:
        raise ConfigError(f"The certificates for TLS cannot be loaded: {exc}. Options: {chosen}") from exc
    need = _certificate(chosen.get("cert_reqs"))
    hostname = str(chosen.get("check_hostname", True)).lower() not in ("false", "0", "no")
    context.check_hostname = need is ssl.CERT_REQUIRED and hostname
    context.verify_mode = need
    return context


def _certificate(wanted: Any) -> ssl.VerifyMode:  # Any: a constant of ssl, its name, or Celery's
    if wanted is None:
        return ssl.CERT_REQUIRED
    try:
        if isinstance(wanted, int):
            return ssl.VerifyMode(wanted)
        return _CERTIFICATE[str(wanted).lower().removeprefix("cert_")]
    except (KeyError, ValueError):
        raise ConfigError(f"ssl_cert_reqs is {wanted!r}; it has to be required, optional or none.") from None
