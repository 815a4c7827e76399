/* safetensors: u64 length of the header, a JSON header {name: {dtype, shape, data_offsets}}, the data. Only F32 here. */
#include <stdlib.h>
#include <string.h>
#include "common/json.h"
#include "snapshot/internal.h"

#define MAX_HEADER (16u << 20)

enum pn_result pn_safetensors_write(const float *parameters, size_t n_blocks, const char *const *names, const size_t *offsets,
                                    const size_t (*shapes)[2], void **image, size_t *n_bytes) {
    struct json_object *header = json_object_new_object();
    if (header == NULL) return PN_NO_MEMORY;
    size_t end = 0;
    for (size_t i = 0; i < n_blocks; i++) {
        struct json_object *block = json_object_new_object(), *shape = json_object_new_array(), *range = json_object_new_array();
        size_t begin = end;
        end += shapes[i][0] * shapes[i][1] * sizeof *parameters;
        json_object_array_add(shape, json_object_new_uint64(shapes[i][0]));
        json_object_array_add(shape, json_object_new_uint64(shapes[i][1]));
        json_object_array_add(range, json_object_new_uint64(begin));
        json_object_array_add(range, json_object_new_uint64(end));
        pn_json_add_str(block, "dtype", "F32");
        pn_json_add(block, "shape", shape);
        pn_json_add(block, "data_offsets", range);
        pn_json_add(header, names[i], block);
    }
    const char *text = pn_json_text(header);
    size_t length = text == NULL ? 0 : strlen(text), padded = (length + 7) & ~(size_t)7; /* the data begins at a multiple of 8 */
    uint8_t *out = text == NULL ? NULL : malloc(8 + padded + end + 1);
    if (out != NULL) {
        uint64_t n = padded;
        memcpy(out, &n, 8);
        memset(out + 8, ' ', padded);
        memcpy(out + 8, text, length);
        uint8_t *at = out + 8 + padded;
        for (size_t i = 0; i < n_blocks; i++) {
            size_t bytes = shapes[i][0] * shapes[i][1] * sizeof *parameters;
            if (bytes > 0) memcpy(at, parameters + offsets[i], bytes);
            at += bytes;
        }
        *image = out;
        *n_bytes = 8 + padded + end;
    }
    json_object_put(header);
    return out == NULL ? PN_NO_MEMORY : PN_OK;
}

/* A number of an array that must be one: false for anything else than a whole number of 0 or more. */
static bool number(struct json_object *array, size_t i, size_t *v) {
    struct json_object *o = pn_json_at(array, i);
    if (o == NULL || !json_object_is_type(o, json_type_int) || json_object_get_int64(o) < 0) return false;
    *v = json_object_get_uint64(o);
    return true;
}

const float *pn_safetensors_find(const void *image, size_t n_bytes, const char *name, size_t *n_floats) {
    uint64_t length;
    if (n_bytes < 8) return NULL;
    memcpy(&length, image, 8);
    if (length > n_bytes - 8 || length > MAX_HEADER) return NULL;
    struct json_object *header = pn_json_parse((const char *)image + 8, length, NULL);
    struct json_object *block = pn_json_get(header, name), *shape = pn_json_get(block, "shape"), *range = pn_json_get(block, "data_offsets");
    const uint8_t *data = (const uint8_t *)image + 8 + length;
    size_t n_data = n_bytes - 8 - length, begin = 0, end = 0, cells = 1;
    bool good = strcmp(pn_json_str(block, "dtype", ""), "F32") == 0 && shape != NULL && json_object_is_type(shape, json_type_array) &&
                pn_json_length(range) == 2 && number(range, 0, &begin) && number(range, 1, &end) && begin <= end && end <= n_data;
    for (size_t i = 0; good && i < pn_json_length(shape); i++) {
        size_t n;
        good = number(shape, i, &n) && !__builtin_mul_overflow(cells, n, &cells);
    }
    good = good && cells <= SIZE_MAX / 4 && end - begin == cells * 4 && ((uintptr_t)(data + begin) & 3) == 0;
    if (header != NULL) json_object_put(header);
    if (!good) return NULL;
    *n_floats = cells;
    return (const float *)(const void *)(data + begin);
}
