"""What goes wrong with a Kafka cluster, in a sentence: what was tried, why it failed, what to do."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError, KafkaException

from callcast.brokers.kafka import codes
from callcast.brokers.kafka.faults import Faults, hint_of
from callcast.core.errors import CallcastError, Misuse, NotPermitted, Unavailable


def failed(code: int, text: str = "no such luck") -> KafkaException:
    """The driver's error."""
    return KafkaException(KafkaError(code, text))


@pytest.mark.parametrize(
    ("code", "kind", "said"),
    [
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, NotPermitted, "grant the permission (ACL)"),
        (KafkaError.GROUP_AUTHORIZATION_FAILED, NotPermitted, "does not permit this user to look"),
        (KafkaError.CLUSTER_AUTHORIZATION_FAILED, NotPermitted, "grant the permission"),
        (KafkaError.TOPIC_EXCEPTION, Misuse, "refuses to look at it: no such luck"),
        (KafkaError.INVALID_REPLICATION_FACTOR, Misuse, "refuses to look at it"),
        (KafkaError.POLICY_VIOLATION, Misuse, "refuses to look at it"),
        (KafkaError.LEADER_NOT_AVAILABLE, Unavailable, "could not look at it at kafka one:9092"),
        (codes.TIMED_OUT, Unavailable, "could not look at it at kafka one:9092: no such luck"),
    ],
)
def test_an_error_says_what_was_tried_and_what_to_do(
    code: int, kind: type[CallcastError], said: str
) -> None:
    error = Faults("one:9092").of("look at it", failed(code))
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
    ("text", "hint"),
    [
        (REFUSED, "no Kafka answers there"),
        (RESOLVE, "no such host"),
        (PASSWORD, "refused the user name or the password"),
        (UNTRUSTED, "name its authority with ?ca=FILE"),
        (PLAIN_PORT, "TLS does not fit"),
        (TLS_PORT, "TLS does not fit"),
        ("1/1 brokers are down: all broker connections", "no Kafka answers there"),
        ("Broker: Something else", "check the address, and the server's log"),
    ],
)
def test_the_remedy_fits_the_failure_whatever_the_address_is_called(
    scheme: str, text: str, hint: str
) -> None:
    assert hint in hint_of(f"{scheme}one:9092/bootstrap: {text}")


def test_a_time_out_tells_why_the_connection_fails() -> None:
    faults = Faults("one:9092")
    faults.note(KafkaError(codes.ALL_BROKERS_DOWN, "1/1 brokers are down"))
    assert "1/1 brokers are down" in str(faults.of("publish", failed(codes.TIMED_OUT)))
    faults.note(KafkaError(codes.TRANSPORT, REFUSED))
    faults.note(KafkaError(codes.ALL_BROKERS_DOWN, "1/1 brokers are down"))
    error = faults.of("publish", failed(codes.TIMED_OUT, "Local: Timed out"))
    assert str(error) == (
        f"could not publish at kafka one:9092: Local: Timed out; {REFUSED}: no Kafka answers"
        " there; check host and port, and whether the server runs"
    )
    assert str(faults.of("publish", failed(codes.TRANSPORT, REFUSED))).count(REFUSED) == 1


def test_a_refused_password_is_not_permitted() -> None:
    faults = Faults("one:9092")
    faults.note(KafkaError(codes.AUTHENTICATION, PASSWORD))
    assert isinstance(faults.of("publish", failed(codes.TIMED_OUT)), NotPermitted)


def test_what_the_server_answers_is_not_blamed_on_a_connection_of_long_ago() -> None:
    faults = Faults("one:9092")
    faults.note(KafkaError(codes.TRANSPORT, REFUSED))
    error = faults.of("look at it", failed(KafkaError.LEADER_NOT_AVAILABLE, "no leader"))
    assert REFUSED not in str(error)
