"""The demo's parts that need no shop: views, logs, words, shares."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest
from rich.console import Console

from callcast.cli.demo import house
from callcast.cli.demo.account import Account, Fault, Verdict
from callcast.cli.demo.acts import shares
from callcast.cli.demo.command import HIT, in_words
from callcast.cli.demo.house import Log, examples, free_ports
from callcast.cli.demo.live import Live
from callcast.cli.demo.view import Lines, told, view_for_terminal
from callcast.cli.demo.watch import Numbers
from callcast.cli.failure import Failure

NUMBERS = Numbers(
    elapsed=2.5, sent=3, confirmed=2, refused=1, dead=1, breakers={"payments": "open"}
)
ACCOUNT = Account(4, 3, 1, 0, 2, 1, 1, 0, 0, [Fault("poison order", 1.25, 1)])


def test_all_numbers_are_told_in_the_order_in_which_an_order_meets_them() -> None:
    names = [name for name, _ in told(NUMBERS)]
    assert names[:4] == ["orders", "calls", "casts", "breakers"]
    assert dict(told(NUMBERS))["breakers"] == "payments open"
    assert dict(told(Numbers()))["breakers"] == "closed"


def test_lines_go_to_stderr_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    view = Lines()
    view.show(NUMBERS)
    view.show(NUMBERS)  # too soon for another line
    view.say("the bank is slow")
    view.close()
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 2
    assert err.splitlines()[1] == "  2.5 s  the bank is slow"


def test_a_terminal_with_rich_shows_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(record=True, force_terminal=True, width=100)
    view = Live(console)
    view.show(NUMBERS)
    view.say("[not markup]")
    view.close()
    view.close()
    assert "[not markup]" in console.export_text()
    assert "payments open" in console.export_text(clear=False) or console.width


def test_the_view_is_chosen_by_terminal_and_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(view_for_terminal(), Lines)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    live = view_for_terminal()
    assert isinstance(live, Live)
    live.close()

    def missing(name: str) -> object:
        raise ModuleNotFoundError(name, name=missing_name)

    monkeypatch.setattr(importlib, "import_module", missing)
    missing_name = "rich"
    assert isinstance(view_for_terminal(), Lines)
    missing_name = "something_else"
    with pytest.raises(ModuleNotFoundError):
        view_for_terminal()


def test_a_log_gives_each_record_once_and_waits_for_the_end_of_a_line(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    log = Log(path)
    assert list(log.news()) == []
    path.write_text('{"event": "a"}\nTraceback\n[1]\n{"event": ')
    assert [record["event"] for record in log.news()] == ["a"]
    with path.open("a") as file:
        file.write('"b"}\n')
    assert [record["event"] for record in log.news()] == ["b"]
    assert list(log.news()) == []


def test_the_last_words_are_the_error_when_there_is_one(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    assert Log(path).last_words() == "it said nothing"
    path.write_text('{"event": "a"}\nerror: the disk is full\n  try: df -h\n')
    assert Log(path).last_words() == "the disk is full"
    path.write_text("Traceback\nZeroDivisionError\n")
    assert Log(path).last_words() == "ZeroDivisionError"


def test_the_shares_of_the_acts_are_all_orders() -> None:
    for orders in (20, 21, 40, 50, 300, 1000):
        share = shares(orders)
        assert sum((share.calm, share.kill, share.slow, share.failing, share.after)) + 1 == orders
        assert min(share.calm, share.kill, share.slow, share.failing, share.after) >= 1


def test_free_ports_differ() -> None:
    assert len(set(free_ports(5))) == 5


def test_the_shop_is_found_or_that_it_is_missing_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (examples() / "shop" / "orders.py").exists()
    monkeypatch.setattr(house.callcast, "__file__", str(tmp_path / "src" / "callcast" / "x.py"))
    with pytest.raises(Failure, match="not installed"):
        examples()


def test_a_good_account_is_explained() -> None:
    text = in_words(Verdict(ACCOUNT, []))
    assert "4 orders were placed: 3 confirmed, 1 refused, 0 without an answer." in text
    assert "2 were packed and mailed once, 1 are in the dead letters, 0 are lost" in text
    assert "poison order, dead letters: 1" in text
    assert "Every one of the 3 confirmed orders is accounted for" in text


def test_a_bad_account_says_what_is_wrong_and_explains_nothing() -> None:
    text = in_words(Verdict(ACCOUNT, ["lost: o-1"]))
    assert "WRONG: lost: o-1" in text
    assert "accounted for" not in text


def test_every_kind_of_fault_has_its_words() -> None:
    kinds = json.dumps(list(HIT))
    source = (Path(house.__file__).parent / "acts.py").read_text()
    for kind in json.loads(kinds):
        assert f'"{kind}"' in source
