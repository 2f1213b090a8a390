"""A started container: waiting for its end, and what the end means."""

from __future__ import annotations

from typing import Any

import docker
import trio

from ...abc import RunningContainer, RunResult
from ...errors import ContainerExited, ContainerOutOfMemory
from ._engine import Engine
from ._errors import EngineError
from ._exits import Exit
from ._limits import Operation
from ._output import OutputCapture

KILLED = 137
"""128 + SIGKILL: what the init process reports for a killed function."""
OUTPUT_GRACE = 2.0
"""Seconds after the exit for what the engine still has of the output."""


class DockerContainer(RunningContainer):
    """See `RunningContainer`."""

    def __init__(self, engine: Engine, exit_: Exit, output: OutputCapture | None) -> None:
        self._engine = engine
        self._exit = exit_
        self._output = output
        self._lock = trio.Lock()
        self._result: RunResult | None = None

    @property
    def id(self) -> str:
        """The engine's id of the container."""
        return self._exit.container_id

    @property
    def exit_status(self) -> str:
        """For the metrics: ``exit_<n>``, or ``ctx_canceled`` while it runs, so far as is known."""
        if self._result is not None:
            return f"exit_{self._result.exit_code}"
        return "ctx_canceled" if self._exit.code is None else f"exit_{self._exit.code}"

    async def wait_stopped(self) -> None:
        """As soon as the engine says so."""
        await self._exit.ended.wait()

    async def wait(self) -> RunResult:
        """Wait for the end; the output has been passed on by then.

        Raises `EngineError` if the engine does not tell how the container has ended.
        """
        await self._exit.ended.wait()
        if self._output is not None:
            with trio.move_on_after(OUTPUT_GRACE):
                await self._output.over.wait()
        async with self._lock:
            if self._result is None:
                self._result = await self._find_out()
            return self._result

    async def _find_out(self) -> RunResult:
        def request(client: docker.APIClient) -> dict[str, Any]:
            state: dict[str, Any] = client.inspect_container(self.id)["State"]
            return state

        try:
            state = await self._engine.call(Operation.INSPECT_CONTAINER, request)
        except EngineError as error:
            if self._exit.code is not None:
                return result_of(self._exit.code)
            if error.status == 404:
                return result_of(KILLED)  # removed by force, and nobody saw it
            raise
        if state["Running"]:
            return result_of(KILLED)  # its removal is under way
        return result_of(int(state["ExitCode"]), out_of_memory=bool(state["OOMKilled"]))


def result_of(exit_code: int, *, out_of_memory: bool = False) -> RunResult:
    """What an exit code means. ``out_of_memory``: the kernel killed a process of the container,
    which is blamed for the end only if the exit code says so."""
    if exit_code == 0:
        return RunResult("success")
    if exit_code == KILLED and out_of_memory:
        return RunResult("killed", exit_code, ContainerOutOfMemory())
    return RunResult("error", exit_code, ContainerExited(exit_code))
