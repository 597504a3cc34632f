"""The picture as SVG."""

from __future__ import annotations

import re
from xml.etree.ElementTree import Element, fromstring

from advise_parts import says, seen, system_of

from callcast.advise.findings import Finding, Sorted
from callcast.advise.model import Interaction, System, Verb
from callcast.advise.reports.report import reported
from callcast.advise.reports.svg import svg
from callcast.core.needs import Needs

KEPT = Needs(response="none", on_failure="must_not_lose")
SVG = "{http://www.w3.org/2000/svg}"


def drawn(*interactions: Interaction, found: tuple[Finding, ...] = ()) -> Element:
    system = system_of(*interactions) if interactions else System()
    return fromstring(svg(reported(system, slo=99.9, findings=Sorted(found, [], []))))


def lines(picture: Element) -> dict[str, tuple[str, str]]:
    """Each interaction with the kind of its line and what stands on it."""
    labels = [each for each in picture.iter(f"{SVG}text") if "label" in each.get("class", "")]
    groups = list(picture.iter(f"{SVG}g"))
    return {
        str(group[0].text): (group[1].attrib["class"], str(label.text))
        for group, label in zip(groups, labels, strict=True)
    }


def boxes(picture: Element) -> dict[str, float]:
    """Each service with where its box begins."""
    every = list(picture)
    return {
        str(every[at + 1].text): float(each.attrib["x"])
        for at, each in enumerate(every)
        if each.tag == f"{SVG}rect"
    }


def test_calls_are_solid_messages_dashed_and_changes_marked() -> None:
    picture = drawn(
        says("web->shop"),
        says("shop->mail", needs=KEPT, measured=seen(100)),
        says("shop->log", Verb.CAST, needs=KEPT),
        found=(Finding("A05", "shop->mail:mail.ask", "waits", "cast it"),),
    )
    assert lines(picture) == {
        "web->shop:shop.ask": ("line call", "shop.ask"),
        "shop->mail:mail.ask": ("line call change", "mail.ask => CAST A05"),
        "shop->log:log.ask": ("line message", "log.ask"),
    }
    at = boxes(picture)
    assert at["web"] < at["shop"] < at["mail"] == at["log"]


def test_its_description_is_the_picture_in_text() -> None:
    picture = drawn(says("web->shop"))
    assert picture.findtext(f"{SVG}title") == "2 services, 1 interactions"
    assert picture.findtext(f"{SVG}desc") == "web  web.ask\n└──> shop  shop.ask  [call]"


def test_rings_and_what_calls_itself_are_drawn_too() -> None:
    picture = drawn(says("a->b"), says("b->a"), says("b->b:again"), says("c->d"), says("d->b"))
    assert len(lines(picture)) == 5
    ring = boxes(drawn(says("x->y"), says("y->x")))
    assert ring["x"] < ring["y"]


def test_every_line_stays_within_the_drawing() -> None:
    far = [says(f"a->{name}") for name in "bcdef"]
    picture = drawn(*far, says("b->a"), says("b->c:beside"), says("f->g"), says("g->g:itself"))
    _, _, width, height = (float(each) for each in picture.attrib["viewBox"].split())
    for path in picture.iter(f"{SVG}path"):
        numbers = [float(each) for each in re.findall(r"[\d.]+", path.attrib["d"])]
        if "line" in path.attrib["class"]:
            *pairs, end = numbers
            assert max(*pairs[0::2], end) <= width
            assert max(pairs[1::2]) <= height


def test_names_are_shown_as_they_are_and_never_without_end() -> None:
    picture = drawn(says("a->b:" + "x" * 500), says('<a&>->"b"'))
    found = lines(picture)
    assert found['<a&>->"b":"b".ask'] == ("line call", '"b".ask')
    [long] = [said for name, (_, said) in found.items() if "xxx" in name]
    assert long == "x" * 59 + "…"


def test_of_nothing_an_empty_picture() -> None:
    assert boxes(drawn()) == {}
