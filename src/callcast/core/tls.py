"""How a connection is made private, and who is believed to be at its other end."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from callcast.core.errors import Misuse


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """Whose certificates are believed, and which one is shown.

    Files are PEM. `ca` holds the authorities that are believed instead of the system's; `cert`,
    with its `key` in a file of its own or in the same one, is shown to a peer that asks for one.
    The name in the peer's certificate is always compared with the URL, unless `insecure` says that
    any certificate will do: then everybody on the way can read and change what is sent, and each
    start of the bus logs a warning. The files are read when the bus starts and with each new pool
    of connections (every five minutes), so that a certificate is replaced without a restart.
    Raises `Misuse` for what does not go together.
    """

    ca: str | Path = ""
    cert: str | Path = ""
    key: str | Path = field(default="", repr=False)
    insecure: bool = False

    def __post_init__(self) -> None:
        if self.key and not self.cert:
            raise Misuse("Tls(key=...): a key alone shows nothing; name its certificate, cert=")
        if self.insecure and self.ca:
            raise Misuse("Tls(ca=..., insecure=True): with insecure=True no authority is asked")


def is_loopback(host: str | None) -> bool:
    """Whether it is this machine, as far as its name says so."""
    return host in {"localhost", "::1"} or (host or "").startswith("127.")
