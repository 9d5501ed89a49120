"""TLS reports: who wants them, the JSON document, and the mail that carries it.

Owns: the `_smtp._tls` record, the document of RFC 8460 section 4.4, the message of section 5.3.
Never: counts (tally), sends.
Source: RFC 8460.
"""

from __future__ import annotations

import base64
import gzip
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec

from engine.security.tally import DAY_S, FailureFacts, PolicyCounts, PolicyFacts

MAX_URIS = 5  # of one record that are reported to: a domain must not make us its amplifier
MEDIA_TYPE = "application/tlsrpt+gzip"

_RECORD = re.compile(r"v=TLSRPTv1[ \t]*;(.*)", re.DOTALL)
_HOST = re.compile(r"(?:[a-z0-9_-]{1,63}\.)+[a-z][a-z0-9-]{1,62}")
_ADDRESS = re.compile(r"[^\s<>@\"(),:;\\]{1,64}@[A-Za-z0-9.-]{1,253}")


class Report(msgspec.Struct, frozen=True):
    """One day of one domain, ready to be sent. `document` is JSON, compressed by gzip."""

    domain: str
    submitter: str  # our host name
    report_id: str
    begin: int  # Unix seconds
    document: bytes

    @property
    def filename(self) -> str:
        """Section 5.1."""
        end = self.begin + DAY_S - 1
        return f"{self.submitter}!{self.domain}!{self.begin}!{end}!{self.report_id}.json.gz"


def parse_record(texts: Iterable[str]) -> tuple[str, ...]:
    """Return where the TXT records of `_smtp._tls.<domain>` want reports sent: mailto: and https: URIs.

    Section 3: records that do not begin with "v=TLSRPTv1;" are others'; if not exactly one is left, the
    domain wants none. Commas, semicolons and exclamation marks inside a URI are percent-encoded.
    """
    found = [match[1] for match in map(_RECORD.match, texts) if match]
    if len(found) != 1:
        return ()
    for field in found[0].split(";"):
        key, equals, value = field.partition("=")
        if equals and key.strip() == "rua":
            uris = [uri.strip() for uri in value.split(",")]
            return tuple(dict.fromkeys(uri for uri in uris if is_uri(uri)))[:MAX_URIS]
    return ()


def is_uri(uri: str) -> bool:
    """Return whether a report can be sent there."""
    try:
        parts = urlsplit(uri)
        port = parts.port
    except ValueError:
        return False
    if parts.scheme == "mailto":
        return mailbox_of(uri) != ""
    # A host by name: addresses would pass by the look at prohibited networks.
    is_named = bool(parts.hostname) and _HOST.fullmatch(parts.hostname or "") is not None
    return parts.scheme == "https" and is_named and parts.username is None and port != 0


def mailbox_of(uri: str) -> str:
    """Return the address of a mailto: URI, "" where it holds none that is plain."""
    address = unquote(uri.partition(":")[2].partition("?")[0])
    return address if _ADDRESS.fullmatch(address) else ""


def build_report(
    domain: str,
    day: int,
    counts: Mapping[PolicyFacts, PolicyCounts],
    *,
    submitter: str,
    contact: str,
    organization: str,
    report_id: str,
) -> Report:
    """Return the report of a domain for one UTC day."""
    begin = day * DAY_S
    document = {
        "organization-name": organization,
        "date-range": {"start-datetime": _instant(begin), "end-datetime": _instant(begin + DAY_S - 1)},
        "contact-info": contact,
        "report-id": report_id,
        "policies": [_describe_policy(domain, policy, each) for policy, each in counts.items()],
    }
    octets = gzip.compress(msgspec.json.encode(document), mtime=begin)
    return Report(domain, submitter, report_id, begin, octets)


def _describe_policy(domain: str, policy: PolicyFacts, counts: PolicyCounts) -> dict[str, Any]:
    described: dict[str, Any] = {"policy-type": policy.kind, "policy-domain": domain}
    if policy.lines:
        described["policy-string"] = list(policy.lines)
    if policy.mx:
        described["mx-host"] = list(policy.mx)
    row: dict[str, Any] = {
        "policy": described,
        "summary": {
            "total-successful-session-count": counts.successes,
            "total-failure-session-count": counts.failures,
        },
    }
    if counts.kinds:
        row["failure-details"] = [_describe_failure(facts, count) for facts, count in counts.kinds]
    return row


def _describe_failure(facts: FailureFacts, count: int) -> dict[str, Any]:
    described: dict[str, Any] = {
        "result-type": facts.result,
        "sending-mta-ip": facts.source,
        "receiving-mx-hostname": facts.host,
        "receiving-ip": facts.address,
        "failed-session-count": count,
        "failure-reason-code": facts.reason,
    }
    return {key: value for key, value in described.items() if value != ""}


def make_message(report: Report, sender: str, recipient: str, unix_now: float) -> bytes:
    """Return the mail that carries a report (section 5.3).

    TLS-Required: No (RFC 8689 section 3): a domain whose TLS is broken is the one that must hear of it.
    """
    boundary = f"=_{report.report_id}"
    encoded = base64.encodebytes(report.document).replace(b"\n", b"\r\n")
    subject = f"Report Domain: {report.domain}\r\n Submitter: {report.submitter}"
    head = (
        f"From: <{sender}>\r\n"
        f"To: <{recipient}>\r\n"
        f"Date: {format_datetime(datetime.fromtimestamp(int(unix_now), UTC))}\r\n"
        f"Message-ID: <{report.report_id}@{report.submitter}>\r\n"
        f"Subject: {subject}\r\n Report-ID: <{report.report_id}@{report.submitter}>\r\n"
        f"TLS-Report-Domain: {report.domain}\r\n"
        f"TLS-Report-Submitter: {report.submitter}\r\n"
        "TLS-Required: No\r\n"
        "Auto-Submitted: auto-generated\r\n"
        "MIME-Version: 1.0\r\n"
        f'Content-Type: multipart/report; report-type="tlsrpt";\r\n\tboundary="{boundary}"\r\n'
        "\r\n"
        f"--{boundary}\r\n"
        "Content-Type: text/plain; charset=us-ascii\r\n"
        "\r\n"
        "This is an aggregate report of the TLS of mail sessions with\r\n"
        f"{report.domain} on {_instant(report.begin)[:10]} (UTC), as RFC 8460 describes it.\r\n"
        "\r\n"
        f"--{boundary}\r\n"
        f"Content-Type: {MEDIA_TYPE}\r\n"
        "Content-Transfer-Encoding: base64\r\n"
        f'Content-Disposition: attachment;\r\n\tfilename="{report.filename}"\r\n'
        "\r\n"
    )
    return head.encode("ascii") + encoded + f"\r\n--{boundary}--\r\n".encode("ascii")


def _instant(unix: int) -> str:
    return datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
