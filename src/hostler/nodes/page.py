"""The node's page and log tail, if enabled."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Literal

import trio

from .._asgi.types import ASGIApp
from ..abc import CallListener, OutputPiece, OutputSink
from ..datastore import Datastore
from ..functions import FunctionTable
from ..tail import AggregateTail, LogTail, tail_app
from ..ui import (
    Activity,
    Directory,
    Panel,
    RunnerLoads,
    ui_app,
)
from .lifetime import NodeLifetime
from .settings import Settings
from .workers import AggregateMetrics, PeerWorkers

if TYPE_CHECKING:
    from ..agent import Agent
    from ..lb import LBAgent
    from ..pool import DynamicPool


class NodePage:
    """What a node tells its page, and does not if ``FN_UI`` is off: then all of this does
    nothing, and no call pays for it."""

    def __init__(
        self,
        node: Literal["full", "lb", "runner", "api"],
        settings: Settings,
        life: NodeLifetime,
        peers: PeerWorkers | None = None,
    ) -> None:
        self._peers, self._registry = peers, life.registry
        self._panel = Panel(node=node, is_ready=life.is_ready) if settings.node.ui else None
        if self._panel is not None and node != "api":
            # To a runner's clients, load balancers, a refusal is no failure.
            self._panel.activity = Activity(only_begun=node == "runner")

    @property
    def listeners(self) -> list[CallListener]:
        """For the node's agent."""
        panel = self._panel
        return [panel.activity] if panel is not None and panel.activity is not None else []

    def show(
        self,
        *,
        agent: Agent | None = None,
        lb: LBAgent | None = None,
        pool: DynamicPool | None = None,
        functions: FunctionTable | Datastore | None = None,
    ) -> None:
        """The node has these parts."""
        panel = self._panel
        if panel is None:
            return
        panel.agent, panel.lb = agent, lb
        panel.runners = None if pool is None else RunnerLoads(pool)
        panel.directory = None if functions is None else Directory(functions)

    def mount(self, closing: trio.Event) -> Mapping[str, ASGIApp]:
        """``/ui``, whose viewers are let go when ``closing`` is set; of several workers it shows
        what all of them know, and ``/metrics`` too."""
        mounts: dict[str, ASGIApp] = {}
        panel = self._panel
        if (peers := self._peers) is not None:
            mounts["/metrics"] = AggregateMetrics(self._registry, peers)
            if panel is not None:
                panel.ask_others = partial(peers.ask, "page")
                peers.answer("page", panel.answer)
        if panel is not None:
            mounts["/ui"] = ui_app(panel, closing)
        return mounts


class Tail:
    """Without ``FN_LOG_TAIL_BYTES`` it does nothing, and nothing is attached to containers."""

    def __init__(self, settings: Settings, peers: PeerWorkers | None = None) -> None:
        limit = settings.node.log_tail_bytes
        workers = 1 if peers is None else peers.place.count
        self._tail = LogTail(-(-limit // workers)) if limit else None
        self._all: AggregateTail | None = None
        if self._tail is None:
            return
        if peers is None:
            self._all = AggregateTail(self._tail)
        else:
            self._all = AggregateTail(self._tail, peers.each("logs"))
            peers.answer("logs", self._all.answer)

    def sink(self, other: OutputSink | None = None) -> OutputSink | None:
        """For the node's agent: it and ``other`` get all output."""
        if self._tail is None or other is None:
            return other if self._tail is None else self._tail.collect
        mine = self._tail.collect

        def both(output: OutputPiece) -> None:
            mine(output)
            other(output)

        return both

    def mount(self, closing: trio.Event) -> Mapping[str, ASGIApp]:
        """``/logs``, whose readers are let go when ``closing`` is set; it has the lines of all
        workers."""
        return {} if self._all is None else {"/logs": tail_app(self._all, closing)}
