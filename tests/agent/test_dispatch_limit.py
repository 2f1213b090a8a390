"""What ends a call before its time, and what is spared a call that waits for its function only."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest
import trio
import trio.testing

from hostler import options
from hostler._fast import FastWriter
from hostler.abc import CallListener, ContainerTask, Cookie
from hostler.agent.dispatch import ExecutionEnded, ExecutionScope, FunctionExchange
from hostler.agent.socket_directory import Channel
from hostler.calls import PendingCall, build_call
from hostler.drivers.sim import echo, open_sim_driver
from hostler.errors import APIError, CallTimeout
from hostler.models import Call
from hostler.protocol import Headers
from tests.http1.function import Function, open_function, response

from .fakes import Wrapping
from .functions import hang
from .nodes import Node, Recorder, call_model, open_node


async def wait(seconds: float) -> str:
    await trio.sleep(seconds)
    return "done"


async def test_what_is_awaited_within_a_limit_ends_with_it(autojump_clock: object) -> None:
    limit = ExecutionScope()
    assert await limit.run(wait(1)) == "done"
    async with trio.open_nursery() as nursery:

        async def end() -> None:
            await trio.sleep(1)
            limit.expire()

        nursery.start_soon(end)
        with pytest.raises(ExecutionEnded):
            await limit.run(wait(10))
    assert trio.current_time() == 2
    with pytest.raises(ExecutionEnded):
        await limit.run(wait(10))
    assert trio.current_time() == 2


async def test_a_cancellation_from_outside_stays_one(autojump_clock: object) -> None:
    limit = ExecutionScope()
    with trio.move_on_after(1) as scope:
        await limit.run(wait(10))
    assert scope.cancelled_caught
    assert not limit.ended
    assert limit.interrupt is None


class Slow(Recorder):
    """Never takes what it is given."""

    async def start(self, status: int, headers: Headers) -> None:
        await super().start(status, headers)
        await trio.sleep_forever()


@pytest.mark.parametrize(("image", "writer"), [("echo", Slow()), ("hang", Recorder())])
async def test_a_timeout_ends_each_wait_of_a_call(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, image: str, writer: Recorder
) -> None:
    images = {"echo": echo, "hang": hang}
    async with open_sim_driver(images) as driver, open_node(driver, tmp_path) as node:
        await node.run("echo")
        started = trio.current_time()
        with pytest.raises(CallTimeout):
            await node.agent.submit(node.call(image, writer=writer, timeout=7))
        assert trio.current_time() - started == pytest.approx(7, abs=0.5)
        assert node.agent.statistics().timeouts == 1


class Hanging(Wrapping):
    """Its hook before a call does not return."""

    async def create_cookie(self, task: ContainerTask) -> Cookie:
        async def before(model: Call, extensions: Mapping[str, str]) -> None:
            await trio.sleep_forever()

        cookie = await super().create_cookie(task)
        task.before_call = before
        return cookie


async def test_a_timeout_ends_a_hook_of_the_container(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    async with open_sim_driver({"echo": echo}) as sim, open_node(Hanging(sim), tmp_path) as node:
        started = trio.current_time()
        with pytest.raises(CallTimeout):
            await node.run(timeout=7)
        assert trio.current_time() - started == pytest.approx(7, abs=0.5)


async def test_the_end_of_an_agent_ends_a_listener_before_a_call(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    class Stuck(CallListener):
        async def before_call(self, call: PendingCall) -> None:
            hangs.set()
            await trio.sleep_forever()

    hangs = trio.Event()
    errors: list[APIError] = []
    async with open_sim_driver({"echo": echo}) as driver, trio.open_nursery() as nursery:

        async def run(node: Node) -> None:
            with pytest.raises(APIError, match="closed during the call") as info:
                await node.run()
            errors.append(info.value)

        async with open_node(driver, tmp_path, drain_grace_msecs=3000.0) as node:
            node.agent.add_listener(Stuck())
            nursery.start_soon(run, node)
            await hangs.wait()
            closing = trio.current_time()
        assert trio.current_time() - closing == pytest.approx(3, abs=0.5)
    assert [error.code for error in errors] == [500]


class Now(Recorder, FastWriter):
    """Takes a response at once."""

    async def start(self, status: int, headers: Headers) -> None:
        raise AssertionError

    async def write(self, data: bytes | memoryview) -> None:
        raise AssertionError

    def start_now(self, status: int, headers: Headers) -> bool:
        self.status, self.headers = status, headers
        return True

    def write_now(self, data: bytes) -> bool:
        self.body += data
        return True


def channel_to(function: Function) -> closing[Channel]:
    return closing(Channel(function.socket, function.socket.connect(), 0))


def exchange(channel: Channel, limit: ExecutionScope, writer: Recorder) -> FunctionExchange:
    call = build_call([options.from_model(call_model()), options.with_writer(writer)])
    return FunctionExchange(channel, call, limit, 0)


@pytest.mark.fast
async def test_a_writer_that_takes_a_whole_response_now_is_not_waited_for(tmp_path: Path) -> None:
    async with open_function(tmp_path) as function:
        function.answers += [response(b"text")]
        writer = Now()
        with channel_to(function) as channel:
            one = exchange(channel, ExecutionScope(), writer)
            await one.run(trio.current_time())
        assert (writer.status, writer.body) == (200, b"text")
        assert one.container_ok


async def test_the_wait_for_a_function_is_interrupted_without_a_scope(tmp_path: Path) -> None:
    async with open_function(tmp_path) as function, trio.open_nursery() as nursery:
        limit = ExecutionScope()

        async def end() -> None:
            await trio.testing.wait_all_tasks_blocked()
            limit.cancel()

        nursery.start_soon(end)
        function.answers += [b""]
        with channel_to(function) as channel:
            one = exchange(channel, limit, Recorder())
            with pytest.raises(ExecutionEnded):
                await one.run(trio.current_time())
            assert not one.container_ok
            assert not one.broke
            assert limit.interrupt is None
            function.answers += [response(b"text")]
            with pytest.raises(ExecutionEnded):
                await exchange(channel, limit, Recorder()).run(trio.current_time())


class Late(trio.abc.Instrument):
    """Ends a call when the task that waits for its function has been woken, and has not run yet."""

    def __init__(self, task: trio.lowlevel.Task, limit: ExecutionScope) -> None:
        self._task, self._limit = task, limit
        self.armed = False

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if self.armed and task is self._task:
            self.armed = False
            self._limit.expire()


@pytest.mark.parametrize(
    "arrived",
    [b"HTTP/1.1 200 ", b"HTTP/1.1 100 Continue\r\n\r\n", response(b"x" * 500)[:-100]],
    ids=["head", "informational", "body"],
)
async def test_a_call_that_ends_as_something_arrives_does_not_wait_for_the_rest(
    tmp_path: Path, arrived: bytes
) -> None:
    limit = ExecutionScope()
    late = Late(trio.lowlevel.current_task(), limit)
    async with open_function(tmp_path) as function, trio.open_nursery() as nursery:

        async def answer() -> None:
            await trio.testing.wait_all_tasks_blocked()
            late.armed = True
            function.blurt(arrived)

        function.answers += [b""]
        trio.lowlevel.add_instrument(late)
        try:
            with channel_to(function) as channel:
                one = exchange(channel, limit, Recorder())
                nursery.start_soon(answer)
                with pytest.raises(ExecutionEnded):
                    await one.run(trio.current_time())
                assert not one.container_ok
        finally:
            trio.lowlevel.remove_instrument(late)


async def test_a_listener_that_does_not_want_to_hear_of_the_begin_hears_of_the_end(
    autojump_clock: object, tmp_path: Path
) -> None:
    heard: list[str] = []

    class Picky(CallListener):
        def wants_before_call(self, call: PendingCall) -> bool:
            return call.model.type == "detached"

        async def before_call(self, call: PendingCall) -> None:
            heard.append("begin")

        def note_end(self, call: PendingCall, error: BaseException | None, *, began: bool) -> None:
            heard.append(call.model.status)

    class Silent(CallListener):
        def wants_before_call(self, call: PendingCall) -> bool:
            raise AssertionError("it has no before_call")

    async with open_sim_driver({"echo": echo}) as driver, open_node(driver, tmp_path) as node:
        node.agent.add_listener(Picky())
        node.agent.add_listener(Silent())
        await node.run()
        assert heard == ["success"]
