"""Small https requests against an aiohttp server of the tests' own."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web

from engine.core.errors import ResolvePermanent
from engine.core.reply import make_reply
from engine.net.https import FetchFailed, HttpsClient
from engine.security.tally import STS_POLICY_FETCH_ERROR, STS_POLICY_INVALID, STS_WEBPKI_INVALID
from tests.fakes.authority import Authority

HOST = "mta-sts.example"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture(scope="module")
def authority():
    return Authority("Test Root")


@pytest.fixture(scope="module")
def ca_file(authority, tmp_path_factory):
    return str(authority.write_certificate(tmp_path_factory.mktemp("ca") / "ca.pem"))


@contextlib.asynccontextmanager
async def serve(handler: Handler, certificate: Path) -> AsyncIterator[int]:
    """Serve every path of https with the handler; yields the port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    runner = web.ServerRunner(web.Server(handler), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def loopback(host: str) -> list[str]:
    return ["127.0.0.1"]


def fetch(run, handler, certificate, ca_file="", **options):
    """Fetch from the handler; the octets, or the result type of what failed."""

    async def scenario():
        async with serve(handler, certificate) as port:
            client = HttpsClient(options.pop("addresses_of", loopback), ca_file, **options)
            try:
                return await client.get(
                    f"https://{HOST}:{port}/.well-known/mta-sts.txt", media_type="text/plain", max_bytes=1000
                )
            except FetchFailed as error:
                return error.result

    return run(scenario())


@pytest.fixture
def certificate(authority, tmp_path):
    return authority.issue(HOST).write(tmp_path / "server.pem")


async def policy(request: web.Request) -> web.Response:
    return web.Response(text="version: STSv1\r\n")


def test_octets_of_a_verified_host_come_back(run, certificate, ca_file):
    assert fetch(run, policy, certificate, ca_file) == b"version: STSv1\r\n"


def test_host_whose_certificate_nobody_vouches_for_is_not_believed(run, certificate):
    """RFC 8461 section 3.3: the certificate must chain to a root that is trusted."""
    assert fetch(run, policy, certificate) == STS_WEBPKI_INVALID


@pytest.mark.parametrize(("name", "days"), [("www.example", 30), (HOST, -1)])
def test_host_with_another_name_or_an_old_certificate_is_not_believed(
    run, authority, tmp_path, ca_file, name, days
):
    """RFC 8461 section 3.3: valid for "mta-sts." and the domain, and not expired."""
    certificate = authority.issue(name, days=days).write(tmp_path / "server.pem")
    assert fetch(run, policy, certificate, ca_file) == STS_WEBPKI_INVALID


def test_redirects_are_not_followed(run, certificate, ca_file):
    """RFC 8461 section 3.3: "HTTP 3xx redirects MUST NOT be followed"."""
    asked = []

    async def redirect(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.Response(status=301, headers={"Location": "/elsewhere"}, text="version: STSv1\r\n")

    assert fetch(run, redirect, certificate, ca_file) == STS_POLICY_FETCH_ERROR
    assert asked == ["/.well-known/mta-sts.txt"]


def test_only_plain_text_is_a_policy(run, certificate, ca_file):
    """RFC 8461 section 3.2."""

    async def html(request: web.Request) -> web.Response:
        return web.Response(text="version: STSv1\r\n", content_type="text/html")

    assert fetch(run, html, certificate, ca_file) == STS_POLICY_FETCH_ERROR


def test_body_is_bounded(run, certificate, ca_file):
    """RFC 8461 section 3.3 and 10.2: a limit on the size, however it is announced."""

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            for _ in range(100):
                await response.write(b"x" * 1000)
        return response

    assert fetch(run, endless, certificate, ca_file) == STS_POLICY_INVALID


def test_time_is_bounded(run, certificate, ca_file):
    """RFC 8461 section 3.3: a timeout of one minute; here less."""

    async def silent(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        await response.write(b"v")
        await asyncio.sleep(30)
        return response

    assert fetch(run, silent, certificate, ca_file, timeout_s=0.3) == STS_POLICY_FETCH_ERROR


def test_prohibited_addresses_are_not_connected_to(run, certificate, ca_file):
    async def prohibited(host: str) -> list[str]:
        detail = "has no address that may be connected to"
        raise ResolvePermanent(host, detail, make_reply(550, "5.4.4", detail))

    assert fetch(run, policy, certificate, ca_file, addresses_of=prohibited) == STS_POLICY_FETCH_ERROR


def test_report_is_posted_whoever_the_host_is(run, certificate):
    """RFC 8460 section 3: certificates may be ignored, so that who is broken hears of it."""
    taken = []

    async def take(request: web.Request) -> web.Response:
        taken.append((request.method, request.content_type, await request.read()))
        return web.Response(status=201)

    async def scenario() -> None:
        async with serve(take, certificate) as port:
            await HttpsClient(loopback).post(
                f"https://reports.example:{port}/v1", b"\x1f\x8b", "application/tlsrpt+gzip"
            )

    run(scenario())
    assert taken == [("POST", "application/tlsrpt+gzip", b"\x1f\x8b")]


def test_report_that_is_refused_is_told(run, certificate):
    async def refuse(request: web.Request) -> web.Response:
        return web.Response(status=503)

    async def scenario() -> None:
        async with serve(refuse, certificate) as port:
            with pytest.raises(FetchFailed, match="503"):
                await HttpsClient(loopback).post(f"https://reports.example:{port}/", b"", "x/y")

    run(scenario())
