"""The CPU's implementations; of two that cost the same the first is taken.

The direct kernels read any image by its steps, and write rows: along the columns of one filter where channels come first,
along the filters of one pixel where they come last. The tiled kernels read sheets (sheets.py), or pixels in place; their tiles
are in tiles.py; what each of them refuses, how it is divided and what it should cost, in the file of its kind in plans/.
"""

from __future__ import annotations

from fastconv.cpu.plans import (
    blocks,
    columns,
    depthwise,
    direct,
    gradients,
    grouped,
    phases,
    pointwise,
    separable,
    signals,
    single,
    standard,
    strassen,
    transposed,
    winograd,
    winograd_gradients,
)
from fastconv.plan import Implementation

IMPLEMENTATIONS: tuple[Implementation, ...] = (
    *columns.IMPLEMENTATIONS,
    *winograd.IMPLEMENTATIONS,
    *phases.IMPLEMENTATIONS,
    *signals.IMPLEMENTATIONS,
    *grouped.IMPLEMENTATIONS,
    *strassen.IMPLEMENTATIONS,
    *single.IMPLEMENTATIONS,
    *pointwise.IMPLEMENTATIONS,
    *depthwise.IMPLEMENTATIONS,
    *standard.IMPLEMENTATIONS,
    *separable.IMPLEMENTATIONS,
    *direct.IMPLEMENTATIONS,
    *transposed.IMPLEMENTATIONS,
    *blocks.IMPLEMENTATIONS,
    *winograd_gradients.IMPLEMENTATIONS,
    *gradients.IMPLEMENTATIONS,
)
