"""Node application: routes, mounts, metrics, readiness."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from importlib.metadata import version

import attrs
import structlog
import trio
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from .._arguments import check, told
from .._asgi.replies import Reply, error_reply, json_reply, text_reply, without_slash
from .._asgi.types import ASGIApp, Handler, HeadReader, Receive, Scope, Send, answer_lifespan
from ..abc import CallAgent
from ..bodies import BodyBudget, BodyMetrics
from ..config import NodeConfig
from ..errors import APIError, ConfigError, HostlerError
from ..functions import FunctionSource, TriggerSource
from ..http1.server import INVOKE_PATH, TRIGGER_PATH
from ..metrics import FrontMetrics
from ..models import App, Fn
from .invocation import CallPath, CallRoute, GivenEntry, Head, InvokeEntry, Invoker, TriggerEntry

log = structlog.get_logger(__name__)

_BROKEN_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_DOCUMENTS = ("/", "/version", "/metrics", "/healthz", "/readyz")

ReadyCheck = Callable[[], bool]
"""Whether the node takes calls. May raise an `APIError` that says why it does not."""


class NodeApp(HeadReader):
    """The routes that every node has, and those of calls if it is given `CallRoutes`.

    =============================  ==========================================================
    ``POST /invoke/{fn_id}``       call a function
    ``/t/{app}/{source}``          call a function by a trigger, with any method
    ``GET /``, ``GET /version``    Fn's greeting; the version of hostler
    ``GET /metrics``               Prometheus
    ``GET /healthz``               200 while the process serves
    ``GET /readyz``                200 while it takes calls, else 503 (before start, in a drain,
                                   without a runner that can be reached)
    =============================  ==========================================================
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        *,
        calls: CallRoutes | None = None,
        mounts: Mapping[str, ASGIApp] | None = None,
        ready: ReadyCheck = lambda: True,
    ) -> None:
        self.registry = registry
        self._calls = calls
        self._mounts = dict(mounts or {})
        self._ready = ready
        self._scrapes = trio.CapacityLimiter(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "lifespan":
            await answer_lifespan(receive, send)
        else:
            await send({"type": "websocket.close"})

    def handler(self, scope: Scope) -> Handler | None:
        """See `HeadReader`."""
        calls = self._calls
        if calls is None or _bad_target(scope) is not None or self._mounted(scope["path"]):
            return None
        way = calls.way(scope)
        return functools.partial(calls.invoker.serve, way) if way else None

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        if (bad := _bad_target(scope)) is not None:
            await error_reply(bad).send(send)
        elif mounted := self._mounted(path):
            await mounted(scope, receive, send)
        elif self._calls is not None and (way := self._calls.way(scope)):
            await self._calls.invoker.run(way, scope, receive, send)
        elif self._is_known(path):
            await (await self._document(scope)).send(send)
        else:
            await self._unknown(scope).send(send)

    def _mounted(self, path: str) -> ASGIApp | None:
        return self._mounts.get("/" + path[1:].partition("/")[0])

    def _is_known(self, path: str) -> bool:
        is_invoke = self._calls is not None and self._calls.is_invoke(path)
        return is_invoke or path in _DOCUMENTS

    async def _document(self, scope: Scope) -> Reply:
        path, method = scope["path"], scope["method"]
        if method != "GET" or path not in _DOCUMENTS:
            return error_reply(APIError(405, f"Method not allowed: {method} {path}"))
        if path == "/":
            return json_reply({"goto": "https://github.com/fnproject/fn", "hello": "world!"})
        if path == "/version":
            return json_reply({"version": version("hostler")})
        if path == "/metrics":
            return await self._metrics()
        return self._readiness() if path == "/readyz" else text_reply("ok\n")

    def _readiness(self) -> Reply:
        try:
            return text_reply("ok\n") if self._ready() else text_reply("not ready\n", 503)
        except APIError as error:
            return text_reply(f"not ready: {error.message}\n", 503)

    async def _metrics(self) -> Reply:
        # On a thread, as collectors are used to from Prometheus' own servers: it takes about 3 ms
        # for each function that a runner has had. One at a time, also of those that were given up.
        text = await trio.to_thread.run_sync(
            generate_latest, self.registry, limiter=self._scrapes, abandon_on_cancel=True
        )
        return Reply(200, text, [(b"content-type", CONTENT_TYPE_LATEST.encode())])

    def _unknown(self, scope: Scope) -> Reply:
        """No such path: a redirect if it is only the trailing slash, else 404."""
        path, method = scope["path"], scope["method"]
        trimmed = path.removesuffix("/")
        if path != trimmed and trimmed and self._is_known(trimmed):
            return without_slash(scope)
        return error_reply(APIError(404, f"Path not found: {method} {path}"))


def node_app(
    *,
    mounts: Mapping[str, ASGIApp] | None = None,
    registry: CollectorRegistry | None = None,
    ready: ReadyCheck = lambda: True,
) -> ASGIApp:
    """The application of a node that takes no calls over HTTP, such as a pure runner.

    ``mounts`` as for `invoke_app`.
    """
    return NodeApp(registry or CollectorRegistry(), mounts=mounts, ready=ready)


def invoke_app(
    agent: CallAgent,
    functions: FunctionSource,
    *,
    triggers: TriggerSource | None = None,
    mounts: Mapping[str, ASGIApp] | None = None,
    config: NodeConfig | None = None,
    registry: CollectorRegistry | None = None,
    metrics: FrontMetrics | None = None,
    bodies: BodyBudget | None = None,
    ready: ReadyCheck = lambda: True,
) -> ASGIApp:
    """The application of a node that takes calls over HTTP.

    Without ``triggers`` there is no ``/t``. ``mounts`` (``{"/v2": application}``) get all below
    a first path component, with the whole path. ``metrics`` are given to share them with a
    mounted application; they are made with ``registry``. ``bodies``, whose metrics are
    registered there, is to be the agent's, too.

    Any ASGI 3 server on Trio can run it; `serve_http` is made for it. Of ``config`` it uses
    ``max_request_size``, ``replay_limit``, ``request_body_read_timeout`` and ``rid_header``.

    A response that can't be completed any more is left without its last message: the server
    has to break the connection then, so that the client sees a truncated body. A client that
    goes away (``http.disconnect``) cancels its call.
    """
    check("invoke_app", agent=(agent, CallAgent))
    for name, source, method in (
        ("functions", functions, "find"),
        ("triggers", triggers, "find_trigger"),
    ):
        if source is not None and not hasattr(source, method):
            raise ConfigError(f"invoke_app: {name}: takes what has `{method}`, not {told(source)}")
    registry = registry or CollectorRegistry()
    bodies = bodies or BodyBudget()
    BodyMetrics(registry, bodies)
    invoker = Invoker(agent, config or NodeConfig(), metrics or FrontMetrics(registry), bodies)
    calls = CallRoutes(invoker, functions, triggers)
    return NodeApp(registry, calls=calls, mounts=mounts, ready=ready)


@functools.cache
def _default_front() -> tuple[FrontMetrics, BodyBudget]:
    return FrontMetrics(CollectorRegistry()), BodyBudget()


async def respond(
    agent: CallAgent,
    app: App,
    fn: Fn,
    scope: Scope,
    receive: Receive,
    send: Send,
    *,
    detached: bool = False,
    config: NodeConfig | None = None,
    metrics: FrontMetrics | None = None,
    bodies: BodyBudget | None = None,
) -> None:
    """Answer one HTTP request of an ASGI handler with ``fn`` of ``app``, run by ``agent``.

    The request is passed on as by ``POST /invoke``: method, headers, and the body as it comes. The
    response streams back as it comes. A client that leaves ends the call; a ``detached`` call is
    answered with 202 when its function starts, and outlives its client. Whatever becomes of the
    call, the handler's client gets a response, and nothing is raised but a cancellation of the
    handler. Returns when the response is complete.

    ``config`` as of `invoke_app`. ``metrics`` and ``bodies`` (default: shared by all uses of this
    function, and shown nowhere) are given to share them with an `invoke_app`.
    """
    check("respond", agent=(agent, CallAgent), app=(app, App), fn=(fn, Fn))
    if scope["type"] != "http":
        raise HostlerError(f"respond: takes an HTTP request, not {scope['type']!r}")
    default_metrics, default_bodies = _default_front()
    invoker = Invoker(
        agent, config or NodeConfig(), metrics or default_metrics, bodies or default_bodies
    )
    path = CallPath.of(GivenEntry(app, fn, detached=detached), Head.of(scope))
    await invoker.run(path, scope, receive, send)


def _bad_target(scope: Scope) -> APIError | None:
    """A path that is no text: its percent escapes are broken, or hide a NUL."""
    raw = scope.get("raw_path") or b""
    if b"%" not in raw:
        return None
    if _BROKEN_ESCAPE.search(raw) or b"%00" in raw:
        return APIError(400, "Invalid URL escape in the path")
    return None


@attrs.frozen(eq=False)
class CallRoutes:
    """``/invoke`` and, with ``triggers``, ``/t``. Paths are URL-decoded."""

    invoker: Invoker
    functions: FunctionSource
    triggers: TriggerSource | None = None

    def way(self, scope: Scope) -> CallPath | None:
        """How requests with this head get to their function; ``None`` if they call none."""
        entry = self._entry(scope["path"], scope["method"])
        return CallPath.of(entry, Head.of(scope)) if entry else None

    def is_invoke(self, path: str) -> bool:
        fn_id = path.removeprefix(INVOKE_PATH)
        return path.startswith(INVOKE_PATH) and bool(fn_id) and "/" not in fn_id

    def _entry(self, path: str, method: str) -> CallRoute | None:
        """What the request enters by; ``None`` if there is no such path, or not with ``method``.

        A trigger's source is all that follows the app's name, with its leading slash, and is not
        changed: ``/t/app/a/`` and ``/t/app//a`` are other sources than ``/a``.
        """
        if method == "POST" and self.is_invoke(path):
            return InvokeEntry(self.functions, path.removeprefix(INVOKE_PATH))
        if self.triggers is not None and path.startswith(TRIGGER_PATH):
            app_name, _, rest = path.removeprefix(TRIGGER_PATH).partition("/")
            if app_name:
                return TriggerEntry(self.triggers, app_name, "/" + rest, method)
        return None
