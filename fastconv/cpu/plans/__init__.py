"""What the plan knows of each kind of kernel; a file for each, named as the kernel's own.

    refuse      which problems it computes, or the reason why not
    pack        how the weights are laid out for it
    divide      how a problem becomes work items: which register tile, which bands of rows and chunks of filters
    cycles      what that should cost: to choose among tiles, and among kernels
    IMPLEMENTATIONS     all of it, as fastconv/plan.py asks for it; table.py has them in order

Where a file has several kernels the names begin with what lies in the lanes: `pixels_refuse`, `pixels_in_lanes`, `pixels_cycles`.
The tiles are tiles.py's. Costs are in multiply-adds of a vector, those for pixels and filters that do not exist included. Results
do not depend on a division, so their bits do not depend on the threads. rules.py, shares.py and costs.py serve all kinds.
"""

from fastconv.cpu.plans import (
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
    single,
    standard,
    strassen,
    transposed,
    winograd,
    winograd_gradients,
)

__all__ = [
    "blocks", "columns", "costs", "depthwise", "direct", "gradients", "grouped", "phases", "pointwise", "separable", "shares",
    "signals", "single", "standard", "strassen", "transposed", "winograd", "winograd_gradients",
]  # fmt: skip
