"""Settings of signed messages."""

from __future__ import annotations

from celeriac.settings.model import Setting

SECURITY: tuple[Setting, ...] = (
    Setting(
        "security_cert_store",
        "CELERY_SECURITY_CERT_STORE",
        None,
        "text",
        "Directory or glob of the certificates that are trusted.",
    ),
    Setting(
        "security_certificate",
        "CELERY_SECURITY_CERTIFICATE",
        None,
        "text",
        "Certificate that our own messages are signed for.",
    ),
    Setting("security_digest", "CELERY_SECURITY_DIGEST", "sha256", "text", "Digest of the signatures."),
    Setting(
        "security_key",
        "CELERY_SECURITY_KEY",
        None,
        "text",
        "File of the private key that signs our own messages.",
    ),
    Setting("security_key_password", "CELERY_SECURITY_KEY_PASSWORD", None, "bytes", "Password of that key."),
)
