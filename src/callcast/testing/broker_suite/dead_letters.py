"""Dead letters: kept as they were, with the reason, until somebody redrives them."""

from __future__ import annotations

from msgspec.structs import replace

from callcast.core.outcome import DEAD_REASON, DONE, Dead, Later, Release
from callcast.ports.broker import Parks, Part, Source
from callcast.testing.broker_suite.harness import Harness, case, ids, settle


class DeadLetters(Harness):
    """Cases about the DEAD part, redrive and parking."""

    async def kill(self, source: Source, verdict: Dead | None = None) -> None:
        """Let a worker of this group give up all that there is."""
        worker = await self.join(source)
        await settle(worker, await self.take_all(worker), verdict or Dead("for the test"))

    async def redrive(self, source: Source) -> list[str]:
        """Publish all dead letters to their group again; their ids."""
        letters = await self.join(source, part=Part.DEAD)
        taken = await self.take_all(letters)
        for letter in taken:
            await self.broker.publish([replace(letter.message, group=source.group)])
        await settle(letters, taken, DONE)
        await letters.close()
        return ids(taken)

    @case
    async def test_a_dead_letter_keeps_its_bytes(self) -> None:
        source = await self.listen()
        body = b"\x00\xff{not json" + bytes(range(256)) * 20
        await self.broker.publish([self.message("a", body=body)])
        await self.kill(source)
        letter = await self.take_one(await self.join(source, part=Part.DEAD))
        assert letter.message.id == "a"
        assert letter.message.body == body

    @case
    async def test_a_dead_letter_keeps_its_attributes_and_headers(self) -> None:
        source = await self.listen()
        sent = replace(self.message("a", key="k"), subject="s", headers={"x-tenant": "acme"})
        await self.broker.publish([sent])
        await self.kill(source)
        letter = await self.take_one(await self.join(source, part=Part.DEAD))
        assert replace(letter.message, headers=sent.headers) == sent
        assert letter.message.headers["x-tenant"] == "acme"

    @case
    async def test_a_dead_letter_says_why(self) -> None:
        source = await self.listen()
        await self.publish("a")
        notes = {"callcast-error-type": "ValueError", "callcast-attempts": "20"}
        await self.kill(source, Dead("no such customer: Ω", notes))
        letter = await self.take_one(await self.join(source, part=Part.DEAD))
        assert letter.message.headers[DEAD_REASON] == "no such customer: Ω"
        assert notes.items() <= letter.message.headers.items()

    @case
    async def test_a_dead_letter_comes_to_no_worker_again(self) -> None:
        source = await self.listen()
        await self.publish("a")
        await self.kill(source)
        await self.pass_time(self.lease * 3)
        await self.nothing(await self.join(source))

    @case
    async def test_a_dead_letter_belongs_to_the_group_that_failed(self) -> None:
        billing, shipping = await self.listen("billing"), await self.listen("shipping")
        await self.publish("a")
        await self.kill(billing)
        await self.nothing(await self.join(shipping, part=Part.DEAD))

    @case
    async def test_dead_letters_survive_a_restart(self) -> None:
        source = await self.listen()
        await self.publish("a")
        await self.kill(source)
        await self.reopen()
        assert ids(await self.take_all(await self.join(source, part=Part.DEAD))) == ["a"]

    @case
    async def test_a_dead_letter_looked_at_and_released_stays(self) -> None:
        source = await self.listen()
        await self.publish("a", "b")
        await self.kill(source)
        letters = await self.join(source, part=Part.DEAD)
        for _ in range(30):  # more often than any limit a broker counts to by itself
            await settle(letters, await self.take(letters, 2), Release())
        assert (await self.broker.lag(source)).dead == 2

    @case
    async def test_a_dead_letter_whose_redriver_died_comes_again(self) -> None:
        source = await self.listen()
        await self.publish("a")
        await self.kill(source)
        await self.take(await self.join(source, part=Part.DEAD), 1)  # and dies
        await self.pass_time(self.lease * 1.1)
        assert ids(await self.take_all(await self.join(source, part=Part.DEAD))) == ["a"]

    @case
    async def test_a_redrive_reaches_only_the_group_that_failed(self) -> None:
        billing, shipping = await self.listen("billing"), await self.listen("shipping")
        await self.publish("a")
        await self.kill(billing)
        await self.finish(await self.join(shipping))
        await self.redrive(billing)
        assert ids(await self.take_all(await self.join(billing))) == ["a"]
        await self.nothing(await self.join(shipping))

    @case
    async def test_a_redriven_message_starts_anew_under_its_id(self) -> None:
        source = await self.listen()
        await self.publish("a")
        worker = await self.join(source)
        await settle(worker, await self.take(worker, 1), Later(0.0))
        await self.kill(source)
        assert await self.redrive(source) == ["a"]
        delivery = await self.take_one(worker)
        assert (delivery.message.id, delivery.round, delivery.crashes) == ("a", 0, 0)
        assert (await self.broker.lag(source)).dead == 0

    @case
    async def test_a_waiting_redriver_wakes_when_a_message_dies(self) -> None:
        source = await self.listen()
        letters = await self.join(source, part=Part.DEAD)
        waiting = self.start(letters.fetch(10, 1_000_000.0))
        await self.pass_time(0)
        await self.publish("a")
        await self.pass_time(0)
        await self.kill(source)
        assert ids(await waiting) == ["a"]

    @case
    async def test_a_message_that_dies_again_has_one_dead_letter(self) -> None:
        if not self.broker.traits.collapses_letters:
            self.skip(f"{self.broker.traits.name} keeps every letter; commands show the latest")
        source = await self.listen()
        for why in ("first", "second"):
            await self.publish("a", "b")
            await self.kill(source, Dead("for the test", {"x-death": why}))
        assert (await self.broker.lag(source)).dead == 2
        taken = await self.take_all(await self.join(source, part=Part.DEAD))
        assert sorted(ids(taken)) == ["a", "b"]
        assert {letter.message.headers["x-death"] for letter in taken} == {"second"}

    @case
    async def test_a_message_that_dies_again_while_it_is_redriven_stays_dead(self) -> None:
        source = await self.listen()
        await self.publish("a")
        await self.kill(source)
        letters = await self.join(source, part=Part.DEAD)
        letter = await self.take_one(letters)
        await self.broker.publish([replace(letter.message, group=source.group)])
        await self.kill(source, Dead("again"))  # before the redriver has settled
        await settle(letters, [letter], DONE)
        await letters.close()
        assert ids(await self.take_all(await self.join(source, part=Part.DEAD))) == ["a"]

    # Parking

    async def parked(self) -> Source:
        """A group where a2 of a1, a2, a3 is dead and holds its key; b1 is another key."""
        self.need(Parks)
        source = await self.listen(ordered=True)
        worker = await self.join(source)
        await self.publish("a1", "a2", key="a")
        first, second = await self.take(worker, 2)
        await worker.settle([(first, DONE), (second, Dead("for the test", park=True))])
        await self.publish("a3", "a4", key="a")
        await self.publish("b1", key="b")
        await worker.close()
        return source

    @case
    async def test_a_parked_key_waits_and_the_others_go_on(self) -> None:
        source = await self.parked()
        worker = await self.join(source)
        assert await self.finish(worker) == ["b1"]
        await self.pass_time(self.lease * 3)
        await self.nothing(worker)

    @case
    async def test_a_redriven_letter_goes_before_what_its_key_held(self) -> None:
        source = await self.parked()
        worker = await self.join(source)
        await self.finish(worker)
        assert await self.redrive(source) == ["a2"]
        assert await self.finish(worker) == ["a2", "a3", "a4"]

    @case
    async def test_a_redriven_letter_that_dies_again_holds_its_key_again(self) -> None:
        source = await self.parked()
        worker = await self.join(source)
        await self.finish(worker)
        await self.redrive(source)
        again = await self.take_one(worker)
        await settle(worker, [again], Dead("again", park=True))
        await self.nothing(worker)
        await self.redrive(source)
        assert await self.finish(worker) == ["a2", "a3", "a4"]

    @case
    async def test_a_parked_key_that_is_let_go_says_how_many_it_held(self) -> None:
        source = await self.parked()
        broker = self.need(Parks)
        worker = await self.join(source)
        await self.finish(worker)
        assert await broker.unpark(source, "b") == 0
        await self.nothing(worker)
        assert await broker.unpark(source, "a") == 2
        assert await self.finish(worker) == ["a3", "a4"]

    @case
    async def test_a_parked_key_stays_parked_over_a_restart(self) -> None:
        source = await self.parked()
        await self.reopen()
        worker = await self.join(source)
        assert await self.finish(worker) == ["b1"]
        await self.redrive(source)
        assert await self.finish(worker) == ["a2", "a3", "a4"]
