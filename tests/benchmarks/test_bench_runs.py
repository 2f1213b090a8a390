"""The harness against real processes: what it counts, and that it notices wrong answers."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import attrs
import pytest

from benchmarks._measure import Metrics, RunFailed, measure_load
from benchmarks._plan import LoadPlan
from benchmarks._plot import plot_report
from benchmarks._report import (
    Summary,
    make_report,
    read_report,
    summarise,
    verdict_of,
    warnings_of,
    write_report,
)
from benchmarks._scenario import Settings, all_scenarios
from benchmarks._target import Target, open_function, open_url
from benchmarks._usage import descendants, usage_of
from benchmarks.load import post
from benchmarks.scenarios import first_byte
from benchmarks.scenarios.first_byte import Arrivals
from benchmarks.scenarios.freezing import compare_pairs

ROOT = Path(__file__).parent.parent.parent
SHORT = Settings(warm_up=0.02, seconds=0.1)


@pytest.fixture
def target() -> Iterator[Target]:
    with open_function() as target:
        yield target


def plan_for(target: Target, do: str = "", **changes: object) -> LoadPlan:
    values: dict[str, object] = {
        "address": target.address,
        "path": target.paths["echo"],
        "connections": 3,
        "body_size": 1024,
        "headers": {"Fnt-Do": do},
        "warm_up": SHORT.warm_up,
        "seconds": SHORT.seconds,
    }
    return LoadPlan(**(values | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("do", ["", "framing=chunked", "close=after"])
def test_load_is_measured(target: Target, do: str) -> None:
    metrics = measure_load(target, plan_for(target, do))
    assert metrics["requests_per_s"] > 0
    assert 0 < metrics["latency_p50_us"] <= metrics["latency_p90_us"] <= metrics["latency_p99_us"]
    assert metrics["latency_p99_us"] <= metrics["latency_max_us"]
    assert metrics["cpu_us_per_request/load"] > 0
    assert metrics["cpu_us_per_request/functions"] > 0
    assert metrics["resident_mb/functions"] > 0
    # The kernel counts in ticks, of which there are few in so short a time.
    assert 0 <= metrics["cpus_of_others"] <= 1.5 * (os.cpu_count() or 1)
    assert ("reconnects" in metrics) == (do == "close=after")


def test_latency_and_rate_are_true(target: Target) -> None:
    """Three clients and 20 ms per answer are 150 requests per second, and for each client at most
    one that began before the measurement."""
    metrics = measure_load(target, plan_for(target, "sleep=20", seconds=0.3))
    assert metrics["latency_p50_us"] >= 20_000
    assert metrics["requests_per_s"] <= (150 * 0.3 + 3) / 0.3


def test_generated_answers_are_checked_by_size(target: Target) -> None:
    plan = plan_for(target, "size=5000;framing=chunked", answer_size=5000)
    assert measure_load(target, plan)["requests_per_s"] > 0


@pytest.mark.parametrize(
    ("do", "error"),
    [
        ("status=502", "status 502"),
        ("size=1024", "not an echo"),
        ("close", "the connection ended unanswered"),
        ("close=mid", "the connection ended early"),
        ("garbage", "not an answer"),
        ("nonsense", "status 400"),
    ],
)
def test_wrong_answers_fail_the_run(target: Target, do: str, error: str) -> None:
    with pytest.raises(RunFailed, match=error):
        measure_load(target, plan_for(target, do))


def test_paths_take_turns(target: Target) -> None:
    """The function serves one path and answers 404 to the other."""
    path = target.paths["echo"]
    metrics = measure_load(target, plan_for(target, others=(path, path)))
    assert metrics["requests_per_s"] > 0
    with pytest.raises(RunFailed, match="404"):
        measure_load(target, plan_for(target, others=(path, "/elsewhere")))


def test_any_answer_is_enough_if_asked_for(target: Target) -> None:
    metrics = measure_load(target, plan_for(target, "size=7", any_answer=True))
    assert metrics["requests_per_s"] > 0


def test_a_server_that_is_not_there_fails_the_run(target: Target) -> None:
    gone = attrs.evolve(target, address="unix:/nowhere/socket")
    with pytest.raises(RunFailed, match="ended early"):
        measure_load(gone, plan_for(gone))


def test_usage_counts_cpu_time_of_a_group() -> None:
    code = "import time\nwhile time.process_time() < 0.1: pass\nprint(flush=True); input()"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with process:
        assert process.stdout
        process.stdout.readline()
        usage = usage_of([process.pid])
        assert 100_000 <= usage.cpu_us <= 1_000_000
        assert usage.resident_mb > 1
        assert process.pid in descendants(os.getpid())
        process.kill()
    assert usage_of([process.pid]).cpu_us == 0


def test_all_scenarios_are_found() -> None:
    names = list(all_scenarios())
    assert {"hot-echo-1", "ceiling-32", "cold-start", "soak", "freeze-8"} <= set(names)


@pytest.mark.parametrize("name", ["placement-1000-warm", "wire-1k-32", "wire-1024k-1"])
def test_parts_are_measured_inside_of_this_process(name: str) -> None:
    scenario = all_scenarios()[name]
    assert not scenario.fits_url
    metrics = scenario.measure(Target(address="", paths={}, processes=dict), SHORT)
    assert metrics["requests_per_s"] > 1
    least = metrics["cpu_least_us_per_request/process"]
    assert 0 < least <= metrics["cpu_us_per_request/process"]


def test_a_url_names_the_function() -> None:
    with open_url("http://127.0.0.1:8080/invoke/x", any_answer=True) as target:
        assert target.address == "127.0.0.1:8080"
        assert target.paths == {"echo": "/invoke/x"}
    with pytest.raises(ValueError, match="takes http"), open_url("https://x/", any_answer=False):
        pass


class Echo(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200 if self.path == "/invoke/x" else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


class EchoServer(ThreadingHTTPServer):
    request_queue_size = 64  # all clients at once; with less, the kernel makes them wait seconds

    def handle_error(self, request: object, client_address: object) -> None:
        """The generator leaves in the middle of requests."""


@pytest.fixture
def echo_port() -> Iterator[int]:
    """A load balancer of another make, as far as the harness can tell."""
    with EchoServer(("127.0.0.1", 0), Echo) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_any_load_balancer_can_be_measured(echo_port: int) -> None:
    scenario = all_scenarios()["hot-echo-32"]
    with open_url(f"http://127.0.0.1:{echo_port}/invoke/x", any_answer=False) as target:
        metrics = scenario.measure(target, SHORT)
    assert metrics["requests_per_s"] > 10
    assert "cpu_us_per_request/lb" not in metrics
    with (
        open_url(f"http://127.0.0.1:{echo_port}/invoke/y", any_answer=True) as target,
        pytest.raises(RunFailed, match="status 404"),
    ):
        scenario.measure(target, SHORT)


def test_summaries_and_verdicts() -> None:
    summary = summarise([{"a": 3.0}, {"a": 1.0, "b": 5.0}, {"a": 2.0}])
    assert summary["a"] == Summary(2.0, 1.0, 3.0, [3.0, 1.0, 2.0])
    assert summary["a"].spread == 1.0
    low, high, between = Summary.of([1, 2]), Summary.of([3, 4]), Summary.of([2, 3])
    assert verdict_of("requests_per_s", low, high) == "better"
    assert verdict_of("latency_p50_us", low, high) == "worse"
    assert verdict_of("requests_per_s", high, low) == "worse"
    assert verdict_of("latency_p50_us", high, low) == "better"
    assert verdict_of("latency_p50_us", low, between) == ""


def test_a_slow_generator_is_reported(tmp_path: Path) -> None:
    rates = {"hot-echo-1": 100.0, "ceiling-1": 400.0, "hot-echo-32": 100.0, "ceiling-32": 299.0}
    scenarios = {name: summarise([{"requests_per_s": rate}]) for name, rate in rates.items()}
    scenarios["steps-1"] = summarise([{"calls_per_s": 99.0}])  # of another generator
    report = make_report(scenarios, {"runs": 1})
    assert warnings_of(report) == ["hot-echo-32: 100 requests/s of the generator's 299"]
    path = tmp_path / "folder" / "report.json"
    write_report(report, path)
    assert read_report(path) == report


def test_busy_neighbours_are_reported() -> None:
    busy = summarise([{"requests_per_s": 1.0, "cpus_of_others": cpus} for cpus in (0.1, 0.5)])
    report = make_report({"hot-echo-1": busy}, {"driver": "process"})
    assert warnings_of(report) == ["hot-echo-1: other processes used 0.5 CPUs"]


def test_the_command_line(tmp_path: Path) -> None:
    output = tmp_path / "bench.json"
    command = [sys.executable, "-m", "benchmarks", "ceiling-1", "--runs=2", "--seconds=0.1"]
    command += ["--warm-up=0.02", f"--output={output}"]
    first = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "requests_per_s" in first.stdout
    second = subprocess.run(
        [*command, f"--compare={output}"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "change" in second.stdout
    assert len(read_report(output).scenarios["ceiling-1"]["requests_per_s"].runs) == 2


def test_an_unknown_scenario_is_refused() -> None:
    command = [sys.executable, "-m", "benchmarks", "nonsense"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "no such scenario: nonsense" in done.stderr


def test_another_status_can_be_the_right_one(target: Target) -> None:
    plan = plan_for(target, "status=202;size=0", status=202, answer_size=0)
    assert measure_load(target, plan)["requests_per_s"] > 0
    answer = post(target.address, target.paths["echo"], b"x", {"Fnt-Do": "status=202"})
    assert (answer.status, answer.body) == (202, b"x")


def test_lines_are_timed_as_they_come(target: Target) -> None:
    arrivals = first_byte.ask(target, "sleep=30;lines=5;every=200;framing=chunked")
    assert arrivals.at[0] >= 0.03
    assert arrivals.at[4] >= 0.83
    assert arrivals.at[0] < arrivals.at[4] - 0.4  # half, as this process may have been late
    late = Arrivals(at=[0.1, 0.3, 0.55, 0.7, 0.9])
    assert late.most_late(0.1) == pytest.approx(0.05)
    with pytest.raises(RunFailed, match="not 5 lines"):
        first_byte.ask(target, "lines=3;framing=chunked")


def test_pairs_are_compared_one_by_one() -> None:
    def run(rate: float, cpu: float) -> Metrics:
        latencies = {"latency_p50_us": 1.0, "latency_p99_us": 2.0, "cpus_of_others": 0.0}
        costs = {"cpu_us_per_request/lb": cpu, "cpu_us_per_request/runner": cpu}
        return {"requests_per_s": rate, **latencies, **costs}

    # The machine was ten times slower during the second pair.
    found = compare_pairs(
        [run(90, 1), run(11, 2), run(100, 3)], [run(100, 1), run(10, 1), run(100, 1)]
    )
    assert found["default_over_never"] == 1.0
    assert (found["default_over_never_least"], found["default_over_never_most"]) == (0.9, 1.1)
    assert found["cpu_default_over_never"] == 2.0


def test_a_report_can_be_drawn(tmp_path: Path) -> None:
    rates = summarise([{"requests_per_s": 1.0}, {"requests_per_s": 3.0}])
    path = tmp_path / "bench.svg"
    assert plot_report(make_report({"hot-echo-1": rates}, {"driver": "process"}), path)
    assert "<svg" in path.read_text()
    assert not plot_report(make_report({"x": summarise([{"served": 1.0}])}, {}), path)
