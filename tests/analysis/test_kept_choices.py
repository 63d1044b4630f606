"""What was chosen by timing is kept whole, also where several processes keep something at the same time."""

from __future__ import annotations

import threading

import pytest

from analysis import kept_choices


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "landscape"


def test_what_is_kept_at_the_same_time_is_all_kept():
    def keep(name):
        for number in range(25):
            kept_choices.keep("engines", f"{name}{number}", {"seconds": float(number)})

    threads = [threading.Thread(target=keep, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = {(name, n): kept_choices.find("engines", f"{name}{n}") for name in "abc" for n in range(25)}
    assert found == {(name, n): {"seconds": float(n)} for name, n in found}


def test_what_is_chosen_one_at_a_time_can_be_kept_meanwhile():
    with kept_choices.one_at_a_time("products"):
        kept_choices.keep("products", "key", {"way": "forward"})
    assert kept_choices.find("products", "key") == {"way": "forward"}


def test_a_cache_that_cannot_be_written_costs_time_only(folder):
    folder.parent.mkdir(exist_ok=True)
    folder.write_text("a file in the place of the folder")
    with kept_choices.one_at_a_time("products"):
        kept_choices.keep("products", "key", {"way": "forward"})
    assert kept_choices.find("products", "key") == {}
