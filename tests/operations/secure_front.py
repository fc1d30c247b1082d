"""A front of a Temporal server that speaks TLS and notes what each request's headers were."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hpack import Decoder
from hyperframe.frame import Frame, HeadersFrame

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


@dataclass
class Front:
    """Where it listens, and what it has seen."""

    address: str
    authority: Path
    seen: list[dict[str, str]] = field(default_factory=list)


def _certificate(
    name: str, key: ec.EllipticCurvePrivateKey, issuer: str, signer: ec.EllipticCurvePrivateKey
) -> x509.Certificate:
    def named(common: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])

    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    return (
        x509.CertificateBuilder()
        .subject_name(named(name))
        .issuer_name(named(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=name == issuer, path_length=None), critical=True)
        .sign(signer, hashes.SHA256())
    )


def certificates(folder: Path) -> tuple[Path, Path, Path]:
    """Make an authority and a certificate for loopback; return authority, certificate, key."""
    authority, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    paths = folder / "authority.pem", folder / "cert.pem", folder / "key.pem"
    pem = serialization.Encoding.PEM
    top = _certificate("authority", authority, "authority", authority)
    paths[0].write_bytes(top.public_bytes(pem))
    paths[1].write_bytes(_certificate("localhost", key, "authority", authority).public_bytes(pem))
    paths[2].write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths


class _Headers:
    """Reads the headers of requests out of the bytes of one HTTP/2 connection."""

    def __init__(self, seen: list[dict[str, str]]) -> None:
        self._seen = seen
        self._decoder = Decoder()
        self._left = b""
        self._begun = False

    def feed(self, data: bytes) -> None:
        self._left += data
        if not self._begun and len(self._left) >= len(PREFACE):
            assert self._left.startswith(PREFACE)
            self._left, self._begun = self._left[len(PREFACE) :], True
        while self._begun and len(self._left) >= 9:
            frame, length = Frame.parse_frame_header(memoryview(self._left[:9]))
            if len(self._left) < 9 + length:
                return
            frame.parse_body(memoryview(self._left[9 : 9 + length]))
            self._left = self._left[9 + length :]
            if isinstance(frame, HeadersFrame):
                self._seen.append(
                    {str(name): str(value) for name, value in self._decoder.decode(frame.data)}
                )


@contextlib.asynccontextmanager
async def secure_front(upstream: str, folder: Path) -> AsyncIterator[Front]:
    """Listen on a port of its own and pass everything on to ``upstream`` in the clear."""
    authority, pem, secret = certificates(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, secret)
    context.set_alpn_protocols(["h2"])
    front = Front("", authority)
    host, _, port = upstream.partition(":")
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(host, int(port))
        headers = _Headers(front.seen)

        async def pump(
            source: asyncio.StreamReader, sink: asyncio.StreamWriter, tap: _Headers | None
        ) -> None:
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                while data := await source.read(65536):
                    if tap is not None:
                        tap.feed(data)
                    sink.write(data)
                    await sink.drain()
            sink.close()

        pumps = {
            asyncio.create_task(pump(reader, back, headers)),
            asyncio.create_task(pump(there, writer, None)),
        }
        tasks.update(pumps)
        await asyncio.wait(pumps)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    front.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield front
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
