"""The shop once more, with seven classic mistakes, for ``callcast advise`` to find.

| mistake                                   | where                      | finding |
|-------------------------------------------|----------------------------|---------|
| a mail is sent by a call                  | `orders.checkout`          | A05     |
| one fact is told to three, one by one     | `orders.checkout`          | A06     |
| two layers retry                          | `orders`, then `payments`  | A04     |
| the caller gives up before its callee     | `orders` calls `payments`  | A02     |
| a publish beside the transaction          | `orders.checkout`          | A07     |
| a fast read goes over a queue             | `orders` asks `prices`     | A14     |
| two services wait for each other          | `orders` and `inventory`   | A15     |

It works, as such shops do, until something is slow. ``examples/shop`` has none of them.
"""
