"""What the load goes to, as real processes."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import attrs

from hostler.functions import load_functions
from tests.functions.build import docker_image, fnt_path
from tests.support.ids import fn_by_name

from ._usage import descendants

START_LIMIT = 30.0
"""Seconds a process has to announce that it is ready."""
STOP_LIMIT = 40.0
"""Seconds a process has to drain and end."""
APP = "bench"


class NotReady(Exception):
    """A process did not start; the text has its output."""


@attrs.frozen(kw_only=True)
class Target:
    """Where requests go and whose CPU time they cost."""

    address: str
    paths: Mapping[str, str]
    """Of the functions, by their names."""
    processes: Callable[[], dict[str, list[int]]]
    """Groups of process ids, for the accounts."""
    any_answer: bool = False
    runners: Sequence[str] = ()
    """Where the runners tell their metrics, with ``FN_HTTP_BIND`` in their settings; a node that
    is both always does."""


@contextlib.contextmanager
def open_hostler(
    functions: Mapping[str, Mapping[str, Any]],
    driver: str,
    env: Mapping[str, str],
    runners: int = 1,
    cores: Sequence[int] = (),
    program: Sequence[str] = (),
) -> Iterator[Target]:
    """One LB and ``runners`` runners on loopback. ``env`` goes to all; ``functions`` are the
    entries of the declaration file, their image is ``fnt``. ``cores`` are those of the runners and
    their functions, one each. ``program`` stands for the ``hostler`` command."""
    with tempfile.TemporaryDirectory(prefix="bench.") as folder, contextlib.ExitStack() as stack:
        declared, paths = _declare(functions, driver, folder)
        start = Starter(folder, env, stack, program)
        started = []
        for number in range(runners):
            with pinned(cores[number]) if cores else contextlib.nullcontext():
                started.append(start("runner", "--bind", "127.0.0.1:0", "--driver", driver))
        # Of a runner of several workers both are for each of them.
        addresses = ",".join(told.get("runners") or told["grpc"] for _, told in started)
        pids = [pid for node, told in started for pid in (node, *told.get("workers", ()))]
        lb, front = start(
            *("lb", "--bind", "127.0.0.1:0", "--runners", addresses),
            *("--functions", declared),
        )

        yield Target(
            address=front["http"][0],
            paths=paths,
            processes=lambda: _groups(lb, pids, driver),
            runners=[told["http"][0] for _, told in started if told.get("http")],
        )


@contextlib.contextmanager
def open_serve(
    functions: Mapping[str, Mapping[str, Any]], driver: str, env: Mapping[str, str]
) -> Iterator[Target]:
    """One node that is LB and runner. Parameters as for `open_hostler`."""
    with tempfile.TemporaryDirectory(prefix="bench.") as folder, contextlib.ExitStack() as stack:
        declared, paths = _declare(functions, driver, folder)
        start = Starter(folder, env, stack)
        node, announced = start(
            *("serve", "--bind", "127.0.0.1:0", "--driver", driver),
            *("--functions", declared),
        )

        def processes() -> dict[str, list[int]]:
            found = descendants(node) if driver == "process" else []
            return {"serve": [node], **({"functions": found} if found else {})}

        address = announced["http"][0]
        yield Target(address=address, paths=paths, processes=processes, runners=[address])


@contextlib.contextmanager
def pinned(core: int) -> Iterator[None]:
    """What this thread starts meanwhile runs on ``core``, with all that it starts itself."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _declare(
    functions: Mapping[str, Mapping[str, Any]], driver: str, folder: str
) -> tuple[str, dict[str, str]]:
    """The file that declares ``functions``, and their paths."""
    declared = Path(folder, "functions.yaml")
    image = image_for(driver)
    fns = [{"image": image, **entry, "name": name} for name, entry in functions.items()]
    declared.write_text(json.dumps({"apps": [{"name": APP, "fns": fns}]}))
    table = load_functions(declared)
    return str(declared), {name: f"/invoke/{fn_by_name(table, APP, name).id}" for name in functions}


def _groups(lb: int, runners: list[int], driver: str) -> dict[str, list[int]]:
    groups = {"lb": [lb, *descendants(lb)], "runner": runners}
    if driver == "process":  # containers are nobody's children here
        found = {pid for runner in runners for pid in descendants(runner)}
        groups["functions"] = sorted(found.difference(runners))
    return groups


@contextlib.contextmanager
def open_function() -> Iterator[Target]:
    """A bare ``fnt`` on its unix socket: the most trivial server that there is."""
    with tempfile.TemporaryDirectory(prefix="bench.") as folder:
        listener = Path(folder, "lsnr.sock")
        env = {"FN_FORMAT": "http-stream", "FN_LISTENER": f"unix:{listener}"}
        process = subprocess.Popen([str(fnt_path())], env=env)
        with _ended(process):
            _wait_until(listener.is_socket, process, "fnt")
            yield Target(
                address=f"unix:{listener}",
                paths={"echo": "/call"},
                processes=lambda: {"functions": [process.pid]},
            )


@contextlib.contextmanager
def open_url(url: str, any_answer: bool) -> Iterator[Target]:
    """The function ``echo`` at the invoke URL of any Fn-compatible load balancer."""
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise ValueError(f"--url {url}: takes http://host:port/invoke/ID")
    yield Target(
        address=f"{parts.hostname}:{parts.port or 80}",
        paths={"echo": parts.path or "/"},
        processes=dict,
        any_answer=any_answer,
    )


def image_for(driver: str) -> str:
    """The function ``fnt`` as the driver wants it."""
    if driver == "process":
        return str(fnt_path())
    return docker_image(docker_host())


def docker_host() -> str:
    """Where the engine listens."""
    return os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")


@attrs.frozen
class Starter:
    """Starts nodes of hostler that end with ``stack``, the youngest first."""

    folder: str
    env: Mapping[str, str]
    stack: contextlib.ExitStack
    program: Sequence[str] = ()

    def __call__(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        """The process id and what the node announced."""
        program = self.program or [str(Path(sys.executable).with_name("hostler"))]
        log = Path(self.folder, f"{arguments[0]}.log")
        read_end, write_end = os.pipe()
        with log.open("wb") as output, open(read_end, "rb") as ready:
            process = subprocess.Popen(
                [*program, *arguments, "--ready-fd", str(write_end)],
                env={**os.environ, **self.env},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=[write_end],
            )
            os.close(write_end)
            self.stack.enter_context(_ended(process))
            if not select.select([ready], [], [], START_LIMIT)[0]:
                raise NotReady(f"{arguments[0]} is not ready: {_end_of(log)}")
            line = ready.readline()
        if not line:
            raise NotReady(f"{arguments[0]} did not start: {_end_of(log)}")
        announced: dict[str, Any] = json.loads(line)
        return process.pid, announced


def _end_of(log: Path) -> str:
    return "\n".join(log.read_text().splitlines()[-20:])


@contextlib.contextmanager
def _ended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


def _wait_until(condition: Callable[[], bool], process: subprocess.Popen[bytes], name: str) -> None:
    end = time.monotonic() + START_LIMIT
    while not condition():
        if process.poll() is not None or time.monotonic() > end:
            raise NotReady(f"{name} did not start")
        time.sleep(0.005)
