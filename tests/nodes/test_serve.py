"""``hostler serve`` and ``hostler runner`` as processes, with functions as local processes."""

from __future__ import annotations

import functools
import re
import signal
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
import trustme

from hostler.functions import load_functions
from tests.functions.build import fnt_path
from tests.support.ids import fn_by_name
from tests.wire.certificates import Files

from ..cli._process import END_SECONDS, ends, open_node, run


@pytest.fixture
def functions(tmp_path: Path) -> Path:
    path = tmp_path / "functions.yaml"
    path.write_text(
        f"apps:\n- name: app\n  config: {{SHARED: app}}\n  fns:\n"
        f"  - {{name: fnt, image: '{fnt_path()}', config: {{MINE: fn}}}}\n"
        "  - {name: missing, image: /none/such}\n"
    )
    return path


def path_of(functions: Path, name: str = "fnt") -> str:
    return f"/invoke/{fn_by_name(load_functions(functions), 'app', name).id}"


def lives(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def until_gone(pid: int) -> None:
    with trio.fail_after(END_SECONDS):
        while lives(pid):  # noqa: ASYNC110  (nothing tells when another's process ends)
            await trio.sleep(0.01)


def serve(functions: Path, *args: str, **options: Any) -> Any:
    return open_node(
        "serve",
        "--driver",
        "process",
        "--functions",
        str(functions),
        "--bind",
        "127.0.0.1:0",
        *args,
        **options,
    )


async def test_serve_calls_functions_and_leaves_no_process(functions: Path) -> None:
    async with serve(functions) as node:
        async with httpx.AsyncClient(base_url=node.url, timeout=60) as client:
            url = path_of(functions)
            answer = await client.post(url, content=b"hello")
            assert (answer.status_code, answer.content) == (200, b"hello")
            env = (await client.post(url, headers={"Fnt-Do": "env"})).text
            assert '"SHARED"' in env
            assert '"MINE"' in env
            pid = int((await client.post(url, headers={"Fnt-Do": "pid"})).text)
            big = b"x" * 3_000_000
            assert (await client.post(url, content=big)).content == big
            crash = await client.post(url, headers={"Fnt-Do": "crash"})
            assert crash.status_code == 502
            assert crash.json() == {
                "message": "error receiving function response: the container was killed by signal 6"
            }
            missing = await client.post(path_of(functions, "missing"))
            assert missing.status_code in (404, 502)
            detached = await client.post(
                url, headers={"Fn-Invoke-Type": "detached", "Fnt-Do": "sleep=300"}
            )
            assert (detached.status_code, detached.content) == (202, b"")
        assert await ends(node) == 0
        assert not [line for line in node.lines() if line["level"] == "error"]
    assert not lives(pid)


async def test_client_that_leaves_kills_the_running_function(functions: Path) -> None:
    async with serve(functions) as node:
        url = path_of(functions)
        async with (
            httpx.AsyncClient(base_url=node.url, timeout=END_SECONDS) as client,
            trio.open_nursery() as nursery,
        ):
            pid = int((await client.post(url, headers={"Fnt-Do": "pid"})).text)
            nursery.start_soon(functools.partial(client.post, url, headers={"Fnt-Do": "hang"}))
            while "fn_running 1.0" not in (await client.get("/metrics")).text:  # noqa: ASYNC110
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
        await node.wait_line("client cancelled")
        await until_gone(pid)
        assert await ends(node) == 0


@pytest.mark.parametrize(
    ("args", "env", "shown"),
    [
        (("--log-level", "debug"), {}, True),
        (("--log-level", "debug"), {"FN_DISABLE_DEBUG_USER_LOGS": "true"}, False),
        ((), {}, False),
    ],
    ids=["debug", "disabled", "info"],
)
async def test_what_a_function_prints_is_in_the_debug_log(
    functions: Path, args: tuple[str, ...], env: dict[str, str], shown: bool
) -> None:
    env = {**env, "FN_MAX_LOG_SIZE_BYTES": "20"}
    async with serve(functions, *args, env=env) as node:
        async with httpx.AsyncClient(base_url=node.url, timeout=60) as client:
            url, headers = path_of(functions), {"Fnt-Do": "err=hello;err=and a lot more"}
            call_id = (await client.post(url, headers=headers)).headers["fn-call-id"]
            await client.post(url, headers={"Fnt-Do": "out=next"})
        if shown:
            with trio.fail_after(END_SECONDS):
                while b'"line":"next"' not in node.log:  # noqa: ASYNC110  (nothing tells)
                    await trio.sleep(0.005)
        assert await ends(node) == 0
    found = [line for line in node.lines() if line.get("call_id") == call_id and "line" in line]
    assert [line["line"] for line in found] == (
        ["hello", "and a lot more"[:14], "-----max log size 20 bytes exceeded, truncating log-----"]
        if shown
        else []
    )
    for line in found:
        assert (line["level"], line["tag"]) == ("debug", "stderr")
        assert line["fn_id"] == url.rpartition("/")[2]


async def test_the_grace_is_one_for_all_parts(functions: Path) -> None:
    """The front end waits for the one call, then the node for the other: not twice as long."""
    async with (
        serve(functions, "--grace", "12") as node,
        httpx.AsyncClient(base_url=node.url, timeout=60) as client,
        trio.open_nursery() as nursery,
    ):
        url = path_of(functions)

        async def hang() -> None:
            answer = await client.post(url, headers={"Fnt-Do": "err=hangs;hang"})
            assert answer.status_code == 500  # it has run: no 503

        detach = {"Fnt-Do": "hang", "Fn-Invoke-Type": "detached"}
        assert (await client.post(url, headers=detach)).status_code == 202
        nursery.start_soon(hang)
        while "fn_running 2" not in (await client.get("/metrics")).text:  # noqa: ASYNC110
            await trio.sleep(0.01)
        began = trio.current_time()
        assert await ends(node) == 0
        seconds = trio.current_time() - began
    assert 9 <= seconds < 17.9  # 3 s are kept for the removal of containers


async def test_a_node_that_stops_runs_what_it_has_accepted(functions: Path) -> None:
    """A request whose body was still on its way at the signal; then a report of zeros."""
    async with (
        serve(functions, "--grace", "20") as node,
        httpx.AsyncClient(base_url=node.url, timeout=60) as client,
    ):
        url = path_of(functions)
        assert (await client.post(url, content=b"warm")).status_code == 200

        async def body() -> AsyncIterator[bytes]:
            yield b"begin "
            node.process.send_signal(signal.SIGTERM)
            await node.wait_line("shutting down")
            yield b"end"

        async def fresh() -> AsyncIterator[bytes]:
            await stopping.wait()
            yield b"late"

        stopping = trio.Event()
        answers: list[tuple[int, bytes]] = []

        async def post(content: AsyncIterator[bytes]) -> None:
            answer = await client.post(url, content=content)
            answers.append((answer.status_code, answer.content))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(post, fresh())
            begun = re.compile(r"fn_api_request_count\{[^}]*POST[^}]*\} 2")
            while not begun.search((await client.get("/metrics")).text):  # noqa: ASYNC110
                await trio.sleep(0.01)
            await post(body())
            stopping.set()
        assert sorted(answers) == [(200, b"begin end"), (200, b"late")]
        with trio.fail_after(END_SECONDS):
            assert await node.process.wait() == 0
    (line,) = [line for line in node.lines() if line["event"] == "drained"]
    left = ("refused", "canceled", "timeouts", "errors", "tasks", "sockets")
    assert {name: line[name] for name in left} == dict.fromkeys(left, 0)
    assert line["completed"] == 2
    assert line["level"] == "info"


async def test_driver_of_the_operator(functions: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from contextlib import asynccontextmanager\n"
        "from hostler.drivers.process import open_process_driver\n"
        "@asynccontextmanager\n"
        "async def open_mine(config):\n"
        "    async with open_process_driver() as driver:\n"
        "        inner = driver.create_cookie\n"
        "        async def create_cookie(task):\n"
        "            task.env['FROM_DRIVER'] = 'yes'\n"
        "            return await inner(task)\n"
        "        driver.create_cookie = create_cookie\n"
        "        yield driver\n"
        "def wrong(config):\n"
        "    return 7\n"
    )
    async with serve(functions, "--driver", "mine:open_mine", cwd=tmp_path) as node:
        async with httpx.AsyncClient(base_url=node.url, timeout=60) as client:
            env = (await client.post(path_of(functions), headers={"Fnt-Do": "env"})).text
            assert "FROM_DRIVER" in env
        assert await ends(node) == 0
    args = ("--functions", str(functions), "--bind", "127.0.0.1:0")
    done = await run("serve", *args, "--driver", "mine:wrong", cwd=tmp_path)
    assert done.returncode == 1
    assert "must return an async context manager that yields a Driver, not a int" in done.stderr


async def test_a_part_that_fails_ends_the_node(functions: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from contextlib import asynccontextmanager\n"
        "import trio\n"
        "from hostler.drivers.process import open_process_driver\n"
        "async def fail():\n"
        "    await trio.sleep(0.2)\n"
        "    raise OSError('the engine is gone')\n"
        "@asynccontextmanager\n"
        "async def open_mine(config):\n"
        "    async with open_process_driver() as driver, trio.open_nursery() as nursery:\n"
        "        nursery.start_soon(fail)\n"
        "        yield driver\n"
    )
    async with serve(functions, "--driver", "mine:open_mine", cwd=tmp_path) as node:
        with trio.fail_after(END_SECONDS):
            assert await node.process.wait() == 1
    assert b"hostler: error: the engine is gone" in node.log


async def test_no_engine_is_one_line(functions: Path) -> None:
    args = ("serve", "--functions", str(functions), "--bind", "127.0.0.1:0")
    done = await run(*args, env={"DOCKER_HOST": "unix:///none/docker.sock"})
    assert done.returncode == 1
    assert done.stderr.count("hostler: error: ") == 1
    assert "/none/docker.sock" in done.stderr
    assert "Traceback" not in done.stderr


async def test_lb_and_runner_as_processes(functions: Path) -> None:
    async with open_node(
        "runner", "--driver", "process", "--bind", "127.0.0.1:0", "--http-bind", "127.0.0.1:0"
    ) as runner:
        async with httpx.AsyncClient(base_url=runner.url, timeout=60) as client:
            assert (await client.get("/readyz")).status_code == 200
            assert (await client.post("/invoke/x")).status_code == 404
        lb = ("lb", "--runners", runner.ready["grpc"], "--functions", str(functions))
        async with open_node(*lb, "--bind", "127.0.0.1:0") as node:
            async with httpx.AsyncClient(base_url=node.url, timeout=60) as client:
                url = path_of(functions)
                assert (await client.post(url, content=b"hello")).content == b"hello"
                detached = await client.post(url, headers={"Fn-Invoke-Type": "detached"})
                assert detached.status_code == 202
            assert await ends(node) == 0
        assert await ends(runner) == 0
        for process in (node, runner):
            assert not [line for line in process.lines() if line["level"] == "error"]


async def test_runner_that_takes_no_detached_calls(functions: Path) -> None:
    async with open_node(
        "runner", "--driver", "process", "--bind", "127.0.0.1:0", "--no-detached"
    ) as runner:
        lb = ("lb", "--runners", runner.ready["grpc"], "--functions", str(functions))
        async with (
            open_node(*lb, "--bind", "127.0.0.1:0") as node,
            httpx.AsyncClient(base_url=node.url, timeout=60) as client,
        ):
            detached = {"Fn-Invoke-Type": "detached"}
            answer = await client.post(path_of(functions), headers=detached)
            assert answer.status_code == 501


async def test_lb_and_runner_over_mutual_tls(functions: Path, tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    for name in ("runner.example", "lb.example"):
        issued = authority.issue_cert(name)
        issued.private_key_pem.write_to_path(tmp_path / f"{name}.key")
        issued.cert_chain_pems[0].write_to_path(tmp_path / f"{name}.pem")

    def tls(name: str) -> list[str]:
        files = (("ca", "ca.pem"), ("cert", f"{name}.pem"), ("key", f"{name}.key"))
        return [part for kind, file in files for part in (f"--tls-{kind}", str(tmp_path / file))]

    runner_args = ("runner", "--driver", "process", "--bind", "127.0.0.1:0")
    async with open_node(*runner_args, *tls("runner.example")) as runner:
        lb = ("lb", "--runners", runner.ready["grpc"], "--functions", str(functions))
        expected = ("--tls-name", "runner.example")
        async with (
            open_node(*lb, "--bind", "127.0.0.1:0", *tls("lb.example"), *expected) as node,
            httpx.AsyncClient(base_url=node.url, timeout=60) as client,
        ):
            assert (await client.post(path_of(functions), content=b"hi")).content == b"hi"
        env = {"FN_PLACER_TIMEOUT": "500ms"}
        async with (
            open_node(*lb, "--bind", "127.0.0.1:0", env=env) as plain,
            httpx.AsyncClient(base_url=plain.url, timeout=60) as client,
        ):
            assert (await client.post(path_of(functions), content=b"hi")).status_code == 503


async def test_taken_grpc_port_is_told_before_an_engine_is_asked() -> None:
    async with open_node("runner", "--driver", "process", "--bind", "127.0.0.1:0") as runner:
        bind = runner.ready["grpc"]
        done = await run("runner", "--bind", bind, env={"DOCKER_HOST": "unix:///none/docker.sock"})
        assert done.returncode == 1
        assert f"hostler: error: cannot listen on {bind}: Address already in use" in done.stderr


async def test_killed_node_leaves_no_function_behind(functions: Path) -> None:
    async with serve(functions) as node:
        async with httpx.AsyncClient(base_url=node.url, timeout=60) as client:
            pid = int((await client.post(path_of(functions), headers={"Fnt-Do": "pid"})).text)
        node.process.kill()
        await node.process.wait()
    await until_gone(pid)


def https_files(folder: Path, ca: trustme.CA) -> Files:
    return Files(folder).write(ca, cert=ca.issue_cert("127.0.0.1", "localhost"))


async def status_of(url: str, ca: trustme.CA, path: str, **options: Any) -> int:
    """Of a request on a connection of its own."""
    trust = ssl.create_default_context()
    ca.configure_trust(trust)
    async with httpx.AsyncClient(base_url=url, verify=trust, timeout=60) as client:
        return (await client.request("GET", path, **options)).status_code


@pytest.mark.parametrize("kind", ["serve", "api", "lb"])
async def test_https_for_calls_page_and_metrics_with_files_that_change(
    functions: Path, tmp_path: Path, kind: str
) -> None:
    first, second = trustme.CA(), trustme.CA()
    files = https_files(tmp_path / "tls", first)
    args = {
        "serve": ("--driver", "process", "--functions", str(functions)),
        "api": (),
        "lb": ("--functions", str(functions), "--runners", "127.0.0.1:1", "--workers", "2"),
    }
    pems = ("--http-tls-cert", files.pki.cert, "--http-tls-key", files.pki.key)
    async with open_node(
        kind,
        *args[kind],
        "--bind",
        "127.0.0.1:0",
        *pems,
        env={"FN_TLS_RELOAD_INTERVAL": "100ms"},
        cwd=tmp_path,
    ) as node:
        url = node.url.replace("http://", "https://")
        for path in ("/metrics", "/ui/", "/healthz"):
            assert await status_of(url, first, path) == 200
        if kind == "serve":
            path = path_of(functions)
            assert await status_of(url, first, f"/invoke/{path.rpartition('/')[2]}") in (200, 405)
        async with httpx.AsyncClient() as plain:
            assert (await plain.get(f"{node.url}/healthz")).status_code == 400
        https_files(tmp_path / "tls", second)
        with trio.fail_after(END_SECONDS):
            while True:
                try:
                    assert await status_of(url, second, "/healthz") == 200
                    break
                except httpx.ConnectError:
                    await trio.lowlevel.checkpoint()
        assert await ends(node) == 0


async def test_https_files_that_cannot_be_used_end_the_start_with_one_line(
    tmp_path: Path,
) -> None:
    files = https_files(tmp_path / "tls", trustme.CA())
    bad = tmp_path / "bad.pem"
    bad.write_text("no certificate")
    for args, text in (
        (("--http-tls-cert", files.pki.cert), "both FN_HTTP_TLS_CERT and FN_HTTP_TLS_KEY"),
        (
            ("--http-tls-cert", str(bad), "--http-tls-key", files.pki.key),
            f"{bad} and {files.pki.key} are no certificate and its key",
        ),
    ):
        done = await run("serve", "--driver", "process", "--bind", "127.0.0.1:0", *args)
        assert done.returncode != 0
        assert text in done.stderr
        assert "Traceback" not in done.stderr
