"""Debian's chromium without a screen, driven over its own protocol (Chrome DevTools Protocol)."""

from __future__ import annotations

import base64
import json
import math
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import attrs
import pytest
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, open_websocket_url

START_SECONDS = 60
WAIT_SECONDS = 60
OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--hide-scrollbars",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--remote-debugging-port=0",
)


@attrs.define(eq=False)
class Browser:
    """One page of a browser. ``problems`` are messages on its console and exceptions; ``requests``
    the addresses that it has asked for."""

    socket: WebSocketConnection
    session: str = ""
    problems: list[str] = attrs.Factory(list)
    requests: list[str] = attrs.Factory(list)
    _next: int = 0
    _answers: dict[int, trio.MemorySendChannel[Any]] = attrs.Factory(dict)

    async def command(self, method: str, **params: object) -> Any:
        self._next += 1
        send, receive = trio.open_memory_channel[Any](1)
        self._answers[self._next] = send
        message = {"id": self._next, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        await self.socket.send_message(json.dumps(message))
        with trio.fail_after(WAIT_SECONDS):
            answer = await receive.receive()
        assert "error" not in answer, (method, answer["error"])
        return answer["result"]

    async def run(self) -> None:
        try:
            while True:
                message = json.loads(await self.socket.get_message())
                if "id" in message:
                    self._answers.pop(message["id"]).send_nowait(message)
                else:
                    self._note(message["method"], message["params"])
        except ConnectionClosed:
            pass

    def _note(self, method: str, params: Any) -> None:
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.problems.append(json.dumps(params["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled":
            self.problems.append(json.dumps(params["args"]))
        elif method == "Log.entryAdded":
            self.problems.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")

    async def open(self, url: str) -> None:
        await self.command("Page.navigate", url=url)

    async def ask(self, expression: str) -> Any:
        """The value of a JavaScript expression, or of what it promises."""
        found = await self.command(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    async def wait(self, expression: str) -> None:
        """Until the expression is true."""
        with trio.move_on_after(WAIT_SECONDS):
            # (its state is in another process: there is no event to wait for)
            while not await self.ask(f"!!({expression})"):  # noqa: ASYNC110
                await trio.sleep(0.02)
            return
        text = await self.ask("document.body.innerText")
        raise AssertionError(f"{expression!r} did not become true; the page shows:\n{text}")

    async def press(self, key: str) -> None:
        code = {"Enter": 13, "Tab": 9}[key]
        text = "\r" if key == "Enter" else ""
        for kind in ("keyDown", "keyUp"):
            await self.command(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code=key,
                windowsVirtualKeyCode=code,
                text=text if kind == "keyDown" else "",
            )

    async def look(self, *, width: int, height: int, scheme: Literal["light", "dark"]) -> None:
        """Be a screen of that size, of a person who prefers that."""
        await self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        feature = {"name": "prefers-color-scheme", "value": scheme}
        await self.command("Emulation.setEmulatedMedia", features=[feature])

    async def screenshot(self, path: Path, height: float | None = None) -> None:
        """Of the whole page, however long, or of its uppermost ``height`` pixels."""
        size = (await self.command("Page.getLayoutMetrics"))["cssContentSize"]
        height = height or size["height"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": height, "scale": 1}
        shot = await self.command("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        await trio.Path(path).write_bytes(base64.b64decode(shot["data"]))


@asynccontextmanager
async def open_browser(directory: Path, *options: str) -> AsyncIterator[Browser]:
    """A new browser with a profile of its own below ``directory``. It ends with the block."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("there is no chromium; scripts/test installs it")
    profile = directory / "profile"
    # It leaves folders behind, and puts a socket into one, so that their path has to be short.
    scratch = tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True)
    homes = {"HOME": str(directory), "XDG_CONFIG_HOME": str(directory), "TMPDIR": scratch.name}
    process = await trio.lowlevel.open_process(
        [program, *OPTIONS, *options, f"--user-data-dir={profile}", "about:blank"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, **homes},
    )
    try:
        async with trio.open_nursery() as nursery:
            assert process.stderr is not None
            url = await _address(process.stderr)
            nursery.start_soon(_drain, process.stderr)
            async with open_websocket_url(url, max_message_size=2**26) as socket:
                browser = Browser(socket)
                nursery.start_soon(browser.run)
                await _attach(browser)
                yield browser
                browser.session = ""
                await browser.command("Browser.close")
            nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):
            with trio.move_on_after(5):
                await process.wait()
            if process.returncode is None:
                process.kill()
                await process.wait()
        scratch.cleanup()


async def _attach(browser: Browser) -> None:
    target = await browser.command("Target.createTarget", url="about:blank")
    attached = await browser.command(
        "Target.attachToTarget", targetId=target["targetId"], flatten=True
    )
    browser.session = attached["sessionId"]
    for domain in ("Page", "Runtime", "Network", "Log"):
        await browser.command(f"{domain}.enable")


async def _address(stderr: trio.abc.ReceiveStream) -> str:
    """Where it can be driven; it tells that when it can."""
    told = b""
    with trio.fail_after(START_SECONDS):
        while True:
            data = await stderr.receive_some()
            assert data, f"chromium has ended: {told.decode(errors='replace')}"
            told += data
            _, found, rest = told.partition(b"DevTools listening on ")
            if found and b"\n" in rest:
                return rest.partition(b"\n")[0].decode().strip()


async def _drain(stderr: trio.abc.ReceiveStream) -> None:
    while await stderr.receive_some():
        pass


def contrast(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """Contrast ratio of two sRGB colours (0 to 255), by WCAG 2.2."""

    def luminance(colour: tuple[float, ...]) -> float:
        parts = [part / 255 for part in colour[:3]]
        linear = [p / 12.92 if p <= 0.04045 else math.pow((p + 0.055) / 1.055, 2.4) for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)
