"""A client of the API: a `hostler.datastore.Datastore` that is somewhere else. The only httpx."""

from __future__ import annotations

from ._client import ApiClient, open_api_client
from ._errors import ApiUnavailable

__all__ = ["ApiClient", "ApiUnavailable", "open_api_client"]
