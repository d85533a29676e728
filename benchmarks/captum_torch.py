"""Captum's side of `benchmarks.captum`: it runs in an environment of its own, with torch, and never sees TensorFlow.

Keras runs on torch there. The second network is the same ResNet50 as a torch user writes it, in torch's fastest layout
on a processor (channels_last), with the same weights.
"""

from __future__ import annotations

import resource
import time
from typing import Any

import captum.attr
import keras
import numpy as np
import torch
from torch import nn

LAYER = "conv4_block6_out"
BLOCKS = {"conv2": (3, 64, 1), "conv3": (4, 128, 2), "conv4": (6, 256, 2), "conv5": (3, 512, 2)}


def measure(
    network: str,
    method: str,
    steps: int,
    folder: str,
    target: int,
    save: str,
    rows: int | None = None,
    frozen: bool = True,
) -> dict[str, Any]:
    """One attribution of `method` (LayerIntegratedGradients or LayerConductance), timed after a short one.

    Args:
      network: "keras" or "torch".
      method: The class of `captum.attr`.
      steps: Its `n_steps`.
      folder: Where `weights.weights.h5` and `x.npy` are.
      target: The class.
      save: Where the attribution goes, channels last.
      rows: Its `internal_batch_size`.
      frozen: Record nothing for the weights: its best. A user who does not think of it pays in memory.
    """
    model = _keras(folder)
    if network == "torch":
        model = _as_torch(model)
    model.eval().requires_grad_(not frozen)
    x = torch.from_numpy(np.load(f"{folder}/x.npy"))
    if network == "torch":
        x = x.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
    layer = model.get_layer(LAYER) if network == "keras" else getattr(model, LAYER)
    explainer = getattr(captum.attr, method)(model, layer)
    options = {"baselines": 0, "target": target, "internal_batch_size": rows}
    explainer.attribute(x, n_steps=2, **options)
    start = time.perf_counter()
    found = explainer.attribute(x, n_steps=steps, **options)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    with torch.no_grad():
        change = (model(x) - model(torch.zeros_like(x)))[:, target]
    found = found.permute(0, 2, 3, 1) if network == "torch" else found
    error = (found.sum((1, 2, 3)) - change).abs()
    np.save(save, found.detach().numpy())
    return {
        "seconds": seconds,
        "peak": peak,
        "error": float(error.mean() / change.abs().mean()),
        "threads": torch.get_num_threads(),
        "versions": {"torch": torch.__version__, "captum": captum.__version__, "keras": keras.__version__},
    }


def _keras(folder: str) -> Any:
    model = keras.applications.ResNet50(weights=None)
    model.load_weights(f"{folder}/model.weights.h5")
    return model


class _Block(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int, first: bool) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, stride), nn.BatchNorm2d(width, eps=1.001e-5)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width, eps=1.001e-5)
        self.conv3, self.bn3 = nn.Conv2d(width, 4 * width, 1), nn.BatchNorm2d(4 * width, eps=1.001e-5)
        self.conv0, self.bn0 = nn.Identity(), nn.Identity()
        if first:
            self.conv0, self.bn0 = nn.Conv2d(inputs, 4 * width, 1, stride), nn.BatchNorm2d(4 * width, eps=1.001e-5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        y = torch.relu(self.bn2(self.conv2(y)))
        return torch.relu(self.bn0(self.conv0(x)) + self.bn3(self.conv3(y)))


class _ResNet50(nn.Module):
    """Keras's ResNet50, blocks named as there."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1_conv, self.conv1_bn = nn.Conv2d(3, 64, 7, 2, 3), nn.BatchNorm2d(64, eps=1.001e-5)
        self.pool, self.blocks, inputs = nn.MaxPool2d(3, 2, 1), [], 64
        for stack, (count, width, stride) in BLOCKS.items():
            for number in range(1, count + 1):
                first = number == 1
                self.blocks.append(f"{stack}_block{number}_out")
                self.add_module(self.blocks[-1], _Block(inputs, width, stride if first else 1, first))
                inputs = 4 * width
        self.predictions = nn.Linear(inputs, 1000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(torch.relu(self.conv1_bn(self.conv1_conv(x))))
        for name in self.blocks:
            x = getattr(self, name)(x)
        return torch.softmax(self.predictions(x.mean((2, 3))), -1)


def _as_torch(model: Any) -> nn.Module:
    ours = _ResNet50()
    _copy(model, "conv1_conv", ours.conv1_conv)
    _copy(model, "conv1_bn", ours.conv1_bn)
    _copy(model, "predictions", ours.predictions)
    for name in ours.blocks:
        block = getattr(ours, name)
        for number in range(4):
            if isinstance(getattr(block, f"conv{number}"), nn.Conv2d):
                _copy(model, name.replace("out", f"{number}_conv"), getattr(block, f"conv{number}"))
                _copy(model, name.replace("out", f"{number}_bn"), getattr(block, f"bn{number}"))
    return ours.to(memory_format=torch.channels_last)


def _copy(model: Any, name: str, module: nn.Module) -> None:
    first, second, *moments = (torch.from_numpy(np.asarray(w)) for w in model.get_layer(name).get_weights())
    if first.ndim > 1:
        first = first.permute(3, 2, 0, 1) if first.ndim == 4 else first.T
    with torch.no_grad():
        module.weight.copy_(first)
        module.bias.copy_(second)
        for moment, given in zip(("running_mean", "running_var"), moments, strict=False):
            getattr(module, moment).copy_(given)
