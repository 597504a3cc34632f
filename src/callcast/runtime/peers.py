"""Peers: where other services are, and how calls to them are guarded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from callcast.core.errors import Misuse
from callcast.core.tls import Tls
from callcast.runtime.policy import Policy


@dataclass(frozen=True, slots=True)
class Peer:
    """A service elsewhere.

    `headers` go with every call; `auth` is the value of ``Authorization``, or a function that
    gives it (asked for each attempt). `policy` replaces the default one. An ``https://`` peer needs
    no `tls` where its certificate is one that the system believes. Raises `Misuse` for a URL that
    is not ``http://`` or ``https://``, and for `tls` with the former.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict[str, str], kw_only=True, repr=False)
    auth: str | Callable[[], str] | None = field(default=None, kw_only=True, repr=False)
    policy: Policy | None = field(default=None, kw_only=True)
    tls: Tls | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise Misuse(
                f"peer {parts.scheme or self.url!r}: give a base URL such as"
                " 'http://inventory:8080' (http or https, with a host)"
            )
        if parts.username or parts.password:
            raise Misuse(
                f"peer {parts.hostname!r}: credentials do not belong in a URL (they end up in"
                " logs); use Peer(url, auth=...)"
            )
        if self.tls is not None and parts.scheme != "https":
            raise Misuse(
                f"peer {parts.hostname!r}: tls= with an http:// URL, where nothing is encrypted;"
                " write https://"
            )
