// SPDX-License-Identifier: GPL-2.0
/*
 * What do the ioctls that take or make a fence say to bad input?
 *
 * Everything that a process can do with fences goes through file descriptors,
 * handles and pointers of its own choice. The first part of the test gives each
 * ioctl what is wrong in one way, and knows the errno that this has to end with.
 * After each failure nothing may be lost or changed: there are as many open
 * files as before, the argument is what it was, and the fence still works.
 *
 * The second part does good and bad things at random, from several processes
 * that share fences and timelines, while threads close and reuse the files that
 * they work with. It prints its seed first. FENCE_UAPI_SEED makes each process
 * try the same sequence of operations again, FENCE_UAPI_SECONDS is how long, 450
 * at most.
 *
 * Answers are checked, and so is the kernel log; see out_fence_lifetime.c.
 *
 * Run it as root, on a kernel with CONFIG_SW_SYNC: ./fence_uapi
 * What is about DMA-bufs needs vgem, what is about commits vkms, and what is
 * about syncobjs any driver that has them, like virtio-gpu or a real one.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>

#include <drm/drm.h>
#include <drm/drm_mode.h>
#include <drm/vgem_drm.h>
#include <linux/dma-buf.h>

#include "kselftest_harness.h"
#include "out_fence_util.h"

/* The kernel has no header for this. */
struct sw_sync_get_deadline {
	__u64 deadline_ns;
	__u32 pad;
	__s32 fence_fd;
};

#define SW_SYNC_GET_DEADLINE	_IOWR('W', 2, struct sw_sync_get_deadline)

#define CLOSED_FD	900	/* more than there are */
#define NO_HANDLE	0xdeadu
#define MAX_INFOS	256

enum wrong_file {
	MINUS_ONE, CLOSED, PIPE, DEV_NULL, EVENTFD, TIMELINE, DRM, DMA_BUF,
	SYNCOBJ, FENCE, N_WRONG,
};

static const char * const wrong_names[] = {
	"-1", "a closed file", "a pipe", "/dev/null", "an eventfd", "sw_sync",
	"a DRM device", "a DMA-buf", "a syncobj", "a fence",
};

/* What there is to be used; -1 if there is none. */
struct objects {
	int kmsg;
	int timeline, fence;	/* pending until the timeline is at 100 */
	int vgem, dmabuf;
	int drm;		/* has syncobjs, and timelines of them */
	__u32 bo, syncobj;	/* one with the fence, on vgem and drm */
	__u32 empty;		/* syncobj */
	int wrong[N_WRONG];
	const char *(*alive)(struct objects *o);
};

/* A call that has to fail, or not: @err is 0 then. */
struct call {
	const char *what;
	int err;
	int fd;
	unsigned long cmd;
	void *arg;
};

#define ARG(type, ...)	(&(struct type){ __VA_ARGS__ })
#define U64(p)		((uintptr_t)(p))

static int call_err(int fd, unsigned long cmd, void *arg)
{
	return -try_ioctl(fd, cmd, arg);
}

/* ---- what there is ---- */

static int merge_fds(int fd, int fd2)
{
	struct sync_merge_data data = { .name = "merged", .fd2 = fd2 };

	return ioctl(fd, SYNC_IOC_MERGE, &data) ? -1 : data.fence;
}

static bool has_signaled(int fd, unsigned int ms)
{
	return is_ready(fd, POLLIN, ms);
}

static bool has_cap(int fd, __u64 capability)
{
	struct drm_get_cap cap = { .capability = capability };

	return !ioctl(fd, DRM_IOCTL_GET_CAP, &cap) && cap.value;
}

static int open_vgem(void)
{
	int fd = card_open("vgem");

	if (fd >= 0)
		return fd;
	modprobe("vgem", NULL);
	return card_open("vgem");
}

static int open_dmabuf(int vgem, __u32 *bo)
{
	int fd;

	if (buffer_create(vgem, bo) || buffer_export(vgem, *bo, &fd))
		return -1;
	return fd;
}

static __u32 create_syncobj(int drm, __u32 flags)
{
	struct drm_syncobj_create create = { .flags = flags };

	return ioctl(drm, DRM_IOCTL_SYNCOBJ_CREATE, &create) ? 0 :
							       create.handle;
}

static int destroy_syncobj(int drm, __u32 handle)
{
	struct drm_syncobj_destroy destroy = { .handle = handle };

	return ioctl(drm, DRM_IOCTL_SYNCOBJ_DESTROY, &destroy);
}

static int syncobj_to_fd(int drm, __u32 handle, __u32 flags, __u64 point)
{
	struct drm_syncobj_handle arg = {
		.handle = handle,
		.flags = flags,
		.point = point,
		.fd = -1,
	};

	return ioctl(drm, DRM_IOCTL_SYNCOBJ_HANDLE_TO_FD, &arg) ? -1 : arg.fd;
}

#define EXPORT_FENCE	DRM_SYNCOBJ_HANDLE_TO_FD_FLAGS_EXPORT_SYNC_FILE
#define EXPORT_POINT	DRM_SYNCOBJ_HANDLE_TO_FD_FLAGS_TIMELINE
#define IMPORT_FENCE	DRM_SYNCOBJ_FD_TO_HANDLE_FLAGS_IMPORT_SYNC_FILE
#define IMPORT_POINT	DRM_SYNCOBJ_FD_TO_HANDLE_FLAGS_TIMELINE

static int syncobj_import(int drm, __u32 handle, int fence, __u64 point)
{
	struct drm_syncobj_handle arg = {
		.handle = handle,
		.fd = fence,
		.flags = IMPORT_FENCE | (point ? IMPORT_POINT : 0),
		.point = point,
	};

	return ioctl(drm, DRM_IOCTL_SYNCOBJ_FD_TO_HANDLE, &arg);
}

/* Waits for @point, or for the binary one if that is 0; returns an errno. */
static int syncobj_wait(int drm, __u32 handle, __u64 point, __s64 timeout,
			__u32 flags)
{
	struct drm_syncobj_timeline_wait wait = {
		.handles = U64(&handle),
		.points = U64(&point),
		.count_handles = 1,
		.timeout_nsec = timeout,
		.flags = flags,
	};

	return call_err(drm, DRM_IOCTL_SYNCOBJ_TIMELINE_WAIT, &wait);
}

static const char *fence_alive(struct objects *o)
{
	int fd, status = fence_status(o->fence);

	if (status)
		return wrong("the status of the pending fence is %d", status);
	if (has_signaled(o->fence, 0))
		return "the pending fence has signaled";
	fd = merge_fds(o->fence, o->fence);
	if (fd < 0)
		return wrong("cannot merge the fence: %m");
	status = fence_status(fd);
	close(fd);
	return status ? wrong("the merged status is %d", status) : NULL;
}

static const char *syncobj_alive(struct objects *o)
{
	int err = syncobj_wait(o->drm, o->syncobj, 0, 0, 0);

	if (err != ETIME)
		return wrong("wait for the pending syncobj: %s", strerror(err));
	err = syncobj_wait(o->drm, o->empty, 0, 0, 0);
	if (err != EINVAL)
		return wrong("wait for the empty syncobj: %s", strerror(err));
	return fence_alive(o);
}

static const char *dmabuf_alive(struct objects *o)
{
	struct dma_buf_export_sync_file arg = { .flags = DMA_BUF_SYNC_RW };
	int status;

	if (ioctl(o->dmabuf, DMA_BUF_IOCTL_EXPORT_SYNC_FILE, &arg))
		return wrong("cannot export from the DMA-buf: %m");
	status = fence_status(arg.fd);
	close(arg.fd);
	if (status)
		return wrong("the status of the DMA-buf is %d", status);
	return fence_alive(o);
}

/* Returns why there can be no test. */
static const char *objects_open(struct objects *o)
{
	int pipe_fds[2];

	o->kmsg = -1;
	mount_debugfs();
	o->timeline = timeline_open();
	if (o->timeline < 0)
		return wrong("no %s: %s", SW_SYNC, strerror(-o->timeline));
	o->fence = timeline_fence(o->timeline, 100);
	o->kmsg = kmsg_open();
	o->dmabuf = -1;
	o->vgem = open_vgem();
	if (o->vgem >= 0)
		o->dmabuf = open_dmabuf(o->vgem, &o->bo);
	o->drm = open_syncobj_device();
	if (o->drm >= 0) {
		o->syncobj = create_syncobj(o->drm, 0);
		o->empty = create_syncobj(o->drm, 0);
		if (syncobj_import(o->drm, o->syncobj, o->fence, 0))
			return wrong("cannot import into a syncobj: %m");
	}
	o->wrong[MINUS_ONE] = -1;
	o->wrong[CLOSED] = CLOSED_FD;
	if (pipe(pipe_fds))
		return wrong("pipe: %m");
	close(pipe_fds[1]);
	o->wrong[PIPE] = pipe_fds[0];
	o->wrong[DEV_NULL] = open("/dev/null", O_RDWR);
	o->wrong[EVENTFD] = eventfd(0, EFD_NONBLOCK);
	o->wrong[TIMELINE] = o->timeline;
	o->wrong[DRM] = o->drm >= 0 ? o->drm : o->vgem;
	o->wrong[DMA_BUF] = o->dmabuf;
	o->wrong[SYNCOBJ] = o->drm >= 0 ?
			    syncobj_to_fd(o->drm, o->empty, 0, 0) : -1;
	o->wrong[FENCE] = o->fence;
	o->alive = fence_alive;
	return NULL;
}

/* ---- memory that is no good ---- */

#define PAGE	((size_t)sysconf(_SC_PAGESIZE))

/* Two pages; what is behind the first one is @prot. */
static char *two_pages(int prot)
{
	char *pages = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (pages == MAP_FAILED) {
		perror("# mmap");
		_exit(KSFT_FAIL);
	}
	mprotect(pages + PAGE, PAGE, prot);
	return pages;
}

/* A copy of @data, of which the last part from @first cannot be accessed. */
static void *crossing(const void *data, size_t first)
{
	char *at = two_pages(PROT_NONE) + PAGE - first;

	return memcpy(at, data, first);
}

/* The same, but it can be read. */
static void *read_only(const void *data, size_t size, size_t first)
{
	char *pages = two_pages(PROT_READ | PROT_WRITE);
	char *at = pages + PAGE - first;

	memcpy(at, data, size);
	mprotect(pages + PAGE, PAGE, PROT_READ);
	return at;
}

static void *no_access(void)
{
	return two_pages(PROT_NONE) + PAGE;
}

/* ---- the calls ---- */

/* @size: how much of the argument must not change */
static void refuse_keep(struct __test_metadata *_metadata, struct objects *o,
			const struct call *c, const char *detail, size_t size)
{
	unsigned int files = count_files();
	const char *why;
	char before[512];
	int err;

	memcpy(before, c->arg, size);
	err = call_err(c->fd, c->cmd, c->arg);
	EXPECT_EQ(c->err, err)
		TH_LOG("%s%s: %s instead of %s", c->what, detail,
		       strerror(err), strerror(c->err));
	if (err) {
		EXPECT_EQ(0, memcmp(before, c->arg, size))
			TH_LOG("%s%s: the argument has changed", c->what,
			       detail);
	}
	why = o->alive ? o->alive(o) : NULL;
	EXPECT_EQ(NULL, why)
		TH_LOG("after %s%s: %s", c->what, detail, why);
	EXPECT_EQ(files, count_files())
		TH_LOG("%s%s: other open files", c->what, detail);
}

static void refuse(struct __test_metadata *_metadata, struct objects *o,
		   const struct call *c, const char *detail)
{
	refuse_keep(_metadata, o, c, detail, _IOC_SIZE(c->cmd));
}

static void refuse_all(struct __test_metadata *_metadata, struct objects *o,
		       const struct call *calls)
{
	const struct call *c;

	for (c = calls; c->what; c++)
		refuse(_metadata, o, c, "");
}

/*
 * Pointers that the call cannot use. If @back, it is to fail, too, when it can
 * read all of @arg but not write it: what it made by then has to go again.
 */
static void bad_pointers(struct __test_metadata *_metadata, struct objects *o,
			 const char *what, int fd, unsigned long cmd,
			 const void *arg, bool back)
{
	struct call c = { what, EFAULT, fd, cmd, NULL };
	size_t size = _IOC_SIZE(cmd);

	refuse_keep(_metadata, o, &c, " at NULL", 0);
	c.arg = (void *)8;
	refuse_keep(_metadata, o, &c, " at 8", 0);
	c.arg = (void *)(~0ul << 12);
	refuse_keep(_metadata, o, &c, " in the kernel", 0);
	c.arg = no_access();
	refuse_keep(_metadata, o, &c, " without access", 0);
	c.arg = crossing(arg, size / 2);
	refuse_keep(_metadata, o, &c, " half mapped", 0);
	if (!back)
		return;
	c.arg = read_only(arg, size, 0);
	refuse_keep(_metadata, o, &c, " read-only", 0);
	c.arg = read_only(arg, size, size / 2);
	refuse_keep(_metadata, o, &c, " half read-only", 0);
}

/* The call on files that do not have it. */
static void wrong_files(struct __test_metadata *_metadata, struct objects *o,
			const char *what, unsigned long cmd, void *arg,
			enum wrong_file right)
{
	struct call c = { what, 0, -1, cmd, arg };
	unsigned int i;
	char on[64];

	for (i = 0; i < N_WRONG; i++) {
		if (i == right || (i > CLOSED && o->wrong[i] < 0))
			continue;
		snprintf(on, sizeof(on), " on %s", wrong_names[i]);
		c.fd = o->wrong[i];
		c.err = i <= CLOSED ? EBADF : ENOTTY;
		refuse(_metadata, o, &c, on);
	}
}

/* Files that the call @c does not take in its @field. */
static void wrong_fields(struct __test_metadata *_metadata, struct objects *o,
			 struct call c, __s32 *field, enum wrong_file right,
			 int err_no_file)
{
	unsigned int i;
	int err = c.err;
	char with[64];

	for (i = 0; i < N_WRONG; i++) {
		if (i == right || (i > CLOSED && o->wrong[i] < 0))
			continue;
		snprintf(with, sizeof(with), " with %s", wrong_names[i]);
		*field = o->wrong[i];
		c.err = i <= CLOSED ? err_no_file : err;
		refuse(_metadata, o, &c, with);
	}
}

static void prepare(struct __test_metadata *_metadata, struct objects *o)
{
	const char *why = objects_open(o);

	if (why)
		SKIP(return, "%s", why);
}

FIXTURE(bad_input)
{
	struct objects o;
};

FIXTURE_SETUP(bad_input)
{
	prepare(_metadata, &self->o);
}

FIXTURE_TEARDOWN(bad_input)
{
	EXPECT_FINE(kmsg_check(self->o.kmsg));
}

TEST_F(bad_input, sync_merge)
{
	struct objects *o = &self->o;
	int fd = o->fence;
	struct sync_merge_data good = { .name = "x", .fd2 = fd };
	struct sync_merge_data arg = { .name = "x" };
	const struct call calls[] = {
		{ "MERGE with flags", EINVAL, fd, SYNC_IOC_MERGE,
		  ARG(sync_merge_data, .fd2 = fd, .flags = 1) },
		{ "MERGE with pad", EINVAL, fd, SYNC_IOC_MERGE,
		  ARG(sync_merge_data, .fd2 = fd, .pad = 1u << 31) },
		{ "MERGE with flags before fd2", EINVAL, fd, SYNC_IOC_MERGE,
		  ARG(sync_merge_data, .fd2 = -1, .flags = 1) },
		{ "MERGE with INT_MAX", ENOENT, fd, SYNC_IOC_MERGE,
		  ARG(sync_merge_data, .fd2 = INT_MAX) },
		{ "MERGE with INT_MIN", ENOENT, fd, SYNC_IOC_MERGE,
		  ARG(sync_merge_data, .fd2 = INT_MIN) },
		{ "an unknown ioctl", ENOTTY, fd, _IOWR('>', 2, __u32),
		  &(__u32){ 0 } },
		{ "MERGE of another size", ENOTTY, fd, _IOWR('>', 3, __u32),
		  &(__u32){ 0 } },
		{}
	};

	refuse_all(_metadata, o, calls);
	bad_pointers(_metadata, o, "MERGE", fd, SYNC_IOC_MERGE, &good, true);
	wrong_files(_metadata, o, "MERGE", SYNC_IOC_MERGE, &good, FENCE);
	/* a file that is none of ours is not there, rather than invalid */
	wrong_fields(_metadata, o, (struct call){ "MERGE", ENOENT, fd,
		     SYNC_IOC_MERGE, &arg }, &arg.fd2, FENCE, ENOENT);

	/* no end of the name: the kernel sets one */
	memset(good.name, 'n', sizeof(good.name));
	ASSERT_EQ(0, ioctl(fd, SYNC_IOC_MERGE, &good));
	EXPECT_EQ(0, good.name[31]);
	EXPECT_EQ(0, fence_status(good.fence));
	ASSERT_EQ(0, timeline_inc(o->timeline, 100));
	EXPECT_TRUE(has_signaled(good.fence, 0));
	EXPECT_EQ(1, fence_status(good.fence));
	EXPECT_EQ(1, fence_status(fd));
}

TEST_F(bad_input, sync_file_info)
{
	struct objects *o = &self->o;
	struct sync_fence_info infos[2];
	int timeline = timeline_open();
	int other = timeline_fence(timeline, 1);
	int fd = merge_fds(o->fence, other);
	struct sync_file_info zero = {};
	struct sync_file_info good = {
		.num_fences = 2,
		.sync_fence_info = U64(infos),
	};
	const struct call calls[] = {
		{ "INFO with flags", EINVAL, fd, SYNC_IOC_FILE_INFO,
		  ARG(sync_file_info, .flags = 1) },
		{ "INFO with pad", EINVAL, fd, SYNC_IOC_FILE_INFO,
		  ARG(sync_file_info, .pad = 1) },
		{ "INFO for too few", EINVAL, fd, SYNC_IOC_FILE_INFO,
		  ARG(sync_file_info, .num_fences = 1,
		      .sync_fence_info = U64(infos)) },
		{ "INFO to NULL", EFAULT, fd, SYNC_IOC_FILE_INFO,
		  ARG(sync_file_info, .num_fences = 2) },
		{ "INFO to NULL for UINT_MAX", EFAULT, fd, SYNC_IOC_FILE_INFO,
		  ARG(sync_file_info, .num_fences = UINT_MAX) },
		{ "INFO to U64_MAX", EFAULT, fd, SYNC_IOC_FILE_INFO,
		  ARG(sync_file_info, .num_fences = 2,
		      .sync_fence_info = ~0ull) },
		{ "INFO without access", EFAULT, fd, SYNC_IOC_FILE_INFO,
		  ARG(sync_file_info, .num_fences = 2,
		      .sync_fence_info = U64(no_access())) },
		{ "INFO to read-only", EFAULT, fd, SYNC_IOC_FILE_INFO,
		  ARG(sync_file_info, .num_fences = 2, .sync_fence_info =
		      U64(read_only(infos, sizeof(infos), 0))) },
		{ "INFO to half a page", EFAULT, fd, SYNC_IOC_FILE_INFO,
		  ARG(sync_file_info, .num_fences = 2, .sync_fence_info =
		      U64(crossing(infos, sizeof(infos[0])))) },
		{}
	};

	ASSERT_LE(0, fd);
	refuse_all(_metadata, o, calls);
	bad_pointers(_metadata, o, "INFO", fd, SYNC_IOC_FILE_INFO, &zero, true);
	bad_pointers(_metadata, o, "INFO for 2", fd, SYNC_IOC_FILE_INFO, &good,
		     true);
	wrong_files(_metadata, o, "INFO", SYNC_IOC_FILE_INFO, &zero, FENCE);

	/* room for more than memory has: only what is there counts */
	memset(infos, 0, sizeof(infos));
	good.num_fences = UINT_MAX;
	ASSERT_EQ(0, ioctl(fd, SYNC_IOC_FILE_INFO, &good));
	EXPECT_EQ(2u, good.num_fences);
	EXPECT_EQ(0, good.status);
	EXPECT_STREQ("sw_sync", infos[0].driver_name);
	EXPECT_STREQ("sw_sync", infos[1].driver_name);
}

TEST_F(bad_input, sync_set_deadline)
{
	struct objects *o = &self->o;
	struct sync_set_deadline good = { .deadline_ns = 1 };
	struct sw_sync_get_deadline get = { .fence_fd = o->fence };
	int fd = o->fence;
	const struct call calls[] = {
		{ "SET_DEADLINE with pad", EINVAL, fd, SYNC_IOC_SET_DEADLINE,
		  ARG(sync_set_deadline, .pad = 1) },
		{ "SET_DEADLINE with all of pad", EINVAL, fd,
		  SYNC_IOC_SET_DEADLINE,
		  ARG(sync_set_deadline, .deadline_ns = 1, .pad = ~0ull) },
		{ "GET_DEADLINE after failures", ENOENT, o->timeline,
		  SW_SYNC_GET_DEADLINE, &get },
		{}
	};

	bad_pointers(_metadata, o, "SET_DEADLINE", fd, SYNC_IOC_SET_DEADLINE,
		     &good, false);
	wrong_files(_metadata, o, "SET_DEADLINE", SYNC_IOC_SET_DEADLINE, &good,
		    FENCE);
	refuse_all(_metadata, o, calls);

	/* every time is one, and to read is enough */
	good.deadline_ns = INT64_MAX;
	EXPECT_EQ(0, ioctl(fd, SYNC_IOC_SET_DEADLINE,
			   read_only(&good, sizeof(good), 0)));
	EXPECT_EQ(0, ioctl(o->timeline, SW_SYNC_GET_DEADLINE, &get));
	EXPECT_EQ((__u64)INT64_MAX, get.deadline_ns);
	good.deadline_ns = 0;
	EXPECT_EQ(0, ioctl(fd, SYNC_IOC_SET_DEADLINE, &good));
	/* a ktime is signed: this is the nanosecond before 0 */
	good.deadline_ns = ~0ull;
	EXPECT_EQ(0, ioctl(fd, SYNC_IOC_SET_DEADLINE, &good));
	get.deadline_ns = 0;
	EXPECT_EQ(0, ioctl(o->timeline, SW_SYNC_GET_DEADLINE, &get));
	EXPECT_EQ(~0ull, get.deadline_ns);
	EXPECT_FINE(fence_alive(o));
}

TEST_F(bad_input, sw_sync_create_fence)
{
	struct objects *o = &self->o;
	struct sw_sync_create_fence_data good = { .value = 7 };
	int i, fd, t = o->timeline;
	static const struct {
		__u32 value;
		bool pending;
	} values[] = {
		{ 0, false }, { 1, true }, { INT_MAX, true },
		/* further away is behind: the counter wraps */
		{ 1u << 31, false }, { UINT_MAX, false },
	};

	bad_pointers(_metadata, o, "CREATE_FENCE", t, SW_SYNC_IOC_CREATE_FENCE,
		     &good, true);
	wrong_files(_metadata, o, "CREATE_FENCE", SW_SYNC_IOC_CREATE_FENCE,
		    &good, TIMELINE);
	/* fences that could not be handed out are not in the way */
	for (i = 0; i < (int)ARRAY_SIZE(values); i++) {
		fd = timeline_fence(t, values[i].value);
		ASSERT_LE(0, fd);
		EXPECT_EQ(!values[i].pending, fence_status(fd))
			TH_LOG("fence %u", values[i].value);
		EXPECT_EQ(!values[i].pending, has_signaled(fd, 0));
		close(fd);
	}
	memset(good.name, 'n', sizeof(good.name));
	ASSERT_EQ(0, ioctl(t, SW_SYNC_IOC_CREATE_FENCE, &good));
	EXPECT_EQ(0, timeline_inc(t, 6));
	EXPECT_EQ(0, fence_status(good.fence));
	EXPECT_EQ(0, timeline_inc(t, 1));
	EXPECT_EQ(1, fence_status(good.fence));
}

TEST_F(bad_input, sw_sync_inc)
{
	struct objects *o = &self->o;
	int near, far, fd, t = timeline_open();
	__u32 one = 1;

	near = timeline_fence(t, 1);
	far = timeline_fence(t, INT_MAX);
	bad_pointers(_metadata, o, "INC", t, SW_SYNC_IOC_INC, &one, false);
	wrong_files(_metadata, o, "INC", SW_SYNC_IOC_INC, &one, TIMELINE);
	EXPECT_EQ(0, timeline_inc(t, 0));
	EXPECT_EQ(0, fence_status(near));

	/* all the way round, to the value before the first */
	EXPECT_EQ(0, timeline_inc(t, UINT_MAX));
	EXPECT_EQ(1, fence_status(near));
	EXPECT_EQ(1, fence_status(far));
	fd = timeline_fence(t, UINT_MAX);
	EXPECT_EQ(1, fence_status(fd));
	close(fd);
	fd = timeline_fence(t, 0);
	EXPECT_EQ(0, fence_status(fd));
	EXPECT_EQ(0, ioctl(t, SW_SYNC_IOC_INC, read_only(&one, 4, 0)));
	EXPECT_EQ(1, fence_status(fd));
	/* signaled is signaled, wherever the counter is */
	EXPECT_EQ(1, fence_status(near));
	EXPECT_EQ(1, fence_status(far));
	close(fd);

	/* the end of the timeline is the end of its fences */
	fd = timeline_fence(t, 1);
	EXPECT_EQ(0, fence_status(fd));
	close(t);
	EXPECT_TRUE(has_signaled(fd, 0));
	EXPECT_EQ(-ENOENT, fence_status(fd));
}

TEST_F(bad_input, sw_sync_get_deadline)
{
	struct objects *o = &self->o;
	int timeline = timeline_open();
	int other = timeline_fence(timeline, 1), t = o->timeline;
	struct sw_sync_get_deadline get = { .fence_fd = o->fence };
	struct sync_set_deadline set = { .deadline_ns = 5 };
	const struct call calls[] = {
		{ "GET_DEADLINE with a deadline", EINVAL, t,
		  SW_SYNC_GET_DEADLINE,
		  ARG(sw_sync_get_deadline, .fence_fd = o->fence,
		      .deadline_ns = 1) },
		{ "GET_DEADLINE with pad", EINVAL, t, SW_SYNC_GET_DEADLINE,
		  ARG(sw_sync_get_deadline, .fence_fd = o->fence, .pad = 1) },
		{ "GET_DEADLINE of an array", EINVAL, t, SW_SYNC_GET_DEADLINE,
		  ARG(sw_sync_get_deadline,
		      .fence_fd = merge_fds(o->fence, other)) },
		{ "GET_DEADLINE of none", ENOENT, t, SW_SYNC_GET_DEADLINE,
		  &get },
		{}
	};

	refuse_all(_metadata, o, calls);
	ASSERT_EQ(0, ioctl(o->fence, SYNC_IOC_SET_DEADLINE, &set));
	bad_pointers(_metadata, o, "GET_DEADLINE", t, SW_SYNC_GET_DEADLINE,
		     &get, true);
	wrong_files(_metadata, o, "GET_DEADLINE", SW_SYNC_GET_DEADLINE, &get,
		    TIMELINE);
	wrong_fields(_metadata, o, (struct call){ "GET_DEADLINE", EINVAL, t,
		     SW_SYNC_GET_DEADLINE, &get }, &get.fence_fd, FENCE,
		     EINVAL);
	get.fence_fd = o->fence;
	/* of a fence of another timeline is fine */
	EXPECT_EQ(0, ioctl(timeline, SW_SYNC_GET_DEADLINE, &get));
	EXPECT_EQ(5ull, get.deadline_ns);
}

TEST_F(bad_input, dma_buf)
{
	struct objects *o = &self->o;
	const unsigned long ex = DMA_BUF_IOCTL_EXPORT_SYNC_FILE;
	const unsigned long im = DMA_BUF_IOCTL_IMPORT_SYNC_FILE;
	int fd = o->dmabuf;
	struct dma_buf_export_sync_file good_ex = { .flags = DMA_BUF_SYNC_RW };
	struct dma_buf_import_sync_file good_im = {
		.flags = DMA_BUF_SYNC_WRITE,
		.fd = o->fence,
	}, arg = good_im;
	const struct call calls[] = {
		{ "EXPORT without flags", EINVAL, fd, ex,
		  ARG(dma_buf_export_sync_file, .fd = 77) },
		{ "EXPORT with SYNC_END", EINVAL, fd, ex,
		  ARG(dma_buf_export_sync_file,
		      .flags = DMA_BUF_SYNC_RW | DMA_BUF_SYNC_END) },
		{ "EXPORT with all flags", EINVAL, fd, ex,
		  ARG(dma_buf_export_sync_file, .flags = UINT_MAX) },
		{ "IMPORT without flags", EINVAL, fd, im,
		  ARG(dma_buf_import_sync_file, .fd = o->fence) },
		{ "IMPORT with SYNC_END", EINVAL, fd, im,
		  ARG(dma_buf_import_sync_file, .fd = o->fence,
		      .flags = DMA_BUF_SYNC_WRITE | DMA_BUF_SYNC_END) },
		{ "IMPORT with all flags", EINVAL, fd, im,
		  ARG(dma_buf_import_sync_file, .fd = o->fence,
		      .flags = UINT_MAX) },
		{ "an unknown ioctl", ENOTTY, fd, _IOWR('b', 99, __u32),
		  &(__u32){ 0 } },
		{}
	};

	if (fd < 0)
		SKIP(return, "no DMA-buf of vgem");

	/* no fence is one that has signaled */
	ASSERT_EQ(0, ioctl(fd, ex, &good_ex));
	EXPECT_EQ(1, fence_status(good_ex.fd));
	close(good_ex.fd);
	/* what was not imported is not there */
	bad_pointers(_metadata, o, "IMPORT", fd, im, &good_im, false);
	wrong_files(_metadata, o, "IMPORT", im, &good_im, DMA_BUF);
	ASSERT_EQ(0, ioctl(fd, ex, &good_ex));
	EXPECT_EQ(1, fence_status(good_ex.fd));
	close(good_ex.fd);

	ASSERT_EQ(0, ioctl(fd, im, read_only(&good_im, sizeof(good_im), 0)));
	o->alive = dmabuf_alive;
	refuse_all(_metadata, o, calls);
	bad_pointers(_metadata, o, "EXPORT", fd, ex, &good_ex, true);
	wrong_files(_metadata, o, "EXPORT", ex, &good_ex, DMA_BUF);
	/* no file at all is EINVAL, too */
	wrong_fields(_metadata, o, (struct call){ "IMPORT", EINVAL, fd, im,
		     &arg }, &arg.fd, FENCE, EINVAL);

	ASSERT_EQ(0, ioctl(fd, ex, &good_ex));
	ASSERT_EQ(0, timeline_inc(o->timeline, 100));
	EXPECT_TRUE(has_signaled(good_ex.fd, 0));
	EXPECT_TRUE(has_signaled(fd, 0));
}

TEST_F(bad_input, vgem_fence)
{
	struct objects *o = &self->o;
	const unsigned long at = DRM_IOCTL_VGEM_FENCE_ATTACH;
	const unsigned long sig = DRM_IOCTL_VGEM_FENCE_SIGNAL;
	int other, fd = o->vgem;
	struct drm_vgem_fence_attach good = {
		.handle = o->bo,
		.flags = VGEM_FENCE_WRITE,
	};
	struct drm_vgem_fence_signal signal = {};
	const struct call before[] = {
		{ "ATTACH with flags", EINVAL, fd, at,
		  ARG(drm_vgem_fence_attach, .handle = o->bo, .flags = 2) },
		{ "ATTACH with pad", EINVAL, fd, at,
		  ARG(drm_vgem_fence_attach, .handle = o->bo, .pad = 1) },
		{ "ATTACH to handle 0", ENOENT, fd, at,
		  ARG(drm_vgem_fence_attach, .handle = 0) },
		{ "ATTACH to no handle", ENOENT, fd, at,
		  ARG(drm_vgem_fence_attach, .handle = NO_HANDLE) },
		{ "ATTACH to UINT_MAX", ENOENT, fd, at,
		  ARG(drm_vgem_fence_attach, .handle = UINT_MAX) },
		{}
	};
	const struct call after[] = {
		{ "ATTACH to write twice", EBUSY, fd, at,
		  ARG(drm_vgem_fence_attach, .handle = o->bo,
		      .flags = VGEM_FENCE_WRITE) },
		{ "ATTACH to read what is written", EBUSY, fd, at,
		  ARG(drm_vgem_fence_attach, .handle = o->bo) },
		{ "SIGNAL 0", ENOENT, fd, sig,
		  ARG(drm_vgem_fence_signal, .fence = 0) },
		{ "SIGNAL nothing", ENOENT, fd, sig,
		  ARG(drm_vgem_fence_signal, .fence = NO_HANDLE) },
		{ "SIGNAL UINT_MAX", ENOENT, fd, sig,
		  ARG(drm_vgem_fence_signal, .fence = UINT_MAX) },
		{ "SIGNAL INT_MIN", ENOENT, fd, sig,
		  ARG(drm_vgem_fence_signal, .fence = 1u << 31) },
		{ "an unknown ioctl", EINVAL, fd,
		  DRM_IOWR(DRM_COMMAND_BASE + 0x30, __u32), &(__u32){ 0 } },
		{}
	};

	if (fd < 0)
		SKIP(return, "no vgem");

	refuse_all(_metadata, o, before);
	bad_pointers(_metadata, o, "ATTACH", fd, at, &good, false);
	wrong_files(_metadata, o, "ATTACH", at, &good, DRM);
	ASSERT_EQ(0, ioctl(fd, at, &good));
	ASSERT_NE(0u, good.out_fence);
	o->alive = dmabuf_alive;
	refuse_all(_metadata, o, after);
	signal.fence = good.out_fence;
	signal.flags = 1;
	refuse(_metadata, o, &(struct call){ "SIGNAL with flags", EINVAL, fd,
	       sig, &signal }, "");
	signal.flags = 0;
	bad_pointers(_metadata, o, "SIGNAL", fd, sig, &signal, false);
	/* it belongs to the file that made it */
	other = open_vgem();
	refuse(_metadata, o, &(struct call){ "SIGNAL of another", ENOENT,
	       other, sig, &signal }, "");
	close(other);
	o->alive = fence_alive;
	EXPECT_EQ(0, ioctl(fd, sig, &signal));
	refuse(_metadata, o, &(struct call){ "SIGNAL twice", ENOENT, fd, sig,
	       &signal }, "");

	/* what cannot be told to the caller is there: its file knows an end */
	good.out_fence = 0;
	refuse(_metadata, o, &(struct call){ "ATTACH to read-only", EFAULT, fd,
	       at, read_only(&good, sizeof(good), 0) }, "");
	EXPECT_FINE(dmabuf_alive(o));
	close(fd);
	EXPECT_TRUE(has_signaled(o->dmabuf, WAIT_MS));
}

static bool needs_syncobj(struct __test_metadata *_metadata, struct objects *o)
{
	if (o->drm < 0)
		SKIP(return false, "no render node with timeline syncobjs");
	o->alive = syncobj_alive;
	return true;
}

TEST_F(bad_input, syncobj_create_destroy)
{
	const unsigned long cr = DRM_IOCTL_SYNCOBJ_CREATE;
	const unsigned long de = DRM_IOCTL_SYNCOBJ_DESTROY;
	struct objects *o = &self->o;
	struct drm_syncobj_create good = {};
	struct drm_syncobj_destroy destroy = { .handle = o->syncobj };
	int fd = o->drm, other;
	const struct call calls[] = {
		{ "CREATE with flags", EINVAL, fd, cr,
		  ARG(drm_syncobj_create, .flags = 2) },
		{ "CREATE with all flags", EINVAL, fd, cr,
		  ARG(drm_syncobj_create, .flags = UINT_MAX) },
		{ "DESTROY with pad", EINVAL, fd, de,
		  ARG(drm_syncobj_destroy, .handle = o->syncobj, .pad = 1) },
		/* elsewhere no handle is ENOENT */
		{ "DESTROY 0", EINVAL, fd, de,
		  ARG(drm_syncobj_destroy, .handle = 0) },
		{ "DESTROY nothing", EINVAL, fd, de,
		  ARG(drm_syncobj_destroy, .handle = NO_HANDLE) },
		{ "DESTROY UINT_MAX", EINVAL, fd, de,
		  ARG(drm_syncobj_destroy, .handle = UINT_MAX) },
		{}
	};

	if (!needs_syncobj(_metadata, o))
		return;
	refuse_all(_metadata, o, calls);
	bad_pointers(_metadata, o, "CREATE", fd, cr, &good, false);
	bad_pointers(_metadata, o, "DESTROY", fd, de, &destroy, false);
	wrong_files(_metadata, o, "CREATE", cr, &good, DRM);
	wrong_files(_metadata, o, "DESTROY", de, &destroy, DRM);
	other = open_syncobj_device();
	refuse(_metadata, o, &(struct call){ "DESTROY of another", EINVAL,
	       other, de, &destroy }, "");
	close(other);

	destroy.handle = create_syncobj(fd, DRM_SYNCOBJ_CREATE_SIGNALED);
	EXPECT_EQ(0, syncobj_wait(fd, destroy.handle, 0, 0, 0));
	EXPECT_EQ(0, ioctl(fd, de, &destroy));
	refuse(_metadata, o, &(struct call){ "DESTROY twice", EINVAL, fd, de,
	       &destroy }, "");
}

TEST_F(bad_input, syncobj_handle_to_fd)
{
	const unsigned long to = DRM_IOCTL_SYNCOBJ_HANDLE_TO_FD;
	struct objects *o = &self->o;
	__u32 h = o->syncobj;
	struct drm_syncobj_handle good = { .handle = h, .fd = -7 };
	int fd = o->drm;
	const struct call calls[] = {
		{ "TO_FD with pad", EINVAL, fd, to,
		  ARG(drm_syncobj_handle, .handle = h, .pad = 1) },
		{ "TO_FD with flags", EINVAL, fd, to,
		  ARG(drm_syncobj_handle, .handle = h, .flags = 4) },
		{ "TO_FD with a point", EINVAL, fd, to,
		  ARG(drm_syncobj_handle, .handle = h, .point = 1) },
		{ "TO_FD of a point", EINVAL, fd, to,
		  ARG(drm_syncobj_handle, .handle = h, .point = ~0ull,
		      .flags = EXPORT_POINT) },
		{ "TO_FD of handle 0", EINVAL, fd, to,
		  ARG(drm_syncobj_handle, .fd = -7) },
		{ "TO_FD of no handle", EINVAL, fd, to,
		  ARG(drm_syncobj_handle, .handle = NO_HANDLE, .fd = -7) },
		/* the same mistake, another answer */
		{ "export of no handle", ENOENT, fd, to,
		  ARG(drm_syncobj_handle, .handle = NO_HANDLE,
		      .flags = EXPORT_FENCE) },
		{ "export of no fence", EINVAL, fd, to,
		  ARG(drm_syncobj_handle, .handle = o->empty,
		      .flags = EXPORT_FENCE) },
		{ "export of point 1 of none", EINVAL, fd, to,
		  ARG(drm_syncobj_handle, .handle = h, .point = 1,
		      .flags = EXPORT_FENCE | EXPORT_POINT) },
		{ "export of point U64_MAX of none", EINVAL, fd, to,
		  ARG(drm_syncobj_handle, .handle = h, .point = ~0ull,
		      .flags = EXPORT_FENCE | EXPORT_POINT) },
		{}
	};

	if (!needs_syncobj(_metadata, o))
		return;
	refuse_all(_metadata, o, calls);
	bad_pointers(_metadata, o, "TO_FD", fd, to, &good, false);
	good.flags = EXPORT_FENCE;
	bad_pointers(_metadata, o, "export", fd, to, &good, false);
	wrong_files(_metadata, o, "export", to, &good, DRM);
	/* a point is no matter where none is asked for */
	good.point = 99;
	ASSERT_EQ(0, ioctl(fd, to, &good));
	EXPECT_EQ(0, fence_status(good.fd));
	ASSERT_EQ(0, timeline_inc(o->timeline, 100));
	EXPECT_EQ(1, fence_status(good.fd));
}

TEST_F(bad_input, syncobj_fd_to_handle)
{
	const unsigned long to = DRM_IOCTL_SYNCOBJ_FD_TO_HANDLE;
	struct objects *o = &self->o;
	int fd = o->drm, file = o->wrong[SYNCOBJ];
	struct drm_syncobj_handle arg = { .handle = 0x77 };
	struct drm_syncobj_handle im = {
		.handle = o->empty,
		.flags = IMPORT_FENCE,
		.fd = o->fence,
	};
	const struct call calls[] = {
		{ "TO_HANDLE with pad", EINVAL, fd, to,
		  ARG(drm_syncobj_handle, .fd = file, .pad = 1) },
		{ "TO_HANDLE with flags", EINVAL, fd, to,
		  ARG(drm_syncobj_handle, .fd = file, .flags = 1u << 31) },
		{ "TO_HANDLE with a point", EINVAL, fd, to,
		  ARG(drm_syncobj_handle, .fd = file, .point = 1,
		      .flags = IMPORT_POINT) },
		{ "import with pad", EINVAL, fd, to,
		  ARG(drm_syncobj_handle, .fd = o->fence, .handle = o->empty,
		      .flags = IMPORT_FENCE, .pad = 1) },
		{ "import into handle 0", ENOENT, fd, to,
		  ARG(drm_syncobj_handle, .fd = o->fence,
		      .flags = IMPORT_FENCE) },
		{ "import into no handle", ENOENT, fd, to,
		  ARG(drm_syncobj_handle, .fd = o->fence, .point = 1,
		      .handle = NO_HANDLE,
		      .flags = IMPORT_FENCE | IMPORT_POINT) },
		{}
	};

	if (!needs_syncobj(_metadata, o))
		return;
	refuse_all(_metadata, o, calls);
	bad_pointers(_metadata, o, "TO_HANDLE", fd, to, &arg, false);
	bad_pointers(_metadata, o, "import", fd, to, &im, false);
	wrong_files(_metadata, o, "import", to, &im, DRM);
	wrong_fields(_metadata, o, (struct call){ "TO_HANDLE", EINVAL, fd, to,
		     &arg }, &arg.fd, SYNCOBJ, EINVAL);
	wrong_fields(_metadata, o, (struct call){ "import", EINVAL, fd, to,
		     &im }, &im.fd, FENCE, EINVAL);
	im.flags |= IMPORT_POINT;
	im.point = ~0ull;
	wrong_fields(_metadata, o, (struct call){ "import of a point", EINVAL,
		     fd, to, &im }, &im.fd, FENCE, EINVAL);

	/* one object, two handles */
	arg.fd = file;
	ASSERT_EQ(0, ioctl(fd, to, &arg));
	EXPECT_EQ(0, syncobj_import(fd, arg.handle, o->fence, 0));
	EXPECT_EQ(0, destroy_syncobj(fd, arg.handle));
	EXPECT_EQ(ETIME, syncobj_wait(fd, o->empty, 0, 0, 0));
	ASSERT_EQ(0, timeline_inc(o->timeline, 100));
	EXPECT_EQ(0, syncobj_wait(fd, o->empty, 0, 0, 0));
}

/* The kernel has done its work before it cannot write the answer. */
TEST_F(bad_input, syncobj_read_only)
{
	struct objects *o = &self->o;
	struct drm_syncobj_handle arg = { .handle = o->syncobj, .fd = -7 };
	unsigned int files;
	int err;

	if (!needs_syncobj(_metadata, o))
		return;
	files = count_files();
	err = call_err(o->drm, DRM_IOCTL_SYNCOBJ_HANDLE_TO_FD,
		       read_only(&arg, sizeof(arg), 0));
	EXPECT_EQ(EFAULT, err);
	if (count_files() != files)
		TH_LOG("HANDLE_TO_FD failed, but left a file that nobody knows");
	EXPECT_GE(files + 1, count_files());
	EXPECT_FINE(syncobj_alive(o));
}

TEST_F(bad_input, syncobj_wait)
{
	const unsigned long wt = DRM_IOCTL_SYNCOBJ_WAIT;
	const unsigned long tl = DRM_IOCTL_SYNCOBJ_TIMELINE_WAIT;
	struct objects *o = &self->o;
	__u32 two[2] = { o->syncobj, NO_HANDLE }, *h = two;
	__u32 *e = &o->empty;
	__u64 points[2] = { 1, ~0ull };
	int fd = o->drm;
	struct drm_syncobj_wait good = {
		.handles = U64(h),
		.count_handles = 1,
	};
	struct drm_syncobj_timeline_wait good_tl = {
		.handles = U64(h),
		.count_handles = 1,
	};
	const struct call calls[] = {
		{ "WAIT with flags", EINVAL, fd, wt,
		  ARG(drm_syncobj_wait, .handles = U64(h), .count_handles = 1,
		      .flags = 0x10) },
		{ "WAIT with AVAILABLE", EINVAL, fd, wt,
		  ARG(drm_syncobj_wait, .handles = U64(h), .count_handles = 1,
		      .flags = DRM_SYNCOBJ_WAIT_FLAGS_WAIT_AVAILABLE) },
		{ "TIMELINE_WAIT with flags", EINVAL, fd, tl,
		  ARG(drm_syncobj_timeline_wait, .handles = U64(h),
		      .count_handles = 1, .flags = UINT_MAX) },
		/* for nothing there is nothing to wait */
		{ "WAIT for none", 0, fd, wt,
		  ARG(drm_syncobj_wait, .handles = 0) },
		{ "TIMELINE_WAIT for none", 0, fd, tl,
		  ARG(drm_syncobj_timeline_wait, .handles = 8) },
		{ "WAIT for NULL", EFAULT, fd, wt,
		  ARG(drm_syncobj_wait, .count_handles = 1) },
		{ "WAIT for half a page", EFAULT, fd, wt,
		  ARG(drm_syncobj_wait, .count_handles = 2,
		      .handles = U64(crossing(h, 4))) },
		{ "WAIT for 16 MB", EFAULT, fd, wt,
		  ARG(drm_syncobj_wait, .count_handles = 70000,
		      .handles = U64(crossing(h, 4))) },
		{ "WAIT for no handle", ENOENT, fd, wt,
		  ARG(drm_syncobj_wait, .count_handles = 2,
		      .handles = U64(h)) },
		{ "TIMELINE_WAIT for no handle", ENOENT, fd, tl,
		  ARG(drm_syncobj_timeline_wait, .count_handles = 2,
		      .handles = U64(h)) },
		{ "TIMELINE_WAIT for points at 8", EFAULT, fd, tl,
		  ARG(drm_syncobj_timeline_wait, .handles = U64(h),
		      .points = 8, .count_handles = 1) },
		{ "TIMELINE_WAIT for half a point", EFAULT, fd, tl,
		  ARG(drm_syncobj_timeline_wait, .handles = U64(h),
		      .points = U64(crossing(points, 4)),
		      .count_handles = 1) },
		{ "TIMELINE_WAIT for point 1 of none", EINVAL, fd, tl,
		  ARG(drm_syncobj_timeline_wait, .handles = U64(h),
		      .points = U64(&points[0]), .count_handles = 1) },
		{ "TIMELINE_WAIT for U64_MAX of none", EINVAL, fd, tl,
		  ARG(drm_syncobj_timeline_wait, .handles = U64(h),
		      .points = U64(&points[1]), .count_handles = 1) },
		{ "TIMELINE_WAIT to be available", ETIME, fd, tl,
		  ARG(drm_syncobj_timeline_wait, .handles = U64(h),
		      .points = U64(&points[1]), .count_handles = 1,
		      .flags = DRM_SYNCOBJ_WAIT_FLAGS_WAIT_AVAILABLE) },
		{ "WAIT for no fence", EINVAL, fd, wt,
		  ARG(drm_syncobj_wait, .handles = U64(e),
		      .count_handles = 1) },
		{ "WAIT for no fence yet", ETIME, fd, wt,
		  ARG(drm_syncobj_wait, .handles = U64(e),
		      .count_handles = 1,
		      .flags = DRM_SYNCOBJ_WAIT_FLAGS_WAIT_FOR_SUBMIT) },
		{ "WAIT until INT64_MIN", ETIME, fd, wt,
		  ARG(drm_syncobj_wait, .handles = U64(h),
		      .count_handles = 1, .timeout_nsec = INT64_MIN) },
		{ "WAIT until 1 ns", ETIME, fd, wt,
		  ARG(drm_syncobj_wait, .handles = U64(h),
		      .count_handles = 1, .timeout_nsec = 1) },
		{ "WAIT with a deadline", ETIME, fd, wt,
		  ARG(drm_syncobj_wait, .handles = U64(h),
		      .count_handles = 1, .deadline_nsec = ~0ull,
		      .flags = DRM_SYNCOBJ_WAIT_FLAGS_WAIT_DEADLINE) },
		/* nobody looks at this one */
		{ "WAIT with pad", ETIME, fd, wt,
		  ARG(drm_syncobj_wait, .handles = U64(h),
		      .count_handles = 1, .pad = UINT_MAX) },
		{}
	};

	if (!needs_syncobj(_metadata, o))
		return;
	refuse_all(_metadata, o, calls);
	bad_pointers(_metadata, o, "WAIT", fd, wt, &good, false);
	bad_pointers(_metadata, o, "TIMELINE_WAIT", fd, tl, &good_tl, false);
	wrong_files(_metadata, o, "WAIT", wt, &good, DRM);
	wrong_files(_metadata, o, "TIMELINE_WAIT", tl, &good_tl, DRM);

	ASSERT_EQ(0, timeline_inc(o->timeline, 100));
	good.timeout_nsec = INT64_MAX;
	good.flags = DRM_SYNCOBJ_WAIT_FLAGS_WAIT_ALL;
	EXPECT_EQ(0, ioctl(fd, wt, &good));
	good_tl.timeout_nsec = INT64_MIN;
	good_tl.first_signaled = 77;
	EXPECT_EQ(0, ioctl(fd, tl, &good_tl));
	EXPECT_EQ(0u, good_tl.first_signaled);
}

TEST_F(bad_input, syncobj_arrays)
{
	const unsigned long re = DRM_IOCTL_SYNCOBJ_RESET;
	const unsigned long si = DRM_IOCTL_SYNCOBJ_SIGNAL;
	const unsigned long ts = DRM_IOCTL_SYNCOBJ_TIMELINE_SIGNAL;
	const unsigned long qu = DRM_IOCTL_SYNCOBJ_QUERY;
	struct objects *o = &self->o;
	__u32 two[2] = { o->syncobj, NO_HANDLE }, *h = two;
	__u64 points[2] = { 1, 2 };
	struct drm_syncobj_array good = {
		.handles = U64(h),
		.count_handles = 1,
	};
	struct drm_syncobj_timeline_array good_tl = {
		.handles = U64(h),
		.points = U64(points),
		.count_handles = 1,
	};
	int fd = o->drm;
	unsigned int i;
	const struct {
		const char *name;
		unsigned long cmd;
	} both[] = { { "RESET", re }, { "SIGNAL", si } };
	const struct {
		const char *name;
		unsigned long cmd;
		__u32 bad_flags;
	} both_tl[] = { { "TIMELINE_SIGNAL", ts, 1 }, { "QUERY", qu, 2 } };
	const struct call calls[] = {
		{ "TIMELINE_SIGNAL of points at 8", EFAULT, fd, ts,
		  ARG(drm_syncobj_timeline_array, .handles = U64(h),
		      .points = 8, .count_handles = 1) },
		{ "TIMELINE_SIGNAL of half a point", EFAULT, fd, ts,
		  ARG(drm_syncobj_timeline_array, .handles = U64(h),
		      .points = U64(crossing(points, 4)),
		      .count_handles = 1) },
		{ "QUERY to NULL", EFAULT, fd, qu,
		  ARG(drm_syncobj_timeline_array, .handles = U64(h),
		      .count_handles = 1) },
		{ "QUERY to read-only", EFAULT, fd, qu,
		  ARG(drm_syncobj_timeline_array, .handles = U64(h),
		      .points = U64(read_only(points, 16, 0)),
		      .count_handles = 1) },
		{ "QUERY to half a point", EFAULT, fd, qu,
		  ARG(drm_syncobj_timeline_array, .handles = U64(h),
		      .points = U64(crossing(points, 4)),
		      .count_handles = 1) },
		{}
	};

	if (!needs_syncobj(_metadata, o))
		return;
	for (i = 0; i < ARRAY_SIZE(both); i++) {
		const char *name = both[i].name;
		unsigned long cmd = both[i].cmd;
		const struct call bad[] = {
			{ name, EINVAL, fd, cmd,
			  ARG(drm_syncobj_array, .handles = U64(h)) },
			{ name, EINVAL, fd, cmd,
			  ARG(drm_syncobj_array, .handles = U64(h),
			      .count_handles = 1, .pad = 1) },
			/* the first one is good, and yet left as it is */
			{ name, ENOENT, fd, cmd,
			  ARG(drm_syncobj_array, .handles = U64(h),
			      .count_handles = 2) },
			{ name, EFAULT, fd, cmd,
			  ARG(drm_syncobj_array, .count_handles = 1) },
			{ name, EFAULT, fd, cmd,
			  ARG(drm_syncobj_array, .count_handles = 2,
			      .handles = U64(crossing(h, 4))) },
			{}
		};

		refuse_all(_metadata, o, bad);
		bad_pointers(_metadata, o, name, fd, cmd, &good, false);
		wrong_files(_metadata, o, name, cmd, &good, DRM);
	}
	for (i = 0; i < ARRAY_SIZE(both_tl); i++) {
		const char *name = both_tl[i].name;
		unsigned long cmd = both_tl[i].cmd;
		const struct call bad[] = {
			{ name, EINVAL, fd, cmd,
			  ARG(drm_syncobj_timeline_array, .handles = U64(h),
			      .points = U64(points)) },
			{ name, EINVAL, fd, cmd,
			  ARG(drm_syncobj_timeline_array, .handles = U64(h),
			      .points = U64(points), .count_handles = 1,
			      .flags = both_tl[i].bad_flags) },
			{ name, ENOENT, fd, cmd,
			  ARG(drm_syncobj_timeline_array, .handles = U64(h),
			      .points = U64(points), .count_handles = 2) },
			{ name, EFAULT, fd, cmd,
			  ARG(drm_syncobj_timeline_array, .handles = 8,
			      .points = U64(points), .count_handles = 1) },
			{}
		};

		refuse_all(_metadata, o, bad);
		bad_pointers(_metadata, o, name, fd, cmd, &good_tl, false);
		wrong_files(_metadata, o, name, cmd, &good_tl, DRM);
	}
	refuse_all(_metadata, o, calls);
	EXPECT_EQ(1ull, points[0]);

	/* the last point there is, and one before it when it is there */
	h[0] = o->empty;
	points[0] = ~0ull;
	EXPECT_EQ(0, ioctl(fd, ts, &good_tl));
	EXPECT_EQ(0, syncobj_wait(fd, o->empty, ~0ull, 0, 0));
	points[0] = 1;
	EXPECT_EQ(0, ioctl(fd, ts, &good_tl));
	EXPECT_EQ(0, syncobj_wait(fd, o->empty, ~0ull, 0, 0));
	EXPECT_EQ(0, syncobj_wait(fd, o->empty, 1, 0, 0));
	EXPECT_EQ(0, ioctl(fd, qu, &good_tl));
	EXPECT_EQ(~0ull, points[0]);
	EXPECT_EQ(0, ioctl(fd, re, &good));
	o->alive = NULL;
	EXPECT_FINE(syncobj_alive(o));
}

static void on_alarm(int sig)
{
	(void)sig;
}

/* A signal every @ms, that ends what waits. */
static void interrupt_after(unsigned int ms)
{
	struct sigaction action = { .sa_handler = on_alarm };
	struct itimerval timer = {
		.it_value.tv_usec = ms * 1000,
		.it_interval.tv_usec = ms * 1000,
	};

	if (ms)
		sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &timer, NULL);
}

TEST_F(bad_input, syncobj_transfer)
{
	const unsigned long tr = DRM_IOCTL_SYNCOBJ_TRANSFER;
	struct objects *o = &self->o;
	__u32 h = o->syncobj, e = o->empty;
	int fd = o->drm;
	struct drm_syncobj_transfer good = { .src_handle = h, .dst_handle = e };
	struct drm_syncobj_transfer submit = {
		.src_handle = e,
		.dst_handle = h,
		.flags = DRM_SYNCOBJ_WAIT_FLAGS_WAIT_FOR_SUBMIT,
	};
	const struct call calls[] = {
		{ "TRANSFER with pad", EINVAL, fd, tr,
		  ARG(drm_syncobj_transfer, .src_handle = h, .dst_handle = e,
		      .pad = 1) },
		{ "TRANSFER with flags", EINVAL, fd, tr,
		  ARG(drm_syncobj_transfer, .src_handle = h, .dst_handle = e,
		      .flags = DRM_SYNCOBJ_WAIT_FLAGS_WAIT_ALL) },
		{ "TRANSFER to a point with flags", EINVAL, fd, tr,
		  ARG(drm_syncobj_transfer, .src_handle = h, .dst_handle = e,
		      .dst_point = 1, .flags = UINT_MAX) },
		{ "TRANSFER from no handle", ENOENT, fd, tr,
		  ARG(drm_syncobj_transfer, .dst_handle = e) },
		{ "TRANSFER to no handle", ENOENT, fd, tr,
		  ARG(drm_syncobj_transfer, .src_handle = h,
		      .dst_handle = NO_HANDLE) },
		{ "TRANSFER to a point of no handle", ENOENT, fd, tr,
		  ARG(drm_syncobj_transfer, .src_handle = h,
		      .dst_handle = NO_HANDLE, .dst_point = ~0ull) },
		{ "TRANSFER from no fence", EINVAL, fd, tr,
		  ARG(drm_syncobj_transfer, .src_handle = e,
		      .dst_handle = h) },
		{ "TRANSFER from no fence to a point", EINVAL, fd, tr,
		  ARG(drm_syncobj_transfer, .src_handle = e, .dst_handle = h,
		      .dst_point = ~0ull) },
		{ "TRANSFER from point U64_MAX of none", EINVAL, fd, tr,
		  ARG(drm_syncobj_transfer, .src_handle = h, .dst_handle = e,
		      .src_point = ~0ull) },
		{}
	};

	if (!needs_syncobj(_metadata, o))
		return;
	refuse_all(_metadata, o, calls);
	bad_pointers(_metadata, o, "TRANSFER", fd, tr, &good, false);
	wrong_files(_metadata, o, "TRANSFER", tr, &good, DRM);

	/* nobody will submit */
	interrupt_after(100);
	refuse(_metadata, o, &(struct call){ "an interrupted TRANSFER", EINTR,
	       fd, tr, &submit }, "");
	interrupt_after(0);

	/* to itself, as the last point */
	good.dst_handle = h;
	good.dst_point = ~0ull;
	EXPECT_EQ(0, ioctl(fd, tr, &good));
	EXPECT_EQ(ETIME, syncobj_wait(fd, h, ~0ull, 0, 0));
	ASSERT_EQ(0, timeline_inc(o->timeline, 100));
	EXPECT_EQ(0, syncobj_wait(fd, h, ~0ull, 0, 0));
}

TEST_F(bad_input, syncobj_eventfd)
{
	const unsigned long ev = DRM_IOCTL_SYNCOBJ_EVENTFD;
	struct objects *o = &self->o;
	int fd = o->drm, event = o->wrong[EVENTFD];
	__u64 count = 0;
	struct drm_syncobj_eventfd good = {
		.handle = o->syncobj,
		.fd = event,
	}, arg = good;
	const struct call calls[] = {
		{ "EVENTFD with flags", EINVAL, fd, ev,
		  ARG(drm_syncobj_eventfd, .handle = o->syncobj, .fd = event,
		      .flags = 1) },
		{ "EVENTFD with pad", EINVAL, fd, ev,
		  ARG(drm_syncobj_eventfd, .handle = o->syncobj, .fd = event,
		      .pad = 1) },
		{ "EVENTFD for no handle", ENOENT, fd, ev,
		  ARG(drm_syncobj_eventfd, .handle = NO_HANDLE,
		      .fd = event) },
		{ "EVENTFD for handle 0", ENOENT, fd, ev,
		  ARG(drm_syncobj_eventfd, .fd = -1) },
		{}
	};

	if (!needs_syncobj(_metadata, o))
		return;
	refuse_all(_metadata, o, calls);
	bad_pointers(_metadata, o, "EVENTFD", fd, ev, &good, false);
	wrong_files(_metadata, o, "EVENTFD", ev, &good, DRM);
	wrong_fields(_metadata, o, (struct call){ "EVENTFD", EINVAL, fd, ev,
		     &arg }, &arg.fd, EVENTFD, EBADF);
	/* none of these has left something that fires */
	EXPECT_EQ(0, ioctl(fd, ev, &good));
	EXPECT_EQ(-1, read(event, &count, sizeof(count)));
	EXPECT_EQ(0, timeline_inc(o->timeline, 100));
	EXPECT_EQ(8, read(event, &count, sizeof(count)));
	EXPECT_EQ(1ull, count);

	/* the object goes before its point comes */
	good.handle = o->empty;
	good.point = ~0ull;
	EXPECT_EQ(0, ioctl(fd, ev, &good));
	EXPECT_EQ(0, destroy_syncobj(fd, o->empty));
	close(o->wrong[SYNCOBJ]);
	EXPECT_EQ(-1, read(event, &count, sizeof(count)));
}

/* Drivers without syncobjs say so, but look at the pointer first. */
TEST_F(bad_input, no_syncobj)
{
	struct objects *o = &self->o;
	static const struct {
		const char *name;
		unsigned long cmd;
	} all[] = {
		{ "CREATE", DRM_IOCTL_SYNCOBJ_CREATE },
		{ "DESTROY", DRM_IOCTL_SYNCOBJ_DESTROY },
		{ "HANDLE_TO_FD", DRM_IOCTL_SYNCOBJ_HANDLE_TO_FD },
		{ "FD_TO_HANDLE", DRM_IOCTL_SYNCOBJ_FD_TO_HANDLE },
		{ "WAIT", DRM_IOCTL_SYNCOBJ_WAIT },
		{ "TIMELINE_WAIT", DRM_IOCTL_SYNCOBJ_TIMELINE_WAIT },
		{ "RESET", DRM_IOCTL_SYNCOBJ_RESET },
		{ "SIGNAL", DRM_IOCTL_SYNCOBJ_SIGNAL },
		{ "TIMELINE_SIGNAL", DRM_IOCTL_SYNCOBJ_TIMELINE_SIGNAL },
		{ "TRANSFER", DRM_IOCTL_SYNCOBJ_TRANSFER },
		{ "QUERY", DRM_IOCTL_SYNCOBJ_QUERY },
		{ "EVENTFD", DRM_IOCTL_SYNCOBJ_EVENTFD },
	};
	unsigned int i;

	if (o->vgem < 0)
		SKIP(return, "no vgem");
	if (has_cap(o->vgem, DRM_CAP_SYNCOBJ))
		SKIP(return, "vgem has syncobjs");
	for (i = 0; i < ARRAY_SIZE(all); i++) {
		char arg[64] = "";

		refuse(_metadata, o, &(struct call){ all[i].name, EOPNOTSUPP,
		       o->vgem, all[i].cmd, arg }, "");
		memset(arg, 0xff, sizeof(arg));
		refuse(_metadata, o, &(struct call){ all[i].name, EOPNOTSUPP,
		       o->vgem, all[i].cmd, arg }, " of ones");
		bad_pointers(_metadata, o, all[i].name, o->vgem, all[i].cmd,
			     arg, true);
	}
}

/* ---- what is wrong around the call ---- */

/* The call, in a process that can have no more files; returns an errno. */
static int call_without_files(int fd, unsigned long cmd, void *arg)
{
	int err, lowest = dup(fd);
	struct rlimit all, none;

	close(lowest);
	getrlimit(RLIMIT_NOFILE, &all);
	none = all;
	none.rlim_cur = lowest;
	setrlimit(RLIMIT_NOFILE, &none);
	err = call_err(fd, cmd, arg);
	setrlimit(RLIMIT_NOFILE, &all);
	return err;
}

TEST_F(bad_input, no_files_left)
{
	struct objects *o = &self->o;
	unsigned int files = count_files();
	const struct call *c, calls[] = {
		{ "MERGE", EMFILE, o->fence, SYNC_IOC_MERGE,
		  ARG(sync_merge_data, .fd2 = o->fence, .fence = -7) },
		{ "CREATE_FENCE", EMFILE, o->timeline,
		  SW_SYNC_IOC_CREATE_FENCE,
		  ARG(sw_sync_create_fence_data, .value = 3, .fence = -7) },
		{ "EXPORT_SYNC_FILE", EMFILE, o->dmabuf,
		  DMA_BUF_IOCTL_EXPORT_SYNC_FILE,
		  ARG(dma_buf_export_sync_file, .flags = DMA_BUF_SYNC_RW,
		      .fd = -7) },
		{ "HANDLE_TO_FD", EMFILE, o->drm,
		  DRM_IOCTL_SYNCOBJ_HANDLE_TO_FD,
		  ARG(drm_syncobj_handle, .handle = o->syncobj, .fd = -7) },
		{ "HANDLE_TO_FD as a fence", EMFILE, o->drm,
		  DRM_IOCTL_SYNCOBJ_HANDLE_TO_FD,
		  ARG(drm_syncobj_handle, .handle = o->syncobj, .fd = -7,
		      .flags = EXPORT_FENCE) },
		{}
	};

	for (c = calls; c->what; c++) {
		char before[512];

		if (c->fd < 0)
			continue;
		memcpy(before, c->arg, _IOC_SIZE(c->cmd));
		EXPECT_EQ(EMFILE, call_without_files(c->fd, c->cmd, c->arg))
			TH_LOG("%s", c->what);
		EXPECT_EQ(0, memcmp(before, c->arg, _IOC_SIZE(c->cmd)))
			TH_LOG("%s: the argument has changed", c->what);
		EXPECT_EQ(files, count_files());
		EXPECT_FINE(fence_alive(o));
	}
}

/* Memory that is there at one moment and not at the next. */
struct flicker {
	void *stable, *flickering;	/* the same page */
	atomic_bool stop;
	pthread_t thread;
};

static void *flicker_main(void *arg)
{
	struct flicker *f = arg;
	unsigned int i = 0;

	while (!atomic_load(&f->stop)) {
		mprotect(f->flickering, PAGE, i++ % 2 ? PROT_NONE :
						       PROT_READ | PROT_WRITE);
		if (i % 64 == 0)
			sched_yield();
	}
	return NULL;
}

static const char *flicker_start(struct flicker *f)
{
	int fd = memfd_create("flicker", MFD_CLOEXEC);

	if (fd < 0 || ftruncate(fd, PAGE))
		return wrong("memfd: %m");
	f->stable = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	f->flickering = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
			     0);
	close(fd);
	if (f->stable == MAP_FAILED || f->flickering == MAP_FAILED)
		return wrong("mmap: %m");
	atomic_store(&f->stop, false);
	if (pthread_create(&f->thread, NULL, flicker_main, f))
		return wrong("pthread_create");
	return NULL;
}

static void flicker_stop(struct flicker *f)
{
	atomic_store(&f->stop, true);
	pthread_join(f->thread, NULL);
}

#define FLICKER_MS	1500

/* Found good, and then not written: nothing may stay of what was made. */
TEST_F_TIMEOUT(bad_input, memory_comes_and_goes, 240)
{
	struct sw_sync_create_fence_data create = { .value = 50 };
	struct dma_buf_export_sync_file export = { .flags = DMA_BUF_SYNC_RW };
	struct objects *o = &self->o;
	struct sync_merge_data merge = { .fd2 = o->fence };
	struct {
		const char *name;
		int fd;
		unsigned long cmd;
		void *arg;
		size_t result;
		unsigned long good, bad;
	} *c, calls[] = {
		{ "MERGE", o->fence, SYNC_IOC_MERGE, &merge,
		  offsetof(struct sync_merge_data, fence), 0, 0 },
		{ "CREATE_FENCE", o->timeline, SW_SYNC_IOC_CREATE_FENCE,
		  &create, offsetof(struct sw_sync_create_fence_data, fence),
		  0, 0 },
		{ "EXPORT_SYNC_FILE", o->dmabuf,
		  DMA_BUF_IOCTL_EXPORT_SYNC_FILE, &export,
		  offsetof(struct dma_buf_export_sync_file, fd), 0, 0 },
	};
	unsigned int i, files;
	struct flicker f;
	__u64 end;
	__s32 fd;
	int err;

	files = count_files();
	for (i = 0; i < ARRAY_SIZE(calls); i++) {
		c = &calls[i];
		if (c->fd < 0)
			continue;
		ASSERT_FINE(flicker_start(&f));
		end = now_ns() + FLICKER_MS * NSEC_PER_MSEC;
		while (time_left(end, c->good && c->bad)) {
			memcpy(f.stable, c->arg, _IOC_SIZE(c->cmd));
			err = call_err(c->fd, c->cmd, f.flickering);
			if (err) {
				ASSERT_EQ(EFAULT, err);
				c->bad++;
				continue;
			}
			c->good++;
			memcpy(&fd, f.stable + c->result, sizeof(fd));
			ASSERT_EQ(0, close(fd));
		}
		flicker_stop(&f);
		TH_LOG("power: %s: %lu good, %lu bad", c->name, c->good,
		       c->bad);
		EXPECT_POWER(c->good);
		EXPECT_POWER(c->bad);
		EXPECT_EQ(files, count_files());
		EXPECT_FINE(fence_alive(o));
	}
}

struct blocked {
	struct objects *o;
	int fd, ret;
	__u32 handle;
	pid_t tid;
	atomic_bool started;	/* or to be stopped */
	pthread_t thread;
};

static void *blocked_poll(void *arg)
{
	struct blocked *b = arg;
	struct pollfd p = { .fd = b->fd, .events = POLLIN };

	b->tid = gettid();
	atomic_store(&b->started, true);
	if (poll(&p, 1, WAIT_MS) == 1)
		b->ret = p.revents;
	return NULL;
}

static void *blocked_wait(void *arg)
{
	struct blocked *b = arg;

	b->tid = gettid();
	atomic_store(&b->started, true);
	b->ret = syncobj_wait(b->o->drm, b->handle, 1,
			      now_ns() + WAIT_MS * NSEC_PER_MSEC,
			      DRM_SYNCOBJ_WAIT_FLAGS_WAIT_FOR_SUBMIT);
	return NULL;
}

/* Returns when the thread sleeps in the kernel. */
static void block(struct blocked *b, void *(*how)(void *arg))
{
	__u64 end = now_ns() + WAIT_MS * NSEC_PER_MSEC;
	char path[64];

	atomic_store(&b->started, false);
	pthread_create(&b->thread, NULL, how, b);
	while (!atomic_load(&b->started))
		sched_yield();
	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", b->tid);
	while (!file_contains(path, ") S ") && now_ns() < end)
		sleep_ms(1);
}

/* Whoever waits for a file or handle keeps what is behind it. */
TEST_F(bad_input, closed_while_waiting)
{
	struct objects *o = &self->o;
	struct blocked b = { .o = o }, w = { .o = o };
	struct drm_syncobj_handle again = {};
	unsigned int files;
	int null;

	files = count_files();
	b.fd = merge_fds(o->fence, o->fence);
	block(&b, blocked_poll);
	close(b.fd);
	/* and now that number is something else */
	null = open("/dev/null", O_RDWR);
	EXPECT_EQ(b.fd, null);
	EXPECT_EQ(INT_MIN, fence_status(null));
	EXPECT_EQ(ENOTTY, errno);
	close(null);

	if (o->drm >= 0) {
		w.handle = create_syncobj(o->drm, 0);
		again.fd = syncobj_to_fd(o->drm, w.handle, 0, 0);
		block(&w, blocked_wait);
		/* without handle, its file still submits to it */
		EXPECT_EQ(0, destroy_syncobj(o->drm, w.handle));
		EXPECT_EQ(0, ioctl(o->drm, DRM_IOCTL_SYNCOBJ_FD_TO_HANDLE,
				   &again));
		close(again.fd);
		EXPECT_EQ(0, syncobj_import(o->drm, again.handle, o->fence, 1));
		EXPECT_EQ(0, destroy_syncobj(o->drm, again.handle));
	}
	ASSERT_EQ(0, timeline_inc(o->timeline, 100));
	pthread_join(b.thread, NULL);
	/* it was woken, and looked up the number again */
	EXPECT_EQ(POLLNVAL, b.ret);
	if (o->drm >= 0) {
		pthread_join(w.thread, NULL);
		EXPECT_EQ(0, w.ret);
	}
	EXPECT_EQ(files, count_files());
}

/* Files of another process, which then is killed. */
TEST_F(bad_input, foreign_files)
{
	struct objects *o = &self->o;
	int sock[2], fence, file, merged;
	__u32 h = 0;
	pid_t pid;

	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_SEQPACKET, 0, sock));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		int t = timeline_open(), drm;

		fence = timeline_fence(t, 1);
		send_fd(sock[1], fence);
		drm = o->drm < 0 ? -1 : open_syncobj_device();
		if (drm >= 0) {
			h = create_syncobj(drm, 0);
			syncobj_import(drm, h, fence, 0);
			send_fd(sock[1], syncobj_to_fd(drm, h, 0, 0));
		}
		for (;;)
			pause();
	}
	fence = receive_fd(sock[0]);
	ASSERT_LE(0, fence);
	EXPECT_EQ(0, fence_status(fence));
	merged = merge_fds(fence, o->fence);
	EXPECT_EQ(0, fence_status(merged));
	if (o->dmabuf >= 0) {
		struct dma_buf_import_sync_file im = {
			.flags = DMA_BUF_SYNC_WRITE,
			.fd = fence,
		};

		EXPECT_EQ(0, ioctl(o->dmabuf, DMA_BUF_IOCTL_IMPORT_SYNC_FILE,
				   &im));
		EXPECT_FALSE(has_signaled(o->dmabuf, 0));
	}
	if (o->drm >= 0) {
		struct drm_syncobj_handle arg = {};

		file = receive_fd(sock[0]);
		ASSERT_LE(0, file);
		arg.fd = file;
		EXPECT_EQ(0, ioctl(o->drm, DRM_IOCTL_SYNCOBJ_FD_TO_HANDLE,
				   &arg));
		h = arg.handle;
		EXPECT_EQ(ETIME, syncobj_wait(o->drm, h, 0, 0, 0));
	}
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	/* its timeline has gone with it */
	EXPECT_TRUE(has_signaled(fence, WAIT_MS));
	EXPECT_EQ(-ENOENT, fence_status(fence));
	EXPECT_EQ(0, fence_status(merged));
	EXPECT_TRUE(o->dmabuf < 0 || has_signaled(o->dmabuf, WAIT_MS));
	EXPECT_TRUE(o->drm < 0 || !syncobj_wait(o->drm, h, 0, 0, 0));
	EXPECT_EQ(0, timeline_inc(o->timeline, 100));
	EXPECT_TRUE(has_signaled(merged, 0));
}

/* ---- commits ---- */

struct commit {
	__u32 objects[2], counts[2], props[4];
	__u64 values[4];
	struct drm_mode_atomic arg;
};

struct committing {
	struct objects o;
	struct display display;
	struct commit commit;
};

FIXTURE(bad_commit)
{
	struct committing committing;
	int kmsg;
};

FIXTURE_SETUP(bad_commit)
{
	const char *why;

	self->committing.display.fd = -1;
	self->kmsg = -1;
	why = objects_open(&self->committing.o);
	if (!why)
		why = display_prepare(&self->committing.display, &self->kmsg);
	if (why)
		SKIP(return, "%s", why);
	ASSERT_FINE(display_start(&self->committing.display, NORMAL_HZ));
}

FIXTURE_TEARDOWN(bad_commit)
{
	display_destroy(&self->committing.display);
	EXPECT_FINE(kmsg_check(self->kmsg));
}

/* A flip: wait for @in, and write the out-fence to @out. */
static struct drm_mode_atomic *commit_init(struct committing *t,
					   void *out, __s64 in)
{
	const struct pipe *pipe = &t->display.pipes[0];
	struct commit *c = &t->commit;

	*c = (struct commit){
		.objects = { pipe->crtc, pipe->plane },
		.counts = { 1, 2 },
		.props = { t->display.out_fence_prop, t->display.fb_prop,
			   t->display.in_fence_prop,
			   t->display.in_fence_prop },
		.values = { U64(out), t->display.fb[0], in, in },
		.arg = {
			.flags = DRM_MODE_ATOMIC_NONBLOCK,
			.count_objs = 2,
			.objs_ptr = U64(c->objects),
			.count_props_ptr = U64(c->counts),
			.props_ptr = U64(c->props),
			.prop_values_ptr = U64(c->values),
		},
	};
	return &c->arg;
}

/* EBUSY: the commit before is not through yet */
static int commit_retry(struct committing *t)
{
	__u64 end = now_ns() + WAIT_MS * NSEC_PER_MSEC;
	int err;

	do {
		err = call_err(t->display.fd, DRM_IOCTL_MODE_ATOMIC,
			       &t->commit.arg);
		if (err == EBUSY)
			sleep_ms(1);
	} while (err == EBUSY && now_ns() < end);
	return err;
}

static void refuse_commit(struct __test_metadata *_metadata,
			  struct committing *t, const char *what,
			  int err)
{
	refuse(_metadata, &t->o, &(struct call){ what, err,
	       t->display.fd, DRM_IOCTL_MODE_ATOMIC, &t->commit.arg },
	       "");
}

/* The same again, if good: with an out-fence that signals. */
static void commit_alive(struct __test_metadata *_metadata,
			 struct committing *t)
{
	__s32 out = -7;

	commit_init(t, &out, -1);
	ASSERT_EQ(0, commit_retry(t));
	ASSERT_LE(0, out);
	EXPECT_TRUE(has_signaled(out, WAIT_MS));
	close(out);
}

TEST_F(bad_commit, arguments)
{
	struct committing *t = &self->committing;
	struct drm_mode_atomic *arg;
	__s32 out = -7;
	static const struct {
		const char *what;
		__u32 flags;
	} flags[] = {
		{ "all flags", UINT_MAX },
		{ "an unknown flag", 0x800 },
		{ "test and event",
		  DRM_MODE_ATOMIC_TEST_ONLY | DRM_MODE_PAGE_FLIP_EVENT },
		{ "test and event, in time", DRM_MODE_ATOMIC_NONBLOCK |
		  DRM_MODE_ATOMIC_TEST_ONLY | DRM_MODE_PAGE_FLIP_EVENT },
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(flags); i++) {
		commit_init(t, &out, -1)->flags = flags[i].flags;
		refuse_commit(_metadata, t, flags[i].what, EINVAL);
	}
	commit_init(t, &out, -1)->reserved = 1;
	refuse_commit(_metadata, t, "reserved", EINVAL);
	commit_init(t, &out, -1)->objs_ptr = 0;
	refuse_commit(_metadata, t, "objects at NULL", EFAULT);
	commit_init(t, &out, -1)->count_props_ptr = U64(no_access());
	refuse_commit(_metadata, t, "counts without access", EFAULT);
	commit_init(t, &out, -1)->props_ptr = 8;
	refuse_commit(_metadata, t, "properties at 8", EFAULT);
	arg = commit_init(t, &out, -1);
	arg->prop_values_ptr = U64(crossing(t->commit.values, 4));
	refuse_commit(_metadata, t, "half a value", EFAULT);
	commit_init(t, &out, -1);
	t->commit.objects[0] = 0;
	refuse_commit(_metadata, t, "no object", ENOENT);
	commit_init(t, &out, -1);
	t->commit.props[0] = t->display.in_fence_prop;
	refuse_commit(_metadata, t, "IN_FENCE_FD of a CRTC", ENOENT);
	/* none of these got as far as to the pointer */
	EXPECT_EQ(-7, out);

	bad_pointers(_metadata, &t->o, "ATOMIC", t->display.fd,
		     DRM_IOCTL_MODE_ATOMIC, commit_init(t, &out, -1), false);
	EXPECT_EQ(-7, out);
	arg = commit_init(t, &out, -1);
	arg->count_objs = UINT_MAX;
	arg->objs_ptr = U64(crossing(t->commit.objects, 8));
	refuse_commit(_metadata, t, "UINT_MAX objects", EFAULT);
	EXPECT_EQ(-1, out);
	commit_alive(_metadata, t);
}

TEST_F(bad_commit, out_fence_ptr)
{
	struct committing *t = &self->committing;
	unsigned int files;
	__s32 out = -7;
	const struct {
		const char *what;
		void *ptr;
	} bad[] = {
		{ "to 8", (void *)8 },
		{ "to the kernel", (void *)(~0ul << 12) },
		{ "without access", no_access() },
		{ "to read-only", read_only(&out, sizeof(out), 0) },
		{ "to half a page", crossing(&out, 2) },
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		commit_init(t, bad[i].ptr, -1);
		refuse_commit(_metadata, t, bad[i].what, EFAULT);
	}
	/* not a mistake, but no fence; and a test has none, either */
	commit_init(t, NULL, -1);
	EXPECT_EQ(0, commit_retry(t));
	files = count_files();
	commit_init(t, &out, -1)->flags = DRM_MODE_ATOMIC_TEST_ONLY;
	EXPECT_EQ(0, commit_retry(t));
	EXPECT_EQ(-1, out);
	EXPECT_EQ(files, count_files());
	commit_alive(_metadata, t);

	out = -7;
	commit_init(t, &out, -1);
	EXPECT_EQ(EMFILE, call_without_files(t->display.fd,
					     DRM_IOCTL_MODE_ATOMIC,
					     &t->commit.arg));
	EXPECT_EQ(-1, out);
	EXPECT_EQ(files, count_files());
	commit_alive(_metadata, t);
}

TEST_F(bad_commit, in_fence_fd)
{
	struct committing *t = &self->committing;
	struct objects *o = &t->o;
	static const __s64 numbers[] = {
		-2, INT_MIN, INT_MAX, INT_MAX + 1ll, UINT_MAX, INT64_MIN,
		INT64_MAX,
	};
	__s32 out, again;
	unsigned int i;

	for (i = CLOSED; i < N_WRONG; i++) {
		if (i == FENCE || o->wrong[i] < 0)
			continue;
		out = -7;
		commit_init(t, &out, o->wrong[i]);
		refuse_commit(_metadata, t, wrong_names[i], EINVAL);
		EXPECT_EQ(-1, out);
		commit_init(t, &out, o->wrong[i])->flags =
			DRM_MODE_ATOMIC_TEST_ONLY;
		refuse_commit(_metadata, t, wrong_names[i], EINVAL);
	}
	for (i = 0; i < ARRAY_SIZE(numbers); i++) {
		out = -7;
		commit_init(t, &out, numbers[i]);
		refuse_commit(_metadata, t, "a bad number", EINVAL);
		EXPECT_EQ(-1, out);
	}
	commit_init(t, &out, o->fence);
	t->commit.counts[1] = 3;
	refuse_commit(_metadata, t, "two fences", EINVAL);
	EXPECT_EQ(-1, out);
	commit_alive(_metadata, t);

	/* it waits for the fence, and refuses what comes meanwhile */
	commit_init(t, &out, o->fence);
	ASSERT_EQ(0, commit_retry(t));
	ASSERT_LE(0, out);
	again = -7;
	commit_init(t, &again, -1);
	refuse_commit(_metadata, t, "while there is another", EBUSY);
	EXPECT_EQ(-1, again);
	EXPECT_FALSE(has_signaled(out, 100));
	close(o->fence);
	ASSERT_EQ(0, timeline_inc(o->timeline, 100));
	EXPECT_TRUE(has_signaled(out, WAIT_MS));
	commit_alive(_metadata, t);
}

TEST_F_TIMEOUT(bad_commit, memory_comes_and_goes, 120)
{
	struct committing *t = &self->committing;
	unsigned long good = 0, bad = 0, busy = 0;
	unsigned int files = count_files();
	struct flicker f;
	__s32 *out;
	__u64 end;
	int err;

	ASSERT_FINE(flicker_start(&f));
	out = f.stable;
	end = now_ns() + 2 * FLICKER_MS * NSEC_PER_MSEC;
	while (time_left(end, good && bad)) {
		*out = -7;
		commit_init(t, f.flickering, -1);
		err = call_err(t->display.fd, DRM_IOCTL_MODE_ATOMIC,
			       &t->commit.arg);
		if (!err) {
			good++;
			ASSERT_EQ(0, close(*out));
			continue;
		}
		/* if it was written, and not taken back, that has failed, too */
		if (err == EBUSY)
			busy++;
		else
			bad++;
		ASSERT_TRUE(err == EBUSY || err == EFAULT)
			TH_LOG("%s", strerror(err));
	}
	flicker_stop(&f);
	TH_LOG("power: %lu good, %lu bad, %lu busy", good, bad, busy);
	EXPECT_POWER(good);
	EXPECT_POWER(bad);
	EXPECT_EQ(files, count_files());
	commit_alive(_metadata, t);
}

/* Without the capability, or on a driver without commits. */
TEST_F(bad_commit, no_atomic)
{
	struct committing *t = &self->committing;
	struct drm_set_client_cap cap = {
		.capability = DRM_CLIENT_CAP_ATOMIC,
	};
	struct objects *o = &t->o;
	__s32 out = -7;

	ASSERT_EQ(0, ioctl(t->display.fd, DRM_IOCTL_SET_CLIENT_CAP, &cap));
	commit_init(t, &out, -1);
	refuse_commit(_metadata, t, "without DRM_CLIENT_CAP_ATOMIC", EINVAL);
	if (o->vgem >= 0) {
		refuse(_metadata, o, &(struct call){ "ATOMIC", EOPNOTSUPP,
		       o->vgem, DRM_IOCTL_MODE_ATOMIC, &t->commit.arg },
		       " on vgem");
	}
	EXPECT_EQ(-7, out);
}

/* ---- at random ---- */

#define N_WORKERS	4
#define N_SLOTS		24
#define N_LOOSE		8	/* a thread closes and reuses the first ones */
#define N_SYNCOBJS	4
#define N_VGEM_FENCES	4

/* The case needs some time before and after. */
#define DEFAULT_SECONDS	10
#define MAX_SECONDS	450
#define CASE_SECONDS	600

#define MIN_SHARE	40	/* per cent of the calls that do something */

static unsigned int seconds;
static __u64 seed;

struct tally {
	unsigned long calls, done;
};

#define MAX_OPS		40

/* What a worker has to say; in memory that the test shares with it. */
struct report {
	struct tally ops[MAX_OPS];
	unsigned long ioctls, signals, names, pending, signaled, failures;
	atomic_ulong recycled;
	bool finished;
	char why[256];
};

struct shared {
	atomic_uint ready;
	atomic_bool ended;
	struct report reports[N_WORKERS];
};

enum expectation { MAY, MUST, MUST_NOT };

struct worker {
	struct shared *shared;
	struct report *report;
	unsigned int index;
	__u64 rng, recycler_rng, end;
	__u32 r[8];	/* drawn for each operation, used or not */
	enum expectation expect;
	const char *wrong;
	int timelines[N_WORKERS];
	__u32 value;	/* of the timeline that only this worker increments */
	atomic_int slots[N_SLOTS];
	bool seen_signaled[N_SLOTS], seen_pending[N_SLOTS];
	int dmabuf, vgem, drm, event, send, receive;
	__u32 bos[2];	/* shared with all, and not */
	__u32 syncobjs[N_SYNCOBJS], vgem_fences[N_VGEM_FENCES];
	__u64 point;
	int files[N_WRONG];
	void *bad_ptrs[4];
	atomic_bool stop;
	pthread_t recycler;
};

struct op {
	const char *name;
	int (*run)(struct worker *w);
	unsigned int weight;
	int allowed[8];		/* errnos other than 0 */
};

/* splitmix64 */
static __u64 draw(__u64 *state)
{
	__u64 z = *state += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

static int do_call(struct worker *w, int fd, unsigned long cmd, void *arg)
{
	w->report->ioctls++;
	return call_err(fd, cmd, arg);
}

static int slot_of(const struct worker *w, unsigned int i)
{
	return w->r[i] % N_SLOTS;
}

static int fd_of(struct worker *w, unsigned int i)
{
	return atomic_load(&w->slots[slot_of(w, i)]);
}

/* Is that a fence for sure? The ones that are not loose have no other files. */
static bool is_fence(struct worker *w, unsigned int i)
{
	return slot_of(w, i) >= N_LOOSE && fd_of(w, i) >= 0;
}

static void expect_good(struct worker *w, bool sure)
{
	w->expect = sure ? MUST : MAY;
}

static void put_slot(struct worker *w, unsigned int slot, int fd)
{
	int old = atomic_exchange(&w->slots[slot], fd);

	if (old >= 0)
		close(old);
	w->seen_signaled[slot] = false;
	w->seen_pending[slot] = false;
}

static void *bad_ptr(struct worker *w, __u32 r)
{
	return w->bad_ptrs[r % ARRAY_SIZE(w->bad_ptrs)];
}

static void seen_status(struct worker *w, unsigned int slot, bool signaled)
{
	if (slot < N_LOOSE)
		return;
	if (!signaled && w->seen_signaled[slot])
		w->wrong = "pending after it has signaled";
	if (signaled && w->seen_pending[slot] && !w->seen_signaled[slot])
		w->report->signaled++;
	if (signaled) {
		w->seen_signaled[slot] = true;
		return;
	}
	w->seen_pending[slot] = true;
	w->report->pending++;
}

static int op_create(struct worker *w)
{
	unsigned int t = w->r[0] % 2 ? w->index : w->r[1] % N_WORKERS;
	struct sw_sync_create_fence_data data = {
		.value = t == w->index ? w->value + w->r[2] % 64 : w->r[2],
	};
	int err;

	expect_good(w, true);
	err = do_call(w, w->timelines[t], SW_SYNC_IOC_CREATE_FENCE, &data);
	if (!err)
		put_slot(w, slot_of(w, 3), data.fence);
	return err;
}

static int op_create_bad(struct worker *w)
{
	w->expect = MUST_NOT;
	return do_call(w, w->timelines[w->r[0] % N_WORKERS],
		       SW_SYNC_IOC_CREATE_FENCE, bad_ptr(w, w->r[1]));
}

static int op_inc(struct worker *w)
{
	__u32 by = w->r[0] % 8;
	int err;

	if (w->r[1] % 32 == 0)
		by = w->r[2] % 2 ? UINT_MAX : INT_MAX;
	w->value += by;
	expect_good(w, true);
	err = do_call(w, w->timelines[w->index], SW_SYNC_IOC_INC, &by);
	if (!err)
		w->report->signals++;
	return err;
}

static int op_inc_bad(struct worker *w)
{
	w->expect = MUST_NOT;
	return do_call(w, w->timelines[w->r[0] % N_WORKERS], SW_SYNC_IOC_INC,
		       bad_ptr(w, w->r[1]));
}

static int op_merge(struct worker *w)
{
	struct sync_merge_data data = { .name = "random", .fd2 = fd_of(w, 1) };
	int err;

	expect_good(w, is_fence(w, 0) && is_fence(w, 1));
	err = do_call(w, fd_of(w, 0), SYNC_IOC_MERGE, &data);
	if (!err)
		put_slot(w, slot_of(w, 2), data.fence);
	return err;
}

static int op_merge_bad(struct worker *w)
{
	struct sync_merge_data data = { .name = "bad", .fd2 = fd_of(w, 1) };
	void *arg = &data;

	switch (w->r[2] % 4) {
	case 0:
		data.fd2 = w->files[w->r[3] % FENCE];
		break;
	case 1:
		data.flags = w->r[3] | 1;
		break;
	case 2:
		data.pad = w->r[3] | 1;
		break;
	default:
		arg = bad_ptr(w, w->r[3]);
	}
	w->expect = MUST_NOT;
	return do_call(w, fd_of(w, 0), SYNC_IOC_MERGE, arg);
}

static int op_status(struct worker *w)
{
	struct sync_file_info info = {};
	int err;

	expect_good(w, is_fence(w, 0));
	err = do_call(w, fd_of(w, 0), SYNC_IOC_FILE_INFO, &info);
	if (!err)
		seen_status(w, slot_of(w, 0), info.status);
	return err;
}

static int op_names(struct worker *w)
{
	static struct sync_fence_info infos[MAX_INFOS];
	struct sync_file_info info = {
		.num_fences = MAX_INFOS,
		.sync_fence_info = U64(infos),
	};
	unsigned int i;
	int err;

	/* EINVAL: there are more; a chain can be long */
	w->expect = MAY;
	err = do_call(w, fd_of(w, 0), SYNC_IOC_FILE_INFO, &info);
	if (err)
		return err;
	if (info.num_fences > MAX_INFOS)
		w->wrong = "more fences than there is room for";
	for (i = 0; i < info.num_fences && i < MAX_INFOS; i++) {
		if (!infos[i].driver_name[0] || !infos[i].obj_name[0])
			w->wrong = "no name";
		if (infos[i].status && !infos[i].timestamp_ns)
			w->wrong = "signaled at no time";
		w->report->names++;
	}
	if (i)
		seen_status(w, slot_of(w, 0), info.status);
	return 0;
}

static int op_info_bad(struct worker *w)
{
	struct sync_file_info info = { .num_fences = MAX_INFOS };
	void *arg = &info;

	switch (w->r[1] % 4) {
	case 0:
		info.flags = w->r[2] | 1;
		break;
	case 1:
		info.pad = w->r[2] | 1;
		break;
	case 2:
		info.sync_fence_info = U64(bad_ptr(w, w->r[2]));
		break;
	default:
		arg = bad_ptr(w, w->r[2]);
	}
	w->expect = MUST_NOT;
	return do_call(w, fd_of(w, 0), SYNC_IOC_FILE_INFO, arg);
}

static int op_deadline(struct worker *w)
{
	struct sync_set_deadline set = {
		.deadline_ns = (__u64)w->r[1] << 32 | w->r[2],
	};

	expect_good(w, is_fence(w, 0));
	return do_call(w, fd_of(w, 0), SYNC_IOC_SET_DEADLINE, &set);
}

static int op_deadline_bad(struct worker *w)
{
	struct sync_set_deadline set = { .pad = w->r[2] | 1 };

	w->expect = MUST_NOT;
	return do_call(w, fd_of(w, 0), SYNC_IOC_SET_DEADLINE,
		       w->r[1] % 2 ? bad_ptr(w, w->r[2]) : &set);
}

static int op_get_deadline(struct worker *w)
{
	struct sw_sync_get_deadline get = {
		.fence_fd = fd_of(w, 0),
		.pad = w->r[1] % 8 ? 0 : w->r[1],
	};

	w->expect = get.pad ? MUST_NOT : MAY;
	return do_call(w, w->timelines[w->r[2] % N_WORKERS],
		       SW_SYNC_GET_DEADLINE, &get);
}

static int op_poll(struct worker *w)
{
	struct pollfd p = { .fd = fd_of(w, 0), .events = POLLIN };

	int err = 0;

	expect_good(w, is_fence(w, 0));
	if (poll(&p, 1, 0) < 0)
		err = errno;
	else if (p.fd < 0 || p.revents & POLLNVAL)
		err = EBADF;
	if (err)
		return err;
	if (is_fence(w, 0) && p.revents & ~POLLIN)
		w->wrong = "poll says more than POLLIN";
	seen_status(w, slot_of(w, 0), p.revents & POLLIN);
	return 0;
}

static int op_close(struct worker *w)
{
	w->expect = MUST;
	put_slot(w, slot_of(w, 0), -1);
	return 0;
}

static int op_dup(struct worker *w)
{
	unsigned int to = slot_of(w, 1);
	int fd;

	/* what may be something else must not get where fences are */
	if (!is_fence(w, 0))
		to %= N_LOOSE;
	expect_good(w, is_fence(w, 0));
	fd = fcntl(fd_of(w, 0), F_DUPFD_CLOEXEC, 0);
	if (fd < 0)
		return errno;
	put_slot(w, to, fd);
	return 0;
}

static int op_send(struct worker *w)
{
	bool sure = is_fence(w, 0);

	/* EBADF: nothing to send; EAGAIN: nobody receives */
	w->expect = MAY;
	return send_fd(w->send, sure ? fd_of(w, 0) : -1) ? errno : 0;
}

static int op_receive(struct worker *w)
{
	int fd;

	w->expect = MAY;
	fd = receive_fd(w->receive);
	if (fd < 0)
		return errno;
	put_slot(w, slot_of(w, 0), fd);
	return 0;
}

static int op_dmabuf_import(struct worker *w)
{
	struct dma_buf_import_sync_file im = {
		.flags = 1 + w->r[1] % 3,
		.fd = fd_of(w, 0),
	};

	expect_good(w, is_fence(w, 0));
	return do_call(w, w->dmabuf, DMA_BUF_IOCTL_IMPORT_SYNC_FILE, &im);
}

static int op_dmabuf_export(struct worker *w)
{
	struct dma_buf_export_sync_file ex = { .flags = 1 + w->r[1] % 3 };
	int err;

	expect_good(w, true);
	err = do_call(w, w->dmabuf, DMA_BUF_IOCTL_EXPORT_SYNC_FILE, &ex);
	if (!err)
		put_slot(w, slot_of(w, 0), ex.fd);
	return err;
}

static int op_dmabuf_bad(struct worker *w)
{
	struct dma_buf_import_sync_file arg = {
		.flags = w->r[1] % 2 ? 1 : w->r[2] << 2,
		.fd = w->files[w->r[3] % FENCE],
	};

	w->expect = MUST_NOT;
	if (w->r[4] % 2)
		return do_call(w, w->dmabuf, DMA_BUF_IOCTL_EXPORT_SYNC_FILE,
			       bad_ptr(w, w->r[5]));
	return do_call(w, w->dmabuf, DMA_BUF_IOCTL_IMPORT_SYNC_FILE, &arg);
}

static int op_vgem(struct worker *w)
{
	__u32 *id = &w->vgem_fences[w->r[0] % N_VGEM_FENCES];
	struct drm_vgem_fence_attach attach = {
		.handle = w->bos[w->r[2] % 2],
		.flags = w->r[1] % 16 ? 0 : VGEM_FENCE_WRITE,
	};
	struct drm_vgem_fence_signal signal = { .fence = *id };
	int err;

	/* EBUSY: others use the buffer; ETIMEDOUT: it took ten seconds */
	w->expect = MAY;
	if (*id) {
		*id = 0;
		err = do_call(w, w->vgem, DRM_IOCTL_VGEM_FENCE_SIGNAL, &signal);
		if (!err)
			w->report->signals++;
		return err;
	}
	err = do_call(w, w->vgem, DRM_IOCTL_VGEM_FENCE_ATTACH, &attach);
	if (!err)
		*id = attach.out_fence;
	return err;
}

static int op_vgem_bad(struct worker *w)
{
	struct drm_vgem_fence_attach attach = {
		.handle = w->r[1] % 2 ? w->bos[0] : NO_HANDLE,
		.flags = w->r[1] % 2 ? w->r[2] | 2 : 0,
	};
	struct drm_vgem_fence_signal signal = { .fence = w->r[2] | 1u << 31 };

	w->expect = MUST_NOT;
	if (w->r[0] % 2)
		return do_call(w, w->vgem, DRM_IOCTL_VGEM_FENCE_ATTACH,
			       &attach);
	return do_call(w, w->vgem, DRM_IOCTL_VGEM_FENCE_SIGNAL, &signal);
}

static __u32 *syncobj_of(struct worker *w, unsigned int i)
{
	return &w->syncobjs[w->r[i] % N_SYNCOBJS];
}

static __u64 point_of(struct worker *w, unsigned int i)
{
	if (w->r[i] % 128 == 0)
		return ~0ull;
	return w->r[i] % 2 ? ++w->point : 1 + w->r[i] % (w->point + 1);
}

static int op_syncobj_new(struct worker *w)
{
	__u32 *h = syncobj_of(w, 0);
	struct drm_syncobj_destroy destroy = { .handle = *h };
	struct drm_syncobj_create create = { .flags = w->r[1] % 2 };
	int err;

	expect_good(w, true);
	err = do_call(w, w->drm, DRM_IOCTL_SYNCOBJ_CREATE, &create);
	if (err)
		return err;
	*h = create.handle;
	return do_call(w, w->drm, DRM_IOCTL_SYNCOBJ_DESTROY, &destroy);
}

static int op_syncobj_import(struct worker *w)
{
	struct drm_syncobj_handle arg = {
		.handle = *syncobj_of(w, 0),
		.flags = IMPORT_FENCE,
		.fd = fd_of(w, 1),
	};

	expect_good(w, is_fence(w, 1));
	return do_call(w, w->drm, DRM_IOCTL_SYNCOBJ_FD_TO_HANDLE, &arg);
}

static int op_syncobj_import_point(struct worker *w)
{
	struct drm_syncobj_handle arg = {
		.handle = *syncobj_of(w, 0),
		.flags = IMPORT_FENCE | IMPORT_POINT,
		.point = point_of(w, 2),
		.fd = fd_of(w, 1),
	};

	expect_good(w, is_fence(w, 1));
	return do_call(w, w->drm, DRM_IOCTL_SYNCOBJ_FD_TO_HANDLE, &arg);
}

static int op_syncobj_export(struct worker *w)
{
	struct drm_syncobj_handle arg = {
		.handle = *syncobj_of(w, 0),
		.flags = EXPORT_FENCE | (w->r[1] % 2 ? EXPORT_POINT : 0),
		.point = point_of(w, 2),
	};
	int err;

	/* EINVAL: no fence there, or not yet */
	w->expect = MAY;
	err = do_call(w, w->drm, DRM_IOCTL_SYNCOBJ_HANDLE_TO_FD, &arg);
	if (!err)
		put_slot(w, slot_of(w, 3), arg.fd);
	return err;
}

static int op_syncobj_wait(struct worker *w)
{
	__u32 handles[2] = { *syncobj_of(w, 0), *syncobj_of(w, 1) };
	__u64 points[2] = { point_of(w, 2), point_of(w, 3) };
	struct drm_syncobj_timeline_wait wait = {
		.handles = U64(handles),
		.points = w->r[4] % 2 ? U64(points) : 0,
		.count_handles = 2,
		.flags = w->r[5] % 16,
		.timeout_nsec = w->r[6] % 4 ? 0 : now_ns() + NSEC_PER_MSEC,
	};

	w->expect = MAY;
	return do_call(w, w->drm, DRM_IOCTL_SYNCOBJ_TIMELINE_WAIT, &wait);
}

static int op_syncobj_signal(struct worker *w)
{
	__u32 handle = *syncobj_of(w, 0);
	__u64 point = point_of(w, 1);
	struct drm_syncobj_array array = {
		.handles = U64(&handle),
		.count_handles = 1,
	};
	struct drm_syncobj_timeline_array timeline = {
		.handles = U64(&handle),
		.points = U64(&point),
		.count_handles = 1,
	};

	expect_good(w, true);
	switch (w->r[2] % 4) {
	case 0:
		return do_call(w, w->drm, DRM_IOCTL_SYNCOBJ_RESET, &array);
	case 1:
		w->report->signals++;
		return do_call(w, w->drm, DRM_IOCTL_SYNCOBJ_SIGNAL, &array);
	case 2:
		w->report->signals++;
		return do_call(w, w->drm, DRM_IOCTL_SYNCOBJ_TIMELINE_SIGNAL,
			       &timeline);
	default:
		timeline.flags = w->r[3] % 2;
		return do_call(w, w->drm, DRM_IOCTL_SYNCOBJ_QUERY, &timeline);
	}
}

static int op_syncobj_transfer(struct worker *w)
{
	struct drm_syncobj_transfer transfer = {
		.src_handle = *syncobj_of(w, 0),
		.dst_handle = *syncobj_of(w, 1),
		.src_point = w->r[2] % 2 ? 0 : point_of(w, 3),
		.dst_point = w->r[4] % 2 ? 0 : point_of(w, 5),
	};

	w->expect = MAY;
	return do_call(w, w->drm, DRM_IOCTL_SYNCOBJ_TRANSFER, &transfer);
}

static int op_syncobj_eventfd(struct worker *w)
{
	struct drm_syncobj_eventfd arg = {
		.handle = *syncobj_of(w, 0),
		.point = w->r[1] % 2 ? 0 : point_of(w, 2),
		.flags = w->r[3] % 2 ? DRM_SYNCOBJ_WAIT_FLAGS_WAIT_AVAILABLE :
				       0,
		.fd = w->event,
	};

	expect_good(w, true);
	return do_call(w, w->drm, DRM_IOCTL_SYNCOBJ_EVENTFD, &arg);
}

static int op_syncobj_file(struct worker *w)
{
	struct drm_syncobj_handle arg = { .handle = *syncobj_of(w, 0) };
	struct drm_syncobj_destroy destroy = {};
	int err;

	expect_good(w, true);
	err = do_call(w, w->drm, DRM_IOCTL_SYNCOBJ_HANDLE_TO_FD, &arg);
	if (err)
		return err;
	err = do_call(w, w->drm, DRM_IOCTL_SYNCOBJ_FD_TO_HANDLE, &arg);
	close(arg.fd);
	if (err)
		return err;
	destroy.handle = arg.handle;
	return do_call(w, w->drm, DRM_IOCTL_SYNCOBJ_DESTROY, &destroy);
}

/* Noise in place of the argument, with counts of some thousands. */
static int op_syncobj_noise(struct worker *w)
{
	static const unsigned long cmds[] = {
		DRM_IOCTL_SYNCOBJ_DESTROY, DRM_IOCTL_SYNCOBJ_HANDLE_TO_FD,
		DRM_IOCTL_SYNCOBJ_FD_TO_HANDLE, DRM_IOCTL_SYNCOBJ_WAIT,
		DRM_IOCTL_SYNCOBJ_TIMELINE_WAIT, DRM_IOCTL_SYNCOBJ_RESET,
		DRM_IOCTL_SYNCOBJ_SIGNAL, DRM_IOCTL_SYNCOBJ_TIMELINE_SIGNAL,
		DRM_IOCTL_SYNCOBJ_TRANSFER, DRM_IOCTL_SYNCOBJ_QUERY,
		DRM_IOCTL_SYNCOBJ_EVENTFD,
	};
	__u32 arg[16];
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(arg); i++) {
		arg[i] = w->r[i % 8] ^ i * 0x9e3779b9u;
		if (i >= 2 && i % 2 == 0)
			arg[i] = 1 + arg[i] % 4096;
		else if (arg[i] < 4096)
			arg[i] = NO_HANDLE;
	}
	/* of handles there are few, and pointers like this are no good */
	arg[0] |= 1u << 31;
	arg[1] |= 0xff000000u;
	w->expect = MUST_NOT;
	return do_call(w, w->drm, cmds[w->r[0] % ARRAY_SIZE(cmds)], arg);
}

static int op_wrong_file(struct worker *w)
{
	static const unsigned long cmds[] = {
		SYNC_IOC_MERGE, SYNC_IOC_FILE_INFO, SYNC_IOC_SET_DEADLINE,
	};
	char arg[64] = "";

	w->expect = MUST_NOT;
	return do_call(w, w->files[w->r[0] % FENCE],
		       cmds[w->r[1] % ARRAY_SIZE(cmds)], arg);
}

/* EBADF and ENOTTY are for slots that are empty, or loose. */
static const struct op ops[] = {
	{ "create", op_create, 12, {} },
	{ "create_bad", op_create_bad, 1, { EFAULT } },
	{ "inc", op_inc, 8, {} },
	{ "inc_bad", op_inc_bad, 1, { EFAULT } },
	{ "merge", op_merge, 8, { EBADF, ENOTTY, ENOENT } },
	{ "merge_bad", op_merge_bad, 3,
	  { EBADF, ENOTTY, ENOENT, EINVAL, EFAULT } },
	{ "status", op_status, 8, { EBADF, ENOTTY } },
	{ "names", op_names, 8, { EBADF, ENOTTY, EINVAL } },
	{ "info_bad", op_info_bad, 2, { EBADF, ENOTTY, EINVAL, EFAULT } },
	{ "deadline", op_deadline, 3, { EBADF, ENOTTY } },
	{ "deadline_bad", op_deadline_bad, 1,
	  { EBADF, ENOTTY, EINVAL, EFAULT } },
	{ "get_deadline", op_get_deadline, 2, { EINVAL, ENOENT } },
	{ "poll", op_poll, 8, { EBADF } },
	{ "close", op_close, 2, {} },
	{ "dup", op_dup, 3, { EBADF } },
	{ "send", op_send, 3, { EBADF, EAGAIN, ETOOMANYREFS } },
	{ "receive", op_receive, 3, { EAGAIN } },
	{ "wrong_file", op_wrong_file, 2, { EBADF, ENOTTY } },
	{ "dmabuf_import", op_dmabuf_import, 3, { EINVAL } },
	{ "dmabuf_export", op_dmabuf_export, 3, {} },
	{ "dmabuf_bad", op_dmabuf_bad, 1, { EINVAL, EFAULT } },
	{ "vgem", op_vgem, 3, { EBUSY, ETIMEDOUT } },
	{ "vgem_bad", op_vgem_bad, 1, { EINVAL, ENOENT } },
	{ "syncobj_new", op_syncobj_new, 3, {} },
	{ "syncobj_import", op_syncobj_import, 3, { EINVAL } },
	{ "syncobj_import_point", op_syncobj_import_point, 4, { EINVAL } },
	{ "syncobj_export", op_syncobj_export, 4, { EINVAL } },
	{ "syncobj_wait", op_syncobj_wait, 4, { EINVAL, ETIME } },
	{ "syncobj_signal", op_syncobj_signal, 4, {} },
	{ "syncobj_transfer", op_syncobj_transfer, 3, { EINVAL } },
	{ "syncobj_eventfd", op_syncobj_eventfd, 2, {} },
	{ "syncobj_file", op_syncobj_file, 2, {} },
	{ "syncobj_noise", op_syncobj_noise, 2,
	  { EINVAL, ENOENT, EFAULT, EBADF } },
};

/* The number of operations that there is something to do with. */
static unsigned int usable(const struct op *op, const struct objects *o)
{
	if (o->dmabuf < 0 && (!strncmp(op->name, "dmabuf", 6) ||
			      !strncmp(op->name, "vgem", 4)))
		return 0;
	if (o->drm < 0 && !strncmp(op->name, "syncobj", 7))
		return 0;
	return op->weight;
}

static const struct op *choose(const struct objects *o, __u64 r)
{
	unsigned int i, sum = 0;

	for (i = 0; i < ARRAY_SIZE(ops); i++)
		sum += usable(&ops[i], o);
	r %= sum;
	for (i = 0; r >= usable(&ops[i], o); i++)
		r -= usable(&ops[i], o);
	return &ops[i];
}

static const char *judge(struct worker *w, const struct op *op, int err)
{
	unsigned int i;

	if (w->wrong)
		return wrong("%s: %s", op->name, w->wrong);
	if (err && w->expect == MUST)
		return wrong("%s: %s, but all was good", op->name,
			     strerror(err));
	if (!err && w->expect == MUST_NOT)
		return wrong("%s: good, but the input was not", op->name);
	for (i = 0; err && i < ARRAY_SIZE(op->allowed); i++) {
		if (op->allowed[i] == err)
			return NULL;
	}
	return err ? wrong("%s: %s", op->name, strerror(err)) : NULL;
}

static void failed(struct worker *w, const char *why)
{
	if (!w->report->failures++)
		snprintf(w->report->why, sizeof(w->report->why), "%s", why);
}

/* Closes files that are in use, and makes others of the same number. */
static void *recycler_main(void *arg)
{
	struct worker *w = arg;
	int fd;

	while (!atomic_load(&w->stop)) {
		__u64 r = draw(&w->recycler_rng);
		unsigned int slot = r % N_LOOSE;
		unsigned int from = N_LOOSE + (r >> 8) % (N_SLOTS - N_LOOSE);

		fd = atomic_exchange(&w->slots[slot], -1);
		if (fd >= 0)
			close(fd);
		if ((r >> 16) % 4)
			fd = atomic_load(&w->slots[from]);
		else
			fd = w->files[(r >> 24) % FENCE];
		fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
		fd = atomic_exchange(&w->slots[slot], fd);
		if (fd >= 0)
			close(fd);
		w->report->recycled++;
		if ((r >> 32) % 4 == 0)
			usleep((r >> 40) % 256);
	}
	return NULL;
}

static const char *worker_open(struct worker *w, const struct objects *o)
{
	struct drm_prime_handle prime = { .fd = o->dmabuf };
	unsigned int i;

	for (i = 0; i < N_SLOTS; i++)
		atomic_store(&w->slots[i], -1);
	memcpy(w->files, o->wrong, sizeof(w->files));
	w->bad_ptrs[0] = NULL;
	w->bad_ptrs[1] = (void *)8;
	w->bad_ptrs[2] = no_access();
	w->bad_ptrs[3] = crossing("x", 1);
	w->event = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	w->dmabuf = o->dmabuf;
	w->drm = -1;
	w->vgem = -1;
	if (o->dmabuf >= 0) {
		w->vgem = open_vgem();
		if (ioctl(w->vgem, DRM_IOCTL_PRIME_FD_TO_HANDLE, &prime))
			return wrong("FD_TO_HANDLE: %m");
		w->bos[0] = prime.handle;
		close(open_dmabuf(w->vgem, &w->bos[1]));
	}
	if (o->drm >= 0) {
		w->drm = open_syncobj_device();
		for (i = 0; i < N_SYNCOBJS; i++)
			w->syncobjs[i] = create_syncobj(w->drm, 0);
	}
	if (pthread_create(&w->recycler, NULL, recycler_main, w))
		return wrong("pthread_create");
	return NULL;
}

static bool has_power(const struct report *r)
{
	return r->signals && r->names && r->pending && r->signaled &&
	       atomic_load(&r->recycled);
}

static void worker_ops(struct worker *w, const struct objects *o)
{
	const struct op *op;
	const char *why;
	unsigned int i;
	int err;

	while (time_left(w->end, has_power(w->report))) {
		op = choose(o, draw(&w->rng));
		for (i = 0; i < ARRAY_SIZE(w->r); i++)
			w->r[i] = draw(&w->rng) >> 32;
		w->wrong = NULL;
		err = op->run(w);
		w->report->ops[op - ops].calls++;
		if (!err)
			w->report->ops[op - ops].done++;
		why = judge(w, op, err);
		if (why)
			failed(w, why);
	}
}

/* All there is has to signal, now that the timelines have ended. */
static void worker_end(struct worker *w)
{
	unsigned int i;
	int fd, ms = 2 * WAIT_MS;

	for (i = N_LOOSE; i < N_SLOTS; i++) {
		fd = atomic_load(&w->slots[i]);
		if (fd < 0)
			continue;
		if (!has_signaled(fd, ms)) {
			failed(w, "a fence that never signals");
			ms = 0;
		}
		if (!fence_status(fd))
			failed(w, "a status without a signal");
		put_slot(w, i, -1);
	}
}

static void worker_main(struct worker *w, const struct objects *o)
{
	unsigned int i, files = count_files();
	const char *why;
	int fd;

	alarm(seconds + POWER_MS / 1000 + 60);
	why = worker_open(w, o);
	if (why) {
		failed(w, why);
		_exit(1);
	}
	w->end = now_ns() + seconds * NSEC_PER_SEC;
	worker_ops(w, o);

	atomic_store(&w->stop, true);
	pthread_join(w->recycler, NULL);
	for (i = 0; i < N_LOOSE; i++)
		put_slot(w, i, -1);
	/* nothing pending comes from here any more, nor to here */
	if (w->vgem >= 0)
		close(w->vgem);
	if (w->drm >= 0)
		close(w->drm);
	close(w->event);
	do {
		fd = receive_fd(w->receive);
		if (fd >= 0)
			close(fd);
	} while (fd >= 0);
	atomic_fetch_add(&w->shared->ready, 1);
	while (!atomic_load(&w->shared->ended))
		sleep_ms(1);
	worker_end(w);
	if (count_files() != files)
		failed(w, wrong("%u files instead of %u", count_files(),
				files));
	w->report->finished = true;
	_exit(0);
}

static pid_t worker_start(struct worker *all, unsigned int i, struct objects *o)
{
	struct worker *w = &all[i];
	pid_t pid;

	w->index = i;
	w->rng = seed ^ i;
	w->recycler_rng = ~(seed ^ i);
	pid = fork();
	if (!pid)
		worker_main(w, o);
	return pid;
}

static void report(struct __test_metadata *_metadata, struct shared *shared)
{
	unsigned long calls = 0, done = 0, attempts, good;
	struct report sum = {};
	unsigned int i, op;

	for (i = 0; i < N_WORKERS; i++) {
		struct report *r = &shared->reports[i];

		EXPECT_TRUE(r->finished)
			TH_LOG("worker %u has not finished", i);
		EXPECT_EQ(0ul, r->failures)
			TH_LOG("worker %u: first of %lu failures: %s", i,
			       r->failures, r->why);
		sum.ioctls += r->ioctls;
		sum.signals += r->signals;
		sum.names += r->names;
		sum.failures += r->failures;
		sum.pending += r->pending;
		sum.signaled += r->signaled;
		sum.recycled += r->recycled;
	}
	for (op = 0; op < ARRAY_SIZE(ops); op++) {
		attempts = 0;
		good = 0;
		for (i = 0; i < N_WORKERS; i++) {
			attempts += shared->reports[i].ops[op].calls;
			good += shared->reports[i].ops[op].done;
		}
		calls += attempts;
		done += good;
		if (attempts)
			TH_LOG("power: %s: %lu calls, %lu good", ops[op].name,
			       attempts, good);
	}
	TH_LOG("power: %lu of %lu calls good, %lu files recycled", done, calls,
	       sum.recycled);
	TH_LOG("power: status 0 seen %lu times, then 1 %lu times", sum.pending,
	       sum.signaled);
	TH_LOG("figures: ioctls=%lu signals=%lu names=%lu failures=%lu",
	       sum.ioctls, sum.signals, sum.names, sum.failures);
	EXPECT_LT(calls * MIN_SHARE, done * 100);
	EXPECT_POWER(sum.signals);
	EXPECT_POWER(sum.names);
	EXPECT_POWER(sum.pending);
	EXPECT_POWER(sum.signaled);
	EXPECT_POWER(sum.recycled);
}

FIXTURE(several_processes)
{
	struct objects o;
};

FIXTURE_SETUP(several_processes)
{
	prepare(_metadata, &self->o);
}

FIXTURE_TEARDOWN(several_processes)
{
	EXPECT_FINE(kmsg_check(self->o.kmsg));
}

TEST_F_TIMEOUT(several_processes, random, CASE_SECONDS)
{
	static struct worker workers[N_WORKERS];
	int timelines[N_WORKERS], socks[N_WORKERS][2];
	struct objects *o = &self->o;
	unsigned int i, j, files, running = 0;
	struct shared *shared;
	pid_t pids[N_WORKERS];
	int status;
	__u64 end;

	TH_LOG("seed %#llx, %u seconds", (unsigned long long)seed, seconds);
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, shared);
	files = count_files();
	for (i = 0; i < N_WORKERS; i++) {
		timelines[i] = timeline_open();
		ASSERT_LE(0, timelines[i]);
		ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK,
					0, socks[i]));
	}
	for (i = 0; i < N_WORKERS; i++) {
		workers[i].shared = shared;
		workers[i].report = &shared->reports[i];
		memcpy(workers[i].timelines, timelines, sizeof(timelines));
		workers[i].send = socks[i][0];
		workers[i].receive = socks[(i + 1) % N_WORKERS][1];
	}
	for (i = 0; i < N_WORKERS; i++) {
		pids[i] = worker_start(workers, i, o);
		ASSERT_LT(0, pids[i]);
		running++;
	}

	/* one that dies is never ready */
	end = now_ns() + (seconds + POWER_MS / 1000 + 30) * NSEC_PER_SEC;
	while (atomic_load(&shared->ready) < running && now_ns() < end)
		sleep_ms(5);
	EXPECT_EQ(running, atomic_load(&shared->ready));
	for (i = 0; i < N_WORKERS; i++) {
		EXPECT_EQ(0, timeline_inc(timelines[i], INT_MAX));
		EXPECT_EQ(0, timeline_inc(timelines[i], UINT_MAX));
	}
	atomic_store(&shared->ended, true);
	for (i = 0; i < N_WORKERS; i++) {
		ASSERT_EQ(pids[i], waitpid(pids[i], &status, 0));
		EXPECT_EQ(0, status)
			TH_LOG("worker %u: %s %d", i,
			       WIFSIGNALED(status) ? "signal" : "exit",
			       WIFSIGNALED(status) ? WTERMSIG(status) :
						     WEXITSTATUS(status));
		close(timelines[i]);
		for (j = 0; j < 2; j++)
			close(socks[i][j]);
	}
	EXPECT_EQ(files, count_files());
	report(_metadata, shared);
	EXPECT_FINE(fence_alive(o));
	EXPECT_TRUE(o->dmabuf < 0 || has_signaled(o->dmabuf, 2 * WAIT_MS));
}

/* Last: where these find a bug, lockdep or the kernel is of no use after it. */
FIXTURE(last)
{
	struct objects o;
};

FIXTURE_SETUP(last)
{
	prepare(_metadata, &self->o);
}

FIXTURE_TEARDOWN(last)
{
	EXPECT_FINE(kmsg_check(self->o.kmsg));
}

#define MAX_ALLOCATIONS	40

/* What a call uses, and nobody else: it can be seen whether it is freed. */
struct scarce {
	int timeline, fence, other;
	int vgem, dmabuf, drm, event;
	__u32 bo, syncobj;
};

static int scarce_fd(int fd, unsigned long cmd, void *arg, __s32 *result)
{
	int err = call_err(fd, cmd, arg);

	if (!err)
		close(*result);
	return err;
}

static int scarce_create(struct scarce *s)
{
	struct sw_sync_create_fence_data arg = { .value = UINT_MAX / 2 };

	return scarce_fd(s->timeline, SW_SYNC_IOC_CREATE_FENCE, &arg,
			 &arg.fence);
}

static int scarce_merge(struct scarce *s)
{
	struct sync_merge_data arg = { .fd2 = s->other };

	return scarce_fd(s->fence, SYNC_IOC_MERGE, &arg, &arg.fence);
}

static int scarce_dmabuf_import(struct scarce *s)
{
	struct dma_buf_import_sync_file arg = {
		.flags = DMA_BUF_SYNC_WRITE,
		.fd = s->fence,
	};

	return call_err(s->dmabuf, DMA_BUF_IOCTL_IMPORT_SYNC_FILE, &arg);
}

static int scarce_dmabuf_export(struct scarce *s)
{
	struct dma_buf_export_sync_file arg = { .flags = DMA_BUF_SYNC_RW };

	return scarce_fd(s->dmabuf, DMA_BUF_IOCTL_EXPORT_SYNC_FILE, &arg,
			 &arg.fd);
}

static int scarce_vgem(struct scarce *s)
{
	struct drm_vgem_fence_attach arg = { .handle = s->bo };

	return call_err(s->vgem, DRM_IOCTL_VGEM_FENCE_ATTACH, &arg);
}

static int scarce_syncobj_create(struct scarce *s)
{
	struct drm_syncobj_create arg = {
		.flags = DRM_SYNCOBJ_CREATE_SIGNALED,
	};

	return call_err(s->drm, DRM_IOCTL_SYNCOBJ_CREATE, &arg);
}

static int scarce_syncobj_to_fd(struct scarce *s)
{
	struct drm_syncobj_handle arg = { .handle = s->syncobj };

	return scarce_fd(s->drm, DRM_IOCTL_SYNCOBJ_HANDLE_TO_FD, &arg,
			 &arg.fd);
}

static int scarce_syncobj_export(struct scarce *s)
{
	struct drm_syncobj_handle arg = {
		.handle = s->syncobj,
		.flags = EXPORT_FENCE,
	};

	return scarce_fd(s->drm, DRM_IOCTL_SYNCOBJ_HANDLE_TO_FD, &arg,
			 &arg.fd);
}

static int scarce_syncobj_import_point(struct scarce *s)
{
	return syncobj_import(s->drm, s->syncobj, s->fence, 1) ? errno : 0;
}

static int scarce_syncobj_transfer(struct scarce *s)
{
	struct drm_syncobj_transfer arg = {
		.src_handle = s->syncobj,
		.dst_handle = s->syncobj,
		.dst_point = 1,
	};

	return call_err(s->drm, DRM_IOCTL_SYNCOBJ_TRANSFER, &arg);
}

/* The same object four times. */
static int scarce_array(struct scarce *s, unsigned long cmd)
{
	__u32 handles[4] = { s->syncobj, s->syncobj, s->syncobj, s->syncobj };
	struct drm_syncobj_array arg = {
		.handles = U64(handles),
		.count_handles = ARRAY_SIZE(handles),
	};

	return call_err(s->drm, cmd, &arg);
}

static int scarce_points(struct scarce *s, unsigned long cmd)
{
	__u32 handles[4] = { s->syncobj, s->syncobj, s->syncobj, s->syncobj };
	__u64 points[4] = { 1, 2, 3, 4 };
	struct drm_syncobj_timeline_array arg = {
		.handles = U64(handles),
		.points = U64(points),
		.count_handles = ARRAY_SIZE(handles),
	};

	return call_err(s->drm, cmd, &arg);
}

static int scarce_syncobj_reset(struct scarce *s)
{
	return scarce_array(s, DRM_IOCTL_SYNCOBJ_RESET);
}

static int scarce_syncobj_signal(struct scarce *s)
{
	return scarce_array(s, DRM_IOCTL_SYNCOBJ_SIGNAL);
}

static int scarce_syncobj_timeline_signal(struct scarce *s)
{
	return scarce_points(s, DRM_IOCTL_SYNCOBJ_TIMELINE_SIGNAL);
}

static int scarce_syncobj_query(struct scarce *s)
{
	return scarce_points(s, DRM_IOCTL_SYNCOBJ_QUERY);
}

static int scarce_syncobj_wait(struct scarce *s)
{
	int err = syncobj_wait(s->drm, s->syncobj, 0, 0, 0);

	return err == ETIME ? 0 : err;
}

static int scarce_syncobj_eventfd(struct scarce *s)
{
	struct drm_syncobj_eventfd arg = {
		.handle = s->syncobj,
		.fd = s->event,
	};

	return call_err(s->drm, DRM_IOCTL_SYNCOBJ_EVENTFD, &arg);
}

static bool has_timeline(__u32 value)
{
	char text[32];

	snprintf(text, sizeof(text), ": %u\n", value);
	return file_contains(DEBUGFS "/sync/info", text);
}

static void scarce_open(struct scarce *s, const struct objects *o, __u32 value)
{
	s->timeline = timeline_open();
	timeline_inc(s->timeline, value);
	s->fence = timeline_fence(s->timeline, value + 1);
	s->other = o->fence;
	s->event = o->wrong[EVENTFD];
	s->vgem = -1;
	s->dmabuf = -1;
	s->drm = -1;
	if (o->dmabuf >= 0) {
		s->vgem = open_vgem();
		s->dmabuf = open_dmabuf(s->vgem, &s->bo);
	}
	if (o->drm >= 0) {
		s->drm = open_syncobj_device();
		s->syncobj = create_syncobj(s->drm, 0);
		syncobj_import(s->drm, s->syncobj, s->fence, 0);
	}
}

static void scarce_close(struct scarce *s)
{
	if (s->dmabuf >= 0)
		close(s->dmabuf);
	if (s->vgem >= 0)
		close(s->vgem);
	if (s->drm >= 0)
		close(s->drm);
	close(s->fence);
	/* signal first: see sw_sync_close_and_event */
	timeline_inc(s->timeline, 1);
	close(s->timeline);
}

struct scarce_call {
	const char *name;
	int (*run)(struct scarce *s);
	enum wrong_file needs;	/* a file of this kind */
	int other_errno;	/* than ENOMEM */
};

/* Fails each allocation of the call in turn; returns how many there are. */
static unsigned int scarce_run(struct __test_metadata *_metadata,
			       struct scarce *s, int fail_nth,
			       const struct scarce_call *c)
{
	unsigned int nth, files = count_files();
	bool injected = true;
	int err = 0;

	for (nth = 1; injected && nth < MAX_ALLOCATIONS; nth++) {
		EXPECT_FINE(faults_start(fail_nth, nth));
		err = c->run(s);
		injected = !faults_end(fail_nth);
		EXPECT_TRUE(!err || (injected && (err == ENOMEM ||
						  err == c->other_errno)))
			TH_LOG("%s, allocation %u: %s", c->name, nth,
			       strerror(err));
		EXPECT_EQ(files, count_files())
			TH_LOG("%s, allocation %u", c->name, nth);
	}
	EXPECT_EQ(0, err)
		TH_LOG("%s never succeeded", c->name);
	return nth - 2;
}

TEST_F(last, no_memory)
{
	static const struct scarce_call all[] = {
		{ "CREATE_FENCE", scarce_create, TIMELINE, 0 },
		{ "MERGE", scarce_merge, TIMELINE, 0 },
		{ "dmabuf IMPORT", scarce_dmabuf_import, DMA_BUF, 0 },
		{ "dmabuf EXPORT", scarce_dmabuf_export, DMA_BUF, 0 },
		{ "vgem ATTACH", scarce_vgem, DMA_BUF, 0 },
		{ "syncobj CREATE", scarce_syncobj_create, SYNCOBJ, 0 },
		{ "syncobj TO_FD", scarce_syncobj_to_fd, SYNCOBJ, 0 },
		/* this is what it calls a sync_file that cannot be made */
		{ "syncobj export", scarce_syncobj_export, SYNCOBJ, EINVAL },
		{ "syncobj import to a point", scarce_syncobj_import_point,
		  SYNCOBJ, 0 },
		{ "syncobj TRANSFER", scarce_syncobj_transfer, SYNCOBJ, 0 },
		{ "syncobj WAIT", scarce_syncobj_wait, SYNCOBJ, 0 },
		{ "syncobj EVENTFD", scarce_syncobj_eventfd, SYNCOBJ, 0 },
		{ "syncobj RESET", scarce_syncobj_reset, SYNCOBJ, 0 },
		{ "syncobj SIGNAL", scarce_syncobj_signal, SYNCOBJ, 0 },
		{ "syncobj TIMELINE_SIGNAL", scarce_syncobj_timeline_signal,
		  SYNCOBJ, 0 },
		{ "syncobj QUERY", scarce_syncobj_query, SYNCOBJ, 0 },
	};
	struct objects *o = &self->o;
	int fail_nth = -1;
	const char *why = faults_open(&fail_nth);
	unsigned int i, n, ms;
	struct scarce s;
	__u32 value;

	if (why)
		SKIP(return, "%s", why);

	for (i = 0; i < ARRAY_SIZE(all); i++) {
		const struct scarce_call *c = &all[i];

		if (o->wrong[c->needs] < 0)
			continue;
		/* by this its timeline is known */
		value = 1000000 + getpid() % 1000 * 1000 + 2 * i;
		scarce_open(&s, o, value);
		EXPECT_TRUE(has_timeline(value));
		n = scarce_run(_metadata, &s, fail_nth, c);
		EXPECT_EQ(0, fence_status(s.fence));
		scarce_close(&s);
		for (ms = 0; ms < WAIT_MS && has_timeline(value + 1); ms += 10)
			sleep_ms(10);
		EXPECT_FALSE(has_timeline(value + 1))
			TH_LOG("%s: a fence is lost", c->name);
		TH_LOG("power: %s: %u allocations", c->name, n);
		EXPECT_POWER(n);
	}
	faults_close(&fail_nth);
	EXPECT_FINE(fence_alive(o));
}

/* What kmalloc() can return at most, with pages of 4 KiB. */
#define KMALLOC_MAX	(4u << 20)

/*
 * More handles than can be had: no memory, but no complaint of the kernel. For
 * UINT_MAX it is the copy of the handles that is too large, for fewer it is one of
 * the arrays that come after, with 8 bytes a handle, and 64 if it waits for them.
 * The points, and the links of a chain, are not larger than what came before: that
 * there is no memory for these is for the case above.
 */
TEST_F(last, syncobj_many_handles)
{
	const unsigned int n_objs = 3 * KMALLOC_MAX / 16;
	const unsigned int n_entries = KMALLOC_MAX / 32;
	struct objects *o = &self->o;
	__u32 *h = calloc(n_objs, sizeof(*h));
	int fd = o->drm;
	const struct call calls[] = {
		{ "WAIT for UINT_MAX", ENOMEM, fd, DRM_IOCTL_SYNCOBJ_WAIT,
		  ARG(drm_syncobj_wait, .handles = U64(h),
		      .count_handles = UINT_MAX) },
		{ "TIMELINE_WAIT for UINT_MAX", ENOMEM, fd,
		  DRM_IOCTL_SYNCOBJ_TIMELINE_WAIT,
		  ARG(drm_syncobj_timeline_wait, .handles = U64(h),
		      .count_handles = UINT_MAX) },
		/* 4 * 2^30 is 0 in 32 bits */
		{ "RESET of 2^30", ENOMEM, fd, DRM_IOCTL_SYNCOBJ_RESET,
		  ARG(drm_syncobj_array, .handles = U64(h),
		      .count_handles = 1u << 30) },
		{ "SIGNAL of UINT_MAX", ENOMEM, fd, DRM_IOCTL_SYNCOBJ_SIGNAL,
		  ARG(drm_syncobj_array, .handles = U64(h),
		      .count_handles = UINT_MAX) },
		{ "TIMELINE_SIGNAL of UINT_MAX", ENOMEM, fd,
		  DRM_IOCTL_SYNCOBJ_TIMELINE_SIGNAL,
		  ARG(drm_syncobj_timeline_array, .handles = U64(h),
		      .count_handles = UINT_MAX) },
		{ "QUERY of UINT_MAX", ENOMEM, fd, DRM_IOCTL_SYNCOBJ_QUERY,
		  ARG(drm_syncobj_timeline_array, .handles = U64(h),
		      .count_handles = UINT_MAX) },
		{}
	};
	const struct call fewer[] = {
		{ "RESET of too many objects", ENOMEM, fd,
		  DRM_IOCTL_SYNCOBJ_RESET,
		  ARG(drm_syncobj_array, .handles = U64(h),
		      .count_handles = n_objs) },
		{ "WAIT for too many entries", ENOMEM, fd,
		  DRM_IOCTL_SYNCOBJ_WAIT,
		  ARG(drm_syncobj_wait, .handles = U64(h),
		      .count_handles = n_entries) },
		{ "TIMELINE_WAIT for too many entries", ENOMEM, fd,
		  DRM_IOCTL_SYNCOBJ_TIMELINE_WAIT,
		  ARG(drm_syncobj_timeline_wait, .handles = U64(h),
		      .count_handles = n_entries) },
		{}
	};
	unsigned int i;

	if (!needs_syncobj(_metadata, o))
		return;
	ASSERT_NE(NULL, h);
	for (i = 0; i < n_objs; i++)
		h[i] = o->syncobj;
	refuse_all(_metadata, o, calls);
	/* where pointers are shorter or pages larger these may fit */
	if (sizeof(void *) == 8 && PAGE == 4096)
		refuse_all(_metadata, o, fewer);
}

/*
 * The fence of a timeline point is a link of a chain. As a sync_file it can be
 * imported as a point again: that makes no chain of chains.
 */
TEST_F(last, syncobj_point_of_point)
{
	struct objects *o = &self->o;
	int fd;

	if (!needs_syncobj(_metadata, o))
		return;
	ASSERT_EQ(0, syncobj_import(o->drm, o->syncobj, o->fence, 1));
	fd = syncobj_to_fd(o->drm, o->syncobj, EXPORT_FENCE | EXPORT_POINT, 1);
	ASSERT_LE(0, fd);
	EXPECT_EQ(0, fence_status(fd));
	EXPECT_EQ(0, syncobj_import(o->drm, o->empty, fd, 1));
	EXPECT_EQ(ETIME, syncobj_wait(o->drm, o->empty, 1, 0, 0));
	ASSERT_EQ(0, timeline_inc(o->timeline, 100));
	EXPECT_EQ(0, syncobj_wait(o->drm, o->empty, 1, 0, 0));
}

static void *inc_main(void *arg)
{
	struct blocked *b = arg;

	while (!atomic_load(&b->started))
		b->ret |= timeline_inc(b->fd, 1);
	return NULL;
}

/* The last reference goes while the timeline is about to signal the fence. */
TEST_F(last, sw_sync_close_and_inc)
{
	struct blocked b = { .fd = timeline_open() };
	unsigned long n = 0;
	__u32 value = 0;
	__u64 end;
	int fd;

	atomic_store(&b.started, false);
	ASSERT_EQ(0, pthread_create(&b.thread, NULL, inc_main, &b));
	end = now_ns() + 5 * NSEC_PER_SEC;
	while (now_ns() < end) {
		/* now and then this is what the timeline comes to next */
		fd = timeline_fence(b.fd, value);
		ASSERT_LE(0, fd);
		value = fence_status(fd) ? value + 64 : value + 1;
		close(fd);
		n++;
	}
	atomic_store(&b.started, true);
	pthread_join(b.thread, NULL);
	EXPECT_EQ(0, b.ret);
	TH_LOG("power: %lu fences closed, the last one is %u", n, value);
}

/* The event has the last reference, and drops it while the timeline ends. */
TEST_F(last, sw_sync_close_and_event)
{
	struct objects *o = &self->o;
	int timeline = timeline_open(), fence = timeline_fence(timeline, 1);
	struct drm_syncobj_eventfd arg = {
		.handle = o->empty,
		.fd = o->wrong[EVENTFD],
	};
	__u64 count = 0;

	if (!needs_syncobj(_metadata, o))
		return;
	ASSERT_EQ(0, syncobj_import(o->drm, o->empty, fence, 0));
	ASSERT_EQ(0, ioctl(o->drm, DRM_IOCTL_SYNCOBJ_EVENTFD, &arg));
	ASSERT_EQ(0, destroy_syncobj(o->drm, o->empty));
	close(o->wrong[SYNCOBJ]);
	close(fence);
	close(timeline);
	EXPECT_EQ(8, read(o->wrong[EVENTFD], &count, sizeof(count)));
	EXPECT_EQ(1ull, count);
}

int main(int argc, char **argv)
{
	seconds = env_number("FENCE_UAPI_SECONDS", DEFAULT_SECONDS, 1,
			     MAX_SECONDS);
	seed = env_number("FENCE_UAPI_SEED", now_ns() ^ getpid(), 0,
			  UINT64_MAX);
	return test_harness_run(argc, argv);
}
