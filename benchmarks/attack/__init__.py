"""Attacks on nodes, each a module with ``ABOUT``, a line, and ``run``. `attacks` lists them, and
``scripts/attack`` runs them.

``run(world) -> Outcome`` starts real nodes, attacks them from another network name space
(`World`), and says whether they held.

``run(address) -> Row`` attacks any port, ``host:port``, for some seconds, and tells what became of
it. Such an attack is for nodes of one's own, too. On nodes that are started for it a good caller is
beside it (`_beside`), unless the module has ``on_nodes(world) -> Outcome``.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from types import ModuleType

from ._row import Outcome, Row

__all__ = ["Outcome", "Row", "attacks", "takes_address"]


def attacks() -> dict[str, ModuleType]:
    """The modules by name, those without a leading underscore."""
    return {
        info.name.replace("_", "-"): importlib.import_module(f"{__name__}.{info.name}")
        for info in pkgutil.iter_modules(__path__)
        if not info.name.startswith("_")
    }


def takes_address(attack: ModuleType) -> bool:
    """Whether its ``run`` attacks any port."""
    return "address" in inspect.signature(attack.run).parameters
