// SPDX-License-Identifier: GPL-2.0
/*
 * What is userspace told of a fence that was signaled with an error?
 *
 * The fences are of sw_sync, which signals what is left with an error when a
 * timeline is closed, and of a vkms instance that is taken away. That a frame has
 * ENODEV if it was not shown is in the KUnit suite drm_fence, since vkms shows all
 * that it is asked to.
 *
 * Run it as root, on a kernel with CONFIG_SW_SYNC and CONFIG_DRM_VKMS:
 * ./fence_error
 * One case needs a device with syncobjs, such as a virtio-gpu.
 */
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <drm/drm.h>
#include <drm/drm_mode.h>
#include <linux/dma-buf.h>

#include "kselftest_harness.h"
#include "out_fence_util.h"

#define ERROR	(-ENOENT)	/* of sw_sync */

/* Returns a fence that has failed, or -errno. */
static int failed_fence(void)
{
	int timeline = timeline_open(), fd;

	if (timeline < 0)
		return timeline;
	fd = timeline_fence(timeline, 1);
	close(timeline);
	return fd;
}

static int merge_fds(int a, int b)
{
	struct sync_merge_data data = { .name = "merged", .fd2 = b };

	return ioctl(a, SYNC_IOC_MERGE, &data) ? -errno : data.fence;
}

static int poll_events(int fd)
{
	struct pollfd p = {
		.fd = fd,
		.events = POLLIN | POLLOUT | POLLPRI,
	};

	return poll(&p, 1, 0) < 0 ? -errno : p.revents;
}

FIXTURE(error)
{
	int fence, kmsg;
};

FIXTURE_SETUP(error)
{
	mount_debugfs();
	self->kmsg = kmsg_open();
	self->fence = failed_fence();
	if (self->fence < 0)
		SKIP(return, "sw_sync: %s", strerror(-self->fence));
}

FIXTURE_TEARDOWN(error)
{
	close_fd(&self->fence);
	EXPECT_FINE(kmsg_check(self->kmsg));
}

TEST_F(error, poll)
{
	EXPECT_EQ(POLLIN, poll_events(self->fence));
}

/* Asks for the fences as well, up to two, which fence_status() does not. */
static int status_with_fences(int fd, struct sync_file_info *info,
			      struct sync_fence_info fences[2])
{
	*info = (struct sync_file_info) {
		.num_fences = 2,
		.sync_fence_info = (uintptr_t)fences,
	};
	return ioctl(fd, SYNC_IOC_FILE_INFO, info) ? INT_MIN : info->status;
}

TEST_F(error, file_info)
{
	struct sync_fence_info fence, fences[2] = {};
	struct sync_file_info info;

	EXPECT_EQ(ERROR, fence_status(self->fence));
	EXPECT_EQ(ERROR, status_with_fences(self->fence, &info, fences));
	fence = fences[0];
	EXPECT_EQ(1u, info.num_fences);
	EXPECT_EQ(ERROR, fence.status);
	EXPECT_STREQ("detached-driver", fence.driver_name);
	EXPECT_STREQ("signaled-timeline", fence.obj_name);
}

TEST_F(error, merge)
{
	int timeline, failing, signaled, pending, merged[6], i;

	timeline = timeline_open();
	failing = timeline_open();
	ASSERT_LE(0, timeline);
	ASSERT_LE(0, failing);
	signaled = timeline_fence(timeline, 1);
	pending = timeline_fence(timeline, 2);
	ASSERT_LE(0, signaled);
	ASSERT_LE(0, pending);
	ASSERT_EQ(0, timeline_inc(timeline, 1));

	merged[0] = merge_fds(self->fence, signaled);
	merged[1] = merge_fds(signaled, self->fence);
	for (i = 0; i < 2; i++)
		EXPECT_EQ(ERROR, fence_status(merged[i]))
			TH_LOG("merge %d", i);

	merged[2] = merge_fds(self->fence, pending);
	merged[3] = merge_fds(pending, self->fence);

	/* these fail after the merge */
	i = timeline_fence(failing, 1);
	ASSERT_LE(0, i);
	merged[4] = merge_fds(i, pending);
	merged[5] = merge_fds(pending, i);
	close(i);
	close(failing);

	for (i = 2; i < 6; i++)
		EXPECT_EQ(0, fence_status(merged[i]))
			TH_LOG("merge %d", i);
	ASSERT_EQ(0, timeline_inc(timeline, 1));
	for (i = 0; i < 6; i++) {
		EXPECT_TRUE(is_ready(merged[i], POLLIN, WAIT_MS));
		EXPECT_EQ(ERROR, fence_status(merged[i]))
			TH_LOG("merge %d", i);
		close(merged[i]);
	}
	close(pending);
	close(signaled);
	close(timeline);
}

TEST_F(error, deadline)
{
	struct sync_set_deadline deadline = { .deadline_ns = now_ns() };

	EXPECT_EQ(0, ioctl(self->fence, SYNC_IOC_SET_DEADLINE, &deadline));
	EXPECT_EQ(ERROR, fence_status(self->fence));
}

#define POINT	3

/* Makes a syncobj with the fence, and a timeline with it at POINT. */
static int import_fence(int fd, int fence, __u32 handles[2])
{
	struct drm_syncobj_handle import = {
		.flags = DRM_SYNCOBJ_FD_TO_HANDLE_FLAGS_IMPORT_SYNC_FILE,
		.fd = fence,
	};
	struct drm_syncobj_transfer transfer = { .dst_point = POINT };
	int i;

	for (i = 0; i < 2; i++) {
		struct drm_syncobj_create create = {};

		if (ioctl(fd, DRM_IOCTL_SYNCOBJ_CREATE, &create))
			return -errno;
		handles[i] = create.handle;
	}
	import.handle = handles[0];
	transfer.src_handle = handles[0];
	transfer.dst_handle = handles[1];
	return ioctl(fd, DRM_IOCTL_SYNCOBJ_FD_TO_HANDLE, &import) ||
	       ioctl(fd, DRM_IOCTL_SYNCOBJ_TRANSFER, &transfer) ? -errno : 0;
}

/* Returns the sync_file that a syncobj is exported to, or -errno. */
static int export_fence(int fd, __u32 handle)
{
	struct drm_syncobj_handle export = {
		.handle = handle,
		.flags = DRM_SYNCOBJ_HANDLE_TO_FD_FLAGS_EXPORT_SYNC_FILE,
	};

	return ioctl(fd, DRM_IOCTL_SYNCOBJ_HANDLE_TO_FD, &export) ? -errno :
								    export.fd;
}

/* The same of a new syncobj that POINT of a timeline is transferred to. */
static int export_point(int fd, __u32 timeline)
{
	struct drm_syncobj_create create = {};
	struct drm_syncobj_transfer transfer = {
		.src_handle = timeline,
		.src_point = POINT,
	};

	if (ioctl(fd, DRM_IOCTL_SYNCOBJ_CREATE, &create))
		return -errno;
	transfer.dst_handle = create.handle;
	return ioctl(fd, DRM_IOCTL_SYNCOBJ_TRANSFER, &transfer) ?
		-errno : export_fence(fd, create.handle);
}

TEST_F(error, syncobj)
{
	__u64 point = POINT, value = 0;
	__u32 handles[2];
	struct drm_syncobj_wait wait = {
		.handles = (uintptr_t)&handles[0],
		.count_handles = 1,
	};
	struct drm_syncobj_timeline_wait timeline_wait = {
		.handles = (uintptr_t)&handles[1],
		.points = (uintptr_t)&point,
		.count_handles = 1,
	};
	struct drm_syncobj_timeline_array query = {
		.handles = (uintptr_t)&handles[1],
		.points = (uintptr_t)&value,
		.count_handles = 1,
	};
	struct drm_syncobj_eventfd event = { .point = POINT };
	__u64 later_point = POINT + 1;
	struct drm_syncobj_timeline_array later = {
		.handles = (uintptr_t)&handles[1],
		.points = (uintptr_t)&later_point,
		.count_handles = 1,
	};
	int fd = open_syncobj_device(), exported[2], i;
	struct sync_fence_info fences[2];
	struct sync_file_info info;

	if (fd < 0)
		SKIP(return, "no device has syncobjs");
	ASSERT_EQ(0, import_fence(fd, self->fence, handles));
	event.handle = handles[1];
	event.fd = eventfd(0, EFD_NONBLOCK);
	ASSERT_LE(0, event.fd);

	EXPECT_EQ(0, ioctl(fd, DRM_IOCTL_SYNCOBJ_WAIT, &wait));
	EXPECT_EQ(0, ioctl(fd, DRM_IOCTL_SYNCOBJ_TIMELINE_WAIT, &timeline_wait));
	EXPECT_EQ(0, ioctl(fd, DRM_IOCTL_SYNCOBJ_EVENTFD, &event));
	EXPECT_TRUE(is_ready(event.fd, POLLIN, WAIT_MS));
	EXPECT_EQ(0, ioctl(fd, DRM_IOCTL_SYNCOBJ_QUERY, &query));
	EXPECT_EQ(point, value);

	exported[0] = export_fence(fd, handles[0]);
	exported[1] = export_fence(fd, handles[1]);
	EXPECT_EQ(ERROR, fence_status(exported[0]));
	EXPECT_EQ(1, fence_status(exported[1]));
	for (i = 0; i < 2; i++) {
		EXPECT_EQ(ERROR, status_with_fences(exported[i], &info, fences));
		close_fd(&exported[i]);
	}

	/* import_fence() has made the other way, to a point */
	exported[0] = export_point(fd, handles[1]);
	EXPECT_EQ(1, fence_status(exported[0]));
	EXPECT_EQ(ERROR, status_with_fences(exported[0], &info, fences));
	close_fd(&exported[0]);

	/* with a later point the one before it is only known to be signaled */
	EXPECT_EQ(0, ioctl(fd, DRM_IOCTL_SYNCOBJ_TIMELINE_SIGNAL, &later));
	exported[0] = export_point(fd, handles[1]);
	EXPECT_EQ(1, fence_status(exported[0]));
	EXPECT_EQ(1, status_with_fences(exported[0], &info, fences));
	close_fd(&exported[0]);
	close(event.fd);
	close(fd);
}

/* Cases that need a display, which is taken away in one of them. */
FIXTURE(device)
{
	struct display display;
	int fence, kmsg;
};

FIXTURE_SETUP(device)
{
	const char *why;

	self->fence = -1;
	why = display_prepare(&self->display, &self->kmsg);
	if (why)
		SKIP(return, "%s", why);
	self->fence = failed_fence();
	if (self->fence < 0)
		SKIP(return, "sw_sync: %s", strerror(-self->fence));
	ASSERT_FINE(display_start(&self->display, NORMAL_HZ));
}

FIXTURE_TEARDOWN(device)
{
	close_fd(&self->fence);
	display_destroy(&self->display);
	EXPECT_FINE(kmsg_check(self->kmsg));
}

TEST_F(device, in_fence)
{
	struct display *d = &self->display;
	const struct pipe *pipe = &d->pipes[0];
	__u64 end = now_ns() + WAIT_MS * NSEC_PER_MSEC;
	__s32 out = -1;
	__u32 objects[] = { pipe->crtc, pipe->plane };
	__u32 counts[] = { 1, 2 };
	__u32 props[] = { d->out_fence_prop, d->fb_prop, d->in_fence_prop };
	__u64 values[] = { (uintptr_t)&out, d->fb[0], self->fence };
	struct drm_mode_atomic atomic = {
		.flags = DRM_MODE_ATOMIC_NONBLOCK,
		.count_objs = 2,
		.objs_ptr = (uintptr_t)objects,
		.count_props_ptr = (uintptr_t)counts,
		.props_ptr = (uintptr_t)props,
		.prop_values_ptr = (uintptr_t)values,
	};
	int err;

	/* the commit before may not be through yet */
	do {
		err = try_ioctl(d->fd, DRM_IOCTL_MODE_ATOMIC, &atomic);
	} while (err == -EBUSY && now_ns() < end);
	ASSERT_EQ(0, err);
	EXPECT_TRUE(is_ready(out, POLLIN, WAIT_MS));
	EXPECT_EQ(1, fence_status(out));
	close_fd(&out);
}

/* Returns the sync_file that a DMA-buf is exported to, or -errno. */
static int export_dmabuf(int dmabuf)
{
	struct dma_buf_export_sync_file export = { .flags = DMA_BUF_SYNC_RW };

	return ioctl(dmabuf, DMA_BUF_IOCTL_EXPORT_SYNC_FILE, &export) ? -errno :
								       export.fd;
}

/* Whoever has the sync_file learns of an error, whoever has the buffer does not. */
TEST_F(device, dmabuf)
{
	struct dma_buf_import_sync_file import = { .flags = DMA_BUF_SYNC_RW };
	int fd = self->display.fd, timeline, dmabuf, exported;
	__u32 handle;

	ASSERT_FINE(buffer_create(fd, &handle));
	ASSERT_EQ(0, buffer_export(fd, handle, &dmabuf));
	timeline = timeline_open();
	ASSERT_LE(0, timeline);
	import.fd = timeline_fence(timeline, 1);
	ASSERT_LE(0, import.fd);
	ASSERT_EQ(0, ioctl(dmabuf, DMA_BUF_IOCTL_IMPORT_SYNC_FILE, &import));
	exported = export_dmabuf(dmabuf);
	EXPECT_EQ(0, fence_status(exported));
	EXPECT_EQ(0, poll_events(dmabuf));
	/* this fails the fence */
	close(timeline);
	EXPECT_TRUE(is_ready(exported, POLLIN, WAIT_MS));
	EXPECT_EQ(ERROR, fence_status(exported));
	close(exported);

	EXPECT_TRUE(is_ready(dmabuf, POLLIN, WAIT_MS));
	EXPECT_TRUE(is_ready(dmabuf, POLLOUT, WAIT_MS));
	exported = export_dmabuf(dmabuf);
	EXPECT_EQ(1, fence_status(exported));
	close(exported);

	/* one that has failed before is not any different */
	close(import.fd);
	import.fd = self->fence;
	ASSERT_EQ(0, ioctl(dmabuf, DMA_BUF_IOCTL_IMPORT_SYNC_FILE, &import));
	exported = export_dmabuf(dmabuf);
	EXPECT_EQ(1, fence_status(exported));
	close(exported);
	close(dmabuf);
}

/* A frame that was shown has no error, although the display has gone. */
TEST_F(device, gone)
{
	struct fence fence;

	ASSERT_FINE(flip_start(&self->display, &fence));
	ASSERT_FINE(flip_wait(&self->display, 1));
	EXPECT_FINE(display_destroy(&self->display));
	EXPECT_EQ(POLLIN, poll_events(fence.fd));
	EXPECT_EQ(1, fence_status(fence.fd));
	close_fd(&fence.fd);
}

TEST_HARNESS_MAIN
