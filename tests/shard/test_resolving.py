"""Who asks which DNS."""

from __future__ import annotations

import asyncio

from engine.delivery.paths import PathTable
from engine.net.dns import DNSClient
from engine.net.dnssec import ValidatingClient
from engine.net.site import Host, make_site
from engine.settings.parse import parse_settings
from engine.shard.resolving import make_dns, make_resolver, port_of
from tests.fakes.delivery_rig import make_policies


def settings(tmp_path, more=""):
    text = f'[engine]\nhostname = "a.example"\ndata_dir = "{tmp_path}"\n{more}'
    return parse_settings("mailrail.toml", text)


def test_with_dane_everything_is_asked_of_the_validating_resolver(tmp_path):
    async def scenario():
        assert isinstance(make_dns(settings(tmp_path).engine), DNSClient)
        dane = settings(tmp_path, 'validating_resolver = "127.0.0.1"\n')
        assert dane.engine.validating_resolver == "127.0.0.1:53"
        assert isinstance(make_dns(dane.engine), ValidatingClient)
        shelf, resolver = make_resolver(dane)
        assert shelf is None
        resolver.close()

    asyncio.run(scenario())


def test_policies_are_kept_in_the_data_directory(tmp_path):
    async def scenario():
        shelf, resolver = make_resolver(settings(tmp_path, "mta_sts = true\n"))
        assert shelf is not None
        resolver.close()
        shelf.close()

    asyncio.run(scenario())
    assert (tmp_path / "mta-sts" / "data.mdb").exists()


def test_port_of_a_domains_hosts_is_its_destinations():
    policies = make_policies('[default]\nport = 2525\n[domain."a.example"]\nport = 26\n')
    find = port_of(PathTable(policies, (), lambda: 0.0))
    site = make_site([Host("mx.example")])
    assert (find("a.example", site), find("b.example", site)) == (26, 2525)
