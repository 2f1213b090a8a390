"""The load balancer's side of a call.

The parts::

    _open        open_lb_agent, and the end of an agent
    _agent       admission, detached calls, drain
    _run         one call: listeners, placement, accounting
    _detached    what is special once a client has only an acknowledgement
    _report      what a drain has cost and left
    _statistics  counters;  _ending  the table of outcomes, pure
"""

from ._agent import LBAgent
from ._open import open_lb_agent
from ._report import DrainReport, Footprint, report_of
from ._statistics import LBStatistics

__all__ = ["DrainReport", "Footprint", "LBAgent", "LBStatistics", "open_lb_agent", "report_of"]
