"""Celery on RabbitMQ: a worker in one process, which acknowledges after the task.

`publish` is one after the other, each confirmed: Celery has nothing else.
"""

from __future__ import annotations

import os
import signal
import threading
from functools import partial
from typing import Any

import msgspec
from brokers_work import PREFETCH, Result, Task, told, work_of
from celery import Celery
from kombu import Queue
from work import Count, Order, timed

HANDLE = "handle"
QUIET = 1.0
"""Seconds before a worker is told to end: one that ends at once loses many acknowledgements."""


def open_app(task: Task) -> Celery:
    app = Celery("shop", broker=task.url, set_as_current=False)
    app.conf.update(
        task_queues=[Queue(task.place, queue_arguments=task.arguments)],
        task_default_queue=task.place,
        task_acks_late=True,
        task_ignore_result=True,
        worker_prefetch_multiplier=PREFETCH,
        worker_concurrency=1,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        broker_transport_options={"confirm_publish": True},
    )
    return app


def publish(task: Task) -> Result:
    app = open_app(task)
    send = partial(app.send_task, HANDLE, queue=task.place)
    with app.producer_pool.acquire(block=True) as producer:
        for each in work_of(task, task.warm):
            send(args=[msgspec.to_builtins(each)], producer=producer)
        work = work_of(task, task.count)
        with timed() as watch:
            for each in work:
                send(args=[msgspec.to_builtins(each)], producer=producer)
    app.close()
    return told(watch)


def consume(task: Task) -> Result:
    """Its watch stops after the last task: what is over is acknowledged, but for the last."""
    app = open_app(task)
    counted = Count(task.count)

    @app.task(name=HANDLE)
    def handle(order: dict[str, Any]) -> None:
        msgspec.convert(order, Order)
        counted.one()
        if counted.left == 0:
            counted.watch.stop()
            threading.Timer(QUIET, os.kill, (os.getpid(), signal.SIGTERM)).start()

    options = ("--pool", "solo", "--loglevel", "ERROR")
    try:
        app.worker_main(["worker", *options, "--without-gossip", "--without-mingle"])
    except SystemExit as end:
        if end.code:
            raise
    return told(counted.watch)


WORK = {"publish": publish, "consume": consume}
