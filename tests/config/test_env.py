from __future__ import annotations

import math
from pathlib import Path

import attrs
import pytest

from hostler.cli import app
from hostler.cli.reference import reference_page
from hostler.config import (
    AgentConfig,
    ConfigError,
    EnvConfig,
    LBConfig,
    NodeConfig,
    PlacerConfig,
    PoolConfig,
    RunnerConfig,
    StoreConfig,
    describe,
)

CLASSES = [AgentConfig, LBConfig, NodeConfig, PlacerConfig, PoolConfig, RunnerConfig, StoreConfig]

FN_NAMES = (
    *("FREEZE_IDLE_MSECS", "HOT_POLL_MSECS", "HOT_LAUNCHER_TIMEOUT_MSECS"),
    *("HOT_PULL_TIMEOUT_MSECS", "HOT_START_TIMEOUT_MSECS", "EXECUTION_HEADROOM"),
    *("MAX_RESPONSE_SIZE", "MAX_HDR_RESPONSE_SIZE", "MAX_LOG_SIZE_BYTES", "MAX_TOTAL_CPU_MCPUS"),
    *(
        "MAX_TOTAL_MEMORY_BYTES",
        "MAX_FS_SIZE_MB",
        "MAX_PIDS",
        "MAX_OPEN_FILES",
        "MAX_LOCKED_MEMORY",
    ),
    *("MAX_PENDING_SIGNALS", "MAX_MESSAGE_QUEUE", "EXPERIMENTAL_PREFORK_POOL_SIZE"),
    *("EXPERIMENTAL_PREFORK_IMAGE", "EXPERIMENTAL_PREFORK_CMD"),
    *("EXPERIMENTAL_PREFORK_USE_ONCE", "EXPERIMENTAL_PREFORK_NETWORKS"),
    *("ENABLE_NB_RESOURCE_TRACKER", "MAX_TMPFS_INODES", "DISABLE_READONLY_ROOTFS"),
    *("DISABLE_DEBUG_USER_LOGS", "DISABLE_UNPRIVILEGED_CONTAINERS", "IOFS_PATH"),
    *("IOFS_DOCKER_PATH", "IOFS_TMPFS", "IOFS_OPTS", "CONTAINER_LABEL_TAG", "DOCKER_NETWORKS"),
    *("DOCKER_LOAD_FILE", "IMAGE_CLEAN_MAX_SIZE", "IMAGE_CLEAN_EXEMPT_TAGS"),
    *("IMAGE_ENABLE_VOLUME", "DOCKER_AUTH"),
)
"""The variables of Fn's agent."""

all_classes = pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)


@all_classes
def test_an_empty_environment_gives_the_defaults(cls: type[EnvConfig]) -> None:
    assert cls.from_env({}) == cls()


def test_other_defaults_yield_to_the_environment() -> None:
    def nacks(**env: str) -> bool | str:
        config = AgentConfig.from_env(env, enable_nb_resource_tracker=True)
        return config.enable_nb_resource_tracker

    assert nacks() is True
    assert nacks(FN_ENABLE_NB_RESOURCE_TRACKER="false") is False
    assert nacks(FN_ENABLE_NB_RESOURCE_TRACKER="Auto") == "auto"
    with pytest.raises(ConfigError, match="FN_MAX_PIDS=-1"):
        AgentConfig.from_env({}, max_pids=-1)


@all_classes
def test_a_field_is_its_variable(cls: type[EnvConfig]) -> None:
    for info in describe(cls):
        assert info.variable in ("", f"FN_{info.field.upper()}")


def _rows() -> dict[str, list[str]]:
    """The rows of the reference page, by field."""
    rows = [line.strip("| ").split(" | ") for line in reference_page(app).splitlines()]
    return {row[1].strip("`"): row for row in rows if len(row) == 5}


@all_classes
def test_the_reference_tells_each_default_as_it_is_set(cls: type[EnvConfig]) -> None:
    rows = _rows()
    for field in attrs.fields(cls):
        shown = rows[field.name][3]
        text = {"(none)": "", "no limit": "-1"}.get(shown, shown.strip("`"))
        if field.default not in ("", (), None) and not field.metadata["in_code"]:
            assert getattr(cls.from_env({f"FN_{field.name.upper()}": text}), field.name) == (
                field.default
            )


@all_classes
def test_each_field_has_a_text(cls: type[EnvConfig]) -> None:
    for info in describe(cls):
        assert info.doc.endswith("."), info.field


def test_each_variable_of_fn_is_there() -> None:
    variables = {info.variable for cls in (AgentConfig, LBConfig) for info in describe(cls)}
    assert variables >= {f"FN_{name}" for name in FN_NAMES}


@pytest.mark.parametrize(
    ("variable", "text", "value"),
    [
        ("FN_FREEZE_IDLE_MSECS", " 0\n", 0.0),
        ("FN_FREEZE_IDLE_MSECS", "-1", math.inf),
        ("FN_FREEZE_IDLE_MSECS", "", 50.0),
        ("FN_HOT_POLL_MSECS", "-1", math.inf),
        ("FN_MAX_PIDS", "", 50),
        ("FN_MAX_PIDS", "0", 0),
        ("FN_MAX_OPEN_FILES", "1024", 1024),
        ("FN_ENABLE_NB_RESOURCE_TRACKER", "T", True),
        ("FN_DOCKER_NETWORKS", " a\tb  c ", ("a", "b", "c")),
        ("FN_DOCKER_NETWORKS", "a,b", ("a,b",)),
        ("FN_IOFS_PATH", " /srv/iofs ", "/srv/iofs"),
        ("FN_MAX_TOTAL_MEMORY_BYTES", str(2**64 - 1), 2**64 - 1),
    ],
)
def test_values(variable: str, text: str, value: object) -> None:
    config = AgentConfig.from_env({variable: text})
    assert getattr(config, variable.removeprefix("FN_").lower()) == value


@pytest.mark.parametrize(
    ("variable", "text", "takes"),
    [
        ("FN_FREEZE_IDLE_MSECS", "1s", "whole milliseconds, negative for never"),
        ("FN_HOT_POLL_MSECS", "0", "whole milliseconds over 0, negative for never"),
        ("FN_MAX_PIDS", "-1", "a whole number from 0 to 9223372036854775807"),
        ("FN_MAX_PIDS", "many", "a whole number from 0 to 9223372036854775807"),
        ("FN_MAX_OPEN_FILES", "", "a whole number from 0"),
        ("FN_MAX_LOG_SIZE_BYTES", str(2**63), "a whole number from 0 to 9223372036854775807"),
        ("FN_LAUNCH_CONCURRENCY", "0", "a whole number from 1"),
        ("FN_IOFS_TMPFS", "", "1, t, T, TRUE, true, True or 0, f, F, FALSE, false, False"),
        ("FN_IOFS_TMPFS", "yes", "1, t, T, TRUE, true, True or 0, f, F, FALSE, false, False"),
        ("FN_IOFS_PATH", "relative", "an absolute path, or nothing"),
    ],
)
def test_bad_values_are_named(variable: str, text: str, takes: str) -> None:
    with pytest.raises(ConfigError) as caught:
        AgentConfig.from_env({variable: text})
    assert str(caught.value) == f"{variable}={text!r}: takes {takes}"


def test_values_from_code_are_checked_too() -> None:
    assert AgentConfig(max_open_files=None).max_open_files is None
    for bad in (-1, True, 1.0, "5"):
        with pytest.raises(ConfigError, match=f"FN_MAX_PIDS={bad!r}: takes"):
            AgentConfig(max_pids=bad)  # type: ignore[arg-type]
    for time in (-1.0, math.nan, "1", True):
        with pytest.raises(ConfigError, match="FN_FREEZE_IDLE_MSECS"):
            AgentConfig(freeze_idle_msecs=time)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="FN_DOCKER_NETWORKS"):
        AgentConfig(docker_networks=["a"])  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="min_docker_version=''"):
        AgentConfig(min_docker_version="")


def test_a_file_can_hold_a_value(tmp_path: Path) -> None:
    secret = tmp_path / "auth"
    secret.write_text('{"auths":{}}\n')
    env = {"FN_DOCKER_AUTH_FILE": str(secret)}
    assert AgentConfig.from_env(env).docker_auth == '{"auths":{}}'
    assert AgentConfig.from_env({**env, "FN_DOCKER_AUTH": "{}"}).docker_auth == "{}"


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    with pytest.raises(ConfigError, match=r"FN_DOCKER_AUTH_FILE='.*missing': can't .* No such"):
        AgentConfig.from_env({"FN_DOCKER_AUTH_FILE": str(missing)})
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"FN_DOCKER_AUTH_FILE='.*binary': can't .* no UTF-8"):
        AgentConfig.from_env({"FN_DOCKER_AUTH_FILE": str(binary)})


def test_secrets_are_not_shown() -> None:
    assert "hunter2" not in repr(AgentConfig(docker_auth="hunter2"))
    assert "hunter2" not in repr(StoreConfig(db_url="mysql://root:hunter2@db/fn"))
    with pytest.raises(ConfigError, match=r"FN_DOCKER_AUTH=\(hidden\): takes any text"):
        AgentConfig(docker_auth=b"hunter2")  # type: ignore[arg-type]


def test_the_process_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FN_MAX_PIDS", "7")
    assert AgentConfig.from_env().max_pids == 7


def test_a_config_is_frozen_and_can_be_evolved() -> None:
    config = AgentConfig()
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        config.max_pids = 1  # type: ignore[misc]
    assert attrs.evolve(config, max_pids=1).max_pids == 1
    with pytest.raises(ConfigError):
        attrs.evolve(config, max_pids=-1)


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({"FN_IOFS_OPTS": "size=1m", "FN_IOFS_TMPFS": "0"}, "don't set FN_IOFS_TMPFS=false"),
        ({"FN_IOFS_OPTS": "size=1m"}, None),
        ({"FN_IOFS_OPTS": "size=1m", "FN_IOFS_TMPFS": "1"}, None),
    ],
    ids=["options without tmpfs", "options alone", "options with tmpfs"],
)
def test_agent_settings_together(env: dict[str, str], message: str | None) -> None:
    if message is None:
        AgentConfig.from_env(env)
        return
    with pytest.raises(ConfigError, match=message):
        AgentConfig.from_env(env)


def test_nobody_has_asked_for_a_pool() -> None:
    variable = "FN_EXPERIMENTAL_PREFORK_POOL_SIZE"
    sizes = {
        text: AgentConfig.from_env({variable: text}).experimental_prefork_pool_size
        for text in ("", "0", "3")
    }
    assert sizes == {"": None, "0": 0, "3": 3}
    with pytest.raises(ConfigError, match=f"{variable}='none': takes a whole number"):
        AgentConfig.from_env({variable: "none"})


def test_placer_settings() -> None:
    config = PlacerConfig.from_env({"FN_PLACER_TIMEOUT": "2m", "FN_RETRY_ALL_DELAY": "20ms"})
    assert config == PlacerConfig(placer_timeout=120.0, retry_all_delay=0.02)
    with pytest.raises(ConfigError, match=r"FN_RETRY_MAX_DELAY=0\.5 is under FN_RETRY_ALL_DELAY=1"):
        PlacerConfig(retry_all_delay=1.0)
    for name in ("FN_PLACER_TIMEOUT", "FN_ATTEMPT_TIMEOUT", "FN_RETRY_ALL_DELAY"):
        with pytest.raises(ConfigError, match=f"{name}='0': takes whole seconds or a duration"):
            PlacerConfig.from_env({name: "0"})


def test_lb_settings() -> None:
    assert LBConfig.from_env({"FN_EXECUTION_HEADROOM": "1000"}).execution_headroom == 1000.0
    assert LBConfig.from_env({"FN_DRAIN_GRACE_MSECS": "-1"}).drain_grace_msecs == math.inf
