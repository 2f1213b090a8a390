"""Which pulls are tried again, and the delays between them."""

from __future__ import annotations

from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler.config import AgentConfig
from hostler.drivers.docker import (
    FOREVER,
    Backoff,
    EngineError,
    EngineTimeout,
    EngineUnreachable,
    transient_trouble,
)
from hostler.drivers.docker.pulls import pull_backoff
from hostler.errors import ConfigError

MOST = 1 - 2**-53
"""The largest number that a uniform random number in [0, 1) takes."""


def test_default_never_retries() -> None:
    assert list(Backoff().delays()) == []


def test_upper_ends_double() -> None:
    backoff = Backoff(max_retries=4, interval_msec=100, min_delay_msec=50)
    delays = list(backoff.delays(lambda: MOST))
    assert delays == pytest.approx([0.15, 0.35, 0.75, 1.55])
    assert list(backoff.delays(lambda: 0.0)) == [0.05] * 4


def test_forever_has_a_cap() -> None:
    backoff = Backoff(max_retries=FOREVER, interval_msec=1, max_delay_msec=2000)
    delays = list(islice(backoff.delays(lambda: MOST), 3000))
    assert delays[-1] == pytest.approx(2.0)


@given(
    retries=st.integers(0, 200),
    interval=st.integers(1, 10_000),
    low=st.integers(0, 1000),
    extra=st.integers(0, 100_000),
)
def test_delays_stay_within_their_bounds(retries: int, interval: int, low: int, extra: int) -> None:
    backoff = Backoff(
        max_retries=retries,
        interval_msec=interval,
        min_delay_msec=low,
        max_delay_msec=low + extra,
    )
    delays = list(backoff.delays())
    assert len(delays) == retries
    top = (low + extra) / 1000 if low + extra else float("inf")
    assert all(low / 1000 <= delay <= top for delay in delays)


@pytest.mark.parametrize(
    "fields",
    [
        {"max_retries": 1, "interval_msec": 0},
        {"max_delay_msec": 5, "min_delay_msec": 6},
        {"max_retries": -1},
        {"min_delay_msec": -1},
    ],
)
def test_impossible_settings(fields: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        Backoff(**fields)


def test_settings() -> None:
    backoff = pull_backoff(AgentConfig(image_pull_retries=2, image_pull_retry_interval_msecs=100))
    assert list(backoff.delays(lambda: MOST)) == pytest.approx([0.1, 0.3])
    assert list(pull_backoff(AgentConfig(image_pull_retries=0)).delays()) == []
    longest = list(pull_backoff(AgentConfig()).delays(lambda: MOST))
    assert longest == pytest.approx([0.5, 1.5, 3.5, 7.5, 10])


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        ("too many requests", "toomanyrequests: slow down"),
        ("too many requests", "Error response: 429 Too Many Requests"),
        ("registry error", "received unexpected HTTP status: 503 Service Unavailable"),
        ("registry error", 'error parsing HTTP 502 response body: "bad gw"'),
        ("registry error", "unavailable: later"),
        ("registry error", "unexpected status code 500 Internal Server Error"),
        ("connection", 'Get "http://127.0.0.1:1/v2/": dial tcp: connect: connection refused'),
        ("connection", "read tcp 1.2.3.4:5->6.7.8.9:443: read: connection reset by peer"),
        ("connection", 'Head "http://r/v2/fn/manifests/v1": EOF'),
        ("connection", "unexpected EOF"),
        ("connection", 'Get "https://r/v2/": net/http: TLS handshake timeout'),
        ("connection", "dial tcp 1.2.3.4:443: i/o timeout"),
        ("connection", "net/http: request canceled (Client.Timeout exceeded while awaiting)"),
        ("connection", "lookup r.io on 1.1.1.1:53: server misbehaving"),
        ("", "pull access denied for x, repository does not exist: denied: no"),
        ("", "manifest for r/x:v1 not found: manifest unknown: manifest unknown"),
        ("", "unauthorized: authentication required"),
        ("", "dial tcp: lookup nowhere.invalid on 1.1.1.1:53: no such host"),
        ("", "tls: failed to verify certificate: x509: certificate signed by unknown authority"),
        ("", "write /var/lib/docker/tmp/x: no space left on device"),
        ("", "missing or empty Content-Type header"),
        ("", "filesystem layer verification failed for digest sha256:500500"),
        ("", "no such thing"),
    ],
)
def test_what_is_tried_again(reason: str, text: str) -> None:
    """The texts are Docker's, most of them seen."""
    assert transient_trouble(EngineError("pull image", text, 500)) == (bool(reason), reason)
    assert transient_trouble(EngineError("pull image", text)) == (bool(reason), reason)


def test_the_status_decides_if_it_says_more() -> None:
    assert transient_trouble(EngineError("pull image", "slow down", 429))[0]
    assert not transient_trouble(EngineError("pull image", "unexpected EOF", 404))[0]
    assert transient_trouble(EngineUnreachable("pull image", "gone")) == (True, "engine")
    assert not transient_trouble(EngineTimeout("pull image", "the engine did not answer"))[0]
    assert not transient_trouble(ValueError("toomanyrequests"))[0]
