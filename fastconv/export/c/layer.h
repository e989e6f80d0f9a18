/* What the files of the library tell each other. kernels.h is written by the export: the kernels that are in the library, and how
 * a job's words are laid out. */
#ifndef LAYER_H
#define LAYER_H

#include "fastconv.h"
#include "kernels.h"

#define UNALIGNED_ROOM 64 /* bytes that aligning a piece of memory may take */

/* How an image is copied before a kernel reads it, with what is drawn around it; steps in numbers of so many bytes. */
struct border {
    int64_t copies, mode, last, number, images, channels; /* `copies` 0: the kernel reads it where it lies */
    int64_t space[3], padded[3], before[3];
    int64_t image, channel, steps[3];
};

/* A problem as kernels see it: always three-dimensional, channels and filters of one group. */
struct geometry {
    int64_t dtype, dimensions, transposed, last, number; /* `number`: bytes of one */
    int64_t batch, groups, channels, filters, parts, direct, exact;
    int64_t x_given, x_image, x_channel, x_steps[3]; /* 1: how the image lies in memory; 0: as its shape says */
    int64_t mirrored; /* 1: a convolution stands for a transposed one of stride 1, whose weight it has */
    int64_t space[3], out_space[3], kernel[3], stride[3], dilation[3], before[3];
    int64_t bias, activation;
    double low, high;
    struct border border; /* `space` and `before` are those with it */
};

/* The order in which a kernel reads weights: see fastconv/cpu/packing.py. */
enum order { AS_THEY_COME, FILTERS_LAST, TAPS_FIRST, LANE_PANELS, ROW_PANELS, CHANNEL_PANELS, WINOGRAD, COLUMNS };

struct weights {
    enum order order;
    int64_t unit; /* filters in a panel */
    const struct scheme *scheme; /* of WINOGRAD and COLUMNS */
    void *packed, *bias;
};

struct fastconv_layer {
    int64_t job[JOB_WORDS];
    kernel *code;
    int64_t items, scratch, number;  /* `scratch`: bytes of a part's */
    int64_t *table;                  /* that the job points to */
    int64_t weight_bytes, exchanged; /* of a weight's gradient, 0 for others; 1 if image and gradient stand for each other */
    struct weights weights, outer;   /* of a separable layer the depthwise part's, and the pointwise part's */
    struct border border;
};

/* check.c: what is legal. */
int check(const fastconv_problem *problem, struct geometry *geometry);
void make_readable(struct geometry *geometry);
int check_separable(const struct geometry *depthwise, const struct geometry *pointwise);

/* plan.c: which kernel, which tile, and how the work is divided; the geometry becomes the simplest of the same sums. */
int plan(struct geometry *geometry, fastconv_layer *layer);
int plan_separable(const struct geometry *depthwise, const struct geometry *pointwise, fastconv_layer *layer);

/* gradients.c */
void adjoint(struct geometry *g);
int plan_weight_gradient(struct geometry *g, fastconv_layer *layer);
int run_bias_gradient(const struct geometry *g, const void *grad, void *out);

/* And what the plans of all kernels have in common. */
typedef double cost_function(const struct geometry *g, const struct tile *tile);
const struct tile *cheapest(const struct geometry *g, const struct tile *tile, int64_t most_rows, cost_function *cost);
void describe(const struct geometry *g, int64_t *job);
int slides(const struct geometry *g); /* whether its windows may have code of their own */
double update(int64_t rows, int64_t vectors, double streamed);
int shares_lines(const struct geometry *g); /* channels last, of groups */
void spread_out(
    const struct geometry *g, int64_t rows, int64_t unit, int64_t others, int64_t most, int64_t weights, int64_t *band,
    int64_t *chunk);
void divide(
    const struct geometry *g, fastconv_layer *layer, int64_t others, int64_t rows, int64_t band, int64_t filters, int64_t chunk,
    int64_t scratch);
void use(fastconv_layer *layer, kernel *code, enum order order, int64_t unit);

/* Sheets: fastconv/cpu/sheets.py. `of_rows` and `of_columns` are the phases that any tap meets. */
struct sheets {
    int64_t of_rows, of_columns, pitch, rows, phase, sheet;
    int apart, by_tap; /* each row of taps is a phase of its own; each tap across */
};
int64_t phases_of(const struct geometry *g, int axis, int64_t *phases); /* in ascending order; room for as many as taps */
struct sheets sheets_of(const struct geometry *g, int64_t of_rows, int64_t of_columns, int by_tap, int64_t band);
int64_t fill_table(
    const struct geometry *g, const struct sheets *s, const int64_t *rows, const int64_t *columns, int64_t *table);
void lay_sheets(const struct geometry *g, const struct sheets *s, int64_t *job);

/* winograd.c, columns.c: the schemes of Toom and Cook. The best of those that suit, or NULL, and what it costs. */
double toom_error(const struct geometry *g, const struct scheme *s, int dimensions, int64_t depth, int64_t terms);
const struct scheme *best_winograd(const struct geometry *g, double *cost);
void plan_winograd(const struct geometry *g, const struct scheme *s, fastconv_layer *layer);
const struct scheme *best_columns(const struct geometry *g, double *cost);
int plan_columns(const struct geometry *g, const struct scheme *s, fastconv_layer *layer);

/* border.c */
int64_t border_bytes(const struct border *border);
void draw_border(const struct border *border, const char *image, char *out);

/* pack.c: weights in the order of a kernel. */
int pack(const struct geometry *geometry, struct weights *weights, const void *weight, const void *bias);

static inline int64_t at_least(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t at_most(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t ceiling(int64_t a, int64_t b) { return (a + b - 1) / b; }                     /* of a >= 0 */
static inline int64_t below(int64_t a, int64_t b) { return a / b - (a % b < 0); }                  /* a / b, rounded down */
static inline int64_t taps(const struct geometry *g) { return g->kernel[0] * g->kernel[1] * g->kernel[2]; }
static inline int64_t lanes(const struct geometry *g) { return LANES * 4 / g->number; }
static inline int64_t width(const struct geometry *g, const struct tile *tile) { return tile->vectors * lanes(g); }
static inline int64_t images(const struct geometry *g) { return at_least(g->batch, 1); }
static inline double operations(const struct geometry *g)
{
    const int64_t *space = g->transposed ? g->space : g->out_space;
    return 2.0 * g->batch * space[0] * space[1] * space[2] * taps(g) * g->channels * g->filters * g->groups;
}
static inline int64_t weight_bytes(const struct geometry *g) { return g->filters * g->channels * taps(g) * g->number; }

#endif
