"""Settings of a node: listening, HTTP, logs, tokens, bodies, function lookup."""

from __future__ import annotations

from typing import Literal

import attrs

from ..errors import ConfigError
from .addresses import HOST_NAMES, HTTP_URL, LOG_DEST, TARGETS
from .base import (
    ABSOLUTE_PATH,
    COMMA_LIST,
    FLAG,
    NON_EMPTY,
    SECONDS,
    TEXT,
    TIME_LIMIT,
    TOKENS,
    VISIBLE,
    WORDS,
    EnvConfig,
    choice,
    number,
    setting,
)

NodeType = Literal["full", "api", "lb", "pure-runner", "runner"]

NO_API_URL = "no FN_RUNNER_API_URL provided for an Fn NuLB node"

NO_RUNNERS = "must provide FN_RUNNER_ADDRESSES  when running in default load-balanced mode"
"""What an LB node says that lacks them, in Fn's words."""

_PORT = number(high=65_535)

_SIZE = number(high=2**63 - 1)


@attrs.frozen(kw_only=True)
class NodeConfig(EnvConfig):
    """A node as a whole. Times are seconds, ``math.inf`` = no limit (0 in the variable)."""

    node_type: NodeType = attrs.field(
        default="full",
        metadata=setting(choice("full", "api", "lb", "pure-runner", "runner"), "FN_NODE_TYPE"),
    )
    """Kind of node (full) that ``hostler`` without a command starts. ``runner`` is another word for
    ``pure-runner``. Any other word is an error; Fn takes it for ``full``. Commands such as
    ``hostler lb`` ignore the variable."""

    port: int = attrs.field(default=8080, metadata=setting(_PORT, "FN_PORT"))
    """TCP port (8080) of the HTTP front end; 0 = any free port."""

    grpc_port: int = attrs.field(default=9190, metadata=setting(_PORT, "FN_GRPC_PORT"))
    """TCP port (9190) of a pure runner; 0 = any free port."""

    # --- the LB ---

    runner_api_url: str = attrs.field(default="", metadata=setting(HTTP_URL, "FN_RUNNER_API_URL"))
    """URL (none), without a path, of the API node that an LB asks for apps and functions. The node
    type ``lb`` needs it, unless a file declares the functions."""

    runner_addresses: tuple[str, ...] = attrs.field(
        default=(), metadata=setting(TARGETS, "FN_RUNNER_ADDRESSES")
    )
    """Runners (none) of an LB, separated by commas; an LB needs them. ``host:port`` is one runner,
    ``dns://name:port`` a runner at each address of a name, ``srv://name`` a runner at each address
    in the SRV records of a name."""

    placer: str = attrs.field(default="warm", metadata=setting(NON_EMPTY, "FN_PLACER"))
    """Name of the placer (warm): ``warm``, ``bounded``, ``least-loaded``, ``ch``, ``naive``, or
    ``module:attribute`` of a placer of your own. Fn's default is ``naive``."""

    lb_workers: int = attrs.field(default=1, metadata=setting(number(high=256), "FN_LB_WORKERS"))
    """Number of processes (1) of an LB on its one port, so that it can use several cores; 0 = one
    for each CPU that the LB may use. Each process is a load balancer of its own. The limits of
    waiting calls and of bodies hold for all processes together."""

    public_lb_url: str = attrs.field(default="", metadata=setting(HTTP_URL, "FN_PUBLIC_LB_URL"))
    """Base URL of the endpoint annotations ("" = scheme and host of the request)."""

    # --- the runner ---

    runner_workers: int = attrs.field(
        default=1, metadata=setting(number(high=256), "FN_RUNNER_WORKERS")
    )
    """Number of processes (1) of a pure runner, so that it can use several cores; 0 = one for each
    CPU that the runner may use. Each process is a runner of its own, on a port of its own and with
    its share of the memory and CPUs."""

    # --- HTTP ---

    max_request_size: int = attrs.field(
        default=6_291_456, metadata=setting(_SIZE, "FN_MAX_REQUEST_SIZE")
    )
    """Maximum bytes of a request body (6 291 456); 0 = no limit. Fn has no limit by default."""

    replay_limit: int = attrs.field(default=1_048_576, metadata=setting(_SIZE, "FN_REPLAY_LIMIT"))
    """Bytes (1 048 576) of a streamed request body that the node keeps, so that it can send the
    call to another runner. All kept bodies together have a limit, too (``FN_BODY_MEMORY``). Ours:
    Fn keeps the whole body."""

    max_request_header_size: int = attrs.field(
        default=65_536, metadata=setting(_SIZE, "FN_MAX_REQUEST_HEADER_SIZE")
    )
    """Maximum bytes (65 536) of a request head; 0 = 1 048 576, which is Fn's default."""

    request_header_read_timeout: float = attrs.field(
        default=5.0, metadata=setting(TIME_LIMIT, "FN_REQUEST_HEADER_READ_TIMEOUT")
    )
    """Seconds (5) in which a request head must arrive; 0 = no limit, which is Fn's default for this
    timeout and the next three."""

    request_body_read_timeout: float = attrs.field(
        default=300.0, metadata=setting(TIME_LIMIT, "FN_REQUEST_BODY_READ_TIMEOUT")
    )
    """Seconds (300) in which a whole request must arrive; 0 = no limit. By default no function may
    run longer than 300 seconds."""

    response_write_timeout: float = attrs.field(
        default=60.0, metadata=setting(TIME_LIMIT, "FN_RESPONSE_WRITE_TIMEOUT")
    )
    """Seconds (60) for which a client may take nothing of its response; 0 = no limit. The whole
    response may take any time. Fn's setting limits the whole response."""

    http_idle_timeout: float = attrs.field(
        default=120.0, metadata=setting(TIME_LIMIT, "FN_HTTP_IDLE_TIMEOUT")
    )
    """Seconds (120) that a connection without a request is kept; 0 = no limit. Set it higher than
    the same timeout of a proxy in front of the node."""

    api_cors_origins: tuple[str, ...] = attrs.field(
        default=(), metadata=setting(COMMA_LIST, "FN_API_CORS_ORIGINS")
    )
    """Origins from which browsers may make requests (none = CORS off); ``*`` as the first = all
    origins."""

    api_cors_headers: tuple[str, ...] = attrs.field(
        default=(), metadata=setting(COMMA_LIST, "FN_API_CORS_HEADERS")
    )
    """Headers that browsers may send (none = ``Origin``, ``Content-Length``, ``Content-Type``)."""

    allowed_hosts: tuple[str, ...] = attrs.field(
        default=(), metadata=setting(HOST_NAMES, "FN_ALLOWED_HOSTS")
    )
    """Names (none) that ``Host`` may have, beside IP addresses, ``localhost`` and the names in
    ``--bind`` and ``FN_PUBLIC_LB_URL``. ``.example.com`` also allows all names below it; ``*``
    allows any name. If no names are set, a node that only its own machine can reach refuses all
    other names, which keeps web pages away from it. Any other node then accepts all names. Ours."""

    api_token: tuple[str, ...] = attrs.field(
        default=(), repr=False, metadata=setting(TOKENS, "FN_API_TOKEN")
    )
    """Tokens for the API, the page and ``/logs`` (none = no token needed). A client must send one
    of them (``Authorization: Bearer``). With several tokens you can change them one after the
    other. A load balancer sends the first token to its API, unless ``FN_TOKEN`` is set. Ours."""

    invoke_token: tuple[str, ...] = attrs.field(
        default=(), repr=False, metadata=setting(TOKENS, "FN_INVOKE_TOKEN")
    )
    """Tokens for calls, below ``/invoke`` and ``/t`` (none = no token needed). The tokens of
    ``FN_API_TOKEN`` are valid for calls, too. Functions never see the token. ``hostler invoke``
    sends the first token. Ours."""

    ui: bool = attrs.field(default=True, metadata=setting(FLAG, "FN_UI"))
    """Whether the node has a page at ``/ui`` (yes) that shows its functions and their activity.
    Without an ``FN_API_TOKEN``, anyone who reaches the node's port can see the page. Ours."""

    log_tail_bytes: int = attrs.field(
        default=0, metadata=setting(number(high=67_108_864), "FN_LOG_TAIL_BYTES")
    )
    """Bytes of the functions' latest output that the node keeps in memory and shows at ``/logs``; 0
    (default) = off. Output may hold secrets, and without an ``FN_API_TOKEN`` anyone who reaches the
    node's port can read it. 4194304 bytes hold some 20 000 short lines. Ours."""

    rid_header: str = attrs.field(default="", metadata=setting(TEXT, "FN_RID_HEADER"))
    """Request header that carries the request id ("" = request ids are off). Fn declares the
    variable but does not use it."""

    # --- logs and traces ---

    log_format: Literal["text", "json"] = attrs.field(
        default="text", metadata=setting(choice("text", "json"), "FN_LOG_FORMAT")
    )
    """Format of log lines (text)."""

    log_level: str = attrs.field(
        default="info",
        metadata=setting(
            choice("trace", "debug", "info", "warn", "warning", "error", "fatal", "panic"),
            "FN_LOG_LEVEL",
        ),
    )
    """Lowest level that is logged (info)."""

    log_dest: str = attrs.field(default="stderr", metadata=setting(LOG_DEST, "FN_LOG_DEST"))
    """Destination of logs (stderr): ``stderr``, ``udp://host:port`` or ``tcp://host:port`` for
    syslog, or ``file:///path``. A bare ``host:port`` means udp."""

    log_queue_lines: int = attrs.field(
        default=10_000, metadata=setting(number(low=1, high=1_000_000), "FN_LOG_QUEUE_LINES")
    )
    """Maximum number of lines (10 000), and of KiB, that wait for a slow or stuck destination.
    Further lines are dropped and counted, so that nothing ever waits for the log. Ours."""

    log_prefix: str = attrs.field(default="", metadata=setting(TEXT, "FN_LOG_PREFIX"))
    """Text (none) before each line that goes to syslog."""

    zipkin_url: str = attrs.field(default="", metadata=setting(HTTP_URL, "FN_ZIPKIN_URL"))
    """URL of a Zipkin collector that gets a trace of every request and call ("" = off). If the URL
    has no path, the path is ``/api/v2/spans``. Needs the extra ``hostler[tracing]``."""

    jaeger_url: str = attrs.field(default="", metadata=setting(HTTP_URL, "FN_JAEGER_URL"))
    """URL of a Jaeger, or of any other collector of OTLP over HTTP, that gets the same traces ("" =
    off). If the URL has no path, the path is ``/v1/traces``. Fn's setting is about an older
    protocol of Jaeger, by Thrift."""

    process_collector_list: tuple[str, ...] = attrs.field(
        default=("dockerd", "docker-containerd"),
        metadata=setting(WORDS, "FN_PROCESS_COLLECTOR_LIST"),
    )
    """Names of other processes on the machine (``dockerd docker-containerd``). ``/metrics`` shows
    their CPU, memory and files as ``<name>_process_...``."""

    @property
    def logs_debug(self) -> bool:
        """Whether the log has debug lines."""
        return self.log_level in ("trace", "debug")

    def _check_together(self) -> None:
        if self.node_type in ("pure-runner", "runner") and self.port == self.grpc_port != 0:
            raise ConfigError(f"FN_PORT and FN_GRPC_PORT are both {self.port}")


@attrs.frozen(kw_only=True)
class BodyConfig(EnvConfig):
    """What the bodies of all calls may take, so that a call can be sent to another runner, and
    a detached one outlives its request. All ours: Fn keeps all bodies in memory, without limit.
    """

    body_memory: int = attrs.field(
        default=256 * 1024 * 1024, metadata=setting(number(), "FN_BODY_MEMORY")
    )
    """Bytes (268 435 456) of memory for the bodies of all calls together. Further bodies are kept
    in files. Bodies of up to 64 KiB that arrive at once are counted, but stay in memory."""

    body_spill_size: int = attrs.field(
        default=1024 * 1024, metadata=setting(number(), "FN_BODY_SPILL_SIZE")
    )
    """Bytes (1 048 576) of one body that are kept in memory. A larger body goes to a temporary
    file."""

    body_disk: int = attrs.field(
        default=1024 * 1024 * 1024, metadata=setting(number(), "FN_BODY_DISK")
    )
    """Bytes (1 073 741 824) of files for the bodies of all calls together; 0 = no files. If there
    is no more room, or the disk is full or takes more than 5 s, a detached call gets a 503 at once.
    Another call gets a 503 instead of another attempt if a runner refuses it after taking some of
    its body. If the disk can't be written for another reason, the answer is a 500."""

    body_dir: str = attrs.field(default="", metadata=setting(ABSOLUTE_PATH, "FN_BODY_DIR"))
    """Directory of these files ("" = ``TMPDIR``, or else ``/tmp``), on a local disk. The files have
    no names. They disappear with their calls or with the process."""


@attrs.frozen(kw_only=True)
class ApiConfig(EnvConfig):
    """How apps, functions and triggers are looked up for calls. Times are seconds. Fn has the
    first two times for code only; their variables are ours."""

    token: str = attrs.field(default="", repr=False, metadata=setting(VISIBLE, "FN_TOKEN"))
    """Token that the node or client sends to the API, as Fn's client does ("" = none, but a load
    balancer then sends the first token of ``FN_API_TOKEN``)."""

    api_timeout: float = attrs.field(default=60.0, metadata=setting(SECONDS, "FN_API_TIMEOUT"))
    """Seconds (60) that a request to the API may take, including all its attempts."""

    lookup_ttl: float = attrs.field(default=5.0, metadata=setting(SECONDS, "FN_LOOKUP_TTL"))
    """Seconds (5) for which the node uses a looked-up app, function or trigger without asking the
    API again."""

    lookup_max_stale: float = attrs.field(
        default=600.0, metadata=setting(SECONDS, "FN_LOOKUP_MAX_STALE")
    )
    """Seconds (600) for which the node goes on using it while look-ups fail. Ours."""

    lookup_missing_ttl: float = attrs.field(
        default=1.0, metadata=setting(SECONDS, "FN_LOOKUP_MISSING_TTL")
    )
    """Seconds (1) for which the node does not ask again for something that does not exist. Ours."""

    lookup_size: int = attrs.field(
        default=10_000, metadata=setting(number(low=1), "FN_LOOKUP_SIZE")
    )
    """Number of apps, functions and triggers (10 000 of each) that the node remembers. Ours."""
