/* `pinion up --local`: a supervisor, like an init system for one cluster on one machine. It starts the processes that lie beside this binary, keeps
 * their addresses over restarts, restarts what dies, and ends them all when it is told to. DIR/cluster.json says what runs where. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "common/shell/keys.h"
#include "deploy/cli/cli.h"

#define MAX_CHILDREN 64

struct child {
    char name[32], program[32], zmq[128], http[80];
    pid_t pid;
    uint64_t started_ms, next_ms, backoff_ms;
};
static struct supervisor { struct child children[MAX_CHILDREN]; int n; char dir[400], bin[400], keys[400]; } S; /* keys "": nothing is encrypted */
static volatile sig_atomic_t ending;

static uint64_t now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000u + (uint64_t)t.tv_nsec / 1000000u;
}
static void nap(long ms) { nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL); }
static void on_end(int number) { (void)number; ending = 1; }

/* A free port below the range from which the kernel takes ports for outgoing connections. In that range a client that tries a dead server's
 * port again and again can be given that very port, connect to itself and keep the server from coming back. */
static int free_port(void) {
    static unsigned next;
    if (next == 0) next = (unsigned)getpid() * 7919u;
    for (int tries = 0; tries < 2000; tries++) {
        struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        int port = 18000 + (int)(next++ * 13u % 14000u), fd = socket(AF_INET, SOCK_STREAM, 0);
        in.sin_port = htons((uint16_t)port);
        bool free_now = fd >= 0 && bind(fd, (struct sockaddr *)&in, sizeof in) == 0;
        if (fd >= 0) close(fd);
        if (free_now) return port;
    }
    return 0;
}

static void start(struct child *k, const char *coordinator) {
    char log[500], address_file[500], program[500], dir[500], http[96];
    snprintf(log, sizeof log, "%s/logs/%s.log", S.dir, k->name);
    snprintf(address_file, sizeof address_file, "%s/run/%s.json", S.dir, k->name);
    snprintf(program, sizeof program, "%s/%s", S.bin, k->program);
    snprintf(dir, sizeof dir, "%s/coordinator", S.dir);
    char zmq[160];
    if (k->http[0]) snprintf(http, sizeof http, "%s", k->http + strlen("http://"));
    else snprintf(http, sizeof http, "127.0.0.1:%d", free_port());
    if (k->zmq[0]) snprintf(zmq, sizeof zmq, "%s", k->zmq);
    else snprintf(zmq, sizeof zmq, "tcp://127.0.0.1:%d", free_port());
    remove(address_file);
    k->started_ms = now_ms();
    k->pid = fork();
    if (k->pid != 0) return;
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* no orphan when the supervisor itself is killed */
    int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0644), null = open("/dev/null", O_RDONLY);
    dup2(null, 0);
    dup2(fd, 1);
    dup2(fd, 2);
    for (int i = 3; i < 256; i++) close(i);
    const bool coordinates = strcmp(k->program, "pinion-coordinator") == 0, serves = strcmp(k->program, "pinion-serve") == 0;
    if (!coordinates) snprintf(dir, sizeof dir, "%s/%s", S.dir, k->name);
    char *argv[20] = {program, "--name", k->name, "--http", http, "--address-file", address_file};
    int n = 7;
    const struct { bool given; const char *option, *value; } more[] = {{coordinates || strcmp(k->program, "pinion-ps") == 0, "--bind", zmq}, {!coordinates, "--coordinator", coordinator},
                                                                       {!serves, "--dir", dir}, {S.keys[0] != '\0', "--keys", S.keys}};
    for (size_t i = 0; i < sizeof more / sizeof *more; i++)
        if (more[i].given) argv[n++] = (char *)more[i].option, argv[n++] = (char *)more[i].value;
    execv(program, argv);
    fprintf(stderr, "pinion: cannot start %s: %s\n", program, strerror(errno));
    _exit(127);
}

/* The addresses a process took; false while it has not said so. */
static bool learn(struct child *k) {
    char path[500];
    snprintf(path, sizeof path, "%s/run/%s.json", S.dir, k->name);
    struct json_object *o = cli_read_json(path);
    if (o == NULL) return false;
    snprintf(k->zmq, sizeof k->zmq, "%s", pn_json_str(o, "zmq", ""));
    snprintf(k->http, sizeof k->http, "%s", pn_json_str(o, "http", ""));
    json_object_put(o);
    return true;
}

static void write_cluster(void) {
    struct json_object *o = json_object_new_object(), *coordinator = json_object_new_object(), *serving = json_object_new_array(), *processes = json_object_new_object();
    pn_json_add_str(coordinator, "http", S.children[0].http);
    pn_json_add_str(coordinator, "zmq", S.children[0].zmq);
    for (int i = 0; i < S.n; i++) {
        struct json_object *p = json_object_new_object();
        pn_json_add_u64(p, "pid", S.children[i].pid > 0 ? (uint64_t)S.children[i].pid : 0);
        pn_json_add_str(p, "http", S.children[i].http);
        json_object_object_add(processes, S.children[i].name, p);
        if (strcmp(S.children[i].program, "pinion-serve") != 0) continue;
        struct json_object *s = json_object_new_object();
        pn_json_add_str(s, "name", S.children[i].name);
        pn_json_add_str(s, "http", S.children[i].http);
        json_object_array_add(serving, s);
    }
    pn_json_add_u64(o, "supervisor", (uint64_t)getpid());
    pn_json_add(o, "coordinator", coordinator);
    pn_json_add(o, "serving", serving);
    pn_json_add(o, "processes", processes);
    char path[500], tmp[510];
    snprintf(path, sizeof path, "%s/cluster.json", S.dir);
    snprintf(tmp, sizeof tmp, "%s.tmp", path);
    FILE *f = fopen(tmp, "w");
    if (f != NULL) {
        fprintf(f, "%s\n", json_object_to_json_string_ext(o, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_NOSLASHESCAPE));
        if (fclose(f) == 0) rename(tmp, path);
    }
    json_object_put(o);
}

static void stop_all(void) {
    for (int i = S.n - 1; i >= 0; i--)
        if (S.children[i].pid > 0) {
            kill(S.children[i].pid, SIGTERM);
            kill(S.children[i].pid, SIGCONT); /* a stopped one hears it too */
        }
    uint64_t deadline = now_ms() + 3000;
    for (int left = S.n; left > 0 && now_ms() < deadline; nap(10)) {
        left = 0;
        for (int i = 0; i < S.n; i++) {
            if (S.children[i].pid > 0 && waitpid(S.children[i].pid, NULL, WNOHANG) == S.children[i].pid) S.children[i].pid = 0;
            left += S.children[i].pid > 0;
        }
    }
    for (int i = 0; i < S.n; i++)
        if (S.children[i].pid > 0) {
            kill(S.children[i].pid, SIGKILL);
            waitpid(S.children[i].pid, NULL, 0);
        }
}

static void log_line(const char *text, const char *name) {
    time_t t = time(NULL);
    char when[40];
    struct tm utc;
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&t, &utc));
    fprintf(stderr, "ts=%s level=warn comp=supervisor msg=\"%s %s\"\n", when, name, text);
}

static void supervise(void) {
    while (!ending) {
        bool changed = false;
        for (int i = 0; i < S.n; i++) {
            struct child *k = &S.children[i];
            if (k->pid > 0 && waitpid(k->pid, NULL, WNOHANG) == k->pid) {
                k->pid = 0;
                k->backoff_ms = now_ms() - k->started_ms > 5000 || k->backoff_ms == 0 ? 100 : k->backoff_ms * 2 > 2000 ? 2000 : k->backoff_ms * 2;
                k->next_ms = now_ms() + k->backoff_ms;
                log_line("ended; it is started again", k->name);
                changed = true;
            }
            if (k->pid == 0 && now_ms() >= k->next_ms) {
                start(k, S.children[0].zmq);
                changed = true;
            }
        }
        if (changed) write_cluster();
        nap(20);
    }
    stop_all();
    char path[500];
    snprintf(path, sizeof path, "%s/cluster.json", S.dir);
    remove(path);
}

static void add(const char *program, const char *name) {
    struct child *k = &S.children[S.n++];
    snprintf(k->program, sizeof k->program, "%s", program);
    snprintf(k->name, sizeof k->name, "%s", name);
}

/* Shows why a process did not come up. */
static void fail_start(const char *name) {
    char log[500];
    size_t n;
    snprintf(log, sizeof log, "%s/logs/%s.log", S.dir, name);
    char *text = cli_read_file(log, &n);
    if (text != NULL) fprintf(stderr, "%s", n > 1500 ? text + n - 1500 : text);
    stop_all();
    cli_fail(EXIT_FAILED, "%s did not come up; its log is %s", name, log);
}

static void bring_up(long timeout_s) {
    uint64_t deadline = now_ms() + (uint64_t)timeout_s * 1000;
    start(&S.children[0], "");
    while (!learn(&S.children[0])) {
        if (now_ms() > deadline || waitpid(S.children[0].pid, NULL, WNOHANG) == S.children[0].pid) fail_start("coordinator");
        nap(5);
    }
    for (int i = 1; i < S.n; i++) start(&S.children[i], S.children[0].zmq);
    for (int i = 1; i < S.n; i++)
        while (!learn(&S.children[i])) {
            if (now_ms() > deadline || waitpid(S.children[i].pid, NULL, WNOHANG) == S.children[i].pid) fail_start(S.children[i].name);
            nap(5);
        }
    write_cluster();
    char url[200];
    snprintf(url, sizeof url, "%s/api/v1/status", S.children[0].http);
    for (int alive = 0; alive < S.n - 1; nap(20)) {
        struct json_object *o = NULL;
        cli_http(url, "GET", NULL, &o);
        struct json_object *nodes = pn_json_get(o, "nodes");
        alive = 0;
        for (size_t i = 0; i < pn_json_length(nodes); i++) alive += pn_json_bool(pn_json_at(nodes, i), "alive", false);
        if (o != NULL) json_object_put(o);
        if (now_ms() > deadline) fail_start("coordinator");
    }
}

/* A key for each process that has none yet: a cluster that is started again keeps its keys. */
static void make_keys(void) {
    snprintf(S.keys, sizeof S.keys, "%.380s/keys", S.dir);
    for (int i = 0; i < S.n; i++) {
        static const char *const programs[PN_KEY_ROLES] = {"pinion-coordinator", "pinion-ps", "pinion-worker", "pinion-serve"};
        struct pn_error err;
        int role = 0;
        while (strcmp(S.children[i].program, programs[role]) != 0) role++;
        const enum pn_result r = pn_keys_make(S.keys, S.children[i].name, (enum pn_key_role)role, &err);
        if (r != PN_OK && r != PN_EXISTS) cli_fail(EXIT_FAILED, "%s", err.text);
    }
}

int verb_up(const struct cli *c) {
    if (cli_option(c, "local", NULL) == NULL) cli_fail(EXIT_USAGE, "pinion up needs --local: clusters over several machines are not available yet");
    long ps = cli_number(c, "ps", 1, 1, 20), workers = cli_number(c, "workers", 1, 1, 20), serving = cli_number(c, "serving", 1, 0, 10), timeout = cli_number(c, "timeout", 60, 1, 600);
    char path[500];
    mkdir(c->dir, 0755);
    char *real = realpath(c->dir, NULL);
    if (real == NULL || strlen(real) > 300) cli_fail(EXIT_FAILED, "--dir %s: %s", c->dir, real == NULL ? strerror(errno) : "the path is too long");
    snprintf(S.dir, sizeof S.dir, "%s", real);
    free(real);
    ssize_t n = readlink("/proc/self/exe", S.bin, sizeof S.bin - 1);
    if (n <= 0) cli_fail(EXIT_FAILED, "cannot tell where this program lies");
    *strrchr(S.bin, '/') = '\0';
    const char *const folders[] = {"logs", "run", "coordinator"};
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/%s", S.dir, folders[i]);
        mkdir(path, 0755);
    }
    snprintf(path, sizeof path, "%s/supervisor.lock", S.dir);
    int lock = open(path, O_RDWR | O_CREAT, 0644);
    if (lock < 0) cli_fail(EXIT_FAILED, "%s: %s", path, strerror(errno));
    if (flock(lock, LOCK_EX | LOCK_NB) != 0) cli_fail(EXIT_REFUSED, "a cluster runs on %s already; `pinion down --dir %s` stops it", S.dir, c->dir);
    add("pinion-coordinator", "coordinator");
    char name[32];
    for (long i = 0; i < ps; i++) snprintf(name, sizeof name, "ps-%ld", i), add("pinion-ps", name);
    for (long i = 0; i < workers; i++) snprintf(name, sizeof name, "worker-%ld", i), add("pinion-worker", name);
    for (long i = 0; i < serving; i++) snprintf(name, sizeof name, "serving-%ld", i), add("pinion-serve", name);
    if (cli_option(c, "encrypt", NULL) != NULL) make_keys();
    bool foreground = cli_option(c, "foreground", NULL) != NULL;
    int told[2];
    if (!foreground) {
        if (pipe(told) != 0) cli_fail(EXIT_FAILED, "pipe: %s", strerror(errno));
        pid_t pid = fork();
        if (pid < 0) cli_fail(EXIT_FAILED, "fork: %s", strerror(errno));
        if (pid > 0) { /* waits until the cluster is up, or the supervisor has said why not */
            char ok = 0;
            close(told[1]);
            int status = 0;
            if (read(told[0], &ok, 1) != 1) {
                waitpid(pid, &status, 0);
                return WIFEXITED(status) ? WEXITSTATUS(status) : EXIT_FAILED;
            }
            struct json_object *o = cli_read_json((snprintf(path, sizeof path, "%s/cluster.json", S.dir), path));
            if (c->json) printf("%s\n", pn_json_text(o));
            else printf("cluster up: %ld servers, %ld workers, %ld replicas; coordinator %s; state and logs under %s\n", ps, workers, serving,
                        pn_json_str(pn_json_get(o, "coordinator"), "http", "?"), S.dir);
            return EXIT_DONE;
        }
        close(told[0]);
        setsid();
    }
    signal(SIGTERM, on_end);
    signal(SIGINT, on_end);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    bring_up(timeout);
    if (!foreground) {
        if (write(told[1], "1", 1) != 1) return EXIT_FAILED;
        close(told[1]);
        snprintf(path, sizeof path, "%s/logs/supervisor.log", S.dir);
        int fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0644), null = open("/dev/null", O_RDONLY);
        dup2(null, 0);
        dup2(fd, 1);
        dup2(fd, 2);
    }
    supervise();
    return EXIT_DONE;
}

int verb_down(const struct cli *c) {
    char path[600];
    snprintf(path, sizeof path, "%s/cluster.json", c->dir);
    struct json_object *o = cli_read_json(path);
    uint64_t pid = pn_json_u64(o, "supervisor", 0);
    snprintf(path, sizeof path, "%s/supervisor.lock", c->dir);
    int lock = open(path, O_RDWR);
    if (lock < 0 || flock(lock, LOCK_EX | LOCK_NB) == 0 || pid == 0) {
        printf("no cluster runs on %s\n", c->dir);
        return EXIT_DONE;
    }
    kill((pid_t)pid, SIGTERM);
    for (int i = 0; i < 1000; i++) {
        if (flock(lock, LOCK_EX | LOCK_NB) == 0) {
            printf("cluster on %s stopped; its state stays there\n", c->dir);
            return EXIT_DONE;
        }
        nap(10);
    }
    cli_fail(EXIT_TIMEOUT, "the supervisor (pid %llu) did not end", (unsigned long long)pid);
}
