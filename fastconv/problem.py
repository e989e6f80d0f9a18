"""What is to be computed: one frozen record of a convolution's geometry.

A `Problem` is built from what the caller passed (`of_conv`, `of_transposed`, `Problem.parse`), checked here and nowhere else, and
then trusted by everything below: the plan, the packing, the kernels. All numbers are Python integers, and every array that a
problem implies stays below 2**62 bytes, so no index computed from one can overflow int64.

The one-line text form, which tests print when they fail and `fastconv bench` accepts, is a word for the operation, the
geometry in the manner of oneDNN's benchdnn, and options, separated by commas::

    text      = problem | problem "+" problem                 the latter: a separable layer, depthwise part first
    problem   = operation "," geometry { "," option }
    operation = ("conv" | "transposed" | "weights") ("1d" | "2d" | "3d")     "weights": the gradient with respect to them
    geometry  = "n" int "c" int "i" sizes "f" int "k" sizes                  batch, channels, image, filters, kernel
                [ "s" sizes ] [ "p" pads ] [ "d" sizes ] [ "g" int ] [ "o" sizes ]   stride, padding, dilation, groups, output pad
    sizes     = int { "x" int }                               one for each dimension, or one for all
    pads      = pad { "x" pad },  pad = int [ ":" int ]       as sizes; before:after where they differ
    option    = "bias" | "pixelbias" | "residual" | activation { ":" number } | padding mode | "channels_last"
              | "float64" | algorithm | "highest"             what is not said has the default of the API; the last word holds

    >>> print(Problem.parse("conv2d,n1c64i56x56f64k3p1,bias,relu"))
    conv2d,n1c64i56x56f64k3x3p1,bias,relu
"""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from fastconv.epilogue import Activation

DTYPES = ("float32", "float64")
DATA_FORMATS = ("channels_first", "channels_last")
PADDING_MODES = ("zeros", "reflect", "replicate", "circular", "symmetric")
PADDING_NAMES = ("valid", "same", "same_lower")
ALGORITHMS = ("auto", "direct", "tiled", "winograd")
PRECISIONS = ("high", "highest")
MOST_BYTES = 2**62  # of any array, so that byte offsets, and sums of two of them, fit int64

Sizes = tuple[int, ...]
Pads = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Problem:
    """A convolution's geometry, data format, epilogue and the caller's wishes.

    Attributes
    ----------
    operation : {"conv", "transposed", "weights"}
        What is computed: a convolution, a transposed one, or the gradient of a convolution with respect to its weights
        (whose other attributes are those of the convolution).
    batch, channels, filters : int
        Images, channels of an image, channels of the result.
    space, kernel : tuple of int
        Sizes of the image and of the kernel, one, two or three of them.
    stride, dilation : tuple of int
        Steps between windows, and between the taps of a window.
    pads : tuple of (before, after)
        Rows of padding a dimension; for "transposed" what is cropped from the result.
    groups : int
        Channels and filters fall into this many groups that do not mix.
    output_padding : tuple of int
        Extra rows at the end of a transposed convolution's result.
    padding_mode, bias, residual, activation, data_format, dtype, algorithm, precision
        As the functions' arguments; `bias` is "none", "channel" or "pixel".

    Examples
    --------
    >>> problem = Problem.parse("conv2d,n1c192i28f32k1,bias,relu")
    >>> problem.out_shape, problem.parameters, problem.operations
    ((1, 32, 28, 28), 6176, 9633792)
    """

    operation: str
    batch: int
    channels: int
    filters: int
    space: Sizes
    kernel: Sizes
    stride: Sizes
    pads: Pads
    dilation: Sizes
    groups: int = 1
    output_padding: Sizes = ()
    padding_mode: str = "zeros"
    bias: str = "none"
    residual: bool = False
    activation: Activation = Activation()  # noqa: RUF009 - frozen
    data_format: str = "channels_first"
    dtype: str = "float32"
    algorithm: str = "auto"
    precision: str = "high"

    # Shapes and amounts ----------------------------------------------------------------------------------------------

    @property
    def dimensions(self) -> int:
        """Of the space: 1, 2 or 3."""
        return len(self.space)

    @cached_property
    def out_space(self) -> Sizes:
        """Sizes of the result, without batch and channels."""
        reach = self._reach
        if self.operation == "transposed":
            return tuple(
                (size - 1) * s + r - sum(pad) + o
                for size, s, r, pad, o in zip(self.space, self.stride, reach, self.pads, self.output_padding, strict=True)
            )
        return tuple(
            (size + sum(pad) - r) // s + 1 for size, s, r, pad in zip(self.space, self.stride, reach, self.pads, strict=True)
        )

    @property
    def _reach(self) -> Sizes:
        """How many rows a window spans, gaps included."""
        return tuple(d * (k - 1) + 1 for d, k in zip(self.dilation, self.kernel, strict=True))

    @property
    def x_shape(self) -> Sizes:
        """Shape of the input, batch included, in the problem's data format."""
        return self._formatted(self.channels, self.space)

    @property
    def out_shape(self) -> Sizes:
        """Shape of the result, batch included, in the problem's data format."""
        return self._formatted(self.filters, self.out_space)

    @property
    def weight_shape(self) -> Sizes:
        """`(filters, channels / groups, *kernel)`, or for "transposed" `(channels, filters / groups, *kernel)`."""
        if self.operation == "transposed":
            return (self.channels, self.filters // self.groups, *self.kernel)
        return (self.filters, self.channels // self.groups, *self.kernel)

    @property
    def bias_shape(self) -> Sizes | None:
        """Shape of the bias, None where there is none."""
        return {"none": None, "channel": (self.filters,), "pixel": self.out_shape[1:]}[self.bias]

    def _formatted(self, channels: int, space: Sizes) -> Sizes:
        if self.data_format == "channels_last":
            return (self.batch, *space, channels)
        return (self.batch, channels, *space)

    @property
    def operations(self) -> int:
        """Multiplications and additions, those with padding included, as everybody counts them."""
        pixels = math.prod(self.space if self.operation == "transposed" else self.out_space)
        return 2 * self.batch * pixels * math.prod(self.kernel) * self.channels * self.filters // self.groups

    @property
    def parameters(self) -> int:
        """Numbers in the weight and the bias."""
        return math.prod(self.weight_shape) + (math.prod(self.bias_shape) if self.bias_shape else 0)

    @property
    def bytes(self) -> int:
        """Least memory traffic: every array once."""
        moved = math.prod(self.x_shape) + math.prod(self.out_shape) * (2 if self.residual else 1) + self.parameters
        return moved * np.dtype(self.dtype).itemsize

    @property
    def kind(self) -> str:
        """The kind of layer: "standard", "pointwise", "depthwise", "atrous", "transposed" or "weights"."""
        if self.operation != "conv":
            return self.operation
        if self.channels == self.groups:
            return "depthwise"
        if self.groups == 1 and math.prod(self.kernel) == 1 and not any(map(any, self.pads)):
            return "pointwise"
        if any(d > 1 and k > 1 for d, k in zip(self.dilation, self.kernel, strict=True)):
            return "atrous"
        return "standard"

    # Relatives -------------------------------------------------------------------------------------------------------

    def adjoint(self) -> Problem:
        """The problem that computes this one's gradient with respect to its input: conv and transposed are each other's.

        It takes the weight as it is, and this problem's result as its input.
        """
        plain = replace(
            self, channels=self.filters, filters=self.channels, space=self.out_space,
            bias="none", residual=False, activation=Activation(), padding_mode="zeros",
        )  # fmt: skip
        geometry = zip(self.space, self.out_space, self.stride, self._reach, self.pads, strict=True)
        if self.operation == "conv":
            left = tuple(size + sum(pad) - r - (out - 1) * s for size, out, s, r, pad in geometry)
            return replace(plain, operation="transposed", output_padding=left)
        # Output padding of a whole stride or more would add windows: they are cropped off again, by a negative padding.
        pads = tuple((b, a - o // s * s) for (b, a), o, s in zip(self.pads, self.output_padding, self.stride, strict=True))
        return replace(plain, operation="conv", pads=pads, output_padding=())

    def mirrored(self) -> Problem:
        """The convolution that computes a transposed one of stride 1, with its weight mirrored and its channels exchanged.

        What the transposed one crops off, a convolution does not pad; if it crops more than a window, padding is negative.
        """
        pads = tuple(
            (r - 1 - before, out - size + before)
            for size, out, r, (before, _) in zip(self.space, self.out_space, self._reach, self.pads, strict=True)
        )
        return replace(self, operation="conv", pads=pads, output_padding=())

    def in_blocks(self) -> Problem:
        """The convolution that computes a transposed one without dilation block by block: cpu/blocks.py.

        One pixel of its result stands for a block of stride x stride pixels. Each place within a block has filters of its own,
        of as many taps as reach an output.
        """
        kernel = tuple(-(-k // s) for k, s in zip(self.kernel, self.stride, strict=True))
        blocks = [-(-(n + before % s) // s) for n, s, (before, _) in zip(self.out_space, self.stride, self.pads, strict=True)]
        befores = [k - 1 - before // s for k, s, (before, _) in zip(kernel, self.stride, self.pads, strict=True)]
        pads = tuple(
            (before, count - 1 + k - size - before)
            for before, count, k, size in zip(befores, blocks, kernel, self.space, strict=True)
        )
        ones, filters = (1,) * self.dimensions, self.filters * math.prod(self.stride)
        return replace(
            self, operation="conv", filters=filters, kernel=kernel, stride=ones, pads=pads, dilation=ones, output_padding=()
        )

    def flat(self, width: int = 0) -> Problem:
        """The same for a problem of one tap, stride 1 and no padding, its pixels laid out in rows of `width`, or in one row."""
        pixels = math.prod(self.space)
        space = (pixels // width, width) if width else (pixels,)
        ones = (1,) * len(space)
        return replace(self, space=space, kernel=ones, stride=ones, pads=((0, 0),) * len(space), dilation=ones)

    def geometry(self, space: Sequence[int]) -> dict[str, Any]:
        """The part of a kernel's job that CPU and CUDA share, in three dimensions.

        `space` is that of the image as the kernel gets it; for a padding mode other than zeros the border is drawn in.
        """
        drawn_in = self.padding_mode != "zeros"
        return {
            "batch": self.batch, "groups": self.groups, "channels": self.channels // self.groups,
            "filters": self.filters // self.groups, "space": three(space), "out_space": three(self.out_space),
            "kernel": three(self.kernel), "stride": three(self.stride), "dilation": three(self.dilation),
            "before": three([0 if drawn_in else before for before, _ in self.pads], 0),
        }  # fmt: skip

    def directly(self) -> Problem:
        """The same with `algorithm="direct"`."""
        return replace(self, algorithm="direct")

    def weights(self) -> Problem:
        """The problem of a convolution's gradient with respect to its weights.

        algorithm="winograd" becomes "auto": few gradients have a kernel of that form, and the convolution's may well have one.
        """
        bare = replace(self, bias="none", residual=False, activation=Activation(), padding_mode="zeros")
        return replace(bare, operation="weights", algorithm="auto" if self.algorithm == "winograd" else self.algorithm)

    def exchanged(self) -> Problem:
        """The problem of a pointwise weight's gradient with image and gradient exchanged: its result is the transpose."""
        return replace(self, channels=self.filters, filters=self.channels)

    # Text ------------------------------------------------------------------------------------------------------------

    def __str__(self) -> str:
        def sizes(letter: str, values: Sizes, default: int | None = None) -> str:
            return "" if all(v == default for v in values) else letter + "x".join(map(str, values))

        pads = [f"{b}" if b == a else f"{b}:{a}" for b, a in self.pads]
        if len(set(pads)) == 1:
            pads = [] if pads[0] == "0" else pads[:1]

        def one(values: Sizes) -> Sizes:
            return values[:1] if len(set(values)) == 1 else values

        geometry = (
            f"n{self.batch}c{self.channels}" + sizes("i", self.space) + f"f{self.filters}" + sizes("k", self.kernel)
            + sizes("s", one(self.stride), 1) + ("p" + "x".join(pads) if pads else "") + sizes("d", one(self.dilation), 1)
            + (f"g{self.groups}" if self.groups != 1 else "") + sizes("o", one(self.output_padding), 0)
        )  # fmt: skip
        options = [
            {"none": "", "channel": "bias", "pixel": "pixelbias"}[self.bias],
            "residual" if self.residual else "",
            str(self.activation),
            _unless("zeros", self.padding_mode),
            _unless("channels_first", self.data_format),
            _unless("float32", self.dtype),
            _unless("auto", self.algorithm),
            _unless("high", self.precision),
        ]
        return ",".join([f"{self.operation}{self.dimensions}d", geometry, *filter(None, options)])

    @staticmethod
    def parse(text: str) -> Problem | SeparableProblem:
        """The problem that a text describes; see the top of this module for the grammar.

        Raises
        ------
        TypeError, ValueError
            If it is no text; if it does not follow the grammar or its problem is not legal.

        Examples
        --------
        >>> Problem.parse("conv2d,n1c32i112x112f32k3p1g32,relu").out_space
        (112, 112)
        """
        if not isinstance(text, str):
            raise TypeError(f"text: got {text!r} of type {type(text).__name__}, expected a str")
        parts = re.split(r"\+(?=conv|transposed|weights)", text.strip())  # numbers have plus signs too: 1e+20
        if len(parts) == 2:
            return SeparableProblem(*map(_parsed, parts))
        if len(parts) > 2:
            raise ValueError(f"text: got {text!r}, expected at most two problems joined by '+'")
        return _parsed(text.strip())


@dataclass(frozen=True)
class SeparableProblem:
    """A depthwise convolution whose result a pointwise one takes: two problems, computed in one pass."""

    depthwise: Problem
    pointwise: Problem

    def __post_init__(self) -> None:
        pointwise = self.pointwise.operation == "conv" and self.pointwise.groups == math.prod(self.pointwise.kernel) == 1
        if self.depthwise.kind != "depthwise" or not pointwise or any(map(any, self.pointwise.pads)):
            raise ValueError(f"text: {self} is not a depthwise problem followed by a pointwise one")
        if self.depthwise.out_shape != self.pointwise.x_shape:
            raise ValueError(
                f"pointwise_weight: expects {self.pointwise.x_shape} where the depthwise result is {self.depthwise.out_shape}"
            )
        if any(s != 1 for s in self.pointwise.stride):
            raise ValueError("stride: the pointwise part of a separable convolution has stride 1; give it to the depthwise part")

    kind = "separable"

    def __getattr__(self, name: str) -> Any:
        # The result's shape and what the caller asked for are those of the pointwise part.
        if name in ("batch", "filters", "out_space", "out_shape", "residual", "data_format", "dtype", "algorithm", "precision"):
            return getattr(self.pointwise, name)
        raise AttributeError(name)

    @property
    def x_shape(self) -> Sizes:
        """Shape of the input, batch included."""
        return self.depthwise.x_shape

    @property
    def operations(self) -> int:
        """Of both parts."""
        return self.depthwise.operations + self.pointwise.operations

    @property
    def parameters(self) -> int:
        """Of both parts."""
        return self.depthwise.parameters + self.pointwise.parameters

    @property
    def bytes(self) -> int:
        """Least memory traffic: the depthwise result never goes to memory."""
        return self.depthwise.bytes + self.pointwise.bytes - self.saved_bytes

    def directly(self) -> SeparableProblem:
        """The same with `algorithm="direct"`."""
        return SeparableProblem(self.depthwise.directly(), self.pointwise.directly())

    @property
    def saved_bytes(self) -> int:
        """Memory traffic that two separate layers would add: the depthwise result, written and read."""
        return 2 * math.prod(self.depthwise.out_shape) * np.dtype(self.depthwise.dtype).itemsize

    def __str__(self) -> str:
        return f"{self.depthwise}+{self.pointwise}"


@dataclass(frozen=True)
class Shaped:
    """Stands for an array where only shape and dtype count."""

    shape: Sizes
    dtype: Any

    @property
    def ndim(self) -> int:
        return len(self.shape)


# From the caller's arguments -----------------------------------------------------------------------------------------


def of_conv(
    x: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, groups: Any, *, dimensions: int, residual: Any = None,
    padding_mode: str = "zeros", activation: Any = None, data_format: str = "channels_first",
    algorithm: str = "auto", precision: str = "high", names: Sequence[str] = ("weight", "bias", "activation"),
    first: str = "x",
) -> Problem:  # fmt: skip
    """The problem of a convolution of arrays; only their shapes and dtypes are looked at."""
    wish = _wishes(data_format, algorithm, precision)
    dtype = dtype_of(first, x)
    batch, channels, space = _image(first, x.shape, dimensions, wish["data_format"])
    filters, per_group, kernel = _filters(names[0], weight, dtype, dimensions)
    groups = whole("groups", groups, least=1)
    if channels % groups or per_group != channels // groups:
        raise ValueError(
            f"{names[0]}: got {per_group} channels a filter, expected {channels} channels of x / {groups} groups"
            if channels % groups == 0 else f"groups: got {groups}, which does not divide the {channels} channels of x"
        )  # fmt: skip
    if filters % groups:
        raise ValueError(f"groups: got {groups}, which does not divide the {filters} filters of {names[0]}")
    mode = one_of("padding_mode", padding_mode, PADDING_MODES)
    steps = _sizes("stride", stride, dimensions, least=1)
    gaps = _sizes("dilation", dilation, dimensions, least=1)
    pads = _paddings(padding, space, kernel, steps, gaps)
    problem = Problem(
        "conv", batch, channels, filters, space, kernel, steps, pads, gaps, groups,
        padding_mode=mode, activation=Activation.of(activation, names[2]), dtype=dtype, **wish,
    )  # fmt: skip
    _check_reach(problem, names[0])
    _check_mode(problem)
    return _with_epilogue(problem, bias, residual, x.ndim, names[1])


def of_depthwise(
    x: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, *, dimensions: int, data_format: str,
    names: Sequence[str] = ("weight", "bias", "activation"), **options: Any,
) -> Problem:  # fmt: skip
    """The problem of a depthwise convolution: as many groups as channels, the multiplier read off the weight."""
    one_of("data_format", data_format, DATA_FORMATS)
    _, channels, _ = _image("x", x.shape, dimensions, data_format)
    filters, per_group, _ = _filters(names[0], weight, dtype_of("x", x), dimensions)
    if per_group != 1 or filters % channels:
        raise ValueError(
            f"{names[0]}: got shape {weight.shape}, expected (channels * multiplier, 1, *kernel) with {channels} channels of x"
        )
    return of_conv(
        x, weight, bias, stride, padding, dilation, channels,
        dimensions=dimensions, data_format=data_format, names=names, **options,
    )  # fmt: skip


def of_transposed(
    x: Any, weight: Any, bias: Any, stride: Any, padding: Any, output_padding: Any, groups: Any, dilation: Any, *,
    dimensions: int, output_size: Any = None, residual: Any = None, activation: Any = None, data_format: str = "channels_first",
    algorithm: str = "auto", precision: str = "high", first: str = "x", name: str = "weight",
) -> Problem:  # fmt: skip
    """The problem of a transposed convolution of arrays; only their shapes and dtypes are looked at."""
    wish = _wishes(data_format, algorithm, precision)
    dtype = dtype_of(first, x)
    batch, channels, space = _image(first, x.shape, dimensions, wish["data_format"])
    given, per_group, kernel = _filters(name, weight, dtype, dimensions)
    groups = whole("groups", groups, least=1)
    if given != channels:
        raise ValueError(f"{name}: got {given} as its first size, expected the {channels} channels of x")
    if channels % groups:
        raise ValueError(f"groups: got {groups}, which does not divide the {channels} channels of x")
    if isinstance(padding, str):
        raise ValueError(f"padding: got {padding!r}; a transposed convolution takes numbers only")
    steps = _sizes("stride", stride, dimensions, least=1)
    gaps = _sizes("dilation", dilation, dimensions, least=1)
    extra = _sizes("output_padding", output_padding, dimensions, least=0)
    pads = _paddings(padding, space, kernel, steps, gaps)
    problem = Problem(
        "transposed", batch, channels, per_group * groups, space, kernel, steps, pads, gaps, groups, extra,
        activation=Activation.of(activation), dtype=dtype, **wish,
    )  # fmt: skip
    if output_size is not None:
        problem = _with_output_size(problem, output_size)
    for o, s, d in zip(problem.output_padding, steps, gaps, strict=True):
        if o >= max(s, d):
            raise ValueError(f"output_padding: got {o}, expected less than the larger of stride {s} and dilation {d}")
    _check_bytes("padding", [problem.x_shape, _uncropped(problem)], dtype)
    if min(problem.out_space) < 1:
        raise ValueError(f"padding: crops the result to {problem.out_space}, expected sizes of at least 1")
    return _with_epilogue(problem, bias, residual, x.ndim)


def of_separable(
    x: Any, depthwise_weight: Any, pointwise_weight: Any, depthwise_bias: Any, pointwise_bias: Any, stride: Any, padding: Any,
    dilation: Any, *, depthwise_activation: Any, activation: Any, residual: Any, data_format: str, padding_mode: str,
    algorithm: str, precision: str,
) -> SeparableProblem:  # fmt: skip
    """The problem of a separable convolution of arrays; only their shapes and dtypes are looked at."""
    depthwise = of_depthwise(
        x, depthwise_weight, depthwise_bias, stride, padding, dilation, dimensions=2, data_format=data_format,
        padding_mode=padding_mode, activation=depthwise_activation, algorithm=algorithm, precision=precision,
        names=("depthwise_weight", "depthwise_bias", "depthwise_activation"),
    )  # fmt: skip
    filters, channels = _pointwise_filters("pointwise_weight", pointwise_weight, depthwise.dtype, 2)
    if channels != depthwise.filters:
        raise ValueError(
            f"pointwise_weight: got {channels} channels, expected the {depthwise.filters} channels of the depthwise result"
        )
    pointwise = replace(
        depthwise, channels=channels, filters=filters, space=depthwise.out_space, kernel=(1, 1), stride=(1, 1),
        pads=((0, 0), (0, 0)), dilation=(1, 1), groups=1, padding_mode="zeros", bias="none",
        activation=Activation.of(activation),
    )  # fmt: skip
    _check_bytes("pointwise_weight", [pointwise.out_shape], pointwise.dtype)
    pointwise = _with_epilogue(pointwise, pointwise_bias, residual, x.ndim, "pointwise_bias")
    return SeparableProblem(depthwise, pointwise)


def as_pointwise(weight: Any, dtype: str, dimensions: int = 2) -> Any:
    """A pointwise weight (filters, channels) with its sizes of 1 put back."""
    filters, channels = _pointwise_filters("weight", weight, dtype, dimensions)
    return weight.reshape(filters, channels, *(1,) * dimensions)


# The single checks ---------------------------------------------------------------------------------------------------


def whole(name: str, value: Any, least: int) -> int:
    """A Python int from an integer that is not a bool."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name}: got {value!r} of type {type(value).__name__}, expected an integer")
    number = int(value)
    if number < least:
        raise ValueError(f"{name}: got {value}, expected at least {least}")
    if number > MOST_BYTES:
        raise ValueError(f"{name}: got {value}, expected at most 2**62")
    return number


def shape_of(name: str, sizes: Any) -> Sizes:
    """Python ints from a tuple or list of integers that are no bools."""
    if not isinstance(sizes, (tuple, list)):
        raise TypeError(f"{name}: got {sizes!r} of type {type(sizes).__name__}, expected a tuple of integers")
    return tuple(whole(name, size, least=0) for size in sizes)


def three(sizes: Sequence[int], default: int = 1) -> tuple[int, int, int]:
    """Depth, height and width, from fewer of them."""
    return (*[default] * (3 - len(sizes)), *sizes)  # type: ignore[return-value]


def one_of(name: str, value: Any, legal: Iterable[str]) -> str:
    """The value, if it is one of the legal names."""
    if not isinstance(value, str):
        raise TypeError(f"{name}: got {value!r} of type {type(value).__name__}, expected one of {', '.join(legal)}")
    if value not in legal:
        raise ValueError(f"{name}: got {value!r}, expected one of {', '.join(legal)}")
    return value


def dtype_of(name: str, array: Any, expected: str | None = None, beside: str = "x") -> str:
    """The name of an array's dtype: float32 or float64, and the expected one, that of the argument `beside`."""
    dtype = array.dtype
    if not isinstance(dtype, np.dtype):  # PyTorch's dtypes are its own, but their names are NumPy's
        try:
            dtype = np.dtype(str(dtype).removeprefix("torch."))
        except TypeError:
            raise ValueError(f"{name}: got dtype {array.dtype}, expected float32 or float64") from None
    if expected is not None and dtype.name != expected:
        advice = f"convert with {name}.astype(np.{expected})"
        raise ValueError(f"{name}: got dtype {dtype.name}, expected {expected} as {beside} has; {advice}")
    if dtype.name not in DTYPES:
        advice = {
            "c": "convolve real and imaginary parts apart",
            "V": "convolve its fields apart",
            "f": f"convert with {name}.astype(np.{'float32' if dtype.itemsize < 4 else 'float64'})",
        }.get(dtype.kind, f"convert with {name}.astype(np.float32)")
        raise ValueError(f"{name}: got dtype {dtype.name}, expected float32 or float64; {advice}")
    return dtype.name


def _wishes(data_format: Any, algorithm: Any, precision: Any) -> dict[str, Any]:
    return {
        "data_format": one_of("data_format", data_format, DATA_FORMATS),
        "algorithm": one_of("algorithm", algorithm, ALGORITHMS),
        "precision": one_of("precision", precision, PRECISIONS),
    }


def _image(name: str, shape: Sizes, dimensions: int, data_format: str) -> tuple[int, int, Sizes]:
    """(batch, channels, space) of an image's shape, batched or not."""
    order = "(N, *space, C)" if data_format == "channels_last" else "(N, C, *space)"
    if len(shape) not in (dimensions + 1, dimensions + 2):
        raise ValueError(
            f"{name}: got {len(shape)} dimensions {tuple(shape)}, expected {order} with {dimensions} of space, or without N"
        )
    batch = shape[0] if len(shape) == dimensions + 2 else 1
    rest = shape[len(shape) - dimensions - 1 :]
    channels, space = (rest[-1], rest[:-1]) if data_format == "channels_last" else (rest[0], rest[1:])
    if channels < 1:
        raise ValueError(f"{name}: got {channels} channels in shape {tuple(shape)}, expected at least 1")
    if min(space) < 1:
        raise ValueError(f"{name}: got shape {tuple(shape)}, expected sizes of at least 1")
    return int(batch), int(channels), tuple(map(int, space))


def _filters(name: str, weight: Any, dtype: str, dimensions: int) -> tuple[int, int, Sizes]:
    """(first size, second size, kernel) of a weight."""
    dtype_of(name, weight, dtype)
    if len(weight.shape) != dimensions + 2:
        raise ValueError(
            f"{name}: got {len(weight.shape)} dimensions {tuple(weight.shape)}, expected {dimensions + 2}, the kernel last"
        )
    if min(weight.shape) < 1:
        raise ValueError(f"{name}: got shape {tuple(weight.shape)}, expected sizes of at least 1")
    first, second, *kernel = map(int, weight.shape)
    return first, second, tuple(kernel)


def _pointwise_filters(name: str, weight: Any, dtype: str, dimensions: int) -> tuple[int, int]:
    dtype_of(name, weight, dtype)
    shape = tuple(map(int, weight.shape))
    if len(shape) not in (2, dimensions + 2) or any(size != 1 for size in shape[2:]):
        raise ValueError(f"{name}: got shape {shape}, expected (filters, channels) or (filters, channels{', 1' * dimensions})")
    if min(shape) < 1:
        raise ValueError(f"{name}: got shape {shape}, expected sizes of at least 1")
    return shape[0], shape[1]


def _sizes(name: str, value: Any, dimensions: int, least: int) -> Sizes:
    """One integer a dimension, from one or from a list of them."""
    if not isinstance(value, (list, tuple)):
        return (whole(name, value, least),) * dimensions
    if len(value) not in (1, dimensions):
        raise ValueError(f"{name}: got {len(value)} numbers {tuple(value)}, expected one or {dimensions}")
    sizes = tuple(whole(name, v, least) for v in value)
    return sizes if len(sizes) == dimensions else sizes * dimensions


def _paddings(padding: Any, space: Sizes, kernel: Sizes, stride: Sizes, dilation: Sizes) -> Pads:
    """(before, after) a dimension, from any form of the argument."""
    if isinstance(padding, str):
        if one_of("padding", padding, PADDING_NAMES) == "valid":
            return ((0, 0),) * len(space)
        needed = [
            max((-(-size // s) - 1) * s + d * (k - 1) + 1 - size, 0)
            for size, k, s, d in zip(space, kernel, stride, dilation, strict=True)
        ]
        small_first = [(total // 2, total - total // 2) for total in needed]
        return tuple(pad if padding == "same" else pad[::-1] for pad in small_first)
    if not isinstance(padding, (list, tuple)):
        return ((whole("padding", padding, 0),) * 2,) * len(space)
    if len(padding) not in (1, len(space)):
        raise ValueError(
            f"padding: got {len(padding)} entries {tuple(padding)}, expected one a dimension ({len(space)}), "
            "each a number or a (before, after) pair"
        )
    pads = tuple(_pad(entry) for entry in padding)
    return pads if len(pads) == len(space) else pads * len(space)


def _pad(entry: Any) -> tuple[int, int]:
    if not isinstance(entry, (list, tuple)):
        return (whole("padding", entry, 0),) * 2
    if len(entry) != 2:
        raise ValueError(f"padding: got {tuple(entry)}, expected a (before, after) pair")
    return whole("padding", entry[0], 0), whole("padding", entry[1], 0)


def _check_reach(problem: Problem, name: str) -> None:
    padded = [size + sum(pad) for size, pad in zip(problem.space, problem.pads, strict=True)]
    _check_bytes("padding", [problem.x_shape, (problem.batch, problem.channels, *padded)], problem.dtype)
    if any(r > size for r, size in zip(problem._reach, padded, strict=True)):
        raise ValueError(
            f"{name}: a kernel {problem.kernel} of dilation {problem.dilation} spans {problem._reach}, "
            f"more than the padded input's {tuple(padded)}"
        )
    _check_bytes(name, [problem.out_shape], problem.dtype)


def _check_mode(problem: Problem) -> None:
    """A border cannot show more of the image than there is."""
    most = {"reflect": 1, "circular": 0, "symmetric": 0}.get(problem.padding_mode)
    if most is None:
        return
    for size, pad in zip(problem.space, problem.pads, strict=True):
        if max(pad) > size - most:
            raise ValueError(
                f"padding: got {max(pad)} in mode {problem.padding_mode!r}, expected at most {size - most} for an image of {size}"
            )


def _with_epilogue(problem: Problem, bias: Any, residual: Any, x_dimensions: int, name: str = "bias") -> Problem:
    kind = "none"
    if bias is not None:
        dtype_of(name, bias, problem.dtype)
        kinds = {(problem.filters,): "channel", problem.out_shape[1:]: "pixel"}
        if tuple(bias.shape) not in kinds:
            raise ValueError(
                f"{name}: got shape {tuple(bias.shape)}, expected ({problem.filters},) or, a pixel, {problem.out_shape[1:]}"
            )
        kind = kinds[tuple(bias.shape)]
    if residual is not None:
        check_result("residual", residual, problem, x_dimensions)
    return replace(problem, bias=kind, residual=residual is not None)


def check_result(name: str, array: Any, problem: Problem | SeparableProblem, x_dimensions: int, beside: str = "x") -> None:
    """An array must look like the problem's result, batched or not as x is."""
    dtype_of(name, array, problem.dtype, beside)
    shape = problem.out_shape
    expected = shape if x_dimensions == len(shape) else shape[1:]
    if tuple(array.shape) != expected:
        raise ValueError(f"{name}: got shape {tuple(array.shape)}, expected the result's {expected}")


def _with_output_size(problem: Problem, output_size: Any) -> Problem:
    sizes = _sizes("output_size", output_size, problem.dimensions, least=1)
    if any(problem.output_padding):
        raise ValueError("output_padding: give it or output_size, not both")
    least = problem.out_space
    most = tuple(size + max(s, d) - 1 for size, s, d in zip(least, problem.stride, problem.dilation, strict=True))
    if any(not low <= size <= high for low, size, high in zip(least, sizes, most, strict=True)):
        raise ValueError(f"output_size: got {sizes}, expected sizes from {least} to {most}")
    return replace(problem, output_padding=tuple(size - low for size, low in zip(sizes, least, strict=True)))


def _uncropped(problem: Problem) -> Sizes:
    full = (
        (size - 1) * s + r + o + sum(pad)
        for size, s, r, o, pad in zip(
            problem.space, problem.stride, problem._reach, problem.output_padding, problem.pads, strict=True
        )
    )
    return (problem.batch, problem.filters, *full)


def _check_bytes(name: str, shapes: Iterable[Sizes], dtype: str) -> None:
    for shape in shapes:
        # An empty batch is bounded as if it held one image.
        if math.prod(max(size, 1) for size in shape) * np.dtype(dtype).itemsize > MOST_BYTES:
            raise ValueError(f"{name}: an array of {shape} would pass 2**62 bytes")


# From text -----------------------------------------------------------------------------------------------------------

_SIZES = r"-?\d+(?:x-?\d+)*"
_HEAD = re.compile(r"(conv|transposed|weights)([123])d")
_GEOMETRY = re.compile(
    rf"n(?P<n>\d+)c(?P<c>\d+)i(?P<i>{_SIZES})f(?P<f>\d+)k(?P<k>{_SIZES})(?:s(?P<s>{_SIZES}))?"
    rf"(?:p(?P<p>-?\d+(?::-?\d+)?(?:x-?\d+(?::-?\d+)?)*))?(?:d(?P<d>{_SIZES}))?(?:g(?P<g>\d+))?(?:o(?P<o>{_SIZES}))?"
)
# What each option says, of which attribute; any other word is an activation.
_NAMED = {
    "padding_mode": PADDING_MODES, "data_format": DATA_FORMATS, "dtype": DTYPES, "algorithm": ALGORITHMS, "precision": PRECISIONS,
}  # fmt: skip
_MEANINGS: dict[str, tuple[str, Any]] = {
    "bias": ("bias", "channel"), "pixelbias": ("bias", "pixel"), "residual": ("residual", True),
    **{word: (key, word) for key, words in _NAMED.items() for word in words},
}  # fmt: skip


def _parsed(text: str) -> Problem:
    head, _, rest = text.partition(",")
    body, *options = rest.split(",")
    operation, geometry = _HEAD.fullmatch(head), _GEOMETRY.fullmatch(body)
    if not operation or not geometry:
        raise ValueError(f"text: got {text!r}, expected something like 'conv2d,n1c64i56x56f64k3p1,bias,relu'")
    dimensions = int(operation[2])
    said = _options(options)
    n, c, f, g = (int(geometry[letter] or 1) for letter in "ncfg")
    space = _spread(geometry["i"], dimensions)
    kernel = _spread(geometry["k"], dimensions)
    stride, dilation = _spread(geometry["s"] or "1", dimensions), _spread(geometry["d"] or "1", dimensions)
    extra = _spread(geometry["o"] or "0", dimensions)
    ends = [pad.split(":") for pad in (geometry["p"] or "0").split("x")]
    pads = [(int(pad[0]), int(pad[-1])) for pad in ends]
    cropped = any(min(pad) < 0 for pad in pads)  # only an adjoint has them: checked without, put back after
    padding = tuple((max(b, 0), max(a, 0)) for b, a in pads)
    last = said["data_format"] == "channels_last"
    dtype = said.pop("dtype")
    bias_kind, has_residual = said.pop("bias"), said.pop("residual")
    x = Shaped((n, *space, c) if last else (n, c, *space), dtype)
    if operation[1] == "transposed":
        if said.pop("padding_mode") != "zeros":
            raise ValueError(f"text: got {text!r}, a transposed convolution with a padding mode")
        weight = Shaped((c, max(f // max(g, 1), 1), *kernel), dtype)
        problem = of_transposed(x, weight, None, stride, padding, extra, g, dilation, dimensions=dimensions, **said)
    else:
        if any(extra):
            raise ValueError(f"text: got {text!r}, output padding of what is not transposed")
        weight = Shaped((f, max(c // max(g, 1), 1), *kernel), dtype)
        problem = of_conv(x, weight, None, stride, padding, dilation, g, dimensions=dimensions, **said)
        problem = replace(problem, operation=operation[1])
    if problem.filters != f:
        raise ValueError(f"text: got {f} filters in {g} groups")
    if cropped:
        problem = replace(problem, pads=tuple(pads) if len(pads) == dimensions else tuple(pads) * dimensions)
    if min(problem.out_space) < 1:
        raise ValueError(f"text: got {text!r}, whose cropping leaves {problem.out_space}")
    return replace(problem, bias=bias_kind, residual=has_residual)


def _spread(text: str, dimensions: int) -> Sizes:
    sizes = tuple(map(int, text.split("x")))
    if len(sizes) not in (1, dimensions):
        raise ValueError(f"text: got {len(sizes)} sizes {text!r}, expected one or {dimensions}")
    return sizes if len(sizes) == dimensions else sizes * dimensions


def _options(words: Sequence[str]) -> dict[str, Any]:
    said: dict[str, Any] = {
        "bias": "none", "residual": False, "activation": None, "padding_mode": "zeros", "data_format": "channels_first",
        "dtype": "float32", "algorithm": "auto", "precision": "high",
    }  # fmt: skip
    for word in words:
        key, value = _MEANINGS.get(word) or ("activation", Activation.parse(word))
        said[key] = value
    return said


def _unless(default: str, value: str) -> str:
    return "" if value == default else value
