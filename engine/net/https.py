"""Small https requests to servers that a recipient domain names: its MTA-STS policy, its TLS reports.

Whoever we mail to chooses these servers, so their addresses are those that mail may go to as well
(`prohibited_networks`), nothing is followed, and everything is bounded.

Owns: the seam to aiohttp, which is imported when first asked for: it takes 20 MB that others need not spend.
Never: caches, knows what it fetches.
Fails: FetchFailed, with the result type of RFC 8460 that it is for a policy.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from engine.core.errors import MailrailError, ResolveError
from engine.security.tally import STS_POLICY_FETCH_ERROR, STS_POLICY_INVALID, STS_WEBPKI_INVALID

if TYPE_CHECKING:
    import aiohttp

TIMEOUT_S = 60.0  # RFC 8461 section 3.3: "a timeout of one minute"
_MAX_CONCURRENT = 20

AddressesOf = Callable[[str], Awaitable[list[str]]]


class FetchFailed(MailrailError):
    """Nothing was fetched; `result` is a result type of RFC 8460 section 4.3.2.2."""

    def __init__(self, result: str, detail: str) -> None:
        super().__init__(detail)
        self.result = result


class HttpsClient:
    """Asks https servers of others."""

    def __init__(self, addresses_of: AddressesOf, ca_file: str = "", timeout_s: float = TIMEOUT_S) -> None:
        """Args:
        addresses_of: addresses of a host that may be connected to; raises ResolveError.
        ca_file: who is trusted, as PEM; "": the system's list.
        """
        self._addresses_of = addresses_of
        self._ca_file = ca_file
        self._timeout_s = timeout_s
        self._slots = asyncio.Semaphore(_MAX_CONCURRENT)

    async def get(self, url: str, *, media_type: str, max_bytes: int) -> bytes:
        """Return what is there: status 200, that media type, no redirect.

        Raises:
            FetchFailed: anything else.
        """
        context = ssl.create_default_context(cafile=self._ca_file or None)

        async def read(response: aiohttp.ClientResponse) -> bytes:
            if response.status != 200:
                raise FetchFailed(STS_POLICY_FETCH_ERROR, f"HTTP status {response.status}")
            if response.content_type != media_type:
                raise FetchFailed(STS_POLICY_FETCH_ERROR, f"is {response.content_type}, not {media_type}")
            octets = bytearray()
            async for block in response.content.iter_any():
                octets += block
                if len(octets) > max_bytes:
                    raise FetchFailed(STS_POLICY_INVALID, f"more than {max_bytes} octets")
            return bytes(octets)

        return await self._request("GET", url, context, read)

    async def post(self, url: str, octets: bytes, media_type: str) -> None:
        """Hand something over; any 2xx will do. Whose certificate it is is not asked (RFC 8460 section 3).

        Raises:
            FetchFailed: it was not taken.
        """
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE

        async def check(response: aiohttp.ClientResponse) -> bytes:
            if not 200 <= response.status < 300:
                raise FetchFailed(STS_POLICY_FETCH_ERROR, f"HTTP status {response.status}")
            return b""

        await self._request("POST", url, context, check, data=octets, headers={"Content-Type": media_type})

    async def _request(
        self,
        method: str,
        url: str,
        context: ssl.SSLContext,
        read: Callable[[aiohttp.ClientResponse], Awaitable[bytes]],
        **options: Any,
    ) -> bytes:
        import aiohttp

        async with self._slots:
            connector = aiohttp.TCPConnector(
                ssl=context,
                resolver=_make_resolver(self._addresses_of),
                use_dns_cache=False,
                force_close=True,
            )
            try:
                async with (
                    asyncio.timeout(self._timeout_s),
                    aiohttp.ClientSession(
                        connector=connector, cookie_jar=aiohttp.DummyCookieJar()
                    ) as session,
                    session.request(method, url, allow_redirects=False, **options) as response,
                ):
                    return await read(response)
            except TimeoutError:
                raise FetchFailed(STS_POLICY_FETCH_ERROR, f"not done in {self._timeout_s:g} s") from None
            except aiohttp.ClientConnectorCertificateError as error:
                raise FetchFailed(STS_WEBPKI_INVALID, str(error.certificate_error)) from error
            except (aiohttp.ClientError, OSError, ValueError) as error:
                raise FetchFailed(STS_POLICY_FETCH_ERROR, str(error) or type(error).__name__) from error


def _make_resolver(addresses_of: AddressesOf) -> Any:
    from aiohttp.abc import AbstractResolver, ResolveResult

    class Allowed(AbstractResolver):
        """Only addresses that mail may go to."""

        async def resolve(
            self,
            host: str,
            port: int = 0,
            family: socket.AddressFamily = socket.AF_UNSPEC,  # noqa: ARG002
        ) -> list[ResolveResult]:
            try:
                addresses = await addresses_of(host)
            except ResolveError as error:
                raise OSError(str(error)) from error
            return [
                ResolveResult(
                    hostname=host,
                    host=address,
                    port=port,
                    family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                    proto=0,
                    flags=socket.AI_NUMERICHOST,
                )
                for address in addresses
            ]

        async def close(self) -> None:
            pass

    return Allowed()
