"""Small ONNX networks with the inputs and outputs of the salient-subject ones: random, or sensible without training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper


def _value(name: str, shape: tuple[int | str, ...]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))


def _constant(name: str, values: npt.NDArray[Any] | list[Any], kind: str = "float32") -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(values, kind), name)


def _save(path: Path, nodes: list[Any], constants: list[Any], given: Any, answers: list[Any]) -> Path:
    graph = helper.make_graph(nodes, "network", [given], answers, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path


def random_network(
    path: Path, size: int | str, *, logits: bool = False, channels: int = 1, bias: float = 0.0, scale: float = 1.0,
    inputs: int = 3, outputs: int = 1, answer: str = "output_image",
) -> Path:  # fmt: skip
    """Two convolutions with fixed random weights; with `outputs` > 1 side outputs follow the first, as of U^2-Net."""
    random = np.random.default_rng(3)
    first = random.normal(0, 0.6, (4, inputs, 3, 3))
    second = random.normal(0, 0.5 * scale, (channels, 4, 3, 3))
    nodes = [
        helper.make_node("Conv", ["input_image", "first"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "second", "bias"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Identity" if logits else "Sigmoid", ["c"], [answer]),
    ]
    shape = (1, channels, size, size)
    answers = [_value(answer, shape)]
    for number in range(1, outputs):
        nodes.append(helper.make_node("Neg", ["c"], [f"side{number}"]))
        answers.append(_value(f"side{number}", shape))
    constants = [_constant("first", first), _constant("second", second), _constant("bias", [bias] * channels)]
    return _save(path, nodes, constants, _value("input_image", (1, inputs, size, size)), answers)


def contrast_network(path: Path, size: int, *, threshold: float = 1.0, steepness: float = 12.0) -> Path:
    """Logits of how far colours are from the mean of the picture's border, smoothed: right for products on paper.

    Takes what BiRefNet takes: (1, 3, size, size), less the mean and divided by the deviation of ImageNet.
    """
    margin = max(1, size // 32)
    ring = np.ones((1, 1, size, size))
    ring[..., margin:-margin, margin:-margin] = 0
    nodes = [
        helper.make_node("Mul", ["input_image", "ring"], ["masked"]),
        helper.make_node("ReduceSum", ["masked", "sides"], ["mean"], keepdims=1),
        helper.make_node("Sub", ["input_image", "mean"], ["away"]),
        helper.make_node("Mul", ["away", "away"], ["squares"]),
        helper.make_node("ReduceSum", ["squares", "colours"], ["square"], keepdims=1),
        helper.make_node("Sqrt", ["square"], ["distance"]),
        helper.make_node("AveragePool", ["distance"], ["smooth"], kernel_shape=[5, 5], pads=[2, 2, 2, 2]),
        helper.make_node("Sub", ["smooth", "threshold"], ["above"]),
        helper.make_node("Mul", ["above", "steepness"], ["output_image"]),
    ]
    constants = [
        _constant("ring", ring / ring.sum()),
        _constant("sides", [2, 3], "int64"),
        _constant("colours", [1], "int64"),
        _constant("threshold", threshold),
        _constant("steepness", steepness),
    ]
    given = _value("input_image", (1, 3, size, size))
    return _save(path, nodes, constants, given, [_value("output_image", (1, 1, size, size))])
