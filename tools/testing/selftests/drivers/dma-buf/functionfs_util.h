/* SPDX-License-Identifier: GPL-2.0 */
/* A gadget of one vendor specific interface, which a program answers for. */
#ifndef FUNCTIONFS_UTIL_H
#define FUNCTIONFS_UTIL_H

#include <stdbool.h>

/*
 * Tells FunctionFS about the interface and its bulk endpoints: ep1 to the host and
 * ep2 from it, or just ep1 from it. Returns what is wrong, or NULL.
 */
const char *ffs_write_descriptors(int ep0, const char *name, bool to_host);

#endif
