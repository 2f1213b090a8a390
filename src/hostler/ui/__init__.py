"""The page at ``/ui``: what a node has and does, for people, and the same as JSON.

_app                 the ASGI application: the page, ``state.json``, ``events``
_assets              the files of ``static/``, and the headers that go with them
_login               the form for those who have to show a token first
_panel               all that a process knows, and the state document that is made of it
_share               what a process tells, and one state of what several tell
_joint               the page of a node of several processes
_documents           what such a document looks like
_activity            the last calls, and how many there were: fed by each call
_seconds             counts and latencies per second, pure
_catalog             names of functions: those that were looked up, and those that are listed
_observed            the agent whose calls are noted, with what their clients were told
_runners             what runners tell of their load

It shows names, images, states, times and error texts that clients have got as well. It never
shows configurations, headers, bodies or what functions print.
"""

from ._activity import Activity
from ._app import ui_app
from ._catalog import Directory, Lister, NotedCatalog, datastore_lister, table_lister
from ._joint import AskOthers, JointPanel
from ._login import login_app
from ._observed import ObservedAgent
from ._panel import Panel, StateSource
from ._runners import RunnerLoads

__all__ = [
    "Activity",
    "AskOthers",
    "Directory",
    "JointPanel",
    "Lister",
    "NotedCatalog",
    "ObservedAgent",
    "Panel",
    "RunnerLoads",
    "StateSource",
    "datastore_lister",
    "login_app",
    "table_lister",
    "ui_app",
]
