"""Compiled into users' functions: write a call into a record (record.py), find its plan, run it, or raise what is wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.cpython.listobj import ListInstance
from numba.cpython.unicode import _empty_string
from numba.extending import register_jitable
from numba.np import numpy_support

from fastconv.cpu.atomics import INT, WORD, intrinsic, load, store
from fastconv.embed import entry
from fastconv.embed import record as said

BYTE = ir.IntType(8)
FLOATS = (types.float32, types.float64)
MOST_KEY = 256  # words: a separable call has 130
WAITS = 10_000  # milliseconds that a thread of a loop waits for Python to compile the entries


class LayerType(types.Type):  # type: ignore[misc]
    """One type for each class of layers, with the dtype and the dimensions of its images."""

    def __init__(self, layer: str, dtype: str) -> None:
        self.layer, self.dtype = layer, dtype
        self.transposed = layer.startswith("ConvTranspose")
        super().__init__(f"fastconv.{layer}({dtype})")


# A call is written down ---------------------------------------------------------------------------------------------


def items(kind: Any) -> list[Any]:
    """The types of a tuple's items."""
    return list(kind)


class _Writer:
    """Writes the arguments of one call into a record, in the layout of record.py."""

    def __init__(self, context: Any, builder: Any, record: Any) -> None:
        self.context, self.builder, self.record = context, builder, record
        self.words, self.arrays = said.ARGUMENTS // 8, 0

    def put(self, place: int, value: Any) -> None:
        """Set the word `place` bytes into the record."""
        value = WORD(value) if isinstance(value, int) else value
        self.builder.store(value, self.builder.gep(self.record, [WORD(place // 8)]))

    def next(self, *values: Any) -> None:
        """Append words to the key."""
        for value in values:
            self.put(said.KEY + 8 * self.words, value)
            self.words += 1

    def argument(self, kind: Any, value: Any) -> None:
        """Append one argument to the key, and the address of an array to the others."""
        builder = self.builder
        if isinstance(kind, types.Omitted):
            self.constant(kind.value)
        elif isinstance(kind, types.NoneType):
            self.constant(None)
        elif isinstance(kind, types.Boolean):
            self.next(said.BOOLEAN, self.context.cast(builder, value, kind, types.int64))
        elif isinstance(kind, types.Integer):
            self.next(said.INTEGER, self.context.cast(builder, value, kind, types.int64))
        elif isinstance(kind, types.Float):
            number = self.context.cast(builder, value, kind, types.float64)
            self.next(said.FLOAT, builder.bitcast(number, WORD))
        elif isinstance(kind, types.UnicodeType):
            self.string(kind, value)
        elif isinstance(kind, types.StringLiteral):
            self.string(types.unicode_type, self.context.cast(builder, value, kind, types.unicode_type))
        elif isinstance(kind, types.BaseTuple):
            self.next(said.TUPLE, len(kind))
            for i, item in enumerate(items(kind)):
                self.argument(item, builder.extract_value(value, i))
        elif isinstance(kind, types.List):
            self.list(kind, value)
        elif isinstance(kind, types.Optional):
            self.optional(kind, value)
        elif isinstance(kind, LayerType):
            self.next(said.LAYER, value)
        else:
            self.array(kind, value)

    def constant(self, value: Any) -> None:
        """A default."""
        if value is None:
            self.next(said.NONE)
        else:
            kind = self.context.typing_context.resolve_value_type(value)
            self.argument(kind, self.context.get_constant_generic(self.builder, kind, value))

    def string(self, kind: Any, value: Any) -> None:
        """Append a string; only its first bytes, for no legal name is longer."""
        builder, text = self.builder, cgutils.create_struct_proxy(kind)(self.context, self.builder, value)
        width = builder.zext(text.kind, WORD)
        self.next(said.STRING, text.length, width, *[0] * said.STRING_WORDS)
        most = WORD(8 * said.STRING_WORDS)
        size = builder.mul(text.length, width)
        size = builder.select(builder.icmp_signed("<", size, most), size, most)
        place = said.KEY // 8 + self.words - said.STRING_WORDS
        target = builder.bitcast(builder.gep(self.record, [WORD(place)]), BYTE.as_pointer())
        cgutils.raw_memcpy(builder, target, builder.bitcast(text.data, BYTE.as_pointer()), size, 1)

    def list(self, kind: Any, value: Any) -> None:
        """Append a list; only as many numbers as one for stride or padding may have, and a few more."""
        builder, items = self.builder, ListInstance(self.context, self.builder, kind, value)
        self.next(said.LIST, items.size, *[0] * said.LIST_WORDS)
        for i in range(said.LIST_WORDS):
            with builder.if_then(builder.icmp_signed("<", WORD(i), items.size)):
                number = self.context.cast(builder, items.getitem(WORD(i)), kind.dtype, types.int64)
                self.put(said.KEY + 8 * (self.words - said.LIST_WORDS + i), number)

    def optional(self, kind: Any, value: Any) -> None:
        """Append an argument that may be None. Its words are written in either case, and passed over where it is None."""
        builder, optional = self.builder, cgutils.create_struct_proxy(kind)(self.context, self.builder, value)
        words, arrays = self.words, self.arrays
        self.argument(kind.type, optional.data)
        with builder.if_then(builder.not_(cgutils.as_bool_bit(builder, optional.valid)), likely=False):
            more, self.words = self.words - words - 1, words
            self.next(said.NONE | (self.arrays - arrays) << 32 | more << 40, *[0] * more)

    def array(self, kind: Any, value: Any) -> None:
        """Append an array: its address to the record's, all else that a plan depends on to the key."""
        builder, array = self.builder, self.context.make_array(kind)(self.context, self.builder, value)
        name = numpy_support.as_dtype(kind.dtype).name
        self.next(said.ARRAY, said.DTYPES.index(name), kind.ndim, int(kind.mutable))
        for numbers in (array.shape, array.strides):
            self.next(*(builder.extract_value(numbers, i) for i in range(kind.ndim)))
        self.put(said.ARRAYS + 8 * self.arrays, builder.ptrtoint(array.data, WORD))
        self.arrays += 1


@intrinsic  # type: ignore[untyped-decorator]
def write(typing_context: Any, function: Any, alone: Any, arguments: Any) -> Any:
    """Write a call of a function, by its number, into a new record in the caller's frame; gives its address."""

    def build(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        record = cgutils.alloca_once(builder, WORD, said.KEY // 8 + MOST_KEY)
        writer = _Writer(context, builder, record)
        writer.put(said.KEY + said.FUNCTION, values[0])
        for i, kind in enumerate(arguments):
            writer.argument(kind, builder.extract_value(values[2], i))
        assert writer.words <= MOST_KEY and writer.arrays <= said.MOST_ARRAYS
        writer.put(said.KEYS, writer.words)
        writer.put(said.ALONE, values[1])
        writer.put(said.LENGTH, 0)
        return builder.ptrtoint(record, WORD)

    return INT(INT, INT, arguments), build


@intrinsic  # type: ignore[untyped-decorator]
def empty(typing_context: Any, record: Any, like: Any) -> Any:
    """The array for a record's result, as `packing.aligned_empty` makes it."""
    image, dimensions = (items(like)[0], len(items(like)[1])) if isinstance(like, types.BaseTuple) else (like, like.ndim)
    # What has no dimensions or another dtype is refused before there is a result, which yet needs a type.
    dimensions = max(dimensions, 1)
    result = types.Array(image.dtype if image.dtype in FLOATS else types.float32, dimensions, "C")

    def build(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        words = builder.inttoptr(values[0], WORD.as_pointer())
        shape = [builder.load(builder.gep(words, [WORD(said.OUT_SHAPE // 8 + i)])) for i in range(dimensions)]
        strides = [WORD(context.get_abi_sizeof(context.get_data_type(result.dtype)))]
        for size in shape[:0:-1]:
            strides.insert(0, builder.mul(strides[0], size))
        size = builder.mul(strides[0], shape[0])
        information = context.nrt.meminfo_alloc_aligned_unchecked(builder, size, align=64)
        with builder.if_then(cgutils.is_null(builder, information), likely=False):
            context.call_conv.return_user_exc(builder, MemoryError, ("Allocation failed",))
        array = context.make_array(result)(context, builder)
        data = builder.bitcast(context.nrt.meminfo_data(builder, information), array.data.type)
        context.populate_array(array, data=data, shape=shape, strides=strides, itemsize=strides[-1], meminfo=information)
        return array._getvalue()

    return result(INT, like), build


@intrinsic  # type: ignore[untyped-decorator]
def address_of(typing_context: Any, array: Any) -> Any:
    """Where an array's numbers lie."""

    def build(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.ptrtoint(context.make_array(signature.args[0])(context, builder, values[0]).data, WORD)

    return INT(array), build


@intrinsic  # type: ignore[untyped-decorator]
def copy_text(typing_context: Any, text: Any, source: Any) -> Any:
    """Fill a string of one byte a character from memory."""

    def build(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        held = cgutils.create_struct_proxy(signature.args[0])(context, builder, values[0])
        target, source = (builder.bitcast(held.data, BYTE.as_pointer()), builder.inttoptr(values[1], BYTE.as_pointer()))
        cgutils.raw_memcpy(builder, target, source, held.length, 1)
        return context.get_dummy_value()

    return types.void(text, INT), build


# And handed over ------------------------------------------------------------------------------------------------------


@register_jitable
def fail(record, status):
    """Raise what went wrong."""
    text = _empty_string(1, load(record + said.LENGTH), 1)
    copy_text(text, record + said.TEXT)
    if status == said.VALUE_ERROR:
        raise ValueError(text)
    if status == said.TYPE_ERROR:
        raise TypeError(text)
    if status == said.MEMORY_ERROR:
        raise MemoryError(text)
    if len(text):
        raise RuntimeError(text)
    raise RuntimeError("fastconv: a parallel loop needs the GIL; compile the function around it with nogil=True")


@register_jitable
def install(record, slots):
    """Have Python compile the entries, or wait until it has; a thread that Python does not know sends another for the GIL."""
    if entry.python_state() or not entry.HAS_PTHREADS:
        entry.call_with(load(slots + entry.INSTALL), 0)
        return
    name = np.zeros(1, np.int64)
    if entry.start_thread(name.ctypes.data, 0, load(slots + entry.INSTALL), 0) == 0:
        entry.leave_thread(name[0])
    for _ in range(WAITS):
        if load(slots + entry.FIND):
            return
        entry.sleep(1000)
    entry.write_bytes(2, load(slots + entry.COMPLAINT), load(slots + entry.COMPLAINT_SIZE))
    fail(record, said.RUNTIME_ERROR)


@register_jitable
def found(record):
    """Find the plan of a record, or raise what is wrong with it."""
    slots = entry.slots_at()
    if load(slots + entry.FIND) == 0:
        install(record, slots)
    status = entry.call_with(load(slots + entry.FIND), record)
    if status:
        fail(record, status)


@register_jitable
def completed(record, result):
    """Compute a found record into an array."""
    slots = entry.slots_at()
    store(record + said.RESULT, address_of(result))
    status = entry.call_with(load(slots + entry.RUN), record)
    while status == said.AGAIN:
        found(record)
        status = entry.call_with(load(slots + entry.RUN), record)
    if status:
        fail(record, status)


@register_jitable
def made(function, alone, like, arguments):
    """A call whose result is a new array."""
    record = write(function, alone, arguments)
    found(record)
    result = empty(record, like)
    completed(record, result)
    return result


@register_jitable
def filled(function, alone, like, arguments):
    """A call whose result goes into `out`, the last of the arguments."""
    record = write(function, alone, arguments)
    found(record)
    completed(record, arguments[-1])
    return arguments[-1]
