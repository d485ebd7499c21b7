"""The README's Python example runs, and its commands and recipe are the ones there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from toolkit import Recipe, library

README = Path(__file__).parent.parent / "README.md"


def test_the_python_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.S)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)
    assert (tmp_path / "cleaned.png").stat().st_size > 0


def test_the_recipe_shown_is_the_one_shipped() -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", README.read_text(encoding="utf-8"), re.S)
    shipped = Recipe.load("remove-object")
    assert Recipe.from_yaml(text).items == shipped.items


def test_every_verb_is_named() -> None:
    from toolkit.cli import _verbs

    text = README.read_text(encoding="utf-8")
    for verb in (*_verbs(), *library.names("recipes")):
        assert f"inpaint {verb}" in text, verb
