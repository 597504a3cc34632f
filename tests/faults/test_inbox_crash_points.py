"""The inbox's crash points, I1 to I16: real processes, killed at that place and started again.

I11 is Kafka's; it comes with that broker. With a guard taken away each of these must fail: see
`test_crash_mutants`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import crash_cases as cases
import pytest
from crash_cases import ORDERS
from crash_parts import Scene

pytestmark = pytest.mark.timeout(150)


@pytest.fixture(scope="module")
def sold(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """Six orders wait at the packers'."""
    scene = Scene(tmp_path_factory.mktemp("sold"))
    scene.run("subscribe")
    scene.run("sell", ORDERS)
    return scene


@pytest.fixture
def scene(sold: Scene, tmp_path: Path) -> Iterator[Scene]:
    scene = sold.copy(tmp_path / "scene")
    yield scene
    scene.end()


BEFORE_COMMIT = [
    "inbox.delivered@2",
    "inbox.after_insert@2",
    "inbox.mid_handler@2",
    "inbox.before_commit@2",
]
AFTER_COMMIT = [
    "session.committed@3",  # the first is that of the tables
    "inbox.after_commit@2",
    "inbox.before_ack",
    "inbox.after_ack",
    "inbox.after_ack@3",
]


@pytest.mark.parametrize("at", [*BEFORE_COMMIT, *AFTER_COMMIT])
def test_wherever_a_worker_dies_each_message_has_one_effect(scene: Scene, at: str) -> None:
    """I1 to I7, killed."""
    cases.packer_killed(scene, at)


def test_a_lost_reply_to_commit_is_not_acknowledged_and_the_redelivery_finds_out(
    scene: Scene,
) -> None:
    """I5, alive."""
    cases.reply_to_packer_lost(scene)


@pytest.mark.parametrize("at", ["", "inbox.before_commit@1", "inbox.before_ack@1"])
def test_many_copies_at_many_workers_have_one_effect_and_make_no_noise(
    scene: Scene, at: str
) -> None:
    """I8, also when one of the workers dies among the others."""
    cases.many_copies(scene, at)


def test_when_a_holder_is_killed_the_one_that_waits_for_its_lock_goes_on(scene: Scene) -> None:
    """I9."""
    cases.holder_killed(scene)


def test_a_holder_stopped_past_its_lease_has_one_effect_with_its_successor(scene: Scene) -> None:
    """I10."""
    cases.holder_stopped(scene)


def test_a_purge_that_is_killed_forgets_nothing_and_one_that_is_not_quarantines(
    scene: Scene,
) -> None:
    """I12."""
    cases.purge_killed(scene)


@pytest.mark.parametrize("at", ["inbox.before_dead", "inbox.after_dead"])
def test_bytes_that_are_no_order_are_one_dead_letter_with_the_same_bytes(
    scene: Scene, at: str
) -> None:
    """I13, I14."""
    cases.garbage_dies(scene, at)


def test_a_redrive_that_is_killed_leaves_every_letter_somewhere_and_one_effect(
    scene: Scene,
) -> None:
    """I15."""
    cases.redrive_killed(scene)


@pytest.mark.skipif(not cases.mountable(), reason="mounting a small file system needs root")
def test_while_the_database_is_away_nothing_is_acknowledged_dead_or_counted(scene: Scene) -> None:
    """I16."""
    with cases.small_disk(scene, "packers") as disk:
        cases.database_away(scene, disk)
