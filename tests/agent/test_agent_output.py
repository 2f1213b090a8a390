"""What functions print reaches the agent's output sink, with the call that it belongs to."""

from __future__ import annotations

from pathlib import Path

import trio

from hostler import options
from hostler.agent import OutputPiece, Resources, open_agent
from hostler.bodies import BytesBody
from hostler.config import AgentConfig
from hostler.drivers.sim import SimContainer, SimRequest, SimResponse, open_sim_driver
from tests.conftest import Logs

from .nodes import MIB, call_model


async def _start(container: SimContainer) -> None:
    container.output(b"starting\n")


async def _print(request: SimRequest) -> SimResponse:
    body = await request.read()
    request.container.output(body, stderr=True)
    return SimResponse(body=body)


def _config(iofs: Path) -> AgentConfig:
    return AgentConfig(iofs_path=str(iofs))


async def test_output_names_its_container_and_its_call(
    autojump_clock: object, tmp_path: Path
) -> None:
    seen: list[OutputPiece] = []
    async with open_sim_driver() as driver:
        driver.add_image("talker", _print, start_hook=_start)
        async with open_agent(
            driver, config=_config(tmp_path), total=Resources(1024 * MIB, 1000), output=seen.append
        ) as agent:
            for number in (1, 2):
                model = call_model("talker", id=f"call-{number}", idle_timeout=5)
                body = BytesBody(b"hello %d\n" % number)
                await agent.submit(agent.get_call(options.from_model(model, body)))
            await trio.sleep(6)
    container = seen[0].container_id
    assert {output.container_id for output in seen} == {container}
    assert [(o.call_id, o.data, o.is_stderr) for o in seen] == [
        ("", b"starting\n", False),
        ("call-1", b"hello 1\n", True),
        ("call-1", b"", False),
        ("call-2", b"hello 2\n", True),
        ("call-2", b"", False),
        ("call-2", b"", False),
    ]
    assert [output.ends for output in seen] == ["", "", "call", "", "call", "container"]
    assert [output.running for output in seen] == [False, True, False, True, False, False]
    assert (seen[0].app_id, seen[0].fn_id) == ("app", "fn-talker")


async def test_nothing_follows_the_end_of_a_container(
    autojump_clock: object, tmp_path: Path, logs: Logs
) -> None:
    """A driver may still have something, which would stay in what was told of the end before."""
    seen: list[OutputPiece] = []
    config = _config(tmp_path)
    async with open_sim_driver({"talker": _print}) as driver:
        async with open_agent(
            driver,
            config=config,
            total=Resources(1024 * MIB, 1000),
            output=seen.append,
            keep_logs=True,
            debug_logs=True,
        ) as agent:
            call = agent.get_call(options.from_model(call_model("talker"), BytesBody(b"one\n")))
            await agent.submit(call)
            (container,) = driver.containers()
        assert (seen[-1].ends, bytes(call.log)) == ("container", b"one\n")
        told = len(seen)
        assert container.task.on_output is not None
        container.task.on_output(b"late\n", False)
    assert len(seen) == told
    assert bytes(call.log) == b"one\n"
    assert [line["line"] for line in logs.with_event("function output")] == ["one"]


async def test_nothing_is_attached_without_a_sink(autojump_clock: object, tmp_path: Path) -> None:
    async with (
        open_sim_driver({"talker": _print}) as driver,
        open_agent(driver, config=_config(tmp_path), total=Resources(1024 * MIB, 1000)) as agent,
    ):
        await agent.submit(agent.get_call(options.from_model(call_model("talker"))))
        (container,) = driver.containers()
        assert container.task.on_output is None


async def test_a_failing_sink_harms_no_call(
    autojump_clock: object, tmp_path: Path, logs: Logs
) -> None:
    def fail(output: OutputPiece) -> None:
        raise ValueError("full")

    async with (
        open_sim_driver({"talker": _print}) as driver,
        open_agent(
            driver, config=_config(tmp_path), total=Resources(1024 * MIB, 1000), output=fail
        ) as agent,
    ):
        for _ in range(2):
            await agent.submit(agent.get_call(options.from_model(call_model("talker"))))
        assert agent.statistics().completed == 2
    logs.expect_error("output sink failed")  # once
