"""The rights that the page about Kafka names are enough, on a server that asks for them."""

from __future__ import annotations

import asyncio
import importlib
import re
import secrets
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import pytest
from confluent_kafka.admin import (
    AclBinding,  # pyright: ignore[reportPrivateImportUsage] - documented so
    AclBindingFilter,  # pyright: ignore[reportPrivateImportUsage] - documented so
    AclOperation,  # pyright: ignore[reportPrivateImportUsage] - documented so
    AclPermissionType,  # pyright: ignore[reportPrivateImportUsage] - documented so
    AdminClient,
    ResourcePatternType,  # pyright: ignore[reportPrivateImportUsage] - documented so
    ResourceType,  # pyright: ignore[reportPrivateImportUsage] - documented so
)
from operator_parts import records, run, write_module
from servers import Started

from callcast.brokers.kafka.names import CONTROL
from callcast.core.errors import NotSent, Unpublished
from callcast.core.message import Message
from callcast.ports.broker import Broker, Rewinds, need
from callcast.runtime import registry
from callcast.runtime.clock import AsyncioClock

pytestmark = pytest.mark.timeout(120)

PAGE = (Path(__file__).parents[2] / "docs" / "kafka.md").read_text(encoding="utf-8")
OPERATIONS = {
    "Read": AclOperation.READ,
    "Write": AclOperation.WRITE,
    "Create": AclOperation.CREATE,
    "Delete": AclOperation.DELETE,
    "AlterConfigs": AclOperation.ALTER_CONFIGS,
}
USER = "stranger"


def rights(who: str) -> tuple[list[str], list[str]]:
    """What the page says that somebody needs, on topics and on groups; without what is optional."""
    [line] = [line for line in PAGE.splitlines() if line.startswith(f"| {who}")]
    topics, groups = (cell.partition(";")[0] for cell in line.strip("| ").split("|")[1:])
    return re.findall(r"`(\w+)`", topics), re.findall(r"`(\w+)`", groups)


class Guard:
    """A module's topics on a server that asks who comes, and the one user of these tests."""

    def __init__(self, server: Started, till: ModuleType) -> None:
        self.till = till
        self.group = f"{till.__name__}-mail"
        host = server.listeners["SASL_PLAINTEXT"]
        self.url = (
            f"kafka://{USER}:{server.users[USER]}@{host}?mechanism=SCRAM-SHA-512&partitions=2"
        )
        self._at = server.url.partition("://")[2]

    @contextmanager
    def granted(self, who: str) -> Iterator[None]:
        """These rights, and nothing else."""
        topics, groups = rights(who)
        assert topics
        assert groups
        prefix, literal = ResourcePatternType.PREFIXED, ResourcePatternType.LITERAL
        wanted = [
            *((ResourceType.TOPIC, self.till.__name__, prefix, name) for name in topics),
            *((ResourceType.TOPIC, CONTROL, literal, name) for name in topics),
            *((ResourceType.GROUP, self.till.__name__, prefix, name) for name in groups),
        ]
        allow = AclPermissionType.ALLOW
        bindings = [
            AclBinding(kind, name, pattern, f"User:{USER}", "*", OPERATIONS[operation], allow)
            for kind, name, pattern, operation in wanted
        ]
        admin = self._admin()
        for future in admin.create_acls(bindings).values():
            future.result()
        del admin  # with its connections
        try:
            yield
        finally:
            self.forbid()

    def _admin(self) -> AdminClient:
        """Somebody who may do everything; its connections end with it."""
        return AdminClient({"bootstrap.servers": self._at})

    def forbid(self) -> None:
        """Take all rights back."""
        anything = AclBindingFilter(
            ResourceType.ANY,
            None,
            ResourcePatternType.ANY,
            f"User:{USER}",
            None,
            AclOperation.ANY,
            AclPermissionType.ANY,
        )
        admin = self._admin()
        for future in cast("dict[Any, Any]", admin.delete_acls([anything])).values():
            future.result()


@pytest.fixture
def guard(
    guarded_kafka: Started, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Generator[Guard]:
    name = f"till{secrets.token_hex(4)}"
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    write_module(tmp_path, name, topic=f"{name}.orders", prefix=f"{name}-")
    one = Guard(guarded_kafka, importlib.import_module(name))
    monkeypatch.setenv("CALLCAST_BROKER", one.url)
    yield one
    one.forbid()
    sys.modules.pop(name, None)


def test_the_rights_of_the_page_are_enough(guard: Guard) -> None:
    till = guard.till
    with guard.granted("`topology apply`"):
        applied = run("topology", "apply", f"{till.__name__}:mail")
        assert applied.exit_code == 0, applied.stderr
    with guard.granted("a service whose topics are there"):
        asyncio.run(till.publish(guard.url, "tea-1", "mug-1", services=[till.mail]))
    assert sorted(till.done) == ["mug-1", "tea-1"]
    with guard.granted("commands that look"):
        rows = records("queues", "--group", guard.group)
        assert {(row["ready"], row["dead"]) for row in rows} == {(0, 0)}
        assert records("dlq", "ls", "--group", guard.group) == []
        window = ("--from", "1h", "--dry-run")
        kept = records("replay", till.PLACED.topic, "--to-group", guard.group, *window)
        assert len(kept) == 2
        paused = run("pause", guard.group)
        assert paused.exit_code == 4
        assert f"did not let user '{USER}' write 'pause/" in paused.stderr
    with guard.granted("`topology retire`"):
        ended = run("topology", "retire", guard.group, "--yes")
        assert ended.exit_code == 0, ended.stderr


def test_who_may_look_and_not_write_redrives_and_replays_nothing_and_is_told_why(
    guard: Guard,
) -> None:
    till, group = guard.till, f"{guard.till.__name__}-stock"
    with guard.granted("`topology apply`"):
        assert run("topology", "apply", f"{till.__name__}:stock").exit_code == 0
    with guard.granted("a service whose topics are there"):
        asyncio.run(till.publish(guard.url, "piano-1", services=[till.stock]))
    with guard.granted("commands that look"):
        [letter] = records("dlq", "ls", "--group", group)
        window = ("replay", till.PLACED.topic, "--to-group", group, "--from", "1h")
        for refused in (run("dlq", "redrive", "--group", group), run(*window)):
            assert refused.exit_code == 4, refused.stderr
            [line] = [line for line in refused.stderr.splitlines() if line.startswith("error: ")]
            assert f"did not let user '{USER}' write to topic" in line
            assert "kafka-acls --add" in line
        assert records("dlq", "ls", "--group", group) == [letter]
    with guard.granted("a service whose topics are there"):
        redriven = run("dlq", "redrive", "--group", group)
        assert redriven.exit_code == 0, redriven.stderr


async def test_who_was_refused_publishes_as_soon_as_that_is_granted(guard: Guard) -> None:
    """The driver's producer is over once it was refused, and another one takes its place."""
    topic: str = guard.till.PLACED.topic
    with guard.granted("`topology apply`"):
        applied = await asyncio.to_thread(run, "topology", "apply", f"{guard.till.__name__}:PLACED")
        assert applied.exit_code == 0, applied.stderr
    broker: Broker = registry.open_broker(guard.url, AsyncioClock())
    message = Message("1", "/us", topic, topic, b'"tea"', "tea")
    try:
        with guard.granted("commands that look"):
            for _ in range(2):
                with pytest.raises(Unpublished) as refusal:
                    await broker.publish([message, message])
                for error in refusal.value.errors:
                    assert isinstance(error, NotSent)
                    assert "uthorization failed" in str(error)
        with guard.granted("a service whose topics are there"):
            await broker.publish([message])
            assert len(await need(broker, Rewinds).read(topic)) == 1
    finally:
        await broker.close()
