/* A matrix times a vector, the weights in 24 bits: what one character costs is reading them. 16 bits would change one text in six of
   a thousand characters; 24 change it no more than another order of summation does.

   `matvec.py` packs the weights and calls this through ctypes; every buffer is the caller's, and nothing is kept between calls.
   64 rows make a panel, four quarters of 16. For each column it holds 3 x 16 words of 32 bits. Word i of the first three quarters is
   their row i's weight times 256, plus a byte that the packing has allowed for; the three bytes make the fourth quarter's weight. */

#ifndef __GNUC__
#error "needs the vector extensions of GCC or Clang"
#endif

#include <stddef.h>
#include <stdint.h>

enum { WORDS = 16, ROWS = 4 * WORDS, AHEAD = 3072 }; /* AHEAD: bytes; memory is read the faster for it */

struct matvec {
    int64_t rows, columns;
    const int32_t *words; /* (panels, columns, 3, 16) */
    const float *scale;   /* (rows), what a weight's unit is worth / 256 */
    const float *x;       /* (columns) */
    float *y;             /* (rows) */
};

#define EACH _Pragma("GCC unroll 8")

/* PARTS vectors of LANES words are taken at a time, of STEPS columns, whose sums are apart so that they need not wait for each other:
   as many as there are registers for. */
#define DEFINE(NAME, TARGET, LANES, PARTS, STEPS)                                                                                  \
    typedef int32_t NAME##_words __attribute__((vector_size(4 * LANES), aligned(4), may_alias));                                   \
    typedef float NAME##_floats __attribute__((vector_size(4 * LANES), aligned(4), may_alias));                                    \
    TARGET static inline __attribute__((always_inline)) void NAME##_column(NAME##_floats *sum, const int32_t *words, float x)      \
    {                                                                                                                              \
        NAME##_words a = *(const NAME##_words *)words;                                                                             \
        NAME##_words b = *(const NAME##_words *)(words + WORDS);                                                                   \
        NAME##_words c = *(const NAME##_words *)(words + 2 * WORDS);                                                               \
        NAME##_words d = c << 24 | (b << 16 & 0xff0000) | (a << 8 & 0xff00);                                                       \
        __builtin_prefetch((const char *)words + AHEAD);                                                                           \
        __builtin_prefetch((const char *)(words + WORDS) + AHEAD);                                                                 \
        __builtin_prefetch((const char *)(words + 2 * WORDS) + AHEAD);                                                             \
        sum[0] += __builtin_convertvector(a, NAME##_floats) * x;                                                                   \
        sum[1] += __builtin_convertvector(b, NAME##_floats) * x;                                                                   \
        sum[2] += __builtin_convertvector(c, NAME##_floats) * x;                                                                   \
        sum[3] += __builtin_convertvector(d, NAME##_floats) * x;                                                                   \
    }                                                                                                                              \
    TARGET static void NAME(const struct matvec *m)                                                                                \
    {                                                                                                                              \
        const int32_t *words = m->words;                                                                                           \
        for (int64_t row = 0; row < m->rows; row += ROWS, words += 3 * WORDS * m->columns) {                                       \
            float sums[ROWS];                                                                                                      \
            for (int part = 0; part < WORDS; part += LANES * PARTS) {                                                              \
                NAME##_floats sum[STEPS][PARTS][4] = {{{{0}}}};                                                                    \
                int64_t k = 0;                                                                                                     \
                for (; k + STEPS <= m->columns; k += STEPS)                                                                        \
                    EACH for (int s = 0; s < STEPS; s++)                                                                           \
                        EACH for (int p = 0; p < PARTS; p++)                                                                       \
                            NAME##_column(sum[s][p], words + 3 * WORDS * (k + s) + part + p * LANES, m->x[k + s]);                 \
                for (; k < m->columns; k++)                                                                                        \
                    EACH for (int p = 0; p < PARTS; p++)                                                                           \
                        NAME##_column(sum[0][p], words + 3 * WORDS * k + part + p * LANES, m->x[k]);                               \
                EACH for (int p = 0; p < PARTS; p++)                                                                               \
                    EACH for (int q = 0; q < 4; q++) {                                                                             \
                        EACH for (int s = 1; s < STEPS; s++)                                                                       \
                            sum[0][p][q] += sum[s][p][q];                                                                          \
                        *(NAME##_floats *)(sums + q * WORDS + part + p * LANES) = sum[0][p][q];                                    \
                    }                                                                                                              \
            }                                                                                                                      \
            int64_t left = m->rows - row < ROWS ? m->rows - row : ROWS;                                                            \
            for (int64_t n = 0; n < left; n++)                                                                                     \
                m->y[row + n] = m->scale[row + n] * sums[n];                                                                       \
        }                                                                                                                          \
    }

#ifdef __x86_64__
DEFINE(matvec_avx512, __attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma"))), 16, 1, 4)
DEFINE(matvec_avx2, __attribute__((target("avx2,fma"))), 8, 2, 1)
#endif
#ifdef __aarch64__
DEFINE(matvec_base, , 4, 4, 1) /* 32 registers */
#else
DEFINE(matvec_base, , 4, 2, 1)
#endif

#define EXPORT __attribute__((visibility("default")))

static int ceiling = 2;

EXPORT void charrnn_matvec(const struct matvec *m)
{
#ifdef __x86_64__
    __builtin_cpu_init();
    if (ceiling >= 2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw")
        && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma")) {
        matvec_avx512(m);
        return;
    }
    if (ceiling >= 1 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        matvec_avx2(m);
        return;
    }
#endif
    matvec_base(m);
}

/* For tests: the widest instructions to use, 2 AVX-512, 1 AVX2, 0 what every machine of the kind has. */
EXPORT void charrnn_limit(int level) { ceiling = level; }

/* Built as a Python extension only so that pip compiles it: importing it is an error, ctypes opens it. */
EXPORT void *PyInit__matvec(void) { return NULL; }
