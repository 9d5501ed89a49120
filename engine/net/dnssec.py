"""Questions whose answers must be vouched for: one over dnspython to a validating resolver, a value back.

The resolver is one that the operator runs and names, on this host or behind a link that can be trusted: its
AD bit is believed (RFC 7672 section 2.1.1). A bogus answer comes as SERVFAIL, and so as ResolveTemporary: it
is never mistaken for an answer that DNSSEC does not cover.

It answers what `net.dns` answers too, so with DANE on everything comes through here: an MX name from an
unsigned cache would undo what TLSA records say of its hosts.

Owns: queries with AD and EDNS, over UDP and TCP; CNAME chains; the bounds on time and number.
Never: keeps answers (resolver and tlsa do), validates signatures itself.
Fails: ResolveTemporary.
Source: RFC 4035 section 3.2.3, RFC 6840 section 5.7 (AD in queries), RFC 7672 section 2.
"""

from __future__ import annotations

import dns.asyncquery
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

from engine.core.errors import ResolveTemporary
from engine.net.dns import Answer
from engine.net.lanes import Lanes

_TIMEOUT_S = 5.0  # of one try; a validating resolver fetches a chain of keys meanwhile
_TRIES = 3
_DEADLINE_S = 20.0  # of all tries, and of what a truncated answer is asked for again over TCP
_MAX_YOUNG = 128  # questions just asked
_MAX_OLD = 1024  # without an answer yet: each has a socket of its own
_MAX_CNAMES = 10  # as in net.dns
# No larger than what passes every link unfragmented (DNS flag day 2020); more comes over TCP.
_PAYLOAD_BYTES = 1232


class ValidatingClient:
    """Asks one validating resolver."""

    def __init__(self, address: str, port: int = 53, *, timeout_s: float = _TIMEOUT_S) -> None:
        self._address = address
        self._port = port
        self._timeout_s = timeout_s
        self._lanes = Lanes(_MAX_YOUNG, _MAX_OLD, _DEADLINE_S)
        self.counts = {"found": 0, "temporary": 0, "permanent": 0}

    async def ask(self, name: str, record_type: str) -> Answer:
        """Ask for records of one type: MX, A, AAAA, TXT or TLSA (its presentation form as text).

        Raises:
            ResolveTemporary: nobody answered, not sensibly, or with what DNSSEC says is forged.
        """
        try:
            query = _make_query(name, record_type)
        except dns.exception.DNSException:
            return Answer(is_missing=True)  # no DNS name, so nobody has it
        try:
            response = await self._lanes.run(lambda: self._exchange(query))
            answer = _read_answer(name, record_type, response)
        except TimeoutError as error:
            self.counts["temporary"] += 1
            raise ResolveTemporary(name, f"{record_type}: {error}") from None
        except ResolveTemporary:
            self.counts["temporary"] += 1
            raise
        self.counts["found" if answer.records else "permanent"] += 1
        return answer

    def close(self) -> None:
        """Nothing is kept between questions."""

    async def _exchange(self, query: dns.message.Message) -> dns.message.Message:
        problem = ""
        for _ in range(_TRIES):
            try:
                response, _ = await dns.asyncquery.udp_with_fallback(
                    query, self._address, timeout=self._timeout_s, port=self._port, ignore_unexpected=True
                )
            except (dns.exception.DNSException, OSError, EOFError) as error:
                problem = str(error) or type(error).__name__
                continue
            return response
        question = query.question[0]
        raise ResolveTemporary(_clean(question.name), f"{dns.rdatatype.to_text(question.rdtype)}: {problem}")


def _make_query(name: str, record_type: str) -> dns.message.Message:
    query = dns.message.make_query(name, record_type, use_edns=0, payload=_PAYLOAD_BYTES)
    query.flags |= dns.flags.AD
    return query


def _read_answer(name: str, record_type: str, response: dns.message.Message) -> Answer:
    """Return the records at the end of the CNAME chain, and whether every link of it is vouched for."""
    rcode = response.rcode()
    if rcode not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        raise ResolveTemporary(name, f"{record_type}: {dns.rcode.to_text(rcode)}")
    is_secure = bool(response.flags & dns.flags.AD)
    owner, ttls = response.question[0].name, []
    for _ in range(_MAX_CNAMES):
        alias = response.get_rrset(dns.message.ANSWER, owner, dns.rdataclass.IN, dns.rdatatype.CNAME)
        if alias is None:
            break
        ttls.append(alias.ttl)
        owner = alias[0].target
    found = response.get_rrset(
        dns.message.ANSWER, owner, dns.rdataclass.IN, dns.rdatatype.from_text(record_type)
    )
    records = _read_records(record_type, found) if found is not None else ()
    if found is not None:
        ttls.append(found.ttl)
    is_missing = rcode == dns.rcode.NXDOMAIN
    ttl_s = float(min(ttls)) if records else 0.0
    return Answer(records, ttl_s, is_missing, is_secure, _clean(owner))


def _read_records(record_type: str, found: dns.rrset.RRset) -> tuple[tuple[int, str], ...]:
    if record_type == "MX":
        return tuple((each.preference, _clean(each.exchange)) for each in found)
    if record_type == "TXT":
        return tuple((0, b"".join(each.strings).decode("utf-8", "replace")) for each in found)
    return tuple((0, each.to_text()) for each in found)


def _clean(name: dns.name.Name) -> str:
    return name.to_text(omit_final_dot=True).lower()
