"""A client of the API: a `hostler.datastore.Datastore` that is somewhere else; and of functions.

The only httpx.
"""

from __future__ import annotations

from ._calls import Answer, authorization, open_request
from ._client import ApiClient, open_api_client
from ._errors import ApiUnavailable, is_foreign, message_of

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
