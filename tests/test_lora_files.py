"""LoRAs become files of this machine: the user's own, those of the hub, and those at an address."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest
import weight_server as ws
from children import children
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from weight_cards import CONTENT, OTHER, SHA256
from weight_server import Server

from toolkit import lora, lorafiles
from toolkit.cards import Card
from toolkit.errors import Cancelled, EngineError, InputError, OutputError, ParameterError, ToolkitError
from toolkit.safekeeping import Record, held
from toolkit.stages.fill import Fill

REVISION = "0123456789abcdef" * 2 + "01234567"
USUAL = "pytorch_lora_weights.safetensors"
TOKEN = "hf_secret"


pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture
def hub(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The same, as the model hub."""
    monkeypatch.setattr(lorafiles, "HUB", f"http://127.0.0.1:{server.port}")
    return server


def listing(*files: str, sha: Any = REVISION) -> ws.Act:
    """The hub's answer on which files there are."""
    answer = {"id": "owner/name", "sha": sha, "siblings": [{"rfilename": file} for file in files]}
    return ws.sends(json.dumps(answer).encode(), Content_Type="application/json; charset=utf-8")


def located(path: str, said: list[str] | None = None, **options: Any) -> Path:
    return lorafiles.located(
        path, say=(lambda _: None) if said is None else said.append, progress=lambda *_: None, **options
    )


def refused(path: str, kind: type[ToolkitError] = InputError) -> str:
    """The sentence with which it ends."""
    with pytest.raises(kind) as caught:
        located(path)
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)
    return str(caught.value)


def proven(path: Path, content: bytes = CONTENT) -> Record:
    """The file is there, and its record."""
    assert path.read_bytes() == content
    record = Record.of(path)
    assert record is not None
    assert (record.bytes, record.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert not list(path.parent.glob("*.part*"))
    return record


# --- the user's own


def test_a_file_is_taken_as_it_lies_there(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("loras").mkdir()
    for name in ("loras/style.safetensors", "loras/UPPER.SAFETENSORS"):
        Path(name).write_bytes(CONTENT)
        assert located(name) == lorafiles.local(name) == Path(name)
        assert located(str(home / name)) == home / name
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    assert located("~/loras/style.safetensors") == home / "loras/style.safetensors"
    assert not (home / "cache").exists()


def test_a_folder_stands_for_the_one_file_in_it() -> None:
    place = Path("owner/name")
    place.mkdir(parents=True)
    assert refused("owner/name") == "lora owner/name: is a folder without a .safetensors file in it"
    (place / "README.md").touch()
    (place / "b.safetensors").write_bytes(CONTENT)
    assert located("owner/name") == place / "b.safetensors"
    (place / "a.safetensors").write_bytes(CONTENT)
    assert refused("owner/name") == (
        "lora owner/name: is a folder with 2 .safetensors files (a.safetensors, b.safetensors); name one of them"
    )


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("name", ["x.bin", "x.pt", "x.ckpt", "X.PTH", "x.pkl", "folder/x.bin"])
def test_pickles_are_never_opened(name: str, there: bool) -> None:
    if there:
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_bytes(CONTENT)
    assert refused(name) == (
        f"lora {name}: is a pickle, which can run code when it is opened; only .safetensors files are taken"
    )


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("x.safetensors", "no such file"),
        ("loras/x.safetensors", "no such file"),
        ("here/there/x.safetensors", "no such file"),
        ("./x.safetensors", "no such file"),
        ("~nobody-of-that-name/x.safetensors", "no such file"),
        ("/nowhere/x.safetensors", "no such file"),
        ("style", "no such file"),
        ("owner/", "no such file"),
        ("notes.txt:o.8", "no such file; what stands after : is to be a number, the scale, got 'o.8'"),
        ("owner/name:strong", "what stands after : is to be a number, the scale, got 'strong'"),
        ("notes.txt", "only .safetensors files are taken, got one called notes.txt"),
        ("ftp://example.org/x.safetensors", "is no web address of a file"),
        ("https://", "is no web address of a file"),
        ("https://example.org", "is no web address of a file"),
        ("https://[::1/x.safetensors", "is no web address of a file"),
        ("http://example.org/x.safetensors", "is not encrypted; use https"),
        ("https://example.org/x.bin", "only addresses of .safetensors files are taken; fetch it yourself and name the"),
        ("https://example.org/x?file=y.safetensors", "only addresses of .safetensors files are taken"),
    ],
)
def test_what_can_be_no_lora_is_refused_and_nobody_asked(path: str, sentence: str) -> None:
    Path("notes.txt").touch()
    Path("here/there").mkdir(parents=True)
    assert sentence in refused(path)
    with pytest.raises(InputError, match="lora "):
        lorafiles.local(path)


# --- an address


def test_an_address_is_fetched_once(server: Server) -> None:
    said: list[str] = []
    seen: list[tuple[str, int, int | None]] = []
    url = server.url("/some/My%20style.safetensors?token=secret")
    first = lorafiles.located(url, say=said.append, progress=lambda *now: seen.append(now))
    record = proven(first)
    assert first.name == "My style.safetensors"
    assert (record.url, record.origin) == (server.url("/some/My%20style.safetensors"), "download")
    assert said == [
        f"lora {server.url('/some/My%20style.safetensors')}: fetching My style.safetensors (300 KiB) from 127.0.0.1"
    ]
    assert seen[-1][1:] == (len(CONTENT), len(CONTENT))
    assert [asked.path for asked in server.asked] == ["/some/My%20style.safetensors?token=secret"]
    assert located(url, said) == first
    assert (len(server.asked), len(said)) == (1, 1)
    assert not any(b"secret" in path.read_bytes() for path in Path("cache").rglob("*") if path.is_file())


def test_addresses_of_equal_names_are_kept_apart(server: Server) -> None:
    one = located(server.url("/a/x.safetensors"))
    server.content, server.etag = OTHER, '"two"'
    two = located(server.url("/b/x.safetensors"))
    proven(one)
    proven(two, OTHER)


@pytest.mark.parametrize("name", ["..%2F..%2Fout.safetensors", "..%5C..%5Cout.safetensors", ".safetensors", "a:b%00?x"])
def test_no_name_leads_out_of_the_cache(server: Server, home: Path, name: str) -> None:
    found = located(server.url(f"/{name.replace('?x', '.safetensors')}"))
    proven(found)
    assert found.parent.parent == home / "cache" / "loras"
    assert not set(found.stem) & set('/\\:"<>|?*\0')


def test_what_broke_off_is_gone_on_with(server: Server) -> None:
    url = server.url("/x.safetensors")
    server.script.extend([ws.breaks_off(100_000)] * 2)
    assert "bytes are kept, and the next try goes on from there; name a file of your own" in refused(url, EngineError)
    proven(located(url))
    assert "range" in server.asked[-1].headers


def test_what_is_not_as_long_as_it_was_is_fetched_anew(server: Server) -> None:
    url, said = server.url("/x.safetensors"), list[str]()
    found = located(url)
    os.truncate(found, 5)
    server.content, server.etag = OTHER, '"two"'
    assert located(url, said) == found
    proven(found, OTHER)
    assert said[-1] == f"lora {url}: is another file now than when it was first fetched"


def test_the_hash_the_server_states_is_held_to(server: Server) -> None:
    server.extra = {"X-Linked-ETag": f'"{SHA256}"'}
    server.content = OTHER
    assert f"the server says {SHA256}; nothing was kept" in refused(server.url("/x.safetensors"), EngineError)
    assert not list(Path("cache").rglob("*.safetensors"))


def test_a_page_in_place_of_the_file_is_told(server: Server) -> None:
    server.script.append(ws.page)
    assert "sent a web page and not the file" in refused(server.url("/x.safetensors"), EngineError)


def test_a_cache_that_cannot_be_written_is_told(server: Server) -> None:
    Path("cache").write_text("")
    assert "loras: cannot be written" in refused(server.url("/x.safetensors"), OutputError)


# --- the hub


@pytest.mark.parametrize(
    "files",
    [
        ["README.md", "style.safetensors"],
        ["other.safetensors", "pytorch_lora_weights.safetensors", "x/y.safetensors", "model.bin"],
        ["deep/er/style.safetensors"],
    ],
)
def test_a_repository_gives_its_lora(hub: Server, files: list[str]) -> None:
    hub.script.append(listing(*files))
    said: list[str] = []
    found = located("owner/name", said)
    wanted = USUAL if USUAL in files else files[-1]
    record = proven(found)
    assert found == Path.cwd() / "cache/loras/hub/owner/name" / wanted
    assert [asked.path for asked in hub.asked] == [
        "/api/models/owner/name", f"/owner/name/resolve/{REVISION}/{wanted}",
    ]  # fmt: skip
    assert record.revision == REVISION
    assert said == [f"lora owner/name: fetching {Path(wanted).name} (300 KiB) from 127.0.0.1"]
    assert located("owner/name") == found
    assert located(f"owner/name/{wanted}") == found
    assert len(hub.asked) == 2


def test_a_file_of_a_repository_is_asked_for_itself(hub: Server) -> None:
    found = located("owner/name/sub/My style.safetensors")
    proven(found)
    assert [asked.path for asked in hub.asked] == ["/owner/name/resolve/main/sub/My%20style.safetensors"]
    assert located(f"{lorafiles.HUB}/owner/name/blob/main/sub/style.safetensors").name == "style.safetensors"
    assert hub.asked[-1].path == "/owner/name/resolve/main/sub/style.safetensors"


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        (["README.md"], "lora owner/name: has no .safetensors file"),
        (["x.bin"], "lora owner/name: has no .safetensors file, only x.bin, a pickle, which is never opened"),
        (["../../x.safetensors"], "lora owner/name: has no .safetensors file"),
        (["b.safetensors", "a/c.safetensors"],
         "lora owner/name: has 2 .safetensors files (a/c.safetensors, b.safetensors); "
         "name one, as in owner/name/a/c.safetensors"),
        ([f"{k:02}.safetensors" for k in range(12)],
         f"lora owner/name: has 12 .safetensors files ({', '.join(f'{k:02}.safetensors' for k in range(10))} "
         "and 2 more); name one, as in owner/name/00.safetensors"),
    ],
)  # fmt: skip
def test_a_repository_without_one_lora_is_told(hub: Server, files: list[str], sentence: str) -> None:
    hub.script.append(listing(*files))
    assert refused("owner/name") == sentence
    assert len(hub.asked) == 1


@pytest.mark.parametrize("answer", [b"no json", b"[]", b'{"siblings": 5}', b'{"siblings": [{}]}', b'"x"'])
def test_an_answer_that_is_no_list_is_told(hub: Server, answer: bytes) -> None:
    hub.script.append(ws.sends(answer, Content_Type="application/json"))
    assert refused("owner/name", EngineError) == "lora owner/name: 127.0.0.1 sent no list of its files"


def test_a_strange_revision_is_not_asked_for(hub: Server) -> None:
    hub.script.append(listing("x.safetensors", sha="../../other"))
    located("owner/name")
    assert hub.asked[-1].path == "/owner/name/resolve/main/x.safetensors"


@pytest.mark.parametrize("token", [False, True])
def test_a_repository_that_is_refused_says_what_to_do(
    hub: Server, token: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if token:
        monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.script.append(ws.says(401))
    said = refused("owner/name", EngineError)
    assert said.startswith(
        "lora owner/name: 127.0.0.1 refuses it (HTTP 401): there is no such repository, or it is gated or private: "
    )
    assert ("see that the token is of that account" in said) == token
    assert ("`inpaint keys set huggingface` or HF_TOKEN" in said) != token
    assert TOKEN not in said


def test_without_network_a_repository_that_is_here_is_used(hub: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.script.append(listing("x.safetensors"))
    found = located("owner/name")
    monkeypatch.setattr(lorafiles, "HUB", "http://127.0.0.1:9")
    assert located("owner/name") == found
    found.unlink()
    assert "127.0.0.1 cannot be reached" in refused("owner/name", EngineError)


def test_the_token_goes_to_the_hub_alone(hub: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with Server(CONTENT) as place:
        hub.script.extend([listing("x.safetensors"), ws.leads_to(place.url("/there"))])
        located("owner/name")
        located(place.url("/y.safetensors"))
        located(f"{lorafiles.HUB}/other/name/resolve/main/z.safetensors", token=SecretStr("hf_given"))
        assert [asked.headers.get("authorization") for asked in hub.asked] == [
            f"Bearer {TOKEN}", f"Bearer {TOKEN}", "Bearer hf_given",
        ]  # fmt: skip
        assert all("authorization" not in asked.headers for asked in place.asked)


# --- several at once


def test_threads_fetch_a_lora_once(hub: Server) -> None:
    hub.script.append(listing("x.safetensors"))
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(located("owner/name"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(set(found)) == 1
    assert len(found) == 4
    assert len(hub.asked) == 2


_FETCHES = """
from toolkit import lorafiles
lorafiles.HUB = sys.argv[1]
say("ready")
input()
say(lorafiles.located("owner/name", say=lambda sentence: say(sentence), progress=lambda *_: None))
"""


def test_processes_fetch_a_lora_once(hub: Server) -> None:
    hub.script.append(listing("x.safetensors"))
    with children() as started:
        from children import Child

        started += [Child(_FETCHES, lorafiles.HUB) for _ in range(2)]
        assert [child.hear() for child in started] == ["ready", "ready"]
        for child in started:
            child.tell()
        heard = []
        for child in started:
            assert child.process.stdout
            heard += child.process.stdout.read().splitlines()
            assert child.end() == 0
    assert len([line for line in heard if line.endswith("x.safetensors")]) == 2
    assert len([line for line in heard if "fetching x.safetensors" in line]) == 1
    assert len(hub.asked) == 2


# --- the hash


def test_a_hash_is_computed_once_for_as_long_as_the_file_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path("x.safetensors").absolute()
    path.write_bytes(CONTENT)
    read: list[Path] = []
    inner = lorafiles.sha256_of
    monkeypatch.setattr(lorafiles, "sha256_of", lambda target, *rest: read.append(target) or inner(target, *rest))
    assert [lorafiles.content_hash(path) for _ in range(3)] == [SHA256] * 3
    assert len(read) == 1
    path.write_bytes(OTHER)
    os.utime(path, ns=(1, 1))
    assert lorafiles.content_hash(path) == hashlib.sha256(OTHER).hexdigest()
    path.unlink()
    with pytest.raises(InputError, match=r"x\.safetensors: cannot be read: No such file"):
        lorafiles.content_hash(path)


# --- as they are written, and as a job holds them


@pytest.mark.parametrize(
    ("path", "files", "alone"),
    [
        ("user/style", True, True),
        ("user/style/x.safetensors", True, False),
        ("user/style/deep/er/My x.safetensors", True, False),
        ("https://host/x.safetensors", True, True),
        ("user/style/x.bin", False, False),
        ("user/style/more", False, False),
        ("user/style/../x.safetensors", False, False),
        ("user/style/.x.safetensors", False, False),
        ("user/style//x.safetensors", False, False),
        ("user/style/a\\b.safetensors", False, False),
        ("user/x.safetensors", True, True),
        ("/user/style/x.safetensors", False, False),
        (r"C:\loras\x.safetensors", False, False),
    ],
)
def test_what_names_a_file_of_the_hub(path: str, files: bool, alone: bool) -> None:
    assert (lora.is_remote(path, files=True), lora.is_remote(path)) == (files, alone)


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=30))
def test_any_text_is_something_to_fetch_or_refused(text: str) -> None:
    try:
        assert lorafiles.local(text) is None
    except InputError:
        return
    assert lora.is_remote(text.partition("#")[0], files=True)


def a_card(concurrency: str) -> Card:
    return Card.model_validate(
        {
            "task": "fill", "adapter": "as_given", "about": "A network.", "revision": "1", "licence": "none",
            "commercial_use": True, "output_terms": "none", "data_leaves_machine": concurrency == "network",
            "concurrency": concurrency, "rank": 99, "name": "net", "prompt": "required",
            "limits": {"min_side": 16, "max_side": 64, "multiple_of": 16},
            "parameters": {"lora": {"default": [], "minimum": 0, "maximum": 4, "most": 3}},
        }
    )  # fmt: skip


def test_a_job_names_the_content_of_a_file() -> None:
    Path("x.safetensors").write_bytes(CONTENT)
    Path("folder").mkdir()
    Path("folder/y.safetensors").write_bytes(OTHER)
    stage = Fill(prompt="a lawn", lora=("x.safetensors:0.5", "folder", "a/b/c.safetensors:2"))
    assert stage.parameters_for(a_card("gpu"))["lora"] == [
        {"path": "x.safetensors", "scale": 0.5, "sha256": SHA256},
        {"path": "folder", "scale": 1.0, "sha256": hashlib.sha256(OTHER).hexdigest()},
        {"path": "a/b/c.safetensors", "scale": 2.0},
    ]
    assert Fill(lora=("a/b:0.5",)).parameters_for(a_card("network"))["lora"] == [{"path": "a/b", "scale": 0.5}]
    for path in ("x.safetensors", "a/b/c.safetensors"):
        with pytest.raises(ParameterError, match="net fetches LoRAs itself"):
            Fill(lora=(path,)).parameters_for(a_card("network"))
    with pytest.raises(InputError, match="lora y.safetensors: no such file"):
        Fill(lora=("y.safetensors",)).parameters_for(a_card("gpu"))


def test_the_wait_for_another_that_fetches_it_can_be_cancelled(server: Server, home: Path) -> None:
    url, said = server.url("/x.safetensors"), []
    target = located(url)
    target.unlink()

    def cancelled(*progress: Any) -> None:
        raise Cancelled

    with held(target, "another's", said.append):
        with pytest.raises(Cancelled):
            lorafiles.located(url, say=said.append, progress=cancelled)
    assert said == [f"lora {url}: another process is fetching it; waiting for that"]
    assert located(url) == target
