"""Sheets: the part of an image that a work item needs, laid out so that every window is a constant distance away.

The tiled kernels read one layout only, whatever the image looks like: one sheet a channel, in a seat's scratch,

    sheet[e][phase i][phase j][row][column]     e a tap of the depth; borders of zeros drawn in

where row y and column u of the padded image lie in phase (y % stride, u % stride) at (y // stride, u // stride). So tap
(e, a, b) of the window of output (i, j) lies at `table[tap] + i * pitch + j`: stride, dilation and padding are gone. Phases
that no tap touches are left out, and so are the rows between taps that lie further apart than a band is high: then each tap's
rows are a phase of their own. Where there are few channels, so may each tap across have its own (`by_tap`): rows are as long as
the result's then, and a run of them is summed where it belongs. Copying costs 1 to 2 % of a 3x3 layer with 32 filters, and an
image of any strides, channels first or last, is read where it lies: rows of a plane move by whole vectors, pixels of a
channels-last image by squares that are transposed in registers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from fastconv.cpu.compiled import compiled, inlined
from fastconv.problem import Problem, three

MOST_EVENS = 4  # the largest stride that whole vectors are picked of, by taking every other number twice
BY_VECTORS = (1, 2, 4)  # all of these
LINE = 16  # numbers: channels lie an odd number of these apart, so that they do not fall into the same sets of L1


@dataclass(frozen=True)
class Sheets:
    """The layout for bands of `band` rows of a problem's result.

    Attributes
    ----------
    table : tuple of int
        Where each tap lies; then the phases of rows that are kept; then those of columns.
    phases : (int, int, int)
        Taps of the depth; how many phases of rows and of columns are kept.
    phase_rows : int
        Rows of a phase.
    pitch, phase_size, sheet : int
        Numbers in a row, in a phase, in a sheet.
    """

    table: tuple[int, ...]
    phases: tuple[int, int, int]
    phase_rows: int
    pitch: int
    phase_size: int
    sheet: int

    @staticmethod
    def of(problem: Problem, band: int, *, aligned: bool = False, by_tap: bool = False) -> Sheets:
        """For a problem whose padding is zeros: rows begin on cache lines (`aligned`), each tap across is a phase (`by_tap`)."""
        (depth, taps_a, taps_b), (_, stride_i, stride_j), (_, apart_i, apart_j) = map(
            three, (problem.kernel, problem.stride, problem.dilation)
        )
        rows_at, columns_at = [a * apart_i for a in range(taps_a)], [b * apart_j for b in range(taps_b)]
        of_rows, of_columns = sorted({y % stride_i for y in rows_at}), sorted({u % stride_j for u in columns_at})
        pitch, rows = problem.out_space[-1] + columns_at[-1] // stride_j, band + rows_at[-1] // stride_i
        row_places = [(of_rows.index(y % stride_i), y // stride_i) for y in rows_at]
        pitch = -(-pitch // LINE) * LINE if aligned else pitch
        if taps_a * band < len(of_rows) * rows:
            of_rows, rows, row_places = rows_at, band, [(a, 0) for a in range(taps_a)]
        column_places = [(of_columns.index(u % stride_j), u // stride_j) for u in columns_at]
        if by_tap:
            of_columns, pitch, column_places = columns_at, problem.out_space[-1], [(b, 0) for b in range(taps_b)]
        phase_size = pitch * rows
        per_depth = phase_size * len(of_rows) * len(of_columns)
        table = [
            e * per_depth + (slot_i * len(of_columns) + slot_j) * phase_size + row * pitch + column
            for e in range(depth) for slot_i, row in row_places for slot_j, column in column_places
        ]  # fmt: skip
        lines = -(-(depth * per_depth + LINE) // LINE)  # the last row is written in whole vectors
        sheet = LINE * (lines | 1)
        return Sheets((*table, *of_rows, *of_columns), (depth, len(of_rows), len(of_columns)), rows, pitch, phase_size, sheet)


def rows_in_a_plane(problem: Problem) -> int:
    """Rows of the result that lie in one plane: a signal has one."""
    return problem.out_space[-2] if problem.dimensions > 1 else 1


def planes(problem: Problem) -> int:
    """Planes of the result."""
    return problem.out_space[0] if problem.dimensions == 3 else 1


def taps(problem: Problem) -> int:
    """Of a window."""
    return math.prod(problem.kernel)


@compiled
def fill_sheets(job, sheets, image, plane, line):
    """Copy what the rows from `line` on, in one plane of the result, see of an item's channels; `image` points to them."""
    square, channels, sheet = job.square, channels_of(job), job.sheet
    (depth, height, _), (stride_z, stride_i, _), step = job.space, job.stride, job.x_steps
    taps_z, phases_i, phases_j = job.phases
    taps = job.kernel[0] * job.kernel[1] * job.kernel[2]
    pitch, rows = job.pitch, job.phase_rows
    for e in range(taps_z):
        z = plane * stride_z + e * job.dilation[0] - job.before[0]
        for slot_i in range(phases_i):
            if step[2] == 1 and job.stride[2] > MOST_EVENS and phases_j == job.stride[2]:
                out = sheets + (e * phases_i + slot_i) * phases_j * job.phase_size
                for row in range(rows):
                    i = (line + row) * stride_i + job.table[taps + slot_i] - job.before[1]
                    inside = 0 <= z and z < depth and 0 <= i and i < height
                    copy_phases(square, image + (z * step[0] + i * step[1]), inside, job, out + row * pitch)
                continue
            for slot_j in range(phases_j):
                out = sheets + ((e * phases_i + slot_i) * phases_j + slot_j) * job.phase_size
                j = job.table[taps + phases_i + slot_j] - job.before[2]
                for row in range(rows):
                    i = (line + row) * stride_i + job.table[taps + slot_i] - job.before[1]
                    here = out + row * pitch
                    if z < 0 or z >= depth or i < 0 or i >= height:
                        clear_row(square, here, channels, sheet, pitch)
                    elif step[2] == 1:
                        copy_row(square, image + (z * step[0] + i * step[1]), job, j, here)
                    else:
                        turn_row(square, image + (z * step[0] + i * step[1]), job, j, here)


@inlined
def channels_of(job):
    """Of an item: of one group, or of those beside it too."""
    return job.channels * (1 + job.beside)


@inlined
def clear_row(square, out, channels, sheet, pitch):
    """out[c][0:pitch] = 0 for all channels."""
    zero = square.splat(0)
    for c in range(channels):
        for column in range(0, pitch, square.lanes):
            zero.store(out + (c * sheet + column))


@compiled
def copy_row(square, x, job, first, out):
    """out[c][k] = x[c][first + k * stride] for k in 0..pitch, zero outside the row.

    In whole vectors, of strides 1, 2 and 4: what is written past the end belongs to the next row, which is written next. Channels
    are innermost, so that a mask is made once for all of them: made for each vector, it took 20 cycles, a quarter of a grouped
    layer's time.
    """
    lanes, channels, sheet, pitch, x_channel = square.lanes, channels_of(job), job.sheet, job.pitch, job.x_channel
    width, stride = job.space[2], job.stride[2]
    if stride == 3 or stride > MOST_EVENS:
        clear_row(square, out, channels, sheet, pitch)
        begin = max(0, -(first // stride))  # the first column, and the last, that lie inside the row
        end = min(pitch, -((first - width) // stride))
        for c in range(channels):
            there, here = out + c * sheet, x + (c * x_channel + first)
            for k in range(begin, end):
                there[k] = here[k * stride]
        return
    for column in range(0, pitch, lanes):
        j = first + column * stride
        whole = j >= 0 and j + stride * lanes <= width
        for c in range(channels):
            row, there = x + c * x_channel, out + (c * sheet + column)
            if stride == 1 and whole:
                square.load(row + j).store(there)
            elif stride == 1:
                square.load(row + j, -j, width - j).store(there)
            elif stride == 2 and whole:
                square.load(row + j).evens(square.load(row + j + lanes)).store(there)
            elif stride == 2:
                load_evens(square, row, j, width).store(there)
            elif whole:
                first_half = square.load(row + j).evens(square.load(row + j + lanes))
                first_half.evens(square.load(row + j + 2 * lanes).evens(square.load(row + j + 3 * lanes))).store(there)
            else:
                load_evens(square, row, j, width).evens(load_evens(square, row, j + 2 * lanes, width)).store(there)


@compiled
def copy_phases(square, x, inside, job, out):
    """out[phase][c][k] = x[c][k * stride + phase - before] for all phases at once, zero outside the row: pixels become columns.

    In squares of as many pixels as there are lanes, by as many phases: for the large strides of patches.
    """
    lanes, pitch, stride, width, before = square.lanes, job.pitch, job.stride[2], job.space[2], job.before[2]
    begin = (before + stride - 1) // stride if inside else pitch  # pixels whose numbers all lie inside the row, and the end of them
    begin = min(begin, pitch)
    end = max(begin, min(pitch, (width + before) // stride))
    for c in range(channels_of(job)):
        row, there = x + (c * job.x_channel - before), out + c * job.sheet
        for k in range(pitch - (end - begin)):
            at = k if k < begin else k + end - begin
            for phase in range(stride):
                u = at * stride + phase
                there[phase * job.phase_size + at] = row[u] if inside and before <= u and u < before + width else 0
        for k in range(begin, end, lanes):
            for phase in range(0, stride, lanes):
                count = min(lanes, stride - phase)
                block = square.load_tile(row + (k * stride + phase), stride, end - k, count).transpose()
                block.store(there + (phase * job.phase_size + k), job.phase_size, count, end - k)


@inlined
def load_evens(square, row, j, width):
    """row[j], row[j + 2], ...: a vector of every other number, zero outside 0..width."""
    k = j + square.lanes
    return square.load(row + j, -j, width - j).evens(square.load(row + k, -k, width - k))


@compiled
def turn_row(square, x, job, first, out):
    """out[c][k] = x[(first + k * stride) * step + c] of a channels-last row, zero outside it, a square at a time."""
    lanes, channels, sheet, pitch = square.lanes, channels_of(job), job.sheet, job.pitch
    width, stride, step = job.space[2], job.stride[2], job.x_steps[2]
    begin = max(0, -(first // stride))  # the first pixel, and the last, that lie inside the row
    end = max(begin, min(pitch, -((first - width) // stride)))
    if begin > 0:
        clear_row(square, out, channels, sheet, begin)  # squares overwrite what is too much
    if end < pitch:
        clear_row(square, out + end, channels, sheet, pitch - end)
    if channels <= square.block:  # of a photograph's three channels a square would be mostly empty
        pixels, apart, count = x + (first + begin * stride) * step, stride * step, end - begin
        if count >= lanes:
            turn_few(square, pixels, apart, channels, count, out + begin, sheet)
        elif count >= job.half_square.lanes:
            turn_few(job.half_square, pixels, apart, channels, count, out + begin, sheet)
        else:
            for c in range(channels):
                for k in range(count):
                    out[c * sheet + begin + k] = pixels[k * apart + c]
        return
    turn_pixels(square, x + (first + begin * stride) * step, stride * step, channels, end - begin, out + begin, sheet)


@inlined
def turn_pixels(square, pixels, apart, channels, count, out, pitch):
    """out[c * pitch + k] = pixels[k * apart + c] of so many pixels, a square at a time; whole vectors of them are written."""
    lanes = square.lanes
    for k in range(0, count, lanes):
        for c in range(0, channels, lanes):
            block = square.load_tile(pixels + (k * apart + c), apart, count - k, channels - c).transpose()
            there = out + (c * pitch + k)
            if channels - c >= lanes:
                block.store(there, pitch)
            else:
                block.store(there, pitch, channels - c, lanes)


@inlined
def turn_few(square, pixels, apart, channels, count, out, sheet):
    """out[c][k] = pixels[k * apart + c] of so many pixels, as many as lanes at least: the last vector overlaps its neighbour."""
    for column in range(0, count, square.lanes):
        k = min(column, count - square.lanes)
        square.load_few_turned(pixels + k * apart, apart, channels).store(out + k, sheet, channels, square.lanes)
