"""The tree of exceptions says where and what."""

from __future__ import annotations

import pytest

from engine.core import errors
from engine.core.reply import make_reply


def test_a_configuration_error_names_file_and_line():
    error = errors.ConfigError(errors.Origin("m.toml", 7), "expected a number")
    assert str(error) == "m.toml:7: expected a number"
    assert str(errors.Origin("m.toml", 0)) == "m.toml"


def test_a_network_error_names_its_phase():
    error = errors.TimedOut("connect", "no answer in 5 s")
    assert isinstance(error, errors.NetworkError)
    assert (error.phase, str(error)) == ("connect", "connect: no answer in 5 s")


def test_a_permanent_resolve_error_carries_the_reply_to_give():
    reply = make_reply(556, "5.1.10", "null MX")
    error = errors.ResolvePermanent("x.example", "null MX", reply)
    assert error.reply is reply
    assert error.name == "x.example"


def test_a_refusal_says_its_reply():
    assert str(errors.Refused(make_reply(550, "5.7.1", "no"))) == "550 5.7.1 no"


def test_who_may_have_stored_it_is_named():
    error = errors.PerhapsStored(2, "link lost")
    assert (error.shard, str(error)) == (2, "shard 2: link lost")


@pytest.mark.parametrize("name", ["StoreFull", "StoreUnhealthy", "PerhapsStored"])
def test_store_errors_are_caught_as_one(name):
    assert issubclass(getattr(errors, name), errors.StoreError)


def test_every_exception_stands_in_the_drawing_and_below_the_root():
    found = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, Exception)]
    assert all(issubclass(each, errors.MailrailError) for each in found)
    assert all(each.__name__ in errors.__doc__ for each in found)
