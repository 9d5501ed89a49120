"""Fixtures of the whole engine, for pages about what it answers."""

from tests.e2e.conftest import configuration, pytest_runtest_makereport, root, run_engine, sink

__all__ = ["configuration", "pytest_runtest_makereport", "root", "run_engine", "sink"]
