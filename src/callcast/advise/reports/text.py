"""The page that people read in a terminal, and the same as a decision record in Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from callcast.advise.findings import Finding
from callcast.advise.model import Measured, Verdict
from callcast.advise.reports.picture import picture
from callcast.advise.reports.report import Report
from callcast.advise.verdicts import Advice, Numbers

FIRST_MAX = 10
"""Findings that are told in full at the top; the others follow in a list."""

MINUTES_FROM = 600.0
"""Seconds from which on minutes are said."""


def text(report: Report) -> str:
    """Plain lines; they fit a terminal of 100 columns where names allow it."""
    return "\n".join(_text(report)) + "\n"


def _text(report: Report) -> Iterator[str]:
    system = report.system
    services = {name for e in system.interactions for name in (e.caller, e.callee)}
    yield (
        f"{len(services)} services, {len(system.interactions)} interactions,"
        f" {system.traces} traces in {system.window:.0f} s; objective {report.slo:g} %"
    )
    yield f"read from {', '.join(system.sources) or 'declarations only'}"
    yield ""
    yield from picture(system, report.advice)
    yield from _section("Interactions", list(_table(report)))
    yield from _section("What to do first", list(_first(report)))
    yield from _section("Why", list(_why(report)))
    yield from _section("Budgets of timeouts and retries", list(_budgets(report)))
    yield from _section("What if", list(_supposed(report)))
    yield from _section("Formulas against simulation", list(_checked(report)))
    yield from _section("Not known, and it would decide", list(_questions(report)))
    yield from _section("Left out of the input", list(_dropped(report)))
    yield from _section("These numbers assume", [f"- {each}" for each in report.assumptions])


def _section(title: str, lines: Sequence[str]) -> Iterator[str]:
    if lines:
        yield from ("", title, "-" * len(title), *lines)


def _table(report: Report) -> Iterator[str]:
    rows = [("interaction", "today", "verdict", "rule", "seen", "failed", "p50", "p99")]
    for each in report.advice:
        seen = report.system.interactions[each.edge].measured or Measured()
        histogram = seen.latency if seen.latency.count else seen.work
        rows.append(
            (
                str(each.edge),
                each.verb.value,
                each.verdict.value,
                " ".join(each.rules),
                str(seen.count),
                f"{seen.errors / seen.count:.2%}" if seen.count else "-",
                seconds(histogram.quantile(0.5)) if histogram.count else "-",
                seconds(histogram.quantile(0.99)) if histogram.count else "-",
            )
        )
    yield from columns(rows)


def _first(report: Report) -> Iterator[str]:
    for number, each in enumerate(report.first[:FIRST_MAX], 1):
        yield f"{number}. {each.code} {each.edge}"
        yield f"   {each.said}."
        yield f"   Do: {each.remedy}."
        if each.at:
            yield f"   At: {each.at}"
    yield from (f"   also {each.code} {each.edge}" for each in report.first[FIRST_MAX:])
    if report.known:
        yield f"   {len(report.known)} findings of the baseline were there before"
    yield from (
        f"   {each.code} {each.edge} is accepted: {by.reason}"
        for each, by in report.findings.suppressed
    )
    yield from (
        f"   {each.code} {each.edge} was accepted until {by.until}: decide again"
        for each, by in report.findings.expired
    )


def _why(report: Report) -> Iterator[str]:
    for each in report.advice:
        if each.verdict is Verdict.UNDECIDED:
            continue
        mark = "change to " if each.is_change else "keep as "
        yield f"{each.edge}: {mark}{each.verdict} ({', '.join(each.rules)})"
        yield f"   {each.reason}."
        yield from (f"   {line}" for line in _more(each))


def _more(each: Advice) -> Iterator[str]:
    if each.before is not None and each.after is not None and each.is_change:
        yield f"{_numbers(each.before)}  ->  {_numbers(each.after)}"
    if each.change:
        yield f"write: {each.change}"
    yield from (f"first: {condition}" for condition in each.conditions)
    yield from (f"new:   {duty}" for duty in each.duties)


def _numbers(numbers: Numbers) -> str:
    return (
        f"{numbers.availability:.3%} answered, p95 at most {seconds(numbers.p95)}, waits for"
        f" {numbers.waits_for}"
    )


def _budgets(report: Report) -> Iterator[str]:
    if not report.budgets:
        return
    rows = [("call", "may take", "each attempt", "attempts", "deadline", "has", "must be up")]
    for each in report.budgets:
        timeout, deadline, attempts = each.has
        has = "/".join(
            "-" if value is None else seconds(value) if isinstance(value, float) else str(value)
            for value in (timeout, attempts, deadline)
        )
        rows.append(
            (
                str(each.edge),
                seconds(each.worst),
                seconds(each.attempt_timeout),
                str(each.attempts),
                seconds(each.deadline),
                has,
                f"{each.availability:.4%}",
            )
        )
    yield from columns(rows)


def _supposed(report: Report) -> Iterator[str]:
    for one in report.supposed:
        yield f"{one.edge} as {one.text.rpartition('=')[2]}:"
        for name, before, after in one.entries:
            yield f"   {name}: {_numbers(before)}  ->  {_numbers(after)}"


def _checked(report: Report) -> Iterator[str]:
    for each in report.checked:
        verdict = "they agree" if each.agrees else "THEY DISAGREE"
        yield (
            f"{':'.join(each.entry)}: formulas {each.model:.3%}, simulated {each.simulated:.3%}"
            f" ({each.interval.low:.3%} to {each.interval.high:.3%}, n = {each.interval.n}):"
            f" {verdict}"
        )


def _questions(report: Report) -> Iterator[str]:
    asked = dict.fromkeys(question for each in report.advice for question in each.questions)
    yield from (f"- {question}" for question in asked)


def _dropped(report: Report) -> Iterator[str]:
    yield from (f"- {count} x {reason}" for reason, count in report.system.dropped.items())


def markdown(report: Report) -> str:
    """A decision record: what was found, what was decided by which rule, what it costs."""
    return "\n".join(_markdown(report)) + "\n"


def _markdown(report: Report) -> Iterator[str]:
    yield "# Call or cast: what the adviser says"
    yield ""
    yield f"Read from {', '.join(report.system.sources) or 'declarations only'}; objective"
    yield f"{report.slo:g} %."
    yield from ("", "```text", *picture(report.system, report.advice), "```", "")
    yield "| interaction | today | verdict | rule | why |"
    yield "|---|---|---|---|---|"
    for each in report.advice:
        row = (str(each.edge), each.verb, each.verdict, " ".join(each.rules), each.reason)
        yield f"| {' | '.join(_cell(cell) for cell in row)} |"
    if report.first:
        yield from ("", "## Findings", "")
        yield from (_item(each) for each in report.first)
    if report.changes:
        yield from ("", "## Changes", "")
    for each in report.changes:
        yield f"### {each.edge}: {each.verdict}"
        yield from ("", *(f"- {line}" for line in _more(each)), "")
    yield from ("", "## Assumptions", "", *(f"- {each}" for each in report.assumptions))


def _item(each: Finding) -> str:
    return f"- **{each.code}** {each.edge}: {each.said}. {each.remedy}."


def _cell(cell: str) -> str:
    return cell.replace("|", "\\|")


def seconds(value: float) -> str:
    """Three digits: 45 us, 12.3 ms, 1.5 s, 40 min."""
    if value < 1e-3:
        return f"{value * 1e6:.3g} us"
    if value < 1.0:
        return f"{value * 1e3:.3g} ms"
    return f"{value:.3g} s" if value < MINUTES_FROM else f"{value / 60:.0f} min"


def columns(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """Rows of a table, each column as wide as its widest cell."""
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield "  ".join(cells).rstrip()
