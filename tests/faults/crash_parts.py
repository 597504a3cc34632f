"""What the crash tests share: a folder with real files, children that die, and the account."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from callcast.testing.faults import FAILPOINTS, LOG

PROGRAM = Path(__file__).with_name("crash_program.py")
DEAD = "outcome='dead'"
"""What the log says of a dead letter."""
AGED = "outbox aged"
WITHIN = 60.0
"""Seconds for anything that must happen: far more than it takes."""


class Scene:
    """One folder: a broker, the sellers' and the packers' database, a log of faults."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "faults.log"
        self.children: list[subprocess.Popen[str]] = []
        self._is_over = False
        for name in ("orders", "packers"):
            (folder / name).mkdir(parents=True, exist_ok=True)

    def copy(self, folder: Path) -> Scene:
        """The same files elsewhere; nobody uses them while they are copied."""
        shutil.copytree(self.folder, folder, dirs_exist_ok=True)
        return Scene(folder)

    def spawn(
        self, role: str, number: int = 0, *, armed: str = "", mutant: str = "", **more: str
    ) -> subprocess.Popen[str]:
        """Start a role; its output is read by `finish`."""
        assert not self._is_over, "the scene is over"
        environment = {
            **os.environ,
            FAILPOINTS: armed,
            LOG: str(self.log),
            "CRASH_MUTANT": mutant,
            **more,
        }
        child = subprocess.Popen(
            [sys.executable, "-W", "error", str(PROGRAM), role, str(self.folder), str(number)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.children.append(child)
        return child

    def run(self, role: str, number: int = 0, *, complains: str = "", **how: str) -> str:
        """Run a role to its end; what it printed. See `finish`."""
        complaints = (complains,) if complains else ()
        return finish(self.spawn(role, number, **how), *complaints)

    def crash(self, role: str, number: int = 0, *, at: str, mutant: str = "", **more: str) -> None:
        """Run a role that is killed at a place; the place says so and the kernel does."""
        child = self.spawn(role, number, armed=f"{at}=kill", mutant=mutant, **more)
        _, errors = child.communicate(timeout=WITHIN)
        place = at.partition("@")[0]
        assert child.returncode == -signal.SIGKILL, f"{at} did not kill it: {errors}"
        assert self.reports()[-1] == (child.pid, place), f"{at} never fired"

    def reports(self) -> list[tuple[int, str]]:
        """Which process reported which place."""
        if not self.log.exists():
            return []
        lines = [line.split() for line in self.log.read_text().splitlines()]
        return [(int(pid), place) for pid, place in lines]

    def until_ready(self, child: subprocess.Popen[str]) -> None:
        """Wait until that child is ready to work."""
        until((self.folder / f"ready-{child.pid}").exists, "it never got ready")

    def until_reported(self, child: subprocess.Popen[str], place: str) -> None:
        """Wait until that child passed an armed place."""
        until(lambda: (child.pid, place) in self.reports(), f"{place} never fired")

    def until_stopped(self, child: subprocess.Popen[str], place: str) -> None:
        """Wait until that child has stopped itself at the place."""
        self.until_reported(child, place)
        found = os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)
        assert found is not None
        assert found.si_status == signal.SIGSTOP

    def rows(self, service: str, sql: str) -> list[tuple[object, ...]]:
        """Read a service's database; its own process may be dead or stopped."""
        with closing(sqlite3.connect(self.folder / service / f"{service}.db")) as connection:
            return connection.execute(sql).fetchall()

    def write(self, service: str, *statements: str) -> None:
        """Change a service's database behind its back."""
        with closing(sqlite3.connect(self.folder / service / f"{service}.db")) as connection:
            for statement in statements:
                connection.execute(statement)
            connection.commit()

    def has_rows(self, service: str, sql: str, number: int, *, least: int) -> bool:
        """Whether there are so many rows, each with at least this value; no table is no row."""
        try:
            values = [int(str(row[0])) for row in self.rows(service, sql)]
        except sqlite3.OperationalError:
            return False
        return len(values) == number and min(values) >= least

    def placed(self) -> list[object]:
        return [row[0] for row in self.rows("orders", "select number from placed order by 1")]

    def outbox(self, service: str = "orders") -> list[object]:
        """States of all rows."""
        return [row[0] for row in self.rows(service, "select state from callcast_outbox")]

    def effects(self) -> list[object]:
        return [row[0] for row in self.rows("packers", "select number from effects order by 1")]

    def waiting(self, complains: str = "") -> list[tuple[object, ...]]:
        """Dead letters of the packers: id, body, reason."""
        letters = self.run("dead", complains=complains).splitlines()
        return [tuple(line.split(" ", 2)) for line in letters]

    def replay(self) -> None:
        """Have everything that was published leave again, under the same ids."""
        heads = "select min(id) from callcast_outbox group by key"
        self.write(
            "orders",
            "update callcast_outbox set state = 0, is_head = 0",
            f"update callcast_outbox set is_head = 1 where id in ({heads})",
        )

    def stop(self) -> None:
        """Kill all children and start no more; somebody may wait for them in another thread."""
        self._is_over = True
        for child in self.children:
            child.kill()

    def end(self) -> None:
        """Leave no child behind, whatever the test found."""
        self.stop()
        for child in self.children:
            if child.stdout is not None and not child.stdout.closed:
                child.communicate(timeout=WITHIN)


def finish(child: subprocess.Popen[str], *complaints: str) -> str:
    """Wait for a clean end, with no other complaints on stderr than these; what it printed."""
    out, errors = child.communicate(timeout=WITHIN)
    assert child.returncode == 0, errors
    # On a busy machine what was sold may wait over a minute for its turn, which is said.
    known = (*complaints, AGED)
    noise = [line for line in errors.splitlines() if not any(c in line for c in known)]
    assert noise == [], errors
    return out


def until(happened: Callable[[], bool], otherwise: str, within: float = WITHIN) -> None:
    """Look again and again, with a deadline."""
    deadline = time.monotonic() + within
    while not happened():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.01)


def fill(path: Path) -> None:
    """Write until not one more byte fits."""
    with path.open("wb", buffering=0) as file:
        for size in (65536, 4096, 1):
            while True:
                try:
                    file.write(b"\0" * size)
                except OSError:
                    break


class Account:
    """Every order, its effects and its copies on the wire, after everything came to rest."""

    def __init__(self, scene: Scene) -> None:
        self.placed = scene.placed()
        self.effects = scene.effects()
        copies = [line.split() for line in scene.run("tap", complains=DEAD).splitlines()]
        self.copies = [(topic, id_, int(n), int(seq)) for topic, id_, n, seq in copies]
        self.outbox = [
            row[0] for row in scene.rows("orders", "select message_id from callcast_outbox")
        ]
        self.unsent = [state for state in scene.outbox() if state != 1]

    def of(self, topic: str) -> Counter[int]:
        """Copies per order."""
        return Counter(number for name, _, number, _ in self.copies if name == topic)

    def check(self, number: int) -> None:
        """Nothing lost, no effect twice, one id each, first occurrences in the order of keys."""
        everything = list(range(number))
        assert self.placed == everything, "an order was placed twice or never"
        assert len(self.outbox) == len(set(self.outbox)) == number, "a row without its message"
        assert self.unsent == [], "a message was never sent"
        assert self.effects == everything, "an effect is missing or happened twice"
        for topic in ("orders.placed", "orders.packed"):
            assert sorted(self.of(topic)) == everything, f"{topic}: lost on the wire"
            ids = {(number, id_) for name, id_, number, _ in self.copies if name == topic}
            assert len(ids) == number, f"{topic}: one message went out under two ids"
        self._check_order()

    def _check_order(self) -> None:
        firsts: dict[tuple[int, int], list[int]] = {}
        seen: set[str] = set()
        for topic, id_, number, sequence in self.copies:
            if topic == "orders.placed" and id_ not in seen:
                seen.add(id_)
                firsts.setdefault((number % 3, 0), []).append(sequence)
        for sequences in firsts.values():
            assert sequences == list(range(1, len(sequences) + 1)), "a key left out of order"
