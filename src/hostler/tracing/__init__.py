"""Traces: what was done for a call, where and for how long, told to a collector.

`open_tracer` makes a `Tracer` from the settings, ``None`` if none is wanted. `traced_app` records
the requests of a front end, the call listener `PlaceSpans` the calls of an LB agent, and
`RunSpans` those of a runner's agent. Only ``export`` knows OpenTelemetry, which is an optional
dependency.

* ``export``: exporters: OTLP and Zipkin (the only OpenTelemetry)
* ``listeners``: spans of requests and calls, as middleware and call listeners
* ``open``: a tracer from the settings; loads OpenTelemetry only if one is wanted
"""

from .._spans import Span, Tracer
from .listeners import PlaceSpans, RunSpans, traced_app
from .open import open_tracer

__all__ = ["PlaceSpans", "RunSpans", "Span", "Tracer", "open_tracer", "traced_app"]
