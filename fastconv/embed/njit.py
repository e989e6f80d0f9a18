"""Inside `@numba.njit`: every function of the package, and calls of its layers, by the same names.

    @njit
    def edges(image, filters):
        return fc.conv2d(image, filters, padding="same", padding_mode="replicate", activation="relu")

What is compiled into the user's function only writes down the call (record.py) and hands it over by an address that is read
when the code runs; the kernels are those that Python calls, compiled once, and a user's own disk cache never holds any.
Wrong types are found while the user's function is compiled, by the sentences of the TypeErrors that Python raises; all else by
the same checks as in Python, with the same ValueErrors, when it runs.

Numba's overloads know no keyword-only parameters: the twins below have the parameters of the functions, without the star.
A function with parallel=True that calls the package, in a loop or not, runs each call on its own thread, and without the GIL,
which a thread of the loop needs when it is the first to come with some kind of call.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.core.imputils import lower_builtin, lower_constant
from numba.core.targetconfig import ConfigStack
from numba.extending import NativeValue, models, overload, overload_method, register_model, typeof_impl, unbox
from numba.np import numpy_support

from fastconv import layers
from fastconv.cpu.atomics import WORD
from fastconv.embed import entry
from fastconv.embed import record as said
from fastconv.embed.writer import LayerType, filled, items, made
from fastconv.epilogue import Activation
from fastconv.problem import ALGORITHMS, DATA_FORMATS, PADDING_MODES, PRECISIONS, one_of, whole

# Types: refused while the user's function is compiled -----------------------------------------------------------------


def _stand_in(kind: Any) -> Any:
    """A value of a Numba type, for the checks of Python's arguments: its number is unknown, its type is not."""
    if not isinstance(kind, types.Type):  # a default of the twin
        return kind
    if isinstance(kind, types.Omitted):
        return kind.value
    if isinstance(kind, types.NoneType):
        return None
    if isinstance(kind, types.StringLiteral):
        return kind.literal_value
    if isinstance(kind, types.Optional):
        return _stand_in(kind.type)
    if isinstance(kind, types.BaseTuple):
        return tuple(map(_stand_in, items(kind)))
    if isinstance(kind, types.List):
        return [_stand_in(kind.dtype)]
    if isinstance(kind, types.Boolean):
        return True
    if isinstance(kind, types.Integer):
        return 1
    if isinstance(kind, types.Float):
        return _unknown("float", float)
    if isinstance(kind, types.UnicodeType):
        return _unknown("str", str)
    name = "ndarray" if isinstance(kind, types.Array) else str(kind)
    return _unknown(name, object)


def _unknown(name: str, base: type) -> Any:
    return type(name, (base,), {"__repr__": lambda self: "a value"})()


def _check(arguments: dict[str, Any]) -> None:
    """Refuse what no call in Python would take, by the same sentence."""
    for name, kind in arguments.items():
        try:
            if name in _CHECKS:
                _CHECKS[name](name, kind)
        except TypeError as error:
            raise TypingError(str(error)) from None
        except ValueError:
            pass  # said when it runs, as all that is wrong in a call of the right types


def _array(name: str, kind: Any) -> None:
    kind = kind.type if isinstance(kind, types.Optional) and name in _OPTIONAL else kind
    if not isinstance(kind, types.Array) and not (name in _OPTIONAL and _stand_in(kind) is None):
        raise TypeError(f"{name}: got {type(_stand_in(kind)).__name__}, expected a NumPy array")
    if isinstance(kind, types.Array):
        _dtype(name, kind)


def _dtype(name: str, kind: Any) -> None:
    dtype = numpy_support.as_dtype(kind.dtype)
    if dtype.name not in said.DTYPES or dtype.name == "float16":  # of which Numba makes no code for the CPU
        raise TypeError(f"{name}: got dtype {dtype.name}, expected float32 or float64")


def _whole(name: str, kind: Any) -> None:
    value = _stand_in(kind)
    for size in value if isinstance(value, (tuple, list)) and name != "groups" else (value,):
        for number in size if isinstance(size, (tuple, list)) and name == "padding" else (size,):
            whole(name, number, 0)


def _whole_or_none(name: str, kind: Any) -> None:
    if _stand_in(kind) is not None:
        _whole(name, kind)


def _padding(name: str, kind: Any) -> None:
    if isinstance(kind, types.List) and not isinstance(kind.dtype, types.Integer):
        raise TypeError(f"{name}: got a list of {kind.dtype}, expected a list of integers, or a tuple where entries are pairs")
    if not isinstance(_stand_in(kind), str):
        _whole(name, kind)


def _size(name: str, kind: Any) -> None:
    value = _stand_in(kind)
    if not isinstance(value, tuple):
        raise TypeError(f"{name}: got {value!r} of type {type(value).__name__}, expected a tuple of integers")
    _whole(name, kind)


def _name(legal: Any) -> Callable[[str, Any], None]:
    def check(name: str, kind: Any) -> None:
        one_of(name, _stand_in(kind), legal)

    return check


def _activation(name: str, kind: Any) -> None:
    Activation.of(_stand_in(kind), name)


_OPTIONAL = ("bias", "depthwise_bias", "pointwise_bias", "residual", "out")
_CHECKS: dict[str, Callable[[str, Any], None]] = {
    **dict.fromkeys(("x", "weight", "depthwise_weight", "pointwise_weight", "grad_output", *_OPTIONAL), _array),
    **dict.fromkeys(("stride", "dilation", "rate", "groups", "output_padding"), _whole),
    **dict.fromkeys(("input_size", "weight_size"), _size),
    "output_size": _whole_or_none, "padding": _padding, "activation": _activation, "depthwise_activation": _activation,
    "padding_mode": _name(PADDING_MODES), "data_format": _name(DATA_FORMATS), "algorithm": _name(ALGORITHMS),
    "precision": _name(PRECISIONS),
}  # fmt: skip


# The twins: what each function is inside jitted code ------------------------------------------------------------------


def _begun(arguments: dict[str, Any]) -> tuple[Any, int]:
    """Check a twin's arguments; then how it is called, and whether that is on its own thread alone."""
    _check(arguments)
    return filled if isinstance(arguments.get("out"), types.Array) else made, _in_parallel()


def _in_parallel() -> int:
    """Whether a function of parallel=True is being compiled, in whose loops the call may be; it then gives up the GIL."""
    compiling = [flags for flags in ConfigStack()._stk._stack if flags.auto_parallel.enabled]
    for flags in compiling:
        flags.release_gil = True
    return int(bool(compiling))


def _conv(number: int) -> Any:
    """Convolutions."""

    def twin(
        x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1, padding_mode="zeros", activation=None, residual=None,
        data_format="channels_first", algorithm="auto", precision="high", out=None,
    ):  # fmt: skip
        call, alone = _begun(locals())

        def impl(
            x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1, padding_mode="zeros", activation=None, residual=None,
            data_format="channels_first", algorithm="auto", precision="high", out=None,
        ):  # fmt: skip
            return call(number, alone, x, (
                x, weight, bias, stride, padding, dilation, groups, padding_mode, activation, residual, data_format, algorithm,
                precision, out,
            ))  # fmt: skip

        return impl

    return twin


def _atrous(number: int) -> Any:
    """The convolution with holes."""

    def twin(
        x, weight, bias=None, rate=2, padding=0, stride=1, groups=1, padding_mode="zeros", activation=None, residual=None,
        data_format="channels_first", algorithm="auto", precision="high", out=None,
    ):  # fmt: skip
        call, alone = _begun(locals())

        def impl(
            x, weight, bias=None, rate=2, padding=0, stride=1, groups=1, padding_mode="zeros", activation=None, residual=None,
            data_format="channels_first", algorithm="auto", precision="high", out=None,
        ):  # fmt: skip
            return call(number, alone, x, (
                x, weight, bias, rate, padding, stride, groups, padding_mode, activation, residual, data_format, algorithm,
                precision, out,
            ))  # fmt: skip

        return impl

    return twin


def _depthwise(number: int) -> Any:
    """Depthwise convolutions."""

    def twin(
        x, weight, bias=None, stride=1, padding=0, dilation=1, padding_mode="zeros", activation=None, residual=None,
        data_format="channels_first", algorithm="auto", precision="high", out=None,
    ):  # fmt: skip
        call, alone = _begun(locals())

        def impl(
            x, weight, bias=None, stride=1, padding=0, dilation=1, padding_mode="zeros", activation=None, residual=None,
            data_format="channels_first", algorithm="auto", precision="high", out=None,
        ):  # fmt: skip
            return call(number, alone, x, (
                x, weight, bias, stride, padding, dilation, padding_mode, activation, residual, data_format, algorithm, precision,
                out,
            ))  # fmt: skip

        return impl

    return twin


def _pointwise(number: int) -> Any:
    """The pointwise convolution."""

    def twin(
        x, weight, bias=None, stride=1, activation=None, residual=None, data_format="channels_first", padding_mode="zeros",
        algorithm="auto", precision="high", out=None,
    ):  # fmt: skip
        call, alone = _begun(locals())

        def impl(
            x, weight, bias=None, stride=1, activation=None, residual=None, data_format="channels_first", padding_mode="zeros",
            algorithm="auto", precision="high", out=None,
        ):  # fmt: skip
            return call(number, alone, x, (
                x, weight, bias, stride, activation, residual, data_format, padding_mode, algorithm, precision, out,
            ))  # fmt: skip

        return impl

    return twin


def _separable(number: int) -> Any:
    """The separable convolution."""

    def twin(
        x, depthwise_weight, pointwise_weight, depthwise_bias=None, pointwise_bias=None, stride=1, padding=0, dilation=1,
        depthwise_activation=None, activation=None, residual=None, padding_mode="zeros", data_format="channels_first",
        algorithm="auto", precision="high", out=None,
    ):  # fmt: skip
        call, alone = _begun(locals())

        def impl(
            x, depthwise_weight, pointwise_weight, depthwise_bias=None, pointwise_bias=None, stride=1, padding=0, dilation=1,
            depthwise_activation=None, activation=None, residual=None, padding_mode="zeros", data_format="channels_first",
            algorithm="auto", precision="high", out=None,
        ):  # fmt: skip
            return call(number, alone, x, (
                x, depthwise_weight, pointwise_weight, depthwise_bias, pointwise_bias, stride, padding, dilation,
                depthwise_activation, activation, residual, padding_mode, data_format, algorithm, precision, out,
            ))  # fmt: skip

        return impl

    return twin


def _transposed(number: int) -> Any:
    """Transposed convolutions."""

    def twin(
        x, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1, output_size=None, activation=None,
        residual=None, data_format="channels_first", algorithm="auto", precision="high", out=None,
    ):  # fmt: skip
        call, alone = _begun(locals())

        def impl(
            x, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1, output_size=None, activation=None,
            residual=None, data_format="channels_first", algorithm="auto", precision="high", out=None,
        ):  # fmt: skip
            return call(number, alone, x, (
                x, weight, bias, stride, padding, output_padding, groups, dilation, output_size, activation, residual, data_format,
                algorithm, precision, out,
            ))  # fmt: skip

        return impl

    return twin


def _conv_input(number: int) -> Any:
    """Gradients of convolutions with respect to their input."""

    def twin(
        input_size, weight, grad_output, stride=1, padding=0, dilation=1, groups=1, data_format="channels_first",
    ):  # fmt: skip
        call, alone = _begun(locals())

        def impl(
            input_size, weight, grad_output, stride=1, padding=0, dilation=1, groups=1, data_format="channels_first",
        ):  # fmt: skip
            return call(number, alone, (weight, input_size), (
                input_size, weight, grad_output, stride, padding, dilation, groups, data_format,
            ))  # fmt: skip

        return impl

    return twin


def _conv_weight(number: int) -> Any:
    """Gradients of convolutions with respect to their weight."""

    def twin(
        x, weight_size, grad_output, stride=1, padding=0, dilation=1, groups=1, data_format="channels_first",
    ):  # fmt: skip
        call, alone = _begun(locals())

        def impl(
            x, weight_size, grad_output, stride=1, padding=0, dilation=1, groups=1, data_format="channels_first",
        ):  # fmt: skip
            return call(number, alone, (x, weight_size), (
                x, weight_size, grad_output, stride, padding, dilation, groups, data_format,
            ))  # fmt: skip

        return impl

    return twin


def _transposed_input(number: int) -> Any:
    """Gradients of transposed convolutions with respect to their input."""

    def twin(
        input_size, weight, grad_output, stride=1, padding=0, output_padding=0, groups=1, dilation=1, data_format="channels_first",
    ):  # fmt: skip
        call, alone = _begun(locals())

        def impl(
            input_size, weight, grad_output, stride=1, padding=0, output_padding=0, groups=1, dilation=1,
            data_format="channels_first",
        ):  # fmt: skip
            return call(number, alone, (weight, input_size), (
                input_size, weight, grad_output, stride, padding, output_padding, groups, dilation, data_format,
            ))  # fmt: skip

        return impl

    return twin


def _transposed_weight(number: int) -> Any:
    """Gradients of transposed convolutions with respect to their weight."""

    def twin(
        x, weight_size, grad_output, stride=1, padding=0, output_padding=0, groups=1, dilation=1, data_format="channels_first",
    ):  # fmt: skip
        call, alone = _begun(locals())

        def impl(
            x, weight_size, grad_output, stride=1, padding=0, output_padding=0, groups=1, dilation=1, data_format="channels_first",
        ):  # fmt: skip
            return call(number, alone, (x, weight_size), (
                x, weight_size, grad_output, stride, padding, output_padding, groups, dilation, data_format,
            ))  # fmt: skip

        return impl

    return twin


def _bias(number: int) -> Any:
    """Gradients of either sort with respect to a bias of one number a filter."""

    def twin(
        grad_output, data_format="channels_first",
    ):  # fmt: skip
        call, alone = _begun(locals())

        def impl(
            grad_output, data_format="channels_first",
        ):  # fmt: skip
            return call(number, alone, (grad_output, (0,)), (
                grad_output, data_format,
            ))  # fmt: skip

        return impl

    return twin


_FAMILIES = {
    "conv{}d": _conv, "conv_transpose{}d": _transposed, "depthwise_conv{}d": _depthwise, "atrous_conv{}d": _atrous,
    "pointwise_conv{}d": _pointwise, "separable_conv{}d": _separable,
    "grad.conv{}d_input": _conv_input, "grad.conv{}d_weight": _conv_weight, "grad.conv{}d_bias": _bias,
    "grad.conv_transpose{}d_input": _transposed_input, "grad.conv_transpose{}d_weight": _transposed_weight,
    "grad.conv_transpose{}d_bias": _bias,
}  # fmt: skip
TWINS = {
    name: family(said.FUNCTIONS.index(name))
    for text, family in _FAMILIES.items() for dimensions in "123" if (name := text.format(dimensions)) in said.FUNCTIONS
}  # fmt: skip
for _name_of_function, _twin in TWINS.items():
    overload(entry.function_of(_name_of_function))(_twin)


# Layers, by their numbers ---------------------------------------------------------------------------------------------


_numbers = itertools.count(1)  # of layers that jitted code has met; never given twice
_constants: list[layers._Layer] = []  # that compiled code refers to


def number_of(layer: Any) -> int:
    """The number by which jitted code knows a layer."""
    number = layer.__dict__.get("_number")
    if number is None:
        with entry.numbering:
            number = layer.__dict__.setdefault("_number", next(_numbers))
            entry.by_number[number] = layer
    return int(number)


@typeof_impl.register(layers._Layer)
def _type_of_layer(layer: Any, context: Any) -> LayerType:
    return LayerType(type(layer).__name__, layer._dtype)


@register_model(LayerType)
class _LayerModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, fe_type: Any) -> None:
        super().__init__(manager, fe_type, WORD)


@unbox(LayerType)
def _unbox_layer(kind: Any, layer: Any, c: Any) -> Any:
    function = c.pyapi.unserialize(c.pyapi.serialize_object(number_of))
    number = c.pyapi.call_function_objargs(function, (layer,))
    value = c.pyapi.long_as_longlong(number)
    c.pyapi.decref(number)
    c.pyapi.decref(function)
    return NativeValue(value, is_error=cgutils.is_not_null(c.builder, c.pyapi.err_occurred()))


@lower_constant(LayerType)
def _constant_layer(context: Any, builder: Any, kind: Any, layer: Any) -> Any:
    """A layer that the jitted function finds outside; such code is of this process alone, and Numba does not cache it."""
    _constants.append(layer)
    return builder.ptrtoint(context.add_dynamic_addr(builder, number_of(layer), info="layer"), WORD)


@overload_method(LayerType, "__call__")
def _call_layer(layer, x, out=None, residual=None, output_size=None):
    arguments = locals()
    _check({name: kind for name, kind in arguments.items() if name != "layer"})
    call, alone = _begun(arguments)
    if layer.transposed:

        def impl(layer, x, out=None, residual=None, output_size=None):
            return call(0, alone, x, (layer, x, residual, output_size, out))

    else:
        if not isinstance(output_size, (types.Omitted, type(None))):
            raise TypingError(f"{layer.layer} takes no output_size")

        def impl(layer, x, out=None, residual=None, output_size=None):
            return call(0, alone, x, (layer, x, residual, out))

    return impl


@lower_builtin(LayerType, types.VarArg(types.Any))
def _lower_call(context: Any, builder: Any, signature: Any, values: Any) -> Any:
    """Numba types a call of an instance by its method of that name, and looks for the code under the instance's type."""
    method = context.typing_context.resolve_getattr(signature.args[0], "__call__")
    return context.get_function(method, signature)(builder, values)
