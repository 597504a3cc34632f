"""Connections to RabbitMQ: their own thread, TLS, several nodes, a window of publishes, lanes."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import amqp_fake
import pytest
import trustme
from amqp_fake import fake_rabbitmq
from pika import spec
from rabbitmq_parts import (
    drop_connections,
    fetched,
    handled,
    listening,
    message,
    opened,
    stranger,
    until,
)
from servers import OwnRabbitMq

from callcast.brokers.rabbitmq import RabbitBroker, sender
from callcast.core.errors import Misuse, NotPermitted, Unpublished
from callcast.core.outcome import DONE
from callcast.ports.broker import Source

pytestmark = pytest.mark.timeout(90)


async def test_a_blocked_loop_does_not_stop_the_heartbeats(rabbitmq_url: str) -> None:
    """The server closes what has been silent for three of them; blocked is the handlers' loop."""
    async with opened(f"{rabbitmq_url}?heartbeat=3") as broker:
        source = await listening(broker)
        await broker.publish([message("m", source.topic)])
        consumer = await broker.consume(source)
        held = await fetched(consumer, 1)
        time.sleep(10.0)  # on purpose
        await consumer.settle([(one, DONE) for one in held])
        await broker.publish([message("n", source.topic)])
        [one] = await fetched(consumer, 1)
        assert (one.message.id, one.crashes) == ("n", 0)


async def test_the_next_node_is_taken_when_the_first_is_away(rabbitmq_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    parts = urlsplit(rabbitmq_url)
    away = f"amqp://{parts.username}:{parts.password}@127.0.0.1:{port}{parts.path}"
    async with opened(f"{away},{rabbitmq_url}") as broker:
        source = await listening(broker)
        await broker.publish([message("m", source.topic)])
        assert await handled(await broker.consume(source)) == ["m"]


@pytest.mark.parametrize("is_ordered", [False, True])
async def test_a_binding_that_the_server_forgot_is_there_before_anything_is_published(
    a_rabbitmq_of_its_own: OwnRabbitMq, *, is_ordered: bool
) -> None:
    """A server that is killed forgets the bindings of its last seconds; nobody consumes here."""
    async with opened(a_rabbitmq_of_its_own.url) as broker:
        source = await listening(broker, ordered=is_ordered)
        await broker.publish([message("m", source.topic, key="k")])
        with stranger(a_rabbitmq_of_its_own.url) as channel:
            unbind = channel.exchange_unbind if is_ordered else channel.queue_unbind
            unbind(str(source), source.topic, "#")
        with pytest.raises(Unpublished, match="no group has ever subscribed"):
            await broker.publish([message("n", source.topic, key="k")])
        assert await until(lambda: drop_connections(a_rabbitmq_of_its_own, "publish"))
        await until(lambda: sent(broker, source, "o"))
        assert sorted(await handled(await broker.consume(source))) == ["m", "o"]


async def test_an_exchange_that_the_server_forgot_is_there_before_anything_is_published(
    a_rabbitmq_of_its_own: OwnRabbitMq,
) -> None:
    async with opened(a_rabbitmq_of_its_own.url) as broker:
        source = await listening(broker, ordered=True, lanes=4)
        with stranger(a_rabbitmq_of_its_own.url) as channel:
            for name in (str(source), f"{source}/strays", source.topic):
                channel.exchange_delete(name)
        assert await until(lambda: drop_connections(a_rabbitmq_of_its_own, "publish"))
        await until(lambda: sent(broker, source, "m"))
        assert await handled(await broker.consume(source)) == ["m"]
        assert await broker.differences([source.topic], [source]) == []


async def sent(broker: RabbitBroker, source: Source, name: str) -> bool:
    """Whether this is published; the end of the connection may come meanwhile."""
    try:
        await broker.publish([message(name, source.topic, key="k")])
    except Unpublished as error:
        if "no group has ever subscribed" in str(error):
            raise
        return False
    return True


@contextmanager
def tls_before(url: str, context: ssl.SSLContext) -> Generator[str]:
    """The same server behind TLS: a proxy that ends it, on a thread of its own."""
    loop, ready = asyncio.new_event_loop(), threading.Event()
    found: list[int] = []
    parts = urlsplit(url)

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while piece := await reader.read(65_536):
                writer.write(piece)
        except OSError:
            pass
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner = await asyncio.open_connection(parts.hostname, parts.port)
        await asyncio.gather(carry(reader, inner[1]), carry(inner[0], writer))

    async def listen() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
        found.append(server.sockets[0].getsockname()[1])
        ready.set()
        async with server:
            await stop.wait()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.wait_for(asyncio.gather(*others, return_exceptions=True), 10.0)

    stop = asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(listen()))
    thread.start()
    ready.wait(10.0)
    try:
        yield f"amqps://{parts.username}:{parts.password}@localhost:{found[0]}{parts.path}"
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


class Papers:
    """A certificate authority, a server's certificate and a client's, as files."""

    def __init__(self, folder: Path) -> None:
        ca = trustme.CA()
        self.ca, self.cert, self.key = folder / "ca.pem", folder / "cert.pem", folder / "key.pem"
        ca.cert_pem.write_to_path(self.ca)
        mine = ca.issue_cert("worker.example")
        mine.cert_chain_pems[0].write_to_path(self.cert)
        mine.private_key_pem.write_to_path(self.key)
        self.server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(self.ca))
        ca.issue_cert("localhost").configure_cert(self.server)


@pytest.fixture
def papers(tmp_path: Path) -> Papers:
    return Papers(tmp_path)


async def uses(url: str) -> list[str]:
    async with opened(url) as broker:
        source = await listening(broker)
        await broker.publish([message("m", source.topic)])
        return await handled(await broker.consume(source))


async def test_it_speaks_tls_to_who_is_trusted(rabbitmq_url: str, papers: Papers) -> None:
    with tls_before(rabbitmq_url, papers.server) as url:
        assert await uses(f"{url}?ca={papers.ca}") == ["m"]


async def test_it_speaks_to_nobody_whose_certificate_is_not_trusted(
    rabbitmq_url: str, papers: Papers
) -> None:
    with tls_before(rabbitmq_url, papers.server) as url:
        with pytest.raises(NotPermitted, match=r"is not trusted .* give its signer with ca=FILE"):
            await uses(url)
        other = url.replace("localhost", "127.0.0.1")
        with pytest.raises(NotPermitted, match="is not trusted"):
            await uses(f"{other}?ca={papers.ca}")


async def test_believing_any_certificate_is_said_aloud(rabbitmq_url: str, papers: Papers) -> None:
    with (
        tls_before(rabbitmq_url, papers.server) as url,
        pytest.warns(RuntimeWarning, match="believes any certificate"),
    ):
        assert await uses(f"{url}?insecure=true") == ["m"]


async def test_it_shows_its_own_certificate(rabbitmq_url: str, papers: Papers) -> None:
    papers.server.verify_mode = ssl.CERT_REQUIRED
    with tls_before(rabbitmq_url, papers.server) as url:
        mine = f"ca={papers.ca}&cert={papers.cert}&key={papers.key}"
        assert await uses(f"{url}?{mine}") == ["m"]


async def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match=r"the TLS files of .* cannot be read"):
        await uses(f"amqps://localhost:1/?ca={tmp_path}/none.pem")


async def test_publishes_are_confirmed_side_by_side_up_to_a_window(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sender, "WINDOW", 30)
    kept: list[tuple[amqp_fake.Client, int, spec.Basic.Ack]] = []
    send = amqp_fake.Client._send

    def keep(client: amqp_fake.Client, number: int, method: object) -> None:
        if isinstance(method, spec.Basic.Ack):
            kept.append((client, number, method))
        else:
            send(client, number, method)

    async with fake_rabbitmq() as server, opened(server.url) as broker:
        source = await listening(broker)
        monkeypatch.setattr(amqp_fake.Client, "_send", keep)
        batch = [message(f"m{number}", source.topic) for number in range(100)]
        sent = asyncio.create_task(broker.publish(batch))
        await until(lambda: len(kept) == 30)
        for turn in range(1, 4):
            assert not sent.done()
            client, number, last = kept[-1]
            send(client, number, spec.Basic.Ack(last.delivery_tag, multiple=True))
            wanted = min(100, 30 * (turn + 1))
            await until(lambda wanted=wanted: len(kept) == wanted)
        client, number, last = kept[-1]
        send(client, number, spec.Basic.Ack(last.delivery_tag, multiple=True))
        await sent
        monkeypatch.setattr(amqp_fake.Client, "_send", send)


async def test_the_lanes_of_a_group_are_spread_over_its_workers(
    a_rabbitmq_of_its_own: OwnRabbitMq,
) -> None:
    """Without their claims the first worker would have all of them, and the second none."""
    version = a_rabbitmq_of_its_own.rabbitmqctl("version").strip()
    url = a_rabbitmq_of_its_own.url
    async with opened(url) as first, opened(url) as second, opened(url) as third:
        source = Source("spread", "group", ordered=True)
        await first.ensure([source.topic], [source])
        workers = [await one.consume(source) for one in (first, second, third)]
        batch = [message(f"m{number}", "spread", key=f"k{number}") for number in range(200)]
        await first.publish(batch)
        had: Counter[int] = Counter()
        while sum(had.values()) < len(batch):
            for number, worker in enumerate(workers):
                found = await worker.fetch(50, 0.1)
                had[number] += len(found)
                await worker.settle([(one, DONE) for one in found])
        if version >= "4":
            assert len(had) == 3
            assert min(had.values()) >= 10
