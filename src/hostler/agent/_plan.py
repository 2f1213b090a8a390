"""What a launch takes from the call that causes it, so that no call object is kept."""

from __future__ import annotations

from hostler import ids
from hostler.abc import ContainerTask
from hostler.call import PendingCall
from hostler.config import AgentConfig
from hostler.models import Call

from ._decisions import Resources

MIB = 2**20
REGISTRY_TOKEN_EXTENSION = "FN_REGISTRY_TOKEN"  # noqa: S105  (a name)
SPAWN_CALL_ID = "FN_SPAWN_CALL_ID"


def needed_resources(model: Call) -> Resources:
    """What a container for ``model`` is counted with: memory and tmpfs, and CPUs."""
    return Resources((model.memory + model.tmpfs_size) * MIB, model.cpus)


def container_task(call: PendingCall, config: AgentConfig) -> ContainerTask:
    """The task of a container that is launched for ``call``; without its socket directory."""
    model = call.model
    env = dict(model.config)
    if config.enable_fdk_debug_info:
        env[SPAWN_CALL_ID] = model.id
    return ContainerTask(
        id=ids.new_id(),
        image=model.image,
        app_id=model.app_id,
        fn_id=model.fn_id,
        env=env,
        extensions=dict(call.extensions),
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
        registry_token=call.extensions.get(REGISTRY_TOKEN_EXTENSION, ""),
    )
