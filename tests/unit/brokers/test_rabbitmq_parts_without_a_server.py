"""What is pure about the RabbitMQ adapter: acknowledgements, confirms, delays, lanes, counts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callcast.brokers.rabbitmq import faults, foreign, names, spread
from callcast.brokers.rabbitmq.acks import Ack, Acks
from callcast.brokers.rabbitmq.address import Endpoint, parse
from callcast.brokers.rabbitmq.catalog import Catalog, made, retired
from callcast.brokers.rabbitmq.confirms import Confirms, Fate
from callcast.brokers.rabbitmq.ladder import STEPS, hops, step
from callcast.brokers.rabbitmq.pardons import Pardons, Return, records
from callcast.core.amqp import Bound
from callcast.core.errors import Misuse, NotPermitted, Unavailable
from callcast.ports.broker import Source

AT = Endpoint("rabbit.example", 5672, "shop", "till")


class Channel:
    """What a broker does with acknowledgements."""

    def __init__(self, count: int) -> None:
        self.out = set(range(1, count + 1))

    def take(self, ack: Ack) -> set[int]:
        done = {tag for tag in self.out if tag <= ack.tag} if ack.multiple else {ack.tag}
        assert done <= self.out, "an unknown delivery tag closes the channel"
        self.out -= done
        return done


@given(st.permutations(range(1, 25)), st.lists(st.integers(1, 6), min_size=1), st.data())
def test_an_acknowledgement_reaches_what_is_done_and_nothing_else(
    order: list[int], sizes: list[int], data: st.DataObject
) -> None:
    channel, acks = Channel(24), Acks()
    while order:
        size = sizes[len(order) % len(sizes)]
        batch, order = order[:size], order[size:]
        if data.draw(st.booleans()):
            acks.returned(batch)
            channel.out -= set(batch)
            continue
        done: set[int] = set()
        for ack in acks.acked(batch):
            done |= channel.take(ack)
        assert done == set(batch)
    assert channel.out == set()


def test_what_is_done_in_order_is_acknowledged_at_once() -> None:
    assert Acks().acked([1, 2, 3]) == [Ack(3, multiple=True)]


def test_beyond_a_gap_each_is_acknowledged_alone() -> None:
    acks = Acks()
    assert acks.acked([3, 4, 5]) == [Ack(tag, multiple=False) for tag in (3, 4, 5)]
    assert acks.acked([1, 2]) == [Ack(2, multiple=True)]
    assert acks.acked([6]) == [Ack(6, multiple=False)]


@given(st.lists(st.tuples(st.integers(1, 30), st.booleans(), st.booleans()), max_size=40))
def test_each_publish_ends_once_whatever_comes(answers: list[tuple[int, bool, bool]]) -> None:
    """Confirms of several, in any order, twice, of unknown numbers; then the channel's end."""
    confirms, ended = Confirms[int](), list[int]()
    for number in range(1, 21):
        assert confirms.sent(number) == number
    for number, multiple, is_ack in answers:
        answer = confirms.ack if is_ack else confirms.nack
        for item, fate in answer(number, multiple=multiple):
            assert fate is (Fate.CONFIRMED if is_ack else Fate.REFUSED)
            ended.append(item)
    ended += [item for item, fate in confirms.lost() if fate is Fate.UNKNOWN]
    assert sorted(ended) == list(range(1, 21))
    assert len(confirms) == 0


def test_what_came_back_is_no_success_when_it_is_confirmed() -> None:
    confirms = Confirms[str]()
    for item in ("a", "b", "a"):
        confirms.sent(item)
    confirms.returned(confirms.find(lambda item: item == "a"))
    confirms.returned(confirms.find(lambda item: item == "a"))
    assert confirms.find(lambda item: item == "a") == 0
    assert confirms.ack(3, multiple=True) == [
        ("a", Fate.RETURNED),
        ("b", Fate.CONFIRMED),
        ("a", Fate.RETURNED),
    ]


@given(st.floats(0.0, 40 * 86_400.0))
def test_a_delay_is_never_early_and_takes_few_steps(delay: float) -> None:
    taken = hops(delay)
    assert delay - 0.1 <= sum(taken) <= delay + STEPS[0]
    assert len(taken) <= delay // STEPS[-1] + 25


def test_a_wait_below_the_first_step_is_that_step() -> None:
    assert (step(0.2), step(1.0), step(4.9), step(1e9)) == (1, 1, 2, 86_400)


def test_lanes_are_spread_and_a_worker_that_leaves_moves_only_its_own() -> None:
    queues = [f"t/g/{number}" for number in range(16)]
    three = spread.owners(["a", "b", "c"], queues)
    two = spread.owners(["a", "b"], queues)
    assert set(three.values()) == {"a", "b", "c"}
    assert all(two[queue] == owner for queue, owner in three.items() if owner != "c")


def test_a_crash_is_what_was_not_pardoned() -> None:
    pardons = Pardons()
    mine = Return("q", "s", "1", 3)
    assert pardons.crashes(mine) == 3
    for record in records([Return("q", "s", "1", 0), Return("q", "s", "1", 5)]):
        pardons.fold(record, 0)
        pardons.fold(record, 1)
    assert pardons.crashes(mine) == 2  # its first return is pardoned, its sixth has not been


def test_a_suspect_that_was_pardoned_as_a_neighbour_is_not_when_it_runs() -> None:
    pardons = Pardons()
    suspect, other = Return("q", "s", "1", 2), Return("q", "s", "2", 2)
    for record in pardons.apart(other, [suspect]):
        pardons.fold(record, 0)
    assert pardons.is_forgiven(suspect)
    said = pardons.apart(suspect, [other])
    assert said == [{"pardon": [["q", "s", "2", 3]]}, {"blame": [["q", "s", "1", 3]]}]
    for record in said:
        pardons.fold(record, 0)
    assert pardons.crashes(Return("q", "s", "1", 3)) == 3
    assert pardons.crashes(Return("q", "s", "2", 3)) == 2
    assert pardons.apart(suspect, [other]) == []


def test_a_group_bound_to_a_queue_of_others_survives_the_catalog() -> None:
    catalog = Catalog()
    source = Source("crm", "billing", bound=Bound("q", "crm", "dlx", may_drop=True))
    catalog.fold(made(source), 0)
    assert catalog.find("crm", "billing") == source
    again = Catalog()
    again.fold(catalog.whole(0), 7)
    assert again.find("crm", "billing") == source
    [said] = catalog.otherwise(Source("crm", "billing"))
    assert "queue='q', wanted is queue=None" in said
    [said] = catalog.otherwise(Source("crm", "other", bound=Bound("q", "crm")))
    assert "is consumed by group crm/billing already" in said
    catalog.fold(retired(source), 1)
    assert catalog.otherwise(Source("crm", "other", bound=Bound("q", "crm"))) == []


def test_a_record_of_a_later_version_says_what_this_one_understands() -> None:
    catalog = Catalog()
    source = Source("crm", "billing", bound=Bound("q", "crm"))
    record = made(source)
    record["made"]["colour"] = record["made"]["bound"]["shape"] = record["signed"] = "new"
    catalog.fold(record, 0)
    assert list(catalog.sources) == [source]


@pytest.mark.parametrize(
    "record",
    [
        {"made": 1},
        {"made": {"topic": "crm"}},
        {"made": {"topic": 1, "group": "g"}},
        {"retired": {}},
        {"whole": "all", "upto": 7},
        {"whole": [{}]},
        {"pardon": 7},
        {"pardon": [["q"]]},
        {"pardon": [["q", "s", "1", "x"]]},
        {"blame": {"q": 1}},
    ],
)
def test_a_record_that_is_none_changes_nothing(record: dict[str, object]) -> None:
    catalog, pardons = Catalog(), Pardons()
    catalog.fold(made(Source("crm", "billing")), 0)
    for known in records([Return("q", "s", "1", 0)]):
        pardons.fold(known, 0)
    catalog.fold(record, 1)
    pardons.fold(record, 1)
    assert list(catalog.sources) == [Source("crm", "billing")]
    assert pardons.crashes(Return("q", "s", "1", 2)) == 1


def test_a_queue_of_others_is_neither_made_nor_deleted() -> None:
    bound = names.Names(Source("crm", "billing", bound=Bound("q", "crm")))
    assert bound.work == ("q",)
    assert "q" not in bound.own
    assert "q" in bound.all
    assert bound.bindings("q") == ()
    assert bound.arguments(bound.later(1))["x-dead-letter-routing-key"] == "q"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            (
                "PRECONDITION_FAILED - inequivalent arg 'x-max-length' for queue 'it''s' in vhost '/':"
                " received none but current is the value '50' of type 'signedint'"
            ),
            ("x-max-length", 50),
        ),
        (
            (
                "PRECONDITION_FAILED - inequivalent arg 'x-queue-type' for queue 'q' in vhost '/':"
                " received 'classic' but current is 'quorum'"
            ),
            ("x-queue-type", "quorum"),
        ),
        (
            (
                "PRECONDITION_FAILED - inequivalent arg 'x-dead-letter-exchange' for queue 'q' in"
                " vhost '/': received none but current is the value '7' of type 'longstr'"
            ),
            ("x-dead-letter-exchange", "7"),
        ),
        ("RESOURCE_LOCKED - cannot obtain exclusive access", None),
        ("", None),
    ],
)
def test_what_a_queue_was_made_with_is_read_from_the_refusal(
    text: str, found: tuple[str, object] | None
) -> None:
    assert foreign.argument_in(text) == found


@pytest.mark.parametrize(
    ("code", "text", "kind", "said"),
    [
        (403, "no", NotPermitted, "rabbitmqctl set_permissions -p shop till"),
        (406, "inequivalent arg", Misuse, "has it otherwise"),
        (406, "delivery acknowledgement on channel 1 timed out", Unavailable, "consumer_timeout"),
        (405, "locked", Misuse, "has it otherwise"),
        (0, "the connection was lost", Unavailable, "could not consume"),
    ],
)
def test_a_refusal_says_what_to_do(code: int, text: str, kind: type, said: str) -> None:
    error = faults.of_refusal(faults.ChannelLost(code, text), "consume", AT)
    assert type(error) is kind
    assert said in str(error)
    assert "amqp://till@rabbit.example:5672/shop" in str(error)


def test_several_urls_are_nodes_of_one_cluster_and_a_password_may_hold_a_comma() -> None:
    endpoints, options = parse("amqp://a:x,y@[::1]/v?heartbeat=5, amqps://a:b@two:1/v?retain=60")
    assert [(one.host, one.port, one.is_tls) for one in endpoints] == [
        ("::1", 5672, False),
        ("two", 1, True),
    ]
    assert endpoints[0].password == "x,y"
    assert "x,y" not in repr(endpoints) + str(endpoints[0])
    assert (options.heartbeat, options.retain) == (5.0, 60.0)


@pytest.mark.parametrize(
    "url",
    [
        "http://a/",
        "amqp:///",
        "amqp://a:nope/",
        "amqp://a/?colour=1",
        "amqp://a/?retain=x",
        "amqp://a/?retain=-1",
    ],
)
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(Misuse):
        parse(url)


@pytest.mark.parametrize(
    "url", ["amqp://a:b@mq.example/", "amqp://a:b@127.0.0.1/,amqp://a:b@mq.example/"]
)
def test_a_password_that_everybody_on_the_way_could_read_is_not_sent(url: str) -> None:
    with pytest.raises(Misuse, match=r"amqp://a@mq\.example.* shows the password.*amqps://"):
        parse(url)


@pytest.mark.parametrize(
    "url",
    [
        "amqps://a:b@mq.example/",
        "amqp://a:b@mq.example/?insecure=true",
        "amqp://a:b@localhost/",
        "amqp://a:b@127.0.0.1/,amqp://a:b@[::1]/",
        "amqp://mq.example/",
    ],
)
def test_one_that_nobody_can_or_that_is_none_is_sent(url: str) -> None:
    assert parse(url)[0]
