/* What comes over a socket: a frame whose checksum is made right, so that the walk and the accessors behind it are reached. */
#include <stdlib.h>
#include <string.h>
#include "common/hash.h"
#include "common/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    uint64_t *aligned = malloc(size + 8); /* as the shell hands frames over */
    uint8_t *p = (uint8_t *)aligned;
    if (p == NULL) return 0;
    memcpy(p, data, size);
    if (size >= PN_ENVELOPE_BYTES) {
        memcpy(p, "PNW1\x01", 5);
        memset(p + 28, 0, 4);
        uint32_t crc = pn_crc32c(0, p, size);
        memcpy(p + 28, &crc, 4);
    }
    struct pn_frame f;
    struct pn_error err;
    if (pn_frame_open(&f, p, size, &err) == PN_OK) {
        uint64_t v, list[16];
        char text[16];
        size_t n;
        pn_frame_u64(&f, "step", &v);
        pn_frame_str(&f, "job", text, sizeof text);
        if (pn_frame_u64s(&f, "tables", list, 16, &n))
            for (size_t i = 0; i < n; i++) pn_frame_take(&f, list[i], 8);
        struct json_object *o = pn_control_read(&f, &err);
        if (o != NULL) json_object_put(o);
        pn_frame_close(&f);
    }
    free(aligned);
    return 0;
}
