"""Where settings come from, and what is said about wrong ones."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from callcast import Bus, Event, Misuse, Peer, Service, Transaction
from callcast.runtime.settings import Settings, Table, read_table, settings_of


def test_nothing_said_gives_the_defaults(tmp_path: Path) -> None:
    table = read_table(tmp_path, {})
    assert table.broker is None
    settings = settings_of(table)
    assert settings.recovery == Settings().recovery
    assert (settings.slots, settings.lease, settings.drain) == (64, 60.0, 25.0)


def test_the_environment_wins_over_callcast_toml_and_that_over_pyproject(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[tool.callcast]\nbroker = "sqlite:///a.db"\nslots = 3\nlease = 5.0\n'
    )
    (tmp_path / "callcast.toml").write_text('broker = "sqlite:///b.db"\nslots = 4\n')
    table = read_table(tmp_path, {"CALLCAST_BROKER": "memory://"})
    assert table.broker == "memory://"
    assert table.slots == 4
    assert table.lease == 5.0


def test_values_from_the_environment_are_converted(tmp_path: Path) -> None:
    environ = {
        "CALLCAST_DELAYS": "0.2,0.5",
        "CALLCAST_IMMEDIATE": "1",
        "CALLCAST_ATTEMPTS": "2",
        "CALLCAST_ATTEMPT_TIMEOUT": "0.3",
        "CALLCAST_BREAKER_WAIT": "2",
        "CALLCAST_BREAKER_MINIMUM": "5",
        "CALLCAST_BULKHEAD": "8",
        "CALLCAST_KILL_SWITCH_WAIT": "1.5",
    }
    settings = settings_of(read_table(tmp_path, environ))
    assert settings.recovery.delays == (0.2, 0.5)
    assert settings.recovery.immediate == 1
    assert settings.policy.retry is not None
    assert settings.policy.retry.attempts == 2
    assert settings.policy.attempt_timeout == 0.3
    assert settings.policy.breaker is not None
    assert (settings.policy.breaker.wait, settings.policy.breaker.minimum) == (2.0, 5)
    assert settings.policy.bulkhead is not None
    assert settings.policy.bulkhead.limit == 8
    assert settings.kill_switch_wait == 1.5


def test_peers_come_from_files_and_variables(tmp_path: Path) -> None:
    (tmp_path / "callcast.toml").write_text('[peers]\ninventory = "http://a:1"\n')
    environ = {"CALLCAST_PEER_PRICE_LIST": "http://b:2"}
    table = read_table(tmp_path, environ)
    assert table.peers == {"inventory": "http://a:1", "price-list": "http://b:2"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("slots = 'many'", "slots"),
        ("nonsense = 1", "nonsense"),
        ("broker = 3", "broker"),
        ("slots = ", "not TOML"),
    ],
)
def test_a_wrong_value_is_named_with_the_places_looked_at(
    tmp_path: Path, text: str, said: str
) -> None:
    (tmp_path / "callcast.toml").write_text(text)
    with pytest.raises(Misuse, match=said) as caught:
        read_table(tmp_path, {})
    assert "callcast.toml" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("CALLCAST_BROKR", "CALLCAST_BROKER"),
        ("CALLCAST_BROKER_URL", "CALLCAST_BROKER"),
        ("CALLCAST_SLOT", "CALLCAST_SLOTS"),
        ("CALLCAST_KILLSWITCH_WAIT", "CALLCAST_KILL_SWITCH_WAIT"),
    ],
)
def test_a_misspelt_variable_is_refused_with_what_was_meant(
    tmp_path: Path, name: str, meant: str
) -> None:
    with pytest.raises(Misuse, match=f"{name} is no setting: did you mean {meant}\\?"):
        read_table(tmp_path, {name: "3"})


@pytest.mark.parametrize(
    "name",
    ["CALLCAST_FAILPOINTS", "CALLCAST_FAILPOINT_LOG", "CALLCAST_TEST_BROKER", "CALLCAST_BENCH"],
)
def test_a_variable_of_the_programs_own_is_left_alone(tmp_path: Path, name: str) -> None:
    assert read_table(tmp_path, {name: "3"}) == read_table(tmp_path, {})


def test_delays_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="delays="):
        settings_of(read_table(tmp_path, {"CALLCAST_DELAYS": "soon"}))


def test_the_bus_is_named_after_its_only_service_else_after_the_program() -> None:
    one = Service("orders")
    assert Bus("memory://", services=[one]).name == "orders"
    assert Bus("memory://", services=[one], name="shop").name == "shop"
    assert Bus("memory://", services=[one, Service("mail")]).name not in {"orders", "mail"}


def test_a_bus_name_that_is_no_name_is_refused() -> None:
    with pytest.raises(Misuse, match="bus 'a b'"):
        Bus("memory://", name="a b")


@pytest.mark.parametrize(
    "url", ["inventory:8080", "ftp://host", "http://", "http://user:secret@host:1"]
)
def test_a_peer_is_an_http_url_without_credentials(url: str) -> None:
    with pytest.raises(Misuse) as caught:
        Peer(url)
    assert "secret" not in str(caught.value)


def test_the_repr_of_a_peer_shows_no_secret() -> None:
    peer = Peer("http://host:1", auth="Bearer secret", headers={"X-Key": "secret"})
    assert "secret" not in repr(peer)


def test_every_setting_that_is_taken_is_used() -> None:
    """A setting that is read and changes nothing would be believed."""
    runtime = Path(read_table.__code__.co_filename).parent
    source = (runtime / "bus.py").read_text() + (runtime / "recording.py").read_text()
    source += Path(read_table.__code__.co_filename).read_text().partition("_PLAIN = (")[2]
    for name in Table.__struct_fields__:
        assert f"table.{name}" in source or f'"{name}"' in source, name


def test_an_inbox_that_forgets_within_seven_days_is_refused() -> None:
    with pytest.raises(Misuse, match="seven days"):
        Settings(inbox_retention=60.0)


def test_a_service_without_a_database_has_the_one_of_the_settings(tmp_path: Path) -> None:
    """Each its own, on any broker; what a service declares itself wins."""
    ledger, audit = Service("ledger"), Service("audit", database=f"sqlite:///{tmp_path}/own.db")
    event = Event("moved", str)

    @ledger.on(event)
    async def book(text: str, tx: Transaction) -> None:
        await tx.execute("create table if not exists books(text)")

    @audit.on(event)
    async def note(text: str, tx: Transaction) -> None:
        await tx.execute("create table if not exists notes(text)")

    environ = {"CALLCAST_DATABASE": f"sqlite:///{tmp_path}/x.{{service}}.db"}
    settings = settings_of(read_table(tmp_path, environ))

    async def work() -> None:
        async with Bus(
            "memory://", services=[ledger, audit], name="bank", settings=settings
        ) as bus:
            await bus.publish(event, "one")
            await bus.idle()

    asyncio.run(work())
    assert tables(tmp_path / "x.ledger.db") >= {"books", "callcast_inbox"}
    assert tables(tmp_path / "own.db") >= {"notes", "callcast_inbox"}
    assert not (tmp_path / "x.audit.db").exists()


def tables(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as database:
        return {name for (name,) in database.execute("select name from sqlite_schema")}
