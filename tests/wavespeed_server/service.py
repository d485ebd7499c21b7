"""The endpoints: what each answers, with nothing scripted yet."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http import HTTPStatus
from itertools import cycle, islice
from typing import Any, NamedTuple
from urllib.parse import unquote

from .models import FLUX, MODELS, Refused, optimized, size_of
from .picture import NotAPicture, decode, encode, paint
from .records import MEDIA, Prediction, Settings, Upload, media, nanoseconds
from .wire import Reply, Request, envelope, multipart_file, refusal


class Route(NamedTuple):
    """An endpoint: `path` is a pattern, `authorized` says that it needs the API key."""

    method: str
    path: str
    kind: str
    authorized: bool
    handler: Callable[[Service, Request], Awaitable[Reply]]


class Service:
    """Predictions, uploads and the handlers; used from its event loop only."""

    def __init__(self, settings: Settings, task_fault: Callable[[Prediction], Mapping[str, Any]]) -> None:
        """`task_fault` gives what the script has for a task just accepted."""
        self._task_fault = task_fault
        self.settings = settings
        self.predictions: dict[str, Prediction] = {}
        self.uploads: dict[str, Upload] = {}
        self.origins: set[str] = set()
        self.spent = 0.0
        self.most_unfinished = 0
        self._running = 0
        self._turn = asyncio.Condition()
        self._recent: deque[float] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._painters = ThreadPoolExecutor(2, "wavespeed-painter")

    def close(self) -> None:
        """Let nothing run on."""
        for task in self._tasks:
            task.cancel()
        self._painters.shutdown(cancel_futures=True)

    # Submissions and results.

    async def submit(self, request: Request) -> Reply:
        model = request.path.removeprefix("/api/v3/")
        if model not in MODELS:
            return refusal(404, f"model not found: {model}")
        try:
            inputs = request.json()
            if not isinstance(inputs, dict):
                raise Refused("the body must be a JSON object")
            MODELS[model].check(inputs)
        except Refused as problem:
            return refusal(400, str(problem))
        except ValueError:
            return refusal(400, "the body is no JSON")
        if self._too_many():
            return refusal(429, "Too Many Requests")
        if MODELS[model].cost(inputs) > self.settings.balance:
            return refusal(400, "insufficient credits", 1407)
        prediction = self._accept(model, inputs, request.key)
        if inputs.get("enable_sync_mode") is True:
            return await self._held(prediction, request)
        return envelope(prediction.data(request.origin, self.settings.suffix))

    def _too_many(self) -> bool:
        if self.settings.per_minute is None:
            return False
        now = time.monotonic()
        while self._recent and self._recent[0] < now - 60:
            self._recent.popleft()
        if len(self._recent) >= self.settings.per_minute:
            return True
        self._recent.append(now)
        return False

    def _accept(self, model: str, inputs: Mapping[str, Any], key: str | None) -> Prediction:
        created = time.time_ns() + int(self.settings.clock * 1e9)
        prediction = Prediction(MODELS[model], inputs, key, created=created)
        self._pay(prediction, 1)
        self.predictions[prediction.id] = prediction
        unfinished = sum(one.finished is None for one in self.predictions.values())
        self.most_unfinished = max(self.most_unfinished, unfinished)
        task = asyncio.get_running_loop().create_task(self._work(prediction, self._task_fault(prediction)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return prediction

    def _pay(self, prediction: Prediction, sign: int) -> None:
        cost = prediction.model.cost(prediction.inputs)
        self.spent += sign * cost
        self.settings.balance -= sign * cost

    async def _held(self, prediction: Prediction, request: Request) -> Reply:
        limit = self.settings.sync_limit
        try:
            await asyncio.wait_for(prediction.over.wait(), limit)
        except TimeoutError:
            data = prediction.data(request.origin, self.settings.suffix)
            error = f"Sync mode timed out after {limit:g} seconds. The prediction is still processing asynchronously."
            return envelope({**data, "status": "processing", "code": 5004, "error": error})
        return envelope(prediction.data(request.origin, self.settings.suffix))

    async def _work(self, prediction: Prediction, fault: Mapping[str, Any]) -> None:
        async with self._turn:
            await self._turn.wait_for(
                lambda: self.settings.concurrent is None or self._running < self.settings.concurrent
            )
            self._running += 1
        try:
            await self._process(prediction, fault)
        finally:
            async with self._turn:
                self._running -= 1
                self._turn.notify_all()

    async def _process(self, prediction: Prediction, fault: Mapping[str, Any]) -> None:
        began = time.monotonic()
        seconds = fault.get("seconds", self.settings.seconds)
        await asyncio.sleep(min(seconds * 0.1, 0.1))
        if prediction.finished is not None:
            return
        prediction.status = fault.get("status", "processing")
        problem = await self._make(prediction)
        prediction.nsfw = list(islice(cycle(fault.get("flags", [False])), len(prediction.outputs)))
        if fault.get("stuck"):
            await prediction.released.wait()
        await asyncio.sleep(max(0.0, began + seconds - time.monotonic()))
        prediction.inference = round((time.monotonic() - began) * 1000)
        if "code" in fault:
            problem = fault["code"], fault["error"]
        if problem:
            self._pay(prediction, -1)
            prediction.finish("failed", problem[1], problem[0])
        else:
            prediction.finish(fault.get("end", "completed"))

    async def _make(self, prediction: Prediction) -> tuple[int, str] | None:
        """Make the outputs; the error's code and sentence if that cannot be."""
        inputs = prediction.inputs
        if prediction.model.name != FLUX:
            prediction.outputs = [optimized(inputs)]
            return None
        image, mask = (media(inputs[name], self.uploads, self.origins) for name in MEDIA)
        if image is None or mask is None:
            return 1402, "Failed to download image from the provided URL."
        made = await asyncio.get_running_loop().run_in_executor(
            self._painters, _outputs, image, mask, inputs, self.settings.strict, self.settings.suffix
        )
        if isinstance(made, tuple):
            return made
        prediction.outputs = made
        return None

    def known(self, request: Request) -> Prediction | None:
        found = re.search(r"/predictions/([^/]+)", request.path)
        return self.predictions.get(found[1]) if found else None

    async def result(self, request: Request) -> Reply:
        prediction = self.known(request)
        if prediction is None:
            return refusal(404, "Prediction not found")
        prediction.polls += 1
        return envelope(prediction.data(request.origin, self.settings.suffix))

    async def delete(self, request: Request) -> Reply:
        prediction = self.known(request)
        if prediction is None:
            return refusal(404, "Prediction not found")
        if prediction.finished is None:
            prediction.finish("deleted")
        prediction.status = "deleted"
        return envelope({"id": prediction.id, "status": "deleted"})

    async def listing(self, request: Request) -> Reply:
        try:
            wanted = request.json()
            page, size = wanted.get("page", 1), wanted.get("page_size", 20)
            if not (isinstance(page, int) and page >= 1 and isinstance(size, int) and 1 <= size <= 100):
                return refusal(400, "page must be 1 or more, page_size 1 to 100")
            size = min(size, self.settings.most_page)
            after, before = (
                nanoseconds(wanted[name]) if wanted.get(name) else None for name in ("created_after", "created_before")
            )
        except (ValueError, AttributeError, TypeError):
            return refusal(400, "the body must be JSON with page, page_size and ISO times")
        visible = time.monotonic() - self.settings.list_delay
        found = [
            one
            for one in sorted(self.predictions.values(), key=lambda one: one.created, reverse=True)
            if one.at <= visible
            and wanted.get("model") in (None, "", one.model.name)
            and wanted.get("status") in (None, "", one.status)
            and (after is None or one.created >= after)
            and (before is None or one.created <= before)
        ]
        items = []
        for one in found[(page - 1) * size : page * size]:
            item = {**one.data(request.origin, self.settings.suffix), "executionTime": one.inference}
            if wanted.get("include_inputs") is True:
                item["inputs"] = dict(one.inputs)
            items.append(item)
        return envelope({"page": page, "total": len(found), "items": items})

    # Uploads and outputs.

    async def ticket(self, request: Request) -> Reply:
        try:
            wanted = request.json()
            name, size = wanted["filename"], wanted["size"]
        except (ValueError, KeyError, TypeError):
            return refusal(400, "the body must be JSON with filename and size")
        if not isinstance(name, str) or not name or "/" in name or not isinstance(size, int) or size < 1:
            return refusal(400, "filename must be a plain name and size a positive number of bytes")
        if size > self.settings.most_upload:
            return refusal(413, "file too large")
        upload = self._begin(name, size, wanted.get("content_type", ""))
        instruction = {
            "method": "PUT",
            "url": f"{request.origin}/_storage/{upload.id}?signature={secrets.token_hex(8)}",
            "headers": dict(upload.headers),
            "expires_at": _in_an_hour(),
        }
        return envelope({**_described(upload, request.origin), "upload": instruction})

    def _begin(self, name: str, size: int, content_type: str) -> Upload:
        expires = time.monotonic() + self.settings.upload_seconds
        upload = Upload(secrets.token_hex(8), name, size, content_type, dict(self.settings.ticket_headers), expires)
        self.uploads[upload.id] = upload
        return upload

    async def put(self, request: Request) -> Reply:
        upload = self.uploads.get(request.path.rpartition("/")[2])
        if upload is None:
            return _storage(404)
        if "authorization" in request.headers:
            return _storage(400, "Only one auth mechanism allowed")
        for name, value in upload.headers.items():
            if request.headers.get(name.lower()) != value:
                return _storage(403, f"the header {name} was signed as {value}")
        if upload.data is not None and upload.headers.get("If-None-Match") == "*":
            return _storage(412)
        if request.size != upload.size:
            return _storage(403, f"the ticket is for {upload.size} bytes, got {request.size}")
        upload.data = request.body
        return Reply(200, b"", "application/xml", {"ETag": f'"{upload.id}"'})

    async def multipart(self, request: Request) -> Reply:
        found = multipart_file(request)
        if found is None:
            return refusal(400, "the form field file is missing")
        if len(found[1]) > self.settings.most_upload:
            return refusal(413, "file too large")
        upload = self._begin(found[0] or "upload", len(found[1]), "")
        upload.data = found[1]
        return envelope(_described(upload, request.origin))

    async def uploaded(self, request: Request) -> Reply:
        upload = self.uploads.get(request.path.split("/")[2])
        if upload is None or upload.data is None or upload.expired or unquote(upload.path) != request.path:
            return _storage(404)
        upload.downloads += 1
        return Reply(200, upload.data, "image/jpeg" if upload.data[:2] == b"\xff\xd8" else "image/png")

    async def output(self, request: Request) -> Reply:
        prediction, number = self.output_of(request)
        if prediction is None or not 1 <= number <= len(prediction.outputs):
            return _storage(404)
        make = prediction.outputs[number - 1]
        assert not isinstance(make, str)
        data = await asyncio.get_running_loop().run_in_executor(self._painters, make)
        prediction.downloads += 1
        return Reply(200, data, "image/jpeg" if data[:2] == b"\xff\xd8" else "image/png")

    def output_of(self, request: Request) -> tuple[Prediction | None, int]:
        """The prediction whose output is asked for, and the output's number from 1."""
        found = re.fullmatch(r"/_outputs/(\w+)/(\d)\.(png|jpeg)", request.path)
        return (self.predictions.get(found[1]), int(found[2])) if found else (None, 0)

    # The account and the catalogue.

    async def balance(self, request: Request) -> Reply:
        data: dict[str, Any] = {"balance": round(self.settings.balance, 6)}
        return envelope({**data, "currency": "USD"} if "account" in request.path else data)

    async def price(self, request: Request) -> Reply:
        try:
            wanted = request.json()
            cost = MODELS[wanted["model_id"]].cost(wanted.get("inputs") or {})
        except (ValueError, KeyError, TypeError):
            return refusal(400, "the body must be JSON with a known model_id and inputs")
        if request.path.endswith("pricing"):
            return envelope({"unit_price": cost})
        return envelope({"model_id": wanted["model_id"], "price": cost, "discounted_price": cost, "currency": "USD"})

    async def models(self, _request: Request) -> Reply:
        return envelope([model.entry() for model in MODELS.values()])


def _described(upload: Upload, origin: str) -> dict[str, Any]:
    url = f"{origin}{upload.path}"
    return {"type": "image", "download_url": url, "filename": upload.filename, "size": upload.size}


def _in_an_hour() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600))


def _storage(status: int, message: str = "") -> Reply:
    """An error of the object store, which answers XML."""
    text = f"<Error><Code>{status}</Code><Message>{message or HTTPStatus(status).phrase}</Message></Error>"
    return Reply(status, text.encode(), "application/xml")


class Output:
    """A picture file: painted beforehand, kept until it is first fetched and painted anew after that."""

    def __init__(self, make: Callable[[], bytes]) -> None:
        self._make = make
        self._kept: bytes | None = make()

    def __call__(self) -> bytes:
        data, self._kept = self._kept or self._make(), None
        return data


def _outputs(
    image: bytes, mask: bytes, inputs: Mapping[str, Any], strict: bool, suffix: str
) -> list[str | Callable[[], bytes]] | tuple[int, str]:
    """The outputs of one run, or code and sentence of what is wrong with its pictures."""
    try:
        picture, hole = decode(image), decode(mask, grey=True)
    except NotAPicture:
        return 1402, "Failed to download image from the provided URL."
    sizes = [size_of(inputs), picture.shape[1::-1], hole.shape[1::-1]]
    if strict and len(set(sizes)) > 1:
        shown = ", ".join(f"{name} {w}*{h}" for name, (w, h) in zip(("size", *MEDIA), sizes, strict=True))
        return 1401, f"sizes differ: {shown}"
    seed = inputs.get("seed", -1)
    seed = secrets.randbelow(2**31) if seed < 0 else seed
    numbers = range(inputs.get("num_images", 1))
    return [Output(partial(_painted, image, mask, inputs, seed, number, suffix)) for number in numbers]


def _painted(image: bytes, mask: bytes, inputs: Mapping[str, Any], seed: int, number: int, suffix: str) -> bytes:
    """The picture file of one output."""
    width, height = size_of(inputs)
    size = (width // 16 * 16, height // 16 * 16)  # as the model's reference implementation does
    return encode(paint(decode(image), decode(mask, grey=True), inputs["prompt"], seed, number, size), suffix)


PREDICTION = r"/api/v3/predictions/[^/]+(/result)?|/api/v2/predictions/[^/]+/result"
ROUTES = [  # the first that fits
    Route("POST", r"/api/v3/predictions", "list", True, Service.listing),
    Route("GET", PREDICTION, "poll", True, Service.result),
    Route("DELETE", r"/api/v3/predictions/[^/]+", "delete", True, Service.delete),
    Route("POST", r"/api/v3/media/uploads", "ticket", True, Service.ticket),
    Route("POST", r"/api/v[23]/media/upload/binary", "multipart", True, Service.multipart),
    Route("PUT", r"/_storage/\w+", "put", False, Service.put),
    Route("GET", r"/_media/\w+/.+", "uploaded", False, Service.uploaded),
    Route("GET", r"/_outputs/.+", "download", False, Service.output),
    Route("GET", r"/api/v3/(account/)?balance", "balance", True, Service.balance),
    Route("POST", r"/api/v3/model/(price|pricing)", "price", True, Service.price),
    Route("GET", r"/api/v3/models", "models", True, Service.models),
    Route("POST", r"/api/v3/(?P<model>.+)", "submit", True, Service.submit),
]
KINDS = tuple(route.kind for route in ROUTES)


def route(request: Request) -> Route | None:
    """The endpoint that a request is for."""
    path = request.path
    return next((one for one in ROUTES if one.method == request.method and re.fullmatch(one.path, path)), None)
