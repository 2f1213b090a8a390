"""``hostler lb`` as a process, over a pure runner in the test's own process."""

from __future__ import annotations

import signal
from pathlib import Path

import httpx
import pytest
import trio
import trustme
from prometheus_client.parser import text_string_to_metric_families

from hostler import wire
from hostler.calls import PendingCall
from hostler.functions import load_functions
from hostler.pool import PLACERS
from hostler.runner import open_pure_runner
from tests.front._agent import echo
from tests.pool.dns_server import open_dns_server
from tests.support.ids import fn_by_name
from tests.support.ports import free_port
from tests.wire.certificates import Files

from ..cli._process import END_SECONDS, ends, ends_at_once, open_node, run
from .cluster import FUNCTIONS, LONG_GRACE, PlayedAgent, hang, open_cluster


@pytest.fixture
def functions(tmp_path: Path) -> Path:
    path = tmp_path / "functions.yaml"
    path.write_text(FUNCTIONS)
    return path


FNS_COUNTS = [
    "lb_placer_rp_error_count",
    "lb_placer_rp_empty_count",
    "lb_placer_client_cancelled_count",
    "lb_placer_client_timeout_count",
    "lb_placer_timeout_count",
    "lb_placer_placed_error_count",
    "lb_placer_placed_abort_count",
    "lb_placer_placed_ok_count",
    "lb_placer_retry_busy_count",
    "lb_placer_retry_error_count",
    "calls",
    "completed",
    "canceled",
    "timeouts",
    "errors",
    "server_busy",
    "queued",
    "running",
]
ENDED = {"path", "method", "status", "blame", "fn_fdk_version"}
FNS_OTHERS = {
    "lb_placer_attempt_count_bucket": {"le"},
    "lb_placer_latency_bucket": {"le"},
    "lb_runner_sched_latency_bucket": {"le"},
    "lb_runner_exec_latency_bucket": {"le"},
    "lb_call_latency_bucket": {"le", "call_status"},
    "api_request_count": {"path", "method"},
    "api_response_count": ENDED,
    "api_latency_bucket": {"le", *ENDED},
}


def check_fns_metrics(text: str) -> None:
    """All of reference 02, section 6, by name and labels."""
    labels: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels.setdefault(sample.name, set()).update(sample.labels)
    for name, expected in {**{key: set[str]() for key in FNS_COUNTS}, **FNS_OTHERS}.items():
        assert labels.get(f"fn_{name}") == expected, name


async def test_call_through_the_lb_and_a_clean_end(functions: Path) -> None:
    async with open_cluster(functions) as (node, agent, path):
        async with httpx.AsyncClient(base_url=node.url, timeout=60) as client:
            answer = await client.post(path, content=b"hello")
            assert (answer.status_code, answer.content) == (200, b"hello")
            assert answer.headers["fn-call-id"] == agent.submitted[0].model.id
            assert (await client.get("/readyz")).status_code == 200
            metrics = (await client.get("/metrics")).text
            check_fns_metrics(metrics)
            assert "fn_calls 1.0" in metrics
            assert 'fn_api_request_count{method="POST",path="/invoke/:fn_id"} 1.0' in metrics
            assert (await client.post("/invoke/none")).json() == {"message": "Fn not found"}
        assert node.ready["node"] == "lb"
        assert (await node.wait_line("ready"))["http"] == node.ready["http"]
        assert await ends(node) == 0
        assert {line["event"] for line in node.lines()} >= {"ready", "shutting down", "stopped"}
        assert not [line for line in node.lines() if line["level"] == "error"]


@pytest.mark.parametrize("placer", [*PLACERS, "hostler.pool:NaivePlacer"])
async def test_placers(functions: Path, placer: str) -> None:
    async with open_cluster(functions, "--placer", placer) as (node, _, path):
        async with httpx.AsyncClient(base_url=node.url, timeout=60) as client:
            assert (await client.post(path, content=b"x")).content == b"x"
        assert await ends(node, signal.SIGINT) == 0


async def test_overrider_of_the_operator_from_the_working_directory(
    functions: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(
        "def override(request, call, extensions):\n"
        "    call.config['ADDED'] = 'yes'\n"
        "    return {**extensions, 'tenant': 'blue'}\n"
    )
    args = ("--overrider", "mine:override")
    async with open_cluster(functions, *args, cwd=tmp_path) as (node, agent, path):
        async with httpx.AsyncClient(base_url=node.url, timeout=60) as client:
            assert (await client.post(path)).status_code == 200
        assert agent.submitted[0].model.config["ADDED"] == "yes"
        assert agent.submitted[0].extensions == {"tenant": "blue"}
        assert await ends(node) == 0


async def test_a_fleet_whose_runner_is_away_says_so_and_recovers(functions: Path) -> None:
    path = f"/invoke/{fn_by_name(load_functions(functions), 'app', 'echo').id}"
    address = f"127.0.0.1:{free_port()}"
    args = ("--runners", address, "--functions", str(functions), "--bind", "127.0.0.1:0")
    async with (
        open_node("lb", *args, env={"FN_UNREACHABLE_WAIT": "500ms"}) as node,
        httpx.AsyncClient(base_url=node.url, timeout=60) as client,
    ):

        async def says_so() -> None:
            answer = await client.post(path)
            message = answer.json()["message"]
            assert (answer.status_code, message) == (503, "no runner can be reached")
            assert "retry-after" in answer.headers
            answer = await client.get("/readyz")
            assert (answer.status_code, answer.text) == (503, f"not ready: {message}\n")
            assert (await client.get("/healthz")).status_code == 200

        await says_so()
        state = (await client.get("/ui/state.json")).json()
        assert (state["ready"], state["trouble"]) == (False, "no runner can be reached")
        assert [(row["state"], row["share"]) for row in state["runners"]] == [("unreachable", 0)]
        status = await run("status", "--server", node.url)
        assert "no: no runner can be reached" in status.stdout
        assert "unreachable" in status.stdout
        async with open_pure_runner(PlayedAgent(), address, grace=0.1):
            with trio.fail_after(END_SECONDS):
                while (await client.get("/readyz")).status_code != 200:
                    await trio.lowlevel.checkpoint()
            assert (await client.post(path)).status_code == 200
        await says_so()
        assert await ends(node) == 0


async def test_client_that_leaves_cancels_the_call_on_the_runner(functions: Path) -> None:
    async with open_cluster(functions, agent=PlayedAgent(hang)) as (node, agent, path):
        async with trio.open_nursery() as nursery:

            async def call() -> None:
                async with httpx.AsyncClient(base_url=node.url, timeout=60) as client:
                    await client.post(path, content=b"x", timeout=None)

            nursery.start_soon(call)
            await agent.entered.wait()
            nursery.cancel_scope.cancel()
        with trio.fail_after(END_SECONDS):
            await agent.left.wait()
        assert agent.record == ["cancelled"]
        assert (await node.wait_line("client cancelled"))["status"] == 444
        assert await ends(node) == 0


async def test_drain_waits_for_the_running_call(functions: Path) -> None:
    go_on = trio.Event()

    async def handler(call: PendingCall) -> None:
        await go_on.wait()
        await echo(call)

    async with open_cluster(functions, agent=PlayedAgent(handler)) as (node, agent, path):
        async with trio.open_nursery() as nursery:

            async def call() -> None:
                async with httpx.AsyncClient(base_url=node.url, timeout=60) as client:
                    answer = await client.post(path, content=b"x", timeout=None)
                    assert answer.content == b"x"

            nursery.start_soon(call)
            await agent.entered.wait()
            node.process.send_signal(signal.SIGTERM)
            await node.wait_line("shutting down")
            go_on.set()
        with trio.fail_after(END_SECONDS):
            assert await node.process.wait() == 0
    assert agent.record == ["finished"]


@pytest.mark.parametrize(
    ("args", "second", "code"), [(("--grace", "0.2"), False, 0), (LONG_GRACE, True, 143)]
)
async def test_end_is_bounded_though_a_call_hangs(
    functions: Path, args: tuple[str, ...], second: bool, code: int
) -> None:
    async with open_cluster(functions, *args, agent=PlayedAgent(hang)) as (node, agent, path):
        async with trio.open_nursery() as nursery:

            async def call() -> None:
                async with httpx.AsyncClient(base_url=node.url, timeout=60) as client:
                    try:
                        await client.post(path, content=b"x", timeout=None)
                    except httpx.RemoteProtocolError:
                        return

            nursery.start_soon(call)
            await agent.entered.wait()
            node.process.send_signal(signal.SIGTERM)
            await node.wait_line("shutting down")
            if second:
                assert await ends_at_once(node) == code
            with trio.fail_after(END_SECONDS):
                assert await node.process.wait() == code
        await agent.left.wait()
    assert b"Traceback" not in node.log


async def test_waiting_calls_are_refused_in_a_drain(functions: Path) -> None:
    async with open_node(
        "lb",
        "--runners",
        "127.0.0.1:1",
        "--functions",
        str(functions),
        "--bind",
        "127.0.0.1:0",
        "--log-level",
        "debug",
        *LONG_GRACE,
    ) as node:
        path = f"/invoke/{fn_by_name(load_functions(functions), 'app', 'echo').id}"
        statuses: list[int] = []

        async def call() -> None:
            async with httpx.AsyncClient(base_url=node.url, timeout=60) as client:
                statuses.append((await client.post(path, timeout=None)).status_code)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            async with httpx.AsyncClient(base_url=node.url, timeout=60) as client:
                while "fn_running 1.0" not in (await client.get("/metrics")).text:  # noqa: ASYNC110
                    await trio.sleep(0.01)
            with trio.fail_after(END_SECONDS):
                assert await ends(node) == 0
        assert statuses == [503]


async def test_runners_by_name(functions: Path) -> None:
    agent = PlayedAgent(echo)
    async with open_dns_server() as dns, open_pure_runner(agent, "127.0.0.1:0") as runner:
        dns.set("runners.test", "A", ["127.0.0.1"])
        port = runner.address.rpartition(":")[2]
        async with open_node(
            *("lb", "--runners", f"dns://runners.test:{port}", "--functions", str(functions)),
            *("--bind", "127.0.0.1:0"),
            env={"FN_DNS_SERVER": dns.address},
        ) as node:
            path = f"/invoke/{fn_by_name(load_functions(functions), 'app', 'echo').id}"
            async with httpx.AsyncClient(base_url=node.url, timeout=60) as client:
                assert (await client.post(path, content=b"x")).content == b"x"
                assert "fn_lb_pool_runners 1.0" in (await client.get("/metrics")).text
            assert await ends(node) == 0


async def test_certificates_that_change(functions: Path, tmp_path: Path) -> None:
    """Both ends follow their files: on SIGHUP, and without a call that fails."""
    old, new = trustme.CA(), trustme.CA()
    runner_files, lb_files = Files(tmp_path / "runner"), Files(tmp_path / "lb")
    runner_files.write(old, cert=old.issue_cert("runner.test"))
    lb_files.write(old, cert=old.issue_cert("lb.test"))
    tls = wire.TLSFiles(runner_files.pki, wire.server_tls)
    agent = PlayedAgent(echo)
    async with open_pure_runner(agent, "127.0.0.1:0", ssl_context=tls) as runner:
        pki = lb_files.pki
        async with open_node(
            *("lb", "--runners", runner.address, "--functions", str(functions)),
            *("--bind", "127.0.0.1:0", "--tls-name", "runner.test"),
            *("--tls-ca", pki.ca, "--tls-cert", pki.cert, "--tls-key", pki.key),
        ) as node:
            path = f"/invoke/{fn_by_name(load_functions(functions), 'app', 'echo').id}"
            async with httpx.AsyncClient(base_url=node.url, timeout=60) as client:
                assert (await client.post(path, content=b"1")).status_code == 200
                runner_files.write(old, new, cert=old.issue_cert("runner.test"))
                assert tls.reload()
                lb_files.write(old, new, cert=new.issue_cert("lb.test"))
                node.process.send_signal(signal.SIGHUP)
                await node.wait_line("TLS files reloaded")
                assert (await client.post(path, content=b"2")).status_code == 200
                runner_files.write(new, cert=new.issue_cert("runner.test"))
                assert tls.reload()
                assert (await client.post(path, content=b"3")).status_code == 200
            assert await ends(node) == 0
