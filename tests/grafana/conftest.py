"""Fixtures of the whole engine, for the dashboard's test."""

from tests.e2e.conftest import pytest_runtest_makereport, root, sink

__all__ = ["pytest_runtest_makereport", "root", "sink"]
