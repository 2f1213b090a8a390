"""A runner pool for functions: places calls on a fleet of runners and keeps containers hot.

The layers; an import only points downwards::

    cli                  the hostler command
    testing              fakes and contract suites for your own parts
    front  api           HTTP in; the API of apps, functions and triggers
    lb  runner           the LB agent; the pure runner
    pool   agent         runners and placers; slots, hot containers, resources
    wire   drivers       gRPC (the only asyncio); docker, process, sim
    bodies call options functions logs metrics ...    small Trio parts
    abc engagement errors models frames config ...    the seams, and what is pure

The names below are what most programs need. They are imported when they are first used, so that
an LB does not load the Docker SDK. The seams to implement are in `hostler.abc`, errors in
`hostler.errors`, call options in `hostler.options`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._concurrency.drain import Grace
    from .agent import Agent, open_agent
    from .api import api_app
    from .call import PendingCall
    from .config import AgentConfig, LBConfig, NodeConfig, PlacerConfig, PoolConfig, RunnerConfig
    from .drivers.docker import open_docker_driver
    from .drivers.process import open_process_driver
    from .drivers.sim import open_sim_driver
    from .errors import APIError, FunctionError, HostlerError
    from .front import invoke_app, serve_http
    from .functions import FunctionTable, load_functions
    from .lb import LBAgent, open_lb_agent
    from .models import App, Call, Fn
    from .pool import (
        BoundedPlacer,
        ConsistentHashPlacer,
        LeastLoadedPlacer,
        NaivePlacer,
        WarmPlacer,
        mtls_runner_factory,
        open_dns_pool,
        open_dynamic_pool,
        open_static_pool,
    )
    from .runner import PureRunner, open_pure_runner
    from .store import open_datastore
    from .wire import open_loop

__all__ = [
    "APIError",
    "Agent",
    "AgentConfig",
    "App",
    "BoundedPlacer",
    "Call",
    "ConsistentHashPlacer",
    "Fn",
    "FunctionError",
    "FunctionTable",
    "Grace",
    "HostlerError",
    "LBAgent",
    "LBConfig",
    "LeastLoadedPlacer",
    "NaivePlacer",
    "NodeConfig",
    "PendingCall",
    "PlacerConfig",
    "PoolConfig",
    "PureRunner",
    "RunnerConfig",
    "WarmPlacer",
    "api_app",
    "invoke_app",
    "load_functions",
    "mtls_runner_factory",
    "open_agent",
    "open_datastore",
    "open_dns_pool",
    "open_docker_driver",
    "open_dynamic_pool",
    "open_lb_agent",
    "open_loop",
    "open_process_driver",
    "open_pure_runner",
    "open_sim_driver",
    "open_static_pool",
    "serve_http",
]

_HOMES = {
    "_concurrency.drain": ("Grace",),
    "agent": ("Agent", "open_agent"),
    "api": ("api_app",),
    "call": ("PendingCall",),
    "config": (
        "AgentConfig",
        "LBConfig",
        "NodeConfig",
        "PlacerConfig",
        "PoolConfig",
        "RunnerConfig",
    ),
    "drivers.docker": ("open_docker_driver",),
    "drivers.process": ("open_process_driver",),
    "drivers.sim": ("open_sim_driver",),
    "errors": ("APIError", "FunctionError", "HostlerError"),
    "front": ("invoke_app", "serve_http"),
    "functions": ("FunctionTable", "load_functions"),
    "lb": ("LBAgent", "open_lb_agent"),
    "models": ("App", "Call", "Fn"),
    "pool": (
        "BoundedPlacer",
        "ConsistentHashPlacer",
        "LeastLoadedPlacer",
        "NaivePlacer",
        "WarmPlacer",
        "mtls_runner_factory",
        "open_dns_pool",
        "open_dynamic_pool",
        "open_static_pool",
    ),
    "runner": ("PureRunner", "open_pure_runner"),
    "store": ("open_datastore",),
    "wire": ("open_loop",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


if not TYPE_CHECKING:  # for a type checker a name that is not declared above is an error

    def __getattr__(name: str) -> object:
        home = _HOME.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f".{home}", __name__), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
