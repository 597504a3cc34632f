"""Calls to peers over TLS: who is believed, who is not, and how a certificate is replaced."""

from __future__ import annotations

import datetime as dt
import logging
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme
from http_parts import serving

from callcast import Bus, Misuse, NotSent, Operation, Peer, Policy, Service, Tls
from callcast.core.errors import CallcastError
from callcast.transports.tls import Trust

STOCK = Operation("inventory.stock", str, int, idempotent=True)
ONCE = Policy(retry=None)
NOW = dt.datetime.now(dt.UTC)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca(authority: trustme.CA, tmp_path: Path) -> Path:
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return tmp_path / "ca.pem"


def files(cert: trustme.LeafCert, folder: Path, name: str) -> tuple[Path, Path]:
    chain, key = folder / f"{name}.pem", folder / f"{name}.key"
    chain.write_bytes(b"".join(blob.bytes() for blob in cert.cert_chain_pems))
    cert.private_key_pem.write_to_path(key)
    return chain, key


@asynccontextmanager
async def inventory(
    cert: trustme.LeafCert, folder: Path, *, clients: Path | None = None
) -> AsyncGenerator[str]:
    """The service behind this certificate; its URL. `clients`: who may call."""
    service = Service("inventory")

    @service.serves(STOCK)
    async def stock(sku: str) -> int:
        return len(sku)

    chain, key = files(cert, folder, "server")
    config = {"ssl_certfile": str(chain), "ssl_keyfile": str(key)}
    if clients is not None:
        config |= {"ssl_ca_certs": str(clients), "ssl_cert_reqs": ssl.CERT_REQUIRED}
    async with Bus("memory://", services=[service]) as bus, serving(bus.asgi(), **config) as url:
        yield url.replace("http:", "https:")


async def stock_at(url: str, tls: Tls | None) -> int:
    peer = Peer(url, tls=tls, policy=ONCE)
    async with Bus("memory://", name="caller", peers={"inventory": peer}) as bus:
        return await bus.call(STOCK, "tea")


async def test_a_peer_whose_authority_is_believed_is_called(
    authority: trustme.CA, ca: Path, tmp_path: Path
) -> None:
    async with inventory(authority.issue_cert("127.0.0.1"), tmp_path) as url:
        assert await stock_at(url, Tls(ca=ca)) == 3


@pytest.mark.parametrize("kind", ["self-signed", "wrong host", "expired"])
async def test_a_peer_that_is_not_to_be_believed_gets_nothing(
    kind: str, authority: trustme.CA, ca: Path, tmp_path: Path
) -> None:
    tls: Tls | None = Tls(ca=ca)
    if kind == "self-signed":
        cert, tls = authority.issue_cert("127.0.0.1"), None  # the system does not know it
    elif kind == "wrong host":
        cert = authority.issue_cert("elsewhere.example")
    else:
        day = dt.timedelta(days=1)
        cert = authority.issue_cert("127.0.0.1", not_before=NOW - 2 * day, not_after=NOW - day)
    async with inventory(cert, tmp_path) as url:
        with pytest.raises(NotSent, match=r"(?i)certificate"):
            await stock_at(url, tls)


async def test_a_peer_that_asks_for_a_certificate_is_shown_one(
    authority: trustme.CA, ca: Path, tmp_path: Path
) -> None:
    chain, key = files(authority.issue_cert("caller.example"), tmp_path, "client")
    async with inventory(authority.issue_cert("127.0.0.1"), tmp_path, clients=ca) as url:
        assert await stock_at(url, Tls(ca=ca, cert=chain, key=key)) == 3
        with pytest.raises(CallcastError):
            await stock_at(url, Tls(ca=ca))


async def test_insecure_believes_anybody_and_says_so_at_each_start(
    authority: trustme.CA, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with inventory(authority.issue_cert("elsewhere.example"), tmp_path) as url:
        for _ in range(2):
            assert await stock_at(url, Tls(insecure=True)) == 3
    warned = [each for each in caplog.records if each.levelno == logging.WARNING]
    assert [each.getMessage().partition(":")[0] for each in warned] == ["peer 'inventory'"] * 2


@pytest.mark.parametrize("name", ["ca", "cert"])
async def test_files_that_cannot_be_used_are_named_at_start(name: str, tmp_path: Path) -> None:
    for path, text in ((tmp_path / "none.pem", None), (tmp_path / "odd.pem", "no certificate")):
        if text is not None:
            path.write_text(text)
        peer = Peer("https://inventory.example", tls=Tls(**{name: path}))
        with pytest.raises(Misuse, match=f"peer 'inventory'.*{path.name}"):
            async with Bus("memory://", name="caller", peers={"inventory": peer}):
                pass


def test_a_certificate_is_replaced_without_a_restart(authority: trustme.CA, tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(path)
    trust = Trust(Tls(ca=path), "inventory")
    first = trust.context()
    path.write_text("half of it")
    assert trust.context() is first
    other = trustme.CA()
    other.cert_pem.write_to_path(path)
    assert trust.context().get_ca_certs() != first.get_ca_certs()


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Tls(key="a.key"), "name its certificate"),
        (lambda: Tls(ca="ca.pem", insecure=True), "no authority is asked"),
        (lambda: Peer("http://inventory.example", tls=Tls()), "nothing is encrypted"),
    ],
)
def test_what_does_not_go_together_is_refused(make: object, text: str) -> None:
    assert callable(make)
    with pytest.raises(Misuse, match=text):
        make()


def test_the_key_is_in_no_repr() -> None:
    assert "secret.key" not in repr(Peer("https://a", tls=Tls(cert="a.pem", key="secret.key")))
