"""Calls from a program: `call` runs a function and returns its whole response."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs
import msgspec
import trio

from ._arguments import check, told
from .abc import CallAgent
from .calls import Body, BytesBody, CallOption, CallRequest, PendingCall, ResponseWriter, Timings
from .errors import ConfigError, FunctionResponseError, FunctionResponseTooBig
from .models import App, Fn
from .options import from_http_fn_request, invoke_detached, with_time_limit, with_writer
from .protocol import Headers

__all__ = [
    "ACCEPTED",
    "CallResponse",
    "call",
]

ACCEPTED = 202
"""The status of a detached call, as at the front end."""


@attrs.frozen(kw_only=True)
class CallResponse:
    """A function's whole response, and how it was served."""

    status: int
    """The HTTP status that the function has chosen; 202 for a detached call."""
    headers: Headers
    """(name, value) pairs; a name may come twice."""
    body: bytes = attrs.field(repr=False)
    call_id: str
    seconds: float
    """From the submission to the end of the response."""
    timings: Timings
    """What the stages took on the runner; all 0 for a detached call."""
    cold: bool
    """A container was started for the call. False for a detached call."""
    runner: str
    """``host:port`` of the runner that had the call; "" if it ran in this process."""
    attempts: int
    """How many runners were asked, at a load balancer's agent."""

    def header(self, name: str, default: str = "") -> str:
        """The first value of the header ``name``, whatever its case, or ``default``."""
        wanted = name.lower()
        return next((value for key, value in self.headers if key.lower() == wanted), default)

    @property
    def text(self) -> str:
        """The body as UTF-8. Raises `UnicodeDecodeError` for other bytes."""
        return self.body.decode()

    def json(self) -> Any:
        """The body as a JSON document. Raises `msgspec.DecodeError` for another body."""
        return msgspec.json.decode(self.body)


async def call(
    agent: CallAgent,
    app: App,
    fn: Fn,
    body: bytes | str | Body = b"",
    *,
    method: str = "POST",
    url: str = "",
    headers: Mapping[str, str] | None = None,
    time_limit: float | None = None,
    detached: bool = False,
    max_response_size: int | None = None,
    options: Iterable[CallOption] = (),
) -> CallResponse:
    """Call ``fn`` of ``app`` by ``agent``, and wait for the whole response.

    The function sees a request with ``method``, ``url`` (default: the function's ``/invoke`` URL on
    localhost) and ``headers``. The caller gives up after ``time_limit`` seconds, which the agent
    knows: it refuses a call that would not get a container in time. A ``detached`` call returns
    when its function starts, without a response. ``options`` are applied after all of these, before
    the agent's own.

    The response is kept in memory: `FunctionResponseTooBig` is raised for more than
    ``max_response_size`` bytes (default: what the runner lets pass). Raises the `APIError` that
    ended the call, as `CallAgent.submit`, and `FunctionResponseError` if it ended without a
    response. To cancel the caller's scope ends the call everywhere, down to the container.
    """
    check("call", agent=(agent, CallAgent), app=(app, App), fn=(fn, Fn))
    if not isinstance(body, bytes | str | Body):
        raise ConfigError(f"call: body: takes bytes, text or a Body, not {told(body)}")
    data = body.encode() if isinstance(body, str) else body
    request = CallRequest(
        method,
        url or f"http://localhost/invoke/{fn.id}",
        {name: [value] for name, value in (headers or {}).items()},
        BytesBody(data) if isinstance(data, bytes) else data,
    )
    writer = _WholeResponse(max_response_size)
    chosen: list[CallOption] = [from_http_fn_request(app, fn, request), with_writer(writer)]
    if time_limit is not None:
        chosen.append(with_time_limit(time_limit))
    if detached:
        chosen.append(invoke_detached())
    pending = agent.get_call(*chosen, *options)
    began = trio.current_time()
    await agent.submit(pending)
    return _response(pending, writer, trio.current_time() - began)


def _response(pending: PendingCall, writer: _WholeResponse, seconds: float) -> CallResponse:
    detached = pending.model.type == "detached"
    if not (detached or writer.status):
        raise FunctionResponseError
    # The timings of a detached call go on to change.
    timings = Timings() if detached else pending.timings
    return CallResponse(
        status=ACCEPTED if detached else writer.status,
        headers=writer.headers,
        body=bytes(writer.body),
        call_id=pending.model.id,
        seconds=seconds,
        timings=timings,
        cold=timings.init_start_ns > 0,
        runner=pending.runner_address,
        attempts=pending.attempts,
    )


class _WholeResponse(ResponseWriter):
    """Keeps a response in memory, up to ``limit`` bytes."""

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self.status = 0
        self.headers: Headers = ()
        self.body = bytearray()

    async def start(self, status: int, headers: Headers) -> None:
        self.status, self.headers = status, headers
        await trio.lowlevel.checkpoint()

    async def write(self, data: bytes | memoryview) -> None:
        if self._limit is not None and len(self.body) + len(data) > self._limit:
            raise FunctionResponseTooBig
        self.body += data
        await trio.lowlevel.checkpoint()
