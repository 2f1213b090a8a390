"""Several processes of one node, so that it can use several cores.

_crew         what the workers of a kind of node have in common: load balancers, for example
runners       the same for runners
docker        their driver, which shares an engine with those of the others
_part         what each of those has of the machine
_place        what a worker process is told of its place among the others
_supervisor   the node whose process starts the workers, keeps them and passes drains on
_worker       one worker process, as the supervisor sees it
_colleagues   questions between the workers of a node
_metrics      one document of the metrics of all

Workers are load balancers of their own on one port, as those of several machines: they place calls
by what the runners tell, and know nothing of each other's. Or they are runners of their own, each
on its port and with its part of the machine. What people and programs ask the node for, its page
and its metrics, any of them answers for all.
"""

from ._colleagues import Colleagues, open_colleagues
from ._crew import Crew, LBCrew
from ._metrics import JointMetrics
from ._part import RunnerPart
from ._place import Place, place_in
from ._supervisor import Supervisor, workers_of

__all__ = [
    "Colleagues",
    "Crew",
    "JointMetrics",
    "LBCrew",
    "Place",
    "RunnerPart",
    "Supervisor",
    "open_colleagues",
    "place_in",
    "workers_of",
]
