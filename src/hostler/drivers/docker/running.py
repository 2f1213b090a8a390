"""A running container: exit events, output capture, run result.

Exits of all containers come from one subscription to the engine's events: a blocked ``wait`` call
for each container would cost a thread for each hot container. Events alone can be lost, so the
subscription is renewed every `RENEWAL` seconds, and each renewal compares the engine's list of
containers with the watched ones:

* An exit before the list was made is seen in the list.
* A later exit comes as an event: the subscription asks for the events since a moment (of the
  engine's clock) before the list, because the engine sends the head of its answer shortly before
  it subscribes.
* The engine drops events for a subscriber that takes longer than 100 ms to read; the next
  renewal's list finds the exit.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any

import attrs
import docker
import requests
import structlog
import trio
from docker.errors import DockerException
from docker.types import CancellableStream
from docker.utils.socket import STDERR, frames_iter

from ..._concurrency.nurseries import open_background
from ...abc import RunningContainer, RunResult
from ...errors import ContainerExited, ContainerOutOfMemory
from .containers import Containers
from .engine import (
    JSON,
    NOT_FOUND,
    Engine,
    EngineError,
    EngineOperation,
    JSONLines,
    interrupt,
    open_json_lines,
    raise_for_status,
)
from .metrics import DockerMetrics

KILLED = 137
"""128 + SIGKILL: what the init process reports for a killed function."""

OUTPUT_GRACE = 2.0
"""Seconds after the exit for what the engine still has of the output."""


class DockerContainer(RunningContainer):
    """See `RunningContainer`."""

    def __init__(self, engine: Engine, exit_: ContainerExit, output: OutputCapture | None) -> None:
        self._engine = engine
        self._exit = exit_
        self._output = output
        self._lock = trio.Lock()
        self._result: RunResult | None = None

    @property
    def id(self) -> str:
        """The engine's id of the container."""
        return self._exit.container_id

    @property
    def exit_status(self) -> str:
        """For the metrics: ``exit_<n>``, or ``ctx_canceled`` while it runs, so far as is known."""
        if self._result is not None:
            return f"exit_{self._result.exit_code}"
        return "ctx_canceled" if self._exit.code is None else f"exit_{self._exit.code}"

    async def wait_stopped(self) -> None:
        """As soon as the engine says so."""
        await self._exit.ended.wait()

    async def wait(self) -> RunResult:
        """Wait for the end; the output has been passed on by then.

        Raises `EngineError` if the engine does not tell how the container has ended.
        """
        await self._exit.ended.wait()
        if self._output is not None:
            with trio.move_on_after(OUTPUT_GRACE):
                await self._output.over.wait()
        async with self._lock:
            if self._result is None:
                self._result = await self._find_out()
            return self._result

    async def _find_out(self) -> RunResult:
        def request(client: docker.APIClient) -> dict[str, Any]:
            state: dict[str, Any] = client.inspect_container(self.id)["State"]
            return state

        try:
            state = await self._engine.call(EngineOperation.INSPECT_CONTAINER, request)
        except EngineError as error:
            if self._exit.code is not None:
                return result_of(self._exit.code)
            if error.status == NOT_FOUND:
                return result_of(KILLED)  # removed by force, and nobody saw it
            raise
        if state["Running"]:
            return result_of(KILLED)  # its removal is under way
        return result_of(int(state["ExitCode"]), out_of_memory=bool(state["OOMKilled"]))


def result_of(exit_code: int, *, out_of_memory: bool = False) -> RunResult:
    """What an exit code means. ``out_of_memory``: the kernel killed a process of the container,
    which is blamed for the end only if the exit code says so."""
    if exit_code == 0:
        return RunResult("success")
    if exit_code == KILLED and out_of_memory:
        return RunResult("killed", exit_code, ContainerOutOfMemory())
    return RunResult("error", exit_code, ContainerExited(exit_code))


log = structlog.get_logger(__name__)

RENEWAL = 20.0
"""Seconds that one subscription lasts: the most by which a dropped event delays an exit."""

RETRY_DELAY = 0.5
"""Seconds between two attempts to subscribe (Fn's limit of twice a second)."""

_ENDED = frozenset({"exited", "dead", "removing"})


class ContainerExit:
    """The end of one container. ``code`` is what the event said, ``None`` = not told."""

    def __init__(self, container_id: str) -> None:
        self.container_id = container_id
        self.code: int | None = None
        self.ended = trio.Event()

    def happened(self, code: int | None = None) -> None:
        if not self.ended.is_set():
            self.code = code
            self.ended.set()


class ExitWatcher:
    """Sets the `ContainerExit` of each watched container.

    ``containers`` tries its removals again whenever the engine has answered a subscription: it is
    there, and was perhaps away. ``metrics`` count all events of the engine.
    """

    def __init__(self, engine: Engine, containers: Containers, metrics: DockerMetrics) -> None:
        self._engine = engine
        self._containers = containers
        self._observer = _Observer(metrics)
        self._exits: dict[str, ContainerExit] = {}
        self._healthy = True

    def watch(self, container_id: str) -> ContainerExit:
        """Watch a container that exists and has not been started yet."""
        return self._exits.setdefault(container_id, ContainerExit(container_id))

    def forget(self, container_id: str) -> None:
        """The container is removed: whoever still waits for its end has it now."""
        if (exit_ := self._exits.pop(container_id, None)) is not None:
            exit_.happened()

    def watched(self) -> int:
        """How many containers are watched."""
        return len(self._exits)

    async def run(self) -> None:
        """Follow the engine's events until cancelled; outages are logged once each."""
        while True:
            started = trio.current_time()
            try:
                await self._follow()
            except EngineError as error:
                if self._healthy:
                    log.warning("engine's events lost, will subscribe again", error=str(error))
                self._healthy = False
            await trio.sleep_until(started + RETRY_DELAY)

    async def _follow(self) -> None:
        """One subscription, from the engine's clock to its regular end."""
        since = await self._engine.call(EngineOperation.CLOCK, _clock)
        silence = RENEWAL + self._engine.limit(EngineOperation.EVENTS)
        request = partial(_exit_events, since=since, silence=silence, observer=self._observer)
        async with (
            self._engine.stream(EngineOperation.EVENTS, request) as events,
            open_background() as nursery,
        ):
            self._healthy = True
            self._containers.retry_removals()
            nursery.start_soon(self._compare, nursery.cancel_scope)
            async for event in events:
                self._note(event)

    def _note(self, event: JSON) -> None:
        actor = event.get("Actor") or {}
        if event.get("Action") != "die" or actor.get("ID") not in self._exits:
            return
        code = str((actor.get("Attributes") or {}).get("exitCode", ""))
        self._exits[actor["ID"]].happened(int(code) if code.isdecimal() else None)

    async def _compare(self, subscription: trio.CancelScope) -> None:
        watched = list(self._exits.values())
        if not watched:
            return
        try:
            states = await self._engine.call(EngineOperation.LIST, _states)
        except EngineError:
            # Without the list this subscription can't be trusted.
            subscription.cancel()
            return
        for exit_ in watched:
            state = states.get(exit_.container_id)
            if state is None or state in _ENDED:
                exit_.happened()


def _clock(client: docker.APIClient) -> int:
    """The engine's time in Unix seconds, rounded down."""
    response = client.get(f"{client.base_url}/_ping")
    response.raise_for_status()
    try:
        return int(parsedate_to_datetime(response.headers["Date"]).timestamp())
    except (KeyError, ValueError) as error:
        raise DockerException("the engine's answer has no usable date") from error


def _exit_events(
    client: docker.APIClient, *, since: int, silence: float, observer: _Observer
) -> _ExitEvents:
    params = {"since": str(since), "until": str(since + int(RENEWAL))}
    lines = open_json_lines(client, "GET", "/events", silence=silence, params=params)
    return _ExitEvents(lines.response, observer)


@attrs.define
class _Observer:
    """Shows each event once, although a subscription repeats the end of the one before."""

    metrics: DockerMetrics
    latest_ns: int = 0

    def show(self, event: JSON, known_ns: int) -> None:
        """``known_ns``: up to this time the subscription before has shown them."""
        at_ns = event.get("timeNano")
        if isinstance(at_ns, int) and at_ns > known_ns:
            self.latest_ns = max(self.latest_ns, at_ns)
            self.metrics.event(str(event.get("Action", "")), str(event.get("Type", "")))


class _ExitEvents(JSONLines):
    """The exits among the events. Shows all events to the observer here, in the thread that reads
    them: the engine drops events of a slow subscriber."""

    def __init__(self, response: requests.Response, observer: _Observer) -> None:
        super().__init__(response)
        self._observer = observer

    def __iter__(self) -> Iterator[JSON]:
        known = self._observer.latest_ns
        for event in super().__iter__():
            self._observer.show(event, known)
            if event.get("Action") == "die":
                yield event


def _states(client: docker.APIClient) -> dict[str, str]:
    return {container["Id"]: container["State"] for container in client.containers(all=True)}


Frame = tuple[int, bytes]
"""Number of the stream, and a piece of it."""


class OutputCapture:
    """Passes a container's output on, from before its start until its end.

    Costs one thread for the container's life. ``over`` is set when everything was passed on.
    """

    def __init__(
        self, engine: Engine, container_id: str, on_output: Callable[[bytes, bool], None]
    ) -> None:
        self._engine = engine
        self._container_id = container_id
        self._on_output = on_output
        self._scope = trio.CancelScope()
        self.over = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Started when the engine has attached us: what is written later is not lost.

        Raises `EngineError` until then; later trouble is logged and ends the capture only.
        """
        attached = False
        request = partial(
            _attach,
            container_id=self._container_id,
            head_limit=self._engine.limit(EngineOperation.ATTACH),
        )
        try:
            with self._scope:
                async with self._engine.stream(EngineOperation.ATTACH, request) as frames:
                    attached = True
                    task_status.started()
                    await self._pass_on(frames)
        except EngineError as error:
            if not attached:
                raise
            log.warning("output lost", container=self._container_id, error=str(error))
        finally:
            self.over.set()

    def close(self) -> None:
        """Stop now."""
        self._scope.cancel()

    async def _pass_on(self, frames: AsyncIterator[Frame]) -> None:
        async for stream, chunk in frames:
            try:
                self._on_output(chunk, stream == STDERR)
            except Exception:
                # A broken logger must not take the function down.
                log.exception("on_output failed, output is not captured any more")
                return


class _Frames:
    """The two output streams of a container, as the engine multiplexes them."""

    def __init__(self, client: docker.APIClient, response: requests.Response) -> None:
        self._response = response
        # Untyped parts of the library: the one that finds the connection's socket is private.
        sock = client._get_raw_response_socket(response)  # type: ignore[attr-defined]
        frames = frames_iter(sock, tty=False)  # type: ignore[no-untyped-call]
        self._frames: CancellableStream[Frame] = CancellableStream(frames, response)

    def __iter__(self) -> Iterator[Frame]:
        return self._frames

    def interrupt(self) -> None:
        interrupt(self._frames)

    def close(self) -> None:
        # The connection was taken over for the stream and can't be used for anything else.
        interrupt(self._frames)
        self._response.close()


def _attach(client: docker.APIClient, *, container_id: str, head_limit: float) -> _Frames:
    """What the library's ``attach`` does, which keeps the response to itself and so never
    closes the connection."""
    response = client.post(
        f"{client.base_url}/v{client.api_version}/containers/{container_id}/attach",
        params={"stdout": "1", "stderr": "1", "stream": "1"},
        headers={"Connection": "Upgrade", "Upgrade": "tcp"},
        stream=True,
        timeout=head_limit,  # of the head only: the library polls for the frames
    )
    raise_for_status(response)
    return _Frames(client, response)
