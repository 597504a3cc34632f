"""A command on a broker that cannot be used: one sentence, what was tried, what to do, exit 3 or 4.

On a real RabbitMQ; the embedded broker's and the URLs' own mistakes are in the tests of commands.
"""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import SplitResult, quote, urlsplit

import pytest
from operator_parts import records
from servers import manage, missing, need

pytestmark = pytest.mark.timeout(60)

PASSWORD = "not-to-be-seen"
COMMANDS = (
    ("queues",),
    ("dlq", "ls"),
    ("pause", "stock"),
    ("topology", "apply", "shop.fulfilment:service"),
    ("demo", "--orders", "20"),
)
SHOP = Path(__file__).parents[2] / "examples"


def changed(url: str, **parts: str) -> str:
    """The URL with another user, password, host, port, scheme or vhost."""
    old: SplitResult = urlsplit(url)
    scheme = parts.get("scheme", old.scheme)
    user = parts.get("user", old.username or "guest")
    password = parts.get("password", old.password or "guest")
    host = parts.get("host", old.hostname or "")
    port = parts.get("port", str(old.port))
    return f"{scheme}://{user}:{password}@{host}:{port}{parts.get('path', old.path)}"


def refused(url: str, *command: str, code: int) -> str:
    """What such a command says on stderr: nothing else happens, and no traceback is shown."""
    ran = subprocess.run(
        [sys.executable, "-m", "callcast", *command, "--broker", url],
        capture_output=True,
        text=True,
        timeout=50,
        cwd=SHOP,
        check=False,
    )
    assert ran.returncode == code, ran.stderr
    assert ran.stdout == ""
    lines = ran.stderr.splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    assert len(errors) == 1, ran.stderr
    assert "Traceback" not in ran.stderr
    assert PASSWORD not in ran.stderr
    assert lines.index(errors[0]) >= len(lines) - 2  # then only what to try
    return errors[0].removeprefix("error: ")


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def mute_port() -> Iterator[int]:
    """Takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield int(listener.getsockname()[1])


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
    found = records("doctor", "--broker", rabbitmq_url, "--exit-zero")
    assert "rabbitmq answers" in [one["detail"] for one in found if one["check"] == "broker"]
