"""Whole steps of training an autoencoder: forward, backward, Adam."""

import importlib.util

from .common import SECONDS, set_threads

from fastconv.bench.training import STEPS, ours, ratio_to_torch  # isort: skip  (common says which fastconv.bench)


class Training:
    params, param_names = list(STEPS), ("network",)
    rounds, repeat = 1, (3, 20, 0.5)

    def setup(self, name):
        set_threads(1)
        self.step = ours(STEPS[name])
        self.step()

    def time_step(self, name):
        self.step()


class TrainingBesideTorch:
    params, param_names = list(STEPS), ("network",)

    def setup(self, name):
        if importlib.util.find_spec("torch") is None:
            raise NotImplementedError("pip install torch")

    def track_time_over_torch(self, name):
        return round(1 / ratio_to_torch(STEPS[name], SECONDS, threads=1), 4)

    track_time_over_torch.unit = "x torch's time"
