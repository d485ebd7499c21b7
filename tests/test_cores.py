"""Threads that are kept on one core: which it is, that it ends, and that nothing happens where it cannot be."""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from toolkit import cores

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells threads where to run")


def here() -> set[int]:
    assert sys.platform == "linux"
    return os.sched_getaffinity(0)


@pytest.fixture
def several() -> set[int]:
    found = here()
    if len(found) < 2:
        pytest.skip("needs two cores")
    return found


@linux
def test_all_threads_keep_to_the_same_core_and_leave_it_again(several: set[int]) -> None:
    both = threading.Barrier(2)

    def one(number: int) -> tuple[set[int], set[int], set[int]]:
        with cores.together():
            both.wait(10)
            within = here()
            with cores.together(), cores.apart():
                apart = here()
            assert here() == within
        return within, apart, here()

    with ThreadPoolExecutor(2) as threads:
        (first, *rest), (second, *others) = threads.map(one, range(2))
    assert first == second
    assert len(first) == 1
    assert first < several
    assert rest == others == [several, several]


@linux
def test_a_core_is_left_whatever_was_raised(several: set[int]) -> None:
    with pytest.raises(KeyboardInterrupt), cores.together(), cores.apart():
        raise KeyboardInterrupt
    assert here() == several
    with pytest.raises(ZeroDivisionError), cores.together():
        raise ZeroDivisionError
    assert here() == several


@linux
def test_cores_that_are_not_ours_are_not_taken(several: set[int]) -> None:
    assert sys.platform == "linux"
    only = {max(several)}
    os.sched_setaffinity(0, only)
    try:
        with cores.together():
            assert here() == only
            with cores.apart():
                assert here() == only
        assert here() == only
    finally:
        os.sched_setaffinity(0, several)


@linux
def test_where_the_system_does_not_let_one_nothing_changes(several: set[int], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(number: int, wanted: set[int]) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setaffinity", refuses)
    with cores.together(), cores.apart():
        assert here() == several
    assert here() == several


def test_free_threaded_python_uses_all_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
    monkeypatch.setattr(cores, "_stay_on", lambda wanted: pytest.fail("a core was chosen"))
    with cores.together(), cores.apart():
        pass


def test_outside_of_a_block_nothing_is_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "_stay_on", lambda wanted: pytest.fail("a core was chosen"))
    with cores.apart():
        pass
