"""Prompts as text: what a model that writes answered, cut down to one prompt, and prompts that will not do."""

from __future__ import annotations

import json
import re
import unicodedata

MAX_LENGTH = 700
"""Characters of a prompt that an enhancer may write; FLUX reads about 512 tokens."""

_KEPT = "\n\t\u200c\u200d"
_THOUGHT = re.compile(r"<(think|thinking|thought|reasoning)\b[^>]*>.*?(?:</\1\s*>|\Z)", re.S | re.I)
_END_OF_THOUGHT = re.compile(r"\A.*</(?:think|thinking|thought|reasoning)\s*>", re.S | re.I)
_FENCE = re.compile(r"```[a-z]*[ \t]*\n(.*?)(?:```|\Z)|```(.*?)```", re.S | re.I)
_NUMBER = re.compile(r"\s*\(?\d{1,2}[.)][ \t]+")
_BULLET = re.compile(r"\s*[-*•–][ \t]+")
_WHAT = r"(?:(?:your|the|my|an?|here)\s+)?(?:\w+\s+){0,2}(?:prompt|description|answer|version|rewrite)"
_LABEL = re.compile(rf"\s*(?:#+\s*)?{_WHAT}\s*(?:\d{{1,2}}\s*)?(?:\([^()]*\)\s*)?:\s*", re.I)
_PREAMBLE = re.compile(
    r"\s*(?:sure|certainly|of course|okay|ok|absolutely|here(?:'s|’s| is| are)|below is|i(?:'ve| have))\b"
    r"[^:\n\"]{0,160}:\s*",
    re.I,
)
_EAGER = re.compile(r"\s*(?:sure|certainly|of course|okay|absolutely)(?: thing)?[!.,]\s+", re.I)
_QUOTES = (('"', '"'), ("'", "'"), ("“", "”"), ("‘", "’"), ("«", "»"), ("„", "“"), ("`", "`"))
_QUOTED = re.compile(r"[\"“]([^\"“”]+)[\"”]\s+(?:let me|this |these |i |hope|feel free|note|would|\()", re.I)
_REFUSAL = re.compile(
    r"(?:i'?m |i am )?(?:very )?sorry\b|(?:unfortunately,? )?i (?:cannot|can['’]?t|won['’]?t|do not|don['’]?t)\b"
    r"|i(?:['’]m| am) (?:unable|not able)|as an? (?:ai|language model)|<(?:!doctype|html)\b"
    r"|(?:error|null|none|undefined|n/a)\W*\Z",
    re.I,
)


def cleaned(answer: str) -> str:
    """The one prompt in what a model answered, on one line of at most `MAX_LENGTH` characters; "" where there is none.

    Thoughts, fences, labels, quotes, markup and what is said before and after are left away. Of numbered versions the
    first is taken; short bullet points are parts of one prompt. Refusals, questions and pages are no prompts.
    Cleaning twice changes nothing more.
    """
    text = answer
    while (less := _shortened(_barer(text))) != text:
        text = less
    letters = sum(c.isalpha() for c in text)
    is_some = letters > 1 or (letters == 1 and not text.isascii())  # one sign may be a word, one Latin letter is none
    return text if is_some and not _REFUSAL.match(text) and not text.endswith("?") else ""


def _barer(text: str) -> str:
    """`text` with one layer less around the prompt; never longer."""
    text = "".join(c for c in text if c in _KEPT or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co"))
    text = _END_OF_THOUGHT.sub("", _THOUGHT.sub("", text)).strip()
    fence = _FENCE.search(text)
    if fence:
        return (fence[1] or fence[2] or "").strip() or (text[: fence.start()] + text[fence.end() :]).strip()
    if text.startswith("{") and (found := _from_json(text)) is not None:
        return found
    text = text.replace("```", "").replace("**", "").replace("__", "").strip()
    for pattern in (_PREAMBLE, _LABEL, _EAGER):
        found_at = pattern.match(text)
        if found_at and text[found_at.end() :].strip():
            return text[found_at.end() :].strip()
    if "\n" in text:
        return _one_line(text)
    for pattern in (_NUMBER, _BULLET, re.compile(r"#+[ \t]+")):
        if (found_at := pattern.match(text)) and text[found_at.end() :].strip():
            return text[found_at.end() :].strip()
    if (quoted := _QUOTED.match(text)) and len(quoted[1].split()) > 2:
        return quoted[1].strip()
    for first, last in _QUOTES:
        inner = text[1:-1]
        if len(text) > 2 and text[0] == first and text[-1] == last and first not in inner and last not in inner:
            return inner.strip()
    return " ".join(text.split())


def _one_line(text: str) -> str:
    """Several lines as one: the first paragraph, or what its list says."""
    paragraphs = [part for part in re.split(r"\n\s*\n", text) if part.strip()]
    lines = [line for line in paragraphs[0].splitlines() if line.strip()]
    if len(paragraphs) > 1 and lines[-1].rstrip().endswith(":"):  # it announces what comes
        return "\n\n".join(paragraphs[1:])
    if lines[0].lstrip().startswith("#") or (lines[0].rstrip().endswith(":") and len(lines) > 1):
        return "\n\n".join(("\n".join(lines[1:]), *paragraphs[1:]))
    if _NUMBER.match(lines[0]):
        entry = lines[:1]
        for line in lines[1:]:
            if _NUMBER.match(line):
                break
            entry.append(line)
        return " ".join(line.strip() for line in entry)
    items = [_BULLET.sub("", line, count=1).strip(" .;,") for line in lines if _BULLET.match(line)]
    if len(items) == len(lines) and len(items) > 1:
        short = sorted(len(item.split()) for item in items)[len(items) // 2] <= 5
        return ", ".join(items) if short else items[0]
    return " ".join(line.strip() for line in lines)


def _from_json(text: str) -> str | None:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return None
    texts = {key: value for key, value in values.items() if isinstance(value, str)}
    found = next((texts[key] for key in texts if "prompt" in key.lower()), next(iter(texts.values()), ""))
    return found if len(found) < len(text) else None


def _shortened(text: str) -> str:
    """Cut where a sentence, else a part of one, else a word ends."""
    if len(text) <= MAX_LENGTH:
        return text
    head = text[: MAX_LENGTH + 1]
    for pattern, keep in ((r"[.!]\s", 1), (r"[,;]\s", 0), (r"\s", 0)):
        ends = [found.start() + keep for found in re.finditer(pattern, head)]
        if ends and ends[-1] >= MAX_LENGTH // 2:
            return head[: ends[-1]].rstrip(" ,;")
    return head[:MAX_LENGTH].rstrip()


_EMPTY = frozenset(
    "a an the and or of in on for to with some any no my your its it this that these those there here one thing things "
    "something anything everything nothing stuff whatever someone somewhere please just very really so too more most "
    "much else other another different new nice nicer good better best beautiful pretty lovely cool great awesome "
    "amazing perfect fine ok okay random normal look looks looking like is be make made fix do fill quality high "
    "realistic photorealistic detailed masterpiece professional hd hdr 4k 8k prompt test asdf".split()
)
_DETERMINER = r"(?:the|a|an|this|that|these|those|it|them|all|any|every|everything|my|his|her|their|our|some|more|me)"
_INSTRUCTION = re.compile(
    r"(?:please\s+|can you\s+|could you\s+|i want(?: you)? to\s+|i(?:'d| would) like(?: you)? to\s+)*"
    rf"(?:(?:remove|delete|erase|get rid of|take out|take away|replace)(?:\s|\Z)"
    rf"|(?:add|put|insert|place|fix|repair|change|make|fill|clean|turn|swap|hide|cover|blur|edit|improve|enhance"
    rf"|fill in|clean up|restore|move|draw|paint|generate|create|give)\s+{_DETERMINER}(?:\W|\Z))",
    re.I,
)


def hint(prompt: str) -> str:
    """What is wrong with a prompt that says too little, or tells what to do; "" for any other.

    It is meant to miss some rather than to bother anyone whose prompt describes something.
    """
    words = re.findall(r"[^\W_]+(?:['’][^\W_]+)?", prompt.lower())
    if not words or all(word in _EMPTY or (len(word) == 1 and word.isascii() and word.isalpha()) for word in words):
        return f"prompt {prompt.strip()!r} says too little: describe what should be seen there, e.g. 'a wooden chair'"
    if _INSTRUCTION.match(prompt.strip()):
        return (
            f"prompt {prompt.strip()!r} tells what to do, but the engine paints what it names: describe what should be "
            "seen there, e.g. 'empty asphalt'"
        )
    return ""
