"""Hypothesis without wall-clock deadlines (the machines that run the tests are shared), and the stand-in service."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    import httpx
    from wavespeed_server import Server
    from weight_server import Server as FileServer

settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


@pytest.fixture(autouse=True, scope="session")
def own_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Settings, keys and journal of the tests, not of whoever runs them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INPAINT_CONFIG", str(tmp_path_factory.mktemp("configuration")))
        patch.setenv("INPAINT_STATE", str(tmp_path_factory.mktemp("state")))
        patch.setenv("INPAINT_CACHE", str(tmp_path_factory.mktemp("cache")))
        for variable in ("WAVESPEED_API_KEY", "HF_TOKEN"):
            patch.delenv(variable, raising=False)
        yield


@pytest.fixture
def service() -> Iterator[Server]:
    """The WaveSpeed API's stand-in on loopback, for one test."""
    from wavespeed_server import Server

    with Server() as server:
        yield server


@pytest.fixture
def http(service: Server) -> Iterator[httpx.Client]:
    """A bare client of the stand-in that carries its key and trusts no proxy."""
    import httpx

    key = {"Authorization": f"Bearer {service.settings.key}"}
    with httpx.Client(base_url=service.url, headers=key, trust_env=False, timeout=30) as client:
        yield client


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A folder with configuration and cache of its own, where nothing is waited for; it is the working folder."""
    from weight_cards import quiet_home

    with quiet_home(tmp_path) as folder:
        yield folder


@pytest.fixture
def server() -> Iterator[FileServer]:
    """A server of one file on loopback."""
    from weight_cards import CONTENT
    from weight_server import Server

    with Server(CONTENT) as one:
        yield one


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Tiny networks on one thread: with more, the threads wait for each other longest."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
