"""The first tasks of a model tell how long it takes."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.paid import PaidRun, account, order
from toolkit.errors import Cancelled, EngineError
from toolkit.wavespeed.scouts import Scout, Scouts

if TYPE_CHECKING:
    from wavespeed_server import Server

MODEL = "a/model"


@pytest.fixture
def scouts() -> Scouts:
    return Scouts()


def under_way(stack: ExitStack, scouts: Scouts, *ages: float, model: str = MODEL) -> list[Scout]:
    joined = [stack.enter_context(scouts.joined(model)) for _ in ages]
    for scout, age in zip(joined, ages, strict=True):
        scout.asked(age, ended=False)
    return joined


def test_four_others_that_are_as_old_tell_and_three_do_not(scouts: Scouts) -> None:
    with ExitStack() as stack:
        (new,) = under_way(stack, scouts, 1.0)
        under_way(stack, scouts, 1.0, 1.2, 1.4)
        assert not new.needless(1.0, 0.0)
        under_way(stack, scouts, 1.1)
        assert new.needless(1.0, 0.0)
        assert new.needless(1.04, 0.05)
        assert not new.needless(1.2, 0.0)


@pytest.mark.parametrize(("others", "last"), [(2.5, 2.0), (1.2, 1.2), (100.0, 0.0)])
def test_how_long_others_hold_a_task_back(scouts: Scouts, others: float, last: float) -> None:
    """While they are as old, for twice the time expected at most, and not at all when they are stuck."""
    with ExitStack() as stack:
        (new,) = under_way(stack, scouts, 0.0)
        under_way(stack, scouts, *[others] * 9)
        assert new.needless(last, 0.0) == (last > 0)
        assert not any(new.needless(last + age / 10, 0.0) for age in range(1, 30))


def test_once_one_has_ended_none_is_held_back(scouts: Scouts) -> None:
    with ExitStack() as stack:
        new, *old = under_way(stack, scouts, 0.0, 1.2, 1.2, 1.2, 1.2, 1.2)
        assert new.needless(1.0, 0.0)
        old[0].asked(1.3, ended=True)
        assert not new.needless(1.0, 0.0)
        (later,) = under_way(stack, scouts, 0.0)
        assert not later.needless(1.0, 0.0)


def test_those_that_are_not_waited_for_any_more_tell_nothing(scouts: Scouts) -> None:
    """Else what was cancelled long ago would hold back a new run."""
    with ExitStack() as stack:
        (new,) = under_way(stack, scouts, 0.0)
        with ExitStack() as others:
            under_way(others, scouts, *[1.2] * 9)
            assert new.needless(1.0, 0.0)
        assert not new.needless(1.0, 0.0)


def test_models_do_not_tell_of_each_other(scouts: Scouts) -> None:
    with ExitStack() as stack:
        (new,) = under_way(stack, scouts, 0.0)
        under_way(stack, scouts, *[1.2] * 9, model="another/model")
        assert not new.needless(1.0, 0.0)


@given(st.lists(st.floats(0.0, 2.0), min_size=1, max_size=12), st.floats(0.0, 0.1), st.floats(1e-3, 1.0))
def test_the_four_eldest_are_always_asked_about(ages: list[float], slack: float, more: float) -> None:
    """Nobody waits for an answer that nobody asks for."""
    scouts = Scouts()
    with ExitStack() as stack:
        joined = under_way(stack, scouts, *ages)
        for k in sorted(range(len(ages)), key=lambda k: ages[k])[-4:]:
            assert not joined[k].needless(ages[k] + slack + more, slack)


def test_later_tasks_are_asked_about_less_often_than_the_first(service: Server) -> None:
    service.set(seconds=1.6)
    tasks, journal = account(service, None)
    run = PaidRun(journal)
    orders = [replace(order(seed=seed), seconds=lambda size: 0.6) for seed in range(12)]
    with ThreadPoolExecutor(12) as threads:
        first = [threads.submit(tasks.get, one, run) for one in orders[:4]]
        time.sleep(0.25)
        later = [threads.submit(tasks.get, one, run) for one in orders[4:]]
        assert all(each.result().pictures for each in (*first, *later))
    polls = [task.polls for task in sorted(service.accepted, key=lambda task: task.at)]
    assert sum(polls[4:]) / 8 < sum(polls[:4]) / 4  # 1 to 3, and 4 or 5


def test_patience_ends_for_those_held_back_too(service: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Scout, "needless", lambda scout, age, slack: True)
    service.set(seconds=60.0)
    tasks, journal = account(service, None, patience=0.5)
    with pytest.raises(EngineError, match=r"within 0\.5 s"):
        tasks.get(order(), PaidRun(journal))


def test_where_it_is_known_how_long_they_take_nobody_is_held_back(service: Server) -> None:
    service.set(seconds=0.5)
    tasks, journal = account(service, None)
    run = PaidRun(journal)
    tasks.get(order(seed=100), run)
    stuck = service.fault("task", "seconds", times=4, seconds=30.0)
    with ThreadPoolExecutor(12) as threads:
        slow = [threads.submit(tasks.get, order(seed=seed), run) for seed in range(4)]
        service.wait(lambda server: stuck.used == 4)
        quick = [threads.submit(tasks.get, order(seed=seed), run) for seed in range(4, 10)]
        assert all(each.result().pictures for each in quick)
        assert not any(each.done() for each in slow), "they were brought while the stuck ones went on"
        run.cancel_when = lambda: True
        for each in slow:
            with pytest.raises(Cancelled):
                each.result()
