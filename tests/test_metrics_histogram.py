"""The histogram exposes what prometheus_client's own would."""

from __future__ import annotations

import prometheus_client
from hypothesis import given
from hypothesis import strategies as st

from hostler.metrics import Histogram

BOUNDS = (0.1, 0.5, 1, 10, 250, 60_000, 120_000)
VALUES = st.floats(0, 1000) | st.sampled_from(BOUNDS)


@given(st.lists(st.tuples(st.sampled_from("ab"), VALUES)))
def test_same_samples_as_prometheus_client(observed: list[tuple[str, float]]) -> None:
    ours = Histogram(["label"], BOUNDS)
    theirs = prometheus_client.Histogram("name", "text", ["label"], buckets=BOUNDS, registry=None)
    for label, value in observed:
        ours.series(label).observe(value)
        theirs.labels(label).observe(value)
    (expected,) = theirs.collect()
    metric = ours.metric("name", "text")
    assert (metric.type, metric.name) == (expected.type, expected.name)
    assert [(s.name, s.labels, s.value) for s in metric.samples] == [
        (s.name, s.labels, s.value) for s in expected.samples if not s.name.endswith("_created")
    ]
