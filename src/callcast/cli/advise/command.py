"""``callcast advise``: which interaction should be a call and which a cast, with numbers."""

from __future__ import annotations

import json
import random  # noqa: TID251 - the dice of a simulation, seeded so that it can be repeated
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import click
from msgspec.structs import replace

from callcast.advise import advice_file
from callcast.advise.advice_file import Advised
from callcast.advise.check import Checked, check
from callcast.advise.checks import findings
from callcast.advise.declared import declared, joined
from callcast.advise.explain import explained
from callcast.advise.findings import Finding, Scope, Sorted, without
from callcast.advise.model import System
from callcast.advise.reports import machine
from callcast.advise.reports.report import Report, reported
from callcast.advise.reports.svg import svg
from callcast.advise.reports.text import markdown, text
from callcast.advise.rules import SLO
from callcast.cli.advise.sources import read_all
from callcast.cli.failure import FINDINGS, Failure
from callcast.cli.loading import load
from callcast.cli.recorded import record_path
from callcast.core.contract import Event, Operation
from callcast.runtime.bus import Bus
from callcast.runtime.service import Service
from callcast.runtime.settings import read_table, settings_of

ADVICE = "advice.toml"
SEED = 1
FORMATS: Mapping[str, Callable[[Report], str]] = MappingProxyType(
    {
        "text": text,
        "markdown": markdown,
        "json": machine.json,
        "sarif": machine.sarif,
        "junit": machine.junit,
        "svg": svg,
    }
)


@click.command(
    epilog="""\b
Examples:
  callcast advise --broker sqlite:///shop.db shop.orders:service shop.payments:service
  callcast advise --from traces.json --slo 99.9
  callcast advise --from http://jaeger:16686 --what-if 'orders->mail=cast'
  callcast advise --ci --format sarif --baseline advice-baseline.json > advice.sarif
  callcast advise --broker sqlite:///shop.db shop.all:SERVICES --format svg > shop.svg
  callcast advise --explain R5

Without --from the local record is read. MODULE:NAME are Services, Buses, Operations or Events
whose needs count; what nobody can measure stands in advice.toml.
"""
)
@click.argument("targets", nargs=-1, metavar="[MODULE:NAME]...")
@click.option(
    "--from", "sources", multiple=True, metavar="FILE|URL", help="OTLP, Jaeger, Zipkin, a record."
)
@click.option("--broker", "url", metavar="URL", help="Whose record is read; see 'callcast top'.")
@click.option("--slo", type=click.FloatRange(0, 100, min_open=True, max_open=True), help="Percent.")
@click.option("--what-if", "suppose", multiple=True, metavar="EDGE=VERB", help="orders->mail=cast")
@click.option("--ci", is_flag=True, help="Exit 1 when there are findings that are not accepted.")
@click.option("--exit-zero", is_flag=True, help="With --ci: report only.")
@click.option("--check", "is_checked", is_flag=True, help="Formulas beside a simulation.")
@click.option(
    "--format", "form", type=click.Choice(list(FORMATS)), default="text", show_default=True
)
@click.option("--baseline", type=click.Path(path_type=Path), help="Old findings do not block.")
@click.option("--write-baseline", type=click.Path(path_type=Path), help="Keep today's findings.")
@click.option("--explain", "code", metavar="CODE", help="What R5, F3 or A04 is about.")
def advise(**given: Any) -> None:
    """Say which interaction should be a call, which a cast, and what is wrong, with numbers."""
    if given["code"]:
        click.echo(explained(given["code"]))
        return
    report = draw_up(given)
    if given["write_baseline"] is not None:
        _keep(given["write_baseline"], report)
    click.echo(FORMATS[given["form"]](report), nl=False)
    if given["ci"] and report.findings.open and not given["exit_zero"]:
        sys.exit(FINDINGS)


def draw_up(given: Mapping[str, Any]) -> Report:
    """Read everything that was named, join it, and have it judged."""
    advised, name = _advice_file()
    system = _system(given, advised, name)
    slo = given["slo"] or advised.assume.slo or SLO
    scope = Scope(system=system, slo=slo, repair_time=advised.assume.repair_time)
    today = datetime.now(UTC).date().isoformat()  # noqa: TID251 - the day on which it is asked
    found = without(findings(scope), advised.suppress, today)
    fresh, known = _against(given["baseline"], found.open)
    return reported(
        system,
        slo=slo,
        findings=Sorted(fresh, found.suppressed, found.expired),
        known=known,
        suppose=given["suppose"],
        checked=_checked(system) if given["is_checked"] else (),
    )


def _system(given: Mapping[str, Any], advised: Advised, name: str) -> System:
    sources = given["sources"] or [record_path(None, given["url"])]
    system = read_all(sources)
    objects = [each for target in given["targets"] for each in _each(load(target))]
    services = list(_services(objects))
    contracts = [*_contracts(objects), *_beside(services)]
    said = declared(contracts, services, settings_of(read_table(Path.cwd())))
    system = advice_file.apply(joined(system, said), advised, name)
    for pattern in advice_file.unmatched(system, advised):
        click.echo(f'{name}: [interaction."{pattern}"] is about none that was seen', err=True)
    return _from_here(system, services)


def _each(found: object) -> Sequence[object]:
    """A module may name all its services in one list."""
    return cast("Sequence[object]", found) if isinstance(found, (list, tuple)) else (found,)


def _from_here(system: System, services: Sequence[Service]) -> System:
    """Places in code as seen from this folder, and what was declared among the sources."""
    here = f"{Path.cwd()}/"
    interactions = {
        edge: replace(about, at=about.at.removeprefix(here))
        for edge, about in system.interactions.items()
    }
    said = [f"what {len(services)} services declare"] if services else []
    return replace(system, interactions=interactions, sources=(*system.sources, *said))


def _advice_file() -> tuple[Advised, str]:
    path = Path.cwd() / ADVICE
    return (advice_file.read(path.read_bytes(), ADVICE) if path.is_file() else Advised()), ADVICE


def _services(objects: Sequence[object]) -> Iterator[Service]:
    for each in objects:
        if isinstance(each, Service):
            yield each
        elif isinstance(each, Bus):
            yield from each.services
        elif not isinstance(each, (Operation, Event)):
            raise Failure(f"name Services, Buses, Operations or Events; not {type(each).__name__}")


def _contracts(objects: Sequence[object]) -> Iterator[Operation[Any, Any] | Event[Any]]:
    for each in objects:
        if isinstance(each, (Operation, Event)):
            yield each


def _beside(services: Sequence[Service]) -> Iterator[Operation[Any, Any] | Event[Any]]:
    """Contracts that the modules of the handlers know by name: those that they call and publish."""
    modules = {each.function.__module__ for service in services for each in service.handlers}
    for name in sorted(modules):
        yield from _contracts(list(vars(sys.modules[name]).values()))


def _checked(system: System) -> Sequence[Checked]:
    return check(system, random.Random(SEED).random)


def _against(
    baseline: Path | None, found: Sequence[Finding]
) -> tuple[Sequence[Finding], Sequence[Finding]]:
    """New ones, and those that the baseline has."""
    if baseline is None:
        return found, ()
    try:
        old = set(json.loads(baseline.read_text())["findings"])
    except OSError as error:
        raise Failure(
            f"cannot read the baseline {baseline}: {error.strerror}",
            fix=f"callcast advise --write-baseline {baseline}",
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise Failure(f"{baseline} is no baseline of callcast advise") from error
    known = [each for each in found if machine.fingerprint(each) in old]
    return [each for each in found if each not in known], known


def _keep(path: Path, report: Report) -> None:
    every = [*report.findings.open, *report.known]
    kept = {machine.fingerprint(each): f"{each.code} {each.edge}" for each in every}
    path.write_text(json.dumps({"findings": kept}, indent=2) + "\n")
    click.echo(f"{len(kept)} findings are kept in {path}", err=True)
