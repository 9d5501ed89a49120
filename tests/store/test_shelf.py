"""Values of domains that outlive the process."""

from __future__ import annotations

from engine.store.shelf import Shelf


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_value_is_kept_across_processes_until_it_ends(tmp_path):
    clock = Clock()
    shelf = Shelf(tmp_path / "mta-sts", clock)
    assert shelf.load("example") is None
    shelf.save("example", b"policy", 1100.0)
    shelf.close()
    again = Shelf(tmp_path / "mta-sts", clock)
    assert again.load("example") == b"policy"
    assert again.load("other.example") is None
    clock.now = 1100.0
    assert again.load("example") is None
    again.close()


def test_a_later_value_replaces_the_earlier(tmp_path):
    shelf = Shelf(tmp_path / "mta-sts", Clock())
    shelf.save("example", b"one", 1100.0)
    shelf.save("example", b"two", 1200.0)
    shelf.close()
    again = Shelf(tmp_path / "mta-sts", Clock())
    assert again.load("example") == b"two"
    again.close()


def test_what_has_ended_makes_room_for_others(tmp_path):
    clock = Clock()
    shelf = Shelf(tmp_path / "mta-sts", clock, max_values=3)
    for name, ends_at in (("a", 1100.0), ("b", 3000.0), ("c", 1100.0)):
        shelf.save(f"{name}.example", b"old", ends_at)
    shelf.save("d.example", b"no room", 3000.0)
    shelf.close()
    clock.now = 1100.0
    again = Shelf(tmp_path / "mta-sts", clock, max_values=3)
    for name in ("e", "f", "g"):
        again.save(f"{name}.example", b"new", 3000.0)
    again.close()
    third = Shelf(tmp_path / "mta-sts", clock)
    kept = [name for name in "abcdefg" if third.load(f"{name}.example") is not None]
    assert kept == ["b", "e", "f"]
    third.close()
