"""Several processes of one node on one port, so that it can use several cores.

_place        what a worker process is told of its place among the others
_supervisor   the node whose process starts the workers, keeps them and passes drains on
_worker       one worker process, as the supervisor sees it
_colleagues   questions between the workers of a node
_metrics      one document of the metrics of all

Workers are load balancers of their own, as those of several machines: they place calls by what the
runners tell, and know nothing of each other's. What people and programs ask the node for, its
page and its metrics, any of them answers for all.
"""

from ._colleagues import Colleagues, open_colleagues
from ._metrics import JointMetrics
from ._place import Place, place_in
from ._supervisor import Supervisor, workers_of

__all__ = [
    "Colleagues",
    "JointMetrics",
    "Place",
    "Supervisor",
    "open_colleagues",
    "place_in",
    "workers_of",
]
