"""How clients are taken from a listening socket."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
import trio.testing

from hostler._descriptors import PAUSE_SECONDS
from hostler.front import address_of, open_listeners, open_shared_listeners, refuse_clients
from hostler.front.server import AT_A_TIME, Acceptor
from hostler.http1.server import ClientSocket
from tests.conftest import Logs

from ._sockets import connect_late


@attrs.define
class Server:
    admitted: list[ClientSocket] = attrs.Factory(list)

    def admit(self, client: ClientSocket) -> None:
        self.admitted.append(client)

    def make_room(self) -> bool:
        return False


@attrs.define
class Door:
    entrance: Acceptor
    port: int
    admitted: list[ClientSocket] = attrs.Factory(list)

    def knock(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=10)


@asynccontextmanager
async def open_door() -> AsyncIterator[Door]:
    server = Server()
    async with open_listeners("127.0.0.1:0") as [listener]:
        entrance = Acceptor(listener, server)
        yield Door(entrance, listener.socket.getsockname()[1], server.admitted)
        entrance.close()
    for client in server.admitted:
        client.close()


class Failing:
    """A listening socket whose next clients can't be taken."""

    def __init__(self, sock: socket.socket, *errors: int) -> None:
        self._sock = sock
        self._errors = list(errors)

    def fileno(self) -> int:
        return self._sock.fileno()

    def accept(self) -> tuple[socket.socket, tuple[str, int]]:
        if self._errors:
            number = self._errors.pop(0)
            raise OSError(number, os.strerror(number))
        return self._sock.accept()

    def detach(self) -> int:
        return self._sock.detach()


def fail(door: Door, monkeypatch: pytest.MonkeyPatch, *errors: int) -> None:
    monkeypatch.setattr(door.entrance, "_sock", Failing(door.entrance._sock, *errors))


async def test_clients_have_the_options_of_the_listening_socket_and_are_known_by_address() -> None:
    async with open_door() as door:
        with door.knock() as there:
            assert door.entrance.take(1)
            (client,) = door.admitted
            assert client.peer == there.getsockname()
            with socket.socket(fileno=os.dup(client.fd)) as here:
                assert not os.get_blocking(client.fd)
                assert here.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                assert here.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == 16 * 1024


async def test_no_more_are_taken_at_a_time_than_told() -> None:
    async with open_door() as door:
        clients = [door.knock() for _ in range(3)]
        assert door.entrance.take(2)
        assert len(door.admitted) == 2
        assert door.entrance.take(AT_A_TIME)
        assert len(door.admitted) == 3
        for client in clients:
            client.close()


async def test_one_that_has_gone_again_keeps_no_other_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with open_door() as door:
        fail(door, monkeypatch, errno.ECONNABORTED, errno.EPROTO)
        with door.knock():
            assert door.entrance.take(AT_A_TIME)
            assert len(door.admitted) == 1


async def test_without_room_it_tries_again_after_a_pause(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock, logs: Logs
) -> None:
    async with open_door() as door, trio.open_nursery() as nursery:
        fail(door, monkeypatch, errno.EMFILE)
        with door.knock():
            nursery.start_soon(door.entrance.run)
            await trio.sleep(PAUSE_SECONDS / 2)
            assert not door.admitted
            assert logs.with_event("no room for another connection")
            await trio.sleep(PAUSE_SECONDS)
            assert len(door.admitted) == 1
            nursery.cancel_scope.cancel()


async def test_a_socket_that_is_no_good_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_door() as door:
        fail(door, monkeypatch, errno.EINVAL)
        with door.knock(), pytest.raises(OSError, match="Invalid argument"):
            await door.entrance.run()


async def test_it_refuses_new_ones_but_not_those_that_have_begun_to_connect() -> None:
    async with open_listeners("127.0.0.1:0") as [listener]:
        connect_late(listener)
        server = Server()
        entrance = Acceptor(listener, server)
        address = listener.socket.getsockname()
        with socket.create_connection(address, timeout=10) as begun:
            entrance.refuse()
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(address, timeout=10)
            assert entrance.take(AT_A_TIME)
            assert not server.admitted
            begun.sendall(b"x")
            await trio.lowlevel.wait_readable(listener.socket)
            assert entrance.take(AT_A_TIME)
            entrance.close()
            (client,) = server.admitted
            assert await client.read() == b"x"
            client.close()


async def test_a_shared_port_is_refused_by_the_owner_of_all_its_sockets() -> None:
    async with open_listeners("127.0.0.1:0") as [listener]:
        address = address_of(listener)
        port = listener.socket.getsockname()[1]
    with open_shared_listeners([address], 2) as sockets:
        first, second = (trio.socket.from_stdlib_socket(each.dup()) for [each] in sockets)
        for sock in first, second:
            entrance = Acceptor(trio.SocketListener(sock), Server())
            entrance.refuse()
            entrance.close()
        socket.create_connection(("127.0.0.1", port), timeout=10).close()
        for [own] in sockets:
            refuse_clients(own)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=10)


async def test_a_system_that_cannot_refuse_goes_on() -> None:
    with socket.socket() as closed:
        pass
    refuse_clients(closed)
