/* The kernels of _sequence.c for one element type and one instruction set. Included once for each pair, with

       T        float or double            I        the integer of the same width
       LANES    elements of a vector       TILE     rows of a register tile
       NAME(x)  x with the pair's suffix   TARGET   the function attribute that allows the instructions
       EXACT    1: exp and tanh of libm (double); 0: the polynomials below (float, about 2 units in the last place)
       LOW      1: what is multiplied is rounded to bfloat16, two neighbours along K to an operand, and summed in float;
                2: likewise, by the processor's own instruction; 3: by its registers of 16 rows of 16 operands (AMX);
                0: an operand is an element

   A matrix on the right of a product is packed: its columns in vectors of LANES (zeros past the end), two vectors to a panel
   (K, 2, LANES), the last panel alone (K, 1, LANES) if their number is odd. So a panel is read from end to end. K counts operands. */

typedef T NAME(vec) __attribute__((vector_size(LANES * sizeof(T)), aligned(sizeof(T)), may_alias));
typedef I NAME(ivec) __attribute__((vector_size(LANES * sizeof(T)), aligned(sizeof(T)), may_alias));
#define vec NAME(vec)
#define ivec NAME(ivec)
#define INLINE static inline __attribute__((always_inline)) TARGET
#define VECTORS(n) (((n) + LANES - 1) / LANES)
#define ALIGNED(n) (VECTORS(n) * LANES)
#define all(s) ((T)(s) - (vec){0}) /* less 0 is no work at all; 0 added is, as it makes 0 of -0 */
#define load(p) (*(const vec *)(p))
#define store(p, v) (*(vec *)(p) = (v))
#if LOW == 3 /* zeros up to a whole register */
#define OPERAND uint32_t
#define DEPTH(K) (((K) + 31) / 32 * 16)
#define ACROSS(K) (DEPTH(K) | 16) /* from row to row: never such that all rows share a place in the cache */
#define ROWS(n) (((n) + 15) / 16 * 16)
#define REGISTERS(way) registers_##way()
#elif LOW
#define OPERAND uint32_t
#define DEPTH(K) (((K) + 1) / 2)
#define ACROSS(K) (DEPTH(K) + 16)
#define ROWS(n) (n)
#define REGISTERS(way)
#else
#define OPERAND T
#define DEPTH(K) (K)
#define ACROSS(K) (K)
#define ROWS(n) (n)
#define REGISTERS(way)
#endif

/* The first `lanes` elements, the rest zero. */
INLINE vec NAME(load_some)(const T *p, int64_t lanes)
{
    if (lanes >= LANES)
        return load(p);
    T copy[LANES] = {0};
    memcpy(copy, p, (size_t)lanes * sizeof(T));
    return load(copy);
}

INLINE void NAME(store_some)(T *p, vec v, int64_t lanes)
{
    if (lanes >= LANES)
        store(p, v);
    else
        memcpy(p, &v, (size_t)lanes * sizeof(T));
}

INLINE vec NAME(choose)(ivec mask, vec yes, vec no)
{
    return (vec)(((ivec)yes & mask) | ((ivec)no & ~mask));
}

/* ---- e^x, sigma(x), tanh(x); NaN in, NaN out ---- */

#if EXACT
INLINE vec NAME(tanh)(vec x)
{
    for (int n = 0; n < LANES; n++)
        x[n] = tanh(x[n]);
    return x;
}

INLINE vec NAME(exp)(vec x)
{
    for (int n = 0; n < LANES; n++)
        x[n] = exp(x[n]);
    return x;
}

INLINE vec NAME(sigmoid)(vec x)
{
    for (int n = 0; n < LANES; n++)
        x[n] = 1 / (1 + exp(-x[n]));
    return x;
}
#else
INLINE vec NAME(between)(vec x, T low, T high)
{
#if LANES == 16 && defined(__x86_64__)
    return (vec)_mm512_max_ps((__m512)all(low), _mm512_min_ps((__m512)all(high), (__m512)x)); /* these pass NaN on */
#elif LANES == 8 && defined(__x86_64__)
    return (vec)_mm256_max_ps((__m256)all(low), _mm256_min_ps((__m256)all(high), (__m256)x));
#else
    x = NAME(choose)(x > all(high), all(high), x);
    return NAME(choose)(x < all(low), all(low), x);
#endif
}

/* x = n ln 2 + r with |r| <= ln 2 / 2: gives e^r - 1, and 2^n in `scale`. |x| < 88.
   The polynomial is the least-maximum-error one of its form 1 + r + r^2 q(r), fitted for charrnn: relative error 3e-9. */
INLINE vec NAME(reduced)(vec x, vec *scale)
{
    const vec round = all(12582912.0f); /* 1.5 * 2^23: its last bit counts ones */
    vec n = x * all(1.44269504f) + round;
    ivec power = (ivec)n - (ivec)round;
    n -= round;
    vec r = x - n * all(0.693145752f);
    r -= n * all(1.42860677e-6f);
    *scale = (vec)((power + 127) << 23);
    vec q = all(Q4) * r + all(Q3);
    q = q * r + all(Q2);
    q = q * r + all(Q1);
    q = q * r + all(Q0);
    return q * (r * r) + r;
}

INLINE vec NAME(exp)(vec x)
{
    vec scale, p = NAME(reduced)(NAME(between)(x, -87, 88), &scale);
    return p * scale + scale;
}

INLINE vec NAME(sigmoid)(vec x)
{
    return all(1) / (all(1) + NAME(exp)(-x));
}

/* tanh(x) = m / (m + 2) with m = e^2x - 1, which keeps its digits near zero. */
INLINE vec NAME(tanh)(vec x)
{
    x = NAME(between)(x, -9.5f, 9.5f);
    vec scale, p = NAME(reduced)(x + x, &scale);
    vec m = p * scale + (scale - all(1));
    return m / (m + all(2));
}
#endif

INLINE vec NAME(activate)(int64_t activation, vec x)
{
    if (activation == TANH)
        return NAME(tanh)(x);
    if (activation == SIGMOID)
        return NAME(sigmoid)(x);
    return (vec)((ivec)x & ~(x < all(0))); /* relu; NaN stays */
}

INLINE vec NAME(slope)(int64_t activation, vec y)
{
    if (activation == TANH)
        return all(1) - y * y;
    if (activation == SIGMOID)
        return y * (all(1) - y);
    return (vec)((ivec)all(1) & (y > all(0)));
}

/* ---- operands ---- */

#if LOW >= 2
/* Lane by lane the operand of a row's elements and the next row's. */
INLINE ivec NAME(paired)(vec first, vec second)
{
    const __m512i places = _mm512_add_epi32(_mm512_set1_epi32(16 << 16), _mm512_mullo_epi32(_mm512_set1_epi32(0x10001),
        _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0)));
    return (ivec)_mm512_permutexvar_epi16(places, (__m512i)_mm512_cvtne2ps_pbh((__m512)second, (__m512)first));
}

INLINE vec NAME(dot)(vec sum, ivec x, ivec y)
{
    return (vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)x, (__m512bh)y);
}
#elif LOW
INLINE ivec NAME(paired)(vec first, vec second)
{
    ivec made;
    for (int n = 0; n < LANES; n++)
        made[n] = (I)(rounded(first[n]) >> 16 | rounded(second[n]));
    return made;
}

INLINE vec NAME(dot)(vec sum, ivec x, ivec y)
{
    sum += (vec)(x & ~0xffff) * (vec)(y & ~0xffff);
    return sum + (vec)(x << 16) * (vec)(y << 16);
}
#endif

#if LOW >= 2
/* Element (i, j) to (j, i). */
INLINE void NAME(turn)(ivec x[16])
{
    ivec y[16];
    #pragma GCC unroll 16
    for (int n = 0; n < 16; n += 2) { /* pairs of rows, then of pairs: 4 by 4 blocks */
        y[n] = (ivec)_mm512_unpacklo_epi32((__m512i)x[n], (__m512i)x[n + 1]);
        y[n + 1] = (ivec)_mm512_unpackhi_epi32((__m512i)x[n], (__m512i)x[n + 1]);
    }
    #pragma GCC unroll 16
    for (int n = 0; n < 16; n += 4)
        for (int m = 0; m < 2; m++) {
            x[n + 2 * m] = (ivec)_mm512_unpacklo_epi64((__m512i)y[n + m], (__m512i)y[n + 2 + m]);
            x[n + 2 * m + 1] = (ivec)_mm512_unpackhi_epi64((__m512i)y[n + m], (__m512i)y[n + 2 + m]);
        }
    #pragma GCC unroll 16
    for (int n = 0; n < 4; n++) /* x[n + 4 m]: of rows 4 m.. the columns n, n + 4, n + 8, n + 12 */
        for (int m = 0; m < 2; m++) {
            y[n + 8 * m] = (ivec)_mm512_shuffle_i32x4((__m512i)x[n + 8 * m], (__m512i)x[n + 8 * m + 4], 0x88);
            y[n + 8 * m + 4] = (ivec)_mm512_shuffle_i32x4((__m512i)x[n + 8 * m], (__m512i)x[n + 8 * m + 4], 0xdd);
        }
    #pragma GCC unroll 16
    for (int n = 0; n < 8; n++) {
        x[n] = (ivec)_mm512_shuffle_i32x4((__m512i)y[n], (__m512i)y[n + 8], 0x88);
        x[n + 8] = (ivec)_mm512_shuffle_i32x4((__m512i)y[n], (__m512i)y[n + 8], 0xdd);
    }
}
#endif

#if LOW
/* `count` elements side by side as operands; an odd last one with a zero. */
INLINE void NAME(round_row)(OPERAND *out, const T *in, int64_t count)
{
    int64_t n = 0;
#if LOW >= 2
    for (; n + 2 * LANES <= count; n += 2 * LANES)
        _mm512_storeu_si512(out + n / 2, (__m512i)_mm512_cvtne2ps_pbh((__m512)load(in + n + LANES), (__m512)load(in + n)));
#endif
    for (; n < count; n += 2)
        out[n / 2] = rounded(in[n]) >> 16 | (n + 1 < count ? rounded(in[n + 1]) : 0);
}
#endif

/* a (rows, K) as operands, DEPTH(K) a row in `scratch`; or where they are: then `lda` stays. */
INLINE const OPERAND *NAME(operands)(const T *a, int64_t *lda, int64_t rows, int64_t K, OPERAND *scratch)
{
#if LOW
    for (int64_t r = 0; r < rows; r++) {
        NAME(round_row)(scratch + r * ACROSS(K), a + r * *lda, K);
        for (int64_t k = (K + 1) / 2; k < DEPTH(K); k++)
            scratch[r * ACROSS(K) + k] = 0;
    }
    *lda = ACROSS(K);
    return scratch;
#else
    (void)lda, (void)rows, (void)K, (void)scratch;
    return a;
#endif
}

/* ---- products ---- */

#define ARGUMENTS T *out, int64_t ldo, const T *init, int64_t ldi, const OPERAND *a, int64_t lda, int64_t K, const OPERAND *panel, \
                  int64_t lanes
#define EACH(rows, count) for (int64_t r = 0; r < (rows); r++) for (int64_t u = 0; u < (count); u++)

#if LOW == 3
/* Loads or stores the sums, which lie in registers 0 to 3. */
#define SUMS(what, at, across) do { \
    what(0, at, across); \
    if (N == 2) \
        what(1, at + 16, across); \
    if (R == 2) \
        what(2, at + 16 * across, across); \
    if (R == 2 && N == 2) \
        what(3, at + 16 * across + 16, across); \
} while (0)

/* out (R by 16 rows, N vectors) = init + a . panel (K, N, LANES), all whole registers: 4 and 5 a, 6 and 7 the panel. */
INLINE void NAME(tile)(const int R, const int N, T *out, int64_t ldo, const T *init, int64_t ldi, const OPERAND *a, int64_t lda, int64_t K,
                       const OPERAND *panel)
{
    for (int r = 0; r < 16 * R; r++) { /* far away, unless it is scratch */
        __builtin_prefetch(out + r * ldo, 1);
        if (N == 2)
            __builtin_prefetch(out + r * ldo + 16, 1);
    }
    SUMS(tile_load, init, ldi);
    for (int64_t k = 0; k < K; k += 16, a += 16, panel += 16 * N * LANES) {
        tile_load(6, panel, N * LANES);
        tile_load(4, a, lda);
        tile_dot(0, 4, 6);
        if (N == 2) {
            tile_load(7, panel + LANES, N * LANES);
            tile_dot(1, 4, 7);
        }
        if (R == 2) {
            tile_load(5, a + 16 * lda, lda);
            tile_dot(2, 5, 6);
        }
        if (R == 2 && N == 2)
            tile_dot(3, 5, 7);
    }
    SUMS(tile_store, out, ldo);
}
#undef SUMS

/* a row by row: (r, k) at a[r * lda + k], readable up to ROWS(rows). At most TILE rows. What does not fill registers goes by way of
   some that it does fill. */
static TARGET void NAME(tile_rows)(int64_t rows, int64_t vectors, ARGUMENTS)
{
    T edge[TILE * 2 * LANES], *to = out;
    int64_t ldt = ldo, whole = rows % 16 == 0 && lanes >= LANES;
    if (!whole) {
        EACH(rows, vectors)
            store(edge + (r * 2 + u) * LANES, NAME(load_some)(init + r * ldi + u * LANES, u == vectors - 1 ? lanes : LANES));
        init = to = edge;
        ldi = ldt = 2 * LANES;
    }
    if (rows > 16 && vectors == 2)
        NAME(tile)(2, 2, to, ldt, init, ldi, a, lda, K, panel);
    else if (rows > 16)
        NAME(tile)(2, 1, to, ldt, init, ldi, a, lda, K, panel);
    else if (vectors == 2)
        NAME(tile)(1, 2, to, ldt, init, ldi, a, lda, K, panel);
    else
        NAME(tile)(1, 1, to, ldt, init, ldi, a, lda, K, panel);
    if (!whole)
        EACH(rows, vectors)
            NAME(store_some)(out + r * ldo + u * LANES, load(edge + (r * 2 + u) * LANES), u == vectors - 1 ? lanes : LANES);
}
#define TILE_OF_BLOCK NAME(tile_rows)
#else
/* out (R rows, N vectors) = init + a (R, K) . panel (K, N, LANES). Operand (r, k) of a lies at a[r * across + k * along];
   `init` is read with its own row length (0: the same row for all). Only `lanes` elements of the last vector are touched. */
INLINE void NAME(tile)(const int R, const int N, T *out, int64_t ldo, const T *init, int64_t ldi, const OPERAND *a, int64_t across,
                       int64_t along, int64_t K, const OPERAND *panel, int64_t lanes)
{
    vec sum[TILE][2];
    #pragma GCC unroll 16
    for (int r = 0; r < R; r++) {
        if (N == 2)
            sum[r][0] = load(init + r * ldi);
        sum[r][N - 1] = NAME(load_some)(init + r * ldi + (N - 1) * LANES, lanes);
    }
    for (int64_t k = 0; k < K; k++, panel += N * LANES, a += along) {
#if LOW
        ivec b0 = (ivec)load(panel), b1 = N == 2 ? (ivec)load(panel + LANES) : b0;
        #pragma GCC unroll 16
        for (int r = 0; r < R; r++) {
            ivec x = (ivec){0} + (I)a[r * across];
            sum[r][0] = NAME(dot)(sum[r][0], x, b0);
            if (N == 2)
                sum[r][1] = NAME(dot)(sum[r][1], x, b1);
        }
#else
        __builtin_prefetch(panel + N * LANES * K); /* of the next panel, which comes from further away than L2 */
        vec b0 = load(panel), b1 = N == 2 ? load(panel + LANES) : b0;
        #pragma GCC unroll 16
        for (int r = 0; r < R; r++) {
            vec x = all(a[r * across]);
            sum[r][0] += x * b0;
            if (N == 2)
                sum[r][1] += x * b1;
        }
#endif
    }
    #pragma GCC unroll 16
    for (int r = 0; r < R; r++) {
        if (N == 2)
            store(out + r * ldo, sum[r][0]);
        NAME(store_some)(out + r * ldo + (N - 1) * LANES, sum[r][N - 1], lanes);
    }
}

#define ROWS_CASE(r) case r: NAME(tile)(r, N, out, ldo, init, ldi, a, across, along, K, panel, lanes); break;
#if TILE == 12
#define ROWS_CASES ROWS_CASE(1) ROWS_CASE(2) ROWS_CASE(3) ROWS_CASE(4) ROWS_CASE(5) ROWS_CASE(6) \
                   ROWS_CASE(7) ROWS_CASE(8) ROWS_CASE(9) ROWS_CASE(10) ROWS_CASE(11) ROWS_CASE(12)
#elif TILE == 6
#define ROWS_CASES ROWS_CASE(1) ROWS_CASE(2) ROWS_CASE(3) ROWS_CASE(4) ROWS_CASE(5) ROWS_CASE(6)
#else
#define ROWS_CASES ROWS_CASE(1) ROWS_CASE(2) ROWS_CASE(3) ROWS_CASE(4)
#endif

INLINE void NAME(tile_of)(const int N, int64_t rows, T *out, int64_t ldo, const T *init, int64_t ldi, const OPERAND *a, int64_t across,
                          int64_t along, int64_t K, const OPERAND *panel, int64_t lanes)
{
    switch (rows) { ROWS_CASES }
}

/* a row by row: (r, k) at a[r * lda + k]. */
static TARGET void NAME(tile_rows)(int64_t rows, int64_t vectors, ARGUMENTS)
{
    if (vectors == 2)
        NAME(tile_of)(2, rows, out, ldo, init, ldi, a, lda, 1, K, panel, lanes);
    else
        NAME(tile_of)(1, rows, out, ldo, init, ldi, a, lda, 1, K, panel, lanes);
}

/* a packed in tiles of TILE rows, column by column: (r, k) at a[r + k * TILE]. */
static TARGET void NAME(tile_packed)(int64_t rows, int64_t vectors, ARGUMENTS)
{
    (void)lda;
    if (vectors == 2)
        NAME(tile_of)(2, rows, out, ldo, init, ldi, a, 1, TILE, K, panel, lanes);
    else
        NAME(tile_of)(1, rows, out, ldo, init, ldi, a, 1, TILE, K, panel, lanes);
}
#define TILE_OF_BLOCK NAME(tile_packed)
#endif

static const T NAME(zeros)[2 * LANES];

/* out (rows, n) = init + a (rows, K) . the vectors `first`.. of `packed` that hold its n columns; `first` is even.
   Rows are dealt evenly to tiles, but to registers that hold 16; how does not change a result. */
static TARGET void NAME(rows_by)(T *out, int64_t ldo, const T *init, int64_t ldi, int64_t n, const OPERAND *a, int64_t lda, int64_t rows,
                                 int64_t K, const OPERAND *packed, int64_t first)
{
    int64_t tiles = (rows + TILE - 1) / TILE;
    const OPERAND *panel = packed + first * LANES * K;
    for (int64_t column = 0; column < n; column += 2 * LANES, panel += 2 * LANES * K) {
        int64_t left = n - column, vectors = left > LANES ? 2 : 1, lanes = left - (vectors - 1) * LANES;
        for (int64_t tile = 0; tile < tiles; tile++) {
#if LOW == 3
            int64_t row = tile * TILE, end = rows - row < TILE ? rows : row + TILE;
#else
            int64_t row = tile * rows / tiles, end = (tile + 1) * rows / tiles;
#endif
            const T *start = init ? init + row * ldi + column : NAME(zeros);
            NAME(tile_rows)(end - row, vectors, out + row * ldo + column, ldo, start, init ? ldi : 0, a + row * lda, lda, K,
                            panel, lanes);
        }
    }
}

/* Packs vectors [from, to) of a matrix (rows, columns): element (k, column) at b[k * down + column * right]. Vector v holds the
   columns of gate v % gates from unit v / gates * LANES on; a gate has `units` columns. `total` vectors in all. */
static TARGET void NAME(pack)(OPERAND *packed, const T *b, int64_t down, int64_t right, int64_t rows, int64_t units, int64_t gates,
                              int64_t total, int64_t from, int64_t to)
{
    const int64_t K = DEPTH(rows);
    for (int64_t v = from; v < to; v++) {
        int64_t unit = v / gates * LANES, lanes = units - unit < LANES ? units - unit : LANES;
        int64_t step = (v == total - 1 && v % 2 == 0 ? 1 : 2) * LANES; /* from row to row of the vector */
        const T *column = b + (v % gates * units + unit) * right;
        OPERAND *out = packed + (v / 2 * 2 * K + v % 2) * LANES; /* where it begins */
        if (right == 1) {
#if LOW
            for (int64_t k = 0; k < 2 * K; k += 2)
                store(out + k / 2 * step, (vec)NAME(paired)(NAME(load_some)(column + k * down, k < rows ? lanes : 0),
                                                            NAME(load_some)(column + (k + 1) * down, k + 1 < rows ? lanes : 0)));
#else
            for (int64_t k = 0; k < K; k++)
                store(out + k * step, NAME(load_some)(column + k * down, lanes));
#endif
            continue;
        }
#if LOW >= 2
        if (down == 1) {
            for (int64_t k = 0; k < rows; k += 32) {
                ivec block[16]; /* column by column, 16 operands each */
                for (int64_t lane = 0; lane < 16; lane++) {
                    const T *from = column + k + lane * right;
                    int64_t count = lane < lanes ? rows - k : 0;
                    block[lane] = (ivec)_mm512_cvtne2ps_pbh((__m512)NAME(load_some)(from + 16, count > 16 ? count - 16 : 0),
                                                            (__m512)NAME(load_some)(from, count));
                }
                NAME(turn)(block);
                for (int64_t n = 0; n < 16 && k / 2 + n < K; n++)
                    store(out + (k / 2 + n) * step, (vec)block[n]);
            }
            continue;
        }
#endif
        enum { NEAR = 64 }; /* rows at a time: lines of b stay in the nearest cache */
        for (int64_t block = 0; block < rows; block += NEAR) {
            int64_t count = rows - block < NEAR ? rows - block : NEAR;
            for (int64_t lane = 0; lane < LANES; lane++) {
                OPERAND *place = out + DEPTH(block) * step + lane;
                const T *start = column + block * down + lane * right;
#if LOW
                T along[NEAR] = {0};
                OPERAND made[NEAR / 2] = {0};
                if (lane < lanes) {
                    for (int64_t k = 0; k < count; k++)
                        along[k] = start[k * down];
                    NAME(round_row)(made, along, count);
                }
                for (int64_t k = 0; k < DEPTH(count); k++)
                    place[k * step] = made[k];
#else
                for (int64_t k = 0; k < count; k++)
                    place[k * step] = lane < lanes ? start[k * down] : 0;
#endif
            }
        }
    }
}

/* ---- a stretch of rows through the whole sequence ---- */

/* Vectors of a chunk: 8 units' vectors of one gate, or 2 of four. Where products take little time, more of them, as then what comes from
   far away lies in longer pieces. */
#if LOW == 3
#define WIDE 32
#else
#define WIDE 8
#endif
#define S(name) ((T *)s->name)
#define PACKED ((OPERAND *)s->packed)
#define PLACE(rows) ((OPERAND *)(scratch + ROWS(rows) * WIDE * LANES)) /* for operands, behind the scratch of a chunk */

/* What the input contributes to row b at step t. */
INLINE const T *NAME(input)(const struct sequence *s, int64_t t, int64_t b, int64_t width)
{
    int64_t row = t * s->rows + b;
    return S(source) + (s->tokens ? s->tokens[row] : row) * width;
}

/* Puts H_t of row b, units j.., where it belongs. */
INLINE void NAME(put)(const struct sequence *s, int64_t t, int64_t b, int64_t j, vec h, int64_t lanes)
{
    int64_t at = (t * s->rows + b) * s->size + j;
    NAME(store_some)(S(outputs) + at, h, lanes);
    if (s->mask)
        NAME(store_some)(S(dropped) + at, h * NAME(load_some)(S(mask) + b * s->size + j, lanes), lanes);
}

/* The gradient that comes to H_t from outside. */
INLINE vec NAME(arriving)(const struct sequence *s, int64_t t, int64_t b, int64_t j, int64_t lanes)
{
    vec d = NAME(load_some)(S(d_outputs) + (t * s->rows + b) * s->size + j, lanes);
    if (s->mask)
        d *= NAME(load_some)(S(mask) + b * s->size + j, lanes);
    return d;
}

static TARGET void NAME(rnn_forward)(const struct sequence *s, int64_t from, int64_t rows, T *scratch)
{
    const int64_t H = s->size, B = s->rows;
    for (int64_t t = 0; t < s->steps; t++) {
        const T *h = t ? S(outputs) + (t - 1) * B * H : S(h);
        int64_t lda = H;
        const OPERAND *left = NAME(operands)(h + from * H, &lda, rows, H, PLACE(rows));
        for (int64_t unit = 0; unit < H; unit += WIDE * LANES) {
            int64_t n = H - unit < WIDE * LANES ? H - unit : WIDE * LANES;
            NAME(rows_by)(scratch, WIDE * LANES, NULL, 0, n, left, lda, rows, DEPTH(H), PACKED, unit / LANES);
            EACH(rows, VECTORS(n)) {
                int64_t b = from + r, j = unit + u * LANES, lanes = H - j;
                vec x = load(scratch + (r * WIDE + u) * LANES) + NAME(load_some)(NAME(input)(s, t, b, H) + j, lanes);
                NAME(put)(s, t, b, j, NAME(activate)(s->activation, x), lanes);
            }
        }
    }
}

static TARGET void NAME(rnn_backward)(const struct sequence *s, int64_t from, int64_t rows, T *scratch)
{
    const int64_t H = s->size, B = s->rows;
    for (int64_t t = s->steps - 1; t >= -1; t--) {
        int64_t lda = H;
        const OPERAND *left = NULL;
        if (t < s->steps - 1)
            left = NAME(operands)(S(gates) + ((t + 1) * B + from) * H, &lda, rows, H, PLACE(rows));
        for (int64_t unit = 0; unit < H; unit += WIDE * LANES) {
            int64_t n = H - unit < WIDE * LANES ? H - unit : WIDE * LANES;
            if (!left) {
                EACH(rows, VECTORS(n))
                    store(scratch + (r * WIDE + u) * LANES,
                          NAME(load_some)(S(d_h) + (from + r) * H + unit + u * LANES, H - unit - u * LANES));
            } else
                NAME(rows_by)(scratch, WIDE * LANES, NULL, 0, n, left, lda, rows, DEPTH(H), PACKED, unit / LANES);
            EACH(rows, VECTORS(n)) {
                int64_t b = from + r, j = unit + u * LANES, lanes = H - j, at = (t * B + b) * H + j;
                vec dh = load(scratch + (r * WIDE + u) * LANES);
                if (t < 0) {
                    NAME(store_some)(S(d_h) + b * H + j, dh, lanes);
                    continue;
                }
                if (s->d_outputs)
                    dh += NAME(arriving)(s, t, b, j, lanes);
                NAME(store_some)(S(gates) + at, dh * NAME(slope)(s->activation, NAME(load_some)(S(outputs) + at, lanes)), lanes);
            }
        }
    }
}

static TARGET void NAME(lstm_forward)(const struct sequence *s, int64_t from, int64_t rows, T *scratch)
{
    const int64_t H = s->size, B = s->rows, some = WIDE / 4;
    for (int64_t t = 0; t < s->steps; t++) {
        const T *h = t ? S(outputs) + (t - 1) * B * H : S(h), *c = t ? S(extra) + (t - 1) * s->extra_step : S(c);
        T *c_out = S(extra) + t * s->extra_step, *gates = S(gates) + t * s->gates_step;
        int64_t lda = H;
        const OPERAND *left = NAME(operands)(h + from * H, &lda, rows, H, PLACE(rows));
        for (int64_t unit = 0; unit < H; unit += some * LANES) {
            int64_t count = VECTORS(H - unit) < some ? VECTORS(H - unit) : some;
            NAME(rows_by)(scratch, WIDE * LANES, NULL, 0, count * 4 * LANES, left, lda, rows, DEPTH(H), PACKED, unit / LANES * 4);
            EACH(rows, count) {
                int64_t b = from + r, j = unit + u * LANES, lanes = H - j;
                const T *x = NAME(input)(s, t, b, 4 * H) + j, *product = scratch + (r * WIDE + u * 4) * LANES;
                T *g = gates + b * 4 * H + j;
                vec i = NAME(sigmoid)(load(product) + NAME(load_some)(x, lanes));
                vec f = NAME(sigmoid)(load(product + LANES) + NAME(load_some)(x + H, lanes));
                vec candidate = NAME(tanh)(load(product + 2 * LANES) + NAME(load_some)(x + 2 * H, lanes));
                vec o = NAME(sigmoid)(load(product + 3 * LANES) + NAME(load_some)(x + 3 * H, lanes));
                vec new = f * NAME(load_some)(c + b * H + j, lanes) + i * candidate;
                NAME(store_some)(g, i, lanes);
                NAME(store_some)(g + H, f, lanes);
                NAME(store_some)(g + 2 * H, candidate, lanes);
                NAME(store_some)(g + 3 * H, o, lanes);
                NAME(store_some)(c_out + b * H + j, new, lanes);
                NAME(put)(s, t, b, j, o * NAME(tanh)(new), lanes);
            }
        }
    }
}

static TARGET void NAME(lstm_backward)(const struct sequence *s, int64_t from, int64_t rows, T *scratch)
{
    const int64_t H = s->size, B = s->rows;
    for (int64_t t = s->steps - 1; t >= -1; t--) {
        int64_t lda = 4 * H;
        const OPERAND *left = NULL;
        if (t < s->steps - 1)
            left = NAME(operands)(S(gates) + ((t + 1) * B + from) * 4 * H, &lda, rows, 4 * H, PLACE(rows));
        for (int64_t unit = 0; unit < H; unit += WIDE * LANES) {
            int64_t n = H - unit < WIDE * LANES ? H - unit : WIDE * LANES;
            if (!left) {
                EACH(rows, VECTORS(n))
                    store(scratch + (r * WIDE + u) * LANES,
                          NAME(load_some)(S(d_h) + (from + r) * H + unit + u * LANES, H - unit - u * LANES));
            } else
                NAME(rows_by)(scratch, WIDE * LANES, NULL, 0, n, left, lda, rows, DEPTH(4 * H), PACKED, unit / LANES);
            const T *c = t > 0 ? S(extra) + (t - 1) * B * H : S(c);
            EACH(rows, VECTORS(n)) {
                int64_t b = from + r, j = unit + u * LANES, lanes = H - j, at = (t * B + b) * H + j;
                vec dh = load(scratch + (r * WIDE + u) * LANES);
                if (t < 0) {
                    NAME(store_some)(S(d_h) + b * H + j, dh, lanes);
                    continue;
                }
                T *g = S(gates) + (t * B + b) * 4 * H + j, *carried = S(d_c) + b * H + j;
                if (s->d_outputs)
                    dh += NAME(arriving)(s, t, b, j, lanes);
                vec i = NAME(load_some)(g, lanes), f = NAME(load_some)(g + H, lanes), candidate = NAME(load_some)(g + 2 * H, lanes);
                vec o = NAME(load_some)(g + 3 * H, lanes), tanh_c = NAME(tanh)(NAME(load_some)(S(extra) + at, lanes));
                vec dc = NAME(load_some)(carried, lanes) + dh * o * (all(1) - tanh_c * tanh_c);
                NAME(store_some)(g, dc * candidate * i * (all(1) - i), lanes);
                NAME(store_some)(g + H, dc * NAME(load_some)(c + b * H + j, lanes) * f * (all(1) - f), lanes);
                NAME(store_some)(g + 2 * H, dc * i * (all(1) - candidate * candidate), lanes);
                NAME(store_some)(g + 3 * H, dh * tanh_c * o * (all(1) - o), lanes);
                NAME(store_some)(carried, dc * f, lanes);
            }
        }
    }
}

/* gru. Packed: the columns of r and z, then those of the candidate, each from an even vector on (see `pack_recurrent`). */
static TARGET void NAME(gru_forward)(const struct sequence *s, int64_t from, int64_t rows, T *scratch)
{
    const int64_t H = s->size, B = s->rows, some = WIDE / 2, after = s->reset_after;
    const OPERAND *last = PACKED + 2 * VECTORS(H) * LANES * DEPTH(H);
    for (int64_t t = 0; t < s->steps; t++) {
        const T *h = t ? S(outputs) + (t - 1) * B * H : S(h);
        T *extra = S(extra) + t * s->extra_step, *gates = S(gates) + t * s->gates_step;
        int64_t lda = H;
        const OPERAND *left = NAME(operands)(h + from * H, &lda, rows, H, PLACE(rows));
        for (int64_t unit = 0; unit < H; unit += some * LANES) {
            int64_t count = VECTORS(H - unit) < some ? VECTORS(H - unit) : some;
            NAME(rows_by)(scratch, WIDE * LANES, NULL, 0, count * 2 * LANES, left, lda, rows, DEPTH(H), PACKED, unit / LANES * 2);
            EACH(rows, count) {
                int64_t b = from + r, j = unit + u * LANES, lanes = H - j;
                const T *x = NAME(input)(s, t, b, 3 * H) + j, *product = scratch + (r * WIDE + u * 2) * LANES;
                T *g = gates + b * 3 * H + j;
                vec reset = NAME(sigmoid)(load(product) + NAME(load_some)(x, lanes));
                NAME(store_some)(g + H, NAME(sigmoid)(load(product + LANES) + NAME(load_some)(x + H, lanes)), lanes);
                NAME(store_some)(g, reset, lanes);
                if (!after)
                    NAME(store_some)(extra + b * H + j, reset * NAME(load_some)(h + b * H + j, lanes), lanes);
            }
        }
        if (!after) {
            lda = H;
            left = NAME(operands)(extra + from * H, &lda, rows, H, PLACE(rows));
        }
        for (int64_t unit = 0; unit < H; unit += WIDE * LANES) {
            int64_t n = H - unit < WIDE * LANES ? H - unit : WIDE * LANES;
            NAME(rows_by)(scratch, WIDE * LANES, NULL, 0, n, left, lda, rows, DEPTH(H), last, unit / LANES);
            EACH(rows, VECTORS(n)) {
                int64_t b = from + r, j = unit + u * LANES, lanes = H - j;
                T *g = gates + b * 3 * H + j;
                vec product = load(scratch + (r * WIDE + u) * LANES), z = NAME(load_some)(g + H, lanes);
                if (after) {
                    product += NAME(load_some)(S(b_h) + j, lanes);
                    NAME(store_some)(extra + b * H + j, product, lanes);
                    product *= NAME(load_some)(g, lanes);
                }
                vec candidate = NAME(tanh)(product + NAME(load_some)(NAME(input)(s, t, b, 3 * H) + 2 * H + j, lanes));
                NAME(store_some)(g + 2 * H, candidate, lanes);
                NAME(put)(s, t, b, j, candidate + z * (NAME(load_some)(h + b * H + j, lanes) - candidate), lanes);
            }
        }
    }
}

/* d_h carries what reaches H_{t-1} past the products. Packed: the transposes of r's and z's weights (K 2H), then the candidate's. */
static TARGET void NAME(gru_backward)(const struct sequence *s, int64_t from, int64_t rows, T *scratch)
{
    const int64_t H = s->size, B = s->rows, after = s->reset_after;
    const OPERAND *last = PACKED + VECTORS(H) * LANES * DEPTH(2 * H);
    for (int64_t t = s->steps - 1; t >= -1; t--) {
        const T *h = t > 0 ? S(outputs) + (t - 1) * B * H : S(h);
        int64_t lda = 3 * H, lde = H;
        const OPERAND *left = NULL, *inner = NULL;
        if (t < s->steps - 1) {
            left = NAME(operands)(S(gates) + ((t + 1) * B + from) * 3 * H, &lda, rows, 2 * H, PLACE(rows));
            if (after)
                inner = NAME(operands)(S(extra) + ((t + 1) * B + from) * H, &lde, rows, H, PLACE(rows) + ROWS(rows) * ACROSS(2 * H));
        }
        for (int64_t unit = 0; unit < H; unit += WIDE * LANES) {
            int64_t n = H - unit < WIDE * LANES ? H - unit : WIDE * LANES;
            T *carried = S(d_h) + from * H + unit;
            EACH(rows, VECTORS(n))
                store(scratch + (r * WIDE + u) * LANES, NAME(load_some)(carried + r * H + u * LANES, n - u * LANES));
            if (left)
                NAME(rows_by)(scratch, WIDE * LANES, scratch, WIDE * LANES, n, left, lda, rows, DEPTH(2 * H), PACKED, unit / LANES);
            if (inner)
                NAME(rows_by)(scratch, WIDE * LANES, scratch, WIDE * LANES, n, inner, lde, rows, DEPTH(H), last, unit / LANES);
            EACH(rows, VECTORS(n)) {
                int64_t b = from + r, j = unit + u * LANES, lanes = H - j, at = (t * B + b) * H + j;
                vec dh = load(scratch + (r * WIDE + u) * LANES);
                if (t < 0) {
                    NAME(store_some)(carried + r * H + u * LANES, dh, lanes);
                    continue;
                }
                T *g = S(gates) + (t * B + b) * 3 * H + j;
                if (s->d_outputs)
                    dh += NAME(arriving)(s, t, b, j, lanes);
                vec z = NAME(load_some)(g + H, lanes), candidate = NAME(load_some)(g + 2 * H, lanes);
                vec d_candidate = dh * (all(1) - z) * (all(1) - candidate * candidate);
                NAME(store_some)(g + H, dh * (NAME(load_some)(h + b * H + j, lanes) - candidate) * z * (all(1) - z), lanes);
                NAME(store_some)(g + 2 * H, d_candidate, lanes);
                NAME(store_some)(carried + r * H + u * LANES, dh * z, lanes);
                if (after) {
                    vec reset = NAME(load_some)(g, lanes), product = NAME(load_some)(S(extra) + at, lanes);
                    NAME(store_some)(g, d_candidate * product * reset * (all(1) - reset), lanes);
                    NAME(store_some)(S(extra) + at, d_candidate * reset, lanes);
                }
            }
        }
        if (t < 0 || after)
            continue;
        lda = 3 * H;
        left = NAME(operands)(S(gates) + (t * B + from) * 3 * H + 2 * H, &lda, rows, H, PLACE(rows));
        for (int64_t unit = 0; unit < H; unit += WIDE * LANES) {
            int64_t n = H - unit < WIDE * LANES ? H - unit : WIDE * LANES;
            NAME(rows_by)(scratch, WIDE * LANES, NULL, 0, n, left, lda, rows, DEPTH(H), last, unit / LANES);
            EACH(rows, VECTORS(n)) {
                int64_t b = from + r, j = unit + u * LANES, lanes = H - j;
                T *g = S(gates) + (t * B + b) * 3 * H + j, *carried = S(d_h) + b * H + j;
                vec product = load(scratch + (r * WIDE + u) * LANES), reset = NAME(load_some)(g, lanes);
                NAME(store_some)(carried, NAME(load_some)(carried, lanes) + product * reset, lanes);
                NAME(store_some)(g, product * NAME(load_some)(h + b * H + j, lanes) * reset * (all(1) - reset), lanes);
            }
        }
    }
}

/* ---- units of work, as `run` deals them ---- */

/* The recurrent weights, forward as (H, G.H), backward as their transposes; one unit packs one share of the vectors. */
static void NAME(pack_recurrent)(const void *arg, int64_t unit, int64_t units, void *scratch)
{
    const struct sequence *s = arg;
    const int64_t H = s->size, G = s->cell == LSTM ? 4 : s->cell == GRU ? 3 : 1, V = VECTORS(H), W = G * H;
    (void)scratch;
    OPERAND *packed = PACKED;
    const T *w = S(w_h);
    #define SHARE(total) (total), (total) * unit / units, (total) * (unit + 1) / units
    if (s->backward && s->cell == GRU) {
        NAME(pack)(packed, w, 1, W, 2 * H, H, 1, SHARE(V));
        NAME(pack)(packed + V * LANES * DEPTH(2 * H), w + 2 * H, 1, W, H, H, 1, SHARE(V));
    } else if (s->backward)
        NAME(pack)(packed, w, 1, W, W, H, 1, SHARE(V));
    else if (s->cell == GRU) {
        NAME(pack)(packed, w, W, 1, H, H, 2, SHARE(2 * V));
        NAME(pack)(packed + 2 * V * LANES * DEPTH(H), w + 2 * H, W, 1, H, H, 1, SHARE(V));
    } else
        NAME(pack)(packed, w, W, 1, H, H, G, SHARE(G * V));
}

static void NAME(walk)(const void *arg, int64_t unit, int64_t units, void *scratch)
{
    const struct sequence *s = arg;
    int64_t from = s->rows * unit / units, rows = s->rows * (unit + 1) / units - from;
    REGISTERS(on);
    if (s->cell == RNN)
        (s->backward ? NAME(rnn_backward) : NAME(rnn_forward))(s, from, rows, scratch);
    else if (s->cell == GRU)
        (s->backward ? NAME(gru_backward) : NAME(gru_forward))(s, from, rows, scratch);
    else
        (s->backward ? NAME(lstm_backward) : NAME(lstm_forward))(s, from, rows, scratch);
    REGISTERS(off);
}

static void NAME(pack_right)(const void *arg, int64_t unit, int64_t units, void *scratch)
{
    const struct product *p = arg;
    int64_t total = VECTORS(p->n);
    (void)scratch;
    NAME(pack)(p->packed, p->b, p->b_down, p->b_right, p->k, p->n, 1, SHARE(total));
}

/* Where a unit's share of the rows begins: registers are filled where they hold 16. */
INLINE int64_t NAME(share)(const struct product *p, int64_t unit, int64_t units)
{
    int64_t rows = ((p->m + units - 1) / units + TILE - 1) / TILE * TILE;
    return LOW != 3 ? p->m * unit / units : unit * rows < p->m ? unit * rows : p->m;
}

/* c (m, n) = bias + a (m, k) . packed, for one share of the rows; k in blocks so that a's share and a panel stay near. */
static TARGET void NAME(multiply)(const void *arg, int64_t unit, int64_t units, void *scratch)
{
    const struct product *p = arg;
    int64_t from = NAME(share)(p, unit, units), rows = NAME(share)(p, unit + 1, units) - from, lda = p->lda;
    int64_t column = p->symmetric ? from / (2 * LANES) * 2 * LANES : 0;
    const OPERAND *left = NAME(operands)((const T *)p->a + from * lda, &lda, rows, p->k, scratch);
    REGISTERS(on);
    NAME(rows_by)((T *)p->c + from * p->ldc + column, p->ldc, p->bias, 0, p->n - column, left, lda, rows, DEPTH(p->k), p->packed,
                  column / LANES);
    REGISTERS(off);
}

/* What `multiply` left out of a symmetric product. */
static TARGET void NAME(mirror)(const void *arg, int64_t unit, int64_t units, void *scratch)
{
    const struct product *p = arg;
    (void)scratch;
    int64_t from = NAME(share)(p, unit, units), to = NAME(share)(p, unit + 1, units), end = from / (2 * LANES) * 2 * LANES;
    T *c = p->c;
#if LOW == 3
    for (; from + 16 <= to; from += 16)
        for (int64_t j = 0; j < end; j += 16) {
            ivec block[16];
            for (int64_t n = 0; n < 16; n++)
                block[n] = (ivec)load(c + (j + n) * p->ldc + from);
            NAME(turn)(block);
            for (int64_t n = 0; n < 16; n++)
                store(c + (from + n) * p->ldc + j, (vec)block[n]);
        }
#endif
    for (int64_t j = 0; j < end; j += LANES)
        for (int64_t i = from; i < to; i++)
            for (int64_t n = j; n < j + LANES; n++)
                c[i * p->ldc + n] = c[n * p->ldc + i];
}

/* c (m, n) += a^T (m, k) . b (k, n): one block of c. Scratch: BLOCK rows of b's columns packed, then a tile of a's. */
static TARGET void NAME(multiply_tn)(const void *arg, int64_t unit, int64_t units, void *scratch)
{
    const struct product *p = arg;
    int64_t column = unit % p->column_units * p->block, strip = unit / p->column_units, strips = units / p->column_units;
    int64_t n = p->n - column < p->block ? p->n - column : p->block, tiles = (p->m + TILE - 1) / TILE;
    int64_t first = tiles * strip / strips, end = tiles * (strip + 1) / strips, panels = (n + 2 * LANES - 1) / (2 * LANES);
    OPERAND *right = scratch, *left = right + DEPTH(BLOCK) * ALIGNED(p->block);
    REGISTERS(on);
    for (int64_t k = 0; k < p->k; k += BLOCK) {
        int64_t depth = p->k - k < BLOCK ? p->k - k : BLOCK;
        const T *a = (const T *)p->a + k * p->lda, *b = (const T *)p->b + k * p->b_down + column;
        int begin = k == 0 && !p->add;
        NAME(pack)(right, b, p->b_down, 1, depth, n, 1, VECTORS(n), 0, VECTORS(n));
        for (int64_t tile = first; tile < end; tile++) {
            int64_t row = tile * TILE, rows = p->m - row < TILE ? p->m - row : TILE;
            int whole = row + ALIGNED(TILE) <= p->m; /* whole vectors; what one writes too much, the next overwrites */
#if LOW == 3
            for (int64_t d = 0; d < depth; d += 32)
                for (int64_t r = 0; r < rows; r += LANES) {
                    const T *at = a + d * p->lda + row + r;
                    int64_t lanes = whole ? LANES : rows - r, left_over = depth - d;
                    ivec block[16];
                    for (int64_t k = 0; k < 16; k++)
                        block[k] = NAME(paired)(NAME(load_some)(at + 2 * k * p->lda, 2 * k < left_over ? lanes : 0),
                                                NAME(load_some)(at + (2 * k + 1) * p->lda, 2 * k + 1 < left_over ? lanes : 0));
                    NAME(turn)(block);
                    for (int64_t k = 0; k < 16; k++)
                        store(left + (r + k) * ACROSS(BLOCK) + d / 2, (vec)block[k]);
                }
#elif LOW
            for (int64_t d = 0; d < depth; d += 2)
                for (int64_t r = 0; r < TILE; r += LANES) {
                    const T *at = a + d * p->lda + row + r;
                    int64_t lanes = whole ? LANES : rows - r;
                    if (lanes > 0)
                        store(left + d / 2 * TILE + r, (vec)NAME(paired)(NAME(load_some)(at, lanes),
                                                                         NAME(load_some)(at + p->lda, d + 1 < depth ? lanes : 0)));
                }
#else
            if (whole)
                for (int64_t d = 0; d < depth; d++)
                    for (int64_t r = 0; r < TILE; r += LANES)
                        store(left + d * TILE + r, load(a + d * p->lda + row + r));
            else
                for (int64_t d = 0; d < depth; d++)
                    for (int64_t r = 0; r < rows; r++)
                        left[d * TILE + r] = a[d * p->lda + row + r];
#endif
            for (int64_t panel = 0; panel < panels; panel++) {
                int64_t j = panel * 2 * LANES, vectors = n - j > LANES ? 2 : 1, lanes = n - j - (vectors - 1) * LANES;
                T *c = (T *)p->c + row * p->ldc + column + j;
                TILE_OF_BLOCK(rows, vectors, c, p->ldc, begin ? NAME(zeros) : c, begin ? 0 : p->ldc, left, ACROSS(BLOCK), DEPTH(depth),
                                  right + j * DEPTH(depth), lanes);
            }
        }
    }
    REGISTERS(off);
}

#if !LOW
/* table (.., n) += the rows of grads that each token owns; one block of columns, row after row. */
static TARGET void NAME(scatter)(const void *arg, int64_t unit, int64_t units, void *scratch)
{
    const struct product *p = arg;
    int64_t blocks = VECTORS(p->n), from = blocks * unit / units * LANES, to = blocks * (unit + 1) / units * LANES;
    (void)scratch;
    if (to > p->n)
        to = p->n;
    for (int64_t k = 0; k < p->k; k++) {
        T *out = (T *)p->c + (p->tokens ? p->tokens[k] : 0) * p->n;
        const T *row = (const T *)p->a + k * p->lda;
        int64_t j = from;
        for (; j + LANES <= to; j += LANES) {
            __builtin_prefetch(row + AHEAD * p->lda + j);
            store(out + j, load(out + j) + load(row + j));
        }
        for (; j < to; j++)
            out[j] += row[j];
    }
}

/* What each row's token costs; its gradient in place of the logits where wanted. */
static TARGET void NAME(softmax)(const void *arg, int64_t unit, int64_t units, void *scratch)
{
    const struct product *p = arg;
    const int64_t n = p->n, whole = n / LANES * LANES, rest = n - whole;
    (void)scratch;
    for (int64_t k = p->k * unit / units; k < p->k * (unit + 1) / units; k++) {
        T *row = (T *)p->c + k * p->ldc, top = row[0], tail[LANES], sum = 0;
        const T own = row[p->tokens[k]];
        for (int64_t j = 0; j < LANES; j++)
            tail[j] = j < rest ? row[whole + j] : -(T)INFINITY;
        vec tops = load(tail);
        for (int64_t j = 0; j < whole; j += LANES)
            tops = NAME(choose)(load(row + j) > tops, load(row + j), tops);
        for (int64_t j = 0; j < LANES; j++)
            top = tops[j] > top ? tops[j] : top;
        vec total = all(0), end = NAME(exp)(load(tail) - all(top));
        for (int64_t j = 0; j < whole; j += LANES) {
            vec e = NAME(exp)(load(row + j) - all(top));
            if (p->add)
                store(row + j, e);
            total += e;
        }
        total += end;
        for (int64_t j = 0; j < LANES; j++)
            sum += total[j];
        ((double *)p->a)[k] = log((double)sum) + (double)top - (double)own;
        if (!p->add)
            continue;
        for (int64_t j = 0; j < whole; j += LANES)
            store(row + j, load(row + j) * all(1 / sum));
        NAME(store_some)(row + whole, end * all(1 / sum), rest);
        row[p->tokens[k]] -= 1;
    }
}

INLINE vec NAME(root)(vec x)
{
#if LANES == 16 && defined(__x86_64__)
    return (vec)_mm512_sqrt_ps((__m512)x);
#elif LANES == 8 && EXACT && defined(__x86_64__)
    return (vec)_mm512_sqrt_pd((__m512d)x);
#elif LANES == 8 && defined(__x86_64__)
    return (vec)_mm256_sqrt_ps((__m256)x);
#elif LANES == 4 && EXACT && defined(__x86_64__)
    return (vec)_mm256_sqrt_pd((__m256d)x);
#else
    for (int n = 0; n < LANES; n++)
        x[n] = sizeof(T) == 8 ? sqrt(x[n]) : sqrtf(x[n]);
    return x;
#endif
}

/* Vectors [from, to) of the columns, a few at a time. */
static TARGET void NAME(columns)(const struct elements *e, int64_t from, int64_t to)
{
    enum { SOME = 8 };
    const vec a = all(e->a), b = all(e->b);
    for (int64_t begin = from; begin < to; begin += SOME) {
        int64_t vectors = to - begin < SOME ? to - begin : SOME;
        vec sum[SOME] = {{0}};
        EACH(e->rows, vectors) {
            int64_t j = (begin + u) * LANES, lanes = e->count - j;
            vec y = NAME(load_some)((const T *)e->y + r * e->count + j, lanes);
            if (e->kind == SQUARES)
                sum[u] += y * y;
            else {
                T *out = (T *)e->out + r * e->count + j;
                NAME(store_some)(out, a * NAME(load_some)(out, lanes) + b * y * NAME(load_some)((const T *)e->m + j, lanes), lanes);
            }
        }
        for (int64_t u = 0; u < vectors && e->kind == SQUARES; u++)
            NAME(store_some)((T *)e->out + (begin + u) * LANES, sum[u], e->count - (begin + u) * LANES);
    }
}

static TARGET void NAME(each)(const void *arg, int64_t unit, int64_t units, void *scratch)
{
    const struct elements *e = arg;
    const vec a = all(e->a), b = all(e->b), rest_a = all(1 - e->a), rest_b = all(1 - e->b);
    const vec rate = all(e->rate), even = all(e->even), epsilon = all(e->epsilon);
    int64_t vectors = VECTORS(e->count), begin = vectors * unit / units, end = vectors * (unit + 1) / units;
    T *x = e->x, *y = e->y, *out = e->out, *m = e->m, *v = e->v;
    (void)scratch;
    if (e->kind >= SQUARES) {
        NAME(columns)(e, begin, end);
        return;
    }
    for (int64_t j = begin * LANES; j < end * LANES; j += LANES) {
        int64_t lanes = e->count - j;
        vec given = NAME(load_some)(y + j, lanes);
        if (e->kind == SUM)
            NAME(store_some)(out + j, a * NAME(load_some)(x + j, lanes) + b * given, lanes);
        else if (e->kind == PRODUCT)
            NAME(store_some)(out + j, NAME(load_some)(x + j, lanes) * given, lanes);
        else {
            vec mean = a * NAME(load_some)(m + j, lanes) + rest_a * given;
            vec square = b * NAME(load_some)(v + j, lanes) + rest_b * given * given;
            NAME(store_some)(m + j, mean, lanes);
            NAME(store_some)(v + j, square, lanes);
            NAME(store_some)(out + j, NAME(load_some)(out + j, lanes) - rate * mean / (even * NAME(root)(square) + epsilon), lanes);
        }
    }
}
#endif

static const struct kernels NAME(kernels) = {
    NAME(pack_recurrent), NAME(walk), NAME(pack_right), NAME(multiply), NAME(mirror), NAME(multiply_tn),
#if LOW
    NULL, NULL, NULL,
#else
    NAME(scatter), NAME(softmax), NAME(each),
#endif
    LANES, TILE, WIDE, sizeof(T), LOW,
};

#undef vec
#undef ivec
#undef INLINE
#undef VECTORS
#undef ALIGNED
#undef all
#undef load
#undef store
#undef OPERAND
#undef DEPTH
#undef ACROSS
#undef ROWS
#undef REGISTERS
#undef TILE_OF_BLOCK
#undef PACKED
#undef PLACE
#undef ARGUMENTS
#undef ROWS_CASE
#undef ROWS_CASES
#undef WIDE
#undef S
#undef EACH
#undef SHARE
#undef T
#undef I
#undef LANES
#undef TILE
#undef NAME
#undef TARGET
#undef EXACT
#undef LOW
