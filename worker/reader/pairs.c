/* Pairs of a user and an item: the formats ncf (`user item ...`, `(user,item) item ...`) and lightgcn (`user item item ...`), what is held out of training, and
 * negatives drawn on the fly.
 *
 * First the `seen` files are read once into tables: which pairs there are, how often each item comes, and of each user the pairs whose hash by
 * hold_out_seed is least: these are held out. Then the file itself streams through the shuffle's window, eight bytes a pair. A row's negatives are drawn
 * when it leaves the window and stand right behind it, so that a batch has whole groups: batch_size / (1 + per_positive) of them.
 *
 * What is drawn is a function of (seed, user, item), and of the epoch if they are to be redrawn: the same on every producer and after a restart. Uniformly over
 * the items of the `seen` files, or in proportion to their rows ^ power by an alias table (Walker 1977; Vose 1991), but for those the user has. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "worker/reader/internal.h"

#define MOST_ID (1u << 27)   /* tables are as long as the largest id */
#define MOST_TRIES 10000u
#define MOST_MAP (32u << 20) /* bytes */

static uint64_t pair_of(uint32_t user, uint32_t item) { return (uint64_t)user << 32 | item; }
static uint32_t user_of(uint64_t pair) { return (uint32_t)(pair >> 32); }
static uint32_t item_of(uint64_t pair) { return (uint32_t)pair; }

/* ---- a set of pairs: open addressing, at most half full; holds pair + 1 ---- */
static bool set_has(const struct pn_number_set *s, uint64_t pair) {
    if (s->room == 0) return false;
    for (size_t i = pn_mix64(pair) & (s->room - 1); s->at[i] != 0; i = (i + 1) & (s->room - 1))
        if (s->at[i] == pair + 1) return true;
    return false;
}

static bool set_put(struct pn_number_set *s, uint64_t pair) {
    if (2 * (s->n + 1) > s->room) {
        struct pn_number_set grown = {.room = s->room ? 2 * s->room : 4096};
        if (!(grown.at = calloc(grown.room, sizeof *grown.at))) return false;
        for (size_t i = 0; i < s->room; i++)
            if (s->at[i]) set_put(&grown, s->at[i] - 1);
        free(s->at);
        *s = grown;
    }
    size_t i = pn_mix64(pair) & (s->room - 1);
    while (s->at[i] && s->at[i] != pair + 1) i = (i + 1) & (s->room - 1);
    s->n += s->at[i] == 0;
    s->at[i] = pair + 1;
    return true;
}

/* ---- lines ---- */
static const char *blanks(const char *p, const char *end) {
    while (p < end && (*p == ' ' || *p == '\t' || *p == '\r')) p++;
    return p;
}

/* The id at *at, which moves behind it. */
static bool id_at(struct pn_reader *r, const struct pn_record *record, const char **at, uint32_t *id) {
    const char *end = record->text + record->n_bytes, *p = *at;
    uint64_t v = 0;
    while (p < end && *p >= '0' && *p <= '9' && v < MOST_ID) v = v * 10 + (uint64_t)(*p++ - '0');
    if (p == *at || v >= MOST_ID || (p < end && !strchr(" \t\r,)", *p))) {
        const char *stop = *at;
        while (stop < end && *stop != ' ' && *stop != '\t') stop++;
        return pn_row_bad(r, record->line, "\"%.*s\" is no id: a decimal number below %u", stop - *at < 40 ? (int)(stop - *at) : 40, *at, MOST_ID);
    }
    *id = (uint32_t)v;
    *at = p;
    return true;
}

/* Begins a line: its user, and where its items begin. *list: its first item is the positive one and the others are negatives. *n: items. */
static bool begin_line(struct pn_reader *r, const struct pn_record *record, uint32_t *user, const char **items, bool *list) {
    const char *end = record->text + record->n_bytes, *p = blanks(record->text, end);
    *list = r->data.format == PN_FORMAT_NCF && p < end && *p == '(';
    p += *list;
    if (!id_at(r, record, &p, user)) return false;
    if (*list && p < end && *p == ',') p++;
    else if (*list) return pn_row_bad(r, record->line, "expected (user,item)");
    *items = blanks(p, end);
    if (*items == end && r->data.format == PN_FORMAT_NCF) return pn_row_bad(r, record->line, "expected a user and an item");
    return true;
}

/* ---- the tables ---- */
static bool widen(void *array, size_t *n, size_t wanted, size_t size) {
    if (wanted <= *n) return true;
    size_t more = *n * 2 > wanted ? *n * 2 : wanted + 1024;
    char *grown = realloc(*(void **)array, more * size);
    if (!grown) return false;
    memset(grown + *n * size, 0, (more - *n) * size);
    *(void **)array = grown;
    *n = more;
    return true;
}

static uint64_t lot(const struct pn_reader *r, uint64_t pair) { return pn_mix64(r->data.hold_out_seed ^ pn_mix64(pair)); }

/* The pair comes into its user's list of those with the least lots. */
static bool draw_lot(struct pn_reader *r, uint64_t pair) {
    struct pn_pairs *p = &r->pairs;
    const size_t k = r->data.hold_out, at = user_of(pair) * k;
    size_t users = p->n_users;
    if (!widen(&p->counts, &users, (size_t)user_of(pair) + 1, sizeof *p->counts) || !widen(&p->held, &p->n_held, users * k, sizeof *p->held)) return pn_reader_no_memory(r);
    p->n_users = users;
    const uint32_t count = p->counts[user_of(pair)]++;
    size_t i = count < k ? count : k - 1;
    if (count >= k && lot(r, pair_of(user_of(pair), p->held[at + i])) <= lot(r, pair)) return true;
    for (; i > 0 && lot(r, pair_of(user_of(pair), p->held[at + i - 1])) > lot(r, pair); i--) p->held[at + i] = p->held[at + i - 1];
    p->held[at + i] = item_of(pair);
    return true;
}

static bool is_held(const struct pn_reader *r, uint64_t pair) {
    const size_t k = r->data.hold_out, user = user_of(pair);
    if (k == 0 || user >= r->pairs.n_users || r->pairs.counts[user] <= k) return false;
    for (size_t i = 0; i < k; i++)
        if (r->pairs.held[user * k + i] == item_of(pair)) return true;
    return false;
}

static bool load(struct pn_reader *r, uint64_t pair) {
    struct pn_pairs *p = &r->pairs;
    if (set_has(&p->seen, pair)) return true; /* a line that comes twice is one pair */
    if (!set_put(&p->seen, pair) || !widen(&p->rows, &p->n_ids, (size_t)item_of(pair) + 1, sizeof *p->rows)) return pn_reader_no_memory(r);
    p->rows[item_of(pair)]++;
    return r->data.hold_out == 0 || strcmp(r->base, r->data.path) != 0 || draw_lot(r, pair);
}

bool pn_pairs_load(struct pn_reader *r, const struct pn_record *record) {
    const char *end = record->text + record->n_bytes, *at;
    uint32_t user, item;
    bool list;
    if (!begin_line(r, record, &user, &at, &list)) return false;
    while (at < end) {
        if (!id_at(r, record, &at, &item) || !load(r, pair_of(user, item))) return false;
        if (r->data.format == PN_FORMAT_NCF) break; /* ratings, times, negatives */
        at = blanks(at, end);
    }
    return true;
}

/* The alias table over the items, in proportion to rows ^ power. */
static bool make_alias(struct pn_reader *r) {
    struct pn_pairs *p = &r->pairs;
    const size_t n = p->n_items;
    double total = 0;
    uint32_t *small = malloc((n + 1) * sizeof *small), *large = malloc((n + 1) * sizeof *large);
    double *weight = malloc((n + 1) * sizeof *weight);
    p->keep = malloc((n + 1) * sizeof *p->keep);
    p->alias = malloc((n + 1) * sizeof *p->alias);
    const bool good = small && large && weight && p->keep && p->alias;
    size_t n_small = 0, n_large = 0;
    for (size_t i = 0; good && i < n; i++) total += weight[i] = p->rows[p->items[i]] > 0 ? pow(p->rows[p->items[i]], r->data.negatives.power) : 0;
    for (size_t i = 0; good && i < n; i++) {
        weight[i] *= (double)n / total;
        if (weight[i] < 1) small[n_small++] = (uint32_t)i;
        else large[n_large++] = (uint32_t)i;
    }
    while (good && n_small > 0 && n_large > 0) {
        const uint32_t s = small[--n_small], l = large[n_large - 1];
        p->keep[s] = weight[s];
        p->alias[s] = l;
        weight[l] -= 1 - weight[s];
        if (weight[l] < 1) small[n_small++] = large[--n_large];
    }
    while (good && n_small + n_large > 0) {
        const uint32_t i = n_large > 0 ? large[--n_large] : small[--n_small];
        p->keep[i] = 1;
        p->alias[i] = i;
    }
    p->total = total;
    free(small);
    free(large);
    free(weight);
    return good || pn_reader_no_memory(r);
}

/* The pairs that are not to be drawn, a bit each, if that is small enough for a cache; the set misses it at nearly every draw. */
static bool make_map(struct pn_reader *r) {
    struct pn_pairs *p = &r->pairs;
    uint32_t users = 0;
    for (size_t i = 0; i < p->seen.room; i++)
        if (p->seen.at[i] && user_of(p->seen.at[i] - 1) >= users) users = user_of(p->seen.at[i] - 1) + 1;
    p->map_row = (p->n_ids + 63) / 64;
    if (r->data.negatives.per_positive == 0 || r->data.negatives.any || (uint64_t)users * p->map_row > MOST_MAP / 8) return true;
    p->map_users = users;
    if (!(p->map = calloc((size_t)users * p->map_row + 1, 8))) return pn_reader_no_memory(r);
    for (size_t i = 0; i < p->seen.room; i++) {
        const uint64_t pair = p->seen.at[i] - 1;
        if (p->seen.at[i] && !(r->data.part == PN_PART_TRAIN && is_held(r, pair))) p->map[user_of(pair) * p->map_row + item_of(pair) / 64] |= 1ull << item_of(pair) % 64;
    }
    return true;
}

/* May this user not be shown the item as a negative? */
static bool barred(const struct pn_reader *r, uint64_t pair) {
    const struct pn_pairs *p = &r->pairs;
    if (r->data.negatives.any) return false;
    if (p->map) return user_of(pair) < p->map_users && p->map[user_of(pair) * p->map_row + item_of(pair) / 64] >> item_of(pair) % 64 & 1;
    return set_has(&p->seen, pair) && !(r->data.part == PN_PART_TRAIN && is_held(r, pair));
}

/* Once the `seen` files have come. What is held out is no train row: it counts for nothing and may be drawn. */
static bool ready(struct pn_reader *r) {
    struct pn_pairs *p = &r->pairs;
    p->ready = true;
    if (r->data.negatives.n_seen == 0) return true;
    p->items = malloc((p->n_ids + 1) * sizeof *p->items);
    if (!p->items) return pn_reader_no_memory(r);
    for (size_t i = 0; i < p->n_ids; i++)
        if (p->rows[i] > 0) p->items[p->n_items++] = (uint32_t)i;
    for (size_t user = 0; r->data.part == PN_PART_TRAIN && user < p->n_users; user++)
        for (size_t i = 0; p->counts[user] > r->data.hold_out && i < r->data.hold_out; i++) p->rows[p->held[user * r->data.hold_out + i]]--;
    for (size_t i = 0; i < p->n_ids; i++) p->total += p->rows[i];
    p->log_uniform = (float)-log((double)p->n_items);
    return make_map(r) && (r->data.negatives.power <= 0 || make_alias(r));
}

/* Log of the probability that the item is drawn; without negatives: of its share of the rows, by which it comes into a batch. */
static float log_q(const struct pn_reader *r, uint32_t item) {
    const struct pn_pairs *p = &r->pairs;
    if (p->n_items == 0) return 0;
    if (r->data.negatives.per_positive > 0 && r->data.negatives.power <= 0) return p->log_uniform;
    const double rows = item < p->n_ids && p->rows[item] > 0 ? p->rows[item] : 0.5;
    if (r->data.negatives.per_positive == 0) return (float)log(rows / p->total);
    return (float)(r->data.negatives.power * log(rows) - log(p->total));
}

/* ---- rows ---- */
static bool row(struct pn_reader *r, uint32_t user, uint32_t item, float label) {
    struct pn_reader_batch *b = &r->batch;
    char text[2][12];
    for (int i = 0; i < 2; i++) {
        uint32_t v = i == 0 ? user : item;
        size_t at = 12;
        do text[i][--at] = (char)('0' + v % 10);
        while ((v /= 10) > 0);
        if (!pn_row_field(r, text[i] + at, 12 - at)) return false;
    }
    if (r->pairs.n_items > 0) {
        if (!widen(&b->log_q, &b->max_log_q, b->n_rows + 1, sizeof *b->log_q)) return pn_reader_no_memory(r);
        b->log_q[b->n_rows] = log_q(r, item);
    }
    return pn_row_end(r, label);
}

static bool draw(struct pn_reader *r, uint64_t pair) {
    const struct pn_pairs *p = &r->pairs;
    const uint64_t epoch = r->data.negatives.redraw ? r->options.epoch + 1u : 0;
    struct pn_rng rng = {pn_mix64(r->data.negatives.seed ^ pn_mix64(pair ^ pn_mix64(epoch)))};
    for (uint32_t k = 0; k < r->data.negatives.per_positive; k++)
        for (uint32_t tries = 0;; tries++) {
            if (tries == MOST_TRIES || p->n_items == 0) return pn_row_bad(r, r->n_rows_read, "no negative can be drawn: user %" PRIu32 " has nearly every item", user_of(pair));
            size_t i = (size_t)((unsigned __int128)pn_rng_next(&rng) * p->n_items >> 64);
            if (p->keep && (double)(pn_rng_next(&rng) >> 11) * 0x1p-53 >= p->keep[i]) i = p->alias[i];
            if (barred(r, pair_of(user_of(pair), p->items[i]))) continue;
            if (!row(r, user_of(pair), p->items[i], 0)) return false;
            break;
        }
    return true;
}

/* The next positive row of the shuffled stream and its negatives. */
static bool give(struct pn_reader *r, uint64_t pair, bool *full) {
    const uint64_t group = 1 + r->data.negatives.per_positive, groups = r->options.batch_size > group ? r->options.batch_size / group : 1;
    const uint64_t i_batch = r->n_rows_out / groups, n = r->options.n_producers;
    r->n_rows_out++;
    if (i_batch % n != r->options.producer || i_batch / n < r->options.skip_batches) return true;
    r->batch.n_columns = r->n_names;
    if (!row(r, user_of(pair), item_of(pair), 1) || !draw(r, pair)) return false;
    *full = r->batch.n_rows >= groups * group;
    return true;
}

static bool pass(struct pn_reader *r, uint64_t pair, bool *full) {
    struct pn_pairs *p = &r->pairs;
    if (r->options.shuffle_buffer == 0) return give(r, pair, full);
    if (p->n_window == r->options.shuffle_buffer) {
        const size_t i = (size_t)((unsigned __int128)pn_rng_next(&r->rng) * p->n_window >> 64);
        const uint64_t out = p->window[i];
        p->window[i] = pair;
        return give(r, out, full);
    }
    if (!widen(&p->window, &p->max_window, p->n_window + 1, sizeof *p->window)) return pn_reader_no_memory(r);
    p->window[p->n_window++] = pair;
    return true;
}

/* The next items of the line under way, until the batch is full or the line is over. */
static bool go_on(struct pn_reader *r, bool *full) {
    struct pn_pairs *p = &r->pairs;
    const char *end = p->line.text + p->line.n_bytes;
    while (p->at < end && !*full && !r->ended) {
        uint32_t item;
        if (!id_at(r, &p->line, &p->at, &item)) return false;
        const uint64_t pair = pair_of(p->user, item);
        if (p->list) { /* the rows of one list stay together */
            const uint64_t i = r->n_rows_read++;
            if (i < r->data.first_row) {
                p->at = end;
                return true;
            }
            if (r->data.n_rows && i + 1 == r->data.first_row + r->data.n_rows) r->ended = true;
            r->batch.n_columns = r->n_names;
            if (p->at < end && *p->at == ')') p->at++;
            if (!row(r, p->user, item, 1)) return false;
            for (p->at = blanks(p->at, end); p->at < end; p->at = blanks(p->at, end)) {
                uint32_t other;
                if (!id_at(r, &p->line, &p->at, &other) || (other != item && !row(r, p->user, other, 0))) return false;
            }
            *full = r->batch.n_rows >= r->options.batch_size;
            return true;
        }
        p->at = r->data.format == PN_FORMAT_NCF ? end : blanks(p->at, end);
        if (r->data.part != PN_PART_ALL && is_held(r, pair) != (r->data.part == PN_PART_HELD)) continue;
        const uint64_t i = r->n_rows_read++;
        if (i < r->data.first_row) continue;
        if (r->data.n_rows && i + 1 == r->data.first_row + r->data.n_rows) r->ended = true;
        if (!pass(r, pair, full)) return false;
    }
    return true;
}

/* Is there a place for the line under way? Lists and pairs are counted in two ways up to a position, so that a file has one kind of lines; and lists are data as it is: what is drawn or held out, and
 * what several shards share, is pairs. */
static bool has_place(struct pn_reader *r) {
    struct pn_pairs *p = &r->pairs;
    const uint64_t line = p->line.line;
    if (p->first_line == 0) {
        p->first_line = line;
        p->lists = p->list;
    }
    if (p->list != p->lists)
        return pn_row_bad(r, line, "%s, in a file that began with %s at line %" PRIu64 "; put one of the two kinds into a file of its own", p->list ? "a list of negatives, (user,item) item ..." : "a plain pair, user item",
                          p->lists ? "lists of negatives" : "plain pairs", p->first_line);
    if (p->list && r->options.n_producers > 1) return pn_row_bad(r, line, "a line with a list of negatives has no place in train data of several shards");
    if (p->list && (r->data.hold_out > 0 || r->data.negatives.per_positive > 0))
        return pn_row_bad(r, line, "a line with a list of negatives, and %s: these go with plain pairs, user item, only; leave one of the two out", r->data.hold_out > 0 ? "holdOut" : "negatives to be drawn");
    return true;
}

bool pn_pairs_columns(struct pn_reader *r) {
    r->names = calloc(2, sizeof *r->names);
    if (!r->names) return false;
    r->names[0] = "user";
    r->names[1] = "item";
    r->n_names = 2;
    return true;
}

/* A batch of lists, which end where they end: what is before the position is made, and left out. (give() counts pairs instead and makes none.) */
static bool left_out(struct pn_reader *r) {
    if (!r->pairs.list || r->batch.n_rows == 0 || r->pairs.n_left_out >= r->options.skip_batches) return false; /* more: of the epoch before */
    r->pairs.n_left_out++;
    r->batch.n_rows = r->batch.text.n = 0;
    return true;
}

enum pn_advance pn_pairs_advance(struct pn_reader *r) {
    struct pn_pairs *p = &r->pairs;
    bool full = false;
    while (!full) {
        if (p->at != NULL && p->at < p->line.text + p->line.n_bytes && !r->ended) {
            if (!go_on(r, &full)) return PN_ADVANCE_FAILED;
            full = full && !left_out(r);
            continue;
        }
        if (r->ended) {
            if (p->n_window == 0) break;
            const size_t i = (size_t)((unsigned __int128)pn_rng_next(&r->rng) * p->n_window >> 64);
            const uint64_t out = p->window[i];
            p->window[i] = p->window[--p->n_window];
            if (!give(r, out, &full)) return PN_ADVANCE_FAILED;
            continue;
        }
        struct pn_record record;
        const bool rows = r->i_file == r->n_files - 1;
        p->at = NULL;
        switch (pn_stream_record(r->stream, false, r->separator, &record, &r->result, &r->err)) {
            case PN_STREAM_HUNGRY: return PN_ADVANCE_HUNGRY;
            case PN_STREAM_BAD: return PN_ADVANCE_FAILED;
            case PN_STREAM_END:
                if (!rows) return PN_ADVANCE_NEXT_FILE;
                r->ended = true;
                break;
            case PN_STREAM_RECORD:
                if (!rows) {
                    if (!pn_pairs_load(r, &record)) return PN_ADVANCE_FAILED;
                    break;
                }
                if (!p->ready && !ready(r)) return PN_ADVANCE_FAILED;
                p->line = record;
                if (!begin_line(r, &record, &p->user, &p->at, &p->list) || !has_place(r)) return PN_ADVANCE_FAILED;
                break;
        }
    }
    return r->batch.n_rows == 0 || (!full && left_out(r)) ? PN_ADVANCE_END : PN_ADVANCE_BATCH;
}

void pn_pairs_free(struct pn_reader *r) {
    struct pn_pairs *p = &r->pairs;
    free(p->seen.at);
    free(p->rows);
    free(p->items);
    free(p->counts);
    free(p->held);
    free(p->map);
    free(p->keep);
    free(p->alias);
    free(p->window);
    free(r->batch.log_q);
}
