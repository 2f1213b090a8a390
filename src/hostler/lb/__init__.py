"""The load balancer's side of a call.

* ``agent``: LB agent: admits calls, has them placed, accounts for their end; detached calls
* ``drain``: drain report: what a drain cost and left behind
"""

from .agent import LBAgent, LBStatistics, open_lb_agent
from .drain import DrainReport, Footprint, report_of

__all__ = ["DrainReport", "Footprint", "LBAgent", "LBStatistics", "open_lb_agent", "report_of"]
