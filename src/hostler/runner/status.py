"""Runner status: status image, checks, network barrier, and the hooks of an embedding program.

A run checks all three. Its result is kept for a moment, and there is one run at a time for one
payload, so any number of LBs may ask. Numbers that don't come from a run (calls under way, calls
ever taken, kernel dumps) are read anew for each answer.
"""

from __future__ import annotations

import datetime as dt
import os
import secrets
from collections.abc import Awaitable, Callable, Mapping

import attrs
import msgspec
import structlog
import trio

from .. import options
from ..abc import CallAgent, ResponseWriter
from ..bodies import BytesBody
from ..calls import PendingCall
from ..errors import APIError, FunctionResponseTooBig, ServerBusy, code_of, public_error
from ..ids import new_id
from ..metrics import AgentMetrics
from ..models import Call
from ..protocol import GRPCStatus, Headers, LogChannel, RunnerStatus
from .engagement import facts

log = structlog.get_logger(__name__)

CALL_TIMEOUT = 5

IDLE_TIMEOUT = 1

CACHE_SECONDS = IDLE_TIMEOUT + 0.5

RUN_SECONDS = 60.0
"""Seconds: of the status call, of its container afterwards, of a result, of a whole run. Fn's
values (reference of the runner, "Status tracker")."""

MAX_DETAILS = 1024 * 1024
"""Bytes of an answer of the status image. It travels in one message, of 4 MiB at most."""

RUNS_AT_ONCE = 4
"""Runs of different payloads at a time, each of which needs a container."""

MAX_RESULTS = 64
"""Results that are kept."""

NO_PAYLOAD = "{}"

UNAVAILABLE = 14


HealthChecker = Callable[[], Awaitable[Mapping[str, str]]]
"""Returns the ``customStatus`` of a status. Raising marks the status as failed, with the code and
the text of the exception; the status image is not run then."""

ConfigHandler = Callable[[Mapping[str, str]], Awaitable[None]]
"""Takes the configuration of ``ConfigureRunner``."""

LogStreamer = Callable[[LogChannel], Awaitable[None]]
"""Answers one ``StreamLogs`` stream."""


@attrs.frozen(kw_only=True)
class StatusChecks:
    """What a runner's status consists of beside its counters; empty = none.

    ``image`` is run as a function with the payload as its body; no caller may name it. ``barrier``
    is the path of a file. While it does not exist, the network counts as disabled: the status
    reports that, and the status image is run without a network.
    """

    image: str = ""
    barrier: str = ""


@attrs.define(eq=False)
class _Run:
    """A run under way or over."""

    done: trio.Event = attrs.Factory(trio.Event)
    result: RunnerStatus | None = None
    expires_at: float = 0
    readers: int = 0


class StatusTracker:
    """Answers status requests. ``tasks`` is the nursery of the runs: a client that goes away ends
    only its own waiting."""

    def __init__(
        self,
        agent: CallAgent,
        tasks: trio.Nursery,
        checks: StatusChecks,
        checker: HealthChecker | None,
        metrics: AgentMetrics,
    ) -> None:
        self._agent = agent
        self._checks = checks
        self._checker = checker
        self._metrics = metrics
        self._tasks = tasks
        self._limit = trio.CapacityLimiter(RUNS_AT_ONCE)
        self._runs: dict[bytes, _Run] = {}

    async def status(self, payload: str | None) -> RunnerStatus:
        """The status without its numbers, from a new run or one of the last 1.5 s. Cancelling ends
        the waiting, not the run. A failing check is a result, not an exception. Raises `GRPCStatus`
        if the runner ends meanwhile."""
        if not self._checks.image and self._checker is None:
            await trio.lowlevel.checkpoint()
            return RunnerStatus(is_network_disabled=self._barred())
        counted = {"cached": "error", "success": "error", "network": "error"}
        try:
            result = await self._result(payload or NO_PAYLOAD)
            counted = {
                "cached": _text(result.cached),
                "success": _text(not result.failed),
                "network": _text(not result.is_network_disabled),
            }
        finally:
            self._metrics.count_status(**counted)
        return result

    async def _result(self, payload: str) -> RunnerStatus:
        run = self._find(payload)
        await run.done.wait()
        if run.result is None:
            raise GRPCStatus(UNAVAILABLE, "the runner ended during its status check")
        cached = run.readers > 0
        run.readers += 1
        return msgspec.structs.replace(run.result, cached=cached)

    def _find(self, payload: str) -> _Run:
        """The run of ``payload`` that is under way or fresh; otherwise a new one."""
        now = trio.current_time()
        for key, old in tuple(self._runs.items()):
            if old.done.is_set() and old.expires_at <= now:
                del self._runs[key]
        key = _key(payload)
        run = self._runs.get(key)
        if run is None:
            run = self._runs[key] = _Run()
            self._forget_surplus()
            self._tasks.start_soon(self._run, run, payload)
        return run

    def _forget_surplus(self) -> None:
        finished = [key for key, run in self._runs.items() if run.done.is_set()]
        for key in finished[: max(0, len(self._runs) - MAX_RESULTS)]:
            del self._runs[key]

    async def _run(self, run: _Run, payload: str) -> None:
        try:
            with trio.move_on_after(RUN_SECONDS):
                async with self._limit:
                    run.result = await self._check(payload)
            if run.result is None:
                barred = RunnerStatus(is_network_disabled=self._barred())
                run.result = _failed(barred, ServerBusy())
            run.expires_at = trio.current_time() + CACHE_SECONDS
        finally:
            run.done.set()

    async def _check(self, payload: str) -> RunnerStatus:
        result = RunnerStatus(id=new_id(), is_network_disabled=self._barred())
        if self._checker is not None:
            try:
                found = await self._checker()
                custom = {str(name): str(value) for name, value in found.items()}
            except Exception as error:
                # The code is the operator's, who also reads the status: the text may show.
                log.warning("health check failed", exc_info=error)
                return msgspec.structs.replace(
                    result, failed=True, error_code=code_of(error) or 500, error_text=str(error)
                )
            result = msgspec.structs.replace(result, custom_status=custom)
        return await self._call_image(payload, result) if self._checks.image else result

    async def _call_image(self, payload: str, result: RunnerStatus) -> RunnerStatus:
        call: PendingCall | None = None
        answer = _Answer()
        error: Exception | None = None
        try:
            call = self._make_call(payload, answer, result)
            await self._agent.submit(call)
        except Exception as caught:  # noqa: BLE001  (it is the result)
            error = caught
            self._log(caught)
        known = {} if call is None else facts(call)
        result = msgspec.structs.replace(result, details=answer.text(), **known)
        if error is not None:
            return _failed(result, error)
        if answer.status >= 400:
            return msgspec.structs.replace(result, failed=True, error_code=answer.status)
        return result

    def _log(self, error: Exception) -> None:
        image = self._checks.image
        if isinstance(error, APIError) and error.code:
            log.warning("status call failed", image=image, reason=str(error), code=error.code)
        else:
            log.error("status call failed inside the runner", image=image, exc_info=error)

    def _make_call(self, payload: str, answer: _Answer, result: RunnerStatus) -> PendingCall:
        model = Call(
            id=result.id,
            image=self._checks.image,
            type="sync",
            method="GET",
            url="/",
            timeout=CALL_TIMEOUT,
            idle_timeout=IDLE_TIMEOUT,
            created_at=dt.datetime.now(dt.UTC),
        )
        chosen = [
            options.from_model(model, BytesBody(payload.encode())),
            options.with_writer(answer),
            # A slot key of its own, so that each run tests that a new container can start.
            options.with_slot_hash_id(secrets.token_bytes(32)),
        ]
        if result.is_network_disabled:
            chosen.append(options.without_network())
        call = self._agent.get_call(*chosen)
        call.refusable = True  # a status tells how it is now
        return call

    def _barred(self) -> bool:
        """Whether the network is not up yet. Looks at a local file, so it needs no thread."""
        return bool(self._checks.barrier) and not os.path.lexists(self._checks.barrier)


class _Answer(ResponseWriter):
    """Keeps the answer of the status image.

    ``status`` is the status that the function itself gives (``Fn-Http-Status``), if it gives one.
    """

    def __init__(self) -> None:
        self.status = 0
        self._body = bytearray()

    async def start(self, status: int, headers: Headers) -> None:
        self.status = status
        for name, value in headers:
            if name == "Fn-Http-Status" and value.isascii() and value.isdigit():
                self.status = int(value[:9])

    async def write(self, data: bytes | memoryview) -> None:
        if len(self._body) + len(data) > MAX_DETAILS:
            raise FunctionResponseTooBig
        self._body += data

    def text(self) -> str:
        return self._body.decode("utf-8", "replace")


def _failed(result: RunnerStatus, error: Exception) -> RunnerStatus:
    public = public_error(error)
    return msgspec.structs.replace(
        result, failed=True, error_code=public.code, error_text=public.message
    )


def _key(payload: str) -> bytes:
    """The same key for all spellings of a payload: encoders write maps in any order."""
    document: Mapping[str, object] = msgspec.json.decode(payload, type=dict[str, object])
    return msgspec.json.encode(document, order="sorted")


def _text(value: bool) -> str:
    return "true" if value else "false"


@attrs.frozen(kw_only=True)
class Hooks:
    """What an embedding program adds to a pure runner; ``None`` = nothing.

    ``stream_logs`` replaces the built-in streamer. ``kdumps_on_disk`` is asked for each status; it
    must not block.
    """

    health_checker: HealthChecker | None = None
    configure: ConfigHandler | None = None
    stream_logs: LogStreamer | None = None
    kdumps_on_disk: Callable[[], int] | None = None
