"""A container's create options, in the engine's field names. Pure: a task in, options out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import structlog

from ...abc import ContainerTask
from ...config import AgentConfig
from .instance import family_of

log = structlog.get_logger(__name__)

LABEL_CLASSIFIER = "fn-agent-classifier"
LABEL_INSTANCE = "fn-agent-instance"
LABEL_HOME = "hostler-home"
"""The runner's own container, see `hostler.drivers.docker.instance`."""

CPU_PERIOD = 100_000
"""Microseconds; a quota of the same size is one CPU."""
KERNEL_MEMORY_DEPRECATED = (1, 41)
"""API version that deprecated the limit on kernel memory; 1.42 ignores it."""
_MAX_ULIMIT = 2**63 - 1


@attrs.define(kw_only=True)
class DockerOptions:
    """What the container will be created with. Change it in place before it is created::

        cookie.options.env["REGION"] = "eu"
        cookie.options.host_config["CpuShares"] = 512

    ``config``, ``host_config`` and ``networking_config`` are the engine's ``ContainerConfig``,
    ``HostConfig`` and ``NetworkingConfig``. ``env`` becomes ``config["Env"]``.
    """

    name: str
    env: dict[str, str] = attrs.field(factory=dict, repr=False)
    config: dict[str, Any] = attrs.field(factory=dict)
    host_config: dict[str, Any] = attrs.field(factory=dict)
    networking_config: dict[str, Any] = attrs.field(factory=dict)

    def payload(self) -> dict[str, Any]:
        """The body of the engine's create call."""
        payload = {
            **self.config,
            "Env": [f"{name}={value}" for name, value in self.env.items()],
            "HostConfig": self.host_config,
        }
        if self.networking_config:
            payload["NetworkingConfig"] = self.networking_config
        return payload


@attrs.frozen(kw_only=True)
class DriverEnvironment:
    """What the options depend on beside the task: the same for all containers of a driver."""

    config: AgentConfig
    instance_id: str
    hostname: str
    api_version: tuple[int, ...]
    neighbourhood: str = ""
    """Of all whose locks are seen here, if there is no label tag; "" = unknown."""
    home: str = ""
    """The container of the runner itself; "" = it has none, or the engine does not know it."""

    def labels(self) -> dict[str, str]:
        """Of every container of a function; none without a label tag."""
        return self._labels(self.config.container_label_tag)

    def pool_labels(self) -> dict[str, str]:
        """Of those that hold a network name space: nobody has asked for them, so that they are
        removed after a crash without a label tag, too. One that workers have without being given
        one ends with their supervisor."""
        tag = self.config.container_label_tag
        is_given = tag not in ("", family_of(self.instance_id))
        labels = self._labels(tag if is_given else self.neighbourhood or tag)
        return {**labels, LABEL_HOME: self.home} if self.home else labels

    def _labels(self, tag: str) -> dict[str, str]:
        return {LABEL_CLASSIFIER: tag, LABEL_INSTANCE: self.instance_id} if tag else {}


def build_options(
    task: ContainerTask, around: DriverEnvironment, allocate_network: Callable[[], str | None]
) -> DockerOptions:
    """The options of ``task``, in Fn's order. ``allocate_network`` is asked at most once, and
    only if the task is to have a network."""
    options = DockerOptions(name=task.id, env=dict(task.env))
    options.config["Image"] = task.image
    _add_streams(options, captured=task.on_output is not None)
    options.host_config["ReadonlyRootfs"] = not around.config.disable_readonly_rootfs
    options.host_config["Init"] = True
    if labels := around.labels():
        options.config["Labels"] = labels
    _add_logging(options, task)
    _add_memory(options, task, around)
    if task.command:
        options.config["Cmd"] = task.command.split()
    if task.cpus:
        options.host_config["CpuQuota"] = task.cpus * (CPU_PERIOD // 1000)
        options.host_config["CpuPeriod"] = CPU_PERIOD
    if task.fs_size_mb:
        options.host_config["StorageOpt"] = {"size": f"{task.fs_size_mb}M"}
    if task.pids:
        options.host_config["PidsLimit"] = task.pids
    _add_ulimits(options, task)
    _add_tmpfs(options, task, writable_root=around.config.disable_readonly_rootfs)
    if task.iofs_docker_path:
        options.host_config["Binds"] = [f"{task.iofs_docker_path}:{task.iofs_dest}"]
    _set_network(options, "none" if task.disable_net else allocate_network(), around)
    if not around.config.disable_unprivileged_containers:
        options.config["User"] = "1000:1000"
        options.host_config["CapDrop"] = ["all"]
        options.host_config["SecurityOpt"] = ["no-new-privileges"]
    return options


def _add_streams(options: DockerOptions, *, captured: bool) -> None:
    # A function reads its requests from its socket, never from standard input.
    options.config.update(
        OpenStdin=False,
        StdinOnce=False,
        AttachStdin=False,
        AttachStdout=captured,
        AttachStderr=captured,
    )


def _add_logging(options: DockerOptions, task: ContainerTask) -> None:
    url = task.syslog_url.strip()
    if not url:
        options.host_config["LogConfig"] = {"Type": "none"}
        return
    options.host_config["LogConfig"] = {
        "Type": "syslog",
        "Config": {
            "syslog-address": url,
            "syslog-facility": "user",
            "syslog-format": "rfc5424",
            "tag": f"app_id={task.app_id},fn_id={task.fn_id}",
        },
    }


def _add_memory(options: DockerOptions, task: ContainerTask, around: DriverEnvironment) -> None:
    if not task.memory:
        return
    # Memory and swap together are limited to the same number: no swap.
    limits = {"Memory": task.memory, "MemorySwap": task.memory}
    if around.api_version < KERNEL_MEMORY_DEPRECATED:
        limits["KernelMemory"] = task.memory
    options.config.update(limits)
    options.host_config.update(limits, MemorySwappiness=0)


def _add_ulimits(options: DockerOptions, task: ContainerTask) -> None:
    wanted = {
        "nofile": task.open_files,
        "memlock": task.locked_memory,
        "sigpending": task.pending_signals,
        "msgqueue": task.message_queue,
    }
    ulimits = []
    for name, value in wanted.items():
        if value is None:
            continue
        if value > _MAX_ULIMIT:
            log.warning("ulimit too large, ignored", ulimit=name, value=value)
            continue
        ulimits.append({"Name": name, "Soft": value, "Hard": value})
    if ulimits:
        options.host_config["Ulimits"] = ulimits


def _add_tmpfs(options: DockerOptions, task: ContainerTask, *, writable_root: bool) -> None:
    if writable_root and not task.tmpfs_size_mb:
        return
    limits = []
    if task.tmpfs_size_mb:
        limits.append(f"size={task.tmpfs_size_mb}m")
    if task.tmpfs_inodes:
        limits.append(f"nr_inodes={task.tmpfs_inodes}")
    options.host_config["Tmpfs"] = {"/tmp": ",".join(limits)}  # noqa: S108  (a path in the container)


def _set_network(options: DockerOptions, mode: str | None, around: DriverEnvironment) -> None:
    """``mode`` is the engine's, ``None`` = its default network, on which the container has the
    host name of its runner if nothing else is said."""
    if mode is not None:
        options.host_config["NetworkMode"] = mode
    else:
        options.config.setdefault("Hostname", around.hostname)
