"""What goes on in an agent, at one moment."""

from __future__ import annotations

from ._events import AgentEvents, AgentStatistics, ContainerState
from ._launcher import Launcher


def snapshot(events: AgentEvents, launcher: Launcher) -> AgentStatistics:
    """The statistics of the agent whose parts these are."""
    room = launcher.room
    containers = {state: count for state, count in events.containers.items() if count}
    leaving = containers.pop(ContainerState.DONE, 0)
    return AgentStatistics(
        calls=events.calls,
        completed=events.ended["completed"],
        canceled=events.ended["canceled"],
        timeouts=events.ended["timeouts"],
        errors=events.ended["errors"],
        server_busy=events.ended["server_busy"],
        evictions=room.evictions,
        launches=events.launches,
        launch_failures=events.launch_failures,
        freezes=events.freezes,
        thaws=events.thaws,
        queued=events.queued,
        running=events.running,
        holding=events.holding,
        containers=containers,
        leaving=leaving,
        slot_queues=len(launcher.queues),
        waiting_for_room=room.waiting,
        used=room.used,
        total=room.total,
    )
