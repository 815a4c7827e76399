/* The data of SASRec (a line "user item" an action, in time order, a user's lines together) and of S3-Rec (a line "user item item ..." a user); items are numbers from 1.
 *
 * Leave one out (Kang and McAuley 2018): a user's last item is test, the one before it validation, the rest training; a user of fewer than 3 actions only trains.
 * A row is a user, its cells are lists with '|' between, oldest first:
 *   train             history s_1 .. s_t-1, target s_2 .. s_t, of which the last `history` places
 *   validation, test  history: what came before (its last `history`), target: the one item, seen: all that came before
 *   negatives         with `negatives`: perPositive items for each target that the user never had, place by place; a function of (seed, user's line), and of the epoch
 *                     with redraw; without: all items of the data, in the first row of each batch (in the others nothing), for whoever ranks or normalises over all */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "worker/reader/internal.h"

enum { COLUMNS = 5 };
static const char *const names[COLUMNS] = {"user", "history", "target", "negatives", "seen"};

bool pn_sequence_columns(struct pn_reader *r) {
    r->names = malloc(sizeof(names));
    if (!r->names) return false;
    memcpy(r->names, names, sizeof(names));
    r->n_names = COLUMNS;
    return true;
}

static bool is_blank(char c) { return c == ' ' || c == '\t'; }
/* The line from its first word on. */
static struct pn_record trimmed(const struct pn_record *record) {
    struct pn_record line = *record;
    for (; line.n_bytes > 0 && is_blank(*line.text); line.n_bytes--) line.text++;
    return line;
}

/* The next number of the line at *at. 1: here is one; 0: the line is over; -1: bad, said. */
static int next_number(struct pn_reader *r, const struct pn_record *record, size_t *at, uint64_t *out) {
    const char *t = record->text;
    while (*at < record->n_bytes && is_blank(t[*at])) ++*at;
    const size_t begin = *at;
    for (*out = 0; *at < record->n_bytes && t[*at] >= '0' && t[*at] <= '9' && *at - begin < 10; ++*at) *out = *out * 10 + (uint64_t)(t[*at] - '0');
    if (*at == record->n_bytes && *at == begin) return 0;
    if (*at > begin && *out > 0 && *out <= 1u << 30 && (*at == record->n_bytes || is_blank(t[*at]))) return 1;
    pn_row_bad(r, record->line, "\"%.*s\" is no id (a number from 1)", (int)(record->n_bytes - begin < 30 ? record->n_bytes - begin : 30), t + begin);
    return -1;
}

/* The line's numbers behind the first, into sequences.items. */
static bool items_of(struct pn_reader *r, const struct pn_record *record) {
    struct pn_number_set *items = &r->sequences.items;
    size_t at = 0;
    uint64_t x;
    int more = next_number(r, record, &at, &x);
    for (items->n = 0; more > 0 && (more = next_number(r, record, &at, &x)) > 0; items->at[items->n++] = x)
        if (items->n == items->room) {
            const size_t room = items->room ? 2 * items->room : 256;
            uint64_t *grown = realloc(items->at, room * sizeof(*grown));
            if (!grown) return pn_reader_no_memory(r);
            items->at = grown;
            items->room = room;
        }
    if (more == 0 && items->n == 0) return pn_row_bad(r, record->line, "found no item behind the user");
    return more == 0;
}

bool pn_sequence_load(struct pn_reader *r, const struct pn_record *record) {
    if (!items_of(r, record)) return false;
    if (r->data.format == PN_FORMAT_SASREC && r->sequences.items.n > 1)
        return pn_row_bad(r, record->line, "found %zu numbers, expected a user and an item (s3rec has a user's items on one line; ratings and times have no place)", 1 + r->sequences.items.n);
    for (size_t i = 0; i < r->sequences.items.n; i++)
        if (r->sequences.items.at[i] > r->sequences.most) r->sequences.most = r->sequences.items.at[i];
    return true;
}

bool pn_sequence_gather(struct pn_reader *r, const struct pn_record *record, struct pn_record *ready, bool *there) {
    struct pn_sequences *q = &r->sequences;
    struct pn_record line = {0};
    if (record) line = trimmed(record);
    *there = false;
    if (r->data.format == PN_FORMAT_S3REC) {
        *ready = line;
        *there = record != NULL;
        return true;
    }
    size_t n_user = 0;
    while (n_user < line.n_bytes && !is_blank(line.text[n_user])) n_user++;
    const bool same = record && q->user.n > n_user && memcmp(q->user.text, line.text, n_user) == 0 && is_blank(q->user.text[n_user]);
    if (!same && q->user.n > 0) {
        const struct pn_text spare = q->given;
        q->given = q->user;
        q->user = spare;
        q->user.n = 0;
        *ready = (struct pn_record){q->given.text, q->given.n, q->line};
        *there = true;
    }
    if (!record) return true;
    if (!same) q->line = line.line;
    const size_t skip = same ? n_user : 0; /* "user item" of the first, then " item" */
    return pn_text_bytes(&q->user, line.text + skip, line.n_bytes - skip) || pn_reader_no_memory(r);
}

bool pn_sequence_wanted(struct pn_reader *r, const struct pn_record *record) {
    size_t words = 0;
    for (size_t i = 0; i < record->n_bytes; i++) words += !is_blank(record->text[i]) && (i == 0 || is_blank(record->text[i - 1]));
    const size_t n = words - 1;
    return r->data.part == PN_PART_TRAIN ? n == 2 || n >= 4 : n >= 3;
}

static bool put(struct pn_reader *r, uint64_t x) {
    char text[24];
    const int n = snprintf(text, sizeof(text), "%s%llu", r->sequences.cell.n > 0 ? "|" : "", (unsigned long long)x);
    return pn_text_bytes(&r->sequences.cell, text, (size_t)n) || pn_reader_no_memory(r);
}

/* Items [from, to) as a cell. */
static bool list(struct pn_reader *r, size_t from, size_t to) {
    r->sequences.cell.n = 0;
    for (size_t i = from; i < to; i++)
        if (!put(r, r->sequences.items.at[i])) return false;
    return pn_row_field(r, r->sequences.cell.text, r->sequences.cell.n);
}

static bool negatives(struct pn_reader *r, uint64_t line, size_t n_targets) {
    const struct pn_number_set *items = &r->sequences.items;
    const uint64_t most = r->sequences.most;
    r->sequences.cell.n = 0;
    if (r->data.negatives.per_positive == 0) {
        for (uint64_t x = 1; r->batch.n_rows == 0 && x <= most; x++)
            if (!put(r, x)) return false;
    } else {
        struct pn_rng rng = {pn_mix64(r->data.negatives.seed ^ pn_mix64(line ^ pn_mix64(r->data.negatives.redraw ? r->options.epoch + 1u : 0)))};
        for (size_t i = 0, tries = 0; i < n_targets * r->data.negatives.per_positive;) {
            const uint64_t x = 1 + (uint64_t)((unsigned __int128)pn_rng_next(&rng) * most >> 64);
            bool had = false;
            for (size_t k = 0; k < items->n && !had; k++) had = items->at[k] == x;
            if (had && ++tries > 1000000) return pn_row_bad(r, line, "no negative can be drawn: this user has nearly all items");
            if (had) continue;
            if (!put(r, x)) return false;
            i++;
        }
    }
    return pn_row_field(r, r->sequences.cell.text, r->sequences.cell.n);
}

bool pn_sequence_row(struct pn_reader *r, const struct pn_record *record) {
    if (!items_of(r, record)) return false;
    const bool train = r->data.part == PN_PART_TRAIN;
    const size_t n = r->sequences.items.n, most = r->data.history;
    const size_t end = train ? (n >= 3 ? n - 2 : n) : r->data.part == PN_PART_VALIDATION ? n - 1 : n; /* behind the (last) target */
    const size_t from = end - 1 > most ? end - 1 - most : 0;
    size_t n_user = 0;
    while (!is_blank(record->text[n_user])) n_user++;
    r->batch.value = 1;
    return pn_row_field(r, record->text, n_user) && list(r, from, end - 1) && list(r, train ? from + 1 : end - 1, end) &&
           negatives(r, record->line, train ? end - 1 - from : 1) && list(r, 0, train ? 0 : end - 1) && pn_row_end(r, 1);
}

void pn_sequence_free(struct pn_reader *r) {
    free(r->sequences.user.text);
    free(r->sequences.given.text);
    free(r->sequences.cell.text);
    free(r->sequences.items.at);
}
