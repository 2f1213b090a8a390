"""The page in a real browser, before real nodes."""

from __future__ import annotations

import math
import os
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

import httpx
import pytest
import trio

from hostler.functions import load_functions
from tests.cli._process import END_SECONDS, NodeProcess, open_node
from tests.functions.build import fnt_path
from tests.support.ids import fn_by_name
from tests.support.ports import free_port

from ._browser import Browser, contrast, open_browser

PORTRAIT = 760
"""Pixels of the page from above, of the picture in the documentation."""
SIZES = {"desktop": (1200, 800), "phone": (375, 700)}


@pytest.fixture
def functions(tmp_path: Path) -> Path:
    """What the page shows of their containers stays, however long a browser takes to look at it."""
    path = tmp_path / "functions.yaml"
    image = fnt_path()
    path.write_text(
        "apps:\n- name: shop\n  config: {SECRET: hunter2}\n  fns:\n"
        f"  - {{name: checkout, image: '{image}', memory: 32, idle_timeout: 3600}}\n"
        f"  - {{name: search, image: '{image}', memory: 32, idle_timeout: 3600}}\n"
        f"  - {{name: never-called, image: '{image}'}}\n"
        "- name: reports\n  fns:\n"
        "  - {name: broken, image: /none/such}\n"
    )
    return path


def path_of(functions: Path, app: str, name: str) -> str:
    return f"/invoke/{fn_by_name(load_functions(functions), app, name).id}"


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
    assert len(pairs) > 10
    for text, ink, ground in pairs:
        colours = [tuple(map(float, re.findall(r"[\d.]+", colour))) for colour in (ink, ground)]
        assert contrast(*colours) >= 4.5, f"{text!r}: {ink} on {ground}"


async def call_some(node: NodeProcess, functions: Path) -> None:
    async with httpx.AsyncClient(base_url=node.url, timeout=60) as client:

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
        assert "Calls/s" in figures
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
        first = "document.querySelector('details').dataset.key"
        before = await browser.ask(first)
        async with httpx.AsyncClient(base_url=node.url, timeout=60) as client:
            await client.post(path_of(functions, "shop", "search"), content=b"x")
        await browser.wait(f"{first} !== {before!r}")
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


async def test_a_container_is_shown_at_work_while_its_function_runs(tmp_path: Path) -> None:
    """And the page has its portrait taken, for the documentation."""
    names, programs = ("checkout", "search", "stock"), tmp_path / "bin"
    programs.mkdir()
    for name in names:  # so that nothing of this machine is in the picture
        (programs / name).symlink_to(fnt_path())
    functions = tmp_path / "functions.yaml"
    stays = "memory: 64, timeout: 120, idle_timeout: 3600"
    fns = "".join(f"  - {{name: {name}, image: {name}, {stays}}}\n" for name in names)
    functions.write_text(f"apps:\n- name: shop\n  fns:\n{fns}")
    env = {"FN_FREEZE_IDLE_MSECS": "600000", "PATH": f"{programs}:{os.environ['PATH']}"}
    async with (
        open_node("serve", "--driver", "process", "--functions", str(functions),
                  "--bind", "127.0.0.1:0", env=env) as node,
        open_browser(tmp_path) as browser,
        httpx.AsyncClient(base_url=node.url, timeout=60) as client,
    ):  # fmt: skip
        await browser.look(width=1000, height=PORTRAIT, scheme="light")
        await browser.open(f"{node.url}/ui/")
        await browser.wait(f"{shown_states('checkout')} === 'none'")
        await call_for_the_portrait(client, functions)
        end = trio.Event()

        async def body() -> AsyncIterator[bytes]:
            yield b"begun"
            await end.wait()

        async def call() -> None:
            path = path_of(functions, "shop", "stock")
            assert (await client.post(path, content=body())).status_code == 200

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            await browser.wait(f"{shown_states('stock')} === '1 busy'")
            figures = "[...document.querySelectorAll('#figures div')].map((d) => d.innerText)"
            assert any(re.match(r"Running\s+1\b", text) for text in await browser.ask(figures))
            await browser.screenshot(screenshots(tmp_path) / "ui.png", PORTRAIT)
            end.set()
        await browser.wait(f"{shown_states('stock')} === '1 hot'")
        assert browser.problems == []


def shown_states(name: str) -> str:
    """JavaScript: what the page says of the containers of a function of the shop."""
    row = f"""[...document.querySelectorAll('#functions-rows tr')]
        .find((r) => r.querySelector('.name').textContent === 'shop / {name}')"""
    return f"[...({row})?.querySelectorAll('.states span') ?? []].map((s) => s.innerText).join()"


async def call_for_the_portrait(client: httpx.AsyncClient, functions: Path) -> None:
    """Long enough to look at, if somebody wants to keep it."""
    end = trio.current_time() + (45 if "HOSTLER_SCREENSHOTS" in os.environ else 0)
    number = 0
    while number < 3 or trio.current_time() < end:
        number += 1
        wave = 2 + math.sin(number / 60)
        for name, more in (("checkout", 10), ("search", 2)):
            path = path_of(functions, "shop", name)
            do = "crash" if number % 150 == 149 else f"sleep={more * wave + number % 5:.0f}"
            await client.post(path, headers={"Fnt-Do": do}, content=b"x")


async def test_nodes_without_calls_or_functions_say_so(functions: Path, tmp_path: Path) -> None:
    api = ("api", "--bind", "127.0.0.1:0")
    serve = ("serve", "--driver", "process", "--bind", "127.0.0.1:0")
    async with (
        open_browser(tmp_path) as browser,
        open_node(*api, cwd=tmp_path) as node,
        open_node(*serve, env={"FN_DB_URL": f"sqlite3://{tmp_path}/other.db"}) as full,
    ):
        await browser.open(f"{full.url}/ui/")
        await browser.wait("document.getElementById('functions-empty')?.hidden === false")
        shown = "document.getElementById('functions-empty').innerText"
        assert "hostler deploy DIR" in await browser.ask(shown)
        assert await browser.ask("!document.getElementById('calls-empty').hidden")
        await assert_readable(browser)
        await browser.screenshot(screenshots(tmp_path) / "empty.png")

        async with httpx.AsyncClient(base_url=node.url, timeout=60) as client:
            made = (await client.post("/v2/apps", json={"name": "shop"})).json()
            fn = {"app_id": made["id"], "name": "checkout", "image": "shop/checkout:1"}
            await client.post("/v2/fns", json=fn)
        await browser.open(f"{node.url}/ui/")
        names = "[...document.querySelectorAll('#functions .name')].map((n) => n.innerText).join()"
        await browser.wait(f"{names} === 'shop / checkout'")
        await browser.screenshot(screenshots(tmp_path) / "api.png")
        # It takes no calls: nothing is said of them, nor of containers.
        for part in ("figures", "plots", "calls-part", "runners-part"):
            assert await browser.ask(f"document.getElementById('{part}').hidden")
        table = "document.getElementById('functions-table').innerText"
        assert (await browser.ask(table)).split() == [
            "Function",
            "shop",
            "/",
            "checkout",
            fn["image"],
        ]
        assert browser.problems == []


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
        seen = "[...document.querySelectorAll('details')].filter((d) => d.offsetHeight).length"
        assert await browser.ask(seen) == 12
        await browser.ask("document.getElementById('more').click()")
        assert await browser.ask(seen) == 50
        assert await browser.ask("document.getElementById('more').ariaExpanded") == "true"
        await browser.ask("document.getElementById('more').click()")
        assert await browser.ask(seen) == 12
        assert await browser.ask("document.querySelectorAll('.bar .execution').length") > 20
        await take_all(browser, "lb", screenshots(tmp_path))
        assert_at_home(browser, node)

        await browser.open(f"{runner.url}/ui/")
        await browser.wait("document.querySelector('#functions-rows .states :is(.idle, .paused)')")
        assert_at_home_of = [url for url in browser.requests if url.startswith(runner.url)]
        assert assert_at_home_of
        await take_all(browser, "runner", screenshots(tmp_path))
        assert browser.problems == []


async def test_calls_that_no_runner_takes_are_shown_by_their_names(
    functions: Path, tmp_path: Path
) -> None:
    async with (
        open_node("lb", "--runners", "127.0.0.1:1", "--functions", str(functions),
                  "--bind", "127.0.0.1:0") as node,
        open_browser(tmp_path) as browser,
    ):  # fmt: skip
        await browser.open(f"{node.url}/ui/")
        await browser.wait("document.getElementById('link')?.dataset.state === 'live'")
        async with httpx.AsyncClient(base_url=node.url, timeout=60) as client:
            headers = {"Fn-Request-Timeout": "100ms"}
            for _ in range(2):
                path = path_of(functions, "shop", "checkout")
                assert (await client.post(path, headers=headers)).status_code == 503
            assert (await client.post("/invoke/none", headers=headers)).status_code == 404
        await browser.wait("document.querySelectorAll('details').length === 2")
        shown = "[...document.querySelectorAll('details')].every((d) => {}.test(d.innerText))"
        assert await browser.ask(shown.format("/refused/"))
        assert await browser.ask(shown.format("/checkout/"))
        rows = "[...document.querySelectorAll('#functions-rows tr')].map((r) => r.innerText)"
        await browser.wait(f"{rows}.some((row) => /checkout[^]*2\\s+2\\b/.test(row))")


async def test_a_page_without_its_node_waits_for_it(functions: Path, tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    arguments = ("serve", "--driver", "process", "--functions", str(functions), "--bind", address)
    async with open_browser(tmp_path) as browser:
        async with open_node(*arguments) as node:
            await browser.open(f"{node.url}/ui/")
            await browser.wait("document.getElementById('link')?.dataset.state === 'live'")
        await browser.wait("document.getElementById('link').dataset.state === 'lost'")
        async with open_node(*arguments):
            await browser.wait("document.getElementById('link').dataset.state === 'live'")
        assert await browser.ask("document.querySelectorAll('#functions-rows tr').length") == 4
