"""The page of a node, if it shall have one."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Literal

import trio

from hostler._asgi import ASGIApp
from hostler.abc import CallAgent, CallListener
from hostler.functions import Catalog
from hostler.ui import (
    Activity,
    Directory,
    JointPanel,
    Lister,
    NotedCatalog,
    ObservedAgent,
    Panel,
    RunnerLoads,
    StateSource,
    ui_app,
)

from ._life import Life
from ._settings import Settings
from .workers import Colleagues, JointMetrics

if TYPE_CHECKING:  # no node has all of them
    from hostler.agent import Agent
    from hostler.lb import LBAgent
    from hostler.pool import DynamicPool


class Page:
    """What a node tells its page, and does not if ``FN_UI`` is off: then all of this does
    nothing, and no call pays for it."""

    def __init__(
        self,
        node: Literal["full", "lb", "runner", "api"],
        settings: Settings,
        life: Life,
        colleagues: Colleagues | None = None,
    ) -> None:
        self._colleagues, self._registry = colleagues, life.registry
        self._panel = Panel(node=node, is_ready=life.is_ready) if settings.node.ui else None
        if self._panel is not None and node != "api":
            # Of a runner's calls nobody but the agent knows; where there is a front end, it knows
            # best what its clients were told.
            self._panel.activity = Activity(only_detached=node != "runner")

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

    def observed(self, agent: CallAgent, catalog: Catalog) -> tuple[CallAgent, Catalog]:
        """What a front end is to use in their place."""
        panel = self._panel
        if panel is None or panel.activity is None:
            return agent, catalog
        return ObservedAgent(agent, panel.activity), NotedCatalog(catalog, panel.activity)

    def mount(self, closing: trio.Event) -> Mapping[str, ASGIApp]:
        """``/ui``, whose viewers are let go when ``closing`` is set; of several workers it shows
        what all of them know, and ``/metrics`` too."""
        mounts: dict[str, ASGIApp] = {}
        source: StateSource | None = self._panel
        if (colleagues := self._colleagues) is not None:
            mounts["/metrics"] = JointMetrics(self._registry, colleagues)
            if self._panel is not None:
                source = joint = JointPanel(self._panel, partial(colleagues.ask, "page"))
                colleagues.answer("page", joint.answer)
        if source is not None:
            mounts["/ui"] = ui_app(source, closing)
        return mounts
