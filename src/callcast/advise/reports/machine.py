"""The same for programs: JSON, SARIF 2.1.0 for code review, JUnit for CI."""

from __future__ import annotations

from hashlib import sha256
from typing import Any
from xml.etree.ElementTree import Element, SubElement, tostring

import msgspec

from callcast.advise.explain import TEXTS
from callcast.advise.findings import Finding
from callcast.advise.reports.report import Report

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_LEVELS = {"error": "error", "warning": "warning", "note": "note"}


def json(report: Report) -> str:
    """One object with stable names; durations are seconds, availabilities shares."""
    system = report.system
    whole = {
        "slo": report.slo,
        "sources": system.sources,
        "window": system.window,
        "traces": system.traces,
        "interactions": [
            {
                "caller": each.edge.caller,
                "callee": each.edge.callee,
                "name": each.edge.name,
                "today": each.verb,
                "verdict": each.verdict,
                "rules": each.rules,
                "reason": each.reason,
                "is_change": each.is_change,
                "before": each.before,
                "after": each.after,
                "interval": each.interval,
                "change": each.change,
                "conditions": each.conditions,
                "duties": each.duties,
                "questions": each.questions,
            }
            for each in report.advice
        ],
        "findings": report.findings.open,
        "baseline": report.known,
        "suppressed": [each for each, _ in report.findings.suppressed],
        "budgets": report.budgets,
        "what_if": report.supposed,
        "check": report.checked,
        "assumptions": report.assumptions,
        "dropped": dict(system.dropped),
    }
    return msgspec.json.format(msgspec.json.encode(whole)).decode() + "\n"


def fingerprint(finding: Finding) -> str:
    """What a finding is known by from run to run: its code and its edge, not its numbers."""
    return sha256(f"{finding.code} {finding.edge}".encode()).hexdigest()[:32]


def sarif(report: Report) -> str:
    """Findings as code review shows them; what is suppressed says so, what is old is unchanged."""
    suppressed = {each: by.reason for each, by in report.findings.suppressed}
    every = [*report.findings.open, *report.known, *suppressed]
    results: list[dict[str, Any]] = []
    for each in every:
        result = _result(each, is_old=each in report.known)
        if each in suppressed:
            result["suppressions"] = [{"kind": "external", "justification": suppressed[each]}]
        results.append(result)
    codes = sorted({each.code for each in every})
    rules = [
        {"id": code, "shortDescription": {"text": TEXTS[code].partition("\n")[0]}} for code in codes
    ]
    driver = {"name": "callcast advise", "rules": rules}
    whole = {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{"tool": {"driver": driver}, "results": results}],
    }
    return msgspec.json.format(msgspec.json.encode(whole)).decode() + "\n"


def _result(each: Finding, *, is_old: bool) -> dict[str, Any]:
    file, _, line = each.at.rpartition(":")
    place: dict[str, Any] = {
        "logicalLocations": [{"fullyQualifiedName": each.edge, "kind": "module"}],
    }
    if file and line.isdecimal():
        place["physicalLocation"] = {
            "artifactLocation": {"uri": file},
            "region": {"startLine": int(line)},
        }
    return {
        "ruleId": each.code,
        "level": _LEVELS[each.severity],
        "message": {"text": f"{each.edge}: {each.said}. {each.remedy}."},
        "locations": [place],
        "partialFingerprints": {"callcast/v1": fingerprint(each)},
        "baselineState": "unchanged" if is_old else "new",
    }


def junit(report: Report) -> str:
    """A test case for each interaction's finding; those that are accepted are skipped."""
    cases = [*report.findings.open]
    skipped = [(each, by.reason) for each, by in report.findings.suppressed]
    skipped += [(each, "in the baseline") for each in report.known]
    suite = Element(
        "testsuite",
        name="callcast advise",
        tests=str(len(cases) + len(skipped)),
        failures=str(len(cases)),
        skipped=str(len(skipped)),
    )
    for each in cases:
        case = SubElement(suite, "testcase", classname=each.code, name=each.edge)
        failure = SubElement(case, "failure", message=each.said, type=each.severity)
        failure.text = f"{each.said}. {each.remedy}."
    for each, reason in skipped:
        case = SubElement(suite, "testcase", classname=each.code, name=each.edge)
        SubElement(case, "skipped", message=reason)
    return tostring(suite, encoding="unicode", xml_declaration=True) + "\n"
