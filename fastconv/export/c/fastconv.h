/* fastconv: convolution layers of every kind, for C and whatever can call C. Needs libc and libm alone.
 *
 *     fastconv_problem problem = {
 *         .dimensions = 2, .batch = 1, .channels = 64, .filters = 128, .space = {56, 56}, .kernel = {3, 3},
 *         .before = {1, 1}, .after = {1, 1}, .bias = FASTCONV_CHANNEL_BIAS, .activation = FASTCONV_RELU,
 *     };
 *     fastconv_layer *layer;
 *     int error = fastconv_create(&problem, weight, bias, &layer);     // chooses a kernel, packs the weights
 *     if (!error) error = fastconv_run(layer, x, NULL, out, NULL);     // as often as you like
 *     if (error) fprintf(stderr, "%s\n", fastconv_message(error));
 *     fastconv_free(layer);
 *
 * There is no global state. A layer does not change once it exists: any number of threads may run it at once, each with its own
 * `out` and workspace. A function that fails has touched nothing but what it was to give.
 *
 * Arrays are contiguous (but x, if the problem says how it lies), of the problem's type, and of these shapes (space: depth, height,
 * width, as many as `dimensions`):
 *
 *     x           (batch, channels, space...), or with channels_last (batch, space..., channels)
 *     weight      (filters, channels / groups, kernel...), of a transposed layer (channels, filters / groups, kernel...);
 *                 in the same order with channels_last
 *     bias        (filters), or of FASTCONV_PIXEL_BIAS the result's shape without batch
 *     residual    the result's shape; added before the activation
 *     out         (batch, filters, space of the result...), or with channels_last (batch, space..., filters); shares no memory
 *                 with any other array
 */
#ifndef FASTCONV_H
#define FASTCONV_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define FASTCONV_API __attribute__((visibility("default")))
#else
#define FASTCONV_API
#endif

/* What may be left 0 stands for: float32, a convolution, channels first, steps and groups of 1, zeros around the image, no bias, no
 * activation. */
enum { FASTCONV_FLOAT32, FASTCONV_FLOAT64 };
enum { FASTCONV_CONVOLUTION, FASTCONV_TRANSPOSED };
enum { FASTCONV_NO_BIAS, FASTCONV_CHANNEL_BIAS, FASTCONV_PIXEL_BIAS };
enum { FASTCONV_ZEROS, FASTCONV_REFLECT, FASTCONV_REPLICATE, FASTCONV_CIRCULAR, FASTCONV_SYMMETRIC };
enum { FASTCONV_HIGH, FASTCONV_HIGHEST };
enum {
    FASTCONV_IDENTITY,
    FASTCONV_RELU,
    FASTCONV_RELU6,
    FASTCONV_CLIP,       /* to low..high */
    FASTCONV_LEAKY_RELU, /* of slope `low` below 0 */
    FASTCONV_SIGMOID,
    FASTCONV_TANH,
    FASTCONV_SILU,
    FASTCONV_HARDSWISH,
    FASTCONV_GELU /* by erf */
};

/* What is to be computed. */
typedef struct {
    int32_t dtype;             /* of all arrays */
    int32_t operation;         /* FASTCONV_CONVOLUTION: a cross-correlation, as everywhere in deep learning */
    int32_t dimensions;        /* of the space: 1, 2 or 3; so many numbers of each list below count */
    int32_t channels_last;     /* 1 if a pixel's channels are neighbours in memory, in x, out, residual and pixel bias */
    int64_t batch;             /* images; may be 0 */
    int64_t channels;          /* of an image */
    int64_t filters;           /* channels of the result */
    int64_t groups;            /* into which both fall, and which do not mix; as many as channels: a depthwise layer */
    int64_t space[3];          /* of the image */
    int64_t kernel[3];
    int64_t stride[3];
    int64_t dilation[3];       /* distance between taps */
    int64_t before[3];         /* rows of padding in front of the image, and after it; */
    int64_t after[3];          /* of a transposed layer what is cropped from the result */
    int64_t output_padding[3]; /* of a transposed layer: more rows at the end of the result */
    int32_t padding_mode;      /* anything but zeros is drawn into a copy of x, in the workspace, by each part anew */
    int32_t bias;
    int32_t activation;
    double low, high;          /* of FASTCONV_CLIP and FASTCONV_LEAKY_RELU */
    int32_t precision;         /* FASTCONV_HIGH: Winograd's scheme may be used, where float32 is off by less than 1e-5 of the
                                  convolution of the absolute values; FASTCONV_HIGHEST: only what rounds like plain loops */
    int32_t direct;            /* 1: plain loops only, which never multiply a weight by the zeros of a border */
    /* If any is not 0: numbers from one image to the next, from a channel to the next, and along each dimension, in x. They may be
     * negative. What no kernel can read where it lies, each part copies into its workspace. */
    int64_t x_image, x_channel, x_steps[3];
    int32_t parts;             /* that the work should fall into, for `fastconv_run_part`; the result is the same in any number */
} fastconv_problem;

typedef struct fastconv_layer fastconv_layer;

/* Every function that gives an int gives one of these, 0 if all is well. */
enum {
    FASTCONV_OK,
    FASTCONV_BAD_DTYPE,
    FASTCONV_BAD_OPERATION,
    FASTCONV_BAD_DIMENSIONS,
    FASTCONV_BAD_CHANNELS_LAST,
    FASTCONV_BAD_BATCH,
    FASTCONV_BAD_CHANNELS,
    FASTCONV_BAD_FILTERS,
    FASTCONV_BAD_GROUPS,
    FASTCONV_BAD_SPACE,
    FASTCONV_BAD_KERNEL,
    FASTCONV_BAD_STRIDE,
    FASTCONV_BAD_DILATION,
    FASTCONV_BAD_PADDING,
    FASTCONV_BAD_OUTPUT_PADDING,
    FASTCONV_BAD_PADDING_MODE,
    FASTCONV_BAD_BIAS,
    FASTCONV_BAD_ACTIVATION,
    FASTCONV_BAD_DIRECT,
    FASTCONV_BAD_PRECISION,
    FASTCONV_BAD_PARTS,
    FASTCONV_BAD_PART,
    FASTCONV_BAD_REACH,
    FASTCONV_BAD_STRIDES,
    FASTCONV_BAD_SEPARABLE,
    FASTCONV_TOO_LARGE,
    FASTCONV_NULL,
    FASTCONV_NOT_EXPORTED,
    FASTCONV_PROCESSOR,
    FASTCONV_NO_MEMORY,
    FASTCONV_ERRORS
};

/* One sentence that names the argument and says what was expected of it; never NULL, never to be freed. */
FASTCONV_API const char *fastconv_message(int error);

/* The sizes of the result's space, `dimensions` numbers. */
FASTCONV_API int fastconv_out_space(const fastconv_problem *problem, int64_t *out_space);

/* A layer: the kernel that was chosen for the problem, its geometry and its packed weights. Nothing of what is handed over is
 * needed afterwards. `bias` is NULL without one. If it fails, *layer is NULL. */
FASTCONV_API int fastconv_create(const fastconv_problem *problem, const void *weight, const void *bias, fastconv_layer **layer);

/* A depthwise layer and the pointwise one that takes its result, computed in one pass: two-dimensional, the second's space the
 * first's result. Only `depthwise->parts` counts, and only `pointwise` may have a residual. */
FASTCONV_API int fastconv_create_separable(
    const fastconv_problem *depthwise, const fastconv_problem *pointwise, const void *depthwise_weight, const void *depthwise_bias,
    const void *pointwise_weight, const void *pointwise_bias, fastconv_layer **layer);

/* The layer that makes of the gradient of a problem's result that of its image: `fastconv_run` with the one as x, the other as out.
 * Padding is of zeros; bias, activation and strides are left out of account. */
FASTCONV_API int fastconv_create_input_gradient(const fastconv_problem *problem, const void *weight, fastconv_layer **layer);

/* And what makes the gradient of its weight, for `fastconv_run_weight_gradient`; x is contiguous. */
FASTCONV_API int fastconv_create_weight_gradient(const fastconv_problem *problem, fastconv_layer **layer);

/* Bytes of scratch memory that computing a part needs, while it computes. */
FASTCONV_API size_t fastconv_workspace(const fastconv_layer *layer);

/* Compute the layer of x into out, in the calling thread. `residual` may be NULL; so may `workspace`, which is then allocated. */
FASTCONV_API int fastconv_run(const fastconv_layer *layer, const void *x, const void *residual, void *out, void *workspace);

/* Compute one part of `parts` of it: for threads of your own, each with its part and its workspace. */
FASTCONV_API int fastconv_run_part(
    const fastconv_layer *layer, int part, int parts, const void *x, const void *residual, void *out, void *workspace);

/* Compute one part of `parts` of a weight's gradient, an array of the weight's shape, from x and the gradient of the result. */
FASTCONV_API int fastconv_run_weight_gradient(
    const fastconv_layer *layer, int part, int parts, const void *x, const void *grad_output, void *out, void *workspace);

/* Compute the gradient of a bias of one number a filter, in the calling thread. */
FASTCONV_API int fastconv_bias_gradient(const fastconv_problem *problem, const void *grad_output, void *out);

/* NULL is no layer, and nothing to free. */
FASTCONV_API void fastconv_free(fastconv_layer *layer);

#ifdef __cplusplus
}
#endif
#endif
