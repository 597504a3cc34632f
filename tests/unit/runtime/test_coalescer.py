"""The coalescer: batches, deadlines, errors, room, and its end."""

from __future__ import annotations

import asyncio

import pytest
from coalescer_kit import Post, with_post
from worker_parts import message

from callcast.core.errors import CircuitOpen, NotSent, Unanswered, Unpublished
from callcast.policies.options import CircuitBreaker
from callcast.ports.observer import CircuitChanged
from callcast.runtime import coalescer


@with_post
async def test_a_lone_publish_leaves_at_once(post: Post) -> None:
    await post.coalescer.publish(message("1"), post.clock.now() + 5)
    assert post.desk.batches == [["1"]]


@with_post
async def test_publishes_gather_while_a_batch_is_on_its_way(post: Post) -> None:
    post.desk.gate = asyncio.Event()
    sends = await post.sent("1")
    sends += await post.sent("2", "3", "4")
    assert post.desk.batches == [["1"]]
    post.desk.gate.set()
    await asyncio.gather(*sends)
    assert post.desk.batches == [["1"], ["2", "3", "4"]]


@with_post
async def test_a_batch_has_a_most_of_messages_and_of_bytes(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    post.open(batch_max=3)
    await asyncio.gather(*(post.send(str(number)) for number in range(8)))
    assert [len(batch) for batch in post.desk.batches] == [3, 3, 2]
    post.desk.batches.clear()
    monkeypatch.setattr(coalescer, "BATCH_MAX_BYTES", 4)
    await asyncio.gather(*(post.send("xx") for _ in range(5)))
    assert [len(batch) for batch in post.desk.batches] == [2, 2, 1]


@with_post
async def test_publishes_awaited_one_after_the_other_keep_their_order(post: Post) -> None:
    async def series(lane: str) -> None:
        for number in range(20):
            await post.coalescer.publish(message(f"{lane}{number}"), post.clock.now() + 5)

    await asyncio.gather(series("a"), series("b"))
    sent = [name for batch in post.desk.batches for name in batch]
    for lane in "ab":
        mine = [name for name in sent if name.startswith(lane)]
        assert mine == [f"{lane}{number}" for number in range(20)]


@with_post
async def test_past_its_deadline_what_is_buffered_is_purged_and_what_left_is_unanswered(
    post: Post,
) -> None:
    post.desk.gate = asyncio.Event()
    left, waiting = await post.sent("left"), await post.sent("waiting")
    await post.clock.advance(5)
    with pytest.raises(Unanswered) as unanswered:
        await left[0]
    with pytest.raises(NotSent) as not_sent:
        await waiting[0]
    assert (unanswered.value.id, not_sent.value.id) == ("left", "waiting")
    post.desk.gate.set()
    await post.clock.rest()
    await post.coalescer.publish(message("next"), post.clock.now() + 5)
    assert post.desk.batches == [["left"], ["next"]]


@with_post
async def test_each_publish_has_its_own_deadline(post: Post) -> None:
    post.desk.gate = asyncio.Event()
    sends = [
        *await post.sent("1", within=5),
        *await post.sent("2", within=1),
        *await post.sent("3", within=9),
    ]
    await post.clock.advance(1)
    assert [each.done() for each in sends] == [False, True, False]
    await post.clock.advance(4)
    assert [each.done() for each in sends] == [True, True, False]
    post.desk.gate.set()
    await sends[2]
    for each in sends[:2]:
        assert each.exception() is not None


@with_post
async def test_a_batch_that_hangs_is_given_up_at_its_last_deadline(post: Post) -> None:
    post.desk.gate = asyncio.Event()
    hung = await post.sent("hung")
    await post.clock.advance(6)
    assert isinstance(hung[0].exception(), Unanswered)
    post.desk.gate = None
    await post.coalescer.publish(message("next"), post.clock.now() + 5)
    assert post.desk.batches == [["hung"], ["next"]]


@with_post
async def test_a_cancelled_publish_that_has_not_left_is_purged(post: Post) -> None:
    post.desk.gate = asyncio.Event()
    left, waiting = await post.sent("left"), await post.sent("waiting", "other")
    waiting[0].cancel()
    left[0].cancel()
    await post.clock.rest()
    post.desk.gate.set()
    await waiting[1]
    assert post.desk.batches == [["left"], ["other"]]
    assert waiting[0].cancelled()


@with_post
async def test_the_errors_of_a_batch_go_each_to_its_message(post: Post) -> None:
    post.desk.errors = [
        Unpublished([None, NotSent("nobody ever subscribed"), Unanswered("lost", id="own")])
    ]
    sends = await post.sent("1", "2", "3")
    assert sends[0].exception() is None
    second, third = sends[1].exception(), sends[2].exception()
    assert isinstance(second, NotSent)
    assert (second.id, str(second)) == ("2", "nobody ever subscribed")
    assert isinstance(third, Unanswered)
    assert third.id == "own"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (NotSent("closed"), NotSent),
        (Unanswered("no confirm"), Unanswered),
        (OSError("reset"), Unanswered),
    ],
)
@with_post
async def test_a_batch_that_fails_as_a_whole_fails_each_message_with_its_id(
    post: Post, error: Exception, kind: type[NotSent | Unanswered]
) -> None:
    post.desk.errors = [error]
    sends = await post.sent("1", "2")
    faults = [each.exception() for each in sends]
    assert [type(each) for each in faults] == [kind, kind]
    assert [getattr(each, "id", "") for each in faults] == ["1", "2"]
    assert all(str(error) in str(each) for each in faults)


@with_post
async def test_a_failed_batch_is_one_failure_and_five_open_the_circuit(post: Post) -> None:
    post.desk.errors = [OSError("reset") for _ in range(5)]
    sends = []
    for batch in range(5):
        sends += await post.sent(*(f"{batch}-{number}" for number in range(100)))
    assert all(isinstance(each.exception(), Unanswered) for each in sends)
    rejected = await post.sent("next")
    error = rejected[0].exception()
    assert isinstance(error, CircuitOpen)
    assert error.id == "next"
    assert error.retry_after == pytest.approx(30.0)
    assert len(post.desk.batches) == 5
    (change,) = post.observer.of(CircuitChanged)
    assert isinstance(change, CircuitChanged)
    assert (change.peer, change.after) == ("desk", "open")
    await post.clock.advance(31)
    await post.coalescer.publish(message("trial"), post.clock.now() + 5)
    assert post.desk.batches[-1] == ["trial"]


@with_post
async def test_the_circuit_is_as_it_was_asked_for(post: Post) -> None:
    post.open(breaker=CircuitBreaker(consecutive=1, wait=0.5))
    post.desk.errors = [OSError("reset")]
    await post.sent("1")
    (rejected,) = await post.sent("2")
    error = rejected.exception()
    assert isinstance(error, CircuitOpen)
    assert error.retry_after == pytest.approx(0.5)


@with_post
async def test_refusals_of_messages_are_not_the_brokers_failure(post: Post) -> None:
    post.desk.errors = [Unpublished([NotSent("nobody ever subscribed")]) for _ in range(10)]
    for number in range(10):
        (send,) = await post.sent(str(number))
        assert isinstance(send.exception(), NotSent)
    await post.coalescer.publish(message("well"), post.clock.now() + 5)


@with_post
async def test_a_refusal_with_a_cause_is(post: Post) -> None:
    for number in range(5):
        fault = NotSent("the disk is full")
        fault.__cause__ = OSError("ENOSPC")
        post.desk.errors = [Unpublished([fault])]
        (send,) = await post.sent(str(number))
        assert send.exception() is fault
    (send,) = await post.sent("next")
    assert isinstance(send.exception(), CircuitOpen)


@with_post
async def test_beyond_the_room_publishes_wait_their_turn_outside(post: Post) -> None:
    post.open(waiting_max=2, batch_max=1)
    post.desk.gate = asyncio.Event()
    sends = await post.sent("1", "2", "3", "4", "5")
    post.desk.gate.set()
    await asyncio.gather(*sends)
    assert post.desk.batches == [["1"], ["2"], ["3"], ["4"], ["5"]]


@with_post
async def test_outside_a_deadline_ends_the_wait(post: Post) -> None:
    post.open(waiting_max=1, batch_max=1)
    post.desk.gate = asyncio.Event()
    sends = await post.sent("1", "2", within=60)
    (outside,) = await post.sent("3", within=1)
    await post.clock.advance(1)
    error = outside.exception()
    assert isinstance(error, NotSent)
    assert error.id == "3"
    post.desk.gate.set()
    await asyncio.gather(*sends)
    assert ["3"] not in post.desk.batches


@with_post
async def test_what_has_expired_makes_room(post: Post) -> None:
    post.open(waiting_max=1, batch_max=1)
    post.desk.gate = asyncio.Event()
    first = await post.sent("1", within=60)
    expiring = await post.sent("2", within=1)
    outside = await post.sent("3", within=60)
    await post.clock.advance(1)
    assert isinstance(expiring[0].exception(), NotSent)
    post.desk.gate.set()
    await asyncio.gather(*first, *outside)
    assert post.desk.batches == [["1"], ["3"]]


@with_post
async def test_closing_sends_what_waits(post: Post) -> None:
    post.desk.gate = asyncio.Event()
    sends = [*await post.sent("1"), *await post.sent("2", "3")]
    closing = asyncio.ensure_future(post.coalescer.close(post.clock.now() + 5))
    await post.clock.rest()
    assert not closing.done()
    post.desk.gate.set()
    await closing
    await asyncio.gather(*sends)
    assert post.desk.batches == [["1"], ["2", "3"]]


@with_post
async def test_what_cannot_be_sent_by_the_end_is_given_up(post: Post) -> None:
    post.open(waiting_max=1)
    post.desk.gate = asyncio.Event()
    left = await post.sent("left", within=60)
    waiting = await post.sent("waiting", "outside", within=60)
    closing = asyncio.ensure_future(post.coalescer.close(post.clock.now() + 5))
    await post.clock.advance(5)
    await closing
    assert isinstance(left[0].exception(), Unanswered)
    assert isinstance(waiting[0].exception(), NotSent)
    assert isinstance(waiting[1].exception(), NotSent)


@with_post
async def test_after_the_end_a_publish_is_an_error(post: Post) -> None:
    until = post.clock.now() + 5
    await asyncio.gather(post.coalescer.close(until), post.coalescer.close(until))
    await post.coalescer.close(until)
    with pytest.raises(NotSent, match="closed") as error:
        await post.coalescer.publish(message("1"), until)
    assert error.value.id == "1"


@with_post
async def test_publishers_are_answered_though_the_bus_is_torn_down(post: Post) -> None:
    post.desk.gate = asyncio.Event()
    sends = [*await post.sent("left"), *await post.sent("waiting")]
    await post.tasks.close()
    await post.clock.rest()
    assert isinstance(sends[0].exception(), Unanswered)
    assert isinstance(sends[1].exception(), NotSent)


@with_post
async def test_the_watch_over_deadlines_ends_when_nothing_waits(post: Post) -> None:
    await post.coalescer.publish(message("1"), post.clock.now() + 5)
    await post.clock.advance(6)
    names = {task.get_name() for task in asyncio.all_tasks()}
    assert "coalescer: deadlines" not in names
    await post.coalescer.publish(message("2"), post.clock.now() + 5)
    assert post.desk.batches == [["1"], ["2"]]
