"""Nodes and commands that were started with standard streams closed."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import trio

from ._process import END_SECONDS, SCRIPT, START_SECONDS, clean_env

ALL = (0, 1, 2)


def without(closed: tuple[int, ...], *args: str) -> list[str]:
    """A shell is what closes them; ``exec`` leaves its process to the command."""
    redirections = " ".join(f"{number}>&-" for number in closed)
    return ["sh", "-c", f'exec "$@" {redirections}', "sh", str(SCRIPT), *args]


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), ALL])
async def test_a_node_has_nothing_else_in_their_places(
    closed: tuple[int, ...], tmp_path: Path
) -> None:
    reader, writer = os.pipe()
    command = without(closed, "serve", "--driver", "process", "--bind", "127.0.0.1:0")
    process = await trio.lowlevel.open_process(
        [*command, "--ready-fd", str(writer)], pass_fds=[writer], env=clean_env(), cwd=tmp_path
    )
    os.close(writer)
    try:
        async with trio.lowlevel.FdStream(reader) as ready:
            with trio.fail_after(START_SECONDS):
                assert await ready.receive_some()
        places = {number: os.readlink(f"/proc/{process.pid}/fd/{number}") for number in closed}
        assert places == dict.fromkeys(closed, os.devnull)
        process.send_signal(signal.SIGTERM)
        with trio.fail_after(END_SECONDS):
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


@pytest.mark.parametrize(("args", "code"), [(("version",), 0), (("nonsense",), 2)])
async def test_a_command_ends_as_it_does_with_them(args: tuple[str, ...], code: int) -> None:
    ended = await trio.run_process(without(ALL, *args), check=False, env=clean_env())
    assert ended.returncode == code


async def test_those_that_are_open_stay() -> None:
    ended = await trio.run_process(without((0, 2), "version"), capture_stdout=True, env=clean_env())
    assert ended.stdout
