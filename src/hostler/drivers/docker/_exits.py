"""Who has ended: one subscription to the engine's events for all containers of a driver.

A blocked ``wait`` call for each container would cost a thread for each hot container, most of
which do nothing for minutes. Events alone can be lost, so the subscription is renewed every
`RENEWAL` seconds, and each renewal compares the engine's list of containers with what is watched:

* An exit before the list was made is seen in the list.
* An exit after that comes as an event: the subscription asks for the events since a moment (of
  the engine's clock) before the list, because the engine sends the head of its answer shortly
  before it subscribes.
* The engine drops events for a subscriber that takes longer than 100 ms to read; the next
  renewal's list finds the exit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from functools import partial

import attrs
import docker
import msgspec
import structlog
import trio
from docker.errors import DockerException

from ._engine import Engine
from ._errors import EngineError
from ._limits import Operation
from ._streams import JSON, JSONLines, open_json_lines

log = structlog.get_logger(__name__)

RENEWAL = 20.0
"""Seconds that one subscription lasts: the most by which a dropped event delays an exit."""
RETRY_DELAY = 0.5
"""Seconds between two attempts to subscribe (Fn's limit of twice a second)."""
_ENDED = frozenset({"exited", "dead", "removing"})


class Exit:
    """The end of one container. ``code`` is what the event said, ``None`` = not told."""

    def __init__(self, container_id: str) -> None:
        self.container_id = container_id
        self.code: int | None = None
        self.ended = trio.Event()

    def happened(self, code: int | None = None) -> None:
        if not self.ended.is_set():
            self.code = code
            self.ended.set()


EventObserver = Callable[[str, str], None]
"""Gets action and type of an event, in a thread of its own."""


class ExitWatcher:
    """Sets the `Exit` of each watched container.

    ``on_connected`` is called whenever the engine has answered a subscription: it is there, and
    was perhaps away. With ``on_event`` the subscription asks for all events of the engine.
    """

    def __init__(
        self,
        engine: Engine,
        on_connected: Callable[[], None] = lambda: None,
        on_event: EventObserver | None = None,
    ) -> None:
        self._engine = engine
        self._on_connected = on_connected
        self._observer = _Observer(on_event) if on_event is not None else None
        self._exits: dict[str, Exit] = {}
        self._healthy = True

    def watch(self, container_id: str) -> Exit:
        """Watch a container that exists and has not been started yet."""
        return self._exits.setdefault(container_id, Exit(container_id))

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
        since = await self._engine.call(Operation.CLOCK, _clock)
        silence = RENEWAL + self._engine.limit(Operation.EVENTS)
        failure: EngineError | None = None
        async with trio.open_nursery() as nursery:

            def on_open() -> None:
                self._healthy = True
                self._on_connected()
                nursery.start_soon(self._compare, nursery.cancel_scope)

            try:
                request = partial(
                    _exit_events, since=since, silence=silence, observer=self._observer
                )
                await self._engine.stream(
                    Operation.EVENTS, request, self._on_event, on_open=on_open
                )
            except EngineError as error:
                failure = error
                nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure

    def _on_event(self, event: JSON) -> None:
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
            states = await self._engine.call(Operation.LIST, _states)
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
    client: docker.APIClient, *, since: int, silence: float, observer: _Observer | None
) -> _ExitEvents:
    params = {"since": str(since), "until": str(since + int(RENEWAL))}
    if observer is None:
        filters = {"type": ["container"], "event": ["die"]}
        params["filters"] = msgspec.json.encode(filters).decode()
    lines = open_json_lines(client, "GET", "/events", silence=silence, params=params)
    return _ExitEvents(lines, observer)


@attrs.define
class _Observer:
    """Shows each event once, although a subscription repeats the end of the one before."""

    show_to: EventObserver
    latest_ns: int = 0

    def show(self, event: JSON, known_ns: int) -> None:
        """``known_ns``: up to this time the subscription before has shown them."""
        at_ns = event.get("timeNano")
        if isinstance(at_ns, int) and at_ns > known_ns:
            self.latest_ns = max(self.latest_ns, at_ns)
            self.show_to(str(event.get("Action", "")), str(event.get("Type", "")))


class _ExitEvents:
    """The exits among the events; all of them are shown to the observer here, in the thread that
    reads them: a subscriber that is slow loses some."""

    def __init__(self, lines: JSONLines, observer: _Observer | None) -> None:
        self._lines = lines
        self._observer = observer

    def __iter__(self) -> Iterator[JSON]:
        known = self._observer.latest_ns if self._observer is not None else 0
        for event in self._lines:
            if self._observer is not None:
                self._observer.show(event, known)
            if event.get("Action") == "die":
                yield event

    def interrupt(self) -> None:
        self._lines.interrupt()

    def close(self) -> None:
        self._lines.close()


def _states(client: docker.APIClient) -> dict[str, str]:
    return {container["Id"]: container["State"] for container in client.containers(all=True)}
