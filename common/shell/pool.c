#include <stdlib.h>
#include "common/shell/internal.h"

/* A request keeps its own link in impl: no allocation on the way. */
struct queue { struct pn_work *head, *tail; };

struct pn_pool {
    struct pn_shell *shell;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct queue todo, done;
    pthread_t threads[16];
    unsigned n_threads;
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

static void *thread(void *arg) {
    struct pn_pool *p = arg;
    pthread_mutex_lock(&p->lock);
    while (!p->ending) {
        struct pn_work *w = take(&p->todo);
        if (w == NULL) {
            pthread_cond_wait(&p->wake, &p->lock);
            continue;
        }
        pthread_mutex_unlock(&p->lock);
        w->run(w);
        pthread_mutex_lock(&p->lock);
        put(&p->done, w);
        uv_async_send(&p->finished);
    }
    pthread_mutex_unlock(&p->lock);
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
    uv_async_init(&s->loop, &p->finished, on_finished);
    p->finished.data = p;
    for (; p->n_threads < n_threads; p->n_threads++)
        if (pthread_create(&p->threads[p->n_threads], NULL, thread, p) != 0) break;
    return p;
}

void pn_pool_start(struct pn_pool *p, struct pn_work *w) {
    pthread_mutex_lock(&p->lock);
    put(&p->todo, w);
    pthread_cond_signal(&p->wake);
    pthread_mutex_unlock(&p->lock);
}

void pn_pool_close(struct pn_pool *p) {
    pthread_mutex_lock(&p->lock);
    p->ending = true;
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
    for (unsigned i = 0; i < p->n_threads; i++) pthread_join(p->threads[i], NULL);
    pthread_mutex_destroy(&p->lock);
    pthread_cond_destroy(&p->wake);
}

void pn_pool_free(struct pn_pool *p) { free(p); }
