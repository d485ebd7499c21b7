"""Answers of models that write, cut down to one prompt; and prompts that will not do."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from toolkit.prompts import MAX_LENGTH, cleaned, hint

PROMPT = "a red wooden chair by the wall, soft warm light"

WRAPPINGS = {
    "thoughts": "<think>\nThe user wants a chair.\nPrompt: maybe a blue one?\n</think>\n\n{}",
    "thoughts without a beginning": "The user wants a chair.</think>{}",
    "two thoughts": "<thinking>one</thinking><think>two</think> {}",
    "quotes": '"{}"',
    "curly quotes": "“{}”",
    "fence": "```\n{}\n```",
    "fence with a language": "```text\n{}\n```\nHope this helps!",
    "preamble": "Sure! Here is the rewritten prompt:\n\n{}",
    "preamble on the line": "Here's a prompt for the hole: {}",
    "label": "Prompt: {}",
    "bold label": "**Enhanced prompt:** {}",
    "label with a count": "Optimized Prompt (60 words):\n{}",
    "heading": "# Prompt\n\n{}",
    "numbered": "1. {}\n2. a blue chair of steel in cold light\n3. something else entirely",
    "versions": "Here are three versions:\n\n1) {}\n\n2) a blue chair",
    "bullet": "- {}",
    "explained": "{}\n\nThis prompt keeps the light of the photo.",
    "lines": "\n\n  {}  \n",
    "json": '{{"prompt": "{}"}}',
    "chatter": 'Certainly! Here is your prompt: "{}" Let me know if you want another.',
    "layers": '<think>hm</think>Sure!\n```text\nPrompt: "{}"\n```',
}


@pytest.mark.parametrize("wrapping", WRAPPINGS.values(), ids=WRAPPINGS)
def test_the_prompt_is_taken_out_of_what_is_around_it(wrapping: str) -> None:
    assert cleaned(wrapping.format(PROMPT)) == PROMPT


@pytest.mark.parametrize(
    "answer",
    [
        "", " \n ", "...", "a", "<think>never comes to an end: a red chair", "```\n```", "I'm sorry, but I can't help.",
        "I cannot describe this picture.", "As an AI language model, I", "What should be there?", "{}", "null",
        "<!DOCTYPE html><html><body>Bad gateway</body></html>", '{"prompt": ""}', "\x00\x01", "12345",
    ],
)  # fmt: skip
def test_no_prompt_in_it(answer: str) -> None:
    assert cleaned(answer) == ""


def test_short_points_are_one_prompt_and_long_ones_versions() -> None:
    assert cleaned("- a red chair\n- soft light\n* sharp focus.") == "a red chair, soft light, sharp focus"
    assert cleaned(f"- {PROMPT}\n- a blue chair of steel in cold light") == PROMPT


def test_words_that_belong_to_the_prompt_stay() -> None:
    for prompt in ('"OPEN" sign on a door', "a can of 7.5 cm", "a note: milk, eggs", "椅", "un chaise's leg — worn"):
        assert cleaned(prompt) == prompt


def test_a_long_one_ends_where_a_sentence_does() -> None:
    sentence = "A red chair stands here in the soft light of the afternoon. "
    short = cleaned(sentence * 40)
    assert len(short) <= MAX_LENGTH
    assert short == (sentence * (len(short) // len(sentence) + 1)).strip()
    assert len(cleaned("word " * 1000)) <= MAX_LENGTH
    assert len(cleaned("x" * 5000)) == MAX_LENGTH


PIECES = st.sampled_from(
    ["<think>", "</think>", "```", "```text\n", "\n", "\n\n", "- ", "1. ", "2) ", '"', "“", "”", "**", "Prompt: ", "# ",
     "Sure! ", "Here is the prompt:\n", "a red chair", "soft light", ", ", ". ", "{", "}", '{"prompt": "x y"}', "'",
     "`", "\u200b", "\r\n", "\u2028", "?", "椅子", "é"]
)  # fmt: skip


@given(st.one_of(st.text(), st.lists(PIECES, max_size=12).map("".join), st.text().map(lambda t: json.dumps({"p": t}))))
@example("<thi<think>x</think>nk> a chair")
@example('""a chair""')
def test_what_comes_out_is_one_clean_line(answer: str) -> None:
    prompt = cleaned(answer)
    assert len(prompt) <= MAX_LENGTH
    assert prompt == " ".join(prompt.split())
    assert "```" not in prompt
    assert "<think>" not in prompt.lower()
    assert not {"Cc", "Cs", "Co"} & {unicodedata.category(c) for c in prompt}
    assert cleaned(prompt) == prompt


@pytest.mark.parametrize(
    "prompt",
    ["something nice", "a", "the", "x", "???", "   ", "anything", "it", "Something better, please!", "high quality",
     "very beautiful", "whatever looks good", "a nice thing here"],
)  # fmt: skip
def test_prompts_that_say_too_little(prompt: str) -> None:
    assert "says too little" in hint(prompt)


@pytest.mark.parametrize(
    "prompt",
    ["remove the car", "Remove it", "please remove the people", "delete", "erase the watermark", "add a chair",
     "replace the bike with a red one", "get rid of this pole", "can you clean up the floor", "fill in the hole",
     "make it blue", "change the sky", "I want to remove the sign"],
)  # fmt: skip
def test_prompts_that_tell_what_to_do(prompt: str) -> None:
    assert "tells what to do" in hint(prompt)


@pytest.mark.parametrize(
    "prompt",
    ["a chair", "grass", "clean white wall", "no parking sign", "replacement window", "removed paint on old wood",
     "fixed gear bicycle", "make-up table", "added sugar in a bowl", "change machine", "fill flash portrait", "椅",
     "a picture", "cover of a book", "cut glass vase", "the it girl", "empty asphalt", "ein Stuhl", "стул",
     "background of the image, no objects, plain scene, photorealistic, high quality", "a new bicycle", "7 up can",
     "something blue and round", "a thing of brass", "put-in-bay ferry", "restored oldtimer", "42", "draw bridge"],
)  # fmt: skip
def test_prompts_that_describe_are_left_alone(prompt: str) -> None:
    assert hint(prompt) == ""
