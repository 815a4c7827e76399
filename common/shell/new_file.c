#include "common/shell/new_file.h"
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void make_folders(const char *dir) {
    for (const char *at = dir; (at = strchr(at + 1, '/')) != NULL;) {
        char part[600];
        snprintf(part, sizeof part, "%.*s", (int)(at - dir), dir);
        mkdir(part, 0755);
    }
    mkdir(dir, 0700);
}

/* Whole and on disk under another name first, so that a crash leaves the file or none. link() does not replace. */
enum pn_result pn_new_file(const char *path, const void *data, size_t n, unsigned mode, struct pn_error *err) {
    char dir[600], tmp[640];
    const char *slash = strrchr(path, '/');
    if (strlen(path) >= sizeof dir) return pn_fail(err, PN_INVALID, "%.200s...: the path is too long", path);
    snprintf(dir, sizeof dir, "%.*s", slash != NULL ? (int)(slash - path) : 1, slash != NULL ? path : ".");
    make_folders(dir);
    snprintf(tmp, sizeof tmp, "%s.%ld", path, (long)getpid());
    const int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC, (mode_t)mode);
    if (fd < 0) return pn_fail(err, PN_IO, "%s cannot be made: %s", path, strerror(errno));
    const bool written = write(fd, data, n) == (ssize_t)n && fsync(fd) == 0;
    int why = errno;
    const bool linked = close(fd) == 0 && written && link(tmp, path) == 0;
    if (written) why = errno;
    unlink(tmp);
    if (written && !linked && why == EEXIST) return pn_fail(err, PN_EXISTS, "%s is there already", path);
    const int folder = open(dir, O_RDONLY | O_DIRECTORY);
    const bool synced = folder >= 0 && fsync(folder) == 0;
    if (linked && !synced) why = errno;
    if (folder >= 0) close(folder);
    return linked && synced ? PN_OK : pn_fail(err, PN_IO, "%s cannot be written: %s", path, strerror(why));
}
