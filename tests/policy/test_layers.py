"""Which sections apply, and in which order."""

from __future__ import annotations

from engine.core.errors import Origin
from engine.policy.layers import Layers, Scope, Section


def section(header):
    return Section(header, Origin("p.toml", 1))


def make_scope():
    scope = Scope()
    scope.default = section("[default]")
    scope.providers["gmail"] = section("[provider.gmail]")
    scope.domains["gmail.com"] = section('[domain."gmail.com"]')
    return scope


def test_the_weakest_section_comes_first():
    found = [each.header for each in make_scope().applying("gmail", "gmail.com")]
    assert found == ["[default]", "[provider.gmail]", '[domain."gmail.com"]']


def test_sections_of_others_do_not_apply():
    assert [each.header for each in make_scope().applying("yahoo", "x.example")] == ["[default]"]
    assert list(Scope().applying("gmail", "gmail.com")) == []


def test_all_yields_every_section_once():
    assert len(list(make_scope().all())) == 3


def test_a_vmtas_word_is_the_last():
    layers = Layers()
    layers.customers["acme"] = customer = Scope()
    layers.vmtas["acme-1"] = vmta = Scope()
    assert list(layers.scopes()) == [layers.base, customer, vmta]
