"""A bus is mounted in applications without a word to the checkers: checked, never run."""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

import uvicorn
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount

from callcast.runtime.bus import Bus

bus = Bus("memory://")

FastAPI().mount("/internal", bus.asgi())
Starlette(routes=[Mount("/internal", app=bus.asgi())])
uvicorn.Config(bus.asgi())

FastAPI().mount("/internal", bus)  # type: ignore[arg-type]
