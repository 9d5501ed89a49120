"""Listening sockets, and whether an address is on this host.

Owns: how a listening socket is made: TCP over IPv4 or IPv6, or a unix stream socket with its mode.
Never: accepts; keeps a socket (the supervisor does).
Fails: ConfigError whose origin is the address or path that can't be listened on.
"""

from __future__ import annotations

import os
import socket
import stat

from engine.core.errors import ConfigError, Origin
from engine.net.sockets import IP_BIND_ADDRESS_NO_PORT

# More than a burst of clients; the kernel cuts it to net.core.somaxconn (4,096 since Linux 5.4).
BACKLOG = 4096
UNIX_PATH_BYTES = 107  # sun_path of unix(7) holds 108 with its NUL


def open_tcp_listener(address: str, port: int) -> socket.socket:
    """Listen on an address of this host; "::" takes IPv6 only, so that "0.0.0.0" may stand beside it.

    Raises:
        ConfigError: taken, not on this host, or not permitted.
    """
    is_v6 = ":" in address
    place = f"[{address}]:{port}" if is_v6 else f"{address}:{port}"
    try:
        listener = socket.socket(socket.AF_INET6 if is_v6 else socket.AF_INET)
    except OSError as error:
        raise _refusal(place, error) from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if is_v6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((address, port))
        return _listen(listener)
    except OSError as error:
        listener.close()
        raise _refusal(place, error) from error


def open_unix_listener(path: str, mode: int) -> socket.socket:
    """Listen on a unix stream socket; one that a dead process left behind is replaced.

    Args:
        path: at most 107 octets.
        mode: permissions; at no moment has the socket wider ones.

    Raises:
        ConfigError: path too long, taken by a live process, no socket, or not permitted.
    """
    check_unix_path(path)
    listener = socket.socket(socket.AF_UNIX)
    try:
        _remove_stale(path)
        os.fchmod(listener.fileno(), mode)  # bind makes the file with these, less the umask
        listener.bind(path)
        os.chmod(path, mode)
        return _listen(listener)
    except OSError as error:
        listener.close()
        raise _refusal(path, error) from error
    except ConfigError:
        listener.close()
        raise


def check_unix_path(path: str) -> None:
    """Raise ConfigError where the kernel can't take this path: it would cut it, or say nothing useful."""
    length = len(os.fsencode(path))
    if length > UNIX_PATH_BYTES:
        detail = f"{length} octets; the path of a unix socket has at most {UNIX_PATH_BYTES}"
        raise ConfigError(Origin(path, 0), detail)


def is_local_source(address: str) -> bool:
    """Can a connection leave from this address now? Asked by binding: it knows netns and nonlocal binds."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
            probe.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
            probe.bind((address, 0))
    except OSError:
        return False
    return True


def is_on_this_host(address: str) -> bool:
    """Would a packet to this address come back to us? Asked by routing it: addresses come and go.

    Nothing is sent: a datagram socket that is connected has its route, and what leads to the host itself
    leaves from the very address that it goes to (127/8, which needs no address of its own, apart). What
    leads away from the host never does.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    if family == socket.AF_INET and address.startswith("127."):
        return True
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))  # discard: any port will do
            return str(probe.getsockname()[0]) == address
    except OSError:
        return False


def _listen(listener: socket.socket) -> socket.socket:
    listener.listen(BACKLOG)
    listener.setblocking(False)
    return listener


def _remove_stale(path: str) -> None:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ConfigError(Origin(path, 0), "there is a file of that name, and it is no socket")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except BlockingIOError:  # its backlog is full
            pass
    raise ConfigError(Origin(path, 0), "another process listens there")


def _refusal(place: str, error: OSError) -> ConfigError:
    cause = os.strerror(error.errno) if error.errno else str(error)
    return ConfigError(Origin(place, 0), f"can't listen there: {cause}")
