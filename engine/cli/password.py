"""`mailrail password`: from a password to the hash that the configuration keeps.

Owns: where the password comes from: a terminal or a pipe, never the command line, which others can read.
Fails: ValueError for a password that AUTH could not carry.
"""

from __future__ import annotations

import os
import sys

import click

from engine.settings.password import SALT_BYTES, format_password, hash_password
from engine.smtp.auth import MAX_PART_BYTES


def read_password() -> str:
    """Ask for it twice, or read one line."""
    if sys.stdin.isatty():
        return str(click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))
    return sys.stdin.readline().rstrip("\r\n")


def make_hash(password: str) -> str:
    """Return what stands behind `password =`."""
    try:
        octets = password.encode()
    except UnicodeEncodeError:
        raise ValueError("expected a password in UTF-8") from None  # whose octets no error repeats
    if not 0 < len(octets) <= MAX_PART_BYTES or b"\0" in octets:
        raise ValueError(f"a password has 1 to {MAX_PART_BYTES} octets, and no NUL")
    return format_password(hash_password(octets, os.urandom(SALT_BYTES)))
