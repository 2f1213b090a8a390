"""The names under which the placers are chosen (``--placer``, ``FN_PLACER``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..config import PlacerConfig
from ._bounded import BoundedPlacer
from ._consistent_hash import ConsistentHashPlacer
from ._least_loaded import LeastLoadedPlacer
from ._naive import NaivePlacer
from ._sweep_placer import SweepPlacer
from ._warm import WarmPlacer

PLACERS: Mapping[str, Callable[[PlacerConfig], SweepPlacer]] = {
    "naive": NaivePlacer,
    "ch": ConsistentHashPlacer,
    "least-loaded": LeastLoadedPlacer,
    "bounded": BoundedPlacer,
    "warm": WarmPlacer,
}
