/* What is legal: fastconv/problem.py in C. Every array stays below 2^62 bytes, so that no index overflows. */
#include "layer.h"

#include <math.h>
#include <string.h>

#define MOST_BYTES ((int64_t)1 << 62)
#define MOST_STEP ((int64_t)1 << 31)

static int between(const int64_t *numbers, int64_t count, int64_t least, int64_t most)
{
    for (int64_t d = 0; d < count; d++)
        if (numbers[d] < least || numbers[d] > most) return 0;
    return 1;
}

static int flag(int32_t value) { return value == 0 || value == 1; }

/* a * b + c, MOST_BYTES + 1 if that passes MOST_BYTES; all are 0 or more. */
static int64_t bounded(int64_t a, int64_t b, int64_t c)
{
    int64_t result;
    if (__builtin_mul_overflow(a, b, &result) || __builtin_add_overflow(result, c, &result) || result > MOST_BYTES)
        return MOST_BYTES + 1;
    return result;
}

static int fits(int64_t number, int64_t images, int64_t channels, const int64_t space[3])
{
    int64_t bytes = bounded(number, at_least(images, 1), 0);
    bytes = bounded(bytes, channels, 0);
    for (int d = 0; d < 3; d++) bytes = bounded(bytes, space[d], 0);
    return bytes <= MOST_BYTES;
}

/* The last `dimensions` of three sizes; `otherwise` in front of them, and in place of 0 where that stands for 1. */
static void three(int64_t sizes[3], const int64_t *given, int dimensions, int64_t otherwise)
{
    for (int d = 0; d < 3; d++) {
        int from = d - (3 - dimensions);
        sizes[d] = from < 0 || (otherwise && !given[from]) ? otherwise : given[from];
    }
}

static int activation(const fastconv_problem *p, struct geometry *g)
{
    static const int64_t codes[] = {
        [FASTCONV_IDENTITY] = IDENTITY, [FASTCONV_RELU] = CLIP, [FASTCONV_RELU6] = CLIP, [FASTCONV_CLIP] = CLIP,
        [FASTCONV_LEAKY_RELU] = LEAKY_RELU, [FASTCONV_SIGMOID] = SIGMOID, [FASTCONV_TANH] = TANH, [FASTCONV_SILU] = SILU,
        [FASTCONV_HARDSWISH] = HARDSWISH, [FASTCONV_GELU] = GELU,
    };
    if (p->activation < 0 || p->activation > FASTCONV_GELU) return 0;
    g->activation = codes[p->activation], g->low = g->high = 0;
    switch (p->activation) {
    case FASTCONV_RELU: g->high = INFINITY; return 1;
    case FASTCONV_RELU6: g->high = 6; return 1;
    case FASTCONV_GELU: g->low = sqrt(0.5); return 1;
    case FASTCONV_LEAKY_RELU: g->low = p->low; return !isnan(p->low);
    case FASTCONV_CLIP: g->low = p->low, g->high = p->high; return p->low <= p->high;
    }
    return 1;
}

/* The result's space. */
static int reach(const fastconv_problem *p, struct geometry *g, const int64_t after[3], const int64_t more[3])
{
    int64_t whole[3]; /* the padded image, or the result before it is cropped */
    for (int d = 0; d < 3; d++) {
        int64_t window = bounded(g->dilation[d], g->kernel[d] - 1, 1);
        if (g->transposed) {
            whole[d] = bounded(g->space[d] - 1, g->stride[d], bounded(window, 1, more[d]));
            g->out_space[d] = whole[d] - g->before[d] - after[d];
        } else {
            whole[d] = bounded(bounded(g->space[d], 1, g->before[d]), 1, after[d]);
            if (window > whole[d] && whole[d] <= MOST_BYTES) return FASTCONV_BAD_REACH;
            g->out_space[d] = (whole[d] - window) / g->stride[d] + 1;
        }
    }
    if (!fits(g->number, p->batch, p->channels, g->space)) return FASTCONV_TOO_LARGE;
    if (!fits(g->number, p->batch, g->transposed ? p->filters : p->channels, whole)) return FASTCONV_TOO_LARGE;
    for (int d = 0; d < 3; d++)
        if (g->out_space[d] < 1) return FASTCONV_BAD_REACH;
    if (!fits(g->number, p->batch, p->filters, g->out_space)) return FASTCONV_TOO_LARGE;
    return fits(g->number, p->filters, g->channels, g->kernel) ? FASTCONV_OK : FASTCONV_TOO_LARGE;
}

/* A border cannot show more of the image than there is. */
static int border(const fastconv_problem *p, struct geometry *g, const int64_t after[3])
{
    static const int64_t less[] = {[FASTCONV_REFLECT] = 1, [FASTCONV_CIRCULAR] = 0, [FASTCONV_SYMMETRIC] = 0};
    struct border *b = &g->border;
    if (p->padding_mode == FASTCONV_ZEROS) return FASTCONV_OK;
    if (p->padding_mode < 0 || p->padding_mode > FASTCONV_SYMMETRIC || g->transposed) return FASTCONV_BAD_PADDING_MODE;
    for (int d = 0; d < 3; d++) {
        if (p->padding_mode != FASTCONV_REPLICATE && at_least(g->before[d], after[d]) > g->space[d] - less[p->padding_mode])
            return FASTCONV_BAD_PADDING_MODE;
        b->before[d] = g->before[d], b->padded[d] = g->space[d] + g->before[d] + after[d];
        b->copies |= b->padded[d] > b->space[d];
        g->space[d] = b->padded[d], g->before[d] = 0;
    }
    if (b->copies) g->x_given = 0, b->mode = p->padding_mode;
    return FASTCONV_OK;
}

/* How the image lies in memory. */
static void strides(const fastconv_problem *p, struct geometry *g)
{
    struct border *b = &g->border;
    int64_t size = g->space[0] * g->space[1] * g->space[2], step = g->last ? p->channels : 1;
    int given = p->x_image || p->x_channel;
    memset(b, 0, sizeof *b);
    for (int d = 0; d < p->dimensions; d++) given |= p->x_steps[d] != 0;
    b->mode = FASTCONV_REPLICATE, b->last = g->last, b->number = g->number, b->images = g->batch, b->channels = p->channels;
    memcpy(b->space, g->space, sizeof b->space), memcpy(b->padded, g->space, sizeof b->padded);
    b->image = given ? p->x_image : p->channels * size, b->channel = given ? p->x_channel : g->last ? 1 : size;
    if (given) three(b->steps, p->x_steps, p->dimensions, 0);
    else b->steps[0] = g->space[1] * g->space[2] * step, b->steps[1] = g->space[2] * step, b->steps[2] = step;
    g->x_given = given, g->x_image = b->image, g->x_channel = b->channel;
    memcpy(g->x_steps, b->steps, sizeof b->steps);
}

/* Have an image copied that the tiled kernels cannot read: those of depthwise layers want what they write side by side, others either. */
void make_readable(struct geometry *g)
{
    int columns = g->x_steps[2] == 1, channels = g->x_channel == 1, depthwise = g->channels == 1;
    if (!g->x_given || g->direct || (depthwise ? (g->last ? channels : columns) : columns || channels)) return;
    g->border.copies = 1, g->x_given = 0;
}

int check(const fastconv_problem *p, struct geometry *g)
{
    if (!p) return FASTCONV_NULL;
    if (!flag(p->dtype)) return FASTCONV_BAD_DTYPE;
    if (!flag(p->operation)) return FASTCONV_BAD_OPERATION;
    if (p->dimensions < 1 || p->dimensions > 3) return FASTCONV_BAD_DIMENSIONS;
    if (!flag(p->channels_last)) return FASTCONV_BAD_CHANNELS_LAST;
    int64_t count = p->dimensions, groups = p->groups ? p->groups : 1, after[3], more[3];
    if (!between(&p->batch, 1, 0, MOST_BYTES)) return FASTCONV_BAD_BATCH;
    if (!between(&p->channels, 1, 1, MOST_BYTES)) return FASTCONV_BAD_CHANNELS;
    if (!between(&p->filters, 1, 1, MOST_BYTES)) return FASTCONV_BAD_FILTERS;
    if (groups < 1 || p->channels % groups || p->filters % groups) return FASTCONV_BAD_GROUPS;
    if (!between(p->space, count, 1, MOST_BYTES)) return FASTCONV_BAD_SPACE;
    if (!between(p->kernel, count, 1, MOST_BYTES)) return FASTCONV_BAD_KERNEL;
    if (!between(p->stride, count, 0, MOST_STEP)) return FASTCONV_BAD_STRIDE;
    if (!between(p->dilation, count, 0, MOST_STEP)) return FASTCONV_BAD_DILATION;
    if (!between(p->before, count, 0, MOST_BYTES) || !between(p->after, count, 0, MOST_BYTES)) return FASTCONV_BAD_PADDING;
    if (!between(p->output_padding, count, 0, MOST_BYTES)) return FASTCONV_BAD_OUTPUT_PADDING;
    if (p->bias < 0 || p->bias > FASTCONV_PIXEL_BIAS) return FASTCONV_BAD_BIAS;
    if (!activation(p, g)) return FASTCONV_BAD_ACTIVATION;
    if (!flag(p->direct)) return FASTCONV_BAD_DIRECT;
    if (!flag(p->precision)) return FASTCONV_BAD_PRECISION;
    if (p->parts < 0) return FASTCONV_BAD_PARTS;
    g->dtype = p->dtype, g->dimensions = count, g->transposed = p->operation == FASTCONV_TRANSPOSED, g->last = p->channels_last;
    g->number = p->dtype == FASTCONV_FLOAT32 ? 4 : 8, g->batch = p->batch, g->groups = groups;
    g->channels = p->channels / groups, g->filters = p->filters / groups, g->bias = p->bias;
    g->mirrored = 0, g->direct = p->direct, g->exact = p->precision == FASTCONV_HIGHEST, g->parts = at_least(p->parts, 1);
    three(g->space, p->space, count, 1), three(g->kernel, p->kernel, count, 1), three(g->stride, p->stride, count, 1);
    three(g->dilation, p->dilation, count, 1), three(g->before, p->before, count, 0), three(after, p->after, count, 0);
    three(more, p->output_padding, count, 0);
    for (int d = 0; d < 3; d++)
        if (more[d] && (!g->transposed || more[d] >= at_least(g->stride[d], g->dilation[d]))) return FASTCONV_BAD_OUTPUT_PADDING;
    int error = reach(p, g, after, more);
    if (error) return error;
    strides(p, g);
    return border(p, g, after);
}

int check_separable(const struct geometry *depthwise, const struct geometry *pointwise)
{
    int depth = depthwise->channels == 1 && !depthwise->transposed && depthwise->dimensions == 2;
    int point = pointwise->groups == 1 && !pointwise->transposed && pointwise->dimensions == 2 && taps(pointwise) == 1;
    int same = pointwise->dtype == depthwise->dtype && pointwise->last == depthwise->last && pointwise->batch == depthwise->batch;
    int follows = pointwise->channels == depthwise->groups * depthwise->filters &&
                  !memcmp(pointwise->space, depthwise->out_space, sizeof pointwise->space) &&
                  !memcmp(pointwise->out_space, pointwise->space, sizeof pointwise->space);
    for (int d = 0; d < 3; d++) follows &= pointwise->stride[d] == 1 && !pointwise->before[d]; /* one pixel hides both */
    return depth && point && same && follows ? FASTCONV_OK : FASTCONV_BAD_SEPARABLE;
}
