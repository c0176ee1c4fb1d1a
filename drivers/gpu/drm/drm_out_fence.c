// SPDX-License-Identifier: GPL-2.0
/*
 * Fences that signal when an atomic commit is on screen (OUT_FENCE_PTR of a
 * CRTC) or in memory (WRITEBACK_OUT_FENCE_PTR of a writeback connector).
 *
 * Userspace keeps them as sync_files for as long as it likes, also after the
 * device is gone. So everything that can be asked of a fence is in its own
 * memory: its lock and its names. No one has to wait before a CRTC or a
 * connector is freed.
 */

#include <linux/build_bug.h>
#include <linux/dma-fence.h>
#include <linux/list.h>
#include <linux/minmax.h>
#include <linux/sched.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/stdarg.h>
#include <linux/stddef.h>
#include <linux/string.h>
#include <linux/string_helpers.h>
#include <linux/timekeeping.h>

#include <drm/drm_device.h>
#include <drm/drm_drv.h>
#include <drm/drm_out_fence.h>
#include <drm/drm_util.h>

#include "drm_crtc_internal.h"

/* Shorter lists are not worth a look. */
#define DRM_OUT_FENCE_PRUNE_MIN	8u

/* Lines of a file in debugfs. */
#define DRM_OUT_FENCE_SHOW_MAX	64u

struct drm_out_fence {
	struct dma_fence base;
	struct list_head pending;	/* in &drm_out_fence_timeline.pending */
#ifdef CONFIG_DEBUG_FS
	ktime_t created;
	pid_t tgid;			/* of who made the commit */
	char comm[TASK_COMM_LEN];
#endif
	char driver_name[32];	/* as much of it as struct sync_fence_info has */
	char timeline_name[sizeof_field(struct drm_out_fence_timeline, name)];
};

/* The default release frees the memory of the dma_fence. */
static_assert(offsetof(struct drm_out_fence, base) == 0);

static struct drm_out_fence *to_drm_out_fence(struct dma_fence *fence)
{
	return container_of(fence, struct drm_out_fence, base);
}

static const char *drm_out_fence_get_driver_name(struct dma_fence *fence)
{
	return to_drm_out_fence(fence)->driver_name;
}

static const char *drm_out_fence_get_timeline_name(struct dma_fence *fence)
{
	return to_drm_out_fence(fence)->timeline_name;
}

static const struct dma_fence_ops drm_out_fence_ops = {
	.get_driver_name = drm_out_fence_get_driver_name,
	.get_timeline_name = drm_out_fence_get_timeline_name,
};

/*
 * drm_out_fence_timeline_init - set up a timeline without fences
 * @timeline: the timeline
 * @fmt: printf() format of its name, cut off at the size of
 *	 &drm_out_fence_timeline.name
 */
void drm_out_fence_timeline_init(struct drm_out_fence_timeline *timeline,
				 const char *fmt, ...)
{
	va_list args;

	timeline->context = dma_fence_context_alloc(1);
	timeline->seqno = 0;
	spin_lock_init(&timeline->lock);
	INIT_LIST_HEAD(&timeline->pending);
	timeline->num_pending = 0;
	timeline->prune_at = DRM_OUT_FENCE_PRUNE_MIN;

	va_start(args, fmt);
	vsnprintf(timeline->name, sizeof(timeline->name), fmt, args);
	va_end(args);
}

/* It is signaled, or of a commit that failed: the list has the last reference. */
static bool drm_out_fence_is_done(struct drm_out_fence *fence)
{
	return dma_fence_test_signaled_flag(&fence->base) ||
	       kref_read(&fence->base.refcount) == 1;
}

/*
 * Forget what drm_out_fence_timeline_cancel() need not see any more. The next time
 * is when the list is twice as long as what is left, so that the cost of a fence
 * does not grow with the number of those that never signal.
 */
static void drm_out_fence_timeline_prune(struct drm_out_fence_timeline *timeline)
{
	struct drm_out_fence *fence, *next;

	list_for_each_entry_safe(fence, next, &timeline->pending, pending) {
		if (drm_out_fence_is_done(fence)) {
			list_del(&fence->pending);
			timeline->num_pending--;
			dma_fence_put(&fence->base);
		}
	}

	timeline->prune_at = max(DRM_OUT_FENCE_PRUNE_MIN,
				 2 * timeline->num_pending);
}

/*
 * drm_out_fence_timeline_cancel - signal what is still pending
 * @timeline: the timeline
 *
 * Whoever waits for a frame of a device that goes away learns so: fences that
 * are not signaled yet get the error -ENODEV. The caller has made sure that the
 * hardware is done with the buffers of these frames. An event of the CRTC may
 * still signal them later, without effect.
 *
 * Context: Process context.
 */
void drm_out_fence_timeline_cancel(struct drm_out_fence_timeline *timeline)
{
	struct drm_out_fence *fence, *next;
	unsigned long flags;
	LIST_HEAD(pending);

	spin_lock(&timeline->lock);
	list_splice_init(&timeline->pending, &pending);
	timeline->num_pending = 0;
	spin_unlock(&timeline->lock);

	list_for_each_entry_safe(fence, next, &pending, pending) {
		list_del(&fence->pending);

		dma_fence_lock_irqsave(&fence->base, flags);
		if (!dma_fence_test_signaled_flag(&fence->base)) {
			dma_fence_set_error(&fence->base, -ENODEV);
			dma_fence_signal_locked(&fence->base);
		}
		dma_fence_unlock_irqrestore(&fence->base, flags);

		dma_fence_put(&fence->base);
	}
}

/*
 * drm_out_fence_create - create the next fence of a timeline
 * @timeline: the timeline
 * @dev: the device it belongs to
 *
 * Context: Process context, may sleep.
 * Returns: a fence with one reference for the caller, or NULL if there is no
 * memory for it.
 */
struct dma_fence *drm_out_fence_create(struct drm_out_fence_timeline *timeline,
				       struct drm_device *dev)
{
	struct drm_out_fence *fence;

	fence = kzalloc_obj(*fence);
	if (!fence)
		return NULL;

	strscpy(fence->driver_name, dev->driver->name);
	strscpy(fence->timeline_name, timeline->name);
#ifdef CONFIG_DEBUG_FS
	fence->created = ktime_get();
	fence->tgid = task_tgid_nr(current);
	get_task_comm(fence->comm, current->group_leader);
#endif

	spin_lock(&timeline->lock);
	if (timeline->num_pending >= timeline->prune_at)
		drm_out_fence_timeline_prune(timeline);

	dma_fence_init(&fence->base, &drm_out_fence_ops, timeline->context,
		       ++timeline->seqno);
	dma_fence_get(&fence->base);
	list_add_tail(&fence->pending, &timeline->pending);
	timeline->num_pending++;
	spin_unlock(&timeline->lock);

	return &fence->base;
}

#ifdef CONFIG_DEBUG_FS
/*
 * drm_out_fence_timeline_show - list what is still pending
 * @timeline: the timeline
 * @m: where to
 *
 * Prints what the documentation of the debugfs file out_fences says.
 *
 * Context: Process context.
 */
void drm_out_fence_timeline_show(struct drm_out_fence_timeline *timeline,
				 struct seq_file *m)
{
	struct drm_out_fence *fence;
	ktime_t now = ktime_get();
	unsigned int count = 0;

	spin_lock(&timeline->lock);
	list_for_each_entry(fence, &timeline->pending, pending) {
		struct timespec64 age;

		if (drm_out_fence_is_done(fence) ||
		    count++ >= DRM_OUT_FENCE_SHOW_MAX)
			continue;

		age = ktime_to_timespec64(max(now - fence->created, 0));
		seq_printf(m, "%llu:%llu pending age:%ptSp tgid:%d comm:",
			   fence->base.context, fence->base.seqno, &age,
			   fence->tgid);
		seq_escape_str(m, fence->comm,
			       ESCAPE_OCTAL | ESCAPE_NAP | ESCAPE_APPEND, " \\");
		seq_putc(m, '\n');
	}
	spin_unlock(&timeline->lock);

	if (count > DRM_OUT_FENCE_SHOW_MAX)
		seq_printf(m, "and %u more\n", count - DRM_OUT_FENCE_SHOW_MAX);
}
EXPORT_SYMBOL_FOR_TESTS_ONLY(drm_out_fence_timeline_show);
#endif
