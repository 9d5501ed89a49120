"""A shard ends with its supervisor, however that ended, and heeds nobody else.

Two ropes: the kernel's PR_SET_PDEATHSIG, which a busy loop can't miss, and the EOF of the control
link, which covers the moment before the first is in place.

After: prctl(2), PR_SET_PDEATHSIG; the signal follows the death of the *thread* that forked, so the
supervisor spawns from its main thread.
"""

from __future__ import annotations

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def end_with_parent() -> None:
    """Have the kernel kill this process when its parent dies, from now on."""
    parent_pid = os.getppid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent_pid:
        os.kill(os.getpid(), signal.SIGKILL)


def leave_signals_to_supervisor() -> None:
    """Ignore what a terminal or systemd sends to all processes: the control link says when to stop."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
