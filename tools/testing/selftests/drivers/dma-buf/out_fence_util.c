// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <glob.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <drm/drm.h>
#include <drm/drm_mode.h>

#include "out_fence_util.h"

#ifndef ARRAY_SIZE
#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))
#endif

#define CONFIGFS	"/sys/kernel/config"
#define VKMS		CONFIGFS "/vkms"

/*
 * A fence carries the time of its vblank. That can be one frame and the delay
 * of a timer before the commit that asked for it, but not in the future.
 */
#define TIMESTAMP_SLACK	(2 * NSEC_PER_SEC)

const char *wrong(const char *fmt, ...)
{
	static __thread char text[256];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	return text;
}

__u64 now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * NSEC_PER_SEC + ts.tv_nsec;
}

void sleep_ms(unsigned int ms)
{
	poll(NULL, 0, ms);
}

bool time_left(__u64 end, bool power)
{
	__u64 now = now_ns();

	return now < end || (!power && now < end + POWER_MS * NSEC_PER_MSEC);
}

bool frame_passed(__u64 start, unsigned int hz)
{
	return now_ns() - start >= NSEC_PER_SEC / hz;
}

atomic_ulong tried_ioctls;

int try_ioctl(int fd, unsigned long request, void *arg)
{
	atomic_fetch_add(&tried_ioctls, 1);
	return ioctl(fd, request, arg) < 0 ? -errno : 0;
}

void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

unsigned int count_files(void)
{
	unsigned int n = 0;
	DIR *dir;

	dir = opendir("/proc/self/fd");
	if (!dir)
		return 0;
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

bool is_ready(int fd, short events, unsigned int ms)
{
	struct pollfd p = { .fd = fd, .events = events };

	return poll(&p, 1, ms) == 1 && p.revents == events;
}

int write_file(const char *path, const char *text)
{
	int fd, err = 0;

	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (write(fd, text, strlen(text)) < 0)
		err = -errno;
	close(fd);
	return err;
}

__u64 env_number(const char *name, __u64 otherwise, __u64 low, __u64 high)
{
	const char *value = getenv(name);
	unsigned long long n;
	char *end;

	if (!value)
		return otherwise;
	errno = 0;
	n = strtoull(value, &end, 0);
	if (end != value && !*end && *value != '-' && !errno && n >= low &&
	    n <= high)
		return n;
	printf("Bail out! %s=%s is not a number from %llu to %llu\n", name,
	       value, (unsigned long long)low, (unsigned long long)high);
	exit(KSFT_FAIL);
}

void modprobe(const char *module, const char *param)
{
	pid_t pid = fork();

	if (!pid) {
		execlp("modprobe", "modprobe", "-q", module, param,
		       (char *)NULL);
		_exit(127);
	}
	if (pid > 0)
		waitpid(pid, NULL, 0);
}

/* ---- modules ---- */

static char module_path[PATH_MAX];
static char module_file[64];

/* Modules have underscores, and files of them have what their authors took. */
static bool is_module_file(const char *name)
{
	const char *want = module_file;

	while (*name && (*name == *want || (*name == '-' && *want == '_'))) {
		name++;
		want++;
	}
	return *name == *want;
}

static int match_module(const char *path, const struct stat *st, int type,
			struct FTW *at)
{
	(void)st;
	if (type != FTW_F || !is_module_file(path + at->base))
		return 0;
	snprintf(module_path, sizeof(module_path), "%s", path);
	return 1;
}

bool module_is_loaded(const char *name)
{
	char path[128];

	/* what is built in has a directory, but was never initialized */
	snprintf(path, sizeof(path), "/sys/module/%s/initstate", name);
	return !access(path, F_OK);
}

/* By hand where the file is at hand, otherwise as everybody does. */
const char *module_load(const char *name, const char *params)
{
	struct utsname system;
	char dir[256];
	int fd, err;

	uname(&system);
	snprintf(dir, sizeof(dir), "/lib/modules/%s", system.release);
	snprintf(module_file, sizeof(module_file), "%s.ko", name);
	if (nftw(dir, match_module, 16, FTW_PHYS) == 1) {
		fd = open(module_path, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			return wrong("%s: %m", module_path);
		err = syscall(SYS_finit_module, fd, params, 0) ? errno : 0;
		close(fd);
		if (!err || err == EEXIST)
			return NULL;
		/* ENOENT: it needs another module first */
		if (err != ENOENT)
			return wrong("loading %s: %s", name, strerror(err));
	}

	modprobe(name, params);
	return module_is_loaded(name) ? NULL : wrong("cannot load module %s", name);
}

const char *module_unload(const char *name)
{
	__u64 end = now_ns() + WAIT_MS * NSEC_PER_MSEC;

	/* the last reference to a file may be put a moment after close() */
	while (syscall(SYS_delete_module, name, O_NONBLOCK)) {
		if (errno == ENOENT)
			return NULL;
		if ((errno != EAGAIN && errno != EBUSY) || now_ns() > end)
			return wrong("unloading %s: %m", name);
		sleep_ms(5);
	}
	return NULL;
}

void mount_debugfs(void)
{
	if (!file_contains("/proc/mounts", " " DEBUGFS " debugfs "))
		mount("none", DEBUGFS, "debugfs", 0, NULL);
}

static int do_ioctl(int fd, unsigned long request, void *arg)
{
	int ret;

	do {
		ret = ioctl(fd, request, arg);
	} while (ret < 0 && (errno == EINTR || errno == EAGAIN));
	return ret;
}

/* ---- the kernel log ---- */

int kmsg_open(void)
{
	int fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);

	if (fd >= 0)
		lseek(fd, 0, SEEK_END);
	return fd;
}

static bool is_complaint(const char *line)
{
	static const char * const marks[] = {
		"BUG:", "WARNING:", "KASAN", "Oops", "kernel BUG at",
		"Unable to handle kernel", "general protection fault",
		"possible recursive locking", "possible circular locking",
		"inconsistent lock state", "Invalid wait context",
		"suspicious RCU", "refcount_t:", "list_add corruption",
		"list_del corruption", "ODEBUG:", "UBSAN:", "blocked for more",
		"detected stall", "detected expedited stalls",
		"hard LOCKUP", "non-static key",
	};
	unsigned int i;

	/* data races anywhere in the kernel: not for a test to judge */
	if (strstr(line, "BUG: KCSAN"))
		return false;
	for (i = 0; i < ARRAY_SIZE(marks); i++) {
		if (strstr(line, marks[i]))
			return true;
	}
	return false;
}

const char *kmsg_check(int fd)
{
	unsigned int complaints = 0;
	char record[8192], *text;
	const char *why = NULL;
	ssize_t len;

	if (fd < 0) {
		printf("# kernel log NOT checked: cannot read /dev/kmsg\n");
		return NULL;
	}

	sleep_ms(100);	/* for what RCU and workqueues do late */
	for (;;) {
		len = read(fd, record, sizeof(record) - 1);
		if (len < 0 && (errno == EPIPE || errno == EINTR))
			continue;	/* EPIPE: records were overwritten */
		if (len <= 0)
			break;
		record[len] = '\0';
		/* "prefix,...;text": prefix / 8 is the facility, kernel is 0 */
		if (strtoul(record, NULL, 10) >> 3)
			continue;
		text = strchr(record, ';');
		if (!text)
			continue;
		text++;
		text[strcspn(text, "\n")] = '\0';
		if (is_complaint(text) && complaints++ < 4)
			printf("# kernel: %s\n", text);
	}
	if (complaints)
		why = wrong("the kernel complained %u times, see its log",
			    complaints);
	close(fd);
	return why;
}

bool file_contains(const char *path, const char *word)
{
	char line[4096];
	bool found = false;
	FILE *file;

	file = fopen(path, "r");
	if (!file)
		return false;
	while (!found && fgets(line, sizeof(line), file))
		found = strstr(line, word);
	fclose(file);
	return found;
}

const char *cannot_report_use_after_free(void)
{
	if (access("/dev/kmsg", R_OK))
		return wrong("cannot read the kernel log: %m");
	if (access("/proc/kallsyms", R_OK))
		return "cannot tell whether the kernel has KASAN";
	if (!file_contains("/proc/kallsyms", " kasan_report\n"))
		return "no CONFIG_KASAN: use after free can pass unseen";
	if (!file_contains("/proc/cmdline", "kasan_multi_shot"))
		printf("# no kasan_multi_shot: only the first failing case is named\n");
	return NULL;
}

unsigned int allow_open_files(unsigned int n)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit))
		return 0;
	if (limit.rlim_max > n + 64)
		limit.rlim_max = n + 64;
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
	return limit.rlim_cur < n + 64 ? limit.rlim_cur - 64 : n;
}

/* ---- memory that the kernel has lost ---- */

/* Returns the number of new leaks and prints what is known of some. */
static unsigned int kmemleak_read(void)
{
	unsigned int leaks = 0, lines = 0;
	char line[256];
	FILE *file;

	file = fopen(KMEMLEAK, "r");
	if (!file)
		return 0;
	while (fgets(line, sizeof(line), file)) {
		if (!strncmp(line, "unreferenced object", 19))
			leaks++;
		if (lines++ < 60)
			printf("# kmemleak: %s", line);
	}
	fclose(file);
	return leaks;
}

/*
 * A scan passes over what is younger than five seconds, and one may be misled
 * by a stale pointer somewhere: give it time, and a second chance.
 */
static const char *kmemleak_scan(void)
{
	unsigned int i;
	int err;

	for (i = 0; i < 2; i++) {
		sleep_ms(i ? 500 : 6000);
		err = write_file(KMEMLEAK, "scan");
		if (err)
			return wrong("kmemleak: scan: %s", strerror(-err));
	}
	return NULL;
}

/* Objects in use in each of the caches where a leak would show. */
static void slab_read(struct leaks *leaks)
{
	char line[512], name[64];
	unsigned long objects;
	unsigned int n = 0;
	FILE *file;

	file = fopen("/proc/slabinfo", "r");
	if (!file)
		return;
	while (n < ARRAY_SIZE(leaks->caches) &&
	       fgets(line, sizeof(line), file)) {
		if (sscanf(line, "%63s %lu", name, &objects) != 2)
			continue;
		if (strncmp(name, "kmalloc-", 8) && strcmp(name, "filp") &&
		    strncmp(name, "dma_fence", 9))
			continue;
		strcpy(leaks->caches[n].name, name);
		leaks->caches[n++].objects = objects;
	}
	fclose(file);
	leaks->n_caches = n;
}

const char *cannot_report_leaks(void)
{
	int err;

	mount_debugfs();
	/* Asks for an object that there is not, if it is enabled. */
	err = write_file(KMEMLEAK, "dump=0");
	if (!err || err == -EINVAL)
		return NULL;
	if (err != -ENOENT)
		return wrong("kmemleak: %s: leaks can pass unseen",
			     strerror(-err));
	if (access("/proc/slabinfo", R_OK))
		return "no CONFIG_DEBUG_KMEMLEAK and no /proc/slabinfo: leaks can pass unseen";
	if (file_contains("/proc/kallsyms", " kasan_report\n"))
		return "no CONFIG_DEBUG_KMEMLEAK, and KASAN delays frees: leaks can pass unseen";
	return NULL;
}

const char *leaks_start(struct leaks *leaks)
{
	const char *why;

	memset(leaks, 0, sizeof(*leaks));
	if (cannot_report_leaks())
		return NULL;
	leaks->kmemleak = !access(KMEMLEAK, F_OK);
	if (!leaks->kmemleak) {
		slab_read(leaks);
		return NULL;
	}
	/* what was lost before is not ours */
	why = kmemleak_scan();
	/* not ours, but somebody may want to know */
	if (!why && kmemleak_read())
		printf("# kmemleak: all that was lost before\n");
	if (!why && write_file(KMEMLEAK, "clear"))
		why = "kmemleak: clear";
	return why;
}

/* Slabs that CPUs keep make small numbers meaningless: hence the @limit. */
const char *leaks_check(struct leaks *leaks, unsigned long limit)
{
	struct leaks now = {};
	unsigned int i, n;
	const char *why;

	if (leaks->kmemleak) {
		why = kmemleak_scan();
		if (why)
			return why;
		n = kmemleak_read();
		return n ? wrong("the kernel lost %u objects", n) : NULL;
	}
	if (!leaks->n_caches)
		return NULL;
	slab_read(&now);
	for (i = 0; i < leaks->n_caches && i < now.n_caches; i++) {
		if (strcmp(leaks->caches[i].name, now.caches[i].name))
			return "other slab caches than before";
		if (now.caches[i].objects > leaks->caches[i].objects + limit)
			return wrong("%s: %lu objects, %lu before",
				     now.caches[i].name, now.caches[i].objects,
				     leaks->caches[i].objects);
	}
	return NULL;
}

/* ---- allocations that fail ---- */

/* The settings of the machine, as they were. */
static struct {
	const char *file, *ours;
	char before[16];
} failslab[] = {
	{ FAILSLAB "/ignore-gfp-wait", "N" },
	{ FAILSLAB "/verbose", "0" },
};

static void failslab_restore(void)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(failslab); i++)
		if (failslab[i].before[0])
			write_file(failslab[i].file, failslab[i].before);
}

const char *faults_open(int *fail_nth)
{
	unsigned int i;
	FILE *file;
	int err;

	mount_debugfs();
	*fail_nth = open("/proc/thread-self/fail-nth", O_RDWR | O_CLOEXEC);
	if (*fail_nth < 0)
		return wrong("no CONFIG_FAULT_INJECTION: fail-nth: %m");
	for (i = 0; i < ARRAY_SIZE(failslab); i++) {
		file = fopen(failslab[i].file, "r");
		if (!file || !fgets(failslab[i].before,
				    sizeof(failslab[i].before), file))
			failslab[i].before[0] = '\0';
		if (file)
			fclose(file);
		err = write_file(failslab[i].file, failslab[i].ours);
		if (err) {
			failslab_restore();
			return wrong("no CONFIG_FAILSLAB or no CONFIG_FAULT_INJECTION_DEBUG_FS: %s",
				     strerror(-err));
		}
	}
	return NULL;
}

const char *faults_start(int fail_nth, unsigned int nth)
{
	char text[16];
	int len = snprintf(text, sizeof(text), "%u", nth);

	if (pwrite(fail_nth, text, len, 0) != len)
		return wrong("fail-nth: %m");
	return NULL;
}

unsigned int faults_end(int fail_nth)
{
	char text[16] = "";

	if (pread(fail_nth, text, sizeof(text) - 1, 0) <= 0 ||
	    pwrite(fail_nth, "0", 1, 0) != 1)
		return MANY_ALLOCATIONS;
	return strtoul(text, NULL, 10);
}

void faults_close(int *fail_nth)
{
	if (*fail_nth >= 0)
		faults_end(*fail_nth);
	close_fd(fail_nth);
	failslab_restore();
}

/* ---- fences of sw_sync ---- */

int timeline_open(void)
{
	int fd = open(SW_SYNC, O_RDWR | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

int timeline_fence(int timeline, __u32 value)
{
	struct sw_sync_create_fence_data data = {
		.value = value,
		.name = "test",
		.fence = UNTOUCHED,
	};

	return try_ioctl(timeline, SW_SYNC_IOC_CREATE_FENCE, &data) ?:
	       data.fence;
}

int timeline_inc(int timeline, __u32 by)
{
	return try_ioctl(timeline, SW_SYNC_IOC_INC, &by);
}

/* ---- buffers ---- */

const char *buffer_create(int fd, __u32 *handle)
{
	struct drm_mode_create_dumb dumb = {
		.width = 64,
		.height = 64,
		.bpp = 32,
	};
	int err = try_ioctl(fd, DRM_IOCTL_MODE_CREATE_DUMB, &dumb);

	*handle = dumb.handle;
	return err ? wrong("CREATE_DUMB: %s", strerror(-err)) : NULL;
}

int buffer_export(int fd, __u32 handle, int *dmabuf)
{
	struct drm_prime_handle prime = {
		.handle = handle,
		.flags = DRM_CLOEXEC | DRM_RDWR,
		.fd = UNTOUCHED,
	};
	int err = try_ioctl(fd, DRM_IOCTL_PRIME_HANDLE_TO_FD, &prime);

	*dmabuf = prime.fd;
	return err;
}

/* ---- a vkms instance ---- */

static const char * const pipe_dirs[] = {
	"planes/p%u", "crtcs/c%u", "encoders/e%u", "connectors/o%u",
};

/* target, link: both inside of the instance, of the same pipe */
static const char * const pipe_links[][2] = {
	{ "crtcs/c%1$u", "planes/p%1$u/possible_crtcs/c%1$u" },
	{ "crtcs/c%1$u", "encoders/e%1$u/possible_crtcs/c%1$u" },
	{ "encoders/e%1$u", "connectors/o%1$u/possible_encoders/e%1$u" },
};

static const char *instance_path(char *buf, const char *name, const char *sub)
{
	snprintf(buf, PATH_MAX, VKMS "/%s/%s", name, sub);
	return buf;
}

static const char *pipe_path(char *buf, const char *name, const char *format,
			     unsigned int pipe)
{
	char sub[128];

	snprintf(sub, sizeof(sub), format, pipe);
	return instance_path(buf, name, sub);
}

int instance_write(const char *name, const char *attr, const char *value)
{
	char path[PATH_MAX];

	return write_file(instance_path(path, name, attr), value);
}

int instance_disable(const char *name)
{
	return instance_write(name, "enabled", "0");
}

int instance_remove(const char *name)
{
	unsigned int pipe, i;
	char path[PATH_MAX];

	for (pipe = 0; pipe < MAX_PIPES; pipe++) {
		for (i = ARRAY_SIZE(pipe_links); i--;)
			unlink(pipe_path(path, name, pipe_links[i][1], pipe));
		for (i = ARRAY_SIZE(pipe_dirs); i--;)
			rmdir(pipe_path(path, name, pipe_dirs[i], pipe));
	}
	return rmdir(instance_path(path, name, "")) ? -errno : 0;
}

static const char *name_prefix(void)
{
	static char prefix[48];

	snprintf(prefix, sizeof(prefix), "ksft-%.40s-",
		 program_invocation_short_name);
	return prefix;
}

/* An instance belongs to the process in its name, while that runs this test. */
static bool has_other_owner(const char *name)
{
	char path[64], theirs[PATH_MAX] = "", ours[PATH_MAX] = "";
	pid_t pid = atoi(name + strlen(name_prefix()));

	if (pid == getpid())
		return false;
	snprintf(path, sizeof(path), "/proc/%d/exe", pid);
	if (readlink(path, theirs, sizeof(theirs) - 1) < 0 ||
	    readlink("/proc/self/exe", ours, sizeof(ours) - 1) < 0)
		return false;
	return !strcmp(theirs, ours);
}

static void remove_leftovers(void)
{
	struct dirent *entry;
	DIR *dir;

	dir = opendir(VKMS);
	if (!dir)
		return;
	while ((entry = readdir(dir))) {
		if (strncmp(entry->d_name, name_prefix(),
			    strlen(name_prefix())))
			continue;
		if (has_other_owner(entry->d_name))
			continue;
		instance_disable(entry->d_name);
		instance_remove(entry->d_name);
	}
	closedir(dir);
}

/* Test cases that died left theirs; they end by _exit() and skip this. */
static void __attribute__((destructor)) remove_leftovers_at_exit(void)
{
	remove_leftovers();
}

/*
 * An older vkms has no configfs, and its only device comes and goes with the
 * module.
 */
static bool is_module_device;

/* In older kernels a fence has its names after it signaled, too. */
static bool keeps_names;

bool display_can_end_in_use(void)
{
	return !is_module_device;
}

static const char *find_vkms_module(void)
{
	const char *why = module_load("vkms", "");

	/* what somebody else uses, or what is built in, stays */
	why = why ?: module_unload("vkms");
	if (!why && !access("/sys/module/vkms", F_OK))
		why = "vkms is built in";
	is_module_device = !why;
	return why;
}

/* Returns why there is no vkms for a test, NULL if there is. */
static const char *find_vkms(void)
{
	if (!access(VKMS, F_OK))
		return NULL;

	mount("none", CONFIGFS, "configfs", 0, NULL);
	if (!access(VKMS, F_OK))
		return NULL;

	modprobe("vkms", "create_default_dev=0");
	if (!access(VKMS, F_OK))
		return NULL;
	if (!find_vkms_module())
		return NULL;
	if (access(CONFIGFS, F_OK))
		return "no configfs";
	return wrong("no %s: vkms is missing, too old, or not permitted", VKMS);
}

static int pipe_create(const char *name, unsigned int pipe, bool writeback)
{
	char path[PATH_MAX], target[PATH_MAX], attr[64];
	unsigned int i;
	int err;

	for (i = 0; i < ARRAY_SIZE(pipe_dirs); i++) {
		if (mkdir(pipe_path(path, name, pipe_dirs[i], pipe), 0755))
			return -errno;
	}
	for (i = 0; i < ARRAY_SIZE(pipe_links); i++) {
		pipe_path(target, name, pipe_links[i][0], pipe);
		pipe_path(path, name, pipe_links[i][1], pipe);
		if (symlink(target, path))
			return -errno;
	}
	snprintf(attr, sizeof(attr), "planes/p%u/type", pipe);
	err = instance_write(name, attr, "1");	/* primary */
	if (err || !writeback)
		return err;
	snprintf(attr, sizeof(attr), "crtcs/c%u/writeback", pipe);
	return instance_write(name, attr, "1");
}

int instance_configure(const char *name, unsigned int pipes, bool writeback)
{
	char path[PATH_MAX];
	unsigned int i;
	int err = 0;

	if (mkdir(instance_path(path, name, ""), 0755))
		return -errno;
	for (i = 0; !err && i < pipes; i++)
		err = pipe_create(name, i, writeback);
	return err;
}

const char *card_node(const char *device)
{
	static __thread char node[32];
	char path[PATH_MAX], target[PATH_MAX];
	const char *base;
	ssize_t len;
	int i;

	/* by name: who opens a card of another device can become its master */
	for (i = 0; i < 64; i++) {
		snprintf(path, sizeof(path), "/sys/class/drm/card%d/device", i);
		len = readlink(path, target, sizeof(target) - 1);
		if (len < 0)
			continue;
		target[len] = '\0';
		base = strrchr(target, '/');
		if (strcmp(base ? base + 1 : target, device))
			continue;
		snprintf(node, sizeof(node), "/dev/dri/card%d", i);
		return node;
	}
	return NULL;
}

int card_open(const char *device)
{
	const char *node = card_node(device);
	int i, fd;

	if (!node)
		return -ENODEV;
	/* without devtmpfs the node comes some time later */
	for (i = 0; i < 200; i++) {
		fd = open(node, O_RDWR | O_CLOEXEC);
		if (fd >= 0)
			return fd;
		if (errno != ENOENT)
			break;
		sleep_ms(10);
	}
	return -errno;
}

int open_syncobj_device(void)
{
	glob_t nodes;
	int fd = -1;
	size_t i;

	/* who opens a primary node may become master there */
	glob("/dev/dri/renderD*", 0, NULL, &nodes);
	glob("/dev/dri/card*", GLOB_APPEND, NULL, &nodes);
	for (i = 0; i < nodes.gl_pathc && fd < 0; i++) {
		struct drm_get_cap cap = { .capability = DRM_CAP_SYNCOBJ_TIMELINE };

		fd = open(nodes.gl_pathv[i], O_RDWR | O_CLOEXEC);
		if (fd >= 0)
			ioctl(fd, DRM_IOCTL_DROP_MASTER);
		if (fd >= 0 && (ioctl(fd, DRM_IOCTL_GET_CAP, &cap) || !cap.value))
			close_fd(&fd);
	}
	globfree(&nodes);
	return fd;
}

__u32 find_prop(int fd, __u32 object, __u32 type, const char *name)
{
	struct drm_mode_obj_get_properties all = {
		.obj_id = object,
		.obj_type = type,
	};
	struct drm_mode_get_property prop;
	__u64 values[64];
	__u32 ids[64];
	unsigned int i;

	all.props_ptr = (uintptr_t)ids;
	all.prop_values_ptr = (uintptr_t)values;
	all.count_props = ARRAY_SIZE(ids);
	if (do_ioctl(fd, DRM_IOCTL_MODE_OBJ_GETPROPERTIES, &all))
		return 0;
	for (i = 0; i < all.count_props && i < ARRAY_SIZE(ids); i++) {
		memset(&prop, 0, sizeof(prop));
		prop.prop_id = ids[i];
		if (do_ioctl(fd, DRM_IOCTL_MODE_GETPROPERTY, &prop))
			continue;
		if (!strcmp(prop.name, name))
			return prop.prop_id;
	}
	return 0;
}

void request_add_id(struct request *req, __u32 object, __u32 prop, __u64 value)
{
	if (!req->n_objects || req->objects[req->n_objects - 1] != object)
		req->objects[req->n_objects++] = object;
	req->counts[req->n_objects - 1]++;
	req->props[req->n_props] = prop;
	req->values[req->n_props++] = value;
	if (!prop)
		req->incomplete = true;
}

static void request_add(struct request *req, int fd, __u32 object, __u32 type,
			const char *name, __u64 value)
{
	request_add_id(req, object, find_prop(fd, object, type, name), value);
}

static int request_commit(struct request *req, int fd, __u32 flags)
{
	struct drm_mode_atomic atomic = {
		.flags = flags,
		.count_objs = req->n_objects,
		.objs_ptr = (uintptr_t)req->objects,
		.count_props_ptr = (uintptr_t)req->counts,
		.props_ptr = (uintptr_t)req->props,
		.prop_values_ptr = (uintptr_t)req->values,
	};

	if (req->incomplete) {
		errno = ENOENT;
		return -1;
	}
	return do_ioctl(fd, DRM_IOCTL_MODE_ATOMIC, &atomic);
}

#define SIZE	64	/* visible, both ways */
#define TOTAL	80	/* with blanking */

static const char *add_framebuffer(int fd, __u32 *id)
{
	struct drm_mode_create_dumb dumb = {
		.width = SIZE,
		.height = SIZE,
		.bpp = 32,
	};
	struct drm_mode_fb_cmd2 fb = {
		.width = SIZE,
		.height = SIZE,
		.pixel_format = 'X' | 'R' << 8 | '2' << 16 | '4' << 24,
	};

	if (do_ioctl(fd, DRM_IOCTL_MODE_CREATE_DUMB, &dumb))
		return wrong("CREATE_DUMB: %m");
	fb.handles[0] = dumb.handle;
	fb.pitches[0] = dumb.pitch;
	if (do_ioctl(fd, DRM_IOCTL_MODE_ADDFB2, &fb))
		return wrong("ADDFB2: %m");
	*id = fb.fb_id;
	return NULL;
}

/* The CRTCs that an encoder can do, a bit for each. */
static __u32 encoder_crtcs(int fd, __u32 id)
{
	struct drm_mode_get_encoder encoder = { .encoder_id = id };

	if (do_ioctl(fd, DRM_IOCTL_MODE_GETENCODER, &encoder))
		return 0;
	return encoder.possible_crtcs;
}

static const char *add_connector(struct display *d, __u32 id)
{
	struct drm_mode_modeinfo mode;
	__u32 encoder = 0, crtcs;
	struct drm_mode_get_connector connector = {
		.connector_id = id,
		.count_modes = 1,	/* do not probe */
		.modes_ptr = (uintptr_t)&mode,
		.count_encoders = 1,
		.encoders_ptr = (uintptr_t)&encoder,
	};
	unsigned int i;

	if (do_ioctl(d->fd, DRM_IOCTL_MODE_GETCONNECTOR, &connector))
		return wrong("GETCONNECTOR: %m");
	crtcs = encoder_crtcs(d->fd, encoder);
	for (i = 0; i < d->n_pipes; i++) {
		if (crtcs != 1u << i)
			continue;
		if (connector.connector_type == DRM_MODE_CONNECTOR_WRITEBACK)
			d->pipes[i].writeback = id;
		else
			d->pipes[i].connector = id;
		return NULL;
	}
	return wrong("connector %u: CRTCs %#x", id, crtcs);
}

static const char *add_plane(struct display *d, __u32 id)
{
	struct drm_mode_get_plane plane = { .plane_id = id };
	unsigned int i;

	if (do_ioctl(d->fd, DRM_IOCTL_MODE_GETPLANE, &plane))
		return wrong("GETPLANE: %m");
	for (i = 0; i < d->n_pipes; i++) {
		if (plane.possible_crtcs == 1u << i) {
			d->pipes[i].plane = id;
			return NULL;
		}
	}
	return wrong("plane %u: CRTCs %#x", id, plane.possible_crtcs);
}

static const char *find_pipes(struct display *d)
{
	unsigned int i, n = d->n_pipes, n_connectors = n;
	__u32 crtcs[MAX_PIPES], planes[MAX_PIPES], connectors[2 * MAX_PIPES];
	struct drm_mode_get_plane_res plane_res = {
		.count_planes = ARRAY_SIZE(planes),
		.plane_id_ptr = (uintptr_t)planes,
	};
	struct drm_mode_card_res res = {
		.count_crtcs = ARRAY_SIZE(crtcs),
		.crtc_id_ptr = (uintptr_t)crtcs,
		.count_connectors = ARRAY_SIZE(connectors),
		.connector_id_ptr = (uintptr_t)connectors,
	};
	const char *why = NULL;

	if (d->writeback)
		n_connectors += n;
	if (do_ioctl(d->fd, DRM_IOCTL_MODE_GETRESOURCES, &res))
		return wrong("GETRESOURCES: %m");
	if (do_ioctl(d->fd, DRM_IOCTL_MODE_GETPLANERESOURCES, &plane_res))
		return wrong("GETPLANERESOURCES: %m");
	if (res.count_crtcs != n || res.count_connectors != n_connectors ||
	    plane_res.count_planes != n)
		return wrong("%u CRTCs, %u connectors, %u planes instead of %u, %u, %u",
			     res.count_crtcs, res.count_connectors,
			     plane_res.count_planes, n, n_connectors, n);
	for (i = 0; i < n; i++)
		d->pipes[i].crtc = crtcs[i];
	for (i = 0; !why && i < n; i++)
		why = add_plane(d, planes[i]);
	for (i = 0; !why && i < n_connectors; i++)
		why = add_connector(d, connectors[i]);
	return why;
}

/* Asks for the writeback of the next frame, with a fence. */
static void request_writeback(struct request *req, const struct display *d,
			      const struct pipe *pipe, __s32 *fd)
{
	request_add_id(req, pipe->writeback, d->writeback_fb_prop,
		       d->writeback_fb);
	request_add_id(req, pipe->writeback, d->writeback_fence_prop,
		       (uintptr_t)fd);
}

void fence_init(struct fence *f, const char *type, __u32 id)
{
	memset(f, 0, sizeof(*f));
	snprintf(f->timeline, sizeof(f->timeline), "%s:%u-", type, id);
	f->committed = now_ns();
	f->fd = -1;
}

/* See display_start_writeback() for what becomes of the writeback. */
const char *display_set_mode(struct display *d, unsigned int hz,
			     struct fence *writeback)
{
	struct drm_mode_modeinfo mode = {
		.clock = TOTAL * TOTAL * hz / 1000,	/* kHz */
		.hdisplay = SIZE,
		.hsync_start = SIZE + 4,
		.hsync_end = SIZE + 8,
		.htotal = TOTAL,
		.vdisplay = SIZE,
		.vsync_start = SIZE + 4,
		.vsync_end = SIZE + 8,
		.vtotal = TOTAL,
		.vrefresh = hz,
		.name = "test",
	};
	struct drm_mode_create_blob blob = {
		.data = (uintptr_t)&mode,
		.length = sizeof(mode),
	};
	const __u32 connector = DRM_MODE_OBJECT_CONNECTOR;
	const __u32 plane = DRM_MODE_OBJECT_PLANE;
	const __u32 crtc = DRM_MODE_OBJECT_CRTC;
	struct request req = {};
	int fd = d->fd;
	unsigned int i;
	__s32 out = -1;

	if (do_ioctl(fd, DRM_IOCTL_MODE_CREATEPROPBLOB, &blob))
		return wrong("CREATEPROPBLOB: %m");

	for (i = 0; i < d->n_pipes; i++) {
		struct pipe *p = &d->pipes[i];

		request_add(&req, fd, p->connector, connector, "CRTC_ID",
			    p->crtc);
		request_add(&req, fd, p->crtc, crtc, "MODE_ID", blob.blob_id);
		request_add(&req, fd, p->crtc, crtc, "ACTIVE", 1);
		request_add(&req, fd, p->plane, plane, "FB_ID", d->fb[0]);
		request_add(&req, fd, p->plane, plane, "CRTC_ID", p->crtc);
		request_add(&req, fd, p->plane, plane, "SRC_X", 0);
		request_add(&req, fd, p->plane, plane, "SRC_Y", 0);
		request_add(&req, fd, p->plane, plane, "SRC_W", SIZE << 16);
		request_add(&req, fd, p->plane, plane, "SRC_H", SIZE << 16);
		request_add(&req, fd, p->plane, plane, "CRTC_X", 0);
		request_add(&req, fd, p->plane, plane, "CRTC_Y", 0);
		request_add(&req, fd, p->plane, plane, "CRTC_W", SIZE);
		request_add(&req, fd, p->plane, plane, "CRTC_H", SIZE);
		if (d->writeback)
			request_add(&req, fd, p->writeback, connector,
				    "CRTC_ID", p->crtc);
		if (writeback && !i)
			request_writeback(&req, d, p, &out);
	}
	if (writeback)
		fence_init(writeback, "CONNECTOR", d->pipes[0].writeback);
	if (request_commit(&req, fd, DRM_MODE_ATOMIC_ALLOW_MODESET))
		return wrong("modeset: %m");
	if (writeback) {
		writeback->fd = out;
		writeback->may_be_lost = true;
		if (out < 0)
			return "modeset: no fence of the writeback";
	}
	return NULL;
}

static int set_client_cap(int fd, __u64 capability)
{
	struct drm_set_client_cap cap = {
		.capability = capability,
		.value = 1,
	};

	return do_ioctl(fd, DRM_IOCTL_SET_CLIENT_CAP, &cap);
}

/* Makes the device, opens it and becomes its master. */
int display_create(struct display *d)
{
	int err;

	d->fd = -1;
	if (!d->n_pipes)
		d->n_pipes = 1;
	if (is_module_device) {
		if (d->n_pipes > 1)
			return -EOPNOTSUPP;
		snprintf(d->name, sizeof(d->name), "vkms");
		if (module_unload("vkms"))
			return -EBUSY;
		if (module_load("vkms", "enable_cursor=0"))
			return -ENODEV;
	} else {
		snprintf(d->name, sizeof(d->name), "%s%d", name_prefix(),
			 getpid());
		err = instance_configure(d->name, d->n_pipes, d->writeback);
		if (!err)
			err = instance_write(d->name, "enabled", "1");
		if (err)
			return err;
	}
	d->fd = card_open(d->name);
	if (d->fd < 0)
		return d->fd;
	/* the first to open it is its master already, unless we were late */
	return do_ioctl(d->fd, DRM_IOCTL_SET_MASTER, NULL) ? -errno : 0;
}

const char *display_open(struct display *d)
{
	const struct pipe *pipe = &d->pipes[0];
	const char *why;
	int err;

	err = display_create(d);
	if (err)
		return wrong("vkms instance: %s", strerror(-err));

	if (set_client_cap(d->fd, DRM_CLIENT_CAP_ATOMIC))
		return wrong("no atomic modesetting: %m");
	if (d->writeback &&
	    set_client_cap(d->fd, DRM_CLIENT_CAP_WRITEBACK_CONNECTORS))
		return wrong("no writeback connectors: %m");

	why = find_pipes(d);
	if (!why)
		why = add_framebuffer(d->fd, &d->fb[0]);
	if (!why)
		why = add_framebuffer(d->fd, &d->fb[1]);
	if (!why && d->writeback)
		why = add_framebuffer(d->fd, &d->writeback_fb);
	if (why)
		return why;

	/* the same for all objects of a type */
	d->out_fence_prop = find_prop(d->fd, pipe->crtc, DRM_MODE_OBJECT_CRTC,
				      "OUT_FENCE_PTR");
	d->in_fence_prop = find_prop(d->fd, pipe->plane, DRM_MODE_OBJECT_PLANE,
				     "IN_FENCE_FD");
	d->fb_prop = find_prop(d->fd, pipe->plane, DRM_MODE_OBJECT_PLANE,
			       "FB_ID");
	if (!d->writeback)
		return NULL;
	d->writeback_fb_prop = find_prop(d->fd, pipe->writeback,
					 DRM_MODE_OBJECT_CONNECTOR,
					 "WRITEBACK_FB_ID");
	d->writeback_fence_prop = find_prop(d->fd, pipe->writeback,
					    DRM_MODE_OBJECT_CONNECTOR,
					    "WRITEBACK_OUT_FENCE_PTR");
	return NULL;
}

/*
 * Makes the device and starts scanning out, with a writeback. vkms completes it
 * one frame later, but has sent the event of the commit at once: another commit
 * is possible before, and if that has no writeback, vkms forgets this one.
 */
const char *display_start_writeback(struct display *d, unsigned int hz,
				    struct fence *writeback)
{
	const char *why = display_open(d);

	return why ?: display_set_mode(d, hz, writeback);
}

const char *display_start(struct display *d, unsigned int hz)
{
	return display_start_writeback(d, hz, NULL);
}

void display_close(struct display *d)
{
	if (d->fd >= 0)
		close(d->fd);
	d->fd = -1;
}

const char *display_turn_off(struct display *d)
{
	unsigned int i;

	for (i = 0; i < d->n_pipes; i++) {
		struct drm_mode_crtc crtc = { .crtc_id = d->pipes[i].crtc };

		if (do_ioctl(d->fd, DRM_IOCTL_MODE_SETCRTC, &crtc))
			return wrong("SETCRTC: %m");
	}
	return NULL;
}

const char *display_disable(struct display *d)
{
	int err;

	if (is_module_device)
		return module_unload("vkms");
	err = instance_disable(d->name);
	return err ? wrong("%s", strerror(-err)) : NULL;
}

const char *display_remove(struct display *d)
{
	int err = is_module_device ? 0 : instance_remove(d->name);

	d->name[0] = '\0';
	return err ? wrong("%s", strerror(-err)) : NULL;
}

const char *display_destroy(struct display *d)
{
	const char *why;

	display_close(d);
	if (!d->name[0])
		return NULL;
	why = display_disable(d);
	return why ?: display_remove(d);
}

/* What are the names of a fence that signaled while its device is in place? */
static const char *find_keeps_names(struct display *d)
{
	struct sync_fence_info fi = {};
	struct sync_file_info info;
	struct fence f = { .fd = -1 };
	const char *why;

	why = display_start(d, NORMAL_HZ);
	why = why ?: flip_start(d, &f);
	why = why ?: flip_wait(d, 1);
	why = why ?: get_info(&f, 1, &info, &fi);
	keeps_names = !strcmp(fi.driver_name, "vkms");
	close_fd(&f.fd);
	return why ?: display_destroy(d);
}

const char *display_prepare(struct display *d, int *kmsg)
{
	const char *why;
	int err;

	*kmsg = -1;
	d->fd = -1;
	why = find_vkms();
	if (why)
		return why;
	remove_leftovers();

	/* what is not permitted or not there shows now, not in the test */
	err = display_create(d);
	if (err) {
		if (d->writeback && err == -ENOENT)
			why = wrong("vkms has no writeback in configfs");
		else if (is_module_device && err == -EOPNOTSUPP)
			why = "vkms has no configfs, and one CRTC without";
		else
			why = wrong("cannot make and control a vkms instance: %s",
				    strerror(-err));
		display_close(d);
		display_disable(d);
		display_remove(d);
		return why;
	}
	why = display_destroy(d);
	if (!why && is_module_device)
		why = find_keeps_names(d);
	if (why)
		return why;

	*kmsg = kmsg_open();
	return NULL;
}

/* @out and @writeback have an entry for each pipe. */
int flip_try(struct display *d, const struct flip *flip, struct fence *out,
	     struct fence *writeback)
{
	__s32 out_fds[MAX_PIPES], writeback_fds[MAX_PIPES];
	__u32 flags = DRM_MODE_ATOMIC_NONBLOCK;
	struct request req = {};
	unsigned int i;

	for (i = 0; i < d->n_pipes; i++) {
		struct pipe *p = &d->pipes[i];
		unsigned int n;

		if (!(flip->pipes & 1u << i))
			continue;
		n = atomic_fetch_add(&p->flips, 1);
		fence_init(&out[i], "CRTC", p->crtc);
		out_fds[i] = -1;
		request_add_id(&req, p->crtc, d->out_fence_prop,
			       (uintptr_t)&out_fds[i]);
		request_add_id(&req, p->plane, d->fb_prop, d->fb[~n & 1]);
		if (!(flip->writebacks & 1u << i))
			continue;
		fence_init(&writeback[i], "CONNECTOR", p->writeback);
		writeback_fds[i] = -1;
		request_writeback(&req, d, p, &writeback_fds[i]);
	}
	if (flip->event)
		flags |= DRM_MODE_PAGE_FLIP_EVENT;
	if (request_commit(&req, d->fd, flags))
		return -errno;
	for (i = 0; i < d->n_pipes; i++) {
		if (!(flip->pipes & 1u << i))
			continue;
		out[i].fd = out_fds[i];
		if (out_fds[i] < 0)
			return -EBADF;
		if (!(flip->writebacks & 1u << i))
			continue;
		writeback[i].fd = writeback_fds[i];
		if (writeback_fds[i] < 0)
			return -EBADF;
	}
	return 0;
}

const char *flip_commit(struct display *d, const struct flip *flip,
			struct fence *out, struct fence *writeback)
{
	__u64 end = now_ns() + WAIT_MS * NSEC_PER_MSEC;
	int err;

	/* EBUSY: the commit before has signaled, but is not through yet */
	for (;;) {
		err = flip_try(d, flip, out, writeback);
		if (err != -EBUSY || now_ns() > end)
			break;
		sched_yield();
	}
	return err ? wrong("flip: %s", strerror(-err)) : NULL;
}

const char *flip_start(struct display *d, struct fence *f)
{
	const struct flip flip = { .pipes = 1, .event = true };

	return flip_commit(d, &flip, f, NULL);
}

const char *flip_wait(struct display *d, unsigned int events)
{
	struct pollfd p = { .fd = d->fd, .events = POLLIN };
	union {
		struct drm_event event;
		char bytes[1024];
	} buffer;
	ssize_t len, at;

	while (events) {
		if (poll(&p, 1, WAIT_MS) != 1)
			return wrong("%u events of the page flip missing",
				     events);
		len = read(d->fd, &buffer, sizeof(buffer));
		if (len <= 0)
			return wrong("event of the page flip: %m");
		for (at = 0; at < len && events; events--) {
			struct drm_event event;

			memcpy(&event, buffer.bytes + at, sizeof(event));
			at += event.length;
		}
	}
	return NULL;
}

/* ---- everything that a sync_file can do ---- */

int fence_status(int fd)
{
	struct sync_file_info info = {};

	return try_ioctl(fd, SYNC_IOC_FILE_INFO, &info) ? INT_MIN : info.status;
}

#define MAX_INFO	8

const char *get_info(const struct fence *f, unsigned int n,
		     struct sync_file_info *info,
		     struct sync_fence_info *fence)
{
	struct sync_fence_info fences[MAX_INFO] = {};
	bool live_driver, live_timeline;
	__u64 now;

	memset(info, 0, sizeof(*info));
	memset(fence, 0, sizeof(*fence));
	info->num_fences = n;
	info->sync_fence_info = (uintptr_t)fences;
	if (do_ioctl(f->fd, SYNC_IOC_FILE_INFO, info))
		return wrong("FILE_INFO: %m");
	now = now_ns();

	if (info->num_fences != 1)
		return wrong("num_fences %u", info->num_fences);
	if (info->status != 0 && info->status != 1 &&
	    !(f->may_be_lost && (info->status == -ENODEV ||
				 info->status == -ECANCELED)))
		return wrong("status %d", info->status);
	if (strncmp(info->name, "vkms-", 5) &&
	    strncmp(info->name, "detached-driver-", 16) &&
	    strncmp(info->name, "merged", 6))
		return wrong("name '%.32s'", info->name);
	if (!n)
		return NULL;

	*fence = fences[0];
	if (fence->status != info->status)
		return wrong("status %d of the fence, %d of the file",
			     fence->status, info->status);
	/* merging signaled fences has made that one */
	if (keeps_names && !strcmp(fence->driver_name, "stub") &&
	    !strcmp(fence->obj_name, "stub"))
		return NULL;
	live_driver = !strcmp(fence->driver_name, "vkms");
	live_timeline = !strncmp(fence->obj_name, f->timeline,
				 strlen(f->timeline));
	if (!live_driver && strcmp(fence->driver_name, "detached-driver"))
		return wrong("driver_name '%.32s'", fence->driver_name);
	if (!live_timeline && strcmp(fence->obj_name, "signaled-timeline"))
		return wrong("obj_name '%.32s'", fence->obj_name);
	/* the driver's name is read first, and names only ever go away */
	if (!live_driver && live_timeline)
		return wrong("names '%.32s', '%.32s' of two states",
			     fence->driver_name, fence->obj_name);
	if (fence->status &&
	    (fence->timestamp_ns + TIMESTAMP_SLACK < f->committed ||
	     fence->timestamp_ns > now))
		return wrong("timestamp %llu not in %llu..%llu",
			     fence->timestamp_ns, f->committed, now);
	return NULL;
}

const char *use_info(struct fence *f, unsigned int n)
{
	struct sync_fence_info fence;
	struct sync_file_info info;
	const char *why;

	why = get_info(f, n, &info, &fence);
	if (why)
		return why;
	if (!info.status)
		return "status 0 of a signaled fence";
	if (!keeps_names && !strncmp(info.name, "vkms-", 5))
		return wrong("name '%.32s' of a signaled fence", info.name);
	if (!n)
		return NULL;
	if (!keeps_names && (strcmp(fence.driver_name, "detached-driver") ||
			     strcmp(fence.obj_name, "signaled-timeline")))
		return wrong("names '%.32s', '%.32s' of a signaled fence",
			     fence.driver_name, fence.obj_name);
	if (f->timestamp && fence.timestamp_ns != f->timestamp)
		return wrong("timestamp %llu was %llu before",
			     fence.timestamp_ns, f->timestamp);
	f->timestamp = fence.timestamp_ns;
	return NULL;
}

const char *use_info_count(struct fence *f, struct fence *other)
{
	(void)other;
	return use_info(f, 0);
}

const char *use_info_one(struct fence *f, struct fence *other)
{
	(void)other;
	return use_info(f, 1);
}

const char *use_info_many(struct fence *f, struct fence *other)
{
	(void)other;
	return use_info(f, MAX_INFO);
}

const char *use_poll(struct fence *f, struct fence *other)
{
	struct pollfd p = { .fd = f->fd, .events = POLLIN };

	(void)other;
	f->polled = true;
	if (poll(&p, 1, WAIT_MS) != 1 || p.revents != POLLIN)
		return wrong("poll says %#x", p.revents);
	return NULL;
}

const char *use_deadline(struct fence *f, struct fence *other)
{
	struct sync_set_deadline deadline = { .deadline_ns = now_ns() };

	(void)other;
	if (do_ioctl(f->fd, SYNC_IOC_SET_DEADLINE, &deadline))
		return wrong("SET_DEADLINE: %m");
	return NULL;
}

const char *use_close(struct fence *f)
{
	int err = close(f->fd);

	f->fd = -1;
	return err ? wrong("close: %m") : NULL;
}

const char *merge(const struct fence *f, const struct fence *other,
		  struct fence *merged)
{
	struct sync_merge_data data = { .name = "merged", .fd2 = other->fd };

	if (do_ioctl(f->fd, SYNC_IOC_MERGE, &data))
		return wrong("MERGE: %m");
	*merged = *f;
	merged->fd = data.fence;
	merged->polled = false;
	merged->timestamp = 0;
	return NULL;
}

const char *wait_untouched(const struct fence *f)
{
	struct fence twin;
	const char *why;

	why = merge(f, f, &twin);
	if (why)
		return why;
	why = use_poll(&twin, NULL);
	if (!why)
		return use_close(&twin);
	close(twin.fd);
	return why;
}

const char *use_merge(struct fence *f, struct fence *other)
{
	struct fence merged;
	const char *why;

	why = merge(f, other, &merged);
	if (why)
		return why;
	/* not every kernel passes on the error of a fence that signaled before */
	merged.may_be_lost = f->may_be_lost || other->may_be_lost;
	if (f->timestamp && other->timestamp)
		merged.timestamp = f->timestamp > other->timestamp ?
				   f->timestamp : other->timestamp;

	why = use_info(&merged, 0);
	if (!why)
		why = use_info(&merged, 1);
	if (!why)
		why = use_poll(&merged, NULL);
	if (!why)
		why = use_deadline(&merged, NULL);
	if (!why)
		return use_close(&merged);
	close(merged.fd);
	return why;
}

const char *use_merge_self(struct fence *f, struct fence *other)
{
	(void)other;
	return use_merge(f, f);
}

const char *use_dup(struct fence *f, struct fence *other)
{
	int fd = dup(f->fd);
	const char *why;

	(void)other;
	if (fd < 0)
		return wrong("dup: %m");
	why = use_close(f);
	f->fd = fd;
	if (!why)
		why = use_info(f, 1);
	if (!why)
		why = use_poll(f, NULL);
	return why ?: use_close(f);
}

const char *use_close_polled(struct fence *f, struct fence *other)
{
	const char *why = use_poll(f, other);

	return why ?: use_close(f);
}

const char *use_close_unpolled(struct fence *f, struct fence *other)
{
	(void)other;
	return f->polled ? NULL : use_close(f);
}

unsigned int still_pending(struct fence *fences, unsigned int n,
			   unsigned int ms)
{
	__u64 now, end = now_ns() + ms * NSEC_PER_MSEC;
	unsigned int i, pending = 0;

	for (i = 0; i < n; i++) {
		struct pollfd p = { .fd = fences[i].fd, .events = POLLIN };
		int left = 0;

		now = now_ns();
		if (now < end)
			left = (end - now) / NSEC_PER_MSEC + 1;
		fences[i].polled = true;
		if (poll(&p, 1, left) != 1)
			pending++;
	}
	return pending;
}

const char *use_all(struct fence *f)
{
	const char *why = use_poll(f, NULL);

	if (!why)
		why = use_info(f, 0);
	if (!why)
		why = use_info(f, 1);
	if (!why)
		why = use_merge_self(f, NULL);
	if (!why)
		why = use_deadline(f, NULL);
	return why ?: use_close(f);
}

/* ---- descriptors in another process ---- */

union control {
	char space[CMSG_SPACE(sizeof(int))];
	struct cmsghdr align;
};

int send_fd(int sock, int fd)
{
	union control control = {};
	char byte = 0;
	struct iovec iov = { .iov_base = &byte, .iov_len = 1 };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);

	cmsg->cmsg_level = SOL_SOCKET;
	cmsg->cmsg_type = SCM_RIGHTS;
	cmsg->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(cmsg), &fd, sizeof(fd));
	return sendmsg(sock, &msg, 0) == 1 ? 0 : -1;
}

int receive_fd(int sock)
{
	union control control = {};
	char byte;
	struct iovec iov = { .iov_base = &byte, .iov_len = 1 };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};
	struct cmsghdr *cmsg;
	int fd;

	if (recvmsg(sock, &msg, MSG_CMSG_CLOEXEC) != 1)
		return -1;
	cmsg = CMSG_FIRSTHDR(&msg);
	if (!cmsg || cmsg->cmsg_type != SCM_RIGHTS)
		return -1;
	memcpy(&fd, CMSG_DATA(cmsg), sizeof(fd));
	return fd;
}

static void other_process(int sock, struct fence *f)
{
	const char *why;

	close(f->fd);
	f->fd = receive_fd(sock);
	why = f->fd < 0 ? wrong("no descriptor received") : use_info(f, 0);
	if (!why)
		why = use_info(f, 1);
	if (!why)
		why = use_poll(f, NULL);
	if (!why)
		why = use_merge_self(f, NULL);
	if (!why)
		why = use_close(f);
	if (!why)
		why = "fine";
	if (write(sock, why, strlen(why) + 1) < 0)
		_exit(1);
	_exit(0);
}

const char *use_other_process(struct fence *f, struct fence *other)
{
	struct pollfd p = { .events = POLLIN };
	char text[256] = "no answer";
	int sock[2];
	pid_t pid;

	(void)other;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, sock))
		return wrong("socketpair: %m");
	pid = fork();
	if (pid < 0)
		return wrong("fork: %m");
	if (!pid) {
		close(sock[0]);
		other_process(sock[1], f);
	}
	close(sock[1]);
	if (send_fd(sock[0], f->fd))
		snprintf(text, sizeof(text), "send: %m");
	use_close(f);
	p.fd = sock[0];
	if (poll(&p, 1, 2 * WAIT_MS) == 1 &&
	    read(sock[0], text, sizeof(text) - 1) < 0)
		snprintf(text, sizeof(text), "answer: %m");
	close(sock[0]);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	return strcmp(text, "fine") ? wrong("other process: %s", text) : NULL;
}

/* ---- threads that read fences ---- */

/* Reads fence @i in all ways; @status is what this thread knows of it. */
#define UNKNOWN		INT_MIN

static const char *read_fence(struct reader *r, unsigned int i, int *status)
{
	struct fence *f = &r->all->fences[i];
	struct pollfd p = { .fd = f->fd, .events = POLLIN };
	struct sync_fence_info fence;
	struct sync_file_info info;
	const char *why;
	unsigned int n;

	for (n = 0; n < 2; n++) {
		why = get_info(f, n, &info, &fence);
		if (why)
			return why;
		if (*status != UNKNOWN && *status && info.status != *status)
			return wrong("status %d after %d", info.status, *status);
		if (!info.status)
			r->pending++;
		else if (!*status)
			r->both_sides++;
		*status = info.status;
		r->reads++;
	}
	if (!strcmp(fence.driver_name, "vkms"))
		r->live_names++;
	else
		r->gone_names++;

	/* not always: a polled file is another one when it is closed */
	if (i % 2) {
		if (poll(&p, 1, 0) < 0)
			return wrong("poll: %m");
		if (*status && !p.revents)
			return wrong("poll sees no signal after status %d",
				     *status);
	}
	return NULL;
}

static void *reader_main(void *arg)
{
	unsigned int i, n, round = 0, newest = UINT_MAX;
	struct reader *r = arg;
	const char *why = NULL;
	int status = UNKNOWN, old;
	bool signaled, reading = false;
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	CPU_SET(r->cpu, &cpus);
	pthread_setaffinity_np(pthread_self(), sizeof(cpus), &cpus);

	while (!why && !atomic_load(&r->all->stop)) {
		n = atomic_load(&r->all->n_fences);
		if (n && n - 1 != newest) {
			newest = n - 1;
			status = UNKNOWN;
		}
		round++;
		signaled = status && status != UNKNOWN;
		if (!n || (r->all->polite && signaled && round % 16)) {
			sched_yield();
			continue;
		}
		why = read_fence(r, newest, &status);
		if (!reading)
			atomic_fetch_add(&r->all->n_reading, 1);
		reading = true;
		if (!why && status) {
			/* an old one, too: it has to be signaled */
			i = round % n;
			old = i == newest ? status : UNKNOWN;
			why = read_fence(r, i, &old);
		}
	}
	if (why)
		snprintf(r->why, sizeof(r->why), "%s", why);
	r->finished = true;
	return NULL;
}

const char *readers_start(struct readers *rs, struct fence *fences,
			  unsigned int n_fences, bool polite)
{
	struct sched_param param = {};
	cpu_set_t cpus;
	int cpu = -1;
	__u64 end;

	memset(rs, 0, sizeof(*rs));
	rs->fences = fences;
	rs->polite = polite;
	atomic_store(&rs->n_fences, n_fences);
	if (sched_getaffinity(0, sizeof(cpus), &cpus))
		return wrong("sched_getaffinity: %m");

	/* one on every CPU, and not less than two */
	while (rs->n < MAX_READERS) {
		struct reader *r = &rs->reader[rs->n];

		do {
			cpu++;
		} while (cpu < CPU_SETSIZE && !CPU_ISSET(cpu, &cpus));
		if (cpu == CPU_SETSIZE) {
			if (rs->n >= 2)
				break;
			cpu = -1;
			continue;
		}
		r->all = rs;
		r->cpu = cpu;
		if (pthread_create(&r->thread, NULL, reader_main, r))
			return wrong("pthread_create");
		/* all the time that those who make and signal fences leave */
		if (polite)
			pthread_setschedparam(r->thread, SCHED_IDLE, &param);
		rs->n++;
	}
	/* they are there when something happens to the fences */
	end = now_ns() + 2 * WAIT_MS * NSEC_PER_MSEC;
	while (n_fences && atomic_load(&rs->n_reading) < rs->n) {
		if (now_ns() > end)
			return "no power: a reader does not read";
		sleep_ms(1);
	}
	return NULL;
}

const char *readers_stop(struct readers *rs, struct reader *sum)
{
	struct sched_param param = {};
	const char *why = NULL;
	struct timespec ts;
	unsigned int i;

	atomic_store(&rs->stop, true);
	/* on a busy machine there may be no time left, and they need some */
	for (i = 0; i < rs->n; i++)
		pthread_setschedparam(rs->reader[i].thread, SCHED_OTHER, &param);
	clock_gettime(CLOCK_REALTIME, &ts);
	ts.tv_sec += 2 * WAIT_MS / 1000;
	for (i = 0; i < rs->n; i++) {
		struct reader *r = &rs->reader[i];

		if (pthread_timedjoin_np(r->thread, NULL, &ts))
			why = wrong("reader %u is stuck", i);
		else if (!r->finished)
			why = wrong("reader %u did not come back from the kernel",
				    i);
		else if (r->why[0])
			why = wrong("reader %u: %s", i, r->why);
		sum->reads += r->reads;
		sum->pending += r->pending;
		sum->both_sides += r->both_sides;
		sum->live_names += r->live_names;
		sum->gone_names += r->gone_names;
	}
	return why;
}

bool readers_have_power(const struct reader *sum)
{
	return sum->pending && sum->both_sides && sum->live_names &&
	       (sum->gone_names || keeps_names);
}
