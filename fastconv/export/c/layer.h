/* What the files of the library tell each other. kernels.h is written by the export: the kernels that are in the library, and how
 * a job's words are laid out. */
#ifndef LAYER_H
#define LAYER_H

#include "fastconv.h"
#include "kernels.h"

#define UNALIGNED_ROOM 64 /* bytes that aligning a piece of memory may take */

/* What is drawn around an image before a kernel reads it; `pixel`: bytes of what lies side by side. */
struct border {
    int64_t mode, images, pixel; /* FASTCONV_ZEROS: nothing is drawn */
    int64_t space[3], padded[3], before[3];
};

/* A problem as kernels see it: always three-dimensional, channels and filters of one group. */
struct geometry {
    int64_t dtype, dimensions, transposed, last, number; /* `number`: bytes of one */
    int64_t batch, groups, channels, filters, parts, direct, exact;
    int64_t space[3], out_space[3], kernel[3], stride[3], dilation[3], before[3];
    int64_t bias, activation;
    double low, high;
    struct border border; /* `space` and `before` are those with it */
};

/* The order in which a kernel reads weights: see fastconv/cpu/packing.py. */
enum order { AS_THEY_COME, FILTERS_LAST, TAPS_FIRST, LANE_PANELS, ROW_PANELS, CHANNEL_PANELS, WINOGRAD };

struct weights {
    enum order order;
    int64_t unit; /* filters in a panel */
    void *packed, *bias;
};

struct fastconv_layer {
    int64_t job[JOB_WORDS];
    kernel *code;
    int64_t items, scratch, number;  /* `scratch`: bytes of a part's */
    int64_t *table;                  /* that the job points to */
    struct weights weights, outer;   /* of a separable layer the depthwise part's, and the pointwise part's */
    struct border border;
};

/* check.c: what is legal. */
int check(const fastconv_problem *problem, struct geometry *geometry);
int check_separable(const struct geometry *depthwise, const struct geometry *pointwise);

/* plan.c: which kernel, which tile, and how the work is divided. */
int plan(const struct geometry *geometry, fastconv_layer *layer);
int plan_separable(const struct geometry *depthwise, const struct geometry *pointwise, fastconv_layer *layer);

/* And what the plans of all kernels have in common. */
double update(int64_t rows, int64_t vectors, double streamed);
void spread_out(
    const struct geometry *g, int64_t rows, int64_t unit, int64_t others, int64_t most, int64_t weights, int64_t *band,
    int64_t *chunk);
void divide(
    const struct geometry *g, fastconv_layer *layer, int64_t others, int64_t rows, int64_t band, int64_t filters, int64_t chunk,
    int64_t scratch);
void use(fastconv_layer *layer, kernel *code, enum order order, int64_t unit);

/* winograd.c: the same of one more kernel, and its weights. */
int winograd_suits(const struct geometry *geometry);
double winograd_cost(const struct geometry *geometry);
void plan_winograd(const struct geometry *geometry, fastconv_layer *layer);
int64_t winograd_room(const struct geometry *geometry, int64_t unit);
void pack_winograd(const struct geometry *geometry, int64_t unit, const char *weight, const char *bias, char *packed);

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
static inline int64_t weight_bytes(const struct geometry *g) { return g->filters * g->channels * taps(g) * g->number; }

#endif
