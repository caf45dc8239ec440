/* One step of a trained model for some rows, all layers and the output layer in a call, and the drawing of tokens: what sampling does for
   each character.

   For one row the weights are read in 24 bits: what a character costs is reading them. 16 bits would change one text in six of a
   thousand characters; 24 change it no more than another order of summation does. For many rows the same numbers lie in float32.
   `stepper.py` packs the weights and calls this through ctypes; every buffer is the caller's, and nothing but the helper of _helper.h is
   kept between calls.

   64 rows of a matrix (N, K) make a panel, four quarters of 16. In 24 bits, each column holds 3 x 16 words of 32 bits: word i of the first
   three quarters is their row i's weight times 256, plus a byte that the packing has allowed for; the three bytes make the fourth
   quarter's weight. Hidden units are padded to P, a multiple of 16, gate by gate, so that no vector is partly filled. */

#ifndef __GNUC__
#error "needs the vector extensions of GCC or Clang"
#endif

#include <math.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __x86_64__
#include <immintrin.h>
#endif

enum { WORDS = 16, ROWS = 4 * WORDS };
enum { TILE = 6 };
enum { MLP, RNN, GRU, LSTM };
enum { TANH, RELU, SIGMOID };

struct matrix {
    int64_t panels, columns;
    const int32_t *words; /* (panels, columns, 3, 16), or NULL and */
    const float *units;   /* (panels, columns, 64): the same weights, as float32 */
    const float *scale;   /* (panels, 64): what a weight's unit is worth / 256 */
};

struct layer {
    struct matrix w_x, w_h, w_reset; /* the first layer has no w_x: it has the table; w_reset: of a gru that resets before */
    const float *b, *b_h;            /* (G·P), (P) */
};

struct model {
    int64_t cell, activation, reset_after, layers, gates, padded;
    int64_t width;              /* floats of a row of scratch: G·P up to a whole panel */
    const float *table;         /* (V+1, G·P) */
    const struct layer *stack;  /* (layers) */
    struct matrix output;
    const float *output_b;      /* (panels, 64) */
};

struct step {
    int64_t rows, stride, logits_width;
    const int64_t *tokens; /* (rows) */
    float *h, *c;          /* (rows, P) of the first layer, those of the next `stride` floats further on; overwritten */
    float *logits;         /* (rows, logits_width) */
    float *scratch;        /* (4, rows, width) */
    struct helper *helper; /* or NULL */
};

struct draw {
    int64_t rows, vocabulary, width;
    const float *logits;   /* (rows, width) */
    const double *uniform; /* (rows), from 0 to below 1 */
    int64_t *tokens;       /* (rows) */
    double *nats;          /* (rows): what the token costs by the model itself, at temperature 1 */
    double *p;             /* (V up to a multiple of 16) */
    float temperature;
};

#include "_helper.h"

#define EACH _Pragma("GCC unroll 8")
#define SHIFTED(a, b, c) ((c) << 24 | ((b) << 16 & 0xff0000) | ((a) << 8 & 0xff00))

#ifdef __x86_64__
#define HOLD(x) __asm__("" : "+v"(x)) /* in a register, where the compiler would read it again */
#define AVX512 "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma"
#define NAME(x) x##_vbmi2
#define TARGET __attribute__((target(AVX512 ",avx512vbmi2")))
#define EXPAND(a, b, c) (ivec)_mm512_shrdi_epi32(_mm512_shrdi_epi32((__m512i)(a << 24), (__m512i)b, 8), (__m512i)c, 8)
#define LANES 16
#define PARTS 1
#define PANELS 2
#define VECTORS 4
#define LONE 4
#define CHUNK 512
#include "_step.h"

#define NAME(x) x##_avx512
#define TARGET __attribute__((target(AVX512)))
#define EXPAND SHIFTED
#define LANES 16
#define PARTS 1
#define PANELS 2
#define VECTORS 4
#define LONE 4
#define CHUNK 512
#include "_step.h"

#define NAME(x) x##_avx2
#define TARGET __attribute__((target("avx2,fma")))
#define EXPAND SHIFTED
#define LANES 8
#define PARTS 2
#define PANELS 1
#define VECTORS 2
#define LONE 8
#define CHUNK 64
#include "_step.h"
#endif

#ifndef HOLD
#define HOLD(x)
#endif
#define NAME(x) x##_base
#define TARGET
#define EXPAND SHIFTED
#define LANES 4
#define PANELS 1
#define LONE 8
#define CHUNK 64
#ifdef __aarch64__
#define PARTS 4
#define VECTORS 4
#else
#define PARTS 2
#define VECTORS 2
#endif
#include "_step.h"

#define EXPORT __attribute__((visibility("default")))

static int ceiling = 3;

/* The widest instructions to use: 3 AVX-512 with VBMI2, 2 AVX-512, 1 AVX2, 0 what every machine of the kind has. */
static int level(void)
{
#ifdef __x86_64__
    __builtin_cpu_init();
    if (ceiling >= 2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw")
        && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma"))
        return ceiling >= 3 && __builtin_cpu_supports("avx512vbmi2") ? 3 : 2;
    if (ceiling >= 1 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return 1;
#endif
    return 0;
}

#ifdef __x86_64__
#define CALL(name, ...)                                                                                                            \
    switch (level()) {                                                                                                             \
    case 3: name##_vbmi2(__VA_ARGS__); break;                                                                                      \
    case 2: name##_avx512(__VA_ARGS__); break;                                                                                     \
    case 1: name##_avx2(__VA_ARGS__); break;                                                                                       \
    default: name##_base(__VA_ARGS__);                                                                                             \
    }
#else
#define CALL(name, ...) name##_base(__VA_ARGS__);
#endif

EXPORT void charrnn_step(const struct model *m, const struct step *s) { CALL(step, m, s) }
EXPORT void charrnn_draw(const struct draw *d) { CALL(draw, d) }

/* A product alone, for tests: sums (rows, lds) in units of the scale, x (rows, ldx). */
EXPORT void charrnn_product(const struct matrix *m, int64_t rows, const float *x, int64_t ldx, float *sums, int64_t lds)
{
    CALL(product, m, rows, x, ldx, sums, lds, NULL)
}

/* A second thread for the steps of one row, to be named in struct step and to be let go before what it reads is freed. */
EXPORT struct helper *charrnn_hire(int64_t panels)
{
#ifdef __x86_64__
    switch (level()) {
    case 3: return hire(panels, piece_vbmi2);
    case 2: return hire(panels, piece_avx512);
    case 1: return hire(panels, piece_avx2);
    }
#endif
    return hire(panels, piece_base);
}

EXPORT void charrnn_dismiss(struct helper *h) { dismiss(h); }

/* Set the widest level to use, for tests; which one is used. */
EXPORT int charrnn_limit(int most)
{
    ceiling = most;
    return level();
}

/* Built as a Python extension only so that pip compiles it: importing it is an error, ctypes opens it. */
EXPORT void *PyInit__step(void) { return NULL; }
