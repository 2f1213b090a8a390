from __future__ import annotations

import math

import pytest

from hostler.config import ConfigError, NodeConfig

LB = {
    "FN_NODE_TYPE": "lb",
    "FN_RUNNER_API_URL": "http://api:8080",
    "FN_RUNNER_ADDRESSES": "r1:9190, r2:9190 ,[::1]:9190,",
}


def test_a_full_node_needs_nothing() -> None:
    config = NodeConfig.from_env({"FN_NODE_TYPE": ""})
    assert (config.node_type, config.port, config.grpc_port) == ("full", 8080, 9190)


def test_an_lb() -> None:
    config = NodeConfig.from_env(LB)
    assert config.runner_addresses == ("r1:9190", "r2:9190", "[::1]:9190")


@pytest.mark.parametrize(
    "addresses", ["r1", "r1:0", "r1:1;r2:1", "http://r1:1", "r1:1,r1:1", "dns://r1", "srv://r1:1"]
)
def test_bad_addresses(addresses: str) -> None:
    with pytest.raises(ConfigError) as caught:
        NodeConfig.from_env({**LB, "FN_RUNNER_ADDRESSES": addresses})
    assert str(caught.value) == (
        f"FN_RUNNER_ADDRESSES={addresses!r}: takes host:port, dns://name:port or srv://name, "
        "separated by commas, each once, IPv6 in brackets"
    )


@pytest.mark.parametrize("node_type", ["api", "LB", "Pure-Runner", "runner"])
def test_node_types_in_any_case(node_type: str) -> None:
    assert NodeConfig.from_env({**LB, "FN_NODE_TYPE": node_type}).node_type == node_type.lower()


def test_an_unknown_node_type_is_no_full_node() -> None:
    with pytest.raises(
        ConfigError, match="FN_NODE_TYPE='runners': takes one of full, api, lb, pure"
    ):
        NodeConfig.from_env({"FN_NODE_TYPE": "runners"})


def test_two_listeners_need_two_ports() -> None:
    ports = {"FN_PORT": "9190", "FN_GRPC_PORT": "9190"}
    for node_type in ("pure-runner", "runner"):
        with pytest.raises(ConfigError, match="FN_PORT and FN_GRPC_PORT are both 9190"):
            NodeConfig.from_env({"FN_NODE_TYPE": node_type, **ports})
    assert NodeConfig.from_env({"FN_NODE_TYPE": "api", **ports}).port == 9190
    any_free = {"FN_PORT": "0", "FN_GRPC_PORT": "0"}
    assert NodeConfig.from_env({"FN_NODE_TYPE": "pure-runner", **any_free}).port == 0


@pytest.mark.parametrize(
    ("text", "seconds"), [("0", math.inf), ("0s", math.inf), ("15", 15.0), ("1m", 60.0)]
)
def test_http_timeouts(text: str, seconds: float) -> None:
    assert NodeConfig.from_env({"FN_HTTP_IDLE_TIMEOUT": text}).http_idle_timeout == seconds


@pytest.mark.parametrize("port", ["65536", "-1", "http"])
def test_bad_ports(port: str) -> None:
    with pytest.raises(
        ConfigError, match=f"FN_PORT='{port}': takes a whole number from 0 to 65535"
    ):
        NodeConfig.from_env({"FN_PORT": port})


@pytest.mark.parametrize("url", ["api:8080", "ftp://api", "http://", "http://[::1"])
def test_bad_urls(url: str) -> None:
    with pytest.raises(ConfigError, match=r"FN_RUNNER_API_URL=.*: takes an http or https URL"):
        NodeConfig.from_env({"FN_RUNNER_API_URL": url})


@pytest.mark.parametrize(
    "dest", ["stderr", "udp://log:514", "tcp://[::1]:514", "file:///var/log/fn", "log:514"]
)
def test_log_destinations(dest: str) -> None:
    assert NodeConfig.from_env({"FN_LOG_DEST": dest}).log_dest == dest


@pytest.mark.parametrize("dest", ["stdout", "file://relative", "file:///", "unix://x", "udp://log"])
def test_bad_log_destinations(dest: str) -> None:
    with pytest.raises(ConfigError, match=r"FN_LOG_DEST=.*: takes stderr, udp://host:port"):
        NodeConfig.from_env({"FN_LOG_DEST": dest})
    with pytest.raises(ConfigError, match="FN_LOG_DEST"):
        NodeConfig(log_dest="")


def test_lists_and_levels() -> None:
    config = NodeConfig.from_env({"FN_API_CORS_ORIGINS": " *, http://a ,", "FN_LOG_LEVEL": "DEBUG"})
    assert config.api_cors_origins == ("*", "http://a")
    assert config.log_level == "debug"
