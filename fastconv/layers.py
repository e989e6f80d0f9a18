"""Layers: convolutions that hold their weights, packed once for the kernels that they meet.

A layer checks its arrays when it is made and its input when it is called. What a shape of input needs - problem, kernel,
division of the work - is worked out on the first call of that shape and kept for the last `MOST_PLANS` of them; the packed
weights are kept for each kernel. Both under a lock, so a layer may be called from many threads at once.
"""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastconv import cuda, functional, grad
from fastconv.cpu import launch, packing, threads
from fastconv.cpu.table import IMPLEMENTATIONS
from fastconv.epilogue import Activation
from fastconv.explain import Explanation, explain
from fastconv.plan import AnyProblem, choose
from fastconv.problem import (
    Problem,
    Shaped,
    as_pointwise,
    check_result,
    dtype_of,
    of_conv,
    of_depthwise,
    of_separable,
    of_transposed,
    shape_of,
)

Array = np.ndarray[Any, Any]
# One for all layers, and so replaced in a forked child, where whoever held it stayed behind; a signal handler may call a layer
# while its thread has it.
_planning = threading.RLock()
LISTS = ("stride", "padding", "dilation", "output_padding")  # arguments that may be lists
MOST_PLANS = 64  # of a layer: callers may come with ever new shapes
MOST_PACKED = 4  # of a layer: weights in the order of so many kernels and tiles


class Gradients(NamedTuple):
    """What `backward` gives; `bias` is None for a layer without one."""

    x: Array
    weight: Array
    bias: Array | None


class SeparableGradients(NamedTuple):
    """What `SeparableConv2d.backward` gives; a bias is None where the layer has none."""

    x: Array
    depthwise_weight: Array
    pointwise_weight: Array
    depthwise_bias: Array | None
    pointwise_bias: Array | None


class _Plan(NamedTuple):
    problem: AnyProblem
    result: packing.Room
    bound: launch.Bound | None  # None for a batch of 0


class _OnDevice(NamedTuple):
    """A layer's arrays on one device; `packed` and `tapes` are filled by fastconv/cuda/launch.py."""

    weights: list[Any]
    biases: list[Any]
    packed: dict[Any, Any]
    tapes: dict[Any, Any]
    stream: int  # on which they were brought


def _in_child() -> None:
    global _planning
    _planning = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


def _forget_oldest(kept: dict[Any, Any], most: int) -> None:
    while len(kept) > most:
        del kept[next(iter(kept))]


class _Layer:
    """What all layers share. `_arrays` and `_arguments` are what it was made of, by name."""

    dimensions = 2

    def __init__(self, arrays: dict[str, Array | None], arguments: dict[str, Any]) -> None:
        for name, array in arrays.items():
            functional.check_arrays(optional=name.endswith("bias"), **{name: array})
            if array is not None:
                dtype_of(name, array)
        self._hold(arrays, arguments)

    def _hold(self, arrays: dict[str, Array | None], arguments: dict[str, Any]) -> None:
        """Keep copies of the arrays, and everything as an attribute: a `__getattr__` would slow all others down by 0.06 us each."""
        frozen = {name: None if array is None else _frozen(array) for name, array in arrays.items()}
        arguments = {name: _unchanging(value) if name in LISTS else value for name, value in arguments.items()}
        self.__dict__.update(frozen | arguments, _arrays=frozen, _arguments=arguments)
        self._forget()

    def _forget(self) -> None:
        self._plans: dict[Any, _Plan] = {}
        self._packed: dict[Any, list[launch.Packed]] = {}
        self._on_devices: dict[Any, _OnDevice] = {}

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.__dict__.get("_arrays", ()) or name in self.__dict__.get("_arguments", ()):
            raise AttributeError(f"{name} of a layer is read-only; make a new layer")
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        self.__setattr__(name, None)  # refused of what the layer holds
        super().__delattr__(name)

    def __getstate__(self) -> dict[str, Any]:
        return {"arrays": self._arrays, "arguments": self._arguments}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._hold(state["arrays"], state["arguments"])

    def __repr__(self) -> str:
        shapes = [f"{name} {array.shape}" for name, array in self._arrays.items() if array is not None]
        return f"{type(self).__name__}({', '.join(shapes)}, {self._dtype})"

    @property
    def _dtype(self) -> str:
        return dtype_of(*next(iter(self._arrays.items())))

    # Calling ---------------------------------------------------------------------------------------------------------

    def __call__(self, x: Array, out: Array | None = None, *, residual: Array | None = None) -> Array:
        """Convolve x; see the function of the same name for shapes and errors."""
        if type(x) is not np.ndarray or residual is not None:
            functional.check_arrays(x=x)
            functional.check_arrays(optional=True, beside=x, residual=residual)
            if cuda.is_device_array(x):
                return self._call_on_device(x, out, residual)
        plan = self._plan(x, residual)
        if out is None:
            out = plan.result()
        elif not functional.fits(plan.result, out, residual):
            functional.check_out(plan.problem, x, out, residual)
        if plan.bound is not None:
            added = None if residual is None else packing.contiguous(residual)
            if not plan.bound.compute(x, added, out):
                functional.run_apart(plan.bound, plan.problem, x, added, out)
        return out

    def _call_on_device(self, x: Array, out: Array | None, residual: Array | None) -> Array:
        functional.check_arrays(optional=True, beside=x, out=out)
        held = self._beside(x)
        return cuda.kernels().compute(  # type: ignore[no-any-return]
            lambda: self._problem(x, residual), x, held.weights, held.biases, residual, out,
            asked=(), packed=held.packed, tapes=held.tapes, stream=held.stream,
        )  # fmt: skip

    def _beside(self, x: Array) -> _OnDevice:
        """The weights and biases where x lies: NumPy arrays are put on a device once, and packed there once."""
        weights, biases = self._weights_and_biases()
        if type(x) is np.ndarray or not cuda.is_device_array(x):
            return _OnDevice(weights, biases, {}, {}, 0)
        kernels = cuda.kernels()
        place = kernels.place_of(x)
        with _planning:
            if place not in self._on_devices:
                moved = [[None if a is None else kernels.brought(a, x) for a in arrays] for arrays in (weights, biases)]
                self._on_devices[place] = _OnDevice(moved[0], moved[1], {}, {}, place[-1])
                _forget_oldest(self._on_devices, MOST_PACKED)
            return self._on_devices[place]

    def prepare(self, shape: tuple[int, ...]) -> None:
        """Pack the weights and compile the kernel for inputs of this shape, ahead of the first call."""
        self(np.zeros(shape_of("shape", shape), self._dtype))

    def explain(self, shape: tuple[int, ...]) -> Explanation:
        """Say which kernel an input of this shape would run, and why: see `fastconv.explain`."""
        return explain(self._problem(Shaped(shape_of("shape", shape), self._dtype), None))

    def _plan(self, x: Array, residual: Array | None) -> _Plan:
        """What is known of inputs that look like this one. Reading a dict needs no lock, changing it does."""
        added = None if residual is None else (residual.shape, residual.dtype)
        key = (x.shape, x.strides, x.dtype, x.flags.aligned, added, threads.get_num_threads())
        return self._plans.get(key) or self._planned(key, x, residual)

    def _planned(self, key: Any, x: Array, residual: Array | None) -> _Plan:
        functional.check_arrays(optional=True, beside=x, **self._arrays)
        problem = self._problem(x, residual)
        choice = choose(problem, IMPLEMENTATIONS, threads.get_num_threads(), launch.neighbours(x, problem))
        packed_for = (choice.implementation.pack, choice.division.unit)
        with _planning:
            if packed_for not in self._packed:
                weights, biases = self._weights_and_biases()
                self._packed[packed_for] = launch.pack(choice, weights, biases)
                _forget_oldest(self._packed, MOST_PACKED)
            bound = None
            if problem.batch:
                bound = launch.Bound(choice, x, residual is not None).with_weights(self._packed[packed_for])
            plan = _Plan(problem, packing.Room(functional.result_shape(problem, x), np.dtype(problem.dtype)), bound)
            self._plans[key] = plan
            _forget_oldest(self._plans, MOST_PLANS)
        return plan

    # What the kinds of layers differ in ------------------------------------------------------------------------------

    def _problem(self, x: Any, residual: Any) -> AnyProblem:
        raise NotImplementedError

    def _weights_and_biases(self) -> tuple[list[Array], list[Array | None]]:
        return [self.weight], [self.bias]

    # Backward --------------------------------------------------------------------------------------------------------

    def backward(self, x: Array, grad_output: Array) -> Any:
        """The gradients of x and of everything the layer holds, from that of its result, through the activation.

        Parameters
        ----------
        x : ndarray
            What the layer was called with.
        grad_output : ndarray
            Gradient with respect to the result, of its shape.

        Returns
        -------
        Gradients
            Named tuple of x, weight and bias; of more for a separable layer.

        Raises
        ------
        TypeError, ValueError
            As a call; also if grad_output is not of the result's shape, or the padding mode is not "zeros".
        """
        functional.check_arrays(x=x, grad_output=grad_output)
        problem = self._problem(x, None)
        assert isinstance(problem, Problem)
        held = self._beside(x)
        return backward(problem, x, held.weights[0], held.biases[0], grad_output)


def backward(problem: Problem, x: Array, weight: Array, bias: Array | None, grad_output: Array) -> Gradients:
    """The gradients of one checked problem, through its activation."""
    if problem.padding_mode != "zeros" and any(map(any, problem.pads)):
        raise ValueError(f"padding_mode: gradients are of mode 'zeros' only, got {problem.padding_mode!r}")
    check_result("grad_output", grad_output, problem, x.ndim)
    if problem.activation != Activation():
        # The activation's slope is taken at the sum, which only a call without activation shows.
        sums = functional.compute(replace(problem, activation=Activation()), x, [weight], [bias])
        if cuda.is_device_array(x):
            grad_output = cuda.kernels().through_activation(problem, sums, grad_output)
        else:
            grad_output = grad_output * problem.activation.derivative(sums)
    grad_x = grad.input_gradient(problem, weight, grad_output)
    grad_weight = grad.weight_gradient(problem, x, grad_output)
    if problem.bias == "none":
        return Gradients(grad_x, grad_weight, None)
    if problem.bias == "channel":
        return Gradients(grad_x, grad_weight, grad.bias_gradient(problem.dimensions, grad_output, problem.data_format))
    if cuda.is_device_array(x):
        return Gradients(grad_x, grad_weight, cuda.kernels().map_gradient(problem, grad_output))
    return Gradients(grad_x, grad_weight, functional.batched(grad_output, problem).sum(axis=0))


def _frozen(array: Array) -> Array:
    if cuda.is_device_array(array):
        return cuda.kernels().copied(array)  # type: ignore[no-any-return]
    copy = packing.aligned_copy(array)
    copy.flags.writeable = False
    return copy


def _unchanging(value: Any) -> Any:
    """An argument that nobody can change any more: tuples for lists."""
    return tuple(map(_unchanging, value)) if isinstance(value, (list, tuple)) else value


class _Conv(_Layer):
    """A convolution of `dimensions` dimensions of space."""

    def __init__(
        self, weight: Array, bias: Array | None = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1, *,
        padding_mode: str = "zeros", activation: Any = None, data_format: str = "channels_first", algorithm: str = "auto",
        precision: str = "high",
    ) -> None:  # fmt: skip
        super().__init__(
            {"weight": weight, "bias": bias},
            {
                "stride": stride, "padding": padding, "dilation": dilation, "groups": groups, "padding_mode": padding_mode,
                "activation": activation, "data_format": data_format, "algorithm": algorithm, "precision": precision,
            },
        )  # fmt: skip

    def _problem(self, x: Any, residual: Any) -> AnyProblem:
        return of_conv(x, self.weight, self.bias, dimensions=self.dimensions, residual=residual, **self._arguments)


class Conv1d(_Conv):
    """`fastconv.conv1d` with weights of its own.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.Conv1d(np.ones((4, 2, 3), np.float32), padding=1)(np.ones((1, 2, 9), np.float32)).shape
    (1, 4, 9)
    """

    dimensions = 1


class Conv2d(_Conv):
    """`fastconv.conv2d` with weights of its own, packed once.

    Parameters
    ----------
    weight, bias, stride, padding, dilation, groups, padding_mode, activation, data_format, algorithm, precision
        As in `fastconv.conv2d`. Arrays are copied.

    Raises
    ------
    TypeError, ValueError
        As `fastconv.conv2d`: of arrays and their dtypes when the layer is made, of all else on the first call of a shape.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> layer = fc.Conv2d(np.ones((4, 3, 3, 3), np.float32), padding="same", activation="relu")
    >>> x = np.ones((1, 3, 8, 8), np.float32)
    >>> layer(x).shape
    (1, 4, 8, 8)
    >>> layer.backward(x, layer(x)).weight.shape
    (4, 3, 3, 3)
    """


class Conv3d(_Conv):
    """`fastconv.conv3d` with weights of its own.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.Conv3d(np.ones((4, 2, 3, 3, 3), np.float32))(np.ones((1, 2, 5, 5, 5), np.float32)).shape
    (1, 4, 3, 3, 3)
    """

    dimensions = 3


class DepthwiseConv2d(_Layer):
    """`fastconv.depthwise_conv2d` with weights of its own.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.DepthwiseConv2d(np.ones((4, 1, 3, 3), np.float32))(np.ones((1, 4, 5, 5), np.float32)).shape
    (1, 4, 3, 3)
    """

    def __init__(
        self, weight: Array, bias: Array | None = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, *,
        padding_mode: str = "zeros", activation: Any = None, data_format: str = "channels_first", algorithm: str = "auto",
        precision: str = "high",
    ) -> None:  # fmt: skip
        super().__init__(
            {"weight": weight, "bias": bias},
            {
                "stride": stride, "padding": padding, "dilation": dilation, "padding_mode": padding_mode,
                "activation": activation, "data_format": data_format, "algorithm": algorithm, "precision": precision,
            },
        )  # fmt: skip

    def _problem(self, x: Any, residual: Any) -> AnyProblem:
        return of_depthwise(x, self.weight, self.bias, dimensions=2, residual=residual, **self._arguments)


class PointwiseConv2d(_Layer):
    """`fastconv.pointwise_conv2d` with weights of its own.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.PointwiseConv2d(np.ones((32, 192), np.float32))(np.ones((1, 192, 28, 28), np.float32)).shape
    (1, 32, 28, 28)
    """

    def __init__(
        self, weight: Array, bias: Array | None = None, stride: Any = 1, *, activation: Any = None,
        data_format: str = "channels_first", padding_mode: str = "zeros", algorithm: str = "auto", precision: str = "high",
    ) -> None:  # fmt: skip
        super().__init__(
            {"weight": weight, "bias": bias},
            {
                "stride": stride, "padding_mode": padding_mode, "activation": activation, "data_format": data_format,
                "algorithm": algorithm, "precision": precision,
            },
        )  # fmt: skip

    def _problem(self, x: Any, residual: Any) -> AnyProblem:
        return of_conv(
            x, self._full(), self.bias, padding=0, dilation=1, groups=1, dimensions=2, residual=residual, **self._arguments
        )

    def _full(self) -> Array:
        return as_pointwise(self.weight, self._dtype)  # type: ignore[no-any-return]

    def _weights_and_biases(self) -> tuple[list[Array], list[Array | None]]:
        return [self._full()], [self.bias]

    def backward(self, x: Array, grad_output: Array) -> Gradients:
        """As of every layer; the weight's gradient has the weight's shape."""
        full: Gradients = super().backward(x, grad_output)
        return full._replace(weight=full.weight.reshape(self.weight.shape))


class SeparableConv2d(_Layer):
    """`fastconv.separable_conv2d` with weights of its own.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> layer = fc.SeparableConv2d(np.ones((3, 1, 3, 3), np.float32), np.ones((8, 3), np.float32), padding=1)
    >>> layer(np.ones((1, 3, 16, 16), np.float32)).shape
    (1, 8, 16, 16)
    """

    def __init__(
        self, depthwise_weight: Array, pointwise_weight: Array, depthwise_bias: Array | None = None,
        pointwise_bias: Array | None = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, *,
        depthwise_activation: Any = None, activation: Any = None, padding_mode: str = "zeros",
        data_format: str = "channels_first", algorithm: str = "auto", precision: str = "high",
    ) -> None:  # fmt: skip
        super().__init__(
            {
                "depthwise_weight": depthwise_weight, "pointwise_weight": pointwise_weight,
                "depthwise_bias": depthwise_bias, "pointwise_bias": pointwise_bias,
            },
            {
                "stride": stride, "padding": padding, "dilation": dilation, "depthwise_activation": depthwise_activation,
                "activation": activation, "padding_mode": padding_mode, "data_format": data_format, "algorithm": algorithm,
                "precision": precision,
            },
        )  # fmt: skip

    def _problem(self, x: Any, residual: Any) -> AnyProblem:
        return of_separable(x, *self._arrays.values(), residual=residual, **self._arguments)

    def _weights_and_biases(self) -> tuple[list[Array], list[Array | None]]:
        return [self.depthwise_weight, self.pointwise_weight], [self.depthwise_bias, self.pointwise_bias]

    def backward(self, x: Array, grad_output: Array) -> SeparableGradients:
        """As of every layer, for both parts; the depthwise result is computed again."""
        functional.check_arrays(x=x, grad_output=grad_output)
        problem = self._problem(x, None)
        inner, outer = problem.depthwise, problem.pointwise  # type: ignore[union-attr]
        (weight, full), (bias, outer_bias), *_ = self._beside(x)
        between = functional.compute(inner, x, [weight], [bias])
        above = backward(outer, between, full.reshape(outer.weight_shape), outer_bias, grad_output)
        below = backward(inner, x, weight, bias, above.x)
        return SeparableGradients(below.x, below.weight, above.weight.reshape(self.pointwise_weight.shape), below.bias, above.bias)


class _ConvTranspose(_Layer):
    """A transposed convolution of `dimensions` dimensions of space."""

    def __init__(
        self, weight: Array, bias: Array | None = None, stride: Any = 1, padding: Any = 0, output_padding: Any = 0,
        groups: int = 1, dilation: Any = 1, *, activation: Any = None, data_format: str = "channels_first",
        algorithm: str = "auto", precision: str = "high",
    ) -> None:  # fmt: skip
        super().__init__(
            {"weight": weight, "bias": bias},
            {
                "stride": stride, "padding": padding, "output_padding": output_padding, "groups": groups, "dilation": dilation,
                "activation": activation, "data_format": data_format, "algorithm": algorithm, "precision": precision,
            },
        )  # fmt: skip

    def __call__(self, x: Array, out: Array | None = None, *, residual: Array | None = None, output_size: Any = None) -> Array:
        """Convolve x transposed; `output_size`, the result's space, picks the output padding."""
        return _Layer.__call__(self._of_size(output_size), x, out, residual=residual)

    def _forget(self) -> None:
        super()._forget()
        self._of_sizes: dict[str, _ConvTranspose] = {}

    def _of_size(self, output_size: Any) -> _ConvTranspose:
        """The same layer, arrays and packed weights and all, for results of one size; itself for None."""
        if output_size is None:
            return self
        size = repr(output_size)  # 10 is legal, 10.0 is not
        with _planning:
            if size not in self._of_sizes:
                twin = self._of_sizes[size] = type(self).__new__(type(self))
                arguments = self._arguments | {"output_size": output_size}
                twin.__dict__.update(self.__dict__, _arguments=arguments, _plans={}, _of_sizes={})
                _forget_oldest(self._of_sizes, MOST_PLANS)
            return self._of_sizes[size]

    def backward(self, x: Array, grad_output: Array) -> Gradients:
        """As of every layer; the space of `grad_output` is the `output_size` that the layer was called with, if it was."""
        functional.check_arrays(x=x, grad_output=grad_output)
        space = grad_output.shape[:-1] if self.data_format == "channels_last" else grad_output.shape
        sized = self._of_size(tuple(space[-self.dimensions :]))
        try:
            sized._problem(x, None)
        except ValueError:  # it has an output padding of its own, or no result of this size: then that is said of grad_output
            sized = self
        return _Layer.backward(sized, x, grad_output)  # type: ignore[no-any-return]

    def _problem(self, x: Any, residual: Any) -> AnyProblem:
        return of_transposed(x, self.weight, self.bias, dimensions=self.dimensions, residual=residual, **self._arguments)


class ConvTranspose1d(_ConvTranspose):
    """`fastconv.conv_transpose1d` with weights of its own.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.ConvTranspose1d(np.ones((2, 4, 3), np.float32), stride=2)(np.ones((1, 2, 9), np.float32)).shape
    (1, 4, 19)
    """

    dimensions = 1


class ConvTranspose2d(_ConvTranspose):
    """`fastconv.conv_transpose2d` with weights of its own.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> layer = fc.ConvTranspose2d(np.ones((2, 4, 3, 3), np.float32), stride=2, padding=1)
    >>> layer(np.ones((1, 2, 9, 9), np.float32), output_size=18).shape
    (1, 4, 18, 18)
    """


class ConvTranspose3d(_ConvTranspose):
    """`fastconv.conv_transpose3d` with weights of its own.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.ConvTranspose3d(np.ones((2, 4, 2, 2, 2), np.float32), stride=2)(np.ones((1, 2, 3, 3, 3), np.float32)).shape
    (1, 4, 6, 6, 6)
    """

    dimensions = 3
