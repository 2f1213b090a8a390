"""The nodes' side and the attackers' side: where nodes listen, and how to act from elsewhere.

The nodes run in this process's network name space, on real processes; what is done by attackers is
done by processes in theirs (`_outside`), so that neither side uses the other's interpreter.
"""

from __future__ import annotations

import json
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import attrs
import docker
import trio
from docker.errors import DockerException

from tests.cli._process import ends
from tests.system.nodes import FNT, Fleet, Functions, open_lb, open_runner

from .._target import docker_host

LIMIT = 120.0
"""Seconds after which an attack has failed, whatever it waits for."""
MODULE = f"{__package__}._outside"


@attrs.frozen(kw_only=True)
class Ask:
    """One connection: what is sent, and what is done then."""

    data: bytes
    then: str = "read"
    """``read`` all that comes; ``half``: end this side first; ``leave``: go after ``hold``
    seconds."""
    hold: float = 0.0


@attrs.frozen(kw_only=True)
class World:
    """Where an attack takes place. ``folder`` is for its files and ends with it."""

    folder: Path
    host: str
    """The address at which attackers reach this side."""
    netns: str
    """The file of the attackers' network name space; "" = they are on this machine."""

    @property
    def bind(self) -> str:
        """Where a node listens that the attackers shall reach."""
        return f"{self.host}:0"

    def subfolder(self) -> Path:
        """One more folder. Its path is short: sockets come into it."""
        path = Path(tempfile.mkdtemp(prefix="a", dir=self.folder))
        path.chmod(0o755)
        return path

    async def ask(
        self, address: str, asks: Sequence[Ask], *, outside: bool = True
    ) -> list[bytes | None]:
        """What came back for each, ``None`` if there was no connection. By attackers, or
        (``outside`` false) by a program of the nodes' own machine. Raises `trio.TooSlowError`."""
        told = [{**attrs.asdict(ask), "data": ask.data.decode("latin-1")} for ask in asks]
        order = json.dumps({"address": address, "asks": told}).encode()
        with trio.fail_after(LIMIT):
            done = await trio.run_process(
                [*self._command(outside), "ask"], stdin=order, capture_stdout=True
            )
        return [
            None if text is None else text.encode("latin-1") for text in json.loads(done.stdout)
        ]

    @asynccontextmanager
    async def attacked(
        self, address: str, name: str, seconds: float
    ) -> AsyncIterator[list[dict[str, Any]]]:
        """Attack the port at ``address`` again and again from outside, once at least, beside the
        block, which begins when the attack does. At the end of the block the attack is waited for,
        and the list has what became of it: rows as of `Row`."""
        rows: list[dict[str, Any]] = []
        # Attackers have machines of their own: here they get what nodes and callers leave.
        command = ["nice", *self._command(True), "attack", address, name, str(seconds)]
        process = await trio.lowlevel.open_process(command, stdout=-1)
        try:
            assert process.stdout is not None
            with trio.fail_after(LIMIT):
                output = await process.stdout.receive_some()  # it has begun
                yield rows
                output += b"".join([bytes(piece) async for piece in process.stdout])
                await process.wait()
            rows += [json.loads(line) for line in output.splitlines()[1:]]
        finally:
            if process.returncode is None:
                process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()

    @asynccontextmanager
    async def fleet(
        self,
        *,
        runners: int = 1,
        functions: Functions = FNT,
        runner_env: Mapping[str, str] | None = None,
        lb_env: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> AsyncIterator[Fleet]:
        """A load balancer over runners with the process driver, all in reach of the attackers.
        Nodes that still run are told to stop at the end."""
        folder = folder or self.subfolder()
        async with AsyncExitStack() as stack:
            opened = [
                await stack.enter_async_context(
                    open_runner(folder, "--insecure", bind=self.bind, env=runner_env)
                )
                for _ in range(runners)
            ]
            addresses = [runner.address for runner in opened]
            lb = await stack.enter_async_context(
                open_lb(folder, addresses, bind=self.bind, functions=functions, env=lb_env)
            )
            yield Fleet(lb, opened)
            for node in (lb, *(runner.node for runner in opened)):
                if node.process.returncode is None:
                    await ends(node)

    def _command(self, outside: bool) -> list[str]:
        # Not `ip netns exec`, which gives a mount name space of its own, too.
        enter = ["nsenter", f"--net={self.netns}"] if outside and self.netns else []
        return [*enter, sys.executable, "-m", MODULE]


@contextmanager
def engine() -> Iterator[docker.APIClient | None]:
    """A client of the Docker engine; ``None`` = there is no engine."""
    try:
        client = docker.APIClient(base_url=docker_host(), version="auto")
    except DockerException:
        yield None
        return
    try:
        yield client
    finally:
        client.close()


@contextmanager
def tagged(client: docker.APIClient) -> Iterator[str]:
    """The ``FN_CONTAINER_LABEL_TAG`` of runners whose containers are removed at the end, also if
    the runner was killed."""
    tag = f"attack-{uuid.uuid4().hex}"
    try:
        yield tag
    finally:
        for one in containers_of(client, tag):
            client.remove_container(one["Id"], force=True)


def containers_of(client: docker.APIClient, tag: str) -> list[dict[str, Any]]:
    """All that runners with this tag have, as the engine lists them."""
    found: list[dict[str, Any]] = client.containers(
        all=True, filters={"label": f"fn-agent-classifier={tag}"}
    )
    return found


def post(path: str, *headers: str, body: bytes = b"", host: str = "localhost") -> bytes:
    """A request, the last of its connection."""
    return request("POST", path, f"Content-Length: {len(body)}", *headers, host=host) + body


def request(method: str, path: str, *headers: str, host: str = "localhost") -> bytes:
    """A request without a body, the last of its connection."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode()


def status(answer: bytes | None) -> int:
    """0 = there was no connection, 1 = it ended unanswered."""
    if answer is None:
        return 0
    parts = answer.split(b" ", 2)
    return int(parts[1]) if len(parts) == 3 and parts[0].startswith(b"HTTP/1.") else 1
