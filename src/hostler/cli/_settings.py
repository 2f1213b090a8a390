"""The settings of a command: its options, laid over the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import attrs

from hostler._concurrency.drain import Grace
from hostler.abc import CallOverrider, PKIData
from hostler.call import check_overrider
from hostler.config import LBConfig, NodeConfig
from hostler.errors import ConfigError

from ._load import load_callable


@attrs.frozen(kw_only=True)
class Settings:
    """What a node is made from. ``env`` is what its parts read their own settings from."""

    env: Mapping[str, str]
    node: NodeConfig
    bind: str
    grace: Grace
    """What runs in any of the node's parts gets to finish in a drain."""
    overrider: CallOverrider | None = None


def overlay(options: Mapping[str, object]) -> dict[str, str]:
    """The process's environment with ``options`` (by variable; ``None`` = not given) over it.

    So an option and its variable are read by the same code and refused with the same words.
    """
    env = dict(os.environ)
    for variable, value in options.items():
        if value is not None:
            env[variable] = str(value)
    # The command says what the node is; the variable is for Fn's single binary.
    env.pop("FN_NODE_TYPE", None)
    return env


def make_settings(
    options: Mapping[str, object],
    *,
    bind: str | None,
    overrider: str | None,
    grpc: bool = False,
    containers: bool = False,
    local: bool = False,
) -> Settings:
    """``bind`` of ``None`` = all interfaces, or the loopback interface for a ``local`` node, on the
    front end's port or that of gRPC. A node that has ``containers`` removes them within its grace.

    Raises `ConfigError`.
    """
    env = overlay(options)
    node = NodeConfig.from_env(env)
    grace = LBConfig.from_env(env).drain_grace_msecs / 1000
    hook: Any = load_callable(overrider, "--overrider") if overrider else None
    check_overrider(hook, f"--overrider {overrider!r}")
    return Settings(
        env=env,
        node=node,
        bind=bind or f"{'127.0.0.1' if local else ''}:{node.grpc_port if grpc else node.port}",
        grace=Grace.for_all(grace) if containers else Grace(grace),
        overrider=hook,
    )


def pki_of(ca: str | None, cert: str | None, key: str | None) -> PKIData | None:
    """The PEM files, or ``None`` without TLS. Raises `ConfigError` if only some are given."""
    if not (ca or cert or key):
        return None
    if not (ca and cert and key):
        raise ConfigError("TLS needs all three of --tls-ca, --tls-cert and --tls-key")
    return PKIData(ca=ca, key=key, cert=cert)
