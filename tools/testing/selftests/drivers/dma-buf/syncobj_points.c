// SPDX-License-Identifier: GPL-2.0-only
/*
 * Many points of a timeline that somebody waits for, each with an event that
 * fires once. A kernel that takes quadratic time to signal them in order does so
 * with interrupts off. With lockdep and KASAN that is long enough for its watchdog
 * to complain, which fails the test. Backwards it is in many short pieces, and
 * only an event that is lost or too early fails.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <drm/drm.h>

#include "kselftest_harness.h"
#include "out_fence_util.h"

#define MANY_POINTS	4000
#define CASE_SECONDS	300

FIXTURE(points) {
	int drm, kmsg, event;
	int *timeline;
	unsigned int n_timelines;
	__u32 binary, points;
};

/*
 * The fences are of one timeline of sw_sync, signaled at once, or each of its
 * own, signaled the last one first. The events are asked for with the points, or
 * when all of these are there, the last one first.
 */
FIXTURE_VARIANT(points) {
	unsigned int n;
	bool late, backwards;
};

FIXTURE_VARIANT_ADD(points, at_once) { .n = MANY_POINTS };
FIXTURE_VARIANT_ADD(points, late) { .n = MANY_POINTS, .late = true };
FIXTURE_VARIANT_ADD(points, backwards) {
	.n = MANY_POINTS / 2, .backwards = true
};

static int create_syncobj(int drm, __u32 *handle)
{
	struct drm_syncobj_create create = {};
	int ret = ioctl(drm, DRM_IOCTL_SYNCOBJ_CREATE, &create);

	*handle = create.handle;
	return ret;
}

FIXTURE_SETUP(points)
{
	unsigned int i;

	self->n_timelines = variant->backwards ? variant->n : 1;
	mount_debugfs();
	if (access(SW_SYNC, R_OK | W_OK))
		SKIP(return, "no %s: %s", SW_SYNC, strerror(errno));
	self->drm = open_syncobj_device();
	if (self->drm < 0)
		SKIP(return, "no device with timeline syncobjs");
	if (allow_open_files(self->n_timelines + 64) < self->n_timelines + 64)
		SKIP(return, "too few open files");
	ASSERT_EQ(0, create_syncobj(self->drm, &self->binary));
	ASSERT_EQ(0, create_syncobj(self->drm, &self->points));
	self->event = eventfd(0, EFD_CLOEXEC);
	ASSERT_LE(0, self->event);
	self->timeline = calloc(self->n_timelines, sizeof(*self->timeline));
	ASSERT_NE(NULL, self->timeline);
	for (i = 0; i < self->n_timelines; i++) {
		self->timeline[i] = timeline_open();
		ASSERT_LE(0, self->timeline[i]);
	}
	self->kmsg = kmsg_open();
}

FIXTURE_TEARDOWN(points)
{
	unsigned int i;

	for (i = 0; self->timeline && i < self->n_timelines; i++)
		close(self->timeline[i]);
	free(self->timeline);
	close(self->event);
	close(self->drm);
	EXPECT_FINE(kmsg_check(self->kmsg));
}

/* What @fence stands for becomes @point. */
static int append(int drm, __u32 binary, __u32 points, int fence, __u64 point)
{
	struct drm_syncobj_handle import = {
		.handle = binary,
		.fd = fence,
		.flags = DRM_SYNCOBJ_FD_TO_HANDLE_FLAGS_IMPORT_SYNC_FILE,
	};
	struct drm_syncobj_transfer transfer = {
		.src_handle = binary,
		.dst_handle = points,
		.dst_point = point,
	};

	return ioctl(drm, DRM_IOCTL_SYNCOBJ_FD_TO_HANDLE, &import) ?:
	       ioctl(drm, DRM_IOCTL_SYNCOBJ_TRANSFER, &transfer);
}

static int ask_for(int drm, __u32 points, __u64 point, int event)
{
	struct drm_syncobj_eventfd wait = {
		.handle = points, .point = point, .fd = event,
	};

	return ioctl(drm, DRM_IOCTL_SYNCOBJ_EVENTFD, &wait);
}

TEST_F_TIMEOUT(points, signal, CASE_SECONDS)
{
	const unsigned int n = variant->n;
	__u64 count = 0, seen = 0;
	unsigned int i;

	for (i = 0; i < n; i++) {
		int fence = variant->backwards ?
			    timeline_fence(self->timeline[i], 1) :
			    timeline_fence(self->timeline[0], i + 1);

		ASSERT_LE(0, fence);
		ASSERT_EQ(0, append(self->drm, self->binary, self->points,
				    fence, i + 1));
		close(fence);
		if (!variant->late)
			ASSERT_EQ(0, ask_for(self->drm, self->points, i + 1,
					     self->event));
	}
	for (i = n; i > 0 && variant->late; i--)
		ASSERT_EQ(0, ask_for(self->drm, self->points, i, self->event));

	for (i = self->n_timelines; i-- > 0;) {
		/* all others are pending behind the first point */
		if (!i && variant->backwards)
			EXPECT_FALSE(is_ready(self->event, POLLIN, 0));
		EXPECT_EQ(0, timeline_inc(self->timeline[i],
					  variant->backwards ? 1 : n));
	}
	while (seen < n && is_ready(self->event, POLLIN, WAIT_MS) &&
	       read(self->event, &count, sizeof(count)) == sizeof(count))
		seen += count;
	EXPECT_EQ(n, seen);
	EXPECT_FALSE(is_ready(self->event, POLLIN, 10));
}

TEST_HARNESS_MAIN
