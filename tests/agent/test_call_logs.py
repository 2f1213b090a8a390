"""What functions print, per call: its size is limited, and the node's debug log shows it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from hostler.abc import CallListener, ContainerTask
from hostler.agent.output import MAX_LINE, DebugLines, LogLimit, truncation_line
from hostler.bodies import BytesBody
from hostler.calls import PendingCall
from hostler.drivers.process import open_process_driver
from hostler.drivers.sim import SimContainer, SimRequest, SimResponse, open_sim_driver
from hostler.errors import HostlerError
from hostler.options import with_logger
from tests.conftest import Logs
from tests.functions.build import fnt_path

from .nodes import Node, open_node, until


class TestLimit:
    def test_scenario_03_first_write_is_cut_at_10_bytes_and_followed_by_the_truncation_line(
        self,
    ) -> None:
        limit = LogLimit(10)
        line = b"\n-----max log size 10 bytes exceeded, truncating log-----\n"
        assert limit.cut(b"0123456789abc") == b"0123456789" + line
        assert limit.cut(b"more") == b""

    def test_scenario_09_exactly_the_limit_is_fine(self) -> None:
        limit = LogLimit(10)
        assert limit.cut(b"0123456789") == b"0123456789"
        assert limit.cut(b"") == b""
        assert limit.cut(b"x") == truncation_line(10)

    def test_a_limit_of_0_keeps_nothing(self) -> None:
        assert LogLimit(0).cut(b"x") == b""

    @given(limit=st.integers(1, 50), writes=st.lists(st.binary(max_size=20), max_size=20))
    def test_never_more_than_the_limit_and_one_line(self, limit: int, writes: list[bytes]) -> None:
        cutter = LogLimit(limit)
        kept = b"".join(cutter.cut(write) for write in writes)
        whole = b"".join(writes)
        over = truncation_line(limit) if len(whole) > limit else b""
        assert kept == whole[:limit] + over


async def talk(request: SimRequest) -> SimResponse:
    """Print the body, alternately on stdout and stderr, a part each."""
    for number, part in enumerate((await request.read()).split(b"|")):
        request.container.output(part, stderr=number % 2 == 1)
    return SimResponse()


async def greet(container: SimContainer) -> None:
    container.output(b"hello\n")


@asynccontextmanager
async def open_talker(iofs: Path, **settings: Any) -> AsyncIterator[Node]:
    async with open_sim_driver() as driver:
        driver.add_image("talker", talk, start_hook=greet)
        async with open_node(driver, iofs, **settings) as node:
            yield node


async def say(node: Node, text: bytes, **fields: Any) -> PendingCall:
    call = node.call("talker", BytesBody(text), **fields)
    await node.agent.submit(call)
    return call


def shown(logs: Logs) -> list[tuple[str, str, str]]:
    """Call, stream and line of what the debug log has of functions."""
    return [
        (event["call_id"], event["tag"], event["line"])
        for event in logs.with_event("function output")
    ]


class Reader(CallListener):
    """Reads a call's log when the call is over."""

    def __init__(self) -> None:
        self.found: list[bytes] = []

    async def before_call(self, call: PendingCall) -> None:
        assert call.log == b""

    async def after_call(self, call: PendingCall) -> None:
        self.found.append(bytes(call.log))


async def test_scenario_03_log_buffer_has_exactly_what_was_written_beside_the_lines(
    autojump_clock: object, tmp_path: Path, logs: Logs
) -> None:
    reader = Reader()
    async with open_talker(tmp_path, keep_logs=True, debug_logs=True) as node:
        node.agent.add_listener(reader)
        await say(node, b"one\ntw|err\n|o\nrest", id="a")
        await say(node, b"second", id="b")
    assert reader.found == [b"one\ntwerr\no\nrest", b"second"]
    assert shown(logs) == [
        ("", "stdout", "hello"),
        ("a", "stdout", "one"),
        ("a", "stderr", "err"),
        ("a", "stdout", "two"),
        ("a", "stdout", "rest"),
        ("b", "stdout", "second"),
    ]
    (event,) = [event for event in logs.with_event("function output") if event["line"] == "err"]
    assert event["log_level"] == "debug"
    assert event["user_log"] is True
    assert (event["app_id"], event["fn_id"], event["image"]) == ("app", "fn-talker", "talker")
    assert event["container_id"]


async def test_each_call_has_the_limit_for_itself(
    autojump_clock: object, tmp_path: Path, logs: Logs
) -> None:
    over = b"\n-----max log size 10 bytes exceeded, truncating log-----\n"
    async with open_talker(
        tmp_path, keep_logs=True, debug_logs=True, max_log_size_bytes=10
    ) as node:
        for call_id in ("a", "b"):
            call = await say(node, b"01234|56789abc|never seen", id=call_id)
            assert call.log == b"0123456789" + over
    assert [line for call, _, line in shown(logs) if call == "a"] == [
        "56789",
        "-----max log size 10 bytes exceeded, truncating log-----",
        "01234",
    ]


async def test_a_call_can_have_a_logger_of_its_own(
    autojump_clock: object, tmp_path: Path, logs: Logs
) -> None:
    seen: dict[str, list[bytes]] = {"a": [], "b": []}
    async with open_talker(tmp_path, keep_logs=True, max_log_size_bytes=8) as node:
        for call_id, written in seen.items():
            option = with_logger(written.append)
            await node.agent.submit(
                node.call("talker", BytesBody(b"one|two|three"), option, id=call_id)
            )
        await say(node, b"of another call")
    assert seen["a"] == seen["b"] == [b"one", b"two", b"th" + truncation_line(8)]


async def test_a_logger_that_fails_harms_nothing_and_is_told_of_once(
    autojump_clock: object, tmp_path: Path, logs: Logs
) -> None:
    def fail(data: bytes) -> None:
        raise OSError("disk full")

    async with open_talker(tmp_path, keep_logs=True) as node:
        call = node.call("talker", BytesBody(b"one|two"), with_logger(fail))
        await node.agent.submit(call)
    assert call.log == b"onetwo"
    event = logs.expect_error("logger of a call failed")
    assert event["call_id"] == call.model.id


async def test_an_agent_that_captures_nothing_refuses_a_logger(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with open_talker(tmp_path) as node:
        with pytest.raises(HostlerError, match="with_logger: the agent captures no output"):
            node.call("talker", None, with_logger(print))


async def test_debug_user_logs_can_be_disabled(
    autojump_clock: object, tmp_path: Path, logs: Logs
) -> None:
    async with open_talker(tmp_path, debug_logs=True, disable_debug_user_logs=True) as node:
        call = await say(node, b"secret\n")
        assert call.log == b""
    assert shown(logs) == []


async def test_nothing_is_kept_that_nobody_asked_for(
    autojump_clock: object, tmp_path: Path, logs: Logs
) -> None:
    async with open_talker(tmp_path, debug_logs=True) as node:
        assert (await say(node, b"line\n")).log == b""


async def test_a_cancelled_call_keeps_what_it_has_printed(
    autojump_clock: object, tmp_path: Path, logs: Logs
) -> None:
    async def hang(request: SimRequest) -> SimResponse:
        request.container.output(b"begun")
        await trio.sleep_forever()
        raise AssertionError

    async with (
        open_sim_driver({"hang": hang}) as driver,
        open_node(driver, tmp_path, keep_logs=True, debug_logs=True) as node,
    ):
        call = node.call("hang", id="a")
        with trio.move_on_after(1):
            await node.agent.submit(call)
        assert call.log == b"begun"
    assert shown(logs) == [("a", "stdout", "begun")]


def test_long_lines_are_logged_in_pieces_and_only_the_rest_is_remembered(logs: Logs) -> None:
    lines = DebugLines(ContainerTask(id="c", image="i"))
    lines.add(b"x" * (MAX_LINE + 1), False, "a")
    assert [len(line) for _, _, line in shown(logs)] == [MAX_LINE]
    lines.add(b"y\xff\r\n", False, "a")
    assert shown(logs)[1:] == [("a", "stdout", "xy\N{REPLACEMENT CHARACTER}")]


@pytest.mark.process
async def test_output_of_a_real_process_belongs_to_its_call(tmp_path: Path, logs: Logs) -> None:
    """More than its pipe holds, so that the function would wait for a reader."""
    with trio.fail_after(60):
        async with (
            open_process_driver(images={"fnt": [str(fnt_path())]}) as driver,
            open_node(
                driver, tmp_path, keep_logs=True, debug_logs=True, max_log_size_bytes=1000
            ) as node,
        ):
            big = node.call("fnt", id="big", headers={"Fnt-Do": ["outlines=200"]})
            small = node.call(
                "fnt", id="small", headers={"Fnt-Do": ["out=to stdout;err=to stderr"]}
            )
            await node.agent.submit(small)
            # What is still in a pipe when the next call begins counts for that one.
            await until(lambda: len(small.log) == len(b"to stdout\nto stderr\n"), seconds=60)
            await node.agent.submit(big)
            whole = b"o" * 1000 + truncation_line(1000)
            await until(lambda: len(big.log) >= len(whole), seconds=60)
    assert big.log == whole
    assert {entry for entry in shown(logs) if entry[0] == "small"} == {
        ("small", "stdout", "to stdout"),
        ("small", "stderr", "to stderr"),
    }
