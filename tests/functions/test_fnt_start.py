"""How ``fnt`` starts, or does not."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
from contextlib import closing
from pathlib import Path

import httpx
import pytest
import trio

from .process import Output, Watch, names_in, open_fnt, start_fnt


async def test_socket_follows_the_contract(tmp_path: Path) -> None:
    async with open_fnt(tmp_path):
        assert os.readlink(tmp_path / "lsnr.sock") == "phony.sock"
        mode = (tmp_path / "phony.sock").stat().st_mode
        assert stat.S_ISSOCK(mode)
        assert stat.S_IMODE(mode) == 0o666


async def test_direct_socket(tmp_path: Path) -> None:
    async with open_fnt(tmp_path, "direct") as fnt:
        assert stat.S_ISSOCK((tmp_path / "lsnr.sock").lstat().st_mode)
        while True:
            try:
                answer = await fnt.call(content=b"x")
            except httpx.ConnectError:
                continue  # it appears before it listens: that is the point of it
            else:
                break
        assert answer.content == b"x"


@pytest.mark.parametrize(
    ("way", "target", "usable"),
    [
        ("file", None, False),
        ("dangling", "missing.sock", False),
        ("absolute", "{folder}/phony.sock", True),
        ("outside", "outside/phony.sock", True),
    ],
)
async def test_bad_sockets(tmp_path: Path, way: str, target: str | None, usable: bool) -> None:
    async with open_fnt(tmp_path, f"nosocket={way}") as fnt:
        listener = tmp_path / "lsnr.sock"
        if target is None:
            assert stat.S_ISREG(listener.lstat().st_mode)
        else:
            assert os.readlink(listener) == target.format(folder=tmp_path)
        assert stat.S_ISSOCK(listener.stat().st_mode) if usable else not listener.is_socket()
        assert not usable or (await fnt.call(content=b"x")).content == b"x"
        assert fnt.process.poll() is None


@pytest.mark.parametrize(
    ("start", "env", "code", "message"),
    [
        ("exit=7", {}, 7, ""),
        ("eat=1;exit=0", {}, 0, ""),
        ("crash", {}, -signal.SIGABRT, ""),
        ("exit=0;out=begin;err=end", {}, 0, "begin\nend\n"),
        ("exit=x", {}, 2, "exit=x is not a number"),
        ("nonsense", {}, 2, "the key nonsense is not known"),
        ("nosocket=what", {}, 2, "nosocket=what is not known"),
        ("", {"FN_FORMAT": "json"}, 2, "FN_FORMAT must be http-stream, not json"),
        ("", {"FN_LISTENER": "tcp:1"}, 2, "FN_LISTENER must be unix:/path, not tcp:1"),
        ("", {"FN_LISTENER": "unix:/nowhere/x"}, 2, "can't enter /nowhere"),
    ],
)
async def test_ends_at_start(
    tmp_path: Path, start: str, env: dict[str, str], code: int, message: str
) -> None:
    with closing(Output()) as output:
        async with start_fnt(tmp_path, start, output.write_end, **env) as process:
            output.started()
            assert await process.wait() == code
        assert message in output.rest().decode()
    assert not names_in(tmp_path)


async def test_dies_later(tmp_path: Path) -> None:
    async with open_fnt(tmp_path, "die=1;exit=3") as fnt:
        assert await fnt.process.wait() == 3


async def test_delay_and_hang(tmp_path: Path) -> None:
    """The start is announced on stdout, so the test knows that the delay has begun."""
    for start in ("hang", "delay=60000", "until=/none"):
        with closing(Output()) as output:
            async with start_fnt(tmp_path, f"out=up;{start}", output.write_end) as process:
                output.started()
                assert await trio.to_thread.run_sync(output.line) == b"up\n"
                assert process.poll() is None
                assert not names_in(tmp_path)


@pytest.mark.parametrize("start", ["", "noterm"])
async def test_sigterm(tmp_path: Path, start: str) -> None:
    async with open_fnt(tmp_path, start) as fnt:
        fnt.process.send_signal(signal.SIGTERM)
        if start:
            assert (await fnt.call(content=b"still here")).content == b"still here"
        else:
            assert await fnt.process.wait() == -signal.SIGTERM


async def test_output_of_a_request(tmp_path: Path) -> None:
    with closing(Output()) as output:
        async with open_fnt(tmp_path, stdout=output.write_end) as fnt:
            output.started()
            await fnt.call("out=one;err=two;out=three;outlines=1")
        assert output.rest() == b"one\nthree\ntwo\n" + b"o" * 1000 + b"\n"


async def test_long_folder_names(tmp_path: Path) -> None:
    """A socket address has room for 107 bytes; the function does not care."""
    folder = tmp_path / ("d" * 120)
    folder.mkdir()
    with closing(Watch(folder)) as watch:
        async with start_fnt(folder, stdout=subprocess.DEVNULL):
            await watch.wait_for("lsnr.sock")
