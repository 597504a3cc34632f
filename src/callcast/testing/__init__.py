"""For tests: a bus with its own clock, suites, faults, a proxy. Names load on first use."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # for type checkers; at run time __getattr__ loads the same names
    from callcast.testing.broker_suite import BrokerSuite
    from callcast.testing.clock import ManualClock
    from callcast.testing.faults import Faults
    from callcast.testing.proxy import Proxy
    from callcast.testing.service_bus import ServiceBus, bus

_WHERE = {
    "BrokerSuite": "broker_suite",
    "Faults": "faults",
    "ManualClock": "clock",
    "Proxy": "proxy",
    "ServiceBus": "service_bus",
    "bus": "service_bus",
}

__all__ = ["BrokerSuite", "Faults", "ManualClock", "Proxy", "ServiceBus", "bus"]


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module 'callcast.testing' has no attribute {name!r}")
    module = importlib.import_module(f"callcast.testing.{_WHERE[name]}")
    value = globals()[name] = getattr(module, name)
    return value
