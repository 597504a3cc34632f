"""What goes wrong with a Kafka cluster, in a sentence: what was tried, why it failed, what to do."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError, KafkaException

from callcast.brokers.kafka import codes
from callcast.brokers.kafka.faults import FRESH, Faults, trouble_of
from callcast.brokers.kafka.options import Options
from callcast.core.errors import CallcastError, Misuse, NotPermitted, Unavailable
from callcast.testing import ManualClock

TILL = Options(servers="one:9092", user="till", mechanism="PLAIN")


def failed(code: int, text: str = "no such luck") -> KafkaException:
    """The driver's error."""
    return KafkaException(KafkaError(code, text))


def faults_of(code: int, text: str, options: Options = TILL) -> tuple[Faults, ManualClock]:
    """The faults of a broker whose driver has told this."""
    clock = ManualClock()
    faults = Faults(options, clock)
    faults.note(KafkaError(code, text))
    return faults, clock


@pytest.mark.parametrize(
    ("code", "kind", "said"),
    [
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, NotPermitted, "did not let user 'till' look at it"),
        (KafkaError.GROUP_AUTHORIZATION_FAILED, NotPermitted, "grant it with an ACL"),
        (KafkaError.CLUSTER_AUTHORIZATION_FAILED, NotPermitted, "grant it with an ACL"),
        (KafkaError.TOPIC_EXCEPTION, Misuse, "refuses to look at it: no such luck"),
        (KafkaError.INVALID_REPLICATION_FACTOR, Misuse, "refuses to look at it"),
        (KafkaError.POLICY_VIOLATION, Misuse, "refuses to look at it"),
        (KafkaError.LEADER_NOT_AVAILABLE, Unavailable, "one:9092 could not look at it: no such"),
        (codes.TIMED_OUT, Unavailable, "one:9092 did not answer in time (could not look at it)"),
    ],
)
def test_an_error_says_what_was_tried_and_what_to_do(
    code: int, kind: type[CallcastError], said: str
) -> None:
    error = Faults(TILL, ManualClock()).of("look at it", failed(code))
    assert type(error) is kind
    assert said in str(error)


# Sentences of librdkafka 2.16, behind an address such as sasl_ssl://one:9092/bootstrap
STATE = " (after 0ms in state CONNECT)"
REFUSED = f"Connect to ipv4#10.0.0.1:9092 failed: Connection refused{STATE}"
RESOLVE = "Failed to resolve 'one:9092': Name or service not known"
PASSWORD = "SASL authentication error: Authentication failed: Invalid username or password"
MECHANISM = "Unsupported mechanism: broker's supported mechanisms: SCRAM-SHA-512"
UNTRUSTED = "SSL handshake failed: error:0A000086:SSL routines::certificate verify failed: broker"
NO_CERT = "SSL handshake failed: ssl/record:1: SSL routines::alert bad certificate: SSL alert 42"
PLAIN_PORT = "SSL handshake failed: Disconnected: connecting to a PLAINTEXT broker listener?"
TLS_PORT = "Disconnected while requesting ApiVersion: connecting to a SSL listener?"
NO_SASL = "SASL authentication error: request is not valid given the current SASL state"


@pytest.mark.parametrize("scheme", ["", "sasl_ssl://", "ssl://", "sasl_plaintext://"])
@pytest.mark.parametrize(
    ("code", "why", "kind", "said"),
    [
        (codes.TRANSPORT, REFUSED, Unavailable, "nobody listens at one:9092"),
        (codes.RESOLVE, RESOLVE, Unavailable, "no host 'one' (Name or service not known)"),
        (codes.AUTHENTICATION, PASSWORD, NotPermitted, "refused user 'till' (Authentication fail"),
        (codes.AUTHENTICATION, MECHANISM, NotPermitted, "by PLAIN, only by SCRAM-SHA-512"),
        (codes.AUTHENTICATION, NO_SASL, NotPermitted, "asks for no password at this port"),
        (codes.TRANSPORT, UNTRUSTED, NotPermitted, "give its signer with ca=FILE"),
        (codes.TRANSPORT, NO_CERT, NotPermitted, "cert=FILE and key=FILE"),
        (codes.TRANSPORT, PLAIN_PORT, Unavailable, "does not speak TLS"),
        (codes.TRANSPORT, TLS_PORT, Unavailable, "it wants TLS (kafkas://)"),
        (codes.BAD_MESSAGE, "Receive failed", Unavailable, "does not speak Kafka's protocol"),
        (codes.TRANSPORT, "Nobody knows", Unavailable, "Nobody knows: check the address"),
    ],
)
def test_the_remedy_fits_the_failure_whatever_the_address_is_called(
    scheme: str, code: int, why: str, kind: type[CallcastError], said: str
) -> None:
    faults, _ = faults_of(code, f"{scheme}one:9092/bootstrap: {why}")
    error = faults.of("publish", failed(codes.TIMED_OUT))
    assert type(error) is kind
    assert said in str(error)


def test_what_the_driver_tells_is_taken_apart() -> None:
    trouble = trouble_of(KafkaError(codes.TRANSPORT, f"ssl://one:9092/bootstrap: {REFUSED}"))
    assert (trouble.where, trouble.why + STATE) == ("one:9092", REFUSED)
    assert trouble_of(KafkaError(codes.TRANSPORT, "odd")).where == ""


def test_servers_that_are_all_down_are_told_by_why() -> None:
    faults = Faults(TILL, ManualClock())
    faults.note(KafkaError(codes.ALL_BROKERS_DOWN, "1/1 brokers are down"))
    assert not faults.is_cut_off
    faults.note(KafkaError(codes.TRANSPORT, f"one:9092/bootstrap: {REFUSED}"))
    faults.note(KafkaError(codes.ALL_BROKERS_DOWN, "1/1 brokers are down"))
    assert faults.is_cut_off
    assert "nobody listens" in str(faults.of("publish", failed(codes.TIMED_OUT)))


async def test_a_trouble_of_long_ago_explains_nothing() -> None:
    faults, clock = faults_of(codes.TRANSPORT, f"one:9092/bootstrap: {REFUSED}")
    assert "nobody" not in str(faults.of("look", failed(KafkaError.LEADER_NOT_AVAILABLE)))
    await clock.advance(FRESH + 1)
    assert "did not answer in time" in str(faults.of("look", failed(codes.TIMED_OUT)))


@pytest.mark.parametrize(
    ("options", "end"),
    [
        (
            Options(servers="one"),
            "is a Kafka and wants no TLS (kafkas://) and no user and password",
        ),
        (TILL, "is a Kafka and wants no TLS (kafkas://)"),
        (
            Options(servers="one", user="till", security={"security.protocol": "SASL_SSL"}),
            "whether what listens there is a Kafka",
        ),
    ],
)
def test_a_silent_server_may_want_what_we_did_not_say(options: Options, end: str) -> None:
    error = Faults(options, ManualClock()).connecting("could not publish")
    assert str(error).endswith(end)


def test_somebody_without_a_name_is_told_so() -> None:
    faults = Faults(Options(servers="one"), ManualClock())
    error = faults.of("look", failed(KafkaError.TOPIC_AUTHORIZATION_FAILED))
    assert "did not let somebody without a user name look" in str(error)
