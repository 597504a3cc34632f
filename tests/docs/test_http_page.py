"""The page on HTTP is true: its application runs, and its table has the statuses that are sent."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from http_parts import serving
from readme_parts import ROOT

from callcast.core.answer import RAISED

PAGE = (ROOT / "docs" / "http.md").read_text(encoding="utf-8")


async def test_its_application_serves_while_its_lifespan_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [program] = re.findall(r"^```python\n(# app\.py.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(program, "app.py", "exec", dont_inherit=True), names)
    async with aiohttp.ClientSession() as http:
        async with serving(names["app"]) as url, http.get(f"{url}/internal/stock/tea") as response:
            assert response.status == 503
        async with (
            serving(names["app"], lifespan="on") as url,
            http.get(f"{url}/internal/stock/tea") as response,
        ):
            assert (response.status, await response.json()) == (200, 3)


def test_its_table_has_every_status_of_an_error() -> None:
    rows = re.findall(r"^\| ([\d, ]+) \|", PAGE, re.MULTILINE)
    stated = {int(status) for row in rows for status in row.split(",")}
    assert {*RAISED.values(), 200, 204, 404, 405, 408, 413, 415, 431, 500} == stated
