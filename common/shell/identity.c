#include "common/shell/identity.h"
#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "common/shell/new_file.h"

/* A new key; of two processes that begin at once in one directory both get the first one's. */
static enum pn_result make(const char *path, struct pn_error *err) {
    uint8_t secret[64], public_key[32];
    char text[129];
    crypto_sign_keypair(public_key, secret);
    sodium_bin2hex(text, sizeof text, secret, sizeof secret);
    text[128] = '\n';
    const enum pn_result r = pn_new_file(path, text, sizeof text, 0600, err);
    sodium_memzero(secret, sizeof secret);
    sodium_memzero(text, sizeof text);
    return r == PN_EXISTS ? PN_OK : r;
}

enum pn_result pn_identity_open(const char *dir, uint8_t secret[64], struct pn_error *err) {
    char path[500], text[130];
    size_t n = 0;
    uint8_t seed[32], again[64], public_key[32];
    if (sodium_init() < 0) return pn_fail(err, PN_FAILED, "libsodium cannot be started");
    snprintf(path, sizeof path, "%s/identity", dir);
    int fd = open(path, O_RDONLY);
    if (fd < 0 && errno == ENOENT) {
        const enum pn_result r = make(path, err);
        if (r != PN_OK) return r;
        fd = open(path, O_RDONLY);
    }
    if (fd < 0) return pn_fail(err, PN_IO, "%s cannot be read: %s", path, strerror(errno));
    const ssize_t got = read(fd, text, sizeof text);
    close(fd);
    const bool sound = got == 129 && text[128] == '\n' && sodium_hex2bin(secret, 64, text, 128, NULL, &n, NULL) == 0 && n == 64;
    sodium_memzero(text, sizeof text);
    if (sound) { /* its halves belong together */
        crypto_sign_ed25519_sk_to_seed(seed, secret);
        crypto_sign_seed_keypair(public_key, again, seed);
    }
    const bool whole = sound && sodium_memcmp(again, secret, 64) == 0;
    sodium_memzero(again, sizeof again);
    sodium_memzero(seed, sizeof seed);
    return whole ? PN_OK : pn_fail(err, PN_CORRUPT, "%s holds no key pair: put back the file as it was; without it this data holder cannot go on in jobs that know it", path);
}
