"""What a feed knows besides the envelope."""

from __future__ import annotations

import msgspec
import pytest

from engine.inject.context import FeedContext


def test_a_context_names_nobody_unless_told():
    context = FeedContext("smtp", "smtp:127.0.0.1:25")
    assert (context.customer, context.is_trusted, context.claim, context.idempotency) == ("", False, "", "")


def test_a_context_does_not_change_under_a_message():
    context = FeedContext("smtp", "l", "acme")
    with pytest.raises(AttributeError):
        context.customer = "globex"
    assert msgspec.structs.replace(context, customer="globex").customer == "globex"
