"""The convolutions on dask arrays, of any chunks along images and space: for pictures larger than memory, on many machines.

Each chunk of the result needs some rows of its neighbours. Along every dimension of space we say which rows of the result are
made of which rows of x (`_cuts`), let dask put those side by side, each stretch a chunk of its own, and convolve chunk by
chunk with the padding that is the chunk's share. Where chunks meet nothing is padded, so the seams are exact.

A chunk is computed by the kernel that suits its size: whole numbers give the same result as in one piece, other numbers the
same but for rounding. Channels are one chunk; a result has about the chunks of x, divided by the stride.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

import fastconv as fc
from fastconv import functional
from fastconv.cpu.packing import PAD_MODES
from fastconv.problem import Problem, SeparableProblem

try:
    import dask.array as da
except ImportError as error:
    raise ImportError("fastconv.dask needs dask: python -m pip install 'fastconv[dask]'") from error

Array = np.ndarray[Any, Any]
__all__ = [name for name in fc.__all__ if name.endswith(("1d", "2d", "3d")) and name.islower()]


class _Cut(NamedTuple):
    """Along one dimension: rows `first` to `last` of the result, of rows `start` to `stop` of x, and the padding of these.

    Of a transposed convolution the padding is what is cropped, and `more` its output padding.
    """

    first: int
    last: int
    start: int
    stop: int
    pads: tuple[int, int]
    more: int = 0


def _cuts(problem: Problem, axis: int, chunks: Sequence[int]) -> list[_Cut]:
    """The result's rows along one dimension of space, cut where the chunks of x suggest."""
    size, out = problem.space[axis], problem.out_space[axis]
    stride, (before, _) = problem.stride[axis], problem.pads[axis]
    reach = problem.dilation[axis] * (problem.kernel[axis] - 1) + 1
    transposed = problem.operation == "transposed"
    ends = np.cumsum(chunks)
    if transposed:
        meets = (np.arange(out) + before) // stride
    else:
        starts = np.arange(out) * stride - before
        inside = np.flatnonzero((starts + reach > 0) & (starts < size))  # windows in the padding alone go with their neighbours
        meets = starts[np.clip(np.arange(out), inside[0], inside[-1])] if len(inside) else np.zeros(out, int)
    owner = np.searchsorted(ends, np.clip(meets, 0, size - 1), side="right")
    edges = [0, *(np.flatnonzero(np.diff(owner)) + 1).tolist(), out]
    cut = _transposed_cut if transposed else _conv_cut
    return [cut(first, last, size, stride, before, reach) for first, last in pairwise(edges)]


def _conv_cut(first: int, last: int, size: int, stride: int, before: int, reach: int) -> _Cut:
    start, stop = first * stride - before, (last - 1) * stride - before + reach
    if stop < 1:  # the only cut, of whose windows not one meets the image
        return _Cut(first, last, 0, size, (-start, 0))
    return _Cut(first, last, max(start, 0), min(stop, size), (max(-start, 0), max(stop - size, 0)))


def _transposed_cut(first: int, last: int, size: int, stride: int, before: int, reach: int) -> _Cut:
    start = min(max((first + before - reach + 1) // stride, 0), size - 1)
    stop = min(max((last - 1 + before) // stride + 1, start + 1), size)
    cropped = first + before - start * stride
    left = (stop - start - 1) * stride + reach - cropped - (last - first)
    return _Cut(first, last, start, stop, (cropped, max(left, 0)), max(-left, 0))


def _stand_in(array: Any) -> Any:
    """An array of the same shape and dtype that takes no memory, for the checks."""
    return np.broadcast_to(np.zeros((), array.dtype), array.shape) if isinstance(array, da.Array) else array


def _lazily(name: str) -> Callable[..., Any]:
    function = getattr(functional, name)

    def lazy(x: Any, *arguments: Any, residual: Any = None, **keywords: Any) -> Any:
        if not isinstance(x, da.Array):
            raise TypeError(f"x: got {type(x).__name__}, expected a dask array")
        if keywords.pop("out", None) is not None:
            raise TypeError("out: a dask array is computed later, and has no memory to write into")
        if any(math.isnan(size) for size in x.shape):
            raise ValueError("x: got chunks of unknown sizes; call x.compute_chunk_sizes() first")
        asked = functional.ask(function, _stand_in(x), *arguments, residual=_stand_in(residual), **keywords)
        return _convolved(x, asked, residual)

    space = int(name[-2])
    kernel, outer = f"np.ones({(1, 1, *(3,) * space)}, np.float32)", "np.ones((1, 1), np.float32)"
    weights = {"pointwise_conv2d": outer, "separable_conv2d": f"{kernel}, {outer}"}.get(name, kernel)
    lazy.__name__ = lazy.__qualname__ = name
    lazy.__doc__ = f"""`fastconv.{name}` of a dask array.

    Parameters
    ----------
    x : dask.array.Array
        As the function's, in any chunks.
    residual : dask.array.Array or ndarray, optional
        As the function's.
    *arguments, **keywords
        As the function's, NumPy arrays among them; no `out`.

    Returns
    -------
    dask.array.Array
        The result, to be computed.

    Raises
    ------
    TypeError, ValueError
        As the function, at once.

    Examples
    --------
    >>> import dask.array as da, numpy as np
    >>> import fastconv.dask
    >>> x = da.ones({(1, *(8,) * space)}, dtype=np.float32, chunks={(1, *(4,) * space)})
    >>> fastconv.dask.{name}(x, {weights}).compute().max().item()
    {1.0 if name == "pointwise_conv2d" else 3.0**space}
    """
    return lazy


def _convolved(x: Any, asked: functional.Answer, residual: Any) -> Any:
    problem, _, weights, biases, _ = asked
    first = problem.depthwise if isinstance(problem, SeparableProblem) else problem
    assert isinstance(first, Problem)
    unbatched = x.ndim != len(problem.x_shape)
    x = x[np.newaxis] if unbatched else x
    x = x.rechunk(tuple(tuple(filter(None, along)) or (0,) for along in x.chunks))  # dask cannot pad chunks of nothing
    axes = range(1, x.ndim - 1) if first.data_format == "channels_last" else range(2, x.ndim)
    channel = x.ndim - 1 if first.data_format == "channels_last" else 1
    if first.batch == 0:
        result = da.zeros(problem.out_shape, dtype=problem.dtype, chunks=problem.out_shape)  # of auto ones it divides by 0
        return result[0] if unbatched else result
    if first.padding_mode != "zeros" and any(map(any, first.pads)):
        widths = [(0, 0)] * x.ndim
        widths[axes[0] : axes[-1] + 1] = first.pads
        x = da.pad(x, widths, mode=PAD_MODES[first.padding_mode])
        space = tuple(x.shape[axis] for axis in axes)
        first = _with(first, space=space, pads=((0, 0),) * first.dimensions)
    cuts = [_cuts(first, i, x.chunks[axis]) for i, axis in enumerate(axes)]
    for axis, along in zip(axes, cuts, strict=True):
        stretches = [_of_axis(x, axis, cut.start, cut.stop) for cut in along]
        x = da.concatenate(stretches, axis=axis).rechunk({axis: tuple(cut.stop - cut.start for cut in along)})
    x = x.rechunk({channel: -1})
    chunks = [x.chunks[0], *((0,) * (x.ndim - 1))]
    chunks[channel] = (problem.filters,)
    for axis, along in zip(axes, cuts, strict=True):
        chunks[axis] = tuple(cut.last - cut.first for cut in along)
    more = []
    if residual is not None:
        residual = da.asarray(residual)
        more = [(residual[np.newaxis] if unbatched else residual).rechunk(tuple(chunks))]
    result = da.map_blocks(
        _block, x, *more, dtype=problem.dtype, chunks=tuple(chunks), meta=np.empty((0,) * x.ndim, problem.dtype),
        problem=problem, weights=weights, biases=biases, cuts=cuts, axes=list(axes),
    )  # fmt: skip
    return result[0] if unbatched else result


def _with(problem: Problem, **changes: Any) -> Problem:
    return Problem(**{name: getattr(problem, name) for name in problem.__dataclass_fields__} | changes)


def _of_axis(x: Any, axis: int, start: int, stop: int) -> Any:
    return x[(slice(None),) * axis + (slice(start, stop),)]


def _block(
    x: Array, residual: Array | None = None, *, problem: Problem | SeparableProblem, weights: list[Array], biases: list[Any],
    cuts: list[list[_Cut]], axes: list[int], block_id: tuple[int, ...],
) -> Array:  # fmt: skip
    """One chunk of the result."""
    here = [along[block_id[axis]] for along, axis in zip(cuts, axes, strict=True)]
    biases = [_part(bias, problem, here) for bias in biases]
    last = problem.pointwise if isinstance(problem, SeparableProblem) else problem
    wishes: dict[str, Any] = {
        "padding": tuple(cut.pads for cut in here), "data_format": problem.data_format, "residual": residual,
        "activation": last.activation, "algorithm": problem.algorithm, "precision": problem.precision,
    }  # fmt: skip
    if isinstance(problem, SeparableProblem):
        inner = problem.depthwise
        wishes |= {"stride": inner.stride, "dilation": inner.dilation, "depthwise_activation": inner.activation}
        result = fc.separable_conv2d(x, *weights, *biases, **wishes)
    else:
        wishes |= {"stride": problem.stride, "dilation": problem.dilation, "groups": problem.groups}
        name = "conv"
        if problem.operation == "transposed":
            name, wishes["output_padding"] = "conv_transpose", tuple(cut.more for cut in here)
        result = getattr(fc, f"{name}{problem.dimensions}d")(x, weights[0], biases[0], **wishes)
    return result


def _part(bias: Array | None, problem: Problem | SeparableProblem, here: list[_Cut]) -> Array | None:
    """A chunk's part of a bias per pixel."""
    if bias is None or bias.ndim == 1:
        return bias
    space = tuple(slice(cut.first, cut.last) for cut in here)
    return bias[space] if problem.data_format == "channels_last" else bias[(slice(None), *space)]


for _name in __all__:
    globals()[_name] = _lazily(_name)
