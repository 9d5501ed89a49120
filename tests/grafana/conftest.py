"""A directory of its own for the dashboard's test."""

from tests.e2e.conftest import pytest_runtest_makereport, root

__all__ = ["pytest_runtest_makereport", "root"]
