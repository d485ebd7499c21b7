"""Enhancers at the fill stage and on the command line: what is asked, journalled, paid and said."""

from __future__ import annotations

import base64
import io
import json
import re
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat_server import ChatServer, cut_off, dripping, endless, said
from commands import BOX, call, make_pictures
from jobs import StandIn, card
from PIL import Image
from wavespeed_server import Server

from toolkit import engines, settings
from toolkit.cards import Removal
from toolkit.edit import Edit, Step
from toolkit.engines import EngineRun, EnhanceJob, EnhanceResult
from toolkit.errors import Cancelled, EngineError, UnknownNameError
from toolkit.geometry import Box, Price
from toolkit.journal import Journal
from toolkit.mask import Mask
from toolkit.run import Run
from toolkit.schema import write_yaml
from toolkit.settings import is_loopback
from toolkit.stages._enhancing import enhance_job
from toolkit.stages.crop import Crop
from toolkit.stages.fill import Fill
from toolkit.stages.select import Select

PLAIN = Removal(prompt="plain ground", sources={"prompt": "a paper"})
KEY = "sk-very-secret-0123456789"
ANSWER = "a red wooden chair in soft light"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INPAINT_CONFIG", str(tmp_path / "config"))
    monkeypatch.setenv("INPAINT_STATE", str(tmp_path / "state"))
    for variable in settings.KEYS.values():
        monkeypatch.delenv(variable, raising=False)
    return tmp_path


@pytest.fixture
def journal(home: Path) -> Iterator[Journal]:
    one = Journal(home / "state")
    yield one
    one.close()


def write_settings(home: Path, **values: Any) -> None:
    (home / "config").mkdir(exist_ok=True)
    (home / "config" / "settings.yaml").write_text(write_yaml(values))


def use_chat(home: Path, chat: ChatServer, **more: Any) -> None:
    write_settings(home, chat={"base_url": chat.url, "model": "writer", **more})


def photo(value: int = 120) -> np.ndarray:
    picture = np.random.default_rng(0).integers(value - 10, value + 10, (96, 128, 3)).astype(np.uint8)
    picture[40:60, 40:70] = (200, 40, 40)
    return picture


def filled(journal: Journal, resumed: str = "", boxes: tuple[Box, ...] = (Box(38, 38, 72, 62),), picture: Any = None,
           prompt_kind: str = "optional", **options: Any) -> tuple[Step, StandIn, str, Run]:  # fmt: skip
    """A fill by a stand-in engine; its step, the engine, the run's name, and the run, which is closed."""
    filler = StandIn()
    run_options = {name: options.pop(name) for name in ("fresh", "max_cost", "more") if name in options}
    others = run_options.pop("more", {})
    mine = card(prompt=prompt_kind, removal=PLAIN if prompt_kind != "none" else None)
    with Run(journal=journal, engines={"stand-in": (mine, filler), **others}, **run_options) as run:
        name = run.begin({}, resumed)
        edit = Edit.of(photo() if picture is None else picture)
        mask = Mask.empty(edit.box)
        for box in boxes:
            mask = mask.union(Mask.from_box(edit.box, box))
        edit = Crop(model="stand-in")(Select(mask=mask)(edit, run), run)
        edit = Fill(**{"model": "stand-in", "prompt": "a chair", **options})(edit, run)
    return edit.steps[-1], filler, name, run


class Writer:
    """An enhancer that answers with the next of `answers`, or raises it."""

    def __init__(self, *answers: Any) -> None:
        self.answers, self.jobs = list(answers), []

    def enhance(self, job: EnhanceJob, run: EngineRun) -> EnhanceResult:
        self.jobs.append(job)
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer if isinstance(answer, EnhanceResult) else EnhanceResult(answer)


def writer(*answers: Any) -> tuple[Writer, dict[str, Any]]:
    one = Writer(*answers)
    return one, {"writer": (card("writer", task="enhance"), one)}


# The stage


def test_auto_works_without_network_and_is_shown_and_recorded(journal: Journal) -> None:
    step, filler, _, _ = filled(journal, enhance="auto")
    (job,) = filler.jobs
    assert job.prompt.startswith("a chair, in the centre of the picture")
    assert f"prompt by offline: {job.prompt}" in step.notes
    record = step.figures["enhance"]
    assert (record["given"], record["prompt"], record["enhancer"]) == ("a chair", job.prompt, "offline")
    assert record["revision"] == engines.resolve("enhance", "offline").revision
    assert (step.price, record["price"], step.figures["prompt"]) == (0, 0, job.prompt)
    assert step.parameters["prompt"] == "a chair"


def test_without_it_the_prompt_goes_as_it_is(journal: Journal) -> None:
    step, filler, _, _ = filled(journal)
    assert filler.jobs[0].prompt == "a chair"
    assert "enhance" not in step.figures


def test_yes_and_no_are_values_too() -> None:
    assert Fill.model_validate({"enhance": True}).enhance == "auto"
    assert Fill.model_validate({"enhance": False}).enhance == ""


def test_one_enhancement_serves_variations_and_windows(journal: Journal) -> None:
    one, more = writer(ANSWER)
    large = np.random.default_rng(0).integers(90, 140, (200, 1600, 3)).astype(np.uint8)
    boxes = (Box(20, 80, 60, 120), Box(1500, 80, 1540, 120))
    step, filler, _, _ = filled(
        journal, boxes=boxes, picture=large, num_images=3, enhance="writer", more=more
    )  # fmt: skip
    assert len(one.jobs) == 1
    assert len(filler.jobs) == 6
    assert {job.prompt for job in filler.jobs} == {ANSWER}
    assert step.figures["enhance"]["prompt"] == ANSWER


def test_the_object_that_goes_is_not_shown_to_the_enhancer(journal: Journal) -> None:
    one, more = writer(ANSWER)
    filled(journal, enhance="writer", more=more)
    (job,) = one.jobs
    assert (job.picture[job.hole > 0] == 127).all()
    assert not ((job.picture[..., 0] > 180) & (job.picture[..., 1] < 80)).any()


def test_engines_without_prompts_ask_nobody(journal: Journal) -> None:
    one, more = writer(ANSWER)
    step, filler, _, _ = filled(journal, enhance="writer", more=more, prompt_kind="none")
    assert not one.jobs
    assert filler.jobs[0].prompt == ""
    assert "stand-in takes no prompt: nothing was enhanced" in step.notes
    step, _, _, _ = filled(journal, prompt="remove it", prompt_kind="none")
    assert not [note for note in step.notes if "tells what to do" in note]


def test_the_cards_own_prompt_is_not_enhanced(journal: Journal) -> None:
    one, more = writer(ANSWER)
    step, filler, _, _ = filled(journal, prompt="", enhance="writer", more=more)
    assert not one.jobs
    assert filler.jobs[0].prompt == "plain ground"
    assert any("nothing was enhanced" in note for note in step.notes)


@pytest.mark.parametrize("enhance", ["", "auto"])
def test_vague_prompts_get_a_hint(journal: Journal, enhance: str) -> None:
    step, _, _, _ = filled(journal, prompt="remove the car", enhance=enhance)
    assert any("describe what should be seen there" in note for note in step.notes)
    step, _, _, _ = filled(journal, prompt="an old car", enhance=enhance)
    assert not any("describe what" in note for note in step.notes)


def test_an_enhancer_that_fails_leaves_the_prompt_and_says_so(journal: Journal) -> None:
    one, more = writer(EngineError("writer: is out of order"))
    step, filler, _, _ = filled(journal, enhance="writer", more=more)
    assert filler.jobs[0].prompt == "a chair"
    (warning,) = (text for text in step.warnings if "writer" in text)
    assert "is out of order" in warning
    assert "as it was given" in warning
    assert len(one.jobs) == 1


def test_a_paid_answer_that_cannot_be_used_is_on_the_bill(journal: Journal) -> None:
    _, more = writer(EnhanceResult("", 0.25, trouble="no usable prompt came"))
    step, filler, _, _ = filled(journal, enhance="writer", more=more)
    assert filler.jobs[0].prompt == "a chair"
    assert step.price == 0.25
    assert any("no usable prompt came" in text for text in step.warnings)


def test_a_resumed_run_sends_the_same_prompt(journal: Journal) -> None:
    one, more = writer(EnhanceResult(ANSWER, 0.25), "another")
    step, first, name, _ = filled(journal, enhance="writer", more=more)
    again, second, _, _ = filled(journal, resumed=name, enhance="writer", more=more)
    assert len(one.jobs) == 1
    assert second.jobs[0].key == first.jobs[0].key
    assert (step.price, again.price) == (0.25, 0.0)
    _, third, _, _ = filled(journal, enhance="writer", more=more)
    assert third.jobs[0].prompt == "another", "a new run asks its enhancer"


def test_a_resumed_run_keeps_the_prompt_given_where_the_enhancer_had_failed(journal: Journal) -> None:
    one, more = writer(EngineError("writer: is out of order"), ANSWER)
    _, first, name, _ = filled(journal, enhance="writer", more=more)
    step, second, _, _ = filled(journal, resumed=name, enhance="writer", more=more)
    assert len(one.jobs) == 1
    assert second.jobs[0].key == first.jobs[0].key
    assert any("is out of order" in text for text in step.warnings)


def test_a_newer_enhancer_does_not_change_a_run_that_is_taken_up(journal: Journal) -> None:
    old, new = Writer(ANSWER), Writer("another")
    _, first, name, _ = filled(journal, enhance="writer", more={"writer": (card("writer", task="enhance"), old)})
    newer = {"writer": (card("writer", task="enhance", revision="2"), new)}
    _, second, _, _ = filled(journal, resumed=name, enhance="writer", more=newer)
    assert not new.jobs
    assert second.jobs[0].key == first.jobs[0].key


def test_cancelling_is_no_failure_of_the_enhancer(journal: Journal) -> None:
    _, more = writer(Cancelled())
    with pytest.raises(Cancelled):
        filled(journal, enhance="writer", more=more)


def test_an_unknown_enhancer_is_named() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'offline'"):
        engines.resolve("enhance", "ofline")


# Chat


def test_chat_is_told_of_prompt_and_hole(home: Path, journal: Journal) -> None:
    with ChatServer(said(f'<think>hm</think>\n**Prompt:** "{ANSWER}"')) as chat:
        use_chat(home, chat)
        step, filler, _, _ = filled(journal, enhance="chat")
    assert filler.jobs[0].prompt == ANSWER
    (asked,) = chat.asked
    assert asked.path == "/v1/chat/completions"
    assert asked.body["model"] == "writer"
    assert "a chair" in asked.text
    assert "The hole measures" in asked.text
    assert "image_url" not in asked.text
    assert "authorization" not in asked.headers
    assert step.figures["enhance"]["model"] == "writer"


def test_chat_shows_the_picture_where_the_model_takes_one(home: Path, journal: Journal) -> None:
    with ChatServer(said([{"type": "text", "text": ANSWER}])) as chat:
        use_chat(home, chat, pictures=True)
        _, filler, _, _ = filled(journal, enhance="chat")
    assert filler.jobs[0].prompt == ANSWER
    parts = chat.asked[0].body["messages"][-1]["content"]
    kind, _, data = parts[1]["image_url"]["url"].partition(",")
    assert kind == "data:image/jpeg;base64"
    picture = Image.open(io.BytesIO(base64.b64decode(data)))
    assert max(picture.size) <= 768
    assert not picture.getexif()


def test_the_same_question_is_asked_once(home: Path, journal: Journal) -> None:
    with ChatServer(said(ANSWER), said("another prompt")) as chat:
        use_chat(home, chat, price=0.5)
        first, _, _, _ = filled(journal, enhance="chat")
        second, filler, _, run = filled(journal, enhance="chat")
        assert (first.price, second.price, run.budget.spent) == (0.5, 0.0, 0.0)
        assert filler.jobs[0].prompt == ANSWER
        assert len(chat.asked) == 1
        _, filler, _, _ = filled(journal, enhance="chat", fresh=True)
        assert filler.jobs[0].prompt == "another prompt"
        _, filler, _, _ = filled(journal, enhance="chat", prompt="a stool")
        assert len(chat.asked) == 3


def test_a_price_counts_in_budget_and_bill(home: Path, journal: Journal) -> None:
    with ChatServer(said(ANSWER)) as chat:
        use_chat(home, chat, price=0.5)
        assert engines.resolve("enhance", "chat").price == Price(0.5)
        assert not engines.resolve("enhance", "chat").data_leaves_machine
        step, filler, _, run = filled(journal, enhance="chat", max_cost=0.4)
        assert not chat.asked
        assert filler.jobs[0].prompt == "a chair"
        assert any("limit of $0.4" in text for text in step.warnings)
        _, _, name, run = filled(journal, enhance="chat", max_cost=0.6)
        assert run.budget.spent == 0.5
        assert journal.paid(name) == (0.5, 0.0)


ODD = {
    "empty": said(""), "null": said(None), "refusal": said("I'm sorry, I cannot do that."), "question": said("What?"),
    "no choices": (200, b'{"choices": []}'), "wrong types": (200, b'{"choices": {"a": 1}}'), "list": (200, b"[1]"),
    "no json": (200, b"<html>hello</html>"), "cut off": said("a red chair and", finish_reason="length"),
    "only thoughts": said("<think>what now"), "number": said(5), "part": said([{"type": "text"}, 3]),
}  # fmt: skip


@pytest.mark.parametrize("answer", ODD.values(), ids=ODD)
def test_odd_answers_are_failures_and_cost_what_they_cost(
    home: Path, journal: Journal, answer: tuple[int, bytes]
) -> None:
    with ChatServer(answer) as chat:
        use_chat(home, chat, price=0.5)
        step, filler, name, run = filled(journal, enhance="chat")
    assert filler.jobs[0].prompt == "a chair"
    assert any("no usable prompt came" in text for text in step.warnings)
    assert (step.price, run.budget.spent) == (0.5, 0.5)
    assert journal.paid(name) == (0.5, 0.0)


@pytest.mark.parametrize(
    ("answer", "words", "perhaps"),
    [
        ((401, b'{"error": {"message": "bad key"}}'), "HTTP 401 .bad key.; `inpaint keys set chat`", False),
        ((404, b'{"error": "model not found"}'), "HTTP 404 .model not found.; check chat.base_url", False),
        ((429, b"slow down"), "HTTP 429", False),
        ((302, b"https://elsewhere.example.org/v1"), "HTTP 302; it leads elsewhere", False),
        ((500, b"{"), "HTTP 500: perhaps paid", True),
        (cut_off, "connection was lost .*perhaps paid", True),
        (endless, "more than 1048576 bytes: perhaps paid", True),
    ],
)
def test_what_the_endpoint_refuses_is_not_paid_and_what_is_lost_perhaps(
    home: Path, journal: Journal, answer: Any, words: str, perhaps: bool
) -> None:
    with ChatServer(answer) as chat:
        use_chat(home, chat, price=0.5)
        settings.store_key("chat", KEY)
        step, filler, name, run = filled(journal, enhance="chat")
        assert filler.jobs[0].prompt == "a chair"
        (warning,) = step.warnings
        assert re.search(words, warning)
        assert journal.paid(name) == (0.0, 0.5 if perhaps else 0.0)
        assert run.budget.spent == (0.5 if perhaps else 0.0)
        chat.answers[:] = [said(ANSWER)]
        step, filler, _, _ = filled(journal, enhance="chat")
        if perhaps:
            assert len(chat.asked) == 1, "what is perhaps paid is not sent again unasked"
            assert "perhaps paid" in step.warnings[0]
            _, filler, _, _ = filled(journal, enhance="chat", fresh=True)
        assert filler.jobs[0].prompt == ANSWER


def test_a_free_endpoint_is_simply_asked_again(home: Path, journal: Journal) -> None:
    with ChatServer(cut_off, said(ANSWER)) as chat:
        use_chat(home, chat)
        filled(journal, enhance="chat")
        _, filler, _, _ = filled(journal, enhance="chat")
    assert filler.jobs[0].prompt == ANSWER


def test_nobody_there(home: Path, journal: Journal) -> None:
    with ChatServer(said(ANSWER)) as chat:
        use_chat(home, chat, price=0.5)
    step, filler, name, run = filled(journal, enhance="chat")
    assert filler.jobs[0].prompt == "a chair"
    assert "cannot be reached" in step.warnings[0]
    assert (journal.paid(name), run.budget.spent) == ((0.0, 0.0), 0.0)


@pytest.mark.parametrize("slow", [None, dripping], ids=["hanging", "dripping"])
def test_an_answer_that_takes_too_long(home: Path, journal: Journal, slow: Any) -> None:
    with ChatServer(said(ANSWER)) as chat:
        chat.answers[:] = [slow or chat.hang]
        use_chat(home, chat, timeout=0.4)
        step, filler, _, _ = filled(journal, enhance="chat")
    assert filler.jobs[0].prompt == "a chair"
    assert "chat.timeout" in step.warnings[0] or "timed out" in step.warnings[0]


def test_waiting_can_be_cancelled(home: Path, journal: Journal) -> None:
    with ChatServer(said(ANSWER)) as chat, Run(journal=journal) as run:
        chat.answers[:] = [chat.hang]
        use_chat(home, chat, timeout=30.0)
        edit = Edit.of(photo())
        job = enhance_job(edit, Mask.from_box(edit.box, Box(38, 38, 72, 62)), "a chair", run.card("enhance", "chat"))

        def cancel() -> None:
            while not chat.asked:
                time.sleep(0.01)
            run.cancel()

        threading.Thread(target=cancel).start()
        with pytest.raises(Cancelled):
            run.enhancer(run.card("enhance", "chat")).enhance(job, run)


def test_the_key_goes_to_this_machine_and_stands_nowhere_else(
    home: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INPAINT_CHAT_API_KEY", KEY)
    echoed = json.dumps({"error": {"message": f"Incorrect API key provided: {KEY}"}}).encode()
    with ChatServer(said(ANSWER), (401, echoed)) as chat:
        use_chat(home, chat)
        fine, _, _, _ = filled(journal, enhance="chat")
        bad, _, _, _ = filled(journal, enhance="chat", prompt="a stool")
        assert chat.asked[0].headers["authorization"] == f"Bearer {KEY}"
        make_pictures()
        answer = call("enhance", "p.png", "--box", BOX, "--prompt", "a chair", "--enhancer", "chat")
    assert KEY not in repr((fine, bad)) + answer.text + answer.err
    assert "HTTP 401" in bad.warnings[0]
    journal.close()
    with sqlite3.connect(home / "state" / "journal.sqlite3") as database:
        assert KEY not in "\n".join(database.iterdump())


def test_the_key_is_never_sent_unencrypted_to_another_machine(
    home: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INPAINT_CHAT_API_KEY", KEY)
    with ChatServer((401, b"{}")) as chat:
        # A proxy stands in for the network between us and the other machine.
        monkeypatch.setenv("http_proxy", chat.url.removesuffix("/v1"))
        write_settings(home, chat={"base_url": "http://chat.example.org/v1", "model": "writer"})
        step, _, _, _ = filled(journal, enhance="chat")
    assert chat.asked[0].path.startswith("http://chat.example.org")
    assert "authorization" not in chat.asked[0].headers
    assert "use https" in step.warnings[0]


def test_only_this_machine_is_this_machine() -> None:
    for address in ("http://127.0.0.1:1", "http://localhost/v1", "http://[::1]:8/v1", "http://127.9.9.9"):
        assert is_loopback(address)
    for address in (
        "http://127.0.0.1.example.org",
        "http://127.example.org",
        "http://10.0.0.1",
        "http://localhost.x.y",
    ):
        assert not is_loopback(address)


def test_chat_without_a_model_cannot_run(home: Path) -> None:
    with pytest.raises(EngineError, match=r"set chat.model in .*settings.yaml"):
        engines.resolve("enhance", "chat")


# WaveSpeed


@pytest.fixture
def account(home: Path, service: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setenv("WAVESPEED_API_KEY", service.settings.key)
    write_settings(home, wavespeed={"base_url": service.url, "settle": 0.2, "patience": 20.0})
    return service


@pytest.mark.parametrize(
    ("name", "price"), [("wavespeed-prompt-optimizer", 0.001), ("wavespeed-molmo2-prompt-optimizer", 0.003)]
)
def test_the_services_optimizers_are_paid_once(account: Server, journal: Journal, name: str, price: float) -> None:
    step, filler, run_name, run = filled(journal, enhance=name)
    assert filler.jobs[0].prompt == "a chair, seen in the picture, soft natural light, sharp"
    (task,) = account.accepted
    assert "The hole measures" in task.inputs["text"]
    assert task.inputs["mode"] == "image"
    picture = account.media(task.inputs["image"])
    assert picture is not None
    assert picture.startswith(b"\x89PNG")
    assert (step.price, run.budget.spent, step.figures["enhance"]["id"]) == (price, price, task.id)
    assert journal.paid(run_name) == (pytest.approx(price), 0.0)
    again, other, _, _ = filled(journal, enhance=name)
    assert len(account.accepted) == 1
    assert again.price == 0.0
    assert other.jobs[0].key == filler.jobs[0].key
    assert not account.keys_leaked()


def test_a_service_that_fails_leaves_the_prompt(account: Server, journal: Journal) -> None:
    account.set(balance=0.0)
    step, filler, name, run = filled(journal, enhance="wavespeed-prompt-optimizer")
    assert filler.jobs[0].prompt == "a chair"
    assert "no credit left" in step.warnings[0]
    assert (run.budget.spent, journal.paid(name)) == (0.0, (0.0, 0.0))
    account.set(balance=10.0)
    _, filler, _, _ = filled(journal, resumed=name, enhance="wavespeed-prompt-optimizer")
    assert filler.jobs[0].prompt == "a chair"
    assert not account.accepted


# The command line


def test_the_verb_prints_the_prompt_alone(home: Path) -> None:
    make_pictures()
    answer = call("enhance", "p.png", "--mask", "m.png", "--prompt", "a chair")
    assert answer.code == 0
    (line,) = answer.text.splitlines()
    assert line.startswith("a chair, in the centre of the picture")
    assert "offline, free" in answer.err
    (run,) = json.loads(call("runs", "--json").text)
    assert (
        call("resume", run["id"]).sentence
        == f"run {run['id']}: was one of `inpaint enhance`, which is simply run again"
    )
    report = json.loads(call("enhance", "p.png", "--mask", "m.png", "--prompt", "add a chair", "--json").text)
    assert report["prompt"].startswith("add a chair")
    assert "tells what to do" in report["hint"]
    assert "66x66" in report["hole"]
    assert call("enhance", "-", "--box", BOX, "--prompt", "a", stdin=Path("p.jpg").read_bytes()).code == 0


def test_the_verb_says_what_it_cost(account: Server) -> None:
    make_pictures()
    arguments = (
        "enhance",
        "p.png",
        "--mask",
        "m.png",
        "--prompt",
        "a chair",
        "--enhancer",
        "wavespeed-prompt-optimizer",
    )
    assert "$0.001" in call(*arguments).err
    second = call(*arguments)
    assert second.text == "a chair, seen in the picture, soft natural light, sharp\n"
    assert "paid before" in second.err
    assert len(account.accepted) == 1
    assert call(*arguments, "--fresh").code == 0
    assert len(account.accepted) == 2
    assert "limit of $0.0005" in call(*arguments, "--fresh", "--max-cost", "0.0005").err


def test_what_the_verb_is_told_wrongly_is_an_error_and_an_enhancer_that_fails_leaves_the_prompt(home: Path) -> None:
    make_pictures()
    assert "set chat.model" in call("enhance", "p.png", "--box", BOX, "--prompt", "x", "--enhancer", "chat").sentence
    assert "say what should be there" in call("enhance", "p.png", "--box", BOX, "--prompt", " ").sentence
    assert "--prompt" in call("enhance", "p.png", "--box", BOX).sentence
    other = call("enhance", "p.png", "--box", BOX, "--prompt", "x", "--recipe", "swap-background").sentence
    assert other.startswith("--recipe swap-background: has no stage 'crop', so it fills no hole")
    with ChatServer(said("")) as chat:
        use_chat(home, chat)
        arguments = ("enhance", "p.png", "--mask", "m.png", "--prompt", "a chair", "--enhancer", "chat")
        answer = call(*arguments)
        assert (answer.code, answer.text) == (1, "a chair\n"), "a script that goes on has a prompt"
        assert answer.err.endswith(f"chat: {chat.url}: no usable prompt came; the prompt is as it was given\n")
        report = json.loads(call(*arguments, "--json").text)
        assert (report["prompt"], report["trouble"]) == ("a chair", f"{chat.url}: no usable prompt came")
        chat.answers[:] = [(500, b"{")]
        use_chat(home, chat, price=0.5)
        assert f"chat: {chat.url}: HTTP 500: perhaps paid; " in call(*arguments).err
        (line,) = (line for line in call("runs").text.splitlines() if "perhaps" in line)
        assert line.endswith("  0 of 1 photos, $0.5 perhaps paid"), "and no $0.000 paid"
        answer = call(*arguments)
        assert (
            "HTTP 500 (when it was last asked): perhaps paid; `inpaint enhance --recipe NAME --fresh` asks"
            in answer.err
        )
        assert (answer.code, answer.text, "free" in answer.err) == (1, "a chair\n", False)


@pytest.mark.parametrize(("recipe", "named"), [("replace-object", ()), ("add-content", ("--recipe", "add-content"))])
def test_the_verbs_answer_is_the_one_of_the_recipe(account: Server, recipe: str, named: tuple[str, ...]) -> None:
    make_pictures()
    hole = ("p.png", "--box", BOX, "--prompt", "a chair")
    assert "$0.001" in call("enhance", *hole, *named, "--enhancer", "wavespeed-prompt-optimizer").err
    options = ("-m", "wavespeed-flux-fill-dev", "--enhance", "wavespeed-prompt-optimizer", "--json", "-o", "out.png")
    (item,) = json.loads(call(recipe, *hole, *options).text)["items"]
    assert item["price"]["total"] == pytest.approx(0.035), "the enhancer was paid before"
    own = json.loads(call("enhance", *hole, "--dilate", "3", "--json").text)
    assert own["hole"] != json.loads(call("enhance", *hole, "--json").text)["hole"]


@pytest.mark.parametrize(
    "words",
    [
        ("--enhance", "p.png"), ("p.png", "--enhance"), ("--enhance", "offline", "p.png"), ("--enhance=auto", "p.png"),
        ("p.png", "--enhance", "--seed", "3"), ("--enhance", "--", "p.png"),
    ],
)  # fmt: skip
def test_a_bare_enhance_does_not_swallow_the_photo(words: tuple[str, ...]) -> None:
    make_pictures()
    arguments = ["remove-object", "--mask", "m.png", "--prompt", "a chair", "--json", "-o", "out.png"]
    answer = call(*arguments, *words)
    assert answer.code == 0, answer.err
    (item,) = json.loads(answer.text)["items"]
    fill = next(step for step in item["steps"] if step["stage"] == "fill")
    assert fill["parameters"]["enhance"] in ("auto", "offline")
    assert "patchmatch takes no prompt: nothing was enhanced" in fill["notes"]


@pytest.mark.parametrize("word", ["nope", "ofline", "p.jpgg"])
def test_a_word_behind_enhance_that_is_neither_enhancer_nor_photo_is_told_with_what_is_known(word: str) -> None:
    make_pictures()
    answer = call(
        "remove-object", "--mask", "m.png", "--prompt", "a chair", "--enhance", word, "p.png", "-o", "out.png"
    )
    assert answer.code == 2
    assert answer.sentence == (
        f"--enhance {word}: there is no enhancer and no photo of this name; enhancers: auto, chat, offline, "
        "wavespeed-molmo2-prompt-optimizer, wavespeed-prompt-optimizer"
    )


def test_a_dry_run_counts_a_paid_enhancer(account: Server) -> None:
    make_pictures()
    answer = call(
        "remove-object", "p.png", "--mask", "m.png", "--prompt", "a chair", "-m", "wavespeed-flux-fill-dev", "-n",
        "--json", "--enhance", "wavespeed-molmo2-prompt-optimizer",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    (item,) = json.loads(answer.text)["items"]
    assert item["price"]["total"] == pytest.approx(0.038)
    assert item["calls"] == 2
    fill = next(step for step in item["steps"] if step["stage"] == "fill")
    assert fill["figures"]["enhancer"] == "wavespeed-molmo2-prompt-optimizer"
    assert item["leaves_for"] == ["127.0.0.1"]
    assert not account.requests
