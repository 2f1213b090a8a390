"""The runner protocol over HTTP/2: the only place for asyncio, grpclib and betterproto.

``open_loop`` goes outermost. Within it, an LB makes a `GrpcRunnerClient` per runner, and a runner
serves its `RunnerService` with `open_server`. Everything here is Trio-flavoured.

* ``buffers``: bytes passed on without being copied: pieces, splits, message prefixes
* ``client``: runner client: engagements on streams of their own, status, watches, log streams
* ``codec``: frames as protobuf messages
* ``connection``: grpclib's connection, protocol and stream as both ends need them
* ``connection_pool``: connections to one runner: dialling, slots, renewal after new certificates
* ``http2``: h2's state machine with the differences that the wire needs, flood budgets included
  (h2's private names are used here only)
* ``loop``: the trio-asyncio loop and the one crossing into it
* ``mux``: shared streams (`EngageMany`): many small calls on one stream; figures, and what happens
  without
* ``server``: runner server: listener, served connections, RPC dispatch, drain
* ``serving``: what all RPCs of one server share: the service, gRPC health, and outcomes as gRPC
  statuses
* ``status``: gRPC status numbers and trailers, and how broken streams map to them
* ``tls``: TLS contexts, their reload, and which client names a server accepts
* ``transport``: plaintext connections read and written by Trio tasks (measured; without it
  asyncio's transport)
"""

from .client import GrpcRunnerClient
from .connection import Keepalive
from .connection_pool import ConnectOptions, PoolStatistics
from .loop import Loop, open_loop
from .server import SHARED_CALLS, GrpcServer, ServerOptions, open_server
from .tls import (
    TLS,
    TLSFiles,
    TLSMetrics,
    certificate_names,
    client_tls,
    http_tls,
    refusal_of,
    server_tls,
)

__all__ = [
    "SHARED_CALLS",
    "TLS",
    "ConnectOptions",
    "GrpcRunnerClient",
    "GrpcServer",
    "Keepalive",
    "Loop",
    "PoolStatistics",
    "ServerOptions",
    "TLSFiles",
    "TLSMetrics",
    "certificate_names",
    "client_tls",
    "http_tls",
    "open_loop",
    "open_server",
    "refusal_of",
    "server_tls",
]
