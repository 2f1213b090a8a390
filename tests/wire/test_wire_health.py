"""The standard health service, asked by grpc's own C-core client with stubs of its proto."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import grpc  # type: ignore[import-untyped]
import pytest
import trio
from google.protobuf import (  # type: ignore[import-untyped]
    descriptor_pb2,
    descriptor_pool,
    message_factory,
)

from hostler import wire
from tests.conftest import Logs

from .services import EMPTY_BODY, TRY, Service, collect, open_pair, read_call

_SERVICE = "/grpc.health.v1.Health/"
_NAMES = {"UNKNOWN": 0, "SERVING": 1, "NOT_SERVING": 2, "SERVICE_UNKNOWN": 3}


def _messages() -> tuple[Any, Any]:
    """(request, response) classes, described as in grpc's health.proto."""
    file = descriptor_pb2.FileDescriptorProto(
        name="health_of_test.proto", package="grpc.health.v1", syntax="proto3"
    )
    field = descriptor_pb2.FieldDescriptorProto
    request = file.message_type.add(name="HealthCheckRequest")
    request.field.add(name="service", number=1, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL)
    response = file.message_type.add(name="HealthCheckResponse")
    states = response.enum_type.add(name="ServingStatus")
    for name, number in _NAMES.items():
        states.value.add(name=name, number=number)
    response.field.add(
        name="status",
        number=1,
        type=field.TYPE_ENUM,
        type_name=".grpc.health.v1.HealthCheckResponse.ServingStatus",
        label=field.LABEL_OPTIONAL,
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    names = ("grpc.health.v1.HealthCheckRequest", "grpc.health.v1.HealthCheckResponse")
    made = [message_factory.GetMessageClass(pool.FindMessageTypeByName(name)) for name in names]
    return made[0], made[1]


REQUEST, RESPONSE = _messages()


class Stub:
    """The health service at the other end of a channel, with states by name."""

    def __init__(self, channel: Any) -> None:
        encode, decode = REQUEST.SerializeToString, RESPONSE.FromString
        self._check = channel.unary_unary(_SERVICE + "Check", encode, decode)
        self._watch = channel.unary_stream(_SERVICE + "Watch", encode, decode)

    def check(self, service: str = "") -> str:
        return _name(self._check(REQUEST(service=service), timeout=10))

    def watch(self, service: str = "") -> Any:
        return self._watch(REQUEST(service=service), timeout=20)


def _name(response: Any) -> str:
    return next(name for name, number in _NAMES.items() if number == response.status)


async def _ask(address: str, act: Callable[[Stub], None]) -> None:
    def run() -> None:
        with grpc.insecure_channel(address) as channel:
            act(Stub(channel))

    await trio.to_thread.run_sync(run)


async def test_check() -> None:
    def act(stub: Stub) -> None:
        assert stub.check() == "SERVING"
        assert stub.check("RunnerProtocol") == "SERVING"
        with pytest.raises(grpc.RpcError) as caught:
            stub.check("Other")
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND

    async with open_pair() as pair:
        await _ask(pair.server.address, act)
        assert "SERVING" in repr(pair.server.health)


async def test_watch_tells_of_the_drain_while_calls_go_on() -> None:
    told = trio.Event()
    going_on = trio.Event()

    async def engage(engagement: Any) -> None:
        await read_call(engagement)
        await going_on.wait()

    async with open_pair(engage) as pair, trio.open_nursery() as nursery:
        serving = threading.Event()

        def act(stub: Stub) -> None:
            watched = stub.watch("RunnerProtocol")
            assert _name(next(watched)) == "SERVING"
            serving.set()
            assert _name(next(watched)) == "NOT_SERVING"
            watched.cancel()

        async def watch() -> None:
            await _ask(pair.server.address, act)
            told.set()

        async with pair.client.engage(TRY, first=EMPTY_BODY) as engagement:
            await pair.service.busy.wait()
            nursery.start_soon(watch)
            await trio.to_thread.run_sync(serving.wait)
            pair.server.stop_accepting()
            await told.wait()
            assert pair.service.running == 1
            going_on.set()
            await collect(engagement)


async def test_a_watch_of_something_unknown_goes_on() -> None:
    def act(stub: Stub) -> None:
        watched = stub.watch("Other")
        assert _name(next(watched)) == "SERVICE_UNKNOWN"
        assert watched.is_active()
        watched.cancel()

    async with open_pair() as pair:
        await _ask(pair.server.address, act)


async def test_the_end_of_the_server_ends_a_watch() -> None:
    seen = threading.Event()
    ended: list[Any] = []

    def act(stub: Stub) -> None:
        watched = stub.watch()
        assert _name(next(watched)) == "SERVING"
        seen.set()
        try:
            for _ in watched:
                pass
        except grpc.RpcError as error:
            ended.append(error.code())

    with trio.fail_after(10):
        async with (
            trio.open_nursery() as nursery,
            wire.open_loop() as loop,
            wire.open_server(Service(), "127.0.0.1:0", loop=loop) as server,
        ):
            nursery.start_soon(_ask, server.address, act)
            await trio.to_thread.run_sync(seen.wait)
    assert ended == [grpc.StatusCode.UNAVAILABLE]


async def test_an_undecodable_request_is_one_log_line(logs: Logs) -> None:
    def act(stub: Stub, address: str) -> None:
        with grpc.insecure_channel(address) as channel:
            raw = channel.unary_unary(_SERVICE + "Check", None, None)
            with pytest.raises(grpc.RpcError) as caught:
                raw(b"\x0a\xff", timeout=10)
            assert caught.value.code() is grpc.StatusCode.INTERNAL

    async with open_pair() as pair:
        await _ask(pair.server.address, lambda stub: act(stub, pair.server.address))
    assert len(logs.with_event("undecodable message")) == 1


async def test_unknown_methods_of_it_are_unimplemented() -> None:
    def act(stub: Stub, address: str) -> None:
        with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary(_SERVICE + "List", None, None)(b"", timeout=10)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED

    async with open_pair() as pair:
        await _ask(pair.server.address, lambda stub: act(stub, pair.server.address))
