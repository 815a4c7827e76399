/* CSV with a header line, and Criteo's tab-separated lines. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "worker/reader/internal.h"

/* ---- csv ---- */

/* The field at record[*at ...): its value into out (room for what is left of the record), *at behind its separator.
 * `more`: another field follows. False: text behind a closing quote. */
static bool csv_field(const struct pn_record *record, char separator, size_t *at, char *out, size_t *n, bool *more) {
    const char *p = record->text + *at, *end = record->text + record->n_bytes;
    *n = 0;
    if (p < end && *p == '"') {
        for (p++; p < end; p++) {
            if (*p == '"') {
                if (p + 1 == end || p[1] != '"') break;
                p++;
            }
            out[(*n)++] = *p;
        }
        p++; /* the closing quote: the stream gives no record without */
        if (p < end && *p != separator) return false;
    } else {
        const char *stop = memchr(p, separator, (size_t)(end - p));
        if (!stop) stop = end;
        *n = (size_t)(stop - p);
        memcpy(out, p, *n);
        p = stop;
    }
    *more = p < end;
    *at = (size_t)(p - record->text) + 1;
    return true;
}

static size_t csv_count(const struct pn_record *record, char separator, char *scratch) {
    size_t at = 0, n, count = 0;
    for (bool more = true; more; count++)
        if (!csv_field(record, separator, &at, scratch, &n, &more)) return 0;
    return count;
}

bool pn_csv_header(struct pn_reader *r, const struct pn_record *header) {
    struct pn_record record = *header;
    if (record.n_bytes >= 3 && memcmp(record.text, "\xef\xbb\xbf", 3) == 0) {
        record.text += 3;
        record.n_bytes -= 3;
    }
    /* A header with tabs and no comma: the values are separated by tabs too. */
    r->separator = memchr(record.text, '\t', record.n_bytes) && !memchr(record.text, ',', record.n_bytes) ? '\t' : ',';
    char *text = malloc(2 * record.n_bytes + 2);
    if (!text) return pn_reader_no_memory(r);
    r->name_text = text;
    size_t count = csv_count(&record, r->separator, text);
    if (count < 2 || count > PN_MAX_COLUMNS)
        return pn_row_bad(r, record.line, "found %zu columns in the header line, expected 2 to %u, separated by commas or tabs", count, PN_MAX_COLUMNS);
    const char **names = calloc(count, sizeof(*names));
    if (!names) return pn_reader_no_memory(r);
    size_t at = 0, n_names = 0;
    bool more = true, found = false;
    for (size_t i = 0; more; i++) {
        size_t n;
        csv_field(&record, r->separator, &at, text, &n, &more);
        text[n] = 0;
        if (!found && strcmp(text, r->data.label) == 0) {
            r->i_label = i;
            found = true;
            continue;
        }
        names[n_names++] = text;
        text += n + 1;
    }
    if (!found) {
        char list[200];
        size_t used = 0;
        list[0] = 0;
        for (size_t i = 0; i < n_names && used < sizeof(list) - 1; i++) {
            int wrote = snprintf(list + used, sizeof(list) - used, "%s%s", i ? ", " : "", names[i]);
            used += wrote > 0 ? (size_t)wrote : 0;
        }
        free(names);
        return pn_row_bad(r, record.line, "no column is named \"%s\" (the label); the header has %s", r->data.label, list);
    }
    r->names = names;
    r->n_names = n_names;
    return true;
}

bool pn_csv_row(struct pn_reader *r, const struct pn_record *record) {
    char *scratch = malloc(record->n_bytes + 1);
    if (!scratch) return pn_reader_no_memory(r);
    size_t at = 0, i = 0;
    float label = 0;
    bool more = true, good = true;
    for (; more && good; i++) {
        size_t n;
        if (!csv_field(record, r->separator, &at, scratch, &n, &more))
            good = pn_row_bad(r, record->line, "column %zu: text behind a closing quote", i + 1);
        else if (i == r->i_label) good = pn_row_label(r, record->line, scratch, n, &label);
        else if (i <= r->n_names) good = pn_row_field(r, scratch, n);
    }
    free(scratch);
    if (good && i != r->n_names + 1) good = pn_row_bad(r, record->line, "found %zu columns, expected %zu", i, r->n_names + 1);
    return good && pn_row_end(r, label);
}

/* ---- criteo ---- */

enum { CRITEO_COLUMNS = 39 };
static const char *const criteo_names[CRITEO_COLUMNS] = {
    "I1", "I2", "I3", "I4", "I5", "I6", "I7", "I8", "I9", "I10", "I11", "I12", "I13", "C1", "C2", "C3", "C4", "C5", "C6", "C7",
    "C8", "C9", "C10", "C11", "C12", "C13", "C14", "C15", "C16", "C17", "C18", "C19", "C20", "C21", "C22", "C23", "C24", "C25", "C26"};

bool pn_criteo_columns(struct pn_reader *r) {
    r->names = malloc(sizeof(criteo_names));
    if (!r->names) return false;
    memcpy(r->names, criteo_names, sizeof(criteo_names));
    r->n_names = CRITEO_COLUMNS;
    return true;
}

bool pn_criteo_row(struct pn_reader *r, const struct pn_record *record) {
    const char *p = record->text, *end = p + record->n_bytes;
    size_t i = 0;
    float label = 0;
    for (bool more = true; more; i++) {
        const char *stop = memchr(p, '\t', (size_t)(end - p));
        more = stop != NULL;
        if (!more) stop = end;
        if (i == 0 && !pn_row_label(r, record->line, p, (size_t)(stop - p), &label)) return false;
        if (i > 0 && i <= CRITEO_COLUMNS && !pn_row_field(r, p, (size_t)(stop - p))) return false;
        p = stop + 1;
    }
    if (i != CRITEO_COLUMNS + 1)
        return pn_row_bad(r, record->line, "found %zu columns, expected %d separated by tabs (label, I1..I13, C1..C26)", i, CRITEO_COLUMNS + 1);
    return pn_row_end(r, label);
}
