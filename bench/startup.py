"""What it costs to have callcast and to start it: import, ``callcast --help``, distributions.

``python bench/startup.py [--rounds N] [--quick]``: prints seconds, writes
``bench/results/startup.json``, exits 1 when a goal is missed. Each round is a new process. The
distributions are counted after ``pip install .`` into a new virtual environment, without pip,
setuptools and callcast itself.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from harness import Goal, Report, alternate, versions

ROOT = Path(__file__).parents[1]
ROUNDS = 15
IMPORT_MAX = 0.1
HELP_MAX = 0.15
DISTRIBUTIONS_MAX = 18

TIMED = "import time; t = time.perf_counter(); {}; print(time.perf_counter() - t)"
IMPORTS = {
    "import callcast": "import callcast",
    "from callcast import Bus": "from callcast import Bus",
}
COUNT = (
    "from importlib.metadata import distributions as d;"
    "print(*sorted({x.name.lower() for x in d()} - {'pip', 'setuptools', 'callcast'}))"
)


def timed_import(statement: str) -> float:
    """Seconds of one import in a new interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", TIMED.format(statement)], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def timed_help() -> float:
    """Seconds from the start of the command to its end."""
    command = [str(Path(sys.executable).parent / "callcast"), "--help"]
    start = time.perf_counter()
    subprocess.run(command, capture_output=True, check=True)
    return time.perf_counter() - start


def distributions() -> list[str]:
    """What an installation of the core brings along."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        python = str(Path(folder) / "bin" / "python")
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*install, str(ROOT)], check=True)
        done = subprocess.run([python, "-c", COUNT], capture_output=True, text=True, check=True)
        return done.stdout.split()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--quick", action="store_true", help="only show that it runs")
    options = parser.parse_args()
    rounds = 1 if options.quick else options.rounds
    brought = [] if options.quick else distributions()  # an installation takes long
    contenders = {name: partial(timed_import, statement) for name, statement in IMPORTS.items()}
    report = Report(
        "startup",
        "s",
        versions("callcast"),
        {"rounds": rounds, "distributions": brought},
        # The first round fills the caches of file system and bytecode, and does not count.
        figures=alternate({**contenders, "callcast --help": timed_help}, rounds=rounds),
    )
    report.goals = [
        Goal("import callcast", report.figures["import callcast"].median, "<=", IMPORT_MAX, "s"),
        Goal("callcast --help", report.figures["callcast --help"].median, "<=", HELP_MAX, "s"),
        Goal("distributions besides callcast", len(brought), "<=", DISTRIBUTIONS_MAX),
    ]
    if not options.quick:
        return report.finish()
    with tempfile.TemporaryDirectory() as nowhere:
        report.finish(Path(nowhere))
    return 0


if __name__ == "__main__":
    sys.exit(main())
