"""Runs a set of photos for a verb: progress, lines for people, the report for programs, exit codes."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any, BinaryIO, Literal, NoReturn, TextIO

import click

from toolkit.cli._brake import total
from toolkit.cli._invocation import current, numbered
from toolkit.dataset.held import release, write_table
from toolkit.dataset.inputs import STANDARD, TABLE, Item
from toolkit.dataset.runner import Outcome, Work, run_all
from toolkit.errors import Cancelled, HeldBack, InputError, OutputError, ParameterError
from toolkit.run import Run

REPORT_VERSION = 1
_SHOWN = 4
"""Windows that a dry run lists on its line; `--json` has them all."""


class ProgressLine:
    """One line on a terminal, rewritten in place; silent where standard error is none."""

    def __init__(self, total: int, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._on = self._stream is not None and self._stream.isatty()  # None: it was closed
        self._total, self._done = total, 0
        self._lock = threading.Lock()
        self._last = 0.0

    def __call__(self, name: str, share: float) -> None:
        """Show `name` and its share, at most ten times a second."""
        if not self._on or time.monotonic() - self._last < 0.1:
            return
        with self._lock:
            self._last = time.monotonic()
            count = f"{self._done}/{self._total}  " if self._total > 1 else ""
            text = f"{count}{name} {share:4.0%}"
            self._stream.write("\r" + text[: shutil.get_terminal_size().columns - 1] + "\x1b[K")
            self._stream.flush()

    def advance(self) -> None:
        """One photo more is finished."""
        self._done += 1

    def clear(self) -> None:
        """Take the line away, so that something else can be printed."""
        if self._on:
            with self._lock:
                self._stream.write("\r\x1b[K")
                self._stream.flush()


def work_through(
    items: Sequence[Item],
    work: Work,
    *,
    about: dict[str, Any],
    seed: int = 0,
    max_cost: float | None = None,
    fresh: bool = False,
    device: str = "auto",
    dry: bool = False,
    as_json: bool = False,
    to_stdout: bool = False,
) -> int:
    """Run `work` on all items, say what happened, and return the exit code.

    In a run that is taken up, photos that are done or held back are left as they are.

    Args:
        about: what the report says of the whole run (recipe, options).
        seed: the run's seed.
        max_cost: dollars it may spend.
        fresh: have everything done anew although the journal holds the answer.
        device: where networks run.
        dry: nothing is done, so no run is noted in the journal.
        as_json: print the report on standard output, and nothing else there.
        to_stdout: a picture goes to standard output, so nothing else may.
    """
    called = current()
    found, photos = numbered(items, called.resumed), len(items)
    if called.resumed:
        photos = len(called.resumed.about.get("photos", ()))
        _say_other(items, found, called.resumed.about.get("photos", ()))
    items, numbers = list(found.values()), list(found)
    finished = {one.number for one in called.resumed.items if one.state in ("done", "held")} if called.resumed else ()
    settled = {index for index, number in enumerate(numbers) if number in finished}
    line = ProgressLine(len(items))
    outcomes: list[Outcome] = []
    with Run(seed=seed, max_cost=max_cost, fresh=fresh, device=device, progress=line) as run:
        run.warm()
        if not dry:
            run.begin(
                {
                    **about,
                    "photos": [item.name for item in items],
                    "outputs": [None if item.output is None else str(item.output) for item in items],
                    "seed": seed,
                    "arguments": list(called.arguments),
                    "folder": os.getcwd(),
                    "sources": _states(items),
                },
                resumed=called.resumed.id if called.resumed else "",
            )
        if called.resumed:
            _say_changed(items, called.resumed.about.get("sources", {}), settled)
            # What it paid before counts.
            run.budget.spent = sum(run.journal.paid(run.id))
        try:
            for outcome in run_all(items, work, run, skip=settled, named=photos > 1):
                outcomes.append(outcome)
                if not dry:
                    _note(outcome, numbers[outcome.number], run)
                line.advance()
                line.clear()
                _say(outcome, len(items), quiet=as_json or to_stdout)
        except (KeyboardInterrupt, Cancelled):
            run.cancel()
            run.end("cancelled")
            line.clear()
            leave(items, paid=run.budget.spent > 0)
        failed = [outcome for outcome in outcomes if outcome.error is not None]
        _say_held([outcome.error for outcome in failed if isinstance(outcome.error, HeldBack)], called.arguments)
        if run.budget.spent and run.journal.trouble:
            click.echo(f"inpaint: the run could not be written down: {run.journal.trouble}", err=True)
        broken = any(not isinstance(outcome.error, HeldBack) for outcome in failed)
        useful = run.budget.spent or len(failed) < len(items)  # else it was a mistake that all photos share
        if broken and useful and called.arguments and not dry and len(items) > 1:
            click.echo("inpaint: `inpaint resume` goes on with what failed; nothing is paid twice", err=True)
        run.end("failed" if broken else "ended")
    line.clear()
    if len(items) > 1:
        held = sum(isinstance(outcome.error, HeldBack) for outcome in failed)
        message = f"{len(outcomes) - len(failed)} of {len(items) - len(settled)} photos {'planned' if dry else 'done'}"
        message += f", {len(failed) - held} failed" if len(failed) > held else ""
        message += f", {held} held back" if held else ""
        message += f"; {len(settled)} were before" if settled else ""
        if dry:
            bill = total([outcome.report for outcome in outcomes if outcome.error is None])
            message += f": {bill} in all" if bill.calls or bill.kept or bill.held or bill.refused else ""
        click.echo(message, err=as_json or to_stdout)
    if as_json:
        click.echo(json.dumps(_report(outcomes, about, seed), indent=2, default=str))
    if any(number not in found and number not in finished for number in range(photos)):
        return 3 if settled or len(failed) < len(outcomes) else 1  # what is gone was not done
    if not failed:
        return 0
    if len(items) > 1 and len(failed) < len(items):
        return 3
    first = failed[0].error
    assert first is not None
    return first.exit_code if len(items) == 1 else 1


def _states(items: Sequence[Item]) -> dict[str, list[int]]:
    """Size and time of change of each photo's file, by which a run that is taken up knows those that changed."""
    found = {}
    for item in items:
        with contextlib.suppress(OSError, ValueError):
            if isinstance(item.source, Path):
                state = item.source.stat()
                found[item.name] = [state.st_size, state.st_mtime_ns]
    return found


def _say_other(items: Sequence[Item], found: Mapping[int, Item], photos: Sequence[str]) -> None:
    """Say which photos are new since the run began, and which are gone."""
    known = {id(item) for item in found.values()}
    new = [item.name for item in items if id(item) not in known]
    gone = [name for number, name in enumerate(photos) if number not in found]
    for names, what in ((new, "not in the run, left as it is"), (gone, "was in the run and is gone")):
        for name in names[:_SHOWN]:
            click.echo(f"  warning: {name}: {what}", err=True)
        if len(names) > _SHOWN:
            click.echo(f"  warning: and {len(names) - _SHOWN} more", err=True)


def _say_changed(items: Sequence[Item], before: dict[str, list[int]], settled: AbstractSet[int]) -> None:
    now = _states([item for number, item in enumerate(items) if number not in settled])
    for name in now:
        if name in before and now[name] != before[name]:
            click.echo(f"  warning: {name} was changed since the run began; what it asks for is paid anew", err=True)


def _note(outcome: Outcome, number: int, run: Run) -> None:
    """Write down what became of a run's photo, by its number there, so that a run that is taken up knows it."""
    if outcome.error is None:
        run.journal.note(run.id, number, outcome.item.name, "done", {"outputs": _written(outcome.report)})
    elif not isinstance(outcome.error, Cancelled):
        state: Literal["held", "failed"] = "held" if isinstance(outcome.error, HeldBack) else "failed"
        detail = {"error": str(outcome.error)}
        if isinstance(outcome.error, HeldBack) and outcome.error.folder is not None:
            detail["table"] = str(outcome.error.folder / TABLE)
        run.journal.note(run.id, number, outcome.item.name, state, detail)


def _say_held(problems: Sequence[HeldBack], arguments: Sequence[str]) -> None:
    """Write the tables by which what was held back is released, and say how."""
    for folder in {problem.folder for problem in problems if problem.folder is not None}:
        table = write_table(folder, [problem for problem in problems if problem.folder == folder])
        click.echo(f"inpaint: {release(table, arguments)}", err=True)


def standard_input(photos: Sequence[str]) -> bytes | None:
    """Everything on standard input, where a photo is to come from there.

    Raises:
        InputError: when it is closed or cannot be read.
    """
    if STANDARD not in photos:
        return None
    if sys.stdin is None:
        raise InputError("standard input: is closed")
    try:
        return sys.stdin.buffer.read()
    except OSError as problem:
        raise InputError(f"standard input: cannot be read ({problem.strerror})") from None


def standard_output() -> BinaryIO:
    """Standard output, for a picture.

    Raises:
        OutputError: when it is closed.
    """
    if sys.stdout is None:
        raise OutputError("standard output: is closed")
    return sys.stdout.buffer


def megapixels(limit: float | None) -> int | None:
    """`--max-megapixels` in pixels.

    Raises:
        ParameterError: when it is no number.
    """
    if limit is None:
        return None
    if limit != limit:
        raise ParameterError("--max-megapixels: expected a number, got nan")
    return round(limit * 1e6)


def leave(items: Sequence[Item], paid: bool) -> NoReturn:
    """End at once after a cancellation: a thread inside a codec cannot be stopped, its temporary file is removed."""
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):  # once is enough, and this must come to its end
            signal.signal(number, signal.SIG_IGN)
    deadline = time.monotonic() + 0.4
    while time.monotonic() < deadline and any(thread.name.startswith("edit ") for thread in threading.enumerate()):
        time.sleep(0.02)
    folders = {Path(item.output).parent for item in items if item.output not in (None, STANDARD)}
    folders |= {item.source.parent for item in items if isinstance(item.source, Path)}
    folders |= {
        Path(item.output) for item in items if item.output not in (None, STANDARD) and Path(str(item.output)).is_dir()
    }
    click.echo("inpaint: cancelled; photos already written stay, nothing half-written is left", err=True)
    if paid:
        click.echo("inpaint: what was sent is written down; `inpaint resume` goes on with it", err=True)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, AttributeError):
            stream.flush()
    for folder in folders:
        for temporary in folder.glob(f".*.{os.getpid()}-*.tmp"):
            with contextlib.suppress(OSError):
                temporary.unlink()
    os._exit(130)


def _say(outcome: Outcome, total: int, *, quiet: bool) -> None:
    """One line for a photo, and a line for each warning and note."""
    name = outcome.item.name
    if outcome.error is not None:
        text = str(outcome.error)
        place = "" if total == 1 or name in text else f"{name}: "
        click.echo(f"inpaint: {place}{text}", err=True)
        if outcome.error.__cause__ is not None and os.environ.get("INPAINT_DEBUG"):
            import traceback

            traceback.print_exception(outcome.error.__cause__)
        return
    report = outcome.report
    click.echo(summary(name, report, outcome.seconds), err=quiet)
    for note in report.get("notes", ()):
        click.echo(f"  {note}", err=quiet)
    for warning in report.get("warnings", ()):
        click.echo(f"  warning: {warning}", err=True)


def summary(name: str, report: dict[str, Any], seconds: float) -> str:
    """One line on what was done with a photo."""
    steps = {step["stage"]: step for step in report.get("steps", ())}
    if report.get("dry_run"):
        return f"{name}: {_planned(report)}"
    if "regions" in report:
        return _regions(name, report, seconds)
    parts = []
    if "fill" in steps:
        fill = steps["fill"]
        windows = len(steps.get("crop", {}).get("figures", {}).get("windows", ()))
        parts.append(f"{fill['engine']}, {_count(windows, 'window')}")
    if steps.get("generate", {}).get("engine"):
        painted = steps["generate"]
        parts.append(f"{painted['engine']}, {_count(painted['figures']['calls'], 'call')}")
    if "select" in steps:
        select = steps["select"]["figures"]
        parts.append(f"mask {select['share']:.2%} of the photo")
        if steps["select"]["engine"]:
            parts.append(f"confidence {select['confidence']:.2f}")
    if "composite" in steps:
        seams = [one["seam"] or 0.0 for one in report["variations"]]
        parts.append("seam " + ", ".join(f"{seam:.2f}" for seam in seams) + " (1 = as untouched)")
    if "backdrop" in steps:
        backdrop = steps["backdrop"]
        parts.append(f"background {backdrop['figures'].get('background', backdrop['parameters']['background'])}")
    if "scale" in steps.get("canvas", {}).get("figures", {}):
        canvas = steps["canvas"]["figures"]
        parts.append(
            f"{canvas['size'][0]}x{canvas['size'][1]}, product {canvas['product_share']:.0%} at scale "
            f"{canvas['scale']:.4g}"
        )
    service = [call for step in steps.values() for call in step["figures"].get("service", ())]
    if price := report["price"]["total"] if service else 0:
        parts.append(f"${price:g}")
    elif service:
        parts.append("paid before")
    parts.append(f"{seconds:.1f} s")
    return f"{name} -> {', '.join(_written(report))}  ({', '.join(parts)})"


def _written(report: Mapping[str, Any]) -> list[str]:
    """Paths of everything that was written of a photo."""
    results = [output["path"] for output in report.get("outputs", ())]
    return results + [report[key] for key in ("preview", "sheet", "overlay") if key in report]


def _regions(name: str, report: dict[str, Any], seconds: float) -> str:
    """A line for each region that was found."""
    lines = [f"{name}: {_count(len(report['regions']), 'region')}  ({report['engine']}, {seconds:.1f} s)"]
    for one in report["regions"]:
        label = f"{one['label']}  " if one["label"] else ""
        lines.append(f"  {label}{one['score']:.2f}  {','.join(map(str, one['box']))}")
    lines += [f"  -> {report['overlay']}"] if "overlay" in report else []
    return "\n".join(lines)


def _planned(report: dict[str, Any]) -> str:
    """What a dry run found."""
    parts = [f"{task} by {' and '.join(names)}" for task, names in report["engines"].items()]
    if windows := report["windows"]:
        sizes = ", ".join(f"{w['size'][0]}x{w['size'][1]} at {','.join(map(str, w['box']))}" for w in windows[:_SHOWN])
        if len(windows) > _SHOWN:
            sizes += f" and {len(windows) - _SHOWN} more"
        parts += [f"{_count(len(windows), 'window')} ({sizes})", _count(report["calls"], "call")]
    if report["kept"]:
        parts.append(f"{_count(report['kept'], 'picture')} paid before and kept")
    price, expected = report["price"]["total"], report["seconds_expected"]
    parts.append(f"${price:g}" if price else "free")
    if report["calls"]:
        parts.append("time unknown" if expected is None else f"about {expected:g} s")
    canvas = report["canvas"]
    scale = f" at scale {canvas['scale']:.4g}" if canvas["scale"] != 1 else ""
    if report["held"]:
        leaves = "its mask would be held back, so nothing leaves this machine"
    elif report["leaves_for"]:
        leaves = f"these windows, their masks and the prompt go to {' and '.join(report['leaves_for'])}"
    else:
        leaves = "nothing leaves this machine"
    return (
        f"{', '.join(parts)}; {leaves}; would read {', '.join(report['would_read'])}, make "
        f"{canvas['size'][0]}x{canvas['size'][1]}{scale} and write {', '.join(report['would_write'])}"
    )


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'s' * (number != 1)}"


def _report(outcomes: Sequence[Outcome], about: dict[str, Any], seed: int) -> dict[str, Any]:
    from importlib.metadata import PackageNotFoundError, version

    try:
        release = version("inpaint-toolkit")
    except PackageNotFoundError:  # run from a checkout
        release = "unreleased"
    ordered = sorted(outcomes, key=lambda outcome: outcome.number)
    return {
        "version": REPORT_VERSION,
        "toolkit": release,
        **about,
        "seed": seed,
        "items": [
            {"name": one.item.name, "seconds": round(one.seconds, 3)}
            | ({"ok": True, **one.report} if one.error is None else {"ok": False, "error": str(one.error)})
            for one in ordered
        ],
        "done": sum(one.error is None for one in ordered),
        "failed": sum(one.error is not None for one in ordered),
    }
