"""TLS reports: record, document, mail (RFC 8460)."""

from __future__ import annotations

import email
import email.policy
import gzip
import json

import pytest

from engine.security.report import build_report, is_uri, mailbox_of, make_message, parse_record
from engine.security.tally import FailureFacts, PolicyFacts, Tally

STS = PolicyFacts("sts", ("version: STSv1", "mode: testing"), ("*.mail.company-y.example",))
FAILURE = FailureFacts("certificate-expired", "2001:db8::1", "mx1.mail.company-y.example", "203.0.113.56")


@pytest.fixture
def report():
    tally = Tally()
    for _ in range(5):
        tally.succeed("company-y.example", STS)
    tally.fail("company-y.example", STS, FAILURE)
    return build_report(
        "company-y.example",
        16892,  # 2016-04-01
        tally.of("company-y.example"),
        submitter="mta.company-x.example",
        contact="sts-reporting@company-x.example",
        organization="Company-X",
        report_id="5065427c",
    )


def test_record_lists_where_reports_go():
    """RFC 8460 section 3."""
    assert parse_record(["v=TLSRPTv1;rua=mailto:reports@example.com"]) == ("mailto:reports@example.com",)
    assert parse_record(
        ["v=spf1 -all", "v=TLSRPTv1; rua=https://r.example/v1/tlsrpt , mailto:a@b.example;x=y"]
    ) == (
        "https://r.example/v1/tlsrpt",
        "mailto:a@b.example",
    )


@pytest.mark.parametrize(
    "texts",
    [
        [],
        ["v=TLSRPTv1"],
        ["v=TLSRPTv1; rua="],
        ["v=TLSRPTv2; rua=mailto:a@b.example"],
        ["v=TLSRPTv1; rua=http://r.example/"],
        ["v=TLSRPTv1; rua=https://user:word@r.example/"],
        ["v=TLSRPTv1; rua=https://r.example:x/"],
        ["v=TLSRPTv1; rua=https://127.0.0.1/"],
        ["v=TLSRPTv1; rua=https://[::1]/"],
        ["v=TLSRPTv1; rua=https://localhost/"],
        ["v=TLSRPTv1; rua=mailto:nobody"],
        ["v=TLSRPTv1; rua=mailto:a@b.example", "v=TLSRPTv1; rua=mailto:c@d.example"],
    ],
)
def test_record_that_is_wrong_or_not_alone_wants_no_report(texts):
    """RFC 8460 section 3: "if the number of resulting records is not one" there is no reporting."""
    assert parse_record(texts) == ()


def test_record_is_bounded():
    uris = ",".join(f"mailto:a{number}@b.example" for number in range(50))
    assert len(parse_record([f"v=TLSRPTv1;rua={uris}"])) == 5


def test_mailbox_is_percent_decoded_and_plain():
    """RFC 8460 section 3: commas and exclamation marks in a URI are encoded."""
    assert mailbox_of("mailto:tls%21reports@example.com?subject=x") == "tls!reports@example.com"
    assert mailbox_of("mailto:a@b.example%0d%0aBcc:c@d.example") == ""
    assert is_uri("https://r.example:8443/x")


def test_document_has_the_schema_of_the_rfc(report):
    """RFC 8460 section 4.4, its example."""
    document = json.loads(gzip.decompress(report.document))
    assert document == {
        "organization-name": "Company-X",
        "date-range": {"start-datetime": "2016-04-01T00:00:00Z", "end-datetime": "2016-04-01T23:59:59Z"},
        "contact-info": "sts-reporting@company-x.example",
        "report-id": "5065427c",
        "policies": [
            {
                "policy": {
                    "policy-type": "sts",
                    "policy-string": ["version: STSv1", "mode: testing"],
                    "policy-domain": "company-y.example",
                    "mx-host": ["*.mail.company-y.example"],
                },
                "summary": {"total-successful-session-count": 5, "total-failure-session-count": 1},
                "failure-details": [
                    {
                        "result-type": "certificate-expired",
                        "sending-mta-ip": "2001:db8::1",
                        "receiving-mx-hostname": "mx1.mail.company-y.example",
                        "receiving-ip": "203.0.113.56",
                        "failed-session-count": 1,
                    }
                ],
            }
        ],
    }


def test_file_name_tells_who_of_whom_and_when(report):
    """RFC 8460 section 5.1."""
    name = "mta.company-x.example!company-y.example!1459468800!1459555199!5065427c.json.gz"
    assert report.filename == name


def test_mail_is_a_multipart_report_that_a_stranger_can_read(report):
    """RFC 8460 section 5.3; RFC 8689 section 3 for TLS-Required."""
    octets = make_message(report, "reports@company-x.example", "tls@company-y.example", 1459555200.0)
    assert all(len(line) <= 998 for line in octets.split(b"\r\n"))
    assert b"\n" not in octets.replace(b"\r\n", b"")
    message = email.message_from_bytes(octets, policy=email.policy.default)
    assert message.get_content_type() == "multipart/report"
    assert message["Content-Type"].params["report-type"] == "tlsrpt"
    assert message["TLS-Report-Domain"] == "company-y.example"
    assert message["TLS-Report-Submitter"] == "mta.company-x.example"
    assert message["TLS-Required"] == "No"
    assert message["Subject"].startswith("Report Domain: company-y.example Submitter: mta.company-x.example")
    text, attached = message.iter_parts()
    assert text.get_content_type() == "text/plain"
    assert attached.get_content_type() == "application/tlsrpt+gzip"
    assert attached.get_filename() == report.filename
    assert attached.get_content() == report.document
