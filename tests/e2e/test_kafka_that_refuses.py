"""A command on a Kafka with users, permissions and TLS, which says no: one sentence, exit 3 or 4."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import pytest
from confluent_kafka.admin import (
    AclBinding,  # pyright: ignore[reportPrivateImportUsage] - documented so
    AclBindingFilter,  # pyright: ignore[reportPrivateImportUsage] - documented so
    AclOperation,  # pyright: ignore[reportPrivateImportUsage] - documented so
    AclPermissionType,  # pyright: ignore[reportPrivateImportUsage] - documented so
    AdminClient,
    ResourcePatternType,  # pyright: ignore[reportPrivateImportUsage] - documented so
    ResourceType,  # pyright: ignore[reportPrivateImportUsage] - documented so
)
from operator_parts import records
from refused_parts import COMMANDS, PASSWORD, refused
from servers import Started

pytestmark = pytest.mark.timeout(60)

SCRAM = "mechanism=SCRAM-SHA-512"
PLAIN = "insecure=true"


def url(server: Started, user: str = "admin", password: str = "", more: str = SCRAM) -> str:
    """Where users have to say who they are."""
    said = password or server.users[user]
    return f"kafka://{user}:{said}@{server.listeners['SASL_PLAINTEXT']}?{more}"


@pytest.mark.parametrize("command", COMMANDS)
def test_the_password_is_wrong(guarded_kafka: Started, command: Sequence[str]) -> None:
    said = refused(url(guarded_kafka, password=PASSWORD), *command, code=4)
    assert guarded_kafka.listeners["SASL_PLAINTEXT"] in said
    assert "check user and password" in said


def test_the_password_of_the_plain_mechanism_is_wrong(guarded_kafka: Started) -> None:
    said = refused(url(guarded_kafka, password=PASSWORD, more=PLAIN), "queues", code=4)
    assert "check user and password" in said


def test_who_does_not_say_who_it_is(guarded_kafka: Started) -> None:
    host = guarded_kafka.listeners["SASL_PLAINTEXT"]
    said = refused(f"kafka://{host}", "queues", code=3)
    assert host in said
    assert "user" in said


@pytest.mark.parametrize("more", [SCRAM, PLAIN])
def test_with_the_right_password_all_is_well(guarded_kafka: Started, more: str) -> None:
    found = records("doctor", "--broker", url(guarded_kafka, more=more))
    assert "kafka answers" in [one["detail"] for one in found if one["check"] == "broker"]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_user_may_do_nothing(guarded_kafka: Started, command: Sequence[str]) -> None:
    said = refused(url(guarded_kafka, "stranger"), *command, code=4)
    assert "did not let user 'stranger'" in said
    assert "ACL" in said


@pytest.fixture
def reader(guarded_kafka: Started) -> Iterator[str]:
    """The URL of a user who may look at everything and change nothing."""
    admin = AdminClient({"bootstrap.servers": guarded_kafka.url.partition("://")[2]})
    rules = [
        AclBinding(kind, name, pattern, "User:stranger", "*", operation, AclPermissionType.ALLOW)
        for kind, name, pattern in (
            (ResourceType.TOPIC, "*", ResourcePatternType.LITERAL),
            (ResourceType.GROUP, "*", ResourcePatternType.LITERAL),
            (ResourceType.BROKER, "kafka-cluster", ResourcePatternType.LITERAL),
        )
        for operation in (AclOperation.DESCRIBE, AclOperation.READ)
        if (kind, operation) != (ResourceType.BROKER, AclOperation.READ)
    ]
    for future in admin.create_acls(rules).values():
        future.result()
    yield url(guarded_kafka, "stranger")
    anything = AclBindingFilter(
        ResourceType.ANY,
        None,
        ResourcePatternType.ANY,
        "User:stranger",
        None,
        AclOperation.ANY,
        AclPermissionType.ANY,
    )
    for future in cast("dict[Any, Any]", admin.delete_acls([anything])).values():
        future.result()


def test_the_user_may_look_but_not_make(reader: str) -> None:
    said = refused(reader, "topology", "apply", "shop.fulfilment:service", code=4)
    assert "did not let user 'stranger' create topic" in said
    assert "ACL" in said


def test_a_plain_port_does_not_speak_tls(guarded_kafka: Started) -> None:
    host = guarded_kafka.url.partition("://")[2]
    said = refused(f"kafkas://{host}?ca={guarded_kafka.ca}", "queues", code=3)
    assert host in said
    assert "kafka://" in said


def test_a_port_with_tls_does_not_speak_without(guarded_kafka: Started) -> None:
    host = guarded_kafka.listeners["SSL"]
    said = refused(f"kafka://{host}", "queues", code=3)
    assert host in said
    assert "kafkas://" in said


def test_nobody_knows_who_signed_the_certificate(guarded_kafka: Started) -> None:
    host = guarded_kafka.listeners["SSL"]
    said = refused(f"kafkas://{host}", "queues", code=4)
    assert host in said
    assert "ca=FILE" in said


@pytest.mark.parametrize("user", ["", "admin"])
def test_with_the_right_authority_all_is_well(guarded_kafka: Started, user: str) -> None:
    login = f"{user}:{guarded_kafka.users[user]}@" if user else ""
    host = guarded_kafka.listeners["SASL_SSL" if user else "SSL"]
    found = records("doctor", "--broker", f"kafkas://{login}{host}?ca={guarded_kafka.ca}")
    assert "kafka answers" in [one["detail"] for one in found if one["check"] == "broker"]


def test_the_doctor_says_the_same_and_sends_nobody_to_itself(guarded_kafka: Started) -> None:
    found = records("doctor", "--broker", url(guarded_kafka, password=PASSWORD), code=1)
    [broker] = [one for one in found if one["check"] == "broker"]
    assert broker["level"] == "fail"
    assert "check user and password" in str(broker["detail"])
    assert broker["fix"] == ""
