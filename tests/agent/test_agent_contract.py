"""The function contract, against a real function process that misbehaves on request."""

from __future__ import annotations

import datetime as dt
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from hostler.abc import Body
from hostler.agent import ContainerState
from hostler.bodies import BytesBody
from hostler.drivers.process import open_process_driver
from hostler.errors import (
    APIError,
    CallTimeout,
    ContainerInitFailed,
    ContainerInitTimeout,
    FunctionFailed,
    FunctionInvalidResponse,
    FunctionResponseError,
    FunctionResponseHeaderTooBig,
    FunctionResponseTooBig,
    FunctionWriteRequest,
)
from tests.functions.build import fnt_path

from .fakes import BIG, StreamBody
from .nodes import Node, Recorder, kill, open_node, until

pytestmark = pytest.mark.process

LIMIT = 60
"""Seconds after which a test has failed; a loaded machine needs one."""


@asynccontextmanager
async def open_fnt(iofs: Path, **config: Any) -> AsyncIterator[Node]:
    """A function may take long to start."""
    config = {"hot_start_timeout_msecs": LIMIT * 1000.0, **config}
    with trio.fail_after(LIMIT):
        async with (
            open_process_driver(images={"fnt": [str(fnt_path())]}) as driver,
            open_node(driver, iofs, **config) as node,
        ):
            yield node


async def do(node: Node, what: str, body: Body | None = None, **fields: Any) -> Recorder:
    headers = {"Fnt-Do": [what]} | fields.pop("headers", {})
    return await node.run("fnt", body, headers=headers, **fields)


async def pid(node: Node) -> bytes:
    return (await do(node, "pid")).body


async def test_calls_of_functions_that_were_killed_while_they_idled_are_served(
    tmp_path: Path,
) -> None:
    async with open_fnt(tmp_path) as node:
        for _ in range(8):
            killed = int(await pid(node))
            kill(killed)
            assert int(await pid(node)) != killed
        statistics = node.agent.statistics()
        assert (statistics.errors, statistics.launches) == (0, 9)


@pytest.mark.parametrize("size", [0, 1, 65536, 65537, len(BIG)])
async def test_bodies_of_all_sizes_arrive_whole_both_ways(tmp_path: Path, size: int) -> None:
    async with open_fnt(tmp_path) as node:
        for _ in range(2):
            assert (await do(node, "", BytesBody(BIG[:size]))).body == BIG[:size]
        assert node.agent.statistics().launches == 1


async def test_streamed_body_arrives_whole(tmp_path: Path) -> None:
    async with open_fnt(tmp_path) as node:
        pieces = [BIG[:1], BIG[1:70_000], BIG[70_000:]]
        assert (await do(node, "", StreamBody(*pieces))).body == BIG
        assert (await do(node, "", StreamBody())).body == b""
        assert node.agent.statistics().launches == 1


@pytest.mark.parametrize(
    ("what", "error", "kept"),
    [
        ("status=502", FunctionFailed, True),
        ("status=504", CallTimeout, True),
        ("status=500", FunctionInvalidResponse, False),
        ("status=404", FunctionInvalidResponse, False),
        ("status=201", FunctionInvalidResponse, False),
        ("status=302;header=Location:/other", FunctionInvalidResponse, False),
        ("exit=0", FunctionResponseError, False),
        ("exit=7", FunctionResponseError, False),
        ("crash", FunctionResponseError, False),
        ("close", FunctionResponseError, False),
        ("close=mid;size=4000", FunctionResponseError, False),
        ("garbage", FunctionResponseError, False),
        ("bighead=3000", FunctionResponseHeaderTooBig, False),
        ("size=5001", FunctionResponseTooBig, True),
        ("size=5001;framing=chunked", FunctionResponseTooBig, True),
    ],
)
async def test_scenario_03_outcomes_and_what_becomes_of_the_container(
    tmp_path: Path, what: str, error: type[APIError], kept: bool
) -> None:
    limits = {"max_response_size": 5000, "max_hdr_response_size": 2000}
    async with open_fnt(tmp_path, **limits) as node:
        before = await pid(node)
        with pytest.raises(error) as caught:
            await do(node, what)
        assert type(caught.value) is error
        assert (await pid(node) == before) is kept


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("exit=3", "error receiving function response: the container exited with code 3"),
        ("exit=0", "error receiving function response: the container exited with code 0"),
        ("crash", "error receiving function response: the container was killed by signal 6"),
        ("close", "error receiving function response"),  # it lives
    ],
)
async def test_a_container_that_ends_during_its_call_says_how(
    tmp_path: Path, what: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if what != "close":
        monkeypatch.setattr("hostler.agent.dispatch.REASON_WAIT", LIMIT)
    async with open_fnt(tmp_path) as node:
        with pytest.raises(FunctionResponseError) as caught:
            await do(node, what)
        assert (caught.value.code, caught.value.blame) == (502, "user")
        assert str(caught.value) == text


async def test_exactly_the_limit_is_allowed(tmp_path: Path) -> None:
    async with open_fnt(tmp_path, max_response_size=5000) as node:
        assert len((await do(node, "size=5000")).body) == 5000
        assert len((await do(node, "size=5000;framing=chunked")).body) == 5000


async def test_too_big_with_unknown_length_passes_what_is_allowed(tmp_path: Path) -> None:
    async with open_fnt(tmp_path, max_response_size=5000) as node:
        recorder = Recorder()
        call = node.call(
            "fnt", None, writer=recorder, headers={"Fnt-Do": ["size=9000;framing=chunked"]}
        )
        with pytest.raises(FunctionResponseTooBig):
            await node.agent.submit(call)
        assert len(recorder.body) == 5000


async def test_timeout_kills_the_container_and_the_next_call_succeeds(tmp_path: Path) -> None:
    async with open_fnt(tmp_path) as node:
        # Of the time of a call, a start may take all.
        warm = node.agent.keep_warm(node.call("fnt", timeout=8), 1)
        await warm.wait_ready()
        before = (await do(node, "pid", timeout=8)).body
        call = node.call("fnt", timeout=8, headers={"Fnt-Do": ["hang"]})
        with pytest.raises(CallTimeout):
            await node.agent.submit(call)
        assert call.model.status == "timeout"
        await warm.wait_ready()
        assert (await do(node, "pid", timeout=8)).body != before
        assert node.agent.statistics().timeouts == 1


@pytest.mark.parametrize("size", [0, 100, 200_000, 1_000_000])
async def test_scenario_13_answer_without_reading_the_body(tmp_path: Path, size: int) -> None:
    async with open_fnt(tmp_path) as node:
        for what in ("early;size=5", "early=close;size=5"):
            assert (await do(node, what, BytesBody(b"x" * size))).body == b"01234"
            assert (await do(node, what, StreamBody(b"x" * size))).body == b"01234"
        assert (await do(node, "", BytesBody(b"mine"))).body == b"mine"
        assert node.agent.statistics().launches == 1


async def test_early_answer_does_not_wait_for_the_rest_of_the_body(tmp_path: Path) -> None:
    async with open_fnt(tmp_path) as node:
        body = StreamBody(b"x", silent=True)
        assert (await do(node, "early=close;size=5", body)).body == b"01234"


async def test_function_that_closes_while_it_receives(tmp_path: Path) -> None:
    async with open_fnt(tmp_path) as node:
        with pytest.raises(FunctionWriteRequest):
            await do(node, "close=early", StreamBody(*[b"x" * 65536] * 40))


async def test_body_that_fails_is_no_regular_end(tmp_path: Path) -> None:
    async with open_fnt(tmp_path) as node:
        before, target = await pid(node), tmp_path.parent / "written"
        with pytest.raises(ValueError, match="body is lost"):
            await do(node, f"write={target}", StreamBody(b"half", end=ValueError("body is lost")))
        assert "written" not in os.listdir(tmp_path.parent)
        assert await pid(node) != before


async def test_bytes_beyond_a_response_do_not_reach_the_next_call(tmp_path: Path) -> None:
    async with open_fnt(tmp_path) as node:
        evil = "extra=HTTP/1.1 200 OK%0D%0AContent-Length: 4%0D%0A%0D%0Aevil"
        assert (await do(node, evil, BytesBody(b"one"))).body == b"one"
        assert (await do(node, "", BytesBody(b"two"))).body == b"two"


async def test_function_that_closes_after_each_answer(tmp_path: Path) -> None:
    async with open_fnt(tmp_path) as node:
        for text in (b"one", b"two", b"three"):
            assert (await do(node, "close=after", BytesBody(text))).body == text
        assert node.agent.statistics().launches == 1


async def test_scenario_10_headers_of_one_hop_stop_here(tmp_path: Path) -> None:
    async with open_fnt(tmp_path) as node:
        sent = {
            "Connection": ["X-Named, close"],
            "X-Named": ["secret"],
            "Keep-Alive": ["timeout=5"],
            "Te": ["gzip"],
            "Content-Length": ["5"],
            "Content-Type": ["text/x"],
            "Fn-Call-Id": ["forged"],
            "X-Two": ["a", "b"],
        }
        answer = await do(
            node, "env;header=Keep-Alive:x;header=X-Mine:1;header=X-Mine:2", headers=sent
        )
        seen = msgspec.json.decode(answer.body)
        names = [name.lower() for name, _ in seen["headers"]]
        got = {name.lower(): value for name, value in seen["headers"]}
        assert not {"x-named", "keep-alive", "te", "content-length", "accept-encoding"} & set(names)
        assert "connection" not in names
        assert [v for n, v in seen["headers"] if n.lower() == "x-two"] == ["a", "b"]
        assert got["fn-call-id"] == "call-fnt"
        assert got["content-type"] == "text/x"
        assert got["host"] == "localhost"
        assert seen["framing"] == "chunked"
        assert seen["env"]["FN_FORMAT"] == "http-stream"
        assert ("X-Mine", "1") in answer.headers
        assert ("X-Mine", "2") in answer.headers
        assert "Keep-Alive" not in dict(answer.headers)


async def test_weakness_04_7_deadline_is_not_early(tmp_path: Path) -> None:
    async with open_fnt(tmp_path) as node:
        before = dt.datetime.now(dt.UTC)
        seen = msgspec.json.decode((await do(node, "env", timeout=10)).body)
        text = next(v for n, v in seen["headers"] if n.lower() == "fn-deadline")
        deadline = dt.datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=dt.UTC)
        assert 10 <= (deadline - before).total_seconds() < 15


async def test_header_that_cannot_be_sent_harms_nobody(tmp_path: Path) -> None:
    async with open_fnt(tmp_path) as node:
        before = await pid(node)
        with pytest.raises(APIError) as caught:
            await do(node, "", headers={"X-Bad": ["a\r\nInjected: yes"]})
        assert caught.value.code == 400
        assert await pid(node) == before


@pytest.mark.parametrize(
    ("start", "error", "reason"),
    [
        ("exit=0", ContainerInitFailed, ": the container exited with code 0"),
        ("exit=3;delay=200", ContainerInitFailed, ": the container exited with code 3"),
        ("crash", ContainerInitFailed, ": the container was killed by signal 6"),
        ("hang", ContainerInitTimeout, ""),
        ("nosocket=file", ContainerInitFailed, ": lsnr.sock is not a socket"),
        ("nosocket=dangling", ContainerInitFailed, ": lsnr.sock can't be used: No such file .*"),
        ("nosocket=outside", ContainerInitFailed, ": lsnr.sock points out of its directory: .*"),
        ("nosocket=absolute", ContainerInitFailed, ": lsnr.sock points out of its directory: .*"),
    ],
)
async def test_scenario_03_socket_checks(
    tmp_path: Path, start: str, error: type[APIError], reason: str
) -> None:
    limit = {"hot_start_timeout_msecs": 1000.0} if start == "hang" else {}
    async with open_fnt(tmp_path, **limit) as node:
        with pytest.raises(error) as caught:
            await node.run("fnt", config={"FNT_START": start})
        assert re.fullmatch(re.escape(str(error())) + reason, str(caught.value))
        await until(lambda: node.agent.statistics().at_rest, seconds=LIMIT)


@pytest.mark.parametrize("start", ["direct", "direct=300"])
async def test_weakness_04_12_ready_means_that_it_accepts(tmp_path: Path, start: str) -> None:
    async with open_fnt(tmp_path) as node:
        answer = await node.run("fnt", BytesBody(b"x"), config={"FNT_START": start})
        assert answer.body == b"x"


async def test_frozen_function_answers_after_its_thaw(tmp_path: Path) -> None:
    async with open_fnt(tmp_path, freeze_idle_msecs=10.0) as node:
        before = await pid(node)
        states = node.agent.statistics
        await until(lambda: ContainerState.PAUSED in states().containers, seconds=LIMIT)
        assert await pid(node) == before


async def test_debug_information_names_the_launching_call(tmp_path: Path) -> None:
    async with open_fnt(tmp_path, enable_fdk_debug_info=True) as node:
        seen = msgspec.json.decode((await do(node, "env")).body)
        assert seen["env"]["FN_SPAWN_CALL_ID"] == "call-fnt"
