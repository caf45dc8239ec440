/* Recurrent layers over a whole sequence, and the matrix products around them, for rows of float or double on the CPU.

   The thread that takes a stretch of the batch's rows walks them through all T steps, so that no step waits for another thread.
   Each element of a result is summed in one order, which neither the number of threads nor who took what can change.
   `native.py` calls this through ctypes; every buffer is the caller's, and nothing is kept between calls.

   Shapes as in the package: T steps, B rows, H units, G gates side by side (gru r, z, candidate; lstm i, f, candidate, o).

       tokens     (T, B) or null   which row of `source`, the table (V+1, G.H); null: `source` is (T, B, G.H)
       w_h, b_h   (H, G.H), (H)
       h, c       (B, H)           the initial state
       outputs    (T, B, H)        H_1..H_T
       gates      (T, B, G.H)      forward: the gates. backward: overwritten with the gradient of what the input contributed
       extra      (T, B, H)        lstm: C_1..C_T. gru: R_t * H_{t-1} (reset before), or H_{t-1} W_hh + b_hh (after), which
                                   backward overwrites with its gradient. rnn: null
       gates_step, extra_step      elements from one step to the next; 0 where only backward would need them: then one step's
                                   worth of memory does, and an lstm finds its last C there
       mask       (B, H) or null   what the outputs of a row are multiplied by on their way out, not to the next step: dropout
       dropped    (T, B, H)        forward, where there is a mask: the outputs times it
       d_outputs  (T, B, H) or null: the gradient of the outputs, or of these products
       d_h, d_c   (B, H)           in: the gradient of the final state; out: of the initial one
       packed     G * (H rounded up to 16) squared elements of scratch */

#ifndef __GNUC__
#error "needs the vector extensions of GCC or Clang"
#endif

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#ifdef __x86_64__
#include <immintrin.h>
#if defined(__linux__) && defined(__has_include)
#if __has_include(<amxtileintrin.h>) /* the assembler knows it, too */
#define AMX
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif
#endif

enum { RNN, GRU, LSTM };
enum { TANH, RELU, SIGMOID };
enum { FLOAT, DOUBLE, BFLOAT16 }; /* the last: float, but what is multiplied is rounded */
enum { ROWS_TIMES, TRANSPOSED_TIMES, SCATTER, SOFTMAX };
enum { SUM, PRODUCT, ADAMW, SQUARES, COLUMNS };
enum { BLOCK = 384, AHEAD = 6, MOST_THREADS = 256 }; /* BLOCK: rows that multiply_tn packs at a time */

struct sequence {
    int64_t element, cell, activation, reset_after, backward, threads, steps, rows, size, gates_step, extra_step;
    const int64_t *tokens;
    void *source, *w_h, *b_h, *h, *c, *outputs, *gates, *extra, *mask, *dropped, *d_outputs, *d_h, *d_c, *packed;
};

/* ROWS_TIMES        c (m, n) = bias + a (m, k) . b (k, n); packed: k * n, each rounded up to 16, elements of scratch;
                     where `symmetric`, only what lies above c's diagonal is computed
   TRANSPOSED_TIMES  c (m, n) = a (k, m)^T . b (k, n), or c += where `add`
   SCATTER           c (.., n) += a (k, n), row by row to the rows that tokens (k) name; null: all to row 0
   SOFTMAX           c (k, n) from logits to softmax minus one at column tokens (k) where `add`; what row i's token costs in nats
                     goes to element i of a, doubles
   Rows of a and c lie lda and ldc elements apart; element (i, j) of b lies at b[i * b_down + j * b_right]. */
struct product {
    int64_t element, kind, threads, m, n, k, lda, ldc, b_down, b_right, add, symmetric, block, column_units;
    const int64_t *tokens;
    void *a, *b, *c, *bias, *packed;
};

/* Element by element. SUM: out = a x + b y, PRODUCT: out = x y; out may be either of them.
   ADAMW: an update of out by its gradient y: m = a m + (1 - a) y, v = b v + (1 - b) y^2, out -= rate m / (even sqrt(v) + epsilon)
   Of matrices (rows, count): SQUARES: out (count) = the columns' sums of y^2, COLUMNS: out = a out + b y with column j times m (count) */
struct elements {
    int64_t element, kind, threads, count, rows;
    double a, b, rate, even, epsilon;
    void *x, *y, *out, *m, *v;
};

/* out (n, m) = what `times` steps of x -> (a + b (x x^T) + c (x x^T)^2) x make of x (n, m), n <= m.
   square: 4 n^2 elements of scratch; packed: n and m, rounded up to 16 each, multiplied */
struct polar {
    int64_t element, threads, n, m, times;
    double a, b, c;
    void *x, *out, *square, *packed;
};

typedef void (*work)(const void *arg, int64_t unit, int64_t units, void *scratch);

struct kernels {
    work pack_recurrent, walk, pack_right, multiply, mirror, multiply_tn, scatter, softmax, each;
    int64_t lanes, tile, wide, size, low;
};

/* ---- threads: helpers that sleep between calls. Units of work are taken in turn, so a helper that does not get a core is not
   waited for; its share is done by the others. Both sides watch for a while before they sleep: in training the next call follows
   soon, and to be woken takes 40 us and more. Where others want the core, who watches it away is not given it when there is work:
   a helper that lost it for a while watches but shortly, for the next WARY times. ---- */

struct team {
    work function;
    const void *arg;
    int64_t units;
    size_t scratch;
    char *memory;
    int seats; /* for helpers yet to come, under `lock` */
    atomic_long next, member;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER, turn = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t posted = PTHREAD_COND_INITIALIZER, finished = PTHREAD_COND_INITIALIZER;
static struct team *current; /* under `lock` */
static int helpers;
static atomic_int at_work, calls;

enum { SHORT = 20000, LONG = 1000000, LOST = 500000, WARY = 500 }; /* but for the last in nanoseconds */
static atomic_int wary; /* how many times are left */

static int64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * (int64_t)1000000000 + t.tv_nsec;
}

static inline void glance(void)
{
#ifdef __x86_64__
    __builtin_ia32_pause();
#else
    atomic_thread_fence(memory_order_seq_cst);
#endif
}

/* While `*what` is `value` (`is` 1) or is not (0), and for no longer than is wise. Says whether the core was lost meanwhile. */
static int watch(const atomic_int *what, int value, int is)
{
    int lost = 0;
    for (int64_t then = now(), end = then + (wary > 0 ? SHORT : LONG); (*what == value) == is && then < end;) {
        glance();
        int64_t t = now();
        lost |= t - then > LOST;
        then = t;
    }
    return lost;
}

static void labour(struct team *team)
{
    void *scratch = team->memory + (size_t)atomic_fetch_add(&team->member, 1) * team->scratch;
    for (int64_t unit; (unit = atomic_fetch_add(&team->next, 1)) < team->units;)
        team->function(team->arg, unit, team->units, scratch);
}

static void *help(void *unused)
{
    (void)unused;
    for (int seen = 0;;) {
        if (watch(&calls, seen, 1))
            wary = WARY;
        else if (wary > 0)
            wary--;
        pthread_mutex_lock(&lock);
        while (!current || !current->seats)
            pthread_cond_wait(&posted, &lock);
        struct team *team = current;
        seen = calls;
        team->seats--;
        atomic_fetch_add(&at_work, 1);
        pthread_mutex_unlock(&lock);
        labour(team);
        pthread_mutex_lock(&lock);
        if (atomic_fetch_sub(&at_work, 1) == 1)
            pthread_cond_signal(&finished);
        pthread_mutex_unlock(&lock);
    }
    return NULL;
}

/* A forked child has no helpers, whatever they were doing. */
static void forget(void)
{
    pthread_mutex_init(&lock, NULL);
    pthread_mutex_init(&turn, NULL);
    pthread_cond_init(&posted, NULL);
    pthread_cond_init(&finished, NULL);
    current = NULL;
    helpers = 0;
    at_work = 0;
}

static void enlist(int64_t wanted) /* under `lock` */
{
    static int watched;
    pthread_t thread;
    pthread_attr_t attributes;
    if (!watched)
        watched = !pthread_atfork(NULL, NULL, forget);
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    while (helpers < wanted && !pthread_create(&thread, &attributes, help, NULL))
        helpers++;
    pthread_attr_destroy(&attributes);
}

/* All units, by up to `threads` threads; while another call has the helpers, by this one alone. 0, or 1 where memory ran out. */
static int run(int64_t threads, work function, const void *arg, int64_t units, size_t scratch)
{
    struct team team = {.function = function, .arg = arg, .units = units, .scratch = (scratch + 127) & ~(size_t)63};
    if (threads > units)
        threads = units;
    if (threads > MOST_THREADS)
        threads = MOST_THREADS;
    if (threads < 1)
        return 0;
    int mine = threads > 1 && !pthread_mutex_trylock(&turn);
    if (!mine)
        threads = 1;
    if (posix_memalign((void **)&team.memory, 64, team.scratch * (size_t)threads)) {
        if (mine)
            pthread_mutex_unlock(&turn);
        return 1;
    }
    if (mine) {
        pthread_mutex_lock(&lock);
        if (helpers < threads - 1)
            enlist(threads - 1);
        team.seats = (int)threads - 1;
        current = &team;
        calls++;
        pthread_cond_broadcast(&posted);
        pthread_mutex_unlock(&lock);
    }
    labour(&team);
    if (mine) {
        pthread_mutex_lock(&lock);
        current = NULL; /* who has not come by now need not */
        if (at_work) {
            pthread_mutex_unlock(&lock);
            watch(&at_work, 0, 0);
            pthread_mutex_lock(&lock);
        }
        while (at_work)
            pthread_cond_wait(&finished, &lock);
        pthread_mutex_unlock(&lock);
        pthread_mutex_unlock(&turn);
    }
    free(team.memory);
    return 0;
}

/* The float nearest to x among those with 8 bits, ties to even: a bfloat16 in the upper half. */
static inline uint32_t rounded(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return (x == x ? bits + 0x7fff + (bits >> 16 & 1) : bits | 0x400000) & 0xffff0000;
}

#ifdef AMX
/* ---- the registers of AMX: eight of 16 rows of 64 bytes. The compiler's own functions for them do not say that they read memory. ---- */

#define tile_load(n, from, across) \
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #n :: "r"(from), "r"((int64_t)(across) * 4) : "memory")
#define tile_store(n, to, across) \
    __asm__ volatile("tilestored %%tmm" #n ", (%0,%1,1)" :: "r"(to), "r"((int64_t)(across) * 4) : "memory")
#define tile_dot(sum, a, b) __asm__ volatile("tdpbf16ps %%tmm" #b ", %%tmm" #a ", %%tmm" #sum ::)

static void registers_on(void)
{
    const struct { uint8_t palette, start, none[14]; uint16_t width[16]; uint8_t rows[16]; } shape
        = {1, 0, {0}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};
    __asm__ volatile("ldtilecfg %0" :: "m"(shape));
}

static void registers_off(void)
{
    __asm__ volatile("tilerelease" ::);
}
#endif

/* ---- the kernels, once for each element type and instruction set ---- */

#define Q0 0.49999993f
#define Q1 0.1666652f
#define Q2 0.04166839f
#define Q3 0.00836875f
#define Q4 0.00138145f

#ifdef __x86_64__
#define AVX512 __attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")))
#define AVX512_BF16 __attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,avx512bf16,avx2,fma")))
#define AVX2 __attribute__((target("avx2,fma")))
#define T float
#define I int32_t
#define LANES 16
#define TILE 12
#define NAME(x) x##_float_avx512
#define TARGET AVX512
#define EXACT 0
#define LOW 0
#include "_sequence.h"
#define T double
#define I int64_t
#define LANES 8
#define TILE 12
#define NAME(x) x##_double_avx512
#define TARGET AVX512
#define EXACT 1
#define LOW 0
#include "_sequence.h"
#define T float
#define I int32_t
#define LANES 16
#define TILE 12
#define NAME(x) x##_bfloat16_avx512
#define TARGET AVX512_BF16
#define EXACT 0
#define LOW 2
#include "_sequence.h"
#ifdef AMX
#define T float
#define I int32_t
#define LANES 16
#define TILE 32
#define NAME(x) x##_bfloat16_amx
#define TARGET AVX512_BF16
#define EXACT 0
#define LOW 3
#include "_sequence.h"
#endif
#define T float
#define I int32_t
#define LANES 8
#define TILE 6
#define NAME(x) x##_float_avx2
#define TARGET AVX2
#define EXACT 0
#define LOW 0
#include "_sequence.h"
#define T double
#define I int64_t
#define LANES 4
#define TILE 6
#define NAME(x) x##_double_avx2
#define TARGET AVX2
#define EXACT 1
#define LOW 0
#include "_sequence.h"
#endif

#ifdef __aarch64__
#define BASE_TILE 12 /* 32 vector registers */
#else
#define BASE_TILE 4
#endif
#define T float
#define I int32_t
#define LANES 4
#define TILE BASE_TILE
#define NAME(x) x##_float_base
#define TARGET
#define EXACT 0
#define LOW 0
#include "_sequence.h"
#define T double
#define I int64_t
#define LANES 2
#define TILE BASE_TILE
#define NAME(x) x##_double_base
#define TARGET
#define EXACT 1
#define LOW 0
#include "_sequence.h"

#define T float
#define I int32_t
#define LANES 4
#define TILE BASE_TILE
#define NAME(x) x##_bfloat16_base
#define TARGET
#define EXACT 0
#define LOW 1
#include "_sequence.h"

static int ceiling = 4;

static int has_bfloat16(void)
{
#ifdef __x86_64__
    __builtin_cpu_init();
    return ceiling >= 3 && __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("fma");
#else
    return 0;
#endif
}

#ifdef AMX
/* Whether there is AMX, the system keeps its registers, and lets this process have them. */
static int ask_for_amx(void)
{
    enum { TILE_DATA = 18, REQUEST = 0x1023 }; /* XFEATURE_XTILEDATA, ARCH_REQ_XCOMP_PERM */
    unsigned a, b, c, d, low, high;
    if (!has_bfloat16() || !__get_cpuid_count(1, 0, &a, &b, &c, &d) || !(c >> 27 & 1) || !__get_cpuid_count(7, 0, &a, &b, &c, &d)
        || !(d >> 22 & 1) || !(d >> 24 & 1))
        return 0;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (low >> 17 & 3) == 3 && !syscall(SYS_arch_prctl, REQUEST, TILE_DATA);
}

static int has_amx(void)
{
    static atomic_int known; /* 1 no, 2 yes */
    if (ceiling >= 4 && !known)
        known = 1 + ask_for_amx();
    return ceiling >= 4 && known == 2;
}
#endif

static const struct kernels *choose(int64_t element)
{
    int wide = element == DOUBLE;
#ifdef AMX
    if (element == BFLOAT16 && has_amx())
        return &kernels_bfloat16_amx;
#endif
#ifdef __x86_64__
    if (element == BFLOAT16 && has_bfloat16())
        return &kernels_bfloat16_avx512;
#endif
    if (element == BFLOAT16)
        return &kernels_bfloat16_base;
#ifdef __x86_64__
    __builtin_cpu_init();
    if (ceiling >= 2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw")
        && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma"))
        return wide ? &kernels_double_avx512 : &kernels_float_avx512;
    if (ceiling >= 1 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return wide ? &kernels_double_avx2 : &kernels_float_avx2;
#endif
    return wide ? &kernels_double_base : &kernels_float_base;
}

/* ---- what native.py calls; the first four return 0, or 1 where memory ran out ---- */

#define EXPORT __attribute__((visibility("default")))

EXPORT int charrnn_sequence(const struct sequence *s)
{
    const struct kernels *k = choose(s->element);
    int64_t each = s->rows / (24 * s->threads); /* stretches of 24 rows and more lose little, and leave none waiting for long */
    int64_t units = s->threads * (each < 1 ? 1 : each > 4 ? 4 : each);
    units = units < s->rows ? units : s->rows;
    int64_t most = (s->rows + units - 1) / (units ? units : 1), low = k->low ? 2 * s->size + 64 : 0; /* four gates' operands at most */
    most = k->low == 3 ? (most + 15) / 16 * 16 : most;
    size_t scratch = (size_t)(most * (k->wide * k->lanes + low) * k->size);
    return run(s->threads, k->pack_recurrent, s, 2 * s->threads, 0) || run(s->threads, k->walk, s, units, scratch);
}

EXPORT int charrnn_product(const struct product *given)
{
    struct product p = *given;
    const struct kernels *k = choose(p.kind >= SCATTER && p.element == BFLOAT16 ? FLOAT : p.element);
    if (p.kind == SOFTMAX)
        return run(p.k * p.n < 1 << 16 ? 1 : p.threads, k->softmax, &p, 4 * p.threads, 0);
    if (p.m * p.n * p.k < 1 << (k->low == 3 ? 24 : 20))
        p.threads = 1; /* waking a helper would take longer */
    if (p.kind == SCATTER) {
        int64_t units = (p.n + 127) / 128;
        return run(p.threads, k->scatter, &p, units < 2 * p.threads ? units : 2 * p.threads, 0);
    }
    if (p.kind == ROWS_TIMES) {
        int64_t most = !p.symmetric ? 96 : k->low == 3 ? 64 : 48, units = (p.m + most - 1) / most;
        return run(p.threads, k->pack_right, &p, p.threads, 0)
            || run(p.threads, k->multiply, &p, units, k->low ? (size_t)(most * ((p.k + 1) / 2 + 32) * 4) : 0)
            || (p.symmetric && run(p.threads, k->mirror, &p, units, 0));
    }
    int64_t pair = 2 * k->lanes, panels = (p.n + pair - 1) / pair, tiles = (p.m + k->tile - 1) / k->tile;
    p.column_units = (p.n + 511) / 512;
    while (p.column_units < 2 * p.threads && p.column_units * 128 < p.n)
        p.column_units++;
    p.block = (panels + p.column_units - 1) / p.column_units * pair;
    p.column_units = (p.n + p.block - 1) / p.block;
    int64_t strips = (2 * p.threads + p.column_units - 1) / p.column_units;
    strips = strips < tiles ? strips : tiles;
    return run(p.threads, k->multiply_tn, &p, p.column_units * strips, (size_t)((BLOCK * (p.block + k->tile) + k->lanes) * k->size));
}

EXPORT int charrnn_each(const struct elements *e)
{
    return run(e->count * e->rows < 1 << 15 ? 1 : e->threads, choose(e->element)->each, e, 4 * e->threads, 0);
}

/* c (n, columns) = a (n, k) . b; symmetric unless it is the last product. */
static int polar_product(const struct polar *o, void *a, int64_t k, void *b, int64_t b_down, int64_t b_right, void *c, int64_t columns)
{
    struct product p = {.element = o->element, .kind = ROWS_TIMES, .threads = o->threads, .m = o->n, .n = columns, .k = k, .lda = k,
                        .ldc = columns, .b_down = b_down, .b_right = b_right, .symmetric = c != o->out, .a = a, .b = b, .c = c,
                        .packed = o->packed};
    return charrnn_product(&p);
}

EXPORT int charrnn_polar(const struct polar *o)
{
    const int64_t n = o->n, wide = o->element == DOUBLE, each = n * n * (wide ? 8 : 4);
    char *gram = o->square, *factor = gram + each, *whole = factor + each, *spare = whole + each, *swap;
    int failed = polar_product(o, o->x, o->m, o->x, 1, o->m, gram, n);
    for (int64_t left = o->times - 1; left >= 0 && !failed; left--) {
        struct elements sum = {.element = wide ? DOUBLE : FLOAT, .kind = SUM, .threads = o->threads, .count = n * n, .rows = 1, .a = o->c, .b = o->b,
                               .x = factor, .y = gram, .out = factor};
        failed = polar_product(o, gram, n, gram, n, 1, factor, n) || charrnn_each(&sum);
        for (int64_t i = 0; i < n * n; i += n + 1)
            if (wide)
                ((double *)factor)[i] += o->a;
            else
                ((float *)factor)[i] += (float)o->a;
        if (left) /* the gram matrix of what comes next */
            failed = failed || polar_product(o, factor, n, gram, n, 1, spare, n) || polar_product(o, factor, n, spare, n, 1, gram, n);
        if (left == o->times - 1)
            swap = whole, whole = factor, factor = swap;
        else {
            failed = failed || polar_product(o, factor, n, whole, n, 1, spare, n);
            swap = whole, whole = spare, spare = swap;
        }
    }
    return failed || polar_product(o, whole, n, o->x, o->m, 1, o->out, o->m);
}

/* How the processor itself multiplies bfloat16 faster than float32: 0 not at all, 1 by an instruction on vectors, 2 by AMX. */
EXPORT int charrnn_bfloat16(void)
{
#ifdef AMX
    if (has_amx())
        return 2;
#endif
#ifdef __x86_64__
    return has_bfloat16() && !__builtin_cpu_is("intel"); /* Intel's instruction does half as much in a cycle as float32's two */
#else
    return 0;
#endif
}

/* For tests: the widest instructions to use, 4 AMX, 3 AVX-512 with bfloat16, 2 AVX-512, 1 AVX2, 0 what every machine of the kind has. */
EXPORT void charrnn_limit(int level) { ceiling = level; }

/* Built as a Python extension only so that pip compiles it: importing it is an error, ctypes opens it. */
EXPORT void *PyInit__sequence(void) { return NULL; }
