/* Toom and Cook's scheme down the columns: fastconv/cpu/columns.py, and its division in plans/, in C. */
#include "layer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static int suits(const struct geometry *g, const struct scheme *s)
{
    int64_t depth = g->channels * g->kernel[2] * at_most(g->stride[1], g->kernel[1]);
    if (g->exact || shares_lines(g) || g->transposed || g->dimensions != 2 || g->dilation[1] != 1) return 0;
    if (ceiling(g->kernel[1], g->stride[1]) != s->taps || operations(g) < WINOGRAD_LEAST) return 0;
    return toom_error(g, s, 1, depth, g->channels * taps(g)) <= WINOGRAD_ERROR;
}

/* Phases of rows and of columns that any tap meets. */
static void count_phases(const struct geometry *g, int64_t *of_rows, int64_t *of_columns)
{
    int64_t *room = calloc(g->kernel[1] + g->kernel[2], sizeof *room);
    *of_rows = room ? phases_of(g, 1, room) : 1, *of_columns = room ? phases_of(g, 2, room) : 1;
    free(room);
}

/* Of a vector of the result, beside what it takes to make it. */
static double put_cost(const struct geometry *g)
{
    int64_t size = g->number * g->groups * g->filters * g->out_space[0] * g->out_space[1] * g->out_space[2];
    return g->last ? TURN + (size > WRITTEN_AT_ONCE * L3 ? COPY : 0) : 0;
}

static double cost_with(const struct geometry *g, const struct scheme *s, int64_t of_rows, int64_t of_columns, const struct tile *tile)
{
    struct sheets sheets = sheets_of(g, of_rows, of_columns, 0, s->outputs);
    int64_t down = ceiling(g->out_space[1], s->outputs), phases = sheets.of_rows * sheets.of_columns;
    double strips = (double)down * sheets.pitch / width(g, tile) + 0.5, depth = g->channels * sheets.of_rows * g->kernel[2];
    double products = s->count * ceiling(g->filters, tile->rows) * strips * depth * update(tile->rows, tile->vectors, tile->vectors);
    double vectors = down * ceiling(sheets.pitch, lanes(g));
    double into = vectors * g->channels * phases * s->count * (s->outputs + s->taps) / 2;
    double outof = vectors * g->filters * s->count * (s->outputs + 2) / 2;
    double put = (double)g->filters * g->out_space[1] * ceiling(g->out_space[2], lanes(g)) * put_cost(g);
    return images(g) * g->groups * (products + into + outof + put);
}

static const struct tile *tile_of(const struct geometry *g, const struct scheme *s, int64_t of_rows, int64_t of_columns)
{
    const struct tile *best = NULL;
    for (const struct tile *tile = multiply_columns[g->dtype]; tile->rows; tile++)
        if (!best || cost_with(g, s, of_rows, of_columns, tile) < cost_with(g, s, of_rows, of_columns, best)) best = tile;
    return best;
}

const struct scheme *best_columns(const struct geometry *g, double *cost)
{
    const struct scheme *best = NULL;
    *cost = HUGE_VAL;
    for (const struct scheme *s = column_schemes; s->outputs; s++) {
        if (!suits(g, s)) continue;
        int64_t of_rows, of_columns;
        count_phases(g, &of_rows, &of_columns);
        double own = cost_with(g, s, of_rows, of_columns, tile_of(g, s, of_rows, of_columns));
        if (own < *cost) *cost = own, best = s;
    }
    return best;
}

/* Where things lie in the scratch of a band of so many rows of tiles; gives how much that is. */
static int64_t lay(
    const struct geometry *g, const struct scheme *s, const struct tile *tile, const struct sheets *sheets, int64_t band, int64_t *job)
{
    int64_t phases = sheets->of_rows * sheets->of_columns, wide = width(g, tile);
    int64_t plane = ceiling(band * sheets->pitch, wide) * wide + sheets->pitch + lanes(g);
    int64_t values_at = ceiling(g->channels * sheets->sheet + s->outputs * sheets->pitch + LINE, LINE) * LINE;
    int64_t products_at = values_at + s->count * g->channels * phases * plane;
    job[JOB_DOWN] = band, job[JOB_PLANE] = plane, job[JOB_VALUES_AT] = values_at, job[JOB_PRODUCTS_AT] = products_at;
    int64_t sums_at = products_at + s->count * tile->rows * plane, pixels = band * s->outputs * g->out_space[2];
    if (!g->last) return sums_at;
    job[JOB_SUMS_AT] = sums_at, job[JOB_SUMS_PITCH] = LINE * (ceiling(pixels + lanes(g), LINE) | 1), job[JOB_TOGETHER] = lanes(g);
    return sums_at + (lanes(g) + at_least(tile->rows, lanes(g))) * job[JOB_SUMS_PITCH];
}

/* Where each tap across finds its phase, then zeros up to the number of taps, then the phases that fill_sheets reads. */
static void tabulate(const struct geometry *g, const struct sheets *sheets, const int64_t *phases_j, int64_t plane, int64_t *table)
{
    int64_t count = 0, stride = g->stride[2];
    for (int64_t k = 0; k < sheets->of_rows; k++)
        for (int64_t b = 0; b < g->kernel[2]; b++) {
            int64_t u = b * g->dilation[2], slot = 0;
            while (phases_j[slot] != u % stride) slot++;
            table[count++] = (k * sheets->of_columns + slot) * plane + u / stride;
        }
    while (count < taps(g)) table[count++] = 0;
}

int plan_columns(const struct geometry *g, const struct scheme *s, fastconv_layer *layer)
{
    int64_t most = taps(g) + g->kernel[1] + g->kernel[2], *job = layer->job, unused[JOB_WORDS];
    if (!(layer->table = calloc(most + g->kernel[1] + g->kernel[2], sizeof *layer->table))) return FASTCONV_NO_MEMORY;
    int64_t *phases_i = layer->table + most, *phases_j = phases_i + g->kernel[1];
    int64_t of_rows = phases_of(g, 1, phases_i), of_columns = phases_of(g, 2, phases_j), room = L2 / g->number;
    const struct tile *tile = tile_of(g, s, of_rows, of_columns);
    int64_t down = ceiling(g->out_space[1], s->outputs), band = 1, chunk;
    for (int64_t b = 2; b <= down; b++) {
        struct sheets sheets = sheets_of(g, of_rows, of_columns, 0, b * s->outputs);
        if (lay(g, s, tile, &sheets, b, unused) <= room) band = b;
    }
    spread_out(g, down, tile->rows, images(g) * g->groups, band, weight_bytes(g), &band, &chunk);
    struct sheets sheets = sheets_of(g, of_rows, of_columns, 0, band * s->outputs);
    int64_t scratch = lay(g, s, tile, &sheets, band, job);
    fill_table(g, &sheets, phases_i, phases_j, layer->table);
    tabulate(g, &sheets, phases_j, job[JOB_PLANE], layer->table);
    lay_sheets(g, &sheets, job);
    job[JOB_PANELS] = ceiling(g->filters, tile->rows);
    job[JOB_POINTS] = 1, job[JOB_POINTS + 1] = s->count, job[JOB_POINTS + 2] = 1;
    job[JOB_PANEL] = tile->rows * (1 + s->count * g->channels * sheets.of_rows * g->kernel[2]), job[JOB_UNIT] = tile->rows;
    job[JOB_MULTIPLY_CODE] = (intptr_t)tile->code;
    if (g->last) job[JOB_PUT_CODE] = (intptr_t)put_turned[g->dtype];
    divide(g, layer, g->groups, down, band, g->filters, chunk, scratch);
    use(layer, s->code[g->dtype], COLUMNS, tile->rows);
    layer->weights.scheme = s;
    return FASTCONV_OK;
}
