"""The load generator: ``python -m benchmarks.load`` reads a plan and prints a result.

One thread, plain sockets and epoll. Its own CPU time per request is among the results, and the
"ceiling" scenarios measure how much it can do.
"""

from __future__ import annotations

import itertools
import select
import socket
import sys
import time
from array import array
from collections.abc import Mapping

import msgspec

from ._answers import Answer, BadAnswer
from ._plan import BEGIN, END, LoadPlan, LoadResult

MAX_ERRORS = 100
"""After that many the rest of the run would tell nothing."""
PATIENCE = 30.0
"""Seconds without any answer on any connection after which the server counts as stuck."""


def dial(address: str) -> socket.socket:
    if address.startswith("unix:"):
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.connect(address.removeprefix("unix:"))
    else:
        host, _, port = address.rpartition(":")
        connection = socket.create_connection((host.strip("[]"), int(port)))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def request_of(plan: LoadPlan, body: bytes) -> bytes:
    return request_bytes(plan.path, plan.headers, body)


def requests_of(plan: LoadPlan, body: bytes) -> list[bytes]:
    """One for each path, in their order."""
    return [request_bytes(path, plan.headers, body) for path in (plan.path, *plan.others)]


def request_bytes(path: str, headers: Mapping[str, str], body: bytes) -> bytes:
    headers = {
        "Host": "localhost",
        "Content-Type": "application/octet-stream",
        "Content-Length": str(len(body)),
        **headers,
    }
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {headers[name]}" for name in headers)]
    return "\r\n".join([*lines, "", ""]).encode() + body


def post(address: str, path: str, body: bytes = b"", headers: Mapping[str, str] = {}) -> Answer:
    """One call on a connection of its own. Raises `BadAnswer` and ``OSError``."""
    answer = Answer()
    with dial(address) as connection:
        connection.settimeout(PATIENCE)
        connection.sendall(request_bytes(path, headers, body))
        while not answer.feed(data := connection.recv(1 << 18)):
            if not data:
                raise BadAnswer("the connection ended unanswered")
    return answer


class Load:
    """One run of a plan."""

    def __init__(self, plan: LoadPlan) -> None:
        self._plan = plan
        self._body = bytes(i * 7 % 256 for i in range(plan.body_size))
        self._requests = itertools.cycle(requests_of(plan, self._body))
        self._epoll = select.epoll()
        self._connections: dict[int, socket.socket] = {}
        self._answers: dict[int, Answer] = {}
        self._sent_at: dict[int, int] = {}
        self._unsent: dict[int, memoryview] = {}
        """Of requests that don't fit into what the kernel buffers: answers may come meanwhile."""
        self._latencies = array("Q")
        self._reconnects = 0
        self._errors = 0
        self._again = True
        """Whether an answer is followed by the next request."""
        self._first_error = ""

    def run(self) -> LoadResult:
        for _ in range(self._plan.connections):
            self._open()
        self._until(time.perf_counter_ns() + int(self._plan.warm_up * 1e9))
        self._latencies = array("Q")
        self._reconnects = self._errors = 0
        _say(BEGIN)
        begin, cpu_begin = time.perf_counter_ns(), time.process_time_ns()
        self._until(begin + int(self._plan.seconds * 1e9))
        end, cpu_end = time.perf_counter_ns(), time.process_time_ns()
        _say(END)
        result = self._result(end - begin, cpu_end - cpu_begin)
        self._finish()
        return result

    def _result(self, wall_ns: int, cpu_ns: int) -> LoadResult:
        latencies = sorted(self._latencies) or [0]

        def percentile(percent: int) -> float:
            return latencies[min(len(latencies) * percent // 100, len(latencies) - 1)] / 1e3

        return LoadResult(
            requests=len(self._latencies),
            seconds=wall_ns / 1e9,
            p50_us=percentile(50),
            p90_us=percentile(90),
            p99_us=percentile(99),
            max_us=latencies[-1] / 1e3,
            cpu_us=cpu_ns / 1e3,
            reconnects=self._reconnects,
            errors=self._errors,
            first_error=self._first_error,
        )

    def _open(self) -> None:
        connection = dial(self._plan.address)
        connection.setblocking(False)
        self._connections[connection.fileno()] = connection
        self._answers[connection.fileno()] = Answer()
        self._epoll.register(connection.fileno(), select.EPOLLIN)
        self._send(connection.fileno())

    def _reopen(self, fd: int) -> None:
        self._epoll.unregister(fd)
        self._unsent.pop(fd, None)
        self._connections.pop(fd).close()
        if self._again:
            self._open()

    def _send(self, fd: int) -> None:
        self._answers[fd].begin()
        self._sent_at[fd] = time.perf_counter_ns()
        request = next(self._requests)
        sent = self._connections[fd].send(request)
        if sent < len(request):
            self._unsent[fd] = memoryview(request)[sent:]
            self._epoll.modify(fd, select.EPOLLIN | select.EPOLLOUT)

    def _send_more(self, fd: int) -> None:
        rest = self._unsent.pop(fd)
        rest = rest[self._connections[fd].send(rest) :]
        if rest:
            self._unsent[fd] = rest
        else:
            self._epoll.modify(fd, select.EPOLLIN)

    def _until(self, end: int) -> None:
        while self._connections and time.perf_counter_ns() < end and self._errors < MAX_ERRORS:
            ready = self._epoll.poll(PATIENCE)
            if not ready:
                raise BadAnswer(f"no answer on any connection for {PATIENCE} s")
            for fd, events in ready:
                try:
                    if events & select.EPOLLOUT:
                        self._send_more(fd)
                    if events & ~select.EPOLLOUT:
                        self._receive(fd)
                except (BadAnswer, OSError, ValueError) as error:
                    self._errors += 1
                    self._first_error = self._first_error or f"{type(error).__name__}: {error}"
                    self._reopen(fd)

    def _finish(self) -> None:
        """Have what is under way answered: who leaves a call has its function killed, whose CPU
        time is just being read."""
        self._again = False
        self._until(time.perf_counter_ns() + int(PATIENCE * 1e9))
        for connection in self._connections.values():
            connection.close()

    def _receive(self, fd: int) -> None:
        answer = self._answers[fd]
        complete = answer.receive(self._connections[fd])
        if complete is None:
            raise BadAnswer("the connection ended " + ("early" if answer.started else "unanswered"))
        if not complete:
            return
        if fd in self._unsent:
            raise BadAnswer(f"status {answer.status} before the request was sent")
        took = time.perf_counter_ns() - self._sent_at[fd]
        self._check(answer)
        self._latencies.append(took)
        if not self._again:
            self._epoll.unregister(fd)
            self._connections.pop(fd).close()
        elif answer.close:
            self._reconnects += 1
            self._reopen(fd)
        else:
            self._send(fd)

    def _check(self, answer: Answer) -> None:
        plan = self._plan
        if answer.status != plan.status:
            raise BadAnswer(f"status {answer.status}: {answer.body[:200]!r}")
        if plan.any_answer:
            return
        if plan.answer_size is None:
            if answer.body != self._body:
                raise BadAnswer(f"not an echo: {answer.body[:60]!r}")
        elif len(answer.body) != plan.answer_size:
            raise BadAnswer(f"{len(answer.body)} bytes instead of {plan.answer_size}")


def _say(line: bytes) -> None:
    sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()


def main() -> None:
    plan = msgspec.json.decode(sys.stdin.buffer.readline(), type=LoadPlan)
    _say(msgspec.json.encode(Load(plan).run()) + b"\n")


if __name__ == "__main__":
    main()
