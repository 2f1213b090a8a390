"""Settings, read from ``FN_`` variables: `AgentConfig`, `BodyConfig`, `LBConfig`, `PlacerConfig`,
`PoolConfig`, `StoreConfig`, `NodeConfig`.

A field is its variable in lower case without ``FN_``. ``X.from_env()`` reads the environment,
``X(field=value)`` sets values in code; both refuse bad ones with `ConfigError`.
"""

from __future__ import annotations

import attrs

from hostler.errors import ConfigError

from ._addresses import is_host, is_runner_target, parse_dns_server
from ._agent import AgentConfig
from ._api import ApiConfig
from ._base import EnvConfig, look_up
from ._bodies import BodyConfig
from ._describe import SettingInfo, describe
from ._kinds import AUTO, parse_seconds
from ._node import NO_API_URL, NO_RUNNERS, NodeConfig, NodeType
from ._placement import LBConfig, PlacerConfig
from ._pool import PoolConfig
from ._runner import RunnerConfig
from ._store import StoreConfig

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
    "parse_dns_server",
    "parse_seconds",
    "setting_variables",
]


def setting_variables() -> set[str]:
    """The variables of all settings."""
    kinds = EnvConfig.__subclasses__()
    return {f.metadata.get("variable", "") for kind in kinds for f in attrs.fields(kind)} - {""}
