// SPDX-License-Identifier: GPL-2.0
/*
 * Does the fence of a FunctionFS transfer live as long as somebody needs it?
 *
 * FunctionFS sends and receives DMA-bufs. Each transfer has a fence, which is
 * in the reservation object of the buffer: userspace can have it as a
 * sync_file, and the transfer itself has to signal it. The test makes a gadget
 * on dummy_hcd, which is at the same time the host that the gadget is plugged
 * into, and then
 *
 *  - moves data both ways, and looks at the fences before and after,
 *  - queues a buffer twice before the host wants any of it,
 *  - detaches a buffer, closes endpoints, unbinds and removes the gadget, and
 *    takes its controller away, with transfers pending,
 *  - uses the fences in every way there is when all that made them is gone,
 *    modules included,
 *  - does the worst of it again and again in two threads.
 *
 * Answers are checked, and so is the kernel log: a use after free is not an
 * errno. Only a kernel with CONFIG_KASAN reports all of them, and only with
 * "kasan_multi_shot" on its command line more than one per boot.
 *
 * Run it as root, on a kernel with CONFIG_USB_DUMMY_HCD,
 * CONFIG_USB_CONFIGFS_F_FS and CONFIG_UDMABUF: ./functionfs_fence_lifetime
 * dummy_hcd has to be able to do scatter-gather, and CONFIG_DMABUF_DEBUG, which
 * hides the pages of a buffer from it, has to be off. What happens when modules
 * are unloaded is only seen where they are modules.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <linux/dma-buf.h>
#include <linux/sync_file.h>
#include <linux/udmabuf.h>
#include <linux/usb/ch9.h>
#include <linux/usb/functionfs.h>
#include <linux/usbdevice_fs.h>

#include "kselftest_harness.h"
#include "functionfs_util.h"
#include "out_fence_util.h"

#define NAME		"fence_lifetime"
#define UDC		"dummy_udc.0"
#define UDC_2		"dummy_udc.1"
#define UDC_DRIVER	"/sys/bus/platform/drivers/dummy_udc"
#define CONFIGFS	"/sys/kernel/config"
#define GADGETS		CONFIGFS "/usb_gadget"
#define GADGET		GADGETS "/" NAME
#define FUNCTION	GADGET "/functions/ffs." NAME
#define CONFIGURATION	GADGET "/configs/c.1"
#define FFS		"/dev/ffs-" NAME	/* devtmpfs is always there */
#define USB_DEVICES	"/sys/bus/usb/devices"

#define VENDOR		0x1d6b	/* Linux Foundation */
#define PRODUCT		0x0104	/* multifunction composite gadget */

#define HOST_MS		5000	/* for a transfer that has all it needs */
#define ENUMERATE_MS	30000	/* until the host has found the gadget */

#define SMALL		1024	/* less than a page, more than a FIFO */
#define LARGE		65536	/* several pages, several frames */

#define STRESS_THREADS	2
#define STRESS_ROUNDS	200	/* each, or */
#define STRESS_MAX_MS	20000

/* ---- what may be missing ---- */

static const char * const modules[] = {
	/* each needs those before it, and is unloaded before them */
	"libcomposite", "usb_f_fs", "dummy_hcd",
};

static const char *unload_modules(void)
{
	unsigned int i = ARRAY_SIZE(modules);
	const char *why = NULL;

	while (i-- && !why)
		why = module_unload(modules[i]);
	return why;
}

/* ---- a gadget, and the host that it is plugged into ---- */

struct gadget {
	int ep0, in, out;		/* files of functionfs */
	int host;			/* the device, as the host sees it */
	unsigned int host_in, host_out;	/* and its endpoints */
};

/* Waits until the host has configured the gadget. */
static const char *wait_enabled(int ep0)
{
	__u64 end = now_ns() + ENUMERATE_MS * NSEC_PER_MSEC;
	struct usb_functionfs_event events[4];
	ssize_t len;
	size_t i;

	while (now_ns() < end) {
		struct pollfd p = { .fd = ep0, .events = POLLIN };

		if (poll(&p, 1, 100) != 1 || !(p.revents & POLLIN))
			continue;
		len = read(ep0, events, sizeof(events));
		if (len < 0)
			return wrong("events: %m");
		for (i = 0; i < len / sizeof(*events); i++) {
			if (events[i].type == FUNCTIONFS_ENABLE)
				return NULL;
		}
	}
	return "the host does not configure the gadget";
}

/* An attribute of a USB device, as a number; 0 if there is none. */
static unsigned long attribute(const char *device, const char *name, int base)
{
	char path[512], line[64] = "";
	FILE *file;

	snprintf(path, sizeof(path), USB_DEVICES "/%s/%s", device, name);
	file = fopen(path, "r");
	if (!file)
		return 0;
	if (!fgets(line, sizeof(line), file))
		line[0] = '\0';
	fclose(file);
	return strtoul(line, NULL, base);
}

/* On the bus of dummy_hcd, configured, and not an interface. */
static bool is_our_device(const char *device)
{
	char path[512], real[PATH_MAX];

	snprintf(path, sizeof(path), USB_DEVICES "/%s", device);
	return !strchr(device, ':') && realpath(path, real) &&
	       strstr(real, "/dummy_hcd.") &&
	       attribute(device, "idVendor", 16) == VENDOR &&
	       attribute(device, "idProduct", 16) == PRODUCT &&
	       attribute(device, "bConfigurationValue", 10) == 1;
}

/* Finds the addresses that the endpoints have got. */
static const char *find_endpoints(struct gadget *g)
{
	unsigned char text[512];
	ssize_t len, at;

	len = pread(g->host, text, sizeof(text), 0);
	if (len < 0)
		return wrong("descriptors of the device: %m");
	g->host_in = 0;
	g->host_out = 0;
	for (at = 0; at + 2 < len && text[at]; at += text[at]) {
		if (text[at + 1] != USB_DT_ENDPOINT)
			continue;
		if (text[at + 2] & USB_DIR_IN)
			g->host_in = text[at + 2];
		else
			g->host_out = text[at + 2];
	}
	return g->host_in && g->host_out ? NULL : "endpoints of the device";
}

static const char *try_host_open(struct gadget *g)
{
	const char *why = "no such device on the host";
	unsigned int interface = 0;
	struct dirent *entry;
	char node[64];
	DIR *dir;

	dir = opendir(USB_DEVICES);
	if (!dir)
		return wrong(USB_DEVICES ": %m");
	while ((entry = readdir(dir))) {
		if (!is_our_device(entry->d_name))
			continue;
		snprintf(node, sizeof(node), "/dev/bus/usb/%03lu/%03lu",
			 attribute(entry->d_name, "busnum", 10),
			 attribute(entry->d_name, "devnum", 10));
		g->host = open(node, O_RDWR | O_CLOEXEC);
		if (g->host < 0) {
			why = wrong("%s: %m", node);
			continue;
		}
		why = find_endpoints(g);
		if (!why && ioctl(g->host, USBDEVFS_CLAIMINTERFACE, &interface))
			why = wrong("CLAIMINTERFACE: %m");
		if (!why)
			break;
		close_fd(&g->host);
	}
	closedir(dir);
	return why;
}

/* The device may still be on its way. */
static const char *host_open(struct gadget *g)
{
	__u64 end = now_ns() + ENUMERATE_MS * NSEC_PER_MSEC;
	const char *why;

	for (;;) {
		why = try_host_open(g);
		if (!why || now_ns() > end)
			return why;
		sleep_ms(20);
	}
}

static void gadget_close(struct gadget *g)
{
	close_fd(&g->host);
	close_fd(&g->in);
	close_fd(&g->out);
	close_fd(&g->ep0);
}

/* Does nothing where there is no gadget bound any more. */
static const char *gadget_unbind(void)
{
	int err = write_file(GADGET "/UDC", "\n");

	if (err && err != -ENODEV && err != -ENOENT)
		return wrong("unbind: %s", strerror(-err));
	return NULL;
}

/* Removes what there is of it, which may be the rest of another run. */
static const char *gadget_remove(void)
{
	__u64 end = now_ns() + WAIT_MS * NSEC_PER_MSEC;
	static const char * const dirs[] = { FUNCTION, CONFIGURATION, GADGET };
	const char *why = gadget_unbind();
	unsigned int i;

	if (unlink(CONFIGURATION "/ffs." NAME) && errno != ENOENT && !why)
		why = wrong("unlink: %m");
	/* somebody's last close() may be under way */
	while (umount(FFS)) {
		if (errno == EINVAL || errno == ENOENT)
			break;
		if (now_ns() > end) {
			why = why ?: wrong("umount: %m");
			umount2(FFS, MNT_DETACH);
			break;
		}
		sleep_ms(10);
	}
	rmdir(FFS);
	for (i = 0; i < ARRAY_SIZE(dirs); i++) {
		if (rmdir(dirs[i]) && errno != ENOENT && !why)
			why = wrong("rmdir %s: %m", dirs[i]);
	}
	return why;
}

static const char *gadget_stop(struct gadget *g)
{
	gadget_close(g);
	return gadget_remove();
}

static const char *gadget_make(struct gadget *g)
{
	static const char * const dirs[] = { GADGET, FUNCTION, CONFIGURATION };
	char text[16];
	unsigned int i;
	int err;

	for (i = 0; i < ARRAY_SIZE(dirs); i++) {
		if (mkdir(dirs[i], 0755))
			return wrong("mkdir %s: %m", dirs[i]);
	}
	snprintf(text, sizeof(text), "%#x", VENDOR);
	err = write_file(GADGET "/idVendor", text);
	snprintf(text, sizeof(text), "%#x", PRODUCT);
	err = err ?: write_file(GADGET "/idProduct", text);
	if (err)
		return wrong("attributes: %s", strerror(-err));
	if (symlink(FUNCTION, CONFIGURATION "/ffs." NAME))
		return wrong("symlink: %m");

	if (mkdir(FFS, 0755) && errno != EEXIST)
		return wrong("mkdir " FFS ": %m");
	if (mount(NAME, FFS, "functionfs", 0, NULL))
		return wrong("mount " FFS ": %m");
	g->ep0 = open(FFS "/ep0", O_RDWR | O_CLOEXEC);
	if (g->ep0 < 0)
		return wrong("ep0: %m");
	return ffs_write_descriptors(g->ep0, NAME, true);
}

static const char *gadget_open(struct gadget *g)
{
	/* numbered in the order of the descriptors */
	g->in = open(FFS "/ep1", O_RDWR | O_CLOEXEC);
	g->out = open(FFS "/ep2", O_RDWR | O_CLOEXEC);
	return g->in < 0 || g->out < 0 ? wrong("endpoints: %m") : NULL;
}

static const char *gadget_bind_to(struct gadget *g, const char *udc)
{
	int err = write_file(GADGET "/UDC", udc);

	if (err)
		return wrong("bind: %s", strerror(-err));
	return wait_enabled(g->ep0) ?: host_open(g);
}

static const char *gadget_bind(struct gadget *g)
{
	return gadget_bind_to(g, UDC);
}

static void gadget_init(struct gadget *g)
{
	g->ep0 = -1;
	g->in = -1;
	g->out = -1;
	g->host = -1;
}

static const char *gadget_start(struct gadget *g)
{
	return gadget_make(g) ?: gadget_open(g) ?: gadget_bind(g);
}

/* Why there can be no gadget, or NULL. Removes the rest of another run. */
static const char *cannot_have_gadget(void)
{
	const char *why = NULL;
	unsigned int i;

	if (geteuid())
		return "not root";
	if (access("/dev/udmabuf", R_OK | W_OK))
		return "no CONFIG_UDMABUF: /dev/udmabuf";
	/* where they are built in there is nothing to load */
	for (i = 0; i < ARRAY_SIZE(modules); i++)
		module_load(modules[i], strcmp(modules[i], "dummy_hcd") ?
			    "" : "num=2");
	if (access(GADGETS, F_OK))
		mount("configfs", CONFIGFS, "configfs", 0, NULL);
	if (access(GADGETS, F_OK))
		return "no CONFIG_USB_CONFIGFS: " GADGETS;
	if (access("/sys/class/udc/" UDC, F_OK))
		return "no CONFIG_USB_DUMMY_HCD: " UDC;
	gadget_remove();
	if (mkdir(GADGET, 0755))
		return wrong("mkdir " GADGET ": %m");
	if (mkdir(FUNCTION, 0755))
		why = wrong("no CONFIG_USB_CONFIGFS_F_FS: %m");
	gadget_remove();
	return why;
}

/* What the host does: each returns the length, or -errno. */

static int host_bulk(struct gadget *g, unsigned int ep, void *data, size_t len,
		     unsigned int ms)
{
	struct usbdevfs_bulktransfer bulk = {
		.ep = ep,
		.len = len,
		.timeout = ms,
		.data = data,
	};
	int ret = ioctl(g->host, USBDEVFS_BULK, &bulk);

	return ret < 0 ? -errno : ret;
}

/* The same, but with a scatterlist on the side of the host if it is large. */
static int host_urb(struct gadget *g, unsigned int ep, void *data, size_t len,
		    unsigned int ms)
{
	__u64 end = now_ns() + ms * NSEC_PER_MSEC;
	struct usbdevfs_urb *done, urb = {
		.type = USBDEVFS_URB_TYPE_BULK,
		.endpoint = ep,
		.buffer = data,
		.buffer_length = len,
	};
	bool late = false;

	if (ioctl(g->host, USBDEVFS_SUBMITURB, &urb))
		return -errno;
	while (ioctl(g->host, USBDEVFS_REAPURBNDELAY, &done)) {
		if (errno != EAGAIN && errno != EINTR)
			return -errno;
		if (!late && now_ns() > end) {
			late = true;
			ioctl(g->host, USBDEVFS_DISCARDURB, &urb);
		}
		/* a URB that is discarded ends at once */
		if (now_ns() > end + HOST_MS * NSEC_PER_MSEC)
			return -EDEADLK;
		sleep_ms(1);
	}
	if (late)
		return -ETIMEDOUT;
	return urb.status ? urb.status : urb.actual_length;
}

/* ---- buffers ---- */

struct buffer {
	int memfd, fd;
	size_t size;
	unsigned char *map;
};

/* A DMA-buf whose pages are in no order that could be merged. */
static const char *buffer_make(struct buffer *b, size_t size)
{
	size_t page = sysconf(_SC_PAGESIZE), i, n = (size + page - 1) / page;
	struct udmabuf_create_list *create;
	const char *why = NULL;
	int fd;

	b->size = n * page;
	b->map = MAP_FAILED;
	b->fd = -1;
	b->memfd = memfd_create(NAME, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (b->memfd < 0)
		return wrong("memfd_create: %m");
	if (ftruncate(b->memfd, b->size) ||
	    fcntl(b->memfd, F_ADD_SEALS, F_SEAL_SHRINK))
		return wrong("memfd: %m");
	create = calloc(1, sizeof(*create) + n * sizeof(create->list[0]));
	if (!create)
		return "memory";
	create->flags = UDMABUF_FLAGS_CLOEXEC;
	create->count = n;
	for (i = 0; i < n; i++) {
		create->list[i].memfd = b->memfd;
		create->list[i].offset = (n - 1 - i) * page;
		create->list[i].size = page;
	}
	fd = open("/dev/udmabuf", O_RDWR | O_CLOEXEC);
	b->fd = ioctl(fd, UDMABUF_CREATE_LIST, create);
	if (b->fd < 0)
		why = wrong("UDMABUF_CREATE_LIST: %m");
	close_fd(&fd);
	free(create);
	if (why)
		return why;
	/*
	 * There is no DMA_BUF_IOCTL_SYNC around what the CPU does here: it waits
	 * for transfers, and no memory is out of sync where all of it is CPU's.
	 */
	b->map = mmap(NULL, b->size, PROT_READ | PROT_WRITE, MAP_SHARED, b->fd,
		      0);
	return b->map == MAP_FAILED ? wrong("mmap: %m") : NULL;
}

static void buffer_free(struct buffer *b)
{
	if (b->map && b->map != MAP_FAILED)
		munmap(b->map, b->size);
	b->map = NULL;
	close_fd(&b->fd);
	close_fd(&b->memfd);
}

static void fill(unsigned char *data, size_t len, unsigned int seed)
{
	size_t i;

	for (i = 0; i < len; i++)
		data[i] = seed + i * 7 + (i >> 8) * 13;
}

static const char *check(const unsigned char *data, size_t len,
			 unsigned int seed)
{
	unsigned char want;
	size_t i;

	for (i = 0; i < len; i++) {
		want = seed + i * 7 + (i >> 8) * 13;
		if (data[i] != want)
			return wrong("byte %zu of %zu is %#x, not %#x", i, len,
				     data[i], want);
	}
	return NULL;
}

/* What the gadget does: 0 or -errno. */

static int attach(int ep, struct buffer *b)
{
	return try_ioctl(ep, FUNCTIONFS_DMABUF_ATTACH, &b->fd);
}

static int detach(int ep, struct buffer *b)
{
	return try_ioctl(ep, FUNCTIONFS_DMABUF_DETACH, &b->fd);
}

static int transfer(int ep, struct buffer *b, size_t len)
{
	struct usb_ffs_dmabuf_transfer_req req = { .fd = b->fd, .length = len };

	return try_ioctl(ep, FUNCTIONFS_DMABUF_TRANSFER, &req);
}

/* Returns the newest fence on the buffer, or -errno. */
static int export_fence(struct buffer *b)
{
	struct dma_buf_export_sync_file arg = {
		.flags = DMA_BUF_SYNC_RW,
		.fd = UNTOUCHED,
	};

	return try_ioctl(b->fd, DMA_BUF_IOCTL_EXPORT_SYNC_FILE, &arg) ?: arg.fd;
}

/* A transfer that waits for the host, and its fence. */
static const char *start(int ep, struct buffer *b, size_t len, int *fence)
{
	int err = transfer(ep, b, len);

	if (err)
		return wrong("TRANSFER: %s", strerror(-err));
	if (!fence)
		return NULL;
	*fence = export_fence(b);
	return *fence < 0 ? wrong("EXPORT_SYNC_FILE: %s", strerror(-*fence)) :
			    NULL;
}

/* ---- fences ---- */

enum outcome { COMPLETED, CANCELLED, EITHER };

static bool is_outcome(int status, enum outcome outcome)
{
	if (status > 0)
		return status == 1 && outcome != CANCELLED;
	return status < 0 && outcome != COMPLETED;
}

/* FILE_INFO with room for @n. */
static const char *ask(int fd, unsigned int n, struct sync_file_info *info,
		       struct sync_fence_info *first)
{
	struct sync_fence_info fences[8] = {};

	memset(info, 0, sizeof(*info));
	info->num_fences = n;
	info->sync_fence_info = (uintptr_t)fences;
	if (ioctl(fd, SYNC_IOC_FILE_INFO, info))
		return wrong("FILE_INFO: %m");
	if (info->num_fences != 1)
		return wrong("%u fences", info->num_fences);
	if (n && fences[0].status != info->status)
		return wrong("status %d of the fence, %d of the file",
			     fences[0].status, info->status);
	*first = fences[0];
	return NULL;
}

static const char *is_pending(int fd)
{
	struct sync_fence_info fence;
	struct sync_file_info info;
	const char *why = ask(fd, 1, &info, &fence);

	if (why)
		return why;
	if (info.status)
		return wrong("status %d of a pending fence", info.status);
	if (strcmp(fence.driver_name, "functionfs"))
		return wrong("driver '%.32s'", fence.driver_name);
	if (is_ready(fd, POLLIN, 0))
		return "poll sees a signal of a pending fence";
	return NULL;
}

/* Each of these is to be told by a fence that has signaled, at any time. */

static const char *use_count(int fd, int other, enum outcome outcome)
{
	struct sync_fence_info fence;
	struct sync_file_info info;
	const char *why = ask(fd, 0, &info, &fence);

	(void)other;
	if (!why && !is_outcome(info.status, outcome))
		why = wrong("status %d", info.status);
	return why;
}

static const char *use_names(int fd, unsigned int n, enum outcome outcome)
{
	struct sync_fence_info fence;
	struct sync_file_info info;
	const char *why = ask(fd, n, &info, &fence);

	if (why)
		return why;
	if (!is_outcome(info.status, outcome))
		return wrong("status %d", info.status);
	/* the stub is what is left of fences without error that are merged */
	if (strcmp(fence.driver_name, "detached-driver") &&
	    strcmp(fence.driver_name, "stub"))
		return wrong("driver '%.32s'", fence.driver_name);
	if (!fence.timestamp_ns || fence.timestamp_ns > now_ns())
		return wrong("timestamp %llu", fence.timestamp_ns);
	return NULL;
}

static const char *use_one(int fd, int other, enum outcome outcome)
{
	(void)other;
	return use_names(fd, 1, outcome);
}

static const char *use_many(int fd, int other, enum outcome outcome)
{
	(void)other;
	return use_names(fd, 8, outcome);
}

static const char *use_polled(int fd, int other, enum outcome outcome)
{
	(void)other;
	(void)outcome;
	return is_ready(fd, POLLIN, WAIT_MS) ? NULL : "does not signal";
}

static const char *use_deadlined(int fd, int other, enum outcome outcome)
{
	struct sync_set_deadline deadline = { .deadline_ns = now_ns() };

	(void)other;
	(void)outcome;
	if (ioctl(fd, SYNC_IOC_SET_DEADLINE, &deadline))
		return wrong("SET_DEADLINE: %m");
	return NULL;
}

static const char *use_merged(int fd, int other, enum outcome outcome)
{
	struct sync_merge_data data = { .name = "merged", .fd2 = other };
	const char *why;

	(void)outcome;
	if (ioctl(fd, SYNC_IOC_MERGE, &data))
		return wrong("MERGE: %m");
	/* not every kernel keeps the error of a fence that had signaled */
	why = use_polled(data.fence, -1, EITHER) ?:
	      use_count(data.fence, -1, EITHER) ?:
	      use_one(data.fence, -1, EITHER) ?:
	      use_deadlined(data.fence, -1, EITHER);
	close(data.fence);
	return why;
}

static const char *use_merged_self(int fd, int other, enum outcome outcome)
{
	(void)other;
	return use_merged(fd, fd, outcome);
}

static const char *use_nothing(int fd, int other, enum outcome outcome)
{
	(void)fd;
	(void)other;
	(void)outcome;
	return NULL;
}

/* All of it. Waits for the signal first. */
static const char *has_ended(int fd, enum outcome outcome)
{
	return use_polled(fd, -1, outcome) ?: use_count(fd, -1, outcome) ?:
	       use_one(fd, -1, outcome) ?: use_many(fd, -1, outcome) ?:
	       use_merged_self(fd, -1, outcome) ?:
	       use_deadlined(fd, -1, outcome);
}

/* The workqueue of functionfs drops what a transfer held after its signal. */
static void settle(void)
{
	sleep_ms(100);
}

/* ---- the tests ---- */

TEST(kernel_reports_use_after_free)
{
	const char *why = cannot_report_use_after_free();

	if (why)
		SKIP(return, "%s", why);
}

struct setup {
	struct gadget gadget;
	struct buffer buffer, other;
	int kmsg;
};

/* Sets up or skips; the buffers are attached to nothing. */
static void prepare(struct __test_metadata *_metadata, struct setup *s)
{
	const char *why = cannot_have_gadget();
	int err;

	gadget_init(&s->gadget);
	if (why)
		SKIP(return, "%s", why);
	s->kmsg = kmsg_open();
	ASSERT_FINE(buffer_make(&s->buffer, LARGE));
	ASSERT_FINE(buffer_make(&s->other, LARGE));
	ASSERT_FINE(gadget_start(&s->gadget));

	err = attach(s->gadget.in, &s->buffer);
	if (err == -EPERM) {
		gadget_stop(&s->gadget);
		SKIP(return, UDC " cannot do scatter-gather");
	}
	ASSERT_EQ(0, err);
	/* as CONFIG_DMABUF_DEBUG has it */
	err = transfer(s->gadget.in, &s->buffer, SMALL);
	if (err == -EINVAL) {
		gadget_stop(&s->gadget);
		SKIP(return, UDC " cannot use the pages of a DMA-buf");
	}
	ASSERT_EQ(0, err);
	ASSERT_EQ(0, detach(s->gadget.in, &s->buffer));
}

static void finish(struct __test_metadata *_metadata, struct setup *s)
{
	EXPECT_FINE(gadget_stop(&s->gadget));
	buffer_free(&s->buffer);
	buffer_free(&s->other);
	EXPECT_FINE(kmsg_check(s->kmsg));
}

/* Nothing goes away. */
FIXTURE(data)
{
	struct setup setup;
};

FIXTURE_VARIANT(data)
{
	int (*host)(struct gadget *g, unsigned int ep, void *data, size_t len,
		    unsigned int ms);
};

FIXTURE_VARIANT_ADD(data, bulk)
{
	.host = host_bulk,
};

FIXTURE_VARIANT_ADD(data, urb)
{
	.host = host_urb,
};

FIXTURE_SETUP(data)
{
	prepare(_metadata, &self->setup);
}

FIXTURE_TEARDOWN(data)
{
	finish(_metadata, &self->setup);
}

/* Short packets, whole packets, pages, and more than a frame has room for. */
static const size_t lengths[] = { 1, 64, 512, 1000, 4096, 5000, LARGE };

TEST_F_TIMEOUT(data, in, 90)
{
	struct gadget *g = &self->setup.gadget;
	struct buffer *b = &self->setup.buffer;
	static unsigned char data[LARGE];
	unsigned int i;
	int fence;

	ASSERT_EQ(0, attach(g->in, b));
	for (i = 0; i < ARRAY_SIZE(lengths); i++) {
		int len = lengths[i];

		fill(b->map, b->size, i);
		ASSERT_FINE(start(g->in, b, len, &fence));
		EXPECT_FINE(is_pending(fence));
		memset(data, 0xee, sizeof(data));
		ASSERT_EQ(len, variant->host(g, g->host_in, data, len, HOST_MS));
		EXPECT_FINE(check(data, len, i));
		EXPECT_FINE(has_ended(fence, COMPLETED));
		close(fence);
	}
	EXPECT_EQ(0, detach(g->in, b));
}

TEST_F_TIMEOUT(data, out, 90)
{
	struct gadget *g = &self->setup.gadget;
	struct buffer *b = &self->setup.buffer;
	static unsigned char data[LARGE];
	unsigned int i;
	int fence;

	ASSERT_EQ(0, attach(g->out, b));
	for (i = 0; i < ARRAY_SIZE(lengths); i++) {
		int len = lengths[i];

		memset(b->map, 0xee, b->size);
		ASSERT_FINE(start(g->out, b, len, &fence));
		EXPECT_FINE(is_pending(fence));
		fill(data, len, i);
		ASSERT_EQ(len, variant->host(g, g->host_out, data, len, HOST_MS));
		EXPECT_FINE(has_ended(fence, COMPLETED));
		EXPECT_FINE(check(b->map, len, i));
		/* and not a byte more */
		if ((size_t)len < b->size)
			EXPECT_EQ(0xee, b->map[len]);
		close(fence);
	}
	EXPECT_EQ(0, detach(g->out, b));
}

/* The buffers that endpoints have for reads and writes, if that can be told. */
static unsigned int count_buffers(void)
{
	FILE *file = fopen("/proc/vmallocinfo", "r");
	unsigned int n = 0;
	char line[512];

	while (file && fgets(line, sizeof(line), file))
		n += !!strstr(line, " ffs_");
	if (file)
		fclose(file);
	return n;
}

/* What cannot be read is no transfer, and leaves no buffer. */
TEST_F_TIMEOUT(data, from_bad_memory, 60)
{
	struct gadget *g = &self->setup.gadget;
	char *bad = mmap(NULL, LARGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	unsigned int i, before = count_buffers();

	ASSERT_NE(MAP_FAILED, bad);
	for (i = 0; i < 8; i++) {
		EXPECT_EQ(-1, write(g->in, bad, LARGE));
		EXPECT_EQ(EFAULT, errno);
	}
	EXPECT_EQ(before, count_buffers());
	munmap(bad, LARGE);
}

/* A buffer that is written to can be queued once only. */
TEST_F_TIMEOUT(data, received_once, 60)
{
	struct gadget *g = &self->setup.gadget;
	struct buffer *b = &self->setup.buffer;
	static unsigned char data[SMALL];
	int fence;

	ASSERT_EQ(0, attach(g->out, b));
	ASSERT_FINE(start(g->out, b, SMALL, &fence));
	ASSERT_EQ(0, fcntl(g->out, F_SETFL, O_NONBLOCK));
	EXPECT_EQ(-EBUSY, transfer(g->out, b, SMALL));
	EXPECT_FINE(is_pending(fence));
	ASSERT_EQ(SMALL, variant->host(g, g->host_out, data, SMALL,
				       HOST_MS));
	EXPECT_FINE(has_ended(fence, COMPLETED));
	close(fence);
	EXPECT_EQ(0, detach(g->out, b));
}

/* read() and write() of more than a page take a scatterlist, too. */
TEST_F_TIMEOUT(data, without_buffers, 60)
{
	struct gadget *g = &self->setup.gadget;
	static unsigned char data[LARGE], got[LARGE];
	pid_t pid;
	int status;

	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		/* sends back what it gets */
		ssize_t len = read(g->out, data, sizeof(data));

		_exit(len != sizeof(data) ||
		      write(g->in, data, sizeof(data)) != sizeof(data));
	}
	fill(data, sizeof(data), 1);
	EXPECT_EQ(LARGE, variant->host(g, g->host_out, data, LARGE, HOST_MS));
	EXPECT_EQ(LARGE, variant->host(g, g->host_in, got, LARGE, HOST_MS));
	EXPECT_FINE(check(got, LARGE, 1));
	if (_metadata->exit_code)
		kill(pid, SIGKILL);
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);
}

/*
 * The second transfer of the same buffer takes the place of the first one in
 * the reservation object. Who else has a reference to the first fence?
 */
FIXTURE(queued_twice)
{
	struct setup setup;
};

FIXTURE_VARIANT(queued_twice)
{
	bool export, keep;
};

FIXTURE_VARIANT_ADD(queued_twice, first_is_kept)
{
	.export = true,
	.keep = true,
};

FIXTURE_VARIANT_ADD(queued_twice, first_is_closed)
{
	.export = true,
};

FIXTURE_VARIANT_ADD(queued_twice, first_is_unknown)
{
};

FIXTURE_SETUP(queued_twice)
{
	prepare(_metadata, &self->setup);
}

FIXTURE_TEARDOWN(queued_twice)
{
	finish(_metadata, &self->setup);
}

TEST_F_TIMEOUT(queued_twice, both_complete, 60)
{
	struct gadget *g = &self->setup.gadget;
	struct buffer *b = &self->setup.buffer;
	static unsigned char data[SMALL];
	unsigned int round;
	int fences[2];

	ASSERT_EQ(0, attach(g->in, b));
	for (round = 0; round < 5; round++) {
		fences[0] = -1;
		fill(b->map, SMALL, round);
		ASSERT_FINE(start(g->in, b, SMALL,
				  variant->export ? &fences[0] : NULL));
		if (!variant->keep)
			close_fd(&fences[0]);
		ASSERT_FINE(start(g->in, b, SMALL, &fences[1]));
		settle();
		if (fences[0] >= 0)
			EXPECT_FINE(is_pending(fences[0]));
		EXPECT_FINE(is_pending(fences[1]));

		ASSERT_EQ(SMALL, host_bulk(g, g->host_in, data, SMALL, HOST_MS));
		EXPECT_FINE(check(data, SMALL, round));
		if (fences[0] >= 0)
			EXPECT_FINE(has_ended(fences[0], COMPLETED));
		/* in their order */
		EXPECT_FINE(is_pending(fences[1]));
		memset(data, 0, sizeof(data));
		ASSERT_EQ(SMALL, host_bulk(g, g->host_in, data, SMALL, HOST_MS));
		EXPECT_FINE(check(data, SMALL, round));
		EXPECT_FINE(has_ended(fences[1], COMPLETED));
		close_fd(&fences[0]);
		close_fd(&fences[1]);
	}
	EXPECT_EQ(0, detach(g->in, b));
}

/* Somebody ends a transfer that is pending. */
static const char *end_by_detach(struct gadget *g, struct buffer *b)
{
	int err = detach(g->in, b);

	return err ? wrong("DETACH: %s", strerror(-err)) : NULL;
}

static const char *end_by_close(struct gadget *g, struct buffer *b)
{
	(void)b;
	close_fd(&g->in);
	return NULL;
}

static const char *end_by_close_ep0_first(struct gadget *g, struct buffer *b)
{
	(void)b;
	close_fd(&g->ep0);
	close_fd(&g->out);
	close_fd(&g->in);
	return NULL;
}

/* The last close is that of ep0: then the gadget is unbound by that. */
static const char *end_by_close_ep0_last(struct gadget *g, struct buffer *b)
{
	(void)b;
	close_fd(&g->in);
	close_fd(&g->out);
	close_fd(&g->ep0);
	return NULL;
}

static const char *end_by_unbind(struct gadget *g, struct buffer *b)
{
	(void)g;
	(void)b;
	return gadget_unbind();
}

/* The function goes under the files that are still open. */
static const char *end_by_remove(struct gadget *g, struct buffer *b)
{
	const char *why = gadget_unbind();

	(void)g;
	(void)b;
	if (!why && unlink(CONFIGURATION "/ffs." NAME))
		why = wrong("unlink: %m");
	if (!why && rmdir(FUNCTION))
		why = wrong("rmdir " FUNCTION ": %m");
	return why;
}

/* All of it, from the outside in: what a daemon does that is told to stop. */
static const char *end_by_stop(struct gadget *g, struct buffer *b)
{
	(void)b;
	return gadget_stop(g);
}

/* The controller, and not the platform device that its DMA goes through. */
static const char *end_by_udc(struct gadget *g, struct buffer *b)
{
	int err = write_file(UDC_DRIVER "/unbind", UDC);
	const char *why = gadget_stop(g);

	(void)b;
	err = write_file(UDC_DRIVER "/bind", UDC) ?: err;
	return err ? wrong(UDC ": %s", strerror(-err)) : why;
}

/* The host resets the device, and configures it again. */
static const char *end_by_reset(struct gadget *g, struct buffer *b)
{
	(void)b;
	if (ioctl(g->host, USBDEVFS_RESET))
		return wrong("RESET: %m");
	return NULL;
}

/* Ends the newest transfer on "in", or all of them. */
FIXTURE(pending_then)
{
	struct setup setup;
};

FIXTURE_VARIANT(pending_then)
{
	const char *(*end)(struct gadget *g, struct buffer *b);
};

FIXTURE_VARIANT_ADD(pending_then, detach)
{
	.end = end_by_detach,
};

FIXTURE_VARIANT_ADD(pending_then, close)
{
	.end = end_by_close,
};

FIXTURE_VARIANT_ADD(pending_then, close_ep0_first)
{
	.end = end_by_close_ep0_first,
};

FIXTURE_VARIANT_ADD(pending_then, close_ep0_last)
{
	.end = end_by_close_ep0_last,
};

FIXTURE_VARIANT_ADD(pending_then, unbind)
{
	.end = end_by_unbind,
};

FIXTURE_VARIANT_ADD(pending_then, remove)
{
	.end = end_by_remove,
};

FIXTURE_VARIANT_ADD(pending_then, stop)
{
	.end = end_by_stop,
};

FIXTURE_VARIANT_ADD(pending_then, udc)
{
	.end = end_by_udc,
};

FIXTURE_VARIANT_ADD(pending_then, reset)
{
	.end = end_by_reset,
};

FIXTURE_SETUP(pending_then)
{
	prepare(_metadata, &self->setup);
}

FIXTURE_TEARDOWN(pending_then)
{
	finish(_metadata, &self->setup);
}

TEST_F_TIMEOUT(pending_then, one, 60)
{
	struct gadget *g = &self->setup.gadget;
	struct buffer *b = &self->setup.buffer;
	static unsigned char data[SMALL];
	int fence, done;

	ASSERT_EQ(0, attach(g->in, b));
	ASSERT_FINE(start(g->in, b, SMALL, &done));
	ASSERT_EQ(SMALL, host_bulk(g, g->host_in, data, SMALL, HOST_MS));
	EXPECT_FINE(has_ended(done, COMPLETED));

	ASSERT_FINE(start(g->in, b, SMALL, &fence));
	EXPECT_FINE(is_pending(fence));
	EXPECT_FINE(variant->end(g, b));
	EXPECT_FINE(has_ended(fence, CANCELLED));
	TH_LOG("status %d", fence_status(fence));
	settle();
	EXPECT_FINE(has_ended(fence, CANCELLED));
	EXPECT_FINE(has_ended(done, COMPLETED));

	EXPECT_FINE(gadget_stop(g));
	settle();
	EXPECT_FINE(has_ended(fence, CANCELLED));
	EXPECT_FINE(has_ended(done, COMPLETED));
	close(fence);
	close(done);
}

/* These end all transfers, those on "out" as well. */
FIXTURE(all_pending_then)
{
	struct setup setup;
};

FIXTURE_VARIANT(all_pending_then)
{
	const char *(*end)(struct gadget *g, struct buffer *b);
};

FIXTURE_VARIANT_ADD(all_pending_then, close_ep0_first)
{
	.end = end_by_close_ep0_first,
};

FIXTURE_VARIANT_ADD(all_pending_then, close_ep0_last)
{
	.end = end_by_close_ep0_last,
};

FIXTURE_VARIANT_ADD(all_pending_then, unbind)
{
	.end = end_by_unbind,
};

FIXTURE_VARIANT_ADD(all_pending_then, remove)
{
	.end = end_by_remove,
};

FIXTURE_VARIANT_ADD(all_pending_then, stop)
{
	.end = end_by_stop,
};

FIXTURE_VARIANT_ADD(all_pending_then, udc)
{
	.end = end_by_udc,
};

FIXTURE_VARIANT_ADD(all_pending_then, reset)
{
	.end = end_by_reset,
};

FIXTURE_SETUP(all_pending_then)
{
	prepare(_metadata, &self->setup);
}

FIXTURE_TEARDOWN(all_pending_then)
{
	finish(_metadata, &self->setup);
}

/* One in each direction, two in one of them, the first of which is unknown. */
TEST_F_TIMEOUT(all_pending_then, several, 60)
{
	struct gadget *g = &self->setup.gadget;
	struct buffer *in = &self->setup.buffer, *out = &self->setup.other;
	int fences[3];

	ASSERT_EQ(0, attach(g->in, in));
	ASSERT_EQ(0, attach(g->out, out));
	ASSERT_FINE(start(g->in, in, LARGE, NULL));
	ASSERT_FINE(start(g->in, in, LARGE, &fences[0]));
	ASSERT_FINE(start(g->in, in, LARGE, &fences[1]));
	ASSERT_FINE(start(g->out, out, LARGE, &fences[2]));
	EXPECT_FINE(variant->end(g, in));
	EXPECT_FINE(has_ended(fences[0], CANCELLED));
	EXPECT_FINE(has_ended(fences[1], CANCELLED));
	EXPECT_FINE(has_ended(fences[2], CANCELLED));
	/* the buffers are the last that had to do with it */
	EXPECT_FINE(gadget_stop(g));
	buffer_free(in);
	buffer_free(out);
	settle();
	EXPECT_FINE(has_ended(fences[0], CANCELLED));
	EXPECT_FINE(has_ended(fences[1], CANCELLED));
	EXPECT_FINE(has_ended(fences[2], CANCELLED));
	close(fences[0]);
	close(fences[1]);
	close(fences[2]);
}

/* After these the gadget goes on to work. */
FIXTURE(cancelled_by)
{
	struct setup setup;
};

FIXTURE_VARIANT(cancelled_by)
{
	const char *(*end)(struct gadget *g, struct buffer *b);
};

FIXTURE_VARIANT_ADD(cancelled_by, detach)
{
	.end = end_by_detach,
};

FIXTURE_VARIANT_ADD(cancelled_by, close)
{
	.end = end_by_close,
};

FIXTURE_SETUP(cancelled_by)
{
	prepare(_metadata, &self->setup);
}

FIXTURE_TEARDOWN(cancelled_by)
{
	finish(_metadata, &self->setup);
}

/* What is queued after that is not what was cancelled. */
TEST_F_TIMEOUT(cancelled_by, another_one, 60)
{
	struct gadget *g = &self->setup.gadget;
	struct buffer *b = &self->setup.buffer;
	static unsigned char data[SMALL];
	unsigned int round;
	int fence;

	for (round = 0; round < 5; round++) {
		ASSERT_EQ(0, attach(g->in, b));
		fill(b->map, SMALL, 100);
		ASSERT_FINE(start(g->in, b, SMALL, &fence));
		EXPECT_FINE(variant->end(g, b));
		EXPECT_FINE(has_ended(fence, CANCELLED));
		close(fence);

		if (g->in < 0)
			g->in = open(FFS "/ep1", O_RDWR | O_CLOEXEC);
		ASSERT_LE(0, g->in);
		/* nobody forgot to take it off the list */
		EXPECT_EQ(-EPERM, transfer(g->in, b, SMALL));
		ASSERT_EQ(0, attach(g->in, b));
		fill(b->map, SMALL, round);
		ASSERT_FINE(start(g->in, b, SMALL, &fence));
		memset(data, 0, sizeof(data));
		ASSERT_EQ(SMALL, host_bulk(g, g->host_in, data, SMALL, HOST_MS));
		EXPECT_FINE(check(data, SMALL, round));
		EXPECT_FINE(has_ended(fence, COMPLETED));
		close(fence);
		EXPECT_EQ(0, detach(g->in, b));
	}
}

/* All that made the fences is gone; what follows only keeps them. */
FIXTURE(after_all_is_gone)
{
	struct {
		int fd;
		enum outcome outcome;
	} fences[8];
	struct setup setup;
	bool unloaded;
};

FIXTURE_VARIANT(after_all_is_gone)
{
	const char *(*use)(int fd, int other, enum outcome outcome);
};

FIXTURE_VARIANT_ADD(after_all_is_gone, info_count)
{
	.use = use_count,
};

FIXTURE_VARIANT_ADD(after_all_is_gone, info_one)
{
	.use = use_one,
};

FIXTURE_VARIANT_ADD(after_all_is_gone, info_many)
{
	.use = use_many,
};

FIXTURE_VARIANT_ADD(after_all_is_gone, poll)
{
	.use = use_polled,
};

FIXTURE_VARIANT_ADD(after_all_is_gone, merge)
{
	.use = use_merged,
};

FIXTURE_VARIANT_ADD(after_all_is_gone, merge_self)
{
	.use = use_merged_self,
};

FIXTURE_VARIANT_ADD(after_all_is_gone, deadline)
{
	.use = use_deadlined,
};

FIXTURE_VARIANT_ADD(after_all_is_gone, close)
{
	.use = use_nothing,
};

FIXTURE_SETUP(after_all_is_gone)
{
	unsigned int i, n = ARRAY_SIZE(self->fences);
	struct setup *s = &self->setup;
	struct gadget *g = &s->gadget;
	static unsigned char data[SMALL];
	const char *why;

	/* before this test has any of them in use itself */
	why = unload_modules();
	if (why)
		SKIP(return, "somebody else's gadget: %s", why);
	prepare(_metadata, s);
	if (_metadata->exit_code)
		return;
	ASSERT_EQ(0, attach(g->in, &s->buffer));
	ASSERT_EQ(0, attach(g->in, &s->other));
	for (i = 0; i < n; i++) {
		/* half of them complete, and one is detached */
		bool complete = i < n / 2, second = i == n - 1;
		int *fd = &self->fences[i].fd;

		self->fences[i].outcome = complete ? COMPLETED : CANCELLED;
		ASSERT_FINE(start(g->in, second ? &s->other : &s->buffer, SMALL,
				  fd));
		/* of each kind one that is polled while it is pending */
		if (i % 2)
			EXPECT_FINE(is_pending(*fd));
		if (complete)
			ASSERT_EQ(SMALL, host_bulk(g, g->host_in, data, SMALL,
						   HOST_MS));
		if (i == 0)
			EXPECT_FINE(has_ended(*fd, COMPLETED));
		if (second)
			ASSERT_EQ(0, detach(g->in, &s->other));
	}
	ASSERT_FINE(gadget_stop(g));
	buffer_free(&s->buffer);
	buffer_free(&s->other);
	self->unloaded = module_is_loaded("usb_f_fs");
	ASSERT_FINE(unload_modules());
	if (!self->unloaded)
		TH_LOG("usb_f_fs is built in: it stays");
}

FIXTURE_TEARDOWN(after_all_is_gone)
{
	/* first: what is closed at the end is not what is tested here */
	EXPECT_FINE(kmsg_check(self->setup.kmsg));
}

TEST_F_TIMEOUT(after_all_is_gone, use, 60)
{
	unsigned int i, n = ARRAY_SIZE(self->fences);

	for (i = 0; i < n; i++)
		EXPECT_FINE(variant->use(self->fences[i].fd,
					 self->fences[(i + 1) % n].fd,
					 self->fences[i].outcome));
	for (i = 0; i < n; i++)
		EXPECT_EQ(0, close(self->fences[i].fd));
}

/* The same from two threads, while the host takes what comes. */
FIXTURE(stress)
{
	struct setup setup;
};

FIXTURE_SETUP(stress)
{
	prepare(_metadata, &self->setup);
}

FIXTURE_TEARDOWN(stress)
{
	finish(_metadata, &self->setup);
}

struct host {
	struct gadget *gadget;
	pthread_t thread;
	atomic_bool stop;
	unsigned long received;
	char why[256];
};

static void *host_main(void *arg)
{
	unsigned char data[SMALL];
	struct host *h = arg;
	int ret;

	while (!atomic_load(&h->stop)) {
		ret = host_bulk(h->gadget, h->gadget->host_in, data, SMALL, 50);
		if (ret == SMALL) {
			h->received++;
		} else if (ret != -ETIMEDOUT) {
			snprintf(h->why, sizeof(h->why), "host: %s", ret < 0 ?
				 strerror(-ret) : "short transfer");
			break;
		}
	}
	return NULL;
}

struct worker {
	struct gadget *gadget;
	pthread_t thread;
	struct buffer buffer;
	unsigned int seed, rounds;
	unsigned long completed, cancelled;
	char why[256];
};

static const char *worker_end(struct worker *w, int fence)
{
	const char *why = has_ended(fence, EITHER);

	if (!why && fence_status(fence) == 1)
		w->completed++;
	else if (!why)
		w->cancelled++;
	return why;
}

static const char *worker_round(struct worker *w)
{
	unsigned int choice = rand_r(&w->seed);
	bool first_is_known = choice & 0x10, detach_now = choice & 0x20;
	int err, ep = w->gadget->in, fences[2] = { -1, -1 };
	const char *why;

	err = attach(ep, &w->buffer);
	if (err)
		return wrong("ATTACH: %s", strerror(-err));
	why = start(ep, &w->buffer, SMALL, &fences[0]);
	if (!why && !first_is_known)
		close_fd(&fences[0]);
	why = why ?: start(ep, &w->buffer, SMALL, &fences[1]);
	if (!why && !detach_now)
		why = worker_end(w, fences[1]);
	err = detach(ep, &w->buffer);
	if (!why && err)
		why = wrong("DETACH: %s", strerror(-err));
	if (!why && detach_now)
		why = worker_end(w, fences[1]);
	/* not the newest: it may be waiting for the host until now */
	if (!why && first_is_known)
		why = worker_end(w, fences[0]);
	close_fd(&fences[0]);
	close_fd(&fences[1]);
	return why;
}

static void *worker_main(void *arg)
{
	__u64 end = now_ns() + STRESS_MAX_MS * NSEC_PER_MSEC;
	struct worker *w = arg;
	const char *why = NULL;

	while (!why && w->rounds < STRESS_ROUNDS && now_ns() < end) {
		why = worker_round(w);
		w->rounds++;
	}
	if (why)
		snprintf(w->why, sizeof(w->why), "round %u: %s", w->rounds, why);
	return NULL;
}

TEST_F_TIMEOUT(stress, twice_and_detach, 120)
{
	static struct worker workers[STRESS_THREADS];
	struct host host = { .gadget = &self->setup.gadget };
	unsigned long completed = 0, cancelled = 0;
	unsigned int i;

	ASSERT_EQ(0, pthread_create(&host.thread, NULL, host_main, &host));
	for (i = 0; i < STRESS_THREADS; i++) {
		struct worker *w = &workers[i];

		w->gadget = &self->setup.gadget;
		w->seed = i + 1;
		ASSERT_FINE(buffer_make(&w->buffer, SMALL));
		ASSERT_EQ(0, pthread_create(&w->thread, NULL, worker_main, w));
	}
	for (i = 0; i < STRESS_THREADS; i++) {
		struct worker *w = &workers[i];

		ASSERT_EQ(0, pthread_join(w->thread, NULL));
		EXPECT_EQ(0, w->why[0])
			TH_LOG("thread %u: %s", i, w->why);
		completed += w->completed;
		cancelled += w->cancelled;
		buffer_free(&w->buffer);
	}
	atomic_store(&host.stop, true);
	ASSERT_EQ(0, pthread_join(host.thread, NULL));
	EXPECT_EQ(0, host.why[0])
		TH_LOG("%s", host.why);
	TH_LOG("figures: rounds=%u+%u completed=%lu cancelled=%lu received=%lu",
	       workers[0].rounds, workers[1].rounds, completed, cancelled,
	       host.received);
	EXPECT_POWER(completed);
	EXPECT_POWER(cancelled);
}

/* Again and again the gadget is gone with transfers in flight. */
TEST_F_TIMEOUT(stress, unbind, 180)
{
	struct gadget *g = &self->setup.gadget;
	struct buffer *b = &self->setup.buffer;
	unsigned int round, i;

	for (round = 0; round < 8; round++) {
		static struct host host;
		int fences[4];

		memset(&host, 0, sizeof(host));
		host.gadget = g;
		ASSERT_EQ(0, attach(g->in, b));
		/* the host is at work, or there is none */
		if (round % 2)
			ASSERT_EQ(0, pthread_create(&host.thread, NULL,
						    host_main, &host));
		for (i = 0; i < ARRAY_SIZE(fences); i++)
			ASSERT_FINE(start(g->in, b, SMALL, &fences[i]));
		EXPECT_FINE(gadget_unbind());
		for (i = 0; i < ARRAY_SIZE(fences); i++)
			EXPECT_FINE(has_ended(fences[i], EITHER));
		atomic_store(&host.stop, true);
		if (round % 2)
			ASSERT_EQ(0, pthread_join(host.thread, NULL));
		/* with the attachment still there */
		EXPECT_FINE(gadget_stop(g));
		settle();
		for (i = 0; i < ARRAY_SIZE(fences); i++) {
			EXPECT_FINE(has_ended(fences[i], EITHER));
			close(fences[i]);
		}
		ASSERT_FINE(gadget_start(g));
	}
}

/* Who detaches a buffer has it back, whatever was in flight or about to be. */
FIXTURE(detached)
{
	struct setup setup;
};

FIXTURE_SETUP(detached)
{
	prepare(_metadata, &self->setup);
}

FIXTURE_TEARDOWN(detached)
{
	finish(_metadata, &self->setup);
}

/* All transfers are cancelled, not only the newest. */
TEST_F_TIMEOUT(detached, two_pending_then_detached, 60)
{
	struct gadget *g = &self->setup.gadget;
	struct buffer *b = &self->setup.buffer;
	int fences[2];

	ASSERT_EQ(0, attach(g->in, b));
	ASSERT_FINE(start(g->in, b, SMALL, &fences[0]));
	ASSERT_FINE(start(g->in, b, SMALL, &fences[1]));
	EXPECT_EQ(0, detach(g->in, b));
	EXPECT_FINE(has_ended(fences[1], CANCELLED));
	EXPECT_FINE(has_ended(fences[0], CANCELLED));
	close(fences[0]);
	close(fences[1]);
}

/* Fences of a context signal in their order, merging relies on it. */
TEST_F_TIMEOUT(detached, newest_signals_first, 60)
{
	struct sync_merge_data merge = { .name = "both" };
	struct gadget *g = &self->setup.gadget;
	struct buffer *b = &self->setup.buffer;
	int fences[2], implicit;

	ASSERT_EQ(0, attach(g->in, b));
	ASSERT_FINE(start(g->in, b, SMALL, &fences[0]));
	ASSERT_FINE(start(g->in, b, SMALL, &fences[1]));
	merge.fd2 = fences[1];
	ASSERT_EQ(0, ioctl(fences[0], SYNC_IOC_MERGE, &merge));
	EXPECT_EQ(0, detach(g->in, b));
	if (!fence_status(fences[0])) {
		/* the device still reads the buffer: nobody may write to it */
		EXPECT_EQ(0, fence_status(merge.fence));
		implicit = export_fence(b);
		ASSERT_LE(0, implicit);
		EXPECT_EQ(0, fence_status(implicit));
		close(implicit);
	}
	EXPECT_FINE(has_ended(fences[0], CANCELLED));
	EXPECT_FINE(has_ended(fences[1], CANCELLED));
	EXPECT_TRUE(is_ready(merge.fence, POLLIN, WAIT_MS));
	close(merge.fence);
	close(fences[0]);
	close(fences[1]);
}

/* Calls the kernel in another process, for it may not come back. */
static const char *survive(int (*call)(int ep, struct buffer *b), int ep,
			   struct buffer *b)
{
	int status;
	pid_t pid;

	pid = fork();
	if (pid < 0)
		return wrong("fork: %m");
	if (!pid)
		_exit(!call(ep, b));
	if (waitpid(pid, &status, 0) != pid)
		return wrong("waitpid: %m");
	if (WIFSIGNALED(status))
		return wrong("killed in the kernel by signal %d",
			     WTERMSIG(status));
	return WEXITSTATUS(status) ? "no error" : NULL;
}

static int transfer_nonblock(int ep, struct buffer *b)
{
	fcntl(ep, F_SETFL, O_NONBLOCK);
	return transfer(ep, b, SMALL);
}

TEST_F_TIMEOUT(detached, detach_while_unbound, 60)
{
	struct gadget *g = &self->setup.gadget;

	ASSERT_EQ(0, attach(g->in, &self->setup.buffer));
	ASSERT_FINE(gadget_unbind());
	/* either of them would do, but not that there is no answer */
	EXPECT_FINE(survive(detach, g->in, &self->setup.other));
}

TEST_F_TIMEOUT(detached, transfer_while_unbound, 60)
{
	struct gadget *g = &self->setup.gadget;

	ASSERT_EQ(0, attach(g->in, &self->setup.buffer));
	ASSERT_FINE(gadget_unbind());
	EXPECT_FINE(survive(transfer_nonblock, g->in, &self->setup.buffer));
}

struct late_transfer {
	pthread_t thread;
	int ep, err;
	struct buffer *buffer;
};

static void *late_transfer_main(void *arg)
{
	struct late_transfer *late = arg;

	late->err = transfer(late->ep, late->buffer, SMALL);
	return NULL;
}

/* A transfer that waits for the host is not queued after the buffer has gone. */
TEST_F_TIMEOUT(detached, while_a_transfer_waits, 60)
{
	struct gadget *g = &self->setup.gadget;
	struct buffer *b = &self->setup.buffer;
	struct late_transfer late = { .ep = g->in, .buffer = b };

	ASSERT_EQ(0, attach(g->in, b));
	ASSERT_FINE(gadget_unbind());
	close_fd(&g->host);
	ASSERT_EQ(0, pthread_create(&late.thread, NULL, late_transfer_main,
				    &late));
	sleep_ms(200);
	EXPECT_EQ(0, detach(g->in, b));
	ASSERT_FINE(gadget_bind(g));
	ASSERT_EQ(0, pthread_join(late.thread, NULL));
	EXPECT_EQ(-EPERM, late.err);
}

/* Nor is a buffer sent by another device than it has been mapped for. */
TEST_F_TIMEOUT(detached, then_on_another_udc, 60)
{
	struct gadget *g = &self->setup.gadget;
	struct buffer *b = &self->setup.buffer;
	static unsigned char data[SMALL];
	int fence;

	if (access("/sys/class/udc/" UDC_2, F_OK))
		SKIP(return, "dummy_hcd has one device only: num=2");
	ASSERT_EQ(0, attach(g->in, b));
	ASSERT_FINE(gadget_unbind());
	close_fd(&g->host);
	ASSERT_FINE(gadget_bind_to(g, UDC_2));
	EXPECT_EQ(-EPERM, transfer(g->in, b, SMALL));

	ASSERT_EQ(0, attach(g->in, b));
	fill(b->map, SMALL, 3);
	ASSERT_FINE(start(g->in, b, SMALL, &fence));
	ASSERT_EQ(SMALL, host_bulk(g, g->host_in, data, SMALL, HOST_MS));
	EXPECT_FINE(check(data, SMALL, 3));
	EXPECT_FINE(has_ended(fence, COMPLETED));
	close(fence);

	/* Back on the first one, its attachment counts and not the newest. */
	ASSERT_FINE(gadget_unbind());
	close_fd(&g->host);
	ASSERT_FINE(gadget_bind_to(g, UDC));
	fill(b->map, SMALL, 5);
	ASSERT_FINE(start(g->in, b, SMALL, &fence));
	ASSERT_EQ(SMALL, host_bulk(g, g->host_in, data, SMALL, HOST_MS));
	EXPECT_FINE(check(data, SMALL, 5));
	EXPECT_FINE(has_ended(fence, COMPLETED));
	close(fence);
	EXPECT_EQ(0, detach(g->in, b));
	EXPECT_EQ(-EPERM, transfer(g->in, b, SMALL));
}

TEST_HARNESS_MAIN
