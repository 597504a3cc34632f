"""The inbox's crash points, I1 to I16: real processes, killed at that place and started again.

I11 is Kafka's; it comes with that broker.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from crash_parts import DEAD, WITHIN, Account, Scene, fill, finish, until

ORDERS = 6


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


def settle(scene: Scene) -> Account:
    scene.run("pack")
    return Account(scene)


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
    scene.crash("pack", at=at)
    assert len(scene.effects()) < ORDERS or at == "inbox.after_ack@3"
    account = settle(scene)
    account.check(ORDERS)
    assert set(account.of("orders.packed").values()) == {1}


def test_a_lost_reply_to_commit_is_not_acknowledged_and_the_redelivery_finds_out(
    scene: Scene,
) -> None:
    """I5, alive."""
    child = scene.spawn("pack", armed="session.committed@3=raise")
    finish(child)
    assert (child.pid, "session.committed") in scene.reports()
    Account(scene).check(ORDERS)
    assert scene.waiting() == []


def test_many_copies_at_many_workers_have_one_effect_and_make_no_noise(scene: Scene) -> None:
    """I8: four copies of each message, four processes at once."""
    for _ in range(3):
        scene.replay()
        scene.run("sell", ORDERS)
    for child in [scene.spawn("pack") for _ in range(4)]:
        finish(child)  # without a word on stderr
    account = settle(scene)
    account.check(ORDERS)
    assert set(account.of("orders.placed").values()) == {4}
    assert scene.waiting() == []


def hold_and_wait(scene: Scene) -> tuple[subprocess.Popen[str], subprocess.Popen[str]]:
    """One process is stopped with the lock in its hands; another one has its messages by then."""
    second = scene.spawn("pack", armed="gate=pause:0,inbox.delivered=pause:0", CRASH_GATE="1")
    scene.until_reported(second, "gate")
    holder = scene.spawn("pack", armed="inbox.mid_handler@1=stop:0.2")
    scene.until_stopped(holder, "inbox.mid_handler")
    (scene.folder / "gate").touch()
    scene.until_reported(second, "inbox.delivered")
    return holder, second


def twice(scene: Scene) -> None:
    """A second copy of every message."""
    scene.replay()
    scene.run("sell", ORDERS)


def test_when_a_holder_is_killed_the_one_that_waits_for_its_lock_goes_on(scene: Scene) -> None:
    """I9."""
    twice(scene)
    holder, waiting = hold_and_wait(scene)
    os.kill(holder.pid, signal.SIGKILL)
    holder.communicate(timeout=WITHIN)
    finish(waiting)
    settle(scene).check(ORDERS)
    assert scene.waiting() == []


def test_a_holder_stopped_past_its_lease_has_one_effect_with_its_successor(scene: Scene) -> None:
    """I10: the second is busy while the first holds the lock, and finds a duplicate then."""
    holder, second = hold_and_wait(scene)
    until(lambda: took_over(scene, second), "the lease never ended")
    assert scene.effects() == []
    os.kill(holder.pid, signal.SIGCONT)
    finish(holder, "event loop blocked", "lease lost source='orders.placed/packers'")
    finish(second)
    settle(scene).check(ORDERS)
    assert scene.waiting() == []


def took_over(scene: Scene, second: subprocess.Popen[str]) -> bool:
    """Whether the second was handed every message that the first has in its hands."""
    handed = [pid for pid, place in scene.reports() if place == "inbox.delivered"]
    return handed.count(second.pid) >= 3  # the head of each of three keys


def test_a_purge_that_is_killed_forgets_nothing_and_one_that_is_not_quarantines(
    scene: Scene,
) -> None:
    """I12."""
    scene.run("pack")
    scene.crash("purge", at="inbox.in_purge")
    assert len(scene.rows("packers", "select 1 from callcast_inbox")) == ORDERS
    scene.run("again")
    scene.run("pack")
    assert scene.effects() == list(range(ORDERS))
    assert scene.waiting() == []

    scene.run("purge")
    assert scene.rows("packers", "select 1 from callcast_inbox") == []
    scene.run("again")
    scene.run("pack", complains=DEAD)
    assert scene.effects() == list(range(ORDERS))
    letters = scene.waiting()
    assert len(letters) == ORDERS
    assert {reason for _, _, reason in letters} == {"unknown after purge"}


@pytest.mark.parametrize("at", ["inbox.before_dead", "inbox.after_dead"])
def test_bytes_that_are_no_order_are_one_dead_letter_with_the_same_bytes(
    scene: Scene, at: str
) -> None:
    """I13, I14."""
    scene.run("garbage")
    scene.crash("pack", at=at)
    settle_without_tap(scene)
    ((id_, body, reason),) = scene.waiting(complains=DEAD)
    assert (id_, body) == ("garbage", (b"\xff\x00 no order").hex())
    assert "Undecodable" in str(reason)


def settle_without_tap(scene: Scene) -> None:
    scene.run("pack", complains=DEAD)
    assert scene.effects() == list(range(ORDERS))


def test_a_redrive_that_is_killed_leaves_every_letter_somewhere_and_one_effect(
    scene: Scene,
) -> None:
    """I15: the letter under way is in both places, and the inbox removes the second copy."""
    scene.run("pack", complains=DEAD, CRASH_POISON="1")
    assert len(scene.waiting()) == ORDERS
    scene.crash("redrive", at="dlq.mid_redrive@3")
    assert len(scene.waiting()) == ORDERS - 2  # the third was published and not taken
    scene.run("pack")
    assert len(scene.effects()) == 3
    scene.run("redrive")
    settle(scene).check(ORDERS)
    assert scene.waiting() == []


@pytest.fixture
def small_disk(scene: Scene, tmp_path: Path) -> Iterator[Path]:
    """The packers' database on a file system of 2 MB, which really fills up."""
    if os.geteuid() != 0 and os.environ.get("CI") != "true":  # CI must be able to mount
        pytest.skip("mounting a small file system needs root")
    disk = scene.folder / "packers"
    files = {path.name: path.read_bytes() for path in disk.iterdir()}
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], check=True)
    for name, content in files.items():
        (disk / name).write_bytes(content)
    yield disk
    scene.end()
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_while_the_database_is_away_nothing_is_acknowledged_dead_or_counted(
    scene: Scene, small_disk: Path
) -> None:
    """I16."""
    child = scene.spawn("pack", armed="inbox.delivered@1=stop:0.2,inbox.delivered=pause:0")
    scene.until_stopped(child, "inbox.delivered")
    filler = small_disk / "filler"
    fill(filler)
    os.kill(child.pid, signal.SIGCONT)
    tries = len(scene.reports())
    until(lambda: len(scene.reports()) >= tries + 8, "it gave up")
    assert scene.effects() == []
    assert scene.waiting() == []
    assert all(line.endswith(" 0") for line in scene.run("look").splitlines())
    filler.unlink()
    finish(child, "event loop blocked", "kill switch changed")
    settle(scene).check(ORDERS)
    assert scene.waiting() == []


# Mutants: with a guard taken away, the checks above must fail.


def test_without_the_inbox_an_effect_happens_twice(scene: Scene) -> None:
    """I6, the mutant."""
    scene.crash("pack", at="inbox.after_commit@2", mutant="without_inbox")
    scene.run("pack", mutant="without_inbox")
    account = Account(scene)
    assert len(account.effects) > ORDERS
    with pytest.raises(AssertionError, match="happened twice"):
        account.check(ORDERS)


def test_with_the_inbox_row_in_a_transaction_of_its_own_an_effect_is_lost(scene: Scene) -> None:
    """I3, the mutant."""
    scene.crash("pack", at="inbox.mid_handler@2", mutant="inbox_row_first")
    scene.run("pack", mutant="inbox_row_first")
    account = Account(scene)
    assert len(account.effects) < ORDERS
    with pytest.raises(AssertionError, match="an effect is missing"):
        account.check(ORDERS)


def test_acknowledged_before_the_commit_an_effect_is_lost(scene: Scene) -> None:
    """I4, the mutant."""
    scene.crash("pack", at="inbox.before_commit@2", mutant="ack_before_commit")
    account = settle(scene)
    assert len(account.effects) < ORDERS
    with pytest.raises(AssertionError, match="an effect is missing"):
        account.check(ORDERS)
