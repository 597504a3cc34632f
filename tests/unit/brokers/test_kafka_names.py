"""Which topics and groups a source has on Kafka, and which of them clash."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callcast.brokers.kafka.names import CONTROL, TIERS, TOPIC_MAX, clashes, names_of
from callcast.brokers.kafka.options import Options
from callcast.brokers.kafka.topology import needed, needed_of
from callcast.core.errors import Misuse
from callcast.ports.broker import Source

BILLING = Source("orders.placed", "billing")
ORDERED = Source("orders.placed", "billing", ordered=True)


def test_a_source_has_topics_and_groups_of_its_own() -> None:
    names = names_of(BILLING)
    assert (names.topic, names.group) == ("orders.placed", "orders.placed.billing")
    assert (names.side, names.dead) == (f"{names.group}.side", f"{names.group}.dead")
    assert names.beside == (f"{names.group}.redrive", *names.retries)
    assert names.consumed == ("orders.placed", *names.beside)
    assert [name.rpartition(".")[2] for name in names.retries] == ["10s", "1m", "10m", "1h", "1d"]


def test_an_ordered_source_has_no_retry_topics() -> None:
    names = names_of(ORDERED)
    assert (names.retries, names.beside) == ((), (names.redrive,))


@given(st.floats(0.0, 1e7))
def test_a_delay_goes_where_nothing_waits_much_longer(delay: float) -> None:
    """A retry topic is read in its order: behind a day's delay ten seconds take a day."""
    label = names_of(BILLING).retry(delay).rpartition(".")[2]
    longest = dict(TIERS)[label]
    assert delay <= longest or label == "1d"
    assert all(longest <= other for _, other in TIERS if delay <= other)


def test_names_that_kafka_would_not_take_are_refused() -> None:
    fits = TOPIC_MAX - len(f"{'a' * 100}..retry.10s")
    assert len(names_of(Source("a" * 100, "b" * fits)).retries[0]) == TOPIC_MAX
    with pytest.raises(Misuse, match="characters, and Kafka allows 249"):
        names_of(Source("a" * 100, "b" * (fits + 1)))
    with pytest.raises(Misuse, match="topic 'a b'"):
        names_of(Source("a b", "c"))
    with pytest.raises(Misuse, match="group ''"):
        names_of(Source("a", ""))


def test_two_groups_that_would_be_one_are_refused() -> None:
    other = Source("orders", "placed.billing")
    [said] = clashes([], [BILLING, other])
    assert said.startswith("group orders/placed.billing and group orders.placed/billing would both")
    assert clashes([], [BILLING, Source("orders.placed", "crm"), BILLING]) == []


@pytest.mark.parametrize(
    "topic", ["orders.placed.billing.dead", "orders.placed.billing.redrive", CONTROL]
)
def test_a_topic_that_is_a_part_of_something_is_refused(topic: str) -> None:
    for topics, sources in ([topic], [BILLING]), ([], [Source(topic, "crm"), BILLING]):
        [said] = clashes(topics, sources)
        assert repr(topic) in said
    assert clashes(["orders.placed.billing"], [BILLING]) == []


@given(
    st.lists(st.builds(Source, *[st.sampled_from(["a", "a.b", "b.a", "b", "b.dead", "side"])] * 2))
)
def test_sources_that_do_not_clash_share_nothing(sources: list[Source]) -> None:
    distinct = list({(one.topic, one.group): one for one in sources}.values())
    if clashes([], distinct):
        return
    names = [names_of(one) for one in distinct]
    groups = [group for one in names for group in (one.group, one.side)]
    own = [topic for one in names for topic in (*one.beside, one.dead)]
    assert len(groups) == len(set(groups))
    assert len(own) == len(set(own))
    assert not set(own) & {one.topic for one in names}


# What is made


def test_what_is_made_of_a_source() -> None:
    options = Options(servers="one", partitions=3, replication=2, retain=60.0)
    topics = needed(["orders.paid"], [BILLING], options)
    names = names_of(BILLING)
    assert set(topics) == {"orders.paid", *names.consumed, names.dead}
    counts = {name: topic.num_partitions for name, topic in topics.items()}
    assert counts["orders.paid"] == counts["orders.placed"] == 3
    assert counts[names.dead] == counts[names.redrive] == 1
    assert {topic.replication_factor for topic in topics.values()} == {2}


def test_what_waits_for_a_group_is_kept_for_ever_and_an_event_as_long_as_was_said() -> None:
    topics = needed_of(ORDERED, Options(servers="one", retain=60.0))
    names = names_of(ORDERED)
    assert set(topics) == {names.topic, names.redrive, names.dead}
    configs = {name: topic.config for name, topic in topics.items()}
    assert configs[names.topic]["retention.ms"] == "60000"
    assert configs[names.topic]["message.timestamp.type"] == "LogAppendTime"
    assert configs[names.redrive]["retention.ms"] == "-1"
    assert configs[names.dead]["retention.ms"] == "-1"
    assert configs[names.dead]["cleanup.policy"] == "compact"
