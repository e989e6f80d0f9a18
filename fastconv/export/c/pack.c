/* Weights in the order of a kernel: fastconv/cpu/packing.py in C. Panels are packed by its kernels; for the direct ones every number
 * looks for its own place. */
#include "layer.h"

#include <stdlib.h>
#include <string.h>

/* How many numbers of a filter a panel holds, its bias not counted, and how a kernel is to pack them. */
struct panels {
    kernel *code;
    int64_t groups, filters, channels; /* of a group, `channels` with those of zeros that fill vectors */
    int64_t depth, order, phases, rows, points; /* `rows` of taps that a scheme turns into so many `points` */
};

static struct panels panels_of(const struct geometry *g, const struct weights *w)
{
    const struct scheme *s = w->scheme;
    struct panels p = {
        .code = pack_numbers[g->dtype], .groups = g->groups, .filters = g->filters, .channels = g->channels,
        .depth = g->channels * taps(g), .order = w->order == LANE_PANELS ? BLOCK : 1, .phases = 1,
    };
    if (w->order == CHANNEL_PANELS)
        p.code = pack_channels[g->dtype], p.groups = 1, p.filters = g->groups * g->filters, p.depth = taps(g);
    if (s) p.code = s->transform[g->dtype], p.points = s->count * s->count;
    if (w->order == WINOGRAD) {
        p.channels = ceiling(g->channels, lanes(g)) * lanes(g), p.rows = s->taps * g->kernel[2];
        p.depth = s->matrices * s->matrices * (g->kernel[0] * p.channels + WINOGRAD_APART);
    }
    if (w->order == COLUMNS) {
        p.phases = at_most(g->stride[1], g->kernel[1]), p.rows = s->taps * p.phases * g->kernel[2];
        p.depth = s->count * g->channels * p.phases * g->kernel[2];
    }
    return p;
}

static int64_t common_divisor(int64_t a, int64_t b) { return b ? common_divisor(b, a % b) : a; }

/* Run what packs panels. `weight` is a convolution's, or a transposed layer's, whose taps run backwards in a mirrored one. */
static int in_panels(const struct geometry *g, const struct weights *w, const struct panels *p, const void *weight, const void *bias)
{
    int64_t job[JOB_WORDS] = {0}, count = taps(g), unit = w->unit, wide = lanes(g), exchanged = g->transposed || g->mirrored;
    int64_t chunk = unit <= wide ? unit * (wide / unit) : common_divisor(unit, wide), panels = ceiling(p->filters, unit);
    int64_t scratch = wide * (wide + at_least(p->rows, ceiling(count, wide) * wide) + p->points + 1);
    char *room = aligned_alloc(UNALIGNED_ROOM, ceiling(scratch * g->number, UNALIGNED_ROOM) * UNALIGNED_ROOM);
    if (!room) return FASTCONV_NO_MEMORY;
    memcpy(job + JOB_KERNEL, g->kernel, sizeof g->kernel);
    job[JOB_GROUPS] = p->groups, job[JOB_FILTERS] = p->filters, job[JOB_X_IMAGE] = g->filters * g->channels * count;
    job[JOB_FILTER_STEP] = exchanged ? count : g->channels * count, job[JOB_X_CHANNEL] = exchanged ? g->filters * count : count;
    job[JOB_BACKWARDS] = g->mirrored && count > 1;
    job[JOB_CHUNKS] = ceiling(panels * unit, chunk), job[JOB_CHUNK] = chunk, job[JOB_BLOCKS] = 1, job[JOB_CHANNELS] = p->channels;
    job[JOB_ALL_CHANNELS] = g->channels, job[JOB_FILLED] = p->channels, job[JOB_PANELS] = panels;
    job[JOB_PANEL] = unit * (1 + p->depth), job[JOB_UNIT] = unit, job[JOB_ORDER] = p->order;
    job[JOB_PHASES] = 1, job[JOB_PHASES + 1] = p->phases, job[JOB_PHASES + 2] = 1, job[JOB_BIAS_KIND] = bias ? 1 : 0;
    job[JOB_X] = (intptr_t)weight, job[JOB_BIAS] = (intptr_t)bias, job[JOB_OUT] = (intptr_t)w->packed;
    job[JOB_SCRATCH] = (intptr_t)room, job[JOB_SCRATCH_SIZE] = scratch;
    for (int64_t item = 0; item < p->groups * job[JOB_CHUNKS]; item++) p->code(item, 0, job);
    free(room);
    return FASTCONV_OK;
}

/* Where a direct kernel looks for a weight, of group, filter, channel and tap. */
static int64_t place(const struct geometry *g, enum order order, int64_t group, int64_t f, int64_t c, int64_t tap)
{
    int64_t count = taps(g);
    if (order == FILTERS_LAST) return ((group * count + tap) * g->channels + c) * g->filters + f;
    if (order == TAPS_FIRST) return tap * g->groups * g->filters + group * g->filters + f;
    return ((group * g->filters + f) * g->channels + c) * count + tap;
}

static void one_by_one(const struct geometry *g, enum order order, const char *weight, char *packed)
{
    int64_t count = taps(g), size = g->number;
    for (int64_t group = 0; group < g->groups; group++)
        for (int64_t f = 0; f < g->filters; f++)
            for (int64_t c = 0; c < g->channels; c++) {
                int64_t filter = group * g->filters + f, exchanged = g->transposed || g->mirrored;
                int64_t row = exchanged ? (group * g->channels + c) * g->filters + f : filter * g->channels + c;
                for (int64_t tap = 0; tap < count; tap++) {
                    int64_t from = row * count + (g->mirrored ? count - 1 - tap : tap);
                    memcpy(packed + place(g, order, group, f, c, tap) * size, weight + from * size, size);
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
    int direct = w->order == AS_THEY_COME || w->order == FILTERS_LAST || w->order == TAPS_FIRST;
    struct panels p = panels_of(g, w);
    int64_t numbers = direct ? weight_bytes(g) / g->number * g->groups : p.groups * ceiling(p.filters, w->unit) * (1 + p.depth) * w->unit;
    int64_t size = ceiling(numbers * g->number, UNALIGNED_ROOM) * UNALIGNED_ROOM;
    if (!(w->packed = aligned_alloc(UNALIGNED_ROOM, size))) return FASTCONV_NO_MEMORY;
    if (w->order == AS_THEY_COME && !g->mirrored) memcpy(w->packed, weight, numbers * g->number);
    else if (direct) one_by_one(g, w->order, weight, w->packed);
    else if (in_panels(g, w, &p, weight, g->bias == FASTCONV_CHANNEL_BIAS ? bias : NULL)) return FASTCONV_NO_MEMORY;
    if (g->bias == FASTCONV_NO_BIAS) return FASTCONV_OK;
    int64_t biases = g->groups * g->filters;
    if (g->bias == FASTCONV_PIXEL_BIAS) biases *= g->out_space[0] * g->out_space[1] * g->out_space[2];
    return (w->bias = copied(bias, biases * g->number)) ? FASTCONV_OK : FASTCONV_NO_MEMORY;
}
