"""The contract of `hostler.abc.Driver`, as checks that every driver has to pass."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable, Mapping

import attrs
import trio
import trio.testing

from ..abc import ContainerTask, Cookie, Driver
from ..errors import APIError, FunctionError
from ..models import Call
from .contracts import Check, DriverSubject, OpenSubject, check_each, must_raise, prepare, require
from .function import ScriptBroke

_CONTAINERS = 8
_TURNS = (0, 1, 2, 5, 13)
"""After how many turns of the scheduler a step is cancelled."""
_DELAYS = (0.001, 0.01, 0.05)
"""After how many seconds."""
_CRASH = ("crash", 128 + signal.SIGABRT, "error")


async def life(subject: DriverSubject) -> None:
    """A container answers requests, also several one after the other, and is gone in the end."""
    task = subject.task()
    async with subject.started(task) as function:
        require(await subject.exists(task.id), "`exists` doesn't know the running container")
        for body in (b"one", b"", b"x" * 100_000):
            answer = await function.ask("", body)
            require((answer.status, answer.body) == (200, body), "the function's answer is wrong")
    result = await function.container.wait()
    require(result.status == "error", f"a removed container ended with {result}")


async def environment(subject: DriverSubject) -> None:
    """The task's variables reach the function, then the options', and neither is mixed up."""
    env = {"CONTRACT_A": "a=b c", "CONTRACT_B": "task"}
    task = subject.task(env=env)
    before = dict(task.env)
    async with subject.cookie(task) as cookie:
        require(isinstance(cookie.options.env, dict), "options.env is not a dict")
        cookie.options.env["CONTRACT_B"] = "options"
        require(task.env == before, "changing the options changes the task")
    task = subject.task(env=env)
    async with subject.started(task) as function:
        seen = await function.env()
        require(seen["CONTRACT_A"] == "a=b c", "a variable of the task is missing or changed")
        require(seen["FN_FORMAT"] == "http-stream", "FN_FORMAT is missing or changed")
        require(seen["FN_LISTENER"].endswith("/lsnr.sock"), "FN_LISTENER is missing or wrong")


async def order(subject: DriverSubject) -> None:
    """Steps out of order are errors, not containers."""
    async with subject.cookie(subject.task()) as cookie:
        with must_raise(Exception, "created a container of an image that was not validated"):
            await cookie.create_container()
    async with subject.cookie(subject.task()) as cookie:
        await cookie.validate_image()
        with must_raise(Exception, "ran a container that was not created"):
            await cookie.run()
        with must_raise(Exception, "froze a container that does not run"):
            await cookie.freeze()


async def missing_image(subject: DriverSubject) -> None:
    """An image that can't be had fails to pull, blamed on the author of the function."""
    async with subject.cookie(subject.task(image=subject.missing_image)) as cookie:
        require(await cookie.validate_image(), "a missing image needs no pull")
        with must_raise(FunctionError, "pulled a missing image"):
            await cookie.pull_image()


async def exit_codes(subject: DriverSubject) -> None:
    """The function's exit code arrives, at every waiter, once and again; for a signal, 128 and
    its number."""
    for what, code, status in (("exit=0", 0, "success"), ("exit=7", 7, "error"), _CRASH):
        async with subject.started(subject.task()) as function:
            results = []

            async def wait() -> None:
                results.append(await function.container.wait())  # noqa: B023  (ends in here)

            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(wait)
                with must_raise(ScriptBroke, "a function that exits has answered"):
                    await function.ask(what)
            results.append(await function.container.wait())
            for result in results:
                require((result.status, result.exit_code) == (status, code), f"{code}: {result}")
                require(isinstance(result.error, APIError) == (code != 0), f"{code}: {result}")
            with must_raise(Exception, "froze a container that has ended"):
                await function.cookie.freeze()


async def exit_at_start(subject: DriverSubject) -> None:
    """A container that ends before it is ready is noticed like any other, and how it ended."""
    for what, code, status in (("exit=0", 0, "success"), ("exit=3", 3, "error"), _CRASH):
        async with subject.cookie(subject.task(env={"FNT_START": what})) as cookie:
            await prepare(cookie)
            result = await (await cookie.run()).wait()
            require((result.status, result.exit_code) == (status, code), f"{what}: {result}")
            require(result.reason, f"{what}: nobody is told why")


async def cancelled_wait(subject: DriverSubject) -> None:
    """Waiting can be cancelled; the container goes on."""
    async with subject.started(subject.task()) as function:
        with trio.CancelScope() as scope:
            scope.cancel()
            await function.container.wait()
        require(scope.cancelled_caught, "wait is no checkpoint")
        require((await function.ask("", b"x")).body == b"x", "the container has not gone on")


async def freezing(subject: DriverSubject) -> None:
    """A frozen function is silent; after unfreeze returns it answers; frozen ones close."""
    async with subject.started(subject.task()) as function:
        for _ in range(2):
            await function.cookie.freeze()
            require(await function.is_silent(), "a frozen function has answered")
            await function.cookie.unfreeze()
            answer = await function.ask("", b"awake")
            require(answer.body == b"awake", "a thawed function gives a wrong answer")
        await function.cookie.freeze()


async def closing_under_a_request(subject: DriverSubject) -> None:
    """Closing ends a function that hangs; its caller sees a broken connection."""
    broken = []
    async with trio.open_nursery() as nursery, subject.started(subject.task()) as function:

        async def ask() -> None:
            try:
                await function.ask("hang")
            except ScriptBroke as error:
                broken.append(error)

        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
    require(broken, "a request has survived its container")


async def closing_before_ready(subject: DriverSubject) -> None:
    """Closing ends a container that never becomes ready."""
    async with subject.cookie(subject.task(env={"FNT_START": "hang"})) as cookie:
        await prepare(cookie)
        await cookie.run()


async def closing_after_each_step(subject: DriverSubject) -> None:
    """A cookie can be closed after any number of steps."""
    for steps in range(5):
        async with subject.cookie(subject.task()) as cookie:
            for step in _steps_of(cookie)[:steps]:
                await step()


async def closing_after_cancellation(subject: DriverSubject) -> None:
    """Every step can be cancelled half-way, and aclose still removes everything."""
    for number in range(5):
        for moment in (*_TURNS, *_DELAYS):
            async with subject.cookie(subject.task()) as cookie:
                *before, step = _steps_of(cookie)[: number + 1]
                for earlier in before:
                    await earlier()
                with trio.move_on_after(60):
                    await _cancelled_after(moment, step)


def _steps_of(cookie: Cookie) -> list[Callable[[], Awaitable[object]]]:
    async def have_image() -> None:
        if await cookie.validate_image():
            await cookie.pull_image()
            await cookie.validate_image()

    return [
        have_image,
        cookie.create_container,
        cookie.run,
        cookie.freeze,
        cookie.unfreeze,
    ]


async def _cancelled_after(moment: float, step: Callable[[], Awaitable[object]]) -> None:
    """Cancel ``step`` after turns (int) or seconds (float), if it has not ended by then."""
    async with trio.open_nursery() as nursery:

        async def run() -> None:
            await step()
            nursery.cancel_scope.cancel()

        nursery.start_soon(run)
        if isinstance(moment, int):
            for _ in range(moment):
                await trio.lowlevel.checkpoint()
        else:
            await trio.sleep(moment)
        nursery.cancel_scope.cancel()


async def many(subject: DriverSubject) -> None:
    """Containers side by side don't get in each other's way."""

    async def one(number: int) -> None:
        async with subject.started(subject.task(env={"NUMBER": str(number)})) as function:
            require((await function.env())["NUMBER"] == str(number), "containers are mixed up")
            await function.cookie.freeze()
            await function.cookie.unfreeze()
            require((await function.ask("", b"x")).body == b"x", "no answer")

    async with trio.open_nursery() as nursery:
        for number in range(_CONTAINERS):
            nursery.start_soon(one, number)


async def output(subject: DriverSubject) -> None:
    """What the function prints arrives, with the right flag for stderr."""
    seen: dict[bool, bytes] = {False: b"", True: b""}
    changed = trio.Event()

    def collect(chunk: bytes, is_stderr: bool) -> None:
        nonlocal changed
        seen[is_stderr] += chunk
        changed.set()
        changed = trio.Event()

    async with subject.started(subject.task(on_output=collect)) as function:
        await function.ask("out=to-stdout;err=to-stderr")
        with trio.move_on_after(10) as scope:
            while b"to-stdout" not in seen[False] or b"to-stderr" not in seen[True]:
                await changed.wait()
        require(not scope.cancelled_caught, f"the function's output did not arrive: {seen}")


async def hooks(subject: DriverSubject) -> None:
    """The task's hooks are the agent's: the driver neither replaces nor calls them."""
    called = []

    async def hook(model: Call, extensions: Mapping[str, str]) -> None:
        called.append("call hook")

    async def close() -> None:
        called.append("close hook")

    task = subject.task(before_call=hook, after_call=hook, close=close)
    async with subject.started(task) as function:
        await function.ask()
    require(not called, f"the driver has called a {called}")
    same = task.before_call is hook and task.after_call is hook and task.close is close
    require(same, "the driver has replaced a hook")


async def slot_key_extension(subject: DriverSubject) -> None:
    """Without extensions nothing is added to a slot key, and the same adds the same."""
    driver = subject.driver
    require(driver.slot_key_extension({}) == "", "no extension, but a slot key extension")
    one, two = {"a": "1", "b": "2"}, {"b": "2", "a": "1"}
    same = driver.slot_key_extension(one) == driver.slot_key_extension(two)
    require(same, "the slot key extension depends on the order of the extensions")
    await trio.lowlevel.checkpoint()


class _Wrapper(Driver):
    """A custom driver as the documentation shows it."""

    def __init__(self, inner: Driver) -> None:
        self._inner = inner

    async def create_cookie(self, task: ContainerTask) -> Cookie:
        cookie = await self._inner.create_cookie(task)
        cookie.options.env["WRAPPED"] = task.extensions.get("who", "")
        return cookie

    def slot_key_extension(self, extensions: Mapping[str, str]) -> str:
        return self._inner.slot_key_extension(extensions) + extensions.get("who", "")


async def wrapping(subject: DriverSubject) -> None:
    """A wrapping driver changes the options of each container by its extensions."""
    wrapper = _Wrapper(subject.driver)
    require(wrapper.slot_key_extension({"who": "me"}).endswith("me"), "extension lost")
    wrapped = attrs.evolve(subject, driver=wrapper)
    async with wrapped.started(subject.task(extensions={"who": "me"})) as function:
        require((await function.env())["WRAPPED"] == "me", "the options' env has no effect")


DRIVER_CHECKS: tuple[Check[DriverSubject], ...] = (
    life,
    environment,
    order,
    missing_image,
    exit_codes,
    exit_at_start,
    cancelled_wait,
    freezing,
    closing_under_a_request,
    closing_before_ready,
    closing_after_each_step,
    closing_after_cancellation,
    many,
    output,
    hooks,
    slot_key_extension,
    wrapping,
)
"""Each takes a fresh `DriverSubject`, for a test framework that wants them one by one."""


async def check_driver(open_subject: OpenSubject) -> None:
    """Check a driver against the whole contract, each part on a fresh subject.

    Raises an ``ExceptionGroup`` of `ContractBroken` and whatever else was raised. Takes some
    seconds of real time with a real engine.
    """
    await check_each(DRIVER_CHECKS, open_subject)
