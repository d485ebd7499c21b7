"""Store the key of a service, list where keys come from, or forget one."""

from __future__ import annotations

import sys

import click

from toolkit.errors import EngineError, InputError, UsageError
from toolkit.settings import KEYS, key_for, key_place, store_key, stored_keys


@click.group("keys")
def command() -> None:
    """Keys of services: kept in a file only you can read; an environment variable goes before it."""


@command.command("set")
@click.argument("service")
@click.argument("rest", nargs=-1, metavar="")
def _set(service: str, rest: tuple[str, ...]) -> int:
    """Ask for the key of SERVICE and store it; piped, it is the first line of standard input."""
    _check(service)
    if rest:
        raise UsageError("a key is no argument: it would stand in the shell's history; type it when asked, or pipe it")
    path = store_key(service, _asked(service))
    click.echo(f"{service}: stored in {path}", err=True)
    if not key_place(service).startswith(str(path)):
        click.echo(f"  warning: the {key_place(service)} goes before it", err=True)
    return 0


@command.command("list")
def _list() -> int:
    """Say where each service's key comes from, and how it ends."""
    for service, variable in sorted(KEYS.items()):
        try:
            place, key = key_place(service), key_for(service)
        except EngineError as problem:
            click.echo(f"{service:10} cannot be used: {problem}")
            continue
        if key is None:
            click.echo(f"{service:10} none: run `inpaint keys set {service}`, or set {variable}")
            continue
        secret = key.get_secret_value()
        shown = secret[len(secret) - min(4, len(secret) // 4) :]  # of a short key, less
        click.echo(f"{service:10} ...{shown} from {place}")
    return 0


@command.command("forget")
@click.argument("service")
def _forget(service: str) -> int:
    """Take the stored key of SERVICE away."""
    _check(service)
    if service in stored_keys():
        click.echo(f"{service}: its key was taken out of {store_key(service, '')}", err=True)
    else:
        click.echo(f"{service}: no key was stored", err=True)
    if place := key_place(service):
        click.echo(f"  warning: the {place} still holds one, which is used", err=True)
    return 0


def _check(service: str) -> None:
    # It is not quoted back: someone may have typed the key here.
    if service not in KEYS:
        raise UsageError(f"no service of this name; known: {', '.join(sorted(KEYS))}")


def _asked(service: str) -> str:
    if sys.stdin is None:
        raise InputError("standard input: is closed")
    if sys.stdin.isatty():
        return str(click.prompt(f"Key for {service}", hide_input=True, err=True))
    try:
        key = sys.stdin.readline().strip()
    except (OSError, UnicodeDecodeError):
        raise InputError("standard input: cannot be read as text") from None
    if not key:
        raise InputError("standard input: no key came; type it when asked, or pipe it in")
    return key
