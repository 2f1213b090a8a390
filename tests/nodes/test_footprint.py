"""What an idle node keeps in memory: nothing of what only others need."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ..cli._process import clean_env

SCRIPT = """
import json, os, re, signal, sys, threading
from pathlib import Path

def end():
    os.read(reader, 1)
    status = Path("/proc/self/status").read_text()
    resident = int(re.search(r"VmRSS:\\s+(\\d+) kB", status)[1])
    print(json.dumps([sorted(sys.modules), resident]))
    os.kill(os.getpid(), signal.SIGTERM)

reader, writer = os.pipe()
threading.Thread(target=end).start()
sys.argv += ["--ready-fd", str(writer)]
from hostler.cli import main
main()
"""
OF_NONE = ["pydantic", "typer", "dns", "docker", "httpx", "sqlalchemy", "alembic", "opentelemetry"]
OF_NONE += [f"hostler.{name}" for name in ("api", "api_client", "cli.client", "store", "testing")]
OF_LB = ["hostler.agent", "hostler.drivers", "hostler.keep_alive"]
OF_LB += ["hostler.runner", "hostler.nodes.runner", "hostler.nodes.serve"]
OF_RUNNER = ["hostler.lb", "hostler.pool", "hostler.nodes.lb", "hostler.nodes.serve", "yaml"]
MOST = 60_000
"""KiB that an idle load balancer has at most. Here it also has rich, which structlog takes if it
is installed, as some tools of developers need it."""


def idle(*args: str) -> tuple[set[str], int]:
    """The modules and the resident KiB of a node that has just become ready."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *args, "--bind", "127.0.0.1:0"],
        capture_output=True,
        text=True,
        timeout=60,
        env=clean_env(),
    )
    assert done.returncode == 0, done.stderr
    modules, resident = json.loads(done.stdout)
    return set(modules), resident


def parts(modules: set[str], unwanted: list[str]) -> set[str]:
    return {name for name in unwanted if name in modules}


def test_a_load_balancer_is_small(tmp_path: Path) -> None:
    functions = tmp_path / "functions.yaml"
    functions.write_text("apps: []\n")
    modules, resident = idle("lb", "--runners", "127.0.0.1:1", "--functions", str(functions))
    assert "hostler.nodes.lb" in modules
    assert parts(modules, OF_NONE + OF_LB) == set()
    assert resident < MOST


def test_a_runner_has_nothing_of_a_load_balancer() -> None:
    modules, _ = idle("runner", "--driver", "process")
    assert "hostler.nodes.runner" in modules
    assert parts(modules, OF_NONE + OF_RUNNER) == set()


@pytest.mark.parametrize("name", ["typer", "rich", "pydantic"])
def test_nobody_gets_what_is_big_and_not_needed(name: str) -> None:
    """structlog takes rich if it is there."""
    pyproject = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    before, _, _ = pyproject.partition("[dependency-groups]")
    assert name not in before
