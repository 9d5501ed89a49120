"""unbound, validating, with zones of a test's own: one that the test signs, one that is not signed.

    with serve_zones(stranger, tmp_path, {"signed.example": ZONE}, signed=["signed.example"]) as port: ...

Signing is ldnsutils' work; unbound gets the zone's key as a trust anchor. What a test changes after signing
(`tamper`) is bogus.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

HEAD = "$ORIGIN {origin}.\n$TTL 600\n@ SOA ns hostmaster 1 3600 600 86400 60\n@ NS ns\nns A 198.51.100.53\n"

_CONFIG = """\
server:
    chroot: ""
    username: ""
    directory: "{directory}"
    pidfile: ""
    use-syslog: no
    interface: 127.0.0.1
    port: {port}
    do-not-query-localhost: yes
    module-config: "validator iterator"
    trust-anchor-signaling: no
    num-threads: 1
    verbosity: 1
{anchors}{zones}remote-control:
    control-enable: no
"""
_ZONE = """\
auth-zone:
    name: "{origin}"
    zonefile: "{file}"
    for-downstream: no
    for-upstream: yes
    fallback-enabled: no
"""


def free_port() -> int:
    """A port that is free for both UDP and TCP."""
    with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
        tcp.bind(("127.0.0.1", 0))
        port = int(tcp.getsockname()[1])
        udp.bind(("127.0.0.1", port))
    return port


@contextlib.contextmanager
def serve_zones(
    stranger: Callable[[str], str],
    directory: Path,
    zones: Mapping[str, str],
    *,
    signed: Collection[str] = (),
    tamper: Callable[[str], str] = str,
) -> Iterator[int]:
    """Serve zones (their records behind SOA and NS); yields the port. `tamper` changes signed zone files."""
    port = free_port()
    anchors = described = ""
    for origin, records in zones.items():
        file = directory / f"{origin}.zone"
        file.write_text(HEAD.format(origin=origin) + records)
        if origin in signed:
            key = _sign(stranger, directory, origin, file)
            file = directory / f"{origin}.zone.signed"
            file.write_text(tamper(file.read_text()))
            anchors += f'    trust-anchor-file: "{key}.key"\n'
        described += _ZONE.format(origin=origin, file=file)
    config = directory / "unbound.conf"
    config.write_text(_CONFIG.format(directory=directory, port=port, anchors=anchors, zones=described))
    command = [stranger("unbound"), "-d", "-p", "-c", str(config)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = ""
        while "start of service" not in said:
            line = process.stderr.readline()
            assert line, said
            said += line
        try:
            yield port
        finally:
            process.terminate()
            process.communicate(timeout=10)


def _sign(stranger: Callable[[str], str], directory: Path, origin: str, file: Path) -> Path:
    """Sign a zone file beside itself; the name of its key, without the ending."""
    keygen = [stranger("ldns-keygen"), "-a", "ECDSAP256SHA256", "-k", origin]
    key = subprocess.run(keygen, cwd=directory, check=True, capture_output=True, text=True).stdout.strip()
    sign = [stranger("ldns-signzone"), file.name, key]
    subprocess.run(sign, cwd=directory, check=True, capture_output=True)
    return directory / key
