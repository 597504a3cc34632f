"""What goes wrong with a Kafka cluster, in a sentence: what was tried, why it failed, what to do."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError, KafkaException

from callcast.brokers.kafka import codes
from callcast.brokers.kafka.faults import FRESH, Faults
from callcast.brokers.kafka.options import Options
from callcast.core.errors import CallcastError, Misuse, NotPermitted, Unavailable
from callcast.testing import ManualClock


def failed(code: int, text: str = "no such luck") -> KafkaException:
    """The driver's error."""
    return KafkaException(KafkaError(code, text))


def faults_of(clock: ManualClock | None = None) -> Faults:
    options = Options(servers="one:9092", user="guest", mechanism="PLAIN")
    return Faults(options, clock or ManualClock())


@pytest.mark.parametrize(
    ("code", "kind", "said"),
    [
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, NotPermitted, "grant it with an ACL"),
        (KafkaError.GROUP_AUTHORIZATION_FAILED, NotPermitted, "user 'guest' look at it"),
        (KafkaError.CLUSTER_AUTHORIZATION_FAILED, NotPermitted, "grant it"),
        (KafkaError.TOPIC_EXCEPTION, Misuse, "refuses to look at it: no such luck"),
        (KafkaError.INVALID_REPLICATION_FACTOR, Misuse, "refuses to look at it"),
        (KafkaError.POLICY_VIOLATION, Misuse, "refuses to look at it"),
        (KafkaError.LEADER_NOT_AVAILABLE, Unavailable, "one:9092 could not look at it"),
        (codes.TIMED_OUT, Unavailable, "did not answer in time (could not look at it)"),
    ],
)
def test_an_error_says_what_was_tried_and_what_to_do(
    code: int, kind: type[CallcastError], said: str
) -> None:
    error = faults_of().of("look at it", failed(code))
    assert type(error) is kind
    assert said in str(error)


# Sentences of librdkafka 2.16.
REFUSED = "Connect to ipv4#10.0.0.1:9092 failed: Connection refused (after 0ms in state CONNECT)"
RESOLVE = "Failed to resolve 'nowhere.invalid:9092': Name or service not known"
PASSWORD = "SASL authentication error: Authentication failed: Invalid username or password"
UNTRUSTED = "SSL handshake failed: error:0A000086: certificate verify failed: broker certificate"
PLAIN_PORT = "SSL handshake failed: Disconnected: connecting to a PLAINTEXT broker listener?"
TLS_PORT = "Disconnected while requesting ApiVersion: connecting to a SSL listener?"


@pytest.mark.parametrize(
    "scheme", ["", "sasl_ssl://", "ssl://", "sasl_plaintext://", "plaintext://"]
)
@pytest.mark.parametrize(
    ("code", "text", "said"),
    [
        (codes.TRANSPORT, REFUSED, "nobody listens at one:9092"),
        (codes.RESOLVE, RESOLVE, "there is no host 'one'"),
        (codes.AUTHENTICATION, PASSWORD, "refused user 'guest' (Authentication failed"),
        (codes.TRANSPORT, UNTRUSTED, "give its signer with ca=FILE"),
        (codes.TRANSPORT, PLAIN_PORT, "use kafka:// there"),
        (codes.TRANSPORT, TLS_PORT, "it wants TLS (kafkas://)"),
        (codes.TRANSPORT, "Something else", "check the address, and the server's log"),
    ],
)
def test_a_time_out_tells_why_the_connection_fails_whatever_its_address_is_called(
    scheme: str, code: int, text: str, said: str
) -> None:
    faults = faults_of()
    faults.note(KafkaError(code, f"{scheme}one:9092/bootstrap: {text}"))
    faults.note(KafkaError(codes.ALL_BROKERS_DOWN, "1/1 brokers are down"))
    assert faults.is_cut_off
    assert said in str(faults.of("publish", failed(codes.TIMED_OUT, "Local: Timed out")))


def test_a_refused_password_is_not_permitted() -> None:
    faults = faults_of()
    faults.note(KafkaError(codes.AUTHENTICATION, f"one:9092/bootstrap: {PASSWORD}"))
    assert isinstance(faults.of("publish", failed(codes.TIMED_OUT)), NotPermitted)


def test_what_the_server_answers_is_not_blamed_on_a_connection() -> None:
    faults = faults_of()
    faults.note(KafkaError(codes.TRANSPORT, f"one:9092/bootstrap: {REFUSED}"))
    error = faults.of("look at it", failed(KafkaError.LEADER_NOT_AVAILABLE, "no leader"))
    assert "nobody listens" not in str(error)


async def test_a_time_out_is_not_blamed_on_what_was_long_ago_or_is_over() -> None:
    clock = ManualClock()
    faults = faults_of(clock)
    faults.note(KafkaError(codes.TRANSPORT, f"one:9092/bootstrap: {REFUSED}"))
    await clock.advance(FRESH + 1)
    assert "nobody listens" not in str(faults.of("publish", failed(codes.TIMED_OUT)))
    faults.note(KafkaError(codes.TRANSPORT, f"one:9092/bootstrap: {REFUSED}"))
    faults.answered()
    assert "nobody listens" not in str(faults.of("publish", failed(codes.TIMED_OUT)))
