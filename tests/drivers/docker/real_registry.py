"""Debian's docker-registry on a free port of loopback, and a proxy that counts and refuses."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import httpx
import msgspec
import pytest
import trio
import trustme

from tests.support.ports import free_port

from .http_server import Answer, Request, serve_tcp

USER, PASSWORD = "me", "pa:ss"
HTPASSWD = "me:$2b$04$abcdefghijklmnopqrstuu2auYx.qp9Oa3Pif.hfhenSQE6jLNfY6\n"
"""The above with bcrypt, the only form that the registry takes."""
_HOP = ("connection", "content-length", "date", "keep-alive", "transfer-encoding")


@attrs.define
class Registry:
    """A registry process. `start` and `stop` as often as wanted: port and content stay."""

    folder: Path
    nursery: trio.Nursery
    host: str = "127.0.0.1"
    port: int = attrs.Factory(free_port)
    basic_auth: bool = False
    authority: trustme.CA | None = None
    _process: trio.Process | None = None

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    async def start(self) -> None:
        """Returns when it listens."""
        config = self.folder / "config.json"
        config.write_bytes(msgspec.json.encode(self._config()))
        self._process = await trio.lowlevel.open_process(
            [_program(), "serve", str(config)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={"OTEL_TRACES_EXPORTER": "none"},
        )
        assert self._process.stderr is not None
        text = b""
        while b"listening on" not in text or not text.endswith(b"\n"):
            more = await self._process.stderr.receive_some()
            if not more:
                await self._process.stderr.aclose()
                raise AssertionError(f"the registry did not start: {text.decode()}")
            text += more
        self.nursery.start_soon(_drain, self._process.stderr)

    async def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            await self._process.wait()
            self._process = None

    def _config(self) -> dict[str, object]:
        http: dict[str, object] = {"addr": self.address, "secret": "not used by one process"}
        if self.authority is not None:
            certificate = self.authority.issue_cert(self.host.strip("[]"))
            key, chain = self.folder / "key.pem", self.folder / "cert.pem"
            certificate.private_key_pem.write_to_path(str(key))
            chain.write_bytes(b"".join(b.bytes() for b in certificate.cert_chain_pems))
            http["tls"] = {"certificate": str(chain), "key": str(key)}
        config: dict[str, object] = {
            "version": "0.1",
            "log": {"level": "info", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": str(self.folder / "data")}},
            "http": http,
        }
        if self.basic_auth:
            (self.folder / "htpasswd").write_text(HTPASSWD)
            path = str(self.folder / "htpasswd")
            config["auth"] = {"htpasswd": {"realm": "test", "path": path}}
        return config


async def _drain(log: trio.abc.ReceiveStream) -> None:
    async with log:
        async for _ in log:
            pass


def _program() -> str:
    found = shutil.which("docker-registry", path="/usr/bin:/usr/local/bin")
    if found is None:
        pytest.fail("no docker-registry; scripts/test installs it")
    return found


@asynccontextmanager
async def open_registry(
    folder: Path,
    *,
    host: str = "127.0.0.1",
    basic_auth: bool = False,
    authority: trustme.CA | None = None,
) -> AsyncIterator[Registry]:
    async with trio.open_nursery() as nursery:
        registry = Registry(folder, nursery, host, basic_auth=basic_auth, authority=authority)
        try:
            await registry.start()
            yield registry
        finally:
            with trio.CancelScope(shield=True):
                await registry.stop()


class Proxy:
    """Passes requests on to a registry. ``refusals`` are answered instead, one for each request
    for a manifest; ``gate`` holds those back until it is set; ``respond`` replaces it all."""

    def __init__(self, upstream: str) -> None:
        self.address = ""
        self.manifests: list[str] = []
        self.authorizations: set[str] = set()
        self.refusals: list[Answer] = []
        self.gate = trio.Event()
        self.gate.set()
        self.arrived = trio.Event()
        self.respond: Callable[[Request], Awaitable[Answer]] = self._pass_on
        self._client = httpx.AsyncClient(base_url=f"http://{upstream}", timeout=30)

    async def handle(self, request: Request) -> Answer:
        return await self.respond(request)

    async def _pass_on(self, request: Request) -> Answer:
        self.authorizations.add(request.headers.get("authorization", ""))
        if "/manifests/" in request.path:
            self.manifests.append(f"{request.method} {request.path}")
            self.arrived.set()
            await self.gate.wait()
            if self.refusals:
                return self.refusals.pop(0)
        headers = {k: v for k, v in request.headers.items() if k not in _HOP}
        found = await self._client.request(request.method, request.path, headers=headers)
        kept = {k: v for k, v in found.headers.items() if k not in _HOP}
        if request.method == "HEAD":
            kept["Content-Length"] = found.headers.get("content-length", "0")
        return Answer(found.status_code, found.content, kept)

    async def aclose(self) -> None:
        await self._client.aclose()


@asynccontextmanager
async def open_proxy(upstream: str) -> AsyncIterator[Proxy]:
    proxy = Proxy(upstream)
    async with serve_tcp(proxy.handle) as proxy.address:
        try:
            yield proxy
        finally:
            await proxy.aclose()
