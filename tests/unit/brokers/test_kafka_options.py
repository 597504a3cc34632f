"""What a URL of a Kafka cluster says, and what is said of one that is none."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callcast.brokers.kafka.options import RECORD_MAX, Options, options_of
from callcast.core.errors import Misuse

TLS_FILES = "ca=/ca.pem&cert=/cert.pem&key=/key.pem"


@pytest.mark.parametrize(
    ("url", "servers"),
    [
        ("kafka://one", "one:9092"),
        ("kafka://one:9094,two/", "one:9094,two:9092"),
        ("kafka://[::1],[::2]:9094", "[::1]:9092,[::2]:9094"),
    ],
)
def test_each_host_has_its_port(url: str, servers: str) -> None:
    options = options_of(url, {})
    assert options == Options(servers=servers)
    assert options.client["bootstrap.servers"] == servers
    assert "security.protocol" not in options.client


def test_the_query_says_what_is_made_and_how() -> None:
    query = "partitions=3&replication=2&retain=60&session=6&instance=a&expired=earliest"
    options = options_of(f"kafka://one?{query}&compression=zstd", {})
    assert options == Options(
        servers="one:9092",
        partitions=3,
        replication=2,
        retain=60.0,
        session=6.0,
        instance="a",
        expired="earliest",
        compression="zstd",
    )
    assert options.member["auto.offset.reset"] == "earliest"
    assert options.member["group.instance.id"] == "a"
    assert options.producer["compression.type"] == "zstd"
    assert options_of("kafka://one?replication=-1", {}).replication == -1


def test_nothing_is_lost_repeated_or_put_elsewhere_by_the_producer() -> None:
    producer = Options(servers="one:9092").producer
    assert producer["acks"] == "all"
    assert producer["enable.idempotence"] is True
    assert producer["partitioner"] == "murmur2_random"
    assert producer["message.max.bytes"] == RECORD_MAX


@pytest.mark.parametrize(("session", "beat"), [(0.3, 100), (6.0, 500), (45.0, 1_000)])
def test_a_member_commits_and_moves_as_we_say(session: float, beat: int) -> None:
    member = Options(servers="one:9092", session=session).member
    assert member["auto.offset.reset"] == "error"  # a position that is gone is told, not jumped
    assert member["enable.auto.commit"] is False
    assert member["enable.auto.offset.store"] is False
    assert member["partition.assignment.strategy"] == "cooperative-sticky"
    assert member["session.timeout.ms"] == session * 1_000
    assert member["heartbeat.interval.ms"] == beat
    assert member["isolation.level"] == "read_committed"
    assert "group.instance.id" not in member


# Who we are


@pytest.mark.parametrize(
    ("url", "protocol", "mechanism"),
    [
        ("kafkas://u:p%40ss@one", "SASL_SSL", "PLAIN"),
        ("kafka://u:p%40ss@one?mechanism=scram-sha-512", "SASL_PLAINTEXT", "SCRAM-SHA-512"),
        ("kafka://u:p%40ss@one?insecure=true", "SASL_PLAINTEXT", "PLAIN"),
        ("kafkas://one?mechanism=SCRAM-SHA-256", "SASL_SSL", "SCRAM-SHA-256"),
    ],
)
def test_who_we_are_comes_from_the_url_or_the_environment(
    url: str, protocol: str, mechanism: str
) -> None:
    known = {"CALLCAST_KAFKA_USER": "u", "CALLCAST_KAFKA_PASSWORD": "p@ss"}
    options = options_of(url, known)
    assert options.security == {
        "security.protocol": protocol,
        "sasl.mechanism": mechanism,
        "sasl.username": "u",
        "sasl.password": "p@ss",
    }
    assert options.servers == "one:9092"
    assert "p@ss" not in repr(options)


def test_tls_takes_its_files(tmp_path: Path) -> None:
    files = {option: tmp_path / f"{option}.pem" for option in ("ca", "cert", "key")}
    for file in files.values():
        file.write_text("")
    query = "&".join(f"{option}={file}" for option, file in files.items())
    assert options_of(f"kafkas://one?{query}", {}).security == {
        "security.protocol": "SSL",
        "ssl.ca.location": str(files["ca"]),
        "ssl.certificate.location": str(files["cert"]),
        "ssl.key.location": str(files["key"]),
    }


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("kafka://", "names a host ''"),
        ("kafka://u:secret@", "names a host ''"),
        ("kafka://one,,two", "names a host ''"),
        ("kafka://:9092", "names a host ':9092'"),
        ("kafka://one:port", "names a host 'one:port'"),
        ("kafka://one:", "names a host 'one:'"),
        ("kafka://[::1", "is none: Invalid IPv6 URL"),
        ("kafka://one/orders", "something behind its host"),
        ("kafka://u:#secret@one", "'#' and '@' in a password as %2F"),
        ("kafka://u:/secret@one", "'#' and '@' in a password as %2F"),
        ("kafka://u:?secret@one", "'#' and '@' in a password as %2F"),
        ("kafka://one?speed=fast", "option 'speed' is unknown to kafka://; known: partitions"),
        ("kafka://one?partitions=0", "partitions='0': a whole number from 1 on"),
        ("kafka://one?partitions=nan", "partitions='nan': a whole number"),
        ("kafka://one?partitions=2.5", "partitions='2.5': a whole number"),
        ("kafka://one?replication=-2", "replication='-2': a whole number"),
        ("kafka://one?session=soon", "session='soon': a number of seconds above 0"),
        ("kafka://one?session=0", "session='0': a number of seconds above 0"),
        ("kafka://one?retain=inf", "retain='inf': a number of seconds above 0"),
        ("kafka://one?retain=nan", "retain='nan': a number of seconds above 0"),
        ("kafka://one?expired=latest", "expired='latest': use error, earliest"),
        ("kafka://one?compression=rar", "compression='rar': use none, gzip"),
        ("kafka://u:secret@one", "SASL PLAIN without TLS shows the password"),
        ("kafka://u:secret@one?mechanism=GSSAPI", "mechanism='GSSAPI': use PLAIN"),
        ("kafkas://one?mechanism=PLAIN", "mechanism='PLAIN' without a user"),
        (f"kafka://one?{TLS_FILES}", "ca= is about TLS, which kafka:// does not speak"),
        ("kafkas://one?ca=/no/such.pem", "ca='/no/such.pem': there is no such file"),
        ("kafkas://one?cert=/cert.pem", "cert= and key= name the two halves"),
        ("kafkas://one?key=/key.pem", "cert= and key= name the two halves"),
    ],
)
def test_a_url_that_is_none_says_what_is_wrong(url: str, said: str) -> None:
    with pytest.raises(Misuse) as caught:
        options_of(url, {})
    assert said in str(caught.value)
    assert "secret" not in str(caught.value)


@given(
    st.sampled_from(["kafka", "kafkas"]),
    st.text("a:@[]/?#&=%,. 1", max_size=20),
    st.sampled_from(["partitions", "session", "retain", "replication"]),
    st.text(max_size=6),
)
def test_whatever_a_url_says_it_is_options_or_misuse(
    scheme: str, host: str, name: str, value: str
) -> None:
    for url in (f"{scheme}://{host}", f"{scheme}://one?{name}={value}"):
        try:
            options = options_of(url, {})
        except Misuse:
            continue
        assert options.partitions >= 1
        assert options.servers
