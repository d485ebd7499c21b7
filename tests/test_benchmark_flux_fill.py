"""The benchmark of FLUX Fill at tiny size on the processor: that it runs, and what it counts is what there is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import flux_eight_bits, flux_fill, flux_prediction
from benchmarks.flux_fill import PARTS, Scale
from benchmarks.flux_prediction import Live
from tests import flux_networks

pytestmark = pytest.mark.usefixtures("one_thread")


def test_all_parts_run_and_no_figure_of_a_gpu_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = flux_fill.main(folder=tmp_path, tiny=True)
    figures = json.loads((tmp_path / "tiny" / "figures.json").read_text())
    assert set(figures) == {*PARTS, "prediction", "bits"}
    assert figures["fast"]["computed"] in range(1, Scale(False).steps + 1)
    assert figures["exact"]["difference"][0] <= 1
    assert "these times mean nothing" in capsys.readouterr().out
    for row in rows:
        assert row.kept is None
        counted = "settings.memory" in row.what or "cache" in row.what or "error of" in row.ours
        assert counted or row.ours == "not measured", row


def test_figures_of_tiny_size_are_never_told_of_as_a_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flux_fill.main(parts=("make", "exact"), folder=tmp_path, tiny=True)
    counted = json.loads((tmp_path / "tiny" / "figures.json").read_text())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(flux_fill, "prediction", lambda tiny: counted["prediction"])
    monkeypatch.setattr(flux_fill, "bits", lambda place, tiny: counted["bits"])
    rows = flux_fill.main(parts=(), folder=tmp_path)
    assert {row.ours for row in rows if row.what.endswith(": exact")} == {"not measured"}


def test_a_part_runs_in_a_process_of_its_own(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.flux_fill", "--part", "rate", "--folder", str(tmp_path), "--tiny"]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(answer.stdout.splitlines()[-1])["rate"] > 0


def test_what_a_gpu_gave_is_in_the_table() -> None:
    memory = {"reserved": 24.0, "used": 24.5}
    need = {
        "full": 22.3, "quantized": 11.3, "offload": 1.5, "encoders": 9.2, "denoise": 0.46, "decode": 1.5, "tile": 0.4,
        "spare": 1.0,
    }  # fmt: skip
    figures: dict[str, Any] = {
        "rate": {"rate": 790e12, "card": "a card"}, "attention": {"attention": {"native": 0.001, "flash": "none"}},
        "plain": {"first": 30.0, "seconds": 5.6, **memory},
        "exact": {
            "first": 60.0, "seconds": 3.6, "attention": "native", "batches": {"1": 3.6, "2": 3.5},
            "difference": (3, 0.1), **memory,
        },
        "prediction": {
            "operations": {"step": 74.4e12, "encode": 4.9e12, "decode": 10.5e12}, "need": need,
            "found": {"step x1": 0, "step fast": 0},
        },
        "bits": {"errors": {"a": dict.fromkeys(flux_eight_bits.WAYS, 0.01)},
                 "levels": dict.fromkeys(flux_eight_bits.WAYS, (1, 0.1))},
    }  # fmt: skip
    rows = {row.what.removeprefix("FLUX Fill"): row for row in flux_fill.rows(figures, True, False)}
    limit = (28 * 74.4 + 2 * 4.9 + 10.5) / 790
    assert rows[" 1024x1024, 28 steps: exact"].ratio == f"{3.6 / limit:.2f}"
    assert rows[" 1024x1024, 28 steps: exact"].kept
    assert rows[" 1024x1024, 28 steps: plain diffusers"].kept
    assert (rows[": peak memory, full"].ratio, rows[": peak memory, full"].kept) == ("-1.2%", True)
    assert rows[": peak memory, offload"].ours == "not measured"
    assert rows[": attention of a block"].ours == "native 1.00 ms"


class TestCounting:
    def test_what_lives_at_one_time_is_counted_once(self) -> None:
        given = torch.empty(256)
        with Live([given]) as live:
            one = given + 1
            view = one[10:].reshape(2, -1)
            other = one * 2
            assert live.now == 2 * 1024
            del one
            assert live.now == 2 * 1024  # a view holds it
            del view
            assert live.now == 1024
            given.add_(other)
            del other
            assert (live.now, live.peak) == (0, 2 * 1024)

    def test_a_tensor_without_memory_counts_as_one_with_it(self) -> None:
        pipe = flux_networks.build()
        architecture = flux_prediction.architecture(pipe)
        peaks = {}
        for device in ("cpu", "meta"):
            with flux_prediction.made(device, torch.float32):
                transformer, vae = flux_prediction.parts(architecture)
                peaks[device] = [
                    flux_prediction.peak(transformer, flux_prediction.step(transformer, (64, 96), words=16)),
                    flux_prediction.peak(vae, flux_prediction.encode(vae, (64, 96))),
                    flux_prediction.peak(vae, flux_prediction.decode(vae, (64, 96))),
                ]
        assert peaks["cpu"] == pytest.approx(peaks["meta"], rel=0.01)

    def test_weights_are_all_that_is_saved(self) -> None:
        transformer = flux_networks.build().transformer
        saved = sum(value.nbytes for value in transformer.state_dict().values())
        assert flux_prediction.weights(transformer) == saved
        parts = [flux_prediction.weights(transformer, blocks=blocks) for blocks in (True, False)]
        assert sum(parts) == saved


class TestFewerBits:
    @pytest.mark.parametrize(("way", "most"), [("int8", 0.01), ("fp8", 0.05), ("nf4", 0.12)])
    def test_errors_are_of_the_size_that_the_bits_allow(self, way: str, most: float) -> None:
        error = flux_eight_bits.errors({"a": (96, 256)})["a"][way]
        assert most / 10 < error < most

    def test_every_level_of_four_bits_is_kept(self) -> None:
        levels = torch.tensor(flux_eight_bits._NF4)
        weight = (levels.repeat(4) * 3).reshape(4, 16)
        assert torch.equal(flux_eight_bits.nf4(weight), weight)
