"""Finding a group by the name that a person typed."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

from callcast.cli.failure import Failure
from callcast.cli.letters import sources_of
from callcast.ports.broker import Broker, Source


async def of_group(broker: Broker, group: str, topic: str | None = None) -> Sequence[Source]:
    """The group's sources, or that of one topic; a `Failure` with a suggestion when none is."""
    every = await sources_of(broker)
    found = [one for one in every if one.group == group and topic in {None, one.topic}]
    if found:
        return found
    topics = [one.topic for one in every if one.group == group]
    if topics:
        raise Failure(
            f"group {group!r} hears nothing of topic {topic!r}", fix=f"--topic {topics[0]}"
        )
    near = get_close_matches(group, {one.group for one in every}, n=1)
    raise Failure(
        f"there is no group {group!r}",
        fix=f"{near[0]}, perhaps; callcast queues lists all" if near else "callcast queues",
    )
