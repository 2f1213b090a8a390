"""The node's page and log tail, if enabled."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Literal

import trio

from .._asgi import ASGIApp
from ..abc import CallListener, OutputPiece, OutputSink
from ..tail import AggregateTail, LogTail, TailShare, tail_app
from ..ui import (
    Activity,
    AggregatePanel,
    Directory,
    Lister,
    Panel,
    RunnerLoads,
    StateSource,
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
        colleagues: PeerWorkers | None = None,
    ) -> None:
        self._colleagues, self._registry = colleagues, life.registry
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
        lister: Lister | None = None,
    ) -> None:
        """The node has these parts."""
        panel = self._panel
        if panel is None:
            return
        panel.agent, panel.lb = agent, lb
        panel.runners = None if pool is None else RunnerLoads(pool)
        panel.directory = None if lister is None else Directory(lister)

    def mount(self, closing: trio.Event) -> Mapping[str, ASGIApp]:
        """``/ui``, whose viewers are let go when ``closing`` is set; of several workers it shows
        what all of them know, and ``/metrics`` too."""
        mounts: dict[str, ASGIApp] = {}
        source: StateSource | None = self._panel
        if (colleagues := self._colleagues) is not None:
            mounts["/metrics"] = AggregateMetrics(self._registry, colleagues)
            if self._panel is not None:
                source = joint = AggregatePanel(self._panel, partial(colleagues.ask, "page"))
                colleagues.answer("page", joint.answer)
        if source is not None:
            mounts["/ui"] = ui_app(source, closing)
        return mounts


_TOPIC = "logs"


class Tail:
    """Without ``FN_LOG_TAIL_BYTES`` it does nothing, and nothing is attached to containers."""

    def __init__(self, settings: Settings, colleagues: PeerWorkers | None = None) -> None:
        limit = settings.node.log_tail_bytes
        self._joint: AggregateTail | None = None
        self._tail: LogTail | None = None
        if not limit:
            return
        if colleagues is None:
            self._tail = LogTail(limit)
        else:
            place = colleagues.place
            self._tail = LogTail(-(-limit // place.count))
            share = TailShare(self._tail)
            colleagues.answer(_TOPIC, share.answer)
            others = [n for n in range(place.count) if n != place.number]
            self._joint = AggregateTail(
                share, [partial(colleagues.ask_one, number, _TOPIC) for number in others]
            )

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
        return {} if self._tail is None else {"/logs": tail_app(self._tail, closing, self._joint)}
