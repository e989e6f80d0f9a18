/* Images that a kernel cannot read where they lie: those whose borders show more of the image, as np.pad draws them, and those in
 * which neither columns nor channels are neighbours. A copy, border and all, in front of the kernel. */
#include "layer.h"

#include <string.h>

/* Where in an image of `size` a place is found that may lie outside of it. */
static int64_t inside(int64_t mode, int64_t place, int64_t size)
{
    int64_t period = mode == FASTCONV_REFLECT ? at_least(1, 2 * (size - 1)) : mode == FASTCONV_SYMMETRIC ? 2 * size : size;
    if (mode == FASTCONV_REPLICATE) return at_most(at_least(place, 0), size - 1);
    place -= below(place, period) * period;
    if (place < size) return place;
    return mode == FASTCONV_REFLECT ? period - place : period - 1 - place;
}

int64_t border_bytes(const struct border *b)
{
    return b->images * b->channels * b->padded[0] * b->padded[1] * b->padded[2] * b->number;
}

/* Numbers from `row` on, `step` apart, to `out`, `apart` apart: one padded row. */
static void copy_row(const struct border *b, const char *row, char *out, int64_t apart)
{
    int64_t size = b->number, step = b->steps[2];
    if (step == 1 && apart == 1) memcpy(out + b->before[2] * size, row, b->space[2] * size);
    for (int64_t j = 0; j < b->padded[2]; j++) {
        int64_t column = j - b->before[2], within = column >= 0 && column < b->space[2];
        if (within && step == 1 && apart == 1) continue;
        memcpy(out + j * apart * size, row + (within ? column : inside(b->mode, column, b->space[2])) * step * size, size);
    }
}

void draw_border(const struct border *b, const char *image, char *out)
{
    int64_t pixels = b->padded[0] * b->padded[1] * b->padded[2], size = b->number;
    for (int64_t n = 0; n < b->images; n++, out += pixels * b->channels * size)
        for (int64_t c = 0; c < b->channels; c++) {
            char *there = out + (b->last ? c : c * pixels) * size;
            for (int64_t z = 0; z < b->padded[0]; z++)
                for (int64_t i = 0; i < b->padded[1]; i++) {
                    int64_t plane = inside(b->mode, z - b->before[0], b->space[0]);
                    int64_t line = inside(b->mode, i - b->before[1], b->space[1]), apart = b->last ? b->channels : 1;
                    int64_t from = n * b->image + c * b->channel + plane * b->steps[0] + line * b->steps[1];
                    copy_row(b, image + from * size, there, apart);
                    there += b->padded[2] * apart * size;
                }
        }
}
