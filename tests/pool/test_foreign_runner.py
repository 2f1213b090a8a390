"""Fn's own runners are never asked for a reservation; and if they are, nothing is lost."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio

from hostler import wire
from hostler.bodies import BytesBody
from hostler.pool import GrpcRunner, WarmPlacer
from hostler.testing import FakePool

from .fakes import RecordingWriter, fresh_metrics, make_call

pytestmark = pytest.mark.process

ROOT = Path(__file__).resolve().parents[2]


@attrs.define(eq=False)
class Bench:
    runner: GrpcRunner
    lines: trio.abc.ReceiveStream

    async def line(self) -> str:
        text = b""
        while not text.endswith(b"\n"):
            byte = await self.lines.receive_some(1)
            assert byte, "the runner has ended"
            text += byte
        return text.decode().strip()

    async def call(self, body: bytes) -> bytes:
        writer = RecordingWriter()
        placer = WarmPlacer(metrics=fresh_metrics())
        await placer.place_call(
            FakePool([self.runner]), make_call(body=BytesBody(body), writer=writer)
        )
        return writer.data


@asynccontextmanager
async def open_bench(path: Path) -> AsyncIterator[Bench]:
    command = [sys.executable, "-m", "tests.pool.foreign_runner", str(path)]
    with trio.fail_after(60):
        async with wire.open_loop() as loop, trio.open_nursery() as nursery:
            process: trio.Process = await nursery.start(
                partial(
                    trio.run_process,
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    cwd=ROOT,
                )
            )
            assert process.stdout is not None
            assert process.stdin is not None
            bench = Bench(None, process.stdout)  # type: ignore[arg-type]
            client = wire.GrpcRunnerClient(
                await bench.line(), wire.ConnectOptions(connect_timeout=60), loop=loop
            )
            bench.runner = GrpcRunner(client)
            yield bench
            await bench.runner.aclose()
            await process.stdin.aclose()


async def test_a_foreign_runner_gets_whole_calls(tmp_path: Path) -> None:
    async with open_bench(tmp_path) as bench:
        for body in (b"1", b"2" * 100_000):
            assert await bench.call(body) == body
            assert await bench.line() == "try"
            assert not bench.runner.reserves


async def test_a_runner_that_was_replaced_by_a_foreign_one_gets_the_call_all_the_same(
    tmp_path: Path,
) -> None:
    async with open_bench(tmp_path) as bench:
        bench.runner._reserves = True  # as its predecessor had said
        assert await bench.call(b"body") == b"body"
        assert [await bench.line(), await bench.line()] == ["None", "try"]
        assert not bench.runner.reserves
