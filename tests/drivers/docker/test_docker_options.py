"""Create options of tasks, without an engine (reference 04 §3.2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hostler.abc import ContainerTask
from hostler.config import AgentConfig
from hostler.drivers.docker import DockerOptions
from hostler.drivers.docker.networks import Networks
from hostler.drivers.docker.options import DriverEnvironment, build_options

from ...conftest import Logs


def build(
    *,
    config: AgentConfig | None = None,
    api: tuple[int, ...] = (1, 45),
    networks: Callable[[], str | None] = lambda: None,
    **fields: Any,
) -> DockerOptions:
    around = DriverEnvironment(
        config=config or AgentConfig(), instance_id="me", hostname="box", api_version=api
    )
    return build_options(ContainerTask(id="ctr", image="img", **fields), around, networks)


def test_least_task() -> None:
    options = build()
    assert options.name == "ctr"
    assert options.payload() == {
        "Image": "img",
        "Hostname": "box",
        "User": "1000:1000",
        "OpenStdin": False,
        "StdinOnce": False,
        "AttachStdin": False,
        "AttachStdout": False,
        "AttachStderr": False,
        "Env": [],
        "HostConfig": {
            "ReadonlyRootfs": True,
            "Init": True,
            "LogConfig": {"Type": "none"},
            "Tmpfs": {"/tmp": ""},
            "CapDrop": ["all"],
            "SecurityOpt": ["no-new-privileges"],
        },
    }


def test_rights_and_root_can_be_opened() -> None:
    config = AgentConfig(disable_readonly_rootfs=True, disable_unprivileged_containers=True)
    payload = build(config=config).payload()
    assert "User" not in payload
    assert payload["HostConfig"] == {
        "ReadonlyRootfs": False,
        "Init": True,
        "LogConfig": {"Type": "none"},
    }


def test_memory_has_no_swap() -> None:
    payload = build(memory=5 << 20).payload()
    for part in (payload, payload["HostConfig"]):
        assert part["Memory"] == part["MemorySwap"] == 5 << 20
        assert "KernelMemory" not in part
    assert payload["HostConfig"]["MemorySwappiness"] == 0


@pytest.mark.parametrize(("api", "sent"), [((1, 33), True), ((1, 40), True), ((1, 41), False)])
def test_weakness_04_11_kernel_memory_only_where_it_is_not_deprecated(
    api: tuple[int, ...], sent: bool
) -> None:
    """Weakness 04/11."""
    payload = build(memory=5 << 20, api=api).payload()
    assert ("KernelMemory" in payload["HostConfig"]) is sent
    assert ("KernelMemory" in payload) is sent


def test_cpu_quota() -> None:
    host = build(cpus=1500).host_config
    assert (host["CpuQuota"], host["CpuPeriod"]) == (150_000, 100_000)
    assert "CpuShares" not in host


def test_command_is_split() -> None:
    assert build(command=" a  b\tc ").config["Cmd"] == ["a", "b", "c"]


def test_environment() -> None:
    options = build(env={"A": "1", "B": "x=y"})
    options.env["C"] = "3"
    assert options.payload()["Env"] == ["A=1", "B=x=y", "C=3"]
    assert "x=y" not in repr(options)


def test_ulimits_are_given_one_by_one(logs: Logs) -> None:
    assert "Ulimits" not in build().host_config
    host = build(open_files=0, pending_signals=7, message_queue=2**63).host_config
    assert host["Ulimits"] == [
        {"Name": "nofile", "Soft": 0, "Hard": 0},
        {"Name": "sigpending", "Soft": 7, "Hard": 7},
    ]
    [entry] = logs.with_event("ulimit too large")
    assert entry["ulimit"] == "msgqueue"


@pytest.mark.parametrize(
    ("size", "inodes", "mount"),
    [(0, 0, ""), (0, 9, "nr_inodes=9"), (5, 0, "size=5m"), (5, 9, "size=5m,nr_inodes=9")],
)
def test_weakness_04_10_tmpfs_limits_do_not_need_each_other(
    size: int, inodes: int, mount: str
) -> None:
    host = build(tmpfs_size_mb=size, tmpfs_inodes=inodes).host_config
    assert host["Tmpfs"] == {"/tmp": mount}


def test_writable_root_needs_no_tmpfs_but_may_have_one() -> None:
    config = AgentConfig(disable_readonly_rootfs=True)
    assert "Tmpfs" not in build(config=config).host_config
    assert build(config=config, tmpfs_size_mb=5).host_config["Tmpfs"] == {"/tmp": "size=5m"}


def test_sizes_and_processes() -> None:
    host = build(fs_size_mb=7, pids=8).host_config
    assert host["StorageOpt"] == {"size": "7M"}
    assert host["PidsLimit"] == 8


def test_socket_directory() -> None:
    assert build(iofs_docker_path="/x/y").host_config["Binds"] == ["/x/y:/tmp/iofs"]
    assert "Binds" not in build(iofs_agent_path="/x/y").host_config


def test_syslog() -> None:
    host = build(syslog_url=" tcp://log:514 ", app_id="a", fn_id="f").host_config
    assert host["LogConfig"] == {
        "Type": "syslog",
        "Config": {
            "syslog-address": "tcp://log:514",
            "syslog-facility": "user",
            "syslog-format": "rfc5424",
            "tag": "app_id=a,fn_id=f",
        },
    }


def test_labels_only_with_a_tag() -> None:
    assert "Labels" not in build().config
    labels = build(config=AgentConfig(container_label_tag="t")).config["Labels"]
    assert labels == {"fn-agent-classifier": "t", "fn-agent-instance": "me"}


def test_captured_output_is_attached() -> None:
    config = build(on_output=lambda chunk, is_stderr: None).config
    assert config["AttachStdout"]
    assert config["AttachStderr"]
    assert not config["AttachStdin"]


def test_networks_are_used_evenly() -> None:
    networks = Networks(["a", "b"])
    first, second = (build(networks=networks.allocate) for _ in range(2))
    assert first.host_config["NetworkMode"] == "a"
    assert second.host_config["NetworkMode"] == "b"
    assert "Hostname" not in first.config
    networks.free("b")
    assert networks.in_use() == {"a": 1, "b": 0}
    assert networks.allocate() == "b"


def test_disabled_network_takes_none_of_the_configured() -> None:
    networks = Networks(["a"])
    options = build(networks=networks.allocate, disable_net=True)
    assert options.host_config["NetworkMode"] == "none"
    assert "Hostname" not in options.config
    assert networks.in_use() == {"a": 0}
