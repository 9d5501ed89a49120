"""What `mailrail check` says of a line."""

from __future__ import annotations

from engine.core.errors import Origin
from engine.core.finding import Finding


def test_a_finding_reads_as_compilers_write_them():
    assert str(Finding("warning", Origin("p.toml", 3), "never used")) == "p.toml:3: warning: never used"
