// SPDX-License-Identifier: GPL-2.0
/*
 * What becomes of fences when their makers are out of memory, out of time, out
 * of CPUs, or out of devices?
 *
 * The test makes vkms instances of its own, takes vgem, sw_sync and a device with
 * syncobjs where the kernel has them, and then
 *
 *  - makes every allocation of everything that makes a fence fail, one at a
 *    time: commits, merges, timelines, dma-bufs, syncobjs, polls, and vkms
 *    instances, and what writes back,
 *  - interrupts those that wait, by a timer, and has them try again,
 *  - takes a CPU away and gives it back while fences are made and signaled,
 *  - takes the device away, from another process, at each step of a commit,
 *    and uses what is left: sync_files, dma-bufs, events and the DRM file.
 *
 * Nothing may be lost on the way: descriptors, fences that userspace got, nor
 * memory. The kernel log must stay silent. Only a kernel with CONFIG_KASAN
 * reports each use after free, and only one with CONFIG_DEBUG_KMEMLEAK, with
 * "kmemleak=on" on its command line if it needs that, what error paths leak.
 *
 * The last cases have no memory for a device that comes or goes. That is less
 * about fences than about DRM and configfs, and a kernel with a bug there may
 * not get over it: they run with FENCE_FAULTS_DEVICE=1 in the environment.
 *
 * FENCE_FAULTS_SECONDS=N in the environment is the time for each of the cases
 * that take time, 60 at most. run_kselftest.sh ends the program after 600 seconds,
 * unless --override-timeout says otherwise. They draw from a random sequence,
 * FENCE_FAULTS_SEED=N repeats that of another run. Run it as root: ./fence_faults
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <drm/drm.h>
#include <drm/drm_mode.h>
#include <drm/vgem_drm.h>
#include <linux/dma-buf.h>

#include "kselftest_harness.h"
#include "out_fence_util.h"

#define CPUS		"/sys/devices/system/cpu"

#define DEVICE_VAR	"FENCE_FAULTS_DEVICE"

/* A case has 600 seconds, and some take eight times as long as asked for. */
#define DEFAULT_SECONDS	5
#define MAX_SECONDS	60
#define CASE_SECONDS	600

static unsigned int seconds, seed;

/* Of one case: each has a process of its own. */
static struct figures {
	atomic_ulong signals, names, unbinds, faults;
} figures;

#define SHOW_FIGURES()						\
	TH_LOG("figures: ioctls=%lu signals=%lu names=%lu unbinds=%lu faults=%lu", \
	       atomic_load(&tried_ioctls),			\
	       atomic_load(&figures.signals),			\
	       atomic_load(&figures.names),			\
	       atomic_load(&figures.unbinds),			\
	       atomic_load(&figures.faults))

/* From @low to @high. */
static unsigned int draw(unsigned int *random, unsigned int low,
			 unsigned int high)
{
	return low + rand_r(random) % (high - low + 1);
}

/* ---- fences that signal when this test wants it ---- */

static int merge_fds(int fd, int other, __s32 *made)
{
	struct sync_merge_data data = {
		.name = "merged",
		.fd2 = other,
		.fence = UNTOUCHED,
	};
	int err = try_ioctl(fd, SYNC_IOC_MERGE, &data);

	*made = data.fence;
	return err;
}

static const char *expect_signaled(int fd, int status)
{
	int is;

	if (!is_ready(fd, POLLIN, WAIT_MS))
		return wrong("a fence does not signal");
	is = fence_status(fd);
	if (is != status)
		return wrong("status %d of a fence that signals %d", is, status);
	atomic_fetch_add(&figures.signals, 1);
	return NULL;
}

/* ---- everything that a case may work with ---- */

#define MAX_SOURCES	4

struct rig {
	struct display d;
	int kmsg, fail_nth, vgem;
	bool has_writeback;
	unsigned int hz, random;
	__u32 in_fence_prop, flips;

	/* fences that are not signaled, and what they are merged to */
	unsigned int n_sources;
	int timelines[MAX_SOURCES], sources[MAX_SOURCES];
	__s32 merged[2];

	int dmabuf, epoll;
	__u32 handle, vgem_fence;
	int drm, event;		/* of a driver with syncobjs */
	__u32 timeline, binary;
	char name[64];		/* of another instance of vkms */

	/* what the call in question made */
	__s32 out, writeback, made;
	__u64 committed;	/* before the newest commit with fences */
	bool flipped;
	unsigned int lost;
};

static void forget_results(struct rig *r)
{
	r->out = UNTOUCHED;
	r->writeback = UNTOUCHED;
	r->made = UNTOUCHED;
}

static void rig_init(struct rig *r)
{
	unsigned int i;

	r->fail_nth = -1;
	r->vgem = -1;
	r->dmabuf = -1;
	r->epoll = -1;
	r->drm = -1;
	r->event = -1;
	r->merged[0] = -1;
	r->merged[1] = -1;
	for (i = 0; i < MAX_SOURCES; i++) {
		r->timelines[i] = -1;
		r->sources[i] = -1;
	}
	r->random = seed;
	forget_results(r);
}

static bool is_no_fd(__s32 fd)
{
	return fd == -1 || fd == UNTOUCHED;
}

/* After a call that failed: has the kernel left a descriptor somewhere? */
static const char *expect_no_results(const struct rig *r)
{
	if (!is_no_fd(r->out))
		return wrong("OUT_FENCE_PTR %d of what failed", r->out);
	if (!is_no_fd(r->writeback))
		return wrong("WRITEBACK_OUT_FENCE_PTR %d of what failed",
			     r->writeback);
	if (!is_no_fd(r->made))
		return wrong("descriptor %d of what failed", r->made);
	return NULL;
}

static const char *sources_open(struct rig *r, unsigned int n)
{
	unsigned int i;

	r->n_sources = n;
	for (i = 0; i < n; i++) {
		r->timelines[i] = timeline_open();
		if (r->timelines[i] < 0)
			return wrong("sw_sync: %s", strerror(-r->timelines[i]));
		r->sources[i] = timeline_fence(r->timelines[i], 1);
		if (r->sources[i] < 0)
			return wrong("CREATE_FENCE: %s",
				     strerror(-r->sources[i]));
	}
	return NULL;
}

static const char *sources_merge(struct rig *r)
{
	unsigned int i;
	int err = 0;

	for (i = 0; !err && i + 1 < r->n_sources; i += 2)
		err = merge_fds(r->sources[i], r->sources[i + 1],
				&r->merged[i / 2]);
	return err ? wrong("MERGE: %s", strerror(-err)) : NULL;
}

/* Nobody but the timelines may signal the sources, and these must do it. */
static const char *sources_signal(struct rig *r)
{
	const char *why = NULL;
	unsigned int i;
	int err;

	for (i = 0; !why && i < r->n_sources; i++) {
		if (fence_status(r->sources[i]))
			return wrong("status %d of a fence that is pending",
				     fence_status(r->sources[i]));
		err = timeline_inc(r->timelines[i], 1);
		if (err)
			return wrong("INC: %s", strerror(-err));
		why = expect_signaled(r->sources[i], 1);
	}
	for (i = 0; !why && i < 2; i++) {
		if (r->merged[i] >= 0)
			why = expect_signaled(r->merged[i], 1);
	}
	return why;
}

static void sources_close(struct rig *r)
{
	unsigned int i;

	close_fd(&r->merged[0]);
	close_fd(&r->merged[1]);
	for (i = 0; i < MAX_SOURCES; i++) {
		close_fd(&r->sources[i]);
		close_fd(&r->timelines[i]);
	}
	r->n_sources = 0;
}

static const char *sources_end(struct rig *r)
{
	const char *why = sources_signal(r);

	sources_close(r);
	return why;
}

/* ---- commits ---- */

#define WITH_OUT	1
#define WITH_WRITEBACK	2
#define NO_FENCE	-1

/* Flips to the other framebuffer, after the fence @in; no second attempt. */
static int commit(struct rig *r, unsigned int with, int in, __u32 flags)
{
	const struct pipe *p = &r->d.pipes[0];
	struct request req = {};
	struct drm_mode_atomic atomic = {
		.flags = flags,
		.objs_ptr = (uintptr_t)req.objects,
		.count_props_ptr = (uintptr_t)req.counts,
		.props_ptr = (uintptr_t)req.props,
		.prop_values_ptr = (uintptr_t)req.values,
	};

	if (with & WITH_OUT)
		request_add_id(&req, p->crtc, r->d.out_fence_prop,
			       (uintptr_t)&r->out);
	request_add_id(&req, p->plane, r->d.fb_prop, r->d.fb[++r->flips & 1]);
	if (in >= 0)
		request_add_id(&req, p->plane, r->in_fence_prop, in);
	if (with & WITH_WRITEBACK) {
		request_add_id(&req, p->writeback, r->d.writeback_fb_prop,
			       r->d.writeback_fb);
		request_add_id(&req, p->writeback, r->d.writeback_fence_prop,
			       (uintptr_t)&r->writeback);
	}
	atomic.count_objs = req.n_objects;
	if (with)
		r->committed = now_ns();
	return try_ioctl(r->d.fd, DRM_IOCTL_MODE_ATOMIC, &atomic);
}

/* Waits until nothing is in flight any more. */
static const char *settle(struct rig *r)
{
	int err;

	do {
		err = commit(r, 0, NO_FENCE, 0);
	} while (err == -EINTR);
	return err ? wrong("commit: %s", strerror(-err)) : NULL;
}

static const char *use_result(struct rig *r, __s32 *fd, const char *type,
			      __u32 id, bool may_be_lost)
{
	const char *why;
	struct fence f;

	if (is_no_fd(*fd))
		return NULL;
	fence_init(&f, type, id);
	f.fd = *fd;
	f.may_be_lost = may_be_lost;
	f.committed = r->committed;
	*fd = -1;
	why = use_all(&f);
	if (why)
		return why;
	atomic_fetch_add(&figures.signals, 1);
	atomic_fetch_add(&figures.names, 2);
	return NULL;
}

/* The fences of a commit that succeeded signal, and are as they should be. */
static const char *use_results(struct rig *r, bool may_be_lost)
{
	const struct pipe *p = &r->d.pipes[0];
	const char *why;

	why = use_result(r, &r->out, "CRTC", p->crtc, may_be_lost);
	return why ?: use_result(r, &r->writeback, "CONNECTOR", p->writeback,
				 may_be_lost);
}

/* @writeback: with one that vkms will not complete before the next frame. */
static const char *rig_start_writeback(struct rig *r, struct fence *writeback)
{
	const char *why = display_start_writeback(&r->d, r->hz, writeback);

	if (why)
		return why;
	r->in_fence_prop = find_prop(r->d.fd, r->d.pipes[0].plane,
				     DRM_MODE_OBJECT_PLANE, "IN_FENCE_FD");
	return r->in_fence_prop ? NULL : "no IN_FENCE_FD";
}

static const char *rig_start(struct rig *r)
{
	return rig_start_writeback(r, NULL);
}

/* ---- buffers ---- */

static const char *buffer_close(int fd, __u32 handle)
{
	struct drm_gem_close close = { .handle = handle };
	int err = try_ioctl(fd, DRM_IOCTL_GEM_CLOSE, &close);

	return err ? wrong("GEM_CLOSE: %s", strerror(-err)) : NULL;
}

static int buffer_import(int fd, int dmabuf, __u32 *handle)
{
	struct drm_prime_handle prime = { .fd = dmabuf };
	int err = try_ioctl(fd, DRM_IOCTL_PRIME_FD_TO_HANDLE, &prime);

	*handle = prime.handle;
	return err;
}

static int export_fences(int dmabuf, __s32 *made)
{
	struct dma_buf_export_sync_file data = {
		.flags = DMA_BUF_SYNC_RW,
		.fd = UNTOUCHED,
	};
	int err = try_ioctl(dmabuf, DMA_BUF_IOCTL_EXPORT_SYNC_FILE, &data);

	*made = data.fd;
	return err;
}

static int import_fence(int dmabuf, int fd)
{
	struct dma_buf_import_sync_file data = {
		.flags = DMA_BUF_SYNC_WRITE,
		.fd = fd,
	};

	return try_ioctl(dmabuf, DMA_BUF_IOCTL_IMPORT_SYNC_FILE, &data);
}

/* A buffer without fences, as handle and as dma-buf. */
static const char *dmabuf_create(struct rig *r)
{
	const char *why = buffer_create(r->d.fd, &r->handle);
	int err;

	if (why)
		return why;
	err = buffer_export(r->d.fd, r->handle, &r->dmabuf);
	return err ? wrong("HANDLE_TO_FD: %s", strerror(-err)) : NULL;
}

static const char *dmabuf_end(struct rig *r)
{
	if (!is_ready(r->dmabuf, POLLOUT, WAIT_MS))
		return "a dma-buf does not get ready";
	close_fd(&r->dmabuf);
	return buffer_close(r->d.fd, r->handle);
}

static bool has_driver(int fd, const char *driver)
{
	char name[16] = "";
	struct drm_version version = {
		.name = name,
		.name_len = sizeof(name) - 1,
	};

	return !try_ioctl(fd, DRM_IOCTL_VERSION, &version) &&
	       !strcmp(name, driver);
}

/* Sets up or skips; what is in @r is for the teardown. */
static bool prepare(struct __test_metadata *_metadata, struct rig *r)
{
	const char *why;

	rig_init(r);
	mount_debugfs();
	r->d.writeback = true;
	why = display_prepare(&r->d, &r->kmsg);
	if (!why && access(SW_SYNC, W_OK))
		why = wrong("no CONFIG_SW_SYNC: %s: %m", SW_SYNC);
	if (why)
		SKIP(return false, "%s", why);
	return true;
}

/* ---- no memory ---- */

/* What was lost before is not ours. */
FIXTURE(memory_before)
{
};

FIXTURE_SETUP(memory_before)
{
}

FIXTURE_TEARDOWN(memory_before)
{
}

TEST_F_TIMEOUT(memory_before, leaks, 120)
{
	const char *why;
	struct leaks leaks;

	mount_debugfs();
	why = cannot_report_leaks();
	if (why)
		SKIP(return, "%s", why);
	ASSERT_FINE(leaks_start(&leaks));
	if (!leaks.kmemleak)
		SKIP(return, "no kmemleak: leaks can pass unseen");
}

/* Each function takes a rig; before() and after() are never out of memory. */
struct faulty {
	const char *(*before)(struct rig *r);
	int (*call)(struct rig *r);
	const char *(*after)(struct rig *r);
	unsigned int fds;	/* that call() opens, if it succeeds */
	int other_errno;	/* than ENOMEM */
	bool display, vgem, syncobj;
};

FIXTURE(no_memory)
{
	struct rig r;
};

FIXTURE_VARIANT(no_memory)
{
	struct faulty faulty;
};

static const char *nothing_before(struct rig *r)
{
	(void)r;
	return NULL;
}

static const char *results_after(struct rig *r)
{
	const char *why = use_results(r, false);

	return why ?: settle(r);
}

static int call_commit(struct rig *r)
{
	return commit(r, WITH_OUT, NO_FENCE, 0);
}

FIXTURE_VARIANT_ADD(no_memory, commit)
{
	.faulty = {
		.before = settle,
		.call = call_commit,
		.after = results_after,
		.fds = 1,
		.display = true,
	},
};

static int call_commit_event(struct rig *r)
{
	return commit(r, WITH_OUT, NO_FENCE, DRM_MODE_ATOMIC_NONBLOCK |
		      DRM_MODE_PAGE_FLIP_EVENT);
}

static const char *event_after(struct rig *r)
{
	const char *why = flip_wait(&r->d, 1);

	if (!why && is_ready(r->d.fd, POLLIN, 0))
		why = "an event of a commit that failed";
	return why ?: results_after(r);
}

FIXTURE_VARIANT_ADD(no_memory, commit_event)
{
	.faulty = {
		.before = settle,
		.call = call_commit_event,
		.after = event_after,
		.fds = 1,
		.display = true,
	},
};

static int call_commit_writeback(struct rig *r)
{
	return commit(r, WITH_OUT | WITH_WRITEBACK, NO_FENCE, 0);
}

/* No commit before the frame: vkms would forget the writeback. */
static const char *writeback_after(struct rig *r)
{
	return use_results(r, false);
}

FIXTURE_VARIANT_ADD(no_memory, commit_writeback)
{
	.faulty = {
		.before = settle,
		.call = call_commit_writeback,
		.after = writeback_after,
		.fds = 2,
		.display = true,
	},
};

static int call_commit_test_only(struct rig *r)
{
	return commit(r, WITH_OUT | WITH_WRITEBACK, NO_FENCE,
		      DRM_MODE_ATOMIC_TEST_ONLY);
}

static const char *test_only_after(struct rig *r)
{
	if (r->out != -1 || r->writeback != -1)
		return wrong("fences %d, %d of TEST_ONLY", r->out,
			     r->writeback);
	return settle(r);
}

FIXTURE_VARIANT_ADD(no_memory, commit_test_only)
{
	.faulty = {
		.before = settle,
		.call = call_commit_test_only,
		.after = test_only_after,
		.display = true,
	},
};

static const char *in_fence_before(struct rig *r)
{
	const char *why = settle(r);

	if (!why)
		why = sources_open(r, 2);
	return why ?: sources_merge(r);
}

static int call_commit_in_fence(struct rig *r)
{
	return commit(r, WITH_OUT, r->merged[0], DRM_MODE_ATOMIC_NONBLOCK);
}

static const char *in_fence_after(struct rig *r)
{
	const char *why = NULL;

	if (fence_status(r->out))
		why = "signaled before its IN_FENCE_FD";
	if (!why)
		why = sources_end(r);
	return why ?: results_after(r);
}

FIXTURE_VARIANT_ADD(no_memory, commit_in_fence)
{
	.faulty = {
		.before = in_fence_before,
		.call = call_commit_in_fence,
		.after = in_fence_after,
		.fds = 1,
		.display = true,
	},
};

static const char *two_before(struct rig *r)
{
	return sources_open(r, 2);
}

static int call_merge(struct rig *r)
{
	return merge_fds(r->sources[0], r->sources[1], &r->made);
}

static const char *made_after(struct rig *r)
{
	const char *why = NULL;

	if (fence_status(r->made))
		why = "signaled before what it is made of";
	if (!why)
		why = sources_signal(r);
	if (!why)
		why = expect_signaled(r->made, 1);
	close_fd(&r->made);
	sources_close(r);
	return why;
}

FIXTURE_VARIANT_ADD(no_memory, merge)
{
	.faulty = {
		.before = two_before,
		.call = call_merge,
		.after = made_after,
		.fds = 1,
	},
};

static const char *arrays_before(struct rig *r)
{
	const char *why = sources_open(r, 4);

	return why ?: sources_merge(r);
}

static int call_merge_arrays(struct rig *r)
{
	return merge_fds(r->merged[0], r->merged[1], &r->made);
}

FIXTURE_VARIANT_ADD(no_memory, merge_arrays)
{
	.faulty = {
		.before = arrays_before,
		.call = call_merge_arrays,
		.after = made_after,
		.fds = 1,
	},
};

static const char *signaled_before(struct rig *r)
{
	const char *why = sources_open(r, 2);

	return why ?: sources_signal(r);
}

static const char *signaled_after(struct rig *r)
{
	const char *why = expect_signaled(r->made, 1);

	close_fd(&r->made);
	sources_close(r);
	return why;
}

FIXTURE_VARIANT_ADD(no_memory, merge_signaled)
{
	.faulty = {
		.before = signaled_before,
		.call = call_merge,
		.after = signaled_after,
		.fds = 1,
	},
};

static const char *merged_before(struct rig *r)
{
	const char *why = sources_open(r, 2);

	return why ?: sources_merge(r);
}

static int call_timeline(struct rig *r)
{
	int fd = timeline_open();

	if (fd < 0)
		return fd;
	r->made = fd;
	return 0;
}

static const char *timeline_after(struct rig *r)
{
	const char *why;
	int fence;

	fence = timeline_fence(r->made, 1);
	if (fence < 0)
		return wrong("CREATE_FENCE: %s", strerror(-fence));
	/* a fence of nobody ends, and says so */
	close_fd(&r->made);
	why = expect_signaled(fence, -ENOENT);
	close(fence);
	return why;
}

FIXTURE_VARIANT_ADD(no_memory, timeline)
{
	.faulty = {
		.before = nothing_before,
		.call = call_timeline,
		.after = timeline_after,
		.fds = 1,
	},
};

static int call_timeline_fence(struct rig *r)
{
	struct sw_sync_create_fence_data data = {
		.value = 2,
		.fence = UNTOUCHED,
	};
	int err;

	err = try_ioctl(r->timelines[0], SW_SYNC_IOC_CREATE_FENCE, &data);
	r->made = data.fence;
	return err;
}

static const char *timeline_fence_after(struct rig *r)
{
	const char *why = sources_signal(r);

	if (!why && fence_status(r->made))
		why = "signaled before its time";
	if (!why && timeline_inc(r->timelines[0], 1))
		why = "INC";
	if (!why)
		why = expect_signaled(r->made, 1);
	close_fd(&r->made);
	sources_close(r);
	return why;
}

FIXTURE_VARIANT_ADD(no_memory, timeline_fence)
{
	.faulty = {
		.before = two_before,
		.call = call_timeline_fence,
		.after = timeline_fence_after,
		.fds = 1,
	},
};

static const char *dmabuf_and_array_before(struct rig *r)
{
	const char *why = dmabuf_create(r);

	return why ?: merged_before(r);
}

static int call_import_fence(struct rig *r)
{
	return import_fence(r->dmabuf, r->merged[0]);
}

static const char *import_fence_after(struct rig *r)
{
	const char *why = NULL;

	if (is_ready(r->dmabuf, POLLOUT, 0))
		why = "ready in spite of its fences";
	if (!why)
		why = sources_end(r);
	return why ?: dmabuf_end(r);
}

FIXTURE_VARIANT_ADD(no_memory, import_fence)
{
	.faulty = {
		.before = dmabuf_and_array_before,
		.call = call_import_fence,
		.after = import_fence_after,
		.display = true,
	},
};

static const char *export_fences_before(struct rig *r)
{
	const char *why = dmabuf_and_array_before(r);
	int err;

	if (why)
		return why;
	err = call_import_fence(r);
	return err ? wrong("IMPORT_SYNC_FILE: %s", strerror(-err)) : NULL;
}

static int call_export_fences(struct rig *r)
{
	return export_fences(r->dmabuf, &r->made);
}

static const char *export_fences_after(struct rig *r)
{
	const char *why = made_after(r);

	return why ?: dmabuf_end(r);
}

FIXTURE_VARIANT_ADD(no_memory, export_fences)
{
	.faulty = {
		.before = export_fences_before,
		.call = call_export_fences,
		.after = export_fences_after,
		.fds = 1,
		.display = true,
	},
};

static const char *buffer_before(struct rig *r)
{
	return buffer_create(r->d.fd, &r->handle);
}

static int call_prime_export(struct rig *r)
{
	return buffer_export(r->d.fd, r->handle, &r->made);
}

static const char *prime_export_after(struct rig *r)
{
	r->dmabuf = r->made;
	r->made = -1;
	return dmabuf_end(r);
}

FIXTURE_VARIANT_ADD(no_memory, prime_export)
{
	.faulty = {
		.before = buffer_before,
		.call = call_prime_export,
		.after = prime_export_after,
		.fds = 1,
		.display = true,
	},
};

static const char *prime_import_before(struct rig *r)
{
	const char *why = buffer_create(r->vgem, &r->vgem_fence);
	int err;

	if (why)
		return why;
	err = buffer_export(r->vgem, r->vgem_fence, &r->dmabuf);
	return err ? wrong("HANDLE_TO_FD: %s", strerror(-err)) : NULL;
}

static int call_prime_import(struct rig *r)
{
	return buffer_import(r->d.fd, r->dmabuf, &r->handle);
}

static const char *prime_import_after(struct rig *r)
{
	const char *why = dmabuf_end(r);

	return why ?: buffer_close(r->vgem, r->vgem_fence);
}

FIXTURE_VARIANT_ADD(no_memory, prime_import)
{
	.faulty = {
		.before = prime_import_before,
		.call = call_prime_import,
		.after = prime_import_after,
		.display = true,
		.vgem = true,
	},
};

static const char *vgem_before(struct rig *r)
{
	return buffer_create(r->vgem, &r->handle);
}

static int call_vgem_attach(struct rig *r)
{
	struct drm_vgem_fence_attach attach = {
		.handle = r->handle,
		.flags = VGEM_FENCE_WRITE,
	};
	int err = try_ioctl(r->vgem, DRM_IOCTL_VGEM_FENCE_ATTACH, &attach);

	r->vgem_fence = attach.out_fence;
	return err;
}

static const char *vgem_after(struct rig *r)
{
	struct drm_vgem_fence_signal signal = { .fence = r->vgem_fence };
	const char *why = NULL;
	int err;

	err = buffer_export(r->vgem, r->handle, &r->dmabuf);
	if (err)
		return wrong("HANDLE_TO_FD: %s", strerror(-err));
	if (is_ready(r->dmabuf, POLLIN, 0))
		why = "ready in spite of its fence";
	err = try_ioctl(r->vgem, DRM_IOCTL_VGEM_FENCE_SIGNAL, &signal);
	if (!why && err)
		why = wrong("FENCE_SIGNAL: %s", strerror(-err));
	if (!why && !is_ready(r->dmabuf, POLLIN, WAIT_MS))
		why = "a dma-buf does not get ready";
	close_fd(&r->dmabuf);
	return why ?: buffer_close(r->vgem, r->handle);
}

FIXTURE_VARIANT_ADD(no_memory, vgem_attach)
{
	.faulty = {
		.before = vgem_before,
		.call = call_vgem_attach,
		.after = vgem_after,
		.vgem = true,
	},
};

/* So many that the kernel has to allocate memory for them. */
static int poll_many(int fd, short events, int expected)
{
	struct pollfd many[64];
	unsigned int i;
	int n;

	for (i = 0; i < ARRAY_SIZE(many); i++) {
		many[i].fd = fd;
		many[i].events = events;
	}
	n = poll(many, ARRAY_SIZE(many), 0);
	atomic_fetch_add(&tried_ioctls, 1);
	if (n < 0)
		return -errno;
	return n == expected ? 0 : -EBADMSG;
}

static int call_poll(struct rig *r)
{
	return poll_many(r->sources[0], POLLIN, 0);
}

static const char *poll_after(struct rig *r)
{
	const char *why = sources_signal(r);

	if (!why && poll_many(r->sources[0], POLLIN, 64))
		why = "not all of the polled see the fence signal";
	sources_close(r);
	return why;
}

FIXTURE_VARIANT_ADD(no_memory, poll)
{
	.faulty = {
		.before = two_before,
		.call = call_poll,
		.after = poll_after,
	},
};

static int call_poll_dmabuf(struct rig *r)
{
	return poll_many(r->dmabuf, POLLOUT, 0);
}

static const char *poll_dmabuf_after(struct rig *r)
{
	const char *why = sources_end(r);

	return why ?: dmabuf_end(r);
}

FIXTURE_VARIANT_ADD(no_memory, poll_dmabuf)
{
	.faulty = {
		.before = export_fences_before,
		.call = call_poll_dmabuf,
		.after = poll_dmabuf_after,
		.display = true,
	},
};

static const char *epoll_start(struct rig *r)
{
	r->epoll = epoll_create1(EPOLL_CLOEXEC);
	return r->epoll < 0 ? wrong("epoll_create1: %m") : NULL;
}

static int epoll_add(struct rig *r, int fd, unsigned int events)
{
	struct epoll_event event = { .events = events };

	atomic_fetch_add(&tried_ioctls, 1);
	return epoll_ctl(r->epoll, EPOLL_CTL_ADD, fd, &event) ? -errno : 0;
}

static const char *epoll_end(struct rig *r)
{
	struct epoll_event event;
	const char *why = NULL;

	if (epoll_wait(r->epoll, &event, 1, 0))
		why = "epoll: ready too early";
	if (!why)
		why = sources_signal(r);
	if (!why && epoll_wait(r->epoll, &event, 1, WAIT_MS) != 1)
		why = "epoll: never ready";
	close_fd(&r->epoll);
	sources_close(r);
	return why;
}

static const char *epoll_before(struct rig *r)
{
	const char *why = sources_open(r, 2);

	return why ?: epoll_start(r);
}

static int call_epoll(struct rig *r)
{
	return epoll_add(r, r->sources[0], EPOLLIN);
}

FIXTURE_VARIANT_ADD(no_memory, epoll)
{
	.faulty = {
		.before = epoll_before,
		.call = call_epoll,
		.after = epoll_end,
	},
};

static const char *epoll_dmabuf_before(struct rig *r)
{
	const char *why = export_fences_before(r);

	return why ?: epoll_start(r);
}

static int call_epoll_dmabuf(struct rig *r)
{
	return epoll_add(r, r->dmabuf, EPOLLOUT);
}

static const char *epoll_dmabuf_after(struct rig *r)
{
	const char *why = epoll_end(r);

	return why ?: dmabuf_end(r);
}

FIXTURE_VARIANT_ADD(no_memory, epoll_dmabuf)
{
	.faulty = {
		.before = epoll_dmabuf_before,
		.call = call_epoll_dmabuf,
		.after = epoll_dmabuf_after,
		.display = true,
	},
};

static const char *node_before(struct rig *r)
{
	const char *node = card_node(r->d.name);

	snprintf(r->name, sizeof(r->name), "%s", node ?: "");
	return node ? NULL : "no node in /dev/dri";
}

static int call_open_node(struct rig *r)
{
	r->made = open(r->name, O_RDWR | O_CLOEXEC);
	return r->made < 0 ? -errno : 0;
}

static const char *open_node_after(struct rig *r)
{
	const char *why = NULL;

	if (!has_driver(r->made, "vkms"))
		why = "cannot use what was opened";
	close_fd(&r->made);
	return why ?: settle(r);
}

FIXTURE_VARIANT_ADD(no_memory, open_node)
{
	.faulty = {
		.before = node_before,
		.call = call_open_node,
		.after = open_node_after,
		.fds = 1,
		.display = true,
	},
};

/* ---- syncobjs ---- */

#define POINT	10

static int syncobj_create(struct rig *r, __u32 *handle, __u32 flags)
{
	struct drm_syncobj_create create = { .flags = flags };
	int err = try_ioctl(r->drm, DRM_IOCTL_SYNCOBJ_CREATE, &create);

	*handle = create.handle;
	return err;
}

/* 0 is no syncobj. */
static const char *syncobj_destroy(struct rig *r, __u32 *handle)
{
	struct drm_syncobj_destroy destroy = { .handle = *handle };
	int err = *handle ? try_ioctl(r->drm, DRM_IOCTL_SYNCOBJ_DESTROY, &destroy) : 0;

	*handle = 0;
	return err ? wrong("SYNCOBJ_DESTROY: %s", strerror(-err)) : NULL;
}

static int syncobj_import(struct rig *r, int fd, __u32 *handle, __u32 flags)
{
	struct drm_syncobj_handle data = {
		.handle = *handle,
		.flags = flags,
		.fd = fd,
	};
	int err = try_ioctl(r->drm, DRM_IOCTL_SYNCOBJ_FD_TO_HANDLE, &data);

	*handle = data.handle;
	return err;
}

static int syncobj_export(struct rig *r, __u32 handle, __u32 flags)
{
	struct drm_syncobj_handle data = {
		.handle = handle,
		.flags = flags,
		.fd = UNTOUCHED,
	};
	int err = try_ioctl(r->drm, DRM_IOCTL_SYNCOBJ_HANDLE_TO_FD, &data);

	r->made = data.fd;
	return err;
}

static int syncobj_transfer(struct rig *r, __u32 to, __u64 point, __u32 from,
			    __u64 from_point)
{
	struct drm_syncobj_transfer data = {
		.src_handle = from,
		.dst_handle = to,
		.src_point = from_point,
		.dst_point = point,
	};

	return try_ioctl(r->drm, DRM_IOCTL_SYNCOBJ_TRANSFER, &data);
}

/* Of the timeline, whose first @point it takes. Needs no fence to be there. */
static int point_signal(struct rig *r, __u64 point)
{
	struct drm_syncobj_timeline_array data = {
		.handles = (uintptr_t)&r->timeline,
		.points = (uintptr_t)&point,
		.count_handles = 1,
	};

	return try_ioctl(r->drm, DRM_IOCTL_SYNCOBJ_TIMELINE_SIGNAL, &data);
}

/* Returns 0 if the point does not signal in @ms, and is not signaled. */
static int point_pending(struct rig *r, __u64 point, unsigned int ms, __u32 flags)
{
	struct drm_syncobj_timeline_wait data = {
		.handles = (uintptr_t)&r->timeline,
		.points = (uintptr_t)&point,
		.timeout_nsec = now_ns() + ms * NSEC_PER_MSEC,
		.count_handles = 1,
		.flags = flags,
	};
	int err = try_ioctl(r->drm, DRM_IOCTL_SYNCOBJ_TIMELINE_WAIT, &data);

	if (err == -ETIME)
		return 0;
	return err ?: -EBADMSG;
}

static const char *syncobjs_open(struct rig *r)
{
	int err = syncobj_create(r, &r->binary, 0);

	err = err ?: syncobj_create(r, &r->timeline, 0);
	return err ? wrong("SYNCOBJ_CREATE: %s", strerror(-err)) : NULL;
}

/* An array in the one, and nothing in the other. */
static const char *syncobjs_before(struct rig *r)
{
	const char *why = merged_before(r);
	int err;

	why = why ?: syncobjs_open(r);
	if (why)
		return why;
	err = syncobj_import(r, r->merged[0], &r->binary,
			     DRM_SYNCOBJ_FD_TO_HANDLE_FLAGS_IMPORT_SYNC_FILE);
	return err ? wrong("FD_TO_HANDLE: %s", strerror(-err)) : NULL;
}

static const char *timeline_before(struct rig *r)
{
	const char *why = syncobjs_before(r);
	int err;

	if (why)
		return why;
	err = syncobj_transfer(r, r->timeline, POINT, r->binary, 0);
	return err ? wrong("TRANSFER: %s", strerror(-err)) : NULL;
}

static const char *syncobjs_end(struct rig *r)
{
	const char *why = syncobj_destroy(r, &r->timeline);

	close_fd(&r->made);
	return why ?: syncobj_destroy(r, &r->binary);
}

/* The point is that of the sources, and goes with them. */
static const char *point_after(struct rig *r)
{
	const char *why = NULL;

	if (point_pending(r, POINT, 0, 0))
		why = "a point is not pending";
	why = why ?: sources_signal(r);
	if (!why && point_pending(r, POINT, WAIT_MS, 0) != -EBADMSG)
		why = "a point does not signal";
	sources_close(r);
	return why ?: syncobjs_end(r);
}

static int call_syncobj_create(struct rig *r)
{
	return syncobj_create(r, &r->binary, DRM_SYNCOBJ_CREATE_SIGNALED);
}

static const char *syncobj_create_after(struct rig *r)
{
	int err = syncobj_create(r, &r->timeline, 0);

	err = err ?: syncobj_transfer(r, r->timeline, POINT, r->binary, 0);
	if (err)
		return wrong("TRANSFER: %s", strerror(-err));
	if (point_pending(r, POINT, WAIT_MS, 0) != -EBADMSG)
		return "a syncobj is not signaled from the start";
	return syncobjs_end(r);
}

FIXTURE_VARIANT_ADD(no_memory, syncobj_create)
{
	.faulty = {
		.before = nothing_before,
		.call = call_syncobj_create,
		.after = syncobj_create_after,
		.syncobj = true,
	},
};

static int call_syncobj_export(struct rig *r)
{
	return syncobj_export(r, r->timeline, 0);
}

/* It is the same one by its other name. */
static const char *syncobj_export_after(struct rig *r)
{
	const char *why = NULL;
	__u32 other = 0;
	int err;

	err = syncobj_import(r, r->made, &other, 0) ?: point_signal(r, POINT + 1);
	if (!err)
		err = syncobj_transfer(r, r->binary, 0, other, POINT + 1);
	if (err)
		why = wrong("an imported syncobj: %s", strerror(-err));
	why = why ?: syncobj_destroy(r, &other);
	return why ?: point_after(r);
}

FIXTURE_VARIANT_ADD(no_memory, syncobj_export)
{
	.faulty = {
		.before = timeline_before,
		.call = call_syncobj_export,
		.after = syncobj_export_after,
		.fds = 1,
		.syncobj = true,
	},
};

static int call_export_sync_file(struct rig *r)
{
	return syncobj_export(r, r->binary,
			      DRM_SYNCOBJ_HANDLE_TO_FD_FLAGS_EXPORT_SYNC_FILE);
}

static const char *export_sync_file_after(struct rig *r)
{
	const char *why = made_after(r);

	return why ?: syncobjs_end(r);
}

FIXTURE_VARIANT_ADD(no_memory, syncobj_export_sync_file)
{
	.faulty = {
		.before = syncobjs_before,
		.call = call_export_sync_file,
		.after = export_sync_file_after,
		.fds = 1,
		.other_errno = EINVAL,
		.syncobj = true,
	},
};

static int call_transfer_to_timeline(struct rig *r)
{
	return syncobj_transfer(r, r->timeline, POINT, r->binary, 0);
}

FIXTURE_VARIANT_ADD(no_memory, syncobj_transfer_to_timeline)
{
	.faulty = {
		.before = syncobjs_before,
		.call = call_transfer_to_timeline,
		.after = point_after,
		.syncobj = true,
	},
};

static int call_point_signal(struct rig *r)
{
	return point_signal(r, POINT);
}

static const char *point_signal_after(struct rig *r)
{
	if (point_pending(r, POINT, WAIT_MS, 0) != -EBADMSG)
		return "a point is not signaled";
	return syncobjs_end(r);
}

FIXTURE_VARIANT_ADD(no_memory, syncobj_point_signal)
{
	.faulty = {
		.before = syncobjs_open,
		.call = call_point_signal,
		.after = point_signal_after,
		.syncobj = true,
	},
};

static int call_point_wait(struct rig *r)
{
	return point_pending(r, POINT, 0, 0);
}

FIXTURE_VARIANT_ADD(no_memory, syncobj_wait)
{
	.faulty = {
		.before = timeline_before,
		.call = call_point_wait,
		.after = point_after,
		.syncobj = true,
	},
};

static int call_point_wait_for_submit(struct rig *r)
{
	return point_pending(r, POINT, 0, DRM_SYNCOBJ_WAIT_FLAGS_WAIT_FOR_SUBMIT);
}

static const char *transfer_after(struct rig *r)
{
	int err = syncobj_transfer(r, r->timeline, POINT, r->binary, 0);

	return err ? wrong("TRANSFER: %s", strerror(-err)) : point_after(r);
}

FIXTURE_VARIANT_ADD(no_memory, syncobj_wait_for_submit)
{
	.faulty = {
		.before = syncobjs_before,
		.call = call_point_wait_for_submit,
		.after = transfer_after,
		.syncobj = true,
	},
};

static const char *eventfd_open(struct rig *r)
{
	r->event = eventfd(0, EFD_CLOEXEC);
	return r->event < 0 ? wrong("eventfd: %m") : NULL;
}

static const char *eventfd_before(struct rig *r)
{
	const char *why = timeline_before(r);

	return why ?: eventfd_open(r);
}

static const char *eventfd_early_before(struct rig *r)
{
	const char *why = syncobjs_before(r);

	return why ?: eventfd_open(r);
}

static int call_eventfd(struct rig *r)
{
	struct drm_syncobj_eventfd data = {
		.handle = r->timeline,
		.point = POINT,
		.fd = r->event,
	};

	return try_ioctl(r->drm, DRM_IOCTL_SYNCOBJ_EVENTFD, &data);
}

/* One event, and no other for a call that failed. */
static const char *eventfd_after(struct rig *r)
{
	const char *why = NULL;
	__u64 events = 0;

	if (is_ready(r->event, POLLIN, 0))
		why = "an event too early";
	why = why ?: point_after(r);
	if (!why && (!is_ready(r->event, POLLIN, WAIT_MS) ||
		     read(r->event, &events, sizeof(events)) < 0 || events != 1))
		why = wrong("%llu events of one point", events);
	close_fd(&r->event);
	return why;
}

FIXTURE_VARIANT_ADD(no_memory, syncobj_eventfd)
{
	.faulty = {
		.before = eventfd_before,
		.call = call_eventfd,
		.after = eventfd_after,
		.syncobj = true,
	},
};

/* The point comes after who waits for it. */
static const char *eventfd_early_after(struct rig *r)
{
	int err = syncobj_transfer(r, r->timeline, POINT, r->binary, 0);

	return err ? wrong("TRANSFER: %s", strerror(-err)) : eventfd_after(r);
}

FIXTURE_VARIANT_ADD(no_memory, syncobj_eventfd_early)
{
	.faulty = {
		.before = eventfd_early_before,
		.call = call_eventfd,
		.after = eventfd_early_after,
		.syncobj = true,
	},
};

/* One call with the @nth allocation failing; how far was it from that? */
static const char *fail_one(struct rig *r, const struct faulty *f,
			    unsigned int nth, unsigned int *left)
{
	unsigned int before, expected, after;
	const char *why;
	int err;

	forget_results(r);
	why = f->before(r);
	if (why)
		return why;
	forget_results(r);
	before = count_files();
	why = faults_start(r->fail_nth, nth);
	if (why)
		return why;
	err = f->call(r);
	*left = faults_end(r->fail_nth);
	after = count_files();
	expected = err ? before : before + f->fds;
	if (after != expected)
		return wrong("%u descriptors instead of %u after %s", after,
			     expected, strerror(-err));
	if (err) {
		if (*left)
			return wrong("%s without a fault", strerror(-err));
		if (err != -ENOMEM && err != -f->other_errno)
			return wrong("%s instead of ENOMEM", strerror(-err));
		why = expect_no_results(r);
		if (why)
			return why;
		forget_results(r);
		err = f->call(r);
		if (err)
			return wrong("%s in the second try", strerror(-err));
		after = count_files();
		if (after != before + f->fds)
			return wrong("%u descriptors instead of %u", after,
				     before + f->fds);
	}
	return f->after(r);
}

static void fail_each(struct __test_metadata *_metadata, struct rig *r,
		      const struct faulty *f)
{
	unsigned int nth, left, all, failed = 0, missed = 0, step = 1;
	const char *why;
	__u64 start, one;

	/* for what is allocated only once; to count; and for the time */
	ASSERT_FINE(fail_one(r, f, 0, &left));
	start = now_ns();
	ASSERT_FINE(fail_one(r, f, MANY_ALLOCATIONS, &left));
	one = now_ns() - start;
	all = MANY_ALLOCATIONS - left;
	/* all of them, or as many as the time is good for */
	if (all * one > 4 * seconds * NSEC_PER_SEC)
		step = all * one / (4 * seconds * NSEC_PER_SEC) + 1;

	/* a call now and then is happy with less than others: that is no end */
	for (nth = 1; nth <= all || missed < 3;
	     nth += draw(&r->random, 1, 2 * step - 1)) {
		why = fail_one(r, f, nth, &left);
		ASSERT_EQ(NULL, why)
			TH_LOG("allocation %u of %u fails: %s", nth, all, why);
		if (left) {
			missed++;
		} else {
			missed = 0;
			failed++;
		}
	}
	atomic_fetch_add(&figures.faults, failed);
	TH_LOG("power: %u of about %u allocations failed, one in %u, seed %u, %llu ms",
	       failed, all, step, seed, (now_ns() - start) / NSEC_PER_MSEC);
	SHOW_FIGURES();
	EXPECT_POWER(failed);
}

static void fail_prepare(struct __test_metadata *_metadata, struct rig *r,
			 const struct faulty *f)
{
	const char *why;

	if (!prepare(_metadata, r))
		return;
	if (f->vgem) {
		r->vgem = card_open("vgem");
		if (r->vgem < 0)
			SKIP(return, "no vgem: load the module");
	}
	if (f->syncobj) {
		r->drm = open_syncobj_device();
		if (r->drm < 0)
			SKIP(return, "no device has syncobjs");
	}
	r->hz = FAST_HZ;
	if (f->display)
		ASSERT_FINE(rig_start(r));
	/* Last: what it changes is only put back if nothing fails before the end. */
	why = faults_open(&r->fail_nth);
	if (why) {
		display_destroy(&r->d);
		SKIP(return, "%s", why);
	}
}

static void fail_finish(struct __test_metadata *_metadata, struct rig *r)
{
	faults_close(&r->fail_nth);
	sources_close(r);
	close_fd(&r->dmabuf);
	close_fd(&r->drm);
	EXPECT_FINE(display_destroy(&r->d));
	EXPECT_FINE(kmsg_check(r->kmsg));
}

FIXTURE_SETUP(no_memory)
{
	fail_prepare(_metadata, &self->r, &variant->faulty);
}

FIXTURE_TEARDOWN(no_memory)
{
	fail_finish(_metadata, &self->r);
}

TEST_F_TIMEOUT(no_memory, fail_each, CASE_SECONDS)
{
	fail_each(_metadata, &self->r, &variant->faulty);
}

/* ---- no memory for those that work for it ---- */

/*
 * The @nth allocation from now fails, of each of the kernel's threads that are bound
 * to no CPU: composers have those. 0: none does.
 */
static void kworkers_fail(unsigned int nth)
{
	char path[64], text[16];
	glob_t comms;
	size_t n;

	snprintf(text, sizeof(text), "%u", nth);
	glob("/proc/[0-9]*/comm", 0, NULL, &comms);
	for (n = 0; n < comms.gl_pathc; n++) {
		if (!file_contains(comms.gl_pathv[n], "kworker/u"))
			continue;
		snprintf(path, sizeof(path), "/proc/%lu/fail-nth",
			 strtoul(comms.gl_pathv[n] + strlen("/proc/"), NULL, 10));
		/* threads come and go */
		write_file(path, text);
	}
	globfree(&comms);
}

FIXTURE(no_memory_for_worker)
{
	struct rig r;
};

FIXTURE_SETUP(no_memory_for_worker)
{
	const struct faulty display = { .display = true };

	fail_prepare(_metadata, &self->r, &display);
}

FIXTURE_TEARDOWN(no_memory_for_worker)
{
	fail_finish(_metadata, &self->r);
}

/* What cannot be written says so, and the next one is written. */
TEST_F_TIMEOUT(no_memory_for_worker, writeback, CASE_SECONDS)
{
	unsigned int round, failed = 0;
	struct rig *r = &self->r;
	int err, status;
	bool ready;

	for (round = 0; round < 200 && failed < 10; round++) {
		ASSERT_FINE(settle(r));
		kworkers_fail(1 + round % 2);
		err = commit(r, WITH_WRITEBACK, NO_FENCE, 0);
		ready = !err && is_ready(r->writeback, POLLIN, WAIT_MS);
		kworkers_fail(0);
		ASSERT_EQ(0, err);
		ASSERT_TRUE(ready)
			TH_LOG("a writeback does not end if it has no memory");
		status = fence_status(r->writeback);
		close_fd(&r->writeback);
		if (status == -ENOMEM)
			failed++;
		else
			ASSERT_EQ(1, status);

		ASSERT_EQ(0, commit(r, WITH_WRITEBACK, NO_FENCE, 0));
		ASSERT_FINE(use_results(r, false));
	}
	TH_LOG("power: %u of %u writebacks had no memory", failed, round);
	EXPECT_POWER(failed);
}

/* ---- no time ---- */

static atomic_ulong alarms;

static void count_alarm(int signal)
{
	(void)signal;
	atomic_fetch_add(&alarms, 1);
}

static void set_timer(unsigned int first_us, unsigned int interval_us)
{
	const struct itimerval timer = {
		.it_value.tv_usec = first_us,
		.it_interval.tv_usec = interval_us,
	};

	setitimer(ITIMER_REAL, &timer, NULL);
}

/* No signal but that of the timer may come, and no other thread may take it. */
static void block_alarms(int how)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGALRM);
	pthread_sigmask(how, &set, NULL);
}

/* Somebody who signals the sources some time later. */
struct later {
	struct rig *r;
	unsigned int ms;
	pthread_t thread;
	bool started;
	char why[256];
};

static void *later_main(void *arg)
{
	struct later *l = arg;
	const char *why;

	sleep_ms(l->ms);
	why = sources_signal(l->r);
	if (why)
		snprintf(l->why, sizeof(l->why), "%s", why);
	return NULL;
}

static const char *later_start(struct later *l, struct rig *r, unsigned int ms)
{
	int err;

	memset(l, 0, sizeof(*l));
	l->r = r;
	l->ms = ms;
	block_alarms(SIG_BLOCK);
	err = pthread_create(&l->thread, NULL, later_main, l);
	block_alarms(SIG_UNBLOCK);
	l->started = !err;
	return err ? wrong("thread: %s", strerror(err)) : NULL;
}

static const char *later_end(struct later *l)
{
	if (l->started)
		pthread_join(l->thread, NULL);
	l->started = false;
	return l->why[0] ? wrong("%s", l->why) : NULL;
}

static struct later later;

FIXTURE(interrupted)
{
	struct rig r;
};

FIXTURE_VARIANT(interrupted)
{
	const char *(*before)(struct rig *r);
	int (*call)(struct rig *r);
	const char *(*after)(struct rig *r);
	unsigned int fds;
	int other_errno;	/* than EINTR */
};

/* A commit that blocks, of another thread; it has a rig of its own. */
struct waiter {
	struct rig r;
	unsigned int with;
	pthread_t thread;
	int err;
};

static void *waiter_main(void *arg)
{
	struct waiter *w = arg;

	forget_results(&w->r);
	w->err = commit(&w->r, w->with, w->r.merged[0], 0);
	return NULL;
}

static const char *waiter_start(struct waiter *w, const struct rig *r,
				unsigned int with)
{
	int err;

	w->r = *r;
	w->with = with;
	block_alarms(SIG_BLOCK);
	err = pthread_create(&w->thread, NULL, waiter_main, w);
	block_alarms(SIG_UNBLOCK);
	return err ? wrong("thread: %s", strerror(err)) : NULL;
}

static struct waiter waiter;

/* Another commit has the locks for a frame or two: the call waits for them. */
static const char *busy_before(struct rig *r)
{
	const char *why = settle(r);

	if (!why)
		why = waiter_start(&waiter, r, 0);
	sleep_ms(2);
	return why;
}

static const char *busy_after(struct rig *r)
{
	pthread_join(waiter.thread, NULL);
	if (waiter.err)
		return wrong("the other commit: %s", strerror(-waiter.err));
	return use_results(r, false);
}

FIXTURE_VARIANT_ADD(interrupted, commit)
{
	.before = busy_before,
	.call = call_commit,
	.after = busy_after,
	.fds = 1,
};

static const char *later_before(struct rig *r)
{
	const char *why = in_fence_before(r);

	return why ?: later_start(&later, r, draw(&r->random, 1, 60));
}

static const char *later_after(struct rig *r)
{
	const char *why = later_end(&later);

	sources_close(r);
	return why ?: use_results(r, false);
}

static int call_commit_waits(struct rig *r)
{
	return commit(r, WITH_OUT, r->merged[0], 0);
}

FIXTURE_VARIANT_ADD(interrupted, commit_in_fence)
{
	.before = later_before,
	.call = call_commit_waits,
	.after = later_after,
	.fds = 1,
};

static int poll_one(int fd, short events)
{
	struct pollfd p = { .fd = fd, .events = events };
	int n = poll(&p, 1, WAIT_MS);

	atomic_fetch_add(&tried_ioctls, 1);
	if (n < 0)
		return -errno;
	return n ? 0 : -ETIME;
}

static int call_poll_one(struct rig *r)
{
	return poll_one(r->merged[0], POLLIN);
}

FIXTURE_VARIANT_ADD(interrupted, poll)
{
	.before = later_before,
	.call = call_poll_one,
	.after = later_after,
};

static const char *later_dmabuf_before(struct rig *r)
{
	const char *why = export_fences_before(r);

	return why ?: later_start(&later, r, draw(&r->random, 1, 60));
}

static int call_poll_one_dmabuf(struct rig *r)
{
	return poll_one(r->dmabuf, POLLOUT);
}

static const char *later_dmabuf_after(struct rig *r)
{
	const char *why = later_after(r);

	return why ?: dmabuf_end(r);
}

FIXTURE_VARIANT_ADD(interrupted, poll_dmabuf)
{
	.before = later_dmabuf_before,
	.call = call_poll_one_dmabuf,
	.after = later_dmabuf_after,
};

static const char *flip_before(struct rig *r)
{
	r->flipped = false;
	return settle(r);
}

/* A page flip of old, and its event. */
static int call_flip(struct rig *r)
{
	struct drm_mode_crtc_page_flip flip = {
		.crtc_id = r->d.pipes[0].crtc,
		.fb_id = r->d.fb[r->flips & 1],
		.flags = DRM_MODE_PAGE_FLIP_EVENT,
	};
	struct drm_event_vblank event;
	int err;

	if (!r->flipped) {
		err = try_ioctl(r->d.fd, DRM_IOCTL_MODE_PAGE_FLIP, &flip);
		if (err)
			return err;
		r->flipped = true;
		r->flips++;
	}
	if (read(r->d.fd, &event, sizeof(event)) < 0)
		return -errno;
	return event.base.type == DRM_EVENT_FLIP_COMPLETE ? 0 : -EBADMSG;
}

static const char *flip_after(struct rig *r)
{
	return is_ready(r->d.fd, POLLIN, 0) ? "one event too many" : NULL;
}

FIXTURE_VARIANT_ADD(interrupted, flip)
{
	.before = flip_before,
	.call = call_flip,
	.after = flip_after,
	.other_errno = EBUSY,
};

FIXTURE_SETUP(interrupted)
{
	struct sigaction action = { .sa_handler = count_alarm };
	struct rig *r = &self->r;

	if (!prepare(_metadata, r))
		return;
	r->hz = NORMAL_HZ;
	ASSERT_EQ(0, sigaction(SIGALRM, &action, NULL));
	ASSERT_FINE(rig_start(r));
}

FIXTURE_TEARDOWN(interrupted)
{
	struct rig *r = &self->r;

	set_timer(0, 0);
	later_end(&later);
	sources_close(r);
	close_fd(&r->dmabuf);
	EXPECT_FINE(display_destroy(&r->d));
	EXPECT_FINE(kmsg_check(r->kmsg));
}

TEST_F_TIMEOUT(interrupted, and_again, CASE_SECONDS)
{
	unsigned int before, tries, rounds = 0, eintr = 0, refused = 0;
	struct rig *r = &self->r;
	__u64 end = now_ns() + seconds * NSEC_PER_SEC;
	int err;

	TH_LOG("seed %u", seed);
	while (time_left(end, eintr)) {
		forget_results(r);
		ASSERT_FINE(variant->before(r));
		forget_results(r);
		before = count_files();
		/* left alone after some tries, it has to succeed */
		for (tries = 0; ; tries++) {
			if (tries < 6)
				set_timer(draw(&r->random, 100, 50000),
					  draw(&r->random, 1000, 20000));
			err = variant->call(r);
			set_timer(0, 0);
			if (!err)
				break;
			ASSERT_TRUE(err == -EINTR ||
				    err == -variant->other_errno)
				TH_LOG("%s after %u tries", strerror(-err),
				       tries);
			ASSERT_TRUE(err != -EINTR || tries < 6)
				TH_LOG("interrupted by nothing");
			if (err == -EINTR)
				eintr++;
			else
				refused++;
			EXPECT_FINE(expect_no_results(r));
			EXPECT_EQ(before, count_files());
			ASSERT_GT(1000u, tries);
			if (err != -EINTR)
				sleep_ms(1);
		}
		EXPECT_EQ(before + variant->fds, count_files());
		ASSERT_FINE(variant->after(r));
		rounds++;
	}
	TH_LOG("power: %u calls, EINTR %u times, other errno %u times, %lu signals of the timer",
	       rounds, eintr, refused, atomic_load(&alarms));
	SHOW_FIGURES();
	EXPECT_POWER(rounds);
	EXPECT_POWER(eintr);
}

/* ---- no CPU ---- */

#define MAX_CPUS	256

/*
 * Another process gives the CPU back when this one is gone, however it ends: that
 * is when nobody has the other end of its pipe any more.
 */
struct guard {
	pid_t pid;
	int pipe;
};

static const char *guard_start(struct guard *g, const char *online)
{
	int ends[2];
	char byte;

	if (pipe2(ends, O_CLOEXEC))
		return wrong("pipe: %m");
	g->pid = fork();
	if (g->pid < 0)
		return wrong("fork: %m");
	if (!g->pid) {
		/* not in the group that the harness kills, and without files */
		setsid();
		dup2(ends[0], 0);
		syscall(__NR_close_range, 1, ~0u, 0);
		while (read(0, &byte, 1) < 0 && errno == EINTR)
			;
		_exit(write_file(online, "1") ? 1 : 0);
	}
	close(ends[0]);
	g->pipe = ends[1];
	return NULL;
}

static const char *guard_end(struct guard *g)
{
	int status;

	close_fd(&g->pipe);
	if (waitpid(g->pid, &status, 0) != g->pid || status)
		return wrong("cannot give the CPU back: status %#x", status);
	return NULL;
}

FIXTURE(no_cpu)
{
	struct rig r;
	struct guard guard;
	char online[64];	/* of the CPU that goes and comes */
};

FIXTURE_SETUP(no_cpu)
{
	struct rig *r = &self->r;
	unsigned int i;

	if (!prepare(_metadata, r))
		return;
	for (i = MAX_CPUS; !self->online[0] && --i;) {
		char path[64];

		snprintf(path, sizeof(path), CPUS "/cpu%u/online", i);
		if (file_contains(path, "1"))
			strcpy(self->online, path);
	}
	if (!self->online[0])
		SKIP(return, "no CONFIG_HOTPLUG_CPU or no second CPU: " CPUS "/cpuN/online");
	/* not for a root without power */
	if (access(self->online, W_OK))
		SKIP(return, "cannot take a CPU away: %s", strerror(errno));
	ASSERT_FINE(guard_start(&self->guard, self->online));
	r->hz = FAST_HZ;
	ASSERT_FINE(rig_start(r));
}

FIXTURE_TEARDOWN(no_cpu)
{
	struct rig *r = &self->r;

	EXPECT_FINE(guard_end(&self->guard));
	EXPECT_TRUE(file_contains(self->online, "1"));
	EXPECT_FINE(display_destroy(&r->d));
	EXPECT_FINE(kmsg_check(r->kmsg));
}

struct worker {
	struct rig rig;
	const char *(*work)(struct rig *r);
	atomic_bool *stop;
	pthread_t thread;
	atomic_ulong rounds;
	char why[256];
};

static void *worker_main(void *arg)
{
	struct worker *w = arg;
	const char *why = NULL;

	while (!why && !atomic_load(w->stop)) {
		why = w->work(&w->rig);
		atomic_fetch_add(&w->rounds, 1);
	}
	if (why)
		snprintf(w->why, sizeof(w->why), "%s", why);
	return NULL;
}

/* A commit with a fence, and one that waits for another. */
static const char *work_commit(struct rig *r)
{
	const char *why;
	int err;

	forget_results(r);
	err = commit(r, WITH_OUT, NO_FENCE, 0);
	if (err)
		return wrong("commit: %s", strerror(-err));
	why = use_results(r, false);
	if (!why)
		why = in_fence_before(r);
	if (why)
		return why;
	forget_results(r);
	err = call_commit_in_fence(r);
	if (err)
		return wrong("commit: %s", strerror(-err));
	return in_fence_after(r);
}

/* What sw_sync and merged fences say about themselves. */
static const char *read_names(struct rig *r)
{
	struct sync_fence_info fences[4] = {};
	struct sync_file_info info = {
		.num_fences = ARRAY_SIZE(fences),
		.sync_fence_info = (uintptr_t)fences,
	};
	unsigned int i;
	int err = try_ioctl(r->made, SYNC_IOC_FILE_INFO, &info);

	if (err)
		return wrong("FILE_INFO: %s", strerror(-err));
	if (info.num_fences != 4 || info.status)
		return wrong("%u fences of status %d", info.num_fences,
			     info.status);
	for (i = 0; i < info.num_fences; i++) {
		if (strcmp(fences[i].driver_name, "sw_sync"))
			return wrong("driver_name '%.32s'",
				     fences[i].driver_name);
	}
	atomic_fetch_add(&figures.names, 2 * info.num_fences);
	return NULL;
}

static const char *work_merge(struct rig *r)
{
	const char *why;
	int err;

	forget_results(r);
	why = arrays_before(r);
	if (why)
		return why;
	err = call_merge_arrays(r);
	if (err)
		return wrong("MERGE: %s", strerror(-err));
	why = read_names(r);
	return why ?: made_after(r);
}

/* Waits for the fence in the kernel, while somebody else signals it. */
static const char *work_wait(struct rig *r)
{
	struct later l;
	const char *why;

	forget_results(r);
	why = two_before(r);
	if (!why)
		why = sources_merge(r);
	if (!why)
		why = later_start(&l, r, draw(&r->random, 0, 5));
	if (why)
		return why;
	if (call_poll_one(r))
		why = "poll";
	if (later_end(&l))
		why = wrong("%s", l.why);
	sources_close(r);
	return why;
}

TEST_F_TIMEOUT(no_cpu, offline_and_online, CASE_SECONDS)
{
	static struct worker workers[3];
	unsigned int i, n = ARRAY_SIZE(workers), cycles = 0, refused = 0;
	atomic_bool stop;
	__u64 end;
	pid_t pid;
	int err, status;

	TH_LOG("seed %u, %s", seed, self->online);
	atomic_init(&stop, false);
	for (i = 0; i < n; i++) {
		rig_init(&workers[i].rig);
		workers[i].rig.random += i;
		workers[i].stop = &stop;
	}
	workers[0].rig = self->r;
	workers[0].work = work_commit;
	workers[1].work = work_merge;
	workers[2].work = work_wait;

	end = now_ns() + seconds * NSEC_PER_SEC;
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		close_fd(&self->guard.pipe);
		while (now_ns() < end) {
			if (work_merge(&workers[1].rig))
				_exit(1);
		}
		_exit(0);
	}
	for (i = 0; i < n; i++)
		ASSERT_EQ(0, pthread_create(&workers[i].thread, NULL,
					    worker_main, &workers[i]));
	while (time_left(end, cycles && atomic_load(&workers[0].rounds) &&
			 atomic_load(&workers[1].rounds) &&
			 atomic_load(&workers[2].rounds))) {
		err = write_file(self->online, "0");
		if (err == -EBUSY) {
			refused++;
			sleep_ms(10);
			continue;
		}
		EXPECT_EQ(0, err);
		sleep_ms(draw(&self->r.random, 0, 20));
		EXPECT_EQ(0, write_file(self->online, "1"));
		sleep_ms(draw(&self->r.random, 0, 50));
		if (err)
			break;
		cycles++;
	}
	atomic_store(&stop, true);
	for (i = 0; i < n; i++) {
		ASSERT_EQ(0, pthread_join(workers[i].thread, NULL));
		EXPECT_EQ(0, workers[i].why[0])
			TH_LOG("thread %u: %s", i, workers[i].why);
		EXPECT_POWER(workers[i].rounds);
	}
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);
	TH_LOG("power: CPU away %u times, refused %u times", cycles, refused);
	TH_LOG("power: %lu rounds of commits, %lu of merges, %lu of waits",
	       atomic_load(&workers[0].rounds),
	       atomic_load(&workers[1].rounds),
	       atomic_load(&workers[2].rounds));
	SHOW_FIGURES();
	EXPECT_POWER(cycles);
}

/* ---- no device ---- */

/*
 * Another process takes the device away when it is told to, since the kernel
 * may have to wait for this one before it is through.
 */
struct unplugger {
	pid_t pid;
	int sock;
	atomic_bool *going;	/* shared: it has begun, or is through */
};

struct unplug {
	char name[64];
	unsigned int delay_us;
};

static void unplugger_main(int sock, atomic_bool *going)
{
	struct unplug unplug;
	int err;

	while (read(sock, &unplug, sizeof(unplug)) == sizeof(unplug)) {
		if (unplug.delay_us)
			usleep(unplug.delay_us);
		atomic_store(going, true);
		err = instance_disable(unplug.name);
		if (write(sock, &err, sizeof(err)) != sizeof(err))
			break;
	}
	_exit(0);
}

/* Before there is a device: the other process shall have nothing of it. */
static const char *unplugger_start(struct unplugger *u)
{
	int sock[2];

	u->going = mmap(NULL, sizeof(*u->going), PROT_READ | PROT_WRITE,
			MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (u->going == MAP_FAILED)
		return wrong("mmap: %m");
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sock))
		return wrong("socketpair: %m");
	u->pid = fork();
	if (u->pid < 0)
		return wrong("fork: %m");
	if (!u->pid) {
		close(sock[0]);
		unplugger_main(sock[1], u->going);
	}
	close(sock[1]);
	u->sock = sock[0];
	return NULL;
}

static const char *unplug_start(struct unplugger *u, const struct display *d,
				unsigned int delay_us)
{
	struct unplug unplug = { .delay_us = delay_us };

	atomic_store(u->going, false);
	strcpy(unplug.name, d->name);
	if (write(u->sock, &unplug, sizeof(unplug)) != sizeof(unplug))
		return wrong("unplugger: %m");
	return NULL;
}

static const char *unplug_wait(struct unplugger *u)
{
	int err;

	/* the kernel waits for a frame up to ten seconds */
	if (!is_ready(u->sock, POLLIN, 30000))
		return "the device does not go";
	if (read(u->sock, &err, sizeof(err)) != sizeof(err))
		return wrong("unplugger: %m");
	atomic_fetch_add(&figures.unbinds, 1);
	return err ? wrong("enabled: %s", strerror(-err)) : NULL;
}

static const char *unplug_now(struct unplugger *u, const struct display *d)
{
	const char *why = unplug_start(u, d, 0);

	return why ?: unplug_wait(u);
}

/*
 * A device that stays, to use what the other one left. It has the name of the
 * process that makes it, so that must be another one.
 */
static const char *start_other(struct rig *r)
{
	struct rig *shared;
	int sock[2], status, fd;
	const char *why;
	pid_t pid;

	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		return wrong("mmap: %m");
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sock))
		return wrong("socketpair: %m");
	rig_init(shared);
	shared->hz = FAST_HZ;
	pid = fork();
	if (pid < 0)
		return wrong("fork: %m");
	if (!pid) {
		why = rig_start(shared);
		if (!why && !send_fd(sock[1], shared->d.fd))
			_exit(0);
		printf("# other device: %s\n", why ?: "not sent");
		fflush(stdout);
		_exit(1);
	}
	close(sock[1]);
	fd = receive_fd(sock[0]);
	close(sock[0]);
	waitpid(pid, &status, 0);
	*r = *shared;
	r->d.fd = fd;
	munmap(shared, sizeof(*shared));
	return status || fd < 0 ? "no other device" : NULL;
}

FIXTURE(unplugged)
{
	struct rig r, other;
	struct unplugger unplugger;
};

FIXTURE_SETUP(unplugged)
{
	struct rig *r = &self->r;

	rig_init(&self->other);
	self->other.d.fd = -1;
	self->unplugger.sock = -1;
	if (!prepare(_metadata, r))
		return;
	r->hz = FAST_HZ;
	ASSERT_FINE(unplugger_start(&self->unplugger));
	ASSERT_FINE(start_other(&self->other));
}

FIXTURE_TEARDOWN(unplugged)
{
	struct rig *r = &self->r;

	SHOW_FIGURES();
	close_fd(&self->unplugger.sock);
	if (self->unplugger.pid > 0)
		waitpid(self->unplugger.pid, NULL, 0);
	sources_close(r);
	close_fd(&r->dmabuf);
	EXPECT_FINE(display_destroy(&r->d));
	EXPECT_FINE(display_destroy(&self->other.d));
	EXPECT_FINE(kmsg_check(r->kmsg));
}

/*
 * Is this what a commit says while its device goes? ENODEV, or EINVAL since it has
 * lost a connector, or its CRTC is off.
 */
static bool is_going(const struct unplugger *u, int err)
{
	return atomic_load(u->going) && (err == -ENODEV || err == -EINVAL);
}

/* And when that is through? EINVAL is for the CRTC only, which stays off. */
static bool is_gone(const struct rig *r, int err)
{
	struct drm_mode_crtc crtc = { .crtc_id = r->d.pipes[0].crtc };

	if (err != -EINVAL)
		return err == -ENODEV;
	err = try_ioctl(r->d.fd, DRM_IOCTL_MODE_GETCRTC, &crtc);
	return err == -ENODEV || (!err && !crtc.mode_valid);
}

/* The DRM file of a device that is gone: everything fails, nothing crashes. */
static const char *use_old_file(struct rig *r)
{
	unsigned int before = count_files(), i;
	static const __u32 flags[] = {
		DRM_MODE_ATOMIC_TEST_ONLY,
		DRM_MODE_ATOMIC_NONBLOCK,
		DRM_MODE_ATOMIC_NONBLOCK | DRM_MODE_PAGE_FLIP_EVENT,
		0,
	};
	__s32 out = r->out, writeback = r->writeback;
	__u64 committed = r->committed;
	const char *why = NULL;
	int err;

	for (i = 0; !why && i < ARRAY_SIZE(flags); i++) {
		forget_results(r);
		err = commit(r, WITH_OUT | WITH_WRITEBACK, NO_FENCE, flags[i]);
		if (!is_gone(r, err))
			why = wrong("commit %#x without a device: %s", flags[i],
				    strerror(-err));
		else
			why = expect_no_results(r);
	}
	if (!why && is_ready(r->d.fd, POLLIN, 0))
		why = "an event after all of them";
	if (!why && count_files() != before)
		why = wrong("%u descriptors instead of %u", count_files(), before);
	r->out = out;
	r->writeback = writeback;
	r->committed = committed;
	return why;
}

/* Another device waits for a fence of the one that is gone, with its own. */
static const char *use_on_other(struct rig *other, int fence)
{
	struct sync_fence_info fences[2];
	struct sync_file_info info = {
		.num_fences = ARRAY_SIZE(fences),
		.sync_fence_info = (uintptr_t)fences,
	};
	const char *why;
	__s32 merged;
	int err;

	forget_results(other);
	err = commit(other, WITH_OUT, fence, 0);
	if (err)
		return wrong("IN_FENCE_FD elsewhere: %s", strerror(-err));
	err = merge_fds(fence, other->out, &merged);
	if (err)
		return wrong("MERGE: %s", strerror(-err));
	err = try_ioctl(merged, SYNC_IOC_FILE_INFO, &info);
	close(merged);
	if (err)
		return wrong("FILE_INFO: %s", strerror(-err));
	why = use_results(other, false);
	return why ?: settle(other);
}

/* A dma-buf of the device that is gone, of which only the memory is left. */
static const char *use_old_dmabuf(struct rig *r, struct rig *other)
{
	const char *why;
	__u32 handle;
	__s32 fence;
	int err;

	if (!is_ready(r->dmabuf, POLLOUT, WAIT_MS))
		return "the old dma-buf does not get ready";
	err = export_fences(r->dmabuf, &fence);
	if (err)
		return wrong("EXPORT_SYNC_FILE: %s", strerror(-err));
	/* of a timeline that has ended, or closed, and of the device */
	err = fence_status(fence);
	close(fence);
	if (err != 1 && err != -ENOENT && err != -ENODEV)
		return wrong("status %d of the fences of the old dma-buf", err);
	err = buffer_import(other->d.fd, r->dmabuf, &handle);
	if (err)
		return wrong("FD_TO_HANDLE elsewhere: %s", strerror(-err));
	why = buffer_close(other->d.fd, handle);
	close_fd(&r->dmabuf);
	return why;
}

/* Everything that the device left; its memory goes in the middle of that. */
static const char *use_what_is_left(struct rig *r, struct rig *other)
{
	struct fence pending[2] = { { .fd = r->out }, { .fd = r->writeback } };
	const char *why = NULL;
	unsigned int i;

	for (i = 0; !why && i < ARRAY_SIZE(pending); i++) {
		if (is_no_fd(pending[i].fd))
			continue;
		/* stop here: who touches it may crash */
		if (still_pending(&pending[i], 1, WAIT_MS))
			return wrong("%s fence still pending %u ms after its device has gone",
				     i ? "writeback" : "out", WAIT_MS);
		if (fence_status(pending[i].fd) == -ENODEV)
			r->lost++;
		why = use_on_other(other, pending[i].fd);
	}
	if (!why)
		why = use_old_file(r);
	if (!why)
		why = display_remove(&r->d);
	if (!why)
		why = use_old_file(r);
	if (!why && r->dmabuf >= 0)
		why = use_old_dmabuf(r, other);
	if (why)
		return why;
	display_close(&r->d);
	for (i = 0; !why && i < ARRAY_SIZE(pending); i++) {
		if (!is_no_fd(pending[i].fd))
			why = use_on_other(other, pending[i].fd);
	}
	return why ?: use_results(r, true);
}

/* With a dma-buf that has fences of a timeline, and of nobody. */
static const char *start_with_dmabuf(struct rig *r)
{
	const char *why = rig_start(r);

	forget_results(r);
	return why ?: dmabuf_create(r);
}

TEST_F(unplugged, before_commit)
{
	struct rig *r = &self->r;

	ASSERT_FINE(start_with_dmabuf(r));
	ASSERT_FINE(settle(r));
	ASSERT_FINE(unplug_now(&self->unplugger, &r->d));
	EXPECT_FINE(use_what_is_left(r, &self->other));
}

TEST_F(unplugged, after_test_only)
{
	struct rig *r = &self->r;

	ASSERT_FINE(start_with_dmabuf(r));
	ASSERT_EQ(0, call_commit_test_only(r));
	EXPECT_EQ(-1, r->out);
	EXPECT_EQ(-1, r->writeback);
	ASSERT_FINE(unplug_now(&self->unplugger, &r->d));
	EXPECT_TRUE(is_gone(r, call_commit_test_only(r)));
	EXPECT_TRUE(is_gone(r, call_commit_writeback(r)));
	EXPECT_FINE(expect_no_results(r));
	EXPECT_FINE(use_what_is_left(r, &self->other));
}

#define UNPLUG_MS	200	/* until the kernel is about to wait */

/* The commit waits for a fence when the device goes; then the fence signals. */
static void unplugged_waiting(struct __test_metadata *_metadata, struct rig *r,
			      struct rig *other, struct unplugger *u,
			      unsigned int with, bool abandon)
{
	ASSERT_FINE(start_with_dmabuf(r));
	ASSERT_FINE(in_fence_before(r));
	ASSERT_EQ(0, import_fence(r->dmabuf, r->merged[0]));
	ASSERT_EQ(0, commit(r, with, r->merged[0], DRM_MODE_ATOMIC_NONBLOCK));
	ASSERT_FINE(unplug_start(u, &r->d, 0));
	sleep_ms(UNPLUG_MS);
	EXPECT_EQ(0, fence_status(r->out));
	/* without its timelines, the fence that it waits for has an error */
	if (abandon)
		sources_close(r);
	else
		ASSERT_FINE(sources_end(r));
	ASSERT_FINE(unplug_wait(u));
	EXPECT_FINE(use_what_is_left(r, other));
}

TEST_F_TIMEOUT(unplugged, commit_waits, 60)
{
	unplugged_waiting(_metadata, &self->r, &self->other, &self->unplugger,
			  WITH_OUT, false);
}

TEST_F_TIMEOUT(unplugged, commit_waits_for_error, 60)
{
	unplugged_waiting(_metadata, &self->r, &self->other, &self->unplugger,
			  WITH_OUT, true);
}

TEST_F_TIMEOUT(unplugged, writeback_waits, 60)
{
	unplugged_waiting(_metadata, &self->r, &self->other, &self->unplugger,
			  WITH_OUT | WITH_WRITEBACK, false);
}

/* A commit that blocks has not begun to change anything, but holds locks. */
static void unplugged_blocking(struct __test_metadata *_metadata, struct rig *r,
			       struct rig *other, struct unplugger *u,
			       unsigned int with)
{
	ASSERT_FINE(start_with_dmabuf(r));
	ASSERT_FINE(in_fence_before(r));
	ASSERT_FINE(waiter_start(&waiter, r, with));
	sleep_ms(UNPLUG_MS);
	ASSERT_FINE(unplug_start(u, &r->d, 0));
	sleep_ms(UNPLUG_MS);
	ASSERT_FINE(sources_end(r));
	ASSERT_FINE(unplug_wait(u));
	ASSERT_EQ(0, pthread_join(waiter.thread, NULL));
	EXPECT_TRUE(!waiter.err || is_going(u, waiter.err))
		TH_LOG("commit: %s", strerror(-waiter.err));
	r->out = waiter.r.out;
	r->writeback = waiter.r.writeback;
	r->committed = waiter.r.committed;
	if (waiter.err)
		EXPECT_FINE(expect_no_results(r));
	EXPECT_FINE(use_what_is_left(r, other));
}

TEST_F_TIMEOUT(unplugged, commit_blocks, 60)
{
	unplugged_blocking(_metadata, &self->r, &self->other, &self->unplugger,
			   WITH_OUT);
}

TEST_F_TIMEOUT(unplugged, writeback_blocks, 60)
{
	unplugged_blocking(_metadata, &self->r, &self->other, &self->unplugger,
			   WITH_OUT | WITH_WRITEBACK);
}

/* An event is read from the DRM file, with or without a device. */
TEST_F(unplugged, event_unread)
{
	struct rig *r = &self->r;

	ASSERT_FINE(start_with_dmabuf(r));
	ASSERT_EQ(0, call_commit_event(r));
	ASSERT_TRUE(is_ready(r->d.fd, POLLIN, WAIT_MS));
	ASSERT_FINE(unplug_now(&self->unplugger, &r->d));
	EXPECT_FINE(flip_wait(&r->d, 1));
	EXPECT_FINE(use_what_is_left(r, &self->other));
}

TEST_F(unplugged, event_pending)
{
	struct rig *r = &self->r;

	r->hz = SLOW_HZ;
	ASSERT_FINE(start_with_dmabuf(r));
	ASSERT_FINE(settle(r));
	forget_results(r);
	ASSERT_EQ(0, call_commit_event(r));
	EXPECT_FALSE(is_ready(r->d.fd, POLLIN, 0));
	ASSERT_FINE(unplug_now(&self->unplugger, &r->d));
	EXPECT_FINE(flip_wait(&r->d, 1));
	EXPECT_FINE(use_what_is_left(r, &self->other));
}

/* Nobody reads the event, and the fence has its last reference elsewhere. */
TEST_F(unplugged, event_abandoned)
{
	struct rig *r = &self->r;

	r->hz = SLOW_HZ;
	ASSERT_FINE(start_with_dmabuf(r));
	ASSERT_FINE(settle(r));
	forget_results(r);
	ASSERT_EQ(0, call_commit_event(r));
	ASSERT_EQ(0, import_fence(r->dmabuf, r->out));
	ASSERT_FINE(unplug_start(&self->unplugger, &r->d, 0));
	close_fd(&r->out);
	display_close(&r->d);
	ASSERT_FINE(unplug_wait(&self->unplugger));
	EXPECT_FINE(display_remove(&r->d));
	EXPECT_FINE(use_old_dmabuf(r, &self->other));
}

/*
 * vkms looks for it once a frame, and then the device is not there any more. Where
 * that takes longer than a frame, it takes another try.
 */
static void unplug_lost(struct __test_metadata *_metadata, struct rig *r,
			struct unplugger *u)
{
	struct fence writeback;
	unsigned int late;

	r->hz = SLOW_HZ;
	for (late = 0; ; late++) {
		ASSERT_FINE(rig_start_writeback(r, &writeback));
		r->writeback = writeback.fd;
		r->committed = writeback.committed;
		ASSERT_FINE(dmabuf_create(r));
		ASSERT_EQ(0, import_fence(r->dmabuf, r->writeback));
		EXPECT_TRUE(!fence_status(r->writeback) ||
			    frame_passed(r->committed, SLOW_HZ));
		ASSERT_FINE(unplug_now(u, &r->d));
		if (!frame_passed(r->committed, SLOW_HZ) ||
		    !is_ready(r->writeback, POLLIN, 0) ||
		    fence_status(r->writeback) != 1)
			break;
		ASSERT_GT(MAX_LATE, late)
			TH_LOG("no power: all takes longer than a frame");
		close_fd(&r->writeback);
		close_fd(&r->dmabuf);
		display_close(&r->d);
		ASSERT_FINE(display_remove(&r->d));
	}
}

TEST_F_TIMEOUT(unplugged, writeback_pending, 180)
{
	struct rig *r = &self->r;

	unplug_lost(_metadata, r, &self->unplugger);
	/* who waits for a fence need not close the DRM file before */
	ASSERT_FINE(use_what_is_left(r, &self->other));
	EXPECT_EQ(1u, r->lost);
}

TEST_F_TIMEOUT(unplugged, writeback_pending_exported, 180)
{
	struct rig *r = &self->r;

	unplug_lost(_metadata, r, &self->unplugger);
	EXPECT_FINE(display_remove(&r->d));
	display_close(&r->d);
	/* nor a dma-buf, which may wait for the fence itself */
	ASSERT_FINE(expect_signaled(r->writeback, -ENODEV));
	EXPECT_FINE(use_old_dmabuf(r, &self->other));
	EXPECT_FINE(use_on_other(&self->other, r->writeback));
	EXPECT_FINE(use_results(r, true));
}

/* With all closed, the fence merged, and another device that waits for it. */
TEST_F(unplugged, writeback_awaited)
{
	struct rig *r = &self->r, *other = &self->other;
	struct fence writeback;
	__s32 merged;
	int status;

	r->hz = SLOW_HZ;
	ASSERT_FINE(rig_start_writeback(r, &writeback));
	ASSERT_FINE(settle(other));
	ASSERT_FINE(sources_open(r, 1));
	ASSERT_EQ(0, merge_fds(writeback.fd, r->sources[0], &merged));
	ASSERT_EQ(0, commit(other, WITH_OUT, merged, DRM_MODE_ATOMIC_NONBLOCK));
	ASSERT_EQ(0, close(writeback.fd));
	ASSERT_FINE(unplug_start(&self->unplugger, &r->d, 0));
	display_close(&r->d);
	ASSERT_FINE(unplug_wait(&self->unplugger));
	EXPECT_FINE(display_remove(&r->d));
	EXPECT_EQ(0, fence_status(merged));
	EXPECT_EQ(0, fence_status(other->out));
	EXPECT_FINE(sources_end(r));
	ASSERT_TRUE(is_ready(merged, POLLIN, WAIT_MS));
	/* an array has the error of what is in it, if that was watched */
	status = fence_status(merged);
	EXPECT_TRUE(status == 1 || status == -ENODEV || status == -ECANCELED)
		TH_LOG("status %d", status);
	close(merged);
	EXPECT_FINE(use_results(other, false));
}

/* Somewhere in everything that one does with a display. */
TEST_F_TIMEOUT(unplugged, any_time, CASE_SECONDS)
{
	unsigned int rounds = 0, commits = 0, refused = 0, late = 0;
	unsigned int closing = 0;
	struct rig *r = &self->r;
	__u64 end = now_ns() + 2 * seconds * NSEC_PER_SEC;
	unsigned int i, n, before;
	__s32 out[8], writeback[8];
	__u64 committed[8];
	int err;

	TH_LOG("seed %u", seed);
	before = count_files();
	while (time_left(end, commits && refused)) {
		bool close_first = draw(&r->random, 0, 2) == 0;
		bool waits = draw(&r->random, 0, 1);

		r->hz = draw(&r->random, 0, 1) ? FAST_HZ : NORMAL_HZ;
		ASSERT_FINE(start_with_dmabuf(r));
		ASSERT_FINE(unplug_start(&self->unplugger, &r->d,
					 draw(&r->random, 0, 60000)));
		if (waits)
			ASSERT_FINE(sources_open(r, 1));
		for (n = 0; n < ARRAY_SIZE(out);) {
			unsigned int with = draw(&r->random, 0, 1) ? WITH_OUT :
					    WITH_OUT | WITH_WRITEBACK;
			bool flags = draw(&r->random, 0, 1);

			/*
			 * The first waits for a fence. The device that goes
			 * meanwhile waits for the first, and keeps the locks
			 * that the second asks for: signal before that.
			 */
			if (waits && n) {
				usleep(draw(&r->random, 0, 5000));
				ASSERT_FINE(sources_end(r));
				waits = false;
			}
			forget_results(r);
			err = commit(r, with, waits ? r->sources[0] : NO_FENCE,
				     flags || waits ?
				     DRM_MODE_ATOMIC_NONBLOCK : 0);
			if (waits && err) {
				ASSERT_FINE(sources_end(r));
				waits = false;
			}
			if (err == -EBUSY) {
				usleep(500);
				continue;
			}
			if (is_going(&self->unplugger, err)) {
				EXPECT_FINE(expect_no_results(r));
				refused++;
				break;
			}
			ASSERT_EQ(0, err);
			committed[n] = r->committed;
			out[n] = r->out;
			writeback[n++] = r->writeback;
		}
		if (waits)
			ASSERT_FINE(sources_end(r));
		commits += n;
		late += n == ARRAY_SIZE(out);
		if (close_first) {
			display_close(&r->d);
			closing++;
		}
		ASSERT_FINE(unplug_wait(&self->unplugger));
		if (!close_first)
			EXPECT_FINE(use_old_file(r));
		EXPECT_FINE(display_remove(&r->d));
		EXPECT_FINE(use_old_dmabuf(r, &self->other));
		for (i = 0; i < n; i++) {
			if (i == n / 2)
				display_close(&r->d);
			EXPECT_FINE(use_on_other(&self->other, out[i]));
			r->committed = committed[i];
			r->out = out[i];
			r->writeback = writeback[i];
			ASSERT_FINE(use_results(r, true));
		}
		display_close(&r->d);
		EXPECT_EQ(before, count_files());
		rounds++;
	}
	TH_LOG("power: %u devices, %u commits, %u times the device went between them",
	       rounds, commits, refused);
	TH_LOG("power: %u times it went after them, %u files closed first",
	       late, closing);
	EXPECT_POWER(commits);
	EXPECT_POWER(refused);
}

/* ---- what was lost ---- */

static void find_leaks(struct __test_metadata *_metadata)
{
	const char *why = cannot_report_leaks();
	struct leaks leaks = { .kmemleak = !access(KMEMLEAK, F_OK) };

	if (why)
		SKIP(return, "%s", why);
	if (!leaks.kmemleak)
		SKIP(return, "no kmemleak: leaks can pass unseen");
	EXPECT_FINE(leaks_check(&leaks, 0));
}

FIXTURE(memory_after)
{
};

FIXTURE_SETUP(memory_after)
{
}

FIXTURE_TEARDOWN(memory_after)
{
}

TEST_F_TIMEOUT(memory_after, leaks, 120)
{
	find_leaks(_metadata);
}

/* ---- no memory for a device that comes or goes ---- */

static bool device_wanted(void)
{
	const char *var = getenv(DEVICE_VAR);

	return var && strcmp(var, "0");
}

FIXTURE(no_memory_for_device)
{
	struct rig r;
};

FIXTURE_VARIANT(no_memory_for_device)
{
	struct faulty faulty;
};

FIXTURE_SETUP(no_memory_for_device)
{
	if (!device_wanted())
		SKIP(return, "not asked for: " DEVICE_VAR "=1");
	fail_prepare(_metadata, &self->r, &variant->faulty);
}

FIXTURE_TEARDOWN(no_memory_for_device)
{
	fail_finish(_metadata, &self->r);
}

static const char *other_name(struct rig *r)
{
	snprintf(r->name, sizeof(r->name), "ksft-%.40s-%d-other",
		 program_invocation_short_name, getpid());
	return NULL;
}

/* It can be used, and goes. */
static const char *vkms_end(struct rig *r)
{
	int fd, err;

	fd = card_open(r->name);
	if (fd < 0)
		return wrong("cannot open the instance: %s", strerror(-fd));
	close(fd);
	err = instance_disable(r->name);
	if (!err)
		err = instance_remove(r->name);
	return err ? wrong("end of an instance: %s", strerror(-err)) : NULL;
}

static const char *vkms_enable_before(struct rig *r)
{
	int err;

	other_name(r);
	err = instance_configure(r->name, 1, true);
	return err ? wrong("configfs: %s", strerror(-err)) : NULL;
}

static int call_vkms_enable(struct rig *r)
{
	return instance_write(r->name, "enabled", "1");
}

FIXTURE_VARIANT_ADD(no_memory_for_device, vkms_enable)
{
	.faulty = {
		.before = vkms_enable_before,
		.call = call_vkms_enable,
		.after = vkms_end,
		.other_errno = ENODEV,	/* faux_device_create() does not tell */
	},
};

/* With a fence of each sort that is pending. */
static const char *vkms_disable_before(struct rig *r)
{
	const char *why;

	r->hz = NORMAL_HZ;
	why = rig_start(r);
	if (!why && commit(r, WITH_OUT | WITH_WRITEBACK, NO_FENCE,
			   DRM_MODE_ATOMIC_NONBLOCK))
		why = "commit";
	/* not what vkms_disable returns */
	r->merged[0] = r->out;
	r->merged[1] = r->writeback;
	return why;
}

static int call_vkms_disable(struct rig *r)
{
	return instance_disable(r->d.name);
}

static const char *vkms_disable_after(struct rig *r)
{
	const char *why;

	r->out = r->merged[0];
	r->writeback = r->merged[1];
	r->merged[0] = -1;
	r->merged[1] = -1;
	atomic_fetch_add(&figures.unbinds, 1);
	/* whatever the kernel did not get done, closing the file does */
	display_close(&r->d);
	why = display_remove(&r->d);
	return why ?: use_results(r, true);
}

FIXTURE_VARIANT_ADD(no_memory_for_device, vkms_disable)
{
	.faulty = {
		.before = vkms_disable_before,
		.call = call_vkms_disable,
		.after = vkms_disable_after,
	},
};

TEST_F_TIMEOUT(no_memory_for_device, fail_each, CASE_SECONDS)
{
	fail_each(_metadata, &self->r, &variant->faulty);
}

FIXTURE(memory_after_device)
{
};

FIXTURE_SETUP(memory_after_device)
{
}

FIXTURE_TEARDOWN(memory_after_device)
{
}

TEST_F_TIMEOUT(memory_after_device, leaks, 120)
{
	find_leaks(_metadata);
}

/* Last: where this one finds a bug, the kernel loses a thread, and configfs. */
FIXTURE(no_memory_for_configfs)
{
	struct rig r;
};

FIXTURE_VARIANT(no_memory_for_configfs)
{
	struct faulty faulty;
};

FIXTURE_SETUP(no_memory_for_configfs)
{
	if (!device_wanted())
		SKIP(return, "not asked for: " DEVICE_VAR "=1");
	fail_prepare(_metadata, &self->r, &variant->faulty);
}

FIXTURE_TEARDOWN(no_memory_for_configfs)
{
	fail_finish(_metadata, &self->r);
}

/* Several system calls, with nothing left where one of them fails. */
static int call_vkms_configure(struct rig *r)
{
	int err = instance_configure(r->name, 1, true);

	if (err) {
		faults_end(r->fail_nth);
		instance_remove(r->name);
	}
	return err;
}

static const char *vkms_configure_after(struct rig *r)
{
	int err = instance_write(r->name, "enabled", "1");

	return err ? wrong("enabled: %s", strerror(-err)) : vkms_end(r);
}

FIXTURE_VARIANT_ADD(no_memory_for_configfs, vkms_configure)
{
	.faulty = {
		.before = other_name,
		.call = call_vkms_configure,
		.after = vkms_configure_after,
	},
};

TEST_F_TIMEOUT(no_memory_for_configfs, fail_each, CASE_SECONDS)
{
	fail_each(_metadata, &self->r, &variant->faulty);
}

#define FAIL_PAGES	"/sys/kernel/debug/fail_page_alloc/"

static const char *put(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);
	ssize_t len = fd < 0 ? -1 : write(fd, text, strlen(text));

	close(fd);
	return len < 0 ? wrong("%s: %m", path) : NULL;
}

/* Lets no task that wants it have as much contiguous memory as four pages. */
static const char *fail_pages(bool on)
{
	static const char * const how[][2] = {
		{ "probability", "0" }, { "interval", "1" }, { "space", "0" },
		{ "times", "-1" }, { "verbose", "0" }, { "min-order", "2" },
		{ "task-filter", "Y" }, { "ignore-gfp-wait", "N" },
		{ "ignore-gfp-highmem", "N" }, { "probability", "100" },
	};
	const char *why = put("/proc/self/make-it-fail", on ? "1" : "0");
	char path[128];
	unsigned int i;

	if (!on)
		return why ?: put(FAIL_PAGES "probability", "0");
	for (i = 0; !why && i < sizeof(how) / sizeof(*how); i++) {
		snprintf(path, sizeof(path), FAIL_PAGES "%s", how[i][0]);
		why = put(path, how[i][1]);
	}
	return why;
}

/* Merges the fences two by two into the first, of a power of two. */
static const char *merge_all(int *fence, unsigned int n)
{
	unsigned int i;
	__s32 made;

	for (; n > 1; n /= 2) {
		for (i = 0; i < n / 2; i++) {
			made = UNTOUCHED;
			if (merge_fds(fence[2 * i], fence[2 * i + 1], &made))
				return wrong("merge: %m");
			close(fence[2 * i]);
			close(fence[2 * i + 1]);
			fence[i] = made;
		}
	}
	return NULL;
}

#define MANY_CONTEXTS	2048

TEST(many_contexts_in_pieces)
{
	int *timeline, *fence, dmabuf, kmsg, err[3];
	unsigned int i, half = MANY_CONTEXTS / 2;
	__s32 merged = UNTOUCHED, exported = UNTOUCHED;
	struct drm_gem_close gone = {};
	struct display d = {};
	const char *why;

	mount_debugfs();
	if (access(FAIL_PAGES, F_OK))
		SKIP(return, "no " FAIL_PAGES);
	if (allow_open_files(2 * MANY_CONTEXTS - 128) < 2 * MANY_CONTEXTS - 128)
		SKIP(return, "too few files");
	why = display_prepare(&d, &kmsg);
	if (why)
		SKIP(return, "%s", why);
	ASSERT_EQ(0, display_create(&d));
	ASSERT_FINE(buffer_create(d.fd, &gone.handle));
	ASSERT_EQ(0, buffer_export(d.fd, gone.handle, &dmabuf));

	timeline = calloc(MANY_CONTEXTS, sizeof(*timeline));
	fence = calloc(MANY_CONTEXTS, sizeof(*fence));
	ASSERT_TRUE(timeline && fence);
	for (i = 0; i < MANY_CONTEXTS; i++) {
		timeline[i] = timeline_open();
		fence[i] = timeline_fence(timeline[i], 1);
		ASSERT_LE(0, fence[i]);
		if (i % half == half - 1)
			ASSERT_FINE(merge_all(fence + i - (half - 1), half));
	}

	why = fail_pages(true);
	err[0] = merge_fds(fence[0], fence[half], &merged);
	err[1] = import_fence(dmabuf, merged);
	err[2] = export_fences(dmabuf, &exported);
	ASSERT_FINE(fail_pages(false));
	ASSERT_FINE(why);
	EXPECT_EQ(0, err[0]);
	EXPECT_EQ(0, err[1]);
	EXPECT_EQ(0, err[2]);

	EXPECT_FALSE(is_ready(exported, POLLIN, 0));
	for (i = 0; i < MANY_CONTEXTS; i++)
		timeline_inc(timeline[i], 1);
	EXPECT_TRUE(is_ready(exported, POLLIN, WAIT_MS));

	close(exported);
	close(merged);
	close(fence[0]);
	close(fence[half]);
	for (i = 0; i < MANY_CONTEXTS; i++)
		close(timeline[i]);
	close(dmabuf);
	ioctl(d.fd, DRM_IOCTL_GEM_CLOSE, &gone);
	EXPECT_FINE(display_destroy(&d));
	EXPECT_FINE(kmsg_check(kmsg));
	free(fence);
	free(timeline);
}

int main(int argc, char **argv)
{
	seconds = env_number("FENCE_FAULTS_SECONDS", DEFAULT_SECONDS, 1,
			     MAX_SECONDS);
	seed = env_number("FENCE_FAULTS_SEED",
			  now_ns() / NSEC_PER_MSEC % UINT_MAX, 0, UINT_MAX);
	return test_harness_run(argc, argv);
}
