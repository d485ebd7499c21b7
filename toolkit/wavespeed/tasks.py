"""Tasks that are paid once: what is done next always follows from what the journal says of the task.

    intended   certainly nothing was sent: upload the pictures, write down the request, send it
    sending    a request may have gone out: look for it in the service's list of predictions
    unknown    the same, and the list did not tell last time; or it is paid and its pictures cannot be had
    sent       the service's name for it is known: ask how it stands
    done       its pictures lie here

A request is sent again only when the service certainly refused it, its list answers and does not hold it, or the task
failed because pictures that were uploaded before are gone.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Mapping
from typing import Any

from toolkit import cores
from toolkit.entries import Entry
from toolkit.errors import EngineError
from toolkit.journal import Claim, Journal
from toolkit.limits import Limits
from toolkit.waiting import wait
from toolkit.wavespeed.client import MAX_PICTURE, Client
from toolkit.wavespeed.matching import compared, noted
from toolkit.wavespeed.orders import Answer, Order, TaskRun
from toolkit.wavespeed.replies import Lost, Prediction, ServiceError, Unreachable
from toolkit.wavespeed.scouts import Scouts
from toolkit.wavespeed.uploads import ATTEMPTS, FEW_ATTEMPTS, Uploads

__all__ = ["Answer", "Order", "TaskRun", "Tasks"]

_CLOCKS = 36 * 3600.0
"""Seconds by which the service's clock may differ from ours, time zones and all."""


_SAID = 2.0
"""Seconds beyond which a wait is told where progress is."""


class Tasks:
    """Has tasks done for one account; safe to use from several threads.

    Args:
        client: traffic.
        journal: what was sent and paid.
        limits: what the account may have at once.
        account: hash that tells accounts apart; uploads belong to one.
        settle: seconds until a submission that is not listed was certainly not taken.
        patience: seconds a task is waited for.

    Attributes:
        service: its address as the settings give it.
    """

    def __init__(
        self, client: Client, journal: Journal, limits: Limits, account: str, *, settle: float = 20.0,
        patience: float = 900.0,
    ) -> None:  # fmt: skip
        self._client, self._journal, self._limits = client, journal, limits
        self._uploads, self._scouts = Uploads(client, journal, account), Scouts()
        self._settle, self._patience = settle, patience
        self.service = client.service
        self._lately: dict[tuple[str, str], tuple[float, float]] = {}

    def typical(self, model: str, size: str, guess: Callable[[str], float]) -> float | None:
        """As the journal says; once it knows, it is not asked more than twice a second."""
        now = time.monotonic()
        until, seconds = self._lately.get((model, size), (now, 0.0))
        if until > now:
            return seconds
        found = self._journal.typical(model, size, guess)
        if found is not None:
            self._lately[model, size] = now + 0.5, found
        return found

    def get(self, order: Order, run: TaskRun) -> Answer:
        """The order's answer: from the journal, from a task an earlier run began, or from a new one.

        Raises:
            ServiceError: when the service refused it or failed at it.
            EngineError: when its fate cannot be learnt, or its pictures cannot be had.
            Cancelled: when the run was cancelled; what was sent stays known.
        """

        def cancelled() -> bool:
            return run.cancelled(order.name)

        with cores.together():
            return self._had(order, run, cancelled)

    def _had(self, order: Order, run: TaskRun, cancelled: Callable[[], bool]) -> Answer:
        fresh, renewed, nobody = run.fresh, False, True
        for attempt in range(ATTEMPTS):
            try:
                with self._journal.claim(order.key, order.kind, run=run.id, fresh=fresh, cancelled=cancelled) as claim:
                    return _Task(self, order, run, claim, attempt).worked()
            except _Again as problem:
                nobody &= isinstance(problem.error, Unreachable) and problem.error.nobody
                if attempt + 1 == (FEW_ATTEMPTS if nobody else ATTEMPTS) or (problem.renews and renewed):
                    raise problem.error from None
                fresh, renewed = False, renewed or problem.renews
                if problem.seconds > _SAID:
                    _say(run, order, f"{problem}; tried again", problem.seconds)
                wait(problem.seconds, cancelled)
        raise AssertionError("unreachable")


class _Task:
    """One order while its job in the journal is held."""

    def __init__(self, tasks: Tasks, order: Order, run: TaskRun, claim: Claim, attempt: int) -> None:
        self._client, self._journal, self._limits = tasks._client, tasks._journal, tasks._limits
        self._uploads, self._scouts = tasks._uploads, tasks._scouts
        self._settle, self._patience = tasks._settle, tasks._patience
        self._order, self._run, self._claim, self._attempt = order, run, claim, attempt
        self._typical = tasks.typical
        self._reused = True  # of pictures an earlier run sent, too, nobody knows whether they are still there

    def worked(self) -> Answer:
        entry = self._claim.entry
        if entry.state == "done":
            return self._kept(entry)
        if entry.state == "intended":
            return self._bought()
        if not entry.remote:
            self._claim.sent(self._looked_for(Lost("WaveSpeed: nothing is known of what became of a submission")))
        return self._brought(self._awaited(Prediction(self._claim.entry.remote), entry.times["sending"]), 0.0)

    def _bought(self) -> Answer:
        """The one way on which money is spent."""
        order, run = self._order, self._run
        urls, self._reused = self._uploads.addresses(
            order.pictures, self._cancelled, self._wait_to_bring, order.contents
        )
        run.reserve(order.price)
        try:
            with self._limits.slot(self._cancelled, self._say_wait):
                prediction = self._awaited(self._submitted({**order.inputs, **urls}), time.time())
        finally:
            if self._claim.entry.state in ("intended", "failed"):  # certainly not spent
                run.release(order.price)
        return self._brought(prediction, order.price)

    def _submitted(self, inputs: Mapping[str, Any]) -> Prediction:
        """Send it; what is not known afterwards is looked for."""
        request = {"model": self._order.model, "size": str(inputs.get("size", "")), "inputs": noted(inputs)}
        self._claim.sending(request, self._order.price)
        try:
            prediction = self._client.submit(self._order.model, inputs, self._cancelled)
        except Unreachable as problem:
            self._claim.failed(str(problem))
            raise _Again(problem, self._later()) from None
        except ServiceError as problem:
            self._claim.failed(str(problem))
            if problem.kind == "busy":
                seconds = self._later(5.0) if problem.again is None else problem.again
                self._limits.pause(seconds)  # everybody
                raise _Again(problem, seconds) from None
            self._forget_unread(problem)
            raise
        except Lost as problem:
            self._claim.unknown(f"{problem}; perhaps paid")
            prediction = Prediction(self._looked_for(problem))
        self._claim.sent(prediction.id)
        return prediction

    def _looked_for(self, lost: Lost) -> str:
        """The submission's id in the service's list of predictions.

        No clock but our own running one counts: the computer's may have been set, and the service's may be wrong.

        Raises:
            _Again: when the list still answers after the time it takes to settle, and does not hold it.
            EngineError: when that cannot be learnt: it is perhaps paid, and not sent again.
        """
        started, attempt, reason = time.monotonic(), 0, ""
        while True:
            left = started + self._settle - time.monotonic()
            try:
                found, unsure = self._listed(everything=left <= 0)
            except (ServiceError, Unreachable, Lost) as problem:
                reason = str(problem)
                if left <= 0 and attempt >= 2:
                    break
            else:
                if found:
                    return found
                reason = "its list of predictions holds one that may be it" if unsure else ""
                if left <= 0 and not unsure:
                    self._claim.failed("its list of predictions does not hold it: it was not taken")
                    if lost.refused and lost.refused.kind == "moved":  # and would be again
                        raise lost.refused
                    raise _Again(lost.refused or lost, self._later())
                if left <= 0:
                    break
            attempt += 1
            self._wait(min(2.0**attempt / 2, 8.0) if left <= 0 else min(2.0**attempt / 2, left + 0.01, 8.0))
        self._claim.unknown(f"no answer came, and whether it was taken cannot be learnt ({reason}): perhaps paid")
        raise EngineError(
            f"{self._order.name or self._order.model}: perhaps paid: no answer came, and whether the service took it "
            f"cannot be learnt ({reason}); it is not sent again unasked: {self._anew}"
        )

    def _listed(self, *, everything: bool) -> tuple[str, bool]:
        """The id of the one that is certainly it, and whether others may be it; the journal knows whose the rest are.

        Args:
            everything: of all models and a longer time, which takes longer.
        """
        entry, model = self._claim.entry, self._order.model
        after = entry.times["sending"] - (_CLOCKS if everything else 900.0)
        unsure = False
        for one in self._client.predictions(after, "" if everything else model, self._cancelled):
            verdict = compared(entry.request.get("inputs", {}), one.inputs)
            if verdict is False or (one.inputs is None and one.model not in ("", model)) or self._journal.knows(one.id):
                continue
            if verdict and one.model in ("", model):
                return one.id, False
            unsure = True
        return "", unsure

    def _awaited(self, prediction: Prediction, began: float) -> Prediction:
        """The task at its end.

        Raises:
            ServiceError: when the task failed.
            EngineError: when it does not come to its end, or to another one.
        """
        order, name = self._order, self._order.name or self._order.model
        size = str(order.inputs.get("size", ""))
        measured = self._typical(order.model, size, order.seconds)
        expected = order.seconds(size) if measured is None else measured
        started = time.monotonic() - max(0.0, time.time() - began)
        until = time.monotonic() + self._patience
        pause, unseen, empty, reason = max(0.0, started + expected + 0.05 - time.monotonic()), 0, 0, ""
        growth = max(0.3, 0.1 * expected)
        with self._scouts.joined(order.model) as scout:
            while not prediction.is_ended or (prediction.is_finished and not prediction.pictures and empty <= 3):
                self._wait(pause, expected, started)
                pause = min(10.0, growth) * random.uniform(0.9, 1.1)
                growth *= 1.3
                now, scale = time.monotonic(), max(0.1, expected)
                age, slack = (now - started) / scale, 0.2 * pause / scale  # pauses differ by so much: they are drawn
                if measured is None and now < until and scout.needless(age, slack):
                    continue
                try:
                    prediction = self._client.prediction(prediction.id, self._cancelled)
                    scout.asked(age, ended=prediction.is_ended)
                    empty += prediction.is_finished
                    unseen, reason = 0, ""
                except ServiceError as problem:
                    reason = f" ({problem})"
                    if problem.kind == "missing":
                        unseen += 1
                        if unseen == ATTEMPTS:
                            raise self._gone(f"the service no longer knows the task {prediction.id}") from None
                    elif problem.kind == "busy":
                        pause = self._later(2.0) if problem.again is None else problem.again
                        self._limits.pause(pause)
                    elif problem.kind != "fault":
                        raise EngineError(
                            f"{name}: the task {prediction.id} was accepted and is perhaps paid, but cannot be asked "
                            f"about: {problem}; the same command or `inpaint resume` fetches it, without paying again"
                        ) from None
                except (Unreachable, Lost) as problem:
                    reason = f" ({problem})"
                if time.monotonic() > until and not prediction.is_ended:
                    raise EngineError(
                        f"{name}: the task {prediction.id} has not come to its end within {self._patience:g} s"
                        f"{reason}; `inpaint resume` takes it up"
                    )
        if prediction.is_finished:
            return prediction
        failure = prediction.failure()
        if prediction.status != "failed":  # whether that is paid is not documented
            raise self._gone(f"the task {prediction.id} ended as {prediction.status}")
        self._claim.failed(str(failure))
        self._forget_unread(failure)
        raise failure

    def _brought(self, prediction: Prediction, price: float) -> Answer:
        """Everything that is left to do once the task is finished, which costs nothing."""
        order, times = self._order, self._claim.entry.times
        inference = prediction.timings.get("inference")
        facts = {
            "id": prediction.id, "model": prediction.model or order.model, "created_at": prediction.created_at,
            "timings": dict(prediction.timings), "urls": dict(prediction.urls),
            "size": str(order.inputs.get("size", "")),
            "seconds": round(inference / 1000 if inference else max(0.0, time.time() - times["sending"]), 3),
            "outputs": list(prediction.outputs), "flagged": list(prediction.flagged),
        }  # fmt: skip
        if order.kind == "enhance":
            self._claim.done(facts)
            return Answer((), prediction.outputs, price, {**facts, "kept": False})
        if not prediction.pictures:
            raise self._gone(f"the task {prediction.id} came to its end without a picture")
        files = [None if url is None else self._downloaded(url, prediction.id) for url in prediction.pictures]
        # Kept before anything else is done with it: the service forgets.
        self._claim.done(facts, [(file[0], _suffix(file[0])) for file in files if file is not None])
        return Answer(tuple(file and file[1] for file in files), (), price, {**facts, "kept": False})

    def _downloaded(self, url: str, id: str) -> tuple[bytes, Any]:
        """A picture as it came and as it was read."""
        problem: EngineError = Lost("")
        for attempt in range(3):
            if attempt:
                self._wait(2.0 ** (attempt - 1))
            try:
                data = self._client.download(url, self._cancelled, self._order.largest or MAX_PICTURE)
                with cores.apart():
                    return data, self._order.read(data)
            except EngineError as failure:
                problem = failure
        said = f"the picture of task {id} cannot be had: {problem}"
        if getattr(problem, "kind", "") == "missing":
            raise self._gone(said)
        self._claim.paid()
        paid = "it is paid: the same command or `inpaint resume` tries again, without paying"
        if not isinstance(problem, Lost | Unreachable | ServiceError):  # it came, and is not what was asked for
            self._claim.unknown(said)
            paid += "; --fresh pays for another"
        raise EngineError(f"{self._order.name or self._order.model}: {said}; {paid}")

    def _kept(self, entry: Entry) -> Answer:
        facts = {**entry.answer, "kept": True}
        before = Prediction(entry.remote, outputs=tuple(facts["outputs"]), flagged=tuple(facts["flagged"]))
        if self._order.kind == "enhance":
            return Answer((), before.outputs, 0.0, facts)
        paths = iter(entry.files)
        with cores.apart():
            pictures = [None if url is None else self._order.read(next(paths).read_bytes()) for url in before.pictures]
        return Answer(tuple(pictures), (), 0.0, facts)

    def _gone(self, what: str) -> EngineError:
        """It is perhaps paid, and did not come: it is only looked for, unless --fresh asks for another."""
        self._claim.unknown(f"{what}; perhaps paid")
        return EngineError(f"{self._order.name or self._order.model}: {what}; it is perhaps paid: {self._anew}")

    @property
    def _anew(self) -> str:
        """How it is looked for without paying, and how it is asked for again, and nothing else that is paid."""
        verb = "`inpaint enhance --recipe NAME --fresh`" if self._order.kind == "enhance" else "--fresh"
        return f"the same command looks again, {verb} asks anew"

    def _forget_unread(self, problem: ServiceError) -> None:
        """Have pictures that the service could not read brought anew when they are next needed.

        Raises:
            _Again: when they had been brought before: they may be gone.
        """
        if problem.kind == "media":
            self._uploads.forget(self._order.pictures, self._order.contents)
            if self._reused:
                raise _Again(problem, 0.0, renews=True)

    def _later(self, first: float = 0.5) -> float:
        """Seconds to wait before it is tried again: longer each time."""
        return min(60.0, first * 2.0**self._attempt) * random.uniform(1.0, 1.2)

    def _cancelled(self) -> bool:
        return self._run.cancelled(self._order.name)

    def _say_wait(self, seconds: float) -> None:
        _say(self._run, self._order, "the account may have no more at once; its turn comes", seconds)

    def _wait_to_bring(self, seconds: float) -> None:
        _say(self._run, self._order, "its pictures were not taken; they are brought again", seconds)
        self._wait(seconds)

    def _wait(self, seconds: float, expected: float = 0.0, started: float = 0.0) -> None:
        def tick() -> bool:
            if expected:
                self._run.progress(self._order.name, min(0.95, (time.monotonic() - started) / expected))
            return self._cancelled()

        wait(seconds, tick)


class _Again(Exception):
    """Certainly not taken: the same may be sent again after so many seconds; once, if with pictures brought anew."""

    def __init__(self, error: EngineError, seconds: float, *, renews: bool = False) -> None:
        super().__init__(str(error))
        self.error, self.seconds, self.renews = error, seconds, renews


def _say(run: TaskRun, order: Order, what: str, seconds: float) -> None:
    """Tell where progress is what is waited for, and how long where that is known."""
    run.progress(f"{order.name}: {what}" + (f" in {math.ceil(seconds)} s" if seconds else ""), 0.0)


def _suffix(data: bytes) -> str:
    return ".png" if data.startswith(b"\x89PNG") else ".jpg" if data.startswith(b"\xff\xd8") else ".webp"
