"""A DNS server on loopback whose records a test changes while it serves."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import trio

from tests.support.ports import free_port


@attrs.define(eq=False)
class Server:
    """Answers UDP and TCP from ``records``: (name, kind) to (TTL, texts)."""

    port: int
    records: dict[tuple[str, str], tuple[int, list[str]]] = attrs.Factory(dict)
    rcode: dns.rcode.Rcode = dns.rcode.NOERROR
    """What all queries are answered with, if it is an error."""
    failing: set[str] = attrs.Factory(set)
    """Kinds of records for which the answer is SERVFAIL."""
    silent: bool = False
    truncates: bool = False
    """Whether answers over UDP say that TCP must be used."""
    asked: list[tuple[str, str, str]] = attrs.Factory(list)
    """(name, kind, udp or tcp)."""
    _news: trio.Event = attrs.Factory(trio.Event)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def set(self, name: str, kind: str, texts: list[str], *, ttl: int = 1) -> None:
        self.records[name, kind] = (ttl, texts)

    async def until_asked(self, more: int = 1) -> None:
        """Until that many further queries have come. The caller has a deadline."""
        wanted = len(self.asked) + more
        while len(self.asked) < wanted:
            await self._news.wait()

    def answer(self, wire: bytes, way: str) -> bytes | None:
        query = dns.message.from_wire(wire)
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True)
        kind = dns.rdatatype.to_text(question.rdtype)
        self.asked.append((name, kind, way))
        self._news.set()
        self._news = trio.Event()
        if self.silent:
            return None
        response = dns.message.make_response(query)
        response.set_rcode(dns.rcode.SERVFAIL if kind in self.failing else self.rcode)
        if response.rcode() == dns.rcode.NOERROR:
            self._fill(response, name, kind)
        if way == "udp" and self.truncates:
            response.flags |= dns.flags.TC
            response.answer.clear()
        return response.to_wire()

    def _fill(self, response: dns.message.Message, name: str, kind: str) -> None:
        ttl, texts = self.records.get((name, kind), (0, []))
        if texts:
            response.answer.append(dns.rrset.from_text(f"{name}.", ttl, "IN", kind, *texts))
        elif name not in {known for known, _ in self.records}:
            response.set_rcode(dns.rcode.NXDOMAIN)


@asynccontextmanager
async def open_dns_server() -> AsyncIterator[Server]:
    """Serves on one port of 127.0.0.1 until the block ends."""
    port = free_port()
    listeners = await trio.open_tcp_listeners(port, host="127.0.0.1")
    udp = trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    await udp.bind(("127.0.0.1", port))
    server = Server(port)

    async def serve_udp() -> None:
        while True:
            wire, peer = await udp.recvfrom(4096)
            if (answer := server.answer(wire, "udp")) is not None:
                await udp.sendto(answer, peer)

    async def serve_tcp(stream: trio.SocketStream) -> None:
        while (head := await stream.receive_some(2)) and len(head) == 2:
            wire = await stream.receive_some(int.from_bytes(head, "big"))
            if (answer := server.answer(bytes(wire), "tcp")) is not None:
                await stream.send_all(len(answer).to_bytes(2, "big") + answer)

    with udp:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_udp)
            await nursery.start(trio.serve_listeners, serve_tcp, listeners)
            yield server
            nursery.cancel_scope.cancel()
