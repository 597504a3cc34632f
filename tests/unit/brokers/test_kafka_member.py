"""The thread around the two shares of a member: what it cannot get over, tells, and leaves."""

from __future__ import annotations

import threading

import pytest
from confluent_kafka import KafkaError, KafkaException
from kafka_fake import install
from kafka_fake_cluster import Came
from kafka_parts import PLACE

from callcast.brokers.kafka import codes
from callcast.brokers.kafka import member as member_module
from callcast.brokers.kafka.faults import Faults
from callcast.brokers.kafka.member import Member
from callcast.brokers.kafka.names import names_of
from callcast.brokers.kafka.options import Options
from callcast.brokers.kafka.share import Habits
from callcast.core.errors import Misuse, Unavailable
from callcast.ports.broker import Source
from callcast.testing import ManualClock

BILLING = Source("orders", "billing")


@pytest.fixture
def member(monkeypatch: pytest.MonkeyPatch) -> Member:
    cluster = install(monkeypatch)
    cluster.make("orders", 1)
    clock = ManualClock()
    faults = Faults(Options(servers="one:9092"), clock)
    habits = Habits(config={}, clock=clock, faults=faults, revoke_wait=5.0)
    return Member(BILLING, names_of(BILLING), habits)


def test_an_error_that_the_driver_cannot_get_over_is_raised(member: Member) -> None:
    fatal = KafkaError(KafkaError.UNKNOWN_MEMBER_ID, "fenced", fatal=True)
    with pytest.raises(KafkaException):
        member._receive([Came(PLACE, 0, fatal)])  # type: ignore[list-item]


def test_a_trouble_is_told_once_unless_it_lasts(member: Member) -> None:
    gone = KafkaError(KafkaError.OFFSET_OUT_OF_RANGE)
    member._receive([Came(PLACE, 0, gone)])  # type: ignore[list-item]
    trouble = member.trouble
    assert isinstance(trouble, Misuse)
    member.heard(trouble)
    assert member.trouble is trouble
    member._receive([Came(PLACE, 0, KafkaError(codes.TRANSPORT))])  # type: ignore[list-item]
    member.heard(trouble)
    assert isinstance(member.trouble, Unavailable)
    member.heard(member.trouble)
    assert member.trouble is None


def test_a_thread_that_dies_says_so_and_keeps_nobody_waiting(
    member: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    caught: list[object] = []
    monkeypatch.setattr(threading, "excepthook", caught.append)
    monkeypatch.setattr(member, "_turn", None)
    member.start()
    member.join()
    assert len(caught) == 1
    assert member.is_ended
    assert "the reading thread died" in str(member.trouble)
    member.heard(member.trouble)  # type: ignore[arg-type]
    assert member.trouble is not None


def test_a_server_that_never_answers_is_left_without_a_word(
    member: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, answered = threading.Event(), threading.Event()

    def commit() -> None:  # the driver waits for its answer for ever
        asked.set()
        answered.wait()

    monkeypatch.setattr(member, "_turn", commit)
    monkeypatch.setattr(member_module, "LEAVE_WAIT", 0.01)
    member.start()
    asked.wait()
    member.stop()
    member.join()
    assert not member.is_ended
    answered.set()
    member._thread.join()
    assert member.is_ended
