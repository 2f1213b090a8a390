"""What a contract suite needs to know of the driver that it checks, and the small tools it uses.

The suites need no test framework: they raise `ContractBroken`, an ``AssertionError``.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Any, TypeVar

import attrs
import trio

from ..abc import ContainerTask, Cookie, Driver, RunningContainer
from .function import FunctionAnswer, ReadyWatch, call_function

_CLOSE_LIMIT = 60.0
"""Seconds that a removal may take."""
_QUIET = 0.3
"""Seconds without an answer after which a function counts as silent."""


class ContractBroken(AssertionError):
    """The checked object breaks its contract; the text says which part."""


def require(condition: object, text: str) -> None:
    """Raise `ContractBroken` with ``text`` unless ``condition``."""
    if not condition:
        raise ContractBroken(text)


@contextmanager
def must_raise(kind: type[Exception], text: str) -> Iterator[None]:
    """The block has to raise ``kind``."""
    try:
        yield
    except kind:
        return
    raise ContractBroken(text)


@attrs.frozen(kw_only=True)
class DriverSubject:
    """A driver to check.

    ``image`` is a function that understands, in the request header ``Fnt-Do``: nothing (echo the
    body), ``env`` (a JSON object whose ``env`` is its environment), ``exit=N``, ``crash`` (abort,
    signal 6), ``hang`` (never answer), ``out=text`` and ``err=text`` (a line on stdout or stderr);
    and in the environment variable ``FNT_START``: ``exit=N``, ``crash`` and ``hang`` (never offer
    the socket). Several are joined by ``;``. `add_sim_function` gives a sim driver one.
    """

    driver: Driver
    image: str
    missing_image: str
    """An image that can't be had."""
    new_folder: Callable[[], tuple[str, str]]
    """Makes an empty socket directory: its path here and on the engine's host."""
    exists: Callable[[str], Awaitable[bool]]
    """Whether there is anything left of a container of this name."""

    def task(self, *, image: str | None = None, **fields: Any) -> ContainerTask:
        """A task of a new container with an empty socket directory. ``image`` is the subject's by
        default; ``fields`` are of `ContainerTask`, of which ``env`` is added to what a function
        needs. Synchronous."""
        agent_path, docker_path = self.new_folder()
        return ContainerTask(
            id=f"contract-{secrets.token_hex(8)}",  # others may check on the same engine
            image=self.image if image is None else image,
            iofs_agent_path=agent_path,
            iofs_docker_path=docker_path,
            env={
                "FN_FORMAT": "http-stream",
                "FN_LISTENER": "unix:/tmp/iofs/lsnr.sock",
                **fields.pop("env", {}),
            },
            **fields,
        )

    @asynccontextmanager
    async def cookie(self, task: ContainerTask) -> AsyncIterator[Cookie]:
        """A cookie that is closed at the end, after which nothing may be left."""
        cookie = await self.driver.create_cookie(task)
        try:
            yield cookie
        finally:
            await self.close(cookie, task)

    async def close(self, cookie: Cookie, task: ContainerTask) -> None:
        """Close the cookie, twice as it has to allow, and check that nothing is left. Shielded.
        Raises `trio.TooSlowError` after 60 s, and `ContractBroken` for what is left."""
        with trio.fail_after(_CLOSE_LIMIT) as scope:
            scope.shield = True
            await cookie.aclose()
            await cookie.aclose()
            require(not await self.exists(task.id), "aclose leaves something of the container")

    @asynccontextmanager
    async def started(self, task: ContainerTask) -> AsyncIterator[ReadyFunction]:
        """A running function whose socket is ready."""
        async with self.cookie(task) as cookie:
            await prepare(cookie)
            with ReadyWatch(task.iofs_agent_path) as watch:
                container = await cookie.run()
                yield ReadyFunction(cookie, container, await watch.ready())


@attrs.frozen
class ReadyFunction:
    """A function that is ready, and the path of its socket."""

    cookie: Cookie
    container: RunningContainer
    path: str

    async def ask(self, do: str = "", body: bytes = b"") -> FunctionAnswer:
        return await call_function(self.path, body, [("Fnt-Do", do)] if do else [])

    async def env(self) -> dict[str, str]:
        env: dict[str, str] = json.loads((await self.ask("env")).body)["env"]
        return env

    async def is_silent(self, do: str = "") -> bool:
        """Whether a request gets no answer for a while."""
        with trio.move_on_after(_QUIET) as scope:
            await self.ask(do, b"anybody there?")
        return scope.cancelled_caught


async def prepare(cookie: Cookie) -> None:
    """Everything up to the created container."""
    if await cookie.validate_image():
        await cookie.pull_image()
        require(not await cookie.validate_image(), "an image that was pulled still needs a pull")
    await cookie.create_container()


OpenSubject = Callable[[], AbstractAsyncContextManager[DriverSubject]]

T = TypeVar("T")
Check = Callable[[T], Awaitable[None]]
"""One part of a contract, as a function of what is checked."""


async def check_each(
    checks: Sequence[Check[T]], open_subject: Callable[[], AbstractAsyncContextManager[T]]
) -> None:
    """Run each of ``checks`` on a subject of its own. Raises their failures together in an
    ``ExceptionGroup``, each with a note of its check's name."""
    failures: list[Exception] = []
    for check in checks:
        try:
            async with open_subject() as subject:
                await check(subject)
        except Exception as error:  # noqa: BLE001  (reported below)
            error.add_note(f"in {getattr(check, '__name__', check)}")
            failures.append(error)
    if failures:
        raise ExceptionGroup(f"{len(failures)} of {len(checks)} checks failed", failures)
