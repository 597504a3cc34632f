"""The shop: five services that take an order, charge for it, pack it and tell the buyer.

`contracts` is what they agree on; each other module is one service:

    orders --call--> inventory      reserve: the buyer is waiting
    orders --call--> payments       authorise: the buyer is still waiting
    orders --cast--> both           release, void: nobody waits for an undo
    orders --publish--> fulfilment  orders.placed: whoever cares may listen
    fulfilment --publish--> notifications   fulfilment.shipped

Run one with ``callcast run shop.orders:service``, or all of them with ``callcast demo``.
"""
