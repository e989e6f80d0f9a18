/* Images whose borders show more of the image, as np.pad draws them: a copy, border and all, in front of the kernel. */
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

int64_t border_bytes(const struct border *b) { return b->images * b->padded[0] * b->padded[1] * b->padded[2] * b->pixel; }

void draw_border(const struct border *b, const char *image, char *out)
{
    for (int64_t n = 0; n < b->images; n++, image += b->space[0] * b->space[1] * b->space[2] * b->pixel)
        for (int64_t z = 0; z < b->padded[0]; z++)
            for (int64_t i = 0; i < b->padded[1]; i++, out += b->padded[2] * b->pixel) {
                int64_t plane = inside(b->mode, z - b->before[0], b->space[0]);
                int64_t line = inside(b->mode, i - b->before[1], b->space[1]);
                const char *row = image + (plane * b->space[1] + line) * b->space[2] * b->pixel;
                memcpy(out + b->before[2] * b->pixel, row, b->space[2] * b->pixel);
                for (int64_t j = 0; j < b->padded[2]; j++) {
                    if (j == b->before[2]) j += b->space[2];
                    if (j < b->padded[2])
                        memcpy(out + j * b->pixel, row + inside(b->mode, j - b->before[2], b->space[2]) * b->pixel, b->pixel);
                }
            }
}
