"""LoRAs as files of this machine: the user's own where they lie, those of the hub and the web in the cache.

`<cache>/loras/hub/<owner>/<name>/...` is laid out as the repository is, and `<cache>/loras/<host>-<hash>/` holds what
an address leads to. Each file has a record of what it is; one that is there is used again and nobody is asked. To have
it anew, delete it. Only .safetensors files are taken: others can hold code that runs when they are opened.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from pydantic import SecretStr, ValidationError

from toolkit import fetching, library, lora
from toolkit.errors import EngineError, InputError, OutputError
from toolkit.fetching import Progress, Say, Want, spoken
from toolkit.redirects import HUB, Token, host_of
from toolkit.safekeeping import Record, held, name_proven, now, part_path, proven, sha256_of, silent
from toolkit.schema import Model
from toolkit.settings import KEYS, is_loopback, key_for

SUFFIX = ".safetensors"
USUAL = "pytorch_lora_weights.safetensors"
"""What diffusers calls a LoRA that it saves, and looks for in a repository."""

_PICKLES = (".bin", ".ckpt", ".pkl", ".pt", ".pth")
_LISTED = 10

_hashes: dict[Path, tuple[int, int, str]] = {}
_hashing = threading.Lock()


class _Choice(Model):
    """Which file of a repository was taken when only the repository was named."""

    file: str
    revision: str


def located(path: str, *, say: Say, progress: Progress, token: SecretStr | None = None) -> Path:
    """The .safetensors file of a LoRA, which is fetched where it is not here yet. Safe with several at once.

    Args:
        path: as the user wrote it: a file, a folder with one in it, an address, `owner/name` or
            `owner/name/folder/file.safetensors` on the hub.
        say: told what is fetched, and what goes otherwise than expected, a sentence each.
        progress: told how far it is.
        token: for the hub; by default `HF_TOKEN`, or what `inpaint keys set huggingface` stored.

    Raises:
        InputError: when it is not there, or not a LoRA that is taken.
        EngineError: when it cannot be fetched.
        OutputError: when it cannot be written.
    """
    if (here := local(path)) is not None:
        return here
    work = _Work(path, say, progress, token)
    try:
        if "://" in path:
            url, file = _address(path)
            key = hashlib.sha256(url.encode()).hexdigest()[:12]
            host = _plain(urlsplit(url).netloc.rpartition("@")[2])
            return work.brought(url, "", _folder() / f"{host}-{key}" / file)
        owner, name, *rest = path.split("/")
        place = _folder() / "hub" / owner / name
        if rest:
            return work.of_hub(f"{owner}/{name}", "main", "/".join(rest), place)
        return work.chosen(f"{owner}/{name}", place)
    except OSError as problem:
        raise OutputError(f"{_folder()}: cannot be written: {problem.strerror or problem}") from None


def local(path: str) -> Path | None:
    """The file of a LoRA on this machine; None for one that has to be fetched. Nobody is asked.

    Raises:
        InputError: when there is no such file and it is nothing that could be fetched, or is not taken.
    """
    if "://" in path:
        _address(path)
        return None
    try:
        place = Path(path).expanduser()
    except RuntimeError:  # ~name of a user there is not
        place = Path(path)
    if os.path.isdir(place):
        return _only_one(path, place)
    if place.suffix.lower() in _PICKLES:
        raise InputError(
            f"lora {path}: is a pickle, which can run code when it is opened; only {SUFFIX} files are taken"
        )
    if os.path.isfile(place):
        if place.suffix.lower() != SUFFIX:
            raise InputError(f"lora {path}: only {SUFFIX} files are taken, got one called {place.name}")
        return place
    inside = path.count("/") > 1  # of a repository; where there is such a folder here, that is meant
    if lora.is_remote(path, files=True) and not (os.path.isdir(place.parent) if inside else path.endswith(SUFFIX)):
        return None
    before, _, scale = path.rpartition(":")
    if os.path.exists(Path(before or path)) or lora.is_remote(before, files=True):
        raise InputError(f"lora {path}: no such file; what stands after : is to be a number, the scale, got {scale!r}")
    raise InputError(f"lora {path}: {'is no file' if os.path.exists(place) else 'no such file'}")


def content_hash(path: Path) -> str:
    """The sha256 of a file, in hexadecimal; it is read once for as long as its length and date stay.

    Raises:
        InputError: when it cannot be read.
    """
    try:
        with _hashing:
            about = path.stat()
            known = _hashes.get(path)
            if known is None or known[:2] != (about.st_size, about.st_mtime_ns):
                known = about.st_size, about.st_mtime_ns, sha256_of(path, path.name, silent)
                _hashes[path] = known
            return known[2]
    except OSError as problem:
        raise InputError(f"lora {path}: cannot be read: {problem.strerror or problem}") from None


class _Work:
    """The fetching of one LoRA."""

    def __init__(self, path: str, say: Say, progress: Progress, token: SecretStr | None) -> None:
        self._path, self._say = _without_secrets(path) if "://" in path else path, say
        self._progress, self._token = progress, token

    def chosen(self, repository: str, place: Path) -> Path:
        """The file that stands for a whole repository."""
        if (known := _choice(place)) and _whole(place / known.file):
            return place / known.file
        place.mkdir(parents=True, exist_ok=True)
        with self._held(place / "choice"):
            known = _choice(place)
            if not (known and _whole(place / known.file)):
                known = self._listed(repository, place)
                self.of_hub(repository, known.revision, known.file, place)
                temporary = place / "choice.tmp"
                temporary.write_text(known.model_dump_json(), encoding="utf-8")
                os.replace(temporary, place / "choice.json")
            return place / known.file

    def of_hub(self, repository: str, revision: str, file: str, place: Path) -> Path:
        return self.brought(f"{HUB}/{repository}/resolve/{revision}/{quote(file)}", revision, place / file)

    def brought(self, url: str, revision: str, target: Path) -> Path:
        """The file at an address, with its record."""
        if _whole(target):
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        with self._held(target):
            if _whole(target):  # another fetched it
                return target
            before = Record.of(target)
            want = self._want(url, part_path(target))
            got, wanted = proven(want, f"lora {target.name}", self._telling(url, target.name), self._say)
            if wanted:
                raise EngineError(f"lora {self._path}: its sha256 is {got}, the server says {wanted}; nothing was kept")
            record = Record(
                url=_without_secrets(url), revision=revision, sha256=got, bytes=want.part.stat().st_size,
                published=False, origin="download", when=now(),
            )  # fmt: skip
            name_proven(want.part, target, record)
            fetching.discard(want.part)
            if before and before.sha256 != got:
                self._say(f"lora {self._path}: is another file now than when it was first fetched")
            return target

    def _held(self, target: Path) -> AbstractContextManager[None]:
        name = f"lora {self._path}"
        return held(target, name, self._say, lambda: self._progress(name, 0, None))

    def _want(self, url: str, part: Path) -> Want:
        token, refused = None, ""
        if url.startswith(f"{HUB}/"):
            secret = self._token or key_for("huggingface")
            token = Token(secret, HUB) if secret else None
            refused = "there is no such repository, or it is gated or private: accept its terms there, and "
            refused += (
                "see that the token is of that account"
                if token
                else f"give a token with `inpaint keys set huggingface` or {KEYS['huggingface']}"
            )
        return Want(
            f"lora {self._path}", url, part, token=token, refused=refused, remedy="name a file of your own in its place"
        )

    def _telling(self, url: str, file: str) -> Progress:
        """Progress that says at its first step what is fetched."""
        said = False

        def step(name: str, done: int, whole: int | None) -> None:
            nonlocal said
            if not said:
                said = True
                length = "its size is not told" if whole is None else spoken(whole)
                self._say(f"lora {self._path}: fetching {file} ({length}) from {host_of(url)}")
            self._progress(name, done, whole)

        return step

    def _listed(self, repository: str, place: Path) -> _Choice:
        """Ask the hub which files a repository has, and take the LoRA among them."""
        part = part_path(place / "listing")
        fetching.discard(part)
        fetching.fetch(self._want(f"{HUB}/api/models/{repository}", part), silent, self._say)
        try:
            answer: Any = json.loads(part.read_bytes())
            names = [str(one["rfilename"]) for one in answer["siblings"]]
            revision = str(answer.get("sha", ""))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise EngineError(f"lora {self._path}: {host_of(HUB)} sent no list of its files") from None
        finally:
            fetching.discard(part)
        found = sorted(name for name in names if lora.is_remote(f"{repository}/{name}", files=True))
        if USUAL in found:
            found = [USUAL]
        if not found:
            pickles = [name for name in names if name.lower().endswith(_PICKLES)]
            but = f", only {pickles[0]}, a pickle, which is never opened" if pickles else ""
            raise InputError(f"lora {self._path}: has no {SUFFIX} file{but}")
        if len(found) > 1:
            raise InputError(
                f"lora {self._path}: has {len(found)} {SUFFIX} files ({_several(found)}); "
                f"name one, as in {repository}/{found[0]}"
            )
        return _Choice(file=found[0], revision=revision if re.fullmatch("[0-9a-f]{40}", revision) else "main")


def _folder() -> Path:
    return library.cache_folder() / "loras"


def _choice(place: Path) -> _Choice | None:
    try:
        return _Choice.model_validate_json((place / "choice.json").read_bytes())
    except (OSError, ValidationError):
        return None


def _whole(target: Path) -> bool:
    """Whether a file is here, as long as when it was fetched."""
    record = Record.of(target)
    try:
        return record is not None and target.is_file() and target.stat().st_size == record.bytes
    except OSError:
        return False


def _only_one(path: str, folder: Path) -> Path:
    """The one .safetensors file in a folder.

    Raises:
        InputError: when there is none, or several.
    """
    try:
        found = sorted(one for one in folder.iterdir() if one.suffix.lower() == SUFFIX and one.is_file())
    except OSError as problem:
        raise InputError(f"lora {path}: cannot be read: {problem.strerror or problem}") from None
    if not found:
        raise InputError(f"lora {path}: is a folder without a {SUFFIX} file in it")
    if len(found) > 1:
        raise InputError(
            f"lora {path}: is a folder with {len(found)} {SUFFIX} files ({_several([one.name for one in found])}); "
            "name one of them"
        )
    return found[0]


def _address(path: str) -> tuple[str, str]:
    """An address as it is asked for, and how the file at its end is to be called here.

    Raises:
        InputError: when it is none of a .safetensors file, or not encrypted.
    """
    url = path.partition("#")[0]
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        host = None
    if not host or not lora.is_remote(url):
        raise InputError(f"lora {_without_secrets(path)}: is no web address of a file")
    if parts.scheme != "https" and not is_loopback(url):
        raise InputError(f"lora {_without_secrets(path)}: is not encrypted; use https")
    file = unquote(parts.path.rpartition("/")[2])
    if not file.lower().endswith(SUFFIX):
        raise InputError(
            f"lora {_without_secrets(path)}: only addresses of {SUFFIX} files are taken; "
            "fetch it yourself and name the file"
        )
    if url.startswith(f"{HUB}/"):  # the address of the page about a file, as browsers show it
        url = re.sub(r"^(.*?://[^/]+/[^/]+/[^/]+)/blob/", r"\1/resolve/", url)
    return url, (_plain(file[: -len(SUFFIX)]) or "lora") + SUFFIX


def _without_secrets(url: str) -> str:
    """An address without what may be secret in it: a password, a query."""
    return re.sub(r"^(\w+://)[^/@]*@", r"\1", url.partition("?")[0])


def _plain(name: str) -> str:
    """A name that can be a file's everywhere."""
    return re.sub(r'[<>:"/\\|?*\x00-\x1f]', "_", name)[:100].strip(". ")


def _several(names: list[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"{', '.join(names[:_LISTED])}{more}"
