"""Runs the real console script as a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import trio

from hostler.cli.process import IMPATIENT_AFTER

from ..support.plain import COMMAND

SCRIPT = Path(sys.executable).parent / "hostler"
START_SECONDS = 60
END_SECONDS = 60
"""Far more than it takes: they end only what hangs, also on a machine that has much else to do."""
OURS = {
    "FN_EXPERIMENTAL_PREFORK_POOL_SIZE": "2",
    "FN_HOT_START_TIMEOUT_MSECS": "60000",
    "FN_REQUEST_HEADER_READ_TIMEOUT": "60",
}


def clean_env(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment without settings of whoever runs the tests. With an engine nodes keep two
    network name spaces ready, not sixteen for each CPU as by default: an engine needs seconds to
    make and to remove so many. On a busy machine functions may take more than five to start, and
    clients more than five from connecting to their request."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("FN_")}
    extra = extra or {}
    ours = {name: value for name, value in OURS.items() if f"{name}_FILE" not in extra}
    return {**env, **ours, **extra}


async def run(
    *args: str,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    seconds: float = START_SECONDS,
) -> Any:
    """Run to the end: ``returncode``, ``stdout`` and ``stderr`` as text."""
    with trio.fail_after(seconds):
        done = await trio.run_process(
            [*COMMAND, *args],
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            env=clean_env(env),
            cwd=cwd,
        )
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
    )


@attrs.define(eq=False)
class NodeProcess:
    """A node that has said that it is ready."""

    process: trio.Process
    ready: dict[str, Any]
    log: bytearray
    log_ended: trio.Event
    _lines: list[dict[str, Any]] = attrs.field(factory=list, init=False)
    _parsed: int = attrs.field(default=0, init=False)

    @property
    def url(self) -> str:
        return f"http://{self.ready['http'][0].replace('[::]', '127.0.0.1')}"

    def lines(self) -> list[dict[str, Any]]:
        """What it has logged. A node writes its log a moment after what it tells of."""
        end = self.log.rfind(b"\n") + 1
        added = bytes(self.log[self._parsed : end]).splitlines()
        self._lines += [json.loads(line) for line in added if line.startswith(b"{")]
        self._parsed = end
        return list(self._lines)

    async def wait_line(self, event: str) -> dict[str, Any]:
        """Until the log has a line with this event."""
        with trio.move_on_after(END_SECONDS):
            while True:
                ended = self.log_ended.is_set()
                for line in self.lines():
                    if event in line["event"]:
                        return line
                if ended:
                    break
                await trio.sleep(0.005)
        raise AssertionError(f"{event!r} was not logged: {self.log.decode()}")


@asynccontextmanager
async def open_node(
    *args: str, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> AsyncIterator[NodeProcess]:
    """A node with JSON logs, ready. Killed at the end if it still runs."""
    reader, writer = os.pipe()
    log, log_ended = bytearray(), trio.Event()
    async with trio.open_nursery() as nursery:
        process = await trio.lowlevel.open_process(
            [*COMMAND, *args, "--log-format", "json", "--ready-fd", str(writer)],
            stderr=subprocess.PIPE,
            pass_fds=[writer],
            env=clean_env(env),
            cwd=cwd,
        )
        os.close(writer)
        assert process.stderr is not None
        nursery.start_soon(_collect, process.stderr, log, log_ended)
        try:
            ready = await _ready(reader, log)
            yield NodeProcess(process, ready, log, log_ended)
        finally:
            if process.returncode is None:
                process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()


async def ends(node: NodeProcess, number: signal.Signals = signal.SIGTERM) -> int:
    """Send a signal; the exit code, once the log is complete."""
    node.process.send_signal(number)
    with trio.fail_after(END_SECONDS):
        await node.log_ended.wait()
        return await node.process.wait()


async def ends_at_once(node: NodeProcess) -> int:
    """Send a second signal to a node that is known to have taken the first, as soon as that can't
    be taken for the same; the exit code."""
    await trio.sleep(IMPATIENT_AFTER)
    return await ends(node)


async def _ready(reader: int, log: bytearray) -> dict[str, Any]:
    received = b""
    async with trio.lowlevel.FdStream(reader) as stream:
        with trio.fail_after(START_SECONDS):
            while not received.endswith(b"\n"):
                data = await stream.receive_some()
                assert data, f"the node ended before it was ready: {log.decode()}"
                received += data
    result: dict[str, Any] = json.loads(received)
    return result


async def _collect(stream: trio.abc.ReceiveStream, log: bytearray, ended: trio.Event) -> None:
    async with stream:
        while data := await stream.receive_some():
            log += data
    ended.set()
