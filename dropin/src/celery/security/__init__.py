"""Signed messages, for the app that is meant where none is named."""

from __future__ import annotations

from collections.abc import Iterable

from celeriac.app import Celeriac
from celery._state import app_or_default

__all__ = ("setup_security",)


def setup_security(
    allowed_serializers: Iterable[str] | None = None,
    key: str | None = None,
    key_password: bytes | str | None = None,
    cert: str | None = None,
    store: str | None = None,
    digest: str | None = None,
    serializer: str = "json",
    app: Celeriac | None = None,
) -> None:
    """Sign what an app sends and refuse what is not signed by somebody known; see `Celery.setup_security`.

    Args:
        allowed_serializers: Accepted for Celery's sake: nothing but signed messages is accepted.
        key: File of the private key.
        key_password: Opens the key when it is encrypted.
        cert: File of the certificate.
        store: Pattern of the files with welcome certificates.
        digest: Hash of the signature.
        serializer: What bodies are encoded with before they are signed.
        app: The app; the current one when not given.

    Raises:
        ImproperlyConfigured: The settings do not ask for signed messages alone, or a file is missing.
        SecurityError: A key or certificate cannot be used.
    """
    app_or_default(app).setup_security(
        allowed_serializers, key, key_password, cert, store, digest, serializer
    )
