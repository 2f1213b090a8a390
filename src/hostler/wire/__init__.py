"""The runner protocol over HTTP/2: the only place for asyncio, grpclib and betterproto.

``open_loop`` goes outermost. Within it, an LB makes a `GrpcRunnerClient` per runner, and a runner
serves its `RunnerService` with `open_server`. Everything here is Trio-flavoured::

    _client, _pool, _dial     the LB's end: calls, connections, opening one
    _server, _rpc             the runner's end: listening, one RPC
    _stream, _connection      what both share: grpclib's HTTP/2, reachable from Trio tasks
    _codec, _struct           frames to bytes; _runner_pb is generated
    _engage_codec             the same by hand, for the frames of Engage
    _health_client            how a runner tells whether it takes calls
    _tls, _tls_files          certificates, and new ones without a restart
    _status, _loop, _address, _varint
"""

from ._client import GrpcRunnerClient
from ._connection import Keepalive
from ._loop import Loop, open_loop
from ._pool import PoolStatistics
from ._server import GrpcServer, open_server
from ._tls import client_tls, server_tls
from ._tls_files import TLS, TLSFiles, TLSMetrics

__all__ = [
    "TLS",
    "GrpcRunnerClient",
    "GrpcServer",
    "Keepalive",
    "Loop",
    "PoolStatistics",
    "TLSFiles",
    "TLSMetrics",
    "client_tls",
    "open_loop",
    "open_server",
    "server_tls",
]
