"""What a simulated container runs: an image is a Python handler, delays and faults."""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Literal

import attrs

from hostler.abc import ContainerTask
from hostler.protocol import Headers

if TYPE_CHECKING:
    from ._container import SimContainer
    from ._http import SimRequest

Stage = Literal["cookie", "validate", "pull", "create", "start", "freeze", "unfreeze", "remove"]
"""Where a fault can be injected; each is one method of the driver or the cookie."""

Fault = Exception | Callable[[ContainerTask], Awaitable[None]]
"""Raised, or called and awaited, at the end of a stage's delay. A function may hang or raise."""

Listening = Literal["linked", "direct", "never"]
"""How the function offers its socket: as a symlink once it is ready, as function kits should;
by binding ``lsnr.sock`` itself; or not at all."""


class SimExit(Exception):
    """Raised by a handler or a start hook: the container ends, in the middle of everything.

    ``out_of_memory`` makes it look like a kill by the kernel.
    """

    def __init__(self, code: int = 0, *, out_of_memory: bool = False) -> None:
        self.code = code
        self.out_of_memory = out_of_memory
        super().__init__(code)


class SimDisconnect(Exception):
    """Raised by a handler: the function closes this connection at once and goes on."""


@attrs.frozen(kw_only=True)
class SimResponse:
    """What a handler answers.

    ``body`` as bytes goes with a ``Content-Length``, an async iterable chunked, piece by piece;
    it may raise `SimExit` or `SimDisconnect` half-way.
    """

    body: bytes | AsyncIterable[bytes] = b""
    status: int = 200
    headers: Headers = ()


SimHandler = Callable[["SimRequest"], Awaitable[SimResponse]]
"""Runs one request. It may sleep (virtual time), hang, raise `SimExit` or `SimDisconnect`.
Anything else it raises ends the container with exit code 1 and is logged as an error."""

StartHook = Callable[["SimContainer"], Awaitable[None]]
"""Runs in a started container, after ``init_time`` and before its socket is offered."""


@attrs.define(kw_only=True)
class SimImage:
    """An image that the driver knows; all fields may be changed while it is in use.

    Times are seconds of ``trio.current_time``. ``on_machine`` says whether it needs no pull.
    """

    name: str
    handler: SimHandler
    on_machine: bool = True
    volumes: bool = False
    """Validation fails as it does for an image that declares volumes."""
    validate_time: float = 0
    pull_time: float = 0
    create_time: float = 0
    start_time: float = 0
    init_time: float = 0
    freeze_time: float = 0
    unfreeze_time: float = 0
    remove_time: float = 0
    listening: Listening = "linked"
    exit_on_start: int | None = None
    """Exit code of a container that ends after ``init_time``, before it offers its socket."""
    start_hook: StartHook | None = None
    faults: Mapping[Stage, Fault] = attrs.Factory(dict)


async def echo(request: SimRequest) -> SimResponse:
    """Answer with the request's body and content type."""
    content_type = request.header("content-type")
    headers = [("Content-Type", content_type)] if content_type else []
    return SimResponse(body=await request.read(), headers=headers)
