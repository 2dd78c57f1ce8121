"""Signed messages: ``app.setup_security()``."""

from __future__ import annotations

import datetime
import glob
import os
from pathlib import Path

from celeriac.codecs.registry import Codecs
from celeriac.codecs.signed import NAME, Signer
from celeriac.errors import ConfigError
from celeriac.settings.settings import Settings


def setup(
    conf: Settings,
    codecs: Codecs,
    *,
    now: datetime.datetime,
    key: str | None = None,
    key_password: bytes | str | None = None,
    cert: str | None = None,
    store: str | None = None,
    digest: str | None = None,
    serializer: str = "json",
) -> None:
    """Make ``auth`` a serializer of these codecs; what is not given is taken from the settings.

    Args:
        conf: The settings.
        codecs: The serializers.
        now: The moment at which certificates must be valid.
        key: File of the private key.
        key_password: Opens the key when it is encrypted.
        cert: File of the certificate.
        store: Files of the certificates whose messages are welcome, as a pattern (``/etc/certs/*.pem``).
        digest: Hash of the signature.
        serializer: What bodies are encoded with before they are signed.

    Raises:
        ConfigError: The settings do not ask for signed messages and nothing else, or name no key,
            certificate or store.
        SecurityError: A key or certificate cannot be used.
    """
    if conf.task_serializer != NAME or list(conf.accept_content) != [NAME]:
        raise ConfigError(
            "Signed messages need task_serializer = 'auth' and accept_content = ['auth'] (result_serializer "
            "and event_serializer as you like): with anything else, unsigned messages would pass."
        )
    files = {
        "security_key": key or conf.security_key,
        "security_certificate": cert or conf.security_certificate,
        "security_cert_store": store or conf.security_cert_store,
    }
    missing = [name for name, value in files.items() if not value]
    if missing:
        raise ConfigError(f"Signed messages need {', '.join(missing)} to be set to files.")
    pattern = files["security_cert_store"]
    known = sorted(glob.glob(os.path.join(pattern, "*") if os.path.isdir(pattern) else pattern))
    if not known:
        raise ConfigError(f"security_cert_store {pattern!r} matches no file.")
    Signer(
        _read("security_key", files["security_key"]),
        _read("security_certificate", files["security_certificate"]),
        [_read("security_cert_store", path) for path in known],
        now=now,
        digest=digest or conf.security_digest,
        serializer=serializer,
        key_password=key_password or conf.security_key_password,
    ).register_on(codecs)


def _read(setting: str, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as exc:
        raise ConfigError(f"{setting} {path!r} cannot be read: {exc.strerror}.") from exc
