"""The user's settings and keys: `settings.yaml` and `keys.yaml` in the configuration folder."""

from __future__ import annotations

import ipaddress
import os
import stat
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from toolkit import disk
from toolkit.errors import EngineError, OutputError, ParameterError, RecipeError
from toolkit.library import configuration_folder
from toolkit.schema import Model, build, read_text, read_yaml, write_yaml

T = TypeVar("T")
Tier = Literal["bronze", "silver", "gold", "ultra"]

KEYS: Mapping[str, str] = {
    "wavespeed": "WAVESPEED_API_KEY",
    "chat": "INPAINT_CHAT_API_KEY",
    "huggingface": "HF_TOKEN",
}
"""Services that take a key, and the environment variable that goes before the stored one."""

PROXIES = ("http", "https", "socks4", "socks4a", "socks5", "socks5h")
"""Schemes of the proxies that can be used."""

_SETTLED = 3.0
"""Seconds after a file was changed until its times would tell of another change, on any file system."""

_made: dict[Path, tuple[tuple[int, ...], Any]] = {}


def _address(value: str) -> str:
    """A base URL without a slash at its end.

    Raises:
        ValueError: when it is none, or would send a key unencrypted through a network.
    """
    try:
        parts = urlsplit(value.strip())
        host = parts.hostname or ""
    except ValueError:
        parts, host = urlsplit(""), ""
    if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment or parts.username:
        raise ValueError(f"expected an address such as https://api.example.org, got {value!r}")
    return value.strip().rstrip("/")


def is_loopback(address: str) -> bool:
    """Whether an address is this machine's own."""
    host = urlsplit(address).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name, and 127.0.0.1.example.org is one too
        return False


class WaveSpeed(Model):
    """The WaveSpeed REST API."""

    base_url: str = Field(default="https://api.wavespeed.ai", description="where it is; https unless on this machine")
    proxy: str = Field(default="", description="proxy for all its traffic, e.g. http://proxy.example.org:3128")
    tier: Tier = Field(default="bronze", description="account level, which says how many calls may run and start")
    settle: float = Field(
        default=20.0, ge=0, le=600, description="seconds until a submission that is not listed was certainly not taken"
    )
    patience: float = Field(default=900.0, gt=0, le=86400, description="seconds a prediction is waited for")

    @field_validator("base_url")
    @classmethod
    def _base_url(cls, value: str) -> str:
        address = _address(value)
        if not address.startswith("https://") and not is_loopback(address):
            raise ValueError(f"{value!r} is not encrypted and would give your key away; use https")
        return address

    @field_validator("proxy", mode="before")
    @classmethod
    def _proxy(cls, value: Any, info: ValidationInfo) -> Any:
        try:
            value = value.strip()
            by = urlsplit(value)
            usable = by.scheme in PROXIES and by.hostname and by.port != 0
        except (ValueError, AttributeError):
            usable = False
        if value and not usable:  # it is not quoted back: it may hold a password
            raise ValueError(
                "expected an address such as http://proxy.example.org:3128 or socks5://127.0.0.1:1080; the schemes are "
                f"{', '.join(PROXIES)}"
            )
        if value and by.scheme == "https" and info.data.get("base_url", "").startswith("https://"):
            raise ValueError("an https:// proxy takes no encrypted traffic within its own; give its http:// address")
        return value


class Chat(Model):
    """An OpenAI-compatible chat endpoint that writes prompts: Ollama, llama.cpp, vLLM or a hosted one."""

    base_url: str = Field(default="http://127.0.0.1:11434/v1", description="up to and with /v1")
    model: str = Field(default="", description="as the endpoint calls it")
    pictures: bool = Field(default=False, description="the model can look at a picture")
    price: float = Field(default=0.0, ge=0, description="dollars a call, for the bill and the brake")
    timeout: float = Field(default=120.0, gt=0, le=3600, description="seconds")

    @field_validator("base_url")
    @classmethod
    def _base_url(cls, value: str) -> str:
        return _address(value)


class Settings(Model):
    """What `settings.yaml` holds; everything has a default."""

    wavespeed: WaveSpeed = WaveSpeed()
    chat: Chat = Chat()
    loras: dict[str, list[str]] = Field(default={}, description="lists of LoRAs by name, used as --lora @name")
    weights: dict[str, str] = Field(
        default={}, description="by model, the folder its weights lie in, or the one .safetensors file that is its own"
    )

    @field_validator("weights")
    @classmethod
    def _weights(cls, value: dict[str, str]) -> dict[str, str]:
        for name, path in value.items():
            if not _unfolded(path).is_absolute():
                raise ValueError(f"{name}: expected a whole path, from / or ~ on, got {path!r}")
        return value

    def weights_of(self, task: str, name: str) -> Path | None:
        """Where the user says that a model's weights lie; None where that is not said."""
        path = self.weights.get(f"{task}/{name}", self.weights.get(name))
        return None if path is None else _unfolded(path)


def _unfolded(path: str) -> Path:
    """A path with ~ as the home folder; as it is where there is none."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


_DEFAULTS = Settings()


def settings_file() -> Path:
    """Where `load` reads them; there need be none."""
    return configuration_folder() / "settings.yaml"


def load() -> Settings:
    """The user's settings; the defaults where there is no file.

    Raises:
        ParameterError: naming the file and field of what is wrong.
    """
    path = settings_file()
    try:
        found = _kept(path, _settings)
    except OSError as problem:
        raise ParameterError(f"{path}: cannot be read: {problem.strerror or problem}") from None
    return _DEFAULTS if found is None else found


def _settings(path: Path) -> Settings:
    values = read_yaml(path)
    if values is None:
        return _DEFAULTS
    if not isinstance(values, dict):
        raise ParameterError(f"{path}: expected settings by name")
    return build(Settings, values, str(path))


def key_for(service: str) -> SecretStr | None:
    """The key of a service: its environment variable, else the stored one; None where there is neither.

    Raises:
        EngineError: when the stored keys can be read by others or not understood, or the key cannot be one.
    """
    variable = KEYS[service]
    if given := os.environ.get(variable):
        return SecretStr(_proper(given, variable))
    path = _key_file()
    key = (_kept(path, _keys) or {}).get(service)
    return SecretStr(_proper(key, str(path))) if key else None


def _keys(path: Path) -> dict[str, str | None]:
    if os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise EngineError(f"{path}: can be read by others; run `chmod 600 {path}`")
    return _read_keys(path)


def _read_keys(path: Path) -> dict[str, str | None]:
    """The keys in a file by service; what else it holds is not quoted back: it may be one."""
    try:
        stored = read_yaml(read_text(path))
    except RecipeError:
        stored = ""
    stored = {} if stored is None else stored
    if not isinstance(stored, dict) or not all(isinstance(key, str | None) for key in stored.values()):
        raise EngineError(
            f"{path}: expected lines such as `wavespeed: KEY`, a key of digits alone in quotes; correct it, or remove "
            "it and run `inpaint keys set`"
        )
    return stored


def key_place(service: str) -> str:
    """Where the key of a service comes from: "environment variable NAME", its file, or "" where there is none.

    Raises:
        EngineError: as `key_for`.
    """
    if os.environ.get(KEYS[service]):
        return f"environment variable {KEYS[service]}"
    return str(_key_file()) if key_for(service) else ""


def stored_keys() -> dict[str, str | None]:
    """The keys in their file by service, whoever may read it.

    Raises:
        EngineError: when that cannot be understood.
    """
    path = _key_file()
    return _read_keys(path) if path.is_file() else {}


def store_key(service: str, key: str) -> Path:
    """Keep a key in a file that only its owner can read; an empty one is forgotten. Returns the file.

    Raises:
        EngineError: when it cannot be a key, or the file holds what cannot be understood.
        OutputError: when it cannot be written.
    """
    path = _key_file()
    keys = {name: value for name, value in stored_keys().items() if name != service}
    if key:
        keys[service] = _proper(key, "the key")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(write_yaml(keys))
            file.flush()
            disk.sync(file.fileno())
        os.replace(temporary, path)
    except OSError as problem:
        raise OutputError(f"{path}: cannot be written: {problem.strerror or problem}") from None
    return path


def _kept(path: Path, make: Callable[[Path], T]) -> T | None:
    """What `make` makes of a file, and makes anew once the file was changed; None where there is none.

    Raises:
        OSError: when it cannot be looked at.
    """
    now = time.time()
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    mark = (found.st_mode, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    known = _made.get(path)
    value: T = known[1] if known and known[0] == mark else make(path)
    if now - max(found.st_mtime, found.st_ctime) > _SETTLED:
        _made[path] = mark, value
    return value


def _key_file() -> Path:
    return configuration_folder() / "keys.yaml"


def _proper(key: str, place: str) -> str:
    """The key without white space around it; what could not stand in a header is refused, and never shown."""
    key = key.strip()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise EngineError(f"{place}: holds no usable key: one is plain letters, digits and signs without spaces")
    return key
