"""The Docker library on Trio: every call on a worker thread, named, and limited in time."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Protocol, TypeVar

import docker
import docker.utils
import trio
from docker.errors import DockerException
from requests.exceptions import RequestException

from ._errors import EngineError, EngineTimeout, EngineUnreachable, translate
from ._limits import GROUP, LIMITS, THREADS, Operation, Threads
from ._unix import close_failed_sockets

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_LIBRARY_ERRORS = (DockerException, RequestException, OSError)
_NOBODY = (ConnectionError, FileNotFoundError, NotADirectoryError, socket.gaierror)
"""Of the kernel, or of the look-up of a name: there is no engine."""
_POOL_SIZE_IF_UNBOUNDED = 16
DEFAULT_HOST = "unix:///var/run/docker.sock"
"""The engine's address if nothing else is said, as the library has it."""
THREAD_GRACE = 1.0
"""Seconds in which threads that were left behind should end when the driver is closed. A healthy
engine needs milliseconds; for a hung one there is no point in waiting."""


CallObserver = Callable[[str, str, float], None]
"""Gets the name of a call (``docker_create_container``), how it ended (``ok``, ``canceled``,
``timeout``, the engine's HTTP status, or ``error``), and its seconds."""


def ignore_call(api_name: str, api_status: str, seconds: float) -> None:
    """Observe nothing."""


class Stream(Protocol[T_co]):
    """An answer that goes on, iterated and closed by the thread that opened it."""

    def __iter__(self) -> Iterator[T_co]: ...

    def interrupt(self) -> None:
        """End the iteration under its thread. Called from another one; never blocks."""

    def close(self) -> None:
        """Free the connection."""


class Engine:
    """A connected Docker engine.

    All calls raise `EngineError`. A call that is cancelled, or over its limit, leaves its thread
    behind, which ends when the engine answers or the longest limit of its group has passed on
    its socket: a hung engine holds up threads of the call's group for a while, but neither the
    caller nor shutdown.
    """

    def __init__(
        self,
        clients: dict[Threads, docker.APIClient],
        limits: dict[Operation, float],
        observe: CallObserver = ignore_call,
    ) -> None:
        self._clients = clients
        self._limits = limits
        self._observe = observe
        self._limiters = {group: trio.CapacityLimiter(THREADS[group]) for group in clients}
        self.api_version: str = clients[Threads.QUERY].api_version

    def limit(self, operation: Operation) -> float:
        """Seconds."""
        return self._limits[operation]

    async def call(self, operation: Operation, request: Callable[[docker.APIClient], T]) -> T:
        """Run ``request`` on a thread, with the client of the operation's group."""
        group = GROUP[operation]
        limit = self._limits[operation]
        with self._observed(operation):
            with trio.move_on_after(limit):
                try:
                    return await trio.to_thread.run_sync(
                        request,
                        self._clients[group],
                        abandon_on_cancel=True,
                        limiter=self._limiters[group],
                    )
                except _LIBRARY_ERRORS as error:
                    raise translate(operation.value, error) from error
            raise EngineTimeout(operation.value, f"no answer within {limit:g} s")

    async def stream(
        self,
        operation: Operation,
        request: Callable[[docker.APIClient], Stream[T]],
        on_item: Callable[[T], None],
        *,
        on_open: Callable[[], None] = lambda: None,
    ) -> None:
        """Open a stream and pass on its items until its end.

        Both callbacks run in the caller's Trio thread, never after this method has returned or
        raised; an exception of theirs ends the stream and is raised here. Cancelling closes the
        connection, which also ends the thread.
        """
        group = GROUP[operation]
        reader = _Reader(request, on_item, on_open)
        with self._observed(operation):
            try:
                await trio.to_thread.run_sync(
                    reader.run,
                    self._clients[group],
                    abandon_on_cancel=True,
                    limiter=self._limiters[group],
                )
            except _LIBRARY_ERRORS as error:
                raise translate(operation.value, error) from error
            finally:
                reader.leave()

    @contextlib.contextmanager
    def _observed(self, operation: Operation) -> Iterator[None]:
        began = time.monotonic()
        status = "error"
        try:
            yield
            status = "ok"
        except trio.Cancelled:
            status = "canceled"
            raise
        except EngineTimeout:
            status = "timeout"
            raise
        except EngineError as error:
            status = "error" if error.status is None else str(error.status)
            raise
        finally:
            name = f"docker_{operation.value.replace(' ', '_')}"
            self._observe(name, status, time.monotonic() - began)

    def threads(self) -> int:
        """How many calls hold a thread, those left behind included."""
        return sum(limiter.borrowed_tokens for limiter in self._limiters.values())

    async def aclose(self) -> None:
        """Wait for the threads that were left behind, for `THREAD_GRACE` at most, and close the
        idle connections. No call may be under way or follow."""
        with trio.move_on_after(THREAD_GRACE, shield=True):
            for limiter in self._limiters.values():
                await _all_free(limiter)
        for client in self._clients.values():
            client.close()


async def _all_free(limiter: trio.CapacityLimiter) -> None:
    busy = int(limiter.borrowed_tokens)
    # Now as many tokens can be had as are given back.
    limiter.total_tokens = max(busy, 1)
    for _ in range(busy):
        await limiter.acquire_on_behalf_of(object())


class _Reader:
    """One stream: opened, read and closed in a worker thread, left from Trio's."""

    def __init__(
        self,
        request: Callable[[docker.APIClient], Stream[T]],
        on_item: Callable[[T], None],
        on_open: Callable[[], None],
    ) -> None:
        self._request = request
        self._on_item = on_item
        self._on_open = on_open
        self._left = False
        self._stream: Stream[Any] | None = None

    def run(self, client: docker.APIClient) -> None:
        stream = self._request(client)
        try:
            if not trio.from_thread.run_sync(self._opened, stream):
                return
            for item in stream:
                if not trio.from_thread.run_sync(self._pass_on, item):
                    return
        except trio.RunFinishedError:
            return  # left behind by a program that has ended
        finally:
            stream.close()

    def _opened(self, stream: Stream[Any]) -> bool:
        if not self._left:
            self._stream = stream
            self._on_open()
        return not self._left

    def _pass_on(self, item: Any) -> bool:
        if not self._left:
            self._on_item(item)
        return not self._left

    def leave(self) -> None:
        self._left = True
        if self._stream is not None:
            self._stream.interrupt()


async def open_engine(
    environ: Mapping[str, str],
    limits: Mapping[Operation, float] | None = None,
    observe: CallObserver = ignore_call,
) -> Engine:
    """Connect to the engine that ``DOCKER_HOST``, ``DOCKER_TLS_VERIFY`` and ``DOCKER_CERT_PATH``
    name, with the newest API version that it speaks.

    ``limits`` replaces entries of `LIMITS`; ``observe`` is told about each call. Raises
    `EngineUnreachable` or `EngineTimeout`. Cancelled, it waits for its thread, for `THREAD_GRACE`
    at most.
    """
    table = LIMITS | dict(limits or {})
    seconds = table[Operation.CONNECT]
    where = environ.get("DOCKER_HOST") or DEFAULT_HOST
    thread = trio.CapacityLimiter(1)
    try:
        with trio.move_on_after(seconds):
            await _check_socket(where)
            clients = await trio.to_thread.run_sync(
                partial(_connect, environ, table), abandon_on_cancel=True, limiter=thread
            )
            return Engine(clients, table, observe)
    except _LIBRARY_ERRORS as error:
        raise EngineUnreachable("connect", _why(error, where)) from error
    finally:
        with trio.move_on_after(THREAD_GRACE, shield=True):
            await _all_free(thread)
    raise EngineTimeout("connect", f"no answer within {seconds:g} s")


def _why(error: Exception, where: str) -> str:
    for cause in _causes(error):
        if isinstance(cause, PermissionError):
            return f"this user may not use {where}; root may, and members of the group docker"
        if isinstance(cause, _NOBODY) and cause.strerror:
            return f"none answers at {where} ({cause.strerror}); start one, or set DOCKER_HOST"
    return f"{error} (at {where})"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """``error``, what it came of, and so on: the library wraps the kernel's word several times."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


async def _check_socket(host: str) -> None:
    """Raise `OSError` if nobody listens on a unix socket: the library would wrap that in three
    other texts, and leave its socket to the garbage collector."""
    if host.startswith("unix://"):
        async with await trio.open_unix_socket(host.removeprefix("unix://")):
            pass


def _connect(
    environ: Mapping[str, str], limits: Mapping[Operation, float]
) -> dict[Threads, docker.APIClient]:
    where = docker.utils.kwargs_from_env(environment=dict(environ))
    first = docker.APIClient(version="auto", timeout=_seconds(limits[Operation.CONNECT]), **where)
    with contextlib.closing(first):
        first.ping()
        version = first.api_version
    clients = {
        group: docker.APIClient(
            version=version,
            timeout=_seconds(max(limits[op] for op in Operation if GROUP[op] is group)),
            max_pool_size=_pool_size(group),
            **where,
        )
        for group in Threads
    }
    for client in clients.values():
        close_failed_sockets(client)
    return clients


def _seconds(limit: float) -> Any:
    return limit  # the stubs want an int, the library and its socket take a float


def _pool_size(group: Threads) -> int:
    threads = THREADS[group]
    return _POOL_SIZE_IF_UNBOUNDED if threads == float("inf") else int(threads)
