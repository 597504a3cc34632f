"""Brings what is missing: packages of the system, and the cache of downloads and builds."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path

from .failure import Failed
from .records import locked

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
POLICY = Path("/usr/sbin/policy-rc.d")
"""Debian asks this program whether a package may start its service."""


def say(text: str) -> None:
    """Tell what goes on; stdout belongs to the result."""
    print(text, file=sys.stderr, flush=True)


def cache() -> Path:
    """Where downloads and builds stay."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "callcast" / "servers"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextlib.contextmanager
def built(name: str) -> Generator[Path | None]:
    """A folder to fill when there is none of that name yet, else None.

    It gets its name only when it was filled whole: what broke off halfway begins again.
    """
    with locked(f"build-{name}"):
        done, partial = cache() / name, cache() / f"{name}.partial"
        if done.exists():
            yield None
            return
        if partial.exists():
            shutil.rmtree(partial)
        partial.mkdir()
        yield partial
        partial.rename(done)


def run(argv: Sequence[str], what: str, env: Mapping[str, str] | None = None) -> str:
    """Run a command to its end and return what it printed; when it fails, say all of it."""
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stdout + done.stderr).strip()
        raise Failed(f"could not {what} ({argv[0]} ended with {done.returncode}):\n{said}")
    return done.stdout


def need(command: str, package: str) -> str:
    """The path of a command, from a package of the system if there is none yet."""
    found = shutil.which(command, path=path())
    if found is None:
        install(package)
        found = shutil.which(command, path=path())
    if found is None:
        raise Failed(f"{package} is installed and brings no {command}")
    return found


def need_module(module: str, package: str) -> str:
    """The Python of the system, with that module, from a package of the system if it has not."""
    python = "/usr/bin/python3"
    trial = [python, "-c", f"import {module}"]
    if (
        not Path(python).exists()
        or subprocess.run(trial, capture_output=True, check=False).returncode
    ):
        install(package)
        run(trial, f"import {module}, which {package} brings")
    return python


def path() -> str:
    """Where commands are, also those of the administrator."""
    return f"{os.environ.get('PATH', '')}:{PATH}"


def install(*packages: str) -> None:
    """Install packages of this system, without starting a service that they bring."""
    wanted = " ".join(packages)
    if os.getuid() != 0 or shutil.which("apt-get") is None:
        raise Failed(
            f"{wanted} is missing, and this user may not install it: "
            f"run 'sudo apt-get install {wanted}' (or its like on your system), then try again"
        )
    with locked("build-packages"), no_services():
        say(f"installing {wanted}")
        env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        run(["apt-get", "update", "-qq"], "read the lists of packages", env)
        argv = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages]
        run(argv, f"install {wanted}", env)


@contextlib.contextmanager
def no_services() -> Generator[None]:
    """A server that a package brings does not start by itself: tests start their own."""
    if POLICY.exists():
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink()
