"""Engagements between a client and a server in one process: the runner protocol by itself."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import trio

from hostler import wire
from hostler.protocol import (
    Data,
    Finished,
    GRPCStatus,
    LogChannel,
    ResultStart,
    RunnerService,
    RunnerStatus,
    ServerEngagement,
    TryCall,
)

from .._inside import measure_inside
from .._measure import Metrics, RunFailed
from .._scenario import Scenario, Settings
from .._target import Target

CLIENTS = (1, 32)
SIZES = {1: 1024, 1024: 2**20}
"""KiB in a name: bytes of the body."""
UNIMPLEMENTED = 12
CALL = TryCall(
    models_call_json='{"id":"01J5","image":"bench/echo","config":{"FN_TYPE":"sync"},"x":"%s"}'
    % ("-" * 600),
    slot_hash_id="5f" * 32,
    extensions={"tenant": "t1"},
)
HEAD = ResultStart(200, (("Content-Type", "application/octet-stream"), ("Fn-Http-Status", "200")))
END = Finished(success=True, details="01J5", image="bench/echo", execution_ns=1_234_567)


class _Echo(RunnerService):
    """Answers as a runner answers: in one write if it can."""

    async def engage(self, engagement: ServerEngagement) -> None:
        await engagement.receive()
        parts: list[bytes] = []
        while isinstance(frame := await engagement.receive(), Data):
            parts.append(frame.data)
            if frame.eof:
                break
        await engagement.send_all([HEAD, Data(b"".join(parts)), END], last=True)

    async def status(self, payload: str | None) -> RunnerStatus:
        await trio.lowlevel.checkpoint()
        return RunnerStatus()

    async def configure(self, config: Mapping[str, str]) -> None:
        await trio.lowlevel.checkpoint()

    async def stream_logs(self, channel: LogChannel) -> None:
        raise GRPCStatus(UNIMPLEMENTED, "no logs here")


async def _engage(client: wire.GrpcRunnerClient, body: Data) -> None:
    size = 0
    async with client.engage(CALL, first=body) as engagement:
        frame = None
        while (following := await engagement.receive()) is not None:
            frame = following
            size += len(frame.data) if isinstance(frame, Data) else 0
    if size != len(body.data) or frame != END:
        raise RunFailed(f"{size} bytes came back, and {frame!r}")


async def _run(settings: Settings, clients: int, size: int) -> Metrics:
    async with (
        wire.open_loop() as loop,
        wire.open_server(_Echo(), "127.0.0.1:0", loop=loop) as server,
    ):
        client = wire.GrpcRunnerClient(
            server.address, wire.ConnectOptions(connect_timeout=5), loop=loop
        )
        operation = functools.partial(_engage, client, Data(bytes(size), eof=True))
        try:
            return await measure_inside(operation, settings, clients=clients)
        finally:
            await client.aclose()


def _measure(target: Target, settings: Settings, *, clients: int, size: int) -> Metrics:
    return trio.run(_run, settings, clients, size)


SCENARIOS = tuple(
    Scenario(
        name=f"wire-{name}k-{clients}",
        about=f"{name} KiB engaged and echoed, {clients} at once, both ends in one process",
        measure=functools.partial(_measure, clients=clients, size=size),
        target="none",
    )
    for name, size in SIZES.items()
    for clients in CLIENTS
)
