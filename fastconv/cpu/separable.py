"""Depthwise separable convolution: depthwise, then pointwise, in one pass.

    d[n, c*M + m, i, j] = inner finish(sum over a, b of depthwise[c*M + m, a, b] * x[n, c, i*stride + a*dilation - before, j*...])
    out[n, f, i, j]     = finish(bias + sum over k of pointwise[f, k] * d[n, k, i, j])

(k*k + F) / (k*k * F) of the standard layer's operations. d never goes to main memory, outermost first:

    band of rows of the result    as many as make a scratch that stays in L2
      depthwise                     every channel's rows of the band into the scratch, [channel][pixel]
      pointwise                     for each filter, the band's pixels as one long row, channels eight at a time

A work item is one band of one image; its scratch belongs to the seat that runs it. `direct_separable_last` is the same for
channels-last results, with the scratch [pixel][channel].

The tiled kernels fill the scratch with the walks of depthwise.py, and it is then one operand of a register tile (standard.py),
never packed: pixels in lanes (`tiled_separable_pixels`), or filters in lanes where pixels would leave a strip half empty, in planes
of 14 x 14 and below (`tiled_separable`), and where channels come last. The sums of a tile go over all channels at once. Bands are
as large as fit half of L2: a band streams the outer weights once, and small ones cost 10 to 20 %. Larger ones gain 2 % of the best
time of 32 channels to 64 at 112 x 112 (56 rows in place of 28), but lose 5 to 10 % beside other processes, whose data share L2.

The limit is the multiply-add peak, of which 94 to 98 % are reached from 256 channels on; beyond it leads Strassen's algorithm, of
seven products for eight (`strassen_separable`), 109 % with 512 channels. 32 to 64 at 112 x 112, whose products take 511 us at the
peak, take 541: the depthwise part 80 for 63, for walks begin anew with each band, a store takes the place of 1.4 multiply-adds, and
L3 gives the image; the pointwise part 460 for 448, bounds and stores of a tile of so few channels 2 to 3 %. Two threads take 280:
their scratch lies apart (plans/separable.py), or one fetches ahead what the other writes.

While one plane is walked down, the next is asked for: where the image lies in memory, as in a network, 64 planes of 112 x 112 and
stride 2 take 650 us in place of 800 to 900, 32 of stride 1 590 for 740; from L3 as long as without. (A depthwise layer, which does
nothing else meanwhile, takes a tenth longer for it.)

Where the image's channels are neighbours, walks along its rows fill a few lines that are turned (`fill_band_turned`): for
Strassen's algorithm, and for results whose columns are neighbours.

What fills a band knows the window, what multiplies knows the tile: machine code of their own each, not for every pair of them.
"""

from fastconv.cpu.compiled import compiled, inlined
from fastconv.cpu.depthwise import add_window_last, sum_windows, walk_column, walk_row
from fastconv.cpu.rows import add_lines, clipped, epilogue_of, finish_row, inner_epilogue_of, start_pixel, start_row
from fastconv.cpu.sheets import turn_pixels
from fastconv.cpu.simd import align_stack
from fastconv.cpu.standard import turn_sums
from fastconv.cpu.strassen import multiply_runs
from fastconv.cpu.windows import SMALL_WINDOW


@compiled
def direct_separable(item, seat, job):
    """One band of rows of one image, all filters. Weights as they come."""
    inner, finish = inner_epilogue_of(job), epilogue_of(job)
    channels, filters, taps = job.groups * job.filters, job.outer_filters, job.kernel[0] * job.kernel[1] * job.kernel[2]
    rows, out_width, band, n = job.out_space[0] * job.out_space[1], job.out_space[2], item % job.bands, item // job.bands
    first, last = band * job.band, min((band + 1) * job.band, rows)
    pixels, scratch, out = (last - first) * out_width, job.scratch + seat * job.scratch_size, job.out
    for k in range(channels):
        image, w = job.x + (n * job.x_image + k // job.filters * job.x_channel), job.weight + k * taps
        sum_windows(job, scratch + k * pixels, image, w, inner, k, first, last)
        finish_row(scratch + k * pixels, pixels, inner, (k * rows + first) * out_width)
    for f in range(filters):
        place = (f * rows + first) * out_width
        row = out + (n * filters * rows * out_width + place)
        start_row(row, pixels, finish, f, place)
        add_lines(row, 1, scratch, pixels, 1, job.outer_weight + f * channels, 1, channels, pixels)
        finish_row(row, pixels, finish, n * filters * rows * out_width + place)


@compiled
def direct_separable_last(item, seat, job):
    """One band of rows of one image. Weights [a][b][channel * multiplier] and [channel * multiplier][filter]."""
    inner, finish = inner_epilogue_of(job), epilogue_of(job)
    channels, filters = job.groups * job.filters, job.outer_filters
    rows, out_width, band, n = job.out_space[0] * job.out_space[1], job.out_space[2], item % job.bands, item // job.bands
    image, weights, scratch, out = job.x + n * job.x_image, job.weight, job.scratch + seat * job.scratch_size, job.out
    for line in range(band * job.band, min((band + 1) * job.band, rows)):
        for column in range(out_width):
            pixel = line * out_width + column
            start_pixel(scratch, channels, inner, 0, pixel * channels)
            add_window_last(job, scratch, image, weights, line, column)
            finish_row(scratch, channels, inner, 0)
            row = out + (n * rows * out_width + pixel) * filters
            start_pixel(row, filters, finish, 0, pixel * filters)
            add_lines(row, 1, job.outer_weight, filters, 1, scratch, 1, channels, filters)
            finish_row(row, filters, finish, (n * rows * out_width + pixel) * filters)


# Tiled: the scratch is the operand of a register tile ------------------------------------------------------------------------


@inlined
def band_of(job, item):
    """Of an item: the image, the first row of its band, and the end of it."""
    band, n, rows = item % job.bands, item // (job.bands * job.chunks), job.out_space[0] * job.out_space[1]
    return n, band * job.band, min((band + 1) * job.band, rows)


@inlined
def walk_channels(window, pair, job, scratch, n, begin, end):
    """Rows begin..end of all channels, walked down; `pair` is the window's, an argument as those of `walk_planes`."""
    half, channels, out_width = window.half, job.groups * job.filters, job.out_space[2]
    # Channels for which edges are made once; from a plane of a few lines to the next the processor finds its way. Columns left over
    # from pairs of vectors have one of their own if they fit it; smaller parts would take as long to compile again, and gain 1 %.
    together, ahead = (1, job.x_channel) if out_width > window.lanes else (channels, 0)
    clip = job.inner_least, job.inner_most
    for k in range(0, channels, together):
        here = scratch + k * job.pitch
        for column in range(0, out_width, window.lanes):
            if pair is not None and out_width - column <= half.lanes:
                j = out_width - half.lanes
                walk_column(half, None, job, n, k, k + together, begin, end, j, here, job.pitch, clip, ahead)
            else:
                j = max(0, min(column, out_width - window.lanes))  # the last vector overlaps its neighbour
                walk_column(window, window.unmasked, job, n, k, k + together, begin, end, j, here, job.pitch, clip, ahead)


@compiled
def fill_band(job, scratch, n, begin, end):
    """scratch[channel][pixel], job.pitch apart: the depthwise result of rows begin..end, finished. The job's tile is the window."""
    window, channels, out_width = job.tile, job.groups * job.filters, job.out_space[2]
    if window.rows * window.vectors > SMALL_WINDOW:
        align_stack()  # type: ignore[call-arg]
    walk_channels(window, window.pair, job, scratch, n, begin, end)
    if job.inner_late:
        for k in range(channels):
            place = (k * job.out_space[0] * job.out_space[1] + begin) * out_width
            job.finish_inner_row(scratch + k * job.pitch, (end - begin) * out_width, 0, place)


@compiled
def sum_band(job, scratch, n, begin, end):
    """As fill_band, of windows without code of their own."""
    inner, taps, channels = inner_epilogue_of(job), job.kernel[0] * job.kernel[1] * job.kernel[2], job.groups * job.filters
    for k in range(channels):
        row, image = scratch + k * job.pitch, job.x + (n * job.x_image + k // job.filters * job.x_channel)
        sum_windows(job, row, image, job.weight + k * taps, inner, k, begin, end)
        finish_row(row, (end - begin) * job.out_space[2], inner, 0)


@compiled
def tiled_separable_pixels(item, seat, job):
    """One band of rows of one image, a chunk of filters; pixels in lanes. Outer weights from packing.row_panels."""
    tile, channels, filters, pitch = job.tile, job.groups * job.filters, job.outer_filters, job.pitch
    rows, out_width = job.out_space[0] * job.out_space[1], job.out_space[2]
    (n, begin, end), chunk = band_of(job, item), item // job.bands % job.chunks
    scratch = job.scratch + seat * job.scratch_size
    job.fill_band(scratch, n, begin, end)
    count, pixels, image = (end - begin) * out_width, rows * out_width, n * filters * rows * out_width
    for f in range(chunk * job.chunk, min((chunk + 1) * job.chunk, filters), tile.rows):
        panel, used = job.outer_weight + f // tile.rows * job.outer_panel, min(tile.rows, filters - f)
        place = f * pixels + begin * out_width
        out = job.out + (image + place)
        for first in range(0, count, tile.width):
            p = max(0, min(first, count - tile.width))  # the last strip overlaps its neighbour
            acc, w, x = tile.from_rows(panel), panel + tile.rows, scratch + p
            for _ in range(channels):
                acc = acc.rank1(w, x)
                w += tile.rows
                x += pitch
            acc = clipped(acc, job)
            if used == tile.rows and count >= tile.width:
                acc.store(out + p, pixels)
            else:
                acc.store(out + p, pixels, used, count - p)
        if job.late:
            for k in range(used):
                job.finish_row(out + k * pixels, count, image, place + k * pixels)


@compiled
def tiled_separable(item, seat, job):
    """As tiled_separable_pixels, with filters in lanes. Outer weights from packing.lane_panels."""
    tile, channels, filters, pitch = job.tile, job.groups * job.filters, job.outer_filters, job.pitch
    rows, out_width = job.out_space[0] * job.out_space[1], job.out_space[2]
    (n, begin, end), chunk = band_of(job, item), item // job.bands % job.chunks
    scratch = job.scratch + seat * job.scratch_size
    sums = scratch + job.sums_at
    job.fill_band(scratch, n, begin, end)
    count, pixels, image = (end - begin) * out_width, rows * out_width, n * filters * rows * out_width
    for f in range(chunk * job.chunk, min((chunk + 1) * job.chunk, filters), tile.width):
        panel, used = job.outer_weight + f // tile.width * job.outer_panel, min(tile.width, filters - f)
        place = f * pixels + begin * out_width
        out = job.out + (image + place)
        for first in range(0, count, tile.rows):
            p = max(0, min(first, count - tile.rows))
            acc, w, x = tile.from_columns(panel), panel + tile.width, scratch + p
            for _ in range(channels):
                acc = acc.rank1(x, w)
                w += tile.width
                x += pitch
            acc.clip(job.least, job.most).store(sums + p * tile.width, tile.width)
        turn_sums(job.square, sums, tile.width, out, pixels, used, count)
        if job.late:
            for k in range(used):
                job.finish_row(out + k * pixels, count, image, place + k * pixels)


@compiled
def strassen_separable(item, seat, job):
    """A band of rows of the first half of one image, and their partners in the second, a chunk of pairs of filters: strassen.py.

    A single band is the whole image, whose rows may be odd. Outer weights from strassen.combined_filters.
    """
    channels, rows, out_width = job.groups * job.filters, job.out_space[0] * job.out_space[1], job.out_space[2]
    (n, begin, end), chunk, half = band_of(job, item), item // job.bands % job.chunks, rows // 2
    first, second, pairs = job.scratch + seat * job.scratch_size, rows * out_width // 2, (rows * out_width + 1) // 2
    if job.bands == 1:
        job.fill_band(first, n, 0, rows)
    else:
        end = min(end, half)
        second = pairs = (end - begin) * out_width
        job.fill_band(first, n, begin, end)
        job.fill_band(first + second, n, half + begin, half + end)
    scratch = first + channels * job.pitch
    multiply_runs(
        job, scratch, first, job.outer_weight, job.pitch, job.pitch, second, channels, chunk, n, begin * out_width, pairs
    )  # fmt: skip


@compiled
def fill_band_last(job, row, n, begin, end):
    """row[pixel][channel]: the depthwise result of rows begin..end, finished. The job's tile is the window."""
    window, channels, out_width = job.tile, job.groups * job.filters, job.out_space[2]
    if window.rows * window.vectors > SMALL_WINDOW:
        align_stack()  # type: ignore[call-arg]
    for line in range(begin, end):
        walk_row(window, None, job, n, 0, channels, line, row, (job.inner_least, job.inner_most))
        if job.inner_late:
            job.finish_inner_row(row, out_width * channels, 0, line * out_width * channels)
        row += out_width * channels


@compiled
def fill_band_turned(job, scratch, n, begin, end):
    """As fill_band, of images whose channels are neighbours: a few rows at a time are turned, which lie `columns_at` further."""
    window, channels, out_width, lines = job.tile, job.groups * job.filters, job.out_space[2], scratch + job.columns_at
    if window.rows * window.vectors > SMALL_WINDOW:
        align_stack()  # type: ignore[call-arg]
    for first in range(begin, end, job.down):
        row, rows = lines, min(job.down, end - first)
        for line in range(first, first + rows):
            walk_row(window, None, job, n, 0, channels, line, row, (job.inner_least, job.inner_most))
            if job.inner_late:
                job.finish_inner_row(row, out_width * channels, 0, line * out_width * channels)
            row += out_width * channels
        turn_pixels(job.square, lines, channels, channels, rows * out_width, scratch + (first - begin) * out_width, job.pitch)


@compiled
def sum_band_last(job, pixel, n, begin, end):
    """As fill_band_last, of windows without code of their own."""
    inner, channels, out_width = inner_epilogue_of(job), job.groups * job.filters, job.out_space[2]
    for line in range(begin, end):
        for j in range(out_width):
            start_pixel(pixel, channels, inner, 0, (line * out_width + j) * channels)
            add_window_last(job, pixel, job.x + n * job.x_image, job.weight, line, j)
            finish_row(pixel, channels, inner, 0)
            pixel += channels


@compiled
def tiled_separable_last(item, seat, job):
    """One band of rows of one image, a chunk of filters in lanes. Outer weights from packing.lane_panels."""
    tile, channels, filters = job.tile, job.groups * job.filters, job.outer_filters
    rows, out_width = job.out_space[0] * job.out_space[1], job.out_space[2]
    (n, begin, end), chunk = band_of(job, item), item // job.bands % job.chunks
    scratch = job.scratch + seat * job.scratch_size
    job.fill_band(scratch, n, begin, end)
    count, image, place = (end - begin) * out_width, n * filters * rows * out_width, begin * out_width * filters
    first_filter, last_filter = chunk * job.chunk, min((chunk + 1) * job.chunk, filters)
    for f in range(first_filter, last_filter, tile.width):
        panel = job.outer_weight + f // tile.width * job.outer_panel
        out = job.out + (image + place + f)
        for first in range(0, count, tile.rows):
            p = max(0, min(first, count - tile.rows))
            acc, w, x = tile.from_columns(panel), panel + tile.width, scratch + p * channels
            for _ in range(channels):
                acc = acc.rank1_apart(x, channels, w)
                w += tile.width
                x += 1
            acc = clipped(acc, job)
            if filters - f >= tile.width and count >= tile.rows:
                acc.store(out + p * filters, filters)
            else:
                acc.store(out + p * filters, filters, count - p, filters - f)
    if job.late:
        for j in range(count):
            here = place + j * filters + first_filter
            job.finish_row(job.out + (image + here), last_filter - first_filter, image, here)
