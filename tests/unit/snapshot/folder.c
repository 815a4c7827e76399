/* A published folder, from files in memory. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/json.h"
#include "snapshot/internal.h"

static const char job_text[] =
    "apiVersion: pinion/v1\nkind: TrainingJob\nmetadata: {name: t}\nspec:\n"
    "  data: {train: {format: csv, uri: /x.csv, label: y}}\n"
    "  features:\n    - {name: a, type: categorical}\n    - {name: b, type: categorical}\n"
    "  model: {name: lr}\n  training: {batchSize: 8, seed: 1}\n";

struct file { char path[80]; void *data; size_t n; };
static struct file files[12];
static size_t n_files;
static int n_mapped;

static enum pn_result map(struct pn_env *e, const char *path, const void **data, size_t *n) {
    (void)e;
    for (size_t i = 0; i < n_files; i++)
        if (strcmp(files[i].path, path) == 0) {
            *data = files[i].data;
            *n = files[i].n;
            n_mapped++;
            return PN_OK;
        }
    return PN_NOT_FOUND;
}
static void unmap(struct pn_env *e, const void *data, size_t n) { (void)e; (void)data; (void)n; n_mapped--; }
static const struct pn_env_ops ops = {.map = map, .unmap = unmap};
static struct pn_env env = {&ops};

static struct file *put(const char *name, const void *data, size_t n) {
    struct file *f = &files[n_files++];
    snprintf(f->path, sizeof f->path, "/m/%s", name);
    f->data = aligned_alloc(64, (n + 64) & ~(size_t)63);
    memcpy(f->data, data, n);
    f->n = n;
    return f;
}

static void list(struct json_object *all, const char *name, const void *data, size_t n) {
    struct json_object *o = json_object_new_object();
    struct pn_digest d;
    char hex[65];
    pn_digest_start(&d);
    pn_digest_add(&d, data, n);
    pn_digest_hex(&d, hex);
    pn_json_add_str(o, "name", name);
    pn_json_add_u64(o, "bytes", n);
    pn_json_add_str(o, "digest", hex);
    json_object_array_add(all, o);
}

static void clear(void) {
    for (size_t i = 0; i < n_files; i++) free(files[i].data);
    n_files = 0;
}

/* The manifest, with the first file's name replaced by `name` if given. */
static void write_manifest(const char *name, const char *storage) {
    struct json_object *m = json_object_new_object(), *all = json_object_new_array();
    pn_json_add_u64(m, "format", 1);
    pn_json_add_str(m, "job", "j-1");
    pn_json_add_str(m, "model", "m");
    pn_json_add_u64(m, "version", 3);
    pn_json_add_u64(m, "checkpoint", 2);
    pn_json_add_str(m, "storage", storage);
    for (size_t i = 0; i < n_files; i++) list(all, i == 0 && name != NULL ? name : files[i].path + 3, files[i].data, files[i].n);
    pn_json_add(m, "files", all);
    const char *text = pn_json_text(m);
    put("manifest.json", text, strlen(text));
    json_object_put(m);
}

static uint64_t key_of(int i) { return pn_hash(&i, sizeof i, 5); }
static uint32_t dim_of_table;
static const float parameters[6] = {1, 2, 3, 4, 5, 6};

/* Two segments; slots below 512 are in the first. */
static void make_files(int storage) {
    struct pn_job *job = calloc(1, sizeof *job);
    ck_assert_int_eq(pn_job_parse(job, job_text, sizeof job_text - 1, "job", NULL, NULL, NULL), PN_OK);
    dim_of_table = job->tables[0].dim;
    ck_assert_uint_ge(job->n_tables, 2);
    pn_job_free(job);
    free(job);
    static const char *const names[] = {"000.seg", "001.seg"};
    const char *block[] = {"bias", "odd \"name\""};
    const size_t offsets[] = {4, 0}, shapes[][2] = {{1, 2}, {2, 2}};
    void *image;
    size_t n;
    char hex[65];
    for (int half = 0; half < 2; half++) {
        struct pn_segment_writer *w = pn_segment_start(storage);
        for (int i = 0; i < 60; i++) {
            float row[64] = {0};
            for (uint32_t d = 0; d < dim_of_table; d++) row[d] = (float)(i + 1) / 4;
            uint64_t key = key_of(i);
            if ((pn_slot_of(key) >= 512) == half) ck_assert_int_eq(pn_segment_add(w, 0, dim_of_table, &key, row, 1), PN_OK);
        }
        ck_assert_int_eq(pn_segment_finish(w, &image, &n, hex), PN_OK);
        put(names[half], image, n);
        free(image);
    }
    ck_assert_int_eq(pn_safetensors_write(parameters, 2, block, offsets, shapes, &image, &n), PN_OK);
    put("dense.safetensors", image, n);
    free(image);
    put("job.yaml", job_text, sizeof job_text - 1);
    put("statistics.json", "{}", 2);
}

static enum pn_result open_and_close(struct pn_error *err) {
    struct pn_snapshot *s;
    enum pn_result r = pn_snapshot_open(&s, &env, "/m", err);
    if (r == PN_OK) pn_snapshot_close(s);
    else ck_assert_ptr_null(s);
    ck_assert_int_eq(n_mapped, 0);
    return r;
}

START_TEST(a_published_folder_reads_back) {
    static const char *const storages[] = {"float32", "float16", "int8"};
    make_files(_i);
    write_manifest(NULL, storages[_i]);
    struct pn_snapshot *s;
    struct pn_error err = {""};
    ck_assert_msg(pn_snapshot_open(&s, &env, "/m", &err) == PN_OK, "%s", err.text);
    ck_assert_uint_eq(pn_snapshot_version(s), 3);
    ck_assert_str_eq(pn_snapshot_model(s), "m");
    ck_assert_str_eq(pn_snapshot_statistics(s), "{}");
    ck_assert_uint_eq(pn_snapshot_rows(s), 60);
    uint64_t keys[100];
    float *rows = malloc(100 * dim_of_table * sizeof *rows);
    for (int i = 0; i < 100; i++) keys[i] = key_of(i);
    ck_assert_uint_eq(pn_snapshot_pull(s, 0, keys, 100, rows), 40);
    for (int i = 0; i < 100; i++)
        for (uint32_t d = 0; d < dim_of_table; d++) ck_assert_float_eq_tol(rows[(uint32_t)i * dim_of_table + d], i < 60 ? (float)(i + 1) / 4 : 0, 1e-5f);
    size_t n;
    const float *block = pn_snapshot_dense(s, "odd \"name\"", &n);
    ck_assert_ptr_nonnull(block);
    ck_assert_uint_eq(n, 4);
    ck_assert_float_eq(block[3], 4);
    block = pn_snapshot_dense(s, "bias", &n);
    ck_assert_uint_eq(n, 2);
    ck_assert_float_eq(block[0], 5);
    ck_assert_ptr_null(pn_snapshot_dense(s, "none", &n));
    free(rows);
    pn_snapshot_close(s);
    ck_assert_int_eq(n_mapped, 0);
    clear();
} END_TEST

START_TEST(every_flipped_byte_of_every_listed_file_is_detected) {
    make_files(PN_STORE_INT8);
    write_manifest(NULL, "int8");
    for (size_t i = 0; i + 1 < n_files; i++)
        for (size_t b = 0; b < files[i].n; b++) {
            uint8_t *byte = (uint8_t *)files[i].data + b;
            *byte ^= (uint8_t)(1u << b % 8);
            struct pn_error err = {""};
            ck_assert_int_eq(open_and_close(&err), PN_CORRUPT);
            ck_assert_ptr_nonnull(strstr(err.text, files[i].path)); /* and named */
            *byte ^= (uint8_t)(1u << b % 8);
        }
    ck_assert_int_eq(open_and_close(NULL), PN_OK);
    clear();
} END_TEST

START_TEST(a_damaged_manifest_never_lets_other_bytes_in) {
    make_files(PN_STORE_FLOAT16);
    write_manifest(NULL, "float16");
    struct file *m = &files[n_files - 1];
    for (size_t b = 0; b < m->n; b++)
        for (int bit = 0; bit < 8; bit++) {
            ((uint8_t *)m->data)[b] ^= (uint8_t)(1u << bit);
            struct pn_snapshot *s;
            if (pn_snapshot_open(&s, &env, "/m", NULL) == PN_OK) { /* what is not checked here (job, checkpoint) changes no answer */
                ck_assert_uint_eq(pn_snapshot_rows(s), 60);
                pn_snapshot_close(s);
            }
            ck_assert_int_eq(n_mapped, 0);
            ((uint8_t *)m->data)[b] ^= (uint8_t)(1u << bit);
        }
    for (size_t n = 0, whole = m->n; n < whole; n++) {
        m->n = n;
        ck_assert_int_ne(open_and_close(NULL), PN_OK);
        m->n = whole;
    }
    clear();
} END_TEST

START_TEST(every_truncation_of_every_file_is_detected) {
    make_files(PN_STORE_FLOAT32);
    write_manifest(NULL, "float32");
    for (size_t i = 0; i + 1 < n_files; i++)
        for (size_t n = 0, whole = files[i].n; n < whole; n++) {
            files[i].n = n;
            ck_assert_int_eq(open_and_close(NULL), PN_CORRUPT);
            files[i].n = whole;
        }
    clear();
} END_TEST

START_TEST(a_name_that_leads_elsewhere_is_refused) {
    static const char *const evil[] = {"../000.seg", "/m/000.seg", "..", ".", "", ".hidden", "a/b.seg", "a\\b", "000.seg\n",
                                       "0123456789012345678901234567890123456789012345678901234567890123456789.seg", "001.seg"};
    struct pn_error err = {""};
    make_files(PN_STORE_FLOAT32);
    write_manifest(evil[_i], "float32");
    ck_assert_int_eq(open_and_close(&err), PN_CORRUPT);
    ck_assert_ptr_nonnull(strstr(err.text, "manifest.json"));
    clear();
} END_TEST

START_TEST(a_file_that_is_missing_or_of_another_storage_is_refused) {
    make_files(PN_STORE_FLOAT32);
    write_manifest(NULL, "int8");
    ck_assert_int_eq(open_and_close(NULL), PN_CORRUPT);
    files[--n_files].n = 0;
    free(files[n_files].data);
    write_manifest(NULL, "float32");
    ck_assert_int_eq(open_and_close(NULL), PN_OK);
    files[1].path[0] = 'x';
    ck_assert_int_eq(open_and_close(NULL), PN_CORRUPT);
    clear();
    ck_assert_int_eq(open_and_close(NULL), PN_NOT_FOUND);
} END_TEST

START_TEST(a_slot_in_two_segments_is_still_found) {
    make_files(PN_STORE_FLOAT32);
    struct pn_segment_writer *w = pn_segment_start(PN_STORE_FLOAT32);
    float row[64] = {9};
    for (uint64_t key = 1; key <= 3000; key++) ck_assert_int_eq(pn_segment_add(w, 0, dim_of_table, &key, row, 1), PN_OK); /* all slots */
    void *image;
    size_t n;
    char hex[65];
    ck_assert_int_eq(pn_segment_finish(w, &image, &n, hex), PN_OK);
    put("002.seg", image, n);
    free(image);
    write_manifest(NULL, "float32");
    struct pn_snapshot *s;
    ck_assert_int_eq(pn_snapshot_open(&s, &env, "/m", NULL), PN_OK);
    for (int i = 0; i < 60; i++) {
        uint64_t keys[3] = {key_of(i), (uint64_t)i + 1, ~(uint64_t)i};
        float *rows = malloc(3 * dim_of_table * sizeof *rows);
        ck_assert_uint_eq(pn_snapshot_pull(s, 0, keys, 3, rows), 1);
        ck_assert_float_eq(rows[0], (float)(i + 1) / 4);
        ck_assert_float_eq(rows[dim_of_table], 9);
        ck_assert_float_eq(rows[2 * dim_of_table], 0);
        free(rows);
    }
    pn_snapshot_close(s);
    clear();
} END_TEST

START_TEST(hostile_safetensors_give_no_block) {
    static const char *const headers[] = {
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,9]}}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,0]}}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,16]}}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[18446744073709551608,18446744073709551615]}}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904,4],\"data_offsets\":[0,0]}}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387906],\"data_offsets\":[0,8]}}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[-2],\"data_offsets\":[0,8]}}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,8]}}",
        "{\"a\":{\"dtype\":\"F64\",\"shape\":[1],\"data_offsets\":[0,8]}}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":{},\"data_offsets\":[0,4]}}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[2]}}", "{\"a\":7}", "[]", "{", "", "null",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[\"0\",4]}}",
    };
    for (size_t i = 0; i < sizeof headers / sizeof *headers; i++) {
        char image[300];
        size_t n = strlen(headers[i]), padded = (n + 7) & ~(size_t)7, count;
        uint64_t length = padded;
        memset(image, ' ', sizeof image);
        memcpy(image, &length, 8);
        memcpy(image + 8, headers[i], n);
        ck_assert_msg(pn_safetensors_find(image, 8 + padded + 8, "a", &count) == NULL, "%s", headers[i]);
    }
    char image[64] = {0};
    size_t count;
    for (uint64_t length = 0; length < 3; length++) {
        uint64_t evil = UINT64_MAX - length;
        memcpy(image, &evil, 8);
        ck_assert_ptr_null(pn_safetensors_find(image, sizeof image, "a", &count));
    }
    for (size_t n = 0; n < 8; n++) ck_assert_ptr_null(pn_safetensors_find(image, n, "a", &count));
} END_TEST

int main(void) {
    Suite *s = suite_create("folder");
    TCase *c = tcase_create("folder");
    tcase_set_timeout(c, 120);
    tcase_add_loop_test(c, a_published_folder_reads_back, 0, 3);
    tcase_add_test(c, every_flipped_byte_of_every_listed_file_is_detected);
    tcase_add_test(c, a_damaged_manifest_never_lets_other_bytes_in);
    tcase_add_test(c, every_truncation_of_every_file_is_detected);
    tcase_add_loop_test(c, a_name_that_leads_elsewhere_is_refused, 0, 11);
    tcase_add_test(c, a_file_that_is_missing_or_of_another_storage_is_refused);
    tcase_add_test(c, a_slot_in_two_segments_is_still_found);
    tcase_add_test(c, hostile_safetensors_give_no_block);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
