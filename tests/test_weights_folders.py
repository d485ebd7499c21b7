"""Weights in diffusers' folder layout, in a folder of the user's own, and with one file in place of a subfolder."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
import weight_server as ws
import yaml
from commands import call
from weight_cards import a_card, published
from weight_server import Asked, Server

from toolkit import weightfiles, weights
from toolkit.cards import Card
from toolkit.errors import EngineError, InputError, OutputError, ParameterError, RecipeError

FILES = {
    name: name.encode() * 20_000
    for name in (
        "model_index.json", "text_encoder/config.json", "text_encoder/model.safetensors", "transformer/config.json",
        "transformer/model-00001-of-00002.safetensors", "transformer/model-00002-of-00002.safetensors",
    )
}  # fmt: skip
TRANSFORMER = [name for name in FILES if name.startswith("transformer/")]


pytestmark = pytest.mark.usefixtures("home")


def honest(server: Server, asked: Asked, connection: socket.socket) -> None:
    """Each file at its own path."""
    server.content, server.etag = FILES[asked.path[1:]], f'"{asked.path}"'
    ws.served(server, asked, connection)


def breaks_off(server: Server, asked: Asked, connection: socket.socket) -> None:
    server.content, server.etag = FILES[asked.path[1:]], f'"{asked.path}"'
    ws.served(server, asked, connection, cut=100_000)


def flux(server: Server, *, hashes: bool = True, **fields: Any) -> Card:
    """A card with the files above; the server answers each as it should."""
    server.script.extend([honest] * 50)
    entries = []
    for name, content in FILES.items():
        sha256 = hashlib.sha256(content).hexdigest() if hashes else ""
        entry = published(server, file=name, url=server.url(f"/{name}"), sha256=sha256, bytes=len(content))
        entries.append(entry if hashes else {key: entry[key] for key in ("file", "url", "bytes")})
    return a_card(*entries, **fields)


def write(place: Path, *names: str) -> Path:
    for name in names or FILES:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(FILES[name])
    return place


def settle(**named: Path | str) -> Path:
    """Write what the settings say of weights; the file."""
    path = Path(os.environ["INPAINT_CONFIG"]) / "settings.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump({"weights": {name: str(where) for name, where in named.items()}}))
    return path


def lying(place: Path) -> dict[str, bytes]:
    """What lies in a folder, without notes and locks."""
    return {
        path.relative_to(place).as_posix(): path.read_bytes()
        for path in place.rglob("*")
        if path.is_file() and path.suffix != ".lock" and not path.name.endswith(".pulled.json")
    }


# --- the layout


@pytest.mark.parametrize("hashes", [True, False])
def test_files_lie_in_their_subfolders_each_with_its_note(server: Server, hashes: bool) -> None:
    card = flux(server, hashes=hashes)
    assert weights.missing(card).startswith("its weights are not here")
    pulled = weights.pull(card)
    assert [one.file for one in pulled] == list(FILES)
    assert lying(weights.folder(card)) == FILES
    for name, content in FILES.items():
        assert weights.checked_path(card, name) == weights.folder(card) / name
        noted = weights.record(card, name)
        assert noted
        assert (noted.sha256, noted.url) == (hashlib.sha256(content).hexdigest(), server.url(f"/{name}"))
        assert weightfiles.record_path(weights.path(card, name)).parent == weights.path(card, name).parent
    assert weights.missing(card) == ""
    assert weights.size(card) == sum(map(len, FILES.values()))
    assert [one.fetched for one in weights.pull(card)] == [False] * len(FILES)
    assert len(server.asked) == len(FILES)
    assert [one.sha256 for one in weights.verify(card)] == [one.sha256 for one in pulled]


def test_a_file_in_a_subfolder_is_gone_on_with(server: Server) -> None:
    card = flux(server)
    server.script.clear()
    server.script.extend([honest, honest, breaks_off, breaks_off])
    with pytest.raises(EngineError, match=r"text_encoder/model\.safetensors: the connection to 127\.0\.0\.1 broke off"):
        weights.pull(card)
    part = weights.folder(card) / "text_encoder" / "model.safetensors.part"
    assert weights.kept(card) == part.stat().st_size > 0
    begun = weights.kept(card)
    server.script.extend([honest] * 9)
    weights.pull(card)
    assert lying(weights.folder(card)) == FILES
    resumed = [asked for asked in server.asked if "range" in asked.headers][-1]
    assert (resumed.path, resumed.headers["range"]) == ("/text_encoder/model.safetensors", f"bytes={begun}-")


def test_a_folder_from_elsewhere_keeps_the_layout(server: Server) -> None:
    card = flux(server)
    stick = write(Path("stick"))
    assert all(one.fetched for one in weights.pull(card, source=stick))
    assert lying(weights.folder(card)) == FILES
    assert server.asked == []
    (stick / "transformer/config.json").unlink()
    weights.path(card, "transformer/config.json").unlink()
    with pytest.raises(InputError) as caught:
        weights.pull(card, source=stick)
    assert str(caught.value) == "stick: has no transformer/config.json, which net needs"
    shutil.rmtree(stick)
    stick.write_bytes(b"x")
    with pytest.raises(
        InputError, match=r"^stick: net has several files; name a folder with model_index\.json, text_e"
    ):
        weights.pull(card, source=stick)


def test_damage_in_a_subfolder_is_found_and_named(server: Server) -> None:
    card = flux(server)
    weights.pull(card)
    target = weights.path(card, TRANSFORMER[1])
    target.write_bytes(b"short")
    assert weights.missing(card).startswith(f"{TRANSFORMER[1]} has 5 bytes, and had {len(FILES[TRANSFORMER[1]])}")
    target.write_bytes(FILES[TRANSFORMER[1]][::-1])
    with pytest.raises(EngineError, match="its sha256 is"):
        weights.verify(card)
    weights.pull(card)
    assert lying(weights.folder(card)) == FILES


def test_a_file_in_the_place_of_a_subfolder_is_named(server: Server) -> None:
    card = flux(server)
    weights.folder(card).mkdir(parents=True)
    (weights.folder(card) / "transformer").write_bytes(b"")
    assert weights.missing(card).startswith("its weights are not here")
    with pytest.raises(OutputError, match="cannot be written"):
        weights.pull(card)


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "/etc/x",
        "a/../x",
        "a//x",
        "a\\x",
        "a/",
        "./x",
        "a/./x",
        ".x",
        "a/.x",
        "",
        "C:x",
        "a b",
        "a\n",
        "x/\u00e9",
    ],
)
def test_names_that_could_leave_the_folder_are_refused(name: str) -> None:
    with pytest.raises(RecipeError, match=r"net\.yaml\.weights\.0\.file: "):
        a_card({"file": name, "url": "https://example.org/x"})


# --- a folder of the user's


def test_files_in_a_folder_of_the_users_are_used_where_they_lie(server: Server, tmp_path: Path) -> None:
    card = flux(server)
    mine = write(tmp_path / "mine")
    settle(net=mine)
    assert weights.folder(card) == mine
    assert weights.missing(card) == ""
    assert weights.checked_path(card, TRANSFORMER[0]) == mine / TRANSFORMER[0]
    assert [one.fetched for one in weights.verify(card)] == [False] * len(FILES)
    assert [one.fetched for one in weights.pull(card)] == [False] * len(FILES)
    assert (lying(mine), server.asked, Path("cache").exists()) == (FILES, [], False)
    settle(**{"segment/net": mine, "net": tmp_path / "nowhere"})
    assert weights.folder(card) == mine
    settle(other=mine)
    assert weights.folder(card) == Path(os.environ["INPAINT_CACHE"]) / "weights" / "segment-net"


@pytest.mark.parametrize("hashes", [True, False])
def test_what_a_folder_of_the_users_lacks_is_fetched_into_it(server: Server, tmp_path: Path, hashes: bool) -> None:
    card = flux(server, hashes=hashes)
    mine = write(tmp_path / "mine", "model_index.json", TRANSFORMER[0])
    named = settle(net=mine)
    said = weights.missing(card)
    assert said.startswith(
        f"{named}: weights of net: {mine} has no text_encoder/config.json and no text_encoder/model.safetensors and 2 "
        "more: inpaint models pull net ("
    )
    fetched = {one.file: one.fetched for one in weights.pull(card)}
    assert [name for name in FILES if not fetched[name]] == ["model_index.json", TRANSFORMER[0]]
    assert lying(mine) == FILES
    assert weights.missing(card) == ""


def test_a_name_in_the_settings_that_is_no_models_is_said_where_weights_are_not_there(
    server: Server, tmp_path: Path
) -> None:
    card = flux(server)
    named = settle(nett=tmp_path, **{"flux-fill-dev-removal": tmp_path, "fill/flux-fill-dev": tmp_path})
    assert weights.missing(card).endswith(
        f"; {named}: weights: flux-fill-dev-removal uses those of flux-fill-dev; name that; {named}: weights: no model "
        "'nett'; did you mean 'net'?"
    )


def test_a_folder_with_none_of_the_files_is_one_short_sentence(server: Server, tmp_path: Path) -> None:
    card = flux(server)
    with pytest.raises(InputError) as caught:
        weights.pull(card, source=tmp_path)
    first, second = list(FILES)[:2]
    assert str(caught.value) == (
        f"{tmp_path}: has no {first} and no {second} and {len(FILES) - 2} more, which net needs"
    )


def test_nothing_in_a_folder_of_the_users_is_replaced(server: Server, tmp_path: Path) -> None:
    card = flux(server)
    mine = write(tmp_path / "mine")
    (mine / TRANSFORMER[1]).write_bytes(b"my own")
    settle(net=mine)
    with pytest.raises(EngineError) as caught:
        weights.pull(card)
    assert str(caught.value).endswith("it is yours and was left as it is")
    assert str(mine / TRANSFORMER[1]) in str(caught.value)
    assert (mine / TRANSFORMER[1]).read_bytes() == b"my own"
    assert server.asked == []
    unhashed = flux(server, hashes=False)
    weights.pull(unhashed)
    assert (mine / TRANSFORMER[1]).read_bytes() == b"my own"
    assert weights.missing(unhashed) == ""
    (mine / TRANSFORMER[1]).unlink()
    weights.pull(unhashed)  # what we fetched ourselves is mended as anywhere else
    (mine / TRANSFORMER[1]).write_bytes(b"damaged")
    weights.pull(unhashed)
    assert lying(mine) == FILES


# --- a file in place of a subfolder


def test_one_file_stands_for_the_subfolder(server: Server, tmp_path: Path) -> None:
    card = flux(server, settings={"single_file": "transformer"})
    assert weights.single_file(card) is None
    tuned = tmp_path / "tuned.safetensors"
    tuned.write_bytes(b"a transformer")
    settle(net=tuned)
    config = "transformer/config.json"  # which a single file has not
    rest = {name: content for name, content in FILES.items() if name not in TRANSFORMER or name == config}
    assert weights.single_file(card) == tuned
    assert [one.file for one in weights.needed(card)] == list(rest)
    assert weights.size(card) == sum(map(len, rest.values()))
    assert weights.missing(card).startswith("its weights are not here")
    said = call("models", "pull", "net")
    assert f"  transformer is {tuned}, as the settings say; its hash is not checked\n" in said.err
    assert weights.folder(card) == Path(os.environ["INPAINT_CACHE"]) / "weights" / "segment-net"
    assert lying(weights.folder(card)) == rest
    assert weights.missing(card) == ""
    assert [one.file for one in weights.verify(card)] == list(rest)
    assert "weights here" in call("models").text
    settle()
    assert weights.missing(card).startswith("its weights are not here")
    weights.pull(card)
    assert lying(weights.folder(card)) == FILES


@pytest.mark.parametrize(
    ("made", "single", "sentence"),
    [
        ("", "transformer", "{path} is not there"),
        ("file.safetensors", "", "{path} is a file; net takes a folder with its files"),
        ("file.ckpt", "transformer", "{path}: only .safetensors files are taken"),
    ],
)
def test_a_place_that_cannot_be_one_is_named_with_the_settings(
    server: Server, tmp_path: Path, made: str, single: str, sentence: str
) -> None:
    card = flux(server, settings={"single_file": single} if single else {})
    path = tmp_path / (made or "nowhere")
    if made:
        path.write_bytes(b"x")
    said = f"{settle(net=path)}: weights of net: {sentence.format(path=path)}"
    assert weights.missing(card) == said
    assert weights.single_file(card) is None
    for work, kind in ((weights.pull, InputError), (weights.verify, EngineError)):
        with pytest.raises(kind) as caught:
            work(card)  # type: ignore[operator]
        assert str(caught.value) == said
    with pytest.raises(EngineError) as refused:
        weights.checked_path(card, TRANSFORMER[0])
    assert str(refused.value) == said
    assert not (tmp_path / "nowhere").exists()
    assert call("models").code == 0


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("weights: {net: models/net}", "weights: net: expected a whole path, from / or ~ on, got 'models/net'"),
        ("weights: {net: ''}", "weights: net: expected a whole path, from / or ~ on, got ''"),
        ("weights: {net: 5}", "weights.net: expected string, got 5 (quote it to make it text)"),
        ("weights: [net]", "weights: expected dictionary, got ['net']"),
    ],
)
def test_settings_that_are_none_are_named(server: Server, text: str, sentence: str) -> None:
    card = flux(server)
    path = settle()
    path.write_text(text)
    with pytest.raises(ParameterError) as caught:
        weights.missing(card)
    assert str(caught.value) == f"{path}.{sentence}"
    doctor = call("doctor")
    assert doctor.code == 1
    assert f"problem: {path}.{sentence}" in doctor.err


def test_home_is_understood(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    card = flux(server)
    write(tmp_path / "mine")
    settle(net="~/mine")
    assert weights.folder(card) == tmp_path / "mine"
