"""LoRAs as they are written on the command line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.errors import ParameterError, UnknownNameError
from toolkit.lora import Lora, is_remote, parse, parsed


@pytest.mark.parametrize(
    ("text", "path", "scale"),
    [
        ("user/style", "user/style", 1.0),
        ("user/style:0.8", "user/style", 0.8),
        ("user/style:0", "user/style", 0.0),
        ("user/style:.5", "user/style", 0.5),
        ("user/style:1e-1", "user/style", 0.1),
        ("https://host/x.safetensors", "https://host/x.safetensors", 1.0),
        ("https://host/x.safetensors:2", "https://host/x.safetensors", 2.0),
        ("https://host:8443/x.safetensors", "https://host:8443/x.safetensors", 1.0),
        ("https://host:8443/x.safetensors:1.5", "https://host:8443/x.safetensors", 1.5),
        ("https://host:8443", "https://host:8443", 1.0),
        (r"C:\loras\x.safetensors", r"C:\loras\x.safetensors", 1.0),
        (r"C:\loras\x.safetensors:0.8", r"C:\loras\x.safetensors", 0.8),
        ("C:/loras/x.safetensors:2", "C:/loras/x.safetensors", 2.0),
        ("owner/name/sub/x.safetensors:0.8", "owner/name/sub/x.safetensors", 0.8),
        ("user/style:latest", "user/style:latest", 1.0),
    ],
)
def test_only_a_number_behind_the_last_colon_is_a_scale(text: str, path: str, scale: float) -> None:
    assert parse(text) == Lora(path, scale)


@given(st.from_regex(r"[a-z]{1,8}/[a-z][a-z0-9]{0,8}", fullmatch=True), st.integers(0, 400))
def test_every_scale_comes_back(path: str, hundredths: int) -> None:
    assert parse(f"{path}:{hundredths / 100}") == Lora(path, hundredths / 100)


def test_named_lists_stand_for_what_they_hold() -> None:
    named = {"brand": ["a/b:0.5", "c/d"]}
    assert parsed(["@brand", "e/f:2"], named) == (Lora("a/b", 0.5), Lora("c/d"), Lora("e/f", 2.0))
    with pytest.raises(UnknownNameError, match="did you mean 'brand'"):
        parsed(["@brnd"], named)


@pytest.mark.parametrize("text", ["", "  ", ":0.5"])
def test_nothing_is_no_lora(text: str) -> None:
    with pytest.raises(ParameterError, match="expected a path"):
        parse(text)


@pytest.mark.parametrize(
    ("path", "remote"),
    [
        ("user/style", True),
        ("https://host/x.safetensors", True),
        ("http://host/x.safetensors", True),
        ("https://host", False),
        ("ftp://host/x", False),
        ("style", False),
        ("./style.safetensors", False),
        ("/tmp/x.safetensors", False),
        ("user/style/more", False),
        ("user/", False),
    ],
)
def test_what_a_service_can_fetch(path: str, remote: bool) -> None:
    assert is_remote(path) is remote
