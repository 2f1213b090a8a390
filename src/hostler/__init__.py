"""A runner pool for functions: places calls on a fleet of runners and keeps containers hot.

The layers; an import only points downwards::

    cli                        the hostler command
    nodes                      whole nodes, composed of configuration
    testing  ui  tail          fakes and contract suites; the page; what functions printed last
    front  api  lb  runner     HTTP in; the API; the LB agent; the pure runner
    pool  agent                runners and placers; slots, hot containers, resources
    wire  drivers  store ...   gRPC (the only asyncio); docker, process, sim; SQL
    bodies  functions  logs ...   small Trio parts
    abc  call  protocol ...    the seams, and what is pure

The names below are what most programs need. They are imported when they are first used, so that
an LB does not load the Docker SDK. The seams to implement are in `hostler.abc`, errors in
`hostler.errors`, call options in `hostler.options`.

* ``_arguments``: checks of arguments and extensions
* ``_asgi``: ASGI pieces that all HTTP applications share
* ``_api_documents``: the API's JSON documents, for the server and the client, and their conversion
* ``_call_document``: a call as the JSON document in `TryCall.models_call_json`, read as Go reads it
* ``_concurrency``: small Trio primitives
* ``_declarations``: checked reading of YAML and TOML files that people write
* ``_descriptors``: file descriptor limits: which clients may still connect
* ``_document``: YAML and TOML documents as people write them (the only PyYAML, loaded only to read
  one)
* ``_fast``: ways around a wait: what some objects can do besides the plain methods of their seam
* ``_file_locks``: advisory file locks that end with their process (flock)
* ``_launch_policy``: when a function's queue gets another container, and how long its clients wait
* ``_output_lines``: function output cut into lines that belong to calls
* ``_spans``: trace spans and W3C trace context
* ``_stats``: what is remembered of the past: bounded dictionaries
* ``abc``: seams: what an extender implements or replaces, each contract in prose
* ``agent``: the runner's agent
* ``api``: the API of apps, functions and triggers
* ``api_client``: a client of the API and of functions: the only httpx
* ``bodies``: request bodies
* ``calls``: a call under way: its body, response writer, timings and listeners, and how agents
  build one from options
* ``cli``: the `hostler` command
* ``config``: settings classes, read from `FN_` variables
* ``contrib``: what is off by default and nothing else needs
* ``datastore``: datastore contract: where apps, functions and triggers are kept
* ``dates``: RFC 3339 dates with milliseconds
* ``drivers``: the drivers that come with hostler
* ``errors``: the error tree: code, text and blame of every failure
* ``front``: the HTTP front end
* ``functions``: function lookup: sources, the fixed table, and the cached lookup of another node
* ``headers``: HTTP header names in canonical form, and hop-by-hop filtering
* ``http1``: HTTP/1.1 on h11, with a fast path for plain messages
* ``ids``: sortable identifiers of calls, apps, functions, triggers and containers
* ``keep_alive``: keep-alive policies by name, and the fixed idle timeout
* ``lb``: the load balancer's agent
* ``logs``: the process's own log: renderers, sinks, and a writer that nothing waits for
* ``metrics``: Prometheus metrics of nodes: counters and histograms without locks, under Fn's names
* ``models``: apps, functions, triggers and calls as values
* ``nodes``: whole nodes, composed of the parts of the other packages
* ``options``: call options: functions that fill in a call draft
* ``pool``: runners, pools and placers
* ``protocol``: what passes between a load balancer and a runner, whatever carries it: frames, and
  the two ends of an engagement
* ``response``: calls from a program
* ``rules``: what apps, functions and triggers may be (Fn's rules)
* ``runner``: the pure runner
* ``slot_key``: the hash that decides which containers may serve a call
* ``store``: the datastore on SQL: the only SQLAlchemy and Alembic
* ``tail``: the last output of functions, for people (`GET /logs`)
* ``testing``: public fakes and contract suites
* ``tracing``: traces: the only OpenTelemetry
* ``ui``: the status page
* ``wire``: the runner protocol over HTTP/2: the only asyncio, grpclib and betterproto
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

__version__: str
"""Of the installed distribution."""

if TYPE_CHECKING:
    from ._asgi.types import ASGIApp
    from ._concurrency.drain import DrainBudget
    from .abc import CallListener, CallRequest, Driver, Placer, ResponseWriter, Runner, RunnerPool
    from .agent import Agent, open_agent
    from .api import api_app
    from .bodies import BytesBody
    from .calls import PendingCall
    from .config import AgentConfig, LBConfig, NodeConfig, PlacerConfig, PoolConfig, RunnerConfig
    from .drivers.docker import open_docker_driver
    from .drivers.process import open_process_driver
    from .drivers.sim import open_sim_driver
    from .errors import APIError, FunctionError, HostlerError
    from .front import invoke_app, respond, serve_http
    from .functions import FunctionTable, load_functions
    from .lb import LBAgent, open_lb_agent
    from .models import App, Call, Fn
    from .nodes import Extensions, open_api, open_lb, open_runner, open_serve
    from .options import from_http_fn_request, with_writer
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
    from .response import CallResponse, call
    from .runner import PureRunner, open_pure_runner
    from .store import open_datastore
    from .wire import open_loop

__all__ = [
    "APIError",
    "ASGIApp",
    "Agent",
    "AgentConfig",
    "App",
    "BoundedPlacer",
    "BytesBody",
    "Call",
    "CallListener",
    "CallRequest",
    "CallResponse",
    "ConsistentHashPlacer",
    "DrainBudget",
    "Driver",
    "Extensions",
    "Fn",
    "FunctionError",
    "FunctionTable",
    "HostlerError",
    "LBAgent",
    "LBConfig",
    "LeastLoadedPlacer",
    "NaivePlacer",
    "NodeConfig",
    "PendingCall",
    "Placer",
    "PlacerConfig",
    "PoolConfig",
    "PureRunner",
    "ResponseWriter",
    "Runner",
    "RunnerConfig",
    "RunnerPool",
    "WarmPlacer",
    "api_app",
    "call",
    "from_http_fn_request",
    "invoke_app",
    "load_functions",
    "mtls_runner_factory",
    "open_agent",
    "open_api",
    "open_datastore",
    "open_dns_pool",
    "open_docker_driver",
    "open_dynamic_pool",
    "open_lb",
    "open_lb_agent",
    "open_loop",
    "open_process_driver",
    "open_pure_runner",
    "open_runner",
    "open_serve",
    "open_sim_driver",
    "open_static_pool",
    "respond",
    "serve_http",
    "with_writer",
]

_HOMES = {
    "_asgi.types": ("ASGIApp",),
    "_concurrency.drain": ("DrainBudget",),
    "abc": (
        "CallListener",
        "CallRequest",
        "Driver",
        "Placer",
        "ResponseWriter",
        "Runner",
        "RunnerPool",
    ),
    "agent": ("Agent", "open_agent"),
    "api": ("api_app",),
    "bodies": ("BytesBody",),
    "calls": ("PendingCall",),
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
    "front": ("invoke_app", "respond", "serve_http"),
    "functions": ("FunctionTable", "load_functions"),
    "lb": ("LBAgent", "open_lb_agent"),
    "models": ("App", "Call", "Fn"),
    "nodes": ("Extensions", "open_api", "open_lb", "open_runner", "open_serve"),
    "options": ("from_http_fn_request", "with_writer"),
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
    "response": ("CallResponse", "call"),
    "runner": ("PureRunner", "open_pure_runner"),
    "store": ("open_datastore",),
    "wire": ("open_loop",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


if not TYPE_CHECKING:  # for a type checker a name that is not declared above is an error

    def __getattr__(name: str) -> object:
        if name == "__version__":
            return version("hostler")
        home = _HOME.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f".{home}", __name__), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
