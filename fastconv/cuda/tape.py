"""What a call launches, recorded the first time and played back for arrays that lie in memory alike.

Planning a call, describing the arrays to each kernel and launching it through Numba, which looks at each of the 70 numbers of a job
every time, took Python a millisecond a kernel; the kernels of an H100 take 5 to 50 us. Played back, a call takes 35 us: the
parameters lie ready as the driver wants them, and only addresses are written into them.

    Tape      the launches of one call in order, and the memory that they share
      Launch    one kernel: grid, threads, parameters, and which of them are addresses of the call's arrays

Numba's parameters, as its compiler lays them out: a row of numbers is seven words (owner and parent, which are 0, count, size
of one, address, and once more count and size), a number is one.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from threading import Lock
from typing import Any

import numpy as np
from numba import types

from fastconv.cuda import device
from fastconv.cuda.compiled import entry
from fastconv.cuda.device import Memory, View

WORDS, ADDRESS = 7, 4  # of a row, and which of them is its address
MOST_TAPES = 512  # that are kept: callers may come with ever new shapes
OVERLAPS = "out: shares memory with an input"


class Tape:
    """The launches of one call: `launch` does one and records it, `play` does them all again."""

    def __init__(self, arrays: list[Any], out: Any, stream: int) -> None:
        self.like, self.stream = arrays[0], stream
        indices = [device.index_of(array) for array in (*arrays, out) if array is not None]
        if len({*indices}) > 1:
            raise ValueError(f"arrays: lie on devices {indices}, expected all on that of x")
        self.index = indices[0]
        self.result = len(arrays)  # where in the list of views
        self.views: list[View | None] = [None if array is None else View(array) for array in (*arrays, out)]
        self.shape: tuple[int, ...] = ()  # of the result
        self.rooms: list[tuple[int, ...]] = []  # shapes of the arrays that live as long as a call
        self.launches: list[Launch] = []
        self.once = False  # whether something was packed that is kept: the next call launches less, so this tape is not
        self.lock = Lock()

    def given(self, place: int) -> View:
        """One of the arrays, of those that are not left out."""
        view = self.views[place]
        assert view is not None
        return view

    def out(self, shape: tuple[int, ...]) -> View:
        """The result: a new array, if none was given."""
        given, self.shape = self.views[self.result], shape
        view = View(device.empty(self.like, shape)) if given is None else given
        self.views[self.result] = view
        return view

    def room(self, shape: tuple[int, ...]) -> View:
        """An array that lives as long as the call."""
        view = View(device.empty(self.like, shape))
        self.rooms.append(shape)
        self.views.append(view)
        return view

    def constant(self, shape: tuple[int, ...], fill: Callable[[View], None]) -> View:
        """An array that depends on nothing but how the arrays lie: filled now, and kept by the launches that read it."""
        taken, view = len(self.launches), View(device.empty(self.like, shape))
        fill(view)
        del self.launches[taken:]
        return view

    def launch(self, kernel: Any, grid: Any, threads: int, told: Any) -> None:
        """Launch a kernel with its one argument, a named tuple."""
        one = Launch(kernel, grid, threads, told, self.views, self.index)
        one([0 if view is None else view.pointer for view in self.views], self.stream)
        self.launches.append(one)

    def play(self, pointers: Sequence[int], like: Any) -> None:
        """All launches again; `pointers` are those of other arrays that lie alike, and of a result."""
        rooms = [device.empty(like, shape) for shape in self.rooms]
        pointers = [*pointers, *map(device.pointer_of, rooms)]
        with self.lock, device.on(self.index):
            for one in self.launches:
                one(pointers, self.stream)

    def shares_memory(self, pointers: Sequence[int]) -> bool:
        """Whether a result there would lie in one of the other arrays."""
        runs = [
            (pointer - view.first * view.dtype.itemsize, view.count * view.dtype.itemsize)
            for pointer, view in zip(pointers, self.views, strict=False) if view is not None
        ]  # fmt: skip
        first, size = runs.pop()
        return any(first < begin + length and begin < first + size for begin, length in runs)

    def clear(self) -> None:
        """Forget the arrays, so that they can be freed."""
        self.like = None
        for view in self.views:
            if view is not None:
                view.owner = None


def run(
    tapes: dict[Any, Tape], asked: Any, arrays: list[Any], out: Any, record: Callable[[Tape], None], stream: int | None = None
) -> Any:
    """What `record` computes of arrays, which it says by `tape.launch`; `asked` is all that it depends on beside how they lie.

    `stream` is that on which the library of x works at present, if the caller knows: what a tape keeps was filled there.
    """
    looks, pointers = zip(*map(device.look_of, (*arrays, out)), strict=True)
    stream = device.stream_number(arrays[0]) if stream is None else stream
    key = asked, looks, stream
    tape = tapes.get(key)
    if tape is None:
        tape = Tape(arrays, out, stream)
        with device.on(tape.index):
            record(tape)
        result = tape.given(tape.result).owner
        if not tape.once:
            tape.clear()
            tapes[key] = tape
            if len(tapes) > MOST_TAPES:
                with suppress(RuntimeError, StopIteration):  # another thread came first, and forgets one too
                    tapes.pop(next(iter(tapes)), None)
        return result
    if out is None:
        out = device.empty(arrays[0], tape.shape)
        pointers = (*pointers[:-1], device.pointer_of(out))
    elif tape.shares_memory(pointers):
        raise ValueError(OVERLAPS)
    tape.play(pointers, arrays[0])
    return out


class Launch:
    """A kernel with its parameters: called with the pointers of a call's arrays, it is launched on a stream."""

    def __init__(self, kernel: Any, grid: Any, threads: int, told: Any, views: Iterable[View | None], index: int) -> None:
        places = {id(view): place for place, view in enumerate(views) if view is not None}
        self.kernel, self.threads, self.told = kernel, threads, told
        self.grid = (*(grid if isinstance(grid, tuple) else (grid,)), 1, 1)[:3]
        # Arrays of the call: the name of the field, which array it is, and how far its memory begins from what points to it.
        self.moving = [
            (name, places[id(row.view)], row.address - row.view.pointer)
            for name, row in zip(told._fields, told, strict=True) if isinstance(row, Memory) and id(row.view) in places
        ]  # fmt: skip
        if not device.SIMULATED:
            self._prepare(index)

    def _prepare(self, index: int) -> None:
        """Compile, and lay out the parameters, each at 8 bytes of its own."""
        words: list[int] = []
        first = {}
        for name, value in zip(self.told._fields, self.told, strict=True):
            first[name] = len(words)
            words += _words(value)
        self.words = (ctypes.c_uint64 * len(words))(*words)
        begin = ctypes.addressof(self.words)
        self.parameters = (ctypes.c_void_p * len(words))(*range(begin, begin + 8 * len(words), 8))
        self.addresses = [(first[name] + ADDRESS, place, shift) for name, place, shift in self.moving]
        self.handle = entry(self.kernel, _type_of(self.told), index)

    def __call__(self, pointers: Sequence[int], stream: int) -> None:
        if device.SIMULATED:
            rows = {name: getattr(self.told, name).at(pointers[place] + shift) for name, place, shift in self.moving}
            told = self.told._replace(**rows)
            told = told._make(device.simulated_row(value) if isinstance(value, Memory) else value for value in told)
            self.kernel[self.grid, self.threads](told)
            return
        for word, place, shift in self.addresses:
            self.words[word] = pointers[place] + shift
        device.check(device.driver().cuLaunchKernel(self.handle, *self.grid, self.threads, 1, 1, 0, stream, self.parameters, None))


def _words(value: Any) -> list[int]:
    """A value as the 8-byte words that hold its parameters."""
    if isinstance(value, Memory):
        size = value.dtype.itemsize
        return [0, 0, value.count, size, value.address, value.count, size]
    if isinstance(value, tuple):
        return [word for part in value for word in _words(part)]
    if isinstance(value, np.floating):
        return [int.from_bytes(value.tobytes().ljust(8, b"\0"), "little")]
    return [int(value) % 2**64]


def _type_of(value: Any) -> Any:
    """Numba's type of a kernel's argument."""
    if isinstance(value, Memory):
        return types.Array(getattr(types, value.dtype.name), 1, "C")
    if isinstance(value, tuple):
        return types.BaseTuple.from_types([_type_of(part) for part in value], type(value))
    return types.int64 if isinstance(value, int) else getattr(types, value.dtype.name)
