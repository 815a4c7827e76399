/* Full ranking: for each user of a data set all items are scored and ordered, as they do who publish Recall@20 (He et al. 2020): items of the `seen` files that
 * the user has there are left out, unless they are what is measured. For dot products only: users and items are two matrices, and a block of users is one product.
 *
 *   READ    the `seen` files, then the data itself: keys of users and items
 *   ITEMS   all items' rows are pulled, CHUNK at a time
 *   USERS   of BLOCK users: pull, product, places of the positives; again until no user is left
 *
 * Deterministic: users and items in the order of their keys, one thread, equal scores stand against the positives. Memory: the pairs, the items' rows, and
 * BLOCK * items floats. */
#include <cblas.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "nn/blocks.h"
#include "worker/internal.h"

enum { CHUNK = 8192, BLOCK = 64 };

struct pair { uint64_t user, item; };
struct pairs { struct pair *at; size_t n, room; };

struct pn_ranking_run {
    struct pn_run *run;
    const struct pn_data *data;
    struct pn_evaluation_result *result;
    void (*done)(void *);
    void *owner;
    bool closed, in_work;
    uint32_t i_file;              /* seen files, then the data itself */
    struct pn_reader *reader;
    struct pn_features *features;
    struct pn_batch batch;
    const struct pn_raw *raw;
    enum pn_result work_result;
    struct pn_error why;
    struct pn_work work;
    struct pairs seen, wanted;
    uint64_t *items, *users;
    size_t n_items, n_users, i_item, i_user, n_block;
    float *item_rows, *user_rows, *scores;
    struct pn_client_part part;
    double hr, ndcg, recall, mrr;
    size_t n_counted;
};

static void read_file(struct pn_ranking_run *k);
static void pull_items(struct pn_ranking_run *k);
static void pull_users(struct pn_ranking_run *k);

static uint32_t table(const struct pn_ranking_run *k, size_t field) { return k->run->job.fields[field].i_table; }
static size_t dim(const struct pn_ranking_run *k, size_t field) { return k->run->job.tables[table(k, field)].dim; }

static void free_run(struct pn_ranking_run *k) {
    if (k->reader != NULL) pn_reader_close(k->reader);
    if (k->features != NULL) pn_features_close(k->features);
    free(k->seen.at);
    free(k->wanted.at);
    free(k->items);
    free(k->users);
    free(k->item_rows);
    free(k->user_rows);
    free(k->scores);
    pn_run_unref(k->run);
    free(k);
}

static void finish(struct pn_ranking_run *k, enum pn_result code, const char *text) {
    k->result->done = true;
    k->result->code = code;
    if (code != PN_OK) pn_fail(&k->result->error, code, "%s", text);
    k->done(k->owner);
}

static void start(struct pn_ranking_run *k, void (*run)(struct pn_work *), void (*done)(struct pn_work *)) {
    k->in_work = true;
    k->work = (struct pn_work){.run = run, .done = done, .owner = k};
    pn_work_start(k->run->env, &k->work);
}

/* True: go on. */
static bool worked(struct pn_ranking_run *k) {
    k->in_work = false;
    if (k->closed) {
        free_run(k);
        return false;
    }
    if (k->work_result != PN_OK) finish(k, k->work_result, k->why.text[0] != '\0' ? k->why.text : "the ranking could not be computed");
    return k->work_result == PN_OK;
}

/* ---- reading ---- */
static int by_user(const void *a, const void *b) {
    const struct pair *x = a, *y = b;
    return x->user != y->user ? (x->user < y->user ? -1 : 1) : x->item < y->item ? -1 : x->item > y->item;
}
static int by_key(const void *a, const void *b) {
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static size_t without_repeats(uint64_t *keys, size_t n) {
    size_t m = 0;
    qsort(keys, n, sizeof *keys, by_key);
    for (size_t i = 0; i < n; i++)
        if (m == 0 || keys[m - 1] != keys[i]) keys[m++] = keys[i];
    return m;
}

static void add_pairs(struct pn_work *w) {
    struct pn_ranking_run *k = w->owner;
    struct pairs *list = k->i_file < k->data->negatives.n_seen ? &k->seen : &k->wanted;
    uint64_t n_bad = 0;
    k->work_result = pn_features_batch(k->features, k->raw, &k->batch, &n_bad);
    if (k->work_result != PN_OK) return;
    const size_t n = k->batch.n_examples;
    if (list->n + n > list->room) {
        struct pair *grown = realloc(list->at, 2 * (list->n + n) * sizeof *grown);
        if (grown == NULL) k->work_result = PN_NO_MEMORY;
        else {
            list->at = grown;
            list->room = 2 * (list->n + n);
        }
    }
    for (size_t e = 0; k->work_result == PN_OK && e < n; e++)
        if (k->batch.labels[e] > 0.5f) list->at[list->n++] = (struct pair){k->batch.keys[e], k->batch.keys[n + e]};
    pn_batch_free(&k->batch);
}

static void sort_all(struct pn_work *w) {
    struct pn_ranking_run *k = w->owner;
    qsort(k->seen.at, k->seen.n, sizeof *k->seen.at, by_user);
    qsort(k->wanted.at, k->wanted.n, sizeof *k->wanted.at, by_user);
    k->items = malloc((k->seen.n + k->wanted.n + 1) * sizeof *k->items);
    k->users = malloc((k->wanted.n + 1) * sizeof *k->users);
    k->user_rows = malloc(BLOCK * dim(k, 0) * sizeof *k->user_rows);
    k->work_result = PN_NO_MEMORY;
    if (k->items == NULL || k->users == NULL || k->user_rows == NULL) return;
    for (size_t i = 0; i < k->seen.n; i++) k->items[k->n_items++] = k->seen.at[i].item;
    for (size_t i = 0; i < k->wanted.n; i++) {
        k->items[k->n_items++] = k->wanted.at[i].item;
        k->users[k->n_users++] = k->wanted.at[i].user;
    }
    k->n_items = without_repeats(k->items, k->n_items);
    k->n_users = without_repeats(k->users, k->n_users);
    k->item_rows = malloc((k->n_items + 1) * dim(k, 1) * sizeof *k->item_rows);
    k->scores = malloc((k->n_items + 1) * BLOCK * sizeof *k->scores);
    if (k->item_rows != NULL && k->scores != NULL) k->work_result = PN_OK;
}

static void sorted(struct pn_work *w) {
    if (worked(w->owner)) pull_items(w->owner);
}

static void on_rows(void *owner, enum pn_result r, const struct pn_raw *raw, const struct pn_error *err);
static void added(struct pn_work *w) {
    struct pn_ranking_run *k = w->owner;
    if (worked(k)) pn_reader_next(k->reader, on_rows, k);
}

static void on_rows(void *owner, enum pn_result r, const struct pn_raw *raw, const struct pn_error *err) {
    struct pn_ranking_run *k = owner;
    struct pn_error why = {""};
    if (err != NULL) why = *err;
    if (r == PN_NOT_FOUND) {
        pn_reader_close(k->reader);
        k->reader = NULL;
        if (k->i_file++ < k->data->negatives.n_seen) read_file(k);
        else start(k, sort_all, sorted);
        return;
    }
    if (r == PN_OK && k->features == NULL) {
        r = pn_features_open(&k->features, &k->run->job, raw->names, raw->n_columns, &why);
        if (r == PN_OK) r = pn_features_set_statistics(k->features, k->run->statistics, &why);
        if (r == PN_OK) pn_features_use(k->features, &k->run->vocabularies);
    }
    if (r != PN_OK) {
        finish(k, r, why.text);
        return;
    }
    k->raw = raw;
    start(k, add_pairs, added);
}

static void read_file(struct pn_ranking_run *k) {
    struct pn_data d = *k->data;
    struct pn_reader_options o = {.n_producers = 1, .batch_size = 16384, .parsed = k->run->parsed};
    d.rank_all = false;
    if (k->i_file < d.negatives.n_seen) {
        d = (struct pn_data){.format = d.format, .threshold = d.threshold, .present = true};
        memcpy(d.path, k->data->negatives.seen[k->i_file], sizeof d.path);
    } else if (d.hold_out == 0) {
        d.negatives.n_seen = 0;
    }
    k->reader = pn_reader_open(k->run->env, &d, &o);
    if (k->reader == NULL) finish(k, PN_NO_MEMORY, "no memory for a reader");
    else pn_reader_next(k->reader, on_rows, k);
}

/* ---- pulling ---- */
static void items_pulled(void *owner, enum pn_result r) {
    struct pn_ranking_run *k = owner;
    k->i_item += k->part.n_keys;
    if (r != PN_OK) finish(k, r, "the items' rows could not be pulled");
    else if (k->i_item < k->n_items) pull_items(k);
    else pull_users(k);
}

static void pull_items(struct pn_ranking_run *k) {
    const size_t left = k->n_items - k->i_item, n = left < CHUNK ? left : CHUNK;
    if (k->n_users == 0) {
        k->result->rows = 0;
        finish(k, PN_OK, NULL);
        return;
    }
    k->part = (struct pn_client_part){table(k, 1), n, k->items + k->i_item, k->item_rows + k->i_item * dim(k, 1), NULL};
    pn_client_pull(k->run->client, UINT32_MAX, 0, &k->part, 1, items_pulled, k);
}

static size_t place_of(const struct pn_ranking_run *k, uint64_t item) {
    const uint64_t *at = bsearch(&item, k->items, k->n_items, sizeof item, by_key);
    return (size_t)(at - k->items);
}

/* The first pair of the user or behind. */
static size_t first_of(const struct pairs *p, uint64_t user) {
    size_t low = 0, high = p->n;
    while (low < high) {
        const size_t middle = (low + high) / 2;
        if (p->at[middle].user < user) low = middle + 1;
        else high = middle;
    }
    return low;
}

static int falling(const void *a, const void *b) {
    const float x = *(const float *)a, y = *(const float *)b;
    return x > y ? -1 : x < y;
}

/* The best `top` scores, falling. Returns how many. */
static size_t best_of(const float *scores, size_t n, float *best, size_t top) {
    size_t m = 0;
    float least = -INFINITY;
    for (size_t i = 0; i < n; i++) {
        if (!(scores[i] > least)) continue;
        size_t at = m < top ? m++ : top - 1;
        for (; at > 0 && best[at - 1] < scores[i]; at--) best[at] = best[at - 1];
        best[at] = scores[i];
        if (m == top) least = best[top - 1];
    }
    return m;
}

/* How many of the other items stand before this score; equal ones do. */
static size_t before(const float *scores, size_t n, float mine) {
    uint32_t count = 0;
    for (size_t i = 0; i < n; i++) count += (scores[i] >= mine) & (scores[i] != -INFINITY);
    return count;
}

/* One user's figures, of scores that are numbers: the positives' places among themselves and the best of the other items. */
static void measure(struct pn_ranking_run *k, uint64_t user, float *scores, float *best, float *mine) {
    const size_t top = k->run->job.rank_k;
    size_t n = 0, found = 0, above = 0;
    double gain = 0, ideal = 0;
    const size_t from = first_of(&k->wanted, user);
    for (size_t i = from; i < k->wanted.n && k->wanted.at[i].user == user; i++)
        if (i == from || k->wanted.at[i].item != k->wanted.at[i - 1].item) mine[n++] = scores[place_of(k, k->wanted.at[i].item)];
    for (size_t i = from; i < k->wanted.n && k->wanted.at[i].user == user; i++) scores[place_of(k, k->wanted.at[i].item)] = -INFINITY;
    for (size_t i = first_of(&k->seen, user); i < k->seen.n && k->seen.at[i].user == user; i++) scores[place_of(k, k->seen.at[i].item)] = -INFINITY;
    const size_t others = best_of(scores, k->n_items, best, top);
    qsort(mine, n, sizeof *mine, falling);
    for (size_t i = 0; i < n; i++) {
        while (above < others && best[above] >= mine[i]) above++;
        if (i + above >= top) break;
        found++;
        gain += 1 / log2((double)(i + above) + 2);
    }
    for (size_t i = 0; i < n && i < top; i++) ideal += 1 / log2((double)i + 2);
    k->mrr += 1 / (1.0 + (double)before(scores, k->n_items, mine[0]));
    k->hr += found > 0;
    k->recall += (double)found / (double)n;
    k->ndcg += gain / ideal;
    k->n_counted++;
}

static void score_block(struct pn_work *w) {
    struct pn_ranking_run *k = w->owner;
    const struct pn_job *job = &k->run->job;
    const int wide = job->bias, width = (int)job->embedding_dim, n = (int)k->n_block, items = (int)k->n_items;
    float *best = malloc((job->rank_k + 1) * sizeof *best), *mine = malloc((k->wanted.n + 1) * sizeof *mine);
    k->work_result = best != NULL && mine != NULL ? PN_OK : PN_NO_MEMORY;
    if (k->work_result == PN_OK) {
        if (job->cosine && k->i_user == 0) pn_unit_forward(k->item_rows, k->n_items, dim(k, 1), dim(k, 1), k->item_rows); /* the user's length moves no place */
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, n, items, width, 1, k->user_rows + wide, (int)dim(k, 0), k->item_rows + wide, (int)dim(k, 1), 0, k->scores, items);
        for (size_t u = 0; u < k->n_block && k->work_result == PN_OK; u++) {
            float *scores = k->scores + u * k->n_items;
            for (size_t i = 0; wide && i < k->n_items; i++) scores[i] += job->linear_scale * k->item_rows[i * dim(k, 1)]; /* the user's own bias moves no place */
            if (pn_all_numbers(scores, k->n_items)) measure(k, k->users[k->i_user + u], scores, best, mine);
            else k->work_result = pn_fail(&k->why, PN_INVALID, "%s data, user %zu of %zu by key: a score of its %zu items " PN_NO_NUMBER, pn_evaluation_of(k->run, k->data),
                                          k->i_user + u + 1, k->n_users, k->n_items);
        }
    }
    free(best);
    free(mine);
}

static void scored(struct pn_work *w) {
    struct pn_ranking_run *k = w->owner;
    if (!worked(k)) return;
    k->i_user += k->n_block;
    if (k->i_user < k->n_users) {
        pull_users(k);
        return;
    }
    k->result->hr = k->hr / (double)k->n_counted;
    k->result->ndcg = k->ndcg / (double)k->n_counted;
    k->result->recall = k->recall / (double)k->n_counted;
    k->result->mrr = k->mrr / (double)k->n_counted;
    k->result->rows = k->wanted.n;
    finish(k, PN_OK, NULL);
}

static void users_pulled(void *owner, enum pn_result r) {
    struct pn_ranking_run *k = owner;
    if (r != PN_OK) finish(k, r, "the users' rows could not be pulled");
    else start(k, score_block, scored);
}

static void pull_users(struct pn_ranking_run *k) {
    const size_t left = k->n_users - k->i_user;
    k->n_block = left < BLOCK ? left : BLOCK;
    k->part = (struct pn_client_part){table(k, 0), k->n_block, k->users + k->i_user, k->user_rows, NULL};
    pn_client_pull(k->run->client, UINT32_MAX, 0, &k->part, 1, users_pulled, k);
}

/* ---- life ---- */
struct pn_ranking_run *pn_ranking_open(struct pn_run *run, const struct pn_data *data, struct pn_evaluation_result *result, void (*done)(void *), void *owner) {
    struct pn_ranking_run *k = calloc(1, sizeof *k);
    if (k == NULL) return NULL;
    *k = (struct pn_ranking_run){.run = run, .data = data, .result = result, .done = done, .owner = owner};
    run->refs++;
    read_file(k);
    return k;
}

void pn_ranking_close(struct pn_ranking_run *k) {
    if (k->reader != NULL && !k->in_work) { /* a computation may still read the reader's rows */
        pn_reader_close(k->reader);
        k->reader = NULL;
    }
    if (k->run->client != NULL) pn_client_cancel(k->run->client, k);
    k->closed = true;
    if (!k->in_work) free_run(k);
}
