// SPDX-License-Identifier: GPL-2.0
/*
 * What does it cost to ask a fence from userspace, to display frames, to wait
 * for each point of a timeline, and to take a device away?
 *
 * The program calls SYNC_IOC_FILE_INFO and poll() for fences of sw_sync, pending
 * and signaled, alone and from two CPUs at once. In a loop it polls 32 of them, of
 * which it signals and replaces one. It flips pages of vkms, with an out-fence and
 * an in-fence that is merged of two. It polls a sync_file that is merged of n, and
 * signals these; apart-n is what to signal takes when nobody waits. It waits for
 * each of n points of a syncobj with SYNCOBJ_EVENTFD, whose fences are of one
 * timeline of sw_sync, or of as many, and signals them; for points-n-late it waits
 * for the last point first, when all are there, and for points-n-oldest all but the
 * first have signaled by then. It merges two sync_files of n contexts each, imports
 * them into a buffer, one after the other, and exports what is there then. It makes
 * n points of a sync_file of 512 contexts, transfers the last of them to another
 * timeline, and imports it into a buffer. And it unbinds vkms devices that have one
 * CRTC and that have 16.
 * Each line of its output is a median; for frames, contexts and more than 100 points
 * it is one run. off and irqs are the most of all runs:
 *
 *	bench op=file-info-signaled kind=sw_sync ps=N
 *	bench op=frames kind=frame ps=N
 *	bench op=frames-cpu kind=frame ps=N
 *	bench op=merged-128-backwards kind=sync_file ps=N off=N irqs=N
 *	bench op=points-1000-backwards kind=syncobj ps=N off=N
 *	bench op=import-4096 kind=contexts ps=N
 *	bench op=transfer-50 kind=contexts ps=N
 *	bench op=unbind-16 kind=vkms ps=N gp=N waits=N
 *
 * in picoseconds per call; for two CPUs, of both together; for merged and points,
 * from the first signal to the last event of all, and for points-n-oldest from the
 * first wait. For frames, and for the loop that polls 32, it is the number of
 * instructions of all CPUs, times 1000. Without a PMU it is the time from one frame
 * to the next, and frames-cpu is what all processes and threads of the kernel ran
 * for each. off is how long interrupts were off at most, in picoseconds, where the
 * kernel has CONFIG_IRQSOFF_TRACER, and irqs how many interrupts there were for
 * irq_work. gp is how many RCU grace periods ended during the unbind, and waits how
 * often it waited for one, where the kernel has CONFIG_RCU_TRACE.
 *
 * It is no test: nothing fails because it is slow. It goes with the KUnit suite
 * dma-buf-fence-bench, for what that cannot call. Run it as root, on a kernel
 * with CONFIG_SW_SYNC, CONFIG_DRM_VKMS and a device that has syncobjs with
 * timelines, like virtio-gpu: ./fence_bench
 */
#define _GNU_SOURCE
#include <dirent.h>
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
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <drm/drm.h>
#include <linux/dma-buf.h>
#include <linux/perf_event.h>

#include "out_fence_util.h"

#define BATCHES		51
#define CALLS		200
#define UNBINDS		9
#define FRAMES		10000
#define POLLED		32
#define MAX_MERGED	128
#define RUNS		5
#define SHORT_POINTS	100
#define MAX_CPUS	256
#define MEMBERS		512

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

/* ---- frames ---- */

/* Counts what all CPUs execute, in user mode, in the kernel and in interrupts. */
static const char *instructions_start(int *counters, unsigned int cpus)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_HARDWARE,
		.size = sizeof(attr),
		.config = PERF_COUNT_HW_INSTRUCTIONS,
		.read_format = PERF_FORMAT_TOTAL_TIME_ENABLED |
			       PERF_FORMAT_TOTAL_TIME_RUNNING,
	};
	unsigned int i;

	for (i = 0; i < cpus; i++) {
		counters[i] = syscall(SYS_perf_event_open, &attr, -1, i, -1,
				      PERF_FLAG_FD_CLOEXEC);
		if (counters[i] < 0) {
			const char *why = wrong("no counter of instructions: %m");

			while (i--)
				close(counters[i]);
			return why;
		}
	}
	return NULL;
}

/* Returns 0 if there was no counter all the time. */
static __u64 instructions_end(int *counters, unsigned int cpus)
{
	struct { __u64 n, enabled, running; } count;
	bool complete = true;
	unsigned int i;
	__u64 all = 0;

	for (i = 0; i < cpus; i++) {
		if (read(counters[i], &count, sizeof(count)) != sizeof(count) ||
		    count.running != count.enabled)
			complete = false;
		all += count.n;
		close(counters[i]);
	}
	return complete ? all : 0;
}

/*
 * The time that all processes ran, and all threads of the kernel. Interrupts count
 * for whom they interrupt unless the kernel counts them apart, and for nobody if the
 * CPU was idle.
 */
static __u64 cpu_time_ns(void)
{
	DIR *proc = opendir("/proc");
	struct dirent *entry;
	struct timespec ran;
	clockid_t clock;
	__u64 all = 0;
	pid_t pid;

	while (proc && (entry = readdir(proc))) {
		pid = atoi(entry->d_name);
		if (pid > 0 && !clock_getcpuclockid(pid, &clock) &&
		    !clock_gettime(clock, &ran))
			all += ran.tv_sec * NSEC_PER_SEC + ran.tv_nsec;
	}
	if (proc)
		closedir(proc);
	return all;
}

/* What frames cost: instructions if they are counted, or else time. */
struct meter {
	unsigned int cpus;	/* with a counter */
	int counters[MAX_CPUS];
	__u64 start, cpu_start;
};

static const char *meter_start(struct meter *m)
{
	m->cpu_start = cpu_time_ns();
	m->start = now_ns();
	return instructions_start(m->counters, m->cpus);
}

static const char *meter_end(struct meter *m, const char *op)
{
	__u64 count = instructions_end(m->counters, m->cpus);
	__u64 ns = now_ns() - m->start, cpu_now = cpu_time_ns();

	if (m->cpus && !count)
		return "not all instructions were counted";
	/* by the clock a frame of vkms takes as long as a vblank */
	if (m->cpus || strcmp(op, "frames"))
		printf("bench op=%s kind=frame ps=%llu\n", op,
		       (m->cpus ? count : ns) * 1000 / FRAMES);
	/* without what ended meanwhile, and took its time along */
	if (!m->cpus && cpu_now > m->cpu_start)
		printf("bench op=%s-cpu kind=frame ps=%llu\n", op,
		       (cpu_now - m->cpu_start) * 1000 / FRAMES);
	return NULL;
}

/* Each frame one of many fences signals, and another one takes its place. */
static const char *bench_polls(struct meter *m)
{
	struct pollfd polled[POLLED];
	int timeline[POLLED];
	const char *why;
	unsigned int i, at;

	for (i = 0; i < POLLED; i++) {
		timeline[i] = timeline_open();
		polled[i].fd = timeline_fence(timeline[i], 1);
		polled[i].events = POLLIN;
		if (polled[i].fd < 0)
			return wrong("no fence of sw_sync: %m");
	}
	why = meter_start(m);
	for (i = 0; !why && i < FRAMES; i++) {
		at = i % POLLED;
		timeline_inc(timeline[at], 1);
		if (poll(polled, POLLED, WAIT_MS) != 1 || !polled[at].revents)
			why = "another fence has signaled, or none";
		close(polled[at].fd);
		polled[at].fd = timeline_fence(timeline[at], i / POLLED + 2);
		if (polled[at].fd < 0)
			why = wrong("no fence of sw_sync: %m");
	}
	why = why ?: meter_end(m, "poll-32");
	for (i = 0; i < POLLED; i++) {
		close(polled[i].fd);
		close(timeline[i]);
	}
	return why;
}

static int merge_fds(int fd, int fd2)
{
	struct sync_merge_data data = { .name = "merged", .fd2 = fd2 };

	return ioctl(fd, SYNC_IOC_MERGE, &data) ? -1 : data.fence;
}

static const char *frame_run(struct display *d, const int *timeline,
			     unsigned int frame)
{
	int fence[2], in, i, ret;
	__s32 out = -1;
	__u32 objects[] = { d->pipes[0].crtc, d->pipes[0].plane };
	__u32 counts[] = { 1, 2 };
	__u32 props[] = { d->out_fence_prop, d->fb_prop, d->in_fence_prop };
	__u64 values[] = { (uintptr_t)&out, d->fb[frame & 1], 0 };
	struct drm_mode_atomic atomic = {
		.flags = DRM_MODE_ATOMIC_NONBLOCK,
		.count_objs = 2,
		.objs_ptr = (uintptr_t)objects,
		.count_props_ptr = (uintptr_t)counts,
		.props_ptr = (uintptr_t)props,
		.prop_values_ptr = (uintptr_t)values,
	};

	for (i = 0; i < 2; i++)
		fence[i] = timeline_fence(timeline[i], frame + 1);
	in = merge_fds(fence[0], fence[1]);
	if (in < 0)
		return wrong("merge: %m");
	values[2] = in;
	/* EBUSY: the commit before has signaled, but is not through yet */
	do
		ret = ioctl(d->fd, DRM_IOCTL_MODE_ATOMIC, &atomic);
	while (ret && errno == EBUSY && !sched_yield());
	if (ret)
		return wrong("flip: %m");
	for (i = 0; i < 2; i++) {
		timeline_inc(timeline[i], 1);
		close(fence[i]);
	}
	close(in);
	if (!is_ready(out, POLLIN, WAIT_MS))
		return wrong("frame %u never came", frame);
	close(out);
	return NULL;
}

static const char *bench_flips(struct meter *m)
{
	int timeline[2] = { timeline_open(), timeline_open() };
	struct display d = {};
	const char *why;
	unsigned int i;
	int kmsg;

	why = display_prepare(&d, &kmsg);
	why = why ?: display_start(&d, FAST_HZ);
	why = why ?: meter_start(m);
	for (i = 0; !why && i < FRAMES; i++)
		why = frame_run(&d, timeline, i);
	why = why ?: meter_end(m, "frames");
	if (why)
		return why;
	close(timeline[0]);
	close(timeline[1]);
	close(kmsg);
	return display_destroy(&d);
}

static const char *bench_frames(void)
{
	struct meter m = { .cpus = sysconf(_SC_NPROCESSORS_ONLN) };
	const char *why;

	if (m.cpus > MAX_CPUS)
		return "too many CPUs";
	why = instructions_start(m.counters, m.cpus);
	if (why) {
		/* emulated, there is one only where QEMU counts them */
		printf("# frames by the clock: %s\n", why);
		m.cpus = 0;
	}
	instructions_end(m.counters, m.cpus);
	why = bench_polls(&m);
	return why ?: bench_flips(&m);
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

/* ---- interrupts ---- */

#define LATENCY	TRACING "/tracing_max_latency"

static bool longest_start(void)
{
	return put(TRACING "/current_tracer", "irqsoff", O_TRUNC) &&
	       put(LATENCY, "0", O_TRUNC);
}

/* Since longest_start(), which said @traced. */
static __u64 longest_end_us(bool traced)
{
	unsigned long long us = 0;
	FILE *file;

	if (!traced)
		return 0;
	file = fopen(LATENCY, "r");
	if (file && fscanf(file, "%llu", &us) != 1)
		us = 0;
	if (file)
		fclose(file);
	put(TRACING "/current_tracer", "nop", O_TRUNC);
	return us;
}

/* How many interrupts there were for irq_work. */
static __u64 count_irqs(void)
{
	FILE *file = fopen("/proc/interrupts", "r");
	unsigned long long n, all = 0;
	char line[512], *at, *end;

	while (file && fgets(line, sizeof(line), file)) {
		if (!strstr(line, "IRQ work interrupts"))
			continue;
		for (at = strchr(line, ':') + 1;; at = end) {
			n = strtoull(at, &end, 10);
			if (end == at)
				break;
			all += n;
		}
	}
	if (file)
		fclose(file);
	return all;
}

/* ---- runs ---- */

struct runs {
	unsigned int n;
	__u64 ns[RUNS];
	__u64 off_us;
	__u64 irqs;
};

static void runs_add(struct runs *runs, __u64 ns, __u64 off_us, __u64 irqs)
{
	runs->ns[runs->n++] = ns;
	if (off_us > runs->off_us)
		runs->off_us = off_us;
	if (irqs > runs->irqs)
		runs->irqs = irqs;
}

/* Goes to the line that has been begun. */
static void runs_print(struct runs *runs)
{
	printf(" ps=%llu", median(runs->ns, runs->n) * 1000);
	if (runs->off_us)
		printf(" off=%llu", runs->off_us * 1000000);
}

/* ---- many fences in a sync_file ---- */

/* The same as in the KUnit suite dma-buf-fence-bench. */
static unsigned int signaled_at(const char *order, unsigned int i,
				unsigned int n)
{
	if (!strcmp(order, "backwards"))
		return n - 1 - i;
	if (!strcmp(order, "shuffled"))
		return i * 37 % n;
	if (!strcmp(order, "inwards"))
		return i & 1 ? n - 1 - i / 2 : i / 2;
	return i;
}

static const char *apart_run(struct runs *runs, unsigned int n)
{
	int timeline[MAX_MERGED], fence[MAX_MERGED];
	__u64 start, ns;
	unsigned int i;

	for (i = 0; i < n; i++) {
		timeline[i] = timeline_open();
		fence[i] = timeline_fence(timeline[i], 1);
		if (fence[i] < 0)
			return wrong("no fence of sw_sync: %m");
	}

	start = now_ns();
	for (i = 0; i < n; i++)
		timeline_inc(timeline[i], 1);
	if (!is_ready(fence[n - 1], POLLIN, WAIT_MS))
		return "the fence never signaled";
	ns = now_ns() - start;

	runs_add(runs, ns, 0, 0);
	for (i = 0; i < n; i++) {
		close(fence[i]);
		close(timeline[i]);
	}
	return NULL;
}

static const char *merged_run(struct runs *runs, unsigned int n,
			      const char *order)
{
	int timeline[MAX_MERGED], fence, merged = -1, both;
	__u64 start, ns, irqs;
	unsigned int i;
	bool traced;

	for (i = 0; i < n; i++) {
		timeline[i] = timeline_open();
		fence = timeline_fence(timeline[i], 1);
		if (fence < 0)
			return wrong("no fence of sw_sync: %m");
		if (!i) {
			merged = fence;
			continue;
		}
		both = merge_fds(merged, fence);
		if (both < 0)
			return wrong("merge: %m");
		close(merged);
		close(fence);
		merged = both;
	}
	/* from here on it waits for its members */
	if (is_ready(merged, POLLIN, 0))
		return "the fence has signaled";

	irqs = count_irqs();
	traced = longest_start();
	start = now_ns();
	for (i = 0; i < n; i++)
		timeline_inc(timeline[signaled_at(order, i, n)], 1);
	if (!is_ready(merged, POLLIN, WAIT_MS))
		return "the fence never signaled";
	ns = now_ns() - start;
	irqs = count_irqs() - irqs;

	runs_add(runs, ns, longest_end_us(traced), irqs);
	close(merged);
	for (i = 0; i < n; i++)
		close(timeline[i]);
	return NULL;
}

static const char *bench_merged(void)
{
	static const char * const orders[] = { "forwards", "backwards",
					       "shuffled", "inwards" };
	static const unsigned int sizes[] = { 8, 16, MAX_MERGED };
	const char *why = NULL;
	unsigned int i, order, n;
	struct runs runs;

	for (i = 0; i < 3; i++) {
		n = sizes[i];
		for (order = 0; order < 4; order++) {
			memset(&runs, 0, sizeof(runs));
			while (!why && runs.n < RUNS)
				why = merged_run(&runs, n, orders[order]);
			if (why)
				return why;
			printf("bench op=merged-%u-%s kind=sync_file", n,
			       orders[order]);
			runs_print(&runs);
			printf(" irqs=%llu\n", runs.irqs);
		}
		memset(&runs, 0, sizeof(runs));
		while (!why && runs.n < RUNS)
			why = apart_run(&runs, n);
		if (why)
			return why;
		printf("bench op=apart-%u kind=sync_file", n);
		runs_print(&runs);
		printf("\n");
	}
	return NULL;
}

/* ---- points of a timeline ---- */

static int point_wait(int drm, __u32 timeline, __u64 point, int event)
{
	struct drm_syncobj_eventfd wait = {
		.handle = timeline,
		.point = point,
		.fd = event,
	};

	return ioctl(drm, DRM_IOCTL_SYNCOBJ_EVENTFD, &wait);
}

static int point_copy(int drm, __u32 src, __u64 src_point, __u32 dst,
		      __u64 dst_point)
{
	struct drm_syncobj_transfer transfer = {
		.src_handle = src,
		.src_point = src_point,
		.dst_handle = dst,
		.dst_point = dst_point,
	};

	return ioctl(drm, DRM_IOCTL_SYNCOBJ_TRANSFER, &transfer);
}

static const char *syncobj_destroy(int drm, __u32 handle)
{
	struct drm_syncobj_destroy gone = { .handle = handle };

	return ioctl(drm, DRM_IOCTL_SYNCOBJ_DESTROY, &gone) ?
	       wrong("cannot destroy a syncobj: %m") : NULL;
}

/* Adds @fence to the timeline, and takes it over. */
static const char *point_add(int drm, __u32 timeline, __u32 binary, int fence,
			     __u64 point)
{
	struct drm_syncobj_handle import = {
		.handle = binary,
		.flags = DRM_SYNCOBJ_FD_TO_HANDLE_FLAGS_IMPORT_SYNC_FILE,
		.fd = fence,
	};
	bool failed;

	failed = ioctl(drm, DRM_IOCTL_SYNCOBJ_FD_TO_HANDLE, &import) ||
		 point_copy(drm, binary, 0, timeline, point);
	close(fence);
	return failed ? wrong("point %llu: %m", point) : NULL;
}

/*
 * Signals @n fences of @timelines, with one call if that is one, else the first or
 * the last before the others. @name is the order; late is one call as well, and the
 * waits come last, backwards. So they do for oldest, when all but the first have
 * signaled. A syncobj has each link then: if only the timeline had them, the first
 * wait would unlink them all.
 */
static const char *points_run(struct runs *runs, int drm, unsigned int n,
			      unsigned int timelines, const char *name)
{
	bool backwards = !strcmp(name, "backwards");
	bool late = !strcmp(name, "late");
	bool oldest = !strcmp(name, "oldest");
	struct drm_syncobj_create timeline = {}, binary = {}, *links;
	__u64 start, ns, got, seen = 0;
	const char *why = NULL;
	unsigned int i;
	bool traced;
	int *sync;
	int event;

	sync = calloc(timelines, sizeof(*sync));
	links = calloc(n, sizeof(*links));
	event = eventfd(0, EFD_CLOEXEC);
	if (!sync || !links || event < 0 ||
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
		why = point_add(drm, timeline.handle, binary.handle, fence, i + 1);
		if (!why && oldest &&
		    (ioctl(drm, DRM_IOCTL_SYNCOBJ_CREATE, &links[i]) ||
		     point_copy(drm, timeline.handle, i + 1, links[i].handle, 0)))
			why = wrong("link %u: %m", i + 1);
		if (!why && !late && !oldest &&
		    point_wait(drm, timeline.handle, i + 1, event))
			why = wrong("point %u: %m", i + 1);
	}
	for (i = 1; oldest && i < n; i++)
		timeline_inc(sync[i], 1);
	for (i = n; !why && late && i > 0; i--) {
		if (point_wait(drm, timeline.handle, i, event))
			why = wrong("point %u: %m", i);
	}
	if (why)
		return why;

	traced = longest_start();
	start = now_ns();
	for (i = n; !why && oldest && i > 0; i--) {
		if (point_wait(drm, links[i - 1].handle, 0, event))
			why = wrong("link %u: %m", i);
	}
	if (why)
		return why;
	if (timelines == 1 || oldest) {
		timeline_inc(sync[0], oldest ? 1 : n);
	} else {
		for (i = 0; i < n; i++)
			timeline_inc(sync[backwards ? n - 1 - i : i], 1);
	}
	while (seen < n && is_ready(event, POLLIN, WAIT_MS) &&
	       read(event, &got, sizeof(got)) == sizeof(got))
		seen += got;
	ns = now_ns() - start;
	if (seen != n)
		return wrong("%llu of %u events", seen, n);

	runs_add(runs, ns, longest_end_us(traced), 0);

	for (i = 0; i < timelines; i++)
		close(sync[i]);
	free(sync);
	close(event);
	for (i = 0; !why && oldest && i < n; i++)
		why = syncobj_destroy(drm, links[i].handle);
	free(links);
	why = why ?: syncobj_destroy(drm, timeline.handle);
	return why ?: syncobj_destroy(drm, binary.handle);
}

static const char *bench_points(void)
{
	static const unsigned int sizes[] = { 100, 400, 1000, 4000 };
	static const char * const orders[] = { "at-once", "forwards", "backwards",
					       "late", "oldest" };
	static const struct rlimit files = { 8192, 8192 };
	unsigned int i, order, n, times;
	const char *why = NULL;
	struct runs runs;
	bool one;
	int drm;

	drm = open_syncobj_device();
	if (drm < 0)
		return wrong("no device that has syncobjs with timelines");
	if (setrlimit(RLIMIT_NOFILE, &files))
		return wrong("cannot open %llu files: %m",
			     (unsigned long long)files.rlim_cur);
	for (i = 0; !why && i < sizeof(sizes) / sizeof(*sizes); i++) {
		n = sizes[i];
		times = n > SHORT_POINTS ? 1 : RUNS;
		/* with very many, how far bottom halves have got is chance */
		for (order = 0; !why && order < (n > 1000 ? 4 : 5); order++) {
			one = order == 0 || order == 3;
			memset(&runs, 0, sizeof(runs));
			while (!why && runs.n < times)
				why = points_run(&runs, drm, n, one ? 1 : n,
						 orders[order]);
			if (why)
				break;
			printf("bench op=points-%u-%s kind=syncobj", n,
			       orders[order]);
			runs_print(&runs);
			printf("\n");
			fflush(stdout);
		}
	}
	close(drm);
	return why;
}

/* ---- very many contexts ---- */

/* One sync_file of @n contexts, merged two by two; -1 if there can be none. */
static int merge_many(int *timeline, unsigned int n)
{
	unsigned int i, left = n;
	int *fence, merged;

	fence = calloc(n, sizeof(*fence));
	for (i = 0; fence && i < n; i++) {
		timeline[i] = timeline_open();
		fence[i] = timeline_fence(timeline[i], 1);
		if (fence[i] < 0)
			return -1;
	}
	while (fence && left > 1) {
		for (i = 0; i < left / 2; i++) {
			merged = merge_fds(fence[2 * i], fence[2 * i + 1]);
			if (merged < 0)
				return -1;
			close(fence[2 * i]);
			close(fence[2 * i + 1]);
			fence[i] = merged;
		}
		left /= 2;
	}
	merged = fence ? fence[0] : -1;
	free(fence);
	return merged;
}

static void print_contexts(const char *op, unsigned int n, __u64 start)
{
	printf("bench op=%s-%u kind=contexts ps=%llu\n", op, n,
	       (now_ns() - start) * 1000);
}

static const char *contexts_run(int drm, unsigned int n)
{
	struct dma_buf_import_sync_file in = { .flags = DMA_BUF_SYNC_RW };
	struct dma_buf_export_sync_file out = { .flags = DMA_BUF_SYNC_RW };
	struct drm_gem_close gone = {};
	const char *why;
	int *timeline, fence[2], both, dmabuf;
	unsigned int i;
	__u64 start;

	timeline = calloc(2 * n, sizeof(*timeline));
	if (!timeline)
		return "no memory";
	for (i = 0; i < 2; i++) {
		fence[i] = merge_many(timeline + i * n, n);
		if (fence[i] < 0)
			return wrong("cannot merge %u fences: %m", n);
	}
	why = buffer_create(drm, &gone.handle);
	if (!why && buffer_export(drm, gone.handle, &dmabuf))
		why = "cannot export a buffer";
	if (why)
		return why;

	start = now_ns();
	both = merge_fds(fence[0], fence[1]);
	if (both < 0)
		return wrong("merge: %m");
	print_contexts("merge", n, start);
	for (i = 0; i < 2; i++) {
		in.fd = fence[i];
		start = now_ns();
		if (ioctl(dmabuf, DMA_BUF_IOCTL_IMPORT_SYNC_FILE, &in))
			return wrong("import: %m");
		print_contexts(i ? "import-more" : "import", n, start);
	}
	start = now_ns();
	if (ioctl(dmabuf, DMA_BUF_IOCTL_EXPORT_SYNC_FILE, &out))
		return wrong("export: %m");
	print_contexts("export", n, start);
	fflush(stdout);

	close(out.fd);
	close(both);
	close(dmabuf);
	ioctl(drm, DRM_IOCTL_GEM_CLOSE, &gone);
	for (i = 0; i < 2; i++)
		close(fence[i]);
	for (i = 0; i < 2 * n; i++)
		close(timeline[i]);
	free(timeline);
	return NULL;
}

/* Each of @n points is of the same MEMBERS contexts. */
static const char *repeats_run(int drm, int vkms, unsigned int n)
{
	struct dma_buf_import_sync_file in = { .flags = DMA_BUF_SYNC_RW };
	struct drm_syncobj_create timeline = {}, binary = {}, other = {};
	struct drm_syncobj_handle out = {
		.flags = DRM_SYNCOBJ_HANDLE_TO_FD_FLAGS_EXPORT_SYNC_FILE,
	};
	struct drm_gem_close gone = {};
	int sync[MEMBERS], merged, dmabuf;
	const char *why;
	unsigned int i;
	__u64 start;

	merged = merge_many(sync, MEMBERS);
	if (merged < 0)
		return wrong("cannot merge %u fences: %m", MEMBERS);
	if (ioctl(drm, DRM_IOCTL_SYNCOBJ_CREATE, &timeline) ||
	    ioctl(drm, DRM_IOCTL_SYNCOBJ_CREATE, &binary) ||
	    ioctl(drm, DRM_IOCTL_SYNCOBJ_CREATE, &other))
		return wrong("cannot make a syncobj: %m");
	why = buffer_create(vkms, &gone.handle);
	if (!why && buffer_export(vkms, gone.handle, &dmabuf))
		why = "cannot export a buffer";
	for (i = 1; !why && i <= n; i++)
		why = point_add(drm, timeline.handle, binary.handle, dup(merged), i);
	if (why)
		return why;

	start = now_ns();
	if (point_copy(drm, timeline.handle, n, other.handle, 1))
		return wrong("transfer: %m");
	print_contexts("transfer", n, start);

	out.handle = binary.handle;
	if (point_copy(drm, timeline.handle, n, binary.handle, 0) ||
	    ioctl(drm, DRM_IOCTL_SYNCOBJ_HANDLE_TO_FD, &out))
		return wrong("cannot export a point: %m");
	in.fd = out.fd;
	start = now_ns();
	if (ioctl(dmabuf, DMA_BUF_IOCTL_IMPORT_SYNC_FILE, &in))
		return wrong("import: %m");
	print_contexts("import-points", n, start);
	fflush(stdout);

	close(out.fd);
	close(dmabuf);
	ioctl(vkms, DRM_IOCTL_GEM_CLOSE, &gone);
	close(merged);
	for (i = 0; i < MEMBERS; i++)
		close(sync[i]);
	why = syncobj_destroy(drm, timeline.handle);
	why = why ?: syncobj_destroy(drm, binary.handle);
	return why ?: syncobj_destroy(drm, other.handle);
}

static const char *bench_contexts(void)
{
	static const unsigned int sizes[] = { 256, 1024, 4096 };
	static const struct rlimit files = { 16384, 16384 };
	int drm = open_syncobj_device();
	struct display d = {};
	const char *why;
	unsigned int i;
	int kmsg;

	if (setrlimit(RLIMIT_NOFILE, &files))
		return wrong("cannot open %llu files: %m",
			     (unsigned long long)files.rlim_cur);
	why = display_prepare(&d, &kmsg);
	if (!why && display_create(&d))
		why = "no vkms";
	for (i = 0; !why && i < sizeof(sizes) / sizeof(*sizes); i++)
		why = contexts_run(d.fd, sizes[i]);
	if (!why && drm < 0)
		why = "no device that has syncobjs with timelines";
	for (i = 10; !why && i <= 50; i += 40)
		why = repeats_run(drm, d.fd, i);
	close(drm);
	close(kmsg);
	return why ?: display_destroy(&d);
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
	if (!why && access("/sys/kernel/config/vkms", F_OK))
		why = "vkms has no configfs";
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
	why = bench_frames();
	if (why)
		skipped += printf("# SKIP frames: %s\n", why);
	why = bench_merged();
	if (why)
		skipped += printf("# SKIP merged: %s\n", why);
	why = bench_points();
	if (why)
		skipped += printf("# SKIP points: %s\n", why);
	why = bench_contexts();
	if (why)
		skipped += printf("# SKIP contexts: %s\n", why);
	why = bench_unbind(1);
	if (!why)
		why = bench_unbind(16);
	if (why)
		skipped += printf("# SKIP unbind: %s\n", why);
	return skipped ? KSFT_SKIP : KSFT_PASS;
}
