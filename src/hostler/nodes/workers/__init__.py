"""Several processes of one node, so that it can use several cores.

Workers are load balancers of their own on one port, as those of several machines: they place calls
by what the runners tell, and know nothing of each other's. Or they are runners of their own, each
on its port and with its part of the machine. What people and programs ask the node for, its page
and its metrics, any of them answers for all.

* ``docker``: Docker drivers of runner workers share an engine
* ``metrics``: metrics of all workers in one document
* ``peers``: a worker's place, its part of the machine, questions between workers
* ``runners``: runner workers: a port each, one machine
* ``supervisor``: starts workers, restarts them, drains them
"""

from .metrics import AggregateMetrics
from .peers import PeerWorkers, Place, RunnerPart, open_peers, place_in
from .supervisor import LBWorkers, Supervisor, WorkerGroup, workers_of

__all__ = [
    "AggregateMetrics",
    "LBWorkers",
    "PeerWorkers",
    "Place",
    "RunnerPart",
    "Supervisor",
    "WorkerGroup",
    "open_peers",
    "place_in",
    "workers_of",
]
