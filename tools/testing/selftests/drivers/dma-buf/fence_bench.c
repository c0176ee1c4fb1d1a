// SPDX-License-Identifier: GPL-2.0
/*
 * What does it cost to ask a fence from userspace, to wait for each point of a
 * timeline, and to take a device away?
 *
 * The program calls SYNC_IOC_FILE_INFO and poll() for fences of sw_sync, pending
 * and signaled, alone and from two CPUs at once. It waits for each of n points of
 * a syncobj with SYNCOBJ_EVENTFD, whose fences are of one timeline of sw_sync, or
 * of as many, and signals them. And it unbinds vkms devices that have one CRTC
 * and that have 16. Each line of its output is a median, or for points one run:
 *
 *	bench op=file-info-signaled kind=sw_sync ps=N
 *	bench op=points-1000-backwards kind=syncobj ps=N off=N
 *	bench op=unbind-16 kind=vkms ps=N gp=N waits=N
 *
 * in picoseconds per call; for two CPUs, of both together; for points, from the
 * first signal to the last event of all. off is how long interrupts were off at
 * most, in picoseconds, where the kernel has CONFIG_IRQSOFF_TRACER. gp is how many
 * RCU grace periods ended during the unbind, and waits how often it waited for
 * one, where the kernel has CONFIG_RCU_TRACE.
 *
 * It is no test: nothing fails because it is slow. It goes with the KUnit suite
 * dma-buf-fence-bench, for what that cannot call. Run it as root, on a kernel
 * with CONFIG_SW_SYNC, CONFIG_DRM_VKMS and a device that has syncobjs with
 * timelines, like virtio-gpu: ./fence_bench
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <unistd.h>

#include <drm/drm.h>

#include "out_fence_util.h"

#define BATCHES		51
#define CALLS		200
#define UNBINDS		9

#define TRACING		"/sys/kernel/tracing"
#define GP_EVENT	TRACING "/events/rcu/rcu_grace_period/enable"
#define WAIT_EVENT	TRACING "/events/rcu/rcu_sr_normal/enable"

static int compare(const void *a, const void *b)
{
	__u64 x = *(const __u64 *)a, y = *(const __u64 *)b;

	return x < y ? -1 : x > y;
}

static __u64 median(__u64 *values, unsigned int n)
{
	qsort(values, n, sizeof(*values), compare);
	return values[n / 2];
}

/* ---- calls ---- */

static int file_info(int fd)
{
	struct sync_fence_info fence;
	struct sync_file_info info = {
		.num_fences = 1,
		.sync_fence_info = (uintptr_t)&fence,
	};

	return ioctl(fd, SYNC_IOC_FILE_INFO, &info);
}

static int poll_now(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return poll(&p, 1, 0) < 0;
}

struct worker {
	pthread_t thread;
	int (*call)(int fd);
	int fd;
	unsigned int cpu, n_workers;
	atomic_uint *arrived;
	__u64 start[BATCHES], end[BATCHES];
	bool failed;
};

static void *work(void *arg)
{
	struct worker *w = arg;
	unsigned int i, call;
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	CPU_SET(w->cpu, &cpus);
	w->failed = sched_setaffinity(0, sizeof(cpus), &cpus);
	for (i = 0; i < BATCHES; i++) {
		/* all begin together, in a loop: to be woken takes longer */
		atomic_fetch_add(w->arrived, 1);
		while (atomic_load(w->arrived) < (i + 1) * w->n_workers)
			;
		w->start[i] = now_ns();
		for (call = 0; call < CALLS; call++)
			w->failed |= w->call(w->fd);
		w->end[i] = now_ns();
	}
	return NULL;
}

static const char *bench_calls(const char *name, int (*call)(int fd), int fd,
			       unsigned int n_workers)
{
	static struct worker workers[2];
	__u64 first, last, ns[BATCHES];
	atomic_uint arrived = 0;
	bool failed = false;
	unsigned int i, b;

	for (i = 0; i < n_workers; i++) {
		workers[i] = (struct worker) {
			.call = call,
			.fd = fd,
			.cpu = i,
			.n_workers = n_workers,
			.arrived = &arrived,
		};
		if (pthread_create(&workers[i].thread, NULL, work, &workers[i]))
			return "cannot make a thread";
	}
	for (i = 0; i < n_workers; i++) {
		pthread_join(workers[i].thread, NULL);
		failed |= workers[i].failed;
	}
	if (failed)
		return wrong("%s: a call failed", name);

	for (b = 0; b < BATCHES; b++) {
		first = workers[0].start[b];
		last = workers[0].end[b];
		for (i = 1; i < n_workers; i++) {
			if (workers[i].start[b] < first)
				first = workers[i].start[b];
			if (workers[i].end[b] > last)
				last = workers[i].end[b];
		}
		ns[b] = last - first;
	}
	printf("bench op=%s%s kind=sw_sync ps=%llu\n",
	       n_workers > 1 ? "2cpu-" : "", name,
	       median(ns, BATCHES) * 1000 / CALLS / n_workers);
	return NULL;
}

static const char *bench_sw_sync(void)
{
	struct sw_sync_create_fence_data pending = { .value = 2 };
	struct sw_sync_create_fence_data signaled = { .value = 1 };
	unsigned int n, cpus = sysconf(_SC_NPROCESSORS_ONLN);
	const char *why = NULL;
	__u32 one = 1;
	int timeline;

	timeline = open(SW_SYNC, O_RDWR | O_CLOEXEC);
	if (timeline < 0)
		return wrong("no CONFIG_SW_SYNC: %s: %m", SW_SYNC);
	if (ioctl(timeline, SW_SYNC_IOC_CREATE_FENCE, &pending) ||
	    ioctl(timeline, SW_SYNC_IOC_CREATE_FENCE, &signaled) ||
	    ioctl(timeline, SW_SYNC_IOC_INC, &one))
		return wrong("sw_sync: %m");

	for (n = 1; !why && n <= 2 && n <= cpus; n++) {
		why = bench_calls("file-info-pending", file_info,
				  pending.fence, n);
		if (!why)
			why = bench_calls("file-info-signaled", file_info,
					  signaled.fence, n);
		if (!why)
			why = bench_calls("poll-pending", poll_now,
					  pending.fence, n);
		if (!why)
			why = bench_calls("poll-signaled", poll_now,
					  signaled.fence, n);
	}
	close(signaled.fence);
	close(pending.fence);
	close(timeline);
	return why;
}

/* ---- grace periods ---- */

static bool put(const char *path, const char *text, int flags)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC | flags);
	bool done;

	if (fd < 0)
		return false;
	done = write(fd, text, strlen(text)) == (ssize_t)strlen(text);
	close(fd);
	return done;
}

static bool count_start(void)
{
	return put(TRACING "/trace", "", O_TRUNC) && put(GP_EVENT, "1", 0) &&
	       put(WAIT_EVENT, "1", 0);
}

/*
 * The grace periods that ended since count_start(), and how often this process
 * waited for one. Such a wait sees the end of two if one was under way.
 */
static void count_end(__u64 *periods, __u64 *waits)
{
	char line[512], self[32];
	FILE *file;

	put(GP_EVENT, "0", 0);
	put(WAIT_EVENT, "0", 0);
	*periods = 0;
	*waits = 0;
	snprintf(self, sizeof(self), "-%d ", getpid());
	file = fopen(TRACING "/trace", "r");
	while (file && fgets(line, sizeof(line), file)) {
		if (strstr(line, " rcu_grace_period: ") &&
		    strstr(line, " end\n"))
			++*periods;
		if (strstr(line, " rcu_sr_normal: ") && strstr(line, self) &&
		    strstr(line, "event=request"))
			++*waits;
	}
	if (file)
		fclose(file);
}

/* ---- points of a timeline ---- */

#define LATENCY	TRACING "/tracing_max_latency"

static bool longest_start(void)
{
	return put(TRACING "/current_tracer", "irqsoff", O_TRUNC) &&
	       put(LATENCY, "0", O_TRUNC);
}

/* In picoseconds. */
static __u64 longest_end(void)
{
	unsigned long long us = 0;
	FILE *file = fopen(LATENCY, "r");

	if (!file || fscanf(file, "%llu", &us) != 1)
		us = 0;
	if (file)
		fclose(file);
	put(TRACING "/current_tracer", "nop", O_TRUNC);
	return us * 1000000;
}

/* Adds @fence to the timeline, takes it over, and waits for it with @event. */
static const char *point_add(int drm, __u32 timeline, __u32 binary, int fence,
			     __u64 point, int event)
{
	struct drm_syncobj_handle import = {
		.handle = binary,
		.flags = DRM_SYNCOBJ_FD_TO_HANDLE_FLAGS_IMPORT_SYNC_FILE,
		.fd = fence,
	};
	struct drm_syncobj_transfer transfer = {
		.src_handle = binary,
		.dst_handle = timeline,
		.dst_point = point,
	};
	struct drm_syncobj_eventfd wait = {
		.handle = timeline,
		.point = point,
		.fd = event,
	};
	bool failed;

	failed = ioctl(drm, DRM_IOCTL_SYNCOBJ_FD_TO_HANDLE, &import) ||
		 ioctl(drm, DRM_IOCTL_SYNCOBJ_TRANSFER, &transfer) ||
		 ioctl(drm, DRM_IOCTL_SYNCOBJ_EVENTFD, &wait);
	close(fence);
	return failed ? wrong("point %llu: %m", point) : NULL;
}

/*
 * Signals @n fences of @timelines, with one call if that is one, else the first or
 * the last before the others.
 */
static const char *points_run(int drm, unsigned int n, unsigned int timelines,
			      bool backwards, const char *name)
{
	struct drm_syncobj_create timeline = {}, binary = {};
	struct drm_syncobj_destroy gone[2] = {};
	__u64 start, ns, got, seen = 0, off = 0;
	const char *why = NULL;
	unsigned int i;
	bool traced;
	int *sync;
	int event;

	sync = calloc(timelines, sizeof(*sync));
	event = eventfd(0, EFD_CLOEXEC);
	if (!sync || event < 0 ||
	    ioctl(drm, DRM_IOCTL_SYNCOBJ_CREATE, &timeline) ||
	    ioctl(drm, DRM_IOCTL_SYNCOBJ_CREATE, &binary))
		return wrong("cannot make a syncobj: %m");
	for (i = 0; i < timelines; i++) {
		sync[i] = timeline_open();
		if (sync[i] < 0)
			return wrong("no timeline of sw_sync: %m");
	}
	for (i = 0; !why && i < n; i++) {
		int fence = timelines == 1 ? timeline_fence(sync[0], i + 1) :
					     timeline_fence(sync[i], 1);

		if (fence < 0)
			return wrong("no fence of sw_sync: %m");
		why = point_add(drm, timeline.handle, binary.handle, fence, i + 1,
				event);
	}
	if (why)
		return why;

	traced = longest_start();
	start = now_ns();
	if (timelines == 1) {
		timeline_inc(sync[0], n);
	} else {
		for (i = 0; i < n; i++)
			timeline_inc(sync[backwards ? n - 1 - i : i], 1);
	}
	while (seen < n && read(event, &got, sizeof(got)) == sizeof(got))
		seen += got;
	ns = now_ns() - start;
	if (traced)
		off = longest_end();
	if (seen != n)
		return wrong("%llu of %u events", seen, n);

	printf("bench op=points-%u-%s kind=syncobj ps=%llu", n, name, ns * 1000);
	if (traced)
		printf(" off=%llu", off);
	printf("\n");
	fflush(stdout);

	for (i = 0; i < timelines; i++)
		close(sync[i]);
	free(sync);
	close(event);
	gone[0].handle = timeline.handle;
	gone[1].handle = binary.handle;
	for (i = 0; i < 2; i++) {
		if (ioctl(drm, DRM_IOCTL_SYNCOBJ_DESTROY, &gone[i]))
			return wrong("cannot destroy a syncobj: %m");
	}
	return NULL;
}

static const char *bench_points(void)
{
	static const unsigned int sizes[] = { 100, 400, 1000, 4000 };
	static const struct rlimit files = { 8192, 8192 };
	const char *why = NULL;
	unsigned int i, n;
	int drm;

	drm = open_syncobj_device();
	if (drm < 0)
		return wrong("no device that has syncobjs with timelines");
	if (setrlimit(RLIMIT_NOFILE, &files))
		return wrong("cannot open %llu files: %m",
			     (unsigned long long)files.rlim_cur);
	for (i = 0; !why && i < sizeof(sizes) / sizeof(*sizes); i++) {
		n = sizes[i];
		why = points_run(drm, n, 1, false, "at-once");
		if (!why)
			why = points_run(drm, n, n, false, "forwards");
		if (!why)
			why = points_run(drm, n, n, true, "backwards");
	}
	close(drm);
	return why;
}

/* ---- a device that goes away ---- */

static const char *bench_unbind(unsigned int crtcs)
{
	struct display d = { .n_pipes = crtcs };
	__u64 start, ns[UNBINDS], periods[UNBINDS], waits[UNBINDS];
	const char *why = NULL;
	bool counts = true;
	unsigned int i;
	int kmsg;

	why = display_prepare(&d, &kmsg);
	for (i = 0; !why && i < UNBINDS; i++) {
		if (display_create(&d))
			return "cannot make a vkms instance";
		display_close(&d);
		/* the grace periods of those who made it are not meant */
		sleep_ms(200);
		counts = counts && count_start();
		start = now_ns();
		why = display_disable(&d);
		ns[i] = now_ns() - start;
		count_end(&periods[i], &waits[i]);
		if (!why)
			why = display_remove(&d);
	}
	if (why)
		return why;
	printf("bench op=unbind-%u kind=vkms ps=%llu", crtcs,
	       median(ns, UNBINDS) * 1000);
	if (counts)
		printf(" gp=%llu waits=%llu", median(periods, UNBINDS),
		       median(waits, UNBINDS));
	printf("\n");
	close(kmsg);
	return NULL;
}

int main(void)
{
	const char *why;
	int skipped = 0;

	if (access(GP_EVENT, F_OK))
		mount("none", TRACING, "tracefs", 0, NULL);
	why = bench_sw_sync();
	if (why)
		skipped += printf("# SKIP sw_sync: %s\n", why);
	why = bench_points();
	if (why)
		skipped += printf("# SKIP points: %s\n", why);
	why = bench_unbind(1);
	if (!why)
		why = bench_unbind(16);
	if (why)
		skipped += printf("# SKIP unbind: %s\n", why);
	return skipped ? KSFT_SKIP : KSFT_PASS;
}
