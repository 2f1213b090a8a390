"""Whether network name spaces are prepared on an engine, how many, and by what containers."""

from __future__ import annotations

from typing import Any

import attrs
import docker
import structlog

from ...config import AgentConfig
from ...errors import ConfigError
from ._engine import Engine
from ._errors import EngineError
from ._limits import Operation
from ._pause import COMMAND, NAME, pause_program

log = structlog.get_logger(__name__)

RUNTIMES = ("runc", "crun", "youki")
"""Those that let containers share a network name space. One that puts each container into a virtual
machine, or onto a kernel of its own, may not."""

GROWTH = 2
"""Times the size of a pool that nobody has asked for, that it may grow to beside hot containers."""


@attrs.frozen(kw_only=True)
class PoolPlan:
    """A pool's containers. ``command`` replaces that of ``image``, if it is not empty."""

    size: int
    """How many there are, of a pool that nobody has asked for how many are to be free."""
    image: str
    command: tuple[str, ...]
    program: bytes = attrs.field(default=b"", repr=False)
    """The only one of ``image``, which is made of it; empty = ``image`` has to be pulled."""
    networks: tuple[str, ...] = ()
    use_once: bool = False
    wanted: bool = True
    """Somebody asked for that many, and should hear when they don't suffice."""

    @property
    def most(self) -> int:
        """How many there may be in all, those that are in use included."""
        return self.size if self.wanted else GROWTH * self.size


async def plan_pool(engine: Engine, config: AgentConfig) -> PoolPlan | None:
    """The pool that ``config`` asks for, or that fits the engine, or ``None``.

    Raises `EngineError`, and `ConfigError` if one is asked for without an image and none can be
    made for the engine's processor.
    """
    size, image = config.experimental_prefork_pool_size, config.experimental_prefork_image
    unasked = min(config.prepared_networks, config.prepared_networks_limit)
    if not (unasked if size is None else size):
        return None
    plan = PoolPlan(
        size=size or 0,
        image=image or NAME,
        command=tuple(config.experimental_prefork_cmd.split()) if image else (COMMAND,),
        networks=config.experimental_prefork_networks or config.docker_networks,
        use_once=bool(config.experimental_prefork_use_once),
        wanted=size is not None,
    )
    if image and plan.wanted:
        return plan
    try:
        return await _fitted(plan, engine, config)
    except (EngineError, _Unfit) as error:
        if not plan.wanted:
            log.info("no network name spaces are prepared", reason=str(error))
            return None
        if isinstance(error, EngineError):
            raise
        text = f"FN_EXPERIMENTAL_PREFORK_POOL_SIZE={size} needs FN_EXPERIMENTAL_PREFORK_IMAGE"
        raise ConfigError(f"{text}: {error}") from None


class _Unfit(Exception):
    """The engine can't have the pool; the text says why."""


async def _fitted(plan: PoolPlan, engine: Engine, config: AgentConfig) -> PoolPlan:
    def request(client: docker.APIClient) -> tuple[str, str, int]:
        facts: dict[str, Any] = client.info()
        runtime, architecture = facts.get("DefaultRuntime", ""), facts.get("Architecture", "")
        return str(runtime), str(architecture), int(facts.get("NCPU", 1))

    runtime, architecture, cpus = await engine.call(Operation.INFO, request)
    if not plan.wanted:
        if runtime not in RUNTIMES:
            raise _Unfit(f"containers of the runtime {runtime!r} may not be able to share one")
        size = min(cpus * config.prepared_networks, config.prepared_networks_limit)
        plan = attrs.evolve(plan, size=size)
    if plan.image != NAME:
        return plan
    program = pause_program(architecture)
    if program is None:
        raise _Unfit(f"there is no image of our own for the architecture {architecture!r}")
    return attrs.evolve(plan, program=program)
