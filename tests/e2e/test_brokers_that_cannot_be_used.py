"""A command on a broker that cannot be used: one sentence, what was tried, what to do, exit 3 or 4.

On a real RabbitMQ; Kafka has a file of its own, and the embedded broker's and the URLs' own mistakes
are in the tests of commands.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from urllib.parse import SplitResult, quote, urlsplit

import pytest
from operator_parts import records
from refused_parts import COMMANDS, PASSWORD, closed_port, mute_port, refused
from servers import manage, missing, need

pytestmark = pytest.mark.timeout(60)


def changed(url: str, **parts: str) -> str:
    """The URL with another user, password, host, port, scheme or vhost."""
    old: SplitResult = urlsplit(url)
    scheme = parts.get("scheme", old.scheme)
    user = parts.get("user", old.username or "guest")
    password = parts.get("password", old.password or "guest")
    host = parts.get("host", old.hostname or "")
    port = parts.get("port", str(old.port))
    return f"{scheme}://{user}:{password}@{host}:{port}{parts.get('path', old.path)}"


@pytest.mark.parametrize("command", COMMANDS)
def test_nobody_listens_there(rabbitmq_url: str, command: Sequence[str]) -> None:
    port = closed_port()
    said = refused(changed(rabbitmq_url, port=str(port)), *command, code=3)
    assert f"127.0.0.1:{port}" in said
    assert "check host and port" in said


def test_there_is_no_such_host(rabbitmq_url: str) -> None:
    said = refused(changed(rabbitmq_url, host="nowhere.invalid"), "queues", code=3)
    assert "no host 'nowhere.invalid'" in said
    assert "check the URL" in said


def test_who_listens_there_does_not_answer(rabbitmq_url: str) -> None:
    with mute_port() as port:
        said = refused(changed(rabbitmq_url, port=str(port)), "queues", code=3)
    assert f"127.0.0.1:{port}" in said
    assert "did not answer within" in said


@pytest.mark.parametrize("command", COMMANDS)
def test_the_password_is_wrong(rabbitmq_url: str, command: Sequence[str]) -> None:
    said = refused(changed(rabbitmq_url, password=PASSWORD), *command, code=4)
    assert "refused user 'guest'" in said
    assert "check user and password" in said


def test_the_vhost_is_not_there(rabbitmq_url: str) -> None:
    said = refused(changed(rabbitmq_url, path="/no-such-vhost"), "queues", code=3)
    assert "no vhost 'no-such-vhost'" in said
    assert "rabbitmqctl add_vhost" in said


def test_a_plain_port_does_not_speak_tls(rabbitmq_url: str) -> None:
    said = refused(changed(rabbitmq_url, scheme="amqps"), "queues", code=3)
    assert "does not speak TLS" in said
    assert "amqp://" in said


@pytest.fixture
def stranger(rabbitmq_url: str, request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """The URL of a user without any permission, and that of the management API."""
    api = need(request, "rabbitmq_url").management_url
    if not api:
        missing("users cannot be made on a server given from outside")
    manage(api, "PUT", "users/stranger", {"password": PASSWORD, "tags": ""})
    yield changed(rabbitmq_url, user="stranger", password=PASSWORD), api
    manage(api, "DELETE", "users/stranger")


def test_the_user_may_not_enter_the_vhost(stranger: tuple[str, str]) -> None:
    url, _ = stranger
    said = refused(url, "queues", code=4)
    assert "'stranger'" in said
    assert "rabbitmqctl set_permissions" in said


def test_the_user_may_look_but_not_make(stranger: tuple[str, str]) -> None:
    url, api = stranger
    vhost = quote(urlsplit(url).path.removeprefix("/"), safe="")
    may = {"configure": "^$", "write": "^$", "read": ".*"}
    manage(api, "PUT", f"permissions/{vhost}/stranger", may)
    said = refused(url, "topology", "apply", "shop.fulfilment:service", code=4)
    assert "'stranger'" in said
    assert "rabbitmqctl set_permissions" in said


def test_the_doctor_says_the_same_and_sends_nobody_to_itself(rabbitmq_url: str) -> None:
    found = records("doctor", "--broker", changed(rabbitmq_url, password=PASSWORD), code=1)
    [broker] = [one for one in found if one["check"] == "broker"]
    assert broker["level"] == "fail"
    assert "check user and password" in str(broker["detail"])
    assert broker["fix"] == ""


def test_the_doctor_finds_a_server_that_answers(rabbitmq_url: str) -> None:
    found = records("doctor", "--broker", rabbitmq_url)
    assert "rabbitmq answers" in [one["detail"] for one in found if one["check"] == "broker"]
