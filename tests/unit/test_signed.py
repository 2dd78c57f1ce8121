"""Signed messages: who is let in, who is kept out."""

from __future__ import annotations

import base64
import datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from celeriac.codecs import Codecs
from celeriac.codecs.signed import Signer
from celeriac.errors import ConfigError, DecodeError, EncodeError, SecurityError
from celeriac.wire.task import TaskMessage, compose, seal, unpack_call
from certificates import NOW, certificate_pem, key_pem, rsa_key

ALICE = rsa_key("alice")
ALICE_CERT = certificate_pem(ALICE, "alice")
MALLORY = rsa_key("mallory")
MALLORY_CERT = certificate_pem(MALLORY, "mallory")
SEP = b"\x00\x01"


def signer(**changes: Any) -> Signer:
    arguments: dict[str, Any] = {
        "key": key_pem(ALICE), "cert": ALICE_CERT, "store": [ALICE_CERT], "now": NOW, **changes,
    }  # fmt: skip
    return Signer(**arguments)


def codecs(**changes: Any) -> Codecs:
    made = Codecs()
    signer(**changes).register_on(made)
    return made


def mallorys() -> Codecs:
    return codecs(key=key_pem(MALLORY), cert=MALLORY_CERT, store=[ALICE_CERT])


def read(data: bytes, reader: Codecs | None = None) -> Any:
    reader = reader or codecs()
    return reader.decode(data, "application/data", "utf-8", reader.accept_set(["auth"]))


def test_a_signed_call_survives_the_journey() -> None:
    alice = codecs()
    envelope = seal(*compose(TaskMessage(task="t", id="1", args=[1, b"\x00\x01\xff"])), alice, "auth", "zlib")

    call = unpack_call(
        envelope.body, envelope.content_type, envelope.content_encoding,
        envelope.headers["compression"], codecs(), alice.accept_set(["auth"]), 10_000,
    )  # fmt: skip

    assert (envelope.content_type, envelope.content_encoding) == ("application/data", "utf-8")
    assert call.args == [1, b"\x00\x01\xff"]


def test_the_signed_body_has_celerys_five_fields() -> None:
    data = base64.b64decode(codecs().encode([1], "auth")[2], validate=True)

    fields = data.split(SEP)

    assert base64.b64decode(fields[0]).decode() == "NL Wire Örg alice 4242"
    assert len(base64.b64decode(fields[1])) == 256
    assert fields[2:] == [b"application/json", b"utf-8", b"[1]"]


def test_bodies_may_hold_the_separator() -> None:
    alice = codecs(serializer="msgpack")

    assert read(alice.encode([b"a" + SEP + b"b"], "auth")[2], alice) == [b"a" + SEP + b"b"]


@pytest.mark.parametrize("digest", ["sha1", "SHA256", "sha512", "sha3_256"])
def test_peers_agree_on_a_digest(digest: str) -> None:
    alice = codecs(digest=digest)

    assert read(alice.encode([1], "auth")[2], codecs(digest=digest)) == [1]
    with pytest.raises(DecodeError, match="Bad signature"):
        read(alice.encode([1], "auth")[2], codecs(digest="sha384"))


def test_strangers_are_kept_out() -> None:
    with pytest.raises(DecodeError, match=r"Unknown certificate: 'NL Wire Örg mallory 4242'"):
        read(mallorys().encode([1], "auth")[2])


def test_a_strangers_signature_under_a_known_name_is_refused() -> None:
    fields = base64.b64decode(mallorys().encode([1], "auth")[2]).split(SEP)
    fields[0] = base64.b64encode(signer().signer_id.encode())

    with pytest.raises(DecodeError, match="Bad signature"):
        read(base64.b64encode(SEP.join(fields)))


def test_a_changed_body_is_refused() -> None:
    data = base64.b64decode(codecs().encode([1], "auth")[2])

    with pytest.raises(DecodeError, match="Bad signature"):
        read(base64.b64encode(data[:-2] + b"2]"))


@pytest.mark.parametrize(
    "data",
    [b"", b"not base64!", b"[[], {}, null]", base64.b64encode(b"a"), base64.b64encode(SEP.join([b"?"] * 5)),
     base64.b64encode(SEP.join([b"/w==", b"", b"\xff", b"", b""]))],
)  # fmt: skip
def test_what_is_not_signed_is_refused(data: bytes) -> None:
    with pytest.raises(DecodeError, match=r"Not a signed message|Unknown certificate"):
        read(data)


def test_a_signed_body_cannot_be_passed_off_as_pickle() -> None:
    pickled = codecs(serializer="pickle")
    data = pickled.encode([1], "auth")[2]

    with pytest.raises(DecodeError, match="disabled content of type pickle"):
        read(data, codecs())
    assert read(data, pickled) == [1]


def test_a_value_without_a_form_is_refused_in_the_inner_serializers_words() -> None:
    with pytest.raises(EncodeError, match="Object of type set is not JSON serializable"):
        codecs().encode({1}, "auth")


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"key": b"nonsense"}, SecurityError, "Invalid private key"),
        ({"cert": b"nonsense"}, SecurityError, "Invalid certificate"),
        ({"store": [b"nonsense"]}, SecurityError, "Invalid certificate"),
        ({"key": key_pem(MALLORY)}, SecurityError, "is not the one of certificate 'NL Wire Örg alice 4242'"),
        ({"store": [ALICE_CERT, ALICE_CERT]}, SecurityError, "Duplicate certificate"),
        ({"store": [ALICE_CERT + ALICE_CERT]}, SecurityError, "Duplicate certificate"),
        ({"store": [certificate_pem(ALICE, "old", until=NOW)]}, SecurityError, "Expired certificate"),
        ({"digest": "crc32"}, ConfigError, "security_digest: no such digest: 'crc32'"),
        ({"digest": "blake2b"}, ConfigError, "security_digest"),
        ({"digest": "shake128"}, ConfigError, "security_digest"),
        ({"key": key_pem(ec.generate_private_key(ec.SECP256R1()))}, SecurityError, "only RSA"),
        (
            {"store": [certificate_pem(ec.generate_private_key(ec.SECP256R1()), "ec")]},
            SecurityError,
            "not RSA",
        ),
        ({"key": key_pem(ALICE, b"secret")}, SecurityError, "Invalid private key"),
        ({"key": key_pem(ALICE, b"secret"), "key_password": "wrong"}, SecurityError, "Invalid private key"),
    ],
)
def test_what_is_wrong_with_keys_and_certificates_is_said(
    changes: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        signer(**changes)


@pytest.mark.parametrize("password", ["secret", b"secret"])
def test_an_encrypted_key_is_opened(password: str | bytes) -> None:
    assert signer(key=key_pem(ALICE, b"secret"), key_password=password).signer_id.endswith(" 4242")


def test_certificates_that_end_tomorrow_are_good_today() -> None:
    tomorrow = NOW + datetime.timedelta(days=1)

    signer(store=[certificate_pem(ALICE, "soon", until=tomorrow)])
