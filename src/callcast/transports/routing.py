"""From a path to an operation. Pure.

Paths are matched as they came, percent-encoded: a ``%2F`` inside a value is no separator.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from urllib.parse import unquote

from callcast.core.binding import HttpBinding
from callcast.core.errors import Misuse
from callcast.transports.rest import Exchange, literal_of


class Route:
    """One path and its methods."""

    def __init__(self, binding: HttpBinding) -> None:
        self.template: str = binding.template
        self.params: int = len(binding.params)
        pattern = "([^/]+)".join(re.escape(literal_of(part)) for part in binding.parts)
        self.match: Callable[[str], re.Match[str] | None] = re.compile(pattern).fullmatch
        self.methods: dict[str, Exchange] = {}  # filled by Routes while it is built

    def add(self, exchange: Exchange) -> None:
        """One more method; raises `Misuse` when it is taken."""
        method = exchange.binding.method
        taken = self.methods.setdefault(method, exchange)
        if taken is not exchange:
            raise Misuse(
                f"operations {taken.operation.name!r} and {exchange.operation.name!r} are both"
                f" bound to {method} {self.template}"
            )

    def of(self, method: str) -> Exchange | None:
        """The operation of a method; HEAD is answered by GET, without the body."""
        exchange = self.methods.get(method)
        return self.methods.get("GET") if exchange is None and method == "HEAD" else exchange

    @property
    def allow(self) -> str:
        """The value of ``Allow``."""
        implied = {"HEAD"} if "GET" in self.methods else set[str]()
        return ", ".join(sorted(implied.union(self.methods)))


class Routes:
    """All paths of one service: those without placeholders in a dict, the others in order."""

    def __init__(self, exchanges: Iterable[Exchange]) -> None:
        self._fixed: dict[str, Route] = {}
        self._open: list[Route] = []  # most literal first: /users/me before /users/{user_id}
        known: dict[tuple[str, ...], Route] = {}
        for exchange in exchanges:
            binding = exchange.binding
            route = known.get(binding.parts)
            if route is None:
                route = known[binding.parts] = Route(binding)
                if binding.params:
                    self._open.append(route)
                else:
                    self._fixed[literal_of(binding.template)] = route
            route.add(exchange)
        self._open.sort(key=lambda route: (route.params, -len(route.template), route.template))

    def find(self, path: str) -> tuple[Route, Sequence[str]] | None:
        """The route of a percent-encoded path and its decoded parameters; None when unknown."""
        route = self._fixed.get(path)
        if route is not None:
            return route, ()
        for route in self._open:
            if (match := route.match(path)) is not None:
                return route, [unquote(param) for param in match.groups()]
        return None
