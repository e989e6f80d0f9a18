"""Inside compiled code: atomic 64-bit words by address, sums of numbers by address, C functions by address or by name.

Numba has none of these; the team of threads needs the words and the functions. All memory orders are sequentially consistent: the
words are touched a few times a call, so nothing weaker would be measurably faster, and nothing weaker is as easy to reason about.
Addresses are int64 values; a word lies on a multiple of 8 bytes.
"""

from __future__ import annotations

import os
import platform
from typing import Any

from llvmlite import ir
from numba import extending, types
from numba.core import cgutils

ORDER = "seq_cst"
WORD = ir.IntType(64)
INT = types.int64
intrinsic: Any = extending.intrinsic  # whose calls mypy cannot know: they lack the typing context


def _word(builder: Any, address: Any) -> Any:
    """The address as an LLVM pointer to a word."""
    return builder.inttoptr(address, WORD.as_pointer())


# Words ---------------------------------------------------------------------------------------------------------------


@intrinsic  # type: ignore[untyped-decorator]
def load(typing_context: Any, address: Any) -> Any:
    """The word at `address`."""

    def build(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.load_atomic(_word(builder, values[0]), ORDER, 8)

    return INT(INT), build


@intrinsic  # type: ignore[untyped-decorator]
def store(typing_context: Any, address: Any, value: Any) -> Any:
    """Make the word at `address` be `value`."""

    def build(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        builder.store_atomic(values[1], _word(builder, values[0]), ORDER, 8)
        return context.get_dummy_value()

    return types.void(INT, INT), build


@intrinsic  # type: ignore[untyped-decorator]
def add(typing_context: Any, address: Any, value: Any) -> Any:
    """Add to the word at `address`; gives what it was."""

    def build(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.atomic_rmw("add", _word(builder, values[0]), values[1], ORDER)

    return INT(INT, INT), build


@intrinsic  # type: ignore[untyped-decorator]
def swap(typing_context: Any, address: Any, value: Any) -> Any:
    """Make the word at `address` be `value`; gives what it was."""

    def build(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.atomic_rmw("xchg", _word(builder, values[0]), values[1], ORDER)

    return INT(INT, INT), build


@intrinsic  # type: ignore[untyped-decorator]
def change(typing_context: Any, address: Any, old: Any, new: Any) -> Any:
    """Whether the word at `address` was `old`, and therefore is `new` now."""

    def build(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        outcome = builder.cmpxchg(_word(builder, values[0]), values[1], values[2], ORDER)
        return builder.extract_value(outcome, 1)

    return types.boolean(INT, INT, INT), build


@intrinsic  # type: ignore[untyped-decorator]
def pause(typing_context: Any) -> Any:
    """Tell the core that this is a waiting loop; nothing on processors that have no word for it."""
    hints = {"x86": ("llvm.x86.sse2.pause", []), "arm": ("llvm.aarch64.hint", [ir.IntType(32)(1)])}
    machine = platform.machine().lower()
    family = "arm" if machine in ("arm64", "aarch64") else "x86" if machine in ("x86_64", "amd64", "i686") else ""

    def build(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        if family:  # an LLVM intrinsic: Numba's JIT has no assembler for an inline one
            name, arguments = hints[family]
            kind = ir.FunctionType(ir.VoidType(), [argument.type for argument in arguments])
            hint = cgutils.get_or_insert_function(builder.module, kind, name)  # type: ignore[no-untyped-call]
            builder.call(hint, arguments)
        return context.get_dummy_value()

    return types.void(), build


# Numbers -------------------------------------------------------------------------------------------------------------

TOGETHER = 64  # bytes of numbers that are added at once: one by one, four parts of 128 x 64 filters took 18 us for 1.8


@intrinsic  # type: ignore[untyped-decorator]
def add_numbers(typing_context: Any, target: Any, left: Any, right: Any, width: Any, together: Any) -> Any:
    """Put the sum of numbers of 4 or 8 bytes, TOGETHER bytes of them or one alone, at an address; all by address."""

    def build(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        *addresses, width, together = values
        for size, number in ((4, ir.FloatType()), (8, ir.DoubleType())):
            for kind, extent in ((ir.VectorType(number, TOGETHER // size), TOGETHER), (number, size)):
                fits = (builder.icmp_signed("==", a, WORD(b)) for a, b in ((width, size), (together, extent)))
                with builder.if_then(builder.and_(*fits)):
                    there, a, b = (builder.inttoptr(address, kind.as_pointer()) for address in addresses)
                    builder.store(builder.fadd(builder.load(a, align=size), builder.load(b, align=size)), there, align=size)
        return context.get_dummy_value()

    return types.void(INT, INT, INT, INT, INT), build


# Functions -----------------------------------------------------------------------------------------------------------


@intrinsic  # type: ignore[untyped-decorator]
def call(typing_context: Any, kernel: Any, item: Any, seat: Any, job: Any) -> Any:
    """Call the C function `void kernel(int64 item, int64 seat, int64 job)` that lies at address `kernel`."""

    def build(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [WORD] * 3)
        builder.call(builder.inttoptr(values[0], kind.as_pointer()), values[1:])
        return context.get_dummy_value()

    return types.void(INT, INT, INT, INT), build


def foreign(name: str, result: Any, *arguments: Any) -> Any:
    """A C function that the process has loaded; compiled code that calls it can be cached on disk."""
    return types.ExternalFunction(name, result(*arguments))


# CPython's own locks: they need no GIL, any thread may release one, and they have these names on every system.
take_lock = foreign("PyThread_acquire_lock", types.int32, INT, types.int32)
"""Wait for the lock at an address (first argument) if the second is 1."""
give_lock = foreign("PyThread_release_lock", types.void, INT)
"""Release the lock at an address."""
give_way = foreign("SwitchToThread" if os.name == "nt" else "sched_yield", types.int32)
"""Let another thread have this core."""
this_thread = foreign("PyThread_get_thread_ident", INT)
"""What `threading.get_ident` calls this thread."""
this_core = foreign("sched_getcpu", types.int32)
"""The core that runs this thread; Linux only."""
stay_on = foreign("sched_setaffinity", types.int32, types.int32, INT, INT)
"""Keep a thread (0: this one) on the cores of a mask, given by its bytes and address; Linux only."""
