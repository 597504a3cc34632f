"""For all tests: a task, thread, socket or current span that a test leaves behind fails it."""

from __future__ import annotations

import asyncio
import functools
import inspect
import pathlib
import threading
from collections.abc import Callable, Coroutine, Generator

import pytest
from hypothesis import settings
from opentelemetry import context as otel_context

# A busy machine takes its time: the first example alone may pay for what is not loaded yet.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")

pytest_plugins = ("servers",)
pytest.register_assert_rewrite("callcast.testing.broker_suite")

GRACE = 1.0
"""Seconds that a thread which was asked to end may take."""
TURNS = 10
"""Turns of the loop that a cancelled task may take."""
FILES = pathlib.Path("/proc/self/fd")
OPEN = pytest.StashKey[tuple[set[threading.Thread], set[str]]]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
            item.obj = leaving_no_task(item.obj)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    item.stash[OPEN] = set(threading.enumerate()), sockets()
    before = otel_context.get_current()
    result = yield
    # The next test would find it as the parent of its own spans, and fail only in this order.
    assert otel_context.get_current() is before, "the test left a span or baggage current"
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    result = yield
    if OPEN in item.stash:
        threads_before, sockets_before = item.stash[OPEN]
        threads = [one for one in threading.enumerate() if one not in threads_before]
        for thread in threads:
            thread.join(GRACE)
        assert not [one for one in threads if one.is_alive()], "the test left a thread"
        assert not sockets() - sockets_before, "the test left a socket"
    return result


def leaving_no_task(
    test: Callable[..., Coroutine[object, object, None]],
) -> Callable[..., Coroutine[object, object, None]]:
    """The same test, which fails when it leaves a task that its fixtures did not start."""

    @functools.wraps(test)
    async def run(*args: object, **fixtures: object) -> None:
        before = asyncio.all_tasks()
        await test(*args, **fixtures)
        for _ in range(TURNS):
            if asyncio.all_tasks() <= before:
                return
            await asyncio.sleep(0)
        left = [task.get_coro() for task in asyncio.all_tasks() - before]
        assert not left, f"the test left {left}"

    return run


def sockets() -> set[str]:
    """The sockets that this process has open now; by inode, which is not used again soon."""
    names: set[str] = set()
    for file in FILES.iterdir() if FILES.is_dir() else ():
        try:
            name = str(file.readlink())
        except FileNotFoundError:
            continue  # the folder itself, while it was listed
        if name.startswith("socket:"):
            names.add(name)
    return names
