/* The folder of MovieLens 100K: u.user and u.item (Latin-1) first, then the split's test file, then all ratings if histories or the split by time
 * need them, then the ratings as rows.
 *
 * Columns of a rating: user item age gender occupation zip (first two characters) genres (names, '|' between) decade (of the
 * film's release: "1990"; missing if unknown) hour (0..23) weekday (0 Monday..6 Sunday), both UTC, and title (UTF-8);
 * with `history` (history.c) also history (items, '|' between, oldest first) and history_rating (1..5 of each). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "worker/reader/internal.h"

enum { USER_FIELDS = 4, ITEM_FIELDS = 3, COLUMNS = 11, HISTORY_COLUMNS = 2, N_GENRES = 19, MAX_ID = 1 << 22 };
static const char *const names[COLUMNS + HISTORY_COLUMNS] = {"user", "item", "age", "gender", "occupation", "zip", "genres", "decade", "hour", "weekday", "title", "history", "history_rating"};
static const char *const genres[N_GENRES] = {"unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime",
                                             "Documentary", "Drama", "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery",
                                             "Romance", "Sci-Fi", "Thriller", "War", "Western"};

struct part { const char *text; size_t n; };
#define SHOWN(part) ((part).n < 40 ? (int)(part).n : 40), (part).text /* for %.*s */

/* Splits a line; returns how many parts there are, of which the first `max` are in parts. */
static size_t split(const struct pn_record *record, char separator, struct part *parts, size_t max) {
    const char *p = record->text, *end = p + record->n_bytes;
    for (size_t n = 0;; n++) {
        const char *stop = memchr(p, separator, (size_t)(end - p));
        size_t length = (size_t)((stop ? stop : end) - p);
        if (n < max) parts[n] = (struct part){p, length};
        if (!stop) return n + 1;
        p = stop + 1;
    }
}

static bool number(struct part p, uint64_t max, uint64_t *value) {
    *value = 0;
    if (p.n == 0 || p.n > 18) return false;
    for (size_t i = 0; i < p.n; i++) {
        if (p.text[i] < '0' || p.text[i] > '9') return false;
        *value = *value * 10 + (uint64_t)(p.text[i] - '0');
    }
    return *value <= max;
}

bool pn_movielens_columns(struct pn_reader *r) {
    r->names = malloc(sizeof(names));
    if (!r->names) return false;
    memcpy(r->names, names, sizeof(names));
    r->n_names = COLUMNS + (r->data.history > 0 ? HISTORY_COLUMNS : 0);
    return true;
}

static bool by_time(const struct pn_reader *r) { return strcmp(r->data.split, "time") == 0; }
static bool loads_ratings(const struct pn_reader *r) { return by_time(r) || r->data.history > 0; }
static bool loads_test(const struct pn_reader *r) { return !by_time(r) && r->data.part == PN_PART_TRAIN && r->data.split[0]; }

int pn_movielens_n_files(const struct pn_reader *r) { return 3 + loads_test(r) + loads_ratings(r); }

const char *pn_movielens_file(const struct pn_reader *r, int i_file, char name[32]) {
    const char *base = i_file == 0 ? "u.user" : i_file == 1 ? "u.item" : "u.data";
    const bool rows = i_file == pn_movielens_n_files(r) - 1;
    const bool test = !by_time(r) && (rows ? r->data.part == PN_PART_TEST : i_file == 2 && loads_test(r));
    if (test) snprintf(name, 32, "%s.test", r->data.split);
    else snprintf(name, 32, "%s", base);
    return name;
}

/* ---- side files ---- */

static struct pn_span *span_of(struct pn_span **all, size_t *n, size_t n_fields, uint64_t id) {
    if (id >= *n) {
        size_t max = id + 1 > *n * 2 ? (size_t)id + 256 : *n * 2;
        struct pn_span *grown = realloc(*all, max * n_fields * sizeof(**all));
        if (!grown) return NULL;
        memset(grown + *n * n_fields, 0xff, (max - *n) * n_fields * sizeof(**all)); /* offset UINT32_MAX: no such id */
        *all = grown;
        *n = max;
    }
    return *all + id * n_fields;
}

static bool add(struct pn_reader *r, struct pn_span *span, const char *text, size_t n) {
    struct pn_text *t = &r->movielens.text;
    if (t->n + n >= UINT32_MAX || !pn_text_bytes(t, text, n)) return pn_reader_no_memory(r);
    *span = (struct pn_span){(uint32_t)(t->n - n), (uint32_t)n};
    return true;
}

static bool load_user(struct pn_reader *r, const struct pn_record *record) {
    struct part parts[5];
    size_t n = split(record, '|', parts, 5);
    uint64_t id;
    if (n != 5) return pn_row_bad(r, record->line, "found %zu columns, expected 5 (user|age|gender|occupation|zip)", n);
    if (!number(parts[0], MAX_ID, &id)) return pn_row_bad(r, record->line, "\"%.*s\" is no user id (0..%d)", SHOWN(parts[0]), MAX_ID);
    struct pn_span *user = span_of(&r->movielens.users, &r->movielens.n_users, USER_FIELDS, id);
    if (!user) return pn_reader_no_memory(r);
    for (int i = 0; i < USER_FIELDS; i++)
        if (!add(r, &user[i], parts[i + 1].text, i == 3 && parts[4].n > 2 ? 2 : parts[i + 1].n)) return false;
    return true;
}

static bool load_item(struct pn_reader *r, const struct pn_record *record) {
    struct part parts[5 + N_GENRES];
    size_t n = split(record, '|', parts, 5 + N_GENRES);
    uint64_t id;
    if (n != 5 + N_GENRES)
        return pn_row_bad(r, record->line, "found %zu columns, expected %d (item|title|release|video|url|19 genres)", n, 5 + N_GENRES);
    if (!number(parts[0], MAX_ID, &id)) return pn_row_bad(r, record->line, "\"%.*s\" is no item id (0..%d)", SHOWN(parts[0]), MAX_ID);
    struct pn_span *item = span_of(&r->movielens.items, &r->movielens.n_items, ITEM_FIELDS, id);
    if (!item) return pn_reader_no_memory(r);
    /* Latin-1 to UTF-8. */
    char title[512];
    size_t length = 0;
    for (size_t i = 0; i < parts[1].n && length + 2 <= sizeof(title); i++) {
        unsigned char c = (unsigned char)parts[1].text[i];
        if (c >= 0x80) title[length++] = (char)(0xc0 | c >> 6);
        title[length++] = (char)(c >= 0x80 ? 0x80 | (c & 0x3f) : c);
    }
    if (!add(r, &item[2], title, length)) return false;
    /* The release is like 01-Jan-1995. */
    char decade[4] = {0};
    size_t n_decade = 0;
    uint64_t year;
    if (parts[2].n >= 4 && number((struct part){parts[2].text + parts[2].n - 4, 4}, 9999, &year)) {
        memcpy(decade, parts[2].text + parts[2].n - 4, 3);
        decade[3] = '0';
        n_decade = 4;
    }
    if (!add(r, &item[1], decade, n_decade)) return false;
    char list[256];
    size_t n_list = 0;
    for (int g = 0; g < N_GENRES; g++) {
        struct part flag = parts[5 + g];
        if (flag.n != 1 || (*flag.text != '0' && *flag.text != '1'))
            return pn_row_bad(r, record->line, "column %d (%s) is \"%.*s\", not 0 or 1", 6 + g, genres[g], SHOWN(flag));
        if (*flag.text == '0') continue;
        if (n_list) list[n_list++] = '|';
        size_t m = strlen(genres[g]);
        memcpy(list + n_list, genres[g], m); /* all nineteen and their separators are 160 bytes */
        n_list += m;
    }
    return add(r, &item[0], list, n_list);
}

static bool rating(struct pn_reader *r, const struct pn_record *record, struct part parts[4], uint64_t *user, uint64_t *item) {
    size_t n = split(record, '\t', parts, 4);
    if (n != 4) return pn_row_bad(r, record->line, "found %zu columns, expected 4 separated by tabs (user, item, rating, time)", n);
    if (!number(parts[0], MAX_ID, user) || !number(parts[1], MAX_ID, item))
        return pn_row_bad(r, record->line, "user \"%.*s\" and item \"%.*s\" must be numbers", SHOWN(parts[0]),
                          SHOWN(parts[1]));
    return true;
}

bool pn_movielens_load(struct pn_reader *r, const struct pn_record *record) {
    if (r->i_file == 0) return load_user(r, record);
    if (r->i_file == 1) return load_item(r, record);
    struct pn_movielens *m = &r->movielens;
    struct part parts[4];
    uint64_t user, item;
    if (!rating(r, record, parts, &user, &item)) return false;
    if (!(r->i_file == 2 && loads_test(r))) {
        uint64_t time, mark;
        if (!number(parts[3], UINT64_MAX, &time)) return pn_row_bad(r, record->line, "the time \"%.*s\" is not in seconds since 1970", SHOWN(parts[3]));
        if (!number(parts[2], 5, &mark)) return pn_row_bad(r, record->line, "the rating \"%.*s\" is not 0 to 5", SHOWN(parts[2]));
        return pn_history_load(r, &(struct pn_moment){.user = (uint32_t)user, .item = (uint32_t)item, .time = time, .line = record->line, .rating = (uint8_t)mark});
    }
    if (m->n_test == m->max_test) {
        size_t max = m->max_test ? m->max_test * 2 : 4096;
        uint64_t *grown = realloc(m->test, max * sizeof(*grown));
        if (!grown) return pn_reader_no_memory(r);
        m->test = grown;
        m->max_test = max;
    }
    m->test[m->n_test++] = user << 32 | item;
    return true;
}

/* ---- ratings ---- */

static int rising(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

bool pn_movielens_wanted(struct pn_reader *r, const struct pn_record *record, bool *wanted) {
    struct pn_movielens *m = &r->movielens;
    *wanted = true;
    if (!m->sorted && loads_ratings(r) && !pn_history_sort(r)) return false;
    if (!m->sorted && m->n_test > 0) qsort(m->test, m->n_test, sizeof(*m->test), rising);
    m->sorted = true;
    struct part parts[4];
    uint64_t user, item, time;
    if (!by_time(r) && (r->data.part != PN_PART_TRAIN || m->n_test == 0)) return true;
    if (!rating(r, record, parts, &user, &item)) return false;
    if (by_time(r)) {
        *wanted = number(parts[3], UINT64_MAX, &time) && pn_history_wanted(r, time, record->line);
        return true;
    }
    uint64_t key = user << 32 | item;
    *wanted = !bsearch(&key, m->test, m->n_test, sizeof(key), rising);
    return true;
}

static bool field(struct pn_reader *r, struct pn_span span) { return pn_row_field(r, r->movielens.text.text + span.offset, span.length); }

bool pn_movielens_row(struct pn_reader *r, const struct pn_record *record) {
    struct pn_movielens *m = &r->movielens;
    struct part parts[4];
    uint64_t i_user, i_item, time;
    float label;
    if (!rating(r, record, parts, &i_user, &i_item)) return false;
    if (!number(parts[3], UINT64_MAX, &time)) return pn_row_bad(r, record->line, "the time \"%.*s\" is not in seconds since 1970", SHOWN(parts[3]));
    const struct pn_span *user = i_user < m->n_users ? m->users + i_user * USER_FIELDS : NULL;
    const struct pn_span *item = i_item < m->n_items ? m->items + i_item * ITEM_FIELDS : NULL;
    if (!user || user->offset == UINT32_MAX) return pn_row_bad(r, record->line, "user %llu is not in u.user", (unsigned long long)i_user);
    if (!item || item->offset == UINT32_MAX) return pn_row_bad(r, record->line, "item %llu is not in u.item", (unsigned long long)i_item);
    if (!pn_row_label(r, record->line, parts[2].text, parts[2].n, &label)) return false;
    char hour[8], weekday[8];
    int n_hour = snprintf(hour, sizeof(hour), "%u", (unsigned)(time / 3600 % 24));
    int n_weekday = snprintf(weekday, sizeof(weekday), "%u", (unsigned)((time / 86400 + 3) % 7)); /* 1970-01-01 was a Thursday */
    return pn_row_field(r, parts[0].text, parts[0].n) && pn_row_field(r, parts[1].text, parts[1].n) && field(r, user[0]) &&
           field(r, user[1]) && field(r, user[2]) && field(r, user[3]) && field(r, item[0]) && field(r, item[1]) &&
           pn_row_field(r, hour, (size_t)n_hour) && pn_row_field(r, weekday, (size_t)n_weekday) && field(r, item[2]) &&
           (r->data.history == 0 || pn_history_fields(r, (uint32_t)i_user, time)) && pn_row_end(r, label);
}

void pn_movielens_free(struct pn_reader *r) {
    free(r->movielens.text.text);
    free(r->movielens.users);
    free(r->movielens.items);
    free(r->movielens.test);
    free(r->movielens.ratings);
}
