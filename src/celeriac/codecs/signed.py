"""The ``auth`` serializer: signed bodies, refused unless the certificate of the sender is known here.

Only the body is signed. Task name, id, ETA and the rest of the headers are not, so signing keeps out
strangers who have no key; it does not stop somebody who can rewrite messages at the broker.
"""

from __future__ import annotations

import base64
import binascii
import datetime
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from celeriac.codecs.registry import RAW, Codec, Codecs
from celeriac.errors import ConfigError, SecurityError

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import rsa

NAME: Final = "auth"
_SEPARATOR: Final = b"\x00\x01"
_FIELDS: Final = 5  # signer, signature, content type, content encoding, body (which may hold separators)


class Signer:
    """Signs what it encodes and verifies what it decodes.

    Args:
        key: Private RSA key, PEM.
        cert: Certificate of that key, PEM; names the signer in every message.
        store: Certificates (PEM, each text may hold several) of those whose messages are welcome.
        now: The moment at which certificates must not have expired (with a time zone).
        digest: Hash of the signature, such as sha256; all peers need the same one.
        serializer: What the body is encoded with before it is signed.
        key_password: Opens the key when it is encrypted.

    Raises:
        SecurityError: A key or certificate is unreadable, expired, no RSA, given twice, or the key is not
            the certificate's.
        ConfigError: The digest is unknown or the package cryptography is missing.
    """

    def __init__(
        self,
        key: bytes,
        cert: bytes,
        store: Iterable[bytes],
        *,
        now: datetime.datetime,
        digest: str = "sha256",
        serializer: str = "json",
        key_password: bytes | str | None = None,
    ) -> None:
        try:
            from cryptography.hazmat.primitives.asymmetric import padding
        except ImportError as exc:
            raise ConfigError(
                "Signed messages need the package cryptography: pip install celeriac[auth]"
            ) from exc
        self._serializer = serializer
        self._hash = _hash(digest)
        self._padding = padding.PSS(mgf=padding.MGF1(self._hash), salt_length=padding.PSS.MAX_LENGTH)
        password = key_password.encode() if isinstance(key_password, str) else key_password
        self._key = _private_key(key, password)
        self.signer_id: str
        self.signer_id, public_key = next(iter(_certificates(cert, now).items()))
        if public_key.public_numbers() != self._key.public_key().public_numbers():
            raise SecurityError(f"The private key is not the one of certificate {self.signer_id!r}")
        self._known: dict[str, rsa.RSAPublicKey] = {}
        for pem in store:
            for name, known_key in _certificates(pem, now).items():
                if name in self._known:
                    raise SecurityError(f"Duplicate certificate: {name!r} is in the store twice")
                self._known[name] = known_key

    def register_on(self, codecs: Codecs) -> None:
        """Make ``auth`` a serializer; from then on ``application/data`` is read as signed, never as raw."""

        def encode(value: object) -> bytes:
            return self._encode(value, codecs)

        def decode(data: bytes) -> object:
            return self._decode(data, codecs)

        codecs.add(Codec(name=NAME, content_type=RAW, content_encoding="utf-8", encode=encode, decode=decode))

    def _encode(self, value: object, codecs: Codecs) -> bytes:
        content_type, content_encoding, body = codecs.encode(value, self._serializer)
        signature = self._key.sign(body, self._padding, self._hash)
        fields = (
            base64.b64encode(self.signer_id.encode()),
            base64.b64encode(signature),
            content_type.encode(),
            content_encoding.encode(),
            body,
        )
        return base64.b64encode(_SEPARATOR.join(fields))

    def _decode(self, data: bytes, codecs: Codecs) -> object:
        content_type, content_encoding, body = self._verified(data)
        # The signature does not cover the content type, so it may not talk us into running code.
        accept = None
        if content_type == codecs.content_type(self._serializer):
            accept = frozenset([content_type])
        return codecs.decode(body, content_type, content_encoding, accept)

    def _verified(self, data: bytes) -> tuple[str, str, bytes]:
        """Return content type, encoding and bytes of a signed body.

        Raises:
            SecurityError: It is not signed, by nobody we know, or was changed after that.
        """
        from cryptography.exceptions import InvalidSignature

        try:
            fields = base64.b64decode(data, validate=True).split(_SEPARATOR, _FIELDS - 1)
            if len(fields) != _FIELDS:
                raise SecurityError(f"Not a signed message: {len(fields)} fields instead of {_FIELDS}")
            signer, signature = base64.b64decode(fields[0]).decode(), base64.b64decode(fields[1])
            content_type, content_encoding = fields[2].decode("ascii"), fields[3].decode("ascii")
        except (binascii.Error, ValueError) as exc:
            raise SecurityError(f"Not a signed message: {exc}") from exc
        key = self._known.get(signer)
        if key is None:
            raise SecurityError(f"Unknown certificate: {signer!r} is not in the store")
        body = fields[4]
        try:
            key.verify(signature, body, self._padding, self._hash)
        except InvalidSignature as exc:
            raise SecurityError(f"Bad signature: the body is not what {signer!r} signed") from exc
        if content_type == RAW:
            raise SecurityError("Not a signed message: a signature within a signature")
        return content_type, content_encoding, body


def _hash(digest: str) -> hashes.HashAlgorithm:
    from cryptography.hazmat.primitives import hashes

    algorithm = getattr(hashes, digest.upper().replace("-", "_"), None)
    if not isinstance(algorithm, type) or not issubclass(algorithm, hashes.HashAlgorithm):
        raise ConfigError(f"security_digest: no such digest: {digest!r}; sha256 is the usual one")
    try:
        return algorithm()
    except TypeError as exc:  # those of variable length
        raise ConfigError(f"security_digest: {digest!r} has no length of its own; use sha256") from exc


def _private_key(pem: bytes, password: bytes | None) -> rsa.RSAPrivateKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    try:
        key = serialization.load_pem_private_key(pem, password=password)
    except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
        raise SecurityError(f"Invalid private key: {exc}") from exc
    if not isinstance(key, rsa.RSAPrivateKey):
        raise SecurityError("Invalid private key: only RSA keys are supported")
    return key


def _certificates(pem: bytes, now: datetime.datetime) -> dict[str, rsa.RSAPublicKey]:
    """Return the public keys of the certificates in a PEM text, by the ids that messages name them with."""
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import rsa

    found: dict[str, rsa.RSAPublicKey] = {}
    try:
        certificates = x509.load_pem_x509_certificates(pem)
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise SecurityError(f"Invalid certificate: {exc}") from exc
    for certificate in certificates:
        name = _signer_id(certificate)
        if certificate.not_valid_after_utc <= now:
            raise SecurityError(f"Expired certificate: {name!r} ended {certificate.not_valid_after_utc}")
        key = certificate.public_key()
        if not isinstance(key, rsa.RSAPublicKey):
            raise SecurityError(f"Invalid certificate: {name!r} is for a key that is not RSA")
        if name in found:
            raise SecurityError(f"Duplicate certificate: {name!r} is in one file twice")
        found[name] = key
    return found


def _signer_id(certificate: x509.Certificate) -> str:
    """Return the values of the issuer's attributes and the serial number, with spaces between."""
    values = [
        attribute.value if isinstance(attribute.value, str) else attribute.value.decode("utf-8", "replace")
        for attribute in certificate.issuer
    ]
    return " ".join([*values, str(certificate.serial_number)])
