"""Depthwise convolution: every channel has filters of its own and mixes with no other.

    out[n, c*M + m, i, j] = finish(bias + sum over a, b of weight[c*M + m, a, b] * x[n, c, i*stride + a*dilation - before, j*...])

M, the multiplier, is mostly 1. Two operations a tap, and few taps for each number read and written: the limit is the caches'
bandwidth, and everything that is done once a row. So `direct_depthwise` does little once a row. Outermost first:

    band of rows            of one channel of the result; it stays in L1
      row of taps (a)         for the rows of the band whose tap lies inside the image
        rows, columns           with whole windows, as one run where the image is as wide as the result: vectorised, three taps
                                at once; then columns near the border, a tap and a column at a time

`direct_depthwise_last`, for channels-last results, runs along the channels instead, one pixel at a time.

`tiled_depthwise` reads a line of the image once for all windows that see it; nothing is copied. For each channel:

    column of vectors       neighbouring outputs in lanes; weights and the sums of ceil(rows of a window / stride) windows in
                            registers, or on the stack what does not fit them
      line of the image       its taps are loaded, each with its own mask; they enter every sum under way, the oldest is complete

Lines outside the image are never visited, columns outside it are masked, in vectors at the border alone. A plane's lines stay in
L1 or L2 from one column of vectors to the next. Where rows are wider than a vector, 3x3 and 5x5 windows walk down two vectors side
by side: to the code one vector of twice the lanes, which LLVM keeps in two registers. `tiled_depthwise_two` walks down two planes
at once, of two channels or two images, each in half of the lanes. `tiled_depthwise_last` has channels in lanes and walks along
the rows, which lie one after the other in memory: columns outside are skipped, lines masked; 3x3 windows of stride 2 walk along
two vectors of channels. Dilated windows are as many interleaved walks, and columns left over that half of the lanes hold take half
the time.

On a Zen 4 core (peak 115 GF/s) a 3x3 walk takes 10.2 cycles a vector from L2 and 10.8 from L3, two vectors at once 9.9 and 10.6: 9
multiply-adds, and a store that takes the place of one. One vector has three sums, whose multiply-adds wait for each other; two have
six. Of stride 2 it takes 15 from L1 and 20 from L3, less by nothing that was tried down the columns: neighbouring columns
from loads of their own instead of moved lanes, masks where lanes are parted instead of masked loads, sums in shorter chains, lines
of the next plane asked for in order. Bands of rows that stay in L1 took 10 % longer on 112 x 112; claiming the lines of the result
ahead, and storing halves, gained nothing. So wide planes are walked across (across.py).
"""

import numpy as np

from fastconv.cpu.compiled import compiled, inlined
from fastconv.cpu.rows import add_strided_lines, epilogue_of, finish_row, inside, start_pixel, start_row
from fastconv.cpu.simd import align_stack
from fastconv.cpu.windows import SMALL_WINDOW

# A walk asks for the line so many steps below: with planes of 112 x 112, which L1 does not hold, 5 to 15 % are gained, most where
# lines begin within a cache line. Windows of more taps compute so long that lines arrive in time, and asking costs 10 %.
BELOW = 4


@inlined
def whole_windows(job):
    """The columns of the result whose windows lie wholly inside the image; none: the range behind the last column."""
    stride, before, count = job.stride[2], job.before[2], job.out_space[2]
    left = inside(-before, stride, count, job.space[2])
    right = inside((job.kernel[2] - 1) * job.dilation[2] - before, stride, count, job.space[2])
    first, last = max(left[0], right[0]), min(left[1], right[1])
    return (first, last) if first < last else (count, count)


@compiled
def sum_windows(job, rows, image, w, finish, f, first, last):
    """Rows first..last of filter f, bias included: the columns with whole windows, then those near the border, begun anew.

    Where the image is as wide as the result, the rows are one run, a single loop. It also crosses the columns near the border
    and leaves nonsense there, but saves what a loop costs a row, most of the time on planes of 14 x 14.
    """
    (depth, height, _), (_, out_height, out_width), steps = job.space, job.out_space, job.x_steps
    (taps_z, taps_a, taps_b), (stride_z, stride_i, stride_j) = job.kernel, job.stride
    (before_z, before_i, before_j), (apart_z, apart_i, apart_j) = job.before, job.dilation
    left, right = whole_windows(job)
    down, step, in_a_run = stride_i * steps[1], stride_j * steps[2], stride_i * steps[1] == out_width * stride_j * steps[2]
    whole, border = ((0, right), (right, out_width)), ((0, left), (right, out_width))
    for near_border in range(2):
        for begin, end in border if near_border else whole:
            start_rows(job, rows, finish, f, first, last, begin, end)
        for plane in range(first // out_height, (last - 1) // out_height + 1):
            z, above = plane * stride_z - before_z, plane * out_height - first
            planes = inside(z, apart_z, taps_z, depth)
            for e in range(planes[0], planes[1]):
                for a in range(taps_a):
                    i = a * apart_i - before_i
                    lines = inside(i, stride_i, out_height, height)
                    top, bottom = max(lines[0], -above), min(lines[1], last - first - above)
                    row, taps = rows + (above + top) * out_width, w + (e * taps_a + a) * taps_b
                    across = image + ((z + e * apart_z) * steps[0] + (i + top * stride_i) * steps[1])
                    if near_border:
                        for begin, end in border:
                            add_border(job, row, across, taps, bottom - top, begin, end)
                    elif left < right:
                        runs, count = bottom - top, right - left
                        if in_a_run:
                            runs, count = 1, (runs - 1) * out_width + count
                        row, x = row + left, across + (left * step - before_j * steps[2])
                        for _ in range(runs):
                            add_strided_lines(row, x, apart_j * steps[2], step, taps, 1, taps_b, count)
                            row, x = row + out_width, x + down


@compiled
def start_rows(job, rows, finish, f, first, last, begin, end):
    """Set columns begin..end of rows first..last to the bias."""
    out_width = job.out_space[2]
    place = (f * job.out_space[0] * job.out_space[1] + first) * out_width + begin
    for line in range(last - first):
        start_row(rows + (line * out_width + begin), end - begin, finish, f, place + line * out_width)


@compiled
def add_border(job, row, across, w, lines, begin, end):
    """Columns begin..end of so many rows, whose windows may reach outside the image: tap by tap, each with its own columns."""
    out_width, step = job.out_space[2], job.stride[2] * job.x_steps[2]
    down = job.stride[1] * job.x_steps[1]
    for b in range(job.kernel[2]):
        u = b * job.dilation[2] - job.before[2]
        columns = inside(u, job.stride[2], end, job.space[2])
        for j in range(max(begin, columns[0]), columns[1]):
            at, x, weight = row + j, across + (u * job.x_steps[2] + j * step), w[b]
            for line in range(lines):
                at[line * out_width] += weight * x[line * down]


@compiled
def direct_depthwise(item, seat, job):
    """One band of rows of one channel of the result. Weights (channels * multiplier, 1, *kernel), as they come."""
    finish, all_filters = epilogue_of(job), job.groups * job.filters
    taps, rows, out_width = job.kernel[0] * job.kernel[1] * job.kernel[2], job.out_space[0] * job.out_space[1], job.out_space[2]
    band, f, n = item % job.bands, item // job.bands % all_filters, item // (job.bands * all_filters)
    image, w = job.x + (n * job.x_image + f // job.filters * job.x_channel), job.weight + f * taps
    first, last = band * job.band, min((band + 1) * job.band, rows)
    place, out = ((n * all_filters + f) * rows + first) * out_width, job.out
    sum_windows(job, out + place, image, w, finish, f, first, last)
    finish_row(out + place, (last - first) * out_width, finish, place)


@inlined
def add_window_last(job, row, image, weights, line, column):
    """Add the window of every channel to one pixel of the result. Weights [a][b][channel * multiplier]."""
    channels, multiplier, x_channel, taps_a, taps_b = job.groups, job.filters, job.x_channel, job.kernel[1], job.kernel[2]
    z = line // job.out_space[1] * job.stride[0] - job.before[0]
    i = line % job.out_space[1] * job.stride[1] - job.before[1]
    j = column * job.stride[2] - job.before[2]
    planes = inside(z, job.dilation[0], job.kernel[0], job.space[0])
    lines = inside(i, job.dilation[1], taps_a, job.space[1])
    columns = inside(j, job.dilation[2], taps_b, job.space[2])
    for e in range(planes[0], planes[1]):
        for a in range(lines[0], lines[1]):
            plane = (z + e * job.dilation[0]) * job.x_steps[0] + (i + a * job.dilation[1]) * job.x_steps[1]
            for b in range(columns[0], columns[1]):
                pixel = image + (plane + (j + b * job.dilation[2]) * job.x_steps[2])
                w = weights + ((e * taps_a + a) * taps_b + b) * channels * multiplier
                if multiplier == 1 and x_channel == 1:
                    for c in range(channels):
                        row[c] += w[c] * pixel[c]
                else:
                    for c in range(channels):
                        for m in range(c * multiplier, (c + 1) * multiplier):
                            row[m] += w[m] * pixel[c * x_channel]


@compiled
def direct_depthwise_last(item, seat, job):
    """One band of rows, all channels. Weights [a][b][channel * multiplier]."""
    finish, rows, out_width, count = (
        epilogue_of(job),
        job.out_space[0] * job.out_space[1],
        job.out_space[2],
        job.groups * job.filters,
    )
    band, n = item % job.bands, item // job.bands
    image, weights, out = job.x + n * job.x_image, job.weight, job.out
    for line in range(band * job.band, min((band + 1) * job.band, rows)):
        for column in range(out_width):
            place = (line * out_width + column) * count
            row = out + (n * rows * out_width * count + place)
            start_pixel(row, count, finish, 0, place)
            add_window_last(job, row, image, weights, line, column)
            finish_row(row, count, finish, n * rows * out_width * count + place)


# Tiled: a column of vectors, walked down line by line (windows.py) ---------------------------------------------------------


@inlined
def within(place, size):
    """0 <= place < size, in one comparison."""
    return np.uint64(place) < np.uint64(size)


@inlined
def prefetch_lines(tile, line, step):
    """Those of one step of a walk; what lies in front of them, a column to the left has seen."""
    for row in range(tile.step):
        for vector in range(1, tile.step * tile.registers + 1):
            line.prefetch(row * step + vector * tile.lanes // tile.registers)


@inlined
def prefetch_plane(tile, line, step):
    """To L2, what one step of a walk reads, of another plane."""
    for row in range(tile.step):
        for vector in range(tile.step * tile.registers):
            line.prefetch_l2(row * step + vector * tile.lanes // tile.registers)


@inlined
def meet(tile, weights, sums, job, image, edges, line, taps_apart):
    """The sums under way, after those lines of the image that the newest window begins with: one, or two of step 2."""
    height, step = job.space[1], job.x_steps[1]
    if within(line, height):
        sums = sums.weigh(weights, tile.windows(image + line * step, taps_apart, edges), 0)
    if tile.step == 2 and within(line + 1, height):
        sums = sums.weigh(weights, tile.windows(image + (line + 1) * step, taps_apart, edges), 1)
    return sums


@inlined
def put(tile, sums, out, room, width, low, high):
    """The complete window, clipped: whole while there is room, else what a row of the result has."""
    complete = sums.oldest().at_least(low) if high is None else sums.oldest().clip(low, high)
    if tile.step == 2:
        complete = complete.in_order()
    if room >= tile.lanes:
        complete.store(out)
    else:
        complete.store(out, width)


@inlined
def walk(tile, weights, start, job, image, edges, line, count, taps_apart, apart, out, room, low, high, ahead):
    """`count` windows one above the other, for a vector of columns; the first begins at `line` of the image.

    Taps of a window are `taps_apart`, lines of a walk `apart`, rows of the result so many too: both constants where they are 1,
    because LLVM then needs one pointer, not one for each tap (14 x 14 gained a fifth). Vectors are stored whole as long as `room`
    numbers are left: what they write past a row's end belongs to the next, which is written next. `high` may be None: a clip takes
    3 % of a 3x3 walk, and relu is half of one; of larger windows it takes too little to compile them again. Of those the last lines
    are unrolled, without the windows that would begin there and never end, 4 % of 5x5 on 14 x 14; of the first ones that gained
    nothing, and of small windows it takes registers from the walk. Small ones ask for what they read, `ahead` numbers further on,
    to L2; if it is 0 or None, for nothing.
    """
    pitch, unfinished, sums = apart * job.out_space[2], (tile.rows - 1) // tile.step, tile.sums(start)
    lines = count + unfinished
    rolled = lines if tile.rows * tile.vectors <= SMALL_WINDOW else count
    # Moved on at every line, the first few without a row of the result: as a condition's, `out` left its register.
    out, room = out + -unfinished * pitch, room + unfinished * pitch
    for t in range(rolled):
        if tile.rows * tile.vectors <= SMALL_WINDOW:
            prefetch_lines(tile, image + (line + BELOW) * job.x_steps[1], job.x_steps[1])
            if ahead is not None and ahead != 0:
                prefetch_plane(tile, image + (line * job.x_steps[1] + ahead), job.x_steps[1])
        sums = meet(tile, weights, sums, job, image, edges, line, taps_apart)
        if t >= unfinished:
            put(tile, sums, out, room, job.out_space[2], low, high)
        sums, line, out, room = sums.next(start), line + apart * tile.step, out + pitch, room - pitch
    for t in range(rolled, lines):
        sums = meet(tile, weights, sums, job, image, edges, line, taps_apart)
        if t >= unfinished:
            put(tile, sums, out, room, job.out_space[2], low, high)
        sums, line, out, room = sums.next(start), line + apart * tile.step, out + pitch, room - pitch


@inlined
def walk_two(tile, weights, start, job, image, edges, line, count, out, room, x_apart, out_apart):
    """As `walk`, for two planes so far apart, of half of the tile's lanes each."""
    half, height, step, pitch = tile.half, job.space[1], job.x_steps[1], job.out_space[2]
    sums, unfinished = tile.sums(start), (tile.rows - 1) // tile.step
    for t in range(count + unfinished):
        if within(line, height):
            x = image + line * step
            numbers = half.windows(x, 1, edges).beside(half.windows(x + x_apart, 1, edges))
            sums = sums.weigh(weights, numbers, 0)
        if tile.step == 2 and within(line + 1, height):
            x = image + (line + 1) * step
            numbers = half.windows(x, 1, edges).beside(half.windows(x + x_apart, 1, edges))
            sums = sums.weigh(weights, numbers, 1)
        if t >= unfinished:
            complete = sums.oldest().clip(job.least, job.most)
            lower, upper = complete.lower(), complete.upper()
            if tile.step == 2:
                lower, upper = lower.in_order(), upper.in_order()
            if room >= half.lanes:
                lower.store(out)
                upper.store(out + out_apart)
            else:
                lower.store(out, pitch)
                upper.store(out + out_apart, pitch)
            out += pitch
            room -= pitch
        sums = sums.next(start)
        line += tile.step


@inlined
def walk_phase(tile, by_one, unmasked, weights, start, job, image, edges, inner, line, count, out, room, clip, ahead):
    """As `walk`, by the loop that is fastest: each is compiled into every kernel, and only those that a window may need.

    Steps of two (`by_one` is None) are not dilated. Those, and windows of few taps that are clipped below alone, are walked without
    masks where all columns lie inside the image, unless `unmasked` is None: with more taps that gained nothing.
    """
    phases, apart = job.dilation[1], job.dilation[2]
    if by_one is None:
        high = clip[1]
    else:
        high = None
    if by_one is not None and (phases > 1 or apart > 1):
        walk(tile, weights, start, job, image, edges, line, count, apart, phases, out, room, clip[0], clip[1], ahead)
    elif unmasked is not None and inner and (high is not None or clip[1] == np.inf):
        walk(tile, weights, start, job, image, None, line, count, 1, 1, out, room, clip[0], high, ahead)
    else:
        walk(tile, weights, start, job, image, edges, line, count, 1, 1, out, room, clip[0], clip[1], ahead)


@inlined
def walk_column(tile, unmasked, job, n, first, last, begin, end, j, out, plane, clip, ahead=None):
    """The vector of columns from `j` on, of rows begin..end of filters first..last of image n; see `walk_phase` and `walk`."""
    lanes, phases, apart, out_width = tile.lanes, job.dilation[1], job.dilation[2], job.out_space[2]
    whole = out_width >= lanes or phases == 1  # vectors may be stored whole
    u = j * tile.step - job.before[2]
    inner = u >= 0 and u + (lanes - 1) * tile.step + (tile.vectors - 1) * apart < job.space[2]
    edges = tile.edges(u, apart, job.space[2])
    for f in range(first, last):
        w, image = job.weight + f * job.panel, job.x + (n * job.x_image + f // job.filters * job.x_channel + u)
        weights, start = tile.splats(w + 1), tile.splat(w[0])
        for phase in range(min(phases, end - begin)):
            i = begin + phase
            line, count = i * tile.step - job.before[1], (end - i + phases - 1) // phases
            here, room = out + ((f - first) * plane + phase * out_width + j), (end - i) * out_width if whole else 0
            walk_phase(tile, tile.by_one, unmasked, weights, start, job, image, edges, inner, line, count, here, room, clip, ahead)


@inlined
def walk_planes(tile, halves, quarters, job, n, first, last, begin, end, out, plane, clip):
    """Rows begin..end of filters first..last of image n into `out`, whose planes are so far apart; `clip` (low, high).

    `halves` and `quarters` are the tile's, arguments so that Numba leaves out the walks that a window has no use for.
    """
    lanes, half, out_width = tile.lanes, tile.half, job.out_space[2]
    for column in range(0, out_width, lanes):
        left = out_width - column
        if halves is not None and left <= half.lanes and out_width > lanes:
            walk_column(half, None, job, n, first, last, begin, end, out_width - half.lanes, out, plane, clip)
        elif quarters is not None and left <= half.lanes + half.half.lanes and out_width > lanes:
            walk_column(half, None, job, n, first, last, begin, end, column, out, plane, clip)
            walk_column(half.half, None, job, n, first, last, begin, end, out_width - half.half.lanes, out, plane, clip)
        else:
            j = max(0, min(column, out_width - lanes))  # the last vector overlaps its neighbour
            walk_column(tile, tile.unmasked, job, n, first, last, begin, end, j, out, plane, clip)


@inlined
def finish_planes(job, image, first, last, begin, end):
    """What is done late to rows begin..end of filters first..last: to whole planes at once, for a call takes as long as 7 x 7."""
    rows, out_width = job.out_space[1], job.out_space[2]
    if end - begin == rows:
        place = first * rows * out_width
        job.finish_row(job.out + (image + place), (last - first) * rows * out_width, image, place)
    else:
        for f in range(first, last):
            place = (f * rows + begin) * out_width
            job.finish_row(job.out + (image + place), (end - begin) * out_width, image, place)


@compiled
def tiled_depthwise(item, seat, job):
    """One band of rows of a chunk of channels, columns in lanes. Weights from packing.row_panels, a filter each."""
    if job.tile.rows * job.tile.vectors > SMALL_WINDOW:
        align_stack()  # type: ignore[call-arg]  # 25 weights and five sums leave none for the rest
    tile, filters, rows, out_width = job.tile, job.groups * job.filters, job.out_space[1], job.out_space[2]
    band, chunk, n = item % job.bands, item // job.bands % job.chunks, item // (job.bands * job.chunks)
    begin, end = band * job.band, min((band + 1) * job.band, rows)
    image, last = n * filters * rows * out_width, min((chunk + 1) * job.chunk, filters)
    together = 1 if out_width > tile.lanes else job.chunk  # channels for which edges are made once
    for first in range(chunk * job.chunk, last, together):
        place = (first * rows + begin) * out_width
        until, out = min(first + together, last), job.out + (image + place)
        clip = job.least, job.most
        walk_planes(tile, tile.halves, tile.quarters, job, n, first, until, begin, end, out, rows * out_width, clip)
        if job.late:
            finish_planes(job, image, first, until, begin, end)


@compiled
def tiled_depthwise_two(item, seat, job):
    """As tiled_depthwise for planes of at most half of the tile's lanes: two of them share a line, and one column of it is all.

    They are of neighbouring channels, or, of `images` together, of neighbouring images: these have the same weights, which come
    once for all. A last plane without a neighbour is its own.
    """
    tile, half, filters = job.tile, job.tile.half, job.groups * job.filters
    rows, out_width = job.out_space[1], job.out_space[2]
    band, chunk, n = item % job.bands, item // job.bands % job.chunks, item // (job.bands * job.chunks) * job.images
    first, end = band * job.band, min((band + 1) * job.band, rows)
    size, last, images = rows * out_width, min((chunk + 1) * job.chunk, filters) - 1, min(job.images, job.batch - n)
    u, line, planes = -job.before[2], first * tile.step - job.before[1], filters * size
    edges, room = half.edges(u, 1, job.space[2]), (end - first) * out_width
    for f in range(chunk * job.chunk, last + 1, 2 if job.images == 1 else 1):
        w = job.weight + f * job.panel
        if job.images > 1:
            weights, start, x_apart, out_apart = tile.splats(w + 1), tile.splat(w[0]), job.x_image, planes
        else:
            g = min(f + 1, last)
            x_apart, out_apart = (g // job.filters - f // job.filters) * job.x_channel, (g - f) * size
            v = job.weight + g * job.panel
            weights = half.splats(w + 1).beside(half.splats(v + 1))
            start = half.sums(half.splat(w[0])).beside(half.sums(half.splat(v[0]))).oldest()
        for k in range(n, n + images, 2):
            two = int(job.images == 1 or k + 1 < n + images)
            image = job.x + (k * job.x_image + f // job.filters * job.x_channel + u)
            out = job.out + (k * planes + f * size + first * out_width)
            walk_two(tile, weights, start, job, image, edges, line, end - first, out, room, two * x_apart, two * out_apart)
    if job.late:
        for k in range(n, n + images):
            finish_planes(job, k * planes, chunk * job.chunk, last + 1, first, end)


@inlined
def walk_along(tile, weights, start, job, image, edges, column, count, apart, out, clip):
    """`count` windows side by side, for a vector of channels; the first begins at `column`. As `walk`, turned by 90 degrees."""
    width, step, pitch = job.space[2], job.x_steps[2], apart * job.groups
    sums, lines_apart, unfinished = tile.sums(start), job.dilation[1] * job.x_steps[1], (tile.rows - 1) // tile.step
    for t in range(count + unfinished):
        if within(column, width):
            sums = sums.weigh(weights, tile.taps(image + column * step, lines_apart, edges), 0)
        if tile.step == 2 and within(column + 1, width):
            sums = sums.weigh(weights, tile.taps(image + (column + 1) * step, lines_apart, edges), 1)
        if t >= unfinished:
            complete = sums.oldest().clip(clip[0], clip[1])
            if job.groups >= tile.lanes:
                complete.store(out)
            else:
                complete.store(out, job.groups)
            out += pitch
        sums = sums.next(start)
        column += apart * tile.step


@inlined
def channel_panels(tile, pair, panel, apart):
    """Weights and biases of a vector of channels, or of a pair of vectors, whose panels are so far apart."""
    if pair is None:
        return tile.load_tile(panel + tile.lanes, tile.width), tile.load(panel)
    half, other = tile.half, panel + apart
    weights = half.load_tile(panel + half.lanes, half.width).beside(half.load_tile(other + half.lanes, half.width))
    return weights, half.sums(half.load(panel)).beside(half.sums(half.load(other))).oldest()


@inlined
def walk_vectors(tile, pair, job, n, first, last, i, row, clip):
    """Row i of channels first..last of image n, a vector of them after the other; `row` points to its first channel."""
    lanes, channels, phases, out_width = tile.lanes, job.groups, job.dilation[2], job.out_space[2]
    line = i * tile.step - job.before[1]
    lines = inside(line, job.dilation[1], tile.vectors, job.space[1])
    inner = lines[1] - lines[0] == tile.vectors and channels >= lanes
    edges, image = tile.sides(lines[0], lines[1], channels), job.x + (n * job.x_image + line * job.x_steps[1])
    for block in range(first, last, lanes):
        c = max(0, min(block, channels - lanes))  # the last vector overlaps its neighbour
        weights, start = channel_panels(tile, pair, job.weight + block // (tile.lanes // tile.registers) * job.panel, job.panel)
        for phase in range(min(phases, out_width)):
            column, count = phase * tile.step - job.before[2], (out_width - phase + phases - 1) // phases
            out = row + (phase * channels + c)
            if inner:
                walk_along(tile, weights, start, job, image + c, None, column, count, phases, out, clip)
            else:
                walk_along(tile, weights, start, job, image + c, edges, column, count, phases, out, clip)


@inlined
def walk_row(tile, pair, job, n, first, last, i, row, clip):
    """As walk_vectors; of pairs of vectors, what is left over by one at a time.

    `pair` is the tile's, an argument so that Numba leaves out the branch that is not taken: two lanes have no half of their own.
    """
    if pair is None:
        walk_vectors(tile, None, job, n, first, last, i, row, clip)
    else:
        middle = last - (last - first) % tile.lanes
        walk_vectors(tile, pair, job, n, first, middle, i, row, clip)
        walk_vectors(tile.half, None, job, n, middle, last, i, row, clip)


@compiled
def tiled_depthwise_last(item, seat, job):
    """One band of rows of a chunk of channels, channels in lanes. Weights from packing.channel_panels."""
    if job.tile.rows * job.tile.vectors > SMALL_WINDOW:
        align_stack()  # type: ignore[call-arg]
    channels, rows, out_width = job.groups, job.out_space[1], job.out_space[2]
    band, chunk, n = item % job.bands, item // job.bands % job.chunks, item // (job.bands * job.chunks)
    first, image = chunk * job.chunk, n * rows * out_width * channels
    last = first + job.chunk if chunk < job.chunks - 1 else channels  # the last chunk takes what is left over
    for i in range(band * job.band, min((band + 1) * job.band, rows)):
        place = i * out_width * channels
        row = job.out + (image + place)
        walk_row(job.tile, job.tile.pair, job, n, first, last, i, row, (job.least, job.most))
        if job.late and job.chunks == 1:
            job.finish_row(row, out_width * channels, image, place)
        elif job.late:
            for j in range(first, out_width * channels, channels):
                job.finish_row(row + j, last - first, image, place + j)
