"""Traces: what was done for a call, where and for how long, told to a collector.

`open_tracer` makes a `Tracer` from the settings, ``None`` if none is wanted. `traced_app` records
the requests of a front end, `traced_agent` the calls of an LB agent and `traced_runner` those of
a runner's agent. Only ``_export`` knows OpenTelemetry, which is an optional dependency.
"""

from hostler._spans import Span, Tracer

from ._agents import traced_agent, traced_runner
from ._app import traced_app
from ._open import open_tracer

__all__ = ["Span", "Tracer", "open_tracer", "traced_agent", "traced_app", "traced_runner"]
