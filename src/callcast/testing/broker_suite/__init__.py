"""The conformance suite of brokers: what every adapter must do, written as sentences.

Subclass `BrokerSuite` in a test module of your own, in a class whose name starts with ``Test``.
For a broker that keeps its messages in a file, ``test_mine.py`` is::

    import asyncio
    import tempfile
    from collections.abc import AsyncGenerator
    from contextlib import asynccontextmanager

    from callcast.ports.broker import Broker
    from callcast.testing.broker_suite import BrokerSuite
    from mine import MyBroker


    def open_at(url: str) -> Broker:
        return MyBroker(url)


    class TestMine(BrokerSuite):
        lease, delay = 1.0, 0.5  # on the real clock
        opener = f"{__name__}:open_at"  # child processes call it with `url()`

        @asynccontextmanager
        async def storage(self) -> AsyncGenerator[None]:
            with tempfile.TemporaryDirectory() as self.folder:  # each case has its own
                yield

        def url(self) -> str:
            return f"{self.folder}/messages"

        async def open(self) -> Broker:
            return open_at(self.url())

        async def pass_time(self, seconds: float) -> None:
            await asyncio.sleep(seconds)

A broker on a server makes something new there in `storage` (a database, a virtual host) and names
it in `url`. One that lives in one process alone (``traits.shared`` is False) needs `open` and
`pass_time` only.

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
    """All cases, to be subclassed as the docstring of this package shows.

    Fill in `open` and `pass_time`, and what else of `Harness` your broker needs.
    """
