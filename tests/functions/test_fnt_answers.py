"""What one request can ask ``fnt`` for."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import trio

from .process import Fnt, open_fnt


@pytest.fixture
async def fnt(tmp_path: Path) -> AsyncIterator[Fnt]:
    async with open_fnt(tmp_path) as fnt:
        yield fnt


async def test_echo_is_the_default(fnt: Fnt) -> None:
    answer = await fnt.call(content=b"hello", headers={"Content-Type": "text/x"})
    assert answer.status_code == 200
    assert answer.content == b"hello"
    assert answer.headers["Content-Type"] == "text/x"
    assert answer.headers["Fn-Fdk-Version"] == "fnt/1"


async def test_status_and_headers(fnt: Fnt) -> None:
    do = "status=502;fnstatus=418;header=X-A:1%3B2;header=X-A: 3;type=a/b;bighead=5000"
    answer = await fnt.call(do)
    assert answer.status_code == 502
    assert answer.headers["Fn-Http-Status"] == "418"
    assert answer.headers.get_list("X-A") == ["1;2", "3"]
    assert answer.headers["Content-Type"] == "a/b"
    assert len(answer.headers["Fnt-Big"]) == 5000


async def test_a_triggers_prefix_is_understood(fnt: Fnt) -> None:
    answer = await fnt.client.post("/call", headers={"Fn-Http-H-Fnt-Do": "status=504"})
    assert answer.status_code == 504


@pytest.mark.parametrize("status", [204, 304])
async def test_statuses_without_a_body(fnt: Fnt, status: int) -> None:
    answer = await fnt.call(f"status={status}", content=b"dropped")
    assert answer.status_code == status
    assert answer.content == b""
    assert (await fnt.call(content=b"next")).content == b"next"


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537, 1_000_000])
async def test_generated_body(fnt: Fnt, framing: str, size: int) -> None:
    answer = await fnt.call(f"size={size};framing={framing}")
    assert answer.content == (b"0123456789abcdef" * (size // 16 + 1))[:size]
    assert ("content-length" in answer.headers) == (framing == "length")
    assert ("transfer-encoding" in answer.headers) == (framing == "chunked")


@pytest.mark.parametrize("do", ["lines=3,every=1", "lines=3;every=1"])
async def test_lines(fnt: Fnt, do: str) -> None:
    answer = await fnt.call(do)
    assert answer.text == "line 1\nline 2\nline 3\n"
    assert answer.headers["Transfer-Encoding"] == "chunked"


@pytest.mark.parametrize("do", ["sleep=50", "readdelay=50", "mid=50", "lines=2,every=50"])
async def test_waits(fnt: Fnt, do: str) -> None:
    begin = time.monotonic()
    answer = await fnt.call(do, content=b"hello")
    assert answer.status_code == 200
    assert time.monotonic() - begin >= 0.05


def cpu_ns(pid: int) -> int:
    """The CPU time of a process, by the clock of clock_getcpuclockid(3) on Linux."""
    return time.clock_gettime_ns((~pid << 3) | 2)


async def test_a_request_uses_cpu_time(fnt: Fnt) -> None:
    pid = int((await fnt.call("pid")).text)
    before = cpu_ns(pid)
    assert (await fnt.call("burn=50", content=b"hello")).content == b"hello"
    assert cpu_ns(pid) - before >= 50_000_000


async def until_another(fnt: Fnt) -> None:
    """Until a request has come besides those of this, of a function that had none before."""
    for own in itertools.count(1):
        if (await fnt.call("who")).json()["request"] > own:
            return


async def test_a_request_waits_for_a_file(fnt: Fnt, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    answers: list[bytes] = []

    async def wait() -> None:
        answers.append((await fnt.call(f"until={gate}", content=b"x")).content)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await until_another(fnt)
        assert answers == []
        gate.touch()
    assert answers == [b"x"]


async def test_waiting_requests_do_not_hold_up_others(fnt: Fnt) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fnt.call, "hang")
        await until_another(fnt)
        assert (await fnt.call(content=b"x")).content == b"x"
        nursery.cancel_scope.cancel()


async def test_description(fnt: Fnt) -> None:
    answer = await fnt.call("env", content=b"12345", headers={"X-Quote": 'a"b\\c'})
    seen = answer.json()
    assert answer.headers["Content-Type"] == "application/json"
    assert seen["pid"] == fnt.process.pid
    assert seen["uid"] == os.getuid()
    assert seen["body_size"] == 5
    assert seen["framing"] == "length"
    assert seen["env"]["FN_FORMAT"] == "http-stream"
    assert ["X-Quote", 'a"b\\c'] in seen["headers"]


async def test_identity_tells_processes_apart(fnt: Fnt, tmp_path: Path) -> None:
    first = (await fnt.call("who")).json()
    second = (await fnt.call("who")).json()
    assert (second["id"], second["request"]) == (first["id"], first["request"] + 1)
    other_folder = tmp_path / "other"
    other_folder.mkdir()
    async with open_fnt(other_folder) as other:
        assert (await other.call("who")).json()["id"] != first["id"]


async def test_files(fnt: Fnt, tmp_path: Path) -> None:
    path = tmp_path / "stored"
    assert (await fnt.call(f"write={path}", content=b"kept")).text == "ok"
    assert path.read_bytes() == b"kept"
    assert (await fnt.call(f"read={path}")).content == b"kept"
    assert (await fnt.call("write=/nowhere/x")).text == "error: No such file or directory"
    assert (await fnt.call("read=/nowhere/x")).text == "error: No such file or directory"


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


async def test_child_ignores_sigterm(fnt: Fnt) -> None:
    child = int((await fnt.call("child")).text)
    try:
        status = status_of(child)
        assert status["PPid"] == str(fnt.process.pid)
        assert int(status["SigBlk"], 16) & 1 << (signal.SIGTERM - 1)
    finally:
        os.kill(child, signal.SIGKILL)


async def test_memory_is_given_back_or_kept(fnt: Fnt) -> None:
    async def resident_mb() -> int:
        status = (await fnt.call("read=/proc/self/status")).text
        (line,) = [line for line in status.splitlines() if line.startswith("VmRSS:")]
        return int(line.split()[1]) // 1024

    before = await resident_mb()
    await fnt.call("eat=64")
    assert await resident_mb() < before + 32
    await fnt.call("leak=64")
    assert await resident_mb() >= before + 60


@pytest.mark.parametrize(
    ("do", "error"),
    [
        ("close", "disconnected"),
        ("hang", None),
        ("garbage", "illegal status line"),
        ("close=mid", "peer closed connection"),
        ("close=mid;framing=chunked", "peer closed connection"),
    ],
)
async def test_broken_answers(fnt: Fnt, do: str, error: str | None) -> None:
    if error is None:
        with pytest.raises(httpx.ReadTimeout):
            await fnt.client.post("/call", headers={"Fnt-Do": do}, timeout=0.05)
    else:
        with pytest.raises(httpx.RemoteProtocolError, match=error):
            await fnt.call(do, content=b"hello")
    assert (await fnt.call(content=b"next")).content == b"next"


@pytest.mark.parametrize(("do", "code"), [("exit=7", 7), ("exit=0", 0), ("crash", -6)])
async def test_ends(fnt: Fnt, do: str, code: int) -> None:
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        await fnt.call(do)
    assert await fnt.process.wait() == code


@pytest.mark.parametrize("do", ["nonsense", "sleep=1;nonsense=2", "slee=1"])
async def test_unknown_keys_are_refused(fnt: Fnt, do: str) -> None:
    answer = await fnt.call(do, content=b"x")
    assert answer.status_code == 400
    assert answer.headers["Connection"] == "close"


async def test_connection_close_on_demand(fnt: Fnt) -> None:
    assert (await fnt.call("close=after")).headers["Connection"] == "close"
    answer = await fnt.call(headers={"Connection": "close"})
    assert answer.headers["Connection"] == "close"
