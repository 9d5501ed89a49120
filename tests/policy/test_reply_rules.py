"""reply_rules: [[classify]] and [category.NAME] are read, overridden and refused with file and line."""

from __future__ import annotations

import pytest

from engine.core.errors import ConfigError
from engine.loading import load_shipped_policies
from engine.policy.categories import CATEGORIES
from engine.policy.fold import PolicySet
from engine.policy.parse import parse_policies

RULE = (
    '[[classify]]\nname = "{name}"\nmatch = "{match}"\ncategory = "{category}"\nsamples = ["550 {match}"]\n'
)


def rule(name: str, match: str, category: str = "other") -> str:
    head = f'[[classify]]\nname = "{name}"\nmatch = "{match}"\n'
    return f'{head}category = "{category}"\nsamples = ["550 {match}"]\n'


def parse(*texts: str) -> PolicySet:
    own = [(f"/etc/p/{number}.toml", text) for number, text in enumerate(texts, 1)]
    return parse_policies([*load_shipped_policies(), *own])


def complaint(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    return str(caught.value)


def test_every_category_has_a_row_in_the_manual() -> None:
    assert set(parse().categories) == set(CATEGORIES)


def test_row_is_overridden_key_by_key() -> None:
    row = parse(
        '[category.bad-mailbox]\npermanent = "give_up"', "[category.bad-mailbox]\npatience = 9"
    ).categories
    assert row["bad-mailbox"] == ("give_up", "give_up", 9, 1)
    assert row["inactive-mailbox"].permanent == "suppress"


def test_later_files_are_asked_first_and_a_file_from_top_to_bottom() -> None:
    policies = parse(rule("a", "aaa") + rule("b", "bbb"), rule("c", "ccc"))
    names = [each.name for each in policies.layers.classify.in_order()]
    assert names[:3] == ["c", "a", "b"]


def test_text_goes_before_enhanced_codes_and_those_before_codes() -> None:
    codes = '[[classify]]\nname = "x"\ncode = 599\ncategory = "other"\nsamples = ["599 a"]\n'
    enhanced = '[[classify]]\nname = "y"\nenhanced = "5.9.9"\ncategory = "other"\nsamples = ["550 5.9.9 a"]\n'
    bases = [each.basis for each in parse(codes + enhanced).layers.classify.in_order()]
    assert bases == sorted(bases, key=("text", "enhanced", "code").index)


def test_rule_of_the_same_name_replaces_the_one_before() -> None:
    policies = parse(rule("quota", "my own words", "other"))
    (found,) = [each for each in policies.layers.classify.in_order() if each.name == "quota"]
    assert (found.match, found.origin.file) == (("my own words",), "/etc/p/1.toml")


def test_rule_can_be_switched_off() -> None:
    policies = parse('[[classify]]\nname = "quota"\noff = true')
    assert "quota" not in [each.name for each in policies.layers.classify.in_order()]


HEAD = '[[classify]]\nname = "a"\n'
TAIL = '\ncategory = "other"\nsamples = ["550 a"]'
PATTERN = "/etc/p/1.toml:3: [[classify]] number 1: key match: expected a pattern "


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f'{HEAD}match = "a("{TAIL}', PATTERN + "in RE2's syntax (missing ): a(), got 'a('"),
        (f'{HEAD}match = "a*"{TAIL}', PATTERN + "that does not match the empty text, got 'a*'"),
        (f'{HEAD}match = "((a{{100}}){{100}}){{100}}"{TAIL}', PATTERN + "in RE2's syntax"),
        (f'{HEAD}match = "{"a" * 2001}"{TAIL}', PATTERN + "of 1 to 2,000 characters"),
        (f"{HEAD}match = 5{TAIL}", PATTERN + "of 1 to 2,000 characters, got 5"),
        (f'{HEAD}match = ["b", "a("]{TAIL}', PATTERN + "in RE2's syntax"),
        (
            f'{HEAD}match = "a"\nsamples = ["a"]\ncategory = "spam-blok"',
            ":5: [[classify]] number 1: key category",
        ),
        (HEAD + TAIL, ":1: [[classify]] number 1 (a): none of match, enhanced and code: it would fit"),
        (f'{HEAD}match = "a"\ncategory = "other"', "number 1 (a): key samples is missing"),
        (f'{HEAD}match = "a"\nsamples = ["550 a"]', "number 1 (a): key category is missing"),
        (f'[[classify]]\nmatch = "a"{TAIL}', ":1: [[classify]] number 1: key name is missing"),
        (f'{HEAD}off = true\nmatch = "a"', "off = true stands with the name alone"),
        (f'{HEAD}mach = "a"', ":3: [[classify]] number 1: unknown key 'mach'; did you mean 'match'?"),
        (f"{HEAD}code = 250{TAIL}", ":3: [[classify]] number 1: key code: expected a code such as 550"),
        (f'{HEAD}enhanced = "5.1"{TAIL}', ":3: [[classify]] number 1: key enhanced: expected an enhanced"),
        (rule("a", "aaa") + rule("a", "bbb"), ":6: [[classify]] number 2: the file has a rule 'a' already"),
        ("[classify]\nname = 1", "/etc/p/1.toml:1: expected [[classify]], got a table"),
        (
            "[category.bad-mail-box]",
            ":1: [category]: unknown key 'bad-mail-box'; did you mean 'bad-mailbox'?",
        ),
        ('[category.other]\ntemporary = "bounce"', ":2: [category.other]: key temporary: expected one of"),
        ("[category.other]\npatience = 0", ":2: [category.other]: key patience: expected a whole number"),
    ],
)
def test_what_is_wrong_is_named_with_file_line_and_key(text: str, expected: str) -> None:
    assert expected in complaint(text)


def test_policies_without_a_row_for_a_category_are_refused() -> None:
    files = load_shipped_policies()
    text = (
        files[0][1].replace("[category.greylisted]", "[category.other]", 1).partition("[category.other]")[0]
    )
    with pytest.raises(ConfigError, match=r"\[category\.greylisted\]: key temporary is missing"):
        parse_policies([(files[0][0], text), *files[1:]])
