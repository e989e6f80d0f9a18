"""Standard convolution: every filter looks at every channel of its group through a window of the image.

    out[n, f, i, j] = finish(bias + sum over c, a, b of weight[f, c, a, b] * x[n, c, i*stride + a*dilation - before, j*...])

and the same with one more tap, over the depth, for volumes; a line is a plane of height 1. 2 operations a weight and pixel:
the limit is the multiply-add peak. The direct kernels keep to the sum as it stands. `direct_standard`, outermost first:

    row of the result       of one filter; it stays in L1 until it is complete
      taps (a, b)             those whose row lies outside the image are never visited, columns outside are cut off the range
        channels, columns       vectorised along the columns: row[j] += weight * x[j]

A dilated (atrous) convolution is this kernel with its taps further apart: no zeros stored, none multiplied.
`direct_standard_last` is the twin for channels-last results: rows run along the filters, one pixel at a time.

The tiled kernels keep a register tile of sums until it is complete (Goto and van de Geijn 2008; Georganas et al. 2018), over
sheets of the image (sheets.py) in place of the matrix that a product would need. `tiled_standard`, with filters in lanes:

    panel of filters        tile.width of them; its packed weights stay in L2
      row of the result, strip of its pixels     a register row each, broadcast from the sheets; see strips.py
        block of channels       their rows stay in L1 while all taps pass
          taps (a, b)             those that miss the image for a whole strip are skipped
            channels                a rank-1 update each

The sums of a few rows, [pixel][filter] in L1, are turned into rows of filters a square of registers at a time; channels last they
are stored where they belong at once.
`tiled_standard_pixels` has pixels in lanes and filters in rows: nothing is turned, and few channels or filters suffice.
"""

from fastconv.cpu.compiled import compiled, inlined
from fastconv.cpu.packing import BLOCK
from fastconv.cpu.rows import A_PIXEL, add_lines, add_strided_lines, epilogue_of, finish_row, inside, start_pixel, start_row


@compiled
def direct_standard(item, seat, job):
    """One band of rows of one filter. Weights (filters, channels, *kernel), as they come."""
    finish, channels, step = epilogue_of(job), job.channels, job.x_steps
    (depth, height, width), (_, out_height, out_width) = job.space, job.out_space
    (taps_z, taps_a, taps_b), (stride_z, stride_i, stride_j) = job.kernel, job.stride
    (before_z, before_i, before_j), (apart_z, apart_i, apart_j) = job.before, job.dilation
    rows, all_filters = job.out_space[0] * out_height, job.groups * job.filters
    band, f, n = item % job.bands, item // job.bands % all_filters, item // (job.bands * all_filters)
    image = job.x + (n * job.x_image + f // job.filters * channels * job.x_channel)
    taps, x_channel, out = taps_z * taps_a * taps_b, job.x_channel, job.out
    weights = job.weight + f * channels * taps
    for line in range(band * job.band, min((band + 1) * job.band, rows)):
        z, i = line // out_height * stride_z - before_z, line % out_height * stride_i - before_i
        place = (f * rows + line) * out_width
        row = out + (n * all_filters * rows * out_width + place)
        start_row(row, out_width, finish, f, place)
        planes, lines = inside(z, apart_z, taps_z, depth), inside(i, apart_i, taps_a, height)
        for e in range(planes[0], planes[1]):
            for a in range(lines[0], lines[1]):
                across = image + ((z + e * apart_z) * step[0] + (i + a * apart_i) * step[1])
                for b in range(taps_b):
                    j, w = b * apart_j - before_j, weights + ((e * taps_a + a) * taps_b + b)
                    first, last = inside(j, stride_j, out_width, width)
                    x = across + (j + first * stride_j) * step[2]
                    add_strided_lines(row + first, x, x_channel, stride_j * step[2], w, taps, channels, last - first)
        finish_row(row, out_width, finish, n * all_filters * rows * out_width + place)


@compiled
def direct_standard_last(item, seat, job):
    """One band of rows, all filters of one group. Weights [group][a][b][channel][filter]."""
    finish, channels, filters, step = epilogue_of(job), job.channels, job.filters, job.x_steps
    (depth, height, width), (_, out_height, out_width) = job.space, job.out_space
    (taps_z, taps_a, taps_b), (stride_z, stride_i, stride_j) = job.kernel, job.stride
    (before_z, before_i, before_j), (apart_z, apart_i, apart_j) = job.before, job.dilation
    rows, all_filters = job.out_space[0] * out_height, job.groups * filters
    band, g, n = item % job.bands, item // job.bands % job.groups, item // (job.bands * job.groups)
    image, x_channel = job.x + (n * job.x_image + g * channels * job.x_channel), job.x_channel
    weights, out = job.weight + g * taps_z * taps_a * taps_b * channels * filters, job.out
    for line in range(band * job.band, min((band + 1) * job.band, rows)):
        z, i = line // out_height * stride_z - before_z, line % out_height * stride_i - before_i
        planes, lines = inside(z, apart_z, taps_z, depth), inside(i, apart_i, taps_a, height)
        for column in range(out_width):
            j = column * stride_j - before_j
            columns = inside(j, apart_j, taps_b, width)
            place = (line * out_width + column) * all_filters + g * filters
            row = out + (n * rows * out_width * all_filters + place)
            start_pixel(row, filters, finish, g * filters, place)
            for e in range(planes[0], planes[1]):
                for a in range(lines[0], lines[1]):
                    for b in range(columns[0], columns[1]):
                        pixel = image + ((z + e * apart_z) * step[0] + (i + a * apart_i) * step[1] + (j + b * apart_j) * step[2])
                        w = weights + ((e * taps_a + a) * taps_b + b) * channels * filters
                        add_lines(row, 1, w, filters, 1, pixel, x_channel, channels, filters)
            finish_row(row, filters, finish, n * rows * out_width * all_filters + place)


# Tiled ----------------------------------------------------------------------------------------------------------------


@inlined
def sum_strip(tile, window, panel, job, planes, lines, columns, j, out, step):
    """Sums of tile.rows neighbouring outputs from column j on, tile.width filters, over the taps within these ranges.

    A tap that misses the image for the first or the last of them alone leaves that one out: at 7 columns a tenth of the work.
    """
    (_, taps_a, taps_b), table, sheet, channels, apart = job.kernel, job.table, job.sheet, job.channels, job.dilation[2]
    taps, stride, width = job.kernel[0] * taps_a * taps_b, job.stride[2], job.space[2]
    acc = tile.from_columns(panel)
    panel += tile.width
    for first in range(0, channels, BLOCK):
        count = min(BLOCK, channels - first)
        for e in range(planes[0], planes[1]):
            for a in range(lines[0], lines[1]):
                for b in range(columns[0], columns[1]):
                    tap, u = (e * taps_a + a) * taps_b + b, j * stride + b * apart - job.before[2]
                    x = window + (first * sheet + table[tap] + j)
                    w = panel + (first * taps + tap * count) * tile.width
                    acc = add_channels(acc, x, sheet, w, tile.width, count, u < 0, u + (tile.rows - 1) * stride >= width)
    acc.clip(job.least, job.most).store(out + j * step, step)


@inlined
def sum_rows(tile, job, window, panel, planes, begin, rows, sums, step):
    """sums[row][pixel * step + filter] of rows from `begin` on, for a panel; `window` is where the first one sees the sheets."""
    for i in range(begin, begin + rows):
        lines = inside(i * job.stride[1] - job.before[1], job.dilation[1], job.kernel[1], job.space[1])
        for k in range(job.strips_at, job.strips_at + 4 * job.strips, 4):
            j, columns = job.table[k], (job.table[k + 2], job.table[k + 3])
            if job.table[k + 1]:
                sum_strip(tile, window, panel, job, planes, lines, columns, j, sums, step)
            else:
                sum_strip(job.short, window, panel, job, planes, lines, columns, j, sums, step)
        window, sums = window + job.pitch, sums + job.out_space[2] * step


@inlined
def add_channels(acc, x, sheet, w, width, count, but_first, but_last):
    """A rank-1 update for each of so many channels."""
    if but_first:
        for _ in range(count):
            acc = acc.rank1_but_first(x, w)
            x += sheet
            w += width
    elif but_last:
        for _ in range(count):
            acc = acc.rank1_but_last(x, w)
            x += sheet
            w += width
    else:
        for _ in range(count):
            acc = acc.rank1(x, w)
            x += sheet
            w += width
    return acc


@compiled
def tiled_standard(item, seat, job):
    """One band of rows of one plane, one chunk of a group's filters, in lanes. Weights from packing.lane_panels."""
    tile, channels = job.tile, job.channels
    out_depth, out_height, out_width = job.out_space
    band, chunk = item % job.bands, item // job.bands % job.chunks
    plane, image = item // (job.bands * job.chunks) % out_depth, item // (job.bands * job.chunks * out_depth)
    count, line = 1 + job.beside, band * job.band
    g, n = image * count % job.groups, image * count // job.groups
    sheets = job.scratch + seat * job.scratch_size
    sums = sheets + job.sums_at
    job.fill_sheets(sheets, job.x + (n * job.x_image + g * channels * job.x_channel), plane, line)
    planes = inside(plane * job.stride[0] - job.before[0], job.dilation[0], job.kernel[0], job.space[0])
    end, pixels, filters = min(line + job.band, out_height), out_depth * out_height * out_width, job.groups * job.filters
    step = job.beside * job.filters + tile.width
    for f in range(chunk * job.chunk, min((chunk + 1) * job.chunk, job.filters), tile.width):
        panel, width = job.weight + (g * job.panels + f // tile.width) * job.panel, min(tile.width, job.filters - f)
        for begin in range(line, end, job.run):
            rows, pixel, first = min(job.run, end - begin), (plane * out_height + begin) * out_width, g * job.filters + f
            window, weights, there, apart = sheets + (begin - line) * job.pitch, panel, sums, step
            in_place = puts_in_place(tile, job, width)
            if in_place:
                there, apart = job.out + ((n * pixels + pixel) * filters + first), filters
            for _ in range(count):  # where a group's filters do not fill the tile, the next one's overwrite what is too much
                sum_rows(tile, job, window, weights, planes, begin, rows, there, apart)
                window, weights, there = window + channels * job.sheet, weights + job.panels * job.panel, there + job.filters
            if not in_place:
                job.put_rows(sums, step, n, first, width + job.beside * job.filters, pixel, rows * out_width)


@inlined
def puts_in_place(tile, job, width):
    """Whether tiles of sums may be stored where they belong: whole ones, channels last, finished in registers.

    What they write then goes out between their products: 224 x 224 pixels of 64 filters of 27 numbers took 1.5 times as long when
    it lay in L1 first.
    """
    return job.last and not job.late and width == tile.width


@inlined
def evenly(count, tile, short):
    """Strips that so many pixels make, and how many of them are tall; if there is no such sum, short ones overlap."""
    strips = (count + tile.rows - 1) // tile.rows
    return strips, max(0, count - strips * short.rows)


@compiled
def put_rows(job, sums, step, n, first, width, pixel, count):
    """out[n, first..., pixel...] = sums[pixel * step + filter], for `width` filters of all groups and `count` neighbouring pixels.

    Tiled kernels call it by its address: it knows of their tiles no more than the lanes.
    """
    put_sums(job, sums, step, job.groups * job.filters, n, first, width, pixel, count)


@inlined
def put_sums(job, sums, step, filters, n, first, width, pixel, count):
    """The same of a result of so many filters."""
    square, pixels = job.square, job.out_space[0] * job.out_space[1] * job.out_space[2]
    image, alone = n * pixels * filters, is_activation(job)
    if job.last:
        place, whole = pixel * filters + first, width == filters
        if job.late and alone and not whole:
            job.finish_row(sums, count * step, 0, 0)
        for j in range(count):
            row, here = job.out + (image + place + j * filters), sums + j * step
            copy_run(square, here, row, width)
            if job.late and not alone and not whole:
                job.finish_row(row, width, image, place + j * filters)
        if job.late and whole:  # pixels lie side by side
            job.finish_row(job.out + (image + place), count * filters, image, place)
    else:
        place = first * pixels + pixel
        rows = job.out + (image + place)
        turn_sums(square, sums, step, rows, pixels, width, count)
        if job.late:
            for k in range(width):
                job.finish_row(rows + k * pixels, count, image, place + k * pixels)


@inlined
def is_activation(job):
    """Whether what comes late is an activation alone, which does not ask where its number belongs."""
    return job.bias_kind != A_PIXEL and not job.has_residual


@inlined
def copy_run(square, numbers, out, count):
    """out[k] = numbers[k], of `count` neighbours, by vectors."""
    for k in range(0, count, square.lanes):
        if count - k >= square.lanes:
            square.load(numbers + k).store(out + k)
        else:
            square.load(numbers + k).store(out + k, count - k)


@compiled
def turn_sums(square, sums, step, out, pixels, filters, count):
    """out[filter][column] = sums[column * step + filter], a square at a time."""
    lanes = square.lanes
    for begin in range(0, filters, lanes):
        for first in range(0, count, lanes):
            # The last squares overlap their neighbours: masks are slow.
            k, column = max(0, min(begin, filters - lanes)), max(0, min(first, count - lanes))
            block = square.load_tile(sums + (column * step + k), step).transpose()
            there = out + (k * pixels + column)
            if filters >= lanes and count >= lanes:
                block.store(there, pixels)
            else:
                block.store(there, pixels, filters - k, count - column)


@compiled
def put_turned(job, sums, step, n, first, width, pixel, count):
    """As put_rows channels last, of sums[filter * step + pixel]."""
    filters, pixels = job.groups * job.filters, job.out_space[0] * job.out_space[1] * job.out_space[2]
    image, place = n * pixels * filters, pixel * filters + first
    alone, out = is_activation(job), job.out + (image + place)
    if job.late and alone:
        for k in range(width):
            job.finish_row(sums + k * step, count, 0, 0)
    if width <= job.half_square.lanes:
        turn_sums(job.half_square, sums, step, out, filters, count, width)
    else:
        turn_sums(job.square, sums, step, out, filters, count, width)
    if job.late and not alone:
        for j in range(count):
            job.finish_row(out + j * filters, width, image, place + j * filters)


@inlined
def sum_plane(tile, job, sheets, panel, begin, numbers, out, step, rows, room):
    """out[filter * step + p] for tile.rows filters, over the taps from `begin` on, and so many numbers of a plane of sheets.

    `rows` of them and `room` numbers may be written.
    """
    taps, table, sheet = job.kernel[0] * job.kernel[1] * job.kernel[2], job.table, job.sheet
    for p in range(0, numbers, tile.width):
        acc, w, x = tile.from_rows(panel), panel + tile.rows, sheets + p
        for _ in range(job.channels):
            w += begin * tile.rows
            for tap in range(begin, taps):
                acc = acc.rank1(w, x + table[tap])
                w += tile.rows
            x += sheet
        acc = acc.clip(job.least, job.most)
        if rows >= tile.rows and room - p >= tile.width:
            acc.store(out + p, step)
        else:
            acc.store(out + p, step, rows, room - p)


@compiled
def tiled_standard_pixels(item, seat, job):
    """As tiled_standard, with pixels in lanes: strips run over a band's whole plane of sheets, across the ends of rows.

    The sums of the columns between rows belong to no output and are left behind; where there are none, in signals, with windows no
    wider than the stride and with few channels, sums go straight to the result. Channels last, they are turned, of a chunk at
    once. Weights from packing.row_panels.
    """
    tile, channels, (out_depth, out_height, out_width) = job.tile, job.channels, job.out_space
    band, chunk = item % job.bands, item // job.bands % job.chunks
    plane, image = item // (job.bands * job.chunks) % out_depth, item // (job.bands * job.chunks * out_depth)
    g, n, line = image % job.groups, image // job.groups, band * job.band
    sheets = job.scratch + seat * job.scratch_size
    sums, rows = sheets + job.sums_at, min(job.band, out_height - line)
    job.fill_sheets(sheets, job.x + (n * job.x_image + g * channels * job.x_channel), plane, line)
    pixels, pixel = out_depth * out_height * out_width, (plane * out_height + line) * out_width
    first, count = n * job.groups * job.filters * pixels, rows * out_width
    begin, end, numbers = chunk * job.chunk, min((chunk + 1) * job.chunk, job.filters), (rows - 1) * job.pitch + out_width
    if job.last:
        for f in range(begin, end, tile.rows):
            panel, there = job.weight + (g * job.panels + f // tile.rows) * job.panel, sums + (f - begin) * job.sums_pitch
            sum_plane(tile, job, sheets, panel, 0, numbers, there, job.sums_pitch, tile.rows, job.sums_pitch)
        for i in range(rows):
            here = sums + i * job.pitch
            job.put_rows(here, job.sums_pitch, n, g * job.filters + begin, end - begin, pixel + i * out_width, out_width)
        return
    for f in range(begin, end, tile.rows):
        panel, used = job.weight + (g * job.panels + f // tile.rows) * job.panel, min(tile.rows, job.filters - f)
        place = (g * job.filters + f) * pixels + pixel
        if rows == 1 or job.pitch == out_width:
            sum_plane(tile, job, sheets, panel, 0, count, job.out + (first + place), pixels, used, count)
        else:
            sum_plane(tile, job, sheets, panel, 0, numbers, sums, job.sums_pitch, tile.rows, job.sums_pitch)
            for k in range(used):
                put_plane(tile, job, sums + k * job.sums_pitch, job.out + (first + place + k * pixels), rows)
        if job.late:
            for k in range(used):
                job.finish_row(job.out + (first + place + k * pixels), count, first, place + k * pixels)


@inlined
def put_plane(tile, job, sums, out, rows):
    """Rows of a filter's result, from sums that lie job.pitch apart."""
    width = job.out_space[2]
    for i in range(rows):
        row, here = out + i * width, sums + i * job.pitch
        for first in range(0, width, tile.lanes):
            j = max(0, min(first, width - tile.lanes))
            if width >= tile.lanes:
                tile.load(here + j).store(row + j)
            else:
                tile.load(here).store(row, width)
