/* Gradients: of weights and biases by the kernels of fastconv/cpu/gradients.py, with the divisions of plans/ in C; that of an
 * image is a layer, transposed if this one is not, and the other way round. */
#include "layer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static int64_t evenly(int64_t count, int64_t most, int64_t wanted)
{
    return ceiling(count, at_least(ceiling(count, most), at_most(count, wanted)));
}

/* The problem whose image is this one's result, and whose result its image; it takes the weight as it is. */
void adjoint(struct geometry *g)
{
    int64_t channels = g->channels;
    g->channels = g->filters, g->filters = channels, g->transposed = !g->transposed;
    for (int d = 0; d < 3; d++) {
        int64_t size = g->space[d];
        g->space[d] = g->out_space[d], g->out_space[d] = size;
    }
    g->bias = FASTCONV_NO_BIAS, g->activation = IDENTITY, g->low = g->high = 0;
}

/* Where the gradient, an array of the result's shape, has what. */
static void describe_gradient(const struct geometry *g, int64_t *job)
{
    const int64_t *space = g->out_space, filters = g->groups * g->filters, size = space[0] * space[1] * space[2];
    int64_t step = g->last ? filters : 1;
    job[JOB_GRAD_IMAGE] = filters * size, job[JOB_GRAD_CHANNEL] = g->last ? 1 : size;
    job[JOB_GRAD_STEPS] = space[1] * space[2] * step, job[JOB_GRAD_STEPS + 1] = space[2] * step, job[JOB_GRAD_STEPS + 2] = step;
}

/* Filters of a chunk and channels of a block, whose sums take half of a part's scratch; the gradient and the sheets a quarter each:
 * those by which the busiest of so many parts should be done first, and of several the largest. */
struct shares {
    int64_t panels, block;
    double cycles;
};

/* Of a pixel and a panel of filters: updates for a block, and its gradient turned. */
static double panel_cycles(const struct geometry *g, const struct tile *tile, int64_t block)
{
    double each = update(tile->rows, tile->vectors, tile->vectors) + tile->rows / 8.0;
    return ceiling(block * taps(g), tile->rows) * each + TURN * tile->vectors;
}

static struct shares shares_of(const struct geometry *g, const struct tile *tile, int64_t band, int64_t sheet, int64_t parts)
{
    int64_t room = L2 / 2 / g->number, every = ceiling(g->filters, width(g, tile)), pixels = band * g->out_space[2];
    int64_t most_panels = at_least(1, room / 4 / (pixels * width(g, tile))), vectors = ceiling(g->space[2], lanes(g));
    double fill = 2 * COPY * (double)(g->space[0] * g->space[1] * vectors) / (g->out_space[0] * g->out_space[1] * g->out_space[2]);
    struct shares s = {.cycles = HUGE_VAL};
    for (int64_t chunks = 1; chunks <= (parts > 1 ? every : 1); chunks++) {
        int64_t panels = evenly(every, most_panels, chunks);
        int64_t most = at_most(room / 4 / sheet, room / 2 / (panels * width(g, tile) * taps(g)));
        most = at_least(1, at_most(g->channels, most));
        for (int64_t blocks = 1; blocks <= g->channels; blocks++) {
            int64_t block = evenly(g->channels, most, blocks);
            int64_t items = g->groups * ceiling(every, panels) * ceiling(g->channels, block);
            double cycles = ceiling(items, parts) * (panels * panel_cycles(g, tile, block) + block * fill);
            if (cycles < s.cycles) s = (struct shares){panels, block, cycles};
        }
    }
    return s;
}

/* tiled_weight_gradient: the images are one part, so that no result is added to another. */
static int over_blocks(const struct geometry *g, fastconv_layer *layer)
{
    int64_t *job = layer->job, rows = g->out_space[1], out_width = g->out_space[2], pixels = taps(g) == 1 ? PIXELS_OF_ONE_TAP : PIXELS;
    int64_t band = ceiling(rows, ceiling(rows, at_least(1, at_most(rows, pixels / out_width))));
    int64_t *phases = calloc(g->kernel[1] + g->kernel[2], sizeof *phases);
    if (!phases) return FASTCONV_NO_MEMORY;
    int64_t *phases_j = phases + g->kernel[1], of_rows = phases_of(g, 1, phases), of_columns = phases_of(g, 2, phases_j);
    struct sheets sheets = sheets_of(g, of_rows, of_columns, 0, band);
    const struct tile *tile = NULL;
    for (const struct tile *t = tiled_weight_gradient[g->dtype]; t->rows; t++)
        if (!tile || shares_of(g, t, band, sheets.sheet, 1).cycles < shares_of(g, tile, band, sheets.sheet, 1).cycles) tile = t;
    if (!tile) {
        free(phases);
        return FASTCONV_NOT_EXPORTED;
    }
    struct shares s = shares_of(g, tile, band, sheets.sheet, g->parts);
    int64_t numbers = ceiling(s.block * taps(g), tile->rows) * tile->rows, chunk = s.panels * width(g, tile);
    int64_t chunks = ceiling(g->filters, chunk), blocks = ceiling(g->channels, s.block);
    layer->table = calloc(taps(g) + g->kernel[1] + g->kernel[2] + numbers + tile->rows, sizeof *layer->table);
    int64_t places = layer->table ? fill_table(g, &sheets, phases, phases_j, layer->table) : 0;
    free(phases);
    if (!layer->table) return FASTCONV_NO_MEMORY;
    for (int64_t c = 0; c < s.block; c++)
        for (int64_t tap = 0; tap < taps(g); tap++)
            layer->table[places + c * taps(g) + tap] = c * sheets.sheet + layer->table[tap];
    lay_sheets(g, &sheets, job);
    job[JOB_PLACES] = places, job[JOB_CHANNELS] = s.block, job[JOB_ALL_CHANNELS] = g->channels;
    job[JOB_BLOCKS] = blocks, job[JOB_PARTS] = 1;
    job[JOB_GRADS_AT] = ceiling(s.block * sheets.sheet + LINE, LINE) * LINE;
    job[JOB_SUMS_AT] = job[JOB_GRADS_AT] + chunk * band * out_width;
    divide(g, layer, 1, rows, band, g->filters, chunk, job[JOB_SUMS_AT] + chunk * numbers + lanes(g) * width(g, tile));
    layer->items = g->groups * chunks * blocks, layer->code = tile->code;
    return FASTCONV_OK;
}

static const struct tile *window_of(const struct geometry *g, const struct tile *tile)
{
    for (; tile->rows; tile++)
        if (tile->window == g->kernel[2] && tile->step == g->stride[2]) return tile;
    return NULL;
}

/* The depthwise ones: chunks of channels, or a vector of them. */
static int over_channels(const struct geometry *g, fastconv_layer *layer)
{
    const struct tile *tile = NULL;
    int64_t filters = g->groups * g->filters;
    if (g->channels != 1 || !slides(g) || (g->last && g->filters != 1)) return FASTCONV_NOT_EXPORTED;
    tile = window_of(g, (g->last ? tiled_depthwise_weight_gradient_last : tiled_depthwise_weight_gradient)[g->dtype]);
    if (!tile) return FASTCONV_NOT_EXPORTED;
    int64_t wanted = g->parts > 1 ? ITEMS_A_PART * g->parts : 1, vectors = ceiling(filters, lanes(g));
    int64_t chunk = g->last ? evenly(vectors, vectors, wanted) * lanes(g) : ceiling(filters, at_most(filters, wanted));
    divide(g, layer, 1, 1, 1, filters, chunk, g->last ? chunk / lanes(g) * tile->rows * width(g, tile) : 0);
    layer->items = ceiling(filters, chunk), layer->code = tile->code, layer->job[JOB_PARTS] = 1;
    return FASTCONV_OK;
}

/* One tap of stride 1 does not know where a row of pixels ends: rows are as long as divides them, up to MOST_PIXELS. */
static void lengthen_rows(struct geometry *g)
{
    int64_t count = g->space[0] * g->space[1] * g->space[2], length = at_most(count, MOST_PIXELS);
    if (taps(g) > 1 || memcmp(g->space, g->out_space, sizeof g->space) || g->direct) return;
    while (count % length) length--;
    if (length <= g->space[2]) return;
    for (int d = 0; d < 3; d++) g->stride[d] = g->dilation[d] = 1, g->before[d] = 0;
    g->space[0] = g->out_space[0] = 1, g->space[1] = g->out_space[1] = count / length, g->space[2] = g->out_space[2] = length;
}

int plan_weight_gradient(struct geometry *g, fastconv_layer *layer)
{
    if (!direct_weight_gradient[g->dtype]) return FASTCONV_NOT_EXPORTED;
    if (g->transposed) adjoint(g), layer->exchanged = 1; /* whose image is the gradient, and whose gradient the image */
    layer->weight_bytes = g->groups * weight_bytes(g);
    if (!g->x_given) lengthen_rows(g);
    describe(g, layer->job), describe_gradient(g, layer->job);
    int error = g->direct ? FASTCONV_NOT_EXPORTED : over_channels(g, layer);
    if (error == FASTCONV_NOT_EXPORTED && !g->direct) error = over_blocks(g, layer);
    if (error != FASTCONV_NOT_EXPORTED) return error;
    divide(g, layer, 1, 1, 1, 1, 1, g->out_space[2]);
    layer->items = g->groups * g->filters * g->channels, layer->code = direct_weight_gradient[g->dtype];
    return FASTCONV_OK;
}

int run_bias_gradient(const struct geometry *g, const void *grad, void *out)
{
    if (!direct_bias_gradient[g->dtype]) return FASTCONV_NOT_EXPORTED;
    int64_t job[JOB_WORDS] = {0};
    job[JOB_BATCH] = g->batch, job[JOB_GRAD] = (intptr_t)grad, job[JOB_OUT] = (intptr_t)out;
    memcpy(job + JOB_OUT_SPACE, g->out_space, sizeof g->out_space);
    describe_gradient(g, job);
    for (int64_t filter = 0; filter < g->groups * g->filters; filter++) direct_bias_gradient[g->dtype](filter, 0, job);
    return FASTCONV_OK;
}
