"""The public names are what they say, and come from one place each."""

from __future__ import annotations

import toolkit


def test_every_public_name_can_be_had() -> None:
    for name in toolkit.__all__:
        assert getattr(toolkit, name).__name__ == name


def test_names_of_the_type_checker_and_of_the_runtime_are_the_same() -> None:
    import ast
    from pathlib import Path

    tree = ast.parse(Path(toolkit.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    typed = {alias.asname for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert typed == set(toolkit.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(toolkit, "Msk")
