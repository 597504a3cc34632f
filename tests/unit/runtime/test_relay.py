"""The relay that publishes the rows of an outbox: what becomes of each error."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from outbox_kit import QUICK, put
from transaction_parts import MAIL, Bench, bench

from callcast.core.errors import (
    CircuitOpen,
    Misuse,
    NotSent,
    Unanswered,
    Unavailable,
)
from callcast.core.message import Message
from callcast.core.outcome import DONE, Dead, Later, Release
from callcast.core.work import Kind, Work
from callcast.ports.broker import Source
from callcast.ports.observer import OutboxAged
from callcast.runtime.relay import Relay


class TestRelay:
    """Publishing one row: what becomes of each error."""

    def relay(self, b: Bench, error: Exception | None = None) -> tuple[Relay, list[object]]:
        done: list[object] = []

        async def publish(message: Message) -> None:
            if error is not None:
                raise error
            done.append(message.id)

        async def ensure(topics: Sequence[str], sources: Sequence[Source]) -> None:
            done.append((*topics, *map(str, sources)))

        return Relay(b.units, "shop", publish, ports=b.ports, ensure=ensure), done

    def work(self, round_: int = 0, **more: object) -> Work:
        message = Message("1", "shop", "a", "a", b"", **more)  # type: ignore[arg-type]
        return Work(Kind.CONSUME, "callcast.outbox", "1", message=message, round=round_)

    async def test_a_published_row_is_done_and_its_topic_is_made_once(self) -> None:
        async with bench() as b:
            relay, done = self.relay(b)
            assert await relay.run(self.work()) == DONE
            assert await relay.run(self.work()) == DONE
            assert done == [("a",), "1", "1"]

    async def test_the_queue_of_a_cast_is_made_though_its_service_never_ran(self) -> None:
        async with bench() as b:
            relay, done = self.relay(b)
            async with b.units.open() as tx:
                await tx.cast(MAIL, "hello")
            (entry,) = await b.units.outbox.due(b.database, 1, retried=1)
            work = Work(Kind.CONSUME, "callcast.outbox", message=entry.message)
            assert await relay.run(work) == DONE
            assert done == [("mail.send", "mail.send/mail"), entry.message.id]

    @pytest.mark.parametrize(
        "error", [NotSent("unheard"), Unanswered("?"), Unavailable("away"), ValueError("bug")]
    )
    @pytest.mark.parametrize(("round_", "delay"), [(0, 0.075), (3, 0.6), (9, 22.5), (5000, 22.5)])
    async def test_what_may_pass_is_tried_for_ever_ever_more_slowly(
        self, error: Exception, round_: int, delay: float
    ) -> None:
        async with bench() as b:
            relay, _ = self.relay(b, error)
            outcome = await relay.run(self.work(round_))
            assert isinstance(outcome, Later)
            assert outcome.delay == pytest.approx(delay)
            assert str(error) in outcome.reason

    async def test_what_can_never_be_sent_is_dead(self) -> None:
        async with bench() as b:
            relay, _ = self.relay(b, Misuse("too large"))
            outcome = await relay.run(self.work())
            assert isinstance(outcome, Dead)
            assert "too large" in outcome.reason

    @pytest.mark.parametrize(("wait", "expected"), [(7.0, 7.0), (0.0, 0.1), (90.0, 30.0)])
    async def test_an_open_breaker_stops_the_whole_outbox_uncounted(
        self, wait: float, expected: float
    ) -> None:
        async with bench() as b:
            relay, _ = self.relay(b, CircuitOpen("open", retry_after=wait))
            outcome = await relay.run(self.work())
            assert isinstance(outcome, Release)
            assert outcome.after == expected

    async def test_work_without_a_message_is_dead(self) -> None:
        async with bench() as b:
            relay, _ = self.relay(b)
            assert isinstance(await relay.run(Work(Kind.CONSUME, "x")), Dead)

    async def test_the_worker_relays_everything_while_one_key_is_poisoned(
        self, tmp_path: Path
    ) -> None:
        """O15: the others go on, the key is parked, the alarm is raised."""
        async with bench(str(tmp_path / "shop.db")) as b:
            sent: list[str] = []
            all_there = asyncio.Event()

            async def publish(message: Message) -> None:
                if message.key == "bad":
                    raise Misuse("too large")
                sent.append(message.id)
                if len(sent) == 60:
                    all_there.set()

            async def ensure(*_: object) -> None: ...

            relay = Relay(b.units, "shop", publish, ports=b.ports, ensure=ensure)
            worker = relay.worker(b.tasks, settings=QUICK)
            await worker.start()
            for number in range(20):
                await put(b, f"a:{number}", f"b:{number}", f"bad:{number}", f"c{number}")
            await asyncio.wait_for(all_there.wait(), 30)
            await worker.drain(b.ports.clock.now() + 10.0)
            for key in "ab":
                own = [name for name in sent if name.startswith(f"{key}:")]
                assert own == [f"{key}:{number}" for number in range(20)]
            states = await b.rows("select count(*) from callcast_outbox group by state")
            assert states == [19, 60, 1]
            assert any(isinstance(fact, OutboxAged) for fact in b.observer.facts)
