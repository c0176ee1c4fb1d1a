/* SPDX-License-Identifier: GPL-2.0 */
/* What coccinelle does not parse, as it would read for rules.cocci. */
#define scoped_guard(...) if (1)
