"""The runner's agent: slots, launches, hot containers, dispatch, resources and eviction.

It knows drivers by `hostler.abc.Driver` only.

* ``admission``: which calls may wait for a busy container; fair shares of load balancers
* ``agent``: admits calls, gets each a container, runs it, and accounts for its end; reservations
* ``capacity``: how much memory and CPU containers may use on this machine
* ``container``: hot container: its states, its task from socket directory to removal, its use by
  calls
* ``dispatch``: one call on its container: hooks, the HTTP exchange, limits, how it ended
* ``freezing``: when idle containers are frozen: an adaptive grace and a bounded rate
* ``keep_alive``: the agent's side of a keep-alive policy
* ``keep_warm``: follows declared or stored functions and keeps those ready whose annotation asks
  for it
* ``launcher``: launching containers: resources first, then the container's own task
* ``load_report``: load hints for load balancers
* ``output``: what a container prints and uses: log limits, debug lines, samples per call
* ``resources``: resource tracker: memory and CPU tokens, the queue for them, evictions, protection
* ``slots``: slot queues: where calls, launches and hot containers of one slot key meet
* ``socket_directory``: function sockets: their directories (iofs), and the connections to one
* ``statistics``: agent statistics: counters, container states, snapshots
* ``template``: what a launch takes from the call that causes it
* ``warm``: containers kept ready ahead of calls (`min-warm`, `keep_warm`)
"""

from __future__ import annotations

from ..abc import OutputPiece, OutputSink
from .agent import Agent, FnContainers, StartupAction, container_counts, open_agent
from .capacity import machine_resources
from .keep_warm import keep_declared_warm, keep_stored_warm
from .resources import Resources
from .statistics import AgentStatistics, ContainerState
from .warm import WarmHold

__all__ = [
    "Agent",
    "AgentStatistics",
    "ContainerState",
    "FnContainers",
    "OutputPiece",
    "OutputSink",
    "Resources",
    "StartupAction",
    "WarmHold",
    "container_counts",
    "keep_declared_warm",
    "keep_stored_warm",
    "machine_resources",
    "open_agent",
]
