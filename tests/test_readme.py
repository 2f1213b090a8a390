"""What README.md shows of the library and of a fleet, with the parts that it leaves out."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import trio
from click.testing import CliRunner

from hostler import AgentConfig, App, Fn, open_agent, open_loop, open_pure_runner, open_sim_driver
from hostler.abc import CallRequest
from hostler.bodies import BytesBody
from hostler.cli import app
from hostler.drivers.sim import SimRequest, SimResponse
from tests.agent.nodes import Recorder

PAGE = (Path(__file__).parent.parent / "README.md").read_text()


async def echo(request: SimRequest) -> SimResponse:
    return SimResponse(body=await request.read())


async def test_the_program_places_a_call() -> None:
    names: dict[str, Any] = {}
    [program] = re.findall(
        r"^<!-- run by: [^\n]+\n```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL
    )
    exec(program, names)
    writer = Recorder()
    fn = Fn(id="fn", name="fn", app_id="app", image="echo", timeout=5)
    request = CallRequest(method="POST", url="http://lb/", headers={}, body=BytesBody(b"hello"))
    with trio.fail_after(60):
        async with (
            open_loop(),
            open_sim_driver({"echo": echo}) as driver,
            open_agent(driver, config=AgentConfig(enable_nb_resource_tracker=True)) as agent,
            open_pure_runner(agent, "127.0.0.1:0") as runner,
        ):
            app_of_fn = App(id="app", name="app")
            await names["serve_one"]([runner.address], app_of_fn, fn, request, writer, None)
    assert (writer.status, writer.body) == (200, b"hello")


@pytest.mark.parametrize("node", ["api", "runner", "lb"])
def test_the_commands_of_the_fleet_are_understood(
    node: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Settings and all; only that the node then lives is left out."""
    [line] = re.findall(rf"^\$ hostler ({node} .*)$", PAGE, re.MULTILINE)
    made: list[object] = []

    def run_node(make: Any, ready_fd: int | None, place: Any = None) -> int:
        made.append(make())
        return 0

    monkeypatch.setattr(f"hostler.cli.{node}.run_node", run_node)
    done = CliRunner().invoke(app, shlex.split(line))
    assert (done.exit_code, len(made)) == (0, 1), done.output
