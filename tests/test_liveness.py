"""A process is alive exactly as long as it lives, to all that share its folder."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import pytest

from tests.children import Child, children
from toolkit.liveness import Owner

HOLD = """
from pathlib import Path
from toolkit.liveness import Owner
owner = Owner(Path(sys.argv[1]))
say(owner.id)
input()
"""
fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")


def test_another_process_is_alive_until_it_is_killed(tmp_path: Path) -> None:
    owner = Owner(tmp_path)
    with children() as started:
        child = Child(HOLD, tmp_path)
        started.append(child)
        other = child.hear()
        assert owner.alive(other)
        child.kill()
        assert not owner.alive(other)
        assert not (tmp_path / "owners" / f"{other}.lock").exists()


def test_a_process_that_ends_by_itself_leaves_nothing(tmp_path: Path) -> None:
    with children() as started:
        child = Child(HOLD, tmp_path)
        started.append(child)
        other = child.hear()
        child.tell()
        assert child.end() == 0
    assert not Owner(tmp_path).alive(other)
    assert not list((tmp_path / "owners").iterdir())


def test_the_lock_files_of_the_dead_are_swept_away(tmp_path: Path) -> None:
    with children() as started:
        started += [Child(HOLD, tmp_path) for _ in range(3)]
        others = [child.hear() for child in started]
        for child in started[:2]:
            child.kill()
        owner = Owner(tmp_path)
        me = owner.id
        left = {path.stem for path in (tmp_path / "owners").iterdir()}
        assert left == {me, others[2]}


def test_two_owners_in_one_process_are_told_apart(tmp_path: Path) -> None:
    first, second = Owner(tmp_path), Owner(tmp_path)
    assert first.id != second.id
    assert first.alive(second.id)
    second_id = second.id
    second.close()
    assert not first.alive(second_id)
    assert second.id != second_id
    assert first.alive(first.id)


def test_an_unknown_or_empty_id_is_dead(tmp_path: Path) -> None:
    assert not Owner(tmp_path).alive("0" * 16)
    assert not Owner(tmp_path).alive("")
    assert not Owner(None).alive("0" * 16)
    assert not Owner(None).alive("")


def test_without_a_folder_it_knows_itself_only() -> None:
    first, second = Owner(None), Owner(None)
    assert first.alive(first.id)
    assert not first.alive(second.id)


def test_threads_agree_on_the_id(tmp_path: Path) -> None:
    owner, seen = Owner(tmp_path), set[str]()
    threads = [threading.Thread(target=lambda: seen.add(owner.id)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 1
    assert len(list((tmp_path / "owners").iterdir())) == 1


def test_processes_that_begin_at_once_do_not_sweep_each_other_away(tmp_path: Path) -> None:
    with children() as started:
        started += [Child(HOLD, tmp_path) for _ in range(8)]
        ids = [child.hear() for child in started]
        owner = Owner(tmp_path)
        assert all(owner.alive(one) for one in ids)


def test_who_begins_while_others_sweep_keeps_its_lock_file(tmp_path: Path) -> None:
    ended, between = threading.Event(), sys.getswitchinterval()

    def sweep() -> None:
        while not ended.is_set():
            Owner._sweep(tmp_path / "owners")

    sweepers = [threading.Thread(target=sweep) for _ in range(3)]
    sys.setswitchinterval(1e-6)  # or the threads hardly ever meet
    try:
        for thread in sweepers:
            thread.start()
        other, lost = Owner(tmp_path), 0
        for _ in range(600):
            owner = Owner(tmp_path)
            lost += not other.alive(owner.id)
            owner.close()
        assert lost == 0
    finally:
        sys.setswitchinterval(between)
        ended.set()
        for thread in sweepers:
            thread.join()


@fork
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_is_another_owner_and_does_not_keep_its_parent_alive(tmp_path: Path) -> None:
    code = """
    import os, time
    from pathlib import Path
    from toolkit.liveness import Owner
    owner = Owner(Path(sys.argv[1]))
    parent = owner.id
    if os.fork() == 0:
        say(parent, owner.id)
        time.sleep(60)
        os._exit(0)
    time.sleep(60)
    """
    with children() as started:
        child = Child(code, tmp_path)
        started.append(child)
        parent, forked = child.hear().split()
        owner = Owner(tmp_path)
        assert parent != forked
        assert owner.alive(parent)
        assert owner.alive(forked)
        child.kill()
        assert not owner.alive(parent)
        assert owner.alive(forked)


@fork
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_that_ends_leaves_its_parent_alive(tmp_path: Path) -> None:
    owner = Owner(tmp_path)
    parent = owner.id
    child = os.fork()
    if child == 0:
        owner.close()
        os._exit(0)
    os.waitpid(child, 0)
    assert Owner(tmp_path).alive(parent)
