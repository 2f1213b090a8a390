"""What the listeners of an agent are told of calls, and what they may do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from hostler.abc import (
    CallListener,
)
from hostler.calls import PendingCall
from hostler.drivers.sim import (
    SimExit,
    SimRequest,
    SimResponse,
    echo,
    open_sim_driver,
)
from hostler.errors import (
    APIError,
    ContainerOutOfMemory,
    FunctionResponseError,
    ServerBusy,
)
from tests.conftest import Logs

from .functions import hang
from .nodes import Noting, Recording, open_node, until


async def test_listeners_run_in_order_and_see_a_complete_model(
    autojump_clock: object, tmp_path: Path
) -> None:
    record: list[str] = []
    async with open_sim_driver({"echo": echo}) as driver, open_node(driver, tmp_path) as node:
        node.agent.add_listener(Recording(record, "1"))
        node.agent.add_listener(Recording(record, "2"))
        call = node.call()
        await node.agent.submit(call)
        assert record == [
            "before1 running",
            "before2 running",
            "after1 success ",
            "after2 success ",
        ]
        assert call.model.started_at is not None
        assert call.model.completed_at is not None
        assert call.model.completed_at >= call.model.started_at


_FULL: dict[str, dict[str, Any]] = {
    "no room": {"enable_nb_resource_tracker": True},
    "no time": {"slot_wait_msecs": 1000},
}


@pytest.mark.parametrize("why", ["no room", "no time", "cancelled", "closed"])
async def test_a_call_that_never_got_a_container_is_complete_too(
    autojump_clock: object, tmp_path: Path, why: str
) -> None:
    refusal = "Timed out - server too busy"
    async with (
        open_sim_driver({"hang": hang, "echo": echo}) as driver,
        open_node(driver, tmp_path, memory=128, drain_grace_msecs=0, **_FULL.get(why, {})) as node,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(node.run, "hang")
        await until(lambda: node.agent.statistics().running == 1)
        call = node.call()
        if why == "closed":
            node.agent.close_admission()
        if why == "cancelled":
            with trio.move_on_after(1):
                await node.agent.submit(call)
        else:
            with pytest.raises(ServerBusy):
                await node.agent.submit(call)
        nursery.cancel_scope.cancel()
    assert call.model.status == "error"
    assert call.model.error == ("cancelled" if why == "cancelled" else refusal)
    assert call.model.completed_at is not None
    assert call.model.started_at is None


async def test_scenario_03_crash_is_an_error_with_text_for_the_listener(
    autojump_clock: object, tmp_path: Path
) -> None:
    async def crash(request: SimRequest) -> SimResponse:
        raise SimExit(134)

    record: list[str] = []
    async with open_sim_driver({"crash": crash}) as driver, open_node(driver, tmp_path) as node:
        node.agent.add_listener(Recording(record))
        with pytest.raises(FunctionResponseError):
            await node.run("crash")
        text = "error receiving function response: the container was killed by signal 6"
        assert record == ["before running", f"after error {text}"]


async def test_weakness_04_13_out_of_memory_says_so(autojump_clock: object, tmp_path: Path) -> None:
    async def hungry(request: SimRequest) -> SimResponse:
        raise SimExit(137, out_of_memory=True)

    async with open_sim_driver({"hungry": hungry}) as driver, open_node(driver, tmp_path) as node:
        with pytest.raises(ContainerOutOfMemory):
            await node.run("hungry")


async def test_before_listener_ends_the_call_and_spares_the_container(
    autojump_clock: object, tmp_path: Path
) -> None:
    class Refuse(CallListener):
        async def before_call(self, call: PendingCall) -> None:
            if call.model.id == "refused":
                raise APIError(418, "teapot")

    record: list[str] = []
    async with open_sim_driver({"echo": echo}) as driver, open_node(driver, tmp_path) as node:
        node.agent.add_listener(Refuse())
        node.agent.add_listener(Recording(record))
        with pytest.raises(APIError, match="teapot"):
            await node.run(id="refused")
        assert record == []
        await node.run()
        assert driver.statistics().created == 1


async def test_who_was_told_of_a_calls_begin_hears_of_its_end_also_if_it_never_runs(
    autojump_clock: object, tmp_path: Path
) -> None:
    class Stubborn(CallListener):
        async def before_call(self, call: PendingCall) -> None:
            if call.model.id == "refused":
                raise APIError(418, "teapot")
            await trio.sleep_forever()

    record: list[str] = []
    async with open_sim_driver({"echo": echo}) as driver, open_node(driver, tmp_path) as node:
        for listener in (Recording(record, "1"), Stubborn(), Recording(record, "2")):
            node.agent.add_listener(listener)
        call = node.call(id="refused")
        with pytest.raises(APIError, match="teapot"):
            await node.agent.submit(call)
        assert record == ["before1 running", "after1 error teapot"]
        assert call.model.completed_at is not None
        assert call.timings.execution_ns == 0
        record.clear()
        call = node.call(id="cancelled")
        with trio.move_on_after(5):
            await node.agent.submit(call)
        assert record == ["before1 running", "after1 error cancelled"]
        assert (call.model.status, call.model.error) == ("error", "cancelled")
        statistics = node.agent.statistics()
        assert (statistics.queued, statistics.errors, statistics.canceled) == (0, 1, 1)
        assert driver.statistics().created == 1


async def test_a_listener_added_between_begin_and_end_of_a_call_is_told_of_neither(
    autojump_clock: object, tmp_path: Path
) -> None:
    class Inviting(CallListener):
        async def before_call(self, call: PendingCall) -> None:
            node.agent.add_listener(Recording(record))

    record: list[str] = []
    async with open_sim_driver({"echo": echo}) as driver, open_node(driver, tmp_path) as node:
        node.agent.add_listener(Inviting())
        await node.run()
        assert record == []


async def test_failing_after_listener_is_logged_and_the_next_one_runs(
    autojump_clock: object, tmp_path: Path, logs: Logs
) -> None:
    class Broken(CallListener):
        async def after_call(self, call: PendingCall) -> None:
            raise ValueError("broken")

    record: list[str] = []
    async with open_sim_driver({"echo": echo}) as driver, open_node(driver, tmp_path) as node:
        node.agent.add_listener(Broken())
        node.agent.add_listener(Recording(record))
        await node.run()
        assert record[-1] == "after success "
        logs.expect_error("call listener failed")


async def test_every_call_is_noted_at_its_submission_and_at_its_end(
    autojump_clock: object, tmp_path: Path
) -> None:
    """Those too that never get a container; a listener hears whether it was told of the begin."""

    class Refuse(CallListener):
        async def before_call(self, call: PendingCall) -> None:
            if call.model.id == "refused":
                raise APIError(418, "teapot")

    record: list[str] = []
    async with open_sim_driver({"echo": echo}) as driver, open_node(driver, tmp_path) as node:
        for listener in (Noting(record, "1"), Refuse(), Noting(record, "2")):
            node.agent.add_listener(listener)
        await node.run(id="good")
        assert record == ["1 good", "2 good", "1 good None True", "2 good None True"]
        record.clear()
        with pytest.raises(APIError, match="teapot"):
            await node.run(id="refused")
        assert record[2:] == ["1 refused teapot True", "2 refused teapot False"]
        record.clear()
        with pytest.raises(APIError):
            await node.run("no such image", id="none")
        assert [text.split()[-1] for text in record[2:]] == ["False", "False"]
        record.clear()
        node.agent.close_admission()
        with pytest.raises(ServerBusy):
            await node.run(id="late")
        assert node.agent.refuse(node.call(id="shed"))
        assert record == [
            f"{listener} {call}{end}"
            for call in ("late", "shed")
            for end in ("", f" {ServerBusy()} False")
            for listener in "12"
        ]
