"""classify: one of 18 categories for each reply, by text before codes, and remembered."""

from __future__ import annotations

import pytest

from engine.core.errors import Origin
from engine.core.reply import Reply, make_reply
from engine.loading import load_shipped_policies
from engine.policy.categories import CATEGORIES
from engine.policy.classify import Classifier, make_classifier
from engine.policy.normalize import parse_reply
from engine.policy.parse import parse_policies
from engine.policy.reply_rules import Rule

SHIPPED = parse_policies(load_shipped_policies())


def category(line: str, provider: str = "") -> str:
    return SHIPPED.classifier.classify(parse_reply(line), provider).category


def make_rule(name: str, **facts: tuple[str, ...]) -> Rule:
    values = {"match": (), "codes": (), "enhanced": (), "providers": (), "samples": (), **facts}
    return Rule(name=name, origin=Origin("f", 1), category="other", **values)


# None of these is a sample of a rule: the rules have to know more than their own examples.
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("550 5.1.1 <nobody@b.example>... User Unknown", "bad-mailbox"),
        ("550 RCPT TO:<nobody@b.example> User not known", "bad-mailbox"),
        ("553 5.1.2 we couldn't find the domain b.example: domain not found", "bad-domain"),
        ("550 Unrouteable mail domain b.example", "bad-domain"),
        ("550 5.2.1 Sorry, that account has been deactivated", "inactive-mailbox"),
        ("550 Konto ist deaktiviert", "inactive-mailbox"),
        ("452 4.2.2 The mailbox you tried to reach is over its quota", "quota-issues"),
        ("552 la casella del destinatario è piena", "quota-issues"),
        ("552 5.3.4 Your message is larger than we allow, 10 MB at most", "message-too-large"),
        ("554 5.7.1 Sorry, this mail was classified as spam by our filter", "spam-content"),
        ("554 5.7.1 Infected attachment removed: Win32/Trojan", "spam-content"),
        ("554 5.7.1 mail refused, 192.0.2.7 found in zen.spamhaus.org", "spam-block"),
        ("550 Your host is banned here", "spam-block"),
        ("554 5.7.1 denied by company policy", "policy-related"),
        ("450 4.7.1 cannot find your reverse hostname, [192.0.2.7]", "policy-related"),
        ("550 5.7.26 sender fails DMARC", "authentication"),
        ("550-SPF says 192.0.2.7 may not send for a.example", "authentication"),
        ("550 too many messages in a short time, slow down", "rate-limited"),
        ("421 4.7.0 You have exceeded the number of parallel connections", "rate-limited"),
        ("421 Trop de connexions simultanees", "rate-limited"),
        ("451 4.7.1 Greylisted, see http://postgrey.b.example", "greylisted"),
        ("421 4.4.2 connection reset by peer", "bad-connection"),
        ("lost connection with mx.b.example while sending MAIL FROM", "bad-connection"),
        ("connect to mx.b.example[192.0.2.7]:25: No route to host", "no-answer-from-host"),
        ("554 5.7.1 relaying to that address is prohibited", "relaying-issues"),
        ("554 5.4.6 too many hops, 51 Received headers", "routing-errors"),
        ("503 5.5.1 bad sequence, RCPT first", "protocol-errors"),
        ("451 4.3.0 internal software error, we are working on it", "temporary-system"),
        ("422 License expired", "other"),
    ],
)
def test_each_category_is_found(line: str, expected: str) -> None:
    assert category(line) == expected


def test_every_category_has_a_rule() -> None:
    assert {rule.category for rule in SHIPPED.classifier.rules} == set(CATEGORIES)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("550 5.1.1 rate limit exceeded", "rate-limited"),  # text before the enhanced code
        ("550 5.2.2 hm", "quota-issues"),  # the enhanced code before the code
        ("550 hm", "bad-mailbox"),  # the code where there is nothing else
        ("451 hm", "temporary-system"),
        ("421 4.7.1 [TS03] All messages from 192.0.2.1 will be permanently deferred", "spam-block"),
        ("552 5.2.2 mailbox size limit exceeded", "quota-issues"),
        ("552 5.3.4 message size limit exceeded", "message-too-large"),
        ("hm", "other"),
        ("", "other"),
        ("250 2.0.0 ok", "other"),
    ],
)
def test_text_outranks_enhanced_code_outranks_code(line: str, expected: str) -> None:
    assert category(line) == expected


def test_verdict_says_what_its_rule_went_by() -> None:
    classify = SHIPPED.classifier.classify
    assert classify(Reply(550, "5.1.1", "user unknown"))[1:] == ("no-such-mailbox", "text")
    assert classify(Reply(550, "5.1.1", "hm"))[1:] == ("enhanced-bad-mailbox", "enhanced")
    assert classify(Reply(550, "", "hm"))[1:] == ("code-mailbox", "code")
    assert classify(Reply(299, "", "hm"))[1:] == ("", "none")


def test_what_we_say_ourselves_is_not_matched() -> None:
    verdict = SHIPPED.classifier.classify(make_reply(451, "4.4.2", "mailbox full, blocked by spamhaus"))
    assert verdict == ("bad-connection", "", "own")


def test_first_rule_in_order_decides() -> None:
    rules = (make_rule("a", match=("x+",)), make_rule("b", match=("x",)))
    assert Classifier(rules).classify(Reply(550, "", "xx")).rule == "a"


def test_rule_with_conditions_lets_the_next_one_have_what_does_not_fit() -> None:
    rules = (
        make_rule("a", match=("x",), codes=("4xx",)),
        make_rule("b", match=("x",), enhanced=("5.7.x",)),
        make_rule("c", match=("x",), providers=("gmail",)),
        make_rule("d", match=("x",)),
    )
    classify = Classifier(rules).classify
    assert classify(Reply(451, "", "x")).rule == "a"
    assert classify(Reply(550, "5.7.26", "x")).rule == "b"
    assert classify(Reply(550, "", "x"), "Gmail").rule == "c"
    assert classify(Reply(550, "", "x"), "yahoo").rule == "d"


def test_replies_that_say_the_same_are_worked_out_once() -> None:
    classifier = Classifier(SHIPPED.classifier.rules)
    for number in range(5):
        classifier.classify(Reply(550, "5.1.1", f"<u{number}@b.example>: User unknown (192.0.2.{number})"))
    assert (classifier.hits, classifier.misses) == (4, 1)


def test_no_more_is_remembered_than_the_bound_and_the_least_used_goes_first() -> None:
    classifier = Classifier((make_rule("a", match=("x",)),), max_remembered=2)
    for text in ("one", "two", "one", "three", "one", "two"):
        classifier.classify(Reply(550, "", text))
    assert (classifier.hits, classifier.misses) == (2, 4)


def test_provider_that_no_rule_names_makes_no_difference_to_what_is_remembered() -> None:
    classifier = Classifier((make_rule("a", match=("x",)),))
    classifier.classify(Reply(550, "", "x"), "gmail")
    classifier.classify(Reply(550, "", "x"), "yahoo")
    assert classifier.hits == 1


def test_reload_that_changes_no_rule_keeps_what_is_remembered() -> None:
    rules = (make_rule("kept", match=("x",)),)
    assert make_classifier(rules) is make_classifier((make_rule("kept", match=("x",)),))


def test_texts_without_bound_or_sense_get_a_category_too() -> None:
    for text in ("x" * 1_000_000, "\udcff\udcfe", "\0\1\2", "spam " * 100_000):
        assert SHIPPED.classifier.classify(Reply(550, "", text)).category in CATEGORIES


def test_filter_finds_what_each_pattern_finds_alone() -> None:
    """Every sample of every rule reaches its rule among all others."""
    for rule in SHIPPED.classifier.rules:
        for sample in rule.samples:
            provider = "".join(rule.providers[:1])
            reply = parse_reply(sample.removeprefix("000 "))
            assert SHIPPED.classifier.classify(reply, provider).rule == rule.name, sample
