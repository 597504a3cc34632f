"""Who is alive: a lock file per broker, dropped by the kernel with its process, and a socket.

Both lie in a folder beside the database. Whoever leases messages names its file in the lease; when
that file is not locked any more, the messages are free. The socket takes nudges: datagrams sent
after a commit, which say in which topics there may be something new.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from array import array
from collections.abc import Iterable
from pathlib import Path

from callcast.core.errors import Misuse, Unavailable

NUDGE_MAX_BYTES = 4096
_EXCLUSIVE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_PROC = Path("/proc/self/fd")


class Live:
    """This broker's own lock and socket, and what there is of the others'."""

    def __init__(self, folder: Path) -> None:
        self.instance: str = os.urandom(8).hex()
        self._folder = folder
        self._fd = -1
        self._lock = -1
        self._peers: tuple[str, ...] = ()
        self._seen = -1  # the folder's time of change when `_peers` was read
        self.socket: socket.socket | None = None

    @property
    def is_open(self) -> bool:
        """Whether the lock is held."""
        return self._fd >= 0

    def open(self) -> None:
        """Take the lock and bind the socket; raises `Unavailable` or `Misuse`."""
        try:
            self._fd = _open_folder(self._folder)
            self._lock = _take_lock(self._fd, self.instance)
            self.socket = self._bind()
        except OSError as error:
            self.close()
            if error.errno in {errno.ELOOP, errno.ENOTDIR}:
                raise Misuse(f"{self._folder} is not a folder of ours: remove it") from error
            raise Unavailable(f"cannot write in {self._folder}: {error.strerror}") from error

    def close(self) -> None:
        """Drop lock and socket and remove their files; the folder goes with its last user."""
        if self._fd < 0:
            return
        for ending in (".sock", ".lock"):
            _remove(self._fd, self.instance + ending)
        self.forget()
        try:
            self._folder.rmdir()
        except OSError:
            return  # others use it

    def forget(self) -> None:
        """Close the descriptors only: in the child of a fork the files belong to its parent.

        A child that kept them would keep the lock after its parent's death.
        """
        if self.socket is not None:
            self.socket.close()
            self.socket = None
        for descriptor in (self._lock, self._fd):
            if descriptor >= 0:
                os.close(descriptor)
        self._lock = self._fd = -1

    def is_alive(self, instance: str) -> bool:
        """Whether the broker of that name holds its lock; the files of a dead one are removed."""
        if instance == self.instance:
            return True
        try:
            flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(f"{instance}.lock", flags, dir_fd=self._fd)
        except FileNotFoundError:
            return False
        except OSError:
            return True  # not ours to judge: the end of its lease frees its messages
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        for ending in (".sock", ".lock"):
            _remove(self._fd, instance + ending)
        return False

    def nudge(self, topics: Iterable[int]) -> None:
        """Tell all other brokers that there may be something new. Never blocks, may get lost."""
        if self.socket is None:
            return
        text = array("q", topics).tobytes()
        for peer in self._others():
            try:
                self.socket.sendto(text, self._address(peer))
            except BlockingIOError:
                continue  # its buffer is full of nudges: it will look
            except OSError:
                self.is_alive(peer.removesuffix(".sock"))

    def heard(self) -> set[int] | None:
        """The topics of all nudges that have come; None when one said: look everywhere."""
        topics: set[int] = set()
        while self.socket is not None:
            try:
                text = self.socket.recv(NUDGE_MAX_BYTES)
            except BlockingIOError:
                break
            if len(text) % 8 or not text:
                return None
            topics.update(array("q", text))
        return topics

    def _others(self) -> tuple[str, ...]:
        changed = os.stat(self._fd).st_mtime_ns  # noqa: PTH116 - of a descriptor
        if changed != self._seen:
            own = f"{self.instance}.sock"
            names = os.listdir(self._fd)  # noqa: PTH208 - of a descriptor
            self._peers = tuple(name for name in names if name.endswith(".sock") and name != own)
            self._seen = changed
        return self._peers

    def _bind(self) -> socket.socket:
        bound = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        name = f"{self.instance}.sock"
        try:
            bound.setblocking(False)  # noqa: FBT003 - the library's way
            bound.bind(self._address(name))
            os.chmod(name, 0o600, dir_fd=self._fd)
        except OSError:
            bound.close()
            raise
        return bound

    def _address(self, name: str) -> str:
        # A socket's path has about 100 bytes; by way of the folder's descriptor it is short.
        return str((_PROC / str(self._fd) if _PROC.exists() else self._folder) / name)


def _open_folder(folder: Path) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    for _ in range(10):  # the last user of the folder may remove it meanwhile
        folder.mkdir(mode=0o700, exist_ok=True)
        try:
            return os.open(folder, flags)
        except FileNotFoundError:
            continue
    raise FileNotFoundError(errno.ENOENT, "it vanishes again and again", str(folder))


def _take_lock(folder: int, instance: str) -> int:
    """Make a file that is locked before anybody sees it under its name."""
    descriptor = os.open(f"{instance}.new", _EXCLUSIVE, 0o600, dir_fd=folder)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.rename(f"{instance}.new", f"{instance}.lock", src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _remove(folder: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        return
