#define _GNU_SOURCE /* gettid */
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>
#include "common/shell/internal.h"

/* A request keeps its own link in impl: no allocation on the way. */
struct queue { struct pn_work *head, *tail; };

struct pn_pool {
    struct pn_shell *shell;
    pthread_mutex_t lock;
    pthread_cond_t wake, wake_background;
    struct queue todo, background, done;
    pthread_t threads[16], background_thread;
    unsigned n_threads;
    bool has_background;
    bool ending;
    uv_async_t finished;
};

static void put(struct queue *q, struct pn_work *w) {
    w->impl = NULL;
    if (q->tail != NULL) q->tail->impl = w;
    else q->head = w;
    q->tail = w;
}

static struct pn_work *take(struct queue *q) {
    struct pn_work *w = q->head;
    if (w == NULL) return NULL;
    q->head = w->impl;
    if (q->head == NULL) q->tail = NULL;
    return w;
}

static void serve(struct pn_pool *p, struct queue *q, pthread_cond_t *wake) {
    pthread_mutex_lock(&p->lock);
    while (!p->ending) {
        struct pn_work *w = take(q);
        if (w == NULL) {
            pthread_cond_wait(wake, &p->lock);
            continue;
        }
        pthread_mutex_unlock(&p->lock);
        w->run(w);
        pthread_mutex_lock(&p->lock);
        put(&p->done, w);
        uv_async_send(&p->finished);
    }
    pthread_mutex_unlock(&p->lock);
}
static void *thread(void *arg) {
    struct pn_pool *p = arg;
    serve(p, &p->todo, &p->wake);
    return NULL;
}
static void *background(void *arg) {
    struct pn_pool *p = arg;
    setpriority(PRIO_PROCESS, (id_t)gettid(), 10); /* Linux: of this thread alone */
    serve(p, &p->background, &p->wake_background);
    return NULL;
}

static void on_finished(uv_async_t *a) {
    struct pn_pool *p = a->data;
    for (;;) {
        pthread_mutex_lock(&p->lock);
        struct pn_work *w = take(&p->done);
        pthread_mutex_unlock(&p->lock);
        if (w == NULL) break;
        w->done(w);
    }
    pn_transport_drain(p->shell->transport);
}

struct pn_pool *pn_pool_open(struct pn_shell *s, unsigned n_threads) {
    struct pn_pool *p = calloc(1, sizeof *p);
    if (p == NULL) return NULL;
    p->shell = s;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    pthread_cond_init(&p->wake_background, NULL);
    uv_async_init(&s->loop, &p->finished, on_finished);
    p->finished.data = p;
    for (; p->n_threads < n_threads; p->n_threads++)
        if (pthread_create(&p->threads[p->n_threads], NULL, thread, p) != 0) break;
    p->has_background = n_threads > 0 && pthread_create(&p->background_thread, NULL, background, p) == 0;
    return p;
}

void pn_pool_start(struct pn_pool *p, struct pn_work *w) {
    pthread_mutex_lock(&p->lock);
    const bool later = w->background && p->has_background;
    put(later ? &p->background : &p->todo, w);
    pthread_cond_signal(later ? &p->wake_background : &p->wake);
    pthread_mutex_unlock(&p->lock);
}

void pn_pool_close(struct pn_pool *p) {
    pthread_mutex_lock(&p->lock);
    p->ending = true;
    pthread_cond_broadcast(&p->wake);
    pthread_cond_broadcast(&p->wake_background);
    pthread_mutex_unlock(&p->lock);
    for (unsigned i = 0; i < p->n_threads; i++) pthread_join(p->threads[i], NULL);
    if (p->has_background) pthread_join(p->background_thread, NULL);
    pthread_mutex_destroy(&p->lock);
    pthread_cond_destroy(&p->wake);
    pthread_cond_destroy(&p->wake_background);
}

void pn_pool_free(struct pn_pool *p) { free(p); }
