"""Runners that can't be reached or trusted, and load balancers that break the protocol."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]
import pytest
import trio
import trustme

from hostler import wire
from hostler.functions import load_functions
from hostler.protocol import Data, Finished, TryCall
from hostler.wire.codec import messages as codec
from tests.cli._process import ends

from .http import call, metric, until_metric
from .nodes import FNT, LIMIT, declare, errors_of, lines_of, open_lb, open_runner, wait_line

NOBODY = "127.0.0.1:1"
BUSY = {"message": "Timed out - server too busy"}
UNWATCHED = {"FN_HEALTH_WATCH": "false"}
"""Or the runner might be known to be away before a call tries it."""
IMPATIENT = {"FN_PLACER_TIMEOUT": "500ms"}
CALL = '{"id":"c","app_id":"a","fn_id":"f","image":"x","type":"sync"}'
END = Data(b"", eof=True)


async def test_one_of_two_runners_can_not_be_reached(folder: Path) -> None:
    async with (
        open_runner(folder) as runner,
        open_lb(folder, [NOBODY, runner.address], "--placer", "naive", env=UNWATCHED) as lb,
    ):
        for number in range(20):  # each begins with one of the two, as chance has it
            body = b"call %d" % number
            reply = await call(lb, content=body)
            assert (reply.status, reply.body) == (200, body)
        assert await ends(lb) == 0
        ran_on = {line["runner"] for line in lines_of(lb, "call finished", code=200)}
        assert ran_on == {runner.address}
        told = lines_of(lb, "runner can't be reached")
        assert [line["runner"] for line in told] == [NOBODY]
        assert errors_of(lb) == []
        await runner.drain()


async def test_no_runner_can_be_reached(folder: Path) -> None:
    async with open_lb(folder, [NOBODY], env=IMPATIENT) as lb:
        for _ in range(2):
            reply = await call(lb)
            assert (reply.status, reply.json()) == (503, BUSY)
            assert reply.headers["retry-after"] == "15"
            with trio.fail_after(LIMIT):
                line = await wait_line(lb, "call finished", call_id=reply.headers["fn-call-id"])
            assert (line["code"], line["status"], line["runner"]) == (503, "server_busy", "")
        assert await metric(lb, "fn_running") == 0
        assert await ends(lb) == 0
        assert len(lines_of(lb, "runner can't be reached")) == 1
        assert errors_of(lb) == []


# --- certificates ---


def write_pki(folder: Path) -> None:
    """``good`` and ``other`` are authorities; each has a runner's and an LB's certificate."""
    for name in ("good", "other"):
        authority = trustme.CA()
        authority.cert_pem.write_to_path(folder / f"{name}-ca.pem")
        for host in ("runner", "lb"):
            issued = authority.issue_cert(f"{host}.example")
            issued.private_key_pem.write_to_path(folder / f"{name}-{host}.key")
            issued.cert_chain_pems[0].write_to_path(folder / f"{name}-{host}.pem")


def tls(folder: Path, ca: str, own: str, host: str) -> list[str]:
    return [
        *("--tls-ca", str(folder / f"{ca}-ca.pem")),
        *("--tls-cert", str(folder / f"{own}-{host}.pem")),
        *("--tls-key", str(folder / f"{own}-{host}.key")),
    ]


async def test_certificates_decide_who_talks_to_whom(folder: Path) -> None:
    write_pki(folder)
    name = ("--tls-name", "runner.example")
    trusted = tls(folder, "good", "good", "lb")
    refused: dict[str, list[str]] = {
        "wrong name": [*trusted, "--tls-name", "else.example"],
        "wrong authority": [*tls(folder, "other", "good", "lb"), *name],
        "foreign client": [*tls(folder, "good", "other", "lb"), *name],
        "plaintext": [],
    }
    outcomes: dict[str, tuple[int, int]] = {}
    async with open_runner(folder, *tls(folder, "good", "good", "runner")) as runner:

        async def attempt(what: str, options: list[str]) -> None:
            own = folder / what.replace(" ", "-")
            own.mkdir()
            env = {} if what == "trusted" else IMPATIENT
            async with open_lb(own, [runner.address], *options, env=env) as lb:
                reply = await call(lb, content=b"hello")
                if reply.status == 200:
                    assert reply.body == b"hello"
                else:
                    assert reply.json() == BUSY
                    await wait_line(lb, "runner can't be reached")
                assert await ends(lb) == 0
                outcomes[what] = reply.status, len(lines_of(lb, "runner can't be reached"))
                assert errors_of(lb) == []

        with trio.fail_after(LIMIT * 2):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(attempt, "trusted", [*trusted, *name])
                for what, options in refused.items():
                    nursery.start_soon(attempt, what, options)
        assert outcomes == {"trusted": (200, 0)} | dict.fromkeys(refused, (503, 1))
        await runner.drain()


# --- broken messages ---


def exchange(address: str, messages: list[bytes]) -> tuple[list[bytes], Any, str]:
    """Send raw messages on an Engage stream with grpc's own client, then half-close.

    Returns what came back, the status and its text. Blocks.
    """

    def requests() -> Iterator[bytes]:
        yield from messages

    with grpc.insecure_channel(address) as channel:
        stream = channel.stream_stream("/RunnerProtocol/Engage")(requests(), timeout=LIMIT)
        received: list[bytes] = []
        with suppress(grpc.RpcError):  # its status is returned
            received.extend(stream)
        return received, stream.code(), stream.details() or ""


TRY = codec.encode_client(TryCall(models_call_json=CALL))
UNKNOWN = grpc.StatusCode.UNKNOWN
INTERNAL = grpc.StatusCode.INTERNAL

BROKEN: dict[str, tuple[list[bytes], Any, str]] = {
    "data first": (
        [codec.encode_client(END)],
        UNKNOWN,
        "Protocol failure: expected ClientMsg_Try",
    ),
    "two tries": ([TRY, TRY], UNKNOWN, "Protocol failure: expected ClientMsg_Data"),
    "nothing": ([], UNKNOWN, "Protocol failure: expected ClientMsg_Try"),
    "no data": ([TRY], UNKNOWN, "Protocol failure: expected ClientMsg_Data"),
    "no message": ([b"\xff\xff\xff\xff"], INTERNAL, ""),
    "oversize": (
        [TRY, codec.encode_client(Data(b"x" * 5_000_000, eof=True))],
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "",
    ),
}

REFUSED = {
    "no JSON": (TryCall(models_call_json="{nonsense"), "invalid call model: "),
    "no object": (TryCall(models_call_json="[1]"), "invalid call model: "),
    "wrong type": (TryCall(models_call_json='{"id": 7}'), "invalid call model: "),
    "bad hex": (TryCall(models_call_json=CALL, slot_hash_id="0g"), "invalid slot_hash_id: "),
    "odd hex": (TryCall(models_call_json=CALL, slot_hash_id="abc"), "invalid slot_hash_id: "),
}


async def test_broken_messages_end_their_own_stream_only(folder: Path) -> None:
    async with open_runner(folder) as runner:
        for what, (messages, status, text) in BROKEN.items():
            with trio.fail_after(LIMIT):
                received, code, details = await trio.to_thread.run_sync(
                    exchange, runner.address, messages
                )
            assert (received, code) == ([], status), (what, details)
            assert text in details, what
        assert await metric(runner.node, "fn_calls") == 0
        async with open_lb(folder, [runner.address], functions=FNT) as lb:
            assert (await call(lb, content=b"well")).body == b"well"
        await runner.drain()


async def test_unreadable_calls_are_the_peers_fault(folder: Path) -> None:
    """A 500 that names the part, and one line in the runner's log."""
    async with open_runner(folder) as runner, wire.open_loop() as loop:
        client = wire.GrpcRunnerClient(runner.address, loop=loop)
        with trio.fail_after(LIMIT):
            for what, (bad, text) in REFUSED.items():
                async with client.engage(bad, first=END) as engagement:
                    finished = await engagement.receive()
                assert isinstance(finished, Finished), what
                assert (finished.success, finished.error_code) == (False, 500), what
                assert finished.error_text.startswith(text), finished
                assert not finished.error_user
        await client.aclose()
        await runner.drain()
        assert len(lines_of(runner.node, "bad try frame")) == len(REFUSED)


@pytest.mark.parametrize("missing", ["half-close", "reset"])
async def test_body_without_an_end_is_never_taken_for_whole(folder: Path, missing: str) -> None:
    """The load balancer goes away in the middle of a body: the function's request breaks."""
    app, fn = await load_functions(declare(folder / "f.yaml", FNT)).find("fnt")
    model: dict[str, object] = {
        "id": "c",
        "app_id": app.id,
        "fn_id": fn.id,
        "image": fn.image,
        "type": "sync",
    }
    model.update({"timeout": 30, "idle_timeout": 30, "memory": 16, "method": "POST"})
    try_call = TryCall(models_call_json=json.dumps({**model, "url": "http://lb/"}))
    part = Data(b"x" * 1000)
    async with open_runner(folder) as runner:
        if missing == "half-close":
            messages = [codec.encode_client(try_call), codec.encode_client(part)]
            received, code, details = await trio.to_thread.run_sync(
                exchange, runner.address, messages
            )
            assert (received, code) == ([], UNKNOWN)
            assert details == "Protocol failure: expected ClientMsg_Data"
        else:
            async with wire.open_loop() as loop:
                client = wire.GrpcRunnerClient(runner.address, loop=loop)
                async with client.engage(try_call, first=part):
                    await until_metric(runner.node, "fn_running", 1)
                await client.aclose()
        with trio.fail_after(LIMIT):
            while await metric(runner.node, "fn_running") > 0:  # noqa: ASYNC110  (another's state)
                await trio.sleep(0.01)
        assert await metric(runner.node, "fn_completed") == 0
        await runner.drain()
