"""The client against servers that do strange things with their sockets."""

from __future__ import annotations

import asyncio
import gzip
import resource
import socket
from collections.abc import Awaitable, Callable

import pytest
from http_parts import Watching, calling, listening, work_of

from callcast.core.contract import Operation
from callcast.core.errors import Expired, Misuse, NotSent, Remote, Unanswered
from callcast.runtime.clock import AsyncioClock
from callcast.testing.clock import ManualClock
from callcast.transports.limits import HttpLimits

STOCK = Operation("inventory.stock", str, int)
LOOK = Operation("inventory.look", None, int, http="GET /look")
ERASE = Operation("inventory.erase", None, None, http="DELETE /look", once=True)
clock = AsyncioClock()
Reader, Writer = asyncio.StreamReader, asyncio.StreamWriter


async def read_request(reader: Reader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            return head + await reader.readexactly(int(line.partition(b":")[2]))
    return head


def response(body: bytes = b"7", status: str = "200 OK", headers: str = "") -> bytes:
    return (
        f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n{headers}\r\n"
    ).encode() + body


def answering(
    *answers: bytes, seen: list[bytes] | None = None
) -> Callable[[Reader, Writer], Awaitable[None]]:
    """Give these answers one after the other, then close."""
    left = list(answers)

    async def answer(reader: Reader, writer: Writer) -> None:
        while left:
            request = await read_request(reader)
            if seen is not None:
                seen.append(request)
            writer.write(left.pop(0))
            await writer.drain()

    return answer


@pytest.mark.parametrize("operation", [LOOK, ERASE])
async def test_a_kept_connection_that_the_server_closed_is_tried_exactly_once(
    operation: Operation[None, object],
) -> None:
    seen: list[bytes] = []

    async def answer(reader: Reader, writer: Writer) -> None:
        seen.append(await read_request(reader))
        writer.write(response())
        await writer.drain()
        seen.append(await read_request(reader))
        writer.close()  # the second request on the kept connection: read, and not answered

    async with listening(answer) as url, calling(url) as peer:
        await peer.send(work_of(operation, None, clock))
        with pytest.raises(Unanswered):
            await peer.send(work_of(operation, None, clock))
    assert len(seen) == 2


async def test_a_redirect_is_not_followed() -> None:
    seen: list[bytes] = []
    redirect = response(b"", "302 Found", "Location: /elsewhere\r\n")
    answers = answering(redirect, response(), seen=seen)
    async with listening(answers) as url, calling(url) as peer:
        with pytest.raises(Remote) as caught:
            await peer.send(work_of(LOOK, None, clock))
    assert caught.value.status == 302
    assert not caught.value.retryable
    assert len(seen) == 1


async def test_cookies_are_neither_kept_nor_sent() -> None:
    seen: list[bytes] = []
    cookie = response(headers="Set-Cookie: session=1\r\n")
    async with listening(answering(cookie, response(), seen=seen)) as url, calling(url) as peer:
        await peer.send(work_of(LOOK, None, clock))
        await peer.send(work_of(LOOK, None, clock))
    assert b"cookie" not in seen[1].lower()


async def test_a_refused_connection_is_not_sent() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    async with calling(f"http://127.0.0.1:{port}") as peer:
        with pytest.raises(NotSent, match=f"127.0.0.1:{port}") as caught:
            await peer.send(work_of(LOOK, None, clock, id="l-1"))
    assert caught.value.id == "l-1"
    assert caught.value.__cause__ is not None


async def test_an_unknown_host_is_not_sent() -> None:
    async with calling("http://nowhere.invalid:80") as peer:
        with pytest.raises(NotSent):
            await peer.send(work_of(LOOK, None, clock))


async def test_waiting_for_a_free_connection_is_not_sent() -> None:
    taken = asyncio.Event()

    async def answer(reader: Reader, writer: Writer) -> None:
        await read_request(reader)
        taken.set()
        await reader.read()

    limits = HttpLimits(connections_max=1)
    async with listening(answer) as url, calling(url, limits=limits) as peer:
        first = asyncio.create_task(peer.send(work_of(LOOK, None, clock)))
        await taken.wait()
        with pytest.raises(NotSent, match="no answer within"):
            await peer.send(work_of(LOOK, None, clock, until=clock.now() + 0.05))
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first


@pytest.mark.parametrize(
    "answer",
    [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", b"garbage\r\n\r\n"],
)
async def test_a_lost_or_broken_answer_is_unanswered(answer: bytes) -> None:
    async with listening(answering(answer)) as url, calling(url) as peer:
        with pytest.raises(Unanswered):
            await peer.send(work_of(STOCK, "tea", clock))


async def test_no_answer_by_the_end_of_the_attempt_is_unanswered_to_the_moment() -> None:
    by_hand = ManualClock()
    asked = asyncio.Event()

    async def answer(reader: Reader, writer: Writer) -> None:
        await read_request(reader)
        asked.set()
        await reader.read()

    watching = Watching()
    async with listening(answer) as url, calling(url, clock=by_hand, observer=watching) as peer:
        call = asyncio.create_task(
            peer.send(work_of(LOOK, None, by_hand, until=by_hand.now() + 0.5))
        )
        await asked.wait()
        await by_hand.advance(0.49)
        assert not call.done()
        await by_hand.advance(0.01)
        with pytest.raises(Unanswered, match=r"no answer within 0\.500 s") as caught:
            await call
    assert watching.spans[0].error is caught.value
    assert watching.spans[0].status is None


async def test_a_deadline_that_has_passed_sends_nothing() -> None:
    seen: list[bytes] = []
    async with listening(answering(response(), seen=seen)) as url, calling(url) as peer:
        with pytest.raises(Expired):
            await peer.send(work_of(LOOK, None, clock, deadline=clock.now()))
    assert seen == []


async def test_an_operation_bounds_the_attempt_when_nothing_else_does() -> None:
    by_hand = ManualClock()
    asked = asyncio.Event()

    async def answer(reader: Reader, writer: Writer) -> None:
        await read_request(reader)
        asked.set()
        await reader.read()

    async with listening(answer) as url, calling(url, clock=by_hand) as peer:
        call = asyncio.create_task(peer.send(work_of(LOOK, None, by_hand, deadline=None)))
        await asked.wait()
        await by_hand.advance(LOOK.deadline)
        with pytest.raises(Unanswered):
            await call


async def test_a_compressed_answer_is_read_and_a_bomb_is_not() -> None:
    small = gzip.compress(b"7")
    bomb = gzip.compress(b"0" * 2**28, 9)
    header = "Content-Encoding: gzip\r\n"
    answers = answering(response(small, headers=header), response(bomb, headers=header))
    async with listening(answers) as url, calling(url) as peer:
        assert await peer.send(work_of(LOOK, None, clock)) == 7
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(Remote, match="body of the answer") as caught:
            await peer.send(work_of(LOOK, None, clock))
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert not caught.value.retryable
    assert after - before < 64 * 1024


async def test_an_answer_over_the_limit_is_refused_and_its_connection_closed() -> None:
    closed = asyncio.Event()

    async def answer(reader: Reader, writer: Writer) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            while True:
                writer.write(b"10000\r\n" + b"1" * 65536 + b"\r\n")
                await writer.drain()
        except ConnectionError:
            closed.set()

    async with listening(answer) as url, calling(url) as peer:
        with pytest.raises(Remote, match="body of the answer"):
            await peer.send(work_of(LOOK, None, clock))
        async with asyncio.timeout(5):
            await closed.wait()


async def test_an_error_page_over_the_limit_still_has_its_status() -> None:
    page = response(b"x" * 5_000, "503 Service Unavailable", "Retry-After: 7\r\n")
    limits = HttpLimits(body_max_bytes=1_000)
    async with listening(answering(page)) as url, calling(url, limits=limits) as peer:
        with pytest.raises(Remote) as caught:
            await peer.send(work_of(LOOK, None, clock))
    assert (caught.value.status, caught.value.retry_after) == (503, 7.0)


async def test_headers_over_the_limit_are_refused() -> None:
    many = "".join(f"X-{number}: {'y' * 1000}\r\n" for number in range(40))
    async with listening(answering(response(headers=many))) as url, calling(url) as peer:
        with pytest.raises(Remote, match="headers of the answer"):
            await peer.send(work_of(LOOK, None, clock))


async def test_retry_after_as_a_date_is_measured_on_the_wall_clock() -> None:
    by_hand = ManualClock(wall=1_700_000_000.0)
    busy = response(b"", "429 Too Many Requests", "Retry-After: Tue, 14 Nov 2023 22:13:50 GMT\r\n")
    async with listening(answering(busy)) as url, calling(url, clock=by_hand) as peer:
        with pytest.raises(Remote) as caught:
            await peer.send(work_of(LOOK, None, by_hand))
    assert caught.value.retry_after == 30.0
    assert caught.value.retryable


async def test_cancelled_calls_do_not_use_up_the_connections() -> None:
    async def answer(reader: Reader, writer: Writer) -> None:
        while True:
            request = await read_request(reader)
            if b"GET" in request:
                writer.write(response())
            else:
                await reader.read()  # never answered: cancelled by the client

    limits = HttpLimits(connections_max=4)
    async with listening(answer) as url, calling(url, limits=limits) as peer:
        for turn in range(40):
            calls = [asyncio.create_task(peer.send(work_of(STOCK, "tea", clock))) for _ in range(8)]
            for _ in range(turn % 10):  # at another await each time
                await asyncio.sleep(0)
            for call in calls:
                call.cancel()
            ends = await asyncio.gather(*calls, return_exceptions=True)
            assert all(isinstance(end, asyncio.CancelledError) for end in ends)
        answers = await asyncio.gather(*(peer.send(work_of(LOOK, None, clock)) for _ in range(16)))
        assert answers == [7] * 16


async def test_errors_do_not_use_up_the_connections() -> None:
    async def answer(reader: Reader, writer: Writer) -> None:
        while True:
            await read_request(reader)
            writer.write(response(b"x" * 100, "500 Internal Server Error"))

    async with listening(answer) as url, calling(url, limits=HttpLimits(connections_max=2)) as peer:
        for _ in range(10):
            ends = await asyncio.gather(
                *(peer.send(work_of(LOOK, None, clock)) for _ in range(4)), return_exceptions=True
            )
            assert all(isinstance(end, Remote) for end in ends)


async def test_aged_connections_are_renewed_and_closed_after_their_last_call() -> None:
    by_hand = ManualClock()
    connections = 0
    ends = 0
    hold, held = asyncio.Event(), asyncio.Event()

    async def answer(reader: Reader, writer: Writer) -> None:
        nonlocal connections, ends
        connections += 1
        try:
            while True:
                request = await read_request(reader)
                if b"POST" in request:
                    held.set()
                    await hold.wait()
                writer.write(response())
        except asyncio.IncompleteReadError:
            ends += 1

    limits = HttpLimits(connection_age_max=60.0)
    async with listening(answer) as url, calling(url, clock=by_hand, limits=limits) as peer:
        slow = asyncio.create_task(
            peer.send(work_of(STOCK, "tea", by_hand, deadline=by_hand.now() + 1000))
        )
        await held.wait()
        await by_hand.advance(61.0)
        assert await peer.send(work_of(LOOK, None, by_hand)) == 7
        assert connections == 2
        assert ends == 0  # the aged connection still has a call on its way
        hold.set()
        assert await slow == 7
        async with asyncio.timeout(5):
            while not ends:
                await asyncio.sleep(0.01)
        assert await peer.send(work_of(LOOK, None, by_hand)) == 7
        assert connections == 2


async def test_calls_under_way_end_when_the_transport_closes_and_later_ones_are_not_sent() -> None:
    asked = asyncio.Event()

    async def answer(reader: Reader, writer: Writer) -> None:
        await read_request(reader)
        asked.set()
        await reader.read()

    async with listening(answer) as url, calling(url) as peer:
        call = asyncio.create_task(peer.send(work_of(LOOK, None, clock)))
        await asked.wait()
        await peer.close()
        await peer.close()
        with pytest.raises(Unanswered):
            await call
        with pytest.raises(NotSent, match="closed"):
            await peer.send(work_of(LOOK, None, clock))


async def test_another_event_loop_is_misuse() -> None:
    async with listening(answering(response())) as url, calling(url) as peer:
        await peer.send(work_of(LOOK, None, clock))

        def elsewhere() -> object:
            async def send() -> object:
                return await peer.send(work_of(LOOK, None, clock))

            return asyncio.run(send())

        with pytest.raises(Misuse, match="event loop"):
            await asyncio.to_thread(elsewhere)


async def test_a_hostile_correlation_id_injects_nothing() -> None:
    seen: list[bytes] = []
    async with listening(answering(response(), seen=seen)) as url, calling(url) as peer:
        await peer.send(work_of(LOOK, None, clock, id="a\r\nX-Evil: 1"))
    assert b"\r\nX-Evil" not in seen[0]
    assert b"X-Correlation-ID: a%0D%0AX-Evil%3A%201\r\n" in seen[0]
