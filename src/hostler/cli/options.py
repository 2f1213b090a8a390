"""Options that several nodes have, and their number types."""

from __future__ import annotations

import functools
import inspect
import math
import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

import attrs
import click

from ..abc import PKIData
from ..nodes.settings import pki_of


class CountType(click.IntRange):
    """From 0 to ``most``."""

    name = "integer"

    def __init__(self, most: int | None = None) -> None:
        super().__init__(min=0, max=most)


class SecondsType(click.FloatRange):
    """From 0. "nan" and "inf" are none."""

    name = "number"

    def __init__(self) -> None:
        super().__init__(min=0)

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        seconds = float(super().convert(value, param, ctx))
        if not math.isfinite(seconds):
            self.fail(f"{value!r} is not a valid number.", param, ctx)
        return seconds


_Function = TypeVar("_Function", bound=Callable[..., Any])


def together(
    *options: Callable[[Callable[..., Any]], Callable[..., Any]],
) -> Callable[[_Function], _Function]:
    """A decorator for all of them, in the order of the help."""

    def decorate(function: _Function) -> _Function:
        for each in reversed(options):
            each(function)
        return function

    return decorate


def bundle(
    kind: type[Any], name: str, *options: Callable[[Callable[..., Any]], Callable[..., Any]]
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator for ``options``, whose values a command gets as one ``kind`` (an attrs class
    with a field for each), in its parameter ``name``."""
    fields = [field.name for field in attrs.fields(kind)]

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def bundled(**given: Any) -> Any:
            bundled_options = kind(**{field: given.pop(field) for field in fields})
            return function(**given, **{name: bundled_options})

        # The signature names the options, as that of any command does.
        own = inspect.signature(function)
        others = [each for each in own.parameters.values() if each.name != name]
        of_options = [inspect.Parameter(field, inspect.Parameter.KEYWORD_ONLY) for field in fields]
        bundled.__signature__ = own.replace(parameters=[*others, *of_options])  # type: ignore[attr-defined]
        return together(*options)(bundled)

    return decorate


option = partial(click.option, show_envvar=True)
"""Tells of its variable in the help."""

file = click.Path(readable=False)
"""Shells complete it; whether it is there, and can be read, is found out by who reads it."""

functions_option = option(
    "--functions",
    envvar="FN_FUNCTIONS",
    type=file,
    default="",
    help="YAML or TOML file that declares apps, functions and triggers. Replaces the database "
    "(serve) or the API (lb).",
)

_DRIVERS = (
    "Driver that runs functions: docker, process (local processes, no isolation), or "
    "module:attribute of a callable that takes an AgentConfig and returns an async context manager "
    "that yields a Driver."
)


def bind_option(default: str) -> Callable[[_Function], _Function]:
    """``default`` says on which interfaces it listens if it is not given."""
    return option(
        "--bind",
        envvar="FN_HTTP_BIND",
        help="host:port for HTTP. No host = all interfaces; port 0 = any free port. "
        f"[default: {default}, FN_PORT or 8080]",
    )


insecure_option = option(
    "--insecure/--no-insecure",
    envvar="FN_INSECURE",
    default=False,
    help="Allow other machines to reach the process driver without a token (serve) or mTLS "
    "(runner). Anyone who can reach the port can then run programs on this machine.",
)


@attrs.frozen
class ContainerOptions:
    """The driver, and how long it keeps containers; see `container_options`."""

    driver: str
    keep_alive: str | None


def container_options(
    default: str, about_default: str = ""
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """``default`` is the driver if none is given."""
    return bundle(
        ContainerOptions,
        "containers",
        option(
            "--driver",
            envvar="FN_DRIVER",
            default=default,
            show_default=True,
            help=f"{_DRIVERS} {about_default}".strip(),
        ),
        option(
            "--keep-alive",
            help="How long idle containers are kept: fixed (for their function's idle timeout), "
            "predictive (where that saves most; containers may also start ahead of calls), or "
            "module:attribute of a callable that takes an AgentConfig and returns a KeepAlive. "
            "[env var: FN_KEEP_ALIVE; default: fixed]",
        ),
    )


@attrs.frozen
class TLSOptions:
    """PEM files of a node; see `tls_options`."""

    tls_ca: str | None
    tls_cert: str | None
    tls_key: str | None

    def pki(self) -> PKIData | None:
        """``None`` without TLS. Raises `ConfigError` if only some files are given."""
        return pki_of(self.tls_ca, self.tls_key, self.tls_cert)


pem_options = together(
    option(
        "--tls-ca",
        envvar="FN_TLS_CA",
        type=file,
        help="PEM file of the certificate authority to trust.",
    ),
    option(
        "--tls-cert", envvar="FN_TLS_CERT", type=file, help="PEM file of this node's certificate."
    ),
    option("--tls-key", envvar="FN_TLS_KEY", type=file, help="PEM file of this node's key."),
)

tls_options = bundle(TLSOptions, "tls", pem_options)


@attrs.frozen
class LifeOptions:
    """How a node's process drains, logs and tells that it is ready; see `life_options`."""

    grace: float | None
    ready_fd: int | None
    log_format: str | None
    log_level: str | None
    http_tls_cert: str | None
    http_tls_key: str | None
    extensions: tuple[str, ...]

    def variables(self) -> dict[str, object]:
        """The variables that these options set."""
        return {
            "FN_LOG_FORMAT": self.log_format,
            "FN_LOG_LEVEL": self.log_level,
            "FN_HTTP_TLS_CERT": self.http_tls_cert,
            "FN_HTTP_TLS_KEY": self.http_tls_key,
            "FN_DRAIN_GRACE_MSECS": None if self.grace is None else f"{self.grace * 1000:.0f}",
        }


_life_options = together(
    option(
        "--grace",
        type=SecondsType(),
        help="Seconds that calls get to finish when the node stops. A node with containers keeps "
        "the last quarter of this time, at most 5 s, to remove them. "
        "[env var: FN_DRAIN_GRACE_MSECS, in milliseconds; default: 30 s]",
    ),
    option(
        "--ready-fd",
        type=int,
        help="File descriptor to which the node writes one JSON line with its addresses once it is "
        "ready.",
    ),
    option(
        "--log-format",
        help="Format of log lines: text or json. [env var: FN_LOG_FORMAT; default: text]",
    ),
    option(
        "--log-level",
        help="Lowest level to log: debug, info, warn or error. "
        "[env var: FN_LOG_LEVEL; default: info]",
    ),
    option(
        "--http-tls-cert",
        type=file,
        help="PEM file of a certificate, with its chain: HTTP is served with TLS only. "
        "[env var: FN_HTTP_TLS_CERT]",
    ),
    option(
        "--http-tls-key",
        type=file,
        help="PEM file of that certificate's key. [env var: FN_HTTP_TLS_KEY]",
    ),
    option(
        "--extensions",
        envvar="FN_EXTENSIONS",
        multiple=True,
        help="Code of your own for the node: module:attribute of hostler.nodes.Extensions or of a "
        "callable that returns them, or the name of an installed extension (entry point group "
        "hostler.extensions). Repeat it for more; the variable has blanks between them.",
    ),
)

life_options = bundle(LifeOptions, "life", _life_options)
"""Of all nodes."""


@attrs.frozen
class NodeOptions(LifeOptions):
    """The same, and what changes the node's calls; see `node_options`."""

    overrider: str | None


node_options = bundle(
    NodeOptions,
    "node",
    option(
        "--overrider",
        envvar="FN_OVERRIDER",
        help="module:attribute of a call overrider (hostler.abc).",
    ),
    _life_options,
)
"""Of all nodes that take calls."""


def overlay(options: Mapping[str, object]) -> dict[str, str]:
    """The process's environment with ``options`` (by variable; ``None`` = not given) over it.

    So an option and its variable are read by the same code and refused with the same words.
    """
    env = dict(os.environ)
    for variable, value in options.items():
        if value is not None:
            env[variable] = str(value)
    # The command says what the node is; the variable is for Fn's single binary.
    env.pop("FN_NODE_TYPE", None)
    return env


def given(**options: object) -> dict[str, Any]:
    """The options that were given: settings have defaults for the others."""
    return {name: value for name, value in options.items() if value is not None}
