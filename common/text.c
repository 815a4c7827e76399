#include "common/text.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool make_room(struct pn_text *t, size_t n) {
    if (t->failed) return false;
    if (n <= t->room - t->n) return true;
    size_t room = (t->n + n) * 2;
    char *grown = realloc(t->text, room);
    if (grown == NULL) {
        t->failed = true;
        return false;
    }
    t->text = grown;
    t->room = room;
    return true;
}

void pn_text_add(struct pn_text *t, const char *format, ...) {
    for (int round = 0; round < 2; round++) {
        va_list args;
        if (!make_room(t, 64)) return;
        va_start(args, format);
        int k = vsnprintf(t->text + t->n, t->room - t->n, format, args);
        va_end(args);
        if (k < 0) {
            t->failed = true;
            return;
        }
        if ((size_t)k < t->room - t->n) {
            t->n += (size_t)k;
            return;
        }
        if (!make_room(t, (size_t)k + 1)) return;
    }
}

bool pn_text_bytes(struct pn_text *t, const void *data, size_t n) {
    if (n == 0 || !make_room(t, n)) return !t->failed;
    memcpy(t->text + t->n, data, n);
    t->n += n;
    return true;
}

void pn_text_quoted(struct pn_text *t, const char *text) {
    pn_text_bytes(t, "\"", 1);
    for (const char *c = text; *c != '\0'; c++) {
        if (*c == '"' || *c == '\\') {
            pn_text_bytes(t, "\\", 1);
            pn_text_bytes(t, c, 1);
        } else if (*c == '\n') {
            pn_text_bytes(t, "\\n", 2);
        } else if ((unsigned char)*c < ' ') {
            pn_text_add(t, "\\u%04x", (unsigned)*c);
        } else {
            pn_text_bytes(t, c, 1);
        }
    }
    pn_text_bytes(t, "\"", 1);
}
