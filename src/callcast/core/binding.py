"""``"GET /users/{user_id}"``: how an operation is bound to a path of any REST API."""

from __future__ import annotations

from dataclasses import dataclass

from callcast.core.errors import Misuse

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
BODILESS = ("GET", "HEAD", "DELETE")


@dataclass(frozen=True, slots=True)
class HttpBinding:
    """A method and a path template, parsed once."""

    method: str
    template: str
    """The path as written, ``/users/{user_id}``: low-cardinality, fit for span names and routes."""
    parts: tuple[str, ...]
    """Literal pieces around the placeholders: ``("/users/", "")``."""
    params: tuple[str, ...]
    """Names of the placeholders, in order: ``("user_id",)``."""

    @property
    def is_safe(self) -> bool:
        """Whether the method promises to change nothing: GET and HEAD."""
        return self.method in {"GET", "HEAD"}

    @property
    def has_body(self) -> bool:
        """Whether what is not in the path goes into the body; else it goes into the query."""
        return self.method not in BODILESS

    @classmethod
    def parse(cls, text: str) -> HttpBinding:
        """Parse ``"GET /users/{user_id}"``; raise `Misuse` when it is not of that form."""
        method, _, template = text.partition(" ")
        if method not in METHODS or template[:1] != "/" or any(c in template for c in " ?#"):
            raise Misuse(
                f"http={text!r}: write a method ({', '.join(METHODS)}), one space and a path"
                " without query, such as 'GET /users/{user_id}'"
            )
        parts: list[str] = []
        params: list[str] = []
        rest = template
        while "{" in rest:
            literal, _, rest = rest.partition("{")
            name, closed, rest = rest.partition("}")
            if not closed or not name.isidentifier() or name in params or "}" in literal:
                raise Misuse(f"http={text!r}: each placeholder is '{{name}}', a name once")
            parts.append(literal)
            params.append(name)
        if "}" in rest:
            raise Misuse(f"http={text!r}: '}}' without '{{'")
        return cls(method, template, (*parts, rest), tuple(params))


def callcast_path(name: str) -> HttpBinding:
    """Where an operation without ``http=`` is served: ``POST /callcast/{name}``."""
    template = f"/callcast/{name}"
    return HttpBinding("POST", template, (template,), ())
