"""Paid once: what is done after each fault follows from the journal, and the bill is right."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

import toolkit.wavespeed.tasks
from tests.paid import KEY, PRICE, PaidRun, account, key_written, order, pictures
from toolkit.errors import Cancelled, EngineError
from toolkit.wavespeed.client import Timeouts, data_address
from toolkit.wavespeed.replies import ServiceError, Unreachable
from toolkit.wavespeed.tasks import Answer

if TYPE_CHECKING:
    from wavespeed_server import Server


def spent(server: Server) -> float:
    return round(server.service.spent, 9)


def done_once(server: Server, folder: Path | None, **options: Any) -> tuple[Answer, PaidRun]:
    """One order through all the faults that are scripted; it was accepted once and the bill is right."""
    tasks, journal = account(server, folder, **options)
    run = PaidRun(journal)
    answer = tasks.get(order(), run)
    server.accepted_once(1)
    assert run.budget.spent == pytest.approx(spent(server)) == pytest.approx(PRICE)
    assert journal.paid(run.id) == pytest.approx((PRICE, 0))
    assert answer.pictures[0].shape == (256, 256, 3)
    return answer, run


LOST = [
    ("drop-unread", {}), ("drop", {}), ("drop-after", {}), ("drop-amid", {}), ("late", {"seconds": 0.8}),
    ("slow", {"seconds": 2}), ("stall", {"seconds": 2}), ("huge", {}), ("not-json", {"accepted": True}),
    ("not-json", {"accepted": False}), ("html", {"accepted": True}), ("empty", {"accepted": False}), ("null-data", {}),
    ("missing", {"fields": ["data.id"]}), ("wrong-types", {}), (500, {"accepted": False}), (500, {"accepted": True}),
    (502, {"accepted": True}), (503, {"accepted": False}), (504, {"accepted": True}), (504, {"accepted": False}),
]  # fmt: skip


@pytest.mark.parametrize(("what", "options"), LOST)
def test_submission_without_an_answer_is_looked_for(
    service: Server, tmp_path: Path, what: str | int, options: dict[str, Any]
) -> None:
    fault = service.fault("submit", what, **options)
    settle = 1.0 if what == "late" else 0.4
    done_once(service, tmp_path, settle=settle)
    assert fault.used == 1
    assert service.counts["list"] >= 1
    assert service.counts["submit"] == (1 if fault.accepted else 2)
    assert service.keys_leaked() == []
    assert key_written(tmp_path) == []


@pytest.mark.parametrize(("what", "options"), [("drop-after", {}), (504, {"accepted": True}), ("drop", {})])
@pytest.mark.parametrize("trouble", [(404, {}), (500, {}), ("drop", {}), ("not-json", {}), ("null-data", {})])
def test_without_the_list_it_is_perhaps_paid_and_never_resent(
    service: Server, tmp_path: Path, what: str | int, options: dict[str, Any], trouble: tuple[str | int, dict[str, Any]]
) -> None:
    service.fault("submit", what, **options)
    service.fault("list", trouble[0], times=None, **trouble[1])
    accepted = 0 if what == "drop" else 1
    tasks, journal = account(service, tmp_path, settle=0.2)
    run = PaidRun(journal)
    for _ in range(2):
        with pytest.raises(EngineError, match="perhaps paid"):
            tasks.get(order(), run)
        entry = journal.lookup(order().key)
        assert entry
        assert entry.state == "unknown"
        assert service.counts["submit"] == 1
    assert run.budget.spent == pytest.approx(PRICE)
    assert journal.paid(run.id) == pytest.approx((0, PRICE))
    # The list answers again: found, or certainly not taken and sent again.
    service.clear()
    later = PaidRun(journal)
    assert len(tasks.get(order(), later).pictures) == 1
    service.accepted_once(1)
    assert later.budget.spent == pytest.approx(PRICE * (1 - accepted))


def test_fresh_asks_anew_for_what_is_perhaps_paid(service: Server, tmp_path: Path) -> None:
    service.fault("submit", "drop-after")
    service.fault("list", 404, times=None)
    tasks, journal = account(service, tmp_path, settle=0.1)
    with pytest.raises(EngineError, match="--fresh asks anew"):
        tasks.get(order(), PaidRun(journal))
    run = PaidRun(journal, fresh=True)
    tasks.get(order(), run)
    tasks.get(order(), run)  # once a run
    assert len(service.accepted) == 2


def test_list_that_is_late(service: Server, tmp_path: Path) -> None:
    service.set(list_delay=0.8)
    service.fault("submit", "drop-after")
    done_once(service, tmp_path, settle=2.0)


def test_list_of_a_service_whose_clock_is_wrong(service: Server, tmp_path: Path) -> None:
    for hours in (-14, -3, 5):
        service.set(clock=hours * 3600.0)
        service.fault("submit", "drop-after")
        tasks, journal = account(service, tmp_path)
        tasks.get(order(hours), PaidRun(journal))
    service.accepted_once(3)


@pytest.mark.parametrize("jump", [-7200.0, 7200.0])
def test_our_clock_that_is_set_while_it_is_looked_for(
    service: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    service.set(list_delay=0.8)
    service.fault("submit", "drop-after")
    real, calls = time.time, []

    class Clock:
        monotonic, sleep = staticmethod(time.monotonic), staticmethod(time.sleep)

        @staticmethod
        def time() -> float:
            calls.append(1)
            return real() + jump

    monkeypatch.setattr(toolkit.wavespeed.tasks, "time", Clock)
    began = time.monotonic()
    done_once(service, tmp_path, settle=2.0)
    assert time.monotonic() - began < 60
    assert calls


def test_list_without_inputs(service: Server, tmp_path: Path) -> None:
    service.fault("list", "no-inputs", times=None)
    service.fault("submit", "drop")
    done_once(service, tmp_path)  # an empty list proves that it was not taken
    service.fault("submit", "drop-after")
    tasks, journal = account(service, tmp_path, settle=0.2)
    with pytest.raises(EngineError, match="one that may be it"):
        tasks.get(order(1), PaidRun(journal))
    assert len(service.accepted) == 2


def test_other_peoples_tasks_are_not_taken_for_ours(service: Server, tmp_path: Path) -> None:
    elsewhere, other = account(service, tmp_path / "other")  # uploads for itself
    for number in range(3):
        elsewhere.get(order(number), PaidRun(other))
    theirs = {one.id for one in service.accepted}
    tasks, journal = account(service, tmp_path / "ours")
    tasks.get(order(0, seed=5), PaidRun(journal))
    service.fault("submit", "drop-after")
    answer = tasks.get(order(), PaidRun(journal))
    assert answer.facts["id"] not in theirs
    service.fault("submit", "drop")
    answer = tasks.get(order(1), PaidRun(journal))
    assert answer.facts["id"] not in theirs
    assert len(service.accepted) == 6


def test_lost_at_once_and_all_found(service: Server, tmp_path: Path) -> None:
    service.fault("submit", "drop-after", times=4)
    service.fault("submit", "drop", times=4)
    tasks, journal = account(service, tmp_path, settle=1.0)
    run = PaidRun(journal)
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda seed: tasks.get(order(seed=seed), run), range(8)))
    service.accepted_once(8)
    assert len({answer.facts["id"] for answer in answers}) == 8
    for seed, answer in enumerate(answers):
        task = service.service.predictions[answer.facts["id"]]
        assert task.inputs["seed"] == seed
    assert run.budget.spent == pytest.approx(spent(service))
    assert len(service.uploads) == 2


@pytest.mark.parametrize("retry_after", [None, "1"])
def test_too_many_requests_hold_everybody_up(service: Server, tmp_path: Path, retry_after: str | None) -> None:
    service.fault("submit", 429, retry_after=retry_after)
    (first, journal), (second, same) = account(service, tmp_path), account(service, tmp_path)
    run, other = PaidRun(journal), PaidRun(same)
    with ThreadPoolExecutor(2) as threads:
        began = time.monotonic()
        one = threads.submit(first.get, order(1), run)
        service.wait(lambda server: server.counts["submit"])
        time.sleep(0.1)
        two = threads.submit(second.get, order(2), other)  # as another process: its own limits, same folder
        assert [len(each.result().pictures) for each in (one, two)] == [1, 1]
    times = [one.at for one in service.requests if one.kind == "submit"]
    assert times[1] - times[0] >= (0.9 if retry_after else 4.9)
    assert time.monotonic() - began < 60
    assert any("the account may have no more at once; its turn comes in " in told for told in other.told)
    assert any("; tried again in " in told for told in run.told) == (retry_after is None), "a second needs no word"
    service.accepted_once(2)
    assert run.budget.spent == pytest.approx(PRICE)


def elsewhere(server: Server) -> str:
    return server.other_url.removeprefix("http://")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_submission_that_is_redirected_is_not_resent(service: Server, tmp_path: Path, status: int) -> None:
    service.fault("submit", "redirect", status=status, times=None)
    tasks, journal = account(service, tmp_path, settle=0.2)
    run = PaidRun(journal)
    with pytest.raises(ServiceError, match=rf"`wavespeed\.base_url` .*\(HTTP {status} to {elsewhere(service)}\)"):
        tasks.get(order(), run)
    assert service.counts["submit"] == 1
    assert (service.counts["list"] > 0) == (status in (302, 303)), "those may have been taken"
    assert service.elsewhere == service.accepted == []
    assert run.budget.spent == 0
    assert journal.paid(run.id) == (0, 0)
    service.clear()
    tasks.get(order(), run)
    service.accepted_once(1)


def test_submission_that_is_redirected_as_everything_is_may_have_been_taken(service: Server, tmp_path: Path) -> None:
    for where in ("submit", "list"):
        service.fault(where, "redirect", times=None)
    tasks, journal = account(service, tmp_path, settle=0.2)
    with pytest.raises(EngineError, match=rf"perhaps paid: .*`wavespeed\.base_url` .* to {elsewhere(service)}"):
        tasks.get(order(), PaidRun(journal))
    assert service.counts["submit"] == 1
    assert service.elsewhere == []


REFUSED = {1200: "content check", 1400: "parameter", 1401: "parameter", 1402: "could not read", 1407: "credit"}


@pytest.mark.parametrize("code", REFUSED)
def test_refused_submissions_cost_nothing_and_are_not_repeated(service: Server, tmp_path: Path, code: int) -> None:
    service.fault("submit", "refuse", code=code)
    tasks, journal = account(service, tmp_path)
    run = PaidRun(journal)
    with pytest.raises(ServiceError, match=REFUSED[code]):
        tasks.get(order(), run)
    assert service.counts["submit"] == 1
    assert run.budget.spent == 0
    assert journal.paid(run.id) == (0, 0)
    tasks.get(order(), run)
    service.accepted_once(1)
    assert len(service.uploads) == (4 if code == 1402 else 2)


FAILED = {
    **REFUSED,
    1403: "fault of the service",
    1405: "fault",
    1406: "fault",
    5000: "fault",
    5003: "fault",
    5004: "fault",
}


@pytest.mark.parametrize("code", FAILED)
def test_tasks_that_fail_cost_nothing(service: Server, tmp_path: Path, code: int) -> None:
    service.fault("task", "fail", code=code)
    tasks, journal = account(service, tmp_path)
    run = PaidRun(journal)
    with pytest.raises(ServiceError, match=f"{FAILED[code]}.*code {code}"):
        tasks.get(order(), run)
    assert run.budget.spent == pytest.approx(spent(service)) == pytest.approx(0)
    assert len(service.accepted) == 1
    tasks.get(order(), run)
    assert run.budget.spent == pytest.approx(spent(service))
    assert len(service.uploads) == (4 if code == 1402 else 2)


@pytest.mark.parametrize("word", ["cancelled", "timeout", "deleted"])
def test_tasks_that_end_otherwise_are_perhaps_paid(service: Server, tmp_path: Path, word: str) -> None:
    service.fault("task", "end", status=word)
    tasks, journal = account(service, tmp_path)
    for _ in range(2):
        with pytest.raises(
            EngineError, match=f"ended as {word}; it is perhaps paid: the same command looks again, --fresh"
        ):
            tasks.get(order(), PaidRun(journal))
    assert len(service.accepted) == 1
    tasks.get(order(), PaidRun(journal, fresh=True))
    assert len(service.accepted) == 2


@pytest.mark.parametrize(
    ("what", "options"),
    [("drop", {}), ("stall", {"seconds": 2}), ("not-json", {}), ("null-data", {}), ("wrong-types", {}), (500, {}),
     (429, {"retry_after": 0}), (404, {}), (502, {"html": True}), ("endless", {}),
     ("change", {"values": {"data.status": None}}),
     ("change", {"values": {"data.status": "completed", "data.outputs": None}}),
     ("missing", {"fields": ["data.outputs", "data.status", "data.model", "data.timings"]})],
)  # fmt: skip
def test_polls_are_repeated(service: Server, tmp_path: Path, what: str | int, options: dict[str, Any]) -> None:
    fault = service.fault("poll", what, times=2, **options)
    done_once(service, tmp_path)
    assert fault.used == 2


@pytest.mark.parametrize("status", [400, 401, 402, 403])
def test_task_that_may_not_be_asked_about_is_said_to_be_accepted(service: Server, tmp_path: Path, status: int) -> None:
    service.fault("poll", status, times=None)
    tasks, journal = account(service, tmp_path)
    run = PaidRun(journal)
    for _ in range(2):
        said = rf"was accepted and is perhaps paid, .*HTTP {status}\); the same command or `inpaint resume` fetches it"
        with pytest.raises(EngineError, match=said) as problem:
            tasks.get(order(), run)
        assert service.accepted[0].id in str(problem.value)
    assert run.budget.spent == pytest.approx(PRICE)
    service.clear()
    assert tasks.get(order(), PaidRun(journal)).paid == 0
    service.accepted_once(1)


def test_polls_redirected_to_where_the_key_is_not_sent_were_not_asked(service: Server, tmp_path: Path) -> None:
    to = f"{service.other_url}/api/v3/balance"  # which lets nobody in without a key
    fault = service.fault("poll", "redirect", times=3, to=to)
    done_once(service, tmp_path)
    assert fault.used == len(service.elsewhere) == 3
    service.fault("poll", "redirect", times=None, to=to)
    tasks, journal = account(service, tmp_path, patience=0.5)
    said = rf"not come to its end .*redirects to {elsewhere(service)}, where the key is not sent .*`inpaint resume`"
    with pytest.raises(EngineError, match=said) as problem:
        tasks.get(order(1), PaidRun(journal))
    assert "refused the key" not in str(problem.value)
    service.clear()
    assert tasks.get(order(1), PaidRun(journal)).paid == 0
    service.accepted_once(2)
    assert service.keys_leaked() == []


def test_unknown_words_mean_that_it_goes_on(service: Server, tmp_path: Path) -> None:
    service.fault("task", "unknown-status", status="meditating")
    service.set(seconds=1.0)
    done_once(service, tmp_path)


def test_task_that_the_service_forgot(service: Server, tmp_path: Path) -> None:
    service.fault("poll", 404, times=None)
    tasks, journal = account(service, tmp_path)
    with pytest.raises(EngineError, match="no longer knows the task .* --fresh asks anew"):
        tasks.get(order(), PaidRun(journal))
    service.clear()
    tasks.get(order(), PaidRun(journal))
    service.accepted_once(1)


def test_task_that_takes_too_long_is_taken_up(service: Server, tmp_path: Path) -> None:
    service.fault("task", "stuck")
    tasks, journal = account(service, tmp_path, patience=0.5)
    run = PaidRun(journal)
    with pytest.raises(EngineError, match=r"within 0\.5 s; `inpaint resume` takes it up"):
        tasks.get(order(), run)
    assert run.budget.spent == pytest.approx(PRICE)
    service.finish()
    later = PaidRun(journal)
    assert tasks.get(order(), later).paid == 0
    assert later.budget.spent == 0
    service.accepted_once(1)


DOWNLOADS = [
    (404, {}), (500, {}), ("drop", {}), ("drop-amid", {}), ("truncated", {}), ("html", {}), ("other-size", {}),
    ("gif", {}), ("noise", {}), ("bomb", {}), ("huge", {}), ("empty", {}), ("stall", {"seconds": 2}),
]  # fmt: skip


@pytest.mark.parametrize(("what", "options"), DOWNLOADS)
def test_outputs_that_cannot_be_had_are_not_paid_again(
    service: Server, tmp_path: Path, what: str | int, options: dict[str, Any]
) -> None:
    fault = service.fault("download", what, times=3, **options)
    tasks, journal = account(service, tmp_path)
    run = PaidRun(journal)
    with pytest.raises(EngineError, match=r"the picture of task \w+ cannot be had") as caught:
        tasks.get(order(), run)
    assert what == 404 or "it is paid: the same command or `inpaint resume` tries again" in str(caught.value)
    assert fault.used == 3
    assert run.budget.spent == pytest.approx(PRICE)
    later = PaidRun(journal)
    assert tasks.get(order(), later).pictures[0].shape == (256, 256, 3)
    assert later.budget.spent == 0
    service.accepted_once(1)
    assert journal.paid(run.id) == pytest.approx((PRICE, 0))


def test_output_without_end(service: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.wavespeed.client.MAX_PICTURE", 1 << 20)
    service.fault("download", "endless")
    done_once(service, tmp_path)


@pytest.mark.parametrize("what", ["endless", "huge"])
def test_no_more_of_an_output_is_taken_than_its_size_can_have(service: Server, tmp_path: Path, what: str) -> None:
    service.fault("download", what, times=None)
    tasks, journal = account(service, tmp_path, timeouts=Timeouts())
    with pytest.raises(EngineError, match=r"most 1572864 are taken|more than 1572864 bytes came"):
        tasks.get(order(), PaidRun(journal))
    service.clear()
    tasks.get(order(), PaidRun(journal))
    service.accepted_once(1)


def test_the_largest_file_of_a_picture_is_within_the_limit() -> None:
    noise = np.random.default_rng(0).integers(0, 1 << 16, (256, 256, 4), np.uint16)
    largest = order().largest
    assert largest
    assert len(cv2.imencode(".png", noise, [cv2.IMWRITE_PNG_COMPRESSION, 0])[1]) < largest
    assert [order(size=size).largest for size in ("", "square", "9x9")] == [None] * 3


def test_outputs_that_are_gone_for_good_can_be_asked_for_anew(service: Server, tmp_path: Path) -> None:
    service.fault("download", 404, times=3)
    tasks, journal = account(service, tmp_path)
    with pytest.raises(EngineError, match="--fresh asks anew"):
        tasks.get(order(), PaidRun(journal))
    tasks.get(order(), PaidRun(journal, fresh=True))
    assert len(service.accepted) == 2


def test_flagged_pictures_are_paid_and_left_out(service: Server, tmp_path: Path) -> None:
    service.fault("task", "nsfw", flags=[False, True, False])
    tasks, journal = account(service, tmp_path)
    run = PaidRun(journal)
    wanted = order(num_images=3)
    for cost in (3 * PRICE, 0):
        answer = tasks.get(wanted, run)
        assert [picture is None for picture in answer.pictures] == [False, True, False]
        assert answer.paid == pytest.approx(cost)
    assert run.budget.spent == pytest.approx(spent(service))
    assert service.counts["download"] == 2


def test_the_same_request_costs_once(service: Server, tmp_path: Path) -> None:
    first, run = done_once(service, tmp_path)
    tasks, journal = account(service, tmp_path)
    again = tasks.get(order(), PaidRun(journal))
    assert again.paid == 0
    assert again.facts["kept"]
    assert np.array_equal(first.pictures[0], again.pictures[0])
    before = service.counts
    tasks.get(order(), run)
    assert service.counts == before


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells threads where to run")
def test_tasks_are_waited_for_on_one_core_and_pictures_read_on_all(service: Server, tmp_path: Path) -> None:
    assert sys.platform == "linux"
    allowed, waited, read = os.sched_getaffinity(0), [], []
    tasks, journal = account(service, tmp_path)
    run = PaidRun(journal)
    run.reserve = lambda price: waited.append(os.sched_getaffinity(0))

    def seen(data: bytes) -> bytes:
        read.append(os.sched_getaffinity(0))
        return data

    for _ in range(2):  # the second time from what was kept
        tasks.get(replace(order(), read=seen), run)
    assert read == [allowed, allowed]
    assert [len(cores) for cores in waited] == [1]
    assert waited[0] <= allowed
    assert os.sched_getaffinity(0) == allowed


def test_damaged_result_is_downloaded_again(service: Server, tmp_path: Path) -> None:
    first, _ = done_once(service, tmp_path)
    for path in (tmp_path / "results").rglob("*.png"):
        path.write_bytes(path.read_bytes()[:100])
    tasks, journal = account(service, tmp_path)
    again = tasks.get(order(), PaidRun(journal))
    assert np.array_equal(first.pictures[0], again.pictures[0])
    service.accepted_once(1)


def test_uploads_happen_once_while_they_live(service: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks, journal = account(service, tmp_path)
    run = PaidRun(journal)
    with ThreadPoolExecutor(6) as threads:
        list(threads.map(lambda seed: tasks.get(order(seed=seed), run), range(6)))
    assert len(service.uploads) == 2
    assert [one.data for one in service.uploads] == list(pictures())
    monkeypatch.setattr("toolkit.addresses.time.time", lambda real=time.time: real() + 6.5 * 86400)
    tasks.get(order(seed=7), run)
    assert len(service.uploads) == 4


def test_upload_that_failed_leaves_the_one_before_it_known(service: Server, tmp_path: Path) -> None:
    service.fault("multipart", 401, after=1)
    tasks, journal = account(service, tmp_path)
    run = PaidRun(journal)
    with pytest.raises(ServiceError, match="key"):
        tasks.get(order(), run)
    assert len(service.uploads) == 1
    tasks.get(order(), run)
    assert [one.data for one in service.uploads] == list(pictures())


@pytest.mark.parametrize(("where", "what"), [("submit", "refuse"), ("task", "fail")])
def test_uploads_that_are_gone_are_brought_anew_once(service: Server, tmp_path: Path, where: str, what: str) -> None:
    tasks, journal = account(service, tmp_path)
    run = PaidRun(journal)
    tasks.get(order(seed=1), run)
    service.fault(where, what, code=1402)
    assert len(tasks.get(order(seed=2), run).pictures) == 1
    assert len(service.uploads) == 4
    assert run.budget.spent == pytest.approx(spent(service)) == pytest.approx(2 * PRICE)
    service.fault(where, what, code=1402, times=None)
    before = service.counts["submit"]
    with pytest.raises(ServiceError, match="could not read"):
        tasks.get(order(seed=3), run)
    assert service.counts["submit"] == before + 2
    assert len(service.uploads) == 6
    assert run.budget.spent == pytest.approx(2 * PRICE)


def test_task_taken_up_whose_uploads_are_gone_is_sent_again(service: Server, tmp_path: Path) -> None:
    service.set(seconds=0.3)
    service.fault("task", "fail", code=1402)
    tasks, journal = account(service, tmp_path)
    stopped = PaidRun(journal)
    stopped.cancel_when = lambda: bool(service.accepted)
    with pytest.raises(Cancelled):
        tasks.get(order(), stopped)
    run = PaidRun(journal, id=stopped.id)
    assert len(tasks.get(order(), run).pictures) == 1
    assert [one.status for one in service.accepted] == ["failed", "completed"]
    assert len(service.uploads) == 4
    assert run.budget.spent == pytest.approx(spent(service)) == pytest.approx(PRICE)


def test_without_uploads_pictures_go_within_the_request(service: Server, tmp_path: Path) -> None:
    service.fault("ticket", 404, times=None)
    service.fault("multipart", 404, times=None)
    done_once(service, tmp_path)
    sent = service.accepted[0].inputs
    assert sent["image"].startswith("data:image/png;base64,")
    service.fault("submit", "drop-after")
    tasks, journal = account(service, tmp_path)
    tasks.get(order(1), PaidRun(journal))  # found by its pictures' hash
    service.accepted_once(2)
    assert not any(b"base64" in path.read_bytes() for path in tmp_path.glob("*.sqlite3*"))


def test_a_storage_that_refuses_files_is_not_asked_again(
    service: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.fault("multipart", 404, times=None)
    service.fault("put", 403, times=None)
    done_once(service, tmp_path)
    assert service.accepted[0].inputs["image"].startswith("data:image/png;base64,")
    assert service.counts["put"] == 2, "once a file"
    monkeypatch.setattr("toolkit.wavespeed.uploads._LARGEST_INLINE", 0)
    tasks, journal = account(service, None)
    with pytest.raises(ServiceError, match=r"^WaveSpeed: its place for uploads refuses files \(HTTP 403\)$"):
        tasks.get(order(1), PaidRun(journal))
    assert service.counts["put"] == 3


def test_pictures_go_within_the_request_where_uploads_are_redirected(service: Server, tmp_path: Path) -> None:
    service.fault("multipart", "redirect", status=307, times=None)
    service.fault("put", "redirect", status=307, times=None)
    done_once(service, tmp_path)
    assert service.accepted[0].inputs["image"].startswith("data:image/png;base64,")
    assert (service.counts["multipart"], service.counts["put"]) == (1, 2), "once a file by ticket"
    assert service.elsewhere == service.keys_leaked() == []


def test_a_wait_to_bring_pictures_is_told(service: Server) -> None:
    service.fault("multipart", 404, times=None)
    service.fault("put", 503)
    tasks, journal = account(service, None)
    run = PaidRun(journal)
    tasks.get(order(), run)
    assert "window 0: its pictures were not taken; they are brought again in 1 s" in run.told


def test_what_is_sent(service: Server, tmp_path: Path) -> None:
    done_once(service, tmp_path)
    sent = service.accepted[0].inputs
    assert sent["seed"] == 0
    assert sent["size"] == "256*256"
    assert set(sent) == {
        "prompt", "size", "seed", "guidance_scale", "num_images", "loras", "image", "mask_image"
    }  # fmt: skip


def test_budget_stops_before_anything_is_sent(service: Server, tmp_path: Path) -> None:
    tasks, journal = account(service, tmp_path)
    run = PaidRun(journal, limit=2 * PRICE)
    with ThreadPoolExecutor(4) as threads:
        made = [threads.submit(tasks.get, order(seed=seed), run) for seed in range(4)]
        problems = [one.exception() for one in made]
    assert sum(problem is not None for problem in problems) == 2
    assert all("the limit of $0.07 would be passed" in str(problem) for problem in problems if problem)
    service.accepted_once(2)
    assert run.budget.spent == pytest.approx(spent(service))


def test_journal_that_cannot_be_written_sends_nothing(
    service: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks, journal = account(service, tmp_path)
    run = PaidRun(journal)

    def full(*_: Any, **__: Any) -> None:
        raise EngineError("no room")

    monkeypatch.setattr("toolkit.journal.Claim.sending", full)
    with pytest.raises(EngineError, match="no room"):
        tasks.get(replace(order(), pictures={}), run)
    assert service.counts["submit"] == 0
    assert run.budget.spent == 0


@pytest.mark.parametrize("where", ["multipart", "ticket", "put", "submit", "poll", "download", "list"])
def test_cancelled_anywhere_and_taken_up(service: Server, tmp_path: Path, where: str) -> None:
    if where == "list":
        service.fault("submit", "drop-after")
    if where in ("ticket", "put"):
        service.fault("multipart", 404, times=None)
    service.fault(where, "stall", seconds=20)
    tasks, journal = account(service, tmp_path, timeouts=Timeouts())
    run = PaidRun(journal)
    timer = threading.Timer(0.1, run.cancel.set)
    with ThreadPoolExecutor(1) as threads:
        made = threads.submit(tasks.get, order(), run)
        service.wait(lambda server: server.counts[where])
        timer.start()
        began = time.monotonic()
        with pytest.raises(Cancelled):
            made.result()
        assert time.monotonic() - began < 5
    reserved = 0 if where in ("multipart", "ticket", "put") else PRICE
    assert run.budget.spent == pytest.approx(reserved)
    assert journal.paid(run.id) == pytest.approx((0, reserved))
    later = PaidRun(journal)
    tasks.get(order(), later)
    service.accepted_once(1)
    assert run.budget.spent + later.budget.spent == pytest.approx(PRICE)


def test_slots_are_free_while_pictures_are_fetched(service: Server, tmp_path: Path) -> None:
    service.fault("download", "slow", seconds=3, match={"seed": 0})
    tasks, journal = account(service, tmp_path, concurrent=1, timeouts=Timeouts())
    run = PaidRun(journal)
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(tasks.get, order(seed=0), run)
        service.wait(lambda server: server.counts["download"])
        tasks.get(order(seed=1), run)
        assert not first.done()
        first.result()
    assert service.service.most_unfinished == 1


def test_account_takes_no_more_than_its_tasks_at_once(service: Server, tmp_path: Path) -> None:
    service.set(seconds=0.3)
    many = [account(service, tmp_path, concurrent=3) for _ in range(2)]
    with ThreadPoolExecutor(8) as threads:
        runs = [PaidRun(journal) for _, journal in many]
        list(threads.map(lambda k: many[k % 2][0].get(order(seed=k), runs[k % 2]), range(8)))
    assert service.service.most_unfinished <= 3
    service.accepted_once(8)


def test_progress_grows_and_ends_below_one(service: Server, tmp_path: Path) -> None:
    service.set(seconds=0.8)
    _, run = done_once(service, tmp_path)
    assert run.shares == sorted(run.shares)
    assert run.shares
    assert 0 <= run.shares[0] <= run.shares[-1] <= 0.95


def test_first_poll_comes_after_the_usual_time(service: Server, tmp_path: Path) -> None:
    service.set(seconds=1.0)
    tasks, journal = account(service, tmp_path)
    run = PaidRun(journal)
    tasks.get(order(), run)
    for seed in (1, 2):
        tasks.get(order(seed=seed), run)
        assert service.accepted[-1].polls <= 2


def test_two_threads_ask_for_the_same(service: Server, tmp_path: Path) -> None:
    service.set(seconds=0.3)
    tasks, journal = account(service, tmp_path)
    run = PaidRun(journal)
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda _: tasks.get(order(), run), range(4)))
    service.accepted_once(1)
    assert sorted(answer.paid for answer in answers) == pytest.approx([0, 0, 0, PRICE])
    assert run.budget.spent == pytest.approx(PRICE)


def test_key_is_written_nowhere(service: Server, tmp_path: Path) -> None:
    service.fault("submit", 400, message=f"Authorization: Bearer {KEY} is wrong")
    service.fault(
        "poll", "change", times=None, values={"data.urls": {"get": f"http://x/?key={KEY}"}, "data.model": KEY}
    )
    tasks, journal = account(service, tmp_path)
    with pytest.raises(ServiceError) as problem:
        tasks.get(order(), PaidRun(journal))
    assert KEY not in str(problem.value)
    answer = tasks.get(order(), PaidRun(journal))
    assert KEY not in repr(answer.facts)
    assert key_written(tmp_path) == []
    assert any(path.stat().st_size for path in tmp_path.glob("journal.sqlite3*"))


def test_texts_are_paid_once_too(service: Server, tmp_path: Path) -> None:
    tasks, journal = account(service, tmp_path)
    run = PaidRun(journal)
    wanted = replace(
        order(), key="text", model="wavespeed-ai/prompt-optimizer", kind="enhance", pictures={}, price=0.001,
        inputs={"text": "a dog", "style": "default"},
    )  # fmt: skip
    service.fault("submit", "drop-after")
    answer = tasks.get(wanted, run)
    assert answer.texts[0].startswith("a dog")
    assert tasks.get(wanted, run).texts == answer.texts
    service.accepted_once(1)


def test_gives_up_after_some_submissions_with_the_services_own_words(
    service: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.fault("submit", 503, times=None, message="overloaded")
    monkeypatch.setattr(toolkit.wavespeed.tasks, "wait", lambda seconds, cancelled: None)
    tasks, journal = account(service, tmp_path, settle=0.0)
    run = PaidRun(journal)
    with pytest.raises(ServiceError, match="fault of the service; try again later .overloaded, HTTP 503"):
        tasks.get(order(), run)
    assert run.budget.spent == 0
    assert not service.accepted


@pytest.mark.parametrize("brings", [True, False])
def test_nobody_there_is_said_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, brings: bool) -> None:
    waited: list[float] = []
    monkeypatch.setattr(toolkit.wavespeed.tasks, "wait", lambda seconds, cancelled: waited.append(seconds))
    tasks, journal = account("http://127.0.0.1:9", tmp_path)
    run = PaidRun(journal)
    with pytest.raises(EngineError, match=r"127\.0\.0\.1:9 cannot be reached"):
        tasks.get(order() if brings else replace(order(), pictures={}), run)
    assert len(waited) == 3
    assert sum(waited) <= 10
    assert run.budget.spent == 0
    assert journal.paid(run.id) == (0, 0)


@pytest.mark.parametrize("brings", [True, False])
def test_a_service_that_starts_anew_is_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, brings: bool) -> None:
    from wavespeed_server import Server

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with contextlib.ExitStack() as stack:
        waits: list[Server] = []

        def wait(seconds: float, cancelled: Any) -> None:
            if not waits and seconds >= 1.0:  # the second time at the latest
                waits.append(stack.enter_context(Server(port)))

        monkeypatch.setattr(toolkit.wavespeed.tasks, "wait", wait)
        tasks, journal = account(f"http://127.0.0.1:{port}", tmp_path)
        wanted = order()
        if not brings:
            sent = {name: data_address(data, "image/png") for name, data in wanted.pictures.items()}
            wanted = replace(wanted, pictures={}, inputs={**wanted.inputs, **sent})
        tasks.get(wanted, PaidRun(journal))
        waits[0].accepted_once(1)


def test_connections_that_only_take_too_long_are_tried_for_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[str] = []

    def ask(self: object, method: str, address: str, *_: Any, **__: Any) -> None:
        tries.append(address)
        raise Unreachable("too late")

    monkeypatch.setattr(toolkit.wavespeed.tasks, "wait", lambda seconds, cancelled: None)
    monkeypatch.setattr("toolkit.wavespeed.traffic.Traffic.ask", ask)
    tasks, journal = account("http://127.0.0.1:9", tmp_path)
    for wanted in (order(), replace(order(1), pictures={})):
        tries.clear()
        with pytest.raises(Unreachable, match="too late"):
            tasks.get(wanted, PaidRun(journal))
        assert len(tries) == 6
