"""A registry on loopback with images made for the test, which a real engine pulls from."""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import trio

from .http_server import Answer, Request, json_answer, serve_tcp

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


class FakeRegistry:
    """Serves one tiny image under every name and tag (each tag with a layer of its own), to
    everybody or, with a ``challenge``, to everybody who sends some authorization.

    ``fail`` is what the next requests for a manifest answer; ``gate`` holds them back until it
    is set.
    """

    def __init__(self) -> None:
        self.host = ""
        self.requests: list[Request] = []
        self.fail: list[Answer] = []
        self.challenge = ""
        self.gate = trio.Event()
        self.gate.set()
        self.arrived = trio.Event()
        self._blobs: dict[str, bytes] = {}

    def manifests(self) -> list[str]:
        """Repository and tag of each transfer that began."""
        paths = [r.path for r in self.requests if "/manifests/" in r.path and r.method != "GET"]
        return [path.removeprefix("/v2/").replace("/manifests/", ":") for path in paths]

    def authorizations(self) -> set[str]:
        return {r.headers["authorization"] for r in self.requests if "authorization" in r.headers}

    async def handle(self, request: Request) -> Answer:
        self.requests.append(request)
        if self.challenge and "authorization" not in request.headers:
            return Answer(401, b"", {"WWW-Authenticate": self.challenge})
        if request.path == "/v2/":
            return json_answer({})
        if match := re.fullmatch(r"/v2/(.+)/manifests/([^/]+)", request.path):
            self.arrived.set()
            await self.gate.wait()
            return self.fail.pop(0) if self.fail else self._manifest(match[2])
        if match := re.fullmatch(r"/v2/(.+)/blobs/([^/]+)", request.path):
            return Answer(200, self._blobs[match[2]])
        return json_answer({"errors": []}, 404)

    def _manifest(self, tag: str) -> Answer:
        manifest = self._blobs.get(tag) or self._image(tag)
        headers = {"Content-Type": MANIFEST, "Docker-Content-Digest": _digest(manifest)}
        return Answer(200, manifest, headers)

    def _image(self, tag: str) -> bytes:
        layer = io.BytesIO()
        with tarfile.open(fileobj=layer, mode="w") as tar:
            data = f"{self.host} {tag}".encode()
            info = tarfile.TarInfo("content")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        content = layer.getvalue()
        config = msgspec.json.encode(
            {
                "architecture": "amd64",
                "os": "linux",
                "config": {"Cmd": ["/none"]},
                "rootfs": {"type": "layers", "diff_ids": [_digest(content)]},
            }
        )
        manifest = msgspec.json.encode(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": self._add("application/vnd.docker.container.image.v1+json", config),
                "layers": [self._add("application/vnd.docker.image.rootfs.diff.tar", content)],
            }
        )
        self._blobs[_digest(manifest)] = manifest
        return manifest

    def _add(self, media_type: str, data: bytes) -> dict[str, Any]:
        self._blobs[_digest(data)] = data
        return {"mediaType": media_type, "size": len(data), "digest": _digest(data)}


def refusal(status: int, code: str, message: str) -> Answer:
    """An error in the form of the registry protocol."""
    return json_answer({"errors": [{"code": code, "message": message}]}, status)


@asynccontextmanager
async def open_fake_registry() -> AsyncIterator[FakeRegistry]:
    registry = FakeRegistry()
    async with serve_tcp(registry.handle) as host:
        registry.host = host
        yield registry
