"""Builds programs with Go: the machine's own, or that of Debian 13 where it is too old."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

from .debian import Debian
from .tools import PATH, built, cache, path, run, say

OLDEST = (1, 24)
"""From this on, Go fetches the newer one by itself that a program asks for."""
TRIXIE = Debian("trixie", "golang-go")


def build(name: str, module: str, package: str) -> Path:
    """The program `name` of that package ("./cmd/x") in that module ("example.org/x@v1")."""
    place = f"{name}-{module.rpartition('@')[2]}"
    program = cache() / place / name
    with built(place) as folder:
        if folder is None:
            return program
        say(f"building {module}, which takes a while")
        work = folder / "build"
        work.mkdir()
        fetched = json.loads(go(work, "mod", "download", "-json", module))
        # A copy: the fetched folder is read-only, and `go install` refuses a module that replaces
        # others.
        shutil.copytree(fetched["Dir"], work / "source", copy_function=shutil.copyfile)
        opened(work / "source")
        go(work / "source", "build", "-o", str(folder / name), package, work=work)
        shutil.rmtree(work)
    return program


def go(place: Path, *arguments: str, work: Path | None = None) -> str:
    """Run Go in that folder; its own caches are below `work`."""
    home = work or place
    env = {
        **os.environ,
        "PATH": PATH,
        "HOME": str(home),
        "GOPATH": str(home / "path"),
        "GOCACHE": str(home / "cache"),
        "GOFLAGS": "-modcacherw -buildvcs=false",
        "CGO_ENABLED": "0",
    }
    command = "go"
    if (own := machines()) is None:
        TRIXIE.install("usr/bin/go")
        env["GOTOOLCHAIN"] = "auto"
    else:
        command = own
    argv = [command, "-C", str(place), *arguments]
    argv = TRIXIE.argv(argv, str(home)) if own is None else argv
    return run(argv, "build with Go", env)


def machines() -> str | None:
    """The Go of this machine, if it is new enough."""
    found = shutil.which("go", path=path())
    if found is None:
        return None
    version = re.search(r"go(\d+)\.(\d+)", run([found, "version"], "ask Go for its version"))
    if version is None or (int(version[1]), int(version[2])) < OLDEST:
        return None
    return found


def opened(folder: Path) -> None:
    """Make a copied tree writable: modules are fetched read-only."""
    for inner, _, _ in os.walk(folder):
        Path(inner).chmod(0o755)
