"""Atrous (dilated) convolution: the taps of a window lie `dilation` pixels apart, so that the same weights see a wider field.

The gaps need not be filled: these are the standard kernels with the taps' steps multiplied, no zeros stored, none multiplied.
"""

from fastconv.cuda.standard import direct_standard as direct_atrous
from fastconv.cuda.standard import tiled_standard as tiled_atrous

__all__ = ["direct_atrous", "tiled_atrous"]
