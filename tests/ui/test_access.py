"""Pages of others, and who logs in, in a real browser before real nodes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cli._process import NodeProcess, open_node
from tests.functions.build import fnt_path
from tests.support.ports import free_port

from ._browser import Browser, open_browser

TOKEN = "token-of-the-node-0123"
SERVE = ("serve", "--driver", "process", "--bind", "127.0.0.1:0")
# What an attacker's name server does after the page has been loaded.
REBOUND = "--host-resolver-rules=MAP evil.test 127.0.0.1"


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """What an attacker would have run."""
    path = tmp_path / "script"
    path.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    path.chmod(0o755)
    return path


async def page_at(browser: Browser, url: str) -> None:
    """A document of that origin, in which the attacker's scripts run."""
    await browser.open(url)
    await browser.wait(f"location.href === {url!r} && document.readyState === 'complete'")


async def fetched(browser: Browser, url: str, **options: Any) -> Any:
    """The status and the text of the answer; what went wrong if the page can't read them."""
    return await browser.ask(
        f"fetch({url!r}, {json.dumps(options)})"
        ".then(async (answer) => [answer.status, await answer.text()], (error) => String(error))"
    )


def port_of(node: NodeProcess) -> str:
    return node.url.rsplit(":", 1)[1]


def as_json(**document: object) -> dict[str, object]:
    return {
        "method": "POST",
        "headers": {"Content-Type": "application/json"},
        "body": json.dumps(document),
    }


async def apps(node: NodeProcess, **headers: str) -> list[str]:
    async with httpx.AsyncClient(base_url=node.url, timeout=60, headers=headers) as client:
        return [app["name"] for app in (await client.get("/v2/apps")).json()["items"]]


async def test_a_page_with_a_rebound_name_has_nothing_run(tmp_path: Path, script: Path) -> None:
    async with (
        open_node(*SERVE, cwd=tmp_path) as node,
        open_browser(tmp_path, REBOUND) as browser,
    ):
        await page_at(browser, f"http://evil.test:{port_of(node)}/version")
        status, text = await fetched(browser, "/v2/apps", **as_json(name="evil"))
        assert (status, "FN_ALLOWED_HOSTS" in text) == (403, True)
        for path in ("/v2/apps", "/ui/state.json", "/metrics"):
            assert (await fetched(browser, path))[0] == 403
        assert await apps(node) == []

        # By the name that its owner uses, all is as ever.
        await page_at(browser, f"http://localhost:{port_of(node)}/version")
        _, text = await fetched(browser, "/v2/apps", **as_json(name="mine"))
        app = json.loads(text)
        fn = as_json(name="f", app_id=app["id"], image=str(script))
        _, text = await fetched(browser, "/v2/fns", **fn)
        call = f"/invoke/{json.loads(text)['id']}"
        await page_at(browser, f"http://evil.test:{port_of(node)}/version")
        assert (await fetched(browser, call, method="POST"))[0] == 403
        assert not (tmp_path / "ran").exists()
        await page_at(browser, f"http://127.0.0.1:{port_of(node)}/ui/")
        await browser.wait("document.getElementById('link')?.dataset.state === 'live'")


async def test_a_page_of_another_site_changes_and_calls_nothing(
    tmp_path: Path, script: Path
) -> None:
    async with (
        open_node(*SERVE, cwd=tmp_path) as node,
        # It serves the pages of an attacker.
        open_node("api", "--bind", "127.0.0.1:0", env={"FN_ALLOWED_HOSTS": "evil.test"},
                  cwd=tmp_path) as other,
        open_browser(tmp_path, REBOUND) as browser,
    ):  # fmt: skip
        async with httpx.AsyncClient(base_url=node.url, timeout=60) as client:
            app = (await client.post("/v2/apps", json={"name": "mine"})).json()
            fn = {"name": "f", "app_id": app["id"], "image": str(script)}
            fn = (await client.post("/v2/fns", json=fn)).json()
        await page_at(browser, f"http://evil.test:{port_of(other)}/version")
        target = f"http://localhost:{port_of(node)}"
        # Without a question before, as forms are sent.
        body = json.dumps({"name": "evil"})
        for kind in ("text/plain", "application/x-www-form-urlencoded"):
            plain = {"method": "POST", "mode": "no-cors", "headers": {"Content-Type": kind}}
            assert (await fetched(browser, f"{target}/v2/apps", **plain, body=body))[0] == 0
        await fetched(browser, f"{target}/invoke/{fn['id']}", method="POST", mode="no-cors")
        # And with one.
        assert "TypeError" in await fetched(browser, f"{target}/v2/apps", **as_json(name="evil"))
        assert "TypeError" in await fetched(browser, f"{target}/v2/apps/{app['id']}",
                                            method="DELETE")  # fmt: skip
        assert "TypeError" in await fetched(browser, f"{target}/ui/state.json")
        assert await apps(node) == ["mine"]
        assert not (tmp_path / "ran").exists()
        # A link is followed.
        await browser.ask(f"void (location.href = '{target}/ui/')")
        await browser.wait("document.getElementById('link')?.dataset.state === 'live'")


async def test_pages_of_configured_origins_may_all(tmp_path: Path) -> None:
    async with open_node(
        "api", "--bind", "127.0.0.1:0", env={"FN_ALLOWED_HOSTS": "evil.test"}, cwd=tmp_path
    ) as page:
        origin = f"http://evil.test:{port_of(page)}"
        env = {
            "FN_API_CORS_ORIGINS": origin,
            "FN_API_CORS_HEADERS": "Content-Type,Authorization",
            "FN_API_TOKEN": TOKEN,
        }
        async with (
            open_node(*SERVE, cwd=tmp_path, env=env) as node,
            open_browser(tmp_path, REBOUND) as browser,
        ):
            await page_at(browser, f"{origin}/version")
            target = f"http://localhost:{port_of(node)}/v2/apps"
            status, text = await fetched(browser, target, **as_json(name="fine"))
            assert (status, "FN_TOKEN" in text) == (401, True)
            with_token: dict[str, Any] = as_json(name="fine")
            with_token["headers"]["Authorization"] = f"Bearer {TOKEN}"
            assert (await fetched(browser, target, **with_token))[0] == 200
            assert await apps(node, Authorization=f"Bearer {TOKEN}") == ["fine"]


@pytest.mark.parametrize("name", ["127.0.0.1", "node.test"])
async def test_who_has_the_token_logs_in(tmp_path: Path, name: str) -> None:
    """Also at a node that is reached by plain HTTP from elsewhere, where browsers tell less."""
    functions = tmp_path / "functions.yaml"
    functions.write_text(f"apps:\n- name: a\n  fns:\n  - {{name: f, image: '{fnt_path()}'}}\n")
    address = f"127.0.0.1:{free_port()}"
    arguments = ("serve", "--driver", "process", "--functions", str(functions), "--bind", address)
    env = {"FN_API_TOKEN": TOKEN, "FN_ALLOWED_HOSTS": "node.test"}
    async with open_browser(tmp_path, "--host-resolver-rules=MAP node.test 127.0.0.1") as browser:
        await browser.look(width=375, height=700, scheme="dark")
        async with open_node(*arguments, env=env) as node:
            await browser.open(f"http://{name}:{port_of(node)}/ui")
            await browser.wait("document.activeElement?.id === 'token'")
            assert await browser.ask("document.getElementById('wrong').hidden")
            await browser.command("Input.insertText", text="something-else-0123")
            await browser.press("Enter")
            await browser.wait("document.getElementById('wrong')?.hidden === false")
            assert await browser.ask("document.documentElement.scrollWidth") <= 375
            await browser.wait("document.activeElement?.id === 'token'")
            await browser.command("Input.insertText", text=TOKEN)
            await browser.press("Enter")
            await browser.wait("document.getElementById('link')?.dataset.state === 'live'")
            assert await browser.ask("location.pathname") == "/ui/"
            assert await browser.ask("document.cookie") == ""
            assert await browser.ask("fetch('/v2/apps').then((answer) => answer.status)") == 401
            assert not [url for url in browser.requests if TOKEN in url]
        await browser.wait("document.getElementById('link').dataset.state === 'lost'")
        # The session outlives the node; where it has ended, the page asks again.
        async with open_node(*arguments, env=env):
            await browser.wait("document.getElementById('link').dataset.state === 'live'")
        await browser.wait("document.getElementById('link').dataset.state === 'lost'")
        await browser.command("Network.clearBrowserCookies")
        async with open_node(*arguments, env=env):
            await browser.wait("document.getElementById('token')")
