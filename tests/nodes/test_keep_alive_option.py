"""Which keep-alive policy a node gets by its name."""

from __future__ import annotations

import pytest

from hostler.abc import KeepAlive
from hostler.config import AgentConfig
from hostler.errors import ConfigError
from hostler.keep_alive import FixedKeepAlive, PredictiveKeepAlive
from hostler.nodes import ServeSettings
from hostler.nodes.extensions import load_extensions
from hostler.nodes.parts import keep_alive_of


def keep_alive(name: str) -> KeepAlive:
    settings = ServeSettings(env={"FN_KEEP_ALIVE": name})
    return keep_alive_of(AgentConfig.from_env(settings.env), load_extensions(settings))


class Own(PredictiveKeepAlive):
    pass


def no_policy(config: AgentConfig) -> AgentConfig:
    return config


def test_policies_have_names_and_may_be_ones_own() -> None:
    assert isinstance(keep_alive("fixed"), FixedKeepAlive)
    own = keep_alive(f"{__name__}:Own")
    assert isinstance(own, Own)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("forever", "FN_KEEP_ALIVE='forever': takes fixed, predictive or module:attribute"),
        (f"{__name__}:no_policy", "must return a KeepAlive, not a AgentConfig"),
        (f"{__name__}:nothing", "has no attribute 'nothing'"),
    ],
)
def test_what_is_no_policy_is_told(name: str, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        keep_alive(name)
