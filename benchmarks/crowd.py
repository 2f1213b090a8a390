"""Clients that come, pause and leave by a plan: ``python -m benchmarks.crowd`` reads a `CrowdPlan`
and prints a `CrowdResult`.

`benchmarks.load` keeps connections as busy as it can. Here is what else clients do: some more from
some moment on, a pause before the next call, calls that come whether or not earlier ones were
answered, clients that leave. One thread, plain sockets and epoll, in a process of its own:
thousands of connections that wait cost nothing. How late it was with what had a time is among the
results.
"""

from __future__ import annotations

import heapq
import itertools
import random
import resource
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable

import attrs
import msgspec

from ._answers import Answer, BadAnswer
from ._measure import RunFailed
from ._plan import BROKEN, LEFT, Answered, Crowd, CrowdPlan, CrowdResult
from .load import request_bytes

AFTER_FAILURE = 0.1
"""Seconds that a client in a loop waits after an answer that is none, so that fast errors do not
take the machine from the others."""
PIECE = 1 << 16


def run_crowd(plan: CrowdPlan) -> CrowdResult:
    """In a process of its own; returns when the last client has its answer or has left. Raises
    `RunFailed` if that process fails."""
    done = subprocess.run(
        [sys.executable, "-m", f"{__package__}.crowd"],
        input=msgspec.json.encode(plan),
        stdout=subprocess.PIPE,
        check=False,
    )
    if done.returncode:
        raise RunFailed(f"the load generator ended with code {done.returncode}")
    return msgspec.json.decode(done.stdout, type=CrowdResult)


@attrs.define(eq=False)
class _Client:
    """One connection, and in a loop one call after the other on it."""

    crowd: int
    number: int = 0
    """Of those in a loop; the last to come is the first to go."""
    patience: float | None = None
    connection: socket.socket | None = None
    connected: bool = False
    calling: bool = False
    ask: int = 0
    sent_at: float = 0.0
    begun: int = 0
    """Calls so far, so that a patience which is over can tell whose it was."""
    answer: Answer = attrs.Factory(Answer)


class _Run:
    def __init__(self, plan: CrowdPlan) -> None:
        self._plan = plan
        self._requests = [
            [request_bytes(ask.path, ask.headers, bytes(ask.body_size)) for ask in crowd.asks]
            for crowd in plan.crowds
        ]
        self._weights = [list(itertools.accumulate(crowd.weights)) for crowd in plan.crowds]
        self._random = random.Random(plan.seed)
        self._epoll = select.epoll()
        self._clients: dict[int, _Client] = {}
        """By their connection's number."""
        self._calling = 0
        self._wanted = [0] * len(plan.crowds)
        """Clients in a loop that there should be now."""
        self._looping: list[list[_Client]] = [[] for _ in plan.crowds]
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._answered: list[Answered] = []
        self._late: list[float] = []
        self._first_error = ""

    def run(self) -> CrowdResult:
        for index, crowd in enumerate(self._plan.crowds):
            self._schedule(index, crowd)
        began, cpu_began = time.monotonic(), time.process_time()
        self._start = began
        end = self._plan.seconds + self._plan.limit
        while (self._calling or self._now() < self._plan.seconds) and self._now() < end:
            self._turn(end)
        for client in [client for client in self._clients.values() if client.calling]:
            self._finished(client, BROKEN, f"no answer within {self._plan.limit} s after the end")
        return CrowdResult(
            started_at=began,
            answered=self._answered,
            cpu_s=time.process_time() - cpu_began,
            late_p99_s=sorted(self._late)[len(self._late) * 99 // 100] if self._late else 0.0,
            late_max_s=max(self._late, default=0.0),
            first_error=self._first_error,
        )

    def _schedule(self, index: int, crowd: Crowd) -> None:
        for at, clients in crowd.clients:
            self._at(at, lambda clients=clients: self._step(index, clients))  # type: ignore[misc]
        for number, at in enumerate(crowd.arrivals):
            patience = crowd.patience[number] if crowd.patience else None
            client = _Client(index, patience=patience)
            self._at(at, lambda client=client: self._begin(client))  # type: ignore[misc]
        self._at(self._plan.seconds, lambda: self._step(index, 0))

    def _now(self) -> float:
        return time.monotonic() - self._start

    def _at(self, when: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._timers, (when, next(self._order), action))

    def _turn(self, end: float) -> None:
        next_at = self._timers[0][0] if self._timers else end
        for fd, _events in self._epoll.poll(max(0.0, min(next_at, end) - self._now())):
            if not (client := self._clients.get(fd)):
                continue
            try:
                if not client.calling:  # a server may end a connection that rests
                    self._close(client)
                elif not client.connected:
                    self._connected(client)
                else:
                    self._receive(client)
            except (BadAnswer, OSError, ValueError) as error:
                self._finished(client, BROKEN, f"{type(error).__name__}: {error}")
        now = self._now()
        while self._timers and self._timers[0][0] <= now:
            when, _, action = heapq.heappop(self._timers)
            self._late.append(now - when)
            action()
            now = self._now()

    def _step(self, index: int, clients: int) -> None:
        """From now on so many clients in a loop; those that are too many finish their call."""
        self._wanted[index] = clients
        looping = self._looping[index]
        while len(looping) > clients:
            client = looping.pop()
            if client.connection and not client.calling:
                self._close(client)
        while len(looping) < clients:
            looping.append(_Client(index, number=len(looping)))
            self._begin(looping[-1])

    def _begin(self, client: _Client) -> None:
        crowd = self._plan.crowds[client.crowd]
        if crowd.clients and client.number >= self._wanted[client.crowd]:
            return
        if crowd.weights:
            weights = self._weights[client.crowd]
            (client.ask,) = self._random.choices(range(len(weights)), cum_weights=weights)
        client.sent_at = self._now()
        client.begun += 1
        client.calling = True
        self._calling += 1
        client.answer.begin()
        if client.patience is not None:
            begun = client.begun
            self._at(client.sent_at + client.patience, lambda: self._leave(client, begun))
        if client.connection is None:
            self._connect(client)
        else:
            self._send(client, client.connection)

    def _connect(self, client: _Client) -> None:
        """Without waiting: a server that is slow to accept must not hold up the others."""
        host, _, port = self._plan.address.rpartition(":")
        connection = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.connect_ex((host.strip("[]"), int(port)))
        client.connection, client.connected = connection, False
        self._clients[connection.fileno()] = client
        self._epoll.register(connection.fileno(), select.EPOLLOUT)

    def _connected(self, client: _Client) -> None:
        assert client.connection
        if error := client.connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(error, "could not connect")
        client.connected = True
        self._epoll.modify(client.connection.fileno(), select.EPOLLIN)
        self._send(client, client.connection)

    def _send(self, client: _Client, connection: socket.socket) -> None:
        request = self._requests[client.crowd][client.ask]
        try:
            if connection.send(request) < len(request):
                raise BadAnswer("the kernel did not take a whole request")
        except OSError as error:
            self._finished(client, BROKEN, f"{type(error).__name__}: {error}")

    def _receive(self, client: _Client) -> None:
        assert client.connection
        data = client.connection.recv(PIECE)
        if not data:
            raise BadAnswer("the connection ended unanswered")
        if client.answer.feed(data):
            self._finished(client, client.answer.status, "")

    def _leave(self, client: _Client, begun: int) -> None:
        if client.calling and client.begun == begun:
            self._finished(client, LEFT, "")

    def _finished(self, client: _Client, status: int, error: str) -> None:
        now = self._now()
        client.calling = False
        self._calling -= 1
        answer, crowd = client.answer, self._plan.crowds[client.crowd]
        told = status == 503 and answer.has_header(b"retry-after")
        self._answered.append(
            Answered(client.crowd, client.ask, client.sent_at, now - client.sent_at, status, told)
        )
        self._first_error = self._first_error or error
        goes_on = bool(crowd.clients) and client.number < self._wanted[client.crowd]
        if status < 0 or answer.close or not goes_on:
            self._close(client)
        if goes_on:
            pause = crowd.pause if status == 200 else max(crowd.pause, AFTER_FAILURE)
            if pause:
                self._at(now + pause, lambda: self._begin(client))
            else:
                self._begin(client)

    def _close(self, client: _Client) -> None:
        assert client.connection
        self._epoll.unregister(client.connection.fileno())
        self._clients.pop(client.connection.fileno())
        client.connection.close()
        client.connection = None


def main() -> None:
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # a connection for each that waits
    plan = msgspec.json.decode(sys.stdin.buffer.read(), type=CrowdPlan)
    sys.stdout.buffer.write(msgspec.json.encode(_Run(plan).run()))


if __name__ == "__main__":
    main()
