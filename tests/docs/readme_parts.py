"""The README as a test sees it: its code blocks, by language and name."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[str]:
    """All code blocks of a language, in order."""
    return [text for found, text in _BLOCK.findall(README) if found == language]


def program(name: str) -> str:
    """The Python block whose first line names this file."""
    return next(text for text in blocks("python") if text.startswith(f"# {name}:"))


def commands() -> set[str]:
    """Every command that the README tells a reader to type."""
    typed = {line.strip() for text in blocks("sh") for line in text.splitlines() if line.strip()}
    inline = re.findall(r"`((?:scripts/|callcast )[^`]+)`", README)
    return typed | set(inline)
