/* MovieLens in time order: which tenth a rating is of, and what its user rated before.
 *
 * All ratings are loaded once, before the rows. A history holds what the user did up to the row's moment and not at it: ratings of the same second are not in it,
 * for one of them would tell of another. In serving the same two columns come with the request. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "worker/reader/internal.h"

bool pn_history_load(struct pn_reader *r, const struct pn_moment *rating) {
    struct pn_movielens *m = &r->movielens;
    if (m->n_ratings == m->max_ratings) {
        const size_t max = m->max_ratings ? 2 * m->max_ratings : 4096;
        struct pn_moment *grown = realloc(m->ratings, max * sizeof *grown);
        if (!grown) return pn_reader_no_memory(r);
        m->ratings = grown;
        m->max_ratings = max;
    }
    m->ratings[m->n_ratings++] = *rating;
    return true;
}

static int by_time(const void *a, const void *b) {
    const struct pn_moment *x = a, *y = b;
    if (x->time != y->time) return x->time < y->time ? -1 : 1;
    return (x->line > y->line) - (x->line < y->line);
}
static int by_user(const void *a, const void *b) {
    const struct pn_moment *x = a, *y = b;
    return x->user != y->user ? (x->user > y->user) - (x->user < y->user) : by_time(a, b);
}

bool pn_history_sort(struct pn_reader *r) {
    struct pn_movielens *m = &r->movielens;
    if (m->n_ratings < 10) return pn_row_bad(r, 0, "%zu ratings cannot be split into tenths", m->n_ratings);
    qsort(m->ratings, m->n_ratings, sizeof *m->ratings, by_time);
    m->cut[0] = m->ratings[m->n_ratings * 8 / 10];
    m->cut[1] = m->ratings[m->n_ratings * 9 / 10];
    qsort(m->ratings, m->n_ratings, sizeof *m->ratings, by_user);
    return true;
}

bool pn_history_wanted(const struct pn_reader *r, uint64_t time, uint64_t line) {
    const struct pn_moment at = {.time = time, .line = line};
    const bool in_validation = by_time(&at, &r->movielens.cut[0]) >= 0, in_test = by_time(&at, &r->movielens.cut[1]) >= 0;
    switch (r->data.part) {
        case PN_PART_ALL: return true;
        case PN_PART_TRAIN: return !in_validation;
        case PN_PART_VALIDATION: return in_validation && !in_test;
        case PN_PART_TEST: return in_test;
        case PN_PART_HELD: return false;
    }
    return false;
}

bool pn_history_fields(struct pn_reader *r, uint32_t user, uint64_t time) {
    const struct pn_movielens *m = &r->movielens;
    size_t low = 0, high = m->n_ratings; /* low: the user's first rating at or behind the moment */
    while (low < high) {
        const size_t middle = (low + high) / 2;
        const struct pn_moment *x = &m->ratings[middle];
        if (x->user < user || (x->user == user && x->time < time)) low = middle + 1;
        else high = middle;
    }
    size_t first = low;
    while (first > 0 && low - first < r->data.history && m->ratings[first - 1].user == user) first--;
    char items[200 * 11 + 1], marks[200 * 5 + 1];
    size_t n_items = 0, n_marks = 0;
    for (size_t i = first; i < low; i++) {
        n_items += (size_t)snprintf(items + n_items, sizeof items - n_items, "%s%u", i > first ? "|" : "", m->ratings[i].item);
        n_marks += (size_t)snprintf(marks + n_marks, sizeof marks - n_marks, "%s%u", i > first ? "|" : "", m->ratings[i].rating);
    }
    return pn_row_field(r, items, n_items) && pn_row_field(r, marks, n_marks);
}
