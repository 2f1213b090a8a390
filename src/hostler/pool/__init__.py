"""Runners, pools of runners, and the placers that choose among them.

* ``attempts``: one call's tries at runners: plain, reserved, hedged; counted and timed
* ``discovery``: runner discovery: pools that follow the changes of their targets
* ``dns``: DNS look-ups of runner targets (the only dnspython, loaded only if a target is a name)
* ``dynamic``: dynamic pools: runners come and go, are watched for health and load
* ``health``: judges outcomes of attempts, ejects failing runners, restores them slowly
* ``load_tracker``: own calls, load hints, idle hot containers and free memory of each runner
* ``orders``: the placers by name: each an order in which runners are tried
* ``placer``: sees one call through: tries runners, has the call wait, or gives up
* ``runner``: a load balancer's side of a runner: one gRPC engagement per attempt
* ``runner_set``: lists of runners, and each function's preference among them (rendezvous hashing)
* ``static``: static pools, and the factory of runner objects
* ``targets``: runner targets: addresses and names as operators write them
* ``waiting_room``: the queues of waiting calls, and when each call may try again
"""

from ..errors import MissingEOF, RunnerFault
from .discovery import open_dns_pool
from .dynamic import DynamicPool, DynamicPoolStatistics, RunnerHealth, open_dynamic_pool
from .health import PoolMetrics
from .load_tracker import CallNeed, LoadTracker
from .orders import (
    PLACERS,
    BoundedPlacer,
    ConsistentHashPlacer,
    LeastLoadedPlacer,
    NaivePlacer,
    WarmPlacer,
)
from .placer import PlacerStatistics, SweepPlacer, need_of
from .runner import GrpcRunner
from .static import RunnerAccess, StaticPool, mtls_runner_factory, open_static_pool

__all__ = [
    "PLACERS",
    "BoundedPlacer",
    "CallNeed",
    "ConsistentHashPlacer",
    "DynamicPool",
    "DynamicPoolStatistics",
    "GrpcRunner",
    "LeastLoadedPlacer",
    "LoadTracker",
    "MissingEOF",
    "NaivePlacer",
    "PlacerStatistics",
    "PoolMetrics",
    "RunnerAccess",
    "RunnerFault",
    "RunnerHealth",
    "StaticPool",
    "SweepPlacer",
    "WarmPlacer",
    "mtls_runner_factory",
    "need_of",
    "open_dns_pool",
    "open_dynamic_pool",
    "open_static_pool",
]
