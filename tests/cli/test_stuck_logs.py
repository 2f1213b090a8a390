"""Nodes whose log goes to where nothing is read: calls go on, and so does the end."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import httpx
import trio
from prometheus_client.parser import text_string_to_metric_families

from tests.functions.build import fnt_path

from ._process import END_SECONDS, SCRIPT, START_SECONDS, clean_env

CALLS = 100
"""Of which each prints three lines, which are logged: far more than a pipe and the queue hold."""
QUEUE = 20


@contextmanager
def full_pipe() -> Iterator[tuple[int, int]]:
    """Reader and writer; small, so that little fills it."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    try:
        yield reader, writer
    finally:
        os.close(reader)


@asynccontextmanager
async def stuck_node(
    folder: Path, dest: str, stderr: int
) -> AsyncIterator[tuple[trio.Process, httpx.AsyncClient]]:
    """A node that keeps functions in a file, and a client of it."""
    functions = folder / "functions.yaml"
    functions.write_text(
        f"apps: [{{name: a, fns: [{{name: f, id: f, image: '{fnt_path()}', memory: 32}}]}}]\n"
    )
    ready, ready_end = os.pipe()
    env = {
        "FN_LOG_DEST": dest,
        "FN_LOG_FORMAT": "json",
        "FN_LOG_LEVEL": "debug",
        "FN_LOG_QUEUE_LINES": str(QUEUE),
    }
    options = ("--driver", "process", "--functions", str(functions), "--bind", "127.0.0.1:0")
    process = await trio.lowlevel.open_process(
        [str(SCRIPT), "serve", *options, "--ready-fd", str(ready_end)],
        stderr=stderr,
        pass_fds=[ready_end],
        env=clean_env(env),
    )
    os.close(ready_end)
    try:
        async with trio.lowlevel.FdStream(ready) as stream:
            with trio.fail_after(START_SECONDS):
                said = json.loads(bytes(await stream.receive_some()))
        async with httpx.AsyncClient(base_url=f"http://{said['http'][0]}", timeout=60) as client:
            yield process, client
    finally:
        if process.returncode is None:
            process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


async def call_often(client: httpx.AsyncClient) -> None:
    """None of the calls may wait for the log."""
    for number in range(CALLS):
        answer = await client.post(
            "/invoke/f",
            content=b"%d" % number,
            headers={"Fnt-Do": "outlines=3"},
            timeout=END_SECONDS,
        )
        assert (answer.status_code, answer.content) == (200, b"%d" % number)


async def dropped(client: httpx.AsyncClient) -> int:
    text = (await client.get("/metrics")).text
    for family in text_string_to_metric_families(text):
        if family.name == "fn_log_dropped_count":
            return int(family.samples[0].value)
    raise AssertionError("no such metric")


async def test_a_full_stderr_holds_no_call_up_and_tells_later_what_is_missing(
    tmp_path: Path,
) -> None:
    with full_pipe() as (reader, writer):
        async with stuck_node(tmp_path, "stderr", writer) as (process, client):
            os.close(writer)
            await call_often(client)
            assert await dropped(client) > CALLS
            told = 0
            log = b""
            async with trio.lowlevel.FdStream(os.dup(reader)) as stream:
                with trio.fail_after(END_SECONDS):
                    while told < await dropped(client):
                        log += await stream.receive_some()
                        lines = [json.loads(line) for line in log.split(b"\n")[:-1]]
                        told = sum(
                            line["count"]
                            for line in lines
                            if line["event"] == "log lines were dropped"
                        )
                    process.send_signal(signal.SIGTERM)
                    while data := await stream.receive_some():
                        log += data
                assert await process.wait() == 0
        assert told
        assert json.loads(log.splitlines()[-1])["event"] == "stopped"


async def test_a_stuck_file_does_not_keep_a_node_from_ending(tmp_path: Path) -> None:
    with full_pipe() as (_, writer):
        # A name for the pipe, which does what a disk does that does not answer.
        dest = f"file:///proc/{os.getpid()}/fd/{writer}"
        async with stuck_node(tmp_path, dest, subprocess.DEVNULL) as (process, client):
            await call_often(client)
            assert await dropped(client) > CALLS
            process.send_signal(signal.SIGTERM)
            with trio.fail_after(END_SECONDS):
                assert await process.wait() == 0
            os.close(writer)


async def test_a_node_that_fails_ends_although_it_cannot_say_why(tmp_path: Path) -> None:
    with full_pipe() as (_, writer):
        os.write(writer, b"x" * 4096)
        process = await trio.lowlevel.open_process(
            [str(SCRIPT), "serve", "--functions", str(tmp_path / "none.yaml")],
            stderr=writer,
            env=clean_env(),
        )
        os.close(writer)
        with trio.fail_after(START_SECONDS):
            assert await process.wait() == 1
