"""Keys are found where they are, and nowhere else."""

from hypothesis import given
from hypothesis import strategies as st

from engine.store.keylist import KeyList


@given(st.sets(st.binary(min_size=3, max_size=3), max_size=40), st.binary(min_size=3, max_size=3))
def test_index_is_that_of_the_sorted_keys(keys, probe):
    ordered, found = sorted(keys), KeyList(3)
    for key in ordered:
        found.append(key)
    assert len(found) == len(ordered)
    assert [found.index(key) for key in ordered] == list(range(len(ordered)))
    assert [found.at(place) for place in range(len(ordered))] == ordered
    assert (found.index(probe) >= 0) == (probe in keys)
