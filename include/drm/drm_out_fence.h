/* SPDX-License-Identifier: GPL-2.0 */
#ifndef __DRM_OUT_FENCE_H__
#define __DRM_OUT_FENCE_H__

#include <linux/list.h>
#include <linux/spinlock_types.h>
#include <linux/types.h>

/**
 * struct drm_out_fence_timeline - out-fences of a CRTC or writeback connector
 *
 * Every atomic commit that asks for an out-fence gets the next fence of this
 * timeline. The fences do not point back to it, nor to the CRTC or connector
 * that it is part of.
 */
struct drm_out_fence_timeline {
	/** @context: fence context of the timeline. */
	u64 context;

	/** @lock: protects @seqno, @pending, @num_pending and @prune_at. */
	spinlock_t lock;

	/** @seqno: sequence number of the last fence. */
	u64 seqno;

	/**
	 * @pending:
	 *
	 * Fences that may have to be signaled when the CRTC or connector goes
	 * away, oldest first. The list holds a reference to each. Those that do
	 * not need it any more are dropped once in a while.
	 */
	struct list_head pending;

	/** @num_pending: length of @pending. */
	unsigned int num_pending;

	/** @prune_at: length at which signaled fences are dropped. */
	unsigned int prune_at;

	/** @name: what dma_fence_timeline_name() returns for the fences. */
	char name[32];
};

#endif /* __DRM_OUT_FENCE_H__ */
