"""The commands and their options."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from hostler.config import NO_API_URL, NO_RUNNERS, NodeConfig
from hostler.errors import ConfigError
from hostler.functions import load_functions

from ._engine import AUTO
from ._errors import tell
from ._init import leave_process_1
from ._life import Node, run_node
from ._node_type import command_of
from ._settings import make_settings, pki_of
from .client import add_client_commands

app = typer.Typer(
    name="hostler",
    help="A runner pool for functions: places calls on runners and keeps containers hot.\n\n"
    "Every setting is a variable FN_…; those that an option sets too are named with it, and the "
    "option wins. A first SIGTERM or SIGINT drains, another one ends at once, if a second later.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        version()
        raise typer.Exit


@app.callback()
def _options(
    wanted: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    pass


Functions = Annotated[
    str,
    typer.Option(
        envvar="FN_FUNCTIONS",
        help="YAML or TOML file that declares the apps, functions and triggers, instead of the "
        "database (serve) or the API (lb).",
    ),
]
_DRIVERS = (
    "What runs functions: docker, process (local processes, no isolation), or module:attribute of "
    "a callable that takes an AgentConfig and returns an async context manager yielding a Driver."
)
Driver = Annotated[str, typer.Option(envvar="FN_DRIVER", help=_DRIVERS)]
ServeDriver = Annotated[
    str,
    typer.Option(
        envvar="FN_DRIVER",
        help=f"{_DRIVERS} auto, for serve only, is docker, or process where there is no engine and "
        "the node listens on the loopback interface only. The default of a runner is docker.",
    ),
]
HttpBind = Annotated[
    str | None,
    typer.Option(
        "--bind",
        help="host:port of the HTTP front end; without a host: all interfaces; port 0: any. "
        "[default: all interfaces, FN_PORT or 8080]",
        show_default=False,
    ),
]
Overrider = Annotated[
    str | None,
    typer.Option(envvar="FN_OVERRIDER", help="module:attribute of a call overrider (hostler.abc)."),
]
Grace = Annotated[
    float | None,
    typer.Option(
        min=0,
        help="Seconds that calls get to finish when the node stops. "
        "[FN_DRAIN_GRACE_MSECS, in milliseconds; default: 30]",
    ),
]
ReadyFd = Annotated[
    int | None,
    typer.Option(help="File descriptor that gets one JSON line with the addresses once ready."),
]
LogFormat = Annotated[str | None, typer.Option(help="text or json. [FN_LOG_FORMAT, default: text]")]
LogLevel = Annotated[
    str | None, typer.Option(help="debug, info, warn or error. [FN_LOG_LEVEL, default: info]")
]
TlsCa = Annotated[
    str | None, typer.Option(envvar="FN_TLS_CA", help="PEM file of the authority to trust.")
]
TlsCert = Annotated[
    str | None, typer.Option(envvar="FN_TLS_CERT", help="PEM file of our certificate.")
]
TlsKey = Annotated[str | None, typer.Option(envvar="FN_TLS_KEY", help="PEM file of our key.")]


KeepAlive = Annotated[
    str | None,
    typer.Option(
        help="How long idle containers stay: fixed (their function's idle timeout), predictive "
        "(where it saves most; they may come ahead of calls), or module:attribute of a callable "
        "that takes an AgentConfig and returns a KeepAlive. [FN_KEEP_ALIVE, default: fixed]"
    ),
]


@app.command()
def serve(
    functions: Functions = "",
    driver: ServeDriver = AUTO,
    keep_alive: KeepAlive = None,
    bind: HttpBind = None,
    overrider: Overrider = None,
    grace: Grace = None,
    ready_fd: ReadyFd = None,
    log_format: LogFormat = None,
    log_level: LogLevel = None,
) -> None:
    """A full node: API, front end and agent in one process.

    Functions run on this machine. They are kept in a database (FN_DB_URL, by default an SQLite
    file in ./data) and managed through /v2, or declared in a file, and then there is no /v2.
    """

    def make() -> tuple[NodeConfig, Node]:
        from ._serve import ServeNode

        options = {**_common(log_format, log_level, grace), "FN_KEEP_ALIVE": keep_alive}
        made = make_settings(options, bind=bind, overrider=overrider)
        table = load_functions(functions) if functions else None
        return made.node, ServeNode(settings=made, driver=driver, functions=table)

    raise typer.Exit(run_node(make, ready_fd))


@app.command()
def lb(
    functions: Functions = "",
    api_url: Annotated[
        str | None,
        typer.Option(
            help="The node whose API knows the apps and functions: http://host:port. "
            "[FN_RUNNER_API_URL]"
        ),
    ] = None,
    runners: Annotated[
        str | None,
        typer.Option(
            help="The runners, with commas: host:port, dns://name:port (all addresses of a name) "
            "or srv://name (what its SRV records say). [FN_RUNNER_ADDRESSES]"
        ),
    ] = None,
    placer: Annotated[
        str | None,
        typer.Option(
            help="naive, ch (consistent hash), least-loaded, bounded (ch with bounded loads), "
            "warm, or module:attribute of a callable that takes a PlacerConfig and returns a "
            "Placer. [FN_PLACER, default: warm]"
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Processes on the port, to use several cores; 0 = one for each CPU. "
            "[FN_LB_WORKERS, default: 1]"
        ),
    ] = None,
    bind: HttpBind = None,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    tls_name: Annotated[
        str | None,
        typer.Option(
            envvar="FN_TLS_NAME", help="Name in the runners' certificates, if not their host."
        ),
    ] = None,
    overrider: Overrider = None,
    grace: Grace = None,
    ready_fd: ReadyFd = None,
    log_format: LogFormat = None,
    log_level: LogLevel = None,
) -> None:
    """Front end and load balancer: calls are placed on runners."""
    from .workers import Supervisor, place_in, workers_of

    place = place_in(os.environ)

    def make() -> tuple[NodeConfig, Node]:
        options = {
            **_common(log_format, log_level, grace),
            "FN_RUNNER_API_URL": api_url,
            "FN_RUNNER_ADDRESSES": runners,
            "FN_PLACER": placer,
            "FN_LB_WORKERS": workers,
        }
        made = make_settings(options, bind=bind, overrider=overrider)
        # Fn's texts; programs that deploy may look for them.
        if not functions and not made.node.runner_api_url:
            raise ConfigError(f"{NO_API_URL} (nor --api-url, nor --functions)")
        if not made.node.runner_addresses:
            raise ConfigError(f"{NO_RUNNERS} (or --runners)")
        table = load_functions(functions) if functions else None
        pki = pki_of(tls_ca, tls_cert, tls_key)
        if place is None and (count := workers_of(made.node)) > 1:
            return made.node, Supervisor(settings=made, count=count)

        from ._lb import LBNode  # (what only supervises has no use for it)

        return made.node, LBNode(
            settings=made,
            runners=made.node.runner_addresses,
            placer=made.node.placer,
            functions=table,
            pki=pki,
            cert_name=tls_name or "",
            place=place,
        )

    if place is None:
        raise typer.Exit(run_node(make, ready_fd))
    raise typer.Exit(run_node(make, place.ready, place.orders))


@app.command()
def api(
    bind: HttpBind = None,
    ready_fd: ReadyFd = None,
    grace: Grace = None,
    log_format: LogFormat = None,
    log_level: LogLevel = None,
) -> None:
    """The API of apps, functions and triggers.

    It serves /v2 over a database (FN_DB_URL), and takes no calls.
    """

    def make() -> tuple[NodeConfig, Node]:
        from ._api import ApiNode

        made = make_settings(_common(log_format, log_level, grace), bind=bind, overrider=None)
        return made.node, ApiNode(settings=made)

    raise typer.Exit(run_node(make, ready_fd))


@app.command()
def runner(
    driver: Driver = "docker",
    keep_alive: KeepAlive = None,
    bind: Annotated[
        str | None,
        typer.Option(
            help="host:port of the runner protocol (gRPC); port 0: any. "
            "[default: all interfaces, FN_GRPC_PORT or 9190]",
            show_default=False,
        ),
    ] = None,
    http_bind: Annotated[
        str | None,
        typer.Option(
            envvar="FN_HTTP_BIND",
            help="host:port for /metrics, /healthz, /readyz and /version; off if unset.",
        ),
    ] = None,
    detached: Annotated[
        bool,
        typer.Option(
            "--detached/--no-detached",
            envvar="FN_DETACHED",
            help="Whether detached calls are taken.",
        ),
    ] = True,
    status_image: Annotated[
        str,
        typer.Option(
            envvar="FN_STATUS_IMAGE",
            help="Image that is run to find out how this runner is; calls must not name it.",
        ),
    ] = "",
    network_barrier: Annotated[
        str,
        typer.Option(
            envvar="FN_NETWORK_BARRIER",
            help="File without which the network counts as disabled: the status says so, and its "
            "image is run without a network.",
        ),
    ] = "",
    stream_logs: Annotated[
        bool,
        typer.Option(
            "--stream-logs/--no-stream-logs",
            envvar="FN_STREAM_LOGS",
            help="Whether the output of functions is kept for log collectors (StreamLogs).",
        ),
    ] = False,
    hooks: Annotated[
        str,
        typer.Option(
            envvar="FN_RUNNER_HOOKS",
            help="module:attribute of a callable that returns hostler.runner.Hooks: a health "
            "checker, handlers of ConfigureRunner and StreamLogs.",
        ),
    ] = "",
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    overrider: Overrider = None,
    grace: Grace = None,
    ready_fd: ReadyFd = None,
    log_format: LogFormat = None,
    log_level: LogLevel = None,
) -> None:
    """A pure runner: runs the calls that load balancers place here.

    A call that finds no room is refused at once, so that its LB can try another runner;
    FN_ENABLE_NB_RESOURCE_TRACKER=false lets it wait here instead.
    """

    def make() -> tuple[NodeConfig, Node]:
        from hostler.runner import StatusChecks

        from ._runner import RunnerNode

        options = {**_common(log_format, log_level, grace), "FN_KEEP_ALIVE": keep_alive}
        made = make_settings(options, bind=bind, overrider=overrider, grpc=True)
        return made.node, RunnerNode(
            settings=made,
            driver=driver,
            http_bind=http_bind,
            detached=detached,
            checks=StatusChecks(image=status_image, barrier=network_barrier),
            stream_logs=stream_logs,
            hooks=hooks,
            pki=pki_of(tls_ca, tls_cert, tls_key),
        )

    raise typer.Exit(run_node(make, ready_fd))


@app.command()
def version() -> None:
    """Print the version."""
    from importlib.metadata import version as installed_version

    typer.echo(installed_version("hostler"))


add_client_commands(app)


def main() -> None:
    """The entry point of the ``hostler`` command.

    Without arguments it is what ``FN_NODE_TYPE`` says, as Fn's server, or shows its help.
    """
    leave_process_1()
    arguments = sys.argv[1:]
    if not arguments:
        try:
            arguments = command_of(os.environ)
        except ConfigError as error:
            tell(str(error))
            sys.exit(1)
    app(arguments)


def _common(
    log_format: str | None, log_level: str | None, grace: float | None
) -> dict[str, object]:
    return {
        "FN_LOG_FORMAT": log_format,
        "FN_LOG_LEVEL": log_level,
        "FN_DRAIN_GRACE_MSECS": None if grace is None else f"{grace * 1000:.0f}",
    }
