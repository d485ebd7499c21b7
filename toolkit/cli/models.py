"""List the engines there are and whether they run here, show one card, or bring weights here."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from toolkit import cards, engines, weights
from toolkit.cards import Card, Weights
from toolkit.errors import Cancelled, ToolkitError, UnknownNameError, UsageError
from toolkit.fetching import spoken
from toolkit.schema import write_yaml

_JSON = click.option("as_json", "--json", is_flag=True, help="print the answer as JSON")


@click.group("models", invoke_without_command=True)
@click.option("as_json", "--json", is_flag=True, help="print the cards as JSON")
@click.pass_context
def command(context: click.Context, as_json: bool) -> int:
    """List the engines there are; of networks also whether their weights are here, and on what terms."""
    if context.invoked_subcommand is None:
        every = cards.every()
        if as_json:
            click.echo(json.dumps([_plain(card) for card in every], indent=2, default=str))
        else:
            for card in every:
                click.echo(_listed(card))
    return 0


@command.command("show")
@click.argument("name", required=False)
@_JSON
def _show(name: str | None, as_json: bool) -> int:
    """Print the card called NAME, or TASK/NAME."""
    if name is None:
        raise UsageError("name a model: inpaint models show NAME")
    found = _named(name)
    if as_json or _asked_above():
        click.echo(json.dumps([_plain(card) for card in found], indent=2, default=str))
        return 0
    for card in found:
        fields = card.model_dump(mode="json", exclude_defaults=True)
        files = {name: fields.pop(name) for name in ("weights",) if name in fields}  # last, as the longest
        click.echo(write_yaml(fields | files), nl=False)
        click.echo(f"here: {_state(card)}")
    return 0


@command.command("pull")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option(
    "source", "--from", type=click.Path(path_type=Path), metavar="FILE|FOLDER",
    help="take the weights from there, for machines without network",
)  # fmt: skip
@_JSON
def _pull(names: tuple[str, ...], source: Path | None, as_json: bool) -> int:
    """Bring the weights of models here.

    A download that broke off is gone on with, and a file is there only when its hash is proven.
    """
    found = [card for name in names for card in _with_base(name)]
    if source is not None and len(found) > 1:
        listed = " and ".join(f"{card.task}/{card.name}" for card in found)
        raise UsageError(f"--from: goes with one model, got {listed}")
    return _each(found, lambda card: _brought(card, source), as_json or _asked_above())


@command.command("verify")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@_JSON
def _verify(names: tuple[str, ...], as_json: bool) -> int:
    """Hold weights that are here to their hashes."""
    found = [card for name in names for card in _with_base(name)]

    def verified(card: Card) -> tuple[weights.Pulled, ...]:
        with _Meter() as meter:
            return weights.verify(card, progress=meter)

    return _each(found, verified, as_json or _asked_above())


def _asked_above() -> bool:
    """Whether `--json` stands before the verb, `inpaint models --json show NAME`."""
    above = click.get_current_context().parent
    return bool(above and above.params.get("as_json"))


def _named(name: str) -> list[Card]:
    every = cards.every()
    found = [card for card in every if name in (card.name, f"{card.task}/{card.name}")]
    if not found:
        raise UnknownNameError("", "model", name, {card.name for card in every})
    return found


def _with_base(name: str) -> list[Card]:
    """The cards called `name`; in place of one that has no weights of its own and uses another's, that other."""
    found = []
    for card in _named(name):
        if base := card.settings.get("base"):
            click.echo(f"{card.name}: uses the weights of {base}", err=True)
            found += [*_named(f"{card.task}/{base}"), *([card] if card.weights else [])]
        else:
            found.append(card)
    return found


def _each(found: Sequence[Card], work: Callable[[Card], tuple[weights.Pulled, ...]], as_json: bool) -> int:
    """Do one model after the other and say how each ended; one that fails stops no other."""
    reports: list[dict[str, Any]] = []
    for card in found:
        about = {"name": card.name, "task": card.task, "licence": card.licence, "terms": card.terms}
        try:
            files = work(card)
        except ToolkitError as problem:
            if isinstance(problem, Cancelled) or (len(found) == 1 and not as_json):
                raise
            reports.append({**about, "ok": False, "error": str(problem)})
            click.echo(f"inpaint: {problem}", err=True)
            continue
        listed = [{**dataclasses.asdict(one), "path": str(one.path)} for one in files]
        reports.append({**about, "ok": True, "files": listed})
        if not as_json:
            click.echo(_ended(card, files))
    failed = sum(not report["ok"] for report in reports)
    if as_json:
        report = {"version": 1, "models": reports, "done": len(reports) - failed, "failed": failed}
        click.echo(json.dumps(report, indent=2))
    return 0 if not failed else 1 if failed == len(reports) else 3


def _brought(card: Card, source: Path | None) -> tuple[weights.Pulled, ...]:
    """Say where weights come from and on what terms, and pull them."""
    if not card.weights:
        return ()
    length = weights.size(card)
    click.echo(
        f"{card.name}: {card.about}\n"
        f"  licence: {card.licence}{f', terms at {card.terms}' if card.terms else ''}\n"
        f"  {_allowed(card)}\n"
        f"  size: {spoken(length) if length else 'not known'}",
        err=True,
    )
    if (given := weights.single_file(card)) is not None:
        click.echo(
            f"  {card.settings['single_file']} is {given}, as the settings say; its hash is not checked", err=True
        )
    for line in _origins(weights.needed(card), source):
        click.echo(f"  {line}", err=True)
    try:
        with _Meter() as meter:
            return weights.pull(card, source=source, progress=meter, say=meter.say)
    except KeyboardInterrupt:
        kept = weights.kept(card)
        how = f"{spoken(kept)} are kept, and the same command goes on from there" if kept else "nothing was kept"
        raise Cancelled(f"{card.name}: cancelled; {how}") from None


def _origins(files: Sequence[Weights], source: Path | None) -> Iterator[str]:
    """Where files come from and whose word their hashes are held to: a line a file, or a few for many."""
    places: dict[str, dict[str, list[str]]] = {}
    for one in files:
        by = f"published by {one.source}" if one.source else "on the card"
        said = f"{by}, checked" if one.sha256 else "not published here, that of the first download is held to"
        place = f"{one.url.removesuffix(one.file)}{f' (revision {one.revision})' if one.revision else ''}"
        places.setdefault(str(source or place), {}).setdefault(said, []).append(one.file)
    if len(files) == 1:
        (one,) = files
        ((place, hashes),) = places.items()
        place = str(source or place.replace(one.url.removesuffix(one.file), one.url, 1))
        yield f"{one.file} from {place}; hash {next(iter(hashes))}"
        return
    for place, hashes in places.items():
        yield f"{sum(map(len, hashes.values()))} files from {place}"
        for said, names in hashes.items():
            yield f"  {f'{len(names)} of them' if len(names) > 1 else names[0]}: hash {said}"


def _allowed(card: Card) -> str:
    """What its terms allow, as is said before anything is fetched."""
    if not card.commercial_use:
        return f"not for commercial use, by these terms; what it makes: {card.output_terms}"
    return f"commercial use: yes; terms of what it makes: {card.output_terms}"


def _ended(card: Card, files: Sequence[weights.Pulled]) -> str:
    if not files:
        return f"{card.name}: needs no weights"
    length = spoken(sum(one.bytes for one in files))
    how = "here now" if any(one.fetched for one in files) else "here already"
    lines = [f"{card.name}: {how} and proven, {length} in {weights.folder(card)}"]
    for one in files:
        lines.append(f"  {one.file} sha256 {one.sha256}{'' if one.published else ' (not published; as first pulled)'}")
    if reason := engines.missing(card, "auto"):
        lines.append(f"  cannot run yet: {reason}")
    return "\n".join(lines)


def _listed(card: Card) -> str:
    """A card in the list."""
    price = "free" if card.free else f"${card.price.per_image:g} an image"
    lines = [f"{card.task:8} {card.name:14} {price}, {_state(card)}", f"{'':23} {card.about}"]
    if card.weights:
        lacking = bool(weights.missing(card))
        needed = weights.needed(card)
        here = sum(path.stat().st_size for one in needed if (path := weights.path(card, one.file)).is_file())
        length = weights.size(card) if lacking else here
        said = [
            f"weights {'not here' if lacking else 'here'}, {spoken(length) if length else 'of unknown size'}",
            card.licence,
        ]
        if not card.commercial_use:
            said.append("not for commercial use")
        if card.gated:
            said.append(f"gated: terms to be accepted at {card.terms}" if card.terms else "gated")
        lines.append(f"{'':23} {'; '.join(said)}")
    if card.not_run:
        lines.append(f"{'':23} not yet run with its real weights" if card.weights else f"{'':23} {card.not_run}")
    return "\n".join(lines)


def _state(card: Card) -> str:
    reason = engines.missing(card, "auto")
    if reason:
        return f"cannot run: {reason}"
    return "ready" if card.rank is not None else "ready, never taken by auto"


def _plain(card: Card) -> dict[str, Any]:
    return {
        **card.model_dump(mode="json"),
        "missing": engines.missing(card, "auto"),
        "weights_here": not weights.missing(card) if card.weights else None,
    }


class _Meter:
    """How far a download is: one line on a terminal, rewritten in place, otherwise a line for each tenth."""

    def __init__(self) -> None:
        self._terminal = sys.stderr is not None and sys.stderr.isatty()
        self._last, self._begun, self._from = 0.0, time.monotonic(), -1
        self._name, self._tenth = "", 0

    def __enter__(self) -> _Meter:
        return self

    def __exit__(self, *_: object) -> None:
        self._clear()

    def __call__(self, name: str, done: int, whole: int | None) -> None:
        """Show it, at most five times a second."""
        now = time.monotonic()
        if name != self._name or done < self._from:
            self._name, self._begun, self._from = name, now, done
            self._tenth, self._last = 10 * done // whole if whole else 0, now
        pace = (done - self._from) / (now - self._begun) if now - self._begun > 0.5 else 0
        of = f" of {spoken(whole)}, {done / whole:.0%}" if whole else ""
        text = f"{name}: {spoken(done)}{of}{f', {spoken(int(pace))}/s' if pace else ''}"
        if self._terminal:
            if now - self._last > 0.2:
                self._last = now
                click.echo("\r" + text[: shutil.get_terminal_size().columns - 1] + "\x1b[K", err=True, nl=False)
            return
        tenth = 10 * done // whole if whole else done >> 26
        if tenth > self._tenth and now - self._last > 1.0:
            self._tenth, self._last = tenth, now
            click.echo(f"  {text}", err=True)

    def say(self, sentence: str) -> None:
        """A sentence on a line of its own."""
        self._clear()
        click.echo(f"  {sentence}", err=True)

    def _clear(self) -> None:
        if self._terminal:
            click.echo("\r\x1b[K", err=True, nl=False)
