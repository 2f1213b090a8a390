"""Settings, read from ``FN_`` variables: `AgentConfig`, `BodyConfig`, `LBConfig`, `PlacerConfig`,
`PoolConfig`, `StoreConfig`, `NodeConfig`.

A field is its variable in lower case without ``FN_``. ``X.from_env()`` reads the environment,
``X(field=value)`` sets values in code; both refuse bad ones with `ConfigError`.

* ``addresses``: texts that name hosts, ports, URLs and runner targets
* ``agent``: settings of a runner: agent, Docker driver, runner server
* ``base``: reading a settings class from the environment, by Go's rules, and describing it
* ``node``: settings of a node: listening, HTTP, logs, tokens, bodies, function lookup
* ``pool``: settings of a load balancer: agent, placers, runner pools
* ``store``: settings of the datastore
"""

from __future__ import annotations

import attrs

from ..errors import ConfigError
from .addresses import is_host, is_runner_target, parse_dns_server
from .agent import AgentConfig, RunnerConfig
from .base import (
    AUTO,
    EnvConfig,
    SettingInfo,
    describe,
    look_up,
    parse_bool,
    parse_seconds,
    variable_of,
)
from .node import NO_API_URL, NO_RUNNERS, ApiConfig, BodyConfig, NodeConfig, NodeType
from .pool import LBConfig, PlacerConfig, PoolConfig
from .store import StoreConfig

__all__ = [
    "AUTO",
    "NO_API_URL",
    "NO_RUNNERS",
    "AgentConfig",
    "ApiConfig",
    "BodyConfig",
    "ConfigError",
    "EnvConfig",
    "LBConfig",
    "NodeConfig",
    "NodeType",
    "PlacerConfig",
    "PoolConfig",
    "RunnerConfig",
    "SettingInfo",
    "StoreConfig",
    "describe",
    "is_host",
    "is_runner_target",
    "look_up",
    "parse_bool",
    "parse_dns_server",
    "parse_seconds",
    "setting_variables",
]


def setting_variables() -> set[str]:
    """The variables of all settings."""
    kinds = EnvConfig.__subclasses__()
    return {variable_of(field) for kind in kinds for field in attrs.fields(kind)} - {""}
