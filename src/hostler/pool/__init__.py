"""Runners, pools of runners, and the placers that choose among them.

_naive, _consistent_hash         where a sweep starts
_ring_placer                     one placer's calls, and their end
_placement, _tracker             one call on its way
_room, _ladder                   where calls wait, and when they try again by themselves
_static                          a pool that never changes
_grpc_runner, _conversation      one runner, one engagement
_order, _verdict                 pure
"""

from ._consistent_hash import ConsistentHashPlacer
from ._grpc_runner import GrpcRunner
from ._naive import NaivePlacer
from ._ring_placer import PlacerStatistics, RingPlacer
from ._static import StaticPool, mtls_runner_factory, open_static_pool
from ._verdict import MissingEOF, RunnerFault

__all__ = [
    "ConsistentHashPlacer",
    "GrpcRunner",
    "MissingEOF",
    "NaivePlacer",
    "PlacerStatistics",
    "RingPlacer",
    "RunnerFault",
    "StaticPool",
    "mtls_runner_factory",
    "open_static_pool",
]
