"""The web sites that the mission's programs fetch, on this machine: a proxy that answers in their place.

So the programs stay as their documents have them, google.com and all, and no test needs the internet.
"""

from __future__ import annotations

import datetime
import ssl
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class Internet(ThreadingHTTPServer):
    """Answers for the hosts it knows, each after its time, with and without TLS.

    Args:
        delays: Host names, and the seconds that each takes to answer.
        folder: Where its certificate goes.
    """

    daemon_threads = True

    def __init__(self, delays: Mapping[str, float], folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.delays = delays
        self.visited: list[str] = []
        self.most_at_once = 0
        self._now = 0
        self._counting = threading.Lock()
        self._certificate = folder / "internet.pem"
        self._certificate.write_bytes(_certificate_of(list(delays)))
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(self._certificate)

    @property
    def settings(self) -> dict[str, str]:
        """The environment variables by which a program gets here."""
        proxy = f"http://127.0.0.1:{self.server_port}"
        names = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")
        return {
            **dict.fromkeys(names, proxy),
            **dict.fromkeys(("no_proxy", "NO_PROXY"), ""),
            "REQUESTS_CA_BUNDLE": str(self._certificate),
        }

    def answer(self, host: str) -> None:
        """Take as long as the host takes, and note how many do so at once."""
        with self._counting:
            self.visited.append(host)
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        time.sleep(self.delays[host])  # the slowness is what the programs are about
        with self._counting:
            self._now -= 1


class _Answer(BaseHTTPRequestHandler):
    server: Internet

    def do_CONNECT(self) -> None:
        """Be the host that is asked for, inside TLS."""
        self.send_response(200)
        self.end_headers()
        self.connection = self.server.tls.wrap_socket(self.connection, server_side=True)
        self.rfile = self.connection.makefile("rb")
        self.wfile = self.connection.makefile("wb")
        self.close_connection = False  # the request itself comes next

    def do_GET(self) -> None:
        """Answer for a host: inside TLS it is in the header, else in the address."""
        self.server.answer(urlsplit(self.path).hostname or self.headers["Host"])
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.send_header("Connection", "close")
        self.end_headers()

    def finish(self) -> None:
        """Close what TLS put in the place of the connection."""
        super().finish()
        self.connection.close()

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing: the tests look at who was visited."""


def _certificate_of(hosts: list[str]) -> bytes:
    """Return a key and its own certificate for some hosts, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "the internet of a test")])
    today = datetime.datetime.now(datetime.UTC)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - datetime.timedelta(days=1))
        .not_valid_after(today + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(identifier, critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private + certificate.public_bytes(serialization.Encoding.PEM)
