"""How long idle containers stay: the policies behind `hostler.abc.KeepAlive`. Pure: no I/O, no
clock of their own.

* `FixedKeepAlive`, the default: for the function's ``idle_timeout``, as Fn does
* `PredictiveKeepAlive`: where the same memory saves most; ``_gaps`` foretells, ``_price`` pays
"""

from __future__ import annotations

from collections.abc import Mapping

from hostler.abc import KeepAlive
from hostler.config import AgentConfig
from hostler.errors import ConfigError

from ._fixed import FixedKeepAlive
from ._predictive import PredictiveKeepAlive

__all__ = ["KEEP_ALIVES", "FixedKeepAlive", "PredictiveKeepAlive", "make_keep_alive"]

KEEP_ALIVES: Mapping[str, type[FixedKeepAlive] | type[PredictiveKeepAlive]] = {
    "fixed": FixedKeepAlive,
    "predictive": PredictiveKeepAlive,
}
"""The policies by name. Each is made with an `AgentConfig`."""


def make_keep_alive(config: AgentConfig) -> KeepAlive:
    """The policy that ``config.keep_alive`` names. Raises `ConfigError` if there is none."""
    if config.keep_alive not in KEEP_ALIVES:
        names = ", ".join(KEEP_ALIVES)
        raise ConfigError(f"FN_KEEP_ALIVE={config.keep_alive!r}: takes {names} or module:attribute")
    return KEEP_ALIVES[config.keep_alive](config)
