"""Attacks on a node, each a module with ``ABOUT``, a line, and ``run(address) -> Row``.

A module attacks the port at ``address``, ``host:port``, for some seconds, and tells what became of
it. `attacks` lists them; ``scripts/attack`` prints them, and runs one. They are for nodes of one's
own: on loopback, or in a network name space.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from ._row import Row

__all__ = ["Row", "attacks"]


def attacks() -> dict[str, ModuleType]:
    """The modules by name, those without a leading underscore."""
    return {
        info.name.replace("_", "-"): importlib.import_module(f"{__name__}.{info.name}")
        for info in pkgutil.iter_modules(__path__)
        if not info.name.startswith("_")
    }
