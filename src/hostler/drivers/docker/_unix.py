"""Connections to an engine that may be away.

The library leaves a socket that could not be connected to the garbage collector: while an engine
restarts, that is one for each call. Here such a socket is closed.
"""

from __future__ import annotations

import socket
from typing import Any

import docker
from docker.transport import unixconn

_SCHEME = "http+docker://"
"""What the library mounts its adapter for unix sockets on."""


def close_failed_sockets(client: docker.APIClient) -> None:
    """Has no effect on a client of an engine behind TCP, whose sockets urllib3 closes."""
    library: Any = client.adapters.get(_SCHEME)
    if isinstance(library, unixconn.UnixHTTPAdapter):
        url = f"http+unix://{library.socket_path}"
        adapter: Any = _Adapter
        client.mount(_SCHEME, adapter(url, library.timeout, max_pool_size=library.max_pool_size))


class _Connection(unixconn.UnixHTTPConnection):
    def connect(self) -> None:
        connecting = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connecting.settimeout(self.timeout)
            connecting.connect(self.unix_socket)
        except BaseException:
            connecting.close()
            raise
        self.sock = connecting


class _Pool(unixconn.UnixHTTPConnectionPool):
    def _new_conn(self) -> Any:
        limit: Any = self.timeout
        return _Connection(self.base_url, self.socket_path, limit)


class _Adapter(unixconn.UnixHTTPAdapter):
    def get_connection(self, url: Any, proxies: Any = None) -> _Pool:
        with self.pools.lock:
            pool: _Pool | None = self.pools.get(url)
            if pool is None:
                pool = _Pool(url, self.socket_path, self.timeout, maxsize=self.max_pool_size)
                self.pools[url] = pool
        return pool
