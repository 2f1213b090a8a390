"""``hostler lb``."""

from __future__ import annotations

import os
import sys

import click

from ..config import NO_API_URL, NO_RUNNERS, NodeConfig
from ..errors import ConfigError
from ..functions import load_functions
from ..nodes.settings import pki_of
from .options import (
    bind_option,
    functions_option,
    life_options,
    life_settings,
    make_settings,
    option,
    overrider_option,
    tls_options,
)
from .process import Node, run_node


@click.command()
@functions_option
@option(
    "--api-url",
    help="The node whose API knows the apps and functions: http://host:port. [FN_RUNNER_API_URL]",
)
@option(
    "--runners",
    help="The runners, with commas: host:port, dns://name:port (all addresses of a name) or "
    "srv://name (what its SRV records say). [FN_RUNNER_ADDRESSES]",
)
@option(
    "--placer",
    help="naive, ch (consistent hash), least-loaded, bounded (ch with bounded loads), warm, or "
    "module:attribute of a callable that takes a PlacerConfig and returns a Placer. "
    "[FN_PLACER, default: warm]",
)
@option(
    "--workers",
    type=int,
    help="Processes on the port, to use several cores; 0 = one for each CPU. "
    "[FN_LB_WORKERS, default: 1]",
)
@bind_option("all interfaces")
@tls_options
@option(
    "--tls-name",
    envvar="FN_TLS_NAME",
    default="",
    help="Name in the runners' certificates, if it is not their host name.",
)
@overrider_option
@life_options
def lb(
    functions: str,
    api_url: str | None,
    runners: str | None,
    placer: str | None,
    workers: int | None,
    bind: str | None,
    tls_ca: str | None,
    tls_cert: str | None,
    tls_key: str | None,
    tls_name: str,
    overrider: str | None,
    grace: float | None,
    ready_fd: int | None,
    log_format: str | None,
    log_level: str | None,
) -> None:
    """Front end and load balancer: calls are placed on runners."""
    from ..nodes.workers import LBWorkers, Supervisor, place_in, workers_of

    place = place_in(os.environ)

    def make() -> tuple[NodeConfig, Node]:
        options = {
            **life_settings(log_format, log_level, grace),
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
        if place is None and (count := workers_of(made.node.lb_workers)) > 1:
            crew = LBWorkers(made.bind, made.node.runner_addresses)
            return made.node, Supervisor(settings=made, count=count, crew=crew)

        from ..nodes.lb import LBNode  # (what only supervises has no use for it)

        return made.node, LBNode(
            settings=made,
            runners=made.node.runner_addresses,
            placer=made.node.placer,
            functions=table,
            pki=pki,
            cert_name=tls_name,
            place=place,
        )

    if place is None:
        sys.exit(run_node(make, ready_fd))
    sys.exit(run_node(make, place.ready, place.orders))
