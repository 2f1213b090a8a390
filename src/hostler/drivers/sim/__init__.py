"""A driver without processes, for tests, simulations and demonstrations on virtual time.

Each container is a Trio task that serves HTTP/1.1 on a real unix socket, so everything above the
driver runs as it does in production. Images are Python handlers::

    async with open_sim_driver({"hello": echo}) as driver:
        driver.add_image("slow", my_handler, pull_time=2.0, init_time=0.5)

* ``container``: a simulated container: image script, one task, an HTTP server on its unix socket
* ``driver``: simulated driver and cookies, with an event record
"""

from __future__ import annotations

from .container import (
    Fault,
    SimContainer,
    SimDisconnect,
    SimExit,
    SimHandler,
    SimImage,
    SimRequest,
    SimResponse,
    Stage,
    StartHook,
    echo,
)
from .driver import SimCookie, SimDriver, SimEvent, SimOptions, SimStatistics, open_sim_driver

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
