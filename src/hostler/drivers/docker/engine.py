"""The Docker SDK on worker threads: operations with limits, streams, error translation.

Each group of operations has threads, connections and a client of its own, so that long operations
can't keep a quick one waiting: a pause must not queue behind forty image pulls.

Streams go through the `requests` interface of the library's client: the library's own ``events``
and ``pull`` switch the socket's time limit off, and ``events`` takes a broken connection for the
regular end.
"""

from __future__ import annotations

import contextlib
import enum
import math
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import IO, Any, Generic, Protocol, TypeVar

import docker
import docker.errors
import docker.utils
import msgspec
import requests
import requests.exceptions
import structlog
import trio
from docker.constants import DEFAULT_DOCKER_API_VERSION
from docker.errors import DockerException, create_api_error_from_http_exception
from docker.transport import unixconn
from docker.types import CancellableStream
from requests.exceptions import RequestException

from ..._concurrency.nurseries import open_background
from ...errors import HostlerError, ServerBusy

T = TypeVar("T")

T_co = TypeVar("T_co", covariant=True)

_LIBRARY_ERRORS = (DockerException, RequestException, OSError)

_NOBODY = (ConnectionError, FileNotFoundError, NotADirectoryError, socket.gaierror)
"""Of the kernel, or of the look-up of a name: there is no engine."""

MAX_POOL_SIZE = 16
"""Connections that a group keeps open."""

NOT_FOUND, CONFLICT = 404, 409
"""The engine's HTTP statuses."""

DOCKER = "Engine"
"""What Docker's engine calls itself."""

DEFAULT_HOST = "unix:///var/run/docker.sock"
"""The engine's address if nothing else is said, as the library has it."""

THREAD_GRACE = 1.0
"""Seconds in which threads that were left behind should end when the driver is closed. A healthy
engine needs milliseconds; for a hung one there is no point in waiting."""

READ_AHEAD = 16
"""Items of a stream that its thread may be ahead of the task that iterates over them."""

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
        version: str,
        clients: dict[ThreadGroup, docker.APIClient],
        limits: dict[EngineOperation, float],
        observe: CallObserver = ignore_call,
    ) -> None:
        self.name, _, self.version = version.rpartition(" ")
        """``name``: "Engine" for Docker's, as it calls itself, or "Podman Engine"."""
        self._clients = clients
        self._limits = limits
        self._observe = observe
        self._limiters = {group: trio.CapacityLimiter(group.threads) for group in clients}
        self.api_version: str = clients[ThreadGroup.QUERY].api_version

    def limit(self, operation: EngineOperation) -> float:
        """Seconds."""
        return self._limits[operation]

    async def call(self, operation: EngineOperation, request: Callable[[docker.APIClient], T]) -> T:
        """Run ``request`` on a thread, with the client of the operation's group."""
        group = operation.group
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

    @contextlib.asynccontextmanager
    async def stream(
        self, operation: EngineOperation, request: Callable[[docker.APIClient], Stream[T]]
    ) -> AsyncIterator[AsyncIterator[T]]:
        """Open a stream on a thread, whose items the block can iterate over until its end.

        What ends the stream too early is raised in the iteration. Leaving the block, also by a
        cancellation, closes the connection, which also ends the thread.
        """
        group = operation.group
        reader = _Reader[T]()

        async def run() -> None:
            try:
                await trio.to_thread.run_sync(
                    lambda: reader.read(request(self._clients[group])),
                    abandon_on_cancel=True,
                    limiter=self._limiters[group],
                )
            except _LIBRARY_ERRORS as error:
                reader.error = translate(operation.value, error)
                reader.error.__cause__ = error
            except Exception as error:  # noqa: BLE001  (raised in the iteration)
                reader.error = error
            finally:
                reader.end()

        with self._observed(operation):
            async with open_background() as nursery:
                nursery.start_soon(run)
                await reader.opened.wait()
                if reader.error is not None:
                    raise reader.error
                yield reader
                nursery.cancel_scope.cancel()

    @contextlib.contextmanager
    def _observed(self, operation: EngineOperation) -> Iterator[None]:
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


class _Reader(Generic[T]):
    """The items of a stream: read, and the stream closed, in a worker thread; iterated over, and
    the stream ended, in Trio's."""

    def __init__(self) -> None:
        self.opened = trio.Event()
        """Or not, with an ``error``."""
        self.error: Exception | None = None
        self._send, self._receive = trio.open_memory_channel[T](READ_AHEAD)
        self._stream: Stream[T] | None = None
        self._ended = False

    def read(self, stream: Stream[T]) -> None:
        try:
            if not trio.from_thread.run_sync(self._begin, stream):
                return
            for item in stream:
                if not trio.from_thread.run_sync(self._pass_on, item):
                    trio.from_thread.run(self._send.send, item)
        except (trio.RunFinishedError, trio.ClosedResourceError):
            return  # left behind, perhaps by a program that has ended
        finally:
            stream.close()

    def _begin(self, stream: Stream[T]) -> bool:
        if not self._ended:
            self._stream = stream
            self.opened.set()
        return not self._ended

    def _pass_on(self, item: T) -> bool:
        """Whether there was room for it."""
        try:
            self._send.send_nowait(item)
        except trio.WouldBlock:
            return False
        return True

    def end(self) -> None:
        """The thread has ended, or is left behind."""
        self._ended = True
        self._send.close()
        self.opened.set()
        if self._stream is not None:
            self._stream.interrupt()

    def __aiter__(self) -> _Reader[T]:
        return self

    async def __anext__(self) -> T:
        try:
            return await self._receive.receive()
        except trio.EndOfChannel:
            if self.error is not None:
                raise self.error from self.error.__cause__
            raise StopAsyncIteration from None


async def open_engine(
    environ: Mapping[str, str],
    limits: Mapping[EngineOperation, float] | None = None,
    observe: CallObserver = ignore_call,
) -> Engine:
    """Connect to the engine that ``DOCKER_HOST``, ``DOCKER_TLS_VERIFY`` and ``DOCKER_CERT_PATH``
    name, with the newest API version that it speaks.

    ``limits`` replaces entries of `LIMITS`; ``observe`` is told about each call. Raises
    `EngineUnreachable` or `EngineTimeout`. Cancelled, it waits for its thread, for `THREAD_GRACE`
    at most.
    """
    table = LIMITS | dict(limits or {})
    seconds = table[EngineOperation.CONNECT]
    where = environ.get("DOCKER_HOST") or DEFAULT_HOST
    thread = trio.CapacityLimiter(1)
    try:
        with trio.move_on_after(seconds):
            await _check_socket(where)
            version, clients = await trio.to_thread.run_sync(
                partial(_connect, environ, table), abandon_on_cancel=True, limiter=thread
            )
            return Engine(version, clients, table, observe)
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
    environ: Mapping[str, str], limits: Mapping[EngineOperation, float]
) -> tuple[str, dict[ThreadGroup, docker.APIClient]]:
    """The engine's name and version, and the clients. Asks the engine once: a node that starts
    again waits for each answer before it takes calls."""
    where = docker.utils.kwargs_from_env(environment=dict(environ))
    first = docker.APIClient(
        version=DEFAULT_DOCKER_API_VERSION,
        timeout=_seconds(limits[EngineOperation.CONNECT]),
        **where,
    )
    with contextlib.closing(first):
        facts = first.version(api_version=False)
    try:
        version, api_version = f"{_name(facts)} {facts['Version']}", str(facts["ApiVersion"])
    except (KeyError, TypeError) as error:
        raise DockerException(f"the engine's version has no {error}") from error
    clients = {
        group: docker.APIClient(
            version=api_version,
            timeout=_seconds(max(limits[op] for op in EngineOperation if op.group is group)),
            max_pool_size=int(min(group.threads, MAX_POOL_SIZE)),
            **where,
        )
        for group in ThreadGroup
    }
    for client in clients.values():
        close_failed_sockets(client)
    return version, clients


def _name(facts: Mapping[str, Any]) -> str:
    """The engine's name for itself."""
    components: list[Mapping[str, Any]] = facts.get("Components") or [{}]
    return str(components[0].get("Name") or DOCKER)


def _seconds(limit: float) -> Any:
    return limit  # the stubs want an int, the library and its socket take a float


_SCHEME = "http+docker://"
"""What the library mounts its adapter for unix sockets on."""


def close_failed_sockets(client: docker.APIClient) -> None:
    """Have ``client`` close a socket that could not be connected. The library leaves it to the
    garbage collector: while an engine restarts, that is one for each call. Has no effect on a
    client of an engine behind TCP, whose sockets urllib3 closes."""
    library: Any = client.adapters.get(_SCHEME)
    if isinstance(library, unixconn.UnixHTTPAdapter):
        url = f"http+unix://{library.socket_path}"
        adapter: Any = _Adapter
        client.mount(_SCHEME, adapter(url, library.timeout, max_pool_size=library.max_pool_size))


class _EngineConnection(unixconn.UnixHTTPConnection):
    def connect(self) -> None:
        connecting = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connecting.settimeout(self.timeout)
            connecting.connect(self.unix_socket)
        except BaseException:
            connecting.close()
            raise
        self.sock = connecting


class _Pool(unixconn.UnixHTTPConnectionPool):
    def _new_conn(self) -> Any:
        limit: Any = self.timeout
        return _EngineConnection(self.base_url, self.socket_path, limit)


class _Adapter(unixconn.UnixHTTPAdapter):
    def get_connection(self, url: Any, proxies: Any = None) -> _Pool:
        with self.pools.lock:
            pool: _Pool | None = self.pools.get(url)
            if pool is None:
                pool = _Pool(url, self.socket_path, self.timeout, maxsize=self.max_pool_size)
                self.pools[url] = pool
        return pool


JSON = dict[str, Any]


class JSONLines:
    """The JSON objects of a streamed response."""

    def __init__(self, response: requests.Response) -> None:
        self.response = response
        # Only for its way of closing a socket under a reading thread.
        self._closer: CancellableStream[bytes] = CancellableStream(iter(()), response)

    def __iter__(self) -> Iterator[JSON]:
        for line in self.response.iter_lines():
            if line:
                yield _decode(line)

    def interrupt(self) -> None:
        interrupt(self._closer)

    def close(self) -> None:
        self.response.close()


def _decode(line: bytes) -> JSON:
    try:
        return msgspec.json.decode(line, type=JSON)
    except msgspec.MsgspecError as error:
        raise DockerException(f"the engine sent something else than JSON: {error}") from error


def interrupt(stream: CancellableStream[Any]) -> None:
    """Shut the socket under the reader of ``stream``. Harmless after the end."""
    try:
        stream.close()
    except (OSError, AttributeError):
        # The library looks for the socket in the response; after the end there is none.
        return


def open_json_lines(
    client: docker.APIClient,
    method: str,
    path: str,
    *,
    silence: float,
    params: Mapping[str, str],
    headers: Mapping[str, str] | None = None,
    data: IO[bytes] | None = None,
) -> JSONLines:
    """Send a request and return its answer once its head is there.

    ``silence`` limits, in seconds, each wait for the connection and for the next bytes. Raises
    what the Docker library raises for an answer that is an error.
    """
    response = client.request(
        method,
        f"{client.base_url}/v{client.api_version}{path}",
        params=dict(params),
        headers=dict(headers or {}),
        data=data,
        stream=True,
        timeout=silence,
    )
    raise_for_status(response)
    return JSONLines(response)


def raise_for_status(response: requests.Response) -> None:
    """Raise the library's exception for an answer that is an error, with the engine's text."""
    try:
        response.raise_for_status()
    except requests.HTTPError as error:
        create_api_error_from_http_exception(error)


log = structlog.get_logger(__name__)


class EngineError(HostlerError):
    """A call of the engine failed.

    ``operation`` names the call, ``message`` is what the engine said, ``status`` its HTTP
    status, or ``None`` if it gave no answer, so that nobody knows what the call has done.
    """

    def __init__(self, operation: str, message: str, status: int | None = None) -> None:
        self.operation = operation
        self.message = message
        self.status = status
        super().__init__(f"Docker engine, {operation}: {message}")


class EngineTimeout(EngineError):
    """The engine did not answer within the limit of the call."""


class EngineUnreachable(EngineError):
    """The connection to the engine can't be made, or broke before the answer."""


class EngineTooOld(HostlerError):
    """The engine's version is below ``AgentConfig.min_docker_version``."""


class InitMissing(EngineError):
    """The engine's machine has no init binary, which every function container runs as pid 1."""

    def __init__(self, operation: str, message: str, status: int | None) -> None:
        super().__init__(
            operation,
            "the engine has no init binary (docker-init: Debian's docker.io package, which "
            f"takes it from tini); it said: {message}",
            status,
        )


@contextmanager
def busy_if_away() -> Iterator[None]:
    """For the steps of a launch: if the engine is away or hangs, the call has certainly not run
    and may be tried on another runner, so `ServerBusy` is raised and the trouble logged."""
    try:
        yield
    except (EngineTimeout, EngineUnreachable) as error:
        log.warning("engine is away, the call may go elsewhere", error=str(error))
        raise ServerBusy() from error


def translate(operation: str, error: Exception) -> EngineError:
    """The `EngineError` for an exception that the Docker library raised during ``operation``."""
    match error:
        case EngineError():
            return error
        case docker.errors.APIError():
            return _of_answer(operation, error)
        case requests.exceptions.Timeout():
            return EngineTimeout(operation, "the engine did not answer in time")
        case requests.exceptions.HTTPError():
            status = None if error.response is None else error.response.status_code
            return EngineError(operation, str(error), status)
        case _:
            return EngineUnreachable(operation, str(error) or type(error).__name__)


def _of_answer(operation: str, error: docker.errors.APIError) -> EngineError:
    text = str(error.explanation or error).strip()
    if "docker-init" in text and "not found" in text:
        return InitMissing(operation, text, error.status_code)
    return EngineError(operation, text, error.status_code)


class ThreadGroup(enum.Enum):
    """Operations that share threads; ``threads`` of them may be under way at once."""

    QUERY = "query", 8
    CREATE = "create", 16
    REMOVE = "remove", 16
    PAUSE = "pause", 16
    TRANSFER = "transfer", 8
    EVENTS = "events", 1
    # One thread for each container whose output is captured. A bound would make the container
    # after the last wait for another one's end.
    OUTPUT = "output", math.inf
    # One question at a time; the second thread is for a question that was left behind.
    STATISTICS = "statistics", 2

    def __init__(self, text: str, threads: float) -> None:
        self.threads = threads


class EngineOperation(enum.Enum):
    """What the driver asks of the engine: the text in errors, the group, and the limit in seconds.

    The limit includes the wait for a thread. For operations that stream (pull, load, build, push,
    events, attach) it is the longest silence of the engine instead; the caller limits their whole
    time. List, remove image, pause and unpause have Fn's limits, the others are generous for a
    healthy engine under load.
    """

    _value_: str
    group: ThreadGroup
    limit: float

    CONNECT = "connect", ThreadGroup.QUERY, 10
    INFO = "describe itself", ThreadGroup.QUERY, 10
    LIST = "list containers", ThreadGroup.QUERY, 60
    INSPECT_CONTAINER = "inspect container", ThreadGroup.QUERY, 10
    INSPECT_IMAGE = "inspect image", ThreadGroup.QUERY, 10
    CREATE = "create container", ThreadGroup.CREATE, 60
    START = "start container", ThreadGroup.CREATE, 60
    REMOVE = "remove container", ThreadGroup.REMOVE, 60
    PAUSE = "pause container", ThreadGroup.PAUSE, 5
    UNPAUSE = "unpause container", ThreadGroup.PAUSE, 5
    PULL = "pull image", ThreadGroup.TRANSFER, 300
    LOAD = "load images", ThreadGroup.TRANSFER, 600
    BUILD = "build image", ThreadGroup.TRANSFER, 600
    PUSH = "push image", ThreadGroup.TRANSFER, 300
    MEASURE_IMAGES = "measure images", ThreadGroup.QUERY, 60
    REMOVE_IMAGE = "remove image", ThreadGroup.REMOVE, 60
    CLOCK = "read the clock", ThreadGroup.QUERY, 10
    EVENTS = "follow events", ThreadGroup.EVENTS, 10
    ATTACH = "attach to container", ThreadGroup.OUTPUT, 10
    STATISTICS = "read statistics", ThreadGroup.STATISTICS, 10

    def __new__(cls, text: str, group: ThreadGroup, limit: float) -> EngineOperation:
        operation = object.__new__(cls)
        operation._value_ = text
        operation.group = group
        operation.limit = limit
        return operation


LIMITS: dict[EngineOperation, float] = {each: each.limit for each in EngineOperation}
"""Seconds that an operation may take."""
