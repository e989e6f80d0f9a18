"""Where calls from jitted code arrive: find the plan of a record (record.py), then run it, without Python.

    find(record)   looks the key's plan up in a hash table. A key that was never seen goes to Python, once: the arguments are
                   read back and given to the function of that name, which checks them and says what it would compute. That
                   is planned as for any call, and kept as a block of words (the offsets below "A plan, in bytes")
    run(record)    takes one piece of memory for the job, the copies of images, and the scratch, and runs the items as
                   `launch.Bound` does

Packing a function's weights anew for each call would take longer than many a kernel. So a plan keeps packed weights beside a
fingerprint of those that they were made from, and serves all calls whose weights have the same fingerprint. A key may have some
such plans. The last one also serves calls with still other weights, which it packs by the kernels of packing.py as Python would.

A call takes no lock. Plans are only added, under Python's lock, at the head of a chain. When there are too many, all are unlinked,
and freed once no call is under way (`INSIDE` counts them). For a new key `find` needs the GIL. In a parallel loop a thread of
Numba's may wait for it in vain, because the thread that holds it waits for the loop to end. Then `ask_late` gives up, and says so
on the standard error, because exceptions in such loops are lost.
"""

from __future__ import annotations

import _thread
import ctypes
import inspect
import math
import os
import threading
import weakref
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import llvmlite.binding
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from fastconv import functional, grad
from fastconv.cpu import job, launch, packing, threads
from fastconv.cpu.atomics import INT, WORD, add, change, foreign, intrinsic, load, store, swap
from fastconv.cpu.compiled import address, compiled
from fastconv.cpu.gradients import add_parts
from fastconv.cpu.threads import limit_here, serve
from fastconv.embed import prints
from fastconv.embed import record as said
from fastconv.plan import AnyProblem
from fastconv.problem import Problem, SeparableProblem

Array = np.ndarray[Any, Any]

MOST_PLANS = 512  # then all are forgotten: callers may come with ever new shapes
MOST_WEIGHTS = 8  # plans of one key: so many layers of one shape, each with its own weights, find theirs packed
MOST_KEPT = 1 << 30  # bytes of weights in all plans together
MOST_KEPT_ROOMS = 16  # pieces of memory that are kept between calls: so many threads may call at once and find one
CHAINS = 1024  # of the hash table
PATIENCE = 40_000  # times that a thread of Numba's looks for its plan without anybody being about to make it: 3 s

# Words that compiled code reads and writes, in bytes; a user's code knows the first five.
FIND, RUN, INSTALL = 0, 8, 16  # addresses of the functions, 0 until the third has been called
COMPLAINT, COMPLAINT_SIZE = 24, 32  # what to say on the standard error where an exception would be lost
MISS, LATE, SHARE = 40, 48, 56  # of Python's
WORDS_OF_THREADS = 64
TURN = 72  # how often plans were forgotten
PLANNING = 80  # threads that are making a plan
INSIDE = 128  # calls under way
KEPT = 136  # memory that calls have given back, see `borrow`: on either side of the line above, for all write it
HEADS = 384
slots = np.zeros(HEADS // 8 + CHAINS, np.int64)
complaint = np.frombuffer(
    b"fastconv: a call in a parallel loop was not computed. It is the first of its kind, and to plan it Python's lock is needed, "
    b"which the function around the loop holds; compile that function with nogil=True.\n",
    np.uint8,
)

# A plan, in bytes.
HASH, NEXT, ROWS, OUT_SHAPE = 0, 8, 16, 24
CODE, ITEMS, WORK, SCRATCH, APART = 64, 72, 80, 88, 96  # APART: 1 if it is not worth sharing
TEMPLATE, ROOM = 104, 112  # the job's words; bytes of them and of what the rows copy
ZEROED = 120  # bytes of the result to be zeroed, where there is nothing to run
ONCE = 128  # 1: for one call; 2: that call is over
ORIGIN, EXTENT = 136, 144  # of `out` where it is given: bytes from its address to its end; 0 where it is not
ORDERS = 152  # how the call's own weights are packed, where this plan's may not be used
PARTS, PARTS_AT, PARTS_SIZE, PARTS_WIDTH = 160, 168, 176, 184  # results to be added up, or 0; where in ROOM, of what numbers
PRINT = 192  # the fingerprint of the weights, or 0 if those of any call will do
KEYS, KEY = 200, 208
# A row says what to do with one array: where its address is in the record, the word of the job that is to hold it (or -1), the
# map by which it is copied first (or 0), where in ROOM the copy goes, the bytes of it that the fingerprint is of (or 0); then
# the bytes from its address that it lies between.
ROW = 56
FROM, PLACE, MAP, TARGET, PRINTED, BELOW, ABOVE = range(0, ROW, 8)
# An order says how one weight is packed: where its address is in the record, the word of the job that is to hold it, where in
# ROOM it goes; the map by which it is copied first (or 0), to where in ROOM; how many bytes from there a packing kernel begins to
# read, its own job (0: the copy is all), code, items and work; the job's word for a bias that is packed too, or -1.
ORDER = 88
SOURCE, INTO, LAID, COPY_MAP, COPY_AT, SHIFT, TASK, TASK_CODE, TASK_ITEMS, TASK_WORK, BIAS_AT = range(0, ORDER, 8)

# What is borrowed, in front of it: where the memory begins, and how much there is.
ROOM_AT, ROOM_SIZE = 0, 8

memcmp = foreign("memcmp", types.int32, INT, INT, INT)
memcpy = foreign("memcpy", INT, INT, INT, INT)
memset = foreign("memset", INT, INT, types.int32, INT)
allocate = foreign("malloc", INT, INT)
free = foreign("free", types.void, INT)
python_state = foreign("PyGILState_GetThisThreadState", INT)
start_thread = foreign("pthread_create", types.int32, INT, INT, INT, INT)
leave_thread = foreign("pthread_detach", types.int32, INT)
HAS_PTHREADS = os.name == "posix"
write_bytes = foreign("write" if HAS_PTHREADS else "_write", INT, types.int32, INT, INT)
sleep = foreign("usleep" if HAS_PTHREADS else "Sleep", types.int32, types.int32)


@intrinsic  # type: ignore[untyped-decorator]
def slots_at(typing_context: Any) -> Any:
    """The address of `slots`: read when the code is loaded, not when it is compiled."""

    def build(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.ptrtoint(cgutils.add_global_variable(builder.module, WORD, said.SYMBOL), WORD)

    return INT(), build


@intrinsic  # type: ignore[untyped-decorator]
def call_with(typing_context: Any, function: Any, argument: Any) -> Any:
    """Call the C function `int64 function(int64)` at an address."""

    def build(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.call(builder.inttoptr(values[0], ir.FunctionType(WORD, [WORD]).as_pointer()), values[1:])

    return INT(INT, INT), build


@intrinsic  # type: ignore[untyped-decorator]
def move(typing_context: Any, target: Any, source: Any, width: Any) -> Any:
    """Copy one number of 4 or 8 bytes."""

    def build(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        target, source, width = values
        with builder.if_else(builder.icmp_signed("==", width, WORD(8))) as (eight, four):
            for branch, kind in ((eight, WORD), (four, ir.IntType(32))):
                with branch:
                    number = builder.load(builder.inttoptr(source, kind.as_pointer()))
                    builder.store(number, builder.inttoptr(target, kind.as_pointer()))
        return context.get_dummy_value()

    return types.void(INT, INT, INT), build


# Compiled ------------------------------------------------------------------------------------------------------------


@compiled
def copy_by_map(plan: int, source: int, target: int) -> None:
    """Copy an array of any strides, or with a border: its numbers lie at the sum of one entry of each of six tables."""
    width = load(plan)
    n0, n1, n2, n3, n4, n5 = load(plan + 8), load(plan + 16), load(plan + 24), load(plan + 32), load(plan + 40), load(plan + 48)
    t0, t1, t2, t3, t4, t5 = load(plan + 56), load(plan + 64), load(plan + 72), load(plan + 80), load(plan + 88), load(plan + 96)
    for i0 in range(n0):
        for i1 in range(n1):
            for i2 in range(n2):
                plane = source + load(t0 + 8 * i0) + load(t1 + 8 * i1) + load(t2 + 8 * i2)
                for i3 in range(n3):
                    for i4 in range(n4):
                        line = plane + load(t3 + 8 * i3) + load(t4 + 8 * i4)
                        for i5 in range(n5):
                            move(target, line + load(t5 + 8 * i5), width)
                            target += width


@compiled
def hashed(record: int) -> int:
    """A number that is the same for equal keys."""
    key, number = record + said.KEY, 0
    for place in range(key, key + 8 * load(record + said.KEYS), 8):
        number = (number ^ load(place)) * -7046029254386353131  # the golden ratio's bits, as Fibonacci hashing has them
        number ^= (number >> 29) & 0x7FFFFFFFF
    return number


@compiled
def fingerprint(plan: int, record: int, into: int) -> bool:
    """Write that of a record's weights, by a plan's rows; False if there is no memory for a copy."""
    rows = load(plan + ROWS)
    memset(into, 0, prints.SIZE)
    for row in range(rows + 8, rows + 8 + ROW * load(rows), ROW):
        source, size = load(record + said.ARRAYS + 8 * load(row + FROM)), load(row + PRINTED)
        if size and load(row + MAP):
            copy = allocate(size)
            if copy == 0:
                return False
            copy_by_map(load(row + MAP), source, copy)
            prints.absorb(into, copy, size)
            free(copy)
        elif size:
            prints.absorb(into, source, size)
    return True


@compiled
def kept(slots: int, record: int) -> int:
    """The address of the plan for a record, or 0; of one for other weights, if there are many."""
    number, size, own = hashed(record), 8 * load(record + said.KEYS), record + said.PRINT
    plan, others, count = load(slots + HEADS + 8 * (number & (CHAINS - 1))), 0, 0
    store(record + said.PACK, 0)
    while plan:
        if load(plan + HASH) == number and 8 * load(plan + KEYS) == size and memcmp(plan + KEY, record + said.KEY, size) == 0:
            if load(plan + PRINT) == 0:
                return plan
            if count == 0 and not fingerprint(plan, record, own):  # of equal keys they differ in the weights alone
                return 0
            if memcmp(load(plan + PRINT), own, prints.SIZE) == 0:
                return plan
            others = others if others else plan  # the last one made
            count += 1
        plan = load(plan + NEXT)
    if count < MOST_WEIGHTS or load(others + ORDERS) == 0:
        return 0
    store(record + said.PACK, 1)
    return others


@compiled
def overlaps(plan: int, record: int) -> bool:
    """Whether an argument may share memory with `out`."""
    rows, low = load(plan + ROWS), load(record + said.ARRAYS + 8 * load(plan + ORIGIN))
    for row in range(rows + 8, rows + 8 + ROW * load(rows), ROW):
        start = load(record + said.ARRAYS + 8 * load(row + FROM))
        if start + load(row + BELOW) < low + load(plan + EXTENT) and low < start + load(row + ABOVE):
            return True
    return False


@compiled
def look(slots: int, record: int) -> bool:
    """Write the plan for a record into it, if there is one."""
    add(slots + INSIDE, 1)
    turn, plan = load(slots + TURN), kept(slots, record)
    if plan:
        store(record + said.PLAN, plan)
        store(record + said.TURN, turn)
        for place in range(0, 8 * said.MOST_DIMENSIONS, 8):
            store(record + said.OUT_SHAPE + place, load(plan + OUT_SHAPE + place))
    check = plan != 0 and load(plan + EXTENT) != 0 and overlaps(plan, record)
    add(slots + INSIDE, -1)
    return plan != 0 and not check


@compiled
def ask_late(slots: int, record: int) -> int:
    """Ask Python from a thread that it does not know: another thread waits for the GIL, and we for a plan, from whomever."""
    request = allocate(32)  # whether the other has begun, the record, and the answer; the thread's own name
    store(request, 0)
    store(request + 8, record)
    if start_thread(request + 24, 0, load(slots + LATE), request) != 0:
        return said.MEMORY_ERROR
    leave_thread(load(request + 24))
    waited = 0
    while load(request) < 2:
        sleep(20)
        waited = 0 if load(slots + PLANNING) else waited + 1
        if load(request) == 0:
            if look(slots, record):
                if change(request, 0, -1):  # what is left undone, the other thread frees
                    return said.DONE
            elif waited > PATIENCE and change(request, 0, -1):
                write_bytes(2, load(slots + COMPLAINT), load(slots + COMPLAINT_SIZE))
                return said.RUNTIME_ERROR
    answer = load(request + 16)
    free(request)
    return answer


@compiled
def find(record: int) -> int:
    """Write into a record which plan it needs, and its result's shape. Gives 0, or what went wrong."""
    slots = slots_at()
    store(record + said.PLAN, 0)
    store(record + said.KEY + said.LIMIT, limit_here(load(slots + WORDS_OF_THREADS)))
    if look(slots, record):
        return said.DONE
    if HAS_PTHREADS and python_state() == 0:
        return ask_late(slots, record)
    return call_with(load(slots + MISS), record)


@compiled
def run(record: int) -> int:
    """Compute what a record says into its result, by the plan that `find` has found. Gives 0, or what went wrong."""
    slots = slots_at()
    add(slots + INSIDE, 1)
    plan = load(record + said.PLAN)
    once = load(record + said.TURN) < 0
    if not once and load(record + said.TURN) != load(slots + TURN):  # all were forgotten meanwhile
        plan = kept(slots, record)
        if plan == 0:
            add(slots + INSIDE, -1)
            return said.AGAIN
    status = compute(plan, record, slots, load(slots + WORDS_OF_THREADS))
    if once:
        store(plan + ONCE, 2)
    add(slots + INSIDE, -1)
    return status


@compiled
def pack(plan: int, record: int, task: int, board: int, limit: int) -> None:
    """Pack a record's own weights for a job, whose biases are in place."""
    orders = load(plan + ORDERS)
    for order in range(orders + 8, orders + 8 + ORDER * load(orders), ORDER):
        weight, packed = load(record + said.ARRAYS + 8 * load(order + SOURCE)), task + load(order + LAID)
        if load(order + COPY_MAP):
            copy_by_map(load(order + COPY_MAP), weight, task + load(order + COPY_AT))
            weight = task + load(order + COPY_AT)
        if load(order + TASK):
            own = job.own_copy(load(order + TASK))
            store(own + 8 * launch.X, weight + load(order + SHIFT))
            store(own + 8 * launch.OUT, packed)
            store(own + 8 * launch.SCRATCH, task + load(plan + ROOM))
            if load(order + BIAS_AT) >= 0:
                store(own + 8 * launch.WEIGHT[0][1], load(task + 8 * load(order + BIAS_AT)))
            items, work = load(order + TASK_ITEMS), load(order + TASK_WORK)
            helped = board if work >= threads.WORTH_SHARING else 0
            serve(helped, load(order + TASK_CODE), own, items, min(limit, items), work)
        store(task + 8 * load(order + INTO), packed)


@compiled
def in_order(row: int, record: int, task: int) -> int:
    """The address of a row's array in C order."""
    at = load(record + said.ARRAYS + 8 * load(row + FROM))
    if load(row + MAP):
        copy_by_map(load(row + MAP), at, task + load(row + TARGET))
        at = task + load(row + TARGET)
    return at


@compiled
def compute(plan: int, record: int, slots: int, words: int) -> int:
    """Set a job's addresses, copy what its kernel cannot read in place, and run its items."""
    result, items = load(record + said.RESULT), load(plan + ITEMS)
    if items == 0:
        memset(result, 0, load(plan + ZEROED))
        return said.DONE
    limit = load(record + said.KEY + said.LIMIT)
    alone = load(plan + APART) or load(record + said.ALONE)
    board = 0 if alone or load(words + threads.ASKED) < min(limit, items) else load(words + threads.TEAM)
    seats = 1 if alone else max(limit, load(words + threads.MORE_SEATS))
    size = load(plan + ROOM) + seats * load(plan + SCRATCH)
    task = borrow(slots, size)
    if task == 0:
        return said.MEMORY_ERROR
    memcpy(task, load(plan + TEMPLATE), 8 * job.WORDS)
    rows = load(plan + ROWS)
    for row in range(rows + 8, rows + 8 + ROW * load(rows), ROW):
        if load(row + PLACE) >= 0:
            store(task + 8 * load(row + PLACE), in_order(row, record, task))
    if load(record + said.PACK):
        pack(plan, record, task, board, limit)
    store(task + 8 * launch.OUT, task + load(plan + PARTS_AT) if load(plan + PARTS) else result)
    store(task + 8 * launch.SCRATCH, task + load(plan + ROOM))
    parts, work = min(limit, items), load(plan + WORK)
    if alone or parts < 2 or work < threads.WORTH_SHARING:
        serve(0, load(plan + CODE), task, items, 1, 0)
    elif board:
        serve(board, load(plan + CODE), task, items, parts, work)
    elif python_state() == 0:  # a loop of Numba's runs us, and its threads are busy already
        serve(0, load(plan + CODE), task, items, 1, 0)
    else:
        store(record + said.PLAN, plan)
        store(record + said.STATUS, task)
        store(record + said.LENGTH, seats)
        call_with(load(slots + SHARE), record)
    if load(plan + PARTS):
        add_parts(task + load(plan + PARTS_AT), load(plan + PARTS), load(plan + PARTS_SIZE), load(plan + PARTS_WIDTH), result)
    give_back(slots, task)
    return said.DONE


@compiled
def borrow(slots: int, size: int) -> int:
    """Memory of so many bytes, on a cache line: what an earlier call gave back, if it is large enough; 0 if there is none."""
    for place in range(slots + KEPT, slots + KEPT + 8 * MOST_KEPT_ROOMS, 8):
        if load(place):
            room = swap(place, 0)
            if room and load(room + ROOM_SIZE) >= size:
                return room + packing.ALIGNMENT
            if room:
                free(load(room + ROOM_AT))
            break
    memory = allocate(size + 2 * packing.ALIGNMENT)
    if memory == 0:
        return 0
    room = (memory + packing.ALIGNMENT - 1) // packing.ALIGNMENT * packing.ALIGNMENT
    store(room + ROOM_AT, memory)
    store(room + ROOM_SIZE, size)
    return room + packing.ALIGNMENT


@compiled
def give_back(slots: int, memory: int) -> None:
    """Keep borrowed memory for a later call, or free it."""
    room = memory - packing.ALIGNMENT
    if load(room + ROOM_SIZE) <= packing.MOST_KEPT:
        for place in range(slots + KEPT, slots + KEPT + 8 * MOST_KEPT_ROOMS, 8):
            if load(place) == 0 and change(place, 0, room):
                return
    free(load(room + ROOM_AT))


# Python: new plans ---------------------------------------------------------------------------------------------------


class _Plan:
    """A plan's words, and what they point to."""

    def __init__(self, record: int, ready: launch.Ready | None, out_shape: tuple[int, ...], dtype: Any, *keeps: Any) -> None:
        key = said.words_at(record + said.KEY, int(said.words_at(record, said.KEYS // 8 + 1)[-1]))
        self.words = np.zeros(KEY // 8 + len(key), np.int64)
        self.words[KEY // 8 :] = key
        self.words[OUT_SHAPE // 8 :][: len(out_shape)] = out_shape
        self.keeps: list[Any] = [ready, *keeps]
        self._record = record
        self.bytes = 0
        self._rows: list[list[int]] = []
        self._orders: list[list[int]] = []
        self._packs_others = True
        self._room = _rounded(8 * job.WORDS)
        values = {KEYS: len(key), HASH: hashed(record)}
        if ready is None:
            values |= {ZEROED: math.prod(out_shape) * np.dtype(dtype).itemsize}
        else:
            values |= {
                CODE: ready.code, ITEMS: ready.items, WORK: int(ready.work), SCRATCH: ready.scratch, APART: ready.alone,
                TEMPLATE: _at(ready.words),
            }  # fmt: skip
        self._set(values)

    def _set(self, values: dict[int, int]) -> None:
        for place, value in values.items():
            self.words[place // 8] = value

    @property
    def address(self) -> int:
        return _at(self.words)

    def row(self, source: int, array: Array, place: int = -1, mapped: Array | None = None, printed: bool = False) -> None:
        """What to do with one of a record's arrays: its place in the job, what copies it, whether its numbers are this plan's."""
        low, high = np.lib.array_utils.byte_bounds(array) if array.size else (0, 0)
        start = _at(array) if array.size else 0
        row = [source, place, 0, 0, array.nbytes if printed else 0, low - start, high - start]
        if mapped is not None:
            self.keeps.append(mapped)
            row[MAP // 8] = _at(mapped)
            row[TARGET // 8] = self._more_room(int(mapped[0] * math.prod(mapped[1 : 1 + TABLES].tolist())))
        self._rows.append(row)

    def order(self, source: int, weight: Array, places: tuple[int, int], how: packing.Packing | None) -> None:
        """How other weights are packed that lie as this one does: it was packed so. None: by Python alone, and all others too."""
        if how is None:
            self._packs_others = False
            return
        task, view, bias = how
        offset = _at(view) - _at(weight)
        mapped, copy_at, tasks = 0, 0, [0, 0, 0, 0]
        laid = self._more_room(view.nbytes if task is None else math.prod(task.out_shape) * view.itemsize)
        if task is None or task.copied:
            table = _map(view, offset=offset)
            self.keeps.append(table)
            mapped, copy_at, offset = _at(table), laid if task is None else self._more_room(view.nbytes), 0
        if task is not None:
            self.keeps.append(task)
            offset -= task.corner
            tasks = [_at(task.words), task.code, task.items, int(task.work)]
            self._set({SCRATCH: max(int(self.words[SCRATCH // 8]), task.scratch)})
        self._orders.append([source, places[0], laid, mapped, copy_at, offset, *tasks, -1 if bias is None else places[1]])

    def in_parts(self, parts: int, shape: tuple[int, ...], width: int) -> None:
        """The kernel makes so many results, whose sum is the call's."""
        if parts > 1:
            size = math.prod(shape)
            self._set({PARTS: parts, PARTS_AT: self._more_room(parts * size * width), PARTS_SIZE: size, PARTS_WIDTH: width})

    def _more_room(self, size: int) -> int:
        place, self._room = self._room, self._room + _rounded(size)
        return place

    def finished(self, out: tuple[int, Array] | None) -> _Plan:
        """The same, when all rows are there."""
        rows, orders = (np.array([len(table), *(word for row in table for word in row)]) for table in (self._rows, self._orders))
        self.keeps += [rows, orders]
        self._set({ROWS: _at(rows), ROOM: self._room, ORDERS: _at(orders) if self._orders and self._packs_others else 0})
        if any(row[PRINTED // 8] for row in self._rows):
            own = np.zeros(prints.SIZE // 8, np.int64)
            self.keeps.append(own)
            if not fingerprint(self.address, self._record, _at(own)):
                raise MemoryError
            self._set({PRINT: _at(own)})
        if out is not None:
            self._set({ORIGIN: out[0], EXTENT: out[1].nbytes})
        return self


_Source = Callable[[Array], int]  # which of a record's arrays one is
numbering = threading.Lock()
by_number: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()  # layers that jitted code has met
_lock = threading.Lock()
_plans: list[_Plan] = []
_forgotten: list[_Plan] = []  # unlinked, but maybe in use
_once: list[_Plan] = []


def _keep(plan: _Plan, record: int) -> None:
    """Link a plan into the table, or leave it to this one call."""
    head = said.words_at(record, said.KEY // 8)
    with _lock:
        _once[:] = [other for other in _once if other.words[ONCE // 8] != 2]
        if not inside(_at(slots)):
            _forgotten.clear()
        kept_bytes = plan.bytes + sum(other.bytes for other in _plans)
        if (len(_plans) >= MOST_PLANS or kept_bytes > MOST_KEPT) and not _forgotten:
            _forget(_plans.copy())
        same = sum(np.array_equal(other.words[KEY // 8 :], plan.words[KEY // 8 :]) for other in _plans)
        if len(_plans) >= MOST_PLANS or same >= MOST_WEIGHTS or plan.bytes > MOST_KEPT:
            plan.words[ONCE // 8] = 1
            _once.append(plan)
            head[said.TURN // 8] = -1
        else:
            _plans.append(plan)
            place = HEADS // 8 + (int(plan.words[HASH // 8]) & (CHAINS - 1))
            plan.words[NEXT // 8] = slots[place]
            slots[place] = plan.address
            head[said.TURN // 8] = slots[TURN // 8]
        head[said.PLAN // 8] = plan.address
        head[said.OUT_SHAPE // 8 :][: said.MOST_DIMENSIONS] = plan.words[OUT_SHAPE // 8 :][: said.MOST_DIMENSIONS]


def _forget(plans: list[_Plan]) -> None:
    """Unlink all plans, and free those; the others are linked again."""
    others = [plan for plan in _plans if not any(plan is one for one in plans)]
    slots[HEADS // 8 :] = 0
    slots[TURN // 8] += 1
    for plan in others:
        place = HEADS // 8 + (int(plan.words[HASH // 8]) & (CHAINS - 1))
        plan.words[NEXT // 8] = slots[place]
        slots[place] = plan.address
    _plans[:] = others
    if inside(_at(slots)):
        _forgotten.extend(plans)


def _forget_one(reference: weakref.ref[_Plan]) -> None:
    """Forget the plan of a layer that is gone."""
    plan = reference()
    with _lock:
        if plan is not None and any(plan is other for other in _plans):
            _forget([plan])


def plan_of(record: int) -> None:
    """Check a record's arguments, plan what they ask for, and keep the plan.

    Raises
    ------
    TypeError, ValueError
        As the function called would.
    """
    name, arguments, arrays = said.read(record)
    known = said.words_at(record, said.KEY // 8)[said.PLAN // 8]  # then `out` may share memory with another array
    slots[PLANNING // 8] += 1
    try:
        plan = _planned(record, name, arguments, arrays)
        if not known:
            _keep(plan, record)
    finally:
        slots[PLANNING // 8] -= 1


def _planned(record: int, name: str, arguments: list[Any], arrays: list[Array | None]) -> _Plan:
    def source(array: Array) -> int:
        """Which of the record's arrays it is, or is a view of."""
        return next(i for i, a in enumerate(arrays) if a is not None and (array is a or array.base is a))

    if name == "layer":
        return _of_layer(record, arguments, source)
    parameters = _parameters(name)
    given = dict(zip(parameters, arguments, strict=True))
    if name.startswith("grad.") and name.endswith("_bias"):
        return _of_bias(record, int(name[-7]), source, **given)
    out = given.pop("out", None)
    positional = [value for key, value in given.items() if parameters[key].kind is not inspect.Parameter.KEYWORD_ONLY]
    keywords = {key: value for key, value in given.items() if parameters[key].kind is inspect.Parameter.KEYWORD_ONLY}
    problem, image, weights, biases, residual = asked = functional.ask(function_of(name), *positional, **keywords)
    if problem.kind == "weights":
        return _of_weights(record, asked, source)
    if out is not None:
        functional.check_out(problem, image, out, *weights, *biases, residual)
    call = functional.call_of(problem, image, residual, asked.fresh)
    with packing.observed() as how:
        packed = launch.pack(call.choice, weights, biases)
    choice = call.choice
    if choice.implementation.pack is None:  # copied at most
        as_read = launch._in_order(choice, weights, biases) if choice.mirrored else weights
        how = [packing.Packing(None, weight, None) for weight in as_read]
    packings = [next((one for one in how if np.may_share_memory(one.weight, weight)), None) for weight in weights]
    plan = _of_images(record, problem, call.bound and call.bound.with_weights(packed), image, residual, source)
    if call.bound is not None:
        places = launch.WEIGHT if len(weights) == 1 else launch.BOTH_WEIGHTS
        for weight, bias, one, (laid, _), at in zip(weights, biases, packings, packed, places, strict=True):
            _add_weight(plan, weight, bias, one, laid, at, source)
    return plan.finished(None if out is None else (source(out), out))


def _of_layer(record: int, arguments: list[Any], source: _Source) -> _Plan:
    number, x, residual, *size, out = arguments
    layer = by_number[number]
    planned = (layer._of_size(*size) if size else layer)._plan(x, residual)
    if out is not None:
        functional.check_out(planned.problem, x, out, residual)
    plan = _of_images(record, planned.problem, planned.bound, x, residual, source)
    weakref.finalize(layer, _forget_one, weakref.ref(plan)).atexit = False
    return plan.finished(None if out is None else (source(out), out))


def _of_images(
    record: int, problem: AnyProblem, bound: launch.Bound | None, x: Array, residual: Array | None, source: _Source
) -> _Plan:  # fmt: skip
    """A plan without its weights."""
    out_shape = functional.result_shape(problem, x)
    if bound is None:
        return _Plan(record, None, out_shape, problem.dtype)
    if bound.as_it_lies:
        plan = _Plan(record, bound.ready, out_shape, problem.dtype, bound)
        plan.row(source(x), x, launch.X)
    else:
        bound, in_c_order = bound.of_copies(x)
        plan = _Plan(record, bound.ready, out_shape, problem.dtype, bound)
        first = problem.depthwise if isinstance(problem, SeparableProblem) else problem
        plan.row(source(x), x, launch.X, _map(functional.batched(x, problem), first, bordered=True, in_c_order=in_c_order))
    if residual is not None:
        plan.row(source(residual), residual, launch.RESIDUAL, _map_unless_contiguous(residual))
    return plan


def _add_weight(
    plan: _Plan, weight: Array, bias: Array | None, how: packing.Packing | None, packed: Array, places: tuple[int, int],
    source: _Source,
) -> None:  # fmt: skip
    """A weight that is read as it is comes with each call, as a bias does; a packed one is this plan's, or packed again.

    `how` is None if it was packed of a copy: then those of another call go back to Python.
    """
    in_place = np.may_share_memory(packed, weight)
    if bias is not None:  # of a panel's it stands in front
        plan.row(source(bias), bias, places[1], _map_unless_contiguous(bias), printed=bias.ndim == 1 and not in_place)
    if in_place:
        plan.row(source(weight), weight, places[0])
    else:
        plan.row(source(weight), weight, -1, _map_unless_contiguous(weight), printed=True)
        plan.order(source(weight), weight, places, how)
        plan.bytes += packed.nbytes


def _of_weights(record: int, asked: functional.Answer, source: _Source) -> _Plan:
    problem, pair = asked.problem, (asked.image, asked.weights[0])
    assert isinstance(problem, Problem)
    batched = [functional.batched(array, problem) for array in pair]
    if not problem.batch:
        return _Plan(record, None, problem.weight_shape, problem.dtype).finished(None)
    bound = grad.planned_weight_gradient(problem, *batched).bound
    assert isinstance(bound, launch.BoundWeightGradient)
    plan = _Plan(record, bound.ready, problem.weight_shape, problem.dtype, bound)
    if bound.exchanged:
        batched.reverse()
    for array, place, read in zip(batched, (launch.X, launch.GRAD), bound.as_read(*batched), strict=True):
        in_place = _at(read) == _at(array)
        plan.row(source(array), array, place, None if in_place else _map(array, problem, in_c_order=read.flags.c_contiguous))
    plan.in_parts(bound.parts, problem.weight_shape, np.dtype(problem.dtype).itemsize)
    return plan.finished(None)


def _of_bias(record: int, dimensions: int, source: _Source, grad_output: Array, data_format: str) -> _Plan:
    batched = grad.checked_of_bias(dimensions, grad_output, data_format)
    image = packing.readable(batched)
    gradient = launch.bias_gradient(image, data_format)
    plan = _Plan(record, gradient.ready, (gradient.ready.items,), image.dtype)
    plan.row(source(batched), batched, launch.GRAD, None if image is batched else _map(batched))
    return plan.finished(None)


def function_of(name: str) -> Callable[..., Array]:
    """The function of a name of `record.FUNCTIONS`."""
    return getattr(grad, name.removeprefix("grad.")) if name.startswith("grad.") else getattr(functional, name)


@lru_cache
def _parameters(name: str) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(function_of(name)).parameters


# Maps, for copy_by_map


TABLES = said.MOST_DIMENSIONS + 1  # of a map: a weight has its groups besides


def _map(
    array: Array, problem: Problem | None = None, offset: int = 0, *, bordered: bool = False, in_c_order: bool = True
) -> Array:  # fmt: skip
    """What copies an array, in C order or in that of a problem's other format; `offset` bytes into the source it begins.

    An image may be `bordered`: its problem's border is drawn in.
    """
    pads, mode, axes = [(0, 0)] * array.ndim, "edge", list(range(array.ndim))
    last = problem is not None and problem.data_format == "channels_last"
    if problem is not None and bordered and problem.padding_mode != "zeros":
        first = 1 if last else 2
        pads[first : first + problem.dimensions], mode = problem.pads, packing.PAD_MODES[problem.padding_mode]
    if not in_c_order:
        axes.insert(*((1, axes.pop()) if last else (array.ndim - 1, axes.pop(1))))
    tables = [np.zeros(1, np.int64)] * (TABLES - array.ndim)
    for axis in axes:
        along = np.arange(array.shape[axis]) * array.strides[axis]
        tables.append(np.pad(along, pads[axis], mode=mode))  # type: ignore[call-overload]
    tables[0] = tables[0] + offset
    sizes = [len(table) for table in tables]
    head = 1 + 2 * TABLES
    words = np.concatenate([np.zeros(head, np.int64), *tables])
    starts = _at(words) + 8 * (head + np.cumsum([0, *sizes[:-1]]))
    words[:head] = array.itemsize, *sizes, *starts
    return words


def _map_unless_contiguous(array: Array) -> Array | None:
    return None if array.flags.c_contiguous else _map(array)


def _rounded(size: int) -> int:
    return -(-size // packing.ALIGNMENT) * packing.ALIGNMENT


def _at(array: Array) -> int:
    return int(array.__array_interface__["data"][0])


# What compiled code calls ---------------------------------------------------------------------------------------------


def _missed(record: int) -> int:
    """Plan a call of a kind never seen, or refuse it."""
    try:
        plan_of(record)
        return said.DONE
    except ValueError as error:
        status, text = said.VALUE_ERROR, str(error)
    except TypeError as error:
        status, text = said.TYPE_ERROR, str(error)
    except MemoryError as error:
        status, text = said.MEMORY_ERROR, str(error)
    except BaseException as error:
        status, text = said.RUNTIME_ERROR, f"{type(error).__name__}: {error}"
    said.write_error(record, status, text)
    return status


def _late(request: int) -> int:
    """The same for a thread that Python does not know, if it still waits: see `ask_late`."""
    words = said.words_at(request, 4)
    if begin_late(request):
        words[2] = _missed(int(words[1]))
        words[0] = 2
    else:
        free_late(request)
    return 0


def _share(record: int) -> int:
    """Run a plan's items with the threads there are, or may be engaged."""
    head = said.words_at(record, said.KEY // 8)
    task, seats = int(head[said.STATUS // 8]), int(head[said.LENGTH // 8])
    plan = said.words_at(int(head[said.PLAN // 8]), KEY // 8)
    code, items, work = (int(plan[place // 8]) for place in (CODE, ITEMS, WORK))
    try:
        threads.run(code, task, items, float(work), seats)
    except KeyboardInterrupt:  # a callback cannot pass it on, and what it came before must be done
        serve(0, code, task, items, 1, 0)
        _thread.interrupt_main()
    return 0


@compiled
def begin_late(request: int) -> bool:
    """Claim a request, unless whoever made it has gone."""
    return change(request, 0, 1)


@compiled
def free_late(request: int) -> None:
    """Free a request."""
    free(request)


@compiled
def inside(slots: int) -> int:
    """How many calls are under way; what was stored before is seen by all that come after."""
    return add(slots + INSIDE, 0)


def _install(_: int = 0) -> int:
    """Compile the entries: what users' code calls while there are none."""
    with _installing:
        if not slots[FIND // 8]:
            threads.tell()
            slots[RUN // 8] = address(run, types.int64)
            slots[FIND // 8] = address(find, types.int64)
    return 0


def _in_child() -> None:
    """Whoever was inside, or held a lock, stayed behind."""
    global _lock, _installing, numbering
    _lock, _installing, numbering = threading.Lock(), threading.Lock(), threading.Lock()
    slots[[PLANNING // 8, INSIDE // 8]] = 0


_installing = threading.Lock()
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)
_callbacks = {INSTALL: _CALLBACK(_install), MISS: _CALLBACK(_missed), LATE: _CALLBACK(_late), SHARE: _CALLBACK(_share)}
for _place, _callback in _callbacks.items():
    slots[_place // 8] = ctypes.cast(_callback, ctypes.c_void_p).value or 0
slots[WORDS_OF_THREADS // 8] = _at(threads.words)
slots[COMPLAINT // 8], slots[COMPLAINT_SIZE // 8] = _at(complaint), len(complaint)
llvmlite.binding.add_symbol(said.SYMBOL, _at(slots))
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
