/* A second thread that takes a part of a product for one row. It only ever helps: what it has claimed and not done in time, as another
   process has its core, the caller does itself, and goes on alone until the helper is back. Sums are the same whoever makes them.

   A product is cut into pieces of PAIR panels. `state` holds the product's number and which pieces nobody has claimed: the caller
   takes them from the front, the helper from the back, so that each finds its own in the cache of its core the next time. The helper
   writes to memory of its own, which the caller copies; so one that comes late harms nothing. */

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

enum { PAIR = 2, LEAST = 400000 }; /* panels of a piece; bytes of weights that are worth the two threads' talk */
enum { PATIENCE = 400, IDLE = 1000 }; /* turns of a loop: until the caller does it itself; until a helper without work sleeps */
enum { TRIAL = 64, LONG = 1 << 15 };  /* products after which a helper is judged; those made alone after it failed, at most */

struct helper {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    int asleep, over;
    void (*piece)(const struct matrix *m, int64_t first, int64_t end, const float *x, float *sums);
    const struct matrix *m; /* of the product under way, with */
    const float *x;
    uint64_t state;         /* its number << 32 | first unclaimed piece << 16 | their end */
    uint64_t finished;      /* its number << 32 | first piece of those that the helper has done */
    float *sums;            /* the helper's */
    int64_t asked, helped;  /* pieces of this trial, and the helper's of them */
    int trial, alone, pause; /* products of this trial; that the caller makes alone; how many when the next trial fails */
};

#define NUMBER(state) ((state) >> 32)
#define FRONT(state) ((int64_t)((state) >> 16 & 0xffff))
#define BACK(state) ((int64_t)((state) & 0xffff))
#define READ(x) __atomic_load_n(&(x), __ATOMIC_ACQUIRE)
#define WRITE(x, value) __atomic_store_n(&(x), (value), __ATOMIC_RELEASE)

static void turn(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb");
#endif
}

/* Claims a piece from the front, or from the back; -1 when there is none. m and x, read before, are that piece's. */
static int64_t claim(struct helper *h, int front, uint64_t *state)
{
    uint64_t seen = *state;
    while (FRONT(seen) < BACK(seen)) {
        uint64_t next = front ? seen + (1 << 16) : seen - 1;
        if (__atomic_compare_exchange_n(&h->state, &seen, next, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
            *state = next;
            return front ? FRONT(seen) : BACK(next);
        }
        if (!front)
            break; /* the product may be another one: read it anew */
    }
    *state = seen;
    return -1;
}

static void piece(struct helper *h, const struct matrix *m, int64_t number, const float *x, float *sums)
{
    int64_t first = number * PAIR, end = first + PAIR < m->panels ? first + PAIR : m->panels;
    h->piece(m, first, end, x, sums);
}

static void *help(void *argument)
{
    struct helper *h = argument;
    for (int idle = 0; !READ(h->over); idle++) {
        uint64_t state = READ(h->state);
        if (FRONT(state) < BACK(state)) {
            const struct matrix *m = READ(h->m);
            const float *x = READ(h->x);
            int64_t number = claim(h, 0, &state);
            if (number >= 0) {
                piece(h, m, number, x, h->sums);
                WRITE(h->finished, NUMBER(state) << 32 | (uint64_t)number);
            }
            idle = 0;
        } else if (idle < IDLE)
            turn();
        else {
            pthread_mutex_lock(&h->lock);
            WRITE(h->asleep, 1);
            while (READ(h->asleep) && !READ(h->over))
                pthread_cond_wait(&h->wake, &h->lock);
            pthread_mutex_unlock(&h->lock);
            idle = 0;
        }
    }
    return NULL;
}

static void wake(struct helper *h)
{
    pthread_mutex_lock(&h->lock);
    WRITE(h->asleep, 0);
    pthread_cond_signal(&h->wake);
    pthread_mutex_unlock(&h->lock);
}

/* sums (panels, 64) = units . x, by both threads */
static void share(struct helper *h, const struct matrix *m, const float *x, float *sums)
{
    const int64_t pieces = (m->panels + PAIR - 1) / PAIR;
    if (h->alone > 0 || pieces > 0xffff) {
        h->alone -= h->alone > 0;
        h->piece(m, 0, m->panels, x, sums);
        return;
    }
    const uint64_t number = (NUMBER(h->state) + 1) & 0xffffffff;
    WRITE(h->m, m); /* nobody claims a piece of the last product any more */
    WRITE(h->x, x);
    uint64_t state = number << 32 | (uint64_t)pieces;
    WRITE(h->state, state);
    if (READ(h->asleep))
        wake(h);
    for (int64_t mine; (mine = claim(h, 1, &state)) >= 0;)
        piece(h, m, mine, x, sums);
    int64_t claimed = BACK(state), done = pieces;
    for (int turns = 0; turns < PATIENCE && done > claimed; turns++) {
        uint64_t finished = READ(h->finished);
        if (NUMBER(finished) == number)
            done = BACK(finished);
        if (done > claimed)
            turn();
    }
    h->asked += pieces;
    h->helped += pieces - done;
    if (++h->trial == TRIAL) {
        if (5 * h->helped < 2 * h->asked) { /* others have its core: it costs more than it gives */
            h->alone = h->pause;
            h->pause = 2 * h->pause < LONG ? 2 * h->pause : LONG;
        } else
            h->pause = TRIAL;
        h->trial = 0;
        h->asked = h->helped = 0;
    }
    for (int64_t missing = claimed; missing < done; missing++)
        piece(h, m, missing, x, sums);
    if (done < pieces)
        memcpy(sums + done * PAIR * ROWS, h->sums + done * PAIR * ROWS, (size_t)(m->panels - done * PAIR) * ROWS * sizeof(float));
}

/* A helper for products of up to `panels`; NULL where there can be none. */
static struct helper *hire(int64_t panels, void (*piece)(const struct matrix *, int64_t, int64_t, const float *, float *))
{
    struct helper *h = calloc(1, sizeof *h);
    if (!h)
        return NULL;
    h->piece = piece;
    h->pause = TRIAL;
    h->sums = aligned_alloc(64, (size_t)panels * ROWS * sizeof(float));
    pthread_mutex_init(&h->lock, NULL);
    pthread_cond_init(&h->wake, NULL);
    sigset_t none, before; /* signals are for the other threads */
    sigfillset(&none);
    pthread_sigmask(SIG_SETMASK, &none, &before);
    int failed = !h->sums || pthread_create(&h->thread, NULL, help, h);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!failed)
        return h;
    free(h->sums);
    free(h);
    return NULL;
}

static void dismiss(struct helper *h)
{
    WRITE(h->over, 1);
    wake(h);
    pthread_join(h->thread, NULL);
    pthread_cond_destroy(&h->wake);
    pthread_mutex_destroy(&h->lock);
    free(h->sums);
    free(h);
}
