"""``hostler runner``."""

from __future__ import annotations

import os
import sys

import click

from ..nodes.lifetime import Node
from ..nodes.parts import check_reach
from .options import (
    DRIVERS,
    LifeOptions,
    TLSOptions,
    file,
    insecure_option,
    keep_alive_option,
    life_options,
    make_settings,
    option,
    overrider_option,
    tls_options,
)
from .process import run_node


@click.command()
@option("--driver", envvar="FN_DRIVER", default="docker", show_default=True, help=DRIVERS)
@keep_alive_option
@option(
    "--bind",
    help="host:port for the runner protocol (gRPC); port 0 = any free port. "
    "[default: all interfaces, FN_GRPC_PORT or 9190]",
)
@option(
    "--http-bind",
    envvar="FN_HTTP_BIND",
    help="host:port for /metrics, /healthz, /readyz, /version and the page. Off by default.",
)
@insecure_option
@option(
    "--workers",
    type=int,
    help="Number of processes, to use several cores; 0 = one for each CPU. Each is a runner of its "
    "own, with its share of the machine. They use the port of --bind and the ports after it. "
    "[FN_RUNNER_WORKERS, default: 1]",
)
@option(
    "--detached/--no-detached",
    envvar="FN_DETACHED",
    default=True,
    show_default=True,
    help="Accept detached calls.",
)
@option(
    "--status-image",
    envvar="FN_STATUS_IMAGE",
    default="",
    help="Image that the runner runs to check its own health. Functions must not use it.",
)
@option(
    "--network-barrier",
    envvar="FN_NETWORK_BARRIER",
    type=file,
    default="",
    help="File that shows that the network is enabled. While it is missing, the status says that "
    "the network is disabled, and the status image runs without a network.",
)
@option(
    "--stream-logs/--no-stream-logs",
    envvar="FN_STREAM_LOGS",
    default=False,
    show_default=True,
    help="Keep the output of functions for log collectors (StreamLogs).",
)
@option(
    "--hooks",
    envvar="FN_RUNNER_HOOKS",
    default="",
    help="module:attribute of a callable that returns hostler.runner.Hooks: a health checker, "
    "and handlers of ConfigureRunner and StreamLogs.",
)
@tls_options
@overrider_option
@life_options
def runner(
    driver: str,
    keep_alive: str | None,
    bind: str | None,
    http_bind: str | None,
    insecure: bool,
    workers: int | None,
    detached: bool,
    status_image: str,
    network_barrier: str,
    stream_logs: bool,
    hooks: str,
    tls: TLSOptions,
    overrider: str | None,
    life: LifeOptions,
) -> None:
    """Run a pure runner: it runs the calls that load balancers place on it.

    If there is no room, a call from a hostler load balancer is refused at once, so that the load
    balancer can try another runner; a call from any other load balancer waits here.
    FN_ENABLE_NB_RESOURCE_TRACKER=true refuses both, false lets both wait.
    """
    from ..nodes.workers import place_in, workers_of

    place = place_in(os.environ)

    def make() -> Node:
        options = {
            **life.variables(),
            "FN_KEEP_ALIVE": keep_alive,
            "FN_RUNNER_WORKERS": workers,
        }
        made = make_settings(options, bind=bind, overrider=overrider, grpc=True, containers=True)
        pki = tls.pki()
        check_reach(
            driver,
            made.bind,
            protected=pki is not None,
            by="mTLS (--tls-ca, --tls-cert, --tls-key)",
            insecure=insecure,
        )
        if place is None and (count := workers_of(made.node.runner_workers)) > 1:
            from ..nodes.workers.runners import RunnersNode

            return RunnersNode(settings=made, http_bind=http_bind, count=count)

        from ..nodes.runner import RunnerNode
        from ..runner import StatusChecks

        return RunnerNode(
            settings=made,
            driver=driver,
            http_bind=http_bind,
            detached=detached,
            checks=StatusChecks(image=status_image, barrier=network_barrier),
            stream_logs=stream_logs,
            hooks=hooks,
            pki=pki,
            place=place,
        )

    sys.exit(run_node(make, life.ready_fd, place))
