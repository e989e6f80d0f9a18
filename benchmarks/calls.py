"""What a call costs beside its arithmetic, on images of five pixels a side, where there is next to none."""

import numpy as np
from numba import errors, njit

import fastconv as fc

from .common import BesidePeers, find, segment, set_threads, step

# Every public function, as it is called with nothing but image and weights.
TINY = {
    "conv1d": "conv1d,n1c1i5f1k3",
    "conv2d": "conv2d,n1c1i5f1k3",
    "conv3d": "conv3d,n1c1i5f1k3",
    "depthwise_conv1d": "conv1d,n1c2i5f2k3g2",
    "depthwise_conv2d": "conv2d,n1c2i5f2k3g2",
    "depthwise_conv3d": "conv3d,n1c2i5f2k3g2",
    "pointwise_conv2d": "conv2d,n1c2i5f2k1",
    "separable_conv2d": "conv2d,n1c2i5f2k3g2+conv2d,n1c2i3f2k1",
    "atrous_conv2d": "conv2d,n1c1i5f1k3d2",
    "conv_transpose1d": "transposed1d,n1c1i5f1k3",
    "conv_transpose2d": "transposed2d,n1c1i5f1k3",
    "conv_transpose3d": "transposed3d,n1c1i5f1k3",
}


class Calls:
    params, param_names = list(TINY), ("function",)
    rounds, repeat = 1, (3, 20, 0.3)

    def setup(self, name):
        set_threads(1)
        problem = find(TINY[name])[1]
        filled = segment([problem])
        self.x, self.weights = filled.x, [c.weight for c in filled.convolutions]
        self.function, self.layer = getattr(fc, name), step(filled.convolutions)
        self.out = np.empty(problem.out_shape, np.float32)
        self.function(self.x, *self.weights), self.layer(self.x)

    def time_function(self, name):
        self.function(self.x, *self.weights)

    def time_layer(self, name):
        self.layer(self.x)

    def time_layer_with_out(self, name):
        self.layer(self.x, self.out)


class JittedCalls:
    rounds, repeat = 1, (3, 20, 0.3)

    def setup(self):
        set_threads(1)
        self.x, self.weight = np.ones((1, 5, 5), np.float32), np.ones((1, 1, 3, 3), np.float32)
        try:
            thousand_calls(self.x, self.weight)
        except errors.TypingError as error:  # a commit whose functions jitted code cannot call
            raise NotImplementedError(str(error)) from error

    def time_thousand_calls(self):
        thousand_calls(self.x, self.weight)


@njit
def thousand_calls(x, weight):
    for _ in range(1000):
        fc.conv2d(x, weight)


class CallsBesidePeers(BesidePeers):
    layers = list(TINY.values())
