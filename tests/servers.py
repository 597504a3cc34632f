"""Real servers for tests: fixtures that give the URL of one, or one to be killed.

A test that asks for such a fixture has its server started once, after the tests were collected,
by `scripts/servers`; this process holds it and lets it go at the end. A server that cannot be had
skips the test with the reason, and with `CI=true` fails it. `CALLCAST_TEST_RABBITMQ_URL` and
`CALLCAST_TEST_KAFKA_URL` name servers that are used as they are; `CALLCAST_TEST_RABBITMQ` names
another kind for the RabbitMQ fixtures: `rabbitmq-3.10`.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, NoReturn

import pytest

from callcast.testing import Proxy

COMMAND = Path(__file__).parents[1] / "scripts" / "servers"
LATEST, CHOSEN = "rabbitmq", "CALLCAST_TEST_RABBITMQ"
BROKERS = ("a_rabbitmq_of_its_own", "a_kafka_of_its_own")
"""Fixtures of what `broker_of_its_own` stands for: the kinds that failures are tried on."""
HTTP = 30.0
"""Seconds for an answer of RabbitMQ's management API."""
SERVER_ERROR = 500
WHOLE = 60.0
"""Seconds in which a cluster is whole again after the last fault."""


MORE = ("otlp_http_url", "targets_folder")
"""Of servers of one kind alone: where a Jaeger takes spans, a Prometheus finds its targets."""


class Wanted(NamedTuple):
    """A server that a fixture gives: its kind, and whether it is shared or this process's own."""

    kind: str
    instance: str = "shared"


class Started(NamedTuple):
    """What `scripts/servers` says of a server."""

    wanted: Wanted
    url: str
    log: str = ""
    management_url: str = ""
    rabbitmqctl: tuple[str, ...] = ()
    management_urls: tuple[str, ...] = ()
    """One for each node."""
    detours: tuple[tuple[int, int], ...] = ()
    """Ports for proxies before a Kafka: where it listens, and where its clients are sent."""
    listeners: Mapping[str, str] = {}
    """Host and port by protocol, of a Kafka that wants to know who comes."""
    users: Mapping[str, str] = {}
    """Their passwords."""
    ca: str = ""
    """The file with the authority of its certificate."""
    more: Mapping[str, str] = {}


class Missing(NamedTuple):
    """There is no such server here."""

    reason: str


Found = Started | Missing
FOUND = pytest.StashKey[dict[Wanted, Found]]()


def wanted_by(fixture: str) -> Wanted | None:
    """The server behind a fixture."""
    rabbitmq = os.environ.get(CHOSEN, LATEST)
    own = f"own-{os.getpid()}"
    return {
        "rabbitmq_url": Wanted(rabbitmq),
        "kafka_url": Wanted("kafka"),
        "a_rabbitmq_of_its_own": Wanted(rabbitmq, own),
        "three_rabbitmqs": Wanted("rabbitmq-3", own),
        "a_kafka_of_its_own": Wanted("kafka-quick", own),
        "three_kafkas": Wanted("kafka-3", own),
        "guarded_kafka": Wanted("kafka-guarded"),
        "zipkin_url": Wanted("zipkin"),
        "jaeger": Wanted("jaeger"),
        "prometheus": Wanted("prometheus", own),
    }.get(fixture)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Start what the tests ask for, side by side, before the time of any test runs."""
    session.config.stash[FOUND] = {}
    if session.config.option.collectonly:
        return
    fixtures = {name for item in session.items for name in asked_for(item)}
    wanted = {one for name in fixtures if (one := wanted_by(name)) is not None}
    with ThreadPoolExecutor() as threads:
        session.config.stash[FOUND].update(zip(wanted, threads.map(start, wanted), strict=True))


def asked_for(item: pytest.Item) -> set[str]:
    """The fixtures of a test, those included that a fixture over several servers stands for."""
    spec = getattr(item, "callspec", None)
    values = () if spec is None else spec.params.values()
    return {*getattr(item, "fixturenames", ()), *(each for each in values if type(each) is str)}


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Let them go: each ends with the last who holds it."""
    if session.config.stash.get(FOUND, None):
        run("stop", "--for", str(os.getpid()))


def start(wanted: Wanted) -> Found:
    """Have that server running, or the reason why not."""
    which = [] if wanted.instance == "shared" else ["--instance", wanted.instance]
    holder = ["--for", str(os.getpid())]
    done = run("start", wanted.kind, *which, *holder, "-o", "json")
    if done.returncode:
        return Missing(f"no {wanted.kind}: {done.stderr.strip()}")
    (told,) = json.loads(done.stdout)["servers"]
    return Started(
        wanted,
        told["url"],
        told["nodes"][0]["log"] if told["nodes"] else "",
        told.get("management_url", ""),
        tuple(told.get("rabbitmqctl", ())),
        tuple(told.get("management_urls", ())),
        tuple((listens, told_port) for listens, told_port in told.get("detours", ())),
        told.get("listeners", {}),
        told.get("users", {}),
        told.get("ca", ""),
        {name: text for name, text in told.items() if name in MORE},
    )


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([COMMAND, *arguments], capture_output=True, text=True, check=False)


def need(request: pytest.FixtureRequest, fixture: str) -> Started:
    """The server behind that fixture; skips or fails the test when there is none."""
    wanted = wanted_by(fixture)
    assert wanted is not None
    all_found = request.config.stash[FOUND]
    if wanted not in all_found:  # asked for by name while the test runs
        all_found[wanted] = start(wanted)
    return had(all_found[wanted])


def had(found: Found) -> Started:
    """That server, if there is one."""
    if not isinstance(found, Started):
        missing(found.reason)
    return found


def tool(name: str) -> str:
    """The command of a client of others; skips or fails the test when it cannot be had."""
    done = run("install", name)
    if done.returncode:
        missing(f"no {name}: {done.stderr.strip()}")
    return done.stdout.strip()


def missing(reason: str) -> NoReturn:
    """Skip the test for want of a server, or fail it where there must be one."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


class OwnServer:
    """A server that no other process uses. All methods block until it is done."""

    def __init__(self, started: Started) -> None:
        self.url = started.url
        """Of all nodes."""
        self.log = Path(started.log)
        """Of the first node."""
        self._wanted = started.wanted
        self._detours = list(started.detours)
        self._down: set[str] = set()
        self._frozen: set[str] = set()

    def proxy(self) -> Proxy:
        """Another proxy before it, not started yet: who comes that way stays on it.

        At most two before a Kafka in one test.
        """
        if self.url.startswith("kafka:"):
            port, listen = self._detours.pop(0)
            return Proxy("127.0.0.1", port, listen=listen)
        return Proxy.to(self.url)

    def kill(self, node: str = "") -> None:
        """End it, or one of its nodes ("1", "2", ...), with SIGKILL."""
        self._do("kill", node)
        self._down.add(node)

    def restart(self, node: str = "") -> None:
        """Start it, or one node, on the same ports and data; returns when it serves.

        What still runs is stopped in good order first.
        """
        self._do("restart", node)
        self._down = self._down - {node} if node else set()

    def freeze(self, node: str = "") -> None:
        """Let it, or one node, stand still with its connections open."""
        self._do("freeze", node)
        self._frozen.add(node)

    def thaw(self, node: str = "") -> None:
        """Let it go on."""
        self._do("thaw", node)
        self._frozen.discard(node)

    def heal(self) -> None:
        """Have all of it running for the next test."""
        for node in sorted(self._frozen):
            self.thaw(node)
        if "" in self._down:
            self.restart()
        for node in sorted(self._down):
            self.restart(node)

    def _do(self, what: str, node: str) -> None:
        kind, instance = self._wanted
        done = run(what, kind, *([node] if node else []), "--instance", instance)
        assert done.returncode == 0, done.stderr


class OwnRabbitMq(OwnServer):
    """A RabbitMQ that no other process uses; each test has a vhost of its own in it."""

    def __init__(self, started: Started, vhost: str) -> None:
        super().__init__(started)
        self.url = in_vhost(started.url, vhost)
        self.vhost = vhost
        self.management_url = started.management_url
        """With user and password; `manage` asks it."""
        self._management_urls = started.management_urls
        self._rabbitmqctl = started.rabbitmqctl

    def rabbitmqctl(self, *arguments: str) -> str:
        """Run that and return what it prints. An alarm that a test sets, it also lifts."""
        argv = [*self._rabbitmqctl, *arguments]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def manage(self, method: str, path: str, body: object = None) -> object:
        """Ask the management API: `manage("GET", "queues/" + quote(vhost))`.

        The first node answers that was neither killed nor frozen.
        """
        hurt = self._down | self._frozen
        urls = [url for n, url in enumerate(self._management_urls, 1) if str(n) not in hurt]
        return manage(urls[0] if urls else self.management_url, method, path, body)


def in_vhost(url: str, vhost: str) -> str:
    """The same server, or the same nodes of one, another vhost."""
    name = urllib.parse.quote(vhost, safe="")
    return ",".join(f"{each.rpartition('/')[0]}/{name}" for each in url.split(","))


def manage(url: str, method: str, path: str, body: object = None) -> object:
    """One request to RabbitMQ's management API at `url`; the JSON it answers, or None."""
    parts = urllib.parse.urlsplit(url)
    login = base64.b64encode(f"{parts.username}:{parts.password}".encode()).decode()
    request = urllib.request.Request(
        f"{parts.scheme}://{parts.hostname}:{parts.port}/api/{path}",
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"authorization": f"Basic {login}", "content-type": "application/json"},
    )
    return answer_to(request)


def answer_to(request: urllib.request.Request) -> object:
    """What it answers; a node that was just started refuses for a while, and so do its peers."""
    deadline = time.monotonic() + WHOLE
    while True:
        try:
            with urllib.request.urlopen(request, timeout=HTTP) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            with error:
                if error.code < SERVER_ERROR or time.monotonic() > deadline:
                    raise
            time.sleep(0.5)
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
        else:
            return json.loads(text) if text else None


def new_vhost(management_url: str, vhost: str) -> None:
    """An empty vhost in which the user of the URL may do everything."""
    user = urllib.parse.urlsplit(management_url).username
    manage(management_url, "PUT", f"vhosts/{vhost}", {})
    everything = {"configure": ".*", "write": ".*", "read": ".*"}
    manage(management_url, "PUT", f"permissions/{vhost}/{user}", everything)


@pytest.fixture(scope="session")
def zipkin_url(request: pytest.FixtureRequest) -> str:
    """A Zipkin that all tests share."""
    return need(request, "zipkin_url").url


@pytest.fixture(scope="session")
def jaeger(request: pytest.FixtureRequest) -> Started:
    """A Jaeger that all tests share."""
    return need(request, "jaeger")


@pytest.fixture(scope="session")
def rabbitmq_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A RabbitMQ that all tests share, with a vhost of this session's own."""
    started = need(request, "rabbitmq_url")
    if not started.management_url:  # given from outside: used as it is
        yield started.url
        return
    vhost = f"tests-{os.getpid()}"
    new_vhost(started.management_url, vhost)
    yield in_vhost(started.url, vhost)
    manage(started.management_url, "DELETE", f"vhosts/{vhost}")


@pytest.fixture(scope="session")
def kafka_url(request: pytest.FixtureRequest) -> str:
    """A Kafka that all tests share, of any session: name topics and groups uniquely."""
    return need(request, "kafka_url").url


@pytest.fixture
def a_rabbitmq_of_its_own(request: pytest.FixtureRequest) -> Iterator[OwnRabbitMq]:
    """A RabbitMQ that may be killed; running, with an empty vhost, when the test starts."""
    yield from own_rabbitmq(request, "a_rabbitmq_of_its_own")


@pytest.fixture
def three_rabbitmqs(request: pytest.FixtureRequest) -> Iterator[OwnRabbitMq]:
    """Three RabbitMQs of one cluster, nodes "1", "2" and "3"; else as one of its own."""
    yield from own_rabbitmq(request, "three_rabbitmqs")


def own_rabbitmq(request: pytest.FixtureRequest, fixture: str) -> Iterator[OwnRabbitMq]:
    """The server behind that fixture, for one test."""
    started = need(request, fixture)
    vhost = f"test-{abs(hash(request.node.nodeid))}"
    new_vhost(started.management_url, vhost)
    own = OwnRabbitMq(started, vhost)
    yield own
    own.heal()
    own.manage("DELETE", f"vhosts/{vhost}")


@pytest.fixture(params=BROKERS)
def broker_of_its_own(request: pytest.FixtureRequest) -> OwnServer:
    """A broker of each kind, which may be killed; the test finds it running and empty."""
    own: OwnServer = request.getfixturevalue(request.param)
    return own


@pytest.fixture(scope="session")
def guarded_kafka(request: pytest.FixtureRequest) -> Started:
    """A Kafka with SASL, TLS and permissions, which all tests share: name things uniquely."""
    return need(request, "guarded_kafka")


@pytest.fixture
def a_kafka_of_its_own(request: pytest.FixtureRequest) -> Iterator[OwnServer]:
    """A Kafka that may be killed; running when the test starts. Topics stay: name them uniquely."""
    own = OwnServer(need(request, "a_kafka_of_its_own"))
    yield own
    own.heal()


@pytest.fixture
def three_kafkas(request: pytest.FixtureRequest) -> Iterator[OwnServer]:
    """Three Kafkas of one cluster, nodes "1", "2" and "3"; all running when the test starts."""
    own = OwnServer(need(request, "three_kafkas"))
    yield own
    own.heal()
