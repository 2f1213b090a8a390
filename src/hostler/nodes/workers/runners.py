"""Runners that are workers of one node: each on a port of its own, all on one machine."""

from __future__ import annotations

import socket
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager

import attrs
import trio

from ...agent import Resources, machine_resources
from ...config import AgentConfig
from ...errors import ConfigError
from ...front import open_listeners, parse_bind
from ..extensions import RunningNode
from ..lifetime import Node, NodeLifetime
from ..settings import RunnerSettings, own_address
from .peers import RunnerPart, part_of
from .supervisor import Supervisor, Told, WorkerGroup

MAX_PORT = 65_535
TRIES = 10
"""Ports that are tried before the system has none that is free on all addresses."""


@attrs.frozen(kw_only=True)
class RunnersNode(Node):
    """The supervisor of ``count`` runners."""

    settings: RunnerSettings
    count: int

    @asynccontextmanager
    async def open(self, life: NodeLifetime) -> AsyncIterator[RunningNode]:
        total = machine_resources(AgentConfig.from_env(self.settings.env))
        async with open_ports(self.settings.bind, self.count) as binds:
            crew = RunnerWorkers(binds, self.settings.http_bind, total)
            workers = Supervisor(settings=self.settings, count=self.count, crew=crew)
            async with workers.open(life) as running:
                yield running


@attrs.define
class RunnerWorkers(WorkerGroup):
    """Load balancers know each as a runner of its own: by its hot containers and its load.

    So nothing listens in the place of one that has ended: what it would have got goes to the
    others meanwhile. ``own_binds`` has the address of each, ``http_bind`` is that of them all;
    ``total`` is what they have together. Raises `ConfigError` if that can't be divided among them.
    """

    own_binds: Sequence[str]
    http_bind: str
    total: Resources
    family: str = attrs.field(factory=lambda: f"hostler-{uuid.uuid4().hex}")
    _bound: dict[int, str] = attrs.field(factory=dict[int, str], init=False)

    node = "runner"
    first_alone = True
    drain_margin = 10.0  # beyond the end of the grace, in which containers are removed
    abort_seconds = 35.0  # as long as a driver goes on to remove containers

    def __attrs_post_init__(self) -> None:
        if self.total.memory < self.count or self.total.cpus < self.count:
            raise ConfigError(
                f"FN_RUNNER_WORKERS: {self.total.memory} bytes of memory and {self.total.cpus} "
                f"milli-CPUs are too little for {self.count} workers"
            )

    @property
    def count(self) -> int:
        return len(self.own_binds)

    @property
    def binds(self) -> Mapping[str, str]:
        return {"--http-bind": self.http_bind} if self.http_bind else {}

    def part(self, number: int) -> RunnerPart:
        return RunnerPart(
            number=number,
            count=self.count,
            bind=self.own_binds[number],
            memory=part_of(self.total.memory, number, self.count),
            cpus=part_of(self.total.cpus, number, self.count),
            family=self.family,
        )

    def joined(self, number: int, told: Told) -> None:
        self._bound[number] = told["grpc"]

    def announcement(self, addresses: Sequence[str]) -> dict[str, object]:
        least = self.part(self.count - 1)
        return {
            **({"http": list(addresses)} if addresses else {}),
            "grpc": [bound for _, bound in sorted(self._bound.items())],
            "runners": ",".join(reachable(bound) for _, bound in sorted(self._bound.items())),
            "worker_memory": least.memory,
            "worker_mcpus": least.cpus,
        }


@asynccontextmanager
async def open_ports(bind: str, count: int) -> AsyncIterator[list[str]]:
    """As `binds_of`, but where any ports would do (0) they are chosen, and kept from others until
    the block ends: load balancers know a worker that is started again by its port, and the system
    gives such as are free to whoever connects somewhere. Raises `OSError`, too.
    """
    binds = binds_of(bind, count)
    with ExitStack() as stack:
        for number in range(0 if parse_bind(bind)[1] else count):
            port = await _keep_port(bind, stack)
            binds[number] = f"{bind.rpartition(':')[0]}:{port}"
        yield binds


async def _keep_port(bind: str, stack: ExitStack) -> int:
    """One for all addresses that ``bind`` stands for, as long as ``stack`` lasts. Raises `OSError`.

    The system gives each another one, and what it gives one is somebody's on another now and then.
    """
    left = TRIES
    while True:
        left -= 1
        with ExitStack() as tried:
            async with open_listeners(bind) as found:
                kept = [tried.enter_context(_like(listener.socket)) for listener in found]
                names = [listener.socket.getsockname() for listener in found]
            port = int(names[0][1])
            try:
                for sock, (host, _, *scope) in zip(kept, names, strict=True):
                    sock.bind((host, port, *scope))
            except OSError:
                if not left:
                    raise
                continue
            stack.enter_context(tried.pop_all())
            return port


def _like(listening: trio.socket.SocketType) -> socket.socket:
    """A socket that may have the address of ``listening`` too, while that does not listen."""
    sock = socket.socket(listening.family, listening.type)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if sock.family == socket.AF_INET6:
        only = listening.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
    return sock


def binds_of(bind: str, count: int) -> list[str]:
    """``count`` addresses: of ``bind`` and the ports that follow, or any ports for port 0.

    Raises `ConfigError`.
    """
    _, first = parse_bind(bind)
    if not first:
        return [bind] * count
    if first + count - 1 > MAX_PORT:
        raise ConfigError(f"{bind!r}: {count} workers need {count} ports, from this one on")
    host = bind.rpartition(":")[0]
    return [f"{host}:{port}" for port in range(first, first + count)]


def reachable(bound: str) -> str:
    """``bound`` as `hostler lb --runners` takes it: of all interfaces the address from which others
    are reached, if there is one."""
    host, port = parse_bind(bound)
    if host not in ("", "::", "0.0.0.0"):  # noqa: S104  (compared, not bound)
        return bound
    return f"{own_address() or '127.0.0.1'}:{port}"
