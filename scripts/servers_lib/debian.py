"""Programs of a Debian release: this machine's own, or those of a folder beside it.

A folder of another release is made with debootstrap from the mirror that this machine uses. A
program runs in it by chroot, in a mount namespace of its own: /proc, /dev and the data folder
are mounted for that program alone, and nothing is left mounted when it ends.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from .failure import Failed
from .records import locked
from .tools import PATH, built, cache, install, need, run, say

MACHINE = Path("/")
INSIDE = """
root=$1 data=$2
shift 2
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
if [ "$data" ]; then
    mkdir -p "$root$data"
    mount --bind "$data" "$root$data"
fi
exec chroot "$root" "$@"
"""


APT = {"PATH": PATH, "DEBIAN_FRONTEND": "noninteractive"}


class Debian:
    """One release, and the packages that we want of it."""

    def __init__(self, release: str, *packages: str) -> None:
        self._release = release
        self._packages = packages
        self._is_machine = os_codename() == release

    @property
    def root(self) -> Path:
        """The folder that is / for the programs of the release."""
        return MACHINE if self._is_machine else cache() / f"debian-{self._release}"

    @property
    def package(self) -> str:
        """The first of the packages, the one that the others are for."""
        return self._packages[0]

    def install(self, wanted: str) -> None:
        """Have the packages; on a machine of this release the glob `wanted` finds them."""
        if not self._is_machine:
            self._make()
            self._add()
        elif next(self.root.glob(wanted), None) is None:
            install(*self._packages)

    def argv(self, command: Sequence[str], data: str = "") -> list[str]:
        """How a program of the release starts; it sees the folder `data` under the same path."""
        if self._is_machine:
            return list(command)
        return ["unshare", "--mount", "sh", "-ec", INSIDE, "sh", str(self.root), data, *command]

    def version(self, package: str) -> str:
        """The version of the program, without what Debian adds to it."""
        query = ["dpkg-query", "--show", "--showformat", "${Version}", package]
        text = run(self.argv(query), f"ask for the version of {package}")
        return re.sub(r"^\d+:|[-+].*", "", text)

    def _make(self) -> None:
        with built(self.root.name) as folder:
            if folder is None:
                return
            if os.getuid() != 0:
                raise Failed(
                    f"programs of Debian {self._release} need a folder that only root can make "
                    "and enter: run this command with sudo, or give the URL of a server"
                )
            run(["unshare", "--mount", "true"], "mount anything, so give the URL of a server")
            say(f"making a folder with Debian {self._release}")
            debootstrap = need("debootstrap", "debootstrap")
            argv = [debootstrap, "--variant=minbase", self._release, str(folder), mirror()]
            run(argv, f"make a folder with Debian {self._release}")
            self._set_up(folder)

    @staticmethod
    def _set_up(folder: Path) -> None:
        """Names, certificates and the way to the mirror are those of the machine."""
        for name in ("etc/hosts", "etc/resolv.conf", "etc/ssl/certs/ca-certificates.crt"):
            if (MACHINE / name).exists():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(MACHINE / name, folder / name)
        ways = run(["apt-config", "dump", "Acquire"], "read how packages are fetched")
        (folder / "etc/apt/apt.conf.d/00machine").write_text(ways)
        policy = folder / "usr/sbin/policy-rc.d"
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)

    def _add(self) -> None:
        """Install the packages into the folder; a mark says that they are whole."""
        mark = self.root / "var/lib/callcast" / "+".join(self._packages)
        with locked(f"build-{self.root.name}"):
            if mark.exists():
                return
            say(f"installing {' '.join(self._packages)} of Debian {self._release} in its folder")
            for step in (["update"], ["install", "--no-install-recommends", *self._packages]):
                run(self.argv(["apt-get", "-y", "-qq", *step]), f"install {mark.name}", APT)
            mark.parent.mkdir(exist_ok=True)
            mark.touch()


def os_codename() -> str:
    """The release of this machine when it is a Debian, else an empty text."""
    try:
        names = platform.freedesktop_os_release()
    except OSError:
        return ""
    return names.get("VERSION_CODENAME", "") if names.get("ID") == "debian" else ""


def mirror() -> str:
    """Where this machine takes Debian from."""
    argv = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Origin: Debian"]
    own = [*argv, f"Codename: {os_codename()}"]
    found = run(own, "read the apt sources").split()
    if not found:
        run(["apt-get", "update", "-qq"], "read the lists of packages")
        found = run(own, "read the apt sources").split()
    if not found:
        raise Failed("the apt sources of this machine name no Debian mirror: give a server's URL")
    return found[0]
