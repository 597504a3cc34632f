"""``MODULE:NAME``: loading what a user's program defines."""

from __future__ import annotations

import importlib
import sys
from difflib import get_close_matches
from pathlib import Path

from callcast.cli.failure import Failure


def load(spec: str) -> object:
    """What `NAME` is in `MODULE`, found from the working folder on; a `Failure` that helps."""
    name_of_module, colon, name = spec.partition(":")
    if not name_of_module or not colon or not name:
        raise Failure(f"{spec!r} is not MODULE:NAME", fix="shop.orders:service, for instance")
    here = str(Path.cwd())  # entries of sys.path are strings
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(name_of_module)
    except ModuleNotFoundError as error:
        if not name_of_module.startswith(error.name or "\0"):
            raise Failure(f"{name_of_module} needs {error.name}, which is not installed") from error
        raise Failure(
            f"there is no module {error.name!r} in {here} or on PYTHONPATH",
            fix="run this in the folder that holds it",
        ) from error
    found: object = module
    for part in name.split("."):
        if not hasattr(found, part):
            near = get_close_matches(part, dir(found), n=1)
            raise Failure(
                f"{name_of_module} has no {name!r}",
                fix=f"{name_of_module}:{near[0]}" if near else "",
            )
        found = getattr(found, part)
    return found
