"""Cards whose weights lie on loopback, in folders of their own, and what is promised of a file that was pulled."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from weight_server import Server

from toolkit import cards, fetching, weights
from toolkit.cards import Card
from toolkit.errors import EngineError, ToolkitError

CONTENT = bytes(range(256)) * 1200 + b"the end"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
OTHER = CONTENT[::-1]

CARD: dict[str, Any] = {
    "task": "segment", "adapter": "as_given", "about": "A network.", "revision": "1", "licence": "Apache-2.0",
    "commercial_use": True, "output_terms": "none", "data_leaves_machine": False, "concurrency": "gpu", "rank": 99,
    "terms": "https://example.org/terms",
}  # fmt: skip


@contextmanager
def quiet_home(folder: Path) -> Iterator[Path]:
    """An empty folder with cards and cache of its own, where nothing is waited for."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        monkeypatch.setenv("INPAINT_CONFIG", str(folder / "config"))
        monkeypatch.setenv("INPAINT_CACHE", str(folder / "cache"))
        monkeypatch.setattr(fetching, "_PAUSES", (0.0,))
        monkeypatch.setattr(fetching, "TRIES", 2)
        for variable in ("HF_TOKEN", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
            for name in (variable, variable.lower()):
                monkeypatch.delenv(name, raising=False)
        yield folder


def a_card(*files: dict[str, Any], name: str = "net", **fields: Any) -> Card:
    """A card in the user's folder, read as any other."""
    path = Path(os.environ["INPAINT_CONFIG"]) / "models" / "segment" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump({**CARD, **fields, "weights": list(files)}))
    return cards.find("segment", name)


def published(server: Server, **fields: Any) -> dict[str, Any]:
    return {
        "file": "net.pth", "url": server.url(), "sha256": SHA256, "source": "its authors", "bytes": len(CONTENT)
    } | fields  # fmt: skip


def unpublished(server: Server, **fields: Any) -> dict[str, Any]:
    return {"file": "net.pth", "url": server.url()} | fields


def proven(card: Card, content: bytes = CONTENT) -> None:
    """The file is there with its record, and nothing else but its lock."""
    assert weights.path(card).read_bytes() == content
    assert weights.checked_path(card) == weights.path(card)
    noted = weights.record(card)
    assert noted
    assert (noted.bytes, noted.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert sorted(path.name for path in weights.folder(card).iterdir()) == [
        "net.pth", "net.pth.lock", "net.pth.pulled.json",
    ]  # fmt: skip
    assert weights.missing(card) == ""


def refused(card: Card, kind: type[ToolkitError] = EngineError, **options: Any) -> str:
    """The sentence with which a pull ends, that has left no file."""
    with pytest.raises(kind) as caught:
        weights.pull(card, **options)
    assert type(caught.value) is kind
    assert not weights.path(card).exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def part(card: Card) -> Path:
    return weights.path(card).with_name("net.pth.part")
