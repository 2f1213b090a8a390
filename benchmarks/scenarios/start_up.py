"""How long each kind of node takes from its command to readiness, and its memory then."""

from __future__ import annotations

import contextlib
import json
import tempfile
import time
from pathlib import Path

from .._measure import Metrics
from .._scenario import Scenario, Settings
from .._target import Starter, Target
from .._usage import usage_of

BIND = ("--bind", "127.0.0.1:0")


def _measure(target: Target, settings: Settings) -> Metrics:
    metrics: Metrics = {}
    with tempfile.TemporaryDirectory(prefix="bench.") as folder, contextlib.ExitStack() as stack:
        declared = Path(folder, "functions.yaml")
        declared.write_text(json.dumps({"apps": [{"name": "bench", "fns": []}]}))
        functions = ("--functions", str(declared))
        start = Starter(folder, {"FN_DB_URL": f"sqlite3://{folder}/bench.db"}, stack)
        for node, arguments in {
            "runner": ("--driver", settings.driver),
            "lb": ("--runners", "127.0.0.1:1", *functions),
            "api": (),
            "serve": ("--driver", settings.driver, *functions),
        }.items():
            begin = time.perf_counter()
            pid, _ = start(node, *BIND, *arguments)
            metrics[f"start_ms/{node}"] = (time.perf_counter() - begin) * 1e3
            metrics[f"resident_mb/{node}"] = usage_of([pid]).resident_mb
    return metrics


SCENARIOS = (
    Scenario(
        name="start-up",
        about="from a node's command until it is ready, and its memory at that moment",
        measure=_measure,
        target="none",
    ),
)
