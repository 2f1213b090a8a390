"""Runners, pools of runners, and the placers that choose among them.

* ``attempts``: attempts of one call: plain, reserved, hedged; counted and timed
* ``discovery``: runner discovery: pools that follow the changes of their targets
* ``dns``: DNS lookups of runner targets (the only dnspython, loaded only if a target is a name)
* ``dynamic``: dynamic pools: members come and go, are watched for health and load
* ``health``: health of runners: an outcome observer that ejects and slowly restores
* ``load_tracker``: own calls, hints, idle hot containers and free memory of each runner
* ``orders``: the placers by name: each an order in which runners are tried
* ``placer``: one call walks the runners, waits, or gives up
* ``runner``: gRPC runner: one engagement per attempt, from TryCall to outcome
* ``runner_set``: one list of runners by address, and each function's preference among them
  (rendezvous hashing)
* ``static``: static pools, and the factory of runner objects
* ``targets``: runner targets as people write them: addresses, names to look up
* ``waiting_room``: call queues of a pool, turns, retry backoff, calls sent ahead
"""

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
from .runner import GrpcRunner, MissingEOF, RunnerFault
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
