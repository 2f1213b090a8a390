"""Clients that come at a fixed rate, whether or not earlier ones were answered.

One connection for each client, so that a client can leave by closing it.
"""

from __future__ import annotations

import attrs
import trio

from ._answers import Answer, BadAnswer


@attrs.frozen(kw_only=True)
class OpenPlan:
    """``rate`` clients per second for ``seconds``; each gives up after ``patience`` seconds."""

    address: str
    path: str
    rate: float
    seconds: float
    patience: float
    headers: dict[str, str]


@attrs.define
class OpenResult:
    """Seconds until each answer, by status; when those came who got another one than 200, seconds
    after the first client; those who had none in time; other troubles."""

    answered: dict[int, list[float]] = attrs.Factory(dict)
    failed_at: list[float] = attrs.Factory(list)
    left: int = 0
    broken: list[str] = attrs.Factory(list)


def run_open_loop(plan: OpenPlan) -> OpenResult:
    """Returns when the last client has its answer or has left."""
    result = OpenResult()
    trio.run(_run, plan, result)
    return result


async def _run(plan: OpenPlan, result: OpenResult) -> None:
    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        for number in range(round(plan.rate * plan.seconds)):
            await trio.sleep_until(start + number / plan.rate)
            nursery.start_soon(_client, plan, result, start)


async def _client(plan: OpenPlan, result: OpenResult, start: float) -> None:
    began = trio.current_time()
    answer = Answer()
    with trio.move_on_after(plan.patience) as scope:
        try:
            await _ask(plan, answer)
        except (OSError, trio.BrokenResourceError, BadAnswer, ValueError) as error:
            result.broken.append(f"{type(error).__name__}: {error}")
            return
    if scope.cancelled_caught:
        result.left += 1
    else:
        result.answered.setdefault(answer.status, []).append(trio.current_time() - began)
        if answer.status != 200:
            result.failed_at.append(began - start)


async def _ask(plan: OpenPlan, answer: Answer) -> None:
    host, _, port = plan.address.rpartition(":")
    headers = {"Host": "localhost", "Content-Length": "0", "Connection": "close", **plan.headers}
    lines = [f"POST {plan.path} HTTP/1.1", *(f"{name}: {headers[name]}" for name in headers)]
    async with await trio.open_tcp_stream(host.strip("[]"), int(port)) as stream:
        await stream.send_all("\r\n".join([*lines, "", ""]).encode())
        while True:
            data = await stream.receive_some()
            if not data:
                raise BadAnswer("the server closed the connection without an answer")
            if answer.feed(bytes(data)):
                return
