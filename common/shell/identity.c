#include "common/shell/identity.h"
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A new key: whole and on disk under another name first, so that a crash leaves the file or none. link() does not replace: of two processes that begin at once in one directory both get the first one's. */
static enum pn_result make(const char *dir, const char *path, struct pn_error *err) {
    uint8_t secret[64], public_key[32];
    char text[129], tmp[600];
    for (const char *at = dir; (at = strchr(at + 1, '/')) != NULL;) {
        char part[500];
        snprintf(part, sizeof part, "%.*s", (int)(at - dir), dir);
        mkdir(part, 0755);
    }
    mkdir(dir, 0700);
    snprintf(tmp, sizeof tmp, "%s.%ld", path, (long)getpid());
    const int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd < 0) return pn_fail(err, PN_IO, "%s cannot be made: %s", path, strerror(errno));
    crypto_sign_keypair(public_key, secret);
    sodium_bin2hex(text, sizeof text, secret, sizeof secret);
    text[128] = '\n';
    const bool written = write(fd, text, 129) == 129 && fsync(fd) == 0;
    sodium_memzero(secret, sizeof secret);
    sodium_memzero(text, sizeof text);
    const bool linked = close(fd) == 0 && written && (link(tmp, path) == 0 || errno == EEXIST);
    const int why = errno;
    unlink(tmp);
    const int folder = open(dir, O_RDONLY | O_DIRECTORY);
    const bool synced = folder >= 0 && fsync(folder) == 0;
    if (folder >= 0) close(folder);
    return linked && synced ? PN_OK : pn_fail(err, PN_IO, "%s cannot be written: %s", path, strerror(why));
}

enum pn_result pn_identity_open(const char *dir, uint8_t secret[64], struct pn_error *err) {
    char path[500], text[130];
    size_t n = 0;
    uint8_t seed[32], again[64], public_key[32];
    if (sodium_init() < 0) return pn_fail(err, PN_FAILED, "libsodium cannot be started");
    snprintf(path, sizeof path, "%s/identity", dir);
    int fd = open(path, O_RDONLY);
    if (fd < 0 && errno == ENOENT) {
        const enum pn_result r = make(dir, path, err);
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
