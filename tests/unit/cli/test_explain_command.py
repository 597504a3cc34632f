"""`callcast explain`: the recipes as a bus would build them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from callcast import Bus, Event, Operation, Policy, Recovery, Service
from callcast.cli.app import main
from callcast.cli.explain import Explainer
from callcast.runtime.settings import Settings


def run(*args: str) -> Result:
    return CliRunner().invoke(main, ["explain", *args])


def layers(*args: str) -> dict[str, list[str]]:
    result = run(*args, "-o", "json")
    assert result.exit_code == 0, result.stderr
    return {record["kind"]: record["layers"] for record in json.loads(result.stdout)}


def test_the_defaults_of_a_kind_are_listed_outermost_first() -> None:
    text = run("consume").stdout.splitlines()
    assert text[0] == "CONSUME (defaults)"
    assert [line.strip() for line in text[1:4]] == ["Trace", "Measure", "Recover"]
    assert "20 attempts over" in text[-2]


@pytest.mark.parametrize("kind", ["call", "serve", "publish"])
def test_every_kind_has_defaults(kind: str) -> None:
    assert list(layers(kind)) == [kind.upper()]


def test_the_limits_that_hold_without_any_setting_are_shown() -> None:
    assert "Deadline(5 s)" in layers("publish")["PUBLISH"]
    call = layers("call")["CALL"]
    assert "Deadline(1 s)" in call
    assert "AttemptTimeout(0.5 s)" in call


def test_settings_of_the_folder_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "callcast.toml").write_text('attempts = 7\ndelays = "1,2"\nimmediate = 0\n')
    assert "Retry(7 attempts)" in layers("call")["CALL"]
    assert "3 attempts over" in run("consume").stdout


def test_a_handler_with_a_transaction_has_an_inbox() -> None:
    found = layers("shop.fulfilment:service")
    assert "Inbox" in found["CONSUME"]
    assert "Inbox" in found["SERVE"]
    assert "pack" in run("shop.fulfilment:service").stdout


def test_an_operation_shows_its_deadline() -> None:
    found = layers("shop.contracts:CHECKOUT")
    assert "Deadline(5 s)" in found["CALL"]
    assert "PUBLISH" in found
    assert list(layers("shop.contracts:PLACED")) == ["PUBLISH"]


def test_what_cannot_be_cast_has_no_publish_and_no_consume() -> None:
    ask = Operation("shop.ask", str, int)
    service = Service("shop")

    @service.serves(ask)
    async def answer(_question: str) -> int:
        return 42

    explainer = Explainer(Settings())
    assert [each.kind for each in explainer.explain(ask, "ask")] == ["CALL"]
    assert [each.kind for each in explainer.explain(service, "shop")] == ["SERVE"]


def test_a_bus_is_explained_with_its_own_settings() -> None:
    tick = Event("shop.tick", int)
    service = Service("shop")

    @service.on(tick, recovery=Recovery(immediate=0, delays=(1.0,)))
    async def on_tick(_tick: int) -> None: ...

    bus = Bus("memory://", services=[service], settings=Settings(recovery=Recovery(delays=())))
    [explained] = Explainer(Settings()).explain(bus, "bus")
    assert explained.recovery is not None
    assert explained.recovery.attempts_max == 2


def test_policies_and_recoveries_are_explained() -> None:
    explainer = Explainer(Settings())
    [policy] = explainer.explain(Policy(deadline=2.0, bulkhead=None), "policy")
    assert "Deadline(2 s)" in policy.layers
    assert not any(layer.startswith("Bulkhead") for layer in policy.layers)
    [recovery] = explainer.explain(Recovery(immediate=1, delays=()), "recovery")
    assert recovery.recovery is not None
    assert recovery.recovery.attempts_max == 2


def test_what_cannot_be_explained_is_said() -> None:
    result = run("shop.bank:LIMIT")
    assert result.exit_code == 2
    assert "is of type int" in result.stderr
