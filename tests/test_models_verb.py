"""`inpaint models`: what is listed, pulled and verified, and what is said of it."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
import weight_server as ws
from commands import call, environment
from weight_cards import CONTENT, SHA256, a_card, proven, published, unpublished
from weight_server import Server

from toolkit import engines, weights
from toolkit.engines.segment import as_given
from toolkit.errors import EngineError
from toolkit.schema import read_yaml

pytestmark = pytest.mark.usefixtures("home")


# --- the command


def test_the_command_says_where_from_and_on_what_terms(server: Server) -> None:
    card = a_card(published(server, revision="v1"), not_run="its real weights were not at hand")
    listed = call("models").text
    assert "weights not here, 300 KiB; Apache-2.0\n" in listed
    assert "not yet run with its real weights" in listed
    answer = call("models", "pull", "segment/net")
    assert answer.code == 0, answer.err
    assert answer.err.splitlines() == [
        "net: A network.",
        "  licence: Apache-2.0, terms at https://example.org/terms",
        "  commercial use: yes; terms of what it makes: none",
        "  size: 300 KiB",
        f"  net.pth from {server.url()} (revision v1); hash published by its authors, checked",
    ]
    assert answer.text.splitlines() == [
        f"net: here now and proven, 300 KiB in {weights.folder(card)}",
        f"  net.pth sha256 {SHA256}",
    ]
    assert "weights here, 300 KiB; Apache-2.0\n" in call("models").text
    assert call("models", "pull", "net").text.startswith("net: here already and proven")
    assert call("models", "verify", "net").text.startswith("net: here already and proven")
    proven(card)


def test_a_hash_nobody_publishes_is_said(server: Server) -> None:
    card = a_card(unpublished(server), gated=True)
    Path("net.pth").write_bytes(CONTENT)
    answer = call("models", "pull", "net", "--from", "net.pth")
    assert "net.pth from net.pth; hash not published here, that of the first download is held to" in answer.err
    assert f"net.pth sha256 {SHA256} (not published; as first pulled)" in answer.text
    terms = "Apache-2.0; gated: terms to be accepted at https://example.org/terms"
    assert f"weights here, 300 KiB; {terms}" in call("models").text
    weights.path(card).unlink()
    assert f"weights not here, of unknown size; {terms}" in call("models").text


def test_many_files_are_few_lines_and_their_size_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "")
    assert "weights not here, 31.6 GiB; FLUX.1 [dev]" in call("models").text
    for name in ("flux-fill-dev", "flux-fill-dev-removal"):  # whose network is the same
        answer = call("models", "pull", name)
        assert answer.code == 1
        lines = answer.err.splitlines()
        assert len(lines) < 12
        assert "  size: 31.6 GiB" in lines
        assert lines[-4].startswith(
            "  23 files from https://huggingface.co/black-forest-labs/FLUX.1-Fill-dev/resolve/358"
        )
        assert lines[-3] == "    21 of them: hash not published here, that of the first download is held to"
        assert lines[-2].startswith("    2 of them: hash published by the Hub's page of the file in a duplicate")
        assert lines[-1].startswith("inpaint: flux-fill-dev: is gated: accept the terms at https://huggingface.co/")


def test_a_shown_card_can_be_read_as_one() -> None:
    text = call("models", "show", "flux-fill-dev").text
    shown = read_yaml(text.rpartition("\nhere: ")[0], name="shown")
    assert shown["parameters"]["guidance"] == {"default": 30, "minimum": 28, "maximum": 35}
    assert len(shown["weights"]) == 23


def test_reports_for_programs(server: Server) -> None:
    card = a_card(published(server))
    a_card(unpublished(server, url=server.url("/b")), name="other")
    server.script.extend([ws.honest, ws.says(404)])
    answer = call("models", "pull", "--json", "net", "other", "telea")
    assert answer.code == 3
    report = json.loads(answer.text)
    assert (report["done"], report["failed"]) == (2, 1)
    first, second, third = report["models"]
    assert first["files"] == [
        {"file": "net.pth", "path": str(weights.path(card)), "bytes": len(CONTENT), "sha256": SHA256,
         "published": True, "fetched": True}
    ]  # fmt: skip
    assert second["error"].startswith("other: net.pth: is not at 127.0.0.1 any more")
    assert third == {"name": "telea", "task": "fill", "licence": third["licence"], "terms": "", "ok": True, "files": []}
    shown = {one["name"]: one for one in json.loads(call("models", "--json").text)}
    assert [shown[name]["weights_here"] for name in ("net", "other", "telea")] == [True, False, None]


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("pull", "nett"), 2, "no model 'nett'; did you mean 'net'?"),
        (("verify", "nett"), 2, "no model 'nett'; did you mean 'net'?"),
        (("pull",), 2, "missing argument 'NAME...'; see inpaint models pull --help"),
        (("pull", "net", "telea", "--from", "x"), 2, "--from: goes with one model, got segment/net and fill/telea"),
        (("verify", "net"), 1, "net: {path} is not here: inpaint models pull net"),
        (("show",), 2, "name a model: inpaint models show NAME"),
    ],
)
def test_wrong_calls_are_one_sentence(server: Server, arguments: tuple[str, ...], code: int, sentence: str) -> None:
    card = a_card(published(server))
    answer = call("models", *arguments)
    assert (answer.code, answer.sentence) == (code, sentence.format(path=weights.path(card)))


def test_a_model_without_weights_needs_none() -> None:
    answer = call("models", "pull", "telea")
    assert (answer.code, answer.text, answer.err) == (0, "telea: needs no weights\n", "")
    assert call("models", "verify", "telea").text == "telea: needs no weights\n"


def test_progress_is_a_line_on_a_terminal_and_sparse_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    from toolkit.cli.models import _Meter

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return on

    for on in (True, False):
        now = iter(range(1000))
        with monkeypatch.context() as patch:
            stream = Terminal()
            patch.setattr(sys, "stderr", stream)
            patch.setattr("toolkit.cli.models.time.monotonic", lambda now=now: float(next(now)))
            with _Meter() as meter:
                for done in range(0, 201):
                    meter("net.pth", done << 20, 200 << 20)
                meter.say("A sentence.")
        said = stream.getvalue()
        assert "net.pth: 100 MiB of 200 MiB, 50%, 1 MiB/s" in said
        assert "  A sentence.\n" in said
        assert said.count("\n") == (1 if on else 11)
        assert ("\r" in said) == on


def test_pulled_weights_make_auto_take_the_network(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    card = a_card(published(server))
    monkeypatch.setattr(as_given, "missing", weights.missing, raising=False)
    assert engines.resolve("segment", "auto").name == "classical"
    with pytest.raises(EngineError, match=r"net cannot run: its weights are not here: inpaint models pull net \(300 K"):
        engines.resolve("segment", "net")
    weights.pull(card)
    assert engines.resolve("segment", "auto").name == "net"


def test_looking_for_weights_loads_no_network() -> None:
    code = "import sys, toolkit.weights; assert 'httpx' not in sys.modules and 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, env=environment())
