"""Keep-alive policies by name, and the fixed idle timeout.

* `FixedKeepAlive`, the default: for the function's ``idle_timeout``, as Fn does
* `PredictiveKeepAlive` of `hostler.contrib`: where the same memory saves most
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping

from ._stats import LRUDict
from .abc import KeepAlive, KeptContainer
from .config import AgentConfig
from .contrib.predictive_keep_alive import PredictiveKeepAlive
from .errors import ConfigError

__all__ = ["KEEP_ALIVES", "FixedKeepAlive", "PredictiveKeepAlive", "make_keep_alive"]

FUNCTIONS = 4096
"""Slot keys whose uses are remembered."""

FORGET = 60.0
"""Seconds in which a use counts e times less."""

SHORTEST = 1e-3
"""Seconds that an idle container is taken to have idled at least."""

LEVELS = 8
"""Levels of use that are told apart; the last one stands for all above."""


class FixedKeepAlive(KeepAlive):
    """An idle container stays for its function's ``idle_timeout``, and nothing is started ahead of
    calls. Eviction takes the one whose end costs least: the uses that it would probably have, times
    what a start takes, for the memory that it frees (the values of Greedy-Dual-Size-Frequency,
    Cherkasova, HP Labs 1998; for functions: Fuerst and Sharma, "FaasCache", ASPLOS 2021). Least
    recent use alone keeps what was called once as long as what is called all the time. The number
    of uses alone keeps what a crowd has left behind: so a container is not taken to be used more
    often than once in the time for which it has idled.
    """

    def __init__(self, config: AgentConfig | None = None) -> None:
        self._uses = LRUDict[Hashable, list[float]](FUNCTIONS)
        """By level (see `KeptContainer.level`). A use at ``now`` counts ``exp((now - epoch) /
        FORGET)``, so that older ones need not be looked at."""
        self._epoch = 0.0

    def __repr__(self) -> str:
        return f"<FixedKeepAlive functions={len(self._uses)}>"

    def became_idle(self, container: KeptContainer, now: float) -> None:
        uses = self._uses.get(container.key)
        if uses is None:
            uses = self._uses[container.key] = [0.0] * LEVELS
        else:
            self._uses.move_to_end(container.key)
        if now - self._epoch > 100 * FORGET:
            self._begin_again(now)
        uses[min(container.level, LEVELS) - 1] += math.exp((now - self._epoch) / FORGET)

    def keep_until(self, container: KeptContainer, now: float) -> float:
        return container.idle_since + container.idle_timeout

    def rank(self, container: KeptContainer, now: float) -> float:
        uses = self._uses.get(container.key)
        if uses is None:
            return 0.0
        recent = math.exp((self._epoch - now) / FORGET)
        wanted = recent * sum(uses[min(container.level, LEVELS) - 1 :])
        # However often it was used: what has idled for long is probably not needed any more.
        wanted = min(wanted, FORGET / max(now - container.idle_since, SHORTEST))
        return wanted * container.start_seconds / max(1, container.memory)

    def _begin_again(self, now: float) -> None:
        fade = math.exp((self._epoch - now) / FORGET)
        self._epoch = now
        for uses in self._uses.values():
            uses[:] = [fade * count for count in uses]


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
