"""Hypothesis without wall-clock deadlines (the machines that run the tests are shared), and the stand-in service."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    import httpx
    from wavespeed_server import Server

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
