"""Code of a provider's own in a node: `Extensions`, loaded by name and merged."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import attrs
import structlog
import trio

from .._arguments import told
from .._asgi.middleware import Middleware
from .._concurrency.nurseries import open_background
from ..abc import CallListener, CallOverrider, Driver, KeepAlive, Placer, RunnerPool
from ..calls import CallOption, check_overrider, name_of
from ..config import NO_API_URL, NO_RUNNERS, AgentConfig, PlacerConfig, PoolConfig
from ..datastore import Datastore
from ..errors import ConfigError, HostlerError
from ..functions import Catalog
from .settings import LBSettings, NodeKind, Settings

if TYPE_CHECKING:
    from ..agent import Agent
    from ..api import AppListener, FnListener, Route, TriggerListener
    from ..lb import LBAgent
    from ..runner import Hooks

log = structlog.get_logger(__name__)

_T = TypeVar("_T")

GROUP = "hostler.extensions"
"""Entry points of installed packages."""

PATIENCE = 10.0
"""Seconds after which a startup action that has not ended is told of, and for which what it has
opened may take to close."""


ALL: tuple[NodeKind, ...] = ("serve", "lb", "runner", "api")

USES: Mapping[str, tuple[NodeKind, ...]] = {
    "overrider": ("serve", "lb", "runner"),
    "call_options": ("serve", "lb", "runner"),
    "call_listeners": ("serve", "lb", "runner"),
    "api_listeners": ("serve", "api"),
    "root_middleware": ALL,
    "api_middleware": ("serve", "api"),
    "endpoints": ALL,
    "driver": ("serve", "runner"),
    "keep_alive": ("serve", "runner"),
    "placer": ("lb",),
    "pool": ("lb",),
    "functions": ("serve", "lb", "api"),
    "hooks": ("runner",),
    "startup": ALL,
}
"""The kinds of nodes that have use for each field of `Extensions`."""


@attrs.frozen(kw_only=True)
class Extensions:
    """What a provider adds to a node. Everything is optional.

    What is opened and closed is given as a callable that returns an async context manager: each
    node opens its own. Raises `ConfigError` for what a field does not take. A node refuses what it
    has no use for: the kinds of nodes stand behind each field.
    """

    overrider: CallOverrider | None = None
    """Looks at each call, changes it or refuses it, and sets its extensions. (serve, lb, runner)"""
    call_options: Iterable[CallOption] = ()
    """Applied to each call after the caller's, before the overrider. (serve, lb, runner)"""
    call_listeners: Iterable[CallListener] = ()
    """Told of the begin and the end of each call. (serve, lb, runner)"""
    api_listeners: Iterable[AppListener | FnListener | TriggerListener] = ()
    """Asked and told about each operation on apps, functions and triggers. (serve, api)"""
    root_middleware: Iterable[Middleware] = ()
    """ASGI middleware around all that the node serves over HTTP, behind its access control, the
    first one outermost. (all)"""
    api_middleware: Iterable[Middleware] = ()
    """ASGI middleware around ``/v2``. (serve, api)"""
    endpoints: Iterable[Route] = ()
    """Further routes, below ``/v2`` or elsewhere. (all)"""
    driver: Callable[[AgentConfig], AbstractAsyncContextManager[Driver]] | None = None
    """Opens the driver; what ``--driver`` names. (serve, runner)"""
    keep_alive: Callable[[AgentConfig], KeepAlive] | None = None
    """Makes the keep-alive policy; what ``--keep-alive`` names. (serve, runner)"""
    placer: Callable[[PlacerConfig], Placer] | None = None
    """Makes the placer; what ``--placer`` names. (lb)"""
    pool: Callable[[PoolConfig], AbstractAsyncContextManager[RunnerPool]] | None = None
    """Opens the runner pool, in the place of one over the runners that the settings name. (lb)"""
    functions: Callable[[Settings], AbstractAsyncContextManager[Catalog | Datastore]] | None = None
    """Opens what knows the functions: a `Datastore`, whose look-ups are cached and which has an API
    (serve, api), or a `Catalog`, which is asked for each call. (serve, lb; api takes a
    `Datastore`)"""
    hooks: Hooks | None = None
    """Health checker, log streamer, handler of configurations; what ``--hooks`` names. (runner)"""
    startup: Iterable[Startup] = ()
    """Called in order before the node takes calls. (all)"""

    def __attrs_post_init__(self) -> None:
        for field in attrs.fields(Extensions):
            value = getattr(self, field.name)
            if field.default == ():
                object.__setattr__(self, field.name, _tuple_of(field.name, value))
            elif value is not None and field.name != "hooks" and not callable(value):
                raise ConfigError(
                    f"{field.name}: takes a callable, not a {type(value).__name__}"
                    + (_IF_OPEN if isinstance(value, Driver | RunnerPool) else "")
                )
        check_overrider(self.overrider, "overrider")
        for listener in self.call_listeners:
            if not isinstance(listener, CallListener):
                raise ConfigError(f"call_listeners: takes CallListeners, not {told(listener)}")
        if self.api_listeners:
            from ..api.listeners import Listener

            for each in self.api_listeners:
                if not isinstance(each, Listener):
                    raise ConfigError(
                        f"api_listeners: takes AppListeners, FnListeners and TriggerListeners, not "
                        f"{told(each)}"
                    )
        if self.endpoints:
            from ..api.routes import Route

            for endpoint in self.endpoints:
                if not isinstance(endpoint, Route):
                    raise ConfigError(f"endpoints: takes Routes, not {told(endpoint)}")


@attrs.define(kw_only=True, eq=False)
class RunningNode:
    """A node that is open: its addresses, and the parts that a program may use."""

    kind: str
    http: Sequence[str] = ()
    """``host:port`` of each HTTP listener."""
    grpc: str = ""
    """``host:port`` for load balancers, of a runner."""
    agent: Agent | LBAgent | None = None
    """Runs the calls. ``None`` on an API node."""
    pool: RunnerPool | None = None
    """The runners, of a load balancer."""
    functions: Datastore | Catalog | None = None
    """Where the node looks functions up: a `Datastore` if it has an API. ``None`` on a runner."""
    told: Mapping[str, object] = attrs.field(factory=dict[str, object])
    """What the ready line says beside the addresses."""

    @property
    def line(self) -> Mapping[str, object]:
        """What the node tells when it takes calls: its kind (``node``) and its addresses."""
        addresses: dict[str, object] = {"http": self.http} if self.http else {}
        if self.grpc:
            addresses["grpc"] = self.grpc
        return {"node": self.kind, **addresses, **self.told}


Startup = Callable[[RunningNode], Awaitable[None] | AbstractAsyncContextManager[Any]]
"""Called before the node takes calls, with the node. It is awaited if it is an async function; an
async context manager that it returns is entered, and left when the last call has ended. If it
raises, the node does not open: `ConfigError` names the action. A shutdown meanwhile cancels it."""

_IF_OPEN = "; for one that is open already: lambda config: contextlib.nullcontext(it)"


def _tuple_of(name: str, value: object) -> tuple[Any, ...]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise ConfigError(f"{name}: takes a list, not {told(value)}")
    found = tuple(value)
    for each in found:
        if name not in ("endpoints", "call_listeners", "api_listeners") and not callable(each):
            raise ConfigError(f"{name}: takes callables, not {told(each)}")
    return found


@attrs.frozen
class Factory(Generic[_T]):
    """What makes a part of a node. ``label`` is who gave it, for errors."""

    label: str
    make: Callable[..., _T]

    def __call__(self, *args: object) -> _T:
        """What it makes of ``args``. Raises `ConfigError` that says where it failed."""
        try:
            return self.make(*args)
        except ConfigError as error:
            raise ConfigError(f"{self.label}: {error}") from error
        except HostlerError:  # says what is wrong
            raise
        except (Exception, SystemExit) as error:
            raise _failure(self.label, error) from error


def _failure(label: str, error: BaseException) -> ConfigError:
    """What a provider's code raised, and where. The traceback is logged at debug."""
    log.debug("extension failed", extension=label, exc_info=error)
    text = f"{label}: {type(error).__name__}: {error}"
    if inside := traceback.extract_tb(error.__traceback__)[1:]:
        text += f" ({inside[-1].filename}, line {inside[-1].lineno})"
    return ConfigError(text)


def wrong(factory: Callable[..., Any], what: str, made: object) -> ConfigError:
    """What it has made is no ``what``."""
    return ConfigError(f"{_label(factory)}: must return a {what}, not a {type(made).__name__}")


@asynccontextmanager
async def opened_part(
    factory: Callable[..., AbstractAsyncContextManager[Any]], kind: type[Any], *args: object
) -> AsyncIterator[Any]:
    """What the async context manager yields that ``factory`` makes of ``args``. Raises
    `ConfigError` if that is no ``kind`` or fails; what says itself what is wrong, as it is."""
    manager = factory(*args)
    if not isinstance(manager, AbstractAsyncContextManager):
        raise ConfigError(
            f"{_label(factory)}: must return an async context manager that yields a "
            f"{kind.__name__}, not a {type(manager).__name__}"
        )
    async with AsyncExitStack() as stack:
        try:
            part = await stack.enter_async_context(manager)
        except (HostlerError, OSError, ExceptionGroup):
            raise
        except Exception as error:
            raise _failure(_label(factory), error) from error
        if kind is not object and not isinstance(part, kind):
            made = type(part).__name__
            raise ConfigError(f"{_label(factory)}: must yield a {kind.__name__}, not a {made}")
        yield part


def _label(factory: Callable[..., Any]) -> str:
    return factory.label if isinstance(factory, Factory) else name_of(factory)


def load_extensions(settings: Settings, given: Extensions | None = None) -> Extensions:
    """The extensions that ``settings`` name, then those that are ``given``, as one.

    Their callables are `Factory` objects then. Raises `ConfigError`, which names the option or the
    extension, for what can't be imported, what this kind of node has no use for, and a single thing
    that two of them have.
    """
    parts = [
        (f"--extensions {name!r}", _named(settings, name)) for name in settings.extension_names
    ]
    parts += [(label, Extensions(**{field: value})) for label, field, value in _short(settings)]
    if given is not None:
        if not isinstance(given, Extensions):
            raise ConfigError(f"extensions: takes Extensions, not {told(given)}")
        parts.append(("extensions", given))
    merged: dict[str, Any] = {}
    givers: dict[str, str] = {}
    for label, part in parts:
        for field in attrs.fields(Extensions):
            value = getattr(part, field.name)
            if value is None or value == ():
                continue
            if settings.kind not in USES[field.name]:
                raise ConfigError(
                    f"{label}: hostler {settings.kind} has no use for {field.name}, "
                    f"only {', '.join(USES[field.name])}"
                )
            if field.default == ():
                merged[field.name] = (*merged.get(field.name, ()), *value)
                continue
            if field.name in merged:
                raise ConfigError(f"{field.name}: given by {givers[field.name]} and by {label}")
            givers[field.name] = label
            if field.name in _FACTORIES and not isinstance(value, Factory):
                value = Factory(f"{label}: {field.name}", value)
            merged[field.name] = value
    return Extensions(**merged)


_FACTORIES = ("driver", "keep_alive", "placer", "pool", "functions")


def check_lb(settings: LBSettings, extensions: Extensions) -> None:
    """Raises `ConfigError` for a load balancer without functions or runners."""
    # Fn's texts; programs that deploy may look for them.
    if not (settings.functions or extensions.functions or settings.node.runner_api_url):
        raise ConfigError(f"{NO_API_URL} (set it, --api-url or --functions)")
    if not (settings.node.runner_addresses or extensions.pool):
        raise ConfigError(f"{NO_RUNNERS} (or --runners)")


def _named(settings: Settings, name: str) -> Extensions:
    """What an option ``--extensions`` names."""
    label = f"--extensions {name!r}"
    if ":" in name:
        found = load_object(name, "--extensions")
    else:
        group = entry_points(group=GROUP)
        if name not in group.names:
            known = ", ".join(sorted(group.names)) or "none"
            raise ConfigError(
                f"{label}: takes module:attribute, or the name of an entry point in the group "
                f"{GROUP}; installed: {known}"
            )
        try:
            found = group[name].load()
        except (Exception, SystemExit) as error:
            raise ConfigError(f"{label}: {type(error).__name__}: {error}") from error
    if callable(found):
        found = Factory(label, found)(settings)
    if isinstance(found, Coroutine):
        found.close()
    if not isinstance(found, Extensions):
        raise ConfigError(
            f"{label}: has to be Extensions, or a callable of the settings that returns them, "
            f"not a {type(found).__name__}"
        )
    return found


def _short(settings: Settings) -> Iterable[tuple[str, str, Any]]:
    """Label, field and value of what the options for one thing name."""
    options = settings.named_parts()
    if name := options.pop("--overrider", ""):
        overrider = load_callable(name, "--overrider")
        check_overrider(overrider, f"--overrider {name!r}")
        yield f"--overrider {name!r}", "overrider", overrider
    if name := options.pop("--hooks", ""):
        from ..runner import Hooks

        hooks = Factory(f"--hooks {name!r}", load_callable(name, "--hooks"))
        made = hooks()
        if not isinstance(made, Hooks):
            made_type = type(made).__name__
            raise ConfigError(f"{hooks.label}: must return hostler.runner.Hooks, not a {made_type}")
        yield hooks.label, "hooks", made
    for option, name in options.items():
        if ":" in name:
            label = f"{option} {name!r}"
            field = option.removeprefix("--").replace("-", "_")
            yield label, field, Factory(label, load_callable(name, option))


def load_object(name: str, option: str) -> Any:
    """Import ``module:attribute`` (dots reach deeper), also from the working directory.

    Raises `ConfigError`, which names ``option``.
    """
    module_name, _, path = name.partition(":")
    if not module_name or not path:
        raise ConfigError(f"{option} {name!r}: takes module:attribute")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module_name)
        for attribute in path.split("."):
            found = getattr(found, attribute)
    except (Exception, SystemExit) as error:
        # Whatever the foreign module raises while it is imported is its own trouble.
        raise ConfigError(f"{option} {name!r}: {type(error).__name__}: {error}") from error
    return found


def load_callable(name: str, option: str) -> Callable[..., Any]:
    """As `load_object`, for something that can be called."""
    found = load_object(name, option)
    if not callable(found):
        raise ConfigError(f"{option} {name!r}: {type(found).__name__} can't be called")
    result: Callable[..., Any] = found
    return result


@asynccontextmanager
async def open_startup(
    actions: Iterable[Startup], shutdown: trio.Event
) -> AsyncIterator[StartupActions]:
    """To be opened before the agent of the node: what the actions open is needed until the last
    call has ended. The end of the block closes it in reverse order, within `PATIENCE`."""
    async with open_background() as nursery:
        startup = StartupActions(tuple(actions), shutdown, nursery)
        yield startup
        with trio.move_on_after(PATIENCE):
            await startup.close()
        nursery.cancel_scope.cancel()


@attrs.define(eq=False)
class StartupActions:
    """The startup actions of one node, and what they hold open."""

    _actions: Sequence[Startup]
    _shutdown: trio.Event
    _nursery: trio.Nursery
    _held: list[tuple[trio.Event, trio.Event]] = attrs.field(factory=list, init=False)
    """Of each context manager that is held open: set to close it, and set once it is closed."""

    async def run(self, node: RunningNode) -> None:
        """Run the actions one after the other. The shutdown cancels the action under way and leaves
        out the others. Raises `ConfigError` that names the action and says what it raised."""
        for action in self._actions:
            if self._shutdown.is_set():
                return
            name = name_of(action)
            try:
                opening = self._opening(action(node), name)
                async with open_background() as nursery:
                    nursery.start_soon(_watch, name, self._shutdown, nursery.cancel_scope)
                    await opening
                    nursery.cancel_scope.cancel()
            except HostlerError:
                raise
            except Exception as error:
                raise _failure(f"startup action {name}", error) from error

    def _opening(self, opening: object, name: str) -> Awaitable[Any]:
        """What the action returned, to be awaited. A context manager is held open in a task of its
        own: its block lasts longer than the scope that waits for its begin."""
        if isinstance(opening, Awaitable):
            return opening
        if isinstance(opening, AbstractAsyncContextManager):
            return self._nursery.start(self._hold, opening)
        raise ConfigError(
            f"startup action {name}: has to be an async function or to return an async context "
            f"manager; it returned a {type(opening).__name__}"
        )

    async def _hold(
        self, manager: AbstractAsyncContextManager[Any], *, task_status: trio.TaskStatus[None]
    ) -> None:
        closing, closed = trio.Event(), trio.Event()
        try:
            async with manager:
                self._held.append((closing, closed))
                task_status.started()
                await closing.wait()
        finally:
            closed.set()

    async def close(self) -> None:
        """Close what the actions have opened, the last first."""
        for closing, closed in reversed(self._held):
            closing.set()
            await closed.wait()


async def _watch(name: str, shutdown: trio.Event, scope: trio.CancelScope) -> None:
    with trio.move_on_after(PATIENCE):
        await shutdown.wait()
    if not shutdown.is_set():
        log.warning("startup action takes long", action=name, seconds=PATIENCE)
        await shutdown.wait()
    log.warning("startup action is cancelled", action=name)
    scope.cancel()
