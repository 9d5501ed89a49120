from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.document import MAX_DEPTH, Document
from engine.core.errors import ConfigError

EXAMPLE = '''# comment [not.a.section]
[engine]
hostname = "a" # x = 1
a.b = [1,
  2, {c = "]", d=[3]},
  # no
  """x"]
  y\\""""",
]

[[listener]]
allow = []
[listener.x]
y = 'abc#'
[[listener]]
z = 1979-05-27T07:32:00Z
[[listener.dkim]]
selector = "s"
[vmta."a-\\"1".provider.gmail]
k = { "q.r" = 1, s.t = 2 }
'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("engine",), 2),
        (("engine", "hostname"), 3),
        (("engine", "a", "b"), 4),
        (("engine", "a", "b", 1), 5),
        (("engine", "a", "b", 2, "d", 0), 5),
        (("engine", "a", "b", 3), 7),
        (("listener", 0), 11),
        (("listener", 0, "allow"), 12),
        (("listener", 0, "x", "y"), 14),
        (("listener", 1, "z"), 16),
        (("listener", 1, "dkim", 0, "selector"), 18),
        (("vmta", 'a-"1', "provider", "gmail"), 19),
        (("vmta", 'a-"1', "provider", "gmail", "k", "q.r"), 20),
        (("engine", "absent"), 2),
        (("absent",), 0),
    ],
)
def test_every_key_has_its_line(path: tuple[str | int, ...], line: int) -> None:
    assert Document("f.toml", EXAMPLE).origin(path) == ("f.toml", line)


def test_lines_are_the_same_with_carriage_returns() -> None:
    document = Document("f.toml", EXAMPLE.replace("\n", "\r\n"))
    assert document.origin(("listener", 1, "z")).line == 16


@pytest.mark.parametrize(
    ("text", "line"),
    [("a = 1\nb = \n", 2), ("a = 1\na = 2\n", 2), ('a = "x\n', 1), ("[a]\n[a]\n", 2), ("a = [1,\n2", 2)],
)
def test_text_that_is_not_toml_names_its_line(text: str, line: int) -> None:
    with pytest.raises(ConfigError, match="not valid TOML") as caught:
        Document("f.toml", text)
    assert caught.value.origin == ("f.toml", line)
    assert "at line" not in caught.value.detail


# Values in each spelling that TOML has, with the marks that could mislead the scan inside.
scalars = st.sampled_from(
    [
        "1",
        "-0.5",
        "true",
        "1979-05-27",
        '""',
        '"a # ] } = b"',
        "'c:\\x'",
        '"q\\"[" ',
        '"""a\n"" ]\n"""',
        "'''b\n'''",
        '"\\\\"',
    ]
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: "[\n # [\n" + ",\n".join(items) + "\n]"),
        st.lists(inner.filter(lambda text: "\n" not in text), max_size=2).map(
            lambda items: "{" + ", ".join(f"k{n} = {item}" for n, item in enumerate(items)) + "}"
        ),
    ),
    max_leaves=6,
)


def _paths(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    found = [path] if path else []
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in pairs:
        found += _paths(below, (*path, key))
    return found


@given(st.lists(values, min_size=1, max_size=6))
def test_every_path_that_tomllib_sees_has_a_line_of_its_own(items: list[str]) -> None:
    text = "".join(f"[t{n}]\nmarker{n} = {item}\n" for n, item in enumerate(items))
    document = Document("f", text)
    assert document.table == tomllib.loads(text)
    lines = text.split("\n")
    for path in _paths(document.table):
        assert path in document._lines
    for n in range(len(items)):
        assert lines[document.origin((f"t{n}", f"marker{n}")).line - 1].startswith(f"marker{n} = ")


@pytest.mark.parametrize(
    "text",
    [
        "a = 1\nx = " + "[" * 2000 + "]" * 2000,
        "a = 1\nx = " + "{a = " * 2000 + "1" + "}" * 2000,
        "a = 1\nx = " + "[" * MAX_DEPTH + "1" + "]" * MAX_DEPTH,
        "[a]\n" + ".".join("a" * 3000) + " = 1",
        "\n[" + ".".join("a" * 3000) + "]",
    ],
)
def test_text_that_nests_too_deeply_names_its_line(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^f:2: expected at most 32 levels of tables and lists$"):
        Document("f", text)


def test_depth_up_to_the_bound_is_taken() -> None:
    depth = MAX_DEPTH - 1
    assert Document("f", "x = " + "[" * depth + "1" + "]" * depth).origin(("x", 0, 0)).line == 1
