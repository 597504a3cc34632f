"""With a guard taken away, the checks of the crash points fail: they are worth something.

| points          | guard                                        | mutant                   |
|-----------------|----------------------------------------------|--------------------------|
| O1, O2          | one commit for business rows and outbox rows | `outbox_apart`           |
| O3              | an unknown commit is called unknown          | `unknown_is_failure`     |
| O4              | a relay looks by itself                      | `without_poll`           |
| O5              | a lane's lease ends                          | `lane_for_ever`          |
| O6, O7          | the mark comes after the confirm             | `mark_before_publish`    |
| O9, O10, I5-I10 | the inbox row                                | `without_inbox`          |
| O11             | one row of a key at a time                   | `without_heads`          |
| O12             | the fence (in `test_outbox_crash_points`)    | `without_fence`          |
| O13             | what is refused for now is pending           | `unroutable_is_done`     |
| O14             | a pending row is never cleaned away          | `clean_takes_all`        |
| O15             | what is refused for good parks its key       | `refusal_is_transient`,  |
|                 |                                              | `refusal_parks_nothing`  |
| I1-I4, I13, I15 | the acknowledgement comes last               | `ack_before_commit`      |
| I2, I3          | inbox row and effect in one commit           | `inbox_row_first`        |
| I12             | what the inbox may have forgotten is held up | `without_quarantine`     |
| I14             | a message has one dead letter                | `letters_pile_up`        |
| I15             | the inbox row                                | `without_inbox`          |
| I16             | no database is nobody's failure              | `release_counts`         |

O16 has no guard of ours: SQLite takes a transaction back whole.

All scenes begin at once and run beside each other; each test waits for its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import crash_cases as cases
import pytest
from crash_mutants import MUTANTS
from crash_parts import Scene

SIDE_BY_SIDE = 4
"""Scenes at a time: each is two processes at most, and most of the time one that starts."""


class Case(NamedTuple):
    """A scene that begins with nothing (``bare``), with listeners, or with six orders sold."""

    begin: str
    run: Callable[..., object]
    mutant: str
    fails: str
    """What the failed check says, as a regular expression."""


TWICE = "happened twice"
MISSING = "an effect is missing"
killed, sale = cases.packer_killed, cases.seller_killed

CASES: Mapping[str, Case] = {
    "O1, O2": Case(
        "heard", partial(sale, at="inbox.after_commit@3"), "outbox_apart", "row without"
    ),
    "O3": Case("heard", cases.reply_to_commit_lost, "unknown_is_failure", "was not told"),
    "O4": Case("heard", cases.nudge_lost, "without_poll", "nobody looked"),
    "O5 kill": Case("heard", partial(cases.lane_taken_over, how="kill"), "lane_for_ever", "nobody"),
    "O5 stop": Case("heard", partial(cases.lane_taken_over, how="stop"), "lane_for_ever", "nobody"),
    "O6": Case(
        "heard", partial(sale, at="outbox.before_publish@1"), "mark_before_publish", MISSING
    ),
    "O7": Case(
        "heard", partial(sale, at="outbox.before_publish@3"), "mark_before_publish", MISSING
    ),
    "O9": Case("heard", partial(sale, at="outbox.after_publish"), "without_inbox", TWICE),
    "O10": Case("heard", partial(sale, at="outbox.before_mark@2"), "without_inbox", TWICE),
    "O11": Case("heard", partial(sale, at="outbox.before_mark"), "without_heads", "out of order"),
    "O13": Case("bare", cases.unroutable, "unroutable_is_done", "counts as published"),
    "O14": Case("heard", cases.cleanup_killed, "clean_takes_all", "a pending row is gone"),
    "O15 for ever": Case("heard", cases.poisoned, "refusal_is_transient", "not parked"),
    "O15 dropped": Case("heard", cases.poisoned, "refusal_parks_nothing", "not parked"),
    "I1": Case("sold", partial(killed, at="inbox.delivered@2"), "ack_before_commit", MISSING),
    "I2": Case("sold", partial(killed, at="inbox.mid_handler@2"), "inbox_row_first", MISSING),
    "I3": Case("sold", partial(killed, at="inbox.mid_handler@2"), "ack_before_commit", MISSING),
    "I4": Case("sold", partial(killed, at="inbox.before_commit@2"), "ack_before_commit", MISSING),
    "I5": Case("sold", partial(killed, at="session.committed@3"), "without_inbox", TWICE),
    "I5 alive": Case("sold", cases.reply_to_packer_lost, "without_inbox", TWICE),
    "I6": Case("sold", partial(killed, at="inbox.after_commit@2"), "without_inbox", TWICE),
    "I7": Case("sold", partial(killed, at="inbox.before_ack"), "without_inbox", TWICE),
    "I8": Case("sold", cases.many_copies, "without_inbox", TWICE),
    "I9": Case("sold", cases.holder_killed, "without_inbox", TWICE),
    "I10": Case("sold", cases.holder_stopped, "without_inbox", TWICE),
    "I12": Case("sold", cases.purge_killed, "without_quarantine", TWICE),
    "I13": Case(
        "sold",
        partial(cases.garbage_dies, at="inbox.before_dead"),
        "ack_before_commit",
        "0 letters",
    ),
    "I14": Case(
        "sold", partial(cases.garbage_dies, at="inbox.after_dead"), "letters_pile_up", "2 letters"
    ),
    "I15 letters": Case("sold", cases.redrive_killed, "ack_before_commit", "0 letters"),
    "I15 effects": Case("sold", cases.redrive_killed, "without_inbox", TWICE),
}

POINTS_ELSEWHERE = {"without_fence", "release_counts"}
"""Mutants that have a test of their own."""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Future[object]]]:
    """All scenes, begun."""
    begun = {"bare": Scene(tmp_path_factory.mktemp("bare"))}
    begun["heard"] = Scene(tmp_path_factory.mktemp("heard"))
    begun["heard"].run("subscribe")
    begun["sold"] = begun["heard"].copy(tmp_path_factory.mktemp("sold"))
    begun["sold"].run("sell", cases.ORDERS)
    scenes = {
        name: begun[case.begin].copy(tmp_path_factory.mktemp("mutant"))
        for name, case in CASES.items()
    }
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        yield {
            name: pool.submit(case.run, scenes[name], mutant=case.mutant)
            for name, case in CASES.items()
        }
        pool.shutdown(wait=False, cancel_futures=True)
        for scene in scenes.values():  # those that no test has waited for
            scene.stop()
    for scene in scenes.values():
        scene.end()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", CASES)
def test_with_its_guard_gone_the_check_of_a_point_fails(
    running: Mapping[str, Future[object]], name: str
) -> None:
    with pytest.raises(AssertionError, match=CASES[name].fails):
        running[name].result(280)


@pytest.mark.skipif(not cases.mountable(), reason="mounting a small file system needs root")
def test_with_its_guard_gone_the_check_of_i16_fails(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.run("subscribe")
    scene.run("sell", cases.ORDERS)
    with (
        cases.small_disk(scene, "packers") as disk,
        pytest.raises(AssertionError, match="a round was counted"),
    ):
        cases.database_away(scene, disk, mutant="release_counts")


def test_every_mutant_is_caught_by_some_point() -> None:
    caught = {case.mutant for case in CASES.values()} | POINTS_ELSEWHERE
    assert caught == set(MUTANTS) - {""}
