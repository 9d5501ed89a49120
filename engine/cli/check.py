"""`mailrail check`: is this configuration right, and can every rule in it fire?

Owns: the form of what was found, and which of it makes the exit status 1.
"""

from __future__ import annotations

from typing import Any

from engine.core.errors import ConfigError
from engine.core.finding import Finding
from engine.loading import check_texts, load_texts


def find_problems(config_path: str) -> list[Finding]:
    """Return everything that is wrong or odd; what can't be loaded at all is one error."""
    try:
        return check_texts(load_texts(config_path))
    except ConfigError as error:
        return [Finding("error", error.origin, error.detail)]


def is_good(findings: list[Finding], is_strict: bool) -> bool:
    """Say whether the configuration passes; strictly, warnings count too."""
    return not any(is_strict or finding.severity == "error" for finding in findings)


def format_findings(findings: list[Finding], is_strict: bool) -> dict[str, Any]:
    """Return the findings as --json prints them."""
    return {
        "is_good": is_good(findings, is_strict),
        "findings": [
            {
                "severity": finding.severity,
                "file": finding.origin.file,
                "line": finding.origin.line,
                "text": finding.text,
            }
            for finding in findings
        ],
    }
