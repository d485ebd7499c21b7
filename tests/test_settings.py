"""Settings and keys."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from toolkit import settings
from toolkit.errors import EngineError, ParameterError

KEY = "wsk-0123456789abcdef"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("INPAINT_CONFIG", str(tmp_path))
    for variable in settings.KEYS.values():
        monkeypatch.delenv(variable, raising=False)
    return tmp_path


def test_everything_has_a_default(folder: Path) -> None:
    assert settings.load() == settings.Settings()
    (folder / "settings.yaml").write_text("# nothing yet\n")
    assert settings.load() == settings.Settings()


def test_settings_are_read(folder: Path) -> None:
    (folder / "settings.yaml").write_text(
        "wavespeed: {base_url: 'https://proxy.example.org/ws/', tier: gold}\nloras: {brand: [a/b, 'c/d:0.5']}\n"
    )
    found = settings.load()
    assert found.wavespeed.base_url == "https://proxy.example.org/ws"
    assert found.wavespeed.tier == "gold"
    assert found.loras == {"brand": ["a/b", "c/d:0.5"]}


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files count as changed long ago."""
    monkeypatch.setattr(settings, "_SETTLED", -3600.0)


@pytest.mark.usefixtures("settled")
def test_a_file_is_parsed_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "settings.yaml"
    path.write_text("wavespeed: {tier: gold}")
    settings.store_key("wavespeed", KEY)
    first, key = settings.load(), settings.key_for("wavespeed")
    monkeypatch.setattr(settings, "read_yaml", lambda path: pytest.fail("it is parsed again"))
    assert settings.load() is first
    assert settings.key_for("wavespeed") == key


@pytest.mark.usefixtures("settled")
def test_a_file_that_was_changed_is_parsed_again(folder: Path) -> None:
    path = folder / "settings.yaml"
    for change, tier in enumerate(("gold", "bronze", "silver")):
        if change < 2:
            path.write_text(f"wavespeed: {{tier: {tier}}}")
        else:  # of the same length, but another file
            (folder / "other").write_text(f"wavespeed: {{tier: {tier}}}")
            (folder / "other").replace(path)
        assert settings.load().wavespeed.tier == tier
    path.unlink()
    assert settings.load() == settings.Settings()
    path.write_text("wavespeed: {tier: platinum}")
    for _ in range(2):
        with pytest.raises(ParameterError, match="tier"):
            settings.load()


def test_changes_within_a_moment_are_all_seen(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "settings.yaml"
    path.write_text("chat: {timeout: 0}")
    found = path.stat()
    # Even where the file's times and size do not tell of it.
    monkeypatch.setattr(Path, "stat", lambda self, **options: found if self == path else os.stat(self))
    for seconds in range(1, 10):
        path.write_text(f"chat: {{timeout: {seconds}}}")
        assert settings.load().chat.timeout == seconds


@pytest.mark.usefixtures("settled")
@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX")
def test_keys_that_others_may_read_from_now_on_are_not_used() -> None:
    path = settings.store_key("wavespeed", KEY)
    assert settings.key_for("wavespeed") is not None
    path.chmod(0o644)
    with pytest.raises(EngineError, match="chmod 600"):
        settings.key_for("wavespeed")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("wavespeed: {tier: platinum}", "wavespeed.tier"),
        ("wavespeed: {base_url: 'http://example.org'}", "not encrypted"),
        ("wavespeed: {base_url: example.org}", "expected an address"),
        ("wavespeed: {base_url: 'https://'}", "expected an address"),
        ("wavespeed: {proxy: 'ftp://u:p@h:21'}", "schemes are http, https, socks4, socks4a, socks5, socks5h"),
        ("wavespeed: {proxy: 'u:p@proxy:3128'}", "wavespeed.proxy: expected an address such as http://"),
        ("wavespeed: {proxy: ['http://u:p@proxy:3128']}", "wavespeed.proxy: expected an address such as http://"),
        ("wavespeed: {proxy: 'http://proxy:port'}", "wavespeed.proxy: expected an address such as http://"),
        ("wavespeed: {proxy: 'https://proxy'}", "give its http:// address"),
        ("wavespeed: {speed: 3}", "no parameter 'speed'"),
        ("- 1", "expected settings by name"),
    ],
)
def test_wrong_settings_are_named_with_their_file(folder: Path, text: str, sentence: str) -> None:
    (folder / "settings.yaml").write_text(text)
    with pytest.raises(ParameterError, match=sentence) as problem:
        settings.load()
    assert "settings.yaml" in str(problem.value)
    assert "u:p" not in str(problem.value), "a password is not quoted"


def test_this_machine_needs_no_encryption(folder: Path) -> None:
    for address in ("http://127.0.0.1:8000", "http://localhost:8000", "http://[::1]:8000"):
        (folder / "settings.yaml").write_text(f"wavespeed: {{base_url: '{address}'}}")
        assert settings.load().wavespeed.base_url == address


def test_a_stored_key_is_for_its_owner_only(folder: Path) -> None:
    path = settings.store_key("wavespeed", f" {KEY}\n")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    found = settings.key_for("wavespeed")
    assert found is not None
    assert found.get_secret_value() == KEY
    assert KEY not in f"{found!r} {found}"
    settings.store_key("chat", "other")
    assert settings.key_for("wavespeed") == found
    settings.store_key("wavespeed", "")
    assert settings.key_for("wavespeed") is None
    assert settings.key_for("chat") is not None
    assert sorted(path.name for path in folder.iterdir()) == ["keys.yaml"]


def test_the_environment_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    settings.store_key("wavespeed", KEY)
    monkeypatch.setenv("WAVESPEED_API_KEY", "from-outside")
    found = settings.key_for("wavespeed")
    assert found is not None
    assert found.get_secret_value() == "from-outside"


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX")
def test_keys_others_can_read_are_not_used() -> None:
    settings.store_key("wavespeed", KEY).chmod(0o644)
    with pytest.raises(EngineError, match="chmod 600"):
        settings.key_for("wavespeed")


@pytest.mark.parametrize("key", ["two words", "line\nbreak", "schlüssel", "   "])
def test_what_cannot_be_a_key_is_refused_and_not_shown(key: str) -> None:
    with pytest.raises(EngineError, match="no usable key") as problem:
        settings.store_key("wavespeed", key)
    assert key.strip() == "" or key not in str(problem.value)
