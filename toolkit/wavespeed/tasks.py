"""Tasks that are paid once: what is done next always follows from what the journal says of the task.

    intended   certainly nothing was sent: upload the pictures, write down the request, send it
    sending    a request may have gone out: look for it in the service's list of predictions
    unknown    the same, and the list did not answer last time: perhaps paid
    sent       the service's name for it is known: ask how it stands
    done       its pictures lie here

A request is sent again only when the service certainly refused it, or its list answers and does not hold it.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar

from toolkit.entries import Entry
from toolkit.errors import Cancelled, EngineError
from toolkit.journal import Claim, Journal
from toolkit.limits import Limits
from toolkit.wavespeed.client import Client, data_address
from toolkit.wavespeed.replies import Lost, Prediction, ServiceError, Unreachable

T = TypeVar("T")

LIFETIME = 6 * 86400.0
"""Seconds an upload is used again; the service keeps it for seven days."""

_SKEW = 900.0
"""Seconds by which the service's clock may differ from ours."""

_ATTEMPTS = 6
"""Times a call is made that costs nothing, or that was certainly refused for want of a free place."""

_LARGEST_INLINE = 8 << 20
"""Bytes of a picture that may be sent within the request when no upload works."""


class TaskRun(Protocol):
    """The little that is needed of a run."""

    @property
    def id(self) -> str:
        """The run's name in the journal."""
        ...

    @property
    def fresh(self) -> bool:
        """Ask anew although the journal holds the answer."""
        ...

    def reserve(self, price: float) -> None:
        """Set money aside before it is spent; raises when the limit would be passed."""
        ...

    def release(self, price: float) -> None:
        """Give back what was certainly not spent."""
        ...

    def progress(self, name: str, share: float) -> None:
        """Say that `name` is done to `share` (0-1)."""
        ...

    def cancelled(self, name: str = "") -> bool:
        """True once the work was cancelled."""
        ...


@dataclass(frozen=True)
class Order:
    """One task to be had.

    Attributes:
        key: hash of everything that shapes its answer.
        model: the service's name of the model.
        inputs: parameters as the service takes them, without pictures.
        pictures: PNG files by the parameter that takes their address.
        price: dollars.
        seconds: it takes about this long, where the journal has seen none like it.
        name: in progress and errors.
        kind: the outputs are pictures to be downloaded, or texts.
        read: makes of a downloaded file what is wanted; raises EngineError when it is not what was asked for.
    """

    key: str
    model: str
    inputs: Mapping[str, Any]
    pictures: Mapping[str, bytes]
    price: float
    seconds: float
    name: str = ""
    kind: Literal["fill", "enhance"] = "fill"
    read: Callable[[bytes], Any] = bytes


@dataclass(frozen=True)
class Answer:
    """What came of an order.

    Attributes:
        pictures: as `Order.read` made them, in the service's order; None for one its content check flagged.
        texts: instead of pictures.
        paid: dollars it cost in this run; 0 where an earlier one paid.
        facts: id, model, created_at, timings and urls as the service gave them, and whether it was kept from before.
    """

    pictures: tuple[Any, ...]
    texts: tuple[str, ...]
    paid: float
    facts: Mapping[str, Any] = field(default_factory=dict)


class Tasks:
    """Has tasks done for one account; safe to use from several threads.

    Args:
        client: traffic.
        journal: what was sent and paid.
        limits: what the account may have at once.
        account: hash that tells accounts apart; uploads belong to one.
        settle: seconds until a submission that is not listed was certainly not taken.
        patience: seconds a task is waited for.
    """

    def __init__(
        self, client: Client, journal: Journal, limits: Limits, account: str, *, settle: float = 20.0,
        patience: float = 900.0,
    ) -> None:  # fmt: skip
        self._client, self._journal, self._limits, self._account = client, journal, limits, account
        self._settle, self._patience = settle, patience

    def get(self, order: Order, run: TaskRun) -> Answer:
        """The order's answer: from the journal, from a task an earlier run began, or from a new one.

        Raises:
            ServiceError: when the service refused it or failed at it.
            EngineError: when its fate cannot be learnt, or its pictures cannot be had.
            Cancelled: when the run was cancelled; what was sent stays known.
        """
        fresh = run.fresh
        for attempt in range(_ATTEMPTS):
            try:
                with self._journal.claim(
                    order.key, order.kind, run=run.id, fresh=fresh, cancelled=lambda: run.cancelled(order.name)
                ) as claim:
                    return self._worked(order, run, claim)
            except _Again as problem:
                if attempt + 1 == _ATTEMPTS:
                    raise problem.error from None
                fresh = False
                self._wait(problem.seconds(attempt), order, run)
        raise AssertionError("unreachable")

    def _worked(self, order: Order, run: TaskRun, claim: Claim) -> Answer:
        entry = claim.entry
        if entry.state == "done":
            return self._kept(order, entry)
        if entry.state == "intended":
            return self._bought(order, run, claim)
        began = entry.times["sending"]
        if entry.state == "sent":
            prediction = Prediction(entry.remote)
        else:
            prediction = self._looked_for(order, run, claim, entry.request, began)
            claim.sent(prediction.id)
        prediction, facts = self._awaited(order, run, claim, prediction, began)
        return self._brought(order, run, claim, prediction, facts, 0.0)

    def _bought(self, order: Order, run: TaskRun, claim: Claim) -> Answer:
        """The one way on which money is spent."""
        urls = {name: self._address(data, name, order, run) for name, data in order.pictures.items()}
        run.reserve(order.price)
        spent = False
        try:
            with self._limits.slot(lambda: run.cancelled(order.name), lambda seconds: None):
                spent = True  # unless it is certainly refused
                try:
                    prediction = self._submitted(order, run, claim, {**order.inputs, **urls})
                    prediction, facts = self._awaited(order, run, claim, prediction, time.time())
                except (ServiceError, _Again):
                    spent = claim.entry.state != "failed"
                    raise
        finally:
            if not spent:
                run.release(order.price)
        return self._brought(order, run, claim, prediction, facts, order.price)

    def _submitted(self, order: Order, run: TaskRun, claim: Claim, inputs: Mapping[str, Any]) -> Prediction:
        """Send it; what is not known afterwards is looked for."""
        request = {"model": order.model, "size": str(inputs.get("size", "")), "inputs": _noted(inputs)}
        began = time.time()
        claim.sending(request, order.price)
        try:
            prediction = self._client.submit(order.model, inputs)
        except Unreachable as problem:
            claim.failed(str(problem))
            raise _Again(problem) from None
        except ServiceError as problem:
            claim.failed(str(problem))
            if problem.kind == "busy":
                self._limits.pause(problem.again if problem.again is not None else 5.0)
                raise _Again(problem) from None
            if problem.kind == "media":  # what was uploaded may be gone
                self._forget(order)
            raise
        except Lost as problem:
            claim.unknown(f"{problem}; perhaps paid")
            prediction = self._looked_for(order, run, claim, request, began)
        claim.sent(prediction.id)
        return prediction

    def _looked_for(
        self, order: Order, run: TaskRun, claim: Claim, request: Mapping[str, Any], began: float
    ) -> Prediction:
        """The submission in the service's list of predictions.

        Raises:
            _Again: when the list answers, for as long as it takes to settle, and does not hold it.
            EngineError: when that cannot be learnt: it is perhaps paid, and not sent again.
        """
        reason, attempt = "", 0
        while True:
            settled = time.time() - began >= self._settle
            try:
                same, unsure = self._listed(order.model, request, began)
            except (ServiceError, Unreachable, Lost) as problem:
                reason = str(problem)
                if settled and attempt >= 2:
                    break
            else:
                if same is not None:
                    return same
                reason = "its list of predictions holds one that may be it" if unsure else ""
                if settled and unsure is None:
                    claim.failed("its list of predictions does not hold it: it was not taken")
                    raise _Again(Lost("WaveSpeed: a submission was lost on its way"))
                if settled:
                    break
            attempt += 1
            self._wait(min(2.0**attempt / 2, max(0.2, began + self._settle - time.time())), order, run)
        claim.unknown(f"no answer came, and whether the service took it cannot be learnt ({reason}): perhaps paid")
        raise EngineError(
            f"{order.name or order.model}: perhaps paid: no answer came, and whether the service took it cannot be "
            f"learnt ({reason}); it is not sent again unasked: `inpaint resume` looks again, --fresh asks anew"
        )

    def _listed(
        self, model: str, request: Mapping[str, Any], began: float
    ) -> tuple[Prediction | None, Prediction | None]:
        """The one that is certainly it, and one that may be it; those the journal knows are others."""
        unsure = None
        for one in self._client.predictions(model, began - _SKEW):
            if one.model not in ("", model) or self._journal.knows(one.id):
                continue
            verdict = _compared(request.get("inputs", {}), one.inputs)
            if verdict is True:
                return one, None
            if verdict is None:
                unsure = one
        return None, unsure

    def _awaited(
        self, order: Order, run: TaskRun, claim: Claim, prediction: Prediction, began: float
    ) -> tuple[Prediction, dict[str, Any]]:
        """The task at its end, and what the service tells of it.

        Raises:
            ServiceError: when the task failed.
            EngineError: when it does not come to its end.
        """
        size = str(order.inputs.get("size", ""))
        expected = self._journal.typical(order.model, size) or order.seconds
        started = time.monotonic() - max(0.0, time.time() - began)
        until = time.monotonic() + self._patience
        pause, growth, unseen = max(0.0, started + expected + 0.1 - time.monotonic()), max(0.3, 0.15 * expected), 0
        while not prediction.is_ended:
            self._wait(pause, order, run, expected, started)
            pause = min(10.0, growth) * random.uniform(0.9, 1.1)
            growth *= 1.6
            try:
                prediction = self._client.prediction(prediction.id)
            except ServiceError as problem:
                if problem.kind == "missing":
                    unseen += 1
                    if unseen == _ATTEMPTS:
                        raise EngineError(
                            f"{order.name}: the service no longer knows the task {prediction.id}, which was paid; "
                            "--fresh asks anew"
                        ) from None
                elif problem.kind == "busy":
                    pause = max(pause, problem.again or 2.0)
                elif problem.kind != "fault":
                    raise
            except (Unreachable, Lost):
                pass
            if time.monotonic() > until and not prediction.is_ended:
                raise EngineError(
                    f"{order.name}: the task {prediction.id} has not come to its end within {self._patience:g} s; "
                    "`inpaint resume` takes it up"
                )
        if prediction.is_failed:
            failure = prediction.failure()
            claim.failed(str(failure))
            if failure.kind == "media":
                self._forget(order)
            raise failure
        inference = prediction.timings.get("inference")
        return prediction, {
            "id": prediction.id, "model": prediction.model or order.model, "created_at": prediction.created_at,
            "timings": dict(prediction.timings), "urls": dict(prediction.urls), "size": size,
            "seconds": round(inference / 1000 if inference else time.monotonic() - started, 3),
            "outputs": list(prediction.outputs), "flagged": list(prediction.flagged),
        }  # fmt: skip

    def _brought(
        self, order: Order, run: TaskRun, claim: Claim, prediction: Prediction, facts: dict[str, Any], price: float
    ) -> Answer:
        if order.kind == "enhance":
            claim.done(facts)
            return Answer((), prediction.outputs, price, {**facts, "kept": False})
        if not prediction.outputs:
            raise EngineError(f"{order.name}: the task {prediction.id} came to its end without a picture")
        flags = (*prediction.flagged, *(False for _ in prediction.outputs))
        files = [
            None if flagged else self._downloaded(url, order, run, prediction)
            for url, flagged in zip(prediction.outputs, flags, strict=False)
        ]
        # Kept before anything else is done with it: the service forgets.
        claim.done(facts, [(file[0], _suffix(file[0])) for file in files if file is not None])
        return Answer(tuple(file and file[1] for file in files), (), price, {**facts, "kept": False})

    def _downloaded(self, url: str, order: Order, run: TaskRun, prediction: Prediction) -> tuple[bytes, Any]:
        """A picture as it came and as it was read."""
        problem: EngineError = Lost("")
        for attempt in range(3):
            if attempt:
                self._wait(2.0 ** (attempt - 1), order, run)
            try:
                data = self._client.download(url, lambda: run.cancelled(order.name))
                return data, order.read(data)
            except EngineError as failure:
                problem = failure
        raise EngineError(
            f"{order.name}: the picture of task {prediction.id}, which is paid, cannot be had: {problem}; "
            "`inpaint resume` tries again, without paying"
        )

    def _kept(self, order: Order, entry: Entry) -> Answer:
        facts = {**entry.answer, "kept": True}
        if order.kind == "enhance":
            return Answer((), tuple(entry.answer.get("outputs", ())), 0.0, facts)
        paths = iter(entry.files)
        outputs = entry.answer.get("outputs", ())
        flags = (*entry.answer.get("flagged", ()), *(False for _ in outputs))
        pictures = tuple(
            None if flagged else order.read(next(paths).read_bytes())
            for _, flagged in zip(outputs, flags, strict=False)
        )
        return Answer(pictures, (), 0.0, facts)

    def _address(self, data: bytes, name: str, order: Order, run: TaskRun) -> str:
        """Where the service finds a picture: uploaded once for the same bytes while that lives."""
        key = self._upload_key(data)
        problem: EngineError = Lost("")
        with self._journal.claim(key, "upload", run=run.id, cancelled=lambda: run.cancelled(order.name)) as claim:
            if claim.entry.state == "done":
                return str(claim.entry.answer["url"])
            if claim.entry.state == "intended":
                claim.sending({"upload": name, "bytes": len(data)}, 0.0)
            for attempt in range(_ATTEMPTS):
                if attempt:
                    self._wait(min(8.0, 0.5 * 2.0**attempt), order, run)
                try:
                    url = self._client.upload(data, f"{name}.png", "image/png")
                except ServiceError as failure:
                    if failure.kind in ("key", "credit"):
                        raise
                    problem = failure
                    if failure.kind not in ("busy", "fault"):
                        break
                except (Unreachable, Lost) as failure:
                    problem = failure
                else:
                    claim.done({"url": url, "expires": time.time() + LIFETIME})
                    return url
        if isinstance(problem, Unreachable) or len(data) > _LARGEST_INLINE:
            raise problem
        return data_address(data, "image/png")

    def _upload_key(self, data: bytes) -> str:
        return hashlib.sha256(self._account.encode() + b"\0" + data).hexdigest()

    def _forget(self, order: Order) -> None:
        for data in order.pictures.values():
            self._journal.forget_upload(self._upload_key(data))

    def _wait(
        self, seconds: float, order: Order, run: TaskRun, expected: float = 0.0, started: float | None = None
    ) -> None:
        """Sleep, looking now and then whether the run was cancelled.

        Raises:
            Cancelled: when it was.
        """
        until = time.monotonic() + seconds
        while True:
            if run.cancelled(order.name):
                raise Cancelled
            if started is not None and expected:
                run.progress(order.name, min(0.95, (time.monotonic() - started) / expected))
            left = until - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(0.2, left))


class _Again(Exception):
    """Certainly not taken: the same may be sent again."""

    def __init__(self, error: EngineError) -> None:
        super().__init__(str(error))
        self.error = error

    def seconds(self, attempt: int) -> float:
        """To wait before that."""
        asked = getattr(self.error, "again", None)
        return float(asked) if asked is not None else min(30.0, 0.5 * 2.0**attempt) * random.uniform(0.8, 1.2)


def _noted(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Inputs as the journal keeps them: pictures sent within the request by their hash."""
    return {
        name: f"data:sha256,{hashlib.sha256(value.encode()).hexdigest()}"
        if isinstance(value, str) and value.startswith("data:")
        else value
        for name, value in inputs.items()
    }


def _compared(ours: Mapping[str, Any], listed: Mapping[str, Any] | None) -> bool | None:
    """Whether what the service lists is what was sent: True, False, or None where that cannot be told.

    Values that differ tell them apart, addresses only where they lie at the same host: the service may rewrite its own.
    """
    if not listed:
        return None
    certain = True
    for name, value in ours.items():
        other = listed.get(name)
        if other is None and not value and value != 0:  # left out because it is empty
            continue
        if other is None:
            certain = False
        elif isinstance(value, str) and value.startswith("data:"):
            certain = certain and isinstance(other, str) and _noted({"": other})[""] == value
        elif isinstance(value, str) and value.startswith(("http://", "https://")) and value != other:
            if _host(value) == _host(other):
                return False
            certain = False
        elif not _equal(value, other):
            return False
    return True if certain else None


def _equal(ours: Any, other: Any) -> bool:
    if isinstance(ours, list) and isinstance(other, list):
        return len(ours) == len(other) and all(map(_equal, ours, other))
    if isinstance(ours, dict) and isinstance(other, dict):
        return all(_equal(value, other.get(name)) for name, value in ours.items())
    if isinstance(ours, int | float) and isinstance(other, int | float):
        return abs(ours - other) < 1e-6
    return bool(ours == other)


def _host(address: Any) -> str:
    return address.split("/", 3)[2] if isinstance(address, str) and address.count("/") > 2 else ""


def _suffix(data: bytes) -> str:
    return ".png" if data.startswith(b"\x89PNG") else ".jpg" if data.startswith(b"\xff\xd8") else ".webp"
