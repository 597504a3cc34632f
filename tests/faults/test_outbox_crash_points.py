"""The outbox's crash points, O1 to O16: real processes, killed at that place and started again.

O8 needs a broker that is a process of its own; it comes with the first of those. With a guard taken
away each of these must fail: see `test_crash_mutants`.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import crash_cases as cases
import pytest
from crash_cases import BLOCKED, LANE_LOST, ORDERS
from crash_parts import Scene, fill, finish, until

pytestmark = pytest.mark.timeout(150)


@pytest.fixture(scope="module")
def subscribed(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """Packers and tappers listen; nothing is sold yet."""
    scene = Scene(tmp_path_factory.mktemp("subscribed"))
    scene.run("subscribe")
    return scene


@pytest.fixture
def scene(subscribed: Scene, tmp_path: Path) -> Iterator[Scene]:
    scene = subscribed.copy(tmp_path / "scene")
    yield scene
    scene.end()


@pytest.mark.parametrize("at", ["outbox.after_business_write@3", "outbox.before_commit@3"])
def test_killed_before_the_commit_neither_row_exists(scene: Scene, at: str) -> None:
    """O1, O2."""
    scene.crash("sell", ORDERS, at=at)
    assert scene.placed() == [0, 1]
    assert len(scene.outbox()) == 2
    cases.sold(scene).check(ORDERS)


def test_killed_when_commit_is_done_and_not_answered_both_rows_exist(scene: Scene) -> None:
    """O3: the first commit is that of the tables."""
    scene.crash("sell", ORDERS, at="session.committed@4")
    assert scene.placed() == [0, 1, 2]
    assert len(scene.outbox()) == 3
    cases.sold(scene).check(ORDERS)


def test_a_lost_reply_to_commit_is_unknown_to_the_caller_and_nothing_is_repeated(
    scene: Scene,
) -> None:
    """O3, alive."""
    cases.reply_to_commit_lost(scene)


def test_killed_after_the_commit_the_message_is_published_after_the_restart(scene: Scene) -> None:
    """O4: the nudge never came."""
    scene.crash("sell", ORDERS, at="outbox.after_commit@3")
    assert scene.outbox() == [0, 0, 0]
    cases.sold(scene).check(ORDERS)


def test_a_relay_that_is_alive_finds_within_its_poll_what_a_dead_one_committed(
    scene: Scene,
) -> None:
    """O4, in time."""
    cases.nudge_lost(scene)


@pytest.mark.parametrize(
    "at",
    ["outbox.lane_taken", "outbox.after_read", "outbox.before_publish", "outbox.before_publish@2"],
)
def test_killed_before_publishing_each_message_leaves_once(scene: Scene, at: str) -> None:
    """O5, O6: the lane is taken over, and nothing was on the wire."""
    scene.crash("sell", ORDERS, at=at)
    assert scene.outbox() == [0] * ORDERS
    account = cases.sold(scene)
    account.check(ORDERS)
    if not at.endswith("@2"):  # by the second one the first may have been written
        assert set(account.of("orders.placed").values()) == {1}


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_the_lane_of_a_relay_that_is_gone_is_taken_over_within_its_lease(
    scene: Scene, how: str
) -> None:
    """O5, in time."""
    cases.lane_taken_over(scene, how)


@pytest.mark.parametrize(
    "at",
    [
        "outbox.unconfirmed",
        "outbox.after_publish",
        "outbox.after_publish@2",
        "outbox.before_mark",
        "session.committed@10",
        "outbox.after_mark",
        "outbox.after_mark@2",
    ],
)
def test_killed_while_publishing_no_message_is_lost_and_copies_have_one_id(
    scene: Scene, at: str
) -> None:
    """O7, O9, O10, O11: at most the batch that was under way goes out twice."""
    account = cases.seller_killed(scene, at)
    assert set(account.of("orders.placed").values()) <= {1, 2}
    assert set(account.of("orders.packed").values()) == {1}


def test_a_mark_whose_commit_is_unknown_is_repeated_or_found_done(scene: Scene) -> None:
    """O10, alive: tables, six orders, upkeep, lane, mark."""
    child = scene.spawn("sell", ORDERS, armed="session.committed@10=raise")
    finish(child)
    assert (child.pid, "session.committed") in scene.reports()
    account = cases.sold(scene)
    account.check(ORDERS)
    assert set(account.of("orders.placed").values()) <= {1, 2}


def stale_marks(scene: Scene) -> list[str]:
    """Marks that changed something under an epoch that was over."""
    marks = [line.split() for line in (scene.folder / "marks").read_text().splitlines()]
    return [
        f"epoch {epoch} changed {changed} rows when {latest} held the lane"
        for epoch, latest, changed in marks
        if int(changed) and int(epoch) < int(latest)
    ]


def stop_and_succeed(scene: Scene, mutant: str = "") -> None:
    """One relay is stopped before its mark; a second has the lane when the first goes on.

    The first has a single message and renews nothing, so that no transaction is open when it
    stops: nobody else could write then.
    """
    how = {"mutant": mutant, "CRASH_UNRENEWED": "1"}
    first = scene.spawn("sell", 1, armed="outbox.after_publish@1=stop:0.5", **how)
    scene.until_stopped(first, "outbox.after_publish")
    second = scene.spawn("sell", ORDERS, armed="outbox.before_publish@1=stop:0.5", **how)
    scene.until_stopped(second, "outbox.before_publish")
    os.kill(first.pid, signal.SIGCONT)
    finish(first, BLOCKED, LANE_LOST)
    os.kill(second.pid, signal.SIGCONT)
    finish(second, BLOCKED, LANE_LOST)


def test_a_relay_stopped_past_its_lease_marks_nothing_when_it_goes_on(scene: Scene) -> None:
    """O12."""
    stop_and_succeed(scene)
    assert stale_marks(scene) == []
    account = cases.sold(scene)
    account.check(ORDERS)


def test_without_the_fence_a_stale_mark_is_seen(scene: Scene) -> None:
    """O12, the mutant: the check above is worth something."""
    stop_and_succeed(scene, mutant="without_fence")
    assert stale_marks(scene) != []


def test_a_message_that_nobody_hears_waits_for_ever_and_leaves_when_somebody_does(
    tmp_path: Path,
) -> None:
    """O13."""
    scene = Scene(tmp_path)
    try:
        cases.unroutable(scene)
    finally:
        scene.end()


def test_killed_in_the_cleanup_no_pending_row_is_gone(scene: Scene) -> None:
    """O14."""
    cases.cleanup_killed(scene)


def test_a_row_that_no_broker_takes_parks_its_key_alone_and_is_told(scene: Scene) -> None:
    """O15."""
    cases.poisoned(scene)


@pytest.mark.skipif(not cases.mountable(), reason="mounting a small file system needs root")
def test_on_a_full_disk_the_users_transaction_fails_whole_and_all_goes_on_with_space(
    scene: Scene,
) -> None:
    """O16."""
    with cases.small_disk(scene, "orders") as disk:
        sell_on(scene, disk)


def sell_on(scene: Scene, disk: Path) -> None:
    filler = disk / "filler"
    child = scene.spawn("sell", ORDERS, armed="outbox.after_commit@2=stop:0.5")
    scene.until_stopped(child, "outbox.after_commit")
    fill(filler)
    os.kill(child.pid, signal.SIGCONT)
    told = scene.folder / "unavailable"
    until(lambda: told.exists() and "full" in told.read_text(), "the full disk was not told")
    assert scene.placed() == [0, 1]
    assert scene.outbox() == [0, 0]
    assert child.poll() is None
    filler.unlink()
    finish(child)
    cases.sold(scene).check(ORDERS)
