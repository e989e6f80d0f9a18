"""Gradients with respect to inputs and weights, and whole steps of training."""

import importlib.util

import fastconv as fc
from fastconv.bench.training import STEPS, ours, ratio_to_torch

from .common import SECONDS, Layers, of_kind


class Gradients(Layers):
    params = [name for name in of_kind("transposed", "weights") if name.startswith("grad")]


class Training:
    params, param_names = list(STEPS), ("network",)

    def setup(self, name):
        fc.set_num_threads(1)
        self.step = ours(STEPS[name])
        self.step()

    def time_step(self, name):
        self.step()

    def track_ratio_to_torch(self, name):
        return ratio_to_torch(STEPS[name], SECONDS)

    def skip_without_torch(name):
        if importlib.util.find_spec("torch") is None:
            raise NotImplementedError

    track_ratio_to_torch.setup, track_ratio_to_torch.unit = skip_without_torch, "torch's time over fastconv's"
    del skip_without_torch
