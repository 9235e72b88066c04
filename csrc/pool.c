/* SPDX-License-Identifier: BSD-3-Clause */
/* pool.c -- threads of fastrnn's own, which run the teams where OpenMP is not used.
 *
 * Windows has no OpenMP runtime that every compiler and every other library in the
 * process can share, so a build for Windows uses this file in place of one (FR_POOL;
 * setup.py says when).  As with GNU OpenMP, each thread that calls kernels has a pool
 * of its own, so that calls from several threads never wait for each other.  A pool
 * grows when a larger team is asked for, which may fail and is then told, never shrinks,
 * and ends with the thread that it belongs to.  This file is compiled once.
 */
#define _GNU_SOURCE
#include "fastrnn.h"

#ifdef FR_POOL

#include <stdlib.h>

#include "kernels/wait.h"

#if defined(_WIN32)
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
#else
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#endif

/* Bytes of stack of each thread of a pool; a kernel uses FR_STACK at most. */
#define WORKER_STACK (FR_STACK + (256 << 10))

typedef struct pool pool;

typedef struct {
    step_count told; /* regions that this thread has been told of */
    pool *home;
    int rank;     /* in every team, from 1 */
    int last;     /* 1: `told` says that the thread is to end */
    void *memory; /* the block of memory that the worker lies in */
} worker;

/* A pool belongs to the thread that calls kernels.  While a region runs its threads read
 * `member`, `data` and `size`; only the owner touches `workers` and `regions`. */
struct pool {
    step_count finished; /* regions that all threads have left */
    _Atomic int working; /* threads of the region that have not left it yet */
    _Atomic int holders; /* the owner and the living threads; the last one frees all */
    int size;
    void (*member)(int rank, int size, void *data);
    void *data;
    ptrdiff_t regions;
    int n_workers;
    worker **workers;
    void *memory; /* the block of memory that the pool lies in */
};

static _Thread_local pool *own;

/* Zeroed memory from the start of a cache line, or NULL; *block is what to free. */
static void *lines(size_t n_bytes, void **block)
{
    *block = calloc(1, n_bytes + 64);
    return (void *)(((uintptr_t)*block + 63) & ~(uintptr_t)63);
}

static void let_go(pool *p)
{
    if (atomic_fetch_sub(&p->holders, 1) > 1)
        return;
    for (int i = 0; i < p->n_workers; i++)
        free(p->workers[i]->memory);
    free(p->workers);
    free(p->memory);
}

static void wait_for(step_count *count, ptrdiff_t steps)
{
    for (int n = 0; n < MAX_SPINS; n++) {
        if (atomic_load_explicit(&count->done, memory_order_acquire) >= steps)
            return;
        spin_pause();
    }
    sleep_until_done(count, steps);
}

/* What a thread of a pool does from its start to its end. */
static void work(worker *self)
{
    pool *p = self->home;
    for (ptrdiff_t told = 1;; told++) {
        wait_for(&self->told, told);
        if (self->last)
            break;
        const ptrdiff_t region = p->regions;
        p->member(self->rank, p->size, p->data);
        if (atomic_fetch_sub(&p->working, 1) == 1)
            set_done(&p->finished, region);
    }
    let_go(p);
}

/* Lets the threads of a pool end, whose owner ends now.  Nobody waits for them: on
 * Windows the owner holds a lock by now that an ending thread needs, and at the end of
 * the process they are gone already. */
static void disband(pool *p)
{
    own = NULL;
    for (int i = 0; i < p->n_workers; i++) {
        worker *w = p->workers[i];
        w->last = 1;
        set_done(&w->told, atomic_load(&w->told.done) + 1);
    }
    let_go(p);
}

#if defined(_WIN32)

static DWORD slot = FLS_OUT_OF_INDEXES; /* calls `owner_ends` when a thread ends */

static void WINAPI owner_ends(void *p)
{
    if (p)
        disband(p);
}

__attribute__((constructor)) static void make_slot(void)
{
    slot = FlsAlloc(owner_ends);
}

static int keep(pool *p)
{
    return slot != FLS_OUT_OF_INDEXES && FlsSetValue(slot, p);
}

static DWORD WINAPI begin(void *self)
{
    work(self);
    return 0;
}

static int start(worker *w)
{
    const HANDLE thread = CreateThread(NULL, WORKER_STACK, begin, w,
                                       STACK_SIZE_PARAM_IS_A_RESERVATION, NULL);
    if (thread == NULL)
        return GetLastError() == ERROR_NOT_ENOUGH_MEMORY ? FR_TEAM_NO_MEMORY
                                                         : FR_TEAM_NO_THREADS;
    CloseHandle(thread);
    return FR_TEAM_READY;
}

#else

static pthread_key_t slot; /* calls `owner_ends` when a thread ends */
static int has_slot;

static void owner_ends(void *p)
{
    disband(p);
}

__attribute__((constructor)) static void make_slot(void)
{
    has_slot = pthread_key_create(&slot, owner_ends) == 0;
}

static int keep(pool *p)
{
    return has_slot && pthread_setspecific(slot, p) == 0;
}

static void *begin(void *self)
{
    work(self);
    return NULL;
}

static int start(worker *w)
{
    pthread_attr_t attributes;
    pthread_t thread;
    sigset_t all, before;
    if (pthread_attr_init(&attributes))
        return FR_TEAM_NO_MEMORY;
    pthread_attr_setstacksize(&attributes, WORKER_STACK);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    /* Threads inherit the signal mask: these must not run the program's handlers. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int error = pthread_create(&thread, &attributes, begin, w);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return !error            ? FR_TEAM_READY
           : error == ENOMEM ? FR_TEAM_NO_MEMORY
                             : FR_TEAM_NO_THREADS;
}

#endif

static pool *make_pool(void)
{
    void *block;
    pool *p = lines(sizeof *p, &block);
    if (block == NULL)
        return NULL;
    p->memory = block;
    atomic_store(&p->holders, 1);
    if (keep(p))
        return p;
    free(block);
    return NULL;
}

/* Adds a thread to the calling thread's pool.  Returns one of the FR_TEAM_ results. */
static int add_worker(void)
{
    void *block;
    worker *w = lines(sizeof *w, &block);
    if (block == NULL)
        return FR_TEAM_NO_MEMORY;
    *w = (worker){.home = own, .rank = own->n_workers + 1, .memory = block};
    atomic_fetch_add(&own->holders, 1);
    const int state = start(w);
    if (state != FR_TEAM_READY) {
        atomic_fetch_sub(&own->holders, 1);
        free(block);
        return state;
    }
    own->workers[own->n_workers++] = w;
    return FR_TEAM_READY;
}

int fr_pool_grow(int n_threads)
{
    if (own == NULL && (own = make_pool()) == NULL)
        return FR_TEAM_NO_MEMORY;
    if (n_threads - 1 <= own->n_workers)
        return FR_TEAM_READY;
    worker **more = realloc(own->workers, (size_t)(n_threads - 1) * sizeof *more);
    if (more == NULL)
        return FR_TEAM_NO_MEMORY;
    own->workers = more;
    int state = FR_TEAM_READY;
    while (state == FR_TEAM_READY && own->n_workers < n_threads - 1)
        state = add_worker();
    return state;
}

int fr_pool_size(void)
{
    return own ? own->n_workers + 1 : 1;
}

double fr_pool_run(int n_threads, void (*member)(int, int, void *), void *data)
{
    pool *p = own;
    p->member = member;
    p->data = data;
    p->size = n_threads;
    p->regions++;
    atomic_store(&p->working, n_threads - 1);
    for (int i = 0; i < n_threads - 1; i++) {
        worker *w = p->workers[i];
        set_done(&w->told, atomic_load(&w->told.done) + 1);
    }
    member(0, n_threads, data);
    const double since = fr_seconds();
    wait_for(&p->finished, p->regions);
    return fr_seconds() - since;
}

#endif
