"""A child that ends with its parent."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import textwrap

PARENT = textwrap.dedent(
    """
    import os, subprocess, sys, time
    child = '''
    import os, sys, time
    from engine.control.lifetime import end_with_parent, leave_signals_to_supervisor
    end_with_parent()
    leave_signals_to_supervisor()
    print(os.getpid(), flush=True)
    while True:
        time.sleep(60)
    '''
    subprocess.Popen([sys.executable, "-c", child])
    time.sleep(60)
    """
)


def test_a_shard_dies_when_its_supervisor_is_killed_and_ignores_other_signals() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        pidfd = os.pidfd_open(child)
        try:
            os.kill(child, 15)
            os.kill(child, 2)
            os.kill(child, 1)
            assert select.select([pidfd], [], [], 0.1)[0] == []
            parent.kill()
            assert select.select([pidfd], [], [], 10)[0] == [pidfd]
        finally:
            os.close(pidfd)
