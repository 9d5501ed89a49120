"""trust: names as RFC 9525 has them, and verdicts that agree with OpenSSL's."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import ssl
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from engine.net.tls import make_client_context
from engine.net.trust import Trust, bears_name, peer_chain
from tests.fakes.authority import Authority


def certificate(*names: str, common_name: str = "subject") -> x509.Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
    )
    if names:
        presented = [
            x509.IPAddress(ipaddress.ip_address(each)) if each[0].isdigit() else x509.DNSName(each)
            for each in names
        ]
        builder = builder.add_extension(x509.SubjectAlternativeName(presented), critical=False)
    return builder.sign(key, hashes.SHA256())


@pytest.mark.parametrize(
    ("presented", "name", "is_borne"),
    [
        ("mx.example", "mx.example", True),
        ("MX.Example", "mx.eXample", True),  # 6.3: compared without case
        ("mx.example", "mx.example.", True),
        ("example", "mx.example", False),
        ("mx.example", "example", False),
        ("*.example", "mx.example", True),
        ("*.example", "a.mx.example", False),  # 6.3: one label
        ("*.example", "example", False),
        ("*", "example", False),
        ("m*.example", "mx.example", False),  # 6.3: the whole leftmost label
        ("mx.*.example", "mx.a.example", False),
        ("xn--mller-kva.example", "xn--mller-kva.example", True),
        ("192.0.2.1", "192.0.2.1", True),  # 6.5: iPAddress, octet by octet
        ("192.0.2.1", "192.0.2.2", False),
        ("*.0.2.1", "192.0.2.1", False),
    ],
)
def test_names_are_compared_as_rfc_9525_section_6_says(presented, name, is_borne):
    """RFC 9525 section 6."""
    presented = "x" + presented if presented.startswith("*.0") else presented
    assert bears_name(certificate(presented), [name]) is is_borne


def test_the_common_name_is_no_name():
    """RFC 9525 section 2: "the client MUST NOT seek a match" for the subject's CN."""
    assert not bears_name(certificate(common_name="mx.example"), ["mx.example"])


def test_one_of_several_names_is_enough():
    assert bears_name(certificate("a.example", "b.example"), ["x.example", "b.example"])
    assert not bears_name(certificate("a.example"), [])


ROOT = Authority("Root")
BETWEEN = Authority("Between", ROOT)
LEAF = BETWEEN.issue("mx.example")


def openssl_verdict(directory: Path, leaf: Authority, name: str, *, with_chain: bool = True) -> str:
    """Return how a verifying handshake in memory ends: "verified", or OpenSSL's code."""
    client = make_client_context(is_verifying=True, ca_pem=ROOT.pem.decode())
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(leaf.write(directory / "leaf.pem", with_chain=with_chain))
    try:
        shake_hands(client, server, name)
    except ssl.SSLCertVerificationError as error:
        return str(error.verify_code)
    return "verified"


def shake_hands(client: ssl.SSLContext, server: ssl.SSLContext, name: str) -> ssl.SSLObject:
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(to_client, to_server, server_hostname=name)
    theirs = server.wrap_bio(to_server, to_client, server_side=True)
    while True:
        try:
            ours.do_handshake()
            return ours
        except ssl.SSLWantReadError:
            pass
        with contextlib.suppress(ssl.SSLWantReadError):
            theirs.do_handshake()


CASES = {
    "good": (LEAF, "mx.example", True, "verified", "verified"),
    "another name": (LEAF, "mx2.example", True, "certificate-host-mismatch", "62"),
    "too old": (BETWEEN.issue("mx.example", days=-1), "mx.example", True, "certificate-expired", "10"),
    "no chain": (LEAF, "mx.example", False, "certificate-not-trusted", "20"),
    "unknown root": (Authority("X").issue("mx.example"), "mx.example", True, "certificate-not-trusted", "19"),
    "a leaf that signs": (LEAF.issue("mx2.example"), "mx2.example", True, "certificate-not-trusted", "79"),
}


@pytest.mark.parametrize("case", CASES)
def test_the_judge_finds_what_openssl_finds(tmp_path, case):
    leaf, name, with_chain, verdict, code = CASES[case]
    chain = [leaf.der]
    above = leaf.issuer
    while with_chain and above is not None:
        chain.append(above.der)
        above = above.issuer
    assert Trust(ROOT.pem.decode()).judge(chain, name, time.time()) == verdict
    assert openssl_verdict(tmp_path, leaf, name, with_chain=with_chain) == code


@pytest.mark.parametrize(("chain", "name"), [([], "mx.example"), ([b"no certificate"], "mx.example")])
def test_what_can_not_be_read_is_a_validation_failure(chain, name):
    assert Trust(ROOT.pem.decode()).judge(chain, name, time.time()) == "validation-failure"


def test_a_name_that_no_certificate_can_carry_is_a_mismatch():
    chain = [LEAF.der, BETWEEN.der]
    assert Trust(ROOT.pem.decode()).judge(chain, "mx example", time.time()) == "certificate-host-mismatch"


def test_without_roots_nobody_is_trusted(monkeypatch):
    monkeypatch.setattr(Trust, "_pem", lambda self: b"")
    assert Trust().judge([LEAF.der, BETWEEN.der], "mx.example", time.time()) == "certificate-not-trusted"


def test_the_systems_roots_are_read_where_none_are_named():
    assert Trust().judge([LEAF.der, BETWEEN.der], "mx.example", time.time()) == "certificate-not-trusted"


def test_the_chain_comes_as_the_peer_sent_it(tmp_path):
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(LEAF.write(tmp_path / "leaf.pem"))
    ours = shake_hands(make_client_context(), server, "mx.example")
    assert peer_chain(ours) == [LEAF.der, BETWEEN.der, ROOT.der]
