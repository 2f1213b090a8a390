"""A client of the API, which is a `hostler.datastore.Datastore`, and of functions.

The only httpx.

* ``calls``: calls of functions over HTTP
* ``client``: the API as a datastore: requests, retries, errors
"""

from __future__ import annotations

from .calls import Answer, ApiUnavailable, authorization, is_foreign, message_of, open_request
from .client import ApiClient, open_api_client

__all__ = [
    "Answer",
    "ApiClient",
    "ApiUnavailable",
    "authorization",
    "is_foreign",
    "message_of",
    "open_api_client",
    "open_request",
]
