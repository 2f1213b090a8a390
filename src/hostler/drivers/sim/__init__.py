"""A driver without processes, for tests, simulations and demonstrations on virtual time.

Each container is a Trio task that serves HTTP/1.1 on a real unix socket, so everything above the
driver runs as it does in production. Images are Python handlers::

    async with open_sim_driver({"hello": echo}) as driver:
        driver.add_image("slow", my_handler, pull_time=2.0, init_time=0.5)
"""

from __future__ import annotations

from ._container import SimContainer
from ._cookie import SimCookie, SimOptions
from ._driver import SimDriver, SimEvent, SimStatistics, open_sim_driver
from ._http import SimRequest
from ._image import (
    Fault,
    SimDisconnect,
    SimExit,
    SimHandler,
    SimImage,
    SimResponse,
    Stage,
    StartHook,
    echo,
)

__all__ = [
    "Fault",
    "SimContainer",
    "SimCookie",
    "SimDisconnect",
    "SimDriver",
    "SimEvent",
    "SimExit",
    "SimHandler",
    "SimImage",
    "SimOptions",
    "SimRequest",
    "SimResponse",
    "SimStatistics",
    "Stage",
    "StartHook",
    "echo",
    "open_sim_driver",
]
