"""The load balancer's side of a call.

* ``agent``: LB agent: admits calls, has them placed, accounts for their end; detached calls
* ``drain``: drain report: what a drain cost and left behind
"""

from .agent import LBAgent, LBStatistics, open_lb_agent
from .drain import DrainReport, ResourceUse, report_of

__all__ = ["DrainReport", "LBAgent", "LBStatistics", "ResourceUse", "open_lb_agent", "report_of"]
