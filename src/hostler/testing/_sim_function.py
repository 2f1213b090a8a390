"""The contract suite's function, for the sim driver."""

from __future__ import annotations

import json
import signal

import trio

from hostler.drivers.sim import (
    SimContainer,
    SimDriver,
    SimExit,
    SimImage,
    SimRequest,
    SimResponse,
)

_ABORTED = 128 + signal.SIGABRT


def _orders(text: str) -> dict[str, str]:
    """``key=value;key`` as a dict."""
    pairs = (item.partition("=") for item in text.split(";") if item)
    return {key: value for key, _, value in pairs}


async def _start(container: SimContainer) -> None:
    orders = _orders(container.env.get("FNT_START", ""))
    if "exit" in orders:
        raise SimExit(int(orders["exit"]))
    if "crash" in orders:
        raise SimExit(_ABORTED)
    if "hang" in orders:
        await trio.sleep_forever()


async def _answer(request: SimRequest) -> SimResponse:
    orders = _orders(request.header("fnt-do"))
    for key in ("out", "err"):
        if key in orders:
            request.container.output(orders[key].encode() + b"\n", stderr=key == "err")
    body = await request.read()
    if "exit" in orders:
        raise SimExit(int(orders["exit"]))
    if "crash" in orders:
        raise SimExit(_ABORTED)
    if "hang" in orders:
        await trio.sleep_forever()
    if "env" in orders:
        body = json.dumps({"env": request.container.env}).encode()
    return SimResponse(body=body)


def add_sim_function(driver: SimDriver, name: str = "function") -> SimImage:
    """Give a sim driver the image that `DriverSubject.image` asks for."""
    return driver.add_image(name, _answer, start_hook=_start)
