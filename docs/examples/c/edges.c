/* Edges of a picture, in C: smooth it, take its slopes, draw where they are steep; then time a layer of a network.
 *
 *     python -m fastconv export --out fastconv --kinds standard depthwise
 *     make FASTCONV=fastconv && ./edges
 */
#define _POSIX_C_SOURCE 199309L
#include <fastconv.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { SIZE = 256, CELL_I = 8, CELL_J = 4, CHANNELS = 64, SIDE = 56 };

static void expect(int error)
{
    if (!error) return;
    fprintf(stderr, "fastconv: %s\n", fastconv_message(error));
    exit(1);
}

static float *numbers(size_t count)
{
    float *memory = calloc(count, sizeof *memory);
    if (!memory) exit(1);
    return memory;
}

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec + 1e-9 * now.tv_nsec;
}

/* A bright disc and a bright square on a dark ground, and noise over all of it. */
static void draw(float *image)
{
    for (int i = 0; i < SIZE; i++)
        for (int j = 0; j < SIZE; j++) {
            int disc = hypot(i - 0.45 * SIZE, j - 0.3 * SIZE) < 0.2 * SIZE;
            int square = fabs(i - 0.55 * SIZE) < 0.2 * SIZE && fabs(j - 0.72 * SIZE) < 0.17 * SIZE;
            image[i * SIZE + j] = (disc || square) + 0.3f * (rand() / (float)RAND_MAX - 0.5f);
        }
}

/* Gauss, then Sobel: two layers. slopes: two channels, down and across. */
static void find_slopes(const float *image, float *smooth, float *slopes)
{
    float gauss[5][5];
    const float sobel[2][3][3] = {{{-1, -2, -1}, {0, 0, 0}, {1, 2, 1}}, {{-1, 0, 1}, {-2, 0, 2}, {-1, 0, 1}}};
    for (int a = 0; a < 5; a++)
        for (int b = 0; b < 5; b++) gauss[a][b] = expf(-((a - 2) * (a - 2) + (b - 2) * (b - 2)) / 3.f) / 9.1f;
    fastconv_problem smoothing = {
        .dimensions = 2, .batch = 1, .channels = 1, .filters = 1, .space = {SIZE, SIZE}, .kernel = {5, 5},
        .before = {2, 2}, .after = {2, 2},
    };
    fastconv_problem differences = smoothing;
    differences.filters = 2;
    for (int d = 0; d < 2; d++) differences.kernel[d] = 3, differences.before[d] = differences.after[d] = 1;
    fastconv_layer *first, *second;
    expect(fastconv_create(&smoothing, gauss, NULL, &first));
    expect(fastconv_create(&differences, sobel, NULL, &second));
    expect(fastconv_run(first, image, NULL, smooth, NULL));
    expect(fastconv_run(second, smooth, NULL, slopes, NULL));
    fastconv_free(first);
    fastconv_free(second);
}

/* One character for each cell: the steepest slope in it. */
static void print(const float *slopes)
{
    for (int i = 0; i + CELL_I <= SIZE; i += CELL_I) {
        for (int j = 0; j + CELL_J <= SIZE; j += CELL_J) {
            float steepest = 0;
            int border = i == 0 || j == 0 || i + CELL_I == SIZE || j + CELL_J == SIZE; /* there the zeros around it count */
            for (int k = 0; k < CELL_I * CELL_J && !border; k++) {
                int place = (i + k / CELL_J) * SIZE + j + k % CELL_J;
                steepest = fmaxf(steepest, hypotf(slopes[place], slopes[SIZE * SIZE + place]));
            }
            putchar(steepest > 1.2f ? '#' : ' ');
        }
        putchar('\n');
    }
}

/* The best time of a 3x3 layer of 64 channels, in the way a network calls it: made once, its workspace too. */
static double gigaflops(void)
{
    fastconv_problem problem = {
        .dimensions = 2, .batch = 1, .channels = CHANNELS, .filters = CHANNELS, .space = {SIDE, SIDE}, .kernel = {3, 3},
        .before = {1, 1}, .after = {1, 1}, .bias = FASTCONV_CHANNEL_BIAS, .activation = FASTCONV_RELU,
    };
    float *weight = numbers(CHANNELS * CHANNELS * 9), *bias = numbers(CHANNELS);
    float *x = numbers(CHANNELS * SIDE * SIDE), *out = numbers(CHANNELS * SIDE * SIDE);
    double best = 1e9, until = seconds() + 0.3;
    fastconv_layer *layer;
    expect(fastconv_create(&problem, weight, bias, &layer));
    void *workspace = malloc(fastconv_workspace(layer));
    while (seconds() < until) {
        double start = seconds();
        expect(fastconv_run(layer, x, NULL, out, workspace));
        best = fmin(best, seconds() - start);
    }
    fastconv_free(layer);
    free(workspace), free(weight), free(bias), free(x), free(out);
    return 2.0 * CHANNELS * CHANNELS * 9 * SIDE * SIDE / best / 1e9;
}

int main(void)
{
    float *image = numbers(SIZE * SIZE), *smooth = numbers(SIZE * SIZE), *slopes = numbers(2 * SIZE * SIZE);
    draw(image);
    find_slopes(image, smooth, slopes);
    print(slopes);
    printf("3x3, %d channels, %dx%d: %.0f GFLOP/s on one thread\n", CHANNELS, SIDE, SIDE, gigaflops());
    free(image), free(smooth), free(slopes);
    return 0;
}
