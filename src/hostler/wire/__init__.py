"""The runner protocol over HTTP/2: the only place for asyncio, grpclib and betterproto.

``open_loop`` goes outermost. Within it, an LB makes a `GrpcRunnerClient` per runner, and a runner
serves its `RunnerService` with `open_server`. Everything here is Trio-flavoured::

    _client, _pool, _dial     the LB's end: calls, connections, opening one
    _client_stream, _engage_client   a stream of it, an engagement
    _server, _rpc, _serving   the runner's end: listening, one RPC
    _stream, _connection, _h2   what both share: grpclib's HTTP/2, reachable from Trio tasks
    _trio_side                those that read a plaintext connection
    _shared_stream, _shared_call     many small calls on one stream, and one of them
    _shared_client, _shared_server   the two ends of such a stream
    _codec, _struct           frames to bytes; _runner_pb is generated
    _engage_codec, _load_codec, _envelope   the same by hand, for what each call needs
    _health_client            how a runner tells whether it takes calls
    _tls, _tls_files, _client_names   certificates, new ones without a restart, whose are good
    _status, _loop, _keepalive, _address, _varint
"""

from ._client import GrpcRunnerClient
from ._client_names import certificate_names, refusal_of
from ._keepalive import Keepalive
from ._loop import Loop, open_loop
from ._pool import PoolStatistics
from ._server import SHARED_CALLS, GrpcServer, open_server
from ._tls import client_tls, server_tls
from ._tls_files import TLS, TLSFiles, TLSMetrics

__all__ = [
    "SHARED_CALLS",
    "TLS",
    "GrpcRunnerClient",
    "GrpcServer",
    "Keepalive",
    "Loop",
    "PoolStatistics",
    "TLSFiles",
    "TLSMetrics",
    "certificate_names",
    "client_tls",
    "open_loop",
    "open_server",
    "refusal_of",
    "server_tls",
]
