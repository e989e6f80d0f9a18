/* Compute the problems of a file, whole and in parts, and compare them with the results that it holds.
 *
 * For each: int64 1, or 2 if it is separable; so many fastconv_problem; a double, how far a number may be off; then the arrays x,
 * weight and bias of each problem, residual, result, each as an int64 size in bytes (0: there is none) and its numbers. */
#define _GNU_SOURCE
#include <fastconv.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define PARTS 3
#define PAGE 4096

typedef struct {
    int64_t size;
    void *numbers;
} array;

/* Memory that ends where reading or writing on is a fault; it lasts as long as the program. */
static void *guarded(int64_t size)
{
    int64_t whole = (size + PAGE - 1) / PAGE * PAGE;
    char *pages = mmap(NULL, whole + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED || mprotect(pages + whole, PAGE, PROT_NONE)) exit(2);
    return pages + whole - size;
}

static void get(void *memory, size_t size, FILE *file)
{
    if (fread(memory, 1, size, file) != size) exit(2);
}

static array read_array(FILE *file)
{
    array a;
    get(&a.size, sizeof a.size, file);
    a.numbers = a.size ? guarded(a.size) : NULL;
    if (a.size) get(a.numbers, a.size, file);
    return a;
}

static int wrong(const void *got, array want, int float64, double bound)
{
    int64_t count = want.size / (float64 ? 8 : 4);
    for (int64_t i = 0; i < count; i++) {
        double a = float64 ? ((const double *)got)[i] : ((const float *)got)[i];
        double b = float64 ? ((const double *)want.numbers)[i] : ((const float *)want.numbers)[i];
        if (!(fabs(a - b) <= bound)) return 1;
    }
    return 0;
}

static void expect(int error, int64_t number)
{
    if (!error) return;
    printf("problem %lld: %s\n", (long long)number, fastconv_message(error));
    exit(1);
}

int main(int count, char **arguments)
{
    FILE *file = count == 2 ? fopen(arguments[1], "rb") : NULL;
    int64_t kinds, number = 0, failed = 0;
    if (!file) return 2;
    for (; fread(&kinds, sizeof kinds, 1, file) == 1; number++) {
        fastconv_problem problems[2];
        double bound;
        array weights[2] = {{0}}, biases[2] = {{0}};
        get(problems, kinds * sizeof *problems, file);
        get(&bound, sizeof bound, file);
        array x = read_array(file);
        for (int k = 0; k < kinds; k++) weights[k] = read_array(file), biases[k] = read_array(file);
        array residual = read_array(file), want = read_array(file);
        fastconv_layer *layer;
        if (kinds == 1) expect(fastconv_create(problems, weights[0].numbers, biases[0].numbers, &layer), number);
        else expect(fastconv_create_separable(&problems[0], &problems[1], weights[0].numbers, biases[0].numbers, weights[1].numbers,
                                              biases[1].numbers, &layer), number);
        char *whole = guarded(want.size), *parts = guarded(want.size), *workspace = guarded(fastconv_workspace(layer));
        memset(whole, 0xff, want.size), memset(parts, 0xff, want.size); /* NaN, where nothing is written */
        expect(fastconv_run(layer, x.numbers, residual.numbers, whole, NULL), number);
        for (int part = PARTS; part-- > 0;)
            expect(fastconv_run_part(layer, part, PARTS, x.numbers, residual.numbers, parts, workspace), number);
        if (wrong(whole, want, problems[0].dtype, bound) || memcmp(whole, parts, want.size)) {
            printf("problem %lld: wrong%s\n", (long long)number, wrong(whole, want, problems[0].dtype, bound) ? "" : " in parts");
            failed++;
        }
        fastconv_free(layer);
    }
    printf("%lld problems, %lld wrong\n", (long long)number, (long long)failed);
    return failed > 0;
}
