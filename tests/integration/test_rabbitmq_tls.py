"""amqps://: the same conversation inside TLS, here through a proxy that speaks it in RabbitMQ's place."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import select
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from celeriac.errors import BrokerUnreachable
from celeriac.ports import ConsumeSpec
from celeriac.testing.conformance.fixtures import ack, take
from celeriac.testing.conformance.messages import new_queue, texts, to_queue
from celeriac.transports.amqp import AmqpTransport
from servers import RabbitServer

DEADLINE_SECONDS = 10.0


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the key and the self-signed certificate of 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "celeriac test")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return path


def pump(secure: ssl.SSLSocket, plain: socket.socket, ended: threading.Event) -> None:
    """Carry bytes both ways until one side ends."""
    with contextlib.suppress(OSError), secure, plain:
        while not ended.is_set():
            readable = [secure] if secure.pending() else select.select([secure, plain], [], [], 0.1)[0]
            for source, target in ((secure, plain), (plain, secure)):
                if source in readable:
                    data = source.recv(65536)
                    if not data:
                        return
                    target.sendall(data)


@pytest.fixture
def tls_port(rabbitmq_server: RabbitServer, certificate: Path) -> Iterator[int]:
    """The port of a proxy that ends TLS in front of RabbitMQ."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    ended = threading.Event()
    threads = []

    def accept() -> None:
        while not ended.is_set():
            try:
                raw, _ = listener.accept()
            except OSError:
                return
            try:
                secure = context.wrap_socket(raw, server_side=True)
            except OSError:  # a client that does not trust us
                raw.close()
                continue
            plain = socket.create_connection(("127.0.0.1", rabbitmq_server.port))
            threads.append(threading.Thread(target=pump, args=(secure, plain, ended)))
            threads[-1].start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threads.append(threading.Thread(target=accept))
        threads[0].start()
        yield listener.getsockname()[1]
        ended.set()
        listener.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(10)


async def test_messages_travel_inside_tls(tls_port: int, certificate: Path) -> None:
    queue = new_queue()
    transport = AmqpTransport(
        f"amqps://guest:guest@127.0.0.1:{tls_port}//", {"ssl": {"ca_certs": str(certificate)}}
    )
    large = "x" * 2_000_000

    transport.producer().send([to_queue(queue, large), to_queue(queue, "small")], deadline=DEADLINE_SECONDS)
    consumer = await transport.consumer(ConsumeSpec(queues=(queue,), node="one@tls"))
    got = await take(consumer, 2)
    await ack(consumer, got)
    await consumer.close()
    transport.close()

    assert texts(got) == [large, "small"]


def test_a_certificate_that_nobody_vouches_for_is_refused(tls_port: int) -> None:
    transport = AmqpTransport(f"amqps://guest:sekrit@127.0.0.1:{tls_port}//", {})

    with pytest.raises(BrokerUnreachable, match="certificate cannot be trusted") as caught:
        transport.producer().send([to_queue(new_queue())], deadline=DEADLINE_SECONDS)

    assert "sekrit" not in str(caught.value)
    transport.close()


async def test_a_consumer_refuses_such_a_certificate_too(tls_port: int) -> None:
    transport = AmqpTransport(f"amqps://guest:guest@127.0.0.1:{tls_port}//", {})

    with pytest.raises(BrokerUnreachable, match="certificate cannot be trusted"):
        await transport.consumer(ConsumeSpec(queues=(new_queue(),), node="one@tls"))
