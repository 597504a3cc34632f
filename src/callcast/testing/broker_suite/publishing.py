"""What becomes of a message that is published: it is durable, or the caller knows."""

from __future__ import annotations

from msgspec.structs import replace

from callcast.core.errors import NotSent, Unpublished
from callcast.core.message import Message
from callcast.core.outcome import DONE
from callcast.ports.broker import Start
from callcast.testing.broker_suite.harness import Harness, case, ids, raised, settle


class Publishing(Harness):
    """Cases about `publish`."""

    @case
    async def test_an_event_that_nobody_ever_subscribed_to_is_kept_or_refused(self) -> None:
        await self.broker.ensure([self.topic], [])
        message = self.message("a")
        if self.broker.traits.knows_hearers:
            refused = await raised(Unpublished, self.broker.publish([message]))
            [error] = refused.errors
            assert isinstance(error, NotSent)
            assert error.id == "a"
            assert self.topic in str(error)
        else:
            await self.broker.publish([message])
            first = await self.join(await self.listen(start=Start.NEW))
            assert ids(await self.take(first, 1)) == ["a"]

    @case
    async def test_an_event_that_may_stay_unheard_is_no_error(self) -> None:
        await self.broker.ensure([self.topic], [])
        await self.broker.publish([replace(self.message("a"), unheard=True)])

    @case
    async def test_a_cast_waits_for_a_service_that_never_ran(self) -> None:
        await self.broker.ensure([self.topic], [self.source("inventory")])  # the caster does this
        await self.publish("a")
        await self.pass_time(self.lease * 3)
        service = await self.another()
        await service.ensure([self.topic], [self.source("inventory")])
        worker = await service.consume(self.source("inventory"), lease=self.lease)
        assert ids(await self.take(worker, 1)) == ["a"]

    @case
    async def test_what_was_published_survives_a_restart(self) -> None:
        source = await self.listen()
        await self.publish("a", "b", "c")
        await self.reopen()
        worker = await self.join(source)
        assert sorted(await self.finish(worker)) == ["a", "b", "c"]

    @case
    async def test_bodies_come_as_they_went(self) -> None:
        worker = await self.join(await self.listen())
        bodies = {
            "empty": b"",
            "zero": b"\x00",
            "unicode": "zażółć gęślą jaźń \U0001f600".encode(),
            "no text": bytes(range(256)),
            "largest": b"\xff" * self.broker.traits.body_max_bytes,
        }
        await self.broker.publish([self.message(name, body=body) for name, body in bodies.items()])
        taken = await self.take(worker, len(bodies))
        assert {one.message.id: one.message.body for one in taken} == bodies
        await settle(worker, taken, DONE)

    @case
    async def test_headers_come_as_they_went(self) -> None:
        worker = await self.join(await self.listen())
        headers = {"x-name": "Jürgen, Ω, \U0001f600", "x-empty": "", "x-long": "v" * 8_000}
        await self.broker.publish([replace(self.message("a"), headers=headers)])
        delivery = await self.take_one(worker)
        assert dict(delivery.message.headers) == headers

    @case
    async def test_all_attributes_of_a_message_come_as_they_went(self) -> None:
        worker = await self.join(await self.listen())
        sent = _full(self.message("a", key="k-é"))
        await self.broker.publish([sent])
        delivery = await self.take_one(worker)
        assert delivery.message == sent
        assert (delivery.round, delivery.crashes) == (0, 0)

    @case
    async def test_attributes_that_were_not_set_stay_so(self) -> None:
        worker = await self.join(await self.listen())
        await self.publish("a")
        delivery = await self.take_one(worker)
        assert delivery.message == self.message("a")

    @case
    async def test_a_body_above_the_limit_is_refused_and_the_rest_is_sent(self) -> None:
        worker = await self.join(await self.listen())
        large = b"x" * (self.broker.traits.body_max_bytes + 1)
        batch = [self.message("a"), self.message("b", body=large), self.message("c")]
        refused = await raised(Unpublished, self.broker.publish(batch))
        assert [None if error is None else error.id for error in refused.errors] == [
            None,
            "b",
            None,
        ]
        assert isinstance(refused.errors[1], NotSent)
        assert sorted(await self.finish(worker)) == ["a", "c"]

    @case
    async def test_a_batch_stops_a_key_at_its_first_failure(self) -> None:
        worker = await self.join(await self.listen(ordered=True))
        large = b"x" * (self.broker.traits.body_max_bytes + 1)
        batch = [
            self.message("a1", key="a"),
            self.message("a2", key="a", body=large),
            self.message("b1", key="b"),
            self.message("a3", key="a"),
        ]
        refused = await raised(Unpublished, self.broker.publish(batch))
        assert [error is None for error in refused.errors] == [True, False, True, False]
        assert isinstance(refused.errors[3], NotSent)
        assert sorted(await self.finish(worker)) == ["a1", "b1"]

    @case
    async def test_publishing_nothing_is_no_error(self) -> None:
        await self.broker.publish([])


def _full(message: Message) -> Message:
    return replace(
        message,
        time=1_700_000_000.25,
        subject="order/1",
        datacontenttype="application/cloudevents+json",
        dataschema="https://example.org/order.json",
        correlation_id="correlation",
        causation_id="causation",
        traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        tracestate="a=1,b=2",
        expires=4_000_000_000.5,
        deliver_at=1_600_000_000.5,
        headers={"x-tenant": "acme"},
    )
