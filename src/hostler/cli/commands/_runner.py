"""``hostler runner``."""

from __future__ import annotations

import sys

import click

from hostler.config import NodeConfig

from .._life import Node, run_node
from .._settings import make_settings, pki_of
from ._options import (
    DRIVERS,
    file,
    keep_alive_option,
    life_options,
    life_settings,
    option,
    overrider_option,
    tls_options,
)


@click.command()
@option("--driver", envvar="FN_DRIVER", default="docker", show_default=True, help=DRIVERS)
@keep_alive_option
@option(
    "--bind",
    help="host:port of the runner protocol (gRPC); port 0: any. "
    "[default: all interfaces, FN_GRPC_PORT or 9190]",
)
@option(
    "--http-bind",
    envvar="FN_HTTP_BIND",
    help="host:port for /metrics, /healthz, /readyz and /version; off if unset.",
)
@option(
    "--detached/--no-detached",
    envvar="FN_DETACHED",
    default=True,
    show_default=True,
    help="Whether detached calls are taken.",
)
@option(
    "--status-image",
    envvar="FN_STATUS_IMAGE",
    default="",
    help="Image that is run to find out how this runner is; calls must not name it.",
)
@option(
    "--network-barrier",
    envvar="FN_NETWORK_BARRIER",
    type=file,
    default="",
    help="File without which the network counts as disabled: the status says so, and its image "
    "is run without a network.",
)
@option(
    "--stream-logs/--no-stream-logs",
    envvar="FN_STREAM_LOGS",
    default=False,
    show_default=True,
    help="Whether the output of functions is kept for log collectors (StreamLogs).",
)
@option(
    "--hooks",
    envvar="FN_RUNNER_HOOKS",
    default="",
    help="module:attribute of a callable that returns hostler.runner.Hooks: a health checker, "
    "handlers of ConfigureRunner and StreamLogs.",
)
@tls_options
@overrider_option
@life_options
def runner(
    driver: str,
    keep_alive: str | None,
    bind: str | None,
    http_bind: str | None,
    detached: bool,
    status_image: str,
    network_barrier: str,
    stream_logs: bool,
    hooks: str,
    tls_ca: str | None,
    tls_cert: str | None,
    tls_key: str | None,
    overrider: str | None,
    grace: float | None,
    ready_fd: int | None,
    log_format: str | None,
    log_level: str | None,
) -> None:
    """A pure runner: runs the calls that load balancers place here.

    A call that finds no room is refused at once, so that its LB can try another runner;
    FN_ENABLE_NB_RESOURCE_TRACKER=false lets it wait here instead.
    """

    def make() -> tuple[NodeConfig, Node]:
        from hostler.runner import StatusChecks

        from .._runner import RunnerNode

        options = {**life_settings(log_format, log_level, grace), "FN_KEEP_ALIVE": keep_alive}
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

    sys.exit(run_node(make, ready_fd))
