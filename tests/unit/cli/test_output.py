"""Tables for people, JSON for programs."""

from __future__ import annotations

import json

import pytest

from callcast.cli.output import cell, emit, emit_one, table

RECORDS = [
    {"topic": "a", "ready": 3, "oldest": 1.25},
    {"topic": "long", "ready": 12, "oldest": 0.0},
]


def test_a_table_has_a_heading_and_numbers_to_the_right() -> None:
    assert table(RECORDS, ("topic", "ready", "oldest")) == [
        "TOPIC  READY  OLDEST",
        "a          3     1.2",
        "long      12     0.0",
    ]


def test_an_empty_table_is_its_heading() -> None:
    assert table([], ("in_flight",)) == ["IN FLIGHT"]


def test_json_is_a_list_and_ndjson_an_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    emit(RECORDS, "json", ())
    assert json.loads(capsys.readouterr().out) == RECORDS
    emit(RECORDS, "ndjson", ())
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == RECORDS
    emit(RECORDS, "table", ("topic",))
    assert capsys.readouterr().out == "TOPIC\na\nlong\n"


def test_one_record_is_an_object_or_a_line_per_field(capsys: pytest.CaptureFixture[str]) -> None:
    emit_one(RECORDS[0], "json")
    assert json.loads(capsys.readouterr().out) == RECORDS[0]
    emit_one(RECORDS[0], "table")
    assert capsys.readouterr().out == "topic   a\nready   3\noldest  1.2\n"


def test_cells_are_one_line_and_cannot_speak_to_the_terminal() -> None:
    assert cell("a\x1b[31m\nb") == "a [31m b"
    assert (cell(None), cell(True), cell(False)) == ("-", "yes", "no")
