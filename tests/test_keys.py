"""`inpaint keys`: stored for the owner only, never an argument, never shown whole."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from commands import Answer, call

from toolkit import settings

KEY = "wsk-0123456789abcdef-WXYZ"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("INPAINT_CONFIG", str(tmp_path / "config"))
    for variable in settings.KEYS.values():
        monkeypatch.delenv(variable, raising=False)
    return tmp_path


def shown(answer: Answer, key: str = KEY) -> bool:
    """Whether more than the last four characters of the key are said."""
    return key[-5:] in answer.text + answer.err


def stored(service: str) -> str:
    key = settings.key_for(service)
    return key.get_secret_value() if key else ""


@pytest.mark.parametrize("given", [KEY, f"{KEY}\n", f"  {KEY}\r\nmore"])
def test_a_key_is_piped_in(home: Path, given: str) -> None:
    answer = call("keys", "set", "wavespeed", stdin=given.encode())
    assert answer.code == 0, answer.err
    assert stored("wavespeed") == KEY
    assert not shown(answer)
    path = home / "config" / "keys.yaml"
    assert str(path) in answer.err
    if os.name == "posix":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("given", [b"", b"\n", b"two words\n", b"\xff\xfe\n", "schlüssel\n".encode()])
def test_what_is_no_key_is_refused(given: bytes) -> None:
    answer = call("keys", "set", "chat", stdin=given)
    assert answer.code == 1
    assert answer.sentence
    assert stored("chat") == ""


@pytest.mark.parametrize("arguments", [("set", "wavespeed", KEY), ("set", KEY), ("forget", KEY)])
def test_a_key_as_an_argument_is_refused_and_not_repeated(arguments: tuple[str, ...]) -> None:
    answer = call("keys", *arguments, stdin=b"other-key\n")
    assert answer.code == 2
    assert not shown(answer)
    assert stored("wavespeed") == ""


def test_a_terminal_asks_without_echo(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pty = pytest.importorskip("pty")
    from commands import PYTHON, ROOT

    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        os.environ["PYTHONPATH"] = str(ROOT)
        os.execv(PYTHON[0], [*PYTHON, "keys", "set", "wavespeed"])
    said = b""
    while b"Key for wavespeed" not in said:
        said += os.read(terminal, 1000)
    os.write(terminal, f"{KEY}\n".encode())
    try:
        while part := os.read(terminal, 1000):
            said += part
    except OSError:
        pass
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert KEY[-5:].encode() not in said
    assert stored("wavespeed") == KEY


def test_the_list_shows_place_and_end(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.store_key("wavespeed", KEY)
    monkeypatch.setenv("INPAINT_CHAT_API_KEY", "abcdefgh")
    answer = call("keys", "list")
    assert not shown(answer)
    chat, _, wavespeed = answer.text.splitlines()
    assert "...WXYZ from" in wavespeed
    assert str(home / "config" / "keys.yaml") in wavespeed
    assert "environment variable INPAINT_CHAT_API_KEY" in chat
    assert "fgh" not in chat, "of a short key less is shown"


def test_the_list_says_what_is_missing_or_unsafe(home: Path) -> None:
    assert "keys set wavespeed" in call("keys", "list").text
    if os.name == "posix":
        settings.store_key("wavespeed", KEY).chmod(0o644)
        answer = call("keys", "list")
        assert answer.code == 0
        assert "chmod 600" in answer.text
        assert not shown(answer)


@pytest.mark.parametrize("text", ["wavespeed: !{} x", "wavespeed: *{}", "{}: x\n{}: y", "wavespeed: 123", "- {}"])
@pytest.mark.parametrize("verb", [("list",), ("set", "wavespeed"), ("forget", "wavespeed")])
def test_a_file_that_is_no_list_of_keys_is_said_and_not_quoted(home: Path, verb: tuple[str, ...], text: str) -> None:
    path = settings.store_key("wavespeed", KEY)
    path.write_text(text.replace("{}", KEY))
    answer = call("keys", *verb, stdin=b"other-key\n")
    assert f"{path}: expected lines such as `wavespeed: KEY`" in answer.text + answer.err
    assert answer.code == (0 if verb == ("list",) else 1)
    assert not shown(answer)
    assert path.read_text() == text.replace("{}", KEY)


@pytest.mark.parametrize("data", [f"wavespeed: {KEY}".encode("utf-16"), b"wavespeed: \xff", b"false", b"0"])
def test_a_file_in_another_encoding_or_of_something_else_is_said(home: Path, data: bytes) -> None:
    path = settings.store_key("wavespeed", KEY)
    path.write_bytes(data)
    for verb in (("keys", "list"), ("models",)):
        answer = call(*verb)
        assert answer.code == 0
        assert f"{path}: expected lines such as `wavespeed: KEY`" in answer.text
        assert not shown(answer)


def test_forgetting(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.store_key("wavespeed", KEY)
    settings.store_key("chat", "another-key-0123")
    monkeypatch.setenv("WAVESPEED_API_KEY", "from-outside")
    answer = call("keys", "forget", "wavespeed")
    assert answer.code == 0
    assert answer.err == (
        f"wavespeed: its key was taken out of {home / 'config' / 'keys.yaml'}\n"
        "  warning: the environment variable WAVESPEED_API_KEY still holds one, which is used\n"
    )
    monkeypatch.delenv("WAVESPEED_API_KEY")
    assert call("keys", "forget", "wavespeed").err == "wavespeed: no key was stored\n"
    assert stored("wavespeed") == ""
    assert stored("chat") == "another-key-0123"


def test_the_environment_goes_before_what_is_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAVESPEED_API_KEY", "from-outside")
    answer = call("keys", "set", "wavespeed", stdin=KEY.encode())
    assert "goes before it" in answer.err
