"""The page about Kafka is true: its options, names and bounds are the code's, its program runs."""

from __future__ import annotations

import re
import secrets
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from readme_parts import ROOT
from servers import missing, run

from callcast.brokers.kafka import desk, names, options, window
from callcast.core.errors import Misuse
from callcast.ports.broker import Source

PAGE = (ROOT / "docs" / "kafka.md").read_text(encoding="utf-8")


def rows(header: str) -> dict[str, list[str]]:
    """A table of the page, by what its first column has in backquotes."""
    _, _, rest = PAGE.partition(f"{header}\n")
    table = rest.split("\n\n", 1)[0].splitlines()[1:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    return {cell[0].strip("`"): cell[1:] for cell in cells}


def test_every_option_is_on_the_page_with_its_default() -> None:
    told = rows("| option | default | what |")
    with pytest.raises(Misuse) as refusal:
        options.options_of("kafka://host?no-such-option=1", {})
    known = str(refusal.value).rpartition("known: ")[2].split(", ")
    assert list(told) == known or sorted(told) == sorted(known)
    default = options.options_of("kafka://host", {})
    of_code = {each.name: getattr(default, each.name) for each in fields(default)}
    for name in ("partitions", "retain", "session"):
        assert float(told[name][0]) == of_code[name]
    for name in ("expired", "compression"):
        assert told[name][0] == of_code[name]


def test_the_names_on_the_page_are_those_that_are_made() -> None:
    told = rows("| name | what it is |")
    made = names.names_of(Source("orders.placed", "billing"))
    retries = [name for name in made.retries if name in told]
    assert retries == [made.retries[0]]
    for name in made.retries[1:]:
        assert f"`{name.removeprefix(made.group)}`" in told[retries[0]][0]
    assert set(told) - {retries[0]} == {
        made.topic,
        made.group,
        made.side,
        made.redrive,
        made.dead,
        names.CONTROL,
    }


def test_the_bounds_on_the_page_are_those_of_the_code() -> None:
    assert f"last {desk.HOLD_MAX / 60:.0f} minutes" in PAGE
    assert f"More than {window.SPAN_MAX:,} messages behind" in PAGE


def made_by_others(at: str, topic: str) -> None:
    """A topic as others make it: with settings of their own."""
    admin = AdminClient({"bootstrap.servers": at})
    [made] = admin.create_topics([NewTopic(topic, 3, config={"retention.ms": "60000"})]).values()
    made.result()


@pytest.mark.timeout(150)
def test_the_program_of_the_page_hears_a_topic_of_others(kafka_url: str, tmp_path: Path) -> None:
    [program] = re.findall(r"^```python\n(# crm\.py.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    [console] = re.findall(r"^```console\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    topic = f"crm-customers-{secrets.token_hex(4)}"
    (tmp_path / "crm.py").write_text(program.replace("crm-customers", topic))
    installed = run("install", "kcat")
    if installed.returncode:
        missing(f"no kcat: {installed.stderr.strip()}")
    at = kafka_url.partition("://")[2]
    made_by_others(at, topic)
    as_here = {
        "localhost:9092": at,
        "crm-customers": topic,
        "kcat ": f"{installed.stdout.strip()} ",
        "python ": f"{sys.executable} ",
    }
    shown = ""
    for line in console.splitlines():
        command = line.removeprefix("$ ")
        for word, here in as_here.items():
            command = command.replace(word, here)
        if line.startswith("$ "):
            done = subprocess.run(
                ["sh", "-c", command],
                cwd=tmp_path,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            shown = done.stdout
        else:
            assert re.fullmatch(re.escape(command).replace(r"\.\.\.", r"\d+"), shown.strip())
