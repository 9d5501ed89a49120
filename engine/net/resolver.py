"""Resolver (first path: routes only; to be replaced)."""

from __future__ import annotations

from engine.net.site import Host, Site, make_site


class Resolver:
    def __init__(self, *, nameservers, port, routes, prohibited) -> None:  # type: ignore[no-untyped-def]
        self.routes = routes
        self.cache: dict[str, Site] = {}

    async def open(self) -> None:
        pass

    def close(self) -> None:
        pass

    def use(self, routes, prohibited) -> None:  # type: ignore[no-untyped-def]
        self.routes = routes
        self.cache.clear()

    def lookup(self, domain: str) -> Site | None:
        s = self.cache.get(domain)
        if s is None:
            hosts = self.routes.get(domain) or self.routes.get("*")
            made = []
            for h in hosts:
                a, _, p = h.rpartition(":")
                made.append(Host(a.strip("[]"), 0, int(p), a.strip("[]"), True))
            s = self.cache[domain] = make_site(made, is_route=True)
        return s

    async def resolve(self, domain: str) -> Site:
        site = self.lookup(domain)
        assert site
        return site

    async def addresses(self, host: Host, family: str) -> list[str]:
        return [host.address]
