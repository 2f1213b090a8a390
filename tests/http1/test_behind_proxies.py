"""What nginx and HAProxy take for one request, and pass on, is one request for us, with the same
body. Both are given the requests of `test_smuggling`, which has those of the public collections.

Each request stands in its own connection, with one behind it that is hidden where it would be found
if the wrong of two ends were believed, and one that ends the connection. The proxies use their
connections to us again and again, so that one that is out of step shows in other requests, too.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio

from hostler.calls import PendingCall

from ..front._agent import ScriptedAgent
from ..front._sockets import Front, open_front, until
from .smuggling import BROKEN_BODY, CHUNKED, HEAD, HIDDEN, ONE, REFUSED, mangled, post

SEARCH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin"
NGINX, HAPROXY = shutil.which("nginx", path=SEARCH), shutil.which("haproxy", path=SEARCH)
LAST = (
    b"POST /invoke/fn1?last HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
)
CLIENTS = 32
PATIENCE = 0.5
"""Seconds for which a client waits, in case its request is not complete for the proxy."""


def vectors() -> list[bytes]:
    found = [*REFUSED.values()]
    found += [post(CHUNKED, body=body + HIDDEN) for body in BROKEN_BODY.values()]
    for lines in mangled(b"Transfer-Encoding", b"chunked").values():
        body = b"0\r\n\r\n" + HIDDEN
        found.append(post(b"Content-Length: %d" % len(body), *lines, body=body))
        found.append(post(*lines, b"Content-Length: 4", body=ONE + HIDDEN))
        found.append(post(*lines, body=ONE + HIDDEN))
    for lines in mangled(b"Content-Length", b"1").values():
        found.append(post(CHUNKED, *lines, body=ONE + HIDDEN))
        found.append(post(*lines, body=b"x" + HIDDEN))
    for method in (b"GET", b"HEAD", b"OPTIONS", b"DELETE"):
        found.append(
            HEAD.replace(b"POST", method) + b"Content-Length: %d\r\n\r\n" % len(HIDDEN) + HIDDEN
        )
    for option in (b"Upgrade: h2c\r\nConnection: Upgrade", b"Expect: 100-continue", b"Expect: x"):
        found.append(post(option, b"Content-Length: 1", body=b"x" + HIDDEN))
    return [
        each.replace(b"/fn1", b"/fn1?n=%d" % at, 1).replace(b"?hidden", b"?hidden=%d" % at) + LAST
        for at, each in enumerate(found)
    ]


@attrs.define
class Proxies:
    """Two with two listeners each, which are as strict as the proxy is, and as lenient as it can
    be."""

    folder: Path
    port: int
    """Of the front end."""
    ports: tuple[int, ...] = ()

    def configure(self, ports: tuple[int, ...]) -> None:
        self.ports = ports
        (self.folder / "nginx.conf").write_text(f"""
            daemon off; master_process off; pid nginx.pid; error_log /dev/null;
            events {{ worker_connections 512; }}
            http {{
              log_format pairs escape=json '["$request_uri", "$upstream_status", "$request_body"]';
              access_log nginx.log pairs;
              client_body_temp_path body; proxy_temp_path proxy;
              fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;
              client_body_buffer_size 64k; client_body_in_single_buffer on;
              upstream front {{ server 127.0.0.1:{self.port}; keepalive 4; }}
              proxy_http_version 1.1; proxy_set_header Connection "";
              proxy_next_upstream off; proxy_ignore_client_abort on;
              server {{ listen 127.0.0.1:{ports[0]}; location / {{ proxy_pass http://front; }} }}
              server {{
                listen 127.0.0.1:{ports[1]};
                ignore_invalid_headers off; underscores_in_headers on;
                location / {{ proxy_pass http://front; }}
              }}
            }}""")
        (self.folder / "haproxy.cfg").write_text(
            f"""
            global
              log stdout format raw local0
            defaults
              mode http
              log global
              timeout client 5s
              timeout connect 5s
              timeout server 5s
              timeout http-request 5s
              retries 0
              option http-buffer-request
              http-reuse always
            frontend strict
              bind 127.0.0.1:{ports[2]}
              declare capture request len 4096
              http-request capture req.body,hex id 0
              log-format '["%HU", "%s", "%ST", "%[capture.req.hdr(0)]"]'
              default_backend front
            frontend lenient
              bind 127.0.0.1:{ports[3]}
              option accept-invalid-http-request
              declare capture request len 4096
              http-request capture req.body,hex id 0
              log-format '["%HU", "%s", "%ST", "%[capture.req.hdr(0)]"]'
              default_backend front
            backend front
              server front 127.0.0.1:{self.port}
            """.replace("\n            ", "\n")
        )

    def passed_on(self, haproxy_log: bytes) -> Counter[tuple[str, str]]:
        """Targets and bodies of the requests that were answered with 200 by the front end."""
        found: Counter[tuple[str, str]] = Counter()
        for line in (self.folder / "nginx.log").read_text().splitlines():
            target, status, body = json.loads(line)
            if status == "200":
                found[target, body.encode().hex()] += 1
        for raw in haproxy_log.splitlines():
            if raw.startswith(b"["):
                target, server, status, body = json.loads(raw)
                if server == "front" and status == "200":
                    found[target, "" if body == "-" else body.lower()] += 1
        return found


async def free_ports(count: int) -> tuple[int, ...]:
    listeners = [(await trio.open_tcp_listeners(0, host="127.0.0.1"))[0] for _ in range(count)]
    ports = tuple(listener.socket.getsockname()[1] for listener in listeners)
    for listener in listeners:
        await listener.aclose()
    return ports


@asynccontextmanager
async def open_proxies(front: Front, folder: Path, log: bytearray) -> AsyncIterator[Proxies]:
    proxies = Proxies(folder, front.port)
    proxies.configure(await free_ports(4))

    async def keep_log(stream: trio.abc.ReceiveStream) -> None:
        async for piece in stream:
            log.extend(piece)

    nginx = [str(NGINX), "-p", str(folder), "-c", "nginx.conf", "-e", "/dev/null"]
    haproxy = [str(HAPROXY), "-f", str(folder / "haproxy.cfg")]
    async with trio.open_nursery() as nursery:
        run = partial(trio.run_process, check=False)
        first = await nursery.start(partial(run, nginx))
        second = await nursery.start(partial(run, haproxy, stdout=-1, stderr=None))
        nursery.start_soon(keep_log, second.stdout)
        for port in proxies.ports:
            while True:
                with suppress(OSError):
                    await (await trio.open_tcp_stream("127.0.0.1", port)).aclose()
                    break
                assert first.returncode is second.returncode is None
                await trio.sleep(0.01)
        yield proxies
        first.terminate()
        second.terminate()


async def send(port: int, data: bytes) -> None:
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        with trio.move_on_after(PATIENCE), suppress(trio.BrokenResourceError):
            await stream.send_all(data)
            async for _ in stream:
                pass


@pytest.mark.skipif(NGINX is None or HAPROXY is None, reason="nginx or haproxy is missing")
async def test_a_proxy_and_we_see_the_same_requests(tmp_path: Path) -> None:
    seen: Counter[tuple[str, str]] = Counter()

    async def note(call: PendingCall) -> None:
        body = b""
        async with call.body.open() as stream:
            while piece := await stream.receive_some():
                body += piece
        target = call.model.url.partition("/invoke")[2]
        seen[f"/invoke{target}", body.hex()] += 1
        await call.writer.start(200, [("Content-Length", str(len(body)))])
        await call.writer.write(body)

    async with open_front(ScriptedAgent(note)) as front:
        log = bytearray()
        async with open_proxies(front, tmp_path, log) as proxies:
            limiter = trio.CapacityLimiter(CLIENTS)

            async def one(port: int, data: bytes) -> None:
                async with limiter:
                    await send(port, data)

            async with trio.open_nursery() as nursery:
                for data in vectors():
                    for port in proxies.ports:
                        nursery.start_soon(one, port, data)
            for at in range(20):
                for port in proxies.ports:
                    client = await front.connect_to(port)
                    answer = await client.post(b"%d" % at, path=f"/invoke/fn1?canary={at}")
                    assert (answer.status, answer.body) == (200, b"%d" % at)
            # Who had no patience is logged later.
            with trio.move_on_after(10):
                await until(lambda: proxies.passed_on(bytes(log)) == seen)
            passed = proxies.passed_on(bytes(log))
    assert sum(n for (target, _), n in seen.items() if "?n=" in target) > 100
    assert passed == seen
