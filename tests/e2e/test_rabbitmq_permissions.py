"""A user who may not do all: each refusal says who wanted what, and what to grant."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from urllib.parse import quote, urlsplit

import pytest
from operator_parts import records, run
from rabbitmq_parts import fetched, listening, message, opened, topic
from servers import manage, missing, need

from callcast.core.errors import NotPermitted, NotSent, Unpublished
from callcast.core.outcome import Dead
from callcast.ports.broker import Source

pytestmark = pytest.mark.timeout(60)
PASSWORD = "not-to-be-seen"


class Clerk:
    """A user of a vhost, and what it may do there."""

    def __init__(self, api: str, url: str) -> None:
        parts = urlsplit(url)
        self._api, self._vhost = api, quote(parts.path.removeprefix("/"), safe="")
        self.url = f"amqp://clerk:{PASSWORD}@{parts.hostname}:{parts.port}{parts.path}"
        manage(api, "PUT", "users/clerk", {"password": PASSWORD, "tags": ""})

    def may(self, *, configure: str = ".*", write: str = ".*", read: str = ".*") -> None:
        granted = {"configure": configure, "write": write, "read": read}
        manage(self._api, "PUT", f"permissions/{self._vhost}/clerk", granted)

    def leave(self) -> None:
        manage(self._api, "DELETE", "users/clerk")


@pytest.fixture
def clerk(rabbitmq_url: str, request: pytest.FixtureRequest) -> Generator[Clerk]:
    api = need(request, "rabbitmq_url").management_url
    if not api:
        missing("users cannot be made on a server given from outside")
    one = Clerk(api, rabbitmq_url)
    yield one
    one.leave()


async def test_who_may_not_publish_there_is_told_and_publishes_elsewhere(
    clerk: Clerk, rabbitmq_url: str
) -> None:
    async with opened(rabbitmq_url) as owner:
        closed, free = await listening(owner), await listening(owner)
    clerk.may(write=f"^(amq\\.default|callcast.*|{free.topic}.*)$")
    async with opened(clerk.url) as broker:
        with pytest.raises(Unpublished) as told:
            await broker.publish([message("m", closed.topic)])
        [error] = told.value.errors
        assert isinstance(error, NotSent)
        assert isinstance(error.__cause__, NotPermitted)
        assert f"did not let 'clerk' publish to '{closed.topic}'" in str(error)
        assert "rabbitmqctl set_permissions" in str(error)
        assert PASSWORD not in str(error)
        await broker.publish([message("n", free.topic)])
    async with opened(rabbitmq_url) as owner:
        assert (await owner.lag(closed)).ready == 0
        assert (await owner.lag(free)).ready == 1


async def test_who_may_not_consume_there_is_told(clerk: Clerk, rabbitmq_url: str) -> None:
    async with opened(rabbitmq_url) as owner:
        source = await listening(owner)
        await owner.publish([message("m", source.topic)])
    clerk.may(read="^callcast.*$")
    async with opened(clerk.url) as broker:
        with pytest.raises(NotPermitted, match="did not let 'clerk'") as told:
            await broker.consume(source)
        assert PASSWORD not in str(told.value)
    async with opened(rabbitmq_url) as owner:
        assert (await owner.lag(source)).ready == 1


@pytest.mark.parametrize(
    ("granted", "tried", "place"),
    [
        (
            {"configure": "^(callcast.*|{topic}|{group}/[a-z0-9/]+)$"},
            "declare exchanges",
            "{group}",
        ),
        (
            {"configure": "^(callcast.*|{topic}|{group}|{group}/([0-9].*|[a-r].*|su.*))$"},
            "declare exchanges",
            "{group}/strays",
        ),
        (
            {"write": "^(amq\\.default|callcast.*|{topic}|{group}/.*)$"},
            "bind exchanges",
            "{group}",
        ),
        ({"read": "^(callcast.*|{group}.*)$"}, "bind exchanges", "{topic}"),
    ],
)
async def test_who_may_not_make_the_exchanges_of_an_ordered_group_is_told_which(
    clerk: Clerk, granted: dict[str, str], tried: str, place: str
) -> None:
    source = Source(topic(), "group", ordered=True, lanes=2)
    named = {"topic": source.topic, "group": str(source)}
    clerk.may(**{right: text.format(**named) for right, text in granted.items()})
    async with opened(clerk.url) as broker:
        with pytest.raises(NotPermitted) as told:
            await broker.ensure([source.topic], [source])
    sentence = str(told.value)
    assert f"did not let 'clerk' {tried}: " in sentence
    assert f"access to exchange '{place.format(**named)}'" in sentence
    assert "rabbitmqctl set_permissions" in sentence
    assert "\n" not in sentence
    assert PASSWORD not in sentence


def test_who_may_look_and_not_write_redrives_and_replays_nothing_and_is_told_why(
    clerk: Clerk, rabbitmq_url: str
) -> None:
    keeping = "?retain=3600"
    name = topic()
    source = Source(name, f"{name}-group")

    async def bury() -> None:
        async with opened(rabbitmq_url + keeping) as owner:
            await owner.ensure([name], [source])
            await owner.publish([message("m", name)])
            consumer = await owner.consume(source)
            [one] = await fetched(consumer, 1)
            await consumer.settle([(one, Dead("no box"))])

    async def clear() -> None:
        async with opened(rabbitmq_url + keeping) as owner:
            await owner.retire(source)

    asyncio.run(bury())
    group = ("--group", source.group)
    replay = ("replay", name, "--to-group", source.group, "--from", "1h")
    try:
        [letter] = records("dlq", "ls", *group, "--broker", rabbitmq_url)
        clerk.may(write="^callcast.*$")
        for refused in (
            run("dlq", "redrive", *group, "--broker", clerk.url),
            run(*replay, "--broker", clerk.url + keeping),
        ):
            assert refused.exit_code == 4, refused.stderr
            [line] = [line for line in refused.stderr.splitlines() if line.startswith("error: ")]
            assert "did not let 'clerk'" in line
            assert "rabbitmqctl set_permissions" in line
            assert PASSWORD not in refused.stderr
        assert records("dlq", "ls", *group, "--broker", rabbitmq_url) == [letter]
        clerk.may()
        for command in (("dlq", "redrive", *group), replay):
            allowed = run(*command, "--broker", clerk.url + keeping)
            assert allowed.exit_code == 0, allowed.stderr
    finally:
        asyncio.run(clear())
