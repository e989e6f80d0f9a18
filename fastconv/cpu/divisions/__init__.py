"""How a problem is divided: which register tile, which bands of rows and chunks of filters make a work item.

A file for each kind of kernel, named after the kernel's own: its `divide` takes a problem and a number of threads and gives
a `Division`, or, where the kernel knows several layouts, `filters_in_lanes`, `pixels_in_lanes` and so on do. The tiles are
tiles.py's; the choice among them, and among kernels, is by `cycles`, a model of what a problem costs in multiply-adds of a
vector, those for pixels and filters that do not exist included (costs.py). Results do not depend on a division, so their
bits do not depend on the threads.
"""

from fastconv.cpu.divisions import (
    blocks,
    columns,
    costs,
    depthwise,
    direct,
    gradients,
    grouped,
    phases,
    pointwise,
    separable,
    shares,
    signals,
    standard,
    strassen,
    transposed,
    winograd,
    winograd_gradients,
)

__all__ = [
    "blocks", "columns", "costs", "depthwise", "direct", "gradients", "grouped", "phases", "pointwise", "separable", "shares",
    "signals", "standard", "strassen", "transposed", "winograd", "winograd_gradients",
]  # fmt: skip
