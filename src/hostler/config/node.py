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

_NODE_TYPE = choice("full", "api", "lb", "pure-runner", "runner")
_PORT = number(high=65_535)
_SIZE = number(high=2**63 - 1)


@attrs.frozen(kw_only=True)
class NodeConfig(EnvConfig):
    """A node as a whole. Times are seconds, ``math.inf`` = no limit (0 in the variable)."""

    node_type: NodeType = setting(_NODE_TYPE, "full")  # noqa: RUF009  (makes a field)
    """Kind of node that ``hostler`` without a command starts; without this setting it starts one
    only if another setting of a node is set. ``runner`` is another word for
    ``pure-runner``. Any other word is an error; Fn takes it for ``full``. Commands such as
    ``hostler lb`` ignore the variable."""

    port: int = setting(_PORT, 8080)
    """TCP port of the HTTP front end; 0 = any free port."""

    grpc_port: int = setting(_PORT, 9190)
    """TCP port of a pure runner; 0 = any free port."""

    http_tls_cert: str = setting(TEXT, "")
    """PEM file of the certificate of the HTTP front end, with its chain, for HTTPS. Needs
    ``FN_HTTP_TLS_KEY``. Changes of the files are followed."""

    http_tls_key: str = setting(TEXT, "")
    """PEM file of that certificate's key."""

    # --- the LB ---

    runner_api_url: str = setting(HTTP_URL, "")
    """URL, without a path, of the API node that an LB asks for apps and functions. The node type
    ``lb`` needs it, unless a file declares the functions."""

    runner_addresses: tuple[str, ...] = setting(TARGETS, ())
    """Runners of an LB, separated by commas; an LB needs them. ``host:port`` is one runner,
    ``dns://name:port`` a runner at each address of a name, ``srv://name`` a runner at each address
    in the SRV records of a name."""

    placer: str = setting(NON_EMPTY, "warm")
    """Name of the placer: ``warm``, ``bounded``, ``least-loaded``, ``ch``, ``naive``, or
    ``module:attribute`` of a placer of your own. Fn's default is ``naive``."""

    lb_workers: int = setting(number(high=256), 1)
    """Number of processes of an LB on its one port, so that it can use several cores; 0 = one for
    each CPU that the LB may use. Each process is a load balancer of its own. The limits of waiting
    calls and of bodies hold for all processes together."""

    public_lb_url: str = setting(HTTP_URL, "")
    """Base URL of the endpoint annotations (none = scheme and host of the request)."""

    # --- the runner ---

    runner_workers: int = setting(number(high=256), 1)
    """Number of processes of a pure runner, so that it can use several cores; 0 = one for each CPU
    that the runner may use. Each process is a runner of its own, on a port of its own and with its
    share of the memory and CPUs."""

    # --- HTTP ---

    max_request_size: int = setting(_SIZE, 6_291_456)
    """Maximum bytes of a request body; 0 = no limit. Fn has no limit by default."""

    replay_limit: int = setting(_SIZE, 1_048_576)
    """Bytes of a streamed request body that the node keeps, so that it can send the call to another
    runner. All kept bodies together have a limit, too (``FN_BODY_MEMORY``). Ours: Fn keeps the
    whole body."""

    max_request_header_size: int = setting(_SIZE, 65_536)
    """Maximum bytes of a request head; 0 = 1 048 576, which is Fn's default."""

    request_header_read_timeout: float = setting(TIME_LIMIT, 5.0)
    """Seconds in which a request head must arrive; 0 = no limit, which is Fn's default for this
    timeout and the next three."""

    request_body_read_timeout: float = setting(TIME_LIMIT, 300.0)
    """Seconds in which a whole request must arrive; 0 = no limit. By default no function may run
    longer than 300 seconds."""

    response_write_timeout: float = setting(TIME_LIMIT, 60.0)
    """Seconds for which a client may take nothing of its response; 0 = no limit. The whole response
    may take any time. Fn's setting limits the whole response."""

    http_idle_timeout: float = setting(TIME_LIMIT, 120.0)
    """Seconds that a connection without a request is kept; 0 = no limit. Set it higher than the
    same timeout of a proxy in front of the node."""

    api_cors_origins: tuple[str, ...] = setting(COMMA_LIST, ())
    """Origins from which browsers may make requests (none = CORS off); ``*`` as the first = all
    origins."""

    api_cors_headers: tuple[str, ...] = setting(COMMA_LIST, ())
    """Headers that browsers may send (none = ``Origin``, ``Content-Length``, ``Content-Type``)."""

    allowed_hosts: tuple[str, ...] = setting(HOST_NAMES, ())
    """Names that ``Host`` may have, beside IP addresses, ``localhost`` and the names in ``--bind``
    and ``FN_PUBLIC_LB_URL``. ``.example.com`` also allows all names below it; ``*`` allows any
    name. If no names are set, a node that only its own machine can reach refuses all other names,
    which keeps web pages away from it. Any other node then accepts all names. Ours."""

    api_token: tuple[str, ...] = setting(TOKENS, (), secret=True)
    """Tokens for the API, the page and ``/logs`` (none = no token needed). A client must send one
    of them (``Authorization: Bearer``). With several tokens you can change them one after the
    other. A load balancer sends the first token to its API, unless ``FN_TOKEN`` is set. Ours."""

    invoke_token: tuple[str, ...] = setting(TOKENS, (), secret=True)
    """Tokens for calls, below ``/invoke`` and ``/t`` (none = no token needed). The tokens of
    ``FN_API_TOKEN`` are valid for calls, too. Functions never see the token. ``hostler invoke``
    sends the first token. Ours."""

    ui: bool = setting(FLAG, True)
    """Whether the node has a page at ``/ui`` that shows its functions and their activity. Without
    an ``FN_API_TOKEN``, anyone who reaches the node's port can see the page. Ours."""

    log_tail_bytes: int = setting(number(high=67_108_864), 0)
    """Bytes of the functions' latest output that the node keeps in memory and shows at ``/logs``; 0
    = off. Output may hold secrets, and without an ``FN_API_TOKEN`` anyone who reaches the node's
    port can read it. 4194304 bytes hold some 20 000 short lines. Ours."""

    rid_header: str = setting(TEXT, "")
    """Request header that carries the request id (none = request ids are off). Fn declares the
    variable but does not use it."""

    # --- logs and traces ---

    log_format: Literal["text", "json"] = setting(choice("text", "json"), "text")
    """Format of log lines."""

    log_level: str = setting(
        choice("trace", "debug", "info", "warn", "warning", "error", "fatal", "panic"), "info"
    )
    """Lowest level that is logged."""

    log_dest: str = setting(LOG_DEST, "stderr")
    """Destination of logs: ``stderr``, ``udp://host:port`` or ``tcp://host:port`` for syslog, or
    ``file:///path``. A bare ``host:port`` means udp."""

    log_queue_lines: int = setting(number(low=1, high=1_000_000), 10_000)
    """Maximum number of lines, and of KiB, that wait for a slow or stuck destination. Further lines
    are dropped and counted, so that nothing ever waits for the log. Ours."""

    log_prefix: str = setting(TEXT, "")
    """Text before each line that goes to syslog."""

    zipkin_url: str = setting(HTTP_URL, "")
    """URL of a Zipkin collector that gets a trace of every request and call (none = off). If the
    URL has no path, the path is ``/api/v2/spans``. Needs the extra ``hostler[tracing]``."""

    jaeger_url: str = setting(HTTP_URL, "")
    """URL of a Jaeger, or of any other collector of OTLP over HTTP, that gets the same traces (none
    = off). If the URL has no path, the path is ``/v1/traces``. Fn's setting is about an older
    protocol of Jaeger, by Thrift."""

    process_collector_list: tuple[str, ...] = setting(WORDS, ("dockerd", "docker-containerd"))
    """Names of other processes on the machine. ``/metrics`` shows their CPU, memory and files as
    ``<name>_process_...``."""

    @property
    def logs_debug(self) -> bool:
        """Whether the log has debug lines."""
        return self.log_level in ("trace", "debug")

    def _check_together(self) -> None:
        if bool(self.http_tls_cert) != bool(self.http_tls_key):
            raise ConfigError("HTTPS needs both FN_HTTP_TLS_CERT and FN_HTTP_TLS_KEY")
        if self.node_type in ("pure-runner", "runner") and self.port == self.grpc_port != 0:
            raise ConfigError(f"FN_PORT and FN_GRPC_PORT are both {self.port}")


@attrs.frozen(kw_only=True)
class BodyConfig(EnvConfig):
    """What the bodies of all calls may take, so that a call can be sent to another runner, and
    a detached one outlives its request. All ours: Fn keeps all bodies in memory, without limit.
    """

    body_memory: int = setting(number(), 256 * 1024 * 1024)
    """Bytes of memory for the bodies of all calls together. Further bodies are kept in files.
    Bodies of up to 64 KiB that arrive at once are counted, but stay in memory."""

    body_spill_size: int = setting(number(), 1024 * 1024)
    """Bytes of one body that are kept in memory. A larger body goes to a temporary file."""

    body_disk: int = setting(number(), 1024 * 1024 * 1024)
    """Bytes of files for the bodies of all calls together; 0 = no files. If there is no more room,
    or the disk is full or takes more than 5 s, a detached call gets a 503 at once. Another call
    gets a 503 instead of another attempt if a runner refuses it after taking some of its body. If
    the disk can't be written for another reason, the answer is a 500."""

    body_dir: str = setting(ABSOLUTE_PATH, "")
    """Directory of these files (none = ``TMPDIR``, or else ``/tmp``), on a local disk. The files
    have no names. They disappear with their calls or with the process."""


@attrs.frozen(kw_only=True)
class ApiConfig(EnvConfig):
    """How apps, functions and triggers are looked up for calls. Times are seconds. Fn has the
    first two times for code only; their variables are ours."""

    token: str = setting(VISIBLE, "", secret=True)
    """Token that the node or client sends to the API, as Fn's client does. Without it, a load
    balancer sends the first token of ``FN_API_TOKEN``."""

    api_timeout: float = setting(SECONDS, 60.0)
    """Seconds that a request to the API may take, including all its attempts."""

    lookup_ttl: float = setting(SECONDS, 5.0)
    """Seconds for which the node uses a looked-up app, function or trigger without asking the API
    again."""

    lookup_max_stale: float = setting(SECONDS, 600.0)
    """Seconds for which the node goes on using it while look-ups fail. Ours."""

    lookup_missing_ttl: float = setting(SECONDS, 1.0)
    """Seconds for which the node does not ask again for something that does not exist. Ours."""

    lookup_size: int = setting(number(low=1), 10_000)
    """Number of apps, functions and triggers that the node remembers, of each kind. Ours."""
