"""How a jitted call tells the package what to compute: one run of 64-bit words, written by the caller's code, read by entry.py.

    STATUS ... TEXT     head: what is found, where the arrays lie
    KEY                 which function, for how many threads, and every argument but the arrays' addresses, one after the other:
                        a tag, then its words

Two calls of equal keys need the same plan. The layout is frozen into users' disk caches, which outlive an upgrade of the
package: change nothing here but `ABI` with it, and append to `FUNCTIONS` only.
"""

from __future__ import annotations

import ctypes
import struct
from typing import Any, NamedTuple

import numpy as np

ABI = 1
SYMBOL = f"fastconv_embed_{ABI}"  # of the words that hold the addresses of `find` and `run`

# The head, in bytes.
STATUS = 0  # see below
PLAN, TURN = 8, 16  # what `find` has found, and when
ALONE = 24  # 1 if the call is inside a function of parallel=True: it runs on its own thread
KEYS = 32  # words of the key
OUT_SHAPE = 40  # of the result, at most MOST_DIMENSIONS numbers
RESULT = 80  # where it lies
LENGTH = 88  # of the text, in bytes
PACK = 96  # 1 if the plan that is found was made for other weights, which are to be packed for this call alone
ARRAYS = 104  # addresses of the arguments that are arrays, in their order
TEXT = 168  # of an error; and before there can be one, room for
PRINT = TEXT  # the fingerprint of the arrays that are weights: prints.py
KEY = 1192
FUNCTION, LIMIT, ARGUMENTS = 0, 8, 16  # in the key
MOST_DIMENSIONS = 5
MOST_ARRAYS = (TEXT - ARRAYS) // 8
MOST_TEXT = KEY - TEXT

DONE, VALUE_ERROR, TYPE_ERROR, MEMORY_ERROR, RUNTIME_ERROR, AGAIN = range(6)

# Tags, and the words that follow.
NONE = 0  # an argument that might have been an array: the upper half of the tag says how many arrays, and words, to pass over
INTEGER, FLOAT, BOOLEAN = 1, 2, 3  # one word
STRING = 4  # how many characters, bytes of each (1, 2 or 4, as in Python's memory), then the first STRING_WORDS words of them
TUPLE = 5  # how many, then each
ARRAY = 6  # dtype, dimensions, 1 if writable, shape, strides
LAYER = 7  # its number
LIST = 8  # how many, then LIST_WORDS integers, of which so many count
STRING_WORDS = 4
LIST_WORDS = 8
DTYPES = (
    "float32", "float64", "float16", "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
    "complex64", "complex128",
)  # fmt: skip

_CONVS = ("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
FUNCTIONS = (
    "layer", *_CONVS, "atrous_conv2d", "depthwise_conv1d", "depthwise_conv2d", "depthwise_conv3d", "pointwise_conv2d",
    "separable_conv2d", *(f"grad.{name}_{what}" for what in ("input", "weight", "bias") for name in _CONVS),
)  # fmt: skip


class Said(NamedTuple):
    """A record, read: the function's name, its arguments, and which of them are arrays."""

    function: str
    arguments: list[Any]
    arrays: list[np.ndarray[Any, Any] | None]


class LayerNumber(int):
    """Stands for a layer among the arguments."""


class _There:
    """Lets NumPy make an array of memory that somebody else owns."""

    def __init__(self, address: int, writable: bool, dtype: str, shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
        self.__array_interface__ = {
            "data": (address, not writable), "typestr": np.dtype(dtype).str, "shape": shape, "strides": strides, "version": 3,
        }  # fmt: skip


def words_at(address: int, count: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Words of memory that somebody else owns."""
    return np.asarray(_There(address, True, "int64", (count,), (8,)))


def read(record: int) -> Said:
    """A record's arguments. Its arrays are the caller's memory: good while the caller waits."""
    head = words_at(record, KEY // 8)
    key = words_at(record + KEY, int(head[KEYS // 8])).tolist()
    addresses = head[ARRAYS // 8 :][:MOST_ARRAYS].tolist()
    arrays: list[np.ndarray[Any, Any] | None] = []

    def argument(at: int) -> tuple[Any, int]:
        tag = key[at] & 0xFF
        if tag == NONE:
            arrays.extend([None] * (key[at] >> 32 & 0xFF))
            return None, at + 1 + (key[at] >> 40)
        word = key[at + 1]
        if tag in (INTEGER, BOOLEAN):
            return (int(word) if tag == INTEGER else bool(word)), at + 2
        if tag == FLOAT:
            return struct.unpack("d", struct.pack("q", word))[0], at + 2
        if tag == STRING:
            return _string(word, key[at + 2], key[at + 3 : at + 3 + STRING_WORDS]), at + 3 + STRING_WORDS
        if tag == TUPLE:
            items, at = [], at + 2
            for _ in range(word):
                item, at = argument(at)
                items.append(item)
            return tuple(items), at
        if tag == LIST:
            return key[at + 2 : at + 2 + min(word, LIST_WORDS)], at + 2 + LIST_WORDS
        if tag == LAYER:
            return LayerNumber(word), at + 2
        dimensions, writable = key[at + 2 : at + 4]
        shape, strides = tuple(key[at + 4 : at + 4 + dimensions]), tuple(key[at + 4 + dimensions : at + 4 + 2 * dimensions])
        there = _There(addresses[len(arrays)], bool(writable), DTYPES[word], shape, strides)
        arrays.append(np.asarray(there) if 0 not in shape else np.zeros(shape, DTYPES[word]))
        return arrays[-1], at + 4 + 2 * dimensions

    arguments, at = [], ARGUMENTS // 8
    while at < len(key):
        value, at = argument(at)
        arguments.append(value)
    return Said(FUNCTIONS[key[FUNCTION // 8]], arguments, arrays)


def _string(length: int, width: int, words: list[int]) -> str:
    held = struct.pack(f"{STRING_WORDS}q", *words)[: length * width]
    return held.decode({1: "latin-1", 2: "utf-16-le", 4: "utf-32-le"}[width], "replace")


def write_error(record: int, status: int, text: str) -> None:
    """Let the caller's code raise an error."""
    written = text.encode("ascii", "backslashreplace")[:MOST_TEXT]
    ctypes.memmove(record + TEXT, written, len(written))
    head = words_at(record, KEY // 8)
    head[LENGTH // 8], head[STATUS // 8] = len(written), status
