#include "common/shell/keys.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "common/hash.h"
#include "common/shell/new_file.h"
#include "common/wire.h"

enum { LOOK_MS = 1000, MOST = 4096 };
#define SECRET "pinion-secret-1"
#define PUBLIC "pinion-public-1"

const char *const pn_key_role_names[PN_KEY_ROLES] = {"coordinator", "ps", "worker", "serving"};

static bool good_name(const char *name) { return name[0] != '\0' && name[0] != '.' && strlen(name) < 64 && strpbrk(name, "/\"\\ \n\t#") == NULL; }

/* "KIND ROLE NAME HEX\n" of a key's file. */
static bool read_line(const char *path, const char *kind, struct pn_key_owner *who, uint8_t key[32], enum pn_result *why) {
    char text[200], first[20], role[16], name[64], hex[72], end;
    size_t n = 0;
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    const ssize_t got = fd >= 0 ? read(fd, text, sizeof text - 1) : -1;
    *why = fd < 0 && errno == ENOENT ? PN_NOT_FOUND : got < 0 ? PN_IO : PN_CORRUPT;
    if (fd >= 0) close(fd);
    bool sound = got > 0;
    if (sound) text[got] = '\0';
    sound = sound && sscanf(text, "%19s %15s %63s %71s%c", first, role, name, hex, &end) == 5 && end == '\n' && strcmp(first, kind) == 0 && good_name(name) &&
            sodium_hex2bin(key, 32, hex, strlen(hex), NULL, &n, NULL) == 0 && n == 32 && strlen(hex) == 64;
    int i = 0;
    while (sound && i < PN_KEY_ROLES && strcmp(role, pn_key_role_names[i]) != 0) i++;
    sound = sound && i < PN_KEY_ROLES;
    if (sound) {
        who->role = (enum pn_key_role)i;
        snprintf(who->name, sizeof who->name, "%s", name);
    }
    sodium_memzero(text, sizeof text);
    sodium_memzero(hex, sizeof hex);
    return sound;
}

static enum pn_result write_line(const char *path, const char *kind, const char *role, const char *name, const uint8_t key[32], unsigned mode, struct pn_error *err) {
    char hex[65], text[200];
    sodium_bin2hex(hex, sizeof hex, key, 32);
    snprintf(text, sizeof text, "%s %s %s %s\n", kind, role, name, hex);
    const enum pn_result r = pn_new_file(path, text, strlen(text), mode, err);
    sodium_memzero(text, sizeof text);
    sodium_memzero(hex, sizeof hex);
    return r;
}

enum pn_result pn_keys_make(const char *dir, const char *name, enum pn_key_role role, struct pn_error *err) {
    uint8_t secret[32], public_key[32];
    char path[520];
    if (sodium_init() < 0) return pn_fail(err, PN_FAILED, "libsodium cannot be started");
    if (!good_name(name)) return pn_fail(err, PN_INVALID, "\"%.60s\" is no name of a node: 1 to 63 characters, not a dot first, without blank, slash, backslash, quote and #", name);
    if (strlen(dir) > 350) return pn_fail(err, PN_INVALID, "%.60s...: the path is too long", dir);
    crypto_box_keypair(public_key, secret);
    snprintf(path, sizeof path, "%s/%s.key", dir, name);
    enum pn_result r = write_line(path, SECRET, pn_key_role_names[role], name, secret, 0600, err);
    sodium_memzero(secret, sizeof secret);
    if (r != PN_OK) return r;
    snprintf(path, sizeof path, "%s/authorized/%s.pub", dir, name);
    unlink(path); /* of an earlier pair, whose key is gone */
    return write_line(path, PUBLIC, pn_key_role_names[role], name, public_key, 0644, err);
}

/* ---- whom we speak to ---- */
static int by_key(const void *a, const void *b) { return memcmp(((const struct pn_key_owner *)a)->public_key, ((const struct pn_key_owner *)b)->public_key, 32); }

static bool is_public_key(const char *file) {
    const size_t n = strlen(file);
    return n > 4 && strcmp(file + n - 4, ".pub") == 0;
}

/* Of names, sizes and times of the files, so that a change is seen without reading them. */
static uint64_t sign(const char *folder, DIR *d) {
    uint64_t sum = 1;
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        char path[800];
        struct stat st;
        if (!is_public_key(e->d_name)) continue;
        snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        if (stat(path, &st) != 0) continue;
        const uint64_t of_file[] = {(uint64_t)st.st_mtim.tv_sec, (uint64_t)st.st_mtim.tv_nsec, (uint64_t)st.st_size, st.st_ino};
        sum += pn_hash(e->d_name, strlen(e->d_name), pn_hash(of_file, sizeof of_file, 0)); /* in any order */
    }
    rewinddir(d);
    return sum;
}

static void look(struct pn_keys *k) {
    char folder[420];
    snprintf(folder, sizeof folder, "%s/authorized", k->dir);
    DIR *d = opendir(folder);
    const uint64_t signature = d != NULL ? sign(folder, d) : 0;
    if (signature == k->signature) {
        if (d != NULL) closedir(d);
        return;
    }
    struct pn_key_owner *list = d != NULL ? calloc(MOST, sizeof *list) : NULL;
    size_t n = 0;
    for (struct dirent *e; list != NULL && n < MOST && (e = readdir(d)) != NULL;) {
        char path[800];
        enum pn_result why;
        snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        if (is_public_key(e->d_name) && read_line(path, PUBLIC, &list[n], list[n].public_key, &why)) n++;
    }
    if (d != NULL) closedir(d);
    if (n > 0) qsort(list, n, sizeof *list, by_key);
    free(k->authorized); /* a folder that is gone authorizes nobody */
    k->authorized = list;
    k->n_authorized = n;
    k->signature = signature;
}

const struct pn_key_owner *pn_keys_find(struct pn_keys *k, const uint8_t public_key[32], uint64_t now_ms) {
    struct pn_key_owner want;
    if (k->looked_ms == 0 || now_ms - k->looked_ms >= LOOK_MS) {
        k->looked_ms = now_ms;
        look(k);
    }
    memcpy(want.public_key, public_key, 32);
    return k->n_authorized > 0 ? bsearch(&want, k->authorized, k->n_authorized, sizeof want, by_key) : NULL;
}

bool pn_key_may_send(enum pn_key_role role, unsigned kind) {
    const bool secure = kind >= 40 && kind <= 55; /* enum pn_agg_kind */
    switch (role) {
    case PN_KEY_WORKER: return kind == PN_BEAT || kind == PN_PULL || kind == PN_PUSH || kind == PN_SEED || kind == PN_CHANGES || secure;
    case PN_KEY_PS: return kind == PN_BEAT || secure;
    case PN_KEY_SERVING: return kind == PN_BEAT;
    default: return false; /* the coordinator answers, it does not ask */
    }
}

/* ---- the own pair ---- */
enum pn_result pn_keys_open(struct pn_keys **out, const char *dir, const char *name, struct pn_error *err) {
    char path[520];
    struct stat st;
    enum pn_result why;
    if (sodium_init() < 0) return pn_fail(err, PN_FAILED, "libsodium cannot be started");
    if (strlen(dir) > 350 || !good_name(name)) return pn_fail(err, PN_INVALID, "--keys %.100s for \"%.60s\": the path is too long, or that is no name of a node", dir, name);
    struct pn_keys *k = calloc(1, sizeof *k);
    if (k == NULL) return pn_fail(err, PN_NO_MEMORY, "no memory");
    sodium_mlock(k->secret, sizeof k->secret); /* may fail where memory must not be locked: then it is as safe as the rest of the process */
    snprintf(k->dir, sizeof k->dir, "%s", dir);
    snprintf(path, sizeof path, "%s/%s.key", dir, name);
    if (!read_line(path, SECRET, &k->own, k->secret, &why)) {
        pn_keys_close(k);
        return why == PN_NOT_FOUND ? pn_fail(err, why, "%s is not there: make it with pinion keygen --keys %s --role ROLE %s", path, dir, name)
               : why == PN_IO      ? pn_fail(err, why, "%s cannot be read: %s", path, strerror(errno))
                                   : pn_fail(err, why, "%s holds no key of a node: put it back as it was, or remove it and make another with pinion keygen", path);
    }
    if (stat(path, &st) != 0 || (st.st_mode & 077) != 0 || st.st_uid != geteuid()) {
        pn_keys_close(k);
        return pn_fail(err, PN_REFUSED, "%s may be read by others, or belongs to another user: chown it to this user, chmod 600, and make another key if somebody may have seen it", path);
    }
    if (strcmp(k->own.name, name) != 0) {
        const enum pn_result r = pn_fail(err, PN_REFUSED, "%s is the key of %s: a node has its own, pinion keygen makes one", path, k->own.name);
        pn_keys_close(k);
        return r;
    }
    crypto_scalarmult_base(k->own.public_key, k->secret);
    look(k);
    *out = k;
    return PN_OK;
}

void pn_keys_close(struct pn_keys *k) {
    if (k == NULL) return;
    sodium_munlock(k->secret, sizeof k->secret); /* wipes it */
    free(k->authorized);
    free(k);
}

bool pn_key_of_address(const char *address, char plain[128], uint8_t public_key[32]) {
    const char *at = strchr(address, '#');
    size_t n = 0;
    const bool whole = at != NULL && strlen(at + 1) == 64 && sodium_hex2bin(public_key, 32, at + 1, 64, NULL, &n, NULL) == 0 && n == 32;
    const size_t length = at != NULL ? (size_t)(at - address) : strlen(address);
    snprintf(plain, 128, "%.*s", (at != NULL && !whole) || length > 127 ? 0 : (int)length, address);
    return whole;
}
