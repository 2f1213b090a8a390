"""A `CallAgent` that runs each call in a Python function of the test."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from hostler.abc import CallAgent, CallOverrider
from hostler.calls import CallOption, PendingCall, build_call
from hostler.functions import FunctionTable
from hostler.models import App, Fn, Trigger

Handler = Callable[[PendingCall], Awaitable[None]]

TABLE = FunctionTable.of(
    [App(id="app1", name="app", config={"A": "1"})],
    [Fn(id="fn1", name="echo", app_id="app1", image="echo:1")],
    [
        Trigger(id="t1", name="root", app_id="app1", fn_id="fn1", type="http", source="/"),
        Trigger(id="t2", name="deep", app_id="app1", fn_id="fn1", type="http", source="/a b/ü"),
        Trigger(id="t3", name="slash", app_id="app1", fn_id="fn1", type="http", source="/s/"),
    ],
)


async def echo(call: PendingCall) -> None:
    """Answer with the request's body, piece by piece."""
    await call.writer.start(200, [("Content-Type", "text/plain"), ("X-From", "function")])
    stream = call.body.open()
    while chunk := await stream.receive_some():
        await call.writer.write(bytes(chunk))


class ScriptedAgent(CallAgent):
    """Keeps what happened to each call in ``record``."""

    def __init__(self, handler: Handler = echo, overrider: CallOverrider | None = None) -> None:
        self.handler = handler
        self.overrider = overrider
        self.record: list[str] = []
        self.submitted: list[PendingCall] = []
        self.running = 0
        self.entered = trio.Event()
        self.left = trio.Event()

    def get_call(self, *options: CallOption) -> PendingCall:
        return build_call(options, self.overrider)

    async def submit(self, call: PendingCall) -> None:
        self.submitted.append(call)
        self.running += 1
        self.entered.set()
        try:
            await self.handler(call)
        except trio.Cancelled:
            self.record.append("cancelled")
            raise
        except Exception as error:
            self.record.append(type(error).__name__)
            raise
        else:
            self.record.append("finished")
        finally:
            self.running -= 1
            self.left.set()


async def hang(call: PendingCall) -> None:
    await trio.sleep_forever()
