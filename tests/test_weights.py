"""Weights that are pulled: proven, resumed, from a file, and held to what they were."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import weight_server as ws
from weight_cards import CONTENT, OTHER, SHA256, a_card, part, proven, published, refused, unpublished
from weight_server import Server

from toolkit import fetching, weights
from toolkit.errors import EngineError, InputError, OutputError

pytestmark = pytest.mark.usefixtures("home")


# --- a download that goes well


@pytest.mark.parametrize("entry", [published, unpublished])
@pytest.mark.parametrize("act", [ws.honest, ws.chunked, ws.ignores_range])
def test_a_file_is_pulled_and_left_alone_afterwards(server: Server, entry: Callable[..., Any], act: ws.Act) -> None:
    server.script.append(act)
    card = a_card(entry(server))
    assert weights.missing(card).startswith("its weights are not here: inpaint models pull net")
    seen: list[tuple[str, int, int | None]] = []
    (pulled,) = weights.pull(card, progress=lambda *now: seen.append(now))
    assert (pulled.fetched, pulled.sha256, pulled.published) == (True, SHA256, entry is published)
    proven(card)
    fetched = [done for name, done, _ in seen if name == "net: net.pth"]
    assert fetched == sorted(fetched)
    assert fetched[-1] == len(CONTENT)
    before = weights.path(card).stat().st_mtime_ns
    (again,) = weights.pull(card)
    assert (again.fetched, again.sha256) == (False, SHA256)
    assert (weights.path(card).stat().st_mtime_ns, len(server.asked)) == (before, 1)
    assert weights.verify(card) == (again,)


def test_the_server_is_asked_for_the_file_itself(server: Server) -> None:
    weights.pull(a_card(published(server)))
    (asked,) = server.asked
    assert asked.headers["accept-encoding"] == "identity"
    assert not {"authorization", "range", "cookie"} & set(asked.headers)


def test_several_files_each_proven_and_none_fetched_twice(server: Server) -> None:
    names = ["config.json", "model.safetensors", "tokenizer.json"]
    entries = [published(server, file=name, url=server.url(f"/{name}")) for name in names]
    card = a_card(*entries)
    server.script.extend([ws.honest, ws.sends(OTHER)])
    with pytest.raises(EngineError, match=r"model\.safetensors|its sha256 is"):
        weights.pull(card)
    assert [weights.path(card, name).exists() for name in names] == [True, False, False]
    assert weights.missing(card).startswith("its weights are not here")
    assert [one.fetched for one in weights.pull(card)] == [False, True, True]
    assert [asked.path for asked in server.asked] == [f"/{names[i]}" for i in (0, 1, 1, 2)]
    assert weights.missing(card) == ""


# --- resuming


@pytest.mark.parametrize("act", [ws.breaks_off, ws.resets])
@pytest.mark.parametrize("dated", [False, True])
def test_what_broke_off_is_gone_on_with(server: Server, act: Callable[[int], ws.Act], dated: bool) -> None:
    if dated:
        server.etag, server.modified = "", "Wed, 01 Jan 2025 00:00:00 GMT"
    card = a_card(published(server))
    server.script.extend([act(100_000), act(50_000)])
    said = refused(card)
    assert "broke off" in said
    assert f"{weights.kept(card)} bytes are kept" in said
    assert 0 < weights.kept(card) <= 150_000
    begun = weights.kept(card)
    weights.pull(card)
    proven(card)
    assert server.asked[-1].headers["range"] == f"bytes={begun}-"
    assert server.asked[-1].headers["if-range"] == (server.modified if dated else '"one"')


def test_a_short_break_is_bridged_and_said(server: Server) -> None:
    card, said = a_card(published(server)), list[str]()
    server.script.append(ws.breaks_off(1000))
    weights.pull(card, say=said.append)
    proven(card)
    (sentence,) = said
    assert sentence.startswith("net: net.pth: the connection to 127.0.0.1 broke off")
    assert sentence.endswith("trying again in 0 s (1 of 1)")


def test_tries_that_bring_something_new_do_not_count(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "_ENOUGH", 1000)
    server.script.extend([ws.breaks_off(20_000)] * 10)
    card = a_card(published(server))
    weights.pull(card)
    proven(card)
    assert server.sent == len(CONTENT)


def test_without_a_way_to_tell_that_it_is_the_same_file_it_begins_anew(server: Server) -> None:
    server.etag = 'W/"weak"'
    server.script.append(ws.breaks_off(1000))
    card = a_card(published(server))
    weights.pull(card)
    proven(card)
    assert all("range" not in asked.headers for asked in server.asked)


@pytest.mark.parametrize(
    "after",
    [
        [ws.ignores_range],
        [ws.says(416, Content_Range=f"bytes */{len(CONTENT) - 1}")],
        [ws.says(416)],
        [ws.another_piece],
        [ws.sends(OTHER[100_000:], 206, Content_Range=f"bytes 100000-{len(CONTENT) - 1}/{len(CONTENT)}", ETag='"x"')],
        [ws.sends(CONTENT[100_000:], 206, ETag='"one"')],
    ],
    ids=["ignores-range", "416-of-another-length", "416", "another-piece", "another-etag", "no-content-range"],
)
def test_a_server_that_does_not_go_on_begins_anew(server: Server, after: list[ws.Act]) -> None:
    server.script.extend([ws.breaks_off(100_000), *after])
    card = a_card(published(server))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fetching, "TRIES", 4)
        weights.pull(card)
    proven(card)


def test_a_changed_file_begins_anew(server: Server) -> None:
    card = a_card(unpublished(server))
    server.script.extend([ws.breaks_off(100_000)] * 2)
    refused(card)
    server.content, server.etag = OTHER, '"two"'
    weights.pull(card)
    proven(card, OTHER)


def test_pieces_that_do_not_belong_together_are_fetched_anew(server: Server) -> None:
    card, said = a_card(published(server)), list[str]()
    server.content = OTHER
    server.script.extend([ws.breaks_off(100_000)] * 2)
    refused(card)
    server.content = CONTENT  # and the same ETag: the server lies
    weights.pull(card, say=said.append)
    proven(card)
    assert "pieces that do not belong together" in said[0]


def test_a_part_that_is_whole_needs_no_server(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    card = a_card(published(server))
    with monkeypatch.context() as patch:
        patch.setattr(weights, "_installed", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            weights.pull(card)
    weights.pull(card)
    proven(card)
    assert len(server.asked) == 1


def test_a_whole_part_of_unknown_length_is_told_by_416(server: Server) -> None:
    card = a_card(unpublished(server))
    server.script.append(ws.broken_chunks)
    weights.pull(card)
    proven(card)
    assert server.asked[1].headers["range"] == f"bytes={len(CONTENT)}-"


def test_notes_that_are_none_are_begun_anew(server: Server) -> None:
    card = a_card(published(server))
    server.script.extend([ws.breaks_off(100_000)] * 2)
    refused(card)
    fetching.note_path(part(card)).write_text("{")
    weights.pull(card)
    proven(card)
    assert "range" not in server.asked[-1].headers


# --- hashes nobody publishes


def test_the_first_download_is_held_to(server: Server) -> None:
    card = a_card(unpublished(server, revision="abc"))
    weights.pull(card)
    proven(card)
    noted = weights.record(card)
    assert noted
    assert (noted.url, noted.revision, noted.published, noted.origin) == (server.url(), "abc", False, "download")
    weights.path(card).unlink()
    server.content, server.etag = OTHER, '"two"'
    said = refused(card)
    assert f"at the first download it was {SHA256}; to trust the new one, delete " in said
    Path("other.pth").write_bytes(OTHER)
    assert SHA256 in refused(card, InputError, source=Path("other.pth"))
    server.content = CONTENT
    weights.pull(card)
    proven(card)
    weights.path(card).unlink()
    (weights.folder(card) / "net.pth.pulled.json").unlink()
    weights.pull(card, source=Path("other.pth"))
    proven(card, OTHER)


def test_another_revision_is_another_first_download(server: Server) -> None:
    weights.pull(a_card(unpublished(server, revision="abc")))
    server.content = OTHER
    card = a_card(unpublished(server, revision="def"))
    assert "is not the file the card names now: inpaint models pull net" in weights.missing(card)
    said: list[str] = []
    weights.pull(card, say=said.append)
    proven(card, OTHER)
    assert "was never pulled" in said[0] or "another revision" in said[0]


def test_the_hash_the_hub_states_is_held_to(server: Server) -> None:
    stated = {"X_Linked_ETag": f'"{SHA256}"'}
    with Server(OTHER) as place:
        server.script.append(ws.leads_to(place.url(), **stated))
        card = a_card(unpublished(server))
        assert f"the server says {SHA256}" in refused(card)
        place.content = CONTENT
        server.script.append(ws.leads_to(place.url(), **stated))
        weights.pull(card)
        proven(card)


def test_another_file_is_told_before_it_is_fetched(server: Server) -> None:
    server.extra = {"X-Linked-ETag": f'"{hashlib.sha256(OTHER).hexdigest()}"'}
    said = refused(a_card(published(server)))
    assert f"by its own word with sha256 {hashlib.sha256(OTHER).hexdigest()}, expected {SHA256}" in said
    assert server.sent <= len(CONTENT)
    server.extra = {"X-Linked-ETag": '"0123456789abcdef0123456789abcdef01234567"'}  # of a small file it is no sha256
    weights.pull(a_card(published(server)))


# --- from a file


@pytest.mark.parametrize("entry", [published, unpublished])
@pytest.mark.parametrize("as_folder", [False, True])
def test_a_file_from_elsewhere_needs_no_network(server: Server, entry: Callable[..., Any], as_folder: bool) -> None:
    card = a_card(entry(server))
    source = Path("stick") / "net.pth"
    source.parent.mkdir()
    source.write_bytes(CONTENT)
    (pulled,) = weights.pull(card, source=source.parent if as_folder else source)
    proven(card)
    assert (pulled.fetched, server.asked) == (True, [])
    source.write_bytes(OTHER)  # what is done to it later is nothing to us
    proven(card)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (CONTENT[:-1], f"has {len(CONTENT) - 1} bytes, net.pth has {len(CONTENT)}: truncated, or another file"),
        (CONTENT + b"x", f"has {len(CONTENT) + 1} bytes, net.pth has {len(CONTENT)}: truncated, or another file"),
        (OTHER, f"its sha256 is {hashlib.sha256(OTHER).hexdigest()}, the card says {SHA256}; nothing was kept"),
        (b"", f"has 0 bytes, net.pth has {len(CONTENT)}"),
    ],
)
def test_a_wrong_file_is_refused(server: Server, content: bytes, sentence: str) -> None:
    card = a_card(published(server))
    Path("given.pth").write_bytes(content)
    said = refused(card, InputError, source=Path("given.pth"))
    assert said.startswith("given.pth: ")
    assert sentence in said
    assert [path.name for path in weights.folder(card).iterdir()] == ["net.pth.lock"]
    assert Path("given.pth").read_bytes() == content


def test_what_cannot_be_taken_is_named(server: Server) -> None:
    card = a_card(unpublished(server))
    assert refused(card, InputError, source=Path("nowhere.pth")) == "nowhere.pth: no such file"
    Path("empty.pth").touch()
    assert refused(card, InputError, source=Path("empty.pth")) == "empty.pth: is empty"
    Path("stick").mkdir()
    assert refused(card, InputError, source=Path("stick")) == "stick: has no net.pth, which net needs"
    two = a_card(published(server), published(server, file="config.json"), name="two")
    Path("net.pth").write_bytes(CONTENT)
    said = refused(two, InputError, source=Path("net.pth"))
    assert said == "net.pth: two has several files; name a folder with net.pth, config.json"
    shutil.copy("net.pth", "stick/net.pth")
    assert refused(two, InputError, source=Path("stick")) == "stick: has no config.json, which two needs"
    shutil.copy("net.pth", "stick/config.json")
    assert [one.fetched for one in weights.pull(two, source=Path("stick"))] == [True, True]
    Path("stick/net.pth").unlink()
    assert [one.fetched for one in weights.pull(two, source=Path("stick"))] == [False, False]
    assert server.asked == []


def test_the_file_itself_may_be_named(server: Server) -> None:
    card = a_card(unpublished(server))
    weights.folder(card).mkdir(parents=True)
    weights.path(card).write_bytes(CONTENT)
    weights.pull(card, source=weights.path(card))
    proven(card)
    weights.path(card).write_bytes(OTHER)
    with pytest.raises(InputError, match="at the first download it was"):
        weights.pull(card, source=weights.path(card))
    assert weights.path(card).read_bytes() == OTHER  # it is the user's


# --- files that were changed afterwards


def test_a_folder_in_the_place_of_a_file_is_no_file(server: Server) -> None:
    card = a_card(unpublished(server))
    weights.path(card).mkdir(parents=True)
    assert weights.missing(card).startswith("its weights are not here")
    with pytest.raises(EngineError, match=r"net\.pth is no file: inpaint models pull net"):
        weights.checked_path(card)


def test_a_file_whose_length_no_longer_fits_is_refused(server: Server) -> None:
    card = a_card(published(server))
    weights.pull(card)
    os.truncate(weights.path(card), 5)
    reason = f"has 5 bytes, and had {len(CONTENT)} when it was pulled"
    assert weights.missing(card) == f"net.pth {reason}: inpaint models pull net (300 KiB)"
    with pytest.raises(EngineError) as caught:
        weights.checked_path(card)
    assert str(caught.value) == f"net: {weights.path(card)} {reason}: inpaint models pull net"
    said: list[str] = []
    weights.pull(card, say=said.append)
    proven(card)
    assert said == ["net: the net.pth that is here is damaged or of another revision; it is fetched anew"]


def test_a_flipped_bit_is_found_by_verify_and_mended_by_pull(server: Server) -> None:
    card = a_card(published(server))
    weights.pull(card)
    with open(weights.path(card), "r+b") as file:
        file.write(b"\xff")
    with pytest.raises(EngineError, match=f"the card says {SHA256}; `inpaint models pull net` brings it anew"):
        weights.verify(card)
    weights.pull(card)
    proven(card)


def test_a_file_put_there_by_hand_is_used_and_not_vouched_for(server: Server) -> None:
    card = a_card(unpublished(server))
    weights.folder(card).mkdir(parents=True)
    weights.path(card).write_bytes(OTHER)
    assert weights.missing(card) == ""
    with pytest.raises(EngineError, match="was put there by hand and no hash of it is published"):
        weights.verify(card)
    said: list[str] = []
    weights.pull(card, say=said.append)
    proven(card)
    assert said == ["net: the net.pth that is here was never pulled, so nobody knows what it is; it is fetched anew"]


# --- the disk


def test_a_full_disk_is_told_before(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 100_000))
    card = a_card(published(server))
    said = refused(card, OutputError)
    assert "300 KiB are needed there, 98 KiB are free; make room, or name a folder on another disk" in said
    Path("net.pth").write_bytes(CONTENT)
    assert "are needed there" in refused(card, OutputError, source=Path("net.pth"))


class _Full(io.FileIO):
    """A file on a disk that is full after 100000 bytes."""

    def write(self, data: Any) -> int:
        if (room := 100_000 - self.tell()) <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(data[:room])


def test_a_disk_that_fills_up_keeps_what_came(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(path: Any, mode: str, buffering: int = -1) -> _Full:
        return _Full(path, mode.replace("b", ""))

    card = a_card(published(server))
    with monkeypatch.context() as patch:
        patch.setattr(fetching, "open", opened, raising=False)
        said = refused(card, OutputError)
    assert said == f"{part(card)}: cannot be written: {os.strerror(errno.ENOSPC)}; what came is kept"
    assert weights.kept(card) == 100_000
    weights.pull(card)
    proven(card)
    assert server.asked[-1].headers["range"] == "bytes=100000-"


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs a folder that cannot be written")
def test_a_folder_that_cannot_be_written_is_named(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    me = os.geteuid()
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to other users
        monkeypatch.setenv("INPAINT_CACHE", str(Path(name) / "cache"))
        Path(name).chmod(0o555)
        card = a_card(published(server))
        monkeypatch.setenv("INPAINT_CONFIG", str(Path(name) / "config"))
        if me == 0:
            os.seteuid(65534)  # nothing is forbidden to root
        try:
            assert "cannot be written" in refused(card, OutputError)
        finally:
            if me == 0:
                os.seteuid(0)
            Path(name).chmod(0o755)
        assert not list(Path(name).iterdir())


def test_a_cache_that_is_a_file_is_named(server: Server, home: Path) -> None:
    (home / "cache").write_text("")
    assert "cannot be written" in refused(a_card(published(server)), OutputError)
