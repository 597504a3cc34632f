"""``advice.toml``: what nobody can measure, said by the team, and findings that it accepts.

::

    [assume]
    broker = 99.99            # percent of the time that the broker is there
    repair_time = 3600        # seconds until somebody has mended what is down

    [interaction."orders->mail:mail.send"]     # or a pattern: "*->mail:*"
    response = "none"
    on_failure = "must_not_lose"
    workers = 4

    [[suppress]]
    code = "A04"
    edge = "orders->*"
    reason = "the proxy between them is going away"
    until = 2027-03-01
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from datetime import date
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any, TypeVar, cast

import msgspec
from msgspec import Struct, field
from msgspec.structs import replace

from callcast.advise.declared import over
from callcast.advise.model import Interaction, System, Terms
from callcast.core.errors import Misuse
from callcast.core.needs import Needs

T = TypeVar("T", bound=Struct)

REPAIR_TIME = 3600.0
"""Seconds: an hour until somebody has mended what is down, where nobody says otherwise."""


class Suppression(Struct, frozen=True, forbid_unknown_fields=True):
    """A finding that the team accepts, with why, and until when."""

    code: str
    reason: str
    edge: str = "*"
    """As findings write it; ``*`` stands for anything."""
    until: date | None = None

    def covers(self, code: str, edge: str) -> bool:
        """Whether it is about this finding, expired or not."""
        return self.code == code and fnmatchcase(edge, self.edge)


class Assumed(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What holds for the whole system."""

    broker: float | None = None
    """Percent."""
    repair_time: float = REPAIR_TIME
    slo: float | None = None
    """Percent."""


class Advised(Struct, frozen=True, kw_only=True):
    """The whole file."""

    assume: Assumed = field(default_factory=Assumed)
    interactions: dict[str, dict[str, Any]] = {}
    """Edge, or a pattern of edges, to what is said of needs and terms."""
    suppress: Sequence[Suppression] = ()


_CODE = re.compile(r"A(?:0[1-9]|1\d|20)")
EXAMPLE = '[interaction."orders->mail:mail.send"]'
_TABLES = ("assume", "interaction", "suppress")
_NEEDS = tuple(Needs.__dataclass_fields__)
_TERMS = Terms.__struct_fields__


def read(text: bytes, name: str) -> Advised:
    """Parse it; raises `Misuse` that says what is wrong, in which part, and what was meant."""
    try:
        raw = tomllib.loads(text.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Misuse(f"{name} is not TOML: {error}") from error
    _known(raw, _TABLES, name)
    found = _table(raw.get("interaction", {}), f"{name} [interaction]")
    for pattern, said in found.items():
        where = f'{name} [interaction."{pattern}"]'
        _known(_table(said, where), (*_NEEDS, *_TERMS), where)
    whole = Advised(
        assume=_as(raw.get("assume", {}), Assumed, f"{name} [assume]"),
        interactions=found,
        suppress=[
            _as(each, Suppression, f"{name} [[suppress]] number {number}")
            for number, each in enumerate(_tables(raw.get("suppress", []), name), 1)
        ],
    )
    _checked(whole.assume, f"{name} [assume]")
    for each in whole.suppress:
        if not _CODE.fullmatch(each.code):
            raise Misuse(f"{name} [[suppress]] code = {each.code!r}: findings are A01 to A20")
        if not each.reason.strip():
            raise Misuse(f"{name} [[suppress]] {each.code}: give a reason for whoever reads it")
    for pattern, said in found.items():
        _said(Interaction(edge=None, verb=None), said, f'{name} [interaction."{pattern}"]')  # type: ignore[arg-type]
    return whole


def apply(system: System, advised: Advised, name: str) -> System:
    """The system with all that the file says over what was declared."""
    interactions = dict(system.interactions)
    for edge, before in system.interactions.items():
        about = before
        for pattern, said in advised.interactions.items():
            if fnmatchcase(str(edge), pattern) or f"{edge.caller}->{edge.callee}" == pattern:
                about = _said(about, said, f'{name} [interaction."{pattern}"]')
        interactions[edge] = about
    broker = system.broker_availability
    if advised.assume.broker is not None:
        broker = advised.assume.broker / 100.0
    return replace(system, interactions=interactions, broker_availability=broker)


def unmatched(system: System, advised: Advised) -> Sequence[str]:
    """Patterns of the file that are about no interaction: a name that was misspelt, or is gone."""
    texts = [text for e in system.interactions for text in (str(e), f"{e.caller}->{e.callee}")]
    return [
        pattern
        for pattern in advised.interactions
        if not any(fnmatchcase(text, pattern) for text in texts)
    ]


def _said(about: Interaction, said: dict[str, Any], where: str) -> Interaction:
    needs = {name: getattr(about.needs, name) for name in _NEEDS}
    needs |= {name: value for name, value in said.items() if name in _NEEDS}
    terms = {name: value for name, value in said.items() if name in _TERMS}
    for name, value in terms.items():
        if not isinstance(value, bool) and isinstance(value, int | float) and not value >= 0:
            raise Misuse(f"{where}: {name} = {value}: must not be below 0")
    if terms.get("workers") == 0:
        raise Misuse(f"{where}: workers = 0: somebody has to handle it")
    try:
        return replace(
            about,
            needs=msgspec.convert(needs, Needs),
            terms=over(about.terms, msgspec.convert(terms, Terms)),
        )
    except (msgspec.ValidationError, Misuse) as error:
        raise Misuse(f"{where}: {error}") from error


def _checked(assume: Assumed, where: str) -> None:
    for field_name in ("broker", "slo"):
        percent = getattr(assume, field_name)
        if percent is not None and not 0 < percent < 100:
            raise Misuse(
                f"{where} {field_name} = {percent}: a percentage between 0 and 100, such as 99.9"
            )
    if not assume.repair_time > 0:
        raise Misuse(f"{where} repair_time = {assume.repair_time}: seconds, above 0")


def _table(raw: object, where: str) -> dict[str, Any]:
    if not isinstance(raw, dict):
        raise Misuse(f"{where}: is {raw!r}; it must be a table, such as {EXAMPLE}")
    return cast("dict[str, Any]", raw)


def _tables(raw: object, name: str) -> list[object]:
    if not isinstance(raw, list):
        raise Misuse(f"{name} [suppress]: write [[suppress]], there may be several")
    return cast("list[object]", raw)


def _as(raw: object, kind: type[T], where: str) -> T:
    if isinstance(raw, dict):
        _known(cast("dict[str, Any]", raw), kind.__struct_fields__, where)
    try:
        return msgspec.convert(raw, kind)
    except msgspec.ValidationError as error:
        raise Misuse(f"{where}: {error}") from error


def _known(raw: dict[str, Any], names: Sequence[str], where: str) -> None:
    for name in raw:
        if name not in names:
            near = get_close_matches(name, names, n=1)
            meant = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names)}"
            raise Misuse(f"{where}: {name!r} is unknown; {meant}")
