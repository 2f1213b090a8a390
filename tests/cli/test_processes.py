"""Metrics of processes beside the node."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from hostler.cli import process as process_module
from hostler.cli.process import watch_processes


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """With a name that is as long as the kernel keeps, and longer."""
    return Path(shutil.copy(shutil.which("cat") or "", tmp_path / "docker-sleeper-d"))


@contextmanager
def running(program: Path) -> Iterator[None]:
    """A process that has shown that it runs the program: `Popen` returns a moment before the kernel
    has given it the program's name and memory."""
    with subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"x")
        process.stdin.flush()
        assert process.stdout.read(1) == b"x"
        yield  # the end of its input ends it


def value(registry: CollectorRegistry, name: str) -> float | None:
    return registry.get_sample_value(name)


def test_a_process_is_found_by_its_name_and_found_again(
    program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_module, "SEARCH_SECONDS", 0.0)
    registry = CollectorRegistry()
    watch_processes(["docker-sleeper-d", "docker-sleeper-x", "docker-sleeper-d"], registry)
    memory = "docker_sleeper_d_process_resident_memory_bytes"
    assert value(registry, memory) is None
    for _ in range(2):
        with running(program):
            assert (value(registry, memory) or 0) > 0
            assert value(registry, "docker_sleeper_d_process_open_fds") is not None
            assert value(registry, "docker_sleeper_x_process_open_fds") is None
        assert value(registry, memory) is None


def test_names_that_no_metric_can_tell_apart_are_one(program: Path) -> None:
    registry = CollectorRegistry(auto_describe=True)  # as a node's
    other = Path(shutil.copy(program, program.with_name("docker_sleeper_d")))
    with running(program), running(other):
        watch_processes([program.name, other.name], registry)
        assert (value(registry, "docker_sleeper_d_process_resident_memory_bytes") or 0) > 0


def test_one_that_is_not_there_is_not_looked_for_each_time(
    program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = CollectorRegistry()
    watch_processes(["docker-sleeper-d"], registry)
    memory = "docker_sleeper_d_process_resident_memory_bytes"
    assert value(registry, memory) is None
    with running(program):
        assert value(registry, memory) is None


def test_without_proc_there_are_none(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    watch_processes(["dockerd"], registry, tmp_path / "none")
    assert list(registry.collect()) == []
