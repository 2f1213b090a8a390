"""One simulation: a load, a policy, and what came out."""

from __future__ import annotations

import attrs
import msgspec

from hostler.abc import KeepAlive
from hostler.config import AgentConfig
from hostler.keep_alive import PredictiveKeepAlive

from ._load import make_load
from ._rivals import GreedyDual, Timeout, clairvoyant
from ._world import MIB, World

IDLE_SECONDS = 30.0
"""The functions' idle timeout: Fn's default."""


@attrs.frozen(kw_only=True)
class Plan:
    """``policy`` is ``fixed``, ``predictive`` or ``greedy-dual``. ``setting``: of ``fixed`` the
    seconds, of ``predictive`` the percent of what `IDLE_SECONDS` would keep. Of ``hours`` the
    first quarter is not counted."""

    policy: str
    setting: int = 0
    functions: int = 200
    memory: int = 16384
    """MB."""
    hours: float = 8.0
    regular: bool = True
    busy: float = 0.0
    """Part of the memory that calls keep busy; 0 = the calls are as many as with Azure."""
    seed: int = 1

    @property
    def name(self) -> str:
        unit = {"fixed": " s", "predictive": " %"}.get(self.policy, "")
        return f"{self.policy} {self.setting}{unit}" if unit else self.policy

    @property
    def load(self) -> str:
        kind = "" if self.regular else ", none at regular times"
        kind += f", {self.busy:.0%} busy" if self.busy else ""
        return f"{self.functions} functions on {self.memory / 1024:g} GiB{kind}"

    def make(self) -> KeepAlive:
        if self.policy == "fixed":
            return Timeout(self.setting)
        if self.policy == "predictive":
            return PredictiveKeepAlive(AgentConfig(keep_alive_percent=self.setting))
        return GreedyDual()


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """Memory in MB, means over time except for the peak. ``bound`` is the least share of cold calls
    that who knows the future can have with this idle memory."""

    name: str
    policy: str
    functions: int
    memory: int
    load: str
    seed: int
    calls: int
    cold: float
    bound: float
    launches: float
    """Per call, those ahead of calls too."""
    ahead: int
    evictions: int
    idle: float
    held: float
    peak: float


def simulate(plan: Plan) -> Result:
    seconds = plan.hours * 3600
    begin = seconds / 4
    arrivals = make_load(
        plan.seed,
        plan.functions,
        seconds,
        regular=plan.regular,
        busy=plan.busy * plan.memory,
    )
    world = World(plan.make(), plan.memory * MIB, idle_timeout=IDLE_SECONDS, begin=begin)
    tally = world.run(arrivals, seconds)
    idle = tally.idle / (seconds - begin) / MIB
    return Result(
        name=plan.name,
        policy=plan.policy,
        functions=plan.functions,
        memory=plan.memory,
        load=plan.load,
        seed=plan.seed,
        calls=tally.calls,
        cold=tally.cold / tally.calls,
        bound=clairvoyant(arrivals, idle, begin=begin, until=seconds),
        launches=tally.launches / tally.calls,
        ahead=tally.ahead,
        evictions=tally.evictions,
        idle=idle,
        held=tally.held / (seconds - begin) / MIB,
        peak=tally.peak / MIB,
    )
