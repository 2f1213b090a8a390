"""The runner's agent: slots, launches, hot containers, dispatch, resources and eviction.

It knows drivers by `hostler.abc.Driver` only. From the bottom up::

    _agent        admits calls, gets each a container, runs it, counts it; open_agent
    _holding      containers that are held for a load balancer's reservation
    _execution    one call on one container: hooks around the exchange, time limit
    _exchange     the request and the response over the function's socket
    _launcher     room, then a task for each container
    _warm         containers that are kept ready ahead of calls
    _keeping      how long idle ones stay, and which come ahead of calls, as a `KeepAlive` says
    _container    the life of a container, and its face as a slot; _sandbox, _startup
    _slots        where calls, launches and containers of one slot key meet
    _resources    who has the room of the machine, who waits for it, who leaves for whom
    _census       the containers of each function, for people
    _freezing     when, and how often, idle containers are frozen
    _decisions    pure functions: launch? whom to evict? freeze or retire?
"""

from __future__ import annotations

from hostler.abc import Output, OutputSink

from ._agent import Agent, StartupAction, open_agent
from ._capacity import machine_resources
from ._census import FnContainers, census
from ._decisions import Resources
from ._declared import keep_declared_warm, keep_stored_warm
from ._events import AgentStatistics, ContainerState
from ._warm import WarmHold

__all__ = [
    "Agent",
    "AgentStatistics",
    "ContainerState",
    "FnContainers",
    "Output",
    "OutputSink",
    "Resources",
    "StartupAction",
    "WarmHold",
    "census",
    "keep_declared_warm",
    "keep_stored_warm",
    "machine_resources",
    "open_agent",
]
