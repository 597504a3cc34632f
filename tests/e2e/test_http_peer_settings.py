"""What a client is told about its peer: URLs, headers and secrets."""

from __future__ import annotations

import pytest
from http_parts import calling, work_of

from callcast.codecs import JsonCodec
from callcast.core.contract import Operation
from callcast.core.errors import Misuse, NotSent
from callcast.policies.silent import Silent
from callcast.runtime.clock import AsyncioClock
from callcast.transports.aiohttp_client import AiohttpTransport

LOOK = Operation("inventory.look", None, int, http="GET /look")
clock = AsyncioClock()


async def test_secrets_are_in_no_error_and_no_repr() -> None:
    secret = "s3cr3t-canary"
    async with calling(
        "http://127.0.0.1:1", headers={"X-Key": secret}, auth=f"Bearer {secret}"
    ) as peer:
        with pytest.raises(NotSent) as caught:
            await peer.send(work_of(LOOK, None, clock))
        said = "".join([repr(peer), str(caught.value), repr(caught.value.__cause__)])
    assert secret not in said


def made(url: str, **options: object) -> AiohttpTransport:
    return AiohttpTransport(
        "peer",
        url,
        codec=JsonCodec(),
        clock=clock,
        observer=Silent(),
        **options,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host",
        "host:80",
        "http://",
        "http://user:s3cr3t@host",
        "http://host?x=s3cr3t",
        "http://host#s3cr3t",
        "http://host:port",
    ],
)
def test_a_url_that_is_none_is_misuse_and_not_repeated(url: str) -> None:
    with pytest.raises(Misuse) as caught:
        made(url)
    assert "s3cr3t" not in str(caught.value)


def test_a_prefix_and_an_ipv6_host_are_kept() -> None:
    assert "'http://host:8080/api/v1'" in repr(made("http://host:8080/api/v1/"))
    assert "'http://[::1]:80'" in repr(made("http://[::1]:80"))
    assert "'http://host/a%20b/%C3%BC'" in repr(made("http://host/a%20b/ü"))


def test_headers_and_auth_that_would_inject_others_are_misuse() -> None:
    with pytest.raises(Misuse):
        made("http://host", headers={"X": "a\r\nb: c"})
    with pytest.raises(Misuse) as caught:
        made("http://host", auth="Bearer s3cr3t\r\nX: y")
    assert "s3cr3t" not in str(caught.value)


async def test_an_auth_function_that_fails_is_not_sent() -> None:
    def broken() -> str:
        raise OSError("no token server")

    async with calling("http://127.0.0.1:1", auth=broken) as peer:
        with pytest.raises(NotSent, match="auth function") as caught:
            await peer.send(work_of(LOOK, None, clock))
    assert isinstance(caught.value.__cause__, OSError)


def test_compiled_operations_are_bounded() -> None:
    peer = made("http://host")
    for number in range(1_001):
        peer.prepare(Operation(f"x.o{number}", None, None))
    assert len(peer._exchanges) <= 1_000
    with pytest.raises(Misuse):
        peer.prepare(Operation("x.y", None, None, http="GET /{a}"))
