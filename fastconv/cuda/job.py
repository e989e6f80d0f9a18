"""What a kernel is told: one named tuple that says where the arrays lie, and the geometry of the problem.

Every CUDA kernel is `kernel(job)`, and reads `job.stride` and the like as the CPU's do (cpu/job.py). Geometry is always
three-dimensional: a plane has depth 1, a line height 1 too. Arrays are rows of memory; `*_first`, `*_image`, `*_channel` and
`*_steps` say where in them a number lies, so that any strided view, and both data formats, are read and written as they are.

Direct kernels get int64 and serve any size. Tiled kernels get int32, which takes half the registers and instructions, and are
not chosen for arrays of 2^31 numbers or more.
"""

from __future__ import annotations

from typing import Any, NamedTuple

Three = tuple[int, int, int]  # depth, height, width


class Job(NamedTuple):
    """Arrays first, then the problem, then how the arrays lie.

    A kernel reads what its launcher has filled in. The other fields are 0, and the other arrays are all `out`, because each has to
    be an array of the right type.
    """

    x: Any
    weight: Any
    bias: Any
    residual: Any
    out: Any
    grad: Any  # the second input of a gradient
    terms: Any  # two int32 a term of a tiled product, see indices.py
    inner_weight: Any  # of a separable layer's depthwise part; `weight`, `bias` and `filters` are the pointwise part's
    inner_bias: Any
    low: Any  # numbers of the activation, in the arrays' dtype
    high: Any
    inner_low: Any
    inner_high: Any
    batch: int
    groups: int
    channels: int  # of one group
    filters: int  # of one group
    space: Three
    out_space: Three
    kernel: Three
    stride: Three
    before: Three
    dilation: Three
    lines: Three  # of taps that may lie outside the image, in each dimension
    phases: int  # of a tiled transposed convolution; 1 for all others
    phase_step: Three  # how far the taps of one phase lie apart in the kernel
    x_first: int
    x_image: int
    x_channel: int
    x_steps: Three
    weight_first: int
    weight_group: int
    weight_filter: int
    weight_channel: int
    weight_steps: Three
    out_first: int  # within an image; a residual lies as the result does, and a bias per pixel as one image of it
    out_image: int
    out_filter: int
    out_steps: Three
    grad_first: int
    grad_image: int
    grad_channel: int
    grad_steps: Three
    multiplier: int  # of a separable layer's depthwise part
    inner_first: int  # how the weight of that part lies
    inner_filter: int
    inner_steps: Three
    panels: int  # of packed weights a group has
    slices: int  # of terms that a tiled product has
    split: int  # how many of them one block computes
    out_split: int  # numbers from the sums of one split to those of the next
    last: int  # 1 if the result is channels last


ARRAYS = ("x", "weight", "bias", "residual", "out", "grad", "terms", "inner_weight", "inner_bias")
NUMBERS = ("low", "high", "inner_low", "inner_high")
THREES = (
    "space", "out_space", "kernel", "stride", "before", "dilation", "lines", "phase_step",
    "x_steps", "weight_steps", "out_steps", "grad_steps", "inner_steps",
)  # fmt: skip


def fill(values: dict[str, Any], number: Any, integer: Any) -> Job:
    """A job whose numbers have these two types; see `Job` for what is not given."""
    values = {"phases": 1} | values

    def field(name: str) -> Any:
        if name in ARRAYS:
            return values.get(name, values["out"])
        if name in NUMBERS:
            return number(values.get(name, 0))
        if name in THREES:
            return tuple(map(integer, values.get(name, (0, 0, 0))))
        return integer(values.get(name, 0))

    return Job(*map(field, Job._fields))
