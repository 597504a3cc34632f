"""The proxy does to real sockets what its table says."""

from __future__ import annotations

import asyncio
import errno
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from callcast import Misuse
from callcast.testing import Proxy
from callcast.testing.streams import Direction, End

PATIENCE = 5.0
"""Seconds for what must come true; only a failure takes so long."""
SILENCE = 0.15
"""Seconds without a word that are taken for silence."""


class Server:
    """Answers each line with itself, and keeps all that it heard."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.heard: list[bytes] = []
        self.ends: list[str] = []
        self.clients: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            self.clients.append(client)
            thread = threading.Thread(target=self._talk, args=(client,))
            self._threads.append(thread)
            thread.start()

    def _talk(self, client: socket.socket) -> None:
        with client:
            try:
                while data := client.recv(65_536):
                    self.heard.append(data)
                    client.sendall(data)
            except OSError as error:
                self.ends.append(type(error).__name__)
            else:
                self.ends.append("closed")

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for client in self.clients:
            try:
                client.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # it has ended already
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    with Proxy("127.0.0.1", server.port) as proxy:
        yield proxy


@pytest.fixture
def client(proxy: Proxy) -> Iterator[socket.socket]:
    with connect(proxy) as client:
        yield client


def connect(proxy: Proxy) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", proxy.port), timeout=PATIENCE)
    client.settimeout(PATIENCE)
    return client


def ask(client: socket.socket, text: bytes) -> bytes:
    client.sendall(text)
    return client.recv(1_024)


def is_silent(client: socket.socket) -> bool:
    client.settimeout(SILENCE)
    try:
        client.recv(1_024)
    except TimeoutError:
        return True
    finally:
        client.settimeout(PATIENCE)
    return False


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.01)


def test_without_a_fault_everything_passes(proxy: Proxy, client: socket.socket) -> None:
    assert ask(client, b"hello") == b"hello"
    assert (proxy.accepted, proxy.open_connections) == (1, 1)


def test_megabytes_pass_whole_and_in_order(client: socket.socket) -> None:
    sent = b"".join(number.to_bytes(4, "big") for number in range(1_000_000))
    writer = threading.Thread(target=client.sendall, args=(sent,))
    writer.start()
    got = bytearray()
    while len(got) < len(sent):
        got += client.recv(1_048_576)
    writer.join()
    assert bytes(got) == sent


def test_a_reader_that_stands_still_holds_up_its_sender(
    proxy: Proxy, client: socket.socket
) -> None:
    client.settimeout(1.0)
    with pytest.raises(TimeoutError):
        while True:  # nobody reads the echo, so no buffer on the way takes more in the end
            client.sendall(bytes(1_048_576))


def test_a_client_that_stops_to_speak_still_hears(server: Server, client: socket.socket) -> None:
    client.sendall(b"last")
    client.shutdown(socket.SHUT_WR)
    assert client.recv(1_024) == b"last"
    assert client.recv(1_024) == b""
    until(lambda: server.ends == ["closed"])


def test_when_both_have_closed_nothing_is_left(proxy: Proxy, client: socket.socket) -> None:
    ask(client, b"x")
    client.close()
    until(lambda: proxy.open_connections == 0)


def test_a_reset_by_one_side_reaches_the_other(
    server: Server, client: socket.socket, proxy: Proxy
) -> None:
    ask(client, b"x")
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()
    until(lambda: server.ends == ["ConnectionResetError"])


def test_a_blackhole_swallows_nothing_and_lets_it_go_on_when_healed(
    server: Server, proxy: Proxy, client: socket.socket
) -> None:
    assert ask(client, b"one") == b"one"
    proxy.blackhole()
    client.sendall(b"two")
    assert is_silent(client)
    assert server.heard == [b"one"]
    proxy.heal()
    assert client.recv(1_024) == b"two"


def test_in_a_blackhole_nobody_hears_that_the_other_has_closed(
    server: Server, proxy: Proxy, client: socket.socket
) -> None:
    ask(client, b"x")
    proxy.blackhole()
    client.close()
    time.sleep(SILENCE)
    assert server.ends == []
    proxy.heal()
    until(lambda: server.ends == ["closed"])


def test_a_connection_made_in_a_blackhole_hears_nothing_until_it_is_healed(
    server: Server, proxy: Proxy
) -> None:
    proxy.blackhole()
    with connect(proxy) as client:
        client.sendall(b"x")
        assert is_silent(client)
        assert server.clients == []
        proxy.heal()
        assert client.recv(1_024) == b"x"


def test_cut_up_the_server_hears_nothing_and_can_speak(
    server: Server, proxy: Proxy, client: socket.socket
) -> None:
    ask(client, b"x")
    proxy.cut_up()
    client.sendall(b"y")
    assert is_silent(client)
    assert server.heard == [b"x"]
    server.clients[0].sendall(b"news")
    assert client.recv(1_024) == b"news"


def test_cut_down_the_server_hears_and_its_answer_is_kept(
    server: Server, proxy: Proxy, client: socket.socket
) -> None:
    ask(client, b"x")
    proxy.cut_down()
    client.sendall(b"y")
    until(lambda: server.heard == [b"x", b"y"])
    assert is_silent(client)
    proxy.heal()
    assert client.recv(1_024) == b"y"


def test_a_server_that_vanishes_has_lost_its_client_which_does_not_know(
    server: Server, proxy: Proxy, client: socket.socket
) -> None:
    ask(client, b"x")
    proxy.vanish()
    until(lambda: server.ends == ["ConnectionResetError"])
    client.sendall(b"y")
    assert is_silent(client)
    with connect(proxy) as another:
        another.sendall(b"z")
        assert is_silent(another)
        assert server.heard == [b"x"]
        proxy.heal()
        for each in (client, another):
            with pytest.raises(ConnectionResetError):
                each.recv(1_024)
    with connect(proxy) as third:
        assert ask(third, b"back") == b"back"


def test_a_reset_ends_what_is_open_and_no_more(
    server: Server, proxy: Proxy, client: socket.socket
) -> None:
    ask(client, b"x")
    proxy.reset()
    with pytest.raises(ConnectionResetError):
        client.recv(1_024)
    until(lambda: server.ends == ["ConnectionResetError"])
    with connect(proxy) as another:
        assert ask(another, b"y") == b"y"


def test_refused_connections_are_reset_until_it_is_healed(
    server: Server, proxy: Proxy, client: socket.socket
) -> None:
    ask(client, b"x")
    proxy.refuse()
    with pytest.raises(ConnectionResetError):
        client.recv(1_024)
    with pytest.raises(ConnectionResetError), connect(proxy) as another:  # connecting, or later
        another.recv(1_024)
    proxy.heal()
    with connect(proxy) as third:
        assert ask(third, b"y") == b"y"
    assert server.heard == [b"x", b"y"]


def test_a_dropped_reply_is_that_of_the_request_that_was_named(
    server: Server, proxy: Proxy, client: socket.socket
) -> None:
    proxy.drop_reply(b"commit")
    assert ask(client, b"begin") == b"begin"
    assert proxy.dropped == 0
    client.sendall(b"com")
    assert client.recv(1_024) == b"com"
    client.sendall(b"mit")  # in two pieces, as TCP may have it
    with pytest.raises(ConnectionResetError):
        client.recv(1_024)
    assert server.heard == [b"begin", b"com", b"mit"]
    assert proxy.dropped == 1
    until(lambda: len(server.ends) == 1)
    with connect(proxy) as another:
        assert ask(another, b"commit") == b"commit"


def test_without_a_name_the_next_reply_is_dropped_of_whichever_client(
    server: Server, proxy: Proxy, client: socket.socket
) -> None:
    ask(client, b"x")
    proxy.drop_reply()
    with connect(proxy) as another:
        another.sendall(b"y")
        with pytest.raises(ConnectionResetError):
            another.recv(1_024)
    assert ask(client, b"z") == b"z"
    assert proxy.dropped == 1


def test_delayed_bytes_come_later_and_in_order(proxy: Proxy, client: socket.socket) -> None:
    proxy.delay(0.1)
    began = time.monotonic()
    client.sendall(b"a")
    time.sleep(0.02)
    client.sendall(b"b")
    got = client.recv(1_024)
    assert time.monotonic() - began >= 0.2
    while got != b"ab":
        got += client.recv(1_024)
    proxy.heal()
    began = time.monotonic()
    assert ask(client, b"c") == b"c"
    assert time.monotonic() - began < 0.1


def test_a_client_of_a_server_that_is_not_there_is_reset(proxy: Proxy, server: Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with Proxy("127.0.0.1", port) as other:
        with pytest.raises(ConnectionResetError), connect(other) as client:
            client.recv(1_024)
        until(lambda: other.open_connections == 0)


def test_closing_resets_what_is_open_and_can_be_repeated(server: Server) -> None:
    proxy = Proxy("127.0.0.1", server.port).start()
    with connect(proxy) as client:
        ask(client, b"x")
        proxy.blackhole()
        proxy.close()
        with pytest.raises(ConnectionResetError):
            client.recv(1_024)
    proxy.close()


async def test_a_blocked_loop_does_not_stop_it(server: Server, proxy: Proxy) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(b"x")
    await writer.drain()
    until(lambda: server.heard == [b"x"])  # blocks this loop meanwhile
    assert await reader.read(10) == b"x"
    writer.close()
    await writer.wait_closed()


def test_the_url_through_it_keeps_everything_but_the_place(server: Server) -> None:
    url = f"amqp://me:se%40cret@127.0.0.1:{server.port}/a%2Fb?heartbeat=2"
    with Proxy.to(url) as proxy:
        assert proxy.through(url) == f"amqp://me:se%40cret@127.0.0.1:{proxy.port}/a%2Fb?heartbeat=2"


def test_it_listens_where_clients_are_sent(server: Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    for _ in range(2):  # and may do so again at once
        with Proxy("127.0.0.1", server.port, listen=port) as proxy, connect(proxy) as client:
            assert proxy.port == port
            assert ask(client, b"x") == b"x"


def test_a_url_without_a_port_is_misuse() -> None:
    with pytest.raises(Misuse, match="name host and port"):
        Proxy.to("amqp://localhost/")


def test_a_proxy_that_was_not_started_says_so() -> None:
    proxy = Proxy("127.0.0.1", 1)
    for use in (lambda: proxy.port, proxy.heal):
        with pytest.raises(Misuse, match="start it"):
            use()


async def test_a_receiver_that_was_reset_meanwhile_takes_no_end() -> None:
    """The loop has not been told yet, so its transport still looks open."""

    class Gone(asyncio.Transport):
        def is_closing(self) -> bool:
            return False

        def write_eof(self) -> None:
            raise OSError(errno.ENOTCONN, "not connected")

    ends: list[End] = []
    way = Direction(asyncio.get_running_loop(), lambda: ends.append(End.FIN))
    way.sink = Gone()
    way.take(End.FIN)
    assert (way.ended, ends) == (End.FIN, [End.FIN])
