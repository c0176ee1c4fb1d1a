/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A USB display, made of a gadget on dummy_hcd: this machine is plugged into itself.
 */
#ifndef GUD_GADGET_H
#define GUD_GADGET_H

#include <stdbool.h>

/*
 * Makes the gadget and plugs it in. A process answers for it until the one that
 * has called this ends. Returns what is wrong, or NULL.
 */
const char *gud_gadget_start(void);

/* Unplugs and removes it, if there is one. */
void gud_gadget_stop(void);

/* Whether there is one. */
bool gud_gadget_is_there(void);

/* Plugs it in, or out. The host takes a moment to find out. */
const char *gud_gadget_plug(bool in);

#endif
