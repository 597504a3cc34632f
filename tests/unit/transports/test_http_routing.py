"""From paths to operations."""

from __future__ import annotations

import pytest

from callcast.codecs import JsonCodec
from callcast.core.contract import Operation
from callcast.core.errors import Misuse
from callcast.transports.rest import Exchange
from callcast.transports.routing import Routes


def routes(*bindings: str) -> Routes:
    return Routes(
        Exchange(Operation(f"x.o{number}", str, None, http=http), JsonCodec())
        for number, http in enumerate(bindings)
    )


def test_literal_paths_win_over_placeholders() -> None:
    known = routes("GET /users/{id}", "POST /users/me", "GET /users/{id}.json")
    found = known.find("/users/me")
    assert found is not None
    assert found[0].template == "/users/me"
    found = known.find("/users/7.json")
    assert found is not None
    assert found[0].template == "/users/{id}.json"
    assert list(found[1]) == ["7"]


def test_methods_of_one_path_share_a_route_whatever_their_placeholders_are_called() -> None:
    found = routes("GET /users/{id}", "DELETE /users/{user_id}").find("/users/7")
    assert found is not None
    route = found[0]
    assert route.allow == "DELETE, GET, HEAD"
    assert route.of("HEAD") is route.of("GET")
    assert route.of("DELETE") is not None
    assert route.of("POST") is None


def test_an_own_head_wins_over_the_one_that_get_implies() -> None:
    found = routes("GET /users/{id}", "HEAD /users/{id}").find("/users/7")
    assert found is not None
    head = found[0].of("HEAD")
    assert head is not None
    assert head.operation.name == "x.o1"


@pytest.mark.parametrize("path", ["/users", "/users/", "/users/7/x", "/Users/7", "users/7", ""])
def test_other_paths_are_unknown(path: str) -> None:
    assert routes("GET /users/{id}").find(path) is None


def test_an_encoded_slash_is_no_separator() -> None:
    found = routes("GET /users/{id}").find("/users/a%2Fb")
    assert found is not None
    assert list(found[1]) == ["a/b"]


def test_two_operations_on_one_path_and_method_are_misuse() -> None:
    with pytest.raises(Misuse, match=r"x\.o0.*x\.o1"):
        routes("GET /users/{id}", "GET /users/{name}")
