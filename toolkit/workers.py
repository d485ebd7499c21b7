"""A pool of worker processes for long native calls.

Workers are plain `python -m toolkit.workers` processes that speak pickles over their standard streams: unlike
multiprocessing's spawn they never import the caller's main module, so a script needs no `__main__` guard, and unlike
fork they are safe beside threads. A crash fails one job; a cancelled job's process is ended at once.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import IO, Any

from toolkit.errors import Cancelled, EngineError, ToolkitError
from toolkit.heap import give_back

_LENGTH = struct.Struct("<Q")
_PAUSE = 0.5  # seconds without a job after which a worker gives its memory back


def _send(stream: IO[bytes], message: Any) -> None:
    """Write a message: the number of its parts, each with its length; arrays are parts and not copied."""
    arrays: list[pickle.PickleBuffer] = []
    data = pickle.dumps(message, protocol=5, buffer_callback=arrays.append)
    stream.write(_LENGTH.pack(1 + len(arrays)))
    for part in (memoryview(data), *(array.raw() for array in arrays)):
        stream.write(_LENGTH.pack(len(part)))
        stream.write(part)
    stream.flush()


def _read(stream: IO[bytes]) -> list[bytearray]:
    """The parts of a message."""
    parts = []
    for _ in range(_length(stream)):
        part = bytearray(_length(stream))
        if stream.readinto(part) < len(part):  # type: ignore[attr-defined]
            raise EOFError
        parts.append(part)
    return parts


def _length(stream: IO[bytes]) -> int:
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError
    length: int = _LENGTH.unpack(head)[0]
    return length


def _loaded(parts: list[bytearray]) -> Any:
    return pickle.loads(parts[0], buffers=parts[1:])  # our own process's


class _Failed(Exception):
    """What the called function raised, told from what befell the process."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(str(error))
        self.error = error


class _Worker:
    """One process; started at once, so that it imports while the caller still reads its photo."""

    def __init__(self) -> None:
        paths = [path for path in sys.path if path]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "toolkit.workers"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
        )

    def call(self, function: Callable[..., Any], arguments: tuple[Any, ...], progress: Callable[[float], None]) -> Any:
        assert self.process.stdin
        assert self.process.stdout
        _send(self.process.stdin, (function, arguments))
        while True:
            kind, value = _loaded(_read(self.process.stdout))
            if kind == "progress":
                progress(value)
            elif kind == "done":
                return value
            else:
                raise _Failed(value)

    def stop(self) -> None:
        for stream in (self.process.stdin, self.process.stdout):
            if stream:
                try:
                    stream.close()
                except OSError:  # a broken pipe of a dead worker
                    continue
        self.process.kill()
        self.process.wait()


class Pool:
    """Up to `count` worker processes, started when first needed; shared by all edits of a command."""

    def __init__(self, count: int) -> None:
        self.count = max(1, count)
        self._tasks: queue.SimpleQueue[tuple[Any, ...] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._busy: dict[Future[Any], _Worker] = {}
        self._given_up: set[Future[Any]] = set()
        self._unfinished = 0
        self._spare: list[_Worker] = []
        self._closed = False

    def warm(self) -> None:
        """Start one worker now, so that the first job does not wait for it."""
        with self._lock:
            if not self._closed and not self._threads and not self._spare:
                self._spare.append(_Worker())

    def submit(
        self, function: Callable[..., Any], *arguments: Any, progress: Callable[[float], None] | None = None
    ) -> Future[Any]:
        """Call `function(*arguments)` in a worker; functions marked `reports_progress` get a `progress` callable."""
        future: Future[Any] = Future()
        with self._lock:
            if self._closed:
                raise Cancelled
            self._tasks.put((future, function, arguments, progress or (lambda share: None)))
            self._unfinished += 1
            if self._unfinished > len(self._threads) < self.count:
                thread = threading.Thread(target=self._serve, daemon=True)
                self._threads.append(thread)
                thread.start()
        return future

    def cancel(self, future: Future[Any]) -> None:
        """Give up one job; if it is running its process is ended, and the pool goes on with a new one."""
        if not future.cancel():
            with self._lock:
                if not future.done():
                    self._given_up.add(future)  # also while its worker is only being started
                    if worker := self._busy.get(future):
                        worker.process.kill()

    def close(self) -> None:
        """End all workers; jobs that still run or wait are cancelled."""
        with self._lock:
            self._closed = True
            busy = list(self._busy.values())
            spare, self._spare = self._spare, []
        for worker in busy:
            worker.process.kill()
        for worker in spare:
            worker.stop()
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join()

    def _serve(self) -> None:
        worker: _Worker | None = None
        while (task := self._tasks.get()) is not None:
            future, function, arguments, progress = task
            if self._closed:
                future.cancel()
            elif future.set_running_or_notify_cancel():
                try:
                    worker = worker or self._new()
                except OSError as problem:
                    future.set_exception(EngineError(f"a worker process cannot be started ({problem.strerror})"))
                else:
                    worker = self._work(worker, future, function, arguments, progress)
            with self._lock:
                self._given_up.discard(future)
                self._unfinished -= 1
            del task, future, function, arguments, progress  # not held while waiting for the next
        if worker is not None:
            worker.stop()

    def _new(self) -> _Worker:
        with self._lock:
            spare = self._spare.pop() if self._spare else None
        return spare or _Worker()

    def _work(
        self,
        worker: _Worker,
        future: Future[Any],
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        progress: Callable[[float], None],
    ) -> _Worker | None:
        """Have `worker` do one job and answer its future; the worker, or None when it lives no more."""
        with self._lock:
            self._busy[future] = worker
            if self._closed or future in self._given_up:
                worker.process.kill()
        answer: Any = None
        failure: BaseException | None = None
        alive = True
        try:
            answer = worker.call(function, arguments, progress)
        except (EOFError, OSError, pickle.UnpicklingError):
            # An error that the function raised comes as `_Failed`, so this is the process's own end.
            failure = Cancelled() if future in self._given_up else self._death(worker)
            alive = False
        except _Failed as problem:
            failure = problem.error
        except Exception as problem:  # the job could not be pickled, or `progress` failed
            failure = problem
            alive = False
        with self._lock:
            self._busy.pop(future, None)
            # It may have been given up, and its process ended, just when it was done.
            alive &= future not in self._given_up
        if not alive:
            worker.stop()
        if failure is None:
            future.set_result(answer)
        else:
            future.set_exception(failure)
        return worker if alive else None

    def _death(self, worker: _Worker) -> ToolkitError:
        code = worker.process.wait()
        if self._closed:
            return Cancelled()
        if code in (-signal.SIGTERM, -9):
            return EngineError("a worker process was ended from outside (out of memory?); the job was not finished")
        return EngineError(f"a worker process crashed (exit code {code}); the job was not finished")


def _end_with(parent: int) -> None:
    """End this process, whatever it computes, soon after its parent was killed; a closed pipe alone is seen later."""
    while os.getppid() == parent:  # on Windows always
        time.sleep(0.5)
    os._exit(1)


def _main() -> None:
    """Serve jobs from standard input until it closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    jobs, answers = sys.stdin.buffer, os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # nothing a library prints may reach the protocol
    import cv2

    cv2.setNumThreads(1)  # one core a worker: the pool is as wide as the machine
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            _serve_one(jobs, answers)
            if sys.platform == "linux" and not select.select([jobs], [], [], _PAUSE)[0]:
                give_back()  # only now, for the next of many jobs needs as much again


def _serve_one(jobs: IO[bytes], answers: IO[bytes]) -> None:
    """Wait for a job and answer it; a function of its own, so that nothing of it is held while waiting for the next."""
    job = _read(jobs)
    try:
        function, arguments = _loaded(job)
        options = {}
        if getattr(function, "reports_progress", False):
            options["progress"] = lambda share: _send(answers, ("progress", float(share)))
        answer = ("done", function(*arguments, **options))
    except Exception as problem:
        answer = ("error", _portable(problem))
    try:
        _send(answers, answer)
    except BrokenPipeError:
        raise
    except Exception as problem:  # the answer cannot be pickled
        _send(answers, ("error", EngineError(f"the answer of a worker cannot be sent: {problem}")))


def _portable(problem: Exception) -> Exception:
    """`problem` itself if it survives being pickled, else an `EngineError` that says the same."""
    try:
        pickle.loads(pickle.dumps(problem))
    except Exception:
        return EngineError(f"{type(problem).__name__}: {problem}")
    return problem


if __name__ == "__main__":
    from toolkit.workers import _main as serve  # under its real name, so that pickled classes match

    serve()
