"""The conformance suite of brokers: what every adapter must do, written as sentences.

Subclass `BrokerSuite` in a test module of your own, in a class whose name starts with ``Test``::

    class TestMine(BrokerSuite):
        async def open(self) -> Broker:
            return MyBroker(self.address)

        async def pass_time(self, seconds: float) -> None:
            await asyncio.sleep(seconds)

Every case is a plain method without arguments that runs an event loop of its own: pytest needs no
plugin for it, and ``TestMine().test_...()`` runs it alone. A case that a trait or a missing
ability excuses raises `unittest.SkipTest` naming it. Cases with processes may take six times the
patience of the others. `Harness` describes all hooks. For pytest to explain a failed assertion, say
``pytest.register_assert_rewrite("callcast.testing.broker_suite")`` in your ``conftest.py``.
"""

from callcast.testing.broker_suite.capacity import Capacity
from callcast.testing.broker_suite.closing import Closing
from callcast.testing.broker_suite.dead_letters import DeadLetters
from callcast.testing.broker_suite.delivering import Delivering
from callcast.testing.broker_suite.leasing import Leasing
from callcast.testing.broker_suite.operating import Operating
from callcast.testing.broker_suite.ordering import Ordering
from callcast.testing.broker_suite.processes import Processes
from callcast.testing.broker_suite.publishing import Publishing
from callcast.testing.broker_suite.rewinding import Rewinding
from callcast.testing.broker_suite.settling import Settling
from callcast.testing.broker_suite.watching import Watching

__all__ = ["BrokerSuite"]


class BrokerSuite(
    Publishing,
    Delivering,
    Settling,
    Leasing,
    Ordering,
    DeadLetters,
    Watching,
    Operating,
    Rewinding,
    Closing,
    Capacity,
    Processes,
):
    """All cases. Fill in `open` and `pass_time`, and what else of `Harness` your broker needs."""
