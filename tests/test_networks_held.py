"""Networks that threads share: who waits can be cancelled, and what torch raises is one sentence."""

from __future__ import annotations

import threading

import pytest

from toolkit.engines.pretrained import Held
from toolkit.errors import Cancelled, EngineError
from toolkit.run import Run


class Network:
    """Counts its moves."""

    def __init__(self, device: str) -> None:
        self.places = [device]

    def to(self, device: str) -> None:
        self.places.append(device)


def test_lack_of_memory_is_one_sentence_and_lets_the_next_one_in() -> None:
    held = Held("made-up", Network)
    with Run(device="cpu") as run:
        with (
            pytest.raises(EngineError, match=r"^made-up: its network could not be run on cpu \(no memory left\)$"),
            held.at(run),
        ):
            raise RuntimeError("no memory left.\nTried to allocate much")
        with held.at(run) as network, held.at(run) as again:
            assert network is again
            assert network.places == ["cpu"]


def test_who_waits_for_a_network_can_be_cancelled() -> None:
    held, ended = Held("made-up", Network), []
    with Run(device="cpu") as run:
        other = run.child("other")

        def wait() -> None:
            try:
                with held.at(other):
                    ended.append("had it")
            except Cancelled:
                ended.append("cancelled")

        with held.at(run):
            thread = threading.Thread(target=wait)
            thread.start()
            other.cancel()
            thread.join(10)
            assert ended == ["cancelled"]
