"""What the services of the wrong shop agree on."""

from __future__ import annotations

from callcast import Event, Needs, Operation, Struct

NOBODY_WAITS = Needs(response="none", on_failure="must_not_lose")


class Order(Struct):
    id: str
    sku: str


CHECKOUT = Operation("orders.checkout", Order, str, deadline=20.0)
STATUS = Operation("orders.status", str, str, idempotent=True)
RESERVE = Operation("inventory.reserve", Order, None, deadline=2.0)

# The caller waits for half a second, and what it calls for two: the answer finds nobody.
PAY = Operation("payments.pay", Order, None, deadline=0.5)
CHARGE = Operation("bank.charge", Order, None, deadline=2.0)

PRICE = Operation(
    "prices.price", str, int, idempotent=True, needs=Needs(response="value", needed_within=0.5)
)

# Nobody waits for any of these, and all of them are called.
MAIL = Operation("notifications.mail", Order, None, idempotent=True, needs=NOBODY_WAITS)
PACK = Operation("fulfilment.pack", Order, None, idempotent=True, needs=NOBODY_WAITS)
POINTS = Operation("loyalty.points", Order, None, idempotent=True, needs=NOBODY_WAITS)
BOOK = Operation("accounts.book", Order, None, idempotent=True, needs=NOBODY_WAITS)

PLACED = Event("orders.placed", Order, needs=NOBODY_WAITS)
