// SPDX-License-Identifier: GPL-2.0
/*
 * Does an OUT_FENCE sync_file stay usable, whatever becomes of its issuer?
 *
 * A sync_file is a file descriptor: it can outlive the commit, the DRM file
 * and the whole display device behind it. The test makes a vkms instance of
 * its own, flips pages on it, and then
 *
 *  - asks the newest fences for names and status while they signal,
 *  - takes the device away and uses the old fences in every way there is,
 *  - takes it away while fences are read or still pending.
 *
 * Answers are checked, and so is the kernel log: a use after free is not an
 * errno. Only a kernel with CONFIG_KASAN reports all of them, and only with
 * "kasan_multi_shot" on its command line more than one per boot.
 *
 * Run it as root, on a kernel with CONFIG_DRM_VKMS: ./out_fence_lifetime
 * It needs no free display, and leaves other DRM devices alone.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
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
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <drm/drm.h>
#include <drm/drm_mode.h>
#include <linux/sync_file.h>

#include "kselftest_harness.h"

#define CONFIGFS	"/sys/kernel/config"
#define VKMS		CONFIGFS "/vkms"
#define PREFIX		"ksft-out-fence-"

#define NSEC_PER_MSEC	1000000ull
#define NSEC_PER_SEC	1000000000ull

/*
 * A fence carries the time of its vblank. That can be one frame and the delay
 * of a timer before the commit that asked for it, but not in the future.
 */
#define TIMESTAMP_SLACK	(2 * NSEC_PER_SEC)

#define WAIT_MS		5000	/* nothing here may take longer */
#define STRESS_MS	3000	/* at least ... */
#define STRESS_FLIPS	1000	/* ... and until this many, or */
#define STRESS_MAX_MS	10000
#define MAX_FENCES	4000
#define MAX_READERS	64

#define FAST_HZ		500	/* many signals for the stress test */
#define NORMAL_HZ	25	/* slow enough to look at a pending fence */
#define SLOW_HZ		2	/* pending until somebody ends it */

struct fence {
	int fd;
	bool polled;
	__u64 committed;	/* CLOCK_MONOTONIC before the commit */
	__u64 timestamp;	/* as reported with the device in place, or 0 */
};

/* Returns a description of what is wrong; NULL means that all is well. */
static const char *wrong(const char *fmt, ...) __printf(1, 2);

static const char *wrong(const char *fmt, ...)
{
	static __thread char text[256];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	return text;
}

#define EXPECT_FINE(call) do {				\
	const char *why = (call);			\
							\
	EXPECT_EQ(NULL, why)				\
		TH_LOG("%s: %s", #call, why);		\
} while (0)

#define ASSERT_FINE(call) do {				\
	const char *why = (call);			\
							\
	ASSERT_EQ(NULL, why)				\
		TH_LOG("%s: %s", #call, why);		\
} while (0)

static __u64 now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * NSEC_PER_SEC + ts.tv_nsec;
}

static void sleep_ms(unsigned int ms)
{
	poll(NULL, 0, ms);
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

static int kmsg_open(void)
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
		"rcu_preempt detected stalls", "self-detected stall",
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(marks); i++) {
		if (strstr(line, marks[i]))
			return true;
	}
	return false;
}

/* Fails the test if the kernel complained since kmsg_open(). */
static void kmsg_check(struct __test_metadata *_metadata, int fd)
{
	unsigned int complaints = 0;
	char record[8192], *text;
	ssize_t len;

	if (fd < 0) {
		TH_LOG("kernel log NOT checked: cannot read /dev/kmsg");
		return;
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
			TH_LOG("kernel: %s", text);
	}
	EXPECT_EQ(0u, complaints)
		TH_LOG("the kernel complained %u times, see its log", complaints);
	close(fd);
}

static bool file_contains(const char *path, const char *word)
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

/* ---- a vkms instance ---- */

struct display {
	char name[64];
	int fd;
	__u32 crtc, plane, connector, fb[2];
	__u32 out_fence_prop, fb_prop;
	unsigned int flips;
};

static const char * const instance_dirs[] = {
	"", "planes/p", "crtcs/c", "encoders/e", "connectors/o",
};

/* target, link: both inside of the instance */
static const char * const instance_links[][2] = {
	{ "crtcs/c", "planes/p/possible_crtcs/c" },
	{ "crtcs/c", "encoders/e/possible_crtcs/c" },
	{ "encoders/e", "connectors/o/possible_encoders/e" },
};

static const char *instance_path(char *buf, const char *name, const char *sub)
{
	snprintf(buf, PATH_MAX, VKMS "/%s/%s", name, sub);
	return buf;
}

static int instance_write(const char *name, const char *sub, const char *value)
{
	char path[PATH_MAX];
	int fd, err = 0;

	fd = open(instance_path(path, name, sub), O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (write(fd, value, strlen(value)) < 0)
		err = -errno;
	close(fd);
	return err;
}

static int instance_disable(const char *name)
{
	return instance_write(name, "enabled", "0");
}

static int instance_remove(const char *name)
{
	char path[PATH_MAX];
	unsigned int i;
	int err = 0;

	for (i = ARRAY_SIZE(instance_links); i--;)
		unlink(instance_path(path, name, instance_links[i][1]));
	for (i = ARRAY_SIZE(instance_dirs); i--;)
		err = rmdir(instance_path(path, name, instance_dirs[i]));
	return err ? -errno : 0;
}

/* An instance belongs to the process in its name, while that runs this test. */
static bool has_other_owner(const char *name)
{
	char path[64], theirs[PATH_MAX] = "", ours[PATH_MAX] = "";
	pid_t pid = atoi(name + strlen(PREFIX));

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
		if (strncmp(entry->d_name, PREFIX, strlen(PREFIX)))
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

/* Returns why there is no vkms in configfs, NULL if there is. */
static const char *find_vkms(void)
{
	pid_t pid;

	if (!access(VKMS, F_OK))
		return NULL;

	mount("none", CONFIGFS, "configfs", 0, NULL);
	if (!access(VKMS, F_OK))
		return NULL;

	pid = fork();
	if (!pid) {
		execlp("modprobe", "modprobe", "-q", "vkms",
		       "create_default_dev=0", (char *)NULL);
		_exit(127);
	}
	if (pid > 0)
		waitpid(pid, NULL, 0);
	if (!access(VKMS, F_OK))
		return NULL;
	if (access(CONFIGFS, F_OK))
		return "no configfs";
	return wrong("no %s: vkms is missing, too old, or not permitted", VKMS);
}

static int instance_create(const char *name)
{
	char path[PATH_MAX], target[PATH_MAX];
	unsigned int i;
	int err;

	for (i = 0; i < ARRAY_SIZE(instance_dirs); i++) {
		if (mkdir(instance_path(path, name, instance_dirs[i]), 0755))
			return -errno;
	}
	for (i = 0; i < ARRAY_SIZE(instance_links); i++) {
		instance_path(target, name, instance_links[i][0]);
		instance_path(path, name, instance_links[i][1]);
		if (symlink(target, path))
			return -errno;
	}
	err = instance_write(name, "planes/p/type", "1");	/* primary */
	if (!err)
		err = instance_write(name, "enabled", "1");
	return err;
}

/* The card whose parent device has the name of the instance. */
static int open_card(const char *name)
{
	char path[PATH_MAX], target[PATH_MAX];
	int i, fd, minor = -1;
	const char *base;
	ssize_t len;

	for (i = 0; i < 64 && minor < 0; i++) {
		snprintf(path, sizeof(path), "/sys/class/drm/card%d/device", i);
		len = readlink(path, target, sizeof(target) - 1);
		if (len < 0)
			continue;
		target[len] = '\0';
		base = strrchr(target, '/');
		if (!strcmp(base ? base + 1 : target, name))
			minor = i;
	}
	if (minor < 0)
		return -ENODEV;

	/* without devtmpfs the node comes some time later */
	snprintf(path, sizeof(path), "/dev/dri/card%d", minor);
	for (i = 0; i < 200; i++) {
		fd = open(path, O_RDWR | O_CLOEXEC);
		if (fd >= 0)
			return fd;
		if (errno != ENOENT)
			break;
		sleep_ms(10);
	}
	return -errno;
}

static __u32 find_prop(int fd, __u32 object, __u32 type, const char *name)
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

/* An atomic request; the properties of one object have to be in a row. */
struct request {
	__u32 objects[4], counts[4], props[32];
	__u64 values[32];
	unsigned int n_objects, n_props;
	bool incomplete;
};

static void request_add_id(struct request *req, __u32 object, __u32 prop,
			   __u64 value)
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

static const char *find_pipeline(struct display *d)
{
	struct drm_mode_get_plane_res planes = { .count_planes = 1 };
	struct drm_mode_card_res res = {
		.count_crtcs = 1,
		.count_connectors = 1,
	};

	planes.plane_id_ptr = (uintptr_t)&d->plane;
	res.crtc_id_ptr = (uintptr_t)&d->crtc;
	res.connector_id_ptr = (uintptr_t)&d->connector;
	if (do_ioctl(d->fd, DRM_IOCTL_MODE_GETRESOURCES, &res))
		return wrong("GETRESOURCES: %m");
	if (do_ioctl(d->fd, DRM_IOCTL_MODE_GETPLANERESOURCES, &planes))
		return wrong("GETPLANERESOURCES: %m");
	if (res.count_crtcs != 1 || res.count_connectors != 1 ||
	    planes.count_planes != 1)
		return wrong("%u CRTCs, %u connectors, %u planes instead of 1",
			     res.count_crtcs, res.count_connectors,
			     planes.count_planes);
	return NULL;
}

static const char *set_mode(struct display *d, unsigned int hz)
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
	const __u32 plane = DRM_MODE_OBJECT_PLANE;
	struct request req = {};
	int fd = d->fd;

	if (do_ioctl(fd, DRM_IOCTL_MODE_CREATEPROPBLOB, &blob))
		return wrong("CREATEPROPBLOB: %m");

	request_add(&req, fd, d->connector, DRM_MODE_OBJECT_CONNECTOR,
		    "CRTC_ID", d->crtc);
	request_add(&req, fd, d->crtc, DRM_MODE_OBJECT_CRTC, "MODE_ID",
		    blob.blob_id);
	request_add(&req, fd, d->crtc, DRM_MODE_OBJECT_CRTC, "ACTIVE", 1);
	request_add(&req, fd, d->plane, plane, "FB_ID", d->fb[0]);
	request_add(&req, fd, d->plane, plane, "CRTC_ID", d->crtc);
	request_add(&req, fd, d->plane, plane, "SRC_X", 0);
	request_add(&req, fd, d->plane, plane, "SRC_Y", 0);
	request_add(&req, fd, d->plane, plane, "SRC_W", SIZE << 16);
	request_add(&req, fd, d->plane, plane, "SRC_H", SIZE << 16);
	request_add(&req, fd, d->plane, plane, "CRTC_X", 0);
	request_add(&req, fd, d->plane, plane, "CRTC_Y", 0);
	request_add(&req, fd, d->plane, plane, "CRTC_W", SIZE);
	request_add(&req, fd, d->plane, plane, "CRTC_H", SIZE);
	if (request_commit(&req, fd, DRM_MODE_ATOMIC_ALLOW_MODESET))
		return wrong("modeset: %m");
	return NULL;
}

/* Makes the device, opens it and becomes its master. */
static int display_create(struct display *d)
{
	int err;

	d->fd = -1;
	snprintf(d->name, sizeof(d->name), PREFIX "%d", getpid());
	err = instance_create(d->name);
	if (err)
		return err;
	d->fd = open_card(d->name);
	if (d->fd < 0)
		return d->fd;
	/* the first to open it is its master already, unless we were late */
	return do_ioctl(d->fd, DRM_IOCTL_SET_MASTER, NULL) ? -errno : 0;
}

/* Makes the device and starts scanning out. */
static const char *display_start(struct display *d, unsigned int hz)
{
	struct drm_set_client_cap atomic = {
		.capability = DRM_CLIENT_CAP_ATOMIC,
		.value = 1,
	};
	const char *why;
	int err;

	err = display_create(d);
	if (err)
		return wrong("vkms instance: %s", strerror(-err));

	if (do_ioctl(d->fd, DRM_IOCTL_SET_CLIENT_CAP, &atomic))
		return wrong("no atomic modesetting: %m");

	why = find_pipeline(d);
	if (!why)
		why = add_framebuffer(d->fd, &d->fb[0]);
	if (!why)
		why = add_framebuffer(d->fd, &d->fb[1]);
	if (!why)
		why = set_mode(d, hz);
	if (why)
		return why;

	d->out_fence_prop = find_prop(d->fd, d->crtc, DRM_MODE_OBJECT_CRTC,
				      "OUT_FENCE_PTR");
	d->fb_prop = find_prop(d->fd, d->plane, DRM_MODE_OBJECT_PLANE, "FB_ID");
	return NULL;
}

static void display_close(struct display *d)
{
	if (d->fd >= 0)
		close(d->fd);
	d->fd = -1;
}

/* Ends the device; its memory is free when this returns. */
static const char *display_destroy(struct display *d)
{
	int err;

	display_close(d);
	if (!d->name[0])
		return NULL;
	err = instance_disable(d->name);
	if (!err)
		err = instance_remove(d->name);
	d->name[0] = '\0';
	return err ? wrong("%s", strerror(-err)) : NULL;
}

/* Commits a page flip. The event tells when @f, left untouched, signaled. */
static const char *flip_start(struct display *d, struct fence *f)
{
	__u64 end = now_ns() + WAIT_MS * NSEC_PER_MSEC;
	struct request req = {};
	__s32 fd = -1;

	request_add_id(&req, d->crtc, d->out_fence_prop, (uintptr_t)&fd);
	request_add_id(&req, d->plane, d->fb_prop, d->fb[++d->flips & 1]);

	memset(f, 0, sizeof(*f));
	f->committed = now_ns();
	/* EBUSY: the commit before has signaled, but is not through yet */
	while (request_commit(&req, d->fd, DRM_MODE_ATOMIC_NONBLOCK |
			      DRM_MODE_PAGE_FLIP_EVENT)) {
		if (errno != EBUSY || now_ns() > end) {
			f->fd = -1;
			return wrong("flip: %m");
		}
		sched_yield();
	}
	f->fd = fd;
	return fd < 0 ? wrong("flip: no fence") : NULL;
}

static const char *flip_wait(struct display *d)
{
	struct pollfd p = { .fd = d->fd, .events = POLLIN };
	char event[1024];

	if (poll(&p, 1, WAIT_MS) != 1)
		return wrong("no event of the page flip");
	if (read(d->fd, event, sizeof(event)) <= 0)
		return wrong("event of the page flip: %m");
	return NULL;
}

/* ---- everything that a sync_file can do ---- */

#define MAX_INFO	8

/* SYNC_IOC_FILE_INFO with room for @n fences, checked as far as one can. */
static const char *get_info(const struct fence *f, unsigned int n,
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
	if (info->status != 0 && info->status != 1)
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
	live_driver = !strcmp(fence->driver_name, "vkms");
	live_timeline = !strncmp(fence->obj_name, "CRTC:", 5);
	if (!live_driver && strcmp(fence->driver_name, "detached-driver"))
		return wrong("driver_name '%.32s'", fence->driver_name);
	if (!live_timeline && strcmp(fence->obj_name, "signaled-timeline"))
		return wrong("obj_name '%.32s'", fence->obj_name);
	/* the driver's name is read first, and names only ever go away */
	if (!live_driver && live_timeline)
		return wrong("names '%.32s', '%.32s' of two states",
			     fence->driver_name, fence->obj_name);
	if (fence->status == 1 &&
	    (fence->timestamp_ns + TIMESTAMP_SLACK < f->committed ||
	     fence->timestamp_ns > now))
		return wrong("timestamp %llu not in %llu..%llu",
			     fence->timestamp_ns, f->committed, now);
	return NULL;
}

/* What FILE_INFO has to say about a fence that signaled long ago. */
static const char *use_info(struct fence *f, unsigned int n)
{
	struct sync_fence_info fence;
	struct sync_file_info info;
	const char *why;

	why = get_info(f, n, &info, &fence);
	if (why)
		return why;
	if (info.status != 1)
		return wrong("status %d of a signaled fence", info.status);
	if (!strncmp(info.name, "vkms-", 5))
		return wrong("name '%.32s' of a signaled fence", info.name);
	if (!n)
		return NULL;
	if (strcmp(fence.driver_name, "detached-driver") ||
	    strcmp(fence.obj_name, "signaled-timeline"))
		return wrong("names '%.32s', '%.32s' of a signaled fence",
			     fence.driver_name, fence.obj_name);
	if (f->timestamp && fence.timestamp_ns != f->timestamp)
		return wrong("timestamp %llu was %llu before",
			     fence.timestamp_ns, f->timestamp);
	f->timestamp = fence.timestamp_ns;
	return NULL;
}

static const char *use_info_count(struct fence *f, struct fence *other)
{
	(void)other;
	return use_info(f, 0);
}

static const char *use_info_one(struct fence *f, struct fence *other)
{
	(void)other;
	return use_info(f, 1);
}

static const char *use_info_many(struct fence *f, struct fence *other)
{
	(void)other;
	return use_info(f, MAX_INFO);
}

static const char *use_poll(struct fence *f, struct fence *other)
{
	struct pollfd p = { .fd = f->fd, .events = POLLIN };

	(void)other;
	f->polled = true;
	if (poll(&p, 1, WAIT_MS) != 1 || p.revents != POLLIN)
		return wrong("poll says %#x", p.revents);
	return NULL;
}

static const char *use_deadline(struct fence *f, struct fence *other)
{
	struct sync_set_deadline deadline = { .deadline_ns = now_ns() };

	(void)other;
	if (do_ioctl(f->fd, SYNC_IOC_SET_DEADLINE, &deadline))
		return wrong("SET_DEADLINE: %m");
	return NULL;
}

static const char *use_close(struct fence *f)
{
	int err = close(f->fd);

	f->fd = -1;
	return err ? wrong("close: %m") : NULL;
}

static const char *use_merge(struct fence *f, struct fence *other)
{
	struct sync_merge_data merge = { .name = "merged", .fd2 = other->fd };
	struct fence merged = { .committed = f->committed };
	const char *why;

	if (do_ioctl(f->fd, SYNC_IOC_MERGE, &merge))
		return wrong("MERGE: %m");
	merged.fd = merge.fence;
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

static const char *use_merge_self(struct fence *f, struct fence *other)
{
	(void)other;
	return use_merge(f, f);
}

static const char *use_dup(struct fence *f, struct fence *other)
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

static const char *use_close_polled(struct fence *f, struct fence *other)
{
	const char *why = use_poll(f, other);

	return why ?: use_close(f);
}

static const char *use_close_unpolled(struct fence *f, struct fence *other)
{
	(void)other;
	return f->polled ? NULL : use_close(f);
}

/* ---- descriptors in another process ---- */

union control {
	char space[CMSG_SPACE(sizeof(int))];
	struct cmsghdr align;
};

static int send_fd(int sock, int fd)
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

static int receive_fd(int sock)
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

static const char *use_other_process(struct fence *f, struct fence *other)
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

struct reader {
	struct readers *all;
	pthread_t thread;
	int cpu;
	bool finished;		/* not set if the kernel killed the thread */
	unsigned long reads, pending, both_sides, live_names, gone_names;
	char why[256];
};

struct readers {
	struct fence *fences;
	atomic_uint n_fences;	/* a fence once added stays open */
	atomic_bool stop;
	bool polite;		/* leave the CPU to who makes the next fence */
	unsigned int n;
	struct reader reader[MAX_READERS];
};

/* Reads fence @i in all ways; @status is what this thread knows of it. */
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
		if (info.status < *status)
			return wrong("status %d after %d", info.status, *status);
		if (!info.status)
			r->pending++;
		else if (*status == 0)
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
			return wrong("poll sees no signal after status 1");
	}
	return NULL;
}

static void *reader_main(void *arg)
{
	unsigned int i, n, round = 0, newest = UINT_MAX;
	struct reader *r = arg;
	struct sched_param param = {};
	const char *why = NULL;
	int status = -1, old;
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	CPU_SET(r->cpu, &cpus);
	pthread_setaffinity_np(pthread_self(), sizeof(cpus), &cpus);
	/* all the time that those who make and signal fences do not need */
	if (r->all->polite)
		pthread_setschedparam(pthread_self(), SCHED_IDLE, &param);

	while (!why && !atomic_load(&r->all->stop)) {
		n = atomic_load(&r->all->n_fences);
		if (n && n - 1 != newest) {
			newest = n - 1;
			status = -1;
		}
		round++;
		if (!n || (r->all->polite && status == 1 && round % 16)) {
			sched_yield();
			continue;
		}
		why = read_fence(r, newest, &status);
		if (!why && status == 1) {
			/* an old one, too: it has to be signaled */
			i = round % n;
			old = i == newest ? status : -1;
			why = read_fence(r, i, &old);
		}
	}
	if (why)
		snprintf(r->why, sizeof(r->why), "%s", why);
	r->finished = true;
	return NULL;
}

static const char *readers_start(struct readers *rs, struct fence *fences,
				 unsigned int n_fences, bool polite)
{
	cpu_set_t cpus;
	int cpu = -1;

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
		rs->n++;
	}
	return NULL;
}

/* Returns the sum of what the readers did. */
static struct reader readers_stop(struct __test_metadata *_metadata,
				  struct readers *rs)
{
	struct reader sum = {};
	struct timespec ts;
	unsigned int i;

	atomic_store(&rs->stop, true);
	clock_gettime(CLOCK_REALTIME, &ts);
	ts.tv_sec += 2 * WAIT_MS / 1000;
	for (i = 0; i < rs->n; i++) {
		struct reader *r = &rs->reader[i];

		EXPECT_EQ(0, pthread_timedjoin_np(r->thread, NULL, &ts))
			TH_LOG("reader %u is stuck", i);
		EXPECT_TRUE(r->finished)
			TH_LOG("reader %u did not come back from the kernel", i);
		EXPECT_EQ(0, r->why[0])
			TH_LOG("reader %u: %s", i, r->why);
		sum.reads += r->reads;
		sum.pending += r->pending;
		sum.both_sides += r->both_sides;
		sum.live_names += r->live_names;
		sum.gone_names += r->gone_names;
	}
	return sum;
}

/* ---- the tests ---- */

TEST(kernel_reports_use_after_free)
{
	if (access("/dev/kmsg", R_OK))
		SKIP(return, "cannot read the kernel log: %s", strerror(errno));
	if (access("/proc/kallsyms", R_OK))
		SKIP(return, "cannot tell whether the kernel has KASAN");
	if (!file_contains("/proc/kallsyms", " kasan_report\n"))
		SKIP(return, "no CONFIG_KASAN: use after free can pass unseen");
	if (!file_contains("/proc/cmdline", "kasan_multi_shot"))
		TH_LOG("no kasan_multi_shot: only the first failing case is named");
}

/* Sets up or skips; @kmsg and @d are for the teardown. */
static bool prepare(struct __test_metadata *_metadata, struct display *d,
		    int *kmsg)
{
	const char *why;
	int err;

	*kmsg = -1;
	d->fd = -1;
	why = find_vkms();
	if (why)
		SKIP(return false, "%s", why);
	remove_leftovers();

	/* what is not permitted or not there shows now, not in the test */
	err = display_create(d);
	if (err) {
		display_destroy(d);
		SKIP(return false, "cannot make and control a vkms instance: %s",
		     strerror(-err));
	}
	why = display_destroy(d);
	if (why)
		SKIP(return false, "cannot remove a vkms instance: %s", why);

	*kmsg = kmsg_open();
	return true;
}

/* The device has gone; what follows does not touch it, it only keeps fences. */
FIXTURE(after_device_gone)
{
	struct display display;
	struct fence fences[6];
	int kmsg;
};

FIXTURE_VARIANT(after_device_gone)
{
	const char *(*use)(struct fence *f, struct fence *other);
};

FIXTURE_VARIANT_ADD(after_device_gone, info_count)
{
	.use = use_info_count,
};

FIXTURE_VARIANT_ADD(after_device_gone, info_one)
{
	.use = use_info_one,
};

FIXTURE_VARIANT_ADD(after_device_gone, info_many)
{
	.use = use_info_many,
};

FIXTURE_VARIANT_ADD(after_device_gone, poll)
{
	.use = use_poll,
};

FIXTURE_VARIANT_ADD(after_device_gone, merge_self)
{
	.use = use_merge_self,
};

FIXTURE_VARIANT_ADD(after_device_gone, merge)
{
	.use = use_merge,
};

FIXTURE_VARIANT_ADD(after_device_gone, deadline)
{
	.use = use_deadline,
};

FIXTURE_VARIANT_ADD(after_device_gone, dup)
{
	.use = use_dup,
};

FIXTURE_VARIANT_ADD(after_device_gone, other_process)
{
	.use = use_other_process,
};

FIXTURE_VARIANT_ADD(after_device_gone, close_polled)
{
	.use = use_close_polled,
};

FIXTURE_VARIANT_ADD(after_device_gone, close_unpolled)
{
	.use = use_close_unpolled,
};

FIXTURE_SETUP(after_device_gone)
{
	unsigned int i, n = ARRAY_SIZE(self->fences);

	if (!prepare(_metadata, &self->display, &self->kmsg))
		return;
	for (i = 0; i < n; i++)
		self->fences[i].fd = -1;

	ASSERT_FINE(display_start(&self->display, NORMAL_HZ));
	for (i = 0; i < n; i++) {
		struct fence *f = &self->fences[i];
		struct pollfd p = { .events = POLLIN };

		ASSERT_FINE(flip_start(&self->display, f));
		/* all histories: polled never, pending, signaled; info or not */
		p.fd = f->fd;
		if (i % 3 == 1) {
			ASSERT_LE(0, poll(&p, 1, 0));
			f->polled = true;
		}
		ASSERT_FINE(flip_wait(&self->display));
		if (i % 3 == 2)
			ASSERT_FINE(use_poll(f, NULL));
		if (i >= 3)
			ASSERT_FINE(use_info(f, 1));
	}
	ASSERT_FINE(display_destroy(&self->display));
}

FIXTURE_TEARDOWN(after_device_gone)
{
	/* first: closing the rest is not what is tested here */
	kmsg_check(_metadata, self->kmsg);
}

TEST_F(after_device_gone, use)
{
	unsigned int i, n = ARRAY_SIZE(self->fences);

	for (i = 0; i < n; i++)
		EXPECT_FINE(variant->use(&self->fences[i],
					 &self->fences[(i + 1) % n]));
}

/* The device goes while somebody reads, or while a fence is pending. */
FIXTURE(device_going)
{
	struct display display;
	int kmsg;
};

FIXTURE_SETUP(device_going)
{
	prepare(_metadata, &self->display, &self->kmsg);
}

FIXTURE_TEARDOWN(device_going)
{
	display_destroy(&self->display);
	kmsg_check(_metadata, self->kmsg);
}

TEST_F_TIMEOUT(device_going, signaled_and_read, 60)
{
	static struct readers readers;
	struct fence fences[8];
	unsigned int round, i;
	struct reader sum;

	for (round = 0; round < 5; round++) {
		ASSERT_FINE(display_start(&self->display, FAST_HZ));
		for (i = 0; i < ARRAY_SIZE(fences); i++) {
			ASSERT_FINE(flip_start(&self->display, &fences[i]));
			ASSERT_FINE(flip_wait(&self->display));
		}
		ASSERT_FINE(readers_start(&readers, fences, i, false));
		sleep_ms(20);
		EXPECT_FINE(display_destroy(&self->display));
		sleep_ms(50);
		sum = readers_stop(_metadata, &readers);
		EXPECT_LT(0ul, sum.reads);
		TH_LOG("round %u: %lu reads", round, sum.reads);
		for (i = 0; i < ARRAY_SIZE(fences); i++) {
			EXPECT_FINE(use_info(&fences[i], 1));
			EXPECT_FINE(use_close(&fences[i]));
		}
	}
}

/* Flips on a slow device and hands back while the fence is pending. */
static void pending_start(struct __test_metadata *_metadata, struct display *d,
			  struct fence *fence)
{
	struct sync_fence_info fi;
	struct sync_file_info info;

	ASSERT_FINE(display_start(d, SLOW_HZ));
	ASSERT_FINE(flip_start(d, fence));
	ASSERT_FINE(get_info(fence, 1, &info, &fi));
	ASSERT_EQ(0, info.status)
		TH_LOG("signaled in less than a frame of %u ms", 1000 / SLOW_HZ);
	EXPECT_STREQ("vkms", fi.driver_name);
}

static void pending_end(struct __test_metadata *_metadata, struct fence *fence)
{
	EXPECT_FINE(use_poll(fence, NULL));
	EXPECT_FINE(use_info(fence, 0));
	EXPECT_FINE(use_info(fence, 1));
	EXPECT_FINE(use_merge_self(fence, NULL));
	EXPECT_FINE(use_deadline(fence, NULL));
	EXPECT_FINE(use_close(fence));
}

TEST_F(device_going, pending_then_closed)
{
	struct fence fence;

	pending_start(_metadata, &self->display, &fence);
	EXPECT_FINE(display_destroy(&self->display));
	pending_end(_metadata, &fence);
}

TEST_F(device_going, pending_then_disabled)
{
	struct fence fence;

	pending_start(_metadata, &self->display, &fence);
	/* the open DRM file keeps the memory, but not the device */
	EXPECT_EQ(0, instance_disable(self->display.name));
	EXPECT_FINE(use_poll(&fence, NULL));
	EXPECT_FINE(use_info(&fence, 1));
	EXPECT_FINE(display_destroy(&self->display));
	pending_end(_metadata, &fence);
}

TEST_F(device_going, pending_and_read)
{
	static struct readers readers;
	struct fence fence;

	pending_start(_metadata, &self->display, &fence);
	ASSERT_FINE(readers_start(&readers, &fence, 1, false));
	EXPECT_FINE(display_destroy(&self->display));
	sleep_ms(50);
	readers_stop(_metadata, &readers);
	pending_end(_metadata, &fence);
}

/* Last: where this one finds a bug, the kernel may have lost a thread. */
FIXTURE(device_present)
{
	struct display display;
	struct fence *fences;
	int kmsg;
};

FIXTURE_SETUP(device_present)
{
	if (!prepare(_metadata, &self->display, &self->kmsg))
		return;
	self->fences = calloc(MAX_FENCES, sizeof(*self->fences));
	ASSERT_NE(NULL, self->fences);
	ASSERT_FINE(display_start(&self->display, FAST_HZ));
}

FIXTURE_TEARDOWN(device_present)
{
	EXPECT_FINE(display_destroy(&self->display));
	kmsg_check(_metadata, self->kmsg);
}

TEST_F_TIMEOUT(device_present, names_while_signaling, 60)
{
	unsigned int i, max = MAX_FENCES, flips = 0;
	static struct readers readers;
	const char *why = NULL;
	struct rlimit limit;
	struct reader sum;
	__u64 start, time;

	ASSERT_EQ(0, getrlimit(RLIMIT_NOFILE, &limit));
	if (limit.rlim_max > MAX_FENCES + 64)
		limit.rlim_max = MAX_FENCES + 64;
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
	if (limit.rlim_cur < max + 64)
		max = limit.rlim_cur - 64;

	ASSERT_FINE(readers_start(&readers, self->fences, 0, true));
	start = now_ns();
	while (!why && flips < max) {
		time = (now_ns() - start) / NSEC_PER_MSEC;
		if (time > (flips < STRESS_FLIPS ? STRESS_MAX_MS : STRESS_MS))
			break;
		why = flip_start(&self->display, &self->fences[flips]);
		if (why)
			break;
		atomic_store(&readers.n_fences, ++flips);
		why = flip_wait(&self->display);
	}
	EXPECT_EQ(NULL, why)
		TH_LOG("%s", why);
	sleep_ms(20);
	sum = readers_stop(_metadata, &readers);

	TH_LOG("power: %u readers, %u flips, %lu reads, %lu of pending fences",
	       readers.n, flips, sum.reads, sum.pending);
	TH_LOG("power: status 0 then 1 seen %lu times, names 'vkms' %lu, 'detached-driver' %lu",
	       sum.both_sides, sum.live_names, sum.gone_names);
	EXPECT_LT(0u, flips);
	EXPECT_LT(0ul, sum.pending);
	EXPECT_LT(0ul, sum.both_sides);
	EXPECT_LT(0ul, sum.live_names);
	EXPECT_LT(0ul, sum.gone_names);

	for (i = 0; i < flips; i++)
		EXPECT_FINE(use_info(&self->fences[i], 1));
	for (i = 0; i < flips; i++)
		EXPECT_FINE(use_close(&self->fences[i]));
}

TEST_HARNESS_MAIN
