"""What is done at each crash point, and what must hold then: with all guards, and with one gone.

A case is a scene in which something dies, everything is started again, and what must hold is
asserted. The tests of the points run it as it is; `test_crash_mutants` runs it with a guard taken
away, by the name of the mutant, and it must fail then.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from crash_parts import DEAD, WITHIN, Account, Scene, fill, finish, until
from crash_places import LEASE

ORDERS = 6
SLACK = 1.5
"""Seconds that a busy machine may add to a bound in time."""
POLL = 0.1
"""Seconds: `poll_max` of the relays in `crash_places.hurry`."""
ALARM = "outbox aged"
BLOCKED = "event loop blocked"
LANE_LOST = "lease lost source='callcast.outbox/orders'"


def sold(scene: Scene, number: int = ORDERS, mutant: str = "") -> Account:
    """Sell and pack without faults, and draw up the account."""
    scene.run("sell", number, mutant=mutant)
    scene.run("pack", mutant=mutant)
    return Account(scene)


def packed(scene: Scene, mutant: str = "") -> Account:
    """Pack without faults, and draw up the account."""
    scene.run("pack", mutant=mutant)
    return Account(scene)


# The outbox


def seller_killed(scene: Scene, at: str, mutant: str = "") -> Account:
    """O1 to O3, O6, O7, O9 to O11: killed there, and started again."""
    scene.crash("sell", ORDERS, at=at, mutant=mutant)
    account = sold(scene, mutant=mutant)
    account.check(ORDERS)
    return account


def reply_to_commit_lost(scene: Scene, mutant: str = "") -> None:
    """O3, alive: the caller hears that it is unknown, and nothing is repeated."""
    child = scene.spawn("sell", ORDERS, armed="session.committed@4=raise", mutant=mutant)
    _, errors = child.communicate(timeout=WITHIN)
    assert "CommitUnknown" in errors, "the caller was not told"
    assert (scene.folder / "unknown").read_text() == "2"
    assert scene.placed() == [0, 1, 2]
    assert len(scene.outbox()) == 3
    sold(scene).check(ORDERS)


@contextmanager
def relay(scene: Scene, mutant: str = "", *complains: str) -> Iterator[None]:
    """A second process of the sellers', which relays as soon as there is a gate."""
    child = scene.spawn("relay", mutant=mutant)
    scene.until_ready(child)
    yield
    (scene.folder / "stop").touch()
    finish(child, *complains)


def nudge_lost(scene: Scene, mutant: str = "") -> None:
    """O4: what another process committed leaves within the poll interval, though it died then."""
    with relay(scene, mutant):
        (scene.folder / "gate").touch()
        scene.crash("sell", 3, at="outbox.after_commit@3")
        until(lambda: scene.outbox() == [1, 1, 1], "nobody looked", POLL + SLACK)
        ages = scene.rows("orders", "select published_at - created_at from callcast_outbox")
        assert max(float(str(age)) for (age,) in ages) <= POLL + SLACK
    sold(scene).check(ORDERS)


def lane_taken_over(scene: Scene, how: str, mutant: str = "") -> None:
    """O5: who has the lane is killed or stopped before it reads; another has it within its lease."""
    with relay(scene, mutant):
        action = "kill" if how == "kill" else "stop:0.5"
        first = scene.spawn("sell", ORDERS, armed=f"outbox.lane_taken@1={action}")
        if how == "kill":
            first.communicate(timeout=WITHIN)
            assert scene.reports()[-1] == (first.pid, "outbox.lane_taken")
        else:
            scene.until_stopped(first, "outbox.lane_taken")
        ((left, ends),) = scene.rows(
            "orders",
            "select lease_until - (julianday('now') - 2440587.5) * 86400.0, lease_until"
            " from callcast_outbox_lane",
        )
        assert float(str(left)) <= LEASE
        (scene.folder / "gate").touch()
        until(lambda: scene.outbox() == [1] * ORDERS, "nobody took over", LEASE + SLACK)
        ((began,),) = scene.rows("orders", "select min(published_at) from callcast_outbox")
        assert float(str(began)) <= float(str(ends)) + SLACK
        assert how == "kill" or float(str(began)) >= float(str(ends)), "the lease had not ended"
    if how == "stop":
        os.kill(first.pid, signal.SIGCONT)
        finish(first, BLOCKED, LANE_LOST)
    account = packed(scene)
    account.check(ORDERS)
    assert set(account.of("orders.placed").values()) == {1}


def unroutable(scene: Scene, mutant: str = "") -> None:
    """O13: nobody hears it; killed as it is refused. Pending, never parked, never published."""
    child = scene.spawn("sell", 3, armed="outbox.refused@5=kill", mutant=mutant)
    child.communicate(timeout=WITHIN)
    assert scene.outbox() == [0, 0, 0], "a row counts as published, or is parked"
    assert child.returncode == -signal.SIGKILL
    assert scene.reports() == [(child.pid, "outbox.refused")]
    rows = scene.rows("orders", "select attempts, last_error from callcast_outbox")
    assert min(int(str(attempts)) for attempts, _ in rows) >= 1, "it was not tried again"
    assert all("NotSent" in str(error) for _, error in rows)
    scene.run("subscribe")
    sold(scene, 3).check(3)


def cleanup_killed(scene: Scene, mutant: str = "") -> None:
    """O14: no pending row is gone, neither then nor with the next cleanup."""
    scene.run("sell", 4)
    scene.write("orders", "update callcast_outbox set published_at = published_at - 7200")
    scene.crash("sell", ORDERS, at="outbox.in_cleanup", CRASH_CLEAN="1", mutant=mutant)
    assert sorted(map(str, scene.outbox())) == ["0", "0", "1", "1", "1", "1"]
    scene.run("sell", ORDERS, CRASH_CLEAN="1", mutant=mutant)
    assert scene.outbox() == [1, 1], "a pending row is gone"
    scene.run("pack")
    assert Account(scene).effects == list(range(ORDERS))


def poisoned(scene: Scene, mutant: str = "") -> None:
    """O15: killed as the row is refused, and again once it is parked; the others go on."""
    how = {"CRASH_TOO_LARGE": "1", "mutant": mutant}
    scene.crash("sell", ORDERS, at="outbox.refused@1", **how)
    assert scene.outbox()[0] == 0, "refused, and not written down yet"
    child = scene.spawn("sell", ORDERS, **how)
    until(lambda: ordered_states(scene) == PARKED, "the key of order 0 is not parked", PARKS)
    _, errors = child.communicate(timeout=WITHIN)
    assert child.returncode == 0, errors
    assert ALARM in errors, "no alarm"
    scene.crash("sell", ORDERS, at="outbox.after_read", **how)  # nobody forgets it
    assert ordered_states(scene) == PARKED
    scene.run("pack")
    assert scene.effects() == [1, 2, 4, 5]


PARKED = [2, 1, 1, 0, 1, 1]
"""Six orders of three keys; that of order 0 is parked, and 3 waits behind it."""
PARKS = 6.0


def ordered_states(scene: Scene) -> list[object]:
    return [
        state for (state,) in scene.rows("orders", "select state from callcast_outbox order by id")
    ]


# The inbox


def packer_killed(scene: Scene, at: str, mutant: str = "") -> None:
    """I1 to I7: killed there, and started again."""
    scene.crash("pack", at=at, mutant=mutant)
    assert len(scene.effects()) < ORDERS or at == "inbox.after_ack@3"
    account = packed(scene, mutant)
    account.check(ORDERS)
    assert set(account.of("orders.packed").values()) == {1}


def reply_to_packer_lost(scene: Scene, mutant: str = "") -> None:
    """I5, alive: not acknowledged, and the redelivery finds out."""
    child = scene.spawn("pack", armed="session.committed@3=raise", mutant=mutant)
    finish(child)
    assert (child.pid, "session.committed") in scene.reports()
    Account(scene).check(ORDERS)
    assert scene.waiting() == []


def many_copies(scene: Scene, at: str = "", mutant: str = "") -> None:
    """I8: four copies of each message, four processes at once; the first may be killed."""
    for _ in range(3):
        twice(scene)
    children = [
        scene.spawn("pack", armed="gate=pause:0", mutant=mutant, CRASH_GATE="1") for _ in range(3)
    ]
    for child in children:
        scene.until_reported(child, "gate")
    armed = f"inbox.delivered=pause:0,{at}=kill" if at else "inbox.delivered=pause:0"
    first = scene.spawn("pack", armed=armed, mutant=mutant)
    scene.until_reported(first, "inbox.delivered")
    (scene.folder / "gate").touch()
    if at:
        first.communicate(timeout=WITHIN)
        assert first.returncode == -signal.SIGKILL
        assert (first.pid, at.partition("@")[0]) in scene.reports()
    for child in children if at else [first, *children]:
        finish(child)
    account = packed(scene, mutant)
    account.check(ORDERS)
    assert set(account.of("orders.placed").values()) == {4}
    assert scene.waiting() == []


def hold_and_wait(
    scene: Scene, mutant: str = ""
) -> tuple[subprocess.Popen[str], subprocess.Popen[str]]:
    """One process is stopped with the lock in its hands; another one has its messages by then."""
    armed = "gate=pause:0,inbox.delivered=pause:0"
    second = scene.spawn("pack", armed=armed, mutant=mutant, CRASH_GATE="1")
    scene.until_reported(second, "gate")
    holder = scene.spawn("pack", armed="inbox.mid_handler@1=stop:1", mutant=mutant)
    scene.until_stopped(holder, "inbox.mid_handler")
    (scene.folder / "gate").touch()
    scene.until_reported(second, "inbox.delivered")
    return holder, second


def twice(scene: Scene) -> None:
    """One more copy of every message."""
    scene.replay()
    scene.run("sell", ORDERS)


def holder_killed(scene: Scene, mutant: str = "") -> None:
    """I9: the one that waits for the lock goes on."""
    twice(scene)
    holder, waiting = hold_and_wait(scene, mutant)
    os.kill(holder.pid, signal.SIGKILL)
    holder.communicate(timeout=WITHIN)
    finish(waiting)
    packed(scene, mutant).check(ORDERS)
    assert scene.waiting() == []


def holder_stopped(scene: Scene, mutant: str = "") -> None:
    """I10: past its lease; the second is busy while it holds the lock, and finds a duplicate."""
    holder, second = hold_and_wait(scene, mutant)
    until(lambda: took_over(scene, second), "the lease never ended")
    assert scene.effects() == []
    os.kill(holder.pid, signal.SIGCONT)
    finish(holder, BLOCKED, "lease lost source='orders.placed/packers'")
    finish(second)
    packed(scene, mutant).check(ORDERS)
    assert scene.waiting() == []


def took_over(scene: Scene, second: subprocess.Popen[str]) -> bool:
    """Whether the second was handed every message that the first has in its hands."""
    handed = [pid for pid, place in scene.reports() if place == "inbox.delivered"]
    return handed.count(second.pid) >= 3  # the head of each of three keys


def purge_killed(scene: Scene, mutant: str = "") -> None:
    """I12: a purge that is killed forgets nothing, and one that is not quarantines."""
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
    scene.run("pack", complains=DEAD, mutant=mutant)
    assert scene.effects() == list(range(ORDERS)), "an effect happened twice"
    letters = scene.waiting()
    assert len(letters) == ORDERS
    assert {reason for _, _, reason in letters} == {"unknown after purge"}


def garbage_dies(scene: Scene, at: str, mutant: str = "") -> None:
    """I13, I14: bytes that are no order, twice under one id, are one letter with the same bytes."""
    scene.run("garbage")
    scene.crash("pack", at=at, mutant=mutant)
    scene.run("garbage")
    scene.run("pack", complains=DEAD, mutant=mutant)
    letters = scene.waiting(complains=DEAD)
    assert len(letters) == 1, f"{len(letters)} letters"
    assert scene.effects() == list(range(ORDERS))
    ((id_, body, reason),) = letters
    assert (id_, body) == ("garbage", (b"\xff\x00 no order").hex())
    assert "Undecodable" in str(reason)


def redrive_killed(scene: Scene, mutant: str = "") -> None:
    """I15: the letter under way is in both places, and the inbox removes the second copy."""
    scene.run("pack", complains=DEAD, CRASH_POISON="1")
    assert len(scene.waiting()) == ORDERS
    scene.crash("redrive", at="dlq.mid_redrive@3", mutant=mutant)
    left = len(scene.waiting())
    assert left == ORDERS - 2, f"{left} letters: the third was published and not taken"
    scene.run("pack", mutant=mutant)
    assert len(scene.effects()) == 3
    scene.run("redrive")
    packed(scene, mutant).check(ORDERS)
    assert scene.waiting() == []


def database_away(scene: Scene, disk: Path, mutant: str = "") -> None:
    """I16: while the disk is full nothing is acknowledged, dead or counted."""
    armed = "inbox.delivered@1=stop:1,inbox.delivered=pause:0"
    child = scene.spawn("pack", armed=armed, mutant=mutant)
    scene.until_stopped(child, "inbox.delivered")
    filler = disk / "filler"
    fill(filler)
    os.kill(child.pid, signal.SIGCONT)
    tries = len(scene.reports())
    until(lambda: len(scene.reports()) >= tries + 8, "it gave up")
    assert scene.effects() == []
    assert scene.waiting() == []
    rounds = scene.run("look").splitlines()
    assert all(line.endswith(" 0") for line in rounds), "a round was counted"
    filler.unlink()
    finish(child, BLOCKED, "kill switch changed")
    packed(scene).check(ORDERS)
    assert scene.waiting() == []


@contextmanager
def small_disk(scene: Scene, service: str) -> Iterator[Path]:
    """The database of a service on a file system of 2 MB, which really fills up."""
    disk = scene.folder / service
    files = {path.name: path.read_bytes() for path in disk.iterdir()}
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], check=True)
    try:
        for name, content in files.items():
            (disk / name).write_bytes(content)
        yield disk
    finally:
        scene.end()
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def mountable() -> bool:
    """Whether a small file system can be mounted; CI must be able to."""
    return os.geteuid() == 0 or os.environ.get("CI") == "true"
