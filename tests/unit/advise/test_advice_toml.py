"""``advice.toml``: what the team says over what was declared, and what it accepts."""

from __future__ import annotations

from datetime import date

import pytest

from callcast.advise import advice_file
from callcast.advise.advice_file import Advised, Suppression
from callcast.advise.model import Edge, Interaction, System, Terms, Verb
from callcast.core.errors import Misuse
from callcast.core.needs import Needs

MAIL = Edge("orders", "mail", "mail.send")
STOCK = Edge("orders", "stock", "stock.reserve")
WHOLE = b"""
[assume]
broker = 99.99
repair_time = 1800
slo = 99.5

[interaction."*->mail:*"]
response = "none"
workers = 4

[interaction."orders->mail"]
on_failure = "must_not_lose"
has_outbox = false

[interaction."orders->post:letter"]
work = 2

[[suppress]]
code = "A04"
edge = "orders->*"
reason = "the proxy is going away"
until = 2027-03-01
"""


def system() -> System:
    def about(edge: Edge) -> Interaction:
        return Interaction(
            edge=edge, verb=Verb.CALL, needs=Needs(response="ack"), terms=Terms(attempts=3)
        )

    return System(interactions={edge: about(edge) for edge in (MAIL, STOCK)})


def read(text: str) -> Advised:
    return advice_file.read(text.encode(), "advice.toml")


def test_what_the_file_says_goes_over_what_was_declared_and_leaves_the_rest() -> None:
    advised = advice_file.read(WHOLE, "advice.toml")
    found = advice_file.apply(system(), advised, "advice.toml")
    assert found.broker_availability == pytest.approx(0.9999)
    mail = found.interactions[MAIL]
    assert mail.needs == Needs(response="none", on_failure="must_not_lose")
    assert mail.terms == Terms(attempts=3, workers=4, has_outbox=False)
    assert found.interactions[STOCK] == system().interactions[STOCK]
    assert advice_file.unmatched(system(), advised) == ["orders->post:letter"]


def test_a_suppression_has_a_code_an_edge_a_reason_and_an_end() -> None:
    [one] = advice_file.read(WHOLE, "advice.toml").suppress
    assert one == Suppression("A04", "the proxy is going away", "orders->*", date(2027, 3, 1))
    assert one.covers("A04", str(MAIL))
    assert not one.covers("A05", str(MAIL))
    assert not one.covers("A04", "shop->mail:mail.send")


def test_an_empty_file_changes_nothing() -> None:
    assert advice_file.apply(system(), read(""), "advice.toml") == system()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a = ", "advice.toml is not TOML"),
        ("[assmue]", "'assmue' is unknown; did you mean 'assume'"),
        ("[assume]\nbrokr = 1", r"\[assume\]: 'brokr' is unknown; did you mean 'broker'"),
        ("[assume]\nbroker = 'x'", r"\[assume\]: Expected"),
        ("assume = 3", r"\[assume\]: Expected"),
        ("[assume]\nbroker = 9999", "broker = 9999.0: a percentage"),
        ("[assume]\nslo = 0", "slo = 0.0: a percentage"),
        ("[assume]\nrepair_time = 0", "repair_time = 0.0: seconds, above 0"),
        ("interaction = 3", r"\[interaction\]: is 3; it must be a table"),
        ("[interaction]\nx = 3", r'\[interaction."x"\]: is 3; it must be a table'),
        ('[interaction."a->b"]\nrespons = 1', "'respons' is unknown; did you mean 'response'"),
        ('[interaction."a->b"]\nzzz = 1', "'zzz' is unknown; there are response, needed_within"),
        ('[interaction."a->b"]\nresponse = "maybe"', "Invalid enum value 'maybe'"),
        ('[interaction."a->b"]\nslo = 100.0', "a percentage between 0 and 100"),
        ('[interaction."a->b"]\nworkers = 0', "workers = 0: somebody has to handle it"),
        ('[interaction."a->b"]\ndeadline = -1', "deadline = -1: must not be below 0"),
        ('[interaction."a->b"]\ndeadline = nan', "deadline = nan: must not be below 0"),
        ("suppress = 3", r"write \[\[suppress\]\]"),
        ("suppress = [3]", r"\[\[suppress\]\] number 1: Expected"),
        ('[[suppress]]\ncode = "A04"', "number 1: Object missing required field `reason`"),
        ('[[suppress]]\ncode = "A04"\nreason = " "', "A04: give a reason"),
        ('[[suppress]]\ncode = "A21"\nreason = "x"', "code = 'A21': findings are A01 to A20"),
        ('[[suppress]]\ncode = "A04"\nreason = "x"\nuntil = "soon"', "number 1: "),
        ('[[suppress]]\ncod = "A04"', "number 1: 'cod' is unknown; did you mean 'code'"),
    ],
)
def test_what_is_wrong_is_said_with_its_place_and_what_was_meant(text: str, said: str) -> None:
    with pytest.raises(Misuse, match=said):
        read(text)


def test_bytes_that_are_no_text_are_no_toml() -> None:
    with pytest.raises(Misuse, match="is not TOML"):
        advice_file.read(b"\xff", "advice.toml")
