"""The containers of an agent, counted for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import attrs

from ._agent import Agent
from ._events import ContainerState


@attrs.define(kw_only=True)
class FnContainers:
    """The containers of one function. ``states`` lacks launches that still wait for room."""

    app_id: str
    fn_id: str
    image: str
    states: Counter[ContainerState] = attrs.Factory(Counter)
    memory: int = 0
    """Bytes that they hold."""


def census(agent: Agent) -> Mapping[str, FnContainers]:
    """What ``agent`` has now, by the function's id. Costs time per container, so it is made for
    those who look, not for each call."""
    found: dict[str, FnContainers] = {}
    for container in agent._launcher.containers:
        state, task = container.state, container.task
        if state is None or state is ContainerState.DONE:
            continue
        entry = found.get(task.fn_id)
        if entry is None:
            entry = FnContainers(app_id=task.app_id, fn_id=task.fn_id, image=task.image)
            found[task.fn_id] = entry
        entry.states[state] += 1
        entry.memory += container.size.memory
    return found
