"""The stand-in itself: listens, asks the script, records, and can be controlled from any thread or process."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import fields
from types import TracebackType
from typing import Any, Self

from . import faults
from .faults import Fault, Match, NoSuchFault
from .records import Prediction, Settings, Upload, identity, media
from .service import Service, route
from .wire import Act, Reply, Request, envelope, read_body, read_head, refusal, send, streams


class Server:
    """The WaveSpeed REST API v3 on loopback, scripted. `with Server(seconds=0.05) as server: ...`.

    `url` is the base URL, `other_url` that of a second host to which redirects lead. Settings are those of
    `records.Settings`. All methods may be called from any thread; nothing is left when the block ends.
    """

    def __init__(self, port: int = 0, log: Callable[[str], None] | None = None, **settings: Any) -> None:
        self.settings = Settings(**settings)
        self.url = self.other_url = ""
        self._port = port
        self._log = log
        self._faults: list[Fault] = []
        self._lock = threading.Lock()
        self._requests: list[Request] = []
        self._identities: dict[str, str] = {}
        self._connections: set[asyncio.Task[None]] = set()
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="wavespeed-stand-in", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        if self._failure:
            raise self._failure
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        if self._failure and value is None:
            raise self._failure

    # The script.

    def fault(
        self,
        where: str,
        what: str | int,
        times: int | None = 1,
        after: int = 0,
        match: Match = None,
        accepted: bool | None = None,
        **options: Any,
    ) -> Fault:
        """Script something to go wrong; see `faults` for places, names and options. Earlier faults come first.

        Raises NoSuchFault. The fault that is returned counts in `used` how often it has happened.
        """
        made = faults.make(where, what, times, after, match, accepted, **options)
        with self._lock:
            self._faults.append(made)
        return made

    def clear(self) -> None:
        """Forget every fault."""
        with self._lock:
            self._faults.clear()

    def set(self, **settings: Any) -> None:
        """Change settings while running. Raises NoSuchFault for a name that is none."""
        known = {one.name for one in fields(Settings)}
        for name, value in settings.items():
            if name not in known:
                raise NoSuchFault(f"no setting {name!r}: expected one of {sorted(known)}")
            setattr(self.settings, name, value)

    def finish(self) -> None:
        """Let every task that is stuck come to its end."""

        def release() -> None:
            for one in self.service.predictions.values():
                one.released.set()

        self._call(release)

    def expire_uploads(self) -> None:
        """Every upload so far is gone from now on."""
        for upload in list(self.service.uploads.values()):
            upload.expires = 0.0

    # The record.

    @property
    def requests(self) -> list[Request]:
        """Every request to `url` so far, in the order of their arrival."""
        return [one for one in list(self._requests) if not one.elsewhere]

    @property
    def elsewhere(self) -> list[Request]:
        """Every request that came to the other host."""
        return [one for one in list(self._requests) if one.elsewhere]

    @property
    def accepted(self) -> list[Prediction]:
        """Every accepted submission, in order."""
        return list(self.service.predictions.values())

    @property
    def uploads(self) -> list[Upload]:
        """Every upload begun so far, in order; its `data` is what arrived."""
        return list(self.service.uploads.values())

    @property
    def counts(self) -> Counter[str]:
        """Requests by kind."""
        return Counter(one.kind for one in self.requests)

    def keys_leaked(self) -> list[Request]:
        """Requests that brought an API key to where it has no business: storage, outputs, the other host."""
        private = ("put", "uploaded", "download")
        return [one for one in list(self._requests) if one.key and (one.elsewhere or one.kind in private)]

    def media(self, text: str) -> bytes | None:
        """The bytes behind an input of a submission: upload, data URI or base64."""
        return media(text, self.service.uploads, self.service.origins)

    def identity(self, prediction: Prediction) -> str:
        """The same for two submissions that ask for the same thing, wherever their pictures were uploaded."""
        if prediction.id not in self._identities:
            found = identity(prediction, self.service.uploads, self.service.origins)
            self._identities[prediction.id] = found
        return self._identities[prediction.id]

    def accepted_once(self, number: int | None = None) -> list[Prediction]:
        """The accepted submissions, no two of which asked for the same thing; `number` of them, if given."""
        accepted = self.accepted
        twice = [name for name, times in Counter(map(self.identity, accepted)).items() if times > 1]
        assert not twice, f"accepted more than once: {[one for one in accepted if self.identity(one) in twice]}"
        assert number is None or len(accepted) == number, f"accepted {len(accepted)} submissions, expected {number}"
        return accepted

    def wait(self, condition: Callable[[Server], Any], seconds: float = 30.0) -> None:
        """Wait until `condition(server)` is true. Raises TimeoutError."""
        until = time.monotonic() + seconds
        while not condition(self):
            if time.monotonic() > until:
                raise TimeoutError(f"not within {seconds:g} s; so far {dict(self.counts)}")
            time.sleep(0.005)

    def state(self, requests: bool = False) -> dict[str, Any]:
        """The record as JSON; pictures and other long inputs are shortened to their beginning."""
        accepted = self.accepted
        value = {
            "url": self.url,
            "counts": dict(self.counts),
            "accepted": [self._shown(one) for one in accepted],
            "accepted_once": len({self.identity(one) for one in accepted}) == len(accepted),
            "spent": round(self.service.spent, 6),
            "most_unfinished": self.service.most_unfinished,
            "keys_leaked": len(self.keys_leaked()),
            "elsewhere": len(self.elsewhere),
            "faults": [
                {"where": one.where, "what": one.what, "seen": one.seen, "used": one.used} for one in self._faults
            ],
            "cpu_seconds": time.process_time(),
        }
        if requests:
            names = ("kind", "method", "target", "at", "done", "status", "size", "sent", "fault", "elsewhere")
            value["requests"] = [
                {**{name: getattr(one, name) for name in names}, "headers": dict(one.headers)}
                for one in list(self._requests)
            ]
        return value

    def _shown(self, one: Prediction) -> dict[str, Any]:
        inputs = {name: value[:200] if isinstance(value, str) else value for name, value in one.inputs.items()}
        names = ("id", "status", "error", "code", "polls", "downloads", "at", "finished")
        shown = {name: getattr(one, name) for name in names}
        return {**shown, "model": one.model.name, "inputs": inputs, "identity": self.identity(one)}

    # At work.

    def _call(self, work: Callable[[], object]) -> None:
        """Run `work` on the loop's thread."""
        if threading.current_thread() is self._thread:
            work()
            return

        async def there() -> None:
            work()

        asyncio.run_coroutine_threadsafe(there(), self._loop).result(10)

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:  # add_reader, on Windows too
                runner.run(self._main())
        except BaseException as problem:
            self._failure = problem
        finally:
            self._ready.set()

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self.service = Service(self.settings, self._task_fault)
        listeners = [socket.create_server(("127.0.0.1", port), backlog=1024) for port in (self._port, 0)]
        ports = [one.getsockname()[1] for one in listeners]
        self.url, self.other_url = (f"http://127.0.0.1:{port}" for port in ports)
        self.service.origins = {f"{host}:{port}" for host in ("127.0.0.1", "localhost") for port in ports}
        for listener, elsewhere in zip(listeners, (False, True), strict=True):
            listener.setblocking(False)
            self._loop.add_reader(listener, self._accept, listener, elsewhere)
        self._ready.set()
        await self._stop.wait()
        for listener in listeners:
            self._loop.remove_reader(listener)
            listener.close()
        connections = list(self._connections)
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        self.service.close()
        await asyncio.sleep(0)  # lets the connections close

    def _accept(self, listener: socket.socket, elsewhere: bool) -> None:
        """Take a connection; asyncio's own server may forget one that is made in the moment it stops."""
        with contextlib.suppress(BlockingIOError, ConnectionError):
            connection, _ = listener.accept()
            task = self._loop.create_task(self._talk(connection, elsewhere))
            self._connections.add(task)

            def over(task: asyncio.Task[None]) -> None:
                self._connections.discard(task)
                connection.close()

            task.add_done_callback(over)

    async def _talk(self, connection: socket.socket, elsewhere: bool) -> None:
        connection.setblocking(False)
        reader, writer = await streams(connection)
        try:
            fault = self._take("connect", "", None)
            if fault is not None:
                await asyncio.sleep(fault.options.get("seconds", 0.0))
            if fault is None or fault.what == "stall":
                while (request := await read_head(reader, elsewhere)) is not None:
                    try:
                        going = await self._exchange(reader, writer, request)
                    finally:
                        self._finished(request)
                    if not going:
                        break
            writer.close()
            await writer.wait_closed()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client went away, as clients under test do
        except Exception as problem:  # a mistake of ours: the test fails when it leaves the block
            self._failure = problem
        finally:
            writer.transport.abort()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: Request) -> bool:
        """Answer one request; False when the connection is over."""
        found = route(request)
        request.kind = found.kind if found else "control" if request.path in ("/_control", "/_state") else "unknown"
        if request.kind != "control":
            self._requests.append(request)
        fault = self._take(request.kind, request.path, None, unread=True)
        if fault is not None:
            request.fault = fault.what
            return await send(writer, [Act.DROP], request)
        reply = await read_body(reader, request)
        taken = reply is None
        if reply is None:
            fault = self._take(request.kind, request.path, lambda: self._values(request))
            request.fault = fault.what if fault else ""
            answer = faults.before(fault, request, self.other_url) if fault else None
            if fault and answer is None and fault.what == "late":
                await asyncio.sleep(fault.options["seconds"])
            if answer is None:
                answer = await self._answer(request)
                if fault and answer.status == 200:
                    answer = faults.content(fault, answer)
            if isinstance(answer, list):
                return await send(writer, answer, request)
            reply = answer
        request.status = reply.status
        going = await send(writer, faults.steps(fault, reply), request)
        return going and taken and request.headers.get("connection", "").lower() != "close"

    def _finished(self, request: Request) -> None:
        request.done = time.monotonic()
        if request.kind != "submit":
            request.body = b""  # uploads are kept as uploads
        if self._log:
            note = f" [{request.fault}]" if request.fault else ""
            self._log(f"{request.method} {request.target} {request.size} -> {request.status} {request.sent}{note}")

    async def _answer(self, request: Request) -> Reply:
        if request.kind == "control":
            return self._control(request)
        found = route(request)
        if found is None:
            return refusal(404, f"no such endpoint: {request.method} {request.path}")
        if found.authorized and request.key != self.settings.key:
            return refusal(401, "Unauthorized: missing or invalid API key")
        return await found.handler(self.service, request)

    def _values(self, request: Request) -> Any:
        """What a fault's `match` looks at: the inputs of the prediction asked for, or the JSON body."""
        if request.kind in ("poll", "delete"):
            found = self.service.known(request)
            return found.inputs if found else None
        if request.kind == "download":
            prediction, number = self.service.output_of(request)
            return {**prediction.inputs, "number": number} if prediction else None
        if request.kind == "put":
            upload = self.service.uploads.get(request.path.rpartition("/")[2])
            return {"filename": upload.filename, "size": upload.size} if upload else None
        try:
            return request.json()
        except ValueError:
            return None

    def _take(self, kind: str, path: str, values: Callable[[], Any] | None, unread: bool = False) -> Fault | None:
        """The fault for this request, counted as used."""
        if kind == "control":
            return None
        with self._lock:
            taken = None
            shown = None
            for fault in self._faults:
                if (fault.what == "drop-unread") != unread:
                    continue
                if fault.where != kind and not (fault.where == "any" and kind not in ("connect", "task")):
                    continue
                if fault.match is not None and not isinstance(fault.match, str) and values is not None:
                    shown = values() if shown is None else shown
                if not fault.fits(path, shown):
                    continue
                fault.seen += 1
                if taken is None and fault.seen > fault.after and (fault.times is None or fault.used < fault.times):
                    taken = fault
                    fault.used += 1
            return taken

    def _task_fault(self, prediction: Prediction) -> Mapping[str, Any]:
        return faults.task_options(self._take("task", prediction.model.name, lambda: prediction.inputs))

    def _control(self, request: Request) -> Reply:
        """GET /_state, and POST /_control with any of faults, clear, set, finish, expire_uploads."""
        if request.path == "/_state":
            return envelope(self.state(requests="requests" in request.query))
        try:
            wanted = request.json()
            if wanted.get("clear"):
                self.clear()
            for one in wanted.get("faults", []):
                self.fault(**one)
            self.set(**wanted.get("set", {}))
            if wanted.get("finish"):
                self.finish()
            if wanted.get("expire_uploads"):
                self.expire_uploads()
        except (ValueError, TypeError, AttributeError) as problem:
            return refusal(400, str(problem))
        return envelope({})
