"""Gradients of a convolution with respect to its weights and its bias.

    weight'[f, c, a, b] = sum over n, i, j of out'[n, f, i, j] * x[n, c, i*stride + a*dilation - before, j*...]
    bias'[f]            = sum over n, i, j of out'[n, f, i, j]

(The gradient with respect to the input is a transposed convolution: transposed.py. That of a transposed convolution is an
ordinary one, and its weights' is the one here with image and gradient exchanged.) All sums are made in an order that does not
depend on the threads. An item of `direct_weight_gradient` owns one pair of filter and channel, outermost first:

    taps (a, b)             what they multiply outside the image is never visited
      images, rows            of the gradient and of the image, four at a time
        columns                 vectorised: each column has a sum of its own in a row of scratch, added up at the end. A dot
                                product a row would spend its time on adding up lanes: 3 to 5 GF/s for 28 columns, against 11

The arrays are read by their steps, so both data formats are served; the vectors need a gradient with a step of 1.

`tiled_weight_gradient` is a matrix product (Goto and van de Geijn 2008) of the gradient, (filters, pixels), and of what the taps
see, (pixels, channels x taps), which is never written down: in the sheets of the image (sheets.py) all that one number of a
filter meets lies at a constant distance. An item owns a chunk of filters and a block of channels, whose sums stay in L2:

    band of rows, image by image      its sheets, and its gradient with filters in lanes, which takes a transposition
      panel of filters                  tile.width of them
        numbers of a filter (c, a, b)     tile.rows of them: where each begins is a table
          pixels of the band                a rank-1 update each

Where filters and channels are few, the images fall into parts, each with a result of its own; they are added up in order.

For few channels that transposition takes half as long as the product. `tiled_weight_gradient_pixels` has pixels in lanes, of
the image and of the gradient, which is read where it lies; the sums, a vector each, stay in L2, and are added up at the end:

    band of rows, image by image      its sheets, whose rows begin on cache lines
      numbers of a filter (c, a, b)     tile.rows of them; what they see stays in L1
        filters                           tile.vectors of them
          pixels of the band                rows * vectors multiply-adds for rows + vectors loads

Of a depthwise layer there is nothing to multiply with. `tiled_depthwise_weight_gradient` walks as tiled_depthwise does: a tile
of tile.rows lines of taps holds a vector of sums for each tap, until all of a channel's columns of vectors are walked down:

    image, column of vectors     neighbouring outputs in lanes; the gradients of the windows under way in registers
      line of the image            its taps are loaded, and each meets the gradient of every window that it belongs to

`tiled_depthwise_weight_gradient_last` has channels in lanes and walks along the rows, of all channels of a row before the next.
"""

from __future__ import annotations

import fastconv.cpu.windows  # noqa: F401, gives tiles the methods that tiled kernels call
from fastconv.cpu.atomics import TOGETHER, add_numbers
from fastconv.cpu.compiled import compiled, inlined, reassociating
from fastconv.cpu.depthwise import within
from fastconv.cpu.rows import inside
from fastconv.cpu.standard import turn_sums


@inlined
def add_products(sums, left, left_down, left_step, right, right_down, right_step, lines, count):
    """sums[j] += sum over lines of left[line * left_down + j * left_step] * right[...], four lines at a time."""
    whole = lines // 4 * 4
    for line in range(0, whole, 4):
        g, x = left + line * left_down, right + line * right_down
        g0, g1, g2, g3 = g, g + left_down, g + 2 * left_down, g + 3 * left_down
        x0, x1, x2, x3 = x, x + right_down, x + 2 * right_down, x + 3 * right_down
        for j in range(count):
            total = sums[j] + g0[j * left_step] * x0[j * right_step]
            total = total + g1[j * left_step] * x1[j * right_step]
            total = total + g2[j * left_step] * x2[j * right_step]
            sums[j] = total + g3[j * left_step] * x3[j * right_step]
    for line in range(whole, lines):
        g, x = left + line * left_down, right + line * right_down
        for j in range(count):
            sums[j] += g[j * left_step] * x[j * right_step]


@reassociating
def add_sum(total, row, step, count):
    """Total + the sum of row[k * step]."""
    if step == 1:
        for k in range(count):
            total += row[k]
    else:
        for k in range(count):
            total += row[k * step]
    return total


@compiled
def direct_weight_gradient(item, seat, job):
    """All taps of one filter and one of its channels: job.x the image, job.grad the gradient, job.out the weights'."""
    channels, step, grad_step, sums = job.channels, job.x_steps, job.grad_steps, job.scratch + seat * job.scratch_size
    (depth, height, width), (out_depth, out_height, out_width) = job.space, job.out_space
    (taps_z, taps_a, taps_b), (stride_z, stride_i, stride_j) = job.kernel, job.stride
    (before_z, before_i, before_j), (apart_z, apart_i, apart_j) = job.before, job.dilation
    f, out = item // channels, job.out + item * taps_z * taps_a * taps_b
    image = job.x + (f // job.filters * channels + item % channels) * job.x_channel
    grad, across, down = job.grad + f * job.grad_channel, stride_j * step[2], stride_i * step[1]
    for tap in range(taps_z * taps_a * taps_b):
        z, i = tap // taps_b // taps_a * apart_z - before_z, tap // taps_b % taps_a * apart_i - before_i
        j = tap % taps_b * apart_j - before_j
        planes, lines = inside(z, stride_z, out_depth, depth), inside(i, stride_i, out_height, height)
        first, last = inside(j, stride_j, out_width, width)
        count, rows = last - first, lines[1] - lines[0]
        for k in range(count):
            sums[k] = 0
        for n in range(job.batch):
            for k in range(planes[0], planes[1]):
                g = grad + (n * job.grad_image + k * grad_step[0] + lines[0] * grad_step[1] + first * grad_step[2])
                x = image + (n * job.x_image + (z + k * stride_z) * step[0] + (i + lines[0] * stride_i) * step[1])
                x = x + (j + first * stride_j) * step[2]
                if grad_step[2] == 1 and across == 1:
                    add_products(sums, g, grad_step[1], 1, x, down, 1, rows, count)
                elif grad_step[2] == 1 and across == 2:
                    add_products(sums, g, grad_step[1], 1, x, down, 2, rows, count)
                else:
                    add_products(sums, g, grad_step[1], grad_step[2], x, down, across, rows, count)
        out[tap] = 0
        out[tap] = add_sum(out[tap], sums, 1, count)


@compiled
def direct_bias_gradient(item, seat, job):
    """The sum of one filter's gradient, in float64: job.grad the gradient, job.out the bias's."""
    (out_depth, out_height, out_width), step = job.out_space, job.grad_steps
    grad, out, total = job.grad + item * job.grad_channel, job.out, 0.0
    if step[1] == out_width * step[2]:  # rows follow one another: a sum of 16 numbers takes as long as one of 64
        out_height, out_width = 1, out_height * out_width
    for n in range(job.batch):
        for k in range(out_depth):
            for line in range(out_height):
                row = grad + (n * job.grad_image + k * step[0] + line * step[1])
                total = add_sum(total, row, step[2], out_width)
    out[item] = total


# Tiled ----------------------------------------------------------------------------------------------------------------


@inlined
def turn_gradient(tile, square, job, grad, filters, rows, out):
    """out[panel of filters][pixel][filter] of so many filters and rows; zeros in the lanes that no filter fills."""
    lanes, width, pixels, step, apart = square.lanes, job.out_space[2], rows * job.out_space[2], job.grad_steps, job.grad_channel
    if step[1] == width * step[2]:
        rows, width = 1, pixels  # they lie one after the other
    for f in range(0, (filters + tile.width - 1) // tile.width * tile.width, lanes):
        panel = out + (f // tile.width * tile.width * pixels + f % tile.width)
        for row in range(rows):
            for j in range(0, width, lanes):
                here, there = grad + (f * apart + row * step[1] + j * step[2]), panel + (row * width + j) * tile.width
                if filters - f >= lanes and width - j >= lanes:
                    if apart == 1:
                        square.load_tile(here, step[2]).store(there, tile.width)
                    else:
                        square.load_tile(here, apart).transpose().store(there, tile.width)
                elif apart == 1:
                    square.load_tile(here, step[2], width - j, filters - f).store(there, tile.width, width - j, lanes)
                else:
                    block = square.load_tile(here, apart, filters - f, width - j).transpose()
                    block.store(there, tile.width, width - j, lanes)


@inlined
def add_pixels(tile, acc, sheets, places, grads, rows, count, pitch):
    """acc[k][f] + sum over rows of `count` pixels of what number k of a filter sees * the gradient, of one tile."""
    for _ in range(rows):
        for j in range(0, count - 1, 2):
            acc = acc.rank2_at(sheets + j, places, grads)
            grads += 2 * tile.width
        if count % 2:
            acc = acc.rank1_at(sheets + (count - 1), places, grads)
            grads += tile.width
        sheets += pitch
    return acc


@compiled
def tiled_weight_gradient(item, seat, job):
    """One chunk of a group's filters, in lanes, one block of its channels, one part of the images.

    A last block overlaps its neighbour: only their sheets. Fresh sums begin with 0: a pass that cleared them took a twentieth of
    the time at 7x7. Complete ones of an exchanged layer lie as the result does, and go there at once: copying took a fifth.
    """
    tile, (_, out_height, out_width), taps = job.tile, job.out_space, job.kernel[0] * job.kernel[1] * job.kernel[2]
    chunk, block = item % job.chunks, item // job.chunks % job.blocks
    g, part = item // (job.chunks * job.blocks) % job.groups, item // (job.chunks * job.blocks * job.groups)
    first, every = chunk * job.chunk, job.all_channels * taps
    filters, c = min(job.chunk, job.filters - first), min(block * job.channels, job.all_channels - job.channels)
    sheets, theirs = job.scratch + seat * job.scratch_size, (block * job.channels - c) * taps
    grads, sums, places = sheets + job.grads_at, sheets + job.sums_at, job.table + (job.places + theirs)
    count = job.channels * taps - theirs
    room, out = (count + tile.rows - 1) // tile.rows * tile.rows, job.out + (part * job.groups + g) * job.filters * every
    images = job.batch * job.out_space[0] * job.bands
    begin, end = images * part // job.parts, images * (part + 1) // job.parts
    for unit in range(begin, end):
        line, plane, n = unit % job.bands * job.band, unit // job.bands % job.out_space[0], unit // (job.bands * job.out_space[0])
        rows = min(job.band, out_height - line)
        job.fill_sheets(sheets, job.x + (n * job.x_image + (g * job.all_channels + c) * job.x_channel), plane, line)
        grad = job.grad + (n * job.grad_image + (g * job.filters + first) * job.grad_channel)
        grad = grad + (plane * job.grad_steps[0] + line * job.grad_steps[1])
        turn_gradient(tile, job.square, job, grad, filters, rows, grads)
        runs, pixels = (1, rows * out_width) if job.pitch == out_width else (rows, out_width)
        for f in range(0, filters, tile.width):
            for k in range(0, count, tile.rows):
                panel, acc = sums + (f * room + k * tile.width), tile.zeros()
                if unit > begin:
                    acc = tile.load_tile(panel, tile.width)
                acc = add_pixels(tile, acc, sheets, places + k, grads + f * rows * out_width, runs, pixels, job.pitch)
                if unit < end - 1 or not job.exchanged:
                    acc.store(panel, tile.width)
                else:
                    there = out + ((block * job.channels * taps + k) * job.filters + first + f)
                    put_tile(tile, acc, there, job.filters, count - k, filters - f)
    if not job.exchanged:
        for f in range(0, filters, tile.width):
            there = out + ((first + f) * every + block * job.channels * taps)
            turn_sums(job.square, sums + f * room, tile.width, there, every, min(tile.width, filters - f), count)


@inlined
def put_tile(tile, acc, out, step, rows, columns):
    """Store a tile, of which there are so many rows and columns."""
    if rows >= tile.rows and columns >= tile.width:
        acc.store(out, step)
    else:
        acc.store(out, step, rows, columns)


@inlined
def add_dots(tile, sums, fresh, sheets, places, job, grads, rows):
    """sums[k][f] += over rows of the result what number k of a filter sees * the gradient, lane by lane, of one tile."""
    width, down = job.out_space[2], job.grad_steps[1]
    whole = width - width % tile.lanes
    acc = tile.zeros()
    if not fresh:
        acc = tile.load_tile(sums, tile.width)
    for _ in range(rows):
        for j in range(0, whole, tile.lanes):
            acc = acc.dots_at(sheets + j, places, grads + j, job.grad_channel)
        if whole < width:
            acc = acc.dots_at(sheets + whole, places, grads + whole, job.grad_channel, width - whole)
        sheets += job.pitch
        grads += down
    acc.store(sums, tile.width)


@compiled
def tiled_weight_gradient_pixels(item, seat, job):
    """One chunk of a group's filters, one part of the images: pixels in lanes."""
    tile, (_, out_height, _), taps = job.tile, job.out_space, job.kernel[0] * job.kernel[1] * job.kernel[2]
    chunk, g, part = item % job.chunks, item // job.chunks % job.groups, item // (job.chunks * job.groups)
    first, last = chunk * job.chunk, min((chunk + 1) * job.chunk, job.filters)
    sheets, places, numbers = job.scratch + seat * job.scratch_size, job.table + job.places, job.channels * taps
    sums, room = sheets + job.sums_at, (numbers + tile.rows - 1) // tile.rows * tile.rows * tile.width
    images = job.batch * job.out_space[0] * job.bands
    begin, end = images * part // job.parts, images * (part + 1) // job.parts
    for unit in range(begin, end):
        line, plane, n = unit % job.bands * job.band, unit // job.bands % job.out_space[0], unit // (job.bands * job.out_space[0])
        job.fill_sheets(sheets, job.x + (n * job.x_image + g * job.channels * job.x_channel), plane, line)
        grad = job.grad + (n * job.grad_image + plane * job.grad_steps[0] + line * job.grad_steps[1])
        rows = min(job.band, out_height - line)
        for k in range(0, numbers, tile.rows):
            panel = sums + k * tile.width
            for f in range(first, last, tile.vectors):
                here = grad + (g * job.filters + min(f, job.filters - tile.vectors)) * job.grad_channel  # the last ones overlap
                add_dots(tile, panel, unit == begin, sheets, places + k, job, here, rows)
                panel += room
    out, step, down = job.out + (part * job.groups + g) * job.filters * numbers, numbers, 1
    if job.exchanged:
        step, down = 1, job.filters
    for f in range(first, last, tile.vectors):
        theirs = max(0, f + tile.vectors - job.filters)  # filters that the last ones have in common with those before
        for k in range(0, numbers, tile.rows):
            tile.load_tile(sums + k * tile.width, tile.width).totals(sheets)
            for row in range(min(tile.rows, numbers - k)):
                for vector in range(theirs, tile.vectors):
                    out[(f - theirs + vector) * step + (k + row) * down] = sheets[row * tile.vectors + vector]
        sums += room


# Tiled, depthwise -----------------------------------------------------------------------------------------------------


@inlined
def walk_down(acc, tile, job, image, edges, line, grad, count, inner, width, ahead):
    """Gather from `count` windows one above the other, for a vector of columns; the first begins at `line` of the image.

    What it reads it asks for, to L2, so many numbers `ahead` in image and gradient: of the next plane. Eight images of 112 x 112
    and 32 channels, 26 MB, take 1.0 ms for 1.9; from L3 as long as without.
    """
    height, step, down, apart = job.space[1], job.x_steps[1], job.grad_steps[1], job.dilation[1]
    above, unfinished = tile.sums(tile.splat(0)), (tile.rows - 1) // tile.step
    for t in range(count + unfinished):
        newest, x = tile.splat(0), image + line * step
        x.prefetch_l2(ahead[0])
        grad.prefetch_l2(ahead[1])
        if t < count:
            newest = tile.load(grad) if inner else tile.load(grad, 0, width)
            if tile.step == 2:
                newest = newest.as_windows()
        above = above.next(newest)
        if within(line, height):
            acc = acc.gather(above, tile.windows(x, job.dilation[2], edges), 0)
        if tile.step == 2 and within(line + 1, height):
            acc = acc.gather(above, tile.windows(image + (line + 1) * step, job.dilation[2], edges), 1)
        grad += down * apart
        line += apart * tile.step
    return acc


@compiled
def tiled_depthwise_weight_gradient(item, seat, job):
    """One chunk of channels, one part of the images: columns in lanes."""
    tile, filters, (_, taps_a, taps_b), (_, out_height, out_width) = job.tile, job.groups * job.filters, job.kernel, job.out_space
    chunk, part, phases, apart = item % job.chunks, item // job.chunks, job.dilation[1], job.dilation[2]
    before, width_in, last = job.before[2], job.space[2], min((chunk + 1) * job.chunk, filters)
    begin, end = job.batch * part // job.parts, job.batch * (part + 1) // job.parts
    first = tile.edges(-before, apart, width_in)  # of all filters, and often all that there are
    for f in range(chunk * job.chunk, last):
        for top in range(0, taps_a, tile.rows):
            a = min(top, taps_a - tile.rows)  # the last lines of taps overlap their neighbours
            acc = tile.zeros()
            for n in range(begin, end):
                ahead = next_plane(job, f, n, begin, end)
                for j in range(0, out_width, tile.lanes):
                    u, width = j * tile.step - before, out_width - j
                    image = job.x + (n * job.x_image + f // job.filters * job.x_channel + u)
                    grad = job.grad + (n * job.grad_image + f * job.grad_channel + j)
                    inner = u >= 0 and u + (tile.lanes - 1) * tile.step + (taps_b - 1) * apart < width_in and width >= tile.lanes
                    edges = first
                    if j > 0:
                        edges = tile.edges(u, apart, width_in)
                    for i in range(min(phases, out_height)):
                        line, count = i * tile.step + a * phases - job.before[1], (out_height - i + phases - 1) // phases
                        here = grad + i * job.grad_steps[1]
                        if inner:
                            acc = walk_down(acc, tile, job, image, None, line, here, count, True, width, ahead)
                        else:
                            acc = walk_down(acc, tile, job, image, edges, line, here, count, False, width, ahead)
            acc.totals(job.out + (((part * filters + f) * taps_a + a) * taps_b))


@inlined
def next_plane(job, f, n, begin, end):
    """How far on that plane lies, in image and gradient, which follows filter f's of image n, of a part of so many images."""
    if n + 1 < end:
        return job.x_image, job.grad_image
    c = (f + 1) // job.filters - f // job.filters
    return c * job.x_channel - (end - 1 - begin) * job.x_image, job.grad_channel - (end - 1 - begin) * job.grad_image


@inlined
def walk_across(acc, tile, job, image, edges, column, grad, count, width):
    """Gather from `count` windows side by side, for a vector of channels; the first begins at `column`."""
    columns, step, apart, across = job.space[2], job.x_steps[2], job.dilation[2], job.grad_steps[2]
    above, unfinished, lines_apart = tile.sums(tile.splat(0)), (tile.rows - 1) // tile.step, job.dilation[1] * job.x_steps[1]
    for t in range(count + unfinished):
        newest = tile.splat(0)
        if t < count:
            newest = tile.load(grad, 0, width)
        above = above.next(newest)
        if 0 <= column < columns:
            acc = acc.gather(above, tile.taps(image + column * step, lines_apart, edges), 0)
        if tile.step == 2 and 0 <= column + 1 < columns:
            acc = acc.gather(above, tile.taps(image + (column + 1) * step, lines_apart, edges), 1)
        grad += across * apart
        column += apart * tile.step
    return acc


@compiled
def tiled_depthwise_weight_gradient_last(item, seat, job):
    """One chunk of channels, one part of the rows of all images: channels in lanes, a window's columns in the tile's rows.

    A row's channels lie side by side, so all of the chunk take their turn before the next row, and their sums wait in scratch.
    """
    tile, channels, (_, taps_a, taps_b), (_, out_height, out_width) = job.tile, job.groups, job.kernel, job.out_space
    part, phases, sums, rows = item // job.chunks, job.dilation[2], job.scratch + seat * job.scratch_size, job.batch * out_height
    first, size = item % job.chunks * job.chunk, tile.rows * tile.width
    last, begin, end = min(first + job.chunk, channels), rows * part // job.parts, rows * (part + 1) // job.parts
    for top in range(0, taps_a, tile.vectors):
        a = min(top, taps_a - tile.vectors)
        for row in range(begin, end):
            n, i = row // out_height, row % out_height
            line = i * tile.step + a * job.dilation[1] - job.before[1]
            lines, here = inside(line, job.dilation[1], tile.vectors, job.space[1]), sums
            for c in range(first, last, tile.lanes):
                width, acc = min(tile.lanes, channels - c), tile.zeros()
                if row > begin:
                    acc = tile.load_tile(here, tile.width)
                inner, edges = lines[1] - lines[0] == tile.vectors and width == tile.lanes, tile.sides(lines[0], lines[1], width)
                image = job.x + (n * job.x_image + line * job.x_steps[1] + c)
                grad = job.grad + (n * job.grad_image + i * job.grad_steps[1] + c)
                for j in range(min(phases, out_width)):
                    column, count = j * tile.step - job.before[2], (out_width - j + phases - 1) // phases
                    above = grad + j * job.grad_steps[2]
                    if inner:
                        acc = walk_across(acc, tile, job, image, None, column, above, count, width)
                    else:
                        acc = walk_across(acc, tile, job, image, edges, column, above, count, width)
                acc.store(here, tile.width)
                here += size
        for c in range(first, last):
            out = job.out + (((part * channels + c) * taps_a + a) * taps_b)
            here = sums + ((c - first) // tile.lanes * size + (c - first) % tile.lanes)
            for b in range(taps_b):
                for e in range(tile.vectors):
                    out[e * taps_b + b] = here[(b * tile.vectors + e) * tile.lanes]


# Parts ----------------------------------------------------------------------------------------------------------------


@compiled
def add_parts(parts, count, size, width, out):
    """Put parts[0] + parts[1] + ... to `out`, in this order: `count` >= 2 parts of `size` numbers of `width` bytes, by address."""
    end = size * width
    together = TOGETHER if end >= TOGETHER else width
    for begin in range(0, end, together):
        place = min(begin, end - together)  # the last ones overlap their neighbours, and come to the same sums
        add_numbers(out + place, parts + place, parts + end + place, width, together)
        for k in range(2, count):
            add_numbers(out + place, out + place, parts + k * end + place, width, together)
