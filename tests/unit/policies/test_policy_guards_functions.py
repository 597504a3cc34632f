"""`Policy` around a function: arguments, retries, deadlines, threads."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest
from policies_kit import Guarded, a_context

from callcast.core.context import AMBIENT
from callcast.core.errors import (
    CallcastError,
    CircuitOpen,
    Expired,
    Misuse,
    NotSent,
    Unanswered,
)
from callcast.core.work import Kind, Work
from callcast.policies.history import attempts_of
from callcast.ports.observer import Retried
from callcast.runtime.policy import Bulkhead, Policy, Retry, _invoke


async def test_a_guarded_function_is_called_with_its_arguments() -> None:
    policy = Policy()

    @policy
    async def add(left: int, *, right: int = 0) -> int:
        """Add."""
        return left + right

    assert await add(1, right=2) == 3
    assert await policy.run(add, 4) == 4
    assert add.__name__ == "add"
    assert add.__doc__ == "Add."


async def test_a_decorated_method_gets_its_self() -> None:
    policy = Policy()

    class Client:
        def __init__(self) -> None:
            self.seen: list[str] = []

        @policy
        async def get(self, path: str) -> str:
            self.seen.append(path)
            return path

    client = Client()
    assert await client.get("/a") == "/a"
    assert client.seen == ["/a"]


async def test_everything_that_gives_something_to_await_can_be_guarded() -> None:
    class Asynchronous:
        async def __call__(self, value: int) -> int:
            return value

        async def method(self, value: int) -> int:
            return value

    async def plain(value: int) -> int:
        return value

    @functools.wraps(plain)
    def wrapper(value: int) -> Awaitable[int]:
        return plain(value)

    one = Asynchronous()
    policy = Policy()
    functions: list[Callable[[int], Awaitable[int]]] = [
        plain,
        one,
        one.method,
        functools.partial(plain),
        functools.partial(one),
        functools.partial(functools.partial(one.method)),
        wrapper,
        lambda value: plain(value + 0),
    ]
    for function in functions:
        assert await policy.run(function, 7) == 7
        assert await policy(function)(7) == 7


async def stream() -> AsyncIterator[int]:
    yield 1


def items() -> Iterator[int]:
    yield 1


class Plain:
    def __call__(self) -> int:
        return 1


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (len, "not an async function"),
        (dict, "not an async function"),
        (Plain(), "not an async function"),
        (functools.partial(len, "x"), "not an async function"),
        (functools.partial(Plain()), "not an async function"),
        (stream, "is a stream"),
        (items, "is a stream"),
    ],
)
async def test_what_cannot_be_guarded_is_refused_before_it_is_called(
    function: Callable[..., Awaitable[object]], why: str
) -> None:
    with pytest.raises(Misuse, match=why):
        Policy()(function)
    with pytest.raises(Misuse, match=why):
        await Policy().run(function)


async def test_a_lambda_that_gives_nothing_to_await_is_refused_once_it_did() -> None:
    calls: list[int] = []
    policy = Policy(idempotent=True)
    with pytest.raises(Misuse, match="returned NoneType, which cannot be awaited"):
        await policy.run(lambda: calls.append(1))  # type: ignore[arg-type, func-returns-value]
    assert calls == [1]  # not retried


async def test_only_what_was_surely_not_sent_is_retried_by_default() -> None:
    guarded = Guarded()
    guarded.errors = [NotSent("no connection"), NotSent("no connection")]
    assert await guarded.run() == "X"
    assert guarded.calls == 3
    guarded.errors = [OSError("perhaps")]
    with pytest.raises(OSError, match="perhaps"):
        await guarded.run()
    assert guarded.calls == 4


@pytest.mark.parametrize("parts", [{"idempotent": True}, {"retry_on": OSError}])
async def test_what_may_be_repeated_is_and_its_own_error_surfaces_with_the_history(
    parts: dict[str, object],
) -> None:
    guarded = Guarded(**parts)
    last = OSError("third")
    guarded.errors = [OSError("first"), OSError("second"), last]
    with pytest.raises(OSError, match="third") as caught:
        await guarded.run()
    assert caught.value is last
    assert [each.error for each in attempts_of(last)] == [
        "OSError: first",
        "OSError: second",
        "OSError: third",
    ]
    assert [fact.outcome for fact in guarded.seen.of(Retried)] == [  # type: ignore[attr-defined]
        "retried",
        "retried",
        "exhausted",
    ]


async def test_a_call_never_ends_later_than_its_deadline() -> None:
    guarded = Guarded(deadline=2.0, idempotent=True)
    guarded.takes = 60.0
    task = asyncio.ensure_future(guarded.policy.run(guarded.function))
    await guarded.clock.advance(2.0)
    with pytest.raises(Unanswered) as caught:
        await task
    assert [each.took for each in caught.value.attempts] == pytest.approx([1.0, 0.975])
    assert guarded.calls == 2


@pytest.mark.parametrize("deadline", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("takes", [0.1, 0.4, 9.0])
async def test_whatever_fails_and_however_slowly_the_deadline_holds(
    deadline: float, takes: float
) -> None:
    guarded = Guarded(deadline=deadline, idempotent=True, retry=Retry(50, 0.2, 5.0))
    guarded.takes = takes
    guarded.errors = [OSError("down")] * 1_000
    task = asyncio.ensure_future(guarded.policy.run(guarded.function))
    await guarded.clock.advance(deadline)
    assert task.done()
    with pytest.raises((OSError, CallcastError)):
        await task


async def test_a_caller_that_waits_has_the_last_word_on_the_deadline() -> None:
    guarded = Guarded(deadline=60.0)
    guarded.takes = 30.0
    token = AMBIENT.set(a_context(deadline=guarded.clock.now() + 1.0))
    try:
        task = asyncio.ensure_future(guarded.policy.run(guarded.function))
        await guarded.clock.advance(1.0)
        with pytest.raises(Unanswered):
            await task
        with pytest.raises(Expired):
            await guarded.policy.run(guarded.function)
    finally:
        AMBIENT.reset(token)
    assert guarded.calls == 1


async def test_a_function_without_a_deadline_may_take_its_time() -> None:
    guarded = Guarded()
    guarded.takes = 900.0
    assert await guarded.run() == "X"


async def test_two_policies_share_nothing_however_equal() -> None:
    one, other = Guarded(), Guarded()
    assert one.policy == other.policy
    one.errors = [OSError("down")] * 5
    for _ in range(5):
        with pytest.raises(OSError, match="down"):
            await one.policy.run(one.function)
    with pytest.raises(CircuitOpen):
        await one.policy.run(one.function)
    assert await other.run() == "X"


def test_one_policy_serves_many_threads_at_once() -> None:
    policy = Policy(bulkhead=None)
    barrier = threading.Barrier(10)
    done: list[int] = []

    async def wait(number: int) -> int:
        # Had a lock been held meanwhile, the others would never get here.
        await asyncio.to_thread(barrier.wait, 10.0)
        return number

    def work(number: int) -> None:
        done.append(asyncio.run(policy.run(wait, number)))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(10)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert sorted(done) == list(range(10))


@pytest.mark.parametrize("wrong", [{"deadline": 0.0}, {"attempt_timeout": -1.0}])
def test_a_policy_out_of_range_is_misuse(wrong: dict[str, float]) -> None:
    with pytest.raises(Misuse, match=r"Policy\("):
        Policy(**wrong)  # type: ignore[arg-type]


def test_a_policy_explains_itself() -> None:
    text = repr(Policy(deadline=2.0, idempotent=True))
    assert text.startswith("Policy(retry=Retry(attempts=3, base=0.05, cap=5.0")
    assert "deadline=2.0" in text
    assert "idempotent=True" in text
    assert "ports" not in text


def test_a_chain_of_a_policy_runs_nothing_but_functions() -> None:
    with pytest.raises(Misuse):
        _invoke(Work(Kind.CALL, "x"))


async def test_on_the_machines_own_clock_an_attempt_ends_in_time() -> None:
    policy = Policy(deadline=0.2, idempotent=True)
    calls: list[int] = []

    async def hangs() -> None:
        calls.append(1)
        await asyncio.sleep(60)

    with pytest.raises(Unanswered):
        async with asyncio.timeout(10):
            await policy.run(hangs)
    assert 1 <= len(calls) <= 3  # two, but a machine that stalls may leave time for one only


async def test_on_the_machines_own_clock_callers_queue_and_go_in() -> None:
    policy = Policy(bulkhead=Bulkhead(2, queue=20), deadline=30.0)
    inside: list[int] = []
    most: list[int] = []

    @policy
    async def work(number: int) -> int:
        inside.append(number)
        most.append(len(inside))
        await asyncio.sleep(0)
        inside.remove(number)
        return number

    assert await asyncio.gather(*[work(number) for number in range(20)]) == list(range(20))
    assert max(most) == 2
