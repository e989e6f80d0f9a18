/* Weights in the order of a kernel: fastconv/cpu/packing.py in C. A layer is packed once, so that every number may look for its
 * own place. */
#include "layer.h"

#include <stdlib.h>
#include <string.h>

static int64_t panels(const struct geometry *g, int64_t unit) { return ceiling(g->filters, unit); }

/* Numbers of all packed weights. */
static int64_t room(const struct geometry *g, const struct weights *w)
{
    int64_t depth = g->channels * taps(g);
    switch (w->order) {
    case LANE_PANELS:
    case ROW_PANELS: return g->groups * panels(g, w->unit) * (1 + depth) * w->unit;
    case WINOGRAD: return winograd_room(g, w->unit);
    case CHANNEL_PANELS: return ceiling(g->groups, w->unit) * (1 + taps(g)) * w->unit;
    default: return g->groups * g->filters * depth;
    }
}

/* Where a weight goes, of group, filter, channel and tap. */
static int64_t place(const struct geometry *g, const struct weights *w, int64_t group, int64_t f, int64_t c, int64_t tap)
{
    int64_t count = taps(g), depth = g->channels * count, first = c / BLOCK * BLOCK;
    int64_t panel = ((group * panels(g, w->unit) + f / w->unit) * (1 + depth) + 1) * w->unit + f % w->unit;
    switch (w->order) {
    case FILTERS_LAST: return ((group * count + tap) * g->channels + c) * g->filters + f;
    case TAPS_FIRST: return tap * g->groups * g->filters + group * g->filters + f;
    case LANE_PANELS: return panel + (first * count + tap * at_most(BLOCK, g->channels - first) + c - first) * w->unit;
    case ROW_PANELS: return panel + (c * count + tap) * w->unit;
    default: return ((group * g->filters + f) * g->channels + c) * count + tap;
    }
}

/* Vectors of channels, the last of which overlaps its neighbour; the taps of a window by columns. */
static void channel_panels(const struct geometry *g, int64_t unit, const char *weight, const char *bias, char *packed)
{
    int64_t count = taps(g), columns = g->kernel[2], rows = count / columns, size = g->number;
    for (int64_t panel = 0; panel < ceiling(g->groups, unit); panel++) {
        int64_t first = at_least(0, at_most(panel * unit, g->groups - unit));
        char *out = packed + panel * (1 + count) * unit * size;
        for (int64_t k = 0; k < unit && first + k < g->groups; k++) {
            if (bias) memcpy(out + k * size, bias + (first + k) * size, size);
            for (int64_t tap = 0; tap < count; tap++) {
                int64_t turned = 1 + tap % columns * rows + tap / columns;
                memcpy(out + (turned * unit + k) * size, weight + ((first + k) * count + tap) * size, size);
            }
        }
    }
}

static void in_order(const struct geometry *g, const struct weights *w, const char *weight, const char *bias, char *packed)
{
    int64_t count = taps(g), size = g->number;
    int in_panels = w->order == LANE_PANELS || w->order == ROW_PANELS;
    for (int64_t group = 0; group < g->groups; group++)
        for (int64_t f = 0; f < g->filters; f++) {
            int64_t filter = group * g->filters + f;
            if (in_panels && bias) memcpy(packed + (place(g, w, group, f, 0, 0) - w->unit) * size, bias + filter * size, size);
            for (int64_t c = 0; c < g->channels; c++) {
                int64_t row = g->transposed ? (group * g->channels + c) * g->filters + f : filter * g->channels + c;
                for (int64_t tap = 0; tap < count; tap++)
                    memcpy(packed + place(g, w, group, f, c, tap) * size, weight + (row * count + tap) * size, size);
            }
        }
}

static void *copied(const void *array, int64_t bytes)
{
    void *copy = malloc(bytes);
    if (copy) memcpy(copy, array, bytes);
    return copy;
}

int pack(const struct geometry *g, struct weights *w, const void *weight, const void *bias)
{
    int64_t size = ceiling(room(g, w) * g->number, UNALIGNED_ROOM) * UNALIGNED_ROOM;
    if (!(w->packed = aligned_alloc(UNALIGNED_ROOM, size))) return FASTCONV_NO_MEMORY;
    if (w->order == AS_THEY_COME) {
        memcpy(w->packed, weight, room(g, w) * g->number);
    } else {
        const void *start = g->bias == FASTCONV_CHANNEL_BIAS ? bias : NULL; /* a sum of a tile starts with it */
        memset(w->packed, 0, size);
        if (w->order == WINOGRAD) pack_winograd(g, w->unit, weight, start, w->packed);
        else if (w->order == CHANNEL_PANELS) channel_panels(g, w->unit, weight, start, w->packed);
        else in_order(g, w, weight, start, w->packed);
    }
    if (g->bias == FASTCONV_NO_BIAS) return FASTCONV_OK;
    int64_t numbers = g->groups * g->filters;
    if (g->bias == FASTCONV_PIXEL_BIAS) numbers *= g->out_space[0] * g->out_space[1] * g->out_space[2];
    return (w->bias = copied(bias, numbers * g->number)) ? FASTCONV_OK : FASTCONV_NO_MEMORY;
}
