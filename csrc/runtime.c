/* SPDX-License-Identifier: BSD-3-Clause */
/* runtime.c -- whether another library in this process uses fastrnn's OpenMP runtime.
 *
 * GNU OpenMP keeps one pool of threads for each thread that begins parallel regions,
 * whichever library begins them, and the pool does not survive fork().  fastrnn knows
 * its own regions.  Any other library that lists the same runtime among those that it
 * needs may have begun regions as well.  This file is compiled once, with the
 * baseline's flags.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "fastrnn.h"

#if defined(_OPENMP) && defined(__linux__)
#include <link.h>
#include <stdint.h>
#include <string.h>

typedef struct {
    uintptr_t here;      /* an address inside fastrnn's own object */
    const char *runtime; /* the name by which that object needs its runtime, or NULL */
    int shared;          /* 1: another object needs a runtime of this name */
} search;

/* Returns an object's dynamic section, which says what the object needs, or NULL. */
static const ElfW(Dyn) * dynamic_of(const struct dl_phdr_info *object)
{
    for (int i = 0; i < object->dlpi_phnum; i++)
        if (object->dlpi_phdr[i].p_type == PT_DYNAMIC)
            return (const ElfW(Dyn) *)(object->dlpi_addr +
                                       object->dlpi_phdr[i].p_vaddr);
    return NULL;
}

static const char *strings_of(const struct dl_phdr_info *object,
                              const ElfW(Dyn) * entry)
{
    for (; entry->d_tag != DT_NULL; entry++)
        if (entry->d_tag == DT_STRTAB) {
            /* glibc has replaced the offset by the address, musl leaves the offset. */
            ElfW(Addr) at = entry->d_un.d_ptr;
            return (const char *)(at < object->dlpi_addr ? at + object->dlpi_addr : at);
        }
    return NULL;
}

static int holds(const struct dl_phdr_info *object, uintptr_t address)
{
    for (int i = 0; i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &object->dlpi_phdr[i];
        if (part->p_type == PT_LOAD &&
            address - (object->dlpi_addr + part->p_vaddr) < part->p_memsz)
            return 1;
    }
    return 0;
}

/* Looks at one object.  In the first round, while s->runtime is NULL, only fastrnn's
 * own object counts, and the name of its runtime is kept.  In the second round the
 * other objects count, and the round ends at one that needs a runtime of that name. */
static int look(struct dl_phdr_info *object, size_t size, void *data)
{
    (void)size;
    search *s = data;
    const int ours = holds(object, s->here), naming = s->runtime == NULL;
    const ElfW(Dyn) *entry = dynamic_of(object);
    const char *strings = entry ? strings_of(object, entry) : NULL;
    if (ours != naming || !strings)
        return 0;
    for (; entry->d_tag != DT_NULL; entry++) {
        if (entry->d_tag != DT_NEEDED)
            continue;
        const char *name = strings + entry->d_un.d_val;
        if (naming &&
            (strstr(name, "gomp") || strstr(name, "omp.") || strstr(name, "omp5")))
            s->runtime = name;
        else if (!naming && strcmp(name, s->runtime) == 0)
            s->shared = 1;
    }
    return s->shared;
}

int fr_openmp_is_shared(void)
{
    static const char here;
    search s = {(uintptr_t)&here, NULL, 0};
    dl_iterate_phdr(look, &s);
    if (s.runtime)
        dl_iterate_phdr(look, &s);
    return s.shared;
}

#else

int fr_openmp_is_shared(void)
{
    return 0;
}

#endif
