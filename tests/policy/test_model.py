"""The complete policy of a path has no default of its own."""

from __future__ import annotations

import msgspec
import pytest

from engine.policy.fields import POLICY
from engine.policy.model import Destination, Policy


def test_every_attribute_is_the_key_of_some_field_and_has_no_default():
    names = {field.name for field in msgspec.structs.fields(Policy)}
    assert names == {field.attribute for field in POLICY.values()}
    assert all(field.required for field in msgspec.structs.fields(Policy))


def test_a_policy_that_lacks_a_value_is_no_policy():
    with pytest.raises(TypeError):
        Policy(max_connections=1)


def test_a_destination_reads_as_its_name_and_is_a_key():
    gmail = Destination("gmail", "provider", "gmail", "")
    assert str(gmail) == "gmail"
    assert {gmail: 1}[Destination("gmail", "provider", "gmail", "")] == 1
