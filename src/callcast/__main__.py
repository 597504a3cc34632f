"""``python -m callcast``: the command line."""

from __future__ import annotations

from callcast.cli import main

if __name__ == "__main__":
    main()
