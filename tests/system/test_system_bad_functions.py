"""Functions that misbehave: the codes and texts of Fn, one log line each, nothing left behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import h11
import pytest
import trio

from .http import call, metric, posting
from .nodes import LIMIT, Functions, errors_of, lines_of, open_fleet, wait_line

FAILED_START = (
    "Container failed to initialize, please ensure you are using the latest fdk and check the logs"
)
SLOW_START = (
    "Container initialization timed out, please ensure you are using the latest fdk "
    "and check the logs"
)
NO_RESPONSE = "error receiving function response"
LIMITS = {
    "FN_HOT_START_TIMEOUT_MSECS": "2000",
    "FN_MAX_HDR_RESPONSE_SIZE": "2048",
    "FN_MAX_RESPONSE_SIZE": "100000",
    "FN_MAX_TOTAL_MEMORY_BYTES": str(2**31),
}


@attrs.frozen
class Case:
    """A call and its answer."""

    code: int
    text: str
    do: str = ""
    """For the function; a case without it has a function that is broken from its start."""
    start: str = ""
    fields: dict[str, Any] = attrs.Factory(dict)
    """Of the function, if it is not the common one."""
    body: bytes = b""

    def fn(self, number: int) -> tuple[str, dict[str, Any]]:
        """The function's name and its declaration."""
        if not (self.start or self.fields):
            return "fnt", {}
        config = {"config": {"FNT_START": self.start}} if self.start else {}
        return f"bad{number}", {**config, **self.fields}


CASES = [
    Case(502, f"{NO_RESPONSE}: the container was killed by signal 6", "crash"),
    Case(502, f"{NO_RESPONSE}: the container exited with code 3", "exit=3"),
    Case(502, f"{NO_RESPONSE}: the container exited with code 0", "exit=0"),
    Case(502, NO_RESPONSE, "garbage"),
    Case(502, NO_RESPONSE, "close"),
    Case(502, NO_RESPONSE, "status=200;close=early"),
    Case(502, "function closed pipe while receiving request", "close=early", body=b"x" * 3_000_000),
    Case(502, "function failed", "status=502"),
    Case(504, "Timed out", "status=504"),
    Case(502, "invalid function response", "status=500"),
    Case(502, "invalid function response", "status=404"),
    Case(502, "function response header too large", "bighead=5000"),
    Case(502, "function response body too large", "size=100001"),
    Case(504, "Timed out", "hang", fields={"timeout": 1}),
    Case(504, "Timed out", "sleep=20000", fields={"timeout": 1}),
    Case(504, SLOW_START, start="hang"),
    Case(502, f"{FAILED_START}: the container exited with code 2", start="exit=2"),
    Case(502, f"{FAILED_START}: the container exited with code 0", start="exit=0"),
    Case(502, f"{FAILED_START}: the container was killed by signal 6", start="crash"),
    Case(502, f"{FAILED_START}: lsnr.sock is not a socket", start="nosocket=file"),
    Case(
        502,
        f"{FAILED_START}: lsnr.sock points out of its directory: 'outside/phony.sock'",
        start="nosocket=outside",
    ),
    Case(
        502,
        f"{FAILED_START}: lsnr.sock can't be used: No such file or directory",
        start="nosocket=dangling",
    ),
    Case(
        404,
        "Failed to pull image '/none/such': no such program: /none/such",
        fields={"image": "/none/such"},
    ),
    Case(400, "Requested CPU/Memory cannot be allocated", fields={"memory": 4096}),
]


async def test_each_misbehaviour_has_its_code_text_and_log_line(folder: Path) -> None:
    functions: Functions = {"fnt": {}} | dict(case.fn(number) for number, case in enumerate(CASES))
    async with open_fleet(folder, runners=1, functions=functions, runner_env=LIMITS) as fleet:
        runner = fleet.runners[0]
        wrong: list[str] = []

        async def check(number: int, case: Case) -> None:
            reply = await call(fleet.lb, case.do, case.body, case.fn(number)[0])
            if (reply.status, reply.body) != (
                case.code,
                b'{"message":"%s"}\n' % case.text.encode(),
            ):
                wrong.append(f"{case.do or case.start}: {reply}")
            if not reply.headers["content-type"].startswith("application/json"):
                wrong.append(f"{case.do or case.start}: {reply}")
            call_id = reply.headers["fn-call-id"]
            await wait_line(fleet.lb, "call finished", call_id=call_id)
            lines = lines_of(fleet.lb, "call finished", call_id=call_id)
            if [(line["code"], line["error"]) for line in lines] != [(case.code, case.text)]:
                wrong.append(f"{case.do or case.start}: {lines}")

        with trio.fail_after(LIMIT * 2):
            async with trio.open_nursery() as nursery:
                for number, case in enumerate(CASES):
                    nursery.start_soon(check, number, case)
        assert not wrong, "\n".join(wrong)
        assert await metric(runner.node, "fn_running") == 0
        assert await metric(fleet.lb, "fn_running") == 0
        reply = await call(fleet.lb, fn="none")
        assert (reply.status, reply.json()) == (404, {"message": "Fn not found"})
        assert lines_of(fleet.lb, "call finished", fn_id="none") == []
        assert (await call(fleet.lb, content=b"well")).body == b"well"
        assert errors_of(runner.node) == []
        await fleet.drain()


async def test_response_that_breaks_in_the_middle_is_not_taken_for_whole(folder: Path) -> None:
    async with open_fleet(folder, runners=1) as fleet:
        for do in ("size=90000;close=mid", "size=90000;framing=chunked;close=mid"):
            async with posting(fleet.lb, "/invoke/fnt", Fnt_Do=do) as exchange:
                head = await exchange.head()
                with pytest.raises(h11.RemoteProtocolError):
                    await exchange.rest()
            call_id = head.headers["fn-call-id"]
            with trio.fail_after(LIMIT):
                line = await wait_line(fleet.lb, "call finished", call_id=call_id)
            assert (line["code"], line["error"]) == (502, NO_RESPONSE)
        await fleet.drain()
