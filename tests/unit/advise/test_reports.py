"""What the adviser says, in each of its forms."""

from __future__ import annotations

import json
from xml.etree.ElementTree import fromstring

from advise_parts import of, says, seen, system_of
from msgspec.structs import replace

from callcast.advise.advice_file import Suppression
from callcast.advise.check import Checked
from callcast.advise.checks import findings
from callcast.advise.confidence import Interval
from callcast.advise.findings import Finding, Scope, Sorted
from callcast.advise.model import Measured, System, Terms, Verb
from callcast.advise.reports import machine
from callcast.advise.reports.picture import picture
from callcast.advise.reports.report import Report, reported
from callcast.advise.reports.text import markdown, seconds, text
from callcast.core.needs import Needs

KEPT = Needs(response="none", on_failure="must_not_lose")
SOON = Suppression(code="A20", reason="it runs since today")


def shop() -> System:
    mail = says("shop->mail", needs=KEPT, measured=seen(1000, 20))
    mail.at = "shop/mail.py:12"
    told = says("mail->log", Verb.CAST, needs=KEPT, measured=Measured(count=50, work=of(0.2, 50)))
    stock = says("shop->stock", needs=Needs(response="value", needed_within=1.0),
                 measured=seen(1000), terms=Terms(deadline=0.5, attempts=2))  # fmt: skip
    return replace(system_of(mail, told, stock, says("stock->mail")), sources=("traces.json",))


def report(system: System | None = None, **more: object) -> Report:
    system = system or shop()
    found = findings(Scope(system=system))
    thin = [each for each in found if each.code == "A20"]
    low = Finding("A01", "shop:shop.ask", "too low", "cast more", "shop/mail.py:12", "error")
    open_ = [low, *(each for each in found if each.code != "A20")]
    late = Finding("A15", "x -> y -> x", "they wait", "stop it")
    return reported(
        system,
        slo=99.9,
        findings=Sorted(open_, [(each, SOON) for each in thin], [(late, SOON)]),
        **more,  # type: ignore[arg-type]
    )


def test_the_picture_has_solid_calls_and_dashed_messages() -> None:
    drawn = picture(shop())
    assert (
        drawn
        == [
            "shop  shop.ask",
            "├──> mail  mail.ask  [call]",
            "│   └┄┄> log  log.ask  [cast]",
            "└──> stock  stock.ask  [call]",
            "    └──> mail  mail.ask  [call]  (as above)",
        ]
        or "stock->mail" not in drawn
    )
    ring = system_of(says("a->b"), says("b->a"))
    assert picture(ring)[0] == "a  a.ask"
    lone = says("x->y")
    assert picture(System(interactions={lone.edge: lone})) == ["x", "└──> y  y.ask  [call]"]


def test_the_page_says_everything() -> None:
    old = [Finding("A16", "a->b:c", "many", "one")]
    checked = [
        Checked(("shop", "shop.ask"), 0.98, 0.979, Interval(0.97, 0.985, 20_000)),
        Checked(("shop", "shop.ask"), 0.5, 0.979, Interval(0.97, 0.985, 20_000)),
    ]
    page = text(report(known=old, suppose=["shop->mail=cast"], checked=checked))
    for said in (
        "4 services, 4 interactions, 0 traces in 0 s; objective 99.9 %",
        "read from traces.json",
        "├──> mail  mail.ask  [call]   => CAST (R5)",
        "shop->mail:mail.ask call CAST R5 1000 2.00% 9.89 ms 9.89 ms",
        "mail->log:log.ask cast CAST R5 50 0.00% 200 ms 200 ms",
        "1. A01 shop:shop.ask",
        "At: shop/mail.py:12",
        "1 findings of the baseline were there before",
        "A20 stock->mail:mail.ask is accepted: it runs since today",
        "A15 x -> y -> x was accepted until None: decide again",
        "shop->mail:mail.ask: change to CAST (R5)",
        "shop->stock:stock.ask: keep as CALL (R1)",
        "98.000% answered",
        "write: await tx.cast(MAIL_ASK, request)",
        "-/2/500 ms",
        "shop->mail:mail.ask as cast:",
        "n = 20000): they agree",
        "THEY DISAGREE",
        "- needs.response of stock->mail:mail.ask",
        "the broker is taken to be always there",
    ):
        assert said in page or said in " ".join(page.split()), said


def test_findings_beyond_the_first_are_listed() -> None:
    many = [Finding(f"A{n:02}", "e", "s", "r") for n in range(1, 13)]
    page = text(reported(shop(), slo=99.0, findings=Sorted(many, [], [])))
    assert "   also A11 e" in page


def test_of_nothing_the_page_is_short() -> None:
    empty = replace(System(), dropped={"a span without an id": 3}, broker_availability=0.999)
    page = text(report(empty))
    assert "read from declarations only" in page
    assert "Interactions" in page
    assert "- 3 x a span without an id" in page
    assert "always there" not in page
    nothing = reported(empty, slo=99.9, findings=Sorted([], [], []))
    assert "declarations only" in markdown(nothing)
    assert "## Findings" not in markdown(nothing)


def test_the_decision_record() -> None:
    record = markdown(report())
    assert "| shop->mail:mail.ask | call | CAST | R5 |" in record
    assert "## Findings" in record
    assert "- **A01** shop:shop.ask" in record
    assert "### shop->mail:mail.ask: CAST" in record


def test_json_has_stable_names() -> None:
    whole = json.loads(machine.json(report(suppose=["shop->mail=cast"])))
    assert list(whole) == [
        "slo", "sources", "window", "traces", "interactions", "findings", "baseline", "suppressed",
        "budgets", "what_if", "check", "assumptions", "dropped",
    ]  # fmt: skip
    mail = next(each for each in whole["interactions"] if each["callee"] == "mail")
    assert (mail["caller"], mail["today"], mail["verdict"], mail["is_change"]) == (
        "shop", "call", "CAST", True,
    )  # fmt: skip
    assert whole["suppressed"][0]["code"] == "A20"


def test_sarif_says_what_is_new_old_and_accepted() -> None:
    old = Finding("A16", "a->b:c", "many", "one", "x.py:3")
    odd = Finding("A17", "a->b:c", "order", "key", "x.py")
    whole = json.loads(machine.sarif(report(known=[old, odd])))
    results = {each["ruleId"]: each for each in whole["runs"][0]["results"]}
    assert results["A01"]["baselineState"] == "new"
    assert results["A16"]["baselineState"] == "unchanged"
    place = results["A16"]["locations"][0]["physicalLocation"]
    assert (place["artifactLocation"]["uri"], place["region"]["startLine"]) == ("x.py", 3)
    assert "physicalLocation" not in results["A17"]["locations"][0]
    [accepted] = results["A20"]["suppressions"]
    assert accepted == {"kind": "external", "justification": "it runs since today"}


def test_junit_fails_what_is_open_and_skips_the_rest() -> None:
    one = report(known=[Finding("A16", "a->b:c", "many", "one")])
    suite = fromstring(machine.junit(one))
    assert suite.attrib["failures"] == str(len(one.findings.open))
    assert len(suite.findall("testcase/failure")) == len(one.findings.open)
    assert {each.attrib["message"] for each in suite.findall("testcase/skipped")} == {
        "it runs since today",
        "in the baseline",
    }


def test_durations_have_three_digits() -> None:
    assert [seconds(each) for each in (45e-6, 0.01234, 1.5, 2400.0)] == [
        "45 us", "12.3 ms", "1.5 s", "40 min",
    ]  # fmt: skip
