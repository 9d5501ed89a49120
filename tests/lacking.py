"""What a test does where this machine lacks something: it is skipped; in CI it fails, for there nothing is.

Owns: every skip of the tests.
"""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def lack(detail: str) -> NoReturn:
    """End the test: skipped for that reason; failed where CI is set."""
    if os.environ.get("CI"):
        pytest.fail(f"in CI nothing is skipped: {detail}")
    pytest.skip(detail)


def need_root(purpose: str) -> None:
    """Go on only as root, which is needed to do that."""
    if os.geteuid() != 0:
        lack(f"needs root to {purpose}")
