"""Runners, pools of runners, and the placers that choose among them.

_naive, _consistent_hash, _least_loaded, _bounded, _warm
                                 the order in which the runners are tried
_named                           the names of these placers
_sweep_placer                    one placer's calls, and their end
_rendezvous                      which runners a function prefers
_loads, _warm_index              what a placer knows of its runners
_placement, _tracker             one call on its way
_room, _ladder                   where calls wait, and when they try again by themselves
_static                          a pool that never changes
_grpc_runner, _conversation      one runner, one engagement
_order, _verdict                 pure
"""

from ._bounded import BoundedPlacer
from ._consistent_hash import ConsistentHashPlacer
from ._grpc_runner import GrpcRunner
from ._least_loaded import LeastLoadedPlacer
from ._loads import LoadBook
from ._naive import NaivePlacer
from ._named import PLACERS
from ._static import StaticPool, mtls_runner_factory, open_static_pool
from ._sweep_placer import PlacerStatistics, SweepPlacer, need_of
from ._verdict import MissingEOF, RunnerFault
from ._warm import WarmPlacer
from ._warm_index import Need

__all__ = [
    "PLACERS",
    "BoundedPlacer",
    "ConsistentHashPlacer",
    "GrpcRunner",
    "LeastLoadedPlacer",
    "LoadBook",
    "MissingEOF",
    "NaivePlacer",
    "Need",
    "PlacerStatistics",
    "RunnerFault",
    "StaticPool",
    "SweepPlacer",
    "WarmPlacer",
    "mtls_runner_factory",
    "need_of",
    "open_static_pool",
]
