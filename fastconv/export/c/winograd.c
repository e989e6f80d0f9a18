/* Winograd's F(4x4) for 3x3 windows of stride 1, any dilation, in planes and volumes: fastconv/cpu/winograd.py, and its division in
 * divisions.py, in C. Its error stays below 1e-5 of the convolution of the absolute values. */
#include "layer.h"

#include <math.h>
#include <string.h>

enum { OUTPUTS = 4, POINTS = WINOGRAD_POINTS, APART = WINOGRAD_APART, WINDOW = 3, FIRST_LESS = POINTS - 1 };
/* A tile's transforms: for each vector of channels, and of filters. */
static const double GATHER = WINOGRAD_GATHER, SCATTER = WINOGRAD_SCATTER;

struct bands {
    const struct tile *tile;
    int64_t down, across, band, chunk, padded; /* rows of tiles, tiles in a row; channels of all taps of the depth, filled up */
    double cost;
};

int winograd_suits(const struct geometry *g)
{
    int window = g->dimensions > 1 && g->kernel[1] == WINDOW && g->kernel[2] == WINDOW;
    double operations = 2.0 * at_least(g->batch, 1) * g->out_space[0] * g->out_space[1] * g->out_space[2] * taps(g) * g->channels *
                        g->filters * g->groups;
    return !g->exact && window && g->stride[1] == 1 && g->stride[2] == 1 && operations >= WINOGRAD_LEAST;
}

/* Numbers that `count` tiles in a row see. */
static int64_t seen(int64_t count) { return (count - 1) * OUTPUTS + OUTPUTS + WINDOW - 1; }

/* Whether the last row, or column, of tiles reaches beyond the result: those do without the last point. */
static int64_t beyond(const struct geometry *g, int axis)
{
    return g->dilation[1] == 1 && g->dilation[2] == 1 && g->out_space[axis] % OUTPUTS > 0;
}

/* Of the products of one image, group and phase of rows, per vector of filters and channel. */
static double products_cost(const struct geometry *g, const struct bands *b, const struct tile *tile)
{
    double strips = 0;
    for (int64_t left = b->down; left > 0; left -= b->band) {
        int64_t down = at_most(b->band, left), inside = down - (down == left ? beyond(g, 1) : 0);
        int64_t points[] = {FIRST_LESS, 1}, rows[] = {down, inside};
        for (int k = 0; k < 2; k++)
            strips += points[k] * (FIRST_LESS * (double)ceiling(rows[k] * b->across, tile->rows) +
                                   ceiling(rows[k] * (b->across - beyond(g, 2)), tile->rows));
    }
    return strips * ceiling(g->filters, width(g, tile)) * b->padded * update(tile->rows, tile->vectors, 1);
}

static struct bands bands_of(const struct geometry *g)
{
    const int64_t *apart = g->dilation, room = L2 / g->number;
    int64_t images = at_least(g->batch, 1) * g->groups * g->out_space[0] * apart[1];
    struct bands b = {.down = ceiling(ceiling(g->out_space[1], apart[1]), OUTPUTS)};
    for (int64_t phase = 0; phase < at_most(apart[2], g->out_space[2]); phase++)
        b.across += ceiling(ceiling(g->out_space[2] - phase, apart[2]), OUTPUTS);
    b.padded = g->kernel[0] * ceiling(g->channels, lanes(g)) * lanes(g);
    int64_t most = at_least(1, at_most(b.down, room / (POINTS * POINTS * b.padded * b.across)));
    int64_t weights = weight_bytes(g) * POINTS * POINTS / (WINDOW * WINDOW);
    spread_out(g, b.down, 2 * lanes(g), images, most, weights, &b.band, &b.chunk);
    for (const struct tile *tile = multiply[g->dtype]; tile->rows; tile++)
        if (!b.tile || products_cost(g, &b, tile) < products_cost(g, &b, b.tile)) b.tile = tile;
    if (!b.tile) return b;
    b.chunk = ceiling(b.chunk, width(g, b.tile)) * width(g, b.tile);
    int64_t panels = ceiling(g->filters, width(g, b.tile)), blocks = b.padded / lanes(g);
    double items = images * (double)ceiling(b.down, b.band) * ceiling(g->filters, b.chunk);
    double bytes = (double)POINTS * POINTS * panels * b.padded * width(g, b.tile) * g->number;
    double speed = bytes < L2 ? FROM_L2 : bytes * g->groups < L3 / 2 ? FROM_L3 : FROM_MEMORY;
    double products = images * products_cost(g, &b, b.tile), streamed = items * bytes / speed;
    b.cost = (products > streamed ? products : streamed) +
             items * b.band * b.across * (blocks * GATHER + panels * b.tile->vectors * SCATTER);
    return b;
}

double winograd_cost(const struct geometry *g)
{
    struct bands b = bands_of(g);
    return b.tile ? b.cost : HUGE_VAL;
}

void plan_winograd(const struct geometry *g, fastconv_layer *layer)
{
    struct bands b = bands_of(g);
    const int64_t *apart = g->dilation, out_width = g->out_space[2], unit = width(g, b.tile), count = lanes(g);
    int64_t tiles = b.band * b.across + b.tile->rows - 1, in_a_row = ceiling(ceiling(out_width, apart[2]), OUTPUTS);
    int64_t columns_seen = apart[2] - 1 + apart[2] * (seen(in_a_row) - 1) + 1, *job = layer->job;
    int64_t pitch = at_least(columns_seen, g->before[2] + at_least(g->space[2], count));
    pitch = at_least(pitch, at_least(OUTPUTS * apart[2] * in_a_row, at_least(out_width, count)));
    job[JOB_PITCH] = pitch, job[JOB_ROWS_SEEN] = seen(b.band), job[JOB_COLUMNS_SEEN] = columns_seen, job[JOB_TILES] = tiles, job[JOB_ACROSS] = b.across;
    job[JOB_BEYOND] = beyond(g, 1), job[JOB_BEYOND + 1] = beyond(g, 2), job[JOB_BEYOND + 2] = 0;
    job[JOB_COLUMNS_AT] = seen(b.band) * pitch * count;
    job[JOB_VALUES_AT] = job[JOB_COLUMNS_AT] + POINTS * at_least(pitch, POINTS) * count;
    job[JOB_PRODUCTS_AT] = job[JOB_VALUES_AT] + POINTS * POINTS * b.padded * tiles;
    job[JOB_SUMS_AT] = job[JOB_PRODUCTS_AT] + POINTS * POINTS * tiles * unit;
    job[JOB_PANELS] = ceiling(g->filters, unit), job[JOB_PANEL] = unit * (1 + POINTS * POINTS * (b.padded + APART));
    for (int axis = 1; axis < 3; axis++) job[JOB_POINTS + axis] = job[JOB_MATRICES + axis] = POINTS;
    job[JOB_LANE_CHANNELS] = 1, job[JOB_SUMS_PITCH] = apart[1] == 1 && apart[2] == 1 ? out_width : pitch;
    job[JOB_FILL_CODE] = (intptr_t)lines_of_lanes[g->dtype], job[JOB_MULTIPLY_CODE] = (intptr_t)b.tile->code;
    job[JOB_UNIT] = unit; /* all that the transforms know of a tile */
    int64_t scratch = job[JOB_SUMS_AT] + OUTPUTS * pitch * unit;
    divide(g, layer, g->groups * g->out_space[0] * apart[1], b.down, b.band, g->filters, b.chunk, scratch);
    use(layer, winograd[g->dtype]->code, WINOGRAD, unit);
}

/* Weights ------------------------------------------------------------------------------------------------------------------- */

static double number_at(const struct geometry *g, const char *array, int64_t place)
{
    return g->dtype == FASTCONV_FLOAT32 ? ((const float *)array)[place] : ((const double *)array)[place];
}

static void put(const struct geometry *g, char *array, int64_t place, double number)
{
    if (g->dtype == FASTCONV_FLOAT32) ((float *)array)[place] = number;
    else ((double *)array)[place] = number;
}

/* G w G' of one 3x3 window; its numbers lie `step` apart. */
static void transform(const struct geometry *g, const char *window, char *out, int64_t place, int64_t step)
{
    double columns[POINTS][WINDOW];
    for (int i = 0; i < POINTS; i++)
        for (int b = 0; b < WINDOW; b++) {
            columns[i][b] = 0;
            for (int a = 0; a < WINDOW; a++) columns[i][b] += winograd_g[i][a] * number_at(g, window, a * WINDOW + b);
        }
    for (int i = 0; i < POINTS; i++)
        for (int j = 0; j < POINTS; j++) {
            double sum = 0;
            for (int b = 0; b < WINDOW; b++) sum += columns[i][b] * winograd_g[j][b];
            put(g, out, place + (i * POINTS + j) * step, sum);
        }
}

int64_t winograd_room(const struct geometry *g, int64_t unit)
{
    int64_t rows = g->kernel[0] * ceiling(g->channels, lanes(g)) * lanes(g) + APART;
    return g->groups * ceiling(g->filters, unit) * (1 + POINTS * POINTS * rows) * unit;
}

/* [group][panel][bias, then matrix, tap of the depth, channel][filter]; APART rows without meaning follow each matrix. */
void pack_winograd(const struct geometry *g, int64_t unit, const char *weight, const char *bias, char *packed)
{
    int64_t filled = ceiling(g->channels, lanes(g)) * lanes(g), rows = g->kernel[0] * filled + APART, size = g->number;
    for (int64_t group = 0; group < g->groups; group++)
        for (int64_t f = 0; f < g->filters; f++) {
            int64_t filter = group * g->filters + f, panel = group * ceiling(g->filters, unit) + f / unit;
            int64_t start = panel * (1 + POINTS * POINTS * rows) * unit + f % unit;
            if (bias) memcpy(packed + start * size, bias + filter * size, size);
            for (int64_t c = 0; c < g->channels; c++)
                for (int64_t e = 0; e < g->kernel[0]; e++) {
                    const char *window = weight + ((filter * g->channels + c) * g->kernel[0] + e) * WINDOW * WINDOW * size;
                    transform(g, window, packed, start + (1 + e * filled + c) * unit, rows * unit);
                }
        }
}
