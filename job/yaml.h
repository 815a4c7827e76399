/* Reading a checked tree: libfyaml's nodes with places, problems collected with their source line. Internal to job/. */
#ifndef PN_JOB_YAML_H
#define PN_JOB_YAML_H

#include <libfyaml.h>
#include "job/job.h"

struct pn_yaml {
    const char *file, *text;
    size_t n_bytes;
    unsigned n_problems;
    struct pn_error first;
    char *report;
    size_t n_report, report_room;
    bool no_memory;
};

/* Notes a problem at a node (NULL: the file as a whole). */
void pn_yaml_problem(struct pn_yaml *, struct fy_node *at, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* The name in the list nearest to `found` by edits, or NULL when none is near. names ends with NULL. */
const char *pn_nearest(const char *found, const char *const *names);
/* Checks that node is a mapping whose keys all stand in `known`, or, in `later` (features that are not there yet: refused as such).
 * False when it is no mapping. what names it in messages ("spec.training"). */
bool pn_yaml_keys(struct pn_yaml *, struct fy_node *, const char *what, const char *const *known, const char *const *later);
struct fy_node *pn_yaml_get(struct fy_node *map, const char *key); /* NULL: absent */
/* Scalars. Absent nodes (NULL) leave *out alone. They return false after a problem. */
bool pn_yaml_text(struct pn_yaml *, struct fy_node *, const char *what, char *out, size_t room);
bool pn_yaml_count(struct pn_yaml *, struct fy_node *, const char *what, uint64_t low, uint64_t high, uint64_t *out);
bool pn_yaml_real(struct pn_yaml *, struct fy_node *, const char *what, double low, double high, double *out);
/* The same into 32 bits. */
void pn_yaml_count32(struct pn_yaml *, struct fy_node *, const char *what, uint64_t low, uint64_t high, uint32_t *out);
void pn_yaml_real32(struct pn_yaml *, struct fy_node *, const char *what, double low, double high, float *out);
bool pn_yaml_truth(struct pn_yaml *, struct fy_node *, const char *what, bool *out);
/* 250ms, 30s, 10m, 2h -> ms. 64Ki, 16Mi, 1Gi, 1000 -> bytes. */
bool pn_yaml_duration(struct pn_yaml *, struct fy_node *, const char *what, uint64_t *out_ms);
bool pn_yaml_bytes(struct pn_yaml *, struct fy_node *, const char *what, uint64_t low, uint64_t high, uint64_t *out);
/* One of names (ends with NULL) -> its index in *out; names in `later` (may be NULL) are refused as not there yet. */
bool pn_yaml_choice(struct pn_yaml *, struct fy_node *, const char *what, const char *const *names, const char *const *later, int *out);

#endif
