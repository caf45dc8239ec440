/* The kernels of _step.c for one instruction set. Included once for each, with

       LANES    floats of a vector           VECTORS  of outputs in a register tile of TILE rows; LONE of a single row
       PARTS    vectors taken at a time      PANELS   read side by side
       NAME(x)  x with the set's suffix      EXPAND   a fourth quarter's weights, from the low bytes of three words
       TARGET   the function attribute that allows the instructions
       CHUNK    columns of a panel that stay in a near cache while all rows meet them

   Every sum runs over the columns in order, whatever the number of rows, so that a row's result does not depend on the others. */

typedef float NAME(vec) __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t NAME(ivec) __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef double NAME(wide) __attribute__((vector_size(4 * LANES), aligned(8), may_alias));
typedef int64_t NAME(iwide) __attribute__((vector_size(4 * LANES), aligned(8), may_alias));
#define vec NAME(vec)
#define ivec NAME(ivec)
#define wide NAME(wide)
#define iwide NAME(iwide)
#define INLINE static inline __attribute__((always_inline)) TARGET
#define all(x) ((float)(x) - (vec){0})
#define load(p) (*(const vec *)(p))
#define store(p, v) (*(vec *)(p) = (v))

/* ---- products ---- */

/* sum (P panels, 64) += units (P, K, 64 in 24 bits) . x (K) */
INLINE void NAME(packed)(const int P, const int32_t *words, int64_t K, const float *x, float *sums)
{
    for (int part = 0; part < WORDS; part += LANES * PARTS) {
        vec sum[P][PARTS][4];
        EACH for (int p = 0; p < P; p++)
            EACH for (int i = 0; i < PARTS; i++)
                EACH for (int q = 0; q < 4; q++)
                    sum[p][i][q] = all(0);
        for (int64_t k = 0; k < K; k++) {
            vec here = all(x[k]);
            EACH for (int p = 0; p < P; p++)
                EACH for (int i = 0; i < PARTS; i++) {
                    const int32_t *column = words + (p * K + k) * 3 * WORDS + part + i * LANES;
                    ivec a = *(const ivec *)column, b = *(const ivec *)(column + WORDS), c = *(const ivec *)(column + 2 * WORDS);
                    HOLD(a);
                    HOLD(b);
                    HOLD(c);
                    ivec d = EXPAND(a, b, c);
                    sum[p][i][0] += __builtin_convertvector(a, vec) * here;
                    sum[p][i][1] += __builtin_convertvector(b, vec) * here;
                    sum[p][i][2] += __builtin_convertvector(c, vec) * here;
                    sum[p][i][3] += __builtin_convertvector(d, vec) * here;
                }
        }
        EACH for (int p = 0; p < P; p++)
            EACH for (int i = 0; i < PARTS; i++)
                EACH for (int q = 0; q < 4; q++)
                    store(sums + p * ROWS + q * WORDS + part + i * LANES, sum[p][i][q]);
    }
}

/* sums (R rows, 64), from 0 where `fresh`, += x (R, K) . units (K, 64); N vectors of them at a time */
INLINE void NAME(tile)(const int R, const int N, int fresh, const float *units, int64_t K, const float *x, int64_t ldx, float *sums,
                       int64_t lds)
{
    for (int part = 0; part < ROWS; part += LANES * N) {
        vec sum[TILE][8]; /* in registers: R and N are constants where this is inlined */
        EACH for (int r = 0; r < R; r++)
            EACH for (int v = 0; v < N; v++)
                if (fresh)
                    sum[r][v] = all(0);
                else
                    sum[r][v] = load(sums + r * lds + part + v * LANES);
        const float *column = units + part;
        for (int64_t k = 0; k < K; k++, column += ROWS) {
            vec weights[8];
            EACH for (int v = 0; v < N; v++)
                weights[v] = load(column + v * LANES);
            EACH for (int r = 0; r < R; r++) {
                vec here = all(x[r * ldx + k]);
                EACH for (int v = 0; v < N; v++)
                    sum[r][v] += weights[v] * here;
            }
        }
        EACH for (int r = 0; r < R; r++)
            EACH for (int v = 0; v < N; v++)
                store(sums + r * lds + part + v * LANES, sum[r][v]);
    }
}

/* The same for any number of rows. */
static TARGET void NAME(tiles)(int64_t rows, int fresh, const float *units, int64_t K, const float *x, int64_t ldx, float *sums,
                               int64_t lds)
{
    for (; rows >= TILE; rows -= TILE, x += TILE * ldx, sums += TILE * lds)
        NAME(tile)(TILE, VECTORS, fresh, units, K, x, ldx, sums, lds);
    switch (rows) {
    case 1: NAME(tile)(1, LONE, fresh, units, K, x, ldx, sums, lds); break;
    case 2: NAME(tile)(2, VECTORS, fresh, units, K, x, ldx, sums, lds); break;
    case 3: NAME(tile)(3, VECTORS, fresh, units, K, x, ldx, sums, lds); break;
    case 4: NAME(tile)(4, VECTORS, fresh, units, K, x, ldx, sums, lds); break;
    case 5: NAME(tile)(5, VECTORS, fresh, units, K, x, ldx, sums, lds); break;
    }
}

/* Panels first to end of a product with packed weights. */
static TARGET void NAME(piece)(const struct matrix *m, int64_t first, int64_t end, const float *x, float *sums)
{
    const int64_t size = m->columns * 3 * WORDS;
    for (; first + PANELS <= end; first += PANELS)
        NAME(packed)(PANELS, m->words + first * size, m->columns, x, sums + first * ROWS);
    for (; first < end; first++)
        NAME(packed)(1, m->words + first * size, m->columns, x, sums + first * ROWS);
}

static TARGET void NAME(product)(const struct matrix *m, int64_t rows, const float *x, int64_t ldx, float *sums, int64_t lds,
                                 struct helper *helper)
{
    const int64_t K = m->columns;
    if (!m->words) {
        for (int64_t panel = 0; panel < m->panels; panel++)
            for (int64_t k = 0; k < K; k += CHUNK)
                NAME(tiles)(rows, k == 0, m->units + (panel * K + k) * ROWS, K - k < CHUNK ? K - k : CHUNK, x + k, ldx,
                            sums + panel * ROWS, lds);
        return;
    }
    for (int64_t row = 0; row < rows; row++)
        if (helper && m->panels * K * 3 * WORDS * 4 >= LEAST)
            share(helper, m, x + row * ldx, sums + row * lds);
        else
            NAME(piece)(m, 0, m->panels, x + row * ldx, sums + row * lds);
}

/* ---- e^x, sigma(x), tanh(x) ---- */

INLINE vec NAME(choose)(ivec mask, vec yes, vec no)
{
    return (vec)(((ivec)yes & mask) | ((ivec)no & ~mask));
}

/* x = n ln 2 + r, |r| <= ln 2 / 2: e^r - 1 by its series, and 2^n in `scale`; x is held between -87 and 88. */
INLINE vec NAME(reduced)(vec x, vec *scale)
{
    x = NAME(choose)(x > all(88), all(88), x);
    x = NAME(choose)(x < all(-87), all(-87), x);
    const vec round = all(12582912.0f); /* 1.5 * 2^23: its last bit counts ones */
    vec n = x * all(1.44269504f) + round;
    ivec power = (ivec)n - (ivec)round;
    n -= round;
    vec r = x - n * all(0.693145752f);
    r -= n * all(1.42860677e-6f);
    *scale = (vec)((power + 127) << 23);
    vec q = all(1.0f / 5040) * r + all(1.0f / 720);
    q = q * r + all(1.0f / 120);
    q = q * r + all(1.0f / 24);
    q = q * r + all(1.0f / 6);
    q = q * r + all(1.0f / 2);
    return q * (r * r) + r;
}

INLINE vec NAME(sigmoid)(vec x)
{
    vec scale, p = NAME(reduced)(-x, &scale);
    return all(1) / (all(1) + (p * scale + scale));
}

/* m / (m + 2) with m = e^2x - 1, which keeps its digits near zero; beyond 9.5 it is 1 in float32. */
INLINE vec NAME(tanh)(vec x)
{
    x = NAME(choose)(x > all(9.5f), all(9.5f), x);
    x = NAME(choose)(x < all(-9.5f), all(-9.5f), x);
    vec scale, p = NAME(reduced)(x + x, &scale);
    vec m = p * scale + (scale - all(1));
    return m / (m + all(2));
}

INLINE vec NAME(activate)(int64_t activation, vec x)
{
    if (activation == TANH)
        return NAME(tanh)(x);
    if (activation == SIGMOID)
        return NAME(sigmoid)(x);
    return (vec)((ivec)x & (x > all(0)));
}

/* e^x in float64 for x <= 0; below -708 nothing */
INLINE wide NAME(exp)(wide x)
{
    const wide round = (wide){0} + 6755399441055744.0; /* 1.5 * 2^52 */
    iwide some = x >= (wide){0} - 708.0;
    x = (wide)((iwide)x & some);
    wide n = x * 1.4426950408889634 + round;
    iwide power = (iwide)n - (iwide)round;
    n -= round;
    wide r = x - n * 6.93147180369123816490e-01;
    r -= n * 1.90821492927058770002e-10;
    wide q = r * (1.0 / 6227020800) + 1.0 / 479001600;
    q = q * r + 1.0 / 39916800;
    q = q * r + 1.0 / 3628800;
    q = q * r + 1.0 / 362880;
    q = q * r + 1.0 / 40320;
    q = q * r + 1.0 / 5040;
    q = q * r + 1.0 / 720;
    q = q * r + 1.0 / 120;
    q = q * r + 1.0 / 24;
    q = q * r + 1.0 / 6;
    q = q * r + 0.5;
    q = q * (r * r) + r + 1.0;
    return (wide)((iwide)(q * (wide)((power + 1023) << 52)) & some);
}

/* ---- one step ---- */

/* What the input gives to the gates at `at`: x is a row of the table, or sums of `input` to which the bias comes. */
INLINE vec NAME(given)(const struct matrix *input, const float *x, const float *b, int64_t at)
{
    if (input)
        return load(x + at) * load(input->scale + at) + load(b + at);
    return load(x + at);
}

#define INPUT(g) NAME(given)(input, x, layer->b, (g) * P + j)
#define RECURRENT(g) (load(sums + (g) * P + j) * load(layer->w_h.scale + (g) * P + j))

/* A row of a layer; x as above, sums (G·P, or 2·P of a gru that resets before) of w_h. */
static TARGET void NAME(row)(const struct model *m, const struct layer *layer, const struct matrix *input, const float *x, float *sums,
                             float *h, float *c, float *kept)
{
    const int64_t P = m->padded;
    if (m->cell == LSTM)
        for (int64_t j = 0; j < P; j += LANES) {
            vec i = NAME(sigmoid)(INPUT(0) + RECURRENT(0)), f = NAME(sigmoid)(INPUT(1) + RECURRENT(1));
            vec candidate = NAME(tanh)(INPUT(2) + RECURRENT(2)), o = NAME(sigmoid)(INPUT(3) + RECURRENT(3));
            vec memory = f * load(c + j) + i * candidate;
            store(c + j, memory);
            store(h + j, o * NAME(tanh)(memory));
        }
    else if (m->cell == GRU)
        for (int64_t j = 0; j < P; j += LANES) {
            vec r = NAME(sigmoid)(INPUT(0) + RECURRENT(0)), z = NAME(sigmoid)(INPUT(1) + RECURRENT(1));
            if (m->reset_after) {
                vec candidate = NAME(tanh)(INPUT(2) + r * (RECURRENT(2) + load(layer->b_h + j)));
                store(h + j, z * load(h + j) + (all(1) - z) * candidate);
            } else { /* the second half comes when kept has met its weights */
                store(kept + j, r * load(h + j));
                store(sums + P + j, z);
            }
        }
    else if (m->cell == RNN)
        for (int64_t j = 0; j < P; j += LANES)
            store(h + j, NAME(activate)(m->activation, INPUT(0) + RECURRENT(0)));
    else
        for (int64_t j = 0; j < P; j += LANES)
            store(h + j, NAME(activate)(m->activation, INPUT(0)));
}

/* The second half of a gru that resets before: z (P) from the first, `sums` (P) of w_reset. */
static TARGET void NAME(reset_row)(const struct model *m, const struct layer *layer, const struct matrix *input, const float *x,
                                   const float *z, const float *sums, float *h)
{
    const int64_t P = m->padded;
    for (int64_t j = 0; j < P; j += LANES) {
        vec candidate = NAME(tanh)(INPUT(2) + load(sums + j) * load(layer->w_reset.scale + j)), share = load(z + j);
        store(h + j, share * load(h + j) + (all(1) - share) * candidate);
    }
}

static TARGET void NAME(step)(const struct model *m, const struct step *s)
{
    const int64_t P = m->padded, width = m->width, n = s->rows;
    float *sums = s->scratch, *inputs = sums + n * width, *kept = inputs + n * width;
    for (int64_t l = 0; l < m->layers; l++) {
        const struct layer *layer = m->stack + l;
        const struct matrix *input = l ? &layer->w_x : NULL;
        float *h = s->h + l * s->stride, *c = s->c + l * s->stride;
        if (input)
            NAME(product)(input, n, h - s->stride, P, inputs, width, s->helper);
        if (m->cell != MLP)
            NAME(product)(&layer->w_h, n, h, P, sums, width, s->helper);
#define X(row) (input ? inputs + (row) * width : m->table + s->tokens[row] * m->gates * P)
        for (int64_t row = 0; row < n; row++)
            NAME(row)(m, layer, input, X(row), sums + row * width, h + row * P, c + row * P, kept + row * width);
        if (m->cell == GRU && !m->reset_after) {
            float *second = kept + n * width;
            NAME(product)(&layer->w_reset, n, kept, width, second, width, s->helper);
            for (int64_t row = 0; row < n; row++)
                NAME(reset_row)(m, layer, input, X(row), sums + row * width + P, second + row * width, h + row * P);
        }
#undef X
    }
    NAME(product)(&m->output, n, s->h + (m->layers - 1) * s->stride, P, s->logits, s->logits_width,
                  s->helper);
    for (int64_t row = 0; row < n; row++)
        for (int64_t j = 0; j < s->logits_width; j += LANES) {
            float *at = s->logits + row * s->logits_width + j;
            store(at, load(at) * load(m->output.scale + j) + load(m->output_b + j));
        }
}

/* ---- drawing ---- */

/* p (V) = e^(logits / temperature), the largest 1; returns the last sum of p from left to right */
static TARGET double NAME(softmax)(const float *logits, int64_t V, float temperature, double *p)
{
    float most = -INFINITY;
    for (int64_t n = 0; n < V; n++) {
        float x = logits[n] / temperature;
        most = x > most ? x : most;
    }
    enum { WIDE = LANES / 2 };
    for (int64_t n = 0; n < V; n += WIDE) {
        wide x;
        for (int64_t i = 0; i < WIDE; i++)
            x[i] = n + i < V ? (double)(logits[n + i] / temperature - most) : 0;
        *(wide *)(p + n) = NAME(exp)(x);
    }
    double total = 0;
    for (int64_t n = 0; n < V; n++)
        total += p[n];
    return total;
}

static TARGET void NAME(draw)(const struct draw *d)
{
    double *p = d->p;
    for (int64_t row = 0; row < d->rows; row++) {
        const float *logits = d->logits + row * d->width;
        double own = NAME(softmax)(logits, d->vocabulary, 1, p), total = own;
        float most = -INFINITY;
        int64_t first = 0, chosen = 0;
        for (int64_t n = 0; n < d->vocabulary; n++)
            if (logits[n] > most)
                most = logits[first = n];
        if (d->temperature == 0)
            chosen = first;
        else {
            if (d->temperature != 1)
                total = NAME(softmax)(logits, d->vocabulary, d->temperature, p);
            double rising = 0, mark = d->uniform[row] * total;
            chosen = first;
            for (int64_t n = 0; n < d->vocabulary; n++) {
                rising += p[n];
                if (p[n] > 0)
                    chosen = n; /* a rounded sum must not reach past what is possible */
                if (rising > mark)
                    break;
            }
        }
        d->tokens[row] = chosen;
        d->nats[row] = log(own) - (double)(logits[chosen] - most);
    }
}

#undef vec
#undef ivec
#undef wide
#undef iwide
#undef INLINE
#undef all
#undef load
#undef store
#undef INPUT
#undef RECURRENT
#undef LANES
#undef PARTS
#undef VECTORS
#undef LONE
#undef CHUNK
#undef PANELS
#undef EXPAND
#undef NAME
#undef TARGET
