/* Patterns and folders among a job's files (data.train.uri: part-*.tsv, or clicks/): looked up once, when the job is submitted. What is found stands in the job's record as a list, so
 * that every worker reads the same files, also after a restart, whatever comes into the folder meanwhile. */
#include <errno.h>
#include <fnmatch.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "coordinator/internal.h"

struct lookup {
    struct pn_coordinator *c;
    struct pn_http_request *request;
    struct pn_job_run *job;
    void (*done)(struct pn_coordinator *, struct pn_http_request *, struct pn_job_run *);
    struct pn_data *data[3];
    int i_data;
    uint32_t i_path;                 /* 0: path, else more[i - 1] */
    char folder[400], pattern[400];  /* of the path that is being looked up; pattern "": the whole folder */
    struct pn_io io;
};

static bool listed(const struct pn_data *d) {
    return d->present && d->kafka.brokers[0] == '\0' && pn_format_lists(d->format) && d->negatives.per_positive == 0;
}

static char *path_at(struct pn_data *d, uint32_t i) { return i == 0 ? d->path : d->more[i - 1]; }

/* A path that may stand for several files: folder and pattern are set. */
static bool several(const char *path, char folder[400], char pattern[400]) {
    const char *slash = strrchr(path, '/'), *name = slash != NULL ? slash + 1 : path;
    if (path[0] == '\0' || (name[0] != '\0' && strpbrk(name, "*?[") == NULL)) return false;
    snprintf(pattern, 400, "%s", name);
    snprintf(folder, 400, "%.*s", slash == NULL ? 1 : slash == path ? 1 : (int)(slash - path), slash == NULL ? "." : path);
    return true;
}

static void give_up(struct lookup *l, int status, const char *format, ...) __attribute__((format(printf, 3, 4)));
static void give_up(struct lookup *l, int status, const char *format, ...) {
    char text[480];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    pn_answer_error(l->request, status, "%s", text);
    pn_job_free_run(l->job);
    free(l);
}

/* Does the file's name fit, with or without .zst or .gz behind it? One that is there plain, too, counts once. */
static bool fits(char **names, const char *name, const char *pattern) {
    const size_t n = strlen(name);
    char plain[400];
    snprintf(plain, sizeof plain, "%s", name);
    if (n > 4 && strcmp(name + n - 4, ".zst") == 0) plain[n < sizeof plain ? n - 4 : 0] = '\0';
    if (n > 3 && strcmp(name + n - 3, ".gz") == 0) plain[n < sizeof plain ? n - 3 : 0] = '\0';
    if (name[0] == '.' || (pattern[0] == '\0' && name[0] == '_')) return false; /* hidden ones, and marks such as _SUCCESS */
    if (strcmp(plain, name) != 0)
        for (char **other = names; *other != NULL; other++)
            if (strcmp(*other, plain) == 0) return false;
    return pattern[0] == '\0' || fnmatch(pattern, name, 0) == 0 || fnmatch(pattern, plain, 0) == 0;
}

static void next(struct lookup *l);

/* The names that fit take the path's place. */
static void on_names(struct pn_io *io) {
    struct lookup *l = io->owner;
    struct pn_data *d = l->data[l->i_data];
    const char *path = path_at(d, l->i_path);
    char **names = io->names;
    if (io->result < 0) {
        give_up(l, 400, "uri \"%.300s\": its folder cannot be listed: %s (only a file's name may have * ? [])", path, strerror((int)-io->result));
        return;
    }
    uint32_t n = 0;
    for (char **name = names; *name != NULL; name++) n += fits(names, *name, l->pattern);
    const uint32_t all = d->n_more + n; /* 1 + n_more without this one, and n */
    char first[200];
    snprintf(first, sizeof first, "%.199s", names[0] != NULL ? names[0] : "");
    if (n == 0 || all > PN_MAX_FILES) {
        free(names);
        if (n > 0) give_up(l, 400, "uri \"%.300s\": %u files; a data set has at most %d", path, all, PN_MAX_FILES);
        else if (first[0] == '\0') give_up(l, 400, "uri \"%.300s\": no file: the folder is empty", path);
        else give_up(l, 400, "uri \"%.300s\": no file fits; its folder has %s and others", path, first);
        return;
    }
    for (uint32_t i = d->n_more; i > l->i_path; i--) memmove(path_at(d, i + n - 1), path_at(d, i), sizeof d->path);
    bool whole = true;
    for (char **name = names; *name != NULL; name++) {
        if (!fits(names, *name, l->pattern)) continue;
        const int k = snprintf(path_at(d, l->i_path++), sizeof d->path, "%s%s%s", l->folder, strcmp(l->folder, "/") == 0 ? "" : "/", *name);
        whole = whole && k > 0 && (size_t)k < sizeof d->path;
    }
    d->n_more = all - 1;
    free(names);
    if (!whole) give_up(l, 400, "uri: a path in \"%.300s\" is longer than %zu characters", l->folder, sizeof d->path - 1);
    else next(l);
}

static void next(struct lookup *l) {
    for (; l->i_data < 3; l->i_data++, l->i_path = 0) {
        struct pn_data *d = l->data[l->i_data];
        for (; listed(d) && l->i_path <= d->n_more; l->i_path++) {
            if (!several(path_at(d, l->i_path), l->folder, l->pattern)) continue;
            l->io = (struct pn_io){.op = PN_IO_LIST, .path = l->folder, .done = on_names, .owner = l};
            pn_io_start(l->c->env, &l->io);
            return;
        }
    }
    l->done(l->c, l->request, l->job);
    free(l);
}

void pn_files_look_up(struct pn_coordinator *c, struct pn_http_request *r, struct pn_job_run *j, void (*done)(struct pn_coordinator *, struct pn_http_request *, struct pn_job_run *)) {
    struct lookup *l = calloc(1, sizeof *l);
    if (l == NULL) {
        pn_answer_error(r, 503, "no memory");
        pn_job_free_run(j);
        return;
    }
    *l = (struct lookup){.c = c, .request = r, .job = j, .done = done, .data = {&j->job.train, &j->job.validation, &j->job.test}};
    next(l);
}
