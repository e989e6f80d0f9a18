"""One step of training an autoencoder: forward, backward, Adam; beside the same network in torch."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import fastconv as fc
from fastconv.autoencoder import _Adam
from fastconv.bench.compare import best_in_turn
from fastconv.cpu.threads import get_num_threads, num_threads

LEARNING_RATE = 1e-3


@dataclass(frozen=True)
class Step:
    """A network, and the batch of pictures that it learns from: (images, channels, size, size)."""

    channels: tuple[int, ...]
    x_shape: tuple[int, int, int, int]
    separable: bool = False


STEPS = {
    "grey_16": Step((16, 8), (32, 1, 16, 16)),
    "rgb_32": Step((32, 16), (32, 3, 32, 32)),
    "rgb_64": Step((32, 64, 16), (32, 3, 64, 64)),
    "rgb_64_separable": Step((32, 64, 16), (32, 3, 64, 64), separable=True),
}


def ours(step: Step) -> Callable[[], float]:
    """One step of `fastconv.ConvAutoencoder`, which gives the squared error before it.

    >>> step = ours(Step((4, 2), (2, 1, 8, 8)))
    >>> step() > step() > 0
    True
    """
    x = np.random.default_rng(0).random(step.x_shape, np.float32)
    model = fc.ConvAutoencoder(step.x_shape[1], step.channels, separable=step.separable, rng=0)
    adam = _Adam(list(model._arrays().values()), LEARNING_RATE)
    return lambda: model._step(x, adam)


def theirs(step: Step) -> Callable[[], object]:
    """One step of the same network in torch, with its fused form of Adam."""
    torch = importlib.import_module("torch")
    nn, before = torch.nn, step.x_shape[1]
    layers: list[Any] = []
    for stage, after in enumerate(step.channels):
        if step.separable:
            wide = before * -(-after // before)
            layers += [nn.Conv2d(before, wide, 3, 2, 1, groups=before, bias=False), nn.Conv2d(wide, after, 1)]
        else:
            layers.append(nn.Conv2d(before, after, 3, 2, 1))
        layers += [nn.ReLU()] if stage < len(step.channels) - 1 else []
        before = after
    for after in (*step.channels[-2::-1], step.x_shape[1]):
        layers += [nn.ConvTranspose2d(before, after, 3, 2, 1, output_padding=1), nn.ReLU()]
        before = after
    model = nn.Sequential(*layers[:-1])
    x, adam = torch.rand(step.x_shape), torch.optim.Adam(model.parameters(), LEARNING_RATE, fused=True)

    def call() -> object:
        adam.zero_grad()
        loss = nn.functional.mse_loss(model(x), x)
        loss.backward()
        adam.step()
        return loss.detach()

    return call


def ratio_to_torch(step: Step, seconds: float = 0.5, threads: int | None = None) -> float:
    """Torch's time of a step over fastconv's, measured in turn."""
    with num_threads(get_num_threads() if threads is None else threads):
        importlib.import_module("torch").set_num_threads(get_num_threads())
        times = best_in_turn({"fastconv": ours(step), "torch": theirs(step)}, seconds)
    return times["torch"] / times["fastconv"]
