"""Variables that look like settings, and are none."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches

import structlog

from hostler.config import setting_variables

log = structlog.get_logger(__name__)

SIMILAR = 0.88
"""Of `difflib`, from 0 to 1. Others also set variables that begin with ``FN_``: Kubernetes for
each service, Fn for what hostler does not have. Only what is nearly a setting is worth a word."""


def warn_of_misspelt(environ: Mapping[str, str]) -> None:
    for name, meant in misspelt(environ).items():
        log.warning("this variable is no setting", variable=name, meant=meant)


def misspelt(environ: Mapping[str, str]) -> dict[str, str]:
    """Names in ``environ`` that were probably meant to be settings, with the names of those."""
    known = setting_variables()
    strange = [name for name in environ if name.startswith("FN_") and _bare(name) not in known]
    if not strange:
        return {}
    # Reads the source of all commands, which a node should not need at its start.
    from .reference import command_variables

    known |= {each.variable for each in command_variables()}
    found = {
        name: get_close_matches(_bare(name), sorted(known), 1, SIMILAR)
        for name in strange
        if _bare(name) not in known
    }
    return {name: near[0] for name, near in found.items() if near}


def _bare(name: str) -> str:
    return name.removesuffix("_FILE")
