"""Functions of the sim driver that several tests call."""

from __future__ import annotations

import trio

from hostler.drivers.sim import SimRequest, SimResponse


async def sleeper(request: SimRequest) -> SimResponse:
    """Answer after as many seconds as the body says."""
    body = await request.read()
    await trio.sleep(float(body or b"10"))
    return SimResponse(body=body)


async def hang(request: SimRequest) -> SimResponse:
    await request.read()
    await trio.sleep_forever()
    raise AssertionError
