"""Starting nodes, with a stand-in for the command that is quicker to fail in all the ways."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import _target
from benchmarks._target import NotReady, open_hostler, open_serve

NODE = """#!/bin/bash
echo "$@" >> {folder}/calls
for fd; do :; done
case $1 in
  runner) echo '{{"node": "runner", "grpc": "127.0.0.1:7"}}' >&$fd;;
  lb) {lb};;
  serve) echo '{{"node": "serve", "http": ["127.0.0.1:9"]}}' >&$fd;;
esac
eval "exec $fd>&-"
trap 'echo "$1 ends" >> {folder}/calls; exit 0' TERM
while :; do sleep 0.01; done
"""
FUNCTIONS = {"echo": {"memory": 32}}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    return tmp_path


def install(folder: Path, lb: str) -> None:
    path = folder / "hostler"
    path.write_text(NODE.format(folder=folder, lb=lb))
    path.chmod(0o755)


def test_nodes_are_started_in_order_and_ended_in_reverse(folder: Path) -> None:
    install(folder, lb="""echo '{"node": "lb", "http": ["127.0.0.1:8"]}' >&$fd""")
    with open_hostler(FUNCTIONS, "process", {}) as target:
        assert target.address == "127.0.0.1:8"
        assert target.paths["echo"].startswith("/invoke/")
        groups = target.processes()
        assert len(groups["runner"]) == 1
        assert groups["lb"][0] != groups["runner"][0]
    calls = (folder / "calls").read_text().splitlines()
    assert calls[0].startswith("runner --bind 127.0.0.1:0 --driver process --ready-fd ")
    assert calls[1].startswith("lb --bind 127.0.0.1:0 --runners 127.0.0.1:7 --functions ")
    assert calls[2:] == ["lb ends", "runner ends"]


def test_one_node_can_be_all(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_target, "image_for", str)
    install(folder, lb="true")
    with open_serve(FUNCTIONS, "docker", {}) as target:
        assert target.address == "127.0.0.1:9"
        assert target.paths["echo"].startswith("/invoke/")
        groups = target.processes()
        assert list(groups) == ["serve"]  # containers are nobody's children
        (node,) = groups["serve"]
        assert Path(f"/proc/{node}").exists()
    assert not Path(f"/proc/{node}").exists()
    calls = (folder / "calls").read_text().splitlines()
    assert calls[0].startswith("serve --bind 127.0.0.1:0 --driver docker --functions ")


def test_a_node_that_fails_is_quoted(folder: Path) -> None:
    install(folder, lb="echo 'hostler: error: no luck' >&2; exit 1")
    with (
        pytest.raises(NotReady, match="lb did not start: hostler: error: no luck"),
        open_hostler(FUNCTIONS, "process", {}),
    ):
        pass
    assert (folder / "calls").read_text().endswith("runner ends\n")


def test_a_node_that_hangs_is_given_up(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_target, "START_LIMIT", 3)  # the runner has it, too
    install(folder, lb="echo busy; exec sleep 1000")
    with (
        pytest.raises(NotReady, match="lb is not ready"),
        open_hostler(FUNCTIONS, "process", {}),
    ):
        pass


def test_a_node_that_does_not_end_is_killed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_target, "STOP_LIMIT", 0.1)
    install(
        folder,
        lb="""echo '{"http": ["127.0.0.1:8"]}' >&$fd; trap '' TERM; while :; do sleep 0.01; done""",
    )
    with (
        pytest.raises(subprocess.TimeoutExpired),
        open_hostler(FUNCTIONS, "process", {}) as target,
    ):
        pids = target.processes()["lb"]
    assert not Path(f"/proc/{pids[0]}").exists()


def test_workers_of_a_runner_are_runners_to_the_load_balancer(folder: Path) -> None:
    install(folder, lb="""echo '{"node": "lb", "http": ["127.0.0.1:8"]}' >&$fd""")
    path = folder / "hostler"
    told = '"grpc": ["127.0.0.1:7", "127.0.0.1:6"], "runners": "127.0.0.1:7,127.0.0.1:6"'
    path.write_text(
        path.read_text().replace(
            '"grpc": "127.0.0.1:7"', f'{told}, "workers": [1073741824, 1073741825]'
        )
    )
    with open_hostler(FUNCTIONS, "process", {}) as target:
        assert target.processes()["runner"][1:] == [2**30, 2**30 + 1]
    calls = (folder / "calls").read_text().splitlines()
    assert calls[1].startswith("lb --bind 127.0.0.1:0 --runners 127.0.0.1:7,127.0.0.1:6 ")
