"""Parts for tests of Kafka's adapter: a partition that outlives the members that die of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from callcast.brokers.kafka import marks, wire
from callcast.brokers.kafka.desk import Desk
from callcast.brokers.kafka.window import Commit, Window
from callcast.brokers.kafka.wire import Record
from callcast.core.message import Message
from callcast.core.outcome import DONE, Outcome
from callcast.ports.broker import Delivery, Source

PLACE = ("orders", 0)
WALL = 1_764_000_000.0
"""The wall clock less the monotonic one."""
LEASE = 60.0


def record(offset: int, key: str | None = None, *, value: bytes = b"{}") -> Record:
    """The record at this offset; its message's id is the offset."""
    message = Message(str(offset), "tests", "orders", "orders", value, key)
    raw = None if key is None else key.encode()
    return Record(*PLACE, offset, WALL + offset, raw, value, wire.encode(message))


class Partition:
    """What a server keeps of one partition, and the member that has it now."""

    def __init__(self, records: Iterable[Record], end: int, *, ordered: bool = True) -> None:
        self.records = list(records)
        self.end = end
        self.source = Source("orders", "billing", ordered=ordered)
        self.now = 0.0
        self.offset = 0
        self.metadata = ""
        self.take_over()

    @property
    def window(self) -> Window:
        return self.desk.windows[PLACE]

    def take_over(self, *, read: int | None = None) -> None:
        """Another member gets it, since the last one died; it reads all, or so many records."""
        self.desk = Desk(self.source)
        self.desk.wall_offset = WALL
        self.hand = self.desk.join()
        self.desk.assign(PLACE, marks.decode(self.offset, self.metadata))
        self.read(read)

    def read(self, count: int | None = None) -> None:
        """Feed what comes next; without a count all of it, up to the end."""
        coming = [one for one in self.records if one.offset >= self.window.position]
        wall = self.now + WALL
        self.desk.feed(PLACE, map(self.desk.read, coming[:count]), now=self.now, wall=wall)
        if count is None:
            self.desk.passed(PLACE, self.end)

    def take(self, limit: int = 1_000) -> list[Delivery]:
        """What a fetch hands over, counted durably."""
        taken, is_durable = self.desk.take(self.hand, limit, lease=LEASE, now=self.now)
        if not is_durable:
            self.commit()
        return taken

    def settle(self, deliveries: Iterable[Delivery], outcome: Outcome = DONE) -> None:
        """Give all of them this verdict."""
        verdicts = [(delivery, outcome) for delivery in deliveries]
        moves, lost = self.desk.settle(self.hand, verdicts, self.now)
        assert (moves, lost) == ([], [])

    def commit(self) -> None:
        """Commit what there is."""
        for plan in self.desk.plans(self.now):
            if plan.window is self.window:
                self._accept(plan)
            else:
                plan.window.committed(plan)

    def let_go(self) -> None:
        """Give it back in good order, without waiting for what is out, and take it over again."""
        self.hand_on(0.0)
        self.desk.tick(self.now)
        self.finish()
        self.take_over()

    def hand_on(self, patience: float = LEASE) -> None:
        """Let it move to another member; what is out is finished here, within so many seconds."""
        [plan] = self.desk.hand_on([PLACE], self.now, self.now + patience)
        self._accept(plan)

    def finish(self) -> None:
        """Commit what was handed on."""
        for plan in self.desk.plans(self.now):
            if (plan.window.topic, plan.window.partition) == PLACE:
                self._accept(plan)

    def _accept(self, plan: Commit) -> None:
        assert plan.offset >= self.offset, "a commit never goes back"
        self.offset, self.metadata = plan.offset, plan.metadata
        plan.window.committed(plan)


def ids(deliveries: Sequence[Delivery]) -> list[int]:
    """Their offsets."""
    return [int(delivery.message.id) for delivery in deliveries]
