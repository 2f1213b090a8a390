"""Against grpc's C-core, both ways; its stubs are made of our proto file."""

from __future__ import annotations

import importlib
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc  # type: ignore[import-untyped]
import pytest
import trio

from hostler import wire
from hostler._fast import FastService
from hostler.protocol import (
    BODY_PIECE,
    Data,
    EngagementFailed,
    Finished,
    GRPCStatus,
    LogChannel,
    LogContainer,
    LogReady,
    LogStart,
    ResultStart,
    ServerEngagement,
    TryCall,
)

from .services import EMPTY_BODY, SUCCESS, TRY, Service, body_of, collect

PROTO = Path(__file__).resolve().parents[2] / "proto"


@pytest.fixture(scope="module")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ModuleType, ModuleType]]:
    """(messages, service) as protoc makes them."""
    folder = tmp_path_factory.mktemp("stubs")
    include = resources.files("grpc_tools") / "_proto"
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTO}", f"-I{include}"]
    command += [f"--python_out={folder}", f"--grpc_python_out={folder}", "runner.proto"]
    subprocess.run(command, check=True, timeout=60)
    sys.path.insert(0, str(folder))
    try:
        yield importlib.import_module("runner_pb2"), importlib.import_module("runner_pb2_grpc")
    finally:
        sys.path.remove(str(folder))


# --- their client, our server ---


async def _with_their_client(
    stubs: tuple[ModuleType, ModuleType],
    service: Service,
    act: Callable[[Any, ModuleType], None],
) -> None:
    """Run ``act(stub, messages)`` in a thread against a server of ours."""
    pb, pb_grpc = stubs
    with trio.fail_after(60):
        async with (
            wire.open_loop() as loop,
            wire.open_server(service, "127.0.0.1:0", loop=loop) as server,
        ):

            def run() -> None:
                with grpc.insecure_channel(server.address) as channel:
                    act(pb_grpc.RunnerProtocolStub(channel), pb)

            await trio.to_thread.run_sync(run)


def _requests(pb: ModuleType, body: bytes) -> Iterator[Any]:
    yield pb.ClientMsg(**{"try": pb.TryCall(models_call_json='{"id":"a"}')})
    for start in range(0, len(body), 100_000):
        yield pb.ClientMsg(data=pb.DataFrame(data=body[start : start + 100_000]))
    yield pb.ClientMsg(data=pb.DataFrame(eof=True))


async def test_their_client_engages(stubs: tuple[ModuleType, ModuleType]) -> None:
    body = b"0123456789" * 100_000

    def act(stub: Any, pb: ModuleType) -> None:
        metadata = [("fn_request_id", "rid")]
        exchange = stub.Engage(_requests(pb, body), metadata=metadata)
        start, *datas, finished = list(exchange)
        headers = {header.key: header.value for header in start.result_start.http.headers}
        assert headers == {"X-Call": '{"id":"a"}', "X-Request": "rid"}
        assert b"".join(message.data.data for message in datas) == body
        assert all(len(message.data.data) <= BODY_PIECE for message in datas)
        assert finished.finished.success
        assert exchange.code() is grpc.StatusCode.OK

    await _with_their_client(stubs, Service(), act)


class _Refuses(Service, FastService):
    """Has no room, which it knows before a call is served."""

    def begin_engage(self, engagement: ServerEngagement, first: TryCall) -> Finished:
        return Finished(success=False, details=engagement.request_id, error_code=503)


@pytest.mark.parametrize("size", [0, 300_000])
@pytest.mark.fast
async def test_their_client_is_refused_at_once(
    stubs: tuple[ModuleType, ModuleType], size: int
) -> None:
    service = _Refuses()

    def act(stub: Any, pb: ModuleType) -> None:
        for number in range(100):
            metadata = (("fn_request_id", str(number)),)
            (answer,) = stub.Engage(_requests(pb, b"x" * size), metadata=metadata, timeout=30)
            assert (answer.finished.errorCode, answer.finished.details) == (503, str(number))

    await _with_their_client(stubs, service, act)
    assert service.started == 0


async def test_their_client_uses_the_other_methods(stubs: tuple[ModuleType, ModuleType]) -> None:
    from google.protobuf import empty_pb2, struct_pb2  # type: ignore[import-untyped]

    service = Service()

    async def logs(channel: LogChannel) -> None:
        assert await channel.receive() == LogStart({"a": "b"})
        assert await channel.receive() == LogReady()
        await channel.send([LogContainer("app", "fn", "ctr", [])])
        assert await channel.receive() is None

    service.on_logs = logs

    def act(stub: Any, pb: ModuleType) -> None:
        assert stub.Status(empty_pb2.Empty()).customStatus == {"a": "b"}
        struct = struct_pb2.Struct()
        struct.update({"n": 1, "l": [True, None, "x", {}]})
        details = stub.Status2(struct).details
        assert details in ('{"n":1,"l":[true,null,"x",{}]}', '{"l":[true,null,"x",{}],"n":1}')
        assert stub.ConfigureRunner(pb.ConfigMsg(config={"k": "v"})) == pb.ConfigStatus()
        asks = [
            pb.LogRequestMsg(start=pb.LogRequestMsg.Start(config={"a": "b"})),
            pb.LogRequestMsg(ready=pb.LogRequestMsg.Ready()),
        ]
        (batch,) = list(stub.StreamLogs(iter(asks)))
        assert batch.data[0].containerId == "ctr"

    await _with_their_client(stubs, service, act)
    assert service.config == {"k": "v"}


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (14, grpc.StatusCode.UNAVAILABLE),
        (9, grpc.StatusCode.FAILED_PRECONDITION),
        (503, grpc.StatusCode.UNKNOWN),  # its enumeration is closed, and it copes
    ],
)
async def test_their_client_sees_the_status(
    stubs: tuple[ModuleType, ModuleType], status: int, code: object
) -> None:
    async def engage(engagement: ServerEngagement) -> None:
        await engagement.receive()
        raise GRPCStatus(status, "t\u00ebxt")

    def act(stub: Any, pb: ModuleType) -> None:
        exchange = stub.Engage(_requests(pb, b""))
        with pytest.raises(grpc.RpcError):
            list(exchange)
        assert exchange.code() is code
        assert "t\u00ebxt" in exchange.details() or status == 503

    await _with_their_client(stubs, Service(engage), act)


async def test_their_client_cancels(stubs: tuple[ModuleType, ModuleType]) -> None:
    service = Service()
    record: list[str] = []

    async def engage(engagement: ServerEngagement) -> None:
        await engagement.receive()
        await engagement.send(ResultStart(200))
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            record.append("cancelled")
            raise

    service.on_engage = engage

    def act(stub: Any, pb: ModuleType) -> None:
        exchange = stub.Engage(_requests(pb, b""))
        next(exchange)
        exchange.cancel()
        trio.from_thread.run(service.wait_idle)
        assert record == ["cancelled"]
        with pytest.raises(grpc.RpcError):
            stub.Engage(_requests(pb, b""), timeout=0.05).result()
        trio.from_thread.run(service.wait_idle)

    await _with_their_client(stubs, service, act)


async def test_their_client_is_refused_too_large_messages(
    stubs: tuple[ModuleType, ModuleType],
) -> None:
    def act(stub: Any, pb: ModuleType) -> None:
        exchange = stub.Engage(iter([pb.ClientMsg(data=pb.DataFrame(data=bytes(5 * 2**20)))]))
        with pytest.raises(grpc.RpcError, match="larger than max"):
            list(exchange)
        assert exchange.code() is grpc.StatusCode.RESOURCE_EXHAUSTED

    await _with_their_client(stubs, Service(), act)


async def test_their_client_is_told_of_a_stopping_server(
    stubs: tuple[ModuleType, ModuleType],
) -> None:
    pb, pb_grpc = stubs
    go = trio.Event()

    async def engage(engagement: ServerEngagement) -> None:
        await engagement.receive()
        await engagement.send(ResultStart(200))
        await go.wait()
        await engagement.send(SUCCESS)

    with trio.fail_after(60):
        async with (
            wire.open_loop() as loop,
            wire.open_server(Service(engage), "127.0.0.1:0", loop=loop) as server,
        ):
            # Grpc's core sends a refused call again by itself, and often forgets it if it can't
            # connect then: that call never ends, whatever its deadline (seen with 1.85).
            options = [("grpc.enable_retries", 0)]

            def run() -> None:
                with grpc.insecure_channel(server.address, options) as channel:
                    stub = pb_grpc.RunnerProtocolStub(channel)
                    # The scope above can't end a thread: a call without an answer has to by itself.
                    running = stub.Engage(_requests(pb, b""), timeout=50)
                    next(running)
                    trio.from_thread.run_sync(server.stop_accepting)
                    refused = stub.Engage(_requests(pb, b""), timeout=40)
                    with pytest.raises(grpc.RpcError):
                        list(refused)
                    assert refused.code() is grpc.StatusCode.UNAVAILABLE
                    trio.from_thread.run_sync(go.set)
                    assert len(list(running)) == 1

            await trio.to_thread.run_sync(run)


# --- our client, their server ---


class _TheirService:
    """Synchronous, in grpc's threads; ``engage`` is what a test wants."""

    def __init__(self, pb: ModuleType) -> None:
        self.pb = pb
        self.engage: Callable[[Iterator[Any], Any], Iterator[Any]] = self.echo
        self.ended = threading.Event()
        self.seen: queue.Queue[Any] = queue.Queue()

    def Engage(self, requests: Iterator[Any], context: Any) -> Iterator[Any]:
        context.add_callback(self.ended.set)
        return self.engage(requests, context)

    def echo(self, requests: Iterator[Any], context: Any) -> Iterator[Any]:
        pb = self.pb
        self.seen.put(dict(context.invocation_metadata()))
        call = getattr(next(requests), "try")
        body = bytearray()
        for message in requests:
            body += message.data.data
            if message.data.eof:
                break
        header = pb.HttpHeader(key="X-Call", value=call.models_call_json)
        http = pb.HttpRespMeta(status_code=200, headers=[header])
        yield pb.RunnerMsg(result_start=pb.CallResultStart(http=http))
        for start in range(0, len(body), 10_240):
            data = bytes(body[start : start + 10_240])
            yield pb.RunnerMsg(data=pb.DataFrame(data=data))
        yield pb.RunnerMsg(finished=pb.CallFinished(success=True, details="a"))

    def EngageMany(self, requests: Iterator[Any], context: Any) -> Iterator[Any]:
        """In the proto file, but nothing that Fn's runners have or announce."""
        self.seen.put("EngageMany")
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "unknown method EngageMany")
        yield

    def Status(self, request: Any, context: Any) -> Any:
        return self.pb.RunnerStatus(active=3, customStatus={"a": "b"})

    def Status2(self, request: Any, context: Any) -> Any:
        return self.pb.RunnerStatus(details=repr(dict(request)))

    def ConfigureRunner(self, request: Any, context: Any) -> Any:
        self.seen.put(dict(request.config))
        return self.pb.ConfigStatus()

    def StreamLogs(self, requests: Iterator[Any], context: Any) -> Iterator[Any]:
        for message in requests:
            if message.HasField("ready"):
                container = self.pb.LogResponseMsg.Container(containerId="ctr")
                yield self.pb.LogResponseMsg(data=[container])
            elif message.HasField("ack"):
                return


@pytest.fixture
def theirs(stubs: tuple[ModuleType, ModuleType]) -> Iterator[tuple[_TheirService, Any, str]]:
    pb, pb_grpc = stubs
    service = _TheirService(pb)
    with ThreadPoolExecutor(8) as threads:
        server = grpc.server(threads)
        pb_grpc.add_RunnerProtocolServicer_to_server(service, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield service, server, f"127.0.0.1:{port}"
        server.stop(None).wait()


async def test_our_client_engages(theirs: tuple[_TheirService, Any, str]) -> None:
    service, _, address = theirs
    body = b"0123456789" * 100_000
    with trio.fail_after(60):
        async with wire.open_loop() as loop:
            client = wire.GrpcRunnerClient(
                address, wire.ConnectOptions(connect_timeout=60), loop=loop
            )
            first = Data(body, eof=True)
            async with client.engage(TRY, first=first, request_id="rid") as engagement:
                frames = await collect(engagement)
            assert frames[0] == ResultStart(200, (("X-Call", '{"id":"a"}'),))
            assert body_of(frames) == body
            assert frames[-1] == Finished(success=True, details="a")
            assert service.seen.get(timeout=60)["fn_request_id"] == "rid"
            await client.aclose()


async def test_our_client_uses_the_other_methods(theirs: tuple[_TheirService, Any, str]) -> None:
    service, _, address = theirs
    with trio.fail_after(60):
        async with wire.open_loop() as loop:
            client = wire.GrpcRunnerClient(
                address, wire.ConnectOptions(connect_timeout=60), loop=loop
            )
            status = await client.status()
            assert (status.active, status.custom_status) == (3, {"a": "b"})
            assert (await client.status('{"a": 1.5}')).details == "{'a': 1.5}"
            await client.configure({"k": "v"})
            assert service.seen.get(timeout=60) == {"k": "v"}
            async with client.stream_logs() as collector:
                await collector.send(LogStart())
                await collector.send(LogReady())
                batch = await collector.receive()
                assert batch is not None
                assert batch[0].container_id == "ctr"
            await client.aclose()


async def test_our_client_cancels(theirs: tuple[_TheirService, Any, str]) -> None:
    service, _, address = theirs
    with trio.fail_after(60):
        async with wire.open_loop() as loop:
            client = wire.GrpcRunnerClient(
                address, wire.ConnectOptions(connect_timeout=60), loop=loop
            )
            async with client.engage(TRY):
                await trio.to_thread.run_sync(service.seen.get)
            assert await trio.to_thread.run_sync(service.ended.wait, 10)
            await client.aclose()


async def test_our_client_sees_their_status(theirs: tuple[_TheirService, Any, str]) -> None:
    service, _, address = theirs

    def fail(requests: Iterator[Any], context: Any) -> Iterator[Any]:
        next(requests)
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "t\u00ebxt")
        yield

    service.engage = fail
    with trio.fail_after(60):
        async with wire.open_loop() as loop:
            client = wire.GrpcRunnerClient(
                address, wire.ConnectOptions(connect_timeout=60), loop=loop
            )
            async with client.engage(TRY, first=EMPTY_BODY) as engagement:
                with pytest.raises(EngagementFailed) as info:
                    await engagement.receive()
            assert (info.value.status, info.value.text) == (8, "t\u00ebxt")
            await client.aclose()


async def test_our_client_ends_its_call_on_their_server_that_stops(
    theirs: tuple[_TheirService, Any, str],
) -> None:
    """The C-core sends GOAWAY and gives running calls the grace."""
    service, server, address = theirs
    go = threading.Event()

    def slow(requests: Iterator[Any], context: Any) -> Iterator[Any]:
        next(requests)
        yield service.pb.RunnerMsg(data=service.pb.DataFrame(data=b"1"))
        go.wait(60)
        yield service.pb.RunnerMsg(finished=service.pb.CallFinished(success=True))

    service.engage = slow
    with trio.fail_after(60):
        async with wire.open_loop() as loop:
            client = wire.GrpcRunnerClient(
                address, wire.ConnectOptions(connect_timeout=60), loop=loop
            )
            async with client.engage(TRY, first=EMPTY_BODY) as engagement:
                await engagement.receive()
                stopped = server.stop(10)
                while client._pool._usable():
                    await trio.testing.wait_all_tasks_blocked(0.001)
                go.set()
                assert await collect(engagement) == [Finished(success=True)]
            assert await trio.to_thread.run_sync(stopped.wait, 10)
            await client.aclose()
