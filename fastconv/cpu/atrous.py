"""Atrous (dilated) convolution: the taps of a window lie `dilation` pixels apart, so that the same weights see a wider field.

The gaps need not be filled: this is the standard kernel with its row and column steps multiplied, no zeros stored, none
multiplied, and it costs what the undilated layer costs.
"""

from fastconv.cpu.standard import direct_standard as direct_atrous
from fastconv.cpu.standard import direct_standard_last as direct_atrous_last

__all__ = ["direct_atrous", "direct_atrous_last"]
