/* SPDX-License-Identifier: BSD-3-Clause */
/* team.c -- finds out before a call whether its threads and its stack are there.
 *
 * GNU OpenMP ends the process when it cannot start a thread or get a few bytes of
 * memory, and a kernel on too small a stack ends the process as well.  Threads, memory
 * and stack are therefore tried here first, where a failure can become an exception.
 * This file is compiled once, not once per target.  The threads of pool.c are simply
 * started: there a failure ends nothing.
 *
 * OpenMP keeps a pool of threads for every thread that enters parallel regions.  The
 * pool has as many threads as the last region had, and any others end.  What this file
 * knows of the calling thread's pool is thread-local, and it keeps no other state.
 */
#define _GNU_SOURCE
#include "fastrnn.h"

#include <errno.h>
#if defined(_WIN32)
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
#else
#include <pthread.h>
#endif
#ifdef _OPENMP
#include <omp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#endif

typedef struct {
    char *low, *high;    /* this thread's stack; NULL where its place is unknown */
    int looked;          /* 1: `low` and `high` have been set */
    int ready;           /* most threads that a team of this thread has had */
    int size;            /* threads in this thread's last team */
    int alone;           /* calls that went on without a team, for want of memory */
    size_t worker_stack; /* bytes of stack of each of OpenMP's threads */
    ptrdiff_t frame;     /* fr_tile_frame() when stacks were looked at */
} own_team;

static _Thread_local own_team own STATIC_TLS;

/* The thread that calls a kernel is in the team and needs a kernel's stack, and some
 * more for the array of a fingerprint and for starting the team. */
#define OWN_STACK (FR_STACK + (4 << 10))

/* --- stacks ---------------------------------------------------------------------- */

#define FRAME ((char *)__builtin_frame_address(0))

#if defined(__linux__)

/* Sets *low and *high to the ends of the stack of a thread that is alive, or to NULL
 * where the system does not tell.  Returns 0, or ENOMEM where memory to find out is
 * lacking. */
static int find_stack(pthread_t thread, char **low, char **high)
{
    *low = *high = NULL;
    pthread_attr_t attributes;
    void *start = NULL;
    size_t size = 0, guard = 0;
    const int error = pthread_getattr_np(thread, &attributes);
    if (error)
        return error == ENOMEM ? error : 0;
    if (!pthread_attr_getstack(&attributes, &start, &size) &&
        !pthread_attr_getguardsize(&attributes, &guard) && guard < size) {
        *low = (char *)start + guard;
        *high = (char *)start + size;
    }
    pthread_attr_destroy(&attributes);
    return 0;
}

static int find_own_stack(void)
{
    return find_stack(pthread_self(), &own.low, &own.high);
}

#elif defined(_WIN32)

/* Windows keeps the last pages of a stack for what handles its overflow. */
#define KEPT_BY_SYSTEM (16 << 10)

static int find_own_stack(void)
{
    ULONG_PTR low = 0, high = 0;
    GetCurrentThreadStackLimits(&low, &high);
    if (high - low > KEPT_BY_SYSTEM) {
        own.low = (char *)low + KEPT_BY_SYSTEM;
        own.high = (char *)high;
    }
    return 0;
}

#else

static int find_own_stack(void)
{
    return 0; /* the place of the stack stays unknown */
}

#endif

/* Bytes left on the calling thread's stack; PTRDIFF_MAX where its place is unknown. */
static ptrdiff_t stack_left(void)
{
    const int known = own.low && FRAME > own.low && FRAME <= own.high;
    return known ? FRAME - own.low : PTRDIFF_MAX;
}

ptrdiff_t fr_stack_left(void)
{
    if (!own.looked) {
        if (find_own_stack())
            return PTRDIFF_MAX;
        own.looked = 1;
    }
    return stack_left();
}

/* --- OpenMP's threads ------------------------------------------------------------ */

#ifdef _OPENMP

/* Threads that a region may add to the pool: OpenMP lists these on the stack. */
#define AT_A_TIME 16

/* Bytes of stack that the environment asks for each of OpenMP's threads.  OpenMP reads
 * the environment when it is loaded, and so does this file, before a program can change
 * it. */
static size_t omp_stack;

/* Sets omp_stack to OMP_STACKSIZE or GOMP_STACKSIZE; it stays 0 for the system's
 * default. */
__attribute__((constructor)) static void read_stack_size(void)
{
    static const char units[] = "bkmg";
    const char *text = getenv("OMP_STACKSIZE");
    if (text == NULL)
        text = getenv("GOMP_STACKSIZE");
    if (text == NULL)
        return;
    char *end;
    errno = 0;
    const unsigned long long number = strtoull(text, &end, 10);
    if (end == text || errno)
        return;
    end += strspn(end, " \t");
    int shift = 10;
    const char *unit = *end ? strchr(units, *end | 0x20) : NULL;
    if (unit)
        shift = 10 * (int)(unit - units);
    if (number <= (SIZE_MAX >> shift))
        omp_stack = (size_t)number << shift;
}

static size_t worker_stack(pthread_attr_t *attributes)
{
    size_t size = 0;
    if (omp_stack) /* refused if too small or too large; OpenMP warns */
        (void)pthread_attr_setstacksize(attributes, omp_stack);
    pthread_attr_getstacksize(attributes, &size);
    return size;
}

/* Whether n_bytes of address space can be had. */
static int has_space(size_t n_bytes)
{
    void *space = mmap(NULL, n_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (space == MAP_FAILED)
        return 0;
    munmap(space, n_bytes);
    return 1;
}

/* Whether there is memory for the tables that OpenMP makes for a team. */
static int has_tables(int n_threads)
{
    void *room = malloc(4096 + 512 * (size_t)n_threads);
    free(room);
    return room != NULL;
}

static void *wait_at_door(void *door)
{
    pthread_mutex_lock(door);
    pthread_mutex_unlock(door);
    return NULL;
}

/* Tries whether n more threads with OpenMP's size of stack can live at once: starts
 * them, keeps all of them waiting at a door, and lets them end. */
static int try_threads(int n)
{
    pthread_mutex_t door = PTHREAD_MUTEX_INITIALIZER;
    pthread_t *threads = malloc((size_t)n * sizeof *threads);
    pthread_attr_t attributes;
    sigset_t all, before;
    int made = 0;
    if (threads == NULL || pthread_attr_init(&attributes)) {
        free(threads);
        return FR_TEAM_NO_MEMORY;
    }
    own.worker_stack = worker_stack(&attributes);
    /* Threads inherit the signal mask: these must not run the program's handlers. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_mutex_lock(&door);
    while (made < n &&
           pthread_create(&threads[made], &attributes, wait_at_door, &door) == 0)
        made++;
    const int has_memory = made == n || has_space(own.worker_stack);
    pthread_mutex_unlock(&door);
    for (int i = 0; i < made; i++)
        pthread_join(threads[i], NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    free(threads);
    return made == n    ? FR_TEAM_READY
           : has_memory ? FR_TEAM_NO_THREADS
                        : FR_TEAM_NO_MEMORY;
}

typedef struct {
    pthread_t thread;
    char *at; /* an address on its stack; NULL if OpenMP gave fewer threads */
} worker;

static void run_team(int n, worker *workers)
{
#pragma omp parallel num_threads(n)
    {
        const int rank = omp_get_thread_num();
        workers[rank] = (worker){pthread_self(), FRAME};
    }
}

/* Grows OpenMP's pool until a region of n threads has at most AT_A_TIME to add. */
static void fill_pool(int n, worker *workers)
{
    for (int size = own.size > 1 ? own.size : 1; n - size > AT_A_TIME;) {
        size += AT_A_TIME;
        run_team(size, workers);
    }
    own.size = n;
}

/* Sets *least to the least stack that is left to one of the pool's threads, PTRDIFF_MAX
 * where no place is known.  Returns 0, or ENOMEM. */
static int find_least_stack(const worker *workers, int n, ptrdiff_t *least)
{
    *least = PTRDIFF_MAX;
#if defined(__linux__)
    for (int i = 1; i < n; i++) {
        char *low, *high;
        if (workers[i].at == NULL)
            continue;
        const int error = find_stack(workers[i].thread, &low, &high);
        if (error)
            return error;
        if (low && workers[i].at - low < *least)
            *least = workers[i].at - low;
    }
#else
    (void)workers;
    (void)n;
#endif
    return 0;
}

/* Starts a team of n threads for the first time, after trying whether that can succeed,
 * and looks at the stacks of its threads.  Returns one of the FR_TEAM_ results. */
static int grow(int n, fr_team_report *report)
{
    const int limit = omp_get_thread_limit(), most = limit < n ? limit : n;
    const int now = own.size > 1 ? own.size : 1;
    if (most > now) {
        const int state = try_threads(most - now);
        if (state != FR_TEAM_READY)
            return state;
    }
    worker *workers = calloc((size_t)n, sizeof *workers);
    if (workers == NULL || !has_tables(n)) {
        free(workers);
        return FR_TEAM_NO_MEMORY;
    }
    fill_pool(n, workers);
    run_team(n, workers);
    ptrdiff_t least;
    const int error = find_least_stack(workers, n, &least);
    free(workers);
    if (error)
        return FR_TEAM_NO_MEMORY;
    report->needed = FR_STACK + own.frame;
    report->found = least;
    return least < report->needed ? FR_TEAM_SMALL_STACKS : FR_TEAM_READY;
}

#endif

/* --- what callers and kernels ask ------------------------------------------------ */

int fr_team_size(int n_threads)
{
#ifdef _OPENMP
    if (n_threads == own.size)
        return n_threads;
    const int more = n_threads - (own.size > 1 ? own.size : 1);
    worker *workers = calloc((size_t)n_threads, sizeof *workers);
    if (workers && has_tables(n_threads) &&
        (more <= 0 || has_space((size_t)more * own.worker_stack))) {
        fill_pool(n_threads, workers);
        free(workers);
        return n_threads;
    }
    free(workers);
    own.alone++;
#elif defined(FR_POOL)
    if (fr_pool_size() >= n_threads)
        return n_threads;
    own.alone++;
#else
    (void)n_threads;
#endif
    return 1;
}

int fr_team_prepare(int n_threads, fr_team_report *report)
{
    const ptrdiff_t frame = fr_tile_frame(), needed = OWN_STACK + frame;
    if (own.looked && own.ready >= n_threads && own.frame == frame &&
        stack_left() >= needed && !own.alone)
        return FR_TEAM_READY;
    *report = (fr_team_report){.needed = needed, .alone = own.alone};
    if (own.frame != frame)
        own.ready = 0; /* its threads' stacks may be too small now */
    own.frame = frame;
    own.alone = 0;
    if (!own.looked) {
        if (find_own_stack())
            return FR_TEAM_NO_MEMORY;
        own.looked = 1;
    }
    report->found = stack_left();
    if (report->found < needed)
        return FR_TEAM_SMALL_STACK;
    if (n_threads > 1 && own.ready < n_threads) {
#if defined(_OPENMP)
        const int state = grow(n_threads, report);
#elif defined(FR_POOL)
        const int state = fr_pool_grow(n_threads);
#else
        const int state = FR_TEAM_READY;
#endif
        if (state != FR_TEAM_READY)
            return state;
    }
    if (n_threads > own.ready)
        own.ready = n_threads;
    return FR_TEAM_READY;
}

int fr_openmp_processors(void)
{
#ifdef _OPENMP
    return omp_get_num_procs();
#else
    return 0;
#endif
}
