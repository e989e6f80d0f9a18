/* Layers: made, run, freed. */
#include "layer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *const messages[FASTCONV_ERRORS] = {
    [FASTCONV_OK] = "all is well",
    [FASTCONV_BAD_DTYPE] = "dtype: expected FASTCONV_FLOAT32 or FASTCONV_FLOAT64",
    [FASTCONV_BAD_OPERATION] = "operation: expected FASTCONV_CONVOLUTION or FASTCONV_TRANSPOSED",
    [FASTCONV_BAD_DIMENSIONS] = "dimensions: expected 1, 2 or 3",
    [FASTCONV_BAD_CHANNELS_LAST] = "channels_last: expected 0 or 1",
    [FASTCONV_BAD_BATCH] = "batch: expected at least 0",
    [FASTCONV_BAD_CHANNELS] = "channels: expected at least 1",
    [FASTCONV_BAD_FILTERS] = "filters: expected at least 1",
    [FASTCONV_BAD_GROUPS] = "groups: expected a number that divides channels and filters",
    [FASTCONV_BAD_SPACE] = "space: expected sizes of at least 1",
    [FASTCONV_BAD_KERNEL] = "kernel: expected sizes of at least 1",
    [FASTCONV_BAD_STRIDE] = "stride: expected 1 to 2^31, or 0 for 1",
    [FASTCONV_BAD_DILATION] = "dilation: expected 1 to 2^31, or 0 for 1",
    [FASTCONV_BAD_PADDING] = "before, after: expected at least 0",
    [FASTCONV_BAD_OUTPUT_PADDING] =
        "output_padding: expected at least 0, less than the larger of stride and dilation, and 0 where nothing is transposed",
    [FASTCONV_BAD_PADDING_MODE] =
        "padding_mode: expected one of FASTCONV_ZEROS to FASTCONV_SYMMETRIC, zeros of a transposed layer, less padding than the "
        "image for FASTCONV_REFLECT, and no more than that for FASTCONV_CIRCULAR and FASTCONV_SYMMETRIC",
    [FASTCONV_BAD_BIAS] = "bias: expected FASTCONV_NO_BIAS, FASTCONV_CHANNEL_BIAS or FASTCONV_PIXEL_BIAS",
    [FASTCONV_BAD_ACTIVATION] =
        "activation: expected one of FASTCONV_IDENTITY to FASTCONV_GELU, no NaN, and low <= high for FASTCONV_CLIP",
    [FASTCONV_BAD_DIRECT] = "direct: expected 0 or 1",
    [FASTCONV_BAD_PRECISION] = "precision: expected FASTCONV_HIGH or FASTCONV_HIGHEST",
    [FASTCONV_BAD_PARTS] = "parts: expected at least 1, or 0 for 1",
    [FASTCONV_BAD_PART] = "part: expected 0 <= part < parts",
    [FASTCONV_BAD_REACH] =
        "before, after: nothing is left of the result; expected a kernel no larger than the padded image, and a transposed layer "
        "to crop less than it makes",
    [FASTCONV_BAD_STRIDES] =
        "x_image, x_channel, x_steps: expected 0 of a weight's gradient, which reads contiguous arrays alone",
    [FASTCONV_BAD_SEPARABLE] =
        "pointwise: expected a kernel of 1, no groups, stride or padding, in two dimensions, of the type, format, batch, channels "
        "and space of the result of a depthwise problem",
    [FASTCONV_TOO_LARGE] = "space: an array would pass 2^62 bytes",
    [FASTCONV_NULL] =
        "problem, weight, bias, layer, x, out: expected no NULL, but for a bias that the problem does not have, and no layer where a "
        "weight's gradient is run",
    [FASTCONV_NOT_EXPORTED] = "problem: this library was exported without its kind; see `fastconv export --kinds`",
    [FASTCONV_PROCESSOR] = "this library was exported for another processor; see `fastconv export --cpu`",
    [FASTCONV_NO_MEMORY] = "there is not enough memory",
};

const char *fastconv_message(int error)
{
    return error >= 0 && error < FASTCONV_ERRORS ? messages[error] : "no error of fastconv's";
}

int fastconv_out_space(const fastconv_problem *problem, int64_t *out_space)
{
    struct geometry g;
    int error = check(problem, &g);
    if (!error && !out_space) error = FASTCONV_NULL;
    if (!error) memcpy(out_space, g.out_space + 3 - g.dimensions, g.dimensions * sizeof *out_space);
    return error;
}

static int create(
    struct geometry *g, const struct geometry *pointwise, const void *const weight[2], const void *const bias[2],
    fastconv_layer **made)
{
    fastconv_layer *layer = calloc(1, sizeof *layer);
    if (!layer) return FASTCONV_NO_MEMORY;
    make_readable(g);
    int error = pointwise ? plan_separable(g, pointwise, layer) : plan(g, layer);
    if (!error) error = pack(g, &layer->weights, weight[0], bias[0]);
    if (!error && pointwise) error = pack(pointwise, &layer->outer, weight[1], bias[1]);
    if (error) {
        fastconv_free(layer);
        return error;
    }
    layer->border = g->border;
    layer->job[JOB_TABLE] = (intptr_t)layer->table, layer->job[JOB_WEIGHT] = (intptr_t)layer->weights.packed;
    layer->job[JOB_OUTER_WEIGHT] = (intptr_t)layer->outer.packed;
    layer->job[JOB_INNER_BIAS] = (intptr_t)layer->weights.bias;
    layer->job[JOB_BIAS] = (intptr_t)(pointwise ? layer->outer.bias : layer->weights.bias);
    *made = layer;
    return FASTCONV_OK;
}

/* Whether the arrays are there that the problem has. */
static int given(const struct geometry *g, const void *weight, const void *bias)
{
    return weight && (g->bias == FASTCONV_NO_BIAS || bias);
}

int fastconv_create(const fastconv_problem *problem, const void *weight, const void *bias, fastconv_layer **layer)
{
    struct geometry g;
    if (!layer) return FASTCONV_NULL;
    *layer = NULL;
    int error = check(problem, &g);
    if (error) return error;
    if (!given(&g, weight, bias)) return FASTCONV_NULL;
    if (!PROCESSOR_SUITS) return FASTCONV_PROCESSOR;
    return create(&g, NULL, (const void *[]){weight, NULL}, (const void *[]){bias, NULL}, layer);
}

int fastconv_create_separable(
    const fastconv_problem *depthwise, const fastconv_problem *pointwise, const void *depthwise_weight, const void *depthwise_bias,
    const void *pointwise_weight, const void *pointwise_bias, fastconv_layer **layer)
{
    struct geometry inner, outer;
    if (!layer) return FASTCONV_NULL;
    *layer = NULL;
    int error = check(depthwise, &inner);
    if (!error) error = check(pointwise, &outer);
    if (!error) error = check_separable(&inner, &outer);
    if (error) return error;
    outer.x_given = 0; /* whose image is the depthwise result, nowhere in memory */
    if (!given(&inner, depthwise_weight, depthwise_bias) || !given(&outer, pointwise_weight, pointwise_bias)) return FASTCONV_NULL;
    if (!PROCESSOR_SUITS) return FASTCONV_PROCESSOR;
    const void *weights[] = {depthwise_weight, pointwise_weight}, *biases[] = {depthwise_bias, pointwise_bias};
    return create(&inner, &outer, weights, biases, layer);
}

int fastconv_create_input_gradient(const fastconv_problem *problem, const void *weight, fastconv_layer **layer)
{
    struct geometry g;
    if (!layer) return FASTCONV_NULL;
    *layer = NULL;
    int error = check(problem, &g);
    if (error) return error;
    if (!weight) return FASTCONV_NULL;
    if (g.border.copies && problem->padding_mode) return FASTCONV_BAD_PADDING_MODE;
    if (!PROCESSOR_SUITS) return FASTCONV_PROCESSOR;
    memset(&g.border, 0, sizeof g.border);
    g.x_given = 0;
    adjoint(&g);
    return create(&g, NULL, (const void *[]){weight, NULL}, (const void *[]){NULL, NULL}, layer);
}

int fastconv_create_weight_gradient(const fastconv_problem *problem, fastconv_layer **layer)
{
    struct geometry g;
    if (!layer) return FASTCONV_NULL;
    *layer = NULL;
    int error = check(problem, &g);
    if (error) return error;
    if (g.border.copies && problem->padding_mode) return FASTCONV_BAD_PADDING_MODE;
    if (g.x_given) return FASTCONV_BAD_STRIDES;
    if (!PROCESSOR_SUITS) return FASTCONV_PROCESSOR;
    fastconv_layer *made = calloc(1, sizeof *made);
    if (!made) return FASTCONV_NO_MEMORY;
    if ((error = plan_weight_gradient(&g, made))) {
        fastconv_free(made);
        return error;
    }
    made->job[JOB_TABLE] = (intptr_t)made->table;
    *layer = made;
    return FASTCONV_OK;
}

int fastconv_bias_gradient(const fastconv_problem *problem, const void *grad_output, void *out)
{
    struct geometry g;
    int error = check(problem, &g);
    if (error) return error;
    if (!grad_output || !out) return FASTCONV_NULL;
    if (!PROCESSOR_SUITS) return FASTCONV_PROCESSOR;
    return run_bias_gradient(&g, grad_output, out);
}

void fastconv_free(fastconv_layer *layer)
{
    if (!layer) return;
    free(layer->table), free(layer->weights.packed), free(layer->weights.bias), free(layer->outer.packed), free(layer->outer.bias);
    free(layer);
}

size_t fastconv_workspace(const fastconv_layer *layer)
{
    int64_t size = layer ? layer->scratch + (layer->border.copies ? border_bytes(&layer->border) : 0) : 0;
    return size ? size + UNALIGNED_ROOM : 0;
}

static int64_t bits(double number)
{
    int64_t word;
    memcpy(&word, &number, sizeof word);
    return word;
}

/* One part of a job whose arrays are in place but for x; its scratch too. */
static int run(const fastconv_layer *layer, int part, int parts, const void *x, int64_t *job, void *workspace)
{
    void *own = NULL;
    size_t needed = fastconv_workspace(layer);
    if (needed && !workspace && !(workspace = own = malloc(needed))) return FASTCONV_NO_MEMORY;
    char *room = (char *)(((uintptr_t)workspace + UNALIGNED_ROOM - 1) / UNALIGNED_ROOM * UNALIGNED_ROOM);
    if (layer->border.copies) draw_border(&layer->border, x, room + layer->scratch), x = room + layer->scratch;
    job[JOB_X] = (intptr_t)x, job[JOB_SCRATCH] = (intptr_t)room;
    int64_t begin = layer->items / parts * part + layer->items % parts * part / parts;
    int64_t end = layer->items / parts * (part + 1) + layer->items % parts * (part + 1) / parts;
    for (int64_t item = begin; item < end; item++) layer->code(item, 0, job);
    free(own);
    return FASTCONV_OK;
}

int fastconv_run(const fastconv_layer *layer, const void *x, const void *residual, void *out, void *workspace)
{
    return fastconv_run_part(layer, 0, 1, x, residual, out, workspace);
}

int fastconv_run_part(
    const fastconv_layer *layer, int part, int parts, const void *x, const void *residual, void *out, void *workspace)
{
    if (!layer || layer->weight_bytes) return FASTCONV_NULL;
    if (part < 0 || part >= parts) return FASTCONV_BAD_PART;
    if (!layer->items) return FASTCONV_OK; /* an empty batch */
    if (!x || !out) return FASTCONV_NULL;
    int64_t job[JOB_WORDS];
    memcpy(job, layer->job, sizeof job);
    job[JOB_OUT] = (intptr_t)out;
    if (residual) { /* then a tile's sums are stored raw, and finished late */
        job[JOB_RESIDUAL] = (intptr_t)residual, job[JOB_HAS_RESIDUAL] = job[JOB_LATE] = 1;
        job[JOB_LEAST] = bits(-INFINITY), job[JOB_MOST] = bits(INFINITY);
    }
    return run(layer, part, parts, x, job, workspace);
}

int fastconv_run_weight_gradient(
    const fastconv_layer *layer, int part, int parts, const void *x, const void *grad_output, void *out, void *workspace)
{
    if (!layer || !layer->weight_bytes || !x || !grad_output || !out) return FASTCONV_NULL;
    if (part < 0 || part >= parts) return FASTCONV_BAD_PART;
    int64_t job[JOB_WORDS];
    memcpy(job, layer->job, sizeof job);
    job[JOB_OUT] = (intptr_t)out, job[JOB_GRAD] = (intptr_t)(layer->exchanged ? x : grad_output);
    if (!job[JOB_BATCH]) {
        if (!part) memset(out, 0, layer->weight_bytes);
        return FASTCONV_OK;
    }
    return run(layer, part, parts, layer->exchanged ? grad_output : x, job, workspace);
}
