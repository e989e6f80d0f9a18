/* Which kernel computes a layer, with which tile, and how the work is divided: fastconv/cpu/plans/ in C, where the reasons
 * are. No result depends on what is decided here. Costs are multiply-adds of a vector. */
#include "layer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static int64_t scratch_numbers(const struct geometry *g) { return L2 / 2 / g->number; } /* packed weights need the rest of L2 */
static int64_t pixels(const struct geometry *g) { return g->out_space[0] * g->out_space[1] * g->out_space[2]; }

/* The job's words ----------------------------------------------------------------------------------------------------------- */

static void set_three(int64_t *job, int place, int64_t depth, int64_t height, int64_t width)
{
    job[place] = depth, job[place + 1] = height, job[place + 2] = width;
}

static void set_sizes(int64_t *job, int place, const int64_t sizes[3]) { memcpy(job + place, sizes, 3 * sizeof *sizes); }

static void set_number(int64_t *job, int place, double number) { memcpy(job + place, &number, sizeof number); }

void describe(const struct geometry *g, int64_t *job)
{
    const int64_t *space = g->space, channels = g->groups * g->channels, size = space[0] * space[1] * space[2];
    int64_t step = g->last ? channels : 1;
    job[JOB_BATCH] = g->batch, job[JOB_GROUPS] = g->groups, job[JOB_CHANNELS] = g->channels, job[JOB_FILTERS] = g->filters;
    set_sizes(job, JOB_SPACE, g->space), set_sizes(job, JOB_OUT_SPACE, g->out_space), set_sizes(job, JOB_KERNEL, g->kernel);
    set_sizes(job, JOB_STRIDE, g->stride), set_sizes(job, JOB_DILATION, g->dilation), set_sizes(job, JOB_BEFORE, g->before);
    job[JOB_X_IMAGE] = channels * size, job[JOB_X_CHANNEL] = g->last ? 1 : size, job[JOB_LAST] = g->last;
    set_three(job, JOB_X_STEPS, space[1] * space[2] * step, space[2] * step, step);
    if (!g->x_given) return;
    job[JOB_X_IMAGE] = g->x_image, job[JOB_X_CHANNEL] = g->x_channel;
    set_sizes(job, JOB_X_STEPS, g->x_steps);
}

/* Whether sums are finished late: in registers they are clipped only, and start with a bias a channel. */
static int late(const struct geometry *g)
{
    return g->bias == FASTCONV_PIXEL_BIAS || (g->activation != IDENTITY && g->activation != CLIP);
}

static void finish(const struct geometry *g, int64_t *job)
{
    int clips = g->activation == CLIP && !late(g);
    job[JOB_BIAS_KIND] = g->bias, job[JOB_ACTIVATION] = g->activation, job[JOB_LATE] = late(g);
    set_number(job, JOB_LOW, g->low), set_number(job, JOB_HIGH, g->high);
    set_number(job, JOB_LEAST, clips ? g->low : -INFINITY), set_number(job, JOB_MOST, clips ? g->high : INFINITY);
    job[JOB_FINISH_CODE] = (intptr_t)finish_late[g->dtype], job[JOB_PUT_CODE] = (intptr_t)put_rows[g->dtype];
}

static void finish_inner(const struct geometry *g, int64_t *job)
{
    int clips = g->activation == CLIP && !late(g);
    job[JOB_INNER_BIAS_KIND] = g->bias, job[JOB_INNER_ACTIVATION] = g->activation, job[JOB_INNER_LATE] = late(g);
    set_number(job, JOB_INNER_LOW, g->low), set_number(job, JOB_INNER_HIGH, g->high);
    set_number(job, JOB_INNER_LEAST, clips ? g->low : -INFINITY), set_number(job, JOB_INNER_MOST, clips ? g->high : INFINITY);
    job[JOB_INNER_FINISH_CODE] = (intptr_t)finish_inner_late[g->dtype];
}

/* `others` things apart, each of `rows` in bands and of `filters` in chunks; `scratch` numbers for each part. */
void divide(
    const struct geometry *g, fastconv_layer *layer, int64_t others, int64_t rows, int64_t band, int64_t filters, int64_t chunk,
    int64_t scratch)
{
    int64_t bands = ceiling(rows, band), chunks = ceiling(filters, chunk);
    layer->job[JOB_BANDS] = bands, layer->job[JOB_BAND] = band, layer->job[JOB_CHUNKS] = chunks, layer->job[JOB_CHUNK] = chunk;
    layer->items = g->batch * others * bands * chunks, layer->scratch = scratch * g->number;
}

void use(fastconv_layer *layer, kernel *code, enum order order, int64_t unit)
{
    layer->code = code, layer->weights.order = order, layer->weights.unit = unit;
}

/* Direct kernels: bands as small as an item may be -------------------------------------------------------------------------- */

static void directly(const struct geometry *g, fastconv_layer *layer, kernel *code, enum order order, int64_t others)
{
    int64_t rows = g->out_space[0] * g->out_space[1];
    double all = 2.0 * pixels(g) * taps(g) * g->channels * g->filters * g->groups * at_least(g->batch, 1);
    double share = ceil(ITEM_OPERATIONS / all * rows * others * at_least(g->batch, 1));
    int64_t least = share < rows ? at_least(1, share) : rows;
    divide(g, layer, others, rows, ceiling(rows, ceiling(rows, least)), 1, 1, 0);
    use(layer, code, order, 1);
}

/* Tiled kernels ------------------------------------------------------------------------------------------------------------- */

/* Of a rank-1 update; `streamed` vectors come from L2. */
double update(int64_t rows, int64_t vectors, double streamed)
{
    return at_least(at_least(rows * vectors, rows + vectors), SUMS_IN_FLIGHT) + streamed / 2;
}

/* One update of so many pixels, in strips as long as the tile is tall and one shorter. */
static double even_work(int64_t count, const struct tile *tile)
{
    int64_t strips = ceiling(count, tile->rows), tall = at_least(0, count - strips * (tile->rows - 1));
    return tall * update(tile->rows, tile->vectors, tile->vectors) +
           (strips - tall) * update(tile->rows - 1, tile->vectors, tile->vectors);
}

/* Of a vector of sums with filters in lanes. */
static double put_cost(const struct geometry *g, const struct tile *tile)
{
    if (!g->last) return turn_sums[g->dtype];
    if (g->transposed || g->groups > 1) return COPY;
    return g->filters <= width(g, tile) ? WHOLE : PIECE / tile->vectors;
}

/* Of a row of the result with filters in lanes: the sums, and what it takes to put them in place. */
static double lanes_cost(const struct geometry *g, const struct tile *tile)
{
    int64_t out_width = g->out_space[2], columns = out_width / (g->transposed ? g->stride[2] : 1);
    double loop = taps(g) > 1 ? ceiling(columns, tile->rows) : 0;
    double work = g->channels * taps(g) * (even_work(columns, tile) + loop);
    double put = ceiling(out_width, lanes(g)) * width(g, tile) * put_cost(g, tile);
    return ceiling(g->filters, width(g, tile)) * (work + put);
}

/* Tables of tiles end with one of no rows. */
const struct tile *cheapest(const struct geometry *g, const struct tile *tile, int64_t most_rows, cost_function *cost)
{
    const struct tile *best = NULL;
    for (; tile->rows; tile++)
        if (tile->rows <= most_rows && (!best || cost(g, tile) < cost(g, best))) best = tile;
    return best;
}

/* Rows of a band, and filters of a chunk: at most so many rows, as even as may be, enough items for the parts. Where the weights
 * pass L2 each band would have them streamed anew: then filters are cut first. */
void spread_out(
    const struct geometry *g, int64_t rows, int64_t unit, int64_t others, int64_t most, int64_t weights, int64_t *band,
    int64_t *chunk)
{
    int64_t parts = g->parts, panels = ceiling(g->filters, unit), bands = ceiling(rows, at_least(1, most)), best = panels;
    *band = ceiling(rows, bands);
    if (weights > L2) {
        int64_t chunks = 1;
        if (parts > 1) chunks = ceiling(bands * others <= parts ? parts : 2 * parts, bands * others);
        best = ceiling(panels, at_most(panels, chunks));
    } else if (parts > 1) {
        int64_t wanted = at_least(bands, at_most(rows, ceiling(ITEMS_A_PART * parts, others)));
        int64_t largest = *band, least = ceiling(rows, wanted), busiest = INT64_MAX;
        for (int64_t b = largest; b >= least; b--) {
            int64_t load = ceiling(ceiling(rows, b) * others, parts) * b;
            if (load < busiest) busiest = load, *band = b;
        }
        int64_t items = ceiling(rows, *band) * others, chunks = items < 2 * parts ? ceiling(2 * parts, items) : 1;
        busiest = INT64_MAX;
        for (int64_t n = at_most(panels, chunks); n > 0; n--) {
            int64_t size = ceiling(panels, n), load = ceiling(items * ceiling(panels, size), parts) * size;
            if (load < busiest) busiest = load, best = size;
        }
    }
    *chunk = unit * best;
}

/* Sheets: fastconv/cpu/sheets.py -------------------------------------------------------------------------------------------- */

/* The different phases in which the taps of an axis lie. */
int64_t phases_of(const struct geometry *g, int axis, int64_t *phases)
{
    int64_t count = 0;
    for (int64_t a = 0; a < g->kernel[axis]; a++) {
        int64_t phase = a * g->dilation[axis] % g->stride[axis], k = 0;
        while (k < count && phases[k] < phase) k++;
        if (k < count && phases[k] == phase) continue;
        memmove(phases + k + 1, phases + k, (count - k) * sizeof *phases);
        phases[k] = phase, count++;
    }
    return count;
}

struct sheets sheets_of(const struct geometry *g, int64_t of_rows, int64_t of_columns, int by_tap, int64_t band)
{
    struct sheets s = {.of_rows = of_rows, .of_columns = by_tap ? g->kernel[2] : of_columns, .by_tap = by_tap};
    s.pitch = g->out_space[2] + (by_tap ? 0 : (g->kernel[2] - 1) * g->dilation[2] / g->stride[2]);
    s.rows = band + (g->kernel[1] - 1) * g->dilation[1] / g->stride[1];
    s.apart = g->kernel[1] * band < of_rows * s.rows;
    if (s.apart) s.of_rows = g->kernel[1], s.rows = band;
    s.phase = s.pitch * s.rows;
    s.sheet = LINE * (ceiling(g->kernel[0] * s.phase * s.of_rows * s.of_columns + LINE, LINE) | 1);
    return s;
}

static int64_t index_of(const int64_t *phases, int64_t phase)
{
    int64_t k = 0;
    while (phases[k] != phase) k++;
    return k;
}

/* Where each tap lies, then the phases; gives how many numbers. */
int64_t fill_table(
    const struct geometry *g, const struct sheets *s, const int64_t *rows, const int64_t *columns, int64_t *table)
{
    int64_t count = 0;
    for (int64_t e = 0; e < g->kernel[0]; e++)
        for (int64_t a = 0; a < g->kernel[1]; a++)
            for (int64_t b = 0; b < g->kernel[2]; b++) {
                int64_t y = a * g->dilation[1], u = b * g->dilation[2];
                int64_t slot_i = s->apart ? a : index_of(rows, y % g->stride[1]), row = s->apart ? 0 : y / g->stride[1];
                int64_t slot_j = s->by_tap ? b : index_of(columns, u % g->stride[2]), slot = (e * s->of_rows + slot_i) * s->of_columns;
                table[count++] = (slot + slot_j) * s->phase + row * s->pitch + (s->by_tap ? 0 : u / g->stride[2]);
            }
    for (int64_t k = 0; k < s->of_rows; k++) table[count++] = s->apart ? k * g->dilation[1] : rows[k];
    for (int64_t k = 0; k < s->of_columns; k++) table[count++] = s->by_tap ? k * g->dilation[2] : columns[k];
    return count;
}

void lay_sheets(const struct geometry *g, const struct sheets *s, int64_t *job)
{
    set_three(job, JOB_PHASES, g->kernel[0], s->of_rows, s->of_columns);
    job[JOB_PITCH] = s->pitch, job[JOB_PHASE_SIZE] = s->phase, job[JOB_PHASE_ROWS] = s->rows, job[JOB_SHEET] = s->sheet;
    job[JOB_FILL_CODE] = (intptr_t)fill_sheets[g->dtype];
}

/* Strips of a row: where each begins, whether it is tall, which taps it sees. As fastconv/cpu/strips.py cuts a whole row. */
static int64_t fill_strips(const struct geometry *g, const struct tile *tile, int64_t *table)
{
    int64_t out_width = g->out_space[2], strips = ceiling(out_width, tile->rows), at = 0;
    int64_t tall = at_least(0, out_width - strips * (tile->rows - 1));
    for (int64_t k = 0; k < strips; k++, table += 4) {
        int64_t rows = tile->rows - (k >= tall), first = at_least(0, at_most(at, out_width - rows)), begin = 0, end = 0;
        for (int64_t b = 0; b < g->kernel[2]; b++) {
            int64_t u = b * g->dilation[2] - g->before[2];
            int64_t enters = -below(u, g->stride[2]), leaves = -below(u - g->space[2], g->stride[2]);
            if (enters >= first + rows || leaves <= first) continue;
            if (begin == end) begin = b;
            end = b + 1;
        }
        table[0] = first, table[1] = k < tall, table[2] = begin, table[3] = end;
        at += rows;
    }
    return strips;
}

static int64_t count_of_phases(const struct geometry *g, int axis)
{
    int64_t stride = g->stride[axis], a = stride, b = g->dilation[axis];
    while (b) {
        int64_t rest = a % b;
        a = b, b = rest;
    }
    return at_most(g->kernel[axis], stride / a);
}

/* Whether each tap across is copied anew; how many rows for it, or else out of the sums, for one of the result. */
static int copies_by_tap(const struct geometry *g, int64_t *copied)
{
    int64_t phases = count_of_phases(g, 2), stride = g->stride[2];
    int64_t more = g->channels * g->kernel[0] * count_of_phases(g, 1) * (g->kernel[2] - phases);
    int by_tap = (stride == 1 || stride == 2 || stride == 4) && 0 < more && 2 * more <= g->filters && !g->last;
    *copied = by_tap ? more : g->filters;
    return by_tap;
}

/* tiled_standard, filters in lanes, or tiled_standard_pixels: bands of rows whose sheets and sums fit a part's scratch. */
static int over_sheets(const struct geometry *g, fastconv_layer *layer, const struct tile *tile, int pixels_in_lanes)
{
    int64_t *job = layer->job, rows = g->out_space[1], out_width = g->out_space[2], others = g->groups * g->out_space[0];
    int64_t unit = pixels_in_lanes ? tile->rows : width(g, tile), strips = pixels_in_lanes ? 0 : ceiling(out_width, tile->rows);
    int64_t most_numbers = taps(g) + g->kernel[1] + g->kernel[2] + 4 * strips;
    if (!(layer->table = calloc(most_numbers + g->kernel[1] + g->kernel[2], sizeof *layer->table))) return FASTCONV_NO_MEMORY;
    int64_t *phases_i = layer->table + most_numbers, *phases_j = phases_i + g->kernel[1];
    int64_t of_rows = phases_of(g, 1, phases_i), of_columns = phases_of(g, 2, phases_j), copied;
    int by_tap = pixels_in_lanes && copies_by_tap(g, &copied);

    int64_t pitch = sheets_of(g, of_rows, of_columns, by_tap, 1).pitch, run = at_least(1, RUN / out_width);
    int64_t together = g->last ? at_least(ceiling(g->filters, tile->rows) * tile->rows, lanes(g)) : tile->rows;
    int64_t fixed = pixels_in_lanes ? together * width(g, tile)
                                    : (run * out_width + at_least(lanes(g), tile->rows)) * width(g, tile);
    int64_t a_row = pixels_in_lanes ? together * pitch : 0, most = 1, band, chunk;
    while (most < rows && g->channels * sheets_of(g, of_rows, of_columns, by_tap, most + 1).sheet + (most + 1) * a_row <=
                              scratch_numbers(g) - fixed) most++;
    spread_out(g, rows, unit, at_least(g->batch, 1) * others, most, weight_bytes(g), &band, &chunk);

    struct sheets s = sheets_of(g, of_rows, of_columns, by_tap, band);
    int64_t slack = pixels_in_lanes ? width(g, tile) : LINE, sums_at = ceiling(g->channels * s.sheet + slack, LINE) * LINE;
    int64_t flat = ceiling(band * pitch, width(g, tile)) * width(g, tile);
    int64_t sums = pixels_in_lanes ? together * flat + lanes(g) : fixed;
    job[JOB_STRIPS_AT] = fill_table(g, &s, phases_i, phases_j, layer->table);
    if (!pixels_in_lanes) job[JOB_STRIPS] = fill_strips(g, tile, layer->table + job[JOB_STRIPS_AT]);
    lay_sheets(g, &s, job);
    job[JOB_SUMS_AT] = sums_at, job[JOB_PANELS] = ceiling(g->filters, unit);
    if (pixels_in_lanes) job[JOB_SUMS_PITCH] = flat;
    else job[JOB_RUN] = run;
    job[JOB_PANEL] = unit * (1 + g->channels * taps(g));
    divide(g, layer, others, rows, band, g->filters, chunk, sums_at + sums);
    use(layer, tile->code, pixels_in_lanes ? ROW_PANELS : LANE_PANELS, unit);
    if (pixels_in_lanes && g->last) job[JOB_PUT_CODE] = (intptr_t)put_turned[g->dtype];
    return FASTCONV_OK;
}

/* Of a row with pixels in lanes, over planes of sheets. */
static double pixels_cost(const struct geometry *g, const struct tile *tile)
{
    int64_t copied, pitch = sheets_of(g, 1, 1, copies_by_tap(g, &copied), 1).pitch; /* the phases count for nothing here */
    double strips = (double)pitch / width(g, tile) + 0.5 / g->out_space[1];
    double put = (g->last ? COPY + turn_sums[g->dtype] : COPY) * copied * ceiling(g->out_space[2], lanes(g));
    double updates = g->channels * taps(g) * update(tile->rows, tile->vectors, tile->vectors);
    return ceiling(g->filters, tile->rows) * strips * updates + put;
}

/* Whether, channels last, several groups' channels or filters share cache lines. */
int shares_lines(const struct geometry *g)
{
    int64_t most = LINE / at_least(g->channels, g->filters);
    for (int64_t n = 2; g->last && n <= most; n++)
        if (g->groups % n == 0) return 1;
    return 0;
}

static const struct tile *best_of_pixels(const struct geometry *g)
{
    return shares_lines(g) ? NULL : cheapest(g, tiled_standard_pixels[g->dtype], INT64_MAX, pixels_cost);
}

static int standard(const struct geometry *g, fastconv_layer *layer)
{
    const struct tile *in_lanes = cheapest(g, tiled_standard[g->dtype], g->out_space[2] + 1, lanes_cost), *pixel = best_of_pixels(g);
    if (!in_lanes && !pixel) return FASTCONV_NOT_EXPORTED;
    int in_pixels = !in_lanes || (pixel && pixels_cost(g, pixel) <= lanes_cost(g, in_lanes));
    return over_sheets(g, layer, in_pixels ? pixel : in_lanes, in_pixels);
}

/* The same, or one of the schemes of Toom and Cook. */
static int dense(const struct geometry *g, fastconv_layer *layer)
{
    const struct tile *in_lanes = cheapest(g, tiled_standard[g->dtype], g->out_space[2] + 1, lanes_cost);
    const struct tile *pixel = best_of_pixels(g);
    double rows = (double)images(g) * g->groups * g->out_space[0] * g->out_space[1], down_too, down;
    double tiled = rows * fmin(in_lanes ? lanes_cost(g, in_lanes) : HUGE_VAL, pixel ? pixels_cost(g, pixel) : HUGE_VAL);
    const struct scheme *square = best_winograd(g, &down_too), *column = best_columns(g, &down);
    if (column && down <= fmin(down_too, tiled)) return plan_columns(g, column, layer);
    if (!square || down_too > tiled) return standard(g, layer);
    plan_winograd(g, square, layer);
    return FASTCONV_OK;
}

/* Pointwise: the pixels of an image are one row, read where they lie -------------------------------------------------------- */

static double in_place_cost(const struct geometry *g, const struct tile *tile)
{
    double updates = (double)g->channels * update(tile->rows, tile->vectors, tile->vectors);
    return ceiling(g->out_space[2], width(g, tile)) * ceiling(g->filters, tile->rows) * updates;
}

enum { FEW_CHANNELS = 64, RESULT_TO_IMAGE = 3, A_PIECE = 20, LARGE = 2 }; /* plans/pointwise.py, as is what follows */

/* Each strip writes a piece of every filter's row. */
static double with_pieces(const struct geometry *g, const struct tile *tile)
{
    double a_piece = g->filters * g->out_space[2] * g->number > LARGE * L2 ? A_PIECE : 0;
    return in_place_cost(g, tile) + a_piece * g->filters * ceiling(g->out_space[2], width(g, tile));
}

/* The fewest bands, and chunks, that give two items a part, and none more than its share but for a sixteenth. */
static void by_filters(int64_t strips, int64_t panels, int64_t images, int64_t parts, int64_t *bands_of, int64_t *chunks_of_it)
{
    int64_t most_bands = at_most(strips, *bands_of + ITEMS_A_PART * parts), most_chunks = at_most(panels, ITEMS_A_PART * parts);
    double least = INFINITY;
    for (int64_t bands = *bands_of; bands <= most_bands; bands++)
        for (int64_t chunks = at_most(panels, ceiling(parts, images)); chunks <= most_chunks; chunks++) {
            int64_t chunk = ceiling(panels, chunks), items = bands * ceiling(panels, chunk) * images;
            double busiest = (double)(ceiling(items, parts) * parts * chunk) / (double)(bands * panels * images);
            if (busiest < least && items >= 2 * parts) least = busiest, *bands_of = bands, *chunks_of_it = chunks;
            if (least <= 17.0 / 16) return;
        }
}

/* Bands of whole strips of `strip` pixels, the last band takes what is left over; chunks of panels of `unit` filters. */
static void over_pixels(
    const struct geometry *g, fastconv_layer *layer, int64_t strip, int64_t unit, int64_t bands, int filters_first,
    int64_t *longest)
{
    int64_t strips = at_least(1, g->out_space[2] / strip), images = at_least(g->batch, 1), panels = ceiling(g->filters, unit);
    int64_t parts = g->parts, chunks = 1;
    bands = at_least(1, at_most(strips, bands));
    if (weight_bytes(g) > L2 && parts > 1) chunks = ceiling(bands * images <= parts ? parts : 2 * parts, bands * images);
    else if (weight_bytes(g) <= L2 && parts > 1 && filters_first) by_filters(strips, panels, images, parts, &bands, &chunks);
    else if (weight_bytes(g) <= L2 && parts > 1) {
        bands = at_most(strips, at_least(bands, ceiling(ITEMS_A_PART * parts, images)));
        chunks = ceiling(2 * parts, bands * images);
    }
    int64_t band = at_least(1, strips / bands), chunk = unit * ceiling(panels, at_most(panels, chunks));
    bands = strips / band;
    divide(g, layer, 1, bands, 1, g->filters, chunk, 0);
    layer->job[JOB_BAND] = band * strip, layer->job[JOB_PANEL] = unit * (1 + g->channels);
    *longest = band * strip + g->out_space[2] - band * strip * bands;
}

static int pointwise(const struct geometry *g, fastconv_layer *layer)
{
    const struct tile *in_lanes = cheapest(g, tiled_pointwise[g->dtype], g->out_space[2] + 1, lanes_cost), *pixel = NULL;
    for (const struct tile *tile = tiled_pointwise_pixels[g->dtype]; !g->last && tile->rows; tile++)
        if (width(g, tile) <= g->out_space[2] && (!pixel || with_pieces(g, tile) < with_pieces(g, pixel))) pixel = tile;
    int64_t longest;
    if (pixel && (!in_lanes || in_place_cost(g, pixel) <= lanes_cost(g, in_lanes))) {
        int few = g->channels <= FEW_CHANNELS, filters_first = g->filters >= RESULT_TO_IMAGE * g->channels;
        int64_t numbers = ceiling(g->filters, filters_first ? g->parts : 1);
        if (few && g->filters > pixel->rows) numbers = g->channels; /* what is read, or finished, again still lies in L2 */
        int64_t bands = ceiling(g->out_space[2] * numbers, scratch_numbers(g));
        over_pixels(g, layer, width(g, pixel), pixel->rows, bands, filters_first, &longest);
        layer->job[JOB_TOGETHER] = few ? pixel->rows : ceiling(g->filters, pixel->rows) * pixel->rows;
        use(layer, pixel->code, ROW_PANELS, pixel->rows);
        return FASTCONV_OK;
    }
    if (!in_lanes) return FASTCONV_NOT_EXPORTED;
    int64_t unit = width(g, in_lanes), most = at_least(1, L1 / 2 / (unit * g->number) / in_lanes->rows); /* sums stay in L1 */
    over_pixels(g, layer, in_lanes->rows, unit, ceiling(g->out_space[2] / in_lanes->rows, most), !g->last, &longest);
    layer->scratch = (longest + in_lanes->rows + lanes(g)) * unit * g->number;
    use(layer, in_lanes->code, LANE_PANELS, unit);
    return FASTCONV_OK;
}

/* Depthwise: windows that slide down a plane, or along a row where channels come last --------------------------------------- */

int slides(const struct geometry *g)
{
    const int64_t *stride = g->stride, *apart = g->dilation;
    int step = stride[1] == stride[2] && (stride[1] == 1 || (stride[1] == 2 && apart[1] == 1 && apart[2] == 1));
    return g->dimensions == 2 && step && g->kernel[1] == g->kernel[2];
}

static const struct tile *window_of(const struct geometry *g, const struct tile *tile)
{
    for (; slides(g) && tile->rows; tile++)
        if (tile->window == g->kernel[1] && tile->step == g->stride[1]) return tile;
    return NULL;
}

/* Chunks of whole units of channels, and bands of rows where those are too few. */
static void over_channels(const struct geometry *g, fastconv_layer *layer, const struct tile *tile, int64_t unit)
{
    int64_t rows = g->out_space[1], filters = g->groups * g->filters, units = ceiling(filters, unit);
    int64_t images = at_least(g->batch, 1), wanted = g->parts > 1 ? ITEMS_A_PART * g->parts : 1;
    int64_t chunk = ceiling(units, at_most(units, ceiling(wanted, images)));
    int64_t band = ceiling(rows, at_most(rows, ceiling(wanted, ceiling(units, chunk) * images)));
    divide(g, layer, 1, rows, band, filters, chunk * unit, 0);
    layer->job[JOB_PANEL] = 1 + taps(g);
    if (unit > 1) layer->job[JOB_IMAGES] = 1; /* C computes them one by one */
    use(layer, tile->code, ROW_PANELS, 1);
}

/* Bands of rows, which cost nothing, and chunks of channels only where rows are few; the last takes what is left over. */
static void over_rows(const struct geometry *g, fastconv_layer *layer, const struct tile *tile)
{
    int64_t rows = g->out_space[1], units = at_least(1, g->groups / lanes(g));
    int64_t images = at_least(g->batch, 1), wanted = g->parts > 1 ? ITEMS_A_PART * g->parts : 1;
    int64_t band = ceiling(rows, at_most(rows, ceiling(wanted, images)));
    int64_t chunk = ceiling(units, at_most(units, ceiling(wanted, ceiling(rows, band) * images)));
    divide(g, layer, 1, rows, band, units, chunk, 0);
    layer->job[JOB_CHUNK] = chunk * lanes(g), layer->job[JOB_PANEL] = lanes(g) * (1 + taps(g));
    use(layer, tile->code, CHANNEL_PANELS, lanes(g));
}

/* Lines of a few vectors of channels, copied to where they fit L1: tiled_depthwise_lines. */
static int over_lines(const struct geometry *g, fastconv_layer *layer, const struct tile *tile)
{
    int64_t *job = layer->job, rows = g->out_space[1], width = g->out_space[2], stride = g->stride[2];
    int64_t reach = (g->kernel[2] - 1) * g->dilation[2];
    int suits = g->last ? g->filters < lanes(g) / 2
                        : g->filters == 1 && g->groups >= lanes(g) / 2 && (g->dimensions == 2 || taps(g) >= LEAST_TURNED);
    if (!tile->rows || !suits || g->dimensions == 3) return FASTCONV_NOT_EXPORTED;
    int64_t filters = g->groups * g->filters, units = at_least(1, filters / lanes(g));
    int64_t fewest = g->parts > 1 ? LEAST_ITEMS * g->parts : 1, most = at_most(TOGETHER, g->last ? units : at_least(1, units / fewest));
    int64_t room = L1 * LINES_SHARE / (lanes(g) * g->number), least = tile->rows / 2, last = at_least(1, width / tile->rows);
    int64_t run = width, images = at_least(g->batch, 1), wanted = g->parts > 1 ? ITEMS_A_PART * g->parts : 1;
    room /= g->kernel[1];
    for (int64_t n = 2; n <= last && most * ((at_least(run, least) - 1) * stride + reach + 1) > room; n++) run = ceiling(width, n);
    int64_t columns = (at_least(run, least) - 1) * stride + reach + 1, together = at_least(1, at_most(most, room / columns));
    int64_t several = ceiling(units, together), chunk = together * ceiling(several, at_most(several, ceiling(wanted, images)));
    int64_t band = ceiling(rows, at_most(rows, ceiling(fewest, ceiling(units, chunk) * images)));
    job[JOB_RUN] = run, job[JOB_TOGETHER] = together, job[JOB_SPAN] = (g->kernel[1] - 1) * g->dilation[1] + 1;
    job[JOB_PITCH] = columns * lanes(g), job[JOB_SUMS_AT] = together * job[JOB_SPAN] * job[JOB_PITCH];
    divide(g, layer, 1, rows, band, units, chunk, job[JOB_SUMS_AT] + (run + lanes(g)) * lanes(g));
    job[JOB_CHUNK] = chunk * lanes(g), job[JOB_PANEL] = lanes(g) * (1 + taps(g));
    use(layer, tile->code, CHANNEL_PANELS, lanes(g));
    return FASTCONV_OK;
}

static int depthwise(const struct geometry *g, fastconv_layer *layer)
{
    const struct tile *tile;
    if (g->last) {
        if (g->filters != 1 || !(tile = window_of(g, tiled_depthwise_last[g->dtype])))
            return over_lines(g, layer, tiled_depthwise_lines[g->dtype]);
        over_rows(g, layer, tile);
        return FASTCONV_OK;
    }
    int narrow = g->out_space[2] <= lanes(g) / 2 && g->dilation[1] == 1 && g->dilation[2] == 1;
    if (narrow && taps(g) > TAPS_OF_TWO && over_lines(g, layer, tiled_depthwise_lines[g->dtype]) == FASTCONV_OK) return FASTCONV_OK;
    if (narrow && (tile = window_of(g, tiled_depthwise_two[g->dtype]))) over_channels(g, layer, tile, 2);
    else if ((tile = window_of(g, tiled_depthwise[g->dtype]))) over_channels(g, layer, tile, 1);
    else {
        int error = over_lines(g, layer, tiled_depthwise_lines[g->dtype]);
        if (error == FASTCONV_NOT_EXPORTED && g->stride[2] <= 2) return standard(g, layer);
        return error;
    }
    return FASTCONV_OK;
}

/* Transposed: rows fall into phases, each a small convolution --------------------------------------------------------------- */

static int64_t common_divisor(int64_t a, int64_t b) { return b ? common_divisor(b, a % b) : a; }

/* Numbers of a channel's part of the image for a band of rows. */
static int64_t spread_sheet(const struct geometry *g, int64_t band, int64_t depth, int64_t pitch, int64_t *phase)
{
    *phase = ((band - 1 + g->dilation[1] * (g->kernel[1] - 1)) / g->stride[1] + 1) * pitch;
    return LINE * (ceiling(depth * *phase + LINE, LINE) | 1);
}

/* Of all outputs along one axis together: the taps that a number of the image reaches them by. */
static int64_t taps_inside(const struct geometry *g, int axis)
{
    int64_t count = 0, stride = g->stride[axis];
    for (int64_t tap = 0; tap < g->kernel[axis]; tap++) {
        int64_t first = g->before[axis] - tap * g->dilation[axis]; /* of the outputs that the tap makes of the image */
        int64_t end = -below(-g->out_space[axis] - first, stride), begin = -below(-first, stride);
        count += at_least(0, at_most(g->space[axis], end) - at_least(0, begin));
    }
    return count;
}

/* Of tiled_transposed, the columns of taps in the padding included. */
static double transposed_cost(const struct geometry *g, const struct tile *tile)
{
    double updates = g->kernel[2] * even_work(g->out_space[2] / g->stride[2], tile), sums = turn_sums[g->dtype];
    double put = (double)g->out_space[0] * g->out_space[1] * ceiling(g->out_space[2], lanes(g)) * width(g, tile) * (g->last ? COPY : sums);
    double rows_of_taps = (double)taps_inside(g, 0) * taps_inside(g, 1);
    return (double)images(g) * g->groups * ceiling(g->filters, width(g, tile)) * (g->channels * rows_of_taps * updates + put);
}

static int transposed(const struct geometry *g, fastconv_layer *layer)
{
    int64_t *job = layer->job, rows = g->out_space[1], out_width = g->out_space[2], columns = out_width / g->stride[2];
    const struct tile *tile = cheapest(g, tiled_transposed[g->dtype], at_least(1, columns) + 1, lanes_cost);
    if (!tile) return FASTCONV_NOT_EXPORTED;
    double cost;
    const struct scheme *scheme = best_winograd(g, &cost);
    if (scheme && cost <= transposed_cost(g, tile)) {
        plan_winograd(g, scheme, layer);
        return FASTCONV_OK;
    }
    int64_t first = -below(g->dilation[2] * (g->kernel[2] - 1) - g->before[2], g->stride[2]);
    int64_t pitch = (out_width - 1 + g->before[2]) / g->stride[2] - first + 1, phase;
    int64_t depth = g->dilation[0] * (g->kernel[0] - 1) / g->stride[0] + 1, run = at_least(1, RUN / out_width);
    int64_t sums = (run * out_width + at_least(lanes(g), tile->rows * g->stride[2])) * width(g, tile);
    int64_t a_row = ceiling(g->channels * spread_sheet(g, rows, depth, pitch, &phase), rows), band, chunk;
    int64_t most = at_most(rows, at_least(1, (scratch_numbers(g) - sums) / a_row)), others = g->groups * g->out_space[0];
    spread_out(g, rows, width(g, tile), at_least(g->batch, 1) * others, most, weight_bytes(g), &band, &chunk);
    int64_t sheet = spread_sheet(g, band, depth, pitch, &phase);
    if (!(layer->table = calloc(taps(g) + 2, sizeof *layer->table))) return FASTCONV_NO_MEMORY;
    job[JOB_SUMS_AT] = ceiling(g->channels * sheet + tile->rows + LINE, LINE) * LINE, job[JOB_RUN] = run;
    set_sizes(job, JOB_SPREAD, g->stride), set_sizes(job, JOB_APART, g->dilation), set_sizes(job, JOB_CROP, g->before);
    for (int d = 0; d < 3; d++) {
        int64_t common = common_divisor(g->stride[d], g->dilation[d]);
        job[JOB_HOP + d] = g->stride[d] / common, job[JOB_BACK + d] = g->dilation[d] / common;
    }
    set_three(job, JOB_STRIDE, 1, 1, 1), set_three(job, JOB_DILATION, 1, 1, 1), set_three(job, JOB_BEFORE, 0, 0, -first);
    set_three(job, JOB_PHASES, depth, 1, 1);
    job[JOB_PITCH] = pitch, job[JOB_PHASE_SIZE] = phase, job[JOB_PHASE_ROWS] = phase / pitch, job[JOB_SHEET] = sheet;
    job[JOB_PANELS] = ceiling(g->filters, width(g, tile)), job[JOB_PANEL] = width(g, tile) * (1 + g->channels * taps(g));
    job[JOB_FILL_CODE] = (intptr_t)fill_sheets[g->dtype];
    divide(g, layer, others, rows, band, g->filters, chunk, job[JOB_SUMS_AT] + sums);
    use(layer, tile->code, LANE_PANELS, width(g, tile));
    return FASTCONV_OK;
}

/* The choice ---------------------------------------------------------------------------------------------------------------- */

/* Whether all windows are single pixels of the image. */
static int is_pointwise(const struct geometry *g)
{
    int single = g->groups == 1 && taps(g) == 1;
    for (int d = 0; d < 3; d++) single &= g->before[d] == 0 && (g->out_space[d] - 1) * g->stride[d] < g->space[d];
    return single;
}

/* With steps of 1 a pointwise layer does not know where a row of pixels ends. */
static struct geometry flattened(const struct geometry *g)
{
    struct geometry flat = *g;
    if (memcmp(g->space, g->out_space, sizeof g->space) || g->x_given) return flat;
    for (int d = 0; d < 3; d++) flat.space[d] = flat.out_space[d] = flat.stride[d] = flat.dilation[d] = 1;
    flat.space[2] = flat.out_space[2] = pixels(g);
    return flat;
}

/* The most special kind that the problem is of and the library holds. */
static enum kind kind_of(const struct geometry *g)
{
    if (g->transposed) return TRANSPOSED;
    if (g->channels == 1 && direct[DEPTHWISE][0][0]) return DEPTHWISE;
    return is_pointwise(g) && direct[POINTWISE][0][0] ? POINTWISE : STANDARD;
}

/* A transposed layer of stride 1 is an ordinary one, whose weight is mirrored: what the one crops off, the other does not pad. */
static void simplify(struct geometry *g)
{
    if (!g->transposed || g->direct || g->stride[0] != 1 || g->stride[1] != 1 || g->stride[2] != 1) return;
    for (int d = 0; d < 3; d++) g->before[d] = g->dilation[d] * (g->kernel[d] - 1) - g->before[d];
    g->transposed = 0, g->mirrored = 1;
}

static int tiled(const struct geometry *g, enum kind kind, fastconv_layer *layer)
{
    if (kind == TRANSPOSED) return transposed(g, layer);
    if (kind == DEPTHWISE) return depthwise(g, layer);
    if (kind == POINTWISE && !g->x_given && !memcmp(g->space, g->out_space, sizeof g->space)) return pointwise(g, layer);
    return kind == POINTWISE ? standard(g, layer) : dense(g, layer);
}

int plan(struct geometry *whole, fastconv_layer *layer)
{
    struct geometry asked = *whole;
    simplify(whole);
    if (!direct[kind_of(whole)][whole->dtype][whole->last]) *whole = asked;
    enum kind kind = kind_of(whole);
    struct geometry flat = kind == POINTWISE ? flattened(whole) : *whole;
    const struct geometry *g = &flat;
    kernel *plain = direct[kind][g->dtype][g->last];
    if (!plain) return FASTCONV_NOT_EXPORTED;
    describe(g, layer->job), finish(g, layer->job);
    int error = g->direct ? FASTCONV_NOT_EXPORTED : tiled(g, kind, layer);
    if (error != FASTCONV_NOT_EXPORTED) return error;
    if (!g->last) directly(g, layer, plain, AS_THEY_COME, g->groups * g->filters);
    else if (kind == DEPTHWISE) directly(g, layer, plain, TAPS_FIRST, 1);
    else directly(g, layer, plain, FILTERS_LAST, g->groups);
    return FASTCONV_OK;
}

/* Depthwise separable ------------------------------------------------------------------------------------------------------- */

/* Bands of rows and chunks of filters by which the busiest part should be done first: a band streams the weights of its chunk, and
 * leaves pixels over from strips of `strip`; a chunk has the depthwise part computed anew. `sums`: numbers kept of each pixel. */
static void over_bands(
    const struct geometry *g, const struct geometry *outer, fastconv_layer *layer, const struct tile *tile, int64_t unit,
    int64_t strip, int64_t sums)
{
    int64_t channels = outer->channels, filters = outer->filters, out_width = g->out_space[2], rows = g->out_space[1];
    int64_t images = at_least(g->batch, 1), units = ceiling(filters, unit), weights = unit * channels * g->number;
    int64_t most = at_least(1, at_most(rows, scratch_numbers(g) / (out_width * (channels + sums)))), band = 1, chunks = 1;
    static const double stream[] = STREAM;
    double speed = stream[units * weights > L2], least = INFINITY;
    double a_row = DEPTHWISE_UPDATES * taps(g) * out_width * channels / lanes(g);
    for (int64_t c = 1; c <= at_most(units, g->parts); c++)
        for (int64_t b = most; b > 0; b--) {
            double products = (double)ceiling(b * out_width, strip) * strip * unit * channels / lanes(g);
            double item = ceiling(units, c) * (products + weights / speed) + b * a_row;
            double busiest = ceiling(images * ceiling(rows, b) * c, g->parts) * item;
            if (busiest < least) least = busiest, band = b, chunks = c;
        }
    int64_t pitch = LINE * (ceiling(at_least(band * out_width, strip) + lanes(g), LINE) | 1);
    int64_t most_pixels = at_least(at_least(band * out_width, strip), lanes(g));
    int64_t sums_at = g->last ? most_pixels * channels : channels * pitch;
    layer->job[JOB_PITCH] = pitch, layer->job[JOB_SUMS_AT] = sums_at, layer->job[JOB_OUTER_PANEL] = unit * (1 + channels);
    layer->job[JOB_PANEL] = (g->last ? lanes(g) : 1) * (1 + taps(g));
    int64_t scratch = sums_at + sums * most_pixels + (g->last ? 0 : SEPARABLE_APART * pitch);
    divide(g, layer, 1, rows, band, filters, ceiling(units, chunks) * unit, scratch);
    layer->code = tile->code, layer->outer.unit = unit;
}

/* Strips all as long as the tile is tall. */
static double strips_cost(const struct geometry *g, const struct tile *tile)
{
    int64_t out_width = g->out_space[2];
    double work = (double)ceiling(out_width, tile->rows) * g->channels * update(tile->rows, tile->vectors, tile->vectors);
    return ceiling(g->filters, width(g, tile)) * (work + ceiling(out_width, lanes(g)) * width(g, tile) * TURN);
}

static int tiled_separably(const struct geometry *g, const struct geometry *outer, fastconv_layer *layer)
{
    const struct geometry flat = flattened(outer);
    const struct tile *in_lanes = g->last ? tiled_separable_last[g->dtype] : tiled_separable[g->dtype], *pixel = NULL;
    const struct tile *window = window_of(g, g->last ? fill_band_last[g->dtype] : fill_band[g->dtype]);
    int has_code = window && (!g->last || g->filters == 1);
    in_lanes = cheapest(&flat, in_lanes, INT64_MAX, strips_cost);
    if (!g->last) pixel = cheapest(&flat, tiled_separable_pixels[g->dtype], INT64_MAX, in_place_cost);
    if (!in_lanes) return FASTCONV_NOT_EXPORTED;
    if (pixel && in_place_cost(&flat, pixel) <= strips_cost(&flat, in_lanes)) {
        over_bands(g, outer, layer, pixel, pixel->rows, width(g, pixel), 0);
        layer->outer.order = ROW_PANELS;
    } else {
        over_bands(g, outer, layer, in_lanes, width(g, in_lanes), in_lanes->rows, g->last ? 0 : width(g, in_lanes));
        layer->outer.order = LANE_PANELS;
    }
    layer->weights.order = !has_code ? (g->last ? TAPS_FIRST : AS_THEY_COME) : g->last ? CHANNEL_PANELS : ROW_PANELS;
    layer->weights.unit = has_code && g->last ? lanes(g) : 1;
    layer->job[JOB_FILL_CODE] = (intptr_t)(has_code ? window->code : g->last ? sum_band_last[g->dtype] : sum_band[g->dtype]);
    return FASTCONV_OK;
}

int plan_separable(const struct geometry *g, const struct geometry *outer, fastconv_layer *layer)
{
    kernel *plain = direct[SEPARABLE][g->dtype][g->last];
    if (!plain) return FASTCONV_NOT_EXPORTED;
    describe(g, layer->job), finish_inner(g, layer->job), finish(outer, layer->job);
    layer->job[JOB_OUTER_FILTERS] = outer->filters;
    int error = g->direct ? FASTCONV_NOT_EXPORTED : tiled_separably(g, outer, layer);
    if (error != FASTCONV_NOT_EXPORTED) return error;
    int64_t rows = g->out_space[1], numbers = g->out_space[2] * outer->channels; /* of a row of the depthwise result */
    int64_t band = at_least(1, at_most(rows, scratch_numbers(g) / numbers));
    divide(g, layer, 1, rows, g->last ? 1 : band, 1, 1, g->last ? outer->channels : band * numbers);
    use(layer, plain, g->last ? TAPS_FIRST : AS_THEY_COME, 1);
    layer->outer.order = g->last ? FILTERS_LAST : AS_THEY_COME, layer->outer.unit = 1;
    return FASTCONV_OK;
}
