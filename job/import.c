/* tables.NAME.import: pre-trained rows from NumPy files. */
#include <string.h>
#include "job/sections.h"

#define KEYS(...) (const char *const[]){__VA_ARGS__, NULL}

void pn_job_read_imports(struct pn_yaml *y, struct fy_node *tables, const char *base, struct pn_job *job) {
    for (uint32_t t = 0; t < job->n_tables; t++) {
        struct fy_node *n = pn_yaml_get(pn_yaml_get(tables, job->tables[t].name), "import");
        struct pn_import_spec *m = &job->imports[t];
        char name[64] = "";
        if (n == NULL || !pn_yaml_keys(y, n, "import", KEYS("feature", "keys", "rows"), NULL)) continue;
        if (pn_yaml_get(n, "keys") == NULL || pn_yaml_get(n, "rows") == NULL) {
            pn_yaml_problem(y, n, "import needs keys and rows: two .npy files, a key (or a feature's value) and a row of numbers for each");
            continue;
        }
        pn_job_read_path(y, pn_yaml_get(n, "keys"), base, m->keys);
        pn_job_read_path(y, pn_yaml_get(n, "rows"), base, m->rows);
        if (job->n_starts > 0) pn_yaml_problem(y, n, "import and model.start do not go together: both say what rows begin with");
        if (pn_yaml_get(n, "feature") == NULL || !pn_yaml_text(y, pn_yaml_get(n, "feature"), "feature", name, sizeof name)) continue;
        const int i = pn_job_find_field(job, name);
        if (i < 0 || !pn_field_keyed(&job->fields[i]) || job->fields[i].i_table != t)
            pn_yaml_problem(y, pn_yaml_get(n, "feature"), "import: no feature \"%s\" has its rows in table \"%s\"", name, job->tables[t].name);
        else if (job->fields[i].type == PN_FIELD_CROSS || job->fields[i].type == PN_FIELD_NUMERIC || job->fields[i].type == PN_FIELD_LEAVES)
            pn_yaml_problem(y, pn_yaml_get(n, "feature"), "import: the keys of \"%s\" are no values that a file could hold; give them as uint64, without feature", name);
        else m->feature = 1 + (uint32_t)i;
    }
    struct fy_node *defaults = pn_yaml_get(pn_yaml_get(tables, "defaults"), "import");
    if (defaults != NULL) pn_yaml_problem(y, defaults, "import belongs to one table, not to defaults");
}
