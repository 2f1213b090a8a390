"""What Fn does: a fixed time; and of the idle ones the least recently used makes room."""

from __future__ import annotations

from hostler._keep_alive_seam import KeepAlive, KeptContainer
from hostler.config import AgentConfig


class FixedKeepAlive(KeepAlive):
    """An idle container stays for its function's ``idle_timeout``, eviction takes the least
    recently used one, and nothing is started ahead of calls."""

    def __init__(self, config: AgentConfig | None = None) -> None:
        pass

    def __repr__(self) -> str:
        return "<FixedKeepAlive>"

    def keep_until(self, container: KeptContainer, now: float) -> float:
        return container.idle_since + container.idle_timeout

    def rank(self, container: KeptContainer, now: float) -> float:
        return container.idle_since
