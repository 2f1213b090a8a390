"""Prefork pool: network name spaces made before a function needs one (figures inside).

Most of the time that an engine takes to start a container goes into its network. So idle containers
are kept, and function containers join the network name space of one of them (``NetworkMode:
container:<id>``), as long as they live. One keeper task for each of them sees to it that it exists.

The `FIRST` are made at once, the others one after the other: each when no launch has been under way
for `QUIET`, so that calls don't wait for it, or its part of `FILL` after the one before, and none
on a network while the latest one there fails, as others would.

If somebody has said how many, there are that many. Otherwise the pool follows what is used, so that
bursts find name spaces after other bursts, and beside containers that stay hot:

* It aims at `PoolPlan.size` free ones, and at one more for each container that has found none
  while all that there should be were in use.
* When fewer than half of its aim are free, others are made until it is reached. In all there are
  never more than `PoolPlan.most`.
* What nobody has needed in all of `REVIEW`, beyond `PoolPlan.size`, is removed, also in quiet
  moments, and the aim is lowered by as many.

Without a configured image the containers run one that is made here from a few machine instructions,
so that a runner without a registry has prepared name spaces, too. Its only program is a static
executable of one segment (ELF-64, System V ABI) that sleeps in the kernel for ever. As the first
process of its container it ignores all signals but the engine's SIGKILL.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import math
import secrets
import struct
import tarfile
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import attrs
import docker
import msgspec
import structlog
import trio

from ..._concurrency.signal import Signal
from ...config import AgentConfig
from ...errors import APIError, ConfigError
from .auth import CredentialsUnavailable, Keychain
from .build import load_archive
from .containers import Containers
from .engine import NOT_FOUND, Engine, EngineError, EngineOperation
from .images import parse_image
from .metrics import DockerMetrics, PreforkStatistics
from .options import DockerOptions, DriverEnvironment
from .pulls import FOREVER, Backoff, ImagePuller
from .running import ContainerExit, ExitWatcher
from .stats import RateLimiter

log = structlog.get_logger(__name__)

STARTS_PER_SECOND = 10

START_BURST = 20
"""Containers that are made, for all keepers together (Fn's numbers)."""

RETRY = Backoff(max_retries=FOREVER, interval_msec=100, min_delay_msec=100, max_delay_msec=10_000)
"""Between the attempts of one keeper, when they fail one after the other."""

MAKERS = 2
"""Containers that are made at a time, so that calls which come meanwhile get at their own."""

STABLE_LIFE = 5.0
"""Seconds after which a container that ends has not failed: it is replaced without delay."""

WARNING_INTERVAL = 60.0
"""Seconds between two warnings that the pool is empty."""

FIRST = 8
"""Containers that are made as soon as the pool runs, for the first launches."""

FILL = 60.0
"""Seconds in which `PoolPlan.size` containers are begun, one after the other, however busy the
engine is."""

QUIET = 1.0
"""Seconds without a launch before the pool takes the engine's time to grow or shrink by one."""

REVIEW = 300.0
"""Seconds in which a name space has to have been needed, if it is one more than the plan's."""


@attrs.frozen
class NetworkNamespace:
    """One that is ready: the id of the container that holds it, and its network, "" = the engine's
    default one."""

    holder: str
    network: str


class PreforkPool:
    """See the module. ``allocate`` and ``free`` are synchronous."""

    def __init__(
        self,
        image: PreforkImage,
        around: DriverEnvironment,
        containers: Containers,
        exits: ExitWatcher,
        metrics: DockerMetrics,
    ) -> None:
        self.plan = plan = image.plan
        self._image = image
        self._around = around
        self._containers = containers
        self._exits = exits
        self._metrics = metrics
        self._names = secrets.token_hex(8)
        # Names of containers are the engine's; ours must not meet those of another pool.
        self._numbers = itertools.count()
        self._keepers: Counter[str] = Counter(dict.fromkeys(plan.networks or ("",), 0))
        """How many there are for each network."""
        self._surplus = 0
        """How many of them shall end instead of making another container."""
        self._free: list[NetworkNamespace] = []
        """The one that was given back last is the last."""
        self._used: dict[str, NetworkNamespace] = {}
        """By holders."""
        self._aim = plan.size
        self._least_free = 0
        """Since the last review."""
        self._wanted = Signal()
        self._misses = 0
        self._warn_again = 0.0
        self._pace = RateLimiter(STARTS_PER_SECOND, START_BURST)
        self._makers = trio.CapacityLimiter(MAKERS)
        self._failing: set[str] = set()
        """Keepers whose containers fail: of several that do there is one warning."""
        self._scope = trio.CancelScope()
        self._over = trio.Event()

    # --- for cookies ---

    def allocate(self, in_use: Mapping[str, int]) -> NetworkNamespace | None:
        """One on the network that has the fewest containers by ``in_use``, of several the one that
        was given back last, or ``None`` if all are in use or not yet made; of a pool that was
        asked for with a warning, not more than one in `WARNING_INTERVAL`."""
        self._wanted.note()
        if self._free:
            space = min(reversed(self._free), key=lambda space: in_use.get(space.network, 0))
            self._free.remove(space)
            self._used[space.holder] = space
            self._least_free = min(self._least_free, len(self._free))
            return space
        if len(self._used) == self._keepers.total() >= self.plan.size:
            # Otherwise those that are still to be made, or fail, might have sufficed.
            self._aim = min(self._aim + 1, self.plan.most)
        self._misses += 1
        self._metrics.prefork_missed()
        if self.plan.wanted and trio.current_time() >= self._warn_again:
            self._warn_again = trio.current_time() + WARNING_INTERVAL
            log.warning(
                "prefork pool is empty, containers get a network of their own",
                size=self.plan.size,
                misses=self._misses,
            )
        return None

    def free(self, holder: str, reusable: bool = True) -> None:
        """Give back the name space of ``holder``, if ``allocate`` has returned it and it has not
        ended meanwhile. Not ``reusable`` = somebody may still be in it, so that it is replaced, as
        all are in use-once mode."""
        space = self._used.pop(holder, None)
        if space is None:
            return
        if reusable and not self.plan.use_once:
            self._free.append(space)
        else:
            self._exits.forget(holder)  # which tells its keeper that it has ended

    def statistics(self) -> PreforkStatistics:
        return PreforkStatistics(
            size=self.plan.size,
            free=len(self._free),
            used=len(self._used),
            misses=self._misses,
        )

    # --- the keepers ---

    async def run(self) -> None:
        """Keep the containers until ``aclose``."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    for _ in range(min(FIRST, self.plan.size)):
                        self._add_keeper(nursery, self._emptiest(self._keepers))
                    nursery.start_soon(self._grow, nursery)
                    if self.plan.most > self.plan.size:
                        nursery.start_soon(self._shrink)
        finally:
            self._free.clear()
            self._used.clear()
            self._over.set()

    async def aclose(self) -> None:
        """Stop the keepers; after that `Containers.remove_all` finds every container. Idempotent.
        Nothing may be in use any more. Only after ``run`` was started."""
        self._scope.cancel()
        await self._over.wait()

    def _spare(self) -> int:
        """How many are free, or being made."""
        return self._keepers.total() - len(self._used)

    def _too_few(self) -> bool:
        return self._spare() < self._aim and self._keepers.total() < self.plan.most

    async def _grow(self, nursery: trio.Nursery) -> None:
        await self._image.ensure()
        latest = dict.fromkeys(self._keepers, "")

        def sound() -> list[str]:
            return [network for network, name in latest.items() if name not in self._failing]

        while True:
            while self._too_few() and sound():
                with trio.move_on_after(FILL / self.plan.size):
                    await self._containers.launches.rest(QUIET)
                if self._too_few() and (networks := sound()):
                    network = self._emptiest(networks)
                    latest[network] = self._add_keeper(nursery, network)
            await self._wanted.wait()
            while self._keepers.total() >= self.plan.size and 2 * self._spare() >= self._aim:
                await self._wanted.wait()

    async def _shrink(self) -> None:
        size = self.plan.size
        while True:
            self._least_free = len(self._free)
            await trio.sleep(REVIEW)
            too_many = max(self._least_free - size, 0)
            self._aim = max(self._aim - too_many, size)
            for _ in range(too_many):
                await self._containers.launches.rest(QUIET)
                if len(self._free) > size:
                    self._surplus += 1
                    self._exits.forget(self._take_least_used().holder)

    def _take_least_used(self) -> NetworkNamespace:
        """On the network that has the most, the one that nobody has used for the longest time."""
        free_on = Counter(space.network for space in self._free)
        space = max(self._free, key=lambda space: free_on[space.network])
        self._free.remove(space)
        return space

    def _emptiest(self, networks: Iterable[str]) -> str:
        return min(networks, key=self._keepers.__getitem__)

    def _add_keeper(self, nursery: trio.Nursery, network: str) -> str:
        """Returns the name of its first container, which stays its own."""
        name = self._new_name()
        self._keepers[network] += 1
        nursery.start_soon(self._keep, name, network)
        return name

    async def _keep(self, name: str, network: str) -> None:
        delays: Iterator[float] | None = None
        container, began = name, math.inf
        while True:
            await self._image.ensure()
            await self._pace.wait()
            lived, began = began < math.inf, math.inf
            try:
                async with self._makers:
                    if lived and not await self._removed(container):
                        container = self._new_name()
                    exit_ = await self._make(container, network)
                began = trio.current_time()
                trouble = await self._live(
                    name, NetworkNamespace(exit_.container_id, network), exit_
                )
                if self._surplus:
                    self._surplus -= 1
                    await self._removed(container)
                    self._keepers[network] -= 1
                    self._failing.discard(name)
                    return
            except (EngineError, APIError) as error:
                trouble = str(error)
                if "no such image" in trouble.lower():
                    self._image.vanished()
            if not trouble or trio.current_time() - began > STABLE_LIFE:
                delays = None
                self._failing.discard(name)
                continue
            if delays is None:
                delays = RETRY.delays()
                if not self._failing:
                    log.warning("prefork container fails, will try again", name=name, error=trouble)
                self._failing.add(name)
            await trio.sleep(next(delays))

    async def _removed(self, container: str) -> bool:
        """Remove one that has lived; false if that fails. Then the driver has it removed later, and
        nobody waits for that: there is no more than one for each name space that was made."""
        try:
            await self._containers.remove(container)
        except EngineError as error:
            log.warning("prefork container not removed yet", name=container, error=str(error))
            return False
        return True

    async def _make(self, name: str, network: str) -> ContainerExit:
        """A container that runs, in the place of the one before it; returns its watched end."""
        await self._containers.remove(name)
        container_id = await self._containers.create(self._options(name, network))
        exit_ = self._exits.watch(container_id)
        try:
            await self._containers.start(name)
        except BaseException:
            self._exits.forget(container_id)
            raise
        return exit_

    async def _live(self, name: str, space: NetworkNamespace, exit_: ContainerExit) -> str:
        """Offer a name space until its end; returns what was wrong with that."""
        try:
            self._free.append(space)
            with trio.move_on_after(STABLE_LIFE):
                await exit_.ended.wait()
            if not exit_.ended.is_set():
                self._failing.discard(name)
                self._wanted.note()
                await exit_.ended.wait()
            replaced = space.holder not in self._used and space not in self._free
            return "" if replaced else "it has ended by itself"
        finally:
            self._exits.forget(space.holder)
            self._used.pop(space.holder, None)
            if space in self._free:
                self._free.remove(space)

    def _new_name(self) -> str:
        return f"{next(self._numbers)}_prefork_{self._names}"

    def _options(self, name: str, network: str) -> DockerOptions:
        options = DockerOptions(name=name)
        options.config["Image"] = self.plan.image
        # Of the functions that join, too, so that they see the same one as without a pool.
        options.config["Hostname"] = self._around.hostname
        options.config["Cmd"] = list(self.plan.command)
        options.host_config["LogConfig"] = {"Type": "none"}
        if self.plan.program:
            options.config["User"] = "65534:65534"
            options.host_config.update(ReadonlyRootfs=True, CapDrop=["all"])
            options.host_config["SecurityOpt"] = ["no-new-privileges"]
        if network:
            options.host_config["NetworkMode"] = network
        if labels := self._around.pool_labels():
            options.config["Labels"] = labels
        return options


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

    runtime, architecture, cpus = await engine.call(EngineOperation.INFO, request)
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


IMAGE_RETRY = Backoff(
    max_retries=FOREVER, interval_msec=1000, min_delay_msec=500, max_delay_msec=30_000
)
"""Between the attempts to get it."""


class PreforkImage(ABC):
    """The image of a pool's containers, got once for all keepers."""

    def __init__(self, engine: Engine, plan: PoolPlan) -> None:
        self.plan = plan
        self._engine = engine
        self._there = False
        self._lock = trio.Lock()

    @abstractmethod
    async def get(self) -> None:
        """Raises `EngineError`, `APIError` and `CredentialsUnavailable`."""

    def vanished(self) -> None:
        """Somebody has removed it: look again."""
        self._there = False

    async def ensure(self) -> None:
        """Return when the engine has the image, however long that takes; failures are logged."""
        async with self._lock:
            delays = IMAGE_RETRY.delays()
            while not self._there:
                try:
                    await self._look()
                except (EngineError, APIError, CredentialsUnavailable) as error:
                    delay = next(delays)
                    log.warning(
                        "prefork image can't be had, will try again",
                        image=self.plan.image,
                        error=str(error),
                        delay_s=round(delay, 1),
                    )
                    await trio.sleep(delay)
                else:
                    self._there = True

    async def _look(self) -> None:
        def request(client: docker.APIClient) -> None:
            client.inspect_image(self.plan.image)  # type: ignore[no-untyped-call]  # the stubs lack its types

        try:
            await self._engine.call(EngineOperation.INSPECT_IMAGE, request)
        except EngineError as error:
            if error.status != NOT_FOUND:
                raise
            await self.get()


class PulledImage(PreforkImage):
    """One of a registry."""

    def __init__(
        self, engine: Engine, plan: PoolPlan, puller: ImagePuller, keychain: Keychain
    ) -> None:
        super().__init__(engine, plan)
        self._puller = puller
        self._keychain = keychain

    async def get(self) -> None:
        name = self.plan.image
        await self._puller.pull(name, await self._keychain.lookup(parse_image(name).registry))
        log.info("prefork image pulled", image=name)


class MadeImage(PreforkImage):
    """One with nothing but the plan's program. Several that make it at once make the same one, so
    that it is not taken from under anybody's containers."""

    async def get(self) -> None:
        await load_archive(self._engine, pause_image(self.plan.image, self.plan.program))


NAME = "hostler-pause:1"
"""The image's; another program needs another tag."""

COMMAND = "/pause"

_X86_64 = struct.pack(
    "<B I 2B 2B",
    *(0xB8, 34),  # mov eax, 34 (pause)
    *(0x0F, 0x05),  # syscall
    *(0xEB, 0xF7),  # jmp to the first
)

_AARCH64 = struct.pack(
    "<7I",
    0xD2800000,  # mov x0, 0
    0xD2800001,  # mov x1, 0
    0xD2800002,  # mov x2, 0
    0xD2800003,  # mov x3, 0
    0xD2800928,  # mov x8, 73 (ppoll: of no files, without a limit)
    0xD4000001,  # svc 0
    0x17FFFFFA,  # b to the first
)

_CODE = {"x86_64": (62, _X86_64), "aarch64": (183, _AARCH64)}
"""The machine's number in ELF, and the program, by the engine's name of its architecture."""

_ARCHITECTURES = {62: "amd64", 183: "arm64"}
"""As an image names it, by the machine's number."""

_MACHINE_AT = 18
_ADDRESS = 0x400000

_PAGE = 0x10000
"""Bytes; the largest page of a kernel for either."""

_HEADER = struct.Struct("<16s 2H I 3Q I 6H")
_SEGMENT = struct.Struct("<2I 6Q")
_READ_AND_EXECUTE = 5


def pause_program(architecture: str) -> bytes | None:
    """The executable for ``architecture`` as ``docker info`` names it; ``None`` = there is none."""
    if architecture not in _CODE:
        return None
    machine, code = _CODE[architecture]
    start = _HEADER.size + _SEGMENT.size
    size = start + len(code)
    header = _HEADER.pack(
        b"\x7fELF" + bytes((2, 1, 1)),  # 64 bits, little-endian, version 1
        *(2, machine, 1),  # an executable
        *(_ADDRESS + start, _HEADER.size, 0, 0),  # entry, where the segment is told, no sections
        *(_HEADER.size, _SEGMENT.size, 1, 0, 0, 0),
    )
    segment = _SEGMENT.pack(1, _READ_AND_EXECUTE, 0, _ADDRESS, _ADDRESS, size, size, _PAGE)
    return header + segment + code


def pause_files(program: bytes) -> bytes:
    """The image's file system, a tar archive with ``program`` in it."""
    return _archive({COMMAND.lstrip("/"): program}, mode=0o755)


def pause_image(name: str, program: bytes) -> bytes:
    """The image, as ``docker save`` has it. It is known by what is in it, so whoever makes it with
    the same ``program`` makes the same one: there is no time of today in it."""
    layer = pause_files(program)
    (machine,) = struct.unpack_from("<H", program, _MACHINE_AT)
    config = msgspec.json.encode(
        {
            "architecture": _ARCHITECTURES[machine],
            "os": "linux",
            "created": "1970-01-01T00:00:00Z",
            "config": {"Cmd": [COMMAND]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{_digest(layer)}"]},
        }
    )
    files = {f"{_digest(config)}.json": config, f"{_digest(layer)}/layer.tar": layer}
    configs, layers = files
    manifest = [{"Config": configs, "RepoTags": [name], "Layers": [layers]}]
    return _archive({**files, "manifest.json": msgspec.json.encode(manifest)}, mode=0o644)


def _archive(files: Mapping[str, bytes], *, mode: int) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.mode, entry.size = mode, len(data)
            tar.addfile(entry, io.BytesIO(data))
    return archive.getvalue()


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
