"""Hand-written convolution kernels for NumPy arrays: every kind of convolution layer, compiled by Numba.

>>> import numpy as np, fastconv as fc
>>> fc.conv2d(np.ones((1, 3, 8, 8), np.float32), np.ones((4, 3, 3, 3), np.float32), padding=1, activation="relu").shape
(1, 4, 8, 8)
"""

from fastconv import cuda, grad, reference
from fastconv.autoencoder import ConvAutoencoder
from fastconv.cpu.threads import get_num_threads, get_threading, num_threads, set_num_threads, set_threading
from fastconv.embed import njit as _njit  # noqa: F401 - which lets Numba know of the functions
from fastconv.explain import explain
from fastconv.functional import (
    atrous_conv2d,
    conv1d,
    conv2d,
    conv3d,
    conv_transpose1d,
    conv_transpose2d,
    conv_transpose3d,
    depthwise_conv1d,
    depthwise_conv2d,
    depthwise_conv3d,
    pointwise_conv2d,
    separable_conv2d,
)
from fastconv.interop import from_onnx, from_torch
from fastconv.layers import (
    Conv1d,
    Conv2d,
    Conv3d,
    ConvTranspose1d,
    ConvTranspose2d,
    ConvTranspose3d,
    DepthwiseConv2d,
    PointwiseConv2d,
    SeparableConv2d,
)
from fastconv.problem import Problem

__version__ = "0.1.0"

__all__ = [
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvAutoencoder",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "DepthwiseConv2d",
    "PointwiseConv2d",
    "Problem",
    "SeparableConv2d",
    "__version__",
    "atrous_conv2d",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "cuda",
    "depthwise_conv1d",
    "depthwise_conv2d",
    "depthwise_conv3d",
    "explain",
    "from_onnx",
    "from_torch",
    "get_num_threads",
    "get_threading",
    "grad",
    "num_threads",
    "pointwise_conv2d",
    "reference",
    "separable_conv2d",
    "set_num_threads",
    "set_threading",
]
