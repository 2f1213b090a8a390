"""The queue before a log's destination: nobody waits, and what is lost is counted and told."""

from __future__ import annotations

import fcntl
import os
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from hostler import logs
from hostler.logs import BATCH, MAX_LINE, FileSink, LogWriter, Sink, SyslogSink, file_sink

LIMIT = 60
"""Seconds for what should take none."""
PIPE = 4096
"""Bytes: the least that a pipe can hold."""


class Gated(Sink):
    """Keeps what it gets, and waits whenever it is shut; every ``fails``-th write is lost."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.open = threading.Event()
        self.fails = False
        self.entered = threading.Event()
        self.closed = threading.Event()

    def write(self, lines: Sequence[str]) -> None:
        self.entered.set()
        assert self.open.wait(LIMIT)
        if self.fails:
            raise OSError
        self.lines += lines

    def close(self) -> None:
        self.closed.set()


@contextmanager
def opened(sink: Sink, lines: int = 1000) -> Iterator[LogWriter]:
    """A writer that says what it has dropped as a line."""
    writer = LogWriter(sink, lines, lambda count: writer.msg(f"dropped {count}"))
    try:
        yield writer
    finally:
        writer.close(LIMIT)


def stuck(sink: Gated, writer: LogWriter) -> None:
    """Let the first line be under way."""
    writer.msg("first")
    assert sink.entered.wait(LIMIT)


def test_lines_come_in_order_and_all_of_them() -> None:
    sink = Gated()
    sink.open.set()
    lines = [f"line {number}" for number in range(3 * BATCH)]
    with opened(sink) as writer:
        for line in lines:
            writer.msg(line)
    assert sink.lines == lines
    assert sink.closed.is_set()
    assert writer.dropped == 0


@pytest.mark.parametrize(
    ("room", "enough", "line"),
    [(1, 1, ""), (10, 5, ""), (10 * BATCH, BATCH, ""), (10, 2, "x" * 3 * MAX_LINE)],
)
def test_enough_lines_are_written_without_waiting_for_more(
    monkeypatch: pytest.MonkeyPatch, room: int, enough: int, line: str
) -> None:
    monkeypatch.setattr(logs, "GATHER_SECONDS", 10 * LIMIT)
    sink = Gated()
    with opened(sink, lines=room) as writer:
        for _ in range(enough):
            writer.msg(line)
        assert sink.entered.wait(LIMIT)
        sink.open.set()


def test_closing_does_not_wait_for_more_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "GATHER_SECONDS", 10 * LIMIT)
    sink = Gated()
    sink.open.set()
    with opened(sink) as writer:
        writer.msg("line")
    assert sink.lines == ["line"]
    assert sink.closed.is_set()


def test_what_does_not_fit_is_counted_and_told_once() -> None:
    sink = Gated()
    with opened(sink, lines=5) as writer:
        stuck(sink, writer)
        for number in range(20):
            writer.msg(str(number))
        assert writer.dropped == 16
        sink.open.set()
    assert sink.lines == ["first", "0", "1", "2", "3", "dropped 16"]


def test_long_lines_count_for_more() -> None:
    sink = Gated()
    with opened(sink, lines=5) as writer:
        stuck(sink, writer)
        for _ in range(3):
            writer.msg("x" * 3 * MAX_LINE)
        assert writer.dropped == 1
        sink.open.set()


def test_what_a_destination_loses_is_told_when_it_is_back() -> None:
    sink = Gated()
    sink.fails = True
    with opened(sink) as writer:
        stuck(sink, writer)
        writer.msg("second")
        sink.open.set()
        while writer.dropped < 2:  # both writes
            pass
        assert sink.lines == []
        sink.fails = False
        writer.msg("third")
    assert sink.lines == ["third", "dropped 2"]


def test_closing_does_not_wait_for_what_is_stuck() -> None:
    sink = Gated()
    writer = LogWriter(sink, 10, lambda count: None)
    stuck(sink, writer)
    writer.close(0.01)
    assert not sink.closed.is_set()
    writer.msg("late")
    assert writer.dropped == 1
    sink.open.set()
    assert sink.closed.wait(LIMIT)
    assert sink.lines == ["first"]


def test_logging_within_logging_does_not_deadlock() -> None:
    """Python may collect garbage, whose end may be logged, at any moment."""
    sink = Gated()
    sink.open.set()

    class Line(str):
        __slots__ = ()

        def __len__(self) -> int:
            writer.msg("inner")
            return 1

    with opened(sink) as writer:
        writer.msg(Line("outer"))
    assert set(sink.lines) == {"outer", "inner"}


def small_pipe() -> tuple[int, int]:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE)
    return reader, writer


def read_to_the_end(descriptor: int, texts: list[str]) -> None:
    with open(descriptor) as file:
        texts.append(file.read())


class EnteredSink(FileSink):
    """Tells when it is written to first."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, own=True)
        self.entered = threading.Event()

    def write(self, lines: Sequence[str]) -> None:
        self.entered.set()
        super().write(lines)


@pytest.mark.parametrize("blocking", [True, False])
def test_a_full_pipe_loses_no_more_than_has_no_room(blocking: bool) -> None:
    reader, end = small_pipe()
    filling = "x" * (PIPE - 1)
    os.write(end, f"{filling}\n".encode())
    os.set_blocking(end, blocking)
    sink = EnteredSink(end)
    lines = [f"{number:0100}" for number in range(500)]
    texts: list[str] = []
    received = threading.Thread(target=read_to_the_end, args=(reader, texts))
    with opened(sink, lines=20) as writer:
        for line in lines:
            writer.msg(line)
        assert writer.dropped == 480
        assert sink.entered.wait(LIMIT)
        received.start()
    received.join(LIMIT)
    assert texts[0].splitlines() == [filling, *lines[:20], "dropped 480"]


def test_a_pipe_without_a_reader_ends_nothing() -> None:
    reader, end = small_pipe()
    os.close(reader)
    with opened(FileSink(end, own=True)) as writer:
        writer.msg("line")
    assert writer.dropped == 1


def test_what_cannot_be_encoded_is_escaped(tmp_path: Path) -> None:
    with opened(file_sink(str(tmp_path / "log"))) as writer:
        writer.msg("half \udc80 of a pair")
    assert (tmp_path / "log").read_text() == "half \\udc80 of a pair\n"


def test_a_syslog_server_that_comes_back_gets_lines_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(LIMIT)
        sink = SyslogSink("127.0.0.1", server.getsockname()[1], socket.SOCK_STREAM, "")
        with opened(sink) as writer:
            first, _ = server.accept()
            writer.msg("one")
            assert b"one" in first.recv(4096)
            first.close()
            server.settimeout(0.01)
            while True:  # what is sent before the news has come is lost
                writer.msg("two")
                try:
                    second, _ = server.accept()
                except TimeoutError:
                    continue
                break
            with second:
                second.settimeout(LIMIT)
                assert b"two" in second.recv(4096)


def test_a_syslog_server_that_reads_nothing_holds_nobody_up() -> None:
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        server.bind(("127.0.0.1", 0))
        server.listen()
        sink = SyslogSink("127.0.0.1", server.getsockname()[1], socket.SOCK_STREAM, "")
        writer = LogWriter(sink, 100, lambda count: None)
        while not writer.dropped:  # until all buffers are full
            writer.msg("x" * 1000)
        writer.close(0.01)
