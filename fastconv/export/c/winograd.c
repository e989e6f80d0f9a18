/* Winograd's scheme in two dimensions, of stride 1 and 2, any dilation, in planes, volumes, and transposed: fastconv/cpu/winograd.py,
 * and its division in plans/, in C. */
#include "layer.h"

#include <float.h>
#include <math.h>
#include <string.h>

enum { APART = WINOGRAD_APART };

struct bands {
    const struct tile *tile;
    int64_t down, across, band, chunk, padded; /* rows of tiles, tiles in a row; channels of all taps of the depth, filled up */
};

/* toom.error_bound: a share of the convolution of the absolute values. */
double toom_error(const struct geometry *g, const struct scheme *s, int dimensions, int64_t depth, int64_t terms)
{
    double unit = (g->dtype == FASTCONV_FLOAT32 ? FLT_EPSILON : DBL_EPSILON) / 2, pi = acos(-1);
    double each = (depth + 1) / 2.0 + dimensions * roundings[g->dtype] + 1;
    return CONFIDENCE * unit / sqrt(3) * sqrt(pow(s->amplification, dimensions) * depth * each) / (terms * 2 / pi);
}

static int suits(const struct geometry *g, const struct scheme *s)
{
    int64_t summed = g->channels * (g->dimensions == 3 ? g->kernel[0] : 1), seen = s->transposed ? s->overlap + 1 : s->taps;
    if (g->exact || g->dimensions < 2 || g->transposed != s->transposed || operations(g) < WINOGRAD_LEAST) return 0;
    for (int d = 1; d < 3; d++)
        if (g->kernel[d] != s->taps || g->stride[d] != s->stride || (s->transposed && g->dilation[d] != 1)) return 0;
    if ((s->transposed && g->dimensions != 2) || g->before[0] < 0 || g->before[1] < 0 || g->before[2] < 0) return 0;
    return toom_error(g, s, 2, summed, seen * seen * summed) <= WINOGRAD_ERROR;
}

/* Rows, or columns, that `count` tiles in a row see. */
static int64_t seen(const struct scheme *s, int64_t count) { return (count - 1) * s->advance + s->numbers; }

/* Of a plane of the result, with what a transposed layer's crops take away in front. */
static int64_t tiled(const struct geometry *g, int axis) { return g->out_space[axis] + (g->transposed ? g->before[axis] : 0); }

/* Along an axis, the tiles of all phases that reach beyond the result, and what is wanted of them where it is most. */
struct edge {
    int64_t beyond, wanted;
};

static struct edge edge_of(const struct geometry *g, const struct scheme *s, int axis)
{
    struct edge e = {0, 0};
    for (int64_t phase = 0; phase < at_most(g->dilation[axis], tiled(g, axis)); phase++) {
        int64_t wanted = ceiling(tiled(g, axis) - phase, g->dilation[axis]) % s->outputs;
        e.beyond += wanted > 0, e.wanted = at_least(e.wanted, wanted);
    }
    return e;
}

static int64_t bits(int64_t mask) { return mask ? (mask & 1) + bits(mask >> 1) : 0; }

/* Bytes of transformed weights of a group, and how many of those of all a core takes in while it multiplies a vector. */
static double weights_of(const struct geometry *g, const struct scheme *s, const struct bands *b, const struct tile *tile)
{
    return (double)s->matrices * s->matrices * ceiling(g->filters, width(g, tile)) * b->padded * width(g, tile) * g->number;
}

static double stream_speed(const struct geometry *g, double weights)
{
    static const double stream[] = STREAM;
    double every = weights * g->groups;
    return stream[every < L2 ? 0 : every < EIGHTH * L3 ? 1 : every < L3 / 2 ? 2 : 3];
}

/* Of the products of one image, group and phase of rows: at each point the first strip of tiles waits for the weights. */
static double products_cost(const struct geometry *g, const struct scheme *s, const struct bands *b, const struct tile *tile)
{
    struct edge below = edge_of(g, s, 1), beside = edge_of(g, s, 2);
    int64_t spared[] = {bits(s->spared[below.wanted]), bits(s->spared[beside.wanted])}, across[] = {b->across, b->across - beside.beyond};
    double weights = weights_of(g, s, b, tile), passing = weights / (s->count * s->count) / stream_speed(g, weights), cycles = 0;
    double strip = (double)ceiling(g->filters, width(g, tile)) * b->padded * update(tile->rows, tile->vectors, 1);
    for (int64_t left = ceiling(tiled(g, 1), g->dilation[1]); left > 0; left -= b->band * s->outputs) {
        int64_t down[] = {at_most(b->band, ceiling(left, s->outputs)), at_most(b->band, left / s->outputs)};
        for (int i = 0; i < 2; i++)
            for (int j = 0; j < 2; j++) {
                int64_t points = (i ? spared[0] : s->count - spared[0]) * (j ? spared[1] : s->count - spared[1]);
                int64_t strips = ceiling(down[i] * across[j], tile->rows);
                double first = (strip > passing ? strip : passing) + WINOGRAD_WAITING * strip;
                if (strips > 0) cycles += points * (first + (strips - 1) * strip);
            }
    }
    return cycles;
}

static struct bands bands_of(const struct geometry *g, const struct scheme *s)
{
    const int64_t *apart = g->dilation, points = s->count * s->count;
    int64_t weights = weight_bytes(g) * s->matrices * s->matrices / (s->taps * s->taps), room = L2;
    if (weights > WINOGRAD_MUCH * L2) room = at_least(L2, (int64_t)(L3 * fmin(WINOGRAD_SHARED, 0.5 / g->parts)));
    int64_t others = images(g) * g->groups * (g->dimensions == 3 ? g->out_space[0] : 1) * apart[1];
    struct bands b = {.down = ceiling(ceiling(tiled(g, 1), apart[1]), s->outputs)};
    for (int64_t phase = 0; phase < at_most(apart[2], tiled(g, 2)); phase++)
        b.across += ceiling(ceiling(tiled(g, 2) - phase, apart[2]), s->outputs);
    b.padded = g->kernel[0] * ceiling(g->channels, lanes(g)) * lanes(g);
    int64_t most = at_least(1, at_most(b.down, room / g->number / (points * b.padded * b.across)));
    spread_out(g, b.down, 2 * lanes(g), others, most, weights, &b.band, &b.chunk);
    for (const struct tile *tile = multiply[g->dtype]; tile->rows; tile++) {
        int fits = width(g, tile) <= at_least(b.chunk, 2 * lanes(g));
        if (fits && (!b.tile || products_cost(g, s, &b, tile) < products_cost(g, s, &b, b.tile))) b.tile = tile;
    }
    if (b.tile) b.chunk = ceiling(b.chunk, width(g, b.tile)) * width(g, b.tile);
    return b;
}

static double cost_of(const struct geometry *g, const struct scheme *s)
{
    struct geometry alone = *g;
    alone.parts = 1;
    struct bands b = bands_of(&alone, s);
    if (!b.tile) return HUGE_VAL;
    int64_t others = images(g) * g->groups * (g->dimensions == 3 ? g->out_space[0] : 1) * g->dilation[1];
    int64_t panels = ceiling(g->filters, width(g, b.tile)), blocks = b.padded / lanes(g);
    double items = others * (double)ceiling(b.down, b.band) * ceiling(g->filters, b.chunk);
    double transforms = b.band * b.across * (blocks * s->gather + panels * b.tile->vectors * s->scatter);
    return others * products_cost(g, s, &b, b.tile) + items * transforms;
}

const struct scheme *best_winograd(const struct geometry *g, double *cost)
{
    const struct scheme *best = NULL;
    *cost = HUGE_VAL;
    for (const struct scheme *s = schemes; s->outputs; s++) {
        double own = suits(g, s) ? cost_of(g, s) : HUGE_VAL;
        if (own < *cost) *cost = own, best = s;
    }
    return best;
}

void plan_winograd(const struct geometry *g, const struct scheme *s, fastconv_layer *layer)
{
    struct bands b = bands_of(g, s);
    const int64_t *apart = g->dilation, unit = width(g, b.tile), count = lanes(g), points = s->count * s->count;
    int64_t tiles = b.band * b.across + b.tile->rows - 1, in_a_row = ceiling(ceiling(tiled(g, 2), apart[2]), s->outputs);
    int64_t columns_seen = (apart[2] - 1) * g->stride[2] + apart[2] * (seen(s, in_a_row) - 1) + 1, *job = layer->job;
    int64_t pitch = at_least(columns_seen, (s->transposed ? s->overlap : g->before[2]) + at_least(g->space[2], count));
    pitch = at_least(pitch, s->outputs * apart[2] * in_a_row);
    pitch = at_least(pitch, tiled(g, 2) - g->out_space[2] + at_least(g->out_space[2], count));
    job[JOB_IMAGES] = 1; /* C computes them one by one */
    job[JOB_PITCH] = pitch, job[JOB_ROWS_SEEN] = seen(s, b.band), job[JOB_COLUMNS_SEEN] = columns_seen;
    job[JOB_TILES] = tiles, job[JOB_ACROSS] = b.across, job[JOB_LANE_CHANNELS] = 1;
    job[JOB_BEYOND] = edge_of(g, s, 2).beyond;
    for (int d = 0; d < 3; d++) {
        job[JOB_EDGE + d] = d ? edge_of(g, s, d).wanted : 0;
        job[JOB_SPARED + d] = s->spared[job[JOB_EDGE + d]];
    }
    job[JOB_COLUMNS_AT] = seen(s, b.band) * pitch * count;
    job[JOB_VALUES_AT] = job[JOB_COLUMNS_AT] + s->count * at_least(pitch, s->count) * count;
    job[JOB_PRODUCTS_AT] = job[JOB_VALUES_AT] + points * b.padded * tiles;
    job[JOB_SUMS_AT] = job[JOB_PRODUCTS_AT] + points * tiles * unit;
    job[JOB_PANELS] = ceiling(g->filters, unit);
    job[JOB_PANEL] = unit * (1 + s->matrices * s->matrices * (b.padded + APART));
    for (int d = 0; d < 3; d++) job[JOB_POINTS + d] = d ? s->count : 1, job[JOB_MATRICES + d] = d ? s->matrices : 1;
    job[JOB_SUMS_PITCH] = apart[1] == 1 && apart[2] == 1 && !s->transposed ? tiled(g, 2) : pitch;
    job[JOB_FILL_CODE] = (intptr_t)lines_of_lanes[g->dtype], job[JOB_MULTIPLY_CODE] = (intptr_t)b.tile->code;
    job[JOB_UNIT] = unit; /* all that the transforms know of a tile */
    if (s->transposed)
        for (int d = 0; d < 3; d++) {
            job[JOB_CROP + d] = g->before[d], job[JOB_STRIDE + d] = 1;
            job[JOB_BEFORE + d] = d ? s->overlap : 0;
        }
    int64_t planes = g->dimensions == 3 ? g->out_space[0] : 1;
    divide(g, layer, g->groups * planes * apart[1], b.down, b.band, g->filters, b.chunk, job[JOB_SUMS_AT] + s->outputs * pitch * unit);
    use(layer, s->code[g->dtype], WINOGRAD, unit);
    layer->weights.scheme = s;
}
