"""Order: one key is handled one at a time, in order; keys run side by side."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence

from msgspec.structs import replace

from callcast.core.outcome import DONE, Dead, Later, Outcome, Release
from callcast.ports.broker import Consumer, Delivery, Schedules
from callcast.testing.broker_suite.harness import Harness, case, ids, settle


class Ordering(Harness):
    """Cases about ordered sources."""

    @case
    async def test_messages_of_a_key_come_in_their_order(self) -> None:
        worker = await self.join(await self.listen(ordered=True))
        batch = [
            self.message(f"{key}{number}", key=key) for number in range(1, 7) for key in "abcde"
        ]
        await self.broker.publish(batch[:13])
        for message in batch[13:]:
            await self.broker.publish([message])
        done = await self.finish(worker)
        for key in "abcde":
            assert [name for name in done if name[0] == key] == [f"{key}{n}" for n in range(1, 7)]

    @case
    async def test_the_order_of_each_key_survives_failures(self) -> None:
        source = await self.listen(ordered=True)
        batch = [self.message(f"{n}", key=f"k{n % 7}") for n in range(84)]
        await self.broker.publish(batch)
        workers = [await self.join(source) for _ in range(3)]
        done: dict[str | None, list[int]] = defaultdict(list)
        failing = {message.id for message in batch[::5]}
        for _ in range(200):
            before = sum(map(len, done.values()))
            for worker in workers:
                handled = await self._work(worker, failing)
                for message in handled:
                    done[message.message.key].append(int(message.message.id))
            count = sum(map(len, done.values()))
            if count == len(batch):
                break
            if count == before:
                await self.pass_time(self.delay)
        for key, numbers in done.items():
            assert numbers == [n for n in range(84) if f"k{n % 7}" == key]
        assert len(done) == 7

    async def _work(self, worker: Consumer, failing: set[str]) -> list[Delivery]:
        """Fetch a few; some fail once, and what is behind a failed one of its key goes back."""
        failed: set[str | None] = set()
        verdicts: list[tuple[Delivery, Outcome]] = []
        handled: list[Delivery] = []
        for delivery in await worker.fetch(5, self.grace):
            key = delivery.message.key
            if key in failed:
                verdicts.append((delivery, Release()))
            elif delivery.message.id in failing:
                failing.remove(delivery.message.id)
                failed.add(key)
                verdicts.append((delivery, Later(self.delay)))
            else:
                handled.append(delivery)
                verdicts.append((delivery, DONE))
        await worker.settle(verdicts)
        return handled

    @case
    async def test_a_key_is_with_one_worker_at_a_time(self) -> None:
        source = await self.listen(ordered=True)
        await self.publish("a1", "a2", "a3", key="a")
        one = await self.join(source)
        other = await (await self.another()).consume(source, lease=self.lease)
        held = await one.fetch(1, self.grace)
        if not held:  # a broker that deals keys out may have given this one to the other
            one, other = other, one
            held = await self.take(one, 1)
        await self.nothing(other)
        await settle(one, held, DONE)
        rest = await self.take_all(one) or await self.take_all(other)
        assert ids(rest) == ["a2", "a3"]

    @case
    async def test_a_key_that_becomes_free_wakes_a_waiting_fetch(self) -> None:
        source = await self.listen(ordered=True)
        await self.publish("a1", "a2", key="a")
        one, other = await self.join(source), await self.join(source)
        held = await self.take(one, 1)
        waiting = self.start(other.fetch(10, 1_000_000.0))
        await self.pass_time(0)
        await settle(one, held, DONE)
        mine = self.start(one.fetch(10, 1_000_000.0))
        await asyncio.wait([waiting, mine], return_when=asyncio.FIRST_COMPLETED)
        assert ids(await (waiting if waiting.done() else mine)) == ["a2"]

    @case
    async def test_a_settle_wakes_a_fetch_that_waited_for_its_key(self) -> None:
        worker = await self.join(await self.listen(ordered=True))
        sent = await self.publish(*(f"a{number}" for number in range(30)), key="a")
        first, *held = await self.take_all(worker)
        await self.pass_time(self.delay)
        await settle(worker, [first], DONE)
        held += await self.take_all(worker)  # few, now that the key is known to be slow
        waiting = self.start(worker.fetch(10, 1_000_000.0))
        await self.pass_time(self.delay / 10)
        await settle(worker, held, DONE)
        if 1 + len(held) < len(sent):  # a broker may also let any number of one key out
            assert await waiting

    @case
    async def test_while_a_message_is_put_off_its_key_waits(self) -> None:
        source = await self.listen(ordered=True)
        worker = await self.join(source)
        await self.publish("a1", "a2", key="a")
        first = await self.take_one(worker)
        await settle(worker, [first], Later(self.delay))
        await self.publish("a3", key="a")
        await self.nothing(worker)
        await self.pass_time(self.delay)
        assert await self.finish(worker) == ["a1", "a2", "a3"]

    @case
    async def test_while_a_key_waits_the_others_go_on(self) -> None:
        worker = await self.join(await self.listen(ordered=True))
        await self.publish("a1", "a2", key="a")
        await self.publish("b1", key="b")
        await self.publish("c1", key="c")
        first, *others = await self.take_all(worker)
        assert first.message.id == "a1"
        await worker.settle([(first, Later(self.delay)), *((one, Release()) for one in others)])
        assert {"b1", "c1"} <= set(await self.finish(worker))

    @case
    async def test_what_was_given_back_comes_again_before_what_is_behind_it(self) -> None:
        source = await self.listen(ordered=True)
        worker = await self.join(source)
        await self.publish("a1", "a2", "a3", key="a")
        first, second = await self.take(worker, 2)
        await settle(worker, [first], Release())
        await self.nothing(await self.join(source))  # a2 is still out
        await settle(worker, [second], Release())
        assert await self.finish(worker) == ["a1", "a2", "a3"]

    @case
    async def test_what_a_dead_worker_held_keeps_its_order(self) -> None:
        source = await self.listen(ordered=True)
        await self.publish("a1", "a2", "a3", key="a")
        await self.take(await self.join(source), 2)  # and dies
        await self.pass_time(self.lease * 1.1)
        assert await self.finish(await self.join(source)) == ["a1", "a2", "a3"]

    @case
    async def test_after_a_dead_letter_its_key_goes_on(self) -> None:
        worker = await self.join(await self.listen(ordered=True))
        await self.publish("a1", "a2", key="a")
        await settle(worker, await self.take(worker, 1), Dead("for the test"))
        assert await self.finish(worker) == ["a2"]

    @case
    async def test_a_scheduled_message_does_not_hold_its_key(self) -> None:
        self.need(Schedules)
        worker = await self.join(await self.listen(ordered=True))
        due = await self.wall() + self.delay
        await self.broker.publish([replace(self.message("timeout", key="a"), deliver_at=due)])
        await self.publish("a1", key="a")
        assert await self.finish(worker) == ["a1"]
        await self.pass_time(self.delay * 1.1)
        await self.publish("a2", key="a")
        assert sorted(await self.finish(worker)) == ["a2", "timeout"]

    @case
    async def test_a_slow_key_does_not_stop_the_others(self) -> None:
        worker = await self.join(await self.listen(ordered=True))
        await self.publish(*(f"slow{n}" for n in range(100)), key="slow")
        others = {f"quick{n}" for n in range(20)}
        await self.broker.publish([self.message(name, key=name) for name in sorted(others)])
        held: list[Delivery] = []
        for _ in range(50):  # 16 slots, one of which is always busy with the slow key
            held += await worker.fetch(16 - len(held), self.grace) if len(held) < 16 else []
            quick = [one for one in held if one.message.key != "slow"]
            await settle(worker, quick, DONE)
            others.difference_update(ids(quick))
            slow = _without(held, quick)
            await self.pass_time(0.03)
            await settle(worker, slow[:1], DONE)
            held = slow[1:]
            if not others:
                break
        assert not others, f"{len(others)} of 20 keys waited for 50 messages of a slow one"


def _without(held: Sequence[Delivery], gone: Sequence[Delivery]) -> list[Delivery]:
    left = set(held) - set(gone)
    return [delivery for delivery in held if delivery in left]
