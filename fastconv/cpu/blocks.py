"""Transposed convolution of large strides by blocks: each stride x stride block of the result is a pixel with many filters.

    out[n, f, i*stride + p - crop, j*stride + q - crop]
        = finish(bias + sum over c, a, b of weight[c, f, p + a*stride, q + b*stride] * x[n, c, i - a, j - b])

The phases p, q of a block see the same pixels of the image, only with other weights: they are filters of an ordinary convolution
of ceil(kernel / stride) taps, `Problem.in_blocks`. Where tiled_transposed sums each phase apart, over a few channels and taps at a
time, here is one product with stride * stride times as many filters, whose results are shuffled into place when they are put
(Shi et al. 2016). `tiled_transposed_blocks`, with the filters and the phases in lanes:

    panel of filters and phases     its packed weights stay in L1
      row of blocks, strip of them    a register row each: standard.py
      line of the panel               a filter's phases q for one p: `segment` neighbouring numbers of a row of the result
        block                           moved from the sums in L1, as a part of a vector

Where channels come last, a segment holds all filters of its phases q, which are neighbours there as well.

One filter of stride 3 has nine phases, which leave most of 32 lanes empty. `tiled_transposed_blocks_pixels`, for few filters, has
blocks in the lanes:

    panel of filters and phases     its rows, which divide the usual numbers of phases
      strip of blocks                 across the ends of rows: standard.py
    phase                           its sums become every stride-th number of every stride-th row of the result

Where a block sees one pixel, in the 2x2 layers of stride 2 of U-Nets, the product is a pointwise layer's, and so are the kernels,
which read the image in place: pointwise.py and strassen.py. `put_woven` puts their sums, the phases of two columns as one row;
channels last `put_blocks` does, of any number of columns, which are one piece of a row.
"""

from fastconv.cpu.compiled import compiled, inlined
from fastconv.cpu.standard import copy_run, sum_plane, sum_rows


@compiled
def tiled_transposed_blocks(item, seat, job):
    """One band of rows of blocks of one image, one chunk of a group's filters and phases. Weights from packing.in_blocks."""
    tile, channels = job.tile, job.channels
    band, chunk, image = item % job.bands, item // job.bands % job.chunks, item // (job.bands * job.chunks)
    g, n, line = image % job.groups, image // job.groups, band * job.band
    sheets = job.scratch + seat * job.scratch_size
    sums, end = sheets + job.sums_at, min(line + job.band, job.out_space[1])
    job.fill_sheets(sheets, job.x + (n * job.x_image + g * channels * job.x_channel), 0, line)
    for f in range(chunk * job.chunk, min((chunk + 1) * job.chunk, job.filters), tile.width):
        panel = job.weight + (g * job.panels + f // tile.width) * job.panel
        for begin in range(line, end, job.run):
            rows = min(job.run, end - begin)
            sum_rows(tile, job, sheets + (begin - line) * job.pitch, panel, (0, 1), begin, rows, sums, tile.width)
            put_lines(tile, job, sums, n, g, f, begin, rows)


@inlined
def put_lines(tile, job, sums, n, g, f, begin, rows):
    """Shuffle sums[block][filter and phase] of a panel that begins with f, and of so many rows of blocks, into the result."""
    (filters, height, width), (_, stride, segment), crop, columns = job.result, job.spread, job.crop[1], job.out_space[2]
    image, first, end = n * job.groups * filters * height * width, f, min(f + tile.width, job.filters)
    while first < end:
        line, q = first // segment, first % segment
        count = min(segment - q, end - first)
        for i in range(rows):
            row = (begin + i) * stride + line % stride - crop
            if 0 <= row < height:
                place = ((g * filters + line // stride) * height + row) * width
                put_line(tile, job, sums + (i * columns * tile.width + first - f), image, place, q, count)
        first += count


@inlined
def put_line(tile, job, sums, image, place, q, count):
    """Of one row of the result, which begins at `place`, `count` numbers of each segment from the q-th on.

    Whole segments are stored as whole vectors, of which the next one overwrites what is too much: masks take thrice as long.
    """
    width, segment, row = job.result[2], job.spread[2], job.out + (image + place)
    room = (count + tile.lanes - 1) // tile.lanes * tile.lanes if count == segment else width + 1
    for j in range(job.out_space[2]):
        at, here = j * segment + q - job.crop[2], sums + j * tile.width
        if 0 <= at and at + room <= width:
            for k in range(0, count, tile.lanes):
                tile.load(here + k).store(row + (at + k))
            continue
        begin, end = max(0, -at), min(count, width - at)
        for k in range(begin, end, tile.lanes):
            tile.load(here + k).store(row + (at + k), end - k)
        if job.late and count < segment and begin < end:
            job.finish_row(row + (at + begin), end - begin, image, place + at + begin)
    if job.late and count == segment:
        job.finish_row(row, width, image, place)


@compiled
def tiled_transposed_blocks_pixels(item, seat, job):
    """One band of rows of blocks of one image and group, all filters and phases. Weights from packing.in_blocks."""
    tile, channels, (filters, height, width) = job.tile, job.channels, job.result
    band, g, n = item % job.bands, item // job.bands % job.groups, item // (job.bands * job.groups)
    sheets, line = job.scratch + seat * job.scratch_size, band * job.band
    sums, rows = sheets + job.sums_at, min(job.band, job.out_space[1] - line)
    job.fill_sheets(sheets, job.x + (n * job.x_image + g * channels * job.x_channel), 0, line)
    numbers, image = (rows - 1) * job.pitch + job.out_space[2], n * job.groups * filters * height * width
    for f in range(0, job.filters, tile.rows):
        panel = job.weight + (g * job.panels + f // tile.rows) * job.panel
        sum_plane(tile, job, sheets, panel, first_tap(tile, job, f), numbers, sums, job.sums_pitch, tile.rows, job.sums_pitch)
        for k in range(min(tile.rows, job.filters - f)):
            put_phase(job, sums + k * job.sums_pitch, image, g, f + k, line, rows)
    if job.late:
        begin, end = max(0, line * job.spread[1] - job.crop[1]), min(height, (line + rows) * job.spread[1] - job.crop[1])
        for f in range(g * filters, (g + 1) * filters):
            place = (f * height + begin) * width
            job.finish_row(job.out + (image + place), (end - begin) * width, image, place)


@inlined
def first_tap(tile, job, f):
    """Of a panel of phases from f on: taps run backwards, and the first row of them reaches only the first rows of a block.

    9x9 windows of stride 4: three of four panels of a filter have 6 taps, not 9.
    """
    (_, stride_i, stride_j), begin = job.spread, job.kernel[2]
    for k in range(f, min(f + tile.rows, job.filters)):
        if k // stride_j % stride_i < job.long[1]:
            begin = 0
    return begin


@inlined
def put_phase(job, sums, image, g, phase, line, rows):
    """Sums of a phase of a filter of group g, of so many rows of blocks from `line` on, to where they belong in the result."""
    (filters, height, width), (_, stride_i, stride_j), (_, crop_i, crop_j) = job.result, job.spread, job.crop
    f, p, q = g * filters + phase // (stride_i * stride_j), phase // stride_j % stride_i, phase % stride_j
    begin = (max(0, crop_j - q) + stride_j - 1) // stride_j  # columns of blocks that the result has
    end = min(job.out_space[2], (width + crop_j - q + stride_j - 1) // stride_j)
    for i in range(rows):
        row = (line + i) * stride_i + p - crop_i
        if 0 <= row < height:
            out, here = job.out + (image + (f * height + row) * width + q - crop_j), sums + i * job.pitch
            for j in range(begin, end):
                out[j * stride_j] = here[j]


# Blocks that see one pixel each: a pointwise layer, whose image is read in place ---------------------------------------------


@compiled
def put_woven(job, sums, step, n, first, width, pixel, count):
    """As standard.put_rows, of a pointwise layer whose filters are [phase of planes and rows][filter][phase of columns, 0 or 1].

    The two phases of a column are woven into a row of the result: vectors of both go there side by side.
    """
    square, (filters, height, across), (stride_z, stride_i, _) = job.square, job.result, job.spread
    lines, columns, size = height // stride_i, across // 2, job.out_space[2] * 2 * stride_z * stride_i
    image, done = n * filters * size, 0
    while done < count:
        line, j = (pixel + done) // columns, (pixel + done) % columns
        run, k = min(columns - j, count - done), 0
        while k < width:
            phase, f = (first + k) // (2 * filters), (first + k) % (2 * filters) // 2
            used = min(square.lanes // 2, width // 2 - k // 2, filters - f)
            z, i = line // lines * stride_z + phase // stride_i, line % lines * stride_i + phase % stride_i
            place = f * size + (z * height + i) * across + 2 * j
            weave(square, sums + (done * step + k), step, job.out + (image + place), size, used, run)
            if job.late:
                for row in range(used):
                    job.finish_row(job.out + (image + place + row * size), 2 * run, image, place + row * size)
            k += 2 * used
        done += run


@compiled
def put_blocks(job, sums, step, n, first, width, pixel, count):
    """As put_woven, channels last: filters are [phase of planes and rows][phase of columns][filter], a row of a block one piece."""
    square, (filters, height, across), (stride_z, stride_i, stride_j) = job.square, job.result, job.spread
    lines, columns, segment = height // stride_i, across // stride_j, stride_j * filters
    image, k = n * job.out_space[2] * stride_z * stride_i * segment, 0
    while k < width:
        phase, q = (first + k) // segment, (first + k) % segment
        used, line, j = min(width - k, segment - q), pixel // columns, pixel % columns
        for p in range(count):
            z, i = line // lines * stride_z + phase // stride_i, line % lines * stride_i + phase % stride_i
            place = ((z * height + i) * columns + j) * segment + q
            row, here = job.out + (image + place), sums + (p * step + k)
            copy_run(square, here, row, used)
            if job.late:
                job.finish_row(row, used, image, place)
            line, j = (line, j + 1) if j + 1 < columns else (line + 1, 0)
        k += used


@inlined
def weave(square, sums, step, out, size, filters, count):
    """out[filter * size + 2 * column + phase] = sums[column * step + 2 * filter + phase], a square at a time."""
    lanes = square.lanes
    for first in range(0, count, lanes):
        column = max(0, min(first, count - lanes))  # the last square overlaps its neighbour
        block = square.load_tile(sums + column * step, step).transpose().as_windows().interleaved()
        if 2 * filters >= lanes and count >= lanes:
            block.store(out + 2 * column, size)
        else:
            block.store(out + 2 * column, size, filters, 2 * (count - column))
