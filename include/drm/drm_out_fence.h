/* SPDX-License-Identifier: GPL-2.0 */
#ifndef __DRM_OUT_FENCE_H__
#define __DRM_OUT_FENCE_H__

#include <linux/list.h>
#include <linux/spinlock_types.h>
#include <linux/types.h>

struct drm_device;

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

	/** @lock: protects @seqno and @pending. */
	spinlock_t lock;

	/** @seqno: sequence number of the last fence. */
	u64 seqno;

	/**
	 * @pending:
	 *
	 * Fences that were not signaled when the last one was created, and the
	 * last one. The list holds a reference to each.
	 */
	struct list_head pending;

	/** @name: what dma_fence_timeline_name() returns for the fences. */
	char name[32];
};

void drm_out_fences_cancel(struct drm_device *dev);

#endif /* __DRM_OUT_FENCE_H__ */
