"""Container template: what a launch takes from the call that causes it, so that the call is not
kept."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Protocol

import attrs
import msgspec

from .. import ids
from ..abc import ContainerTask
from ..calls import PendingCall
from ..config import AgentConfig
from ..slot_key import REGISTRY_TOKEN
from .resources import MIB, Resources, needed_resources

SPAWN_CALL_ID = "FN_SPAWN_CALL_ID"
MIN_WARM_ANNOTATION = "hostler/min-warm"
"""Annotation of a function (or its app): how many containers to keep ready, a whole number."""
MAX_MIN_WARM = 1000
"""Containers that an annotation may ask for."""


def container_task(call: PendingCall, config: AgentConfig) -> ContainerTask:
    """The task of a container that is launched for ``call``, without its socket directory."""
    model = call.model
    env = dict(model.config)
    extensions = dict(call.extensions)
    registry_token = extensions.pop(REGISTRY_TOKEN, "")
    if config.enable_fdk_debug_info:
        env[SPAWN_CALL_ID] = model.id
    return ContainerTask(
        id=ids.new_id(),
        image=model.image,
        app_id=model.app_id,
        fn_id=model.fn_id,
        env=env,
        extensions=extensions,
        memory=model.memory * MIB,
        cpus=model.cpus,
        fs_size_mb=config.max_fs_size_mb,
        tmpfs_size_mb=model.tmpfs_size,
        tmpfs_inodes=config.max_tmpfs_inodes,
        pids=config.max_pids,
        open_files=config.max_open_files,
        locked_memory=config.max_locked_memory,
        pending_signals=config.max_pending_signals,
        message_queue=config.max_message_queue,
        syslog_url=model.syslog_url.strip(),
        disable_net=call.disable_net,
        registry_token=registry_token,
        docker_auth=call.docker_auth,
    )


def names_of(task: ContainerTask) -> dict[str, str]:
    """The names of a container and its function, for log lines."""
    return {
        "container_id": task.id,
        "app_id": task.app_id,
        "fn_id": task.fn_id,
        "image": task.image,
    }


@attrs.frozen
class ContainerTemplate:
    """How to launch containers of one function: the task of the first, and the resources of
    each."""

    task: ContainerTask
    size: Resources
    idle_timeout: int

    @classmethod
    def of(cls, call: PendingCall, config: AgentConfig) -> ContainerTemplate:
        """The template of a container for ``call``."""
        model = call.model
        return cls(container_task(call, config), needed_resources(model), model.idle_timeout)

    def again(self) -> ContainerTemplate:
        """The template of one more container."""
        task = attrs.evolve(self.task, id=ids.new_id(), env=dict(self.task.env))
        return attrs.evolve(self, task=task)


class TemplateLauncher(Protocol):
    """Launches containers without a call."""

    def template_of(self, call: PendingCall) -> ContainerTemplate:
        """The template of the function of ``call``, without the call's registry token, which is not
        for launches ahead of other calls."""

    def launch_spare(
        self, key: Hashable, template: ContainerTemplate, *, ahead: bool = False
    ) -> bool:
        """Start a container for no call in particular; false if there is no room. ``ahead``: the
        `KeepAlive` wants it."""


def min_warm(annotations: Mapping[str, msgspec.Raw]) -> int:
    """The number of containers that a function's annotation asks for; 0 if it is not a sensible
    number: that must not stand in the way of calls."""
    raw = annotations.get(MIN_WARM_ANNOTATION)
    if raw is None:
        return 0
    try:
        count = msgspec.json.decode(raw, type=int)
    except msgspec.DecodeError:
        return 0
    return min(max(count, 0), MAX_MIN_WARM)
