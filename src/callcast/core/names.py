"""The alphabet of names on the wire: strict, so that no broker's wildcard can be smuggled in."""

from __future__ import annotations

from callcast.core.errors import Misuse

_FIRST = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
_REST = _FIRST | frozenset("._-")
NAME_MAX = 200

REPLIES = "callcast.replies."
"""How the topics of all reply addresses begin: then the bus, its process, and an id."""
REPLY_ERRORS = "callcast-reply-errors"
"""Header of a request: its sender waits, so that an error is an answer too."""


def checked_name(name: str, what: str) -> str:
    """Return `name` when it is one: letters, digits, ``.``, ``_``, ``-``; else raise `Misuse`.

    It starts and ends with a letter or digit, has no ``..`` and at most 200 characters.
    """
    fits = (
        0 < len(name) <= NAME_MAX
        and name[0] in _FIRST
        and name[-1] in _FIRST
        and ".." not in name
        and _REST.issuperset(name)
    )
    if not fits:
        raise Misuse(
            f"{what} {name!r}: use letters, digits, '.', '_' and '-', starting and ending with a"
            f" letter or digit, without '..', at most {NAME_MAX} characters"
        )
    return name
