"""Fixtures of every test."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable

import pytest

from tests.lacking import lack

# Debian keeps daemons and smtp-source where an ordinary user's PATH does not look.
SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])


@pytest.fixture
def stranger(request: pytest.FixtureRequest) -> Callable[[str], str]:
    """Return a function from a program's name to its path.

    The test names the Debian package: `@pytest.mark.stranger("postfix")`. Where the program is missing the
    test is skipped and says which package it wants; in CI (CI is set) it fails, for there nothing is skipped.
    """
    marker = request.node.get_closest_marker("stranger")
    assert marker is not None, "mark the test: @pytest.mark.stranger(package)"
    package = marker.args[0]

    def find(program: str) -> str:
        path = shutil.which(program, path=SEARCH_PATH)
        if path is None:
            lack(f"{program} is missing: install the Debian package {package}")
        return path

    return find
