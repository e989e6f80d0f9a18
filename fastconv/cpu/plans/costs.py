"""What all kernels take time for besides their products, in multiply-adds of a vector."""

from __future__ import annotations

from fastconv.cpu import machine
from fastconv.problem import Problem

# A sum takes as long as so many products more: it is begun, and put. Of 8 channels of groups 1.3 times as long as its products.
SHORT = 2.5
COPY, TURN = 3.0, 7.0  # for a vector of numbers: to copy it, and to transpose it with its neighbours and store it
# What sums take to be turned, by their type: a square of float64 is half as large. 256 channels in 32 groups at 28 x 28 took 560 us
# with filters in lanes, of which 1.98 million cycles 1.81 are products and 0.08 copies; with pixels in lanes 635. All else that is
# turned, images, rows and gradients, was measured in float32 alone: TURN stands for both types.
TURN_SUMS = {"float32": TURN, "float64": 4.0}
# For a vector that is stored where it belongs, channels last: of whole pixels, and for each piece of one. 110 x 110 x 128 of 27
# numbers took 1042 us in pieces of two vectors, 859 in pieces of four, though those are 4 % slower to sum up.
WHOLE, PIECE = 1.0, 20.0
# To pack a vector of numbers; to transform one channel's taps of a vector of filters.
PACK, TRANSFORM_TAPS = 30.0, 150.0
# Bytes of weights, of all groups, that a core takes in while it multiplies a vector: of those that fit L2, at most an EIGHTH of L3,
# half of it, and from memory. Fitted to 45 layers by Winograd's form, each with eight tiles: the one that is chosen takes 1.01
# of the best one's time, 1.13 at most. The last are 31 GB/s: at half as much a decoder's layers of 512 channels, 7x7 and 14x14,
# went to tiles, and took a fifth longer.
STREAM, EIGHTH = (32.0, 18.0, 13.0, 8.5), 1 / 8


def panels_packing(problem: Problem) -> float:
    """Of the weights of a kernel that takes them as they are."""
    return PACK * problem.parameters / machine.lanes(problem.dtype)
