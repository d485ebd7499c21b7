"""Waiting that can be cancelled."""

from __future__ import annotations

import os
import threading
import time

import pytest

from toolkit.errors import Cancelled
from toolkit.waiting import Line, wait


def test_it_ends_when_the_time_is_up() -> None:
    began = time.monotonic()
    wait(0.05, lambda: False)
    assert time.monotonic() - began >= 0.05


def test_who_is_cancelled_before_does_not_wait() -> None:
    with pytest.raises(Cancelled):
        wait(0.0, lambda: True)


def test_who_is_cancelled_meanwhile_wakes_and_the_others_go_on() -> None:
    stop, ended, woken = threading.Event(), list[str](), list[str]()

    def cancellable() -> None:
        try:
            wait(30.0, stop.is_set)
        except Cancelled:
            woken.append("cancelled")

    def patient() -> None:
        wait(0.6, lambda: False)
        ended.append("in time")

    threads = [threading.Thread(target=call) for call in (cancellable, cancellable, patient)]
    for thread in threads:
        thread.start()
    stop.set()
    for thread in threads:
        thread.join(20.0)
    assert len(woken) == 2
    assert len(ended) == 1


def test_what_goes_wrong_while_asking_is_raised_where_it_is_waited() -> None:
    asked = 0

    def cancelled() -> bool:
        nonlocal asked
        asked += 1
        if asked > 1:
            raise ValueError("progress cannot be shown")
        return False

    with pytest.raises(ValueError, match="cannot be shown"):
        wait(30.0, cancelled)


def test_it_works_again_after_nobody_has_waited_for_a_while() -> None:
    for _ in range(2):
        stop = threading.Event()
        threading.Timer(0.05, stop.set).start()
        with pytest.raises(Cancelled):
            wait(30.0, stop.is_set)
        time.sleep(1.0)


def test_turns_come_in_order_and_pass_over_who_was_cancelled() -> None:
    line, stop, seen = Line(), threading.Event(), list[str]()

    def work(name: str) -> None:
        try:
            with line.turn(lambda: name == "second" and stop.is_set()):
                seen.append(name)
                if name == "third":
                    raise ValueError(name)
        except (Cancelled, ValueError) as problem:
            seen.append(f"{name} {type(problem).__name__}")

    threads = []
    with line.turn(lambda: False):
        for name in ("first", "second", "third", "fourth"):
            threads.append(threading.Thread(target=work, args=(name,)))
            threads[-1].start()
            while len(line._waiters) < len(threads):
                time.sleep(0.001)
        stop.set()
        threads[1].join(20.0)
        assert seen == ["second Cancelled"]
    for thread in threads:
        thread.join(20.0)
    assert seen[1:] == ["first", "third", "third ValueError", "fourth"]
    with line.turn(lambda: True):  # nobody is before it: it does not wait
        seen.append("again")


def test_several_have_their_turn_at_once_and_who_had_one_goes_first() -> None:
    line, seen = Line(2), list[str]()

    def work(name: str) -> None:
        line.take(lambda: False, again=name.startswith("again"))
        seen.append(name)
        line.leave()

    line.take(lambda: True)
    line.take(lambda: True)
    threads = []
    for name in ("first", "second", "again 1", "again 2"):
        threads.append(threading.Thread(target=work, args=(name,)))
        threads[-1].start()
        while len(line._waiters) + len(line._first) < len(threads):
            time.sleep(0.001)
    line.leave()
    for thread in threads:
        thread.join(20.0)
    assert seen == ["again 1", "again 2", "first", "second"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_is_in_nobodys_line() -> None:
    line = Line()
    with line.turn(lambda: False):
        child = os.fork()
        if not child:
            with line.turn(lambda: True):
                os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
