"""Whatever the headers of a message say, it is read, and a copy of it can be written."""

from __future__ import annotations

import struct
from datetime import datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from pika import BasicProperties, data, frame, spec

from callcast.brokers.rabbitmq import copies, fitting, foreign, times, wire
from callcast.brokers.rabbitmq.desk import Held
from callcast.brokers.rabbitmq.names import Names
from callcast.brokers.rabbitmq.port import Letter
from callcast.core.amqp import Bound
from callcast.core.outcome import Dead, Later
from callcast.ports.broker import Source

OWN = Source("orders", "billing")
BOUND = Source("crm", "billing", bound=Bound("q", "crm", "dlx"))
NAMES = st.one_of(
    st.sampled_from(sorted(wire._FIELDS)), st.text(max_size=20), st.binary(max_size=20)
)
NUMBERS = st.sampled_from(["nan", "inf", "-inf", "-1", "1e999", "0.5", "1e15", "x", ""])
VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**63 - 1),
        st.datetimes(min_value=datetime(1970, 1, 1)),  # noqa: DTZ001 - drawn without a zone
        st.text(max_size=20),
        st.binary(max_size=20),
        NUMBERS,
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)
TEXTS = st.one_of(st.none(), st.text(max_size=20), st.binary(max_size=20))


@given(
    st.dictionaries(NAMES, VALUES, max_size=8),
    st.one_of(st.none(), st.integers(0, 2**64 - 1)),
    TEXTS,
    TEXTS,
)
def test_it_is_read_put_off_and_buried(
    headers: dict[Any, Any], timestamp: int | None, kind: str | bytes | None, id_: str | None
) -> None:
    properties = BasicProperties(
        content_type=kind,  # type: ignore[arg-type]
        headers=headers,
        timestamp=timestamp,
        message_id=id_,
        correlation_id=id_,
    )
    delivered = (spec.Basic.Deliver("t", 1), properties, b"body")
    for source in (OWN, BOUND):
        arrived = foreign.read(source, delivered)
        names = Names(source)
        held = Held(
            *(1, 1, arrived.message, 0.0, 0.0, arrived.round, arrived.crashes),
            tag=1,
            queue="q",
            generation=1,
            published=arrived.published,
            raw=arrived.raw,
        )
        written = [
            copies.of_verdict(names, held, Later(5.0), wall=1.8e9),
            copies.of_verdict(names, held, Dead("no", {"callcast-group": "billing"}), wall=1.8e9),
            copies.of_early(names, arrived, 5.0),
            copies.of_suspect(names, arrived, 2),
        ]
        for letter in written:
            assert letter.properties.encode()
            assert letter.body == b"body"


def times_in(*seconds: int) -> BasicProperties:
    """What a client that knows no end of time has written into the headers."""
    values = [struct.pack(">cQ", b"T", each) for each in seconds]
    table = b"\x02at" + values[0] + b"\x02inA" + struct.pack(">I", 9) + values[1]
    deep = b"\x01iF" + struct.pack(">I", 11) + b"\x01d" + values[2]
    raw = table + deep + b"\x01sS\0\0\0\x01T" + b"\x01nV"

    class Written(BasicProperties):
        def encode(self) -> list[bytes]:
            flags = struct.pack(">HB", BasicProperties.FLAG_HEADERS | 0x8000 | 0x4000, 1)
            return [flags + b"k", b"\x02ut", struct.pack(">I", len(raw)) + raw]

    return Written()


def test_a_time_beyond_all_is_a_number_and_others_stay_times() -> None:
    header = frame.Header(7, 42, times_in(1_795_424_400_000, 1_795_424_400, 2**62)).marshal()
    after = frame.Heartbeat().marshal()
    count, read = frame.decode_frame(times.as_numbers(header + after))
    assert count == len(header)
    assert isinstance(read, frame.Header)
    assert (read.channel_number, read.body_size) == (7, 42)
    properties = read.properties
    assert (properties.content_type, properties.content_encoding) == ("k", "ut")
    headers = properties.headers
    assert headers["at"] == 1_795_424_400_000
    assert [each.timestamp() for each in headers["in"]] == [1_795_424_400]
    assert (headers["i"]["d"], headers["s"], headers["n"]) == (2**62, "T", None)


@given(st.dictionaries(st.text(max_size=10), VALUES, max_size=8), st.integers(0, 2**40))
def test_what_the_driver_can_read_is_the_same_afterwards(
    headers: dict[str, Any], timestamp: int
) -> None:
    properties = BasicProperties(
        content_type="k", headers=headers, timestamp=timestamp, delivery_mode=2
    )
    header = frame.Header(1, 2, properties).marshal()
    assert times.as_numbers(header) == header


def test_what_fits_is_as_it_was_and_what_does_not_is_named() -> None:
    def of(headers: dict[str, Any]) -> Letter:
        return Letter("", "q", "1", BasicProperties(headers=headers), b"body")

    small = {"ce-id": "1", "x": "y" * 1_000}
    assert fitting.fitted(of(dict(small))).properties.headers == small
    large = {**small, "callcast-error-stack": "s" * 8_000, "z": "z" * 125_000}
    kept = fitting.fitted(of({**large, "w": "w" * 10_000}))
    assert kept.properties.headers == {
        **{name: large[name] for name in ("ce-id", "x")},
        "w": "w" * 10_000,
        fitting.LEFT_OUT: "callcast-error-stack, z",
    }
    pieces: list[bytes] = []
    assert data.encode_table(pieces, kept.properties.headers) < fitting.HEADERS_MAX_BYTES
    alone = fitting.fitted(of({"ce-id": "1" * 131_000}))
    assert alone.properties.headers is not None
    assert alone.properties.headers["ce-id"] == "1" * fitting.NAMES_MAX
