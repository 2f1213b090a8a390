"""The page at ``/ui``: what a node has and does, for people, and the same as JSON.

It shows names, images, states, times and error texts that clients have got as well. It never
shows configurations, headers, bodies or what functions print.

* ``activity``: recent calls and rates: a listener, bounded in memory
* ``aggregate``: one state from what all worker processes tell
* ``app``: page application: assets, events, login
* ``documents``: the page's JSON documents
* ``panel``: the parts of a node that the page shows
* ``seconds``: what happened in each of the last seconds
"""

from .activity import Activity
from .app import login_app, ui_app
from .panel import (
    AskOthers,
    Directory,
    Panel,
    RunnerLoads,
)

__all__ = [
    "Activity",
    "AskOthers",
    "Directory",
    "Panel",
    "RunnerLoads",
    "login_app",
    "ui_app",
]
