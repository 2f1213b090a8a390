"""Who may use a node: pages, other machines, and those with a token, against real processes."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from tests.functions.build import fnt_path

from ._process import NodeProcess, open_node, run

TOKEN, OTHER, CALL_TOKEN = "api-token-0123456", "api-token-of-before", "call-token-0123456"
LOCAL = ("--bind", "127.0.0.1:0")
SERVE = ("serve", "--driver", "process", *LOCAL)
BEARER = {"Authorization": f"Bearer {TOKEN}"}
EVERYWHERE = ("--bind", ":0")


def asking(node: NodeProcess, **headers: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=node.url, timeout=60, headers=headers)


async def answered(node: NodeProcess, request: bytes) -> bytes:
    """The status of the answer to a request that no library would send."""
    host, port = node.ready["http"][0].rsplit(":", 1)
    stream = await trio.open_tcp_stream(host, int(port))
    async with stream:
        await stream.send_all(request)
        with trio.fail_after(60):
            received = b""
            while b"\r\n" not in received:
                received += await stream.receive_some()
    return received.split(b" ", 2)[1]


# --- pages -------------------------------------------------------------------------------------


async def test_a_rebound_page_can_not_have_a_command_run(tmp_path: Path) -> None:
    """Its browser takes it for the node's own: the node's name alone gives it away."""
    mark = tmp_path / "ran"
    page = {"Host": "evil.test", "Origin": "http://evil.test", "Sec-Fetch-Site": "same-origin"}
    async with open_node(*SERVE, cwd=tmp_path) as node, asking(node, **page) as client:
        made = await client.post("/v2/apps", json={"name": "app"})
        assert made.status_code == 403
        assert "FN_ALLOWED_HOSTS" in made.json()["message"]
        for path in ("/v2/apps", "/ui/state.json", "/ui/", "/metrics", "/logs", "/t/a/b"):
            assert (await client.get(path)).status_code == 403
        assert (await client.post("/invoke/f")).status_code == 403
        async with asking(node) as owner:
            app = (await owner.post("/v2/apps", json={"name": "app"})).json()
            fn = {"name": "f", "app_id": app["id"], "image": f"touch {mark}"}
            fn = (await owner.post("/v2/fns", json=fn)).json()
        assert (await client.post(f"/invoke/{fn['id']}")).status_code == 403
        assert (await client.get("/healthz")).status_code == 200
    assert not mark.exists()


async def test_a_page_of_anywhere_can_not_change_anything(tmp_path: Path) -> None:
    async with open_node(*SERVE, cwd=tmp_path) as node:
        # As from an old browser, which does not tell of the page.
        async with asking(node, **{"Content-Type": "text/plain"}) as client:
            assert (await client.post("/v2/apps", content=b'{"name":"a"}')).status_code == 415
        async with asking(node, Origin="https://evil.test") as client:
            assert (await client.post("/v2/apps", json={"name": "b"})).status_code == 403
        async with asking(node, **{"Sec-Fetch-Site": "cross-site"}) as client:
            assert (await client.post("/v2/apps", json={"name": "c"})).status_code == 403
            assert (await client.delete("/v2/apps/x")).status_code == 403
        async with asking(node) as client:
            assert (await client.get("/v2/apps")).json()["items"] == []
            assert (await client.delete("/v2/apps/x")).status_code == 404


@pytest.mark.parametrize(
    ("request_line", "hosts", "status"),
    [
        (b"GET /v2/apps HTTP/1.1", [b"localhost:1"], b"200"),
        (b"GET /v2/apps HTTP/1.1", [b"evil.test"], b"403"),
        (b"GET /v2/apps HTTP/1.1", [b"localhost", b"evil.test"], b"400"),
        (b"GET /v2/apps HTTP/1.1", [], b"400"),
        (b"GET /v2/apps HTTP/1.0", [], b"200"),
        (b"GET /v2/apps HTTP/1.0", [b"evil.test"], b"403"),
        # The absolute form counts for more than the header.
        (b"GET http://evil.test/v2/apps HTTP/1.1", [b"localhost"], b"403"),
        (b"GET http://localhost/v2/apps HTTP/1.1", [b"evil.test"], b"200"),
        (b"GET http://localhost@evil.test/v2/apps HTTP/1.1", [b"localhost"], b"400"),
        (b"GET HTTP://EVIL.test/v2/apps HTTP/1.1", [b"localhost"], b"403"),
        (b"GET /%762/apps HTTP/1.1", [b"evil.test"], b"403"),
        (b"GET //v2/apps HTTP/1.1", [b"evil.test"], b"403"),
        (b"POST /invoke/f HTTP/1.1", [b"localhost"], b"404"),
        (b"POST /invoke/f HTTP/1.1", [b"evil.test"], b"403"),
    ],
)
async def test_the_host_as_it_is_on_the_wire(
    tmp_path: Path, request_line: bytes, hosts: list[bytes], status: bytes
) -> None:
    async with open_node(*SERVE, cwd=tmp_path) as node:
        lines = [request_line, *(b"Host: " + host for host in hosts), b"Content-Length: 0", b"\r\n"]
        for _ in range(2):  # heads are remembered
            assert await answered(node, b"\r\n".join(lines)) == status


async def test_names_of_a_node_are_configured(tmp_path: Path) -> None:
    env = {"FN_ALLOWED_HOSTS": "fn.test, .corp.test", "FN_PUBLIC_LB_URL": "https://pub.test:1/x"}
    async with open_node(*SERVE, cwd=tmp_path, env=env) as node, asking(node) as client:
        for host in ("fn.test", "a.corp.test:80", "pub.test", "localhost", "10.0.0.1"):
            assert (await client.get("/v2/apps", headers={"Host": host})).status_code == 200
        assert (await client.get("/v2/apps", headers={"Host": "evil.test"})).status_code == 403
        # It is there for others: functions know themselves whom they answer.
        page = {"Host": "fn.test", "Origin": "https://page.test", "Sec-Fetch-Site": "cross-site"}
        assert (await client.post("/t/app/x", headers=page)).status_code == 404


async def test_a_node_of_a_network_has_any_name_until_it_is_told_its_own(tmp_path: Path) -> None:
    """As services of Docker compose and Kubernetes, and their probes, call it."""
    node_of_network = ("api", *EVERYWHERE)
    probe = {"Host": "hostler-api.hostler.svc.cluster.local:8080"}
    async with open_node(*node_of_network, cwd=tmp_path) as node, asking(node, **probe) as client:
        assert (await client.get("/v2/apps")).status_code == 200
        assert (await client.post("/v2/apps", json={"name": "a"})).status_code == 200
    env = {"FN_ALLOWED_HOSTS": "api"}
    async with open_node(*node_of_network, cwd=tmp_path, env=env) as node, asking(node) as client:
        statuses = {
            host: (await client.get("/v2/apps", headers={"Host": host})).status_code
            for host in ("api:8080", "192.168.7.7:8080", "[fd00::7]:8080", "evil.test")
        }
        assert list(statuses.values()) == [200, 200, 200, 403]
        assert (await client.get("/readyz", headers={"Host": "evil.test"})).status_code == 200


# --- other machines ----------------------------------------------------------------------------


async def test_a_full_node_is_for_its_own_machine(tmp_path: Path) -> None:
    async with open_node("serve", "--driver", "process", cwd=tmp_path, env={"FN_PORT": "0"}) as it:
        assert it.ready["http"][0].startswith("127.0.0.1:")
        assert not [line for line in it.lines() if "without a token" in line["event"]]
    env = {"FN_HTTP_BIND": "[::1]:0"}
    async with open_node("serve", "--driver", "process", cwd=tmp_path, env=env) as node:
        assert node.ready["http"][0].startswith("[::1]:")


def declared(tmp_path: Path) -> str:
    path = tmp_path / "functions.yaml"
    path.write_text(f"apps:\n- name: app\n  fns:\n  - {{name: f, id: f, image: '{fnt_path()}'}}\n")
    return str(path)


@pytest.mark.parametrize("bind", [":0", "0.0.0.0:0", "[::]:0"])
async def test_the_process_driver_is_for_its_own_machine(tmp_path: Path, bind: str) -> None:
    folder = tmp_path / "f"
    folder.mkdir()
    shutil.copy(fnt_path(), folder / "func")
    functions = ("--functions", declared(tmp_path))
    process = ("--driver", "process", "--bind", bind)
    for command, wanted in (
        (("serve", *process), "FN_API_TOKEN"),
        (("serve", *process, *functions), "FN_INVOKE_TOKEN"),
        (("runner", *process), "mTLS"),
        (("runner", *process, "--workers", "2"), "mTLS"),
        (("run", str(folder), "--bind", bind), "FN_INVOKE_TOKEN"),
    ):
        done = await run(*command, cwd=tmp_path)
        assert done.returncode == 1
        [error] = [line for line in done.stderr.splitlines() if "hostler: error" in line]
        assert wanted in error
        assert "--insecure" in error
        async with open_node(*command, "--insecure", cwd=tmp_path):
            pass
    for env, more in (({"FN_API_TOKEN": TOKEN}, ()), ({"FN_INVOKE_TOKEN": CALL_TOKEN}, functions)):
        async with open_node("serve", *process, *more, cwd=tmp_path, env=env):
            pass
    async with open_node("runner", *process, env={"FN_INSECURE": "true"}):
        pass


async def test_one_line_says_what_is_open_to_others(tmp_path: Path) -> None:
    text = "can use it without a token"
    functions = ("--functions", declared(tmp_path))
    lb = ("lb", *EVERYWHERE, "--runners", "127.0.0.1:1", *functions)

    async def told(*args: str, env: dict[str, str] | None = None) -> Any:
        async with open_node(*args, cwd=tmp_path, env=env) as node:
            await node.wait_line("ready" if args[1:] == LOCAL else text)
            found = [line for line in node.lines() if text in line["event"]]
            assert len(found) <= 1
            return (found[0]["level"], found[0]["paths"]) if found else None

    assert await told("api", *EVERYWHERE) == ("warning", ["/ui", "/v2", "/metrics"])
    assert await told("api", *LOCAL) is None
    assert await told(*lb) == ("warning", ["/ui", "/invoke", "/t", "/metrics"])
    tokens = {"FN_API_TOKEN": TOKEN}
    assert await told(*lb, env=tokens) == ("info", ["/invoke", "/t", "/metrics"])
    tokens["FN_INVOKE_TOKEN"] = CALL_TOKEN
    assert await told(*lb, env=tokens) == ("info", ["/metrics"])
    assert await told(*lb, "--workers", "2", env=tokens) == ("info", ["/metrics"])
    async with open_node("runner", "--driver", "process", *EVERYWHERE, "--insecure") as runner:
        line = await runner.wait_line("run anything")
        assert line["level"] == "warning"


# --- tokens ------------------------------------------------------------------------------------


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[NodeProcess]:
    (tmp_path / "token").write_text(f"{TOKEN}\n{OTHER}\n")
    env = {
        "FN_API_TOKEN_FILE": str(tmp_path / "token"),
        "FN_INVOKE_TOKEN": CALL_TOKEN,
        "FN_LOG_TAIL_BYTES": "100000",
    }
    async with open_node(*SERVE, cwd=tmp_path, env=env) as node:
        yield node


async def command(node: NodeProcess, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
    done: subprocess.CompletedProcess[str] = await run(*args, env={"FN_API_URL": node.url, **env})
    return done


async def make_function(node: NodeProcess) -> None:
    made = await command(node, "app", "create", "shop", FN_TOKEN=TOKEN)
    assert made.returncode == 0, made.stderr
    fn = ("fn", "create", "shop", "pay", str(fnt_path()))
    assert (await command(node, *fn, FN_TOKEN=TOKEN)).returncode == 0


async def test_client_commands_send_their_tokens(node: NodeProcess, tmp_path: Path) -> None:
    refused = await command(node, "app", "create", "shop")
    assert (refused.returncode, "FN_TOKEN" in refused.stderr) == (1, True)
    refused = await command(node, "app", "create", "shop", FN_TOKEN="wrong")
    assert (refused.returncode, "not the token" in refused.stderr) == (1, True)
    (tmp_path / "mine").write_text(TOKEN)
    mine = {"FN_TOKEN_FILE": str(tmp_path / "mine")}
    await make_function(node)
    call = ("invoke", "shop", "pay", "-d", "x", "-H", "Fnt-Do: out=printed;env")
    refused = await command(node, *call, **mine)
    assert (refused.returncode, "FN_INVOKE_TOKEN" in refused.stderr) == (1, True)
    called = await command(node, *call, **mine, FN_INVOKE_TOKEN=CALL_TOKEN)
    assert called.returncode == 0
    assert CALL_TOKEN not in called.stdout  # neither its headers nor its environment have it
    for token in (TOKEN, OTHER):
        status = await command(node, "status", "--json", FN_TOKEN=token)
        assert json.loads(status.stdout)[0]["state"]["node"] == "full"
    logs = await command(node, "logs", "shop", "pay", **mine)
    assert "printed" in logs.stdout
    assert (await command(node, "status")).returncode == 1
    assert (await command(node, "logs")).returncode == 1
    completed = {"_HOSTLER_COMPLETE": "bash_complete", "COMP_CWORD": "3"}
    words = {"COMP_WORDS": "hostler app inspect s", **completed}
    assert "shop" in (await command(node, **words, **mine)).stdout


async def test_what_health_says_needs_no_token(node: NodeProcess) -> None:
    async with asking(node) as client:
        for path in ("/", "/version", "/healthz", "/readyz", "/metrics"):
            assert (await client.get(path)).status_code == 200
        for path in ("/v2/apps", "/v2/openapi.json", "/ui/", "/ui/events", "/logs", "/none"):
            assert (await client.get(path)).status_code == 401
        assert (await client.get("/none", headers=BEARER)).status_code == 404
        assert (await client.post("/invoke/none")).status_code == 401
        assert (await client.post("/invoke/none", headers=BEARER)).status_code == 404


async def test_a_load_balancer_asks_with_its_token(node: NodeProcess, tmp_path: Path) -> None:
    """Its own, or another one for this API; with several workers, too."""
    await make_function(node)
    async with asking(node, **BEARER) as client:
        app = (await client.get("/v2/apps")).json()["items"][0]
        fn = (await client.get("/v2/fns", params={"app_id": app["id"]})).json()["items"][0]
    async with open_node("runner", "--driver", "process", *LOCAL) as runner:
        lb = ("lb", *LOCAL, "--api-url", node.url, "--runners", runner.ready["grpc"])
        for env, more in (
            ({"FN_API_TOKEN": f"{TOKEN} {OTHER}"}, ()),
            ({"FN_API_TOKEN": CALL_TOKEN, "FN_TOKEN": OTHER}, ("--workers", "2")),
        ):
            async with open_node(*lb, *more, env=env) as balancer, asking(balancer) as client:
                call = await client.post(f"/invoke/{fn['id']}", content=b"hello")
                assert (call.status_code, call.content) == (200, b"hello")
                assert (await client.get("/ui/state.json")).status_code == 401
                own = {"Authorization": f"Bearer {env['FN_API_TOKEN'].split()[0]}"}
                assert (await client.get("/ui/state.json", headers=own)).status_code == 200
        async with open_node(*lb) as balancer, asking(balancer) as client:
            # That is between the nodes.
            call = await client.post(f"/invoke/{fn['id']}")
            assert (call.status_code, "token" in call.text) == (503, False)
            assert "needs a token" in (await balancer.wait_line("look-ups fail"))["reason"]
    assert TOKEN not in node.log.decode()


@pytest.mark.parametrize("token", ["short", "with,a comma and more", "\u00e4" * 20])
async def test_a_token_that_is_none_ends_the_start_and_is_not_shown(token: str) -> None:
    done = await run("api", *LOCAL, env={"FN_API_TOKEN": token})
    assert done.returncode == 1
    assert "FN_API_TOKEN=(hidden): takes tokens" in done.stderr
    assert token not in done.stderr


async def test_a_browser_logs_in_by_a_form(node: NodeProcess) -> None:
    async with asking(node) as client:
        assert (await client.get("/ui")).headers["location"] == "ui/"
        form = await client.get("/ui/")
        assert (form.status_code, 'action="login"' in form.text) == (401, True)
        for file in ("page.css", "icon.svg"):
            assert (await client.get(f"/ui/{file}")).status_code == 200
        assert (await client.get("/ui/state.json")).status_code == 401
        wrong = await client.post("/ui/login", data={"token": CALL_TOKEN})
        assert (wrong.status_code, "set-cookie" in wrong.headers) == (401, False)
        large = await client.post("/ui/login", content=b"token=" + b"a" * 100_000)
        assert large.status_code == 401
        foreign = {"Origin": "https://evil.test"}
        assert (
            await client.post("/ui/login", data={"token": TOKEN}, headers=foreign)
        ).status_code == 403
        done = await client.post("/ui/login", data={"token": TOKEN})
        assert (done.status_code, done.headers["location"]) == (303, "./")
        cookie = done.headers["set-cookie"]
        assert cookie.endswith("; HttpOnly; SameSite=Strict")
        assert TOKEN not in cookie
        assert (await client.get("/ui/state.json")).json()["node"] == "full"
        assert (await client.get("/ui/")).status_code == 200
        # For the page only.
        given = {"Cookie": cookie.partition(";")[0]}
        for path in ("/v2/apps", "/logs", "/invoke/f", "/t/a/b"):
            assert (await client.get(path, headers=given)).status_code == 401
        proxied = {"X-Forwarded-Proto": "https"}
        done = await client.post("/ui/login", data={"token": TOKEN}, headers=proxied)
        assert done.headers["set-cookie"].endswith("; Secure")
