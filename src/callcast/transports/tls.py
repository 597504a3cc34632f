"""TLS of a client: its settings read into a context of the standard library."""

from __future__ import annotations

import ssl

from callcast.core.errors import Misuse
from callcast.core.tls import Tls


class Trust:
    """The context for the connections of one peer, read anew for each pool of them."""

    def __init__(self, tls: Tls, peer: str) -> None:
        self._tls = tls
        self._peer = peer
        self._context: ssl.SSLContext | None = None  # the last one that could be read

    def context(self) -> ssl.SSLContext:
        """As the files are now; as they were while they cannot be read, half replaced, say.

        Raises `Misuse` when they could never be read.
        """
        try:
            self._context = context_of(self._tls, self._peer)
        except Misuse:
            if self._context is None:
                raise
        return self._context


def context_of(tls: Tls, peer: str) -> ssl.SSLContext:
    """TLS 1.2 or newer, by these settings; raises `Misuse` naming the peer for unreadable files."""
    try:
        context = ssl.create_default_context(cafile=str(tls.ca) or None)
        if tls.cert:
            # Without a password OpenSSL would ask the terminal for that of an encrypted key.
            context.load_cert_chain(tls.cert, str(tls.key) or None, password="")
    except OSError as error:
        files = ", ".join(str(file) for file in (tls.ca, tls.cert, tls.key) if file)
        raise Misuse(
            f"peer {peer!r}: its TLS files ({files}) cannot be used: {error.strerror or error};"
            " give PEM files, keys without a password"
        ) from error
    if tls.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
