"""Everything services say to each other: call and wait for the answer, or cast and move on.

Names load on first use, so that importing callcast costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # for type checkers; at run time __getattr__ loads the same names
    from msgspec import Struct

    from callcast.core.amqp import Amqp
    from callcast.core.context import Context
    from callcast.core.contract import Event, Operation
    from callcast.core.errors import (
        BulkheadFull,
        CallcastError,
        CircuitOpen,
        Misuse,
        NotSent,
        Refused,
        Remote,
        Unanswered,
    )
    from callcast.core.message import Message
    from callcast.core.needs import Needs
    from callcast.core.tls import Tls
    from callcast.policies.recovery import Recovery
    from callcast.runtime.bus import Bus
    from callcast.runtime.peers import Peer
    from callcast.runtime.policy import Bulkhead, CircuitBreaker, Policy, Retry
    from callcast.runtime.ports import Ports
    from callcast.runtime.service import Service
    from callcast.runtime.settings import Settings
    from callcast.runtime.transaction import Transaction

_WHERE = {
    "Amqp": "core.amqp",
    "Bulkhead": "runtime.policy",
    "BulkheadFull": "core.errors",
    "Bus": "runtime.bus",
    "CallcastError": "core.errors",
    "CircuitBreaker": "runtime.policy",
    "CircuitOpen": "core.errors",
    "Context": "core.context",
    "Event": "core.contract",
    "Message": "core.message",
    "Misuse": "core.errors",
    "Needs": "core.needs",
    "NotSent": "core.errors",
    "Operation": "core.contract",
    "Peer": "runtime.peers",
    "Policy": "runtime.policy",
    "Ports": "runtime.ports",
    "Recovery": "policies.recovery",
    "Refused": "core.errors",
    "Remote": "core.errors",
    "Retry": "runtime.policy",
    "Service": "runtime.service",
    "Settings": "runtime.settings",
    "Struct": "",
    "Tls": "core.tls",
    "Transaction": "runtime.transaction",
    "Unanswered": "core.errors",
}

__all__ = [
    "Amqp",
    "Bulkhead",
    "BulkheadFull",
    "Bus",
    "CallcastError",
    "CircuitBreaker",
    "CircuitOpen",
    "Context",
    "Event",
    "Message",
    "Misuse",
    "Needs",
    "NotSent",
    "Operation",
    "Peer",
    "Policy",
    "Ports",
    "Recovery",
    "Refused",
    "Remote",
    "Retry",
    "Service",
    "Settings",
    "Struct",
    "Tls",
    "Transaction",
    "Unanswered",
]


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module 'callcast' has no attribute {name!r}")
    module = f"callcast.{_WHERE[name]}" if _WHERE[name] else "msgspec"
    value = globals()[name] = getattr(importlib.import_module(module), name)
    return value


def __dir__() -> list[str]:
    return __all__
