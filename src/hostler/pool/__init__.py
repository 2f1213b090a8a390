"""Runners, pools of runners, and the placers that choose among them.

The parts::

    _naive, _consistent_hash, _least_loaded, _bounded, _warm
                                     the order in which the runners are tried
    _named                           the names of these placers
    _sweep_placer                    one placer's calls, and their end
    _fleet, _rendezvous              one list of runners, and which of them a function prefers
    _loads, _known_runner            what a placer knows of its runners,
    _warm_index, _room_index         of the containers there, and of their room
    _placement, _search              one call on its way, and what its attempts share
    _trying, _race, _tracker         the attempts of all calls, and what is counted of them
    _room, _occupied, _ladder        where calls wait, and when they try again by themselves
    _static                          a pool that never changes
    _dynamic, _open_pools            pools that change while they are in use
    _targets, _dns, _discovery       where their runners are found
    _health, _latency                how they are judged (pure)
    _judged, _watch                  what that is based on
    _metrics                         what pools count
    _grpc_runner, _conversation      one runner, one engagement
    _order, _verdict                 pure
"""

from ._bounded import BoundedPlacer
from ._consistent_hash import ConsistentHashPlacer
from ._dynamic import DynamicPool, DynamicPoolStatistics, RunnerHealth
from ._grpc_runner import GrpcRunner
from ._least_loaded import LeastLoadedPlacer
from ._loads import LoadBook
from ._metrics import PoolMetrics
from ._naive import NaivePlacer
from ._named import PLACERS
from ._open_pools import open_dns_pool, open_dynamic_pool
from ._static import StaticPool, mtls_runner_factory, open_static_pool
from ._sweep_placer import PlacerStatistics, SweepPlacer, need_of
from ._verdict import MissingEOF, RunnerFault
from ._warm import WarmPlacer
from ._warm_index import Need

__all__ = [
    "PLACERS",
    "BoundedPlacer",
    "ConsistentHashPlacer",
    "DynamicPool",
    "DynamicPoolStatistics",
    "GrpcRunner",
    "LeastLoadedPlacer",
    "LoadBook",
    "MissingEOF",
    "NaivePlacer",
    "Need",
    "PlacerStatistics",
    "PoolMetrics",
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
