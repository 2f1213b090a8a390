"""Settings of a node: what it is, where it listens, how it serves HTTP and logs."""

from __future__ import annotations

from typing import Literal

import attrs

from hostler.errors import ConfigError

from ._addresses import HOST_NAMES, HTTP_URL, LOG_DEST, TARGETS
from ._base import EnvConfig, setting
from ._kinds import COMMA_LIST, FLAG, NON_EMPTY, TEXT, TIME_LIMIT, TOKENS, WORDS, choice, number

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
    """What the node is (full): what ``hostler`` without a command starts. ``runner`` is another
    word for ``pure-runner``. Fn takes any other word for ``full``; here it is an error. A command
    is itself what the node is, and skips the variable."""

    port: int = attrs.field(default=8080, metadata=setting(_PORT, "FN_PORT"))
    """TCP port (8080) of the HTTP front end, 0 = any free one."""

    grpc_port: int = attrs.field(default=9190, metadata=setting(_PORT, "FN_GRPC_PORT"))
    """TCP port (9190) of a pure runner, 0 = any free one."""

    # --- the LB ---

    runner_api_url: str = attrs.field(default="", metadata=setting(HTTP_URL, "FN_RUNNER_API_URL"))
    """URL (none) of the API node that an LB asks for apps and functions, without a path; the node
    type ``lb`` needs it, unless functions are declared in a file."""

    runner_addresses: tuple[str, ...] = attrs.field(
        default=(), metadata=setting(TARGETS, "FN_RUNNER_ADDRESSES")
    )
    """The runners (none) of an LB, separated by commas; LBs need them. ``host:port`` is one runner,
    ``dns://name:port`` all addresses of a name, ``srv://name`` all that its SRV records name."""

    placer: str = attrs.field(default="warm", metadata=setting(NON_EMPTY, "FN_PLACER"))
    """Name of the placer (warm): ``warm``, ``bounded``, ``least-loaded``, ``ch``, ``naive``, or
    ``module:attribute`` of one of your own. Fn's default is ``naive``."""

    lb_workers: int = attrs.field(default=1, metadata=setting(number(high=256), "FN_LB_WORKERS"))
    """Processes (1) of an LB on its one port, so that it can use several cores; 0 = one for each
    CPU that it may use. Each is a load balancer of its own; the limits of waiting calls and of
    bodies are those of all together."""

    public_lb_url: str = attrs.field(default="", metadata=setting(HTTP_URL, "FN_PUBLIC_LB_URL"))
    """Base URL of the endpoint annotations ("" = scheme and host of the request)."""

    # --- the runner ---

    runner_workers: int = attrs.field(
        default=1, metadata=setting(number(high=256), "FN_RUNNER_WORKERS")
    )
    """Processes (1) of a pure runner, so that it can use several cores; 0 = one for each CPU that
    it may use. Each is a runner of its own, on a port of its own and with its part of what all
    together may use."""

    # --- HTTP ---

    max_request_size: int = attrs.field(
        default=6_291_456, metadata=setting(_SIZE, "FN_MAX_REQUEST_SIZE")
    )
    """Bytes of a request body (6 291 456), 0 = no limit. Fn has none by default."""

    replay_limit: int = attrs.field(default=1_048_576, metadata=setting(_SIZE, "FN_REPLAY_LIMIT"))
    """Bytes (1 048 576) of a streamed request body that are kept so that the call can be sent to
    another runner, as far as all bodies together have room (``FN_BODY_MEMORY``). Ours: Fn keeps
    the whole body."""

    max_request_header_size: int = attrs.field(
        default=65_536, metadata=setting(_SIZE, "FN_MAX_REQUEST_HEADER_SIZE")
    )
    """Bytes (65 536) of a request head, 0 = 1 048 576. Fn's default is the latter."""

    request_header_read_timeout: float = attrs.field(
        default=5.0, metadata=setting(TIME_LIMIT, "FN_REQUEST_HEADER_READ_TIMEOUT")
    )
    """Seconds (5) in which a request head must have arrived, 0 = no limit. That is Fn's
    default, here and for the next three."""

    request_body_read_timeout: float = attrs.field(
        default=300.0, metadata=setting(TIME_LIMIT, "FN_REQUEST_BODY_READ_TIMEOUT")
    )
    """Seconds (300) in which a whole request must have arrived, 0 = no limit. No function may run
    longer, by default."""

    response_write_timeout: float = attrs.field(
        default=60.0, metadata=setting(TIME_LIMIT, "FN_RESPONSE_WRITE_TIMEOUT")
    )
    """Seconds (60) for which a client may take nothing of its response, 0 = no limit. The time of
    the whole response has no limit, where Fn's setting is about that."""

    http_idle_timeout: float = attrs.field(
        default=120.0, metadata=setting(TIME_LIMIT, "FN_HTTP_IDLE_TIMEOUT")
    )
    """Seconds (120) that a connection without a request is kept, 0 = no limit. Should be more than
    the same time of a proxy before it."""

    api_cors_origins: tuple[str, ...] = attrs.field(
        default=(), metadata=setting(COMMA_LIST, "FN_API_CORS_ORIGINS")
    )
    """Origins that browsers may call from (none = CORS off); first ``*`` = all."""

    api_cors_headers: tuple[str, ...] = attrs.field(
        default=(), metadata=setting(COMMA_LIST, "FN_API_CORS_HEADERS")
    )
    """Headers that browsers may send (none = ``Origin``, ``Content-Length``, ``Content-Type``)."""

    allowed_hosts: tuple[str, ...] = attrs.field(
        default=(), metadata=setting(HOST_NAMES, "FN_ALLOWED_HOSTS")
    )
    """Names by which the node may be asked (none), beside IP addresses, ``localhost`` and the names
    in ``--bind`` and ``FN_PUBLIC_LB_URL``: the names that ``Host`` may have. ``.example.com`` is
    also all names below it, ``*`` any name. None: a node that only its own machine reaches takes no
    others, which keeps web pages away from it; any other node takes all. Ours."""

    api_token: tuple[str, ...] = attrs.field(
        default=(), repr=False, metadata=setting(TOKENS, "FN_API_TOKEN")
    )
    """Tokens, one of which clients have to send (``Authorization: Bearer``) for the API, the page
    and ``/logs`` (none = nobody has to). Several let you change them one after the other. A load
    balancer sends the first to its API unless it has ``FN_TOKEN``. Ours."""

    invoke_token: tuple[str, ...] = attrs.field(
        default=(), repr=False, metadata=setting(TOKENS, "FN_INVOKE_TOKEN")
    )
    """The same for calls, below ``/invoke`` and ``/t`` (none = nobody has to); those of
    ``FN_API_TOKEN`` are as good. A function does not get to see it. ``hostler invoke`` sends
    the first. Ours."""

    ui: bool = attrs.field(default=True, metadata=setting(FLAG, "FN_UI"))
    """Whether there is a page at ``/ui`` (yes) that shows which functions the node has and what
    goes on there, to whoever can reach its port unless there is an ``FN_API_TOKEN``. Ours."""

    log_tail_bytes: int = attrs.field(
        default=0, metadata=setting(number(high=67_108_864), "FN_LOG_TAIL_BYTES")
    )
    """Bytes of what functions have printed last that a node keeps in memory, and shows at ``/logs``
    (0 = off), to whoever can reach its port unless there is an ``FN_API_TOKEN``: output may hold
    secrets. 4194304 is some 20 000 short lines. Ours."""

    rid_header: str = attrs.field(default="", metadata=setting(TEXT, "FN_RID_HEADER"))
    """Request header that carries the request id ("" = request ids are off). Fn declares the
    variable but does not use it."""

    # --- logs and traces ---

    log_format: Literal["text", "json"] = attrs.field(
        default="text", metadata=setting(choice("text", "json"), "FN_LOG_FORMAT")
    )
    """How log lines look (text)."""

    log_level: str = attrs.field(
        default="info",
        metadata=setting(
            choice("trace", "debug", "info", "warn", "warning", "error", "fatal", "panic"),
            "FN_LOG_LEVEL",
        ),
    )
    """Least level that is logged (info)."""

    log_dest: str = attrs.field(default="stderr", metadata=setting(LOG_DEST, "FN_LOG_DEST"))
    """Where logs go (stderr): ``stderr``, ``udp://host:port`` or ``tcp://host:port`` for
    syslog, ``file:///path``; a bare ``host:port`` is udp."""

    log_queue_lines: int = attrs.field(
        default=10_000, metadata=setting(number(low=1, high=1_000_000), "FN_LOG_QUEUE_LINES")
    )
    """Lines (10 000) and KiB that may wait for a destination that is slow or stuck; further lines
    are dropped and counted, so that nothing ever waits for the log. Ours."""

    log_prefix: str = attrs.field(default="", metadata=setting(TEXT, "FN_LOG_PREFIX"))
    """Put before each line that goes to syslog (nothing)."""

    zipkin_url: str = attrs.field(default="", metadata=setting(HTTP_URL, "FN_ZIPKIN_URL"))
    """Zipkin collector that gets a trace of every request and call ("" = off). Of a URL without a
    path the path is ``/api/v2/spans``. Needs the extra ``hostler[tracing]``."""

    jaeger_url: str = attrs.field(default="", metadata=setting(HTTP_URL, "FN_JAEGER_URL"))
    """The same for Jaeger, or any other collector of OTLP over HTTP ("" = off). The default path is
    ``/v1/traces``. Fn's setting is about an older protocol of Jaeger, by Thrift."""

    process_collector_list: tuple[str, ...] = attrs.field(
        default=("dockerd", "docker-containerd"),
        metadata=setting(WORDS, "FN_PROCESS_COLLECTOR_LIST"),
    )
    """Names of processes beside the node (``dockerd docker-containerd``) that ``/metrics`` has CPU,
    memory and files of, as ``<name>_process_...``."""

    @property
    def logs_debug(self) -> bool:
        """Whether the log has debug lines."""
        return self.log_level in ("trace", "debug")

    def _check_together(self) -> None:
        if self.node_type in ("pure-runner", "runner") and self.port == self.grpc_port != 0:
            raise ConfigError(f"FN_PORT and FN_GRPC_PORT are both {self.port}")
