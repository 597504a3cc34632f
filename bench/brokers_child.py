"""A process of ``bench/brokers.py``: one contender doing one thing.

``python bench/brokers_child.py TASK``, the task as JSON: prints what it took as JSON. It ends when
its standard input does, which is when the bench is gone, whatever it is doing.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import threading

import msgspec
from brokers_work import Task, Work
from harness import peak_memory

ORPHANED = 3


def end_with_the_bench() -> None:
    os.read(0, 1)
    os._exit(ORPHANED)


def main() -> int:
    task = msgspec.json.decode(sys.argv[1], type=Task)
    threading.Thread(target=end_with_the_bench, daemon=True).start()
    work: Work = importlib.import_module(f"brokers_{task.contender}").WORK
    result = work[task.part](task)
    print(json.dumps({**result, "memory": peak_memory()}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
