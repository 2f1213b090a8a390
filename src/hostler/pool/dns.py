"""DNS look-ups of runner targets, with dnspython on Trio."""

from __future__ import annotations

from collections.abc import Iterable

import attrs
import dns.asyncbackend
import dns.asyncresolver
import dns.exception
import dns.name
import dns.resolver
import trio

from ..config import PoolConfig, parse_dns_server
from ..errors import ConfigError
from .targets import LookupFailed, NameTarget, ResolvedTarget, ServiceTarget


@attrs.frozen
class _Records:
    texts: tuple[tuple[str, ...], ...]
    ttl: float


class Resolver:
    """Asks the servers of /etc/resolv.conf, or the one of ``config``. Without a cache.

    Raises `ConfigError` if the system has none.
    """

    def __init__(self, config: PoolConfig) -> None:
        self._timeout = config.dns_timeout
        self._backend = dns.asyncbackend.get_backend("trio")
        if config.dns_server:
            self._resolver = dns.asyncresolver.Resolver(configure=False)
            host, port = parse_dns_server(config.dns_server)
            self._resolver.nameservers = [host]
            self._resolver.port = port
        else:
            self._resolver = _system_resolver()

    async def find(self, target: NameTarget | ServiceTarget) -> ResolvedTarget:
        """The runners that ``target`` stands for. Raises `LookupFailed`."""
        with trio.move_on_after(self._timeout):
            if isinstance(target, ServiceTarget):
                return await self._find_service(target.name)
            return await self._find_hosts([(target.name, target.port)])
        raise LookupFailed(f"no answer within {self._timeout:g} s")

    async def _find_service(self, name: str) -> ResolvedTarget:
        records = await self._ask(name, "SRV")
        if records is None:
            raise LookupFailed(f"{name} has no SRV records")
        parsed = [(int(first), target, int(port)) for first, _, port, target in records.texts]
        best = min(priority for priority, _, _ in parsed)
        hosts = [(host, port) for priority, host, port in parsed if priority == best]
        if all(host == "." for host, _ in hosts):  # RFC 2782: not available
            raise LookupFailed(f"{name} is not available, say its SRV records")
        found = await self._find_hosts(sorted(hosts))
        return attrs.evolve(found, ttl=min(found.ttl, records.ttl))

    async def _find_hosts(self, hosts: Iterable[tuple[str, int]]) -> ResolvedTarget:
        """The addresses of all ``hosts``. One failed look-up fails all of it, because otherwise the
        runners of that host would seem to have left."""
        found: list[tuple[str, str]] = []
        ttls: list[float] = []
        failures: list[LookupFailed] = []

        async def look_up(host: str, port: int) -> None:
            try:
                addresses, ttl = await self._addresses(host)
            except LookupFailed as error:
                failures.append(error)
                return
            found.extend((_join(address, port), host.rstrip(".")) for address in addresses)
            ttls.append(ttl)

        async with trio.open_nursery() as nursery:
            for host, port in hosts:
                nursery.start_soon(look_up, host, port)
        if failures:
            raise failures[0]
        names: dict[str, str] = {}
        for address, host in sorted(found):
            names.setdefault(address, host)  # hosts may share an address; either name will do
        return ResolvedTarget(names, min(ttls))

    async def _addresses(self, host: str) -> tuple[list[str], float]:
        """IPv4 and IPv6. A failure of one kind fails the look-up, see `_find_hosts`."""
        answers: list[_Records | None] = []
        failures: list[LookupFailed] = []

        async def ask(kind: str) -> None:
            try:
                answers.append(await self._ask(host, kind))
            except LookupFailed as error:
                failures.append(error)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, "A")
            nursery.start_soon(ask, "AAAA")
        if failures:
            raise failures[0]
        some = [answer for answer in answers if answer is not None]
        if not some:
            raise LookupFailed(f"{host} has no addresses")
        addresses = [text for answer in some for (text,) in answer.texts]
        return addresses, min(answer.ttl for answer in some)

    async def _ask(self, name: str, kind: str) -> _Records | None:
        """The records of one kind; ``None`` if the name has none."""
        try:
            answer = await self._resolver.resolve(
                name, kind, search=True, lifetime=self._timeout, backend=self._backend
            )
        except dns.resolver.NoAnswer:
            return None
        except dns.resolver.NXDOMAIN as error:
            raise LookupFailed(f"{name.rstrip('.')} does not exist") from error
        except dns.exception.Timeout as error:
            raise LookupFailed(f"no answer within {self._timeout:g} s") from error
        except (dns.exception.DNSException, OSError) as error:
            raise LookupFailed(f"{name} can't be looked up: {error}") from error
        assert answer.rrset is not None
        texts = tuple(tuple(record.to_text().split()) for record in answer.rrset)
        return _Records(texts, float(answer.chaining_result.minimum_ttl))


def _system_resolver() -> dns.asyncresolver.Resolver:
    try:
        return dns.asyncresolver.Resolver()
    except dns.resolver.NoResolverConfiguration as error:
        raise ConfigError("no DNS server in /etc/resolv.conf: set FN_DNS_SERVER") from error


def _join(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
