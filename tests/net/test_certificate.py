"""Certificates of listeners: what can be used, and what happens when files change."""

from __future__ import annotations

import os
import shutil
import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from engine.net.certificate import Certificate, CertificateError, make_server_context
from tests.fakes.submission import trusting, write_certificate


def shown(context: ssl.SSLContext, trusted: str) -> bool:
    """Return whether a handshake in memory shows a certificate that is trusted."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting(trusted).wrap_bio(to_client, to_server)
    server = context.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(3):
        for end in (client, server):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError:
                return False
    return True


def replace(files: tuple[str, str], others: tuple[str, str]) -> None:
    """Put other contents in the place of files, as renewing programs do."""
    for old, new in zip(files, others, strict=True):
        shutil.copy(new, f"{old}.new")
        os.rename(f"{old}.new", old)


def test_context_shows_the_certificate_from_tls_1_2_on(tmp_path: Path) -> None:
    files = write_certificate(tmp_path)
    context = make_server_context(*files)
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert make_server_context(*files, "1.3").minimum_version == ssl.TLSVersion.TLSv1_3
    assert context.options & ssl.OP_NO_RENEGOTIATION
    assert shown(context, files[0])


def test_files_that_can_not_be_used_say_why(tmp_path: Path) -> None:
    files = write_certificate(tmp_path)
    other = write_certificate(tmp_path, "other.example")
    with pytest.raises(CertificateError, match="KEY_VALUES_MISMATCH"):
        make_server_context(files[0], other[1])
    with pytest.raises(CertificateError, match=r"can't read .*gone\.key: No such file"):
        make_server_context(files[0], str(tmp_path / "gone.key"))
    (tmp_path / "empty").touch()
    with pytest.raises(CertificateError, match="not a certificate and its key in PEM"):
        make_server_context(str(tmp_path / "empty"), files[1])


def test_key_with_a_password_asks_no_terminal(tmp_path: Path) -> None:
    certificate, key = write_certificate(tmp_path)
    private = serialization.load_pem_private_key(Path(key).read_bytes(), None)
    Path(key).write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(CertificateError, match="password"):
        make_server_context(certificate, key)


def test_certificate_that_changes_is_shown(tmp_path: Path) -> None:
    files, other = write_certificate(tmp_path), write_certificate(tmp_path, "other.example")
    made = Certificate(*files, "1.2")
    before = made.context
    made.refresh()
    assert made.context is before
    replace(files, other)
    made.refresh()
    assert made.context is not None
    assert shown(made.context, other[0])


def test_bad_pair_leaves_the_old_one_until_it_is_mended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files, other = write_certificate(tmp_path), write_certificate(tmp_path, "other.example")
    spare = tmp_path / "spare.crt"
    shutil.copy(files[0], spare)
    made = Certificate(*files, "1.2")
    replace((files[0],) * 2, (other[0],) * 2)  # the key comes later
    made.refresh()
    made.refresh()
    assert made.context is not None
    assert shown(made.context, str(spare))
    replace((files[1],) * 2, (other[1],) * 2)
    made.refresh()
    assert shown(made.context, other[0])


def test_reload_reads_files_whatever_their_times(tmp_path: Path) -> None:
    made = Certificate(*write_certificate(tmp_path), "1.2")
    before = made.context
    made.refresh(is_asked=True)
    assert made.context is not before


def test_pair_that_was_never_good_is_no_context_until_it_is(tmp_path: Path) -> None:
    gone = (str(tmp_path / "a.crt"), str(tmp_path / "a.key"))
    made = Certificate(*gone, "1.2")
    assert made.context is None
    for source, target in zip(write_certificate(tmp_path), gone, strict=True):
        shutil.copy(source, target)
    made.refresh()
    assert made.context is not None
