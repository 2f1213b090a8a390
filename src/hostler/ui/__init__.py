"""The page at ``/ui``: what a node has and does, for people, and the same as JSON.

_app                 the ASGI application: the page, ``state.json``, ``events``
_assets              the files of ``static/``, and the headers that go with them
_panel               one state document of all that the node knows
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
from ._observed import ObservedAgent
from ._panel import Panel
from ._runners import RunnerLoads

__all__ = [
    "Activity",
    "Directory",
    "Lister",
    "NotedCatalog",
    "ObservedAgent",
    "Panel",
    "RunnerLoads",
    "datastore_lister",
    "table_lister",
    "ui_app",
]
