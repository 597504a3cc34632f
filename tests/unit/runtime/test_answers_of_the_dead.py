"""A request that ends in the dead letters: who asked hears of it, once and for good."""

from __future__ import annotations

import pytest

from callcast.core.errors import NotSent, Refused, Unanswered
from callcast.core.message import Message
from callcast.core.names import REPLY_ERRORS
from callcast.core.outcome import DONE, Dead, Later, Outcome, Release
from callcast.core.work import Kind, Work
from callcast.runtime.envelope import REPLY_TO
from callcast.runtime.replies import REPLY_PROBLEM, AnswerErrors
from callcast.testing.clock import ManualClock

REQUEST = {REPLY_TO: "callcast.replies.shop", REPLY_ERRORS: "1"}
CAST = {REPLY_TO: "orders.priced"}
DEAD = Dead("Oops: x", cause=ValueError("x"), exhausted=True)


def asked(headers: dict[str, str] = REQUEST) -> Work:
    message = Message("m-1", "shop", "a.b", "a.b", b"1", headers=headers)
    return Work(Kind.CONSUME, "a.b", "m-1", message=message)


async def answered(outcome: Outcome, work: Work, *errors: Exception) -> tuple[Outcome, list[str]]:
    """What becomes of an outcome, and the statuses that were sent."""
    sent: list[str] = []
    failing = list(errors)

    async def send(message: Message) -> None:
        if failing:
            raise failing.pop()
        sent.append(message.headers[REPLY_PROBLEM])

    async def proceed(_work: Work) -> Outcome:
        return outcome

    return await AnswerErrors("mail", ManualClock(), send)(work, proceed), sent


async def test_whoever_heard_that_it_failed_must_not_learn_later_that_it_was_done() -> None:
    # The kill switch has what died for want of attempts handled again, unless it was answered.
    outcome, sent = await answered(DEAD, asked())
    assert outcome == Dead(DEAD.reason, cause=DEAD.cause, exhausted=False)
    assert sent == ["500"]


async def test_a_refusal_is_answered_with_its_status() -> None:
    refused = Dead("Refused: no", cause=Refused("no", status=422))
    assert await answered(refused, asked()) == (refused, ["422"])


@pytest.mark.parametrize("outcome", [DONE, Later(1.0), Release()])
async def test_what_is_not_dead_is_not_answered(outcome: Outcome) -> None:
    assert await answered(outcome, asked()) == (outcome, [])


async def test_a_cast_whose_sender_does_not_wait_is_not_answered_with_an_error() -> None:
    assert await answered(DEAD, asked(CAST)) == (DEAD, [])


@pytest.mark.parametrize("error", [NotSent("x"), Unanswered("x")])
async def test_an_answer_that_cannot_be_sent_lets_the_message_come_again_uncounted(
    error: Exception,
) -> None:
    outcome, sent = await answered(DEAD, asked(), error)
    assert outcome == Release(1.0, "its answer could not be sent: x")
    assert sent == []
