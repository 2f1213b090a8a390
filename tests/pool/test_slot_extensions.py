"""Extensions that make another container: runners report their names, and placers look at them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio
from prometheus_client import CollectorRegistry

from hostler import wire
from hostler.abc import ContainerTask, Cookie, Driver
from hostler.config import PlacerConfig
from hostler.drivers.sim import SimRequest, SimResponse, open_sim_driver
from hostler.pool import PoolMetrics, RunnerAccess, WarmPlacer, need_of, open_dynamic_pool
from hostler.protocol import MAX_SLOT_EXTENSIONS
from hostler.runner import open_pure_runner
from hostler.slot_key import SlotExtensions
from tests.agent.nodes import open_node

from .fakes import fresh_metrics, make_call

TIERS = ("gold", "silver", "bronze")


class TierDriver(Driver):
    """Calls of different tiers don't share containers."""

    def __init__(self, inner: Driver) -> None:
        self._inner = inner

    async def create_cookie(self, task: ContainerTask) -> Cookie:
        return await self._inner.create_cookie(task)

    def slot_key_extension(self, extensions: Mapping[str, str]) -> str:
        return extensions.get("tier", "bronze")


async def work(request: SimRequest) -> SimResponse:
    return SimResponse()


async def test_a_call_goes_where_a_container_of_its_tier_is_hot(tmp_path: Path) -> None:
    """Each call has an id of its own as an extension, too, which makes no other container."""
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        loop = await enter(wire.open_loop())
        stack.enter_context(trio.fail_after(60))
        addresses = []
        for number in range(3):
            driver = TierDriver(await enter(open_sim_driver({"image": work})))
            folder = tmp_path / str(number)
            folder.mkdir()
            node = await enter(
                open_node(driver, folder, memory=2048, enable_nb_resource_tracker=True)
            )
            runner = await enter(open_pure_runner(node.agent, "127.0.0.1:0", loop=loop))
            addresses.append(runner.address)
        access, metrics = RunnerAccess(loop=loop), PoolMetrics(CollectorRegistry())
        pool = await enter(open_dynamic_pool(addresses, access=access, metrics=metrics))
        placer = WarmPlacer(PlacerConfig(), metrics=fresh_metrics())
        calls = [make_call(str(number), fn_id="f") for number in range(30)]
        for number, call in enumerate(calls):
            call.extensions = {"tier": TIERS[number % 3], "request": call.model.id}
            await placer.place_call(pool, call)
        cold = [number for number, call in enumerate(calls) if call.timings.init_start_ns]
        assert len(cold) <= len(TIERS) + 1, cold
        assert placer.loads.slot_extensions == ("tier",)


def test_needs_differ_in_the_extensions_that_runners_report() -> None:
    one, two = make_call("a"), make_call("b")
    one.extensions, two.extensions = {"tier": "gold", "id": "1"}, {"tier": "gold", "id": "2"}
    assert need_of(one, ["tier"]) == need_of(two, ["tier"])
    assert need_of(one) == need_of(two)
    two.extensions = {"tier": "bronze", "id": "1"}
    assert need_of(one, ["tier"]) != need_of(two, ["tier"])
    assert need_of(one) == need_of(two)
    two.extensions = {}
    assert need_of(one, ["tier"]) != need_of(two, ["tier"])


@pytest.mark.parametrize(
    ("driver", "names"),
    [
        (lambda given: given["a"], {"a"}),
        (lambda given: given.get("a", "") + given.get("x", ""), {"a", "x"}),
        (lambda given: "yes" if "b" in given else "", {"b"}),
        (lambda given: ",".join(given), {"a", "b"}),
        (lambda given: json.dumps(given), {"a", "b"}),
        (lambda given: json.dumps({**given}), {"a", "b"}),
        (lambda given: str(dict(given)), {"a", "b"}),
        (lambda given: "".join(given.values()), {"a", "b"}),
        (lambda given: "", set()),
    ],
)
def test_the_extensions_that_a_driver_looks_at_are_recorded(
    driver: Callable[[Mapping[str, str]], str], names: set[str]
) -> None:
    extensions = {"a": "1", "b": "2", "FN_REGISTRY_TOKEN": "secret"}
    read = SlotExtensions()
    assert driver(read.recording(extensions)) == driver(extensions)
    assert set(read.names) == names


def test_only_so_many_names_are_reported() -> None:
    read = SlotExtensions()
    for number in range(3 * MAX_SLOT_EXTENSIONS):
        dict(read.recording({f"name-{number}": ""}))
    assert len(read.names) == MAX_SLOT_EXTENSIONS
