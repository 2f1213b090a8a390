"""The command that an environment made for Fn's single binary asks for."""

from __future__ import annotations

from collections.abc import Mapping

from hostler.config import NodeConfig, look_up

_COMMANDS = {"full": "serve", "api": "api", "lb": "lb", "pure-runner": "runner", "runner": "runner"}


def command_of(env: Mapping[str, str]) -> list[str]:
    """The arguments for ``FN_NODE_TYPE`` (or ``FN_NODE_TYPE_FILE``); none if it is not set.

    As Fn's, a full node listens on all interfaces, and a pure runner serves HTTP on ``FN_PORT``
    too. Raises `ConfigError`, also for
    settings that the rest of the node type lacks.
    """
    if look_up(env, "FN_NODE_TYPE") is None:
        return []
    config = NodeConfig.from_env(env)
    arguments = [_COMMANDS[config.node_type]]
    if not env.get("FN_HTTP_BIND", "").strip():
        if arguments == ["runner"]:
            arguments += ["--http-bind", f":{config.port}"]
        elif arguments == ["serve"]:
            arguments += ["--bind", f":{config.port}"]
    return arguments
