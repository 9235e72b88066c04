/* SPDX-License-Identifier: BSD-3-Clause */
/* runtime.c -- whether others in this process use the OpenMP runtime that we use.
 *
 * GNU OpenMP keeps one pool of threads for a thread that begins parallel regions,
 * whoever asks for them, and the pool does not survive fork().  Our own calls we know; a
 * library that names the same runtime as one that it needs may have begun regions, too.
 * Compiled once, with the baseline's flags.
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
    uintptr_t here;      /* an address inside our own object */
    const char *runtime; /* what our object calls the runtime that it needs */
    int shared;
} search;

/* The ELF entries that say what an object needs, or NULL. */
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
            /* glibc has put the address itself there, musl leaves the offset. */
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

/* First round: `runtime` of our own object.  Second round: who else needs it. */
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
