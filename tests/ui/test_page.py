"""The page in a real browser, before real nodes."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import Literal

import httpx
import pytest
import trio

from hostler.functions import load_functions
from tests.cli._process import END_SECONDS, NodeProcess, open_node
from tests.functions.build import fnt_path

from ._browser import Browser, contrast, open_browser

SIZES = {"desktop": (1200, 800), "phone": (375, 700)}


@pytest.fixture
def functions(tmp_path: Path) -> Path:
    path = tmp_path / "functions.yaml"
    image = fnt_path()
    path.write_text(
        "apps:\n- name: shop\n  config: {SECRET: hunter2}\n  fns:\n"
        f"  - {{name: checkout, image: '{image}', memory: 32}}\n"
        f"  - {{name: search, image: '{image}', memory: 32}}\n"
        f"  - {{name: never-called, image: '{image}'}}\n"
        "- name: reports\n  fns:\n"
        "  - {name: broken, image: /none/such}\n"
    )
    return path


def path_of(functions: Path, app: str, name: str) -> str:
    return f"/invoke/{load_functions(functions).by_name(app, name).id}"


def screenshots(tmp_path: Path) -> Path:
    path = Path(os.environ.get("HOSTLER_SCREENSHOTS", tmp_path / "screenshots"))
    path.mkdir(parents=True, exist_ok=True)
    return path


SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")


async def take_all(browser: Browser, name: str, directory: Path) -> None:
    """In all sizes and colours, none of which needs to scroll sideways or is hard to read."""
    for size, (width, height) in SIZES.items():
        for scheme in SCHEMES:
            await browser.look(width=width, height=height, scheme=scheme)
            await browser.ask("window.dispatchEvent(new Event('resize'))")
            scroll = await browser.ask("document.documentElement.scrollWidth")
            assert scroll <= width, f"{size}: {scroll} pixels wide"
            await assert_readable(browser)
            await browser.screenshot(directory / f"{name}-{size}-{scheme}.png")


async def assert_readable(browser: Browser) -> None:
    """All small text has the contrast that WCAG 2.2 AA asks for, 4.5, on its background."""
    pairs = await browser.ask("""
        [...document.querySelectorAll("main *, header *, footer *")]
          .filter((e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim())
                         && e.getClientRects().length)
          .map((e) => {
            let ground = e;
            while (ground && /, 0\\)$|transparent/.test(getComputedStyle(ground).backgroundColor))
              ground = ground.parentElement;
            const style = getComputedStyle(e);
            const ink = e instanceof SVGElement ? style.fill : style.color;
            return [e.textContent, ink, getComputedStyle(ground || document.body).backgroundColor];
          })""")
    assert len(pairs) > 20
    for text, ink, ground in pairs:
        colours = [tuple(map(float, re.findall(r"[\d.]+", colour))) for colour in (ink, ground)]
        assert contrast(*colours) >= 4.5, f"{text!r}: {ink} on {ground}"


async def call_some(node: NodeProcess, functions: Path) -> None:
    async with httpx.AsyncClient(base_url=node.url, timeout=20) as client:

        async def call(fn: str, do: str, app: str = "shop") -> None:
            await client.post(path_of(functions, app, fn), headers={"Fnt-Do": do}, content=b"x")

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(call, "checkout", "sleep=60")
            nursery.start_soon(call, "search", "sleep=250")
        for number in range(30):
            await call("checkout", f"sleep={number % 7 * 3}")
            await call("search", "sleep=2")
        await call("broken", "", "reports")
        await call("search", "close")


def assert_at_home(browser: Browser, node: NodeProcess) -> None:
    assert browser.requests
    strangers = [url for url in browser.requests if not url.startswith((node.url, "about:"))]
    assert not strangers


async def test_a_full_node(functions: Path, tmp_path: Path) -> None:
    async with (
        open_node("serve", "--driver", "process", "--functions", str(functions),
                  "--bind", "127.0.0.1:0") as node,
        open_browser(tmp_path) as browser,
    ):  # fmt: skip
        await browser.look(width=1200, height=800, scheme="light")
        await browser.open(f"{node.url}/ui")
        await browser.wait("document.getElementById('link')?.dataset.state === 'live'")
        rows = "[...document.querySelectorAll('#functions-rows tr')].map((r) => r.innerText)"
        assert len(await browser.ask(rows)) == 4
        assert await browser.ask("!document.getElementById('calls-empty').hidden")

        await call_some(node, functions)
        await browser.wait(f"{rows}.some((row) => /checkout[^]*33\\b/.test(row))")
        # they are paused soon after their last call
        await browser.wait(f"{rows}.some((row) => /checkout[^]*\\d (hot|paused)/.test(row))")
        await browser.wait("document.querySelectorAll('#rate .line').length > 0")
        figures = await browser.ask("document.getElementById('figures').innerText")
        assert "Calls per second" in figures
        assert "hunter2" not in await browser.ask("document.documentElement.outerHTML")

        # A failed call, opened by keyboard: what happened, and where its time went.
        await browser.wait("document.querySelector('summary .bad')")
        await browser.ask("document.querySelector('details:has(.bad) summary').focus()")
        await browser.press("Enter")
        await browser.wait("document.querySelector('details[open] .detail')")
        detail = await browser.ask("document.querySelector('details[open] .detail').innerText")
        assert "execution" in detail
        # It stays open, and keeps the focus, while the page changes beneath it.
        total = await browser.ask("document.getElementById('calls').childElementCount")
        async with httpx.AsyncClient(base_url=node.url) as client:
            await client.post(path_of(functions, "shop", "search"), content=b"x")
        first = "document.querySelector('details').dataset.key"
        await browser.wait(f"Number({first}) > 66")
        assert total <= await browser.ask("document.getElementById('calls').childElementCount")
        assert await browser.ask("document.activeElement.parentElement.open")

        await take_all(browser, "full", screenshots(tmp_path))
        assert browser.problems == []
        assert_at_home(browser, node)

        # A viewer does not hold up the end of the node, and is told of it.
        node.process.send_signal(signal.SIGTERM)
        with trio.fail_after(END_SECONDS):
            assert await node.process.wait() == 0
        await browser.wait("document.getElementById('link').dataset.state === 'lost'")
        await assert_readable(browser)


async def test_an_lb_and_a_runner(functions: Path, tmp_path: Path) -> None:
    async with (
        open_node("runner", "--driver", "process", "--bind", "127.0.0.1:0",
                  "--http-bind", "127.0.0.1:0") as runner,
        open_node("lb", "--runners", f"{runner.ready['grpc']},127.0.0.1:1",
                  "--functions", str(functions), "--bind", "127.0.0.1:0") as node,
        open_browser(tmp_path) as browser,
    ):  # fmt: skip
        await browser.look(width=1200, height=800, scheme="light")
        await browser.open(f"{node.url}/ui/")
        await browser.wait("document.querySelectorAll('#runners tr').length === 2")
        await call_some(node, functions)
        runners = "document.getElementById('runners').innerText"
        await browser.wait(f"/in use/.test({runners}) && /ejected: unreachable/.test({runners})")
        await browser.wait("document.querySelectorAll('details').length === 50")
        assert await browser.ask("document.querySelectorAll('.bar .execution').length") > 20
        await take_all(browser, "lb", screenshots(tmp_path))
        assert_at_home(browser, node)

        await browser.open(f"{runner.url}/ui/")
        await browser.wait("document.querySelector('#functions-rows .states :is(.idle, .paused)')")
        assert_at_home_of = [url for url in browser.requests if url.startswith(runner.url)]
        assert assert_at_home_of
        await take_all(browser, "runner", screenshots(tmp_path))
        assert browser.problems == []


async def test_a_page_without_its_node_waits_for_it(functions: Path, tmp_path: Path) -> None:
    arguments = ("serve", "--driver", "process", "--functions", str(functions))
    async with open_browser(tmp_path) as browser:
        async with open_node(*arguments, "--bind", "127.0.0.1:0") as node:
            address = node.ready["http"][0]
            await browser.open(f"{node.url}/ui/")
            await browser.wait("document.getElementById('link')?.dataset.state === 'live'")
        await browser.wait("document.getElementById('link').dataset.state === 'lost'")
        async with open_node(*arguments, "--bind", address):
            await browser.wait("document.getElementById('link').dataset.state === 'live'")
        assert await browser.ask("document.querySelectorAll('#functions-rows tr').length") == 4
