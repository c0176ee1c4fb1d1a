// SPDX-License-Identifier: GPL-2.0
/*
 * What becomes of the fences of a display when it is taken away while it is used?
 *
 * The test takes a display that nobody else uses, whatever its driver is. It flips
 * pages and moves the cursor, and keeps every fence that it gets: that of each
 * flip, those in the buffers, and both in syncobjs. Then it takes the device away
 * in each way that there is, and brings it back. Right is:
 *
 *  - the device is gone within ten seconds, and so is who was at work on it;
 *  - each fence signals, with -ENODEV or -ECANCELED if its job was never done;
 *  - each fence can be used in every way, and has either the names that its issuer
 *    gave it or those of a fence that was detached;
 *  - the device works when it is back, and the kernel has not complained.
 *
 * Run it as root: ./drm_device_gone
 * DRM_DEVICE_GONE=NAME picks the display by the name of its driver. Without, it is
 * the first one that is no vkms. If somebody is at work on it the tests are skipped.
 *
 * If there is another device that has sync objects, that one stays, and signals
 * what is waited for on the one that goes.
 *
 * None of the fences is an execbuf's: virtio returns -ENOSYS without virgl, and qxl gives
 * no descriptor, but leaves its fence in the buffers of a command that only it knows.
 *
 * DRM_DEVICE_GONE=gud makes a USB display, if there is none, from functionfs and
 * dummy_hcd, whose modules have to be loaded, and plugs it out and in.
 *
 * In a guest of QEMU, DRM_DEVICE_GONE_QMP=TTY is a serial port that leads to the
 * monitor, in its control mode. The device has the id "gpu" there, and
 * DRM_DEVICE_GONE_MODEL=MODEL is what it is made from. Where a model interrupts by a
 * pin, DRM_DEVICE_GONE_LAST_SLOT=N is the last slot whose pin leads anywhere: 6 on a
 * PC that does not route them by ACPI.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <drm/drm.h>
#include <drm/drm_mode.h>
#include <linux/dma-buf.h>

#include "kselftest_harness.h"
#include "gud_gadget.h"
#include "out_fence_util.h"

#define GONE_MS		10000	/* a device that goes does not take longer */
#define BACK_MS		60000	/* one that comes back may, on a busy host */
#define ROUNDS		20
#define PLUG_ROUNDS	5	/* each needs a slot that was not in use before */
#define MAX_FENCES	512
#define MIN_FENCES	8
#define STORM_MS	200
#define MOVES		500
#define CURSOR		64
#define DRM_PLANE_PRIMARY 1
#define DRM_PLANE_CURSOR 2

#ifndef DRM_CLIENT_CAP_CURSOR_PLANE_HOTSPOT
#define DRM_CLIENT_CAP_CURSOR_PLANE_HOTSPOT	6
#endif

/* The device, in sysfs. */
struct device {
	char driver[64];	/* of the bus */
	char module[64];	/* empty if it is built in */
	char name[64];		/* on the bus */
	char bus[32];
	char pci[32];		/* the function of PCI that it is or is on, or empty */
};

/* UNDONE is in a buffer, too, of a job for a device that had lost the bus before. */
enum source { FLIP, BUFFER, SYNCOBJ, MERGED, UNDONE, N_SOURCES };

static const char * const sources[] = { "flip", "buffer", "syncobj", "merge", "deaf device" };

/* Of all rounds. */
struct seen {
	unsigned int got[N_SOURCES], pending[N_SOURCES], lost;
};

struct kept {
	int fd;
	enum source source;
	bool pending;		/* when it was taken */
};

/* The device, opened. */
struct screen {
	int fd;
	char name[32];		/* of the driver, as fences have it */
	__u32 crtc, connector, plane;
	__u32 width, height;
	__u32 fb[2], bo[4];	/* the last two are the cursor's */
	int dmabuf[4];		/* or -1 */
	bool has_cursor;
	__u32 out_fence_prop, fb_prop;
	__u32 syncobj;		/* or 0 */
};

/* Who is at work. */
struct storm {
	struct screen *screen;
	int other;		/* a DMA-buf of the device that stays */
	pthread_t flipper, mover, exporter, waiter;
	pthread_mutex_t lock;	/* of what is kept, and of why */
	atomic_bool stop;
	atomic_bool hold, held, deaf, undone;	/* see storm_deaf() */
	atomic_uint n_kept, flips, moves;
	struct kept kept[MAX_FENCES];
	char why[256];
};

/* ---- the device in sysfs ---- */

static bool read_line(const char *path, char *line, size_t size)
{
	FILE *file = fopen(path, "r");
	bool ok;

	if (!file)
		return false;
	ok = fgets(line, size, file);
	fclose(file);
	line[ok ? strcspn(line, "\n") : 0] = '\0';
	return ok;
}

/* The last part of what a link in sysfs leads to. */
static bool link_name(const char *path, char *name, size_t size)
{
	char target[PATH_MAX];
	ssize_t len = readlink(path, target, sizeof(target) - 1);
	const char *base;

	name[0] = '\0';
	if (len < 0)
		return false;
	target[len] = '\0';
	base = strrchr(target, '/');
	snprintf(name, size, "%.*s", (int)size - 1, base ? base + 1 : target);
	return true;
}

/* A virtio device is on a function of PCI, or is it not. */
static void find_pci(struct device *dev, const char *path)
{
	char up[PATH_MAX + 16], real[PATH_MAX], name[32];

	snprintf(up, sizeof(up), "%s/subsystem", path);
	link_name(up, name, sizeof(name));
	if (!strcmp(name, "pci")) {
		snprintf(dev->pci, sizeof(dev->pci), "%.31s", dev->name);
		return;
	}
	snprintf(up, sizeof(up), "%s/../subsystem", path);
	link_name(up, name, sizeof(name));
	if (strcmp(dev->bus, "virtio") || strcmp(name, "pci"))
		return;
	snprintf(up, sizeof(up), "%s/..", path);
	if (!realpath(up, real))
		return;
	snprintf(dev->pci, sizeof(dev->pci), "%.31s", strrchr(real, '/') + 1);
}

static bool read_device(struct device *dev, unsigned int card)
{
	char path[PATH_MAX], real[PATH_MAX];
	glob_t virtio;

	memset(dev, 0, sizeof(*dev));
	snprintf(path, sizeof(path), "/sys/class/drm/card%u/device", card);
	if (!realpath(path, real))
		return false;
	/* the card of virtio is a child of what the virtio device is on */
	snprintf(path, sizeof(path), "%.4000s/virtio*", real);
	if (!glob(path, 0, NULL, &virtio)) {
		snprintf(real, sizeof(real), "%s", virtio.gl_pathv[0]);
		globfree(&virtio);
	}
	snprintf(dev->name, sizeof(dev->name), "%.63s", strrchr(real, '/') + 1);
	snprintf(path, sizeof(path), "%.4000s/driver", real);
	if (!link_name(path, dev->driver, sizeof(dev->driver)))
		return false;
	snprintf(path, sizeof(path), "%.4000s/driver/module", real);
	link_name(path, dev->module, sizeof(dev->module));
	if (!module_is_loaded(dev->module))
		dev->module[0] = '\0';
	snprintf(path, sizeof(path), "%.4000s/subsystem", real);
	link_name(path, dev->bus, sizeof(dev->bus));
	find_pci(dev, real);
	return true;
}

/* The device that stays, if there is one. It may have the same driver. */
static struct device second;

static bool is_second(const struct device *dev)
{
	return second.name[0] && !strcmp(dev->name, second.name);
}

static const char *find_device(struct device *dev)
{
	const char *wanted = getenv("DRM_DEVICE_GONE");
	unsigned int card;

	for (card = 0; card < 64; card++) {
		if (!read_device(dev, card) || is_second(dev))
			continue;
		/* vkms and vgem are no devices of a real bus */
		if (wanted ? !strcmp(dev->driver, wanted) :
			     strcmp(dev->bus, "faux") &&
			     strcmp(dev->name, "vgem"))
			return NULL;
	}
	return wanted ? wrong("no display of the driver %s", wanted) :
			"no display";
}

/* Waits until there is one, which may be at another place now. */
static const char *device_again(struct device *dev)
{
	__u64 end = now_ns() + BACK_MS * NSEC_PER_MSEC;
	const char *why;

	while ((why = find_device(dev)) && now_ns() < end)
		sleep_ms(10);
	return why;
}

/* The number of the card, which may be another one each time it comes back. */
static int find_card(const struct device *dev)
{
	struct device other;
	unsigned int card;

	for (card = 0; card < 64; card++) {
		if (read_device(&other, card) && !is_second(&other) &&
		    !strcmp(other.driver, dev->driver))
			return card;
	}
	return -1;
}

/* ---- ways to go, and to come back ---- */

static const char *write_word(const char *path, const char *word)
{
	int err = write_file(path, word);

	return err ? wrong("'%s' to %s: %s", word, path, strerror(-err)) : NULL;
}

static const char *driver_write(struct device *dev, const char *file)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "/sys/bus/%s/drivers/%s/%s", dev->bus,
		 dev->driver, file);
	return write_word(path, dev->name);
}

static const char *unbind(struct device *dev)
{
	return driver_write(dev, "unbind");
}

static const char *bind(struct device *dev)
{
	return driver_write(dev, "bind");
}

static const char *pci_remove(struct device *dev)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/remove",
		 dev->pci);
	return write_word(path, "1");
}

static const char *pci_rescan(struct device *dev)
{
	(void)dev;
	return write_word("/sys/bus/pci/rescan", "1");
}

/* Of the slot that the device is in; empty if there is none. */
static void slot_path(const struct device *dev, char *path, size_t size)
{
	char address[64], file[PATH_MAX];
	struct dirent *entry;
	DIR *dir;

	path[0] = '\0';
	dir = opendir("/sys/bus/pci/slots");
	while (dir && (entry = readdir(dir))) {
		snprintf(file, sizeof(file), "/sys/bus/pci/slots/%s/address",
			 entry->d_name);
		if (!read_line(file, address, sizeof(address)) ||
		    strncmp(address, dev->pci, strlen(address)))
			continue;
		snprintf(path, size, "/sys/bus/pci/slots/%.64s/power",
			 entry->d_name);
		break;
	}
	if (dir)
		closedir(dir);
}

static const char *slot_off(struct device *dev)
{
	char path[128];

	slot_path(dev, path, sizeof(path));
	return write_word(path, "0");
}

/* What was ejected has gone for good, in QEMU: the monitor has another one. */
static const char *qmp_add(struct device *dev);

static const char *module_gone(struct device *dev)
{
	return module_unload(dev->module);
}

static const char *module_back(struct device *dev)
{
	return module_load(dev->module, "");
}

/* Without the bus the device can neither read its commands nor answer. */
static const char *set_bus_master(struct device *dev, bool on)
{
	char path[PATH_MAX];
	__u16 command;
	bool ok;
	int fd;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/config",
		 dev->pci);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return wrong("%s: %m", path);
	ok = pread(fd, &command, 2, 4) == 2;
	command = on ? command | 4 : command & ~4;
	ok = ok && pwrite(fd, &command, 2, 4) == 2;
	close(fd);
	return ok ? NULL : wrong("%s: %m", path);
}

static const char *deaf_unbind(struct device *dev)
{
	const char *why = set_bus_master(dev, false);

	/* for a command that it will never answer */
	sleep_ms(STORM_MS);
	return why ?: unbind(dev);
}

static const char *deaf_bind(struct device *dev)
{
	const char *why = set_bus_master(dev, true);

	return why ?: bind(dev);
}

/* ---- the monitor of QEMU ---- */

/* The next line with @id, if it comes in time. */
static bool qmp_answer(int fd, const char *id, char *line, size_t size)
{
	size_t len = 0;

	while (is_ready(fd, POLLIN, 2000) && read(fd, line + len, 1) == 1) {
		if (line[len] != '\n') {
			len += len + 2 < size;
			continue;
		}
		line[len] = '\0';
		len = 0;
		if (strstr(line, id))
			return true;
	}
	return false;
}

/*
 * What the monitor said before, and the port has echoed, spoils the line that it
 * gets next. So this is said again until there is an answer to it. If a slow host has
 * lost part of a line it waits for the rest; the first byte, which is none of JSON,
 * ends that.
 */
static const char *qmp_say(int fd, const char *command, const char *arguments)
{
	static unsigned int ids;
	char answer[1024] = "", line[512], id[32];
	unsigned int tries;
	const char *text;
	int len;

	/* a host that has more to do may be slow */
	for (tries = 0; tries < 10; tries++) {
		snprintf(id, sizeof(id), "\"id\": \"gone-%d-%u\"", getpid(),
			 ids++);
		len = snprintf(line, sizeof(line),
			       "\377{\"execute\":\"%s\",\"arguments\":{%s},%s}\n",
			       command, arguments, id);
		if (write(fd, line, len) != len)
			return wrong("the monitor: %m");
		if (!qmp_answer(fd, id, answer, sizeof(answer)))
			continue;
		if (!strstr(answer, "\"error\""))
			return NULL;
		text = strstr(answer, "\"desc\": \"");
		return wrong("the monitor says: %.200s",
			     text ? text + 9 : answer);
	}
	return "the monitor does not answer";
}

static const char *qmp(const char *command, const char *arguments)
{
	const char *tty = getenv("DRM_DEVICE_GONE_QMP");
	struct termios raw;
	const char *why;
	int fd;

	if (!tty)
		return "no monitor: no DRM_DEVICE_GONE_QMP";
	fd = open(tty, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (fd < 0)
		return wrong("%s: %m", tty);
	if (!tcgetattr(fd, &raw)) {
		cfmakeraw(&raw);
		tcsetattr(fd, TCSAFLUSH, &raw);
	}
	/* an error if that has been said already */
	qmp_say(fd, "qmp_capabilities", "");
	why = qmp_say(fd, command, arguments);
	close(fd);
	return why;
}

static const char *qmp_del(struct device *dev)
{
	char path[PATH_MAX];
	const char *why;
	__u64 end;

	why = qmp("device_del", "\"id\":\"gpu\"");
	if (why)
		return why;
	/* that was the button, now the kernel lets go of it */
	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s", dev->pci);
	end = now_ns() + GONE_MS * NSEC_PER_MSEC;
	while (!access(path, F_OK)) {
		if (now_ns() > end)
			return wrong("%s is still there", path);
		sleep_ms(5);
	}
	return NULL;
}

/* Another one: the memory of the old device may be in use yet. */
static unsigned int next_slot(struct device *dev)
{
	unsigned int slot = 0;

	if (sscanf(dev->pci, "%*x:%*x:%x", &slot) != 1 || slot > 29)
		return 4;
	return slot + 1;
}

/* Says what find_device() would if there were none with an interrupt any more. */
static const char *has_next_slot(struct device *dev)
{
	const char *last = getenv("DRM_DEVICE_GONE_LAST_SLOT");

	return last && next_slot(dev) > (unsigned int)atoi(last) ?
	       wrong("no display of the driver %s in a slot before %s",
		     dev->driver, last) : NULL;
}

static const char *qmp_add_now(struct device *dev)
{
	const char *model = getenv("DRM_DEVICE_GONE_MODEL");
	unsigned int slot = next_slot(dev);
	char arguments[256];

	snprintf(arguments, sizeof(arguments),
		 "\"driver\":\"%s\",\"id\":\"gpu\",\"addr\":\"%x\"",
		 model ?: "", slot);
	return qmp("device_add", arguments);
}

static const char *qmp_add(struct device *dev)
{
	const char *why = NULL;
	unsigned int tries;

	/* its id may be in use a moment longer */
	for (tries = 0; tries < 50; tries++) {
		why = qmp_add_now(dev);
		if (!why || !strstr(why, "uplicate"))
			break;
		sleep_ms(100);
	}
	return why;
}

/* ---- can it go that way? ---- */

/* The device goes once the host has seen that. */
static const char *unplug(struct device *dev)
{
	__u64 end = now_ns() + GONE_MS * NSEC_PER_MSEC;
	const char *why;
	char path[128];

	if (!gud_gadget_is_there())
		return qmp_del(dev);
	why = gud_gadget_plug(false);
	snprintf(path, sizeof(path), "/sys/bus/usb/devices/%s", dev->name);
	while (!why && !access(path, F_OK)) {
		if (now_ns() > end)
			why = wrong("%s is still there", path);
		sleep_ms(1);
	}
	return why;
}

static const char *plug(struct device *dev)
{
	return gud_gadget_is_there() ? gud_gadget_plug(true) : qmp_add(dev);
}

static const char *can_bind(struct device *dev)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "/sys/bus/%s/drivers/%s/unbind", dev->bus,
		 dev->driver);
	return access(path, W_OK) ? wrong("%s: %m", path) : NULL;
}

static const char *is_pci(struct device *dev)
{
	return dev->pci[0] ? NULL : "the device is not on PCI";
}

static const char *can_unload(struct device *dev)
{
	return dev->module[0] ? NULL : "the driver is built in";
}

static const char *has_slot(struct device *dev)
{
	char path[128];

	if (!dev->pci[0])
		return is_pci(dev);
	slot_path(dev, path, sizeof(path));
	if (!path[0] || access(path, W_OK))
		return "the device is in no slot that can be turned off";
	return getenv("DRM_DEVICE_GONE_QMP") ? has_next_slot(dev) :
	       "no monitor that would bring it back";
}

/* Asks for another one of the same name, which tells if there can be any. */
static const char *has_monitor(struct device *dev)
{
	const char *why = is_pci(dev);

	why = why ?: has_next_slot(dev);
	why = why ?: qmp_add_now(dev);
	return why && strstr(why, "uplicate") ? NULL : why;
}

static const char *has_plug(struct device *dev)
{
	return gud_gadget_is_there() ? NULL : has_monitor(dev);
}

static const char *is_master(struct device *dev)
{
	const char *why = is_pci(dev);

	return why ?: strcmp(dev->bus, "virtio") ?
	       "the device is no master of the bus" : NULL;
}

/* ---- the display ---- */

static const char *set_cap(int fd, __u64 capability, const char *what)
{
	struct drm_set_client_cap cap = {
		.capability = capability,
		.value = 1,
	};
	int err = try_ioctl(fd, DRM_IOCTL_SET_CLIENT_CAP, &cap);

	return err ? wrong("%s: %s", what, strerror(-err)) : NULL;
}

static const char *add_buffer(int fd, __u32 width, __u32 height, __u32 *bo,
			      __u32 *fb)
{
	struct drm_mode_create_dumb dumb = {
		.width = width,
		.height = height,
		.bpp = 32,
	};
	struct drm_mode_fb_cmd2 cmd = {
		.width = width,
		.height = height,
		.pixel_format = 'X' | 'R' << 8 | '2' << 16 | '4' << 24,
	};
	int err = try_ioctl(fd, DRM_IOCTL_MODE_CREATE_DUMB, &dumb);

	if (err)
		return wrong("CREATE_DUMB: %s", strerror(-err));
	*bo = dumb.handle;
	if (!fb)
		return NULL;
	cmd.handles[0] = dumb.handle;
	cmd.pitches[0] = dumb.pitch;
	err = try_ioctl(fd, DRM_IOCTL_MODE_ADDFB2, &cmd);
	*fb = cmd.fb_id;
	return err ? wrong("ADDFB2: %s", strerror(-err)) : NULL;
}

static __u64 prop_value(int fd, __u32 object, __u32 type, const char *name)
{
	__u32 ids[64], wanted = find_prop(fd, object, type, name);
	__u64 values[64];
	struct drm_mode_obj_get_properties all = {
		.obj_id = object,
		.obj_type = type,
		.props_ptr = (uintptr_t)ids,
		.prop_values_ptr = (uintptr_t)values,
		.count_props = ARRAY_SIZE(ids),
	};
	unsigned int i;

	if (!wanted || ioctl(fd, DRM_IOCTL_MODE_OBJ_GETPROPERTIES, &all))
		return ~0ull;
	for (i = 0; i < all.count_props && i < ARRAY_SIZE(ids); i++) {
		if (ids[i] == wanted)
			return values[i];
	}
	return ~0ull;
}

static const char *find_pipe(struct screen *s, struct drm_mode_modeinfo *mode)
{
	__u32 crtcs[16], connectors[16], planes[64];
	struct drm_mode_card_res res = {
		.count_crtcs = ARRAY_SIZE(crtcs),
		.crtc_id_ptr = (uintptr_t)crtcs,
		.count_connectors = ARRAY_SIZE(connectors),
		.connector_id_ptr = (uintptr_t)connectors,
	};
	struct drm_mode_get_plane_res plane_res = {
		.count_planes = ARRAY_SIZE(planes),
		.plane_id_ptr = (uintptr_t)planes,
	};
	struct drm_mode_modeinfo modes[128];
	unsigned int i;
	__u64 type;
	int err;

	err = try_ioctl(s->fd, DRM_IOCTL_MODE_GETRESOURCES, &res) ?:
	      try_ioctl(s->fd, DRM_IOCTL_MODE_GETPLANERESOURCES, &plane_res);
	if (err)
		return wrong("GETRESOURCES: %s", strerror(-err));
	if (!res.count_crtcs)
		return "no CRTC";
	s->crtc = crtcs[0];
	for (i = 0; i < res.count_connectors && !s->connector; i++) {
		struct drm_mode_get_connector probe = {
			.connector_id = connectors[i],
		};
		struct drm_mode_get_connector get = probe;

		/* twice, as in any client: the first call finds out how many */
		if (try_ioctl(s->fd, DRM_IOCTL_MODE_GETCONNECTOR, &probe))
			continue;
		if (!probe.count_modes)
			continue;
		get.count_modes = ARRAY_SIZE(modes);
		get.modes_ptr = (uintptr_t)modes;
		if (try_ioctl(s->fd, DRM_IOCTL_MODE_GETCONNECTOR, &get) ||
		    get.count_modes > ARRAY_SIZE(modes))
			continue;
		s->connector = connectors[i];
		*mode = modes[0];
	}
	if (!s->connector)
		return "no connector with a mode";
	for (i = 0; i < plane_res.count_planes; i++) {
		struct drm_mode_get_plane plane = { .plane_id = planes[i] };

		if (!try_ioctl(s->fd, DRM_IOCTL_MODE_GETPLANE, &plane) &&
		    plane.possible_crtcs & 1) {
			type = prop_value(s->fd, planes[i],
					  DRM_MODE_OBJECT_PLANE, "type");
			if (type == DRM_PLANE_PRIMARY && !s->plane)
				s->plane = planes[i];
			s->has_cursor |= type == DRM_PLANE_CURSOR;
		}
	}
	return s->plane ? NULL : "no primary plane";
}

static const char *set_mode(struct screen *s, struct drm_mode_modeinfo *mode)
{
	struct drm_mode_crtc crtc = {
		.crtc_id = s->crtc,
		.fb_id = s->fb[0],
		.set_connectors_ptr = (uintptr_t)&s->connector,
		.count_connectors = 1,
		.mode = *mode,
		.mode_valid = 1,
	};
	int err = try_ioctl(s->fd, DRM_IOCTL_MODE_SETCRTC, &crtc);

	return err ? wrong("SETCRTC: %s", strerror(-err)) : NULL;
}

static bool has_cap(int fd, __u64 capability)
{
	struct drm_get_cap cap = { .capability = capability };

	return !ioctl(fd, DRM_IOCTL_GET_CAP, &cap) && cap.value;
}

/* Who opens a primary node may become master there. */
static int open_node(unsigned int card)
{
	char path[PATH_MAX];
	glob_t render;
	int fd = -1;

	snprintf(path, sizeof(path), "/sys/class/drm/card%u/device/drm/renderD*", card);
	if (!glob(path, 0, NULL, &render)) {
		snprintf(path, sizeof(path), "/dev/dri%.64s",
			 strrchr(render.gl_pathv[0], '/'));
		globfree(&render);
		fd = open(path, O_RDWR | O_CLOEXEC);
	}
	if (fd >= 0)
		return fd;
	snprintf(path, sizeof(path), "/dev/dri/card%u", card);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd >= 0)
		ioctl(fd, DRM_IOCTL_DROP_MASTER);
	return fd;
}

/* Before any test has taken the first one away. */
static void find_second(void)
{
	const char *why, *wanted = getenv("DRM_DEVICE_GONE");
	struct device first, dev;
	unsigned int card;
	int fd;

	why = find_device(&first);
	if (why && wanted && !strcmp(wanted, "gud")) {
		why = gud_gadget_start();
		why = why ?: device_again(&first);
		if (why)
			ksft_print_msg("the gadget: %s\n", why);
	}
	if (why)
		return;
	for (card = 0; card < 64; card++) {
		if (!read_device(&dev, card) || !strcmp(dev.name, first.name))
			continue;
		fd = open_node(card);
		if (fd < 0)
			continue;
		if (has_cap(fd, DRM_CAP_SYNCOBJ_TIMELINE))
			second = dev;
		close(fd);
	}
}

static const char *screen_setup(struct screen *s)
{
	struct drm_version version = {
		.name_len = sizeof(s->name) - 1,
		.name = s->name,
	};
	struct drm_syncobj_create syncobj = {};
	struct drm_mode_modeinfo mode;
	const char *why;
	unsigned int i;
	int err;

	err = try_ioctl(s->fd, DRM_IOCTL_VERSION, &version);
	if (err)
		return wrong("VERSION: %s", strerror(-err));
	err = try_ioctl(s->fd, DRM_IOCTL_SET_MASTER, NULL);
	if (err)
		return wrong("somebody else has the display: SET_MASTER: %s",
			     strerror(-err));
	why = set_cap(s->fd, DRM_CLIENT_CAP_ATOMIC, "no atomic modesetting");
	if (why)
		return why;
	/* for drivers of virtual machines to show their cursor plane */
	set_cap(s->fd, DRM_CLIENT_CAP_CURSOR_PLANE_HOTSPOT, "");
	why = find_pipe(s, &mode);
	if (why)
		return why;
	s->width = mode.hdisplay;
	s->height = mode.vdisplay;
	for (i = 0; !why && i < ARRAY_SIZE(s->bo); i++) {
		if (i < 2)
			why = add_buffer(s->fd, s->width, s->height, &s->bo[i],
					 &s->fb[i]);
		else
			why = add_buffer(s->fd, CURSOR, CURSOR, &s->bo[i], NULL);
		if (!why && buffer_export(s->fd, s->bo[i], &s->dmabuf[i]))
			s->dmabuf[i] = -1;
	}
	why = why ?: set_mode(s, &mode);
	if (why)
		return why;
	s->out_fence_prop = find_prop(s->fd, s->crtc, DRM_MODE_OBJECT_CRTC,
				      "OUT_FENCE_PTR");
	s->fb_prop = find_prop(s->fd, s->plane, DRM_MODE_OBJECT_PLANE, "FB_ID");
	if (has_cap(s->fd, DRM_CAP_SYNCOBJ) &&
	    !try_ioctl(s->fd, DRM_IOCTL_SYNCOBJ_CREATE, &syncobj))
		s->syncobj = syncobj.handle;
	return NULL;
}

static void screen_close(struct screen *s)
{
	struct drm_mode_cursor2 off = {
		.flags = DRM_MODE_CURSOR_BO,
		.crtc_id = s->crtc,
	};
	unsigned int i;

	/* it outlives the file, and with its DMA-buf keeps the module */
	ioctl(s->fd, DRM_IOCTL_MODE_CURSOR2, &off);
	for (i = 0; i < ARRAY_SIZE(s->dmabuf); i++)
		close_fd(&s->dmabuf[i]);
	close_fd(&s->fd);
}

static const char *screen_open(struct screen *s, const struct device *dev)
{
	__u64 end = now_ns() + BACK_MS * NSEC_PER_MSEC;
	const char *why;
	char path[64];
	int card;

	memset(s, 0, sizeof(*s));
	memset(s->dmabuf, -1, sizeof(s->dmabuf));
	for (;;) {
		card = find_card(dev);
		snprintf(path, sizeof(path), "/dev/dri/card%d", card);
		s->fd = card < 0 ? -1 : open(path, O_RDWR | O_CLOEXEC);
		if (s->fd >= 0)
			break;
		if (now_ns() > end)
			return wrong("no card of %s: %m", dev->driver);
		sleep_ms(10);
	}
	why = screen_setup(s);
	if (why)
		screen_close(s);
	return why;
}

/* ---- the storm ---- */

/*
 * The names of pending fences are read as well, and may be of either kind. Once @fd is
 * @done, all of its fences are.
 */
static const char *check_info(const struct screen *s, int fd, bool done, int *status)
{
	struct sync_fence_info fences[16] = {};
	struct sync_file_info info = {
		.num_fences = ARRAY_SIZE(fences),
		.sync_fence_info = (uintptr_t)fences,
	};
	unsigned int i;
	int err = try_ioctl(fd, SYNC_IOC_FILE_INFO, &info);

	if (err)
		return wrong("FILE_INFO: %s", strerror(-err));
	*status = info.status;
	if (info.status < 0 && info.status != -ENODEV &&
	    info.status != -ECANCELED)
		return wrong("status %d", info.status);
	if (!info.num_fences)
		return "no fences";
	for (i = 0; i < info.num_fences; i++) {
		const char *driver = fences[i].driver_name;
		const char *name = fences[i].obj_name;

		/* before all are done one that failed may have the say */
		if ((done ? info.status : info.status > 0) && !fences[i].status)
			return "a fence is pending, and the file is not";
		if (!strcmp(driver, "detached-driver") ||
		    !strcmp(name, "signaled-timeline"))
			continue;
		if (strcmp(driver, s->name) && strcmp(driver, "stub"))
			return wrong("driver_name '%.32s'", driver);
		if (!name[0] || strnlen(name, 32) == 32)
			return wrong("obj_name '%.32s'", name);
	}
	return NULL;
}

static void storm_failed(struct storm *storm, const char *why)
{
	pthread_mutex_lock(&storm->lock);
	if (!storm->why[0])
		snprintf(storm->why, sizeof(storm->why), "%s", why);
	pthread_mutex_unlock(&storm->lock);
}

/* Old ones stay, and the last one is replaced; what comes often leaves some room. */
static bool keep(struct storm *storm, int fd, enum source source)
{
	int status = 0;
	const char *why = check_info(storm->screen, fd, false, &status);
	unsigned int n;

	if (why)
		storm_failed(storm, why);
	pthread_mutex_lock(&storm->lock);
	n = atomic_load(&storm->n_kept);
	if (n >= MAX_FENCES / 4 * 3 && (source == BUFFER || source == MERGED)) {
		pthread_mutex_unlock(&storm->lock);
		close(fd);
		return false;
	}
	if (n == MAX_FENCES) {
		n--;
		close(storm->kept[n].fd);
	}
	storm->kept[n].fd = fd;
	storm->kept[n].source = source;
	storm->kept[n].pending = !status;
	atomic_store(&storm->n_kept, n + 1);
	pthread_mutex_unlock(&storm->lock);
	return true;
}

static int flip(struct screen *s, unsigned int n, int *out)
{
	struct request req = {};
	struct drm_mode_atomic atomic = {
		.flags = DRM_MODE_ATOMIC_NONBLOCK,
		.objs_ptr = (uintptr_t)req.objects,
		.count_props_ptr = (uintptr_t)req.counts,
		.props_ptr = (uintptr_t)req.props,
		.prop_values_ptr = (uintptr_t)req.values,
	};
	__s32 fd = -1;
	int err;

	request_add_id(&req, s->crtc, s->out_fence_prop, (uintptr_t)&fd);
	request_add_id(&req, s->plane, s->fb_prop, s->fb[n & 1]);
	atomic.count_objs = req.n_objects;
	err = try_ioctl(s->fd, DRM_IOCTL_MODE_ATOMIC, &atomic);
	*out = fd;
	return err;
}

/* Into the syncobj and out again. */
static void keep_syncobj(struct storm *storm, int fence)
{
	struct screen *s = storm->screen;
	struct drm_syncobj_handle in = {
		.handle = s->syncobj,
		.flags = DRM_SYNCOBJ_FD_TO_HANDLE_FLAGS_IMPORT_SYNC_FILE,
		.fd = fence,
	};
	struct drm_syncobj_handle out = {
		.handle = s->syncobj,
		.flags = DRM_SYNCOBJ_HANDLE_TO_FD_FLAGS_EXPORT_SYNC_FILE,
		.fd = -1,
	};

	if (s->syncobj && !ioctl(s->fd, DRM_IOCTL_SYNCOBJ_FD_TO_HANDLE, &in) &&
	    !ioctl(s->fd, DRM_IOCTL_SYNCOBJ_HANDLE_TO_FD, &out))
		keep(storm, out.fd, SYNCOBJ);
}

static void *flip_all_the_time(void *arg)
{
	struct storm *storm = arg;
	unsigned int n = 0;
	int err, fd;

	while (!atomic_load(&storm->stop)) {
		err = flip(storm->screen, n + 1, &fd);
		if (err == -EBUSY || err == -EINTR || err == -EAGAIN) {
			sched_yield();
			continue;
		}
		if (err) {
			/* EINVAL: it is turned off, and not unplugged yet */
			if (err != -ENODEV && err != -EINVAL)
				storm_failed(storm, wrong("flip: %s",
							  strerror(-err)));
			break;
		}
		if (fd < 0) {
			storm_failed(storm, "flip without a fence");
			break;
		}
		n++;
		if (n % 4 == 1)
			keep_syncobj(storm, fd);
		keep(storm, fd, FLIP);
		atomic_store(&storm->flips, n);
	}
	return NULL;
}

/* Another image of the cursor each time, and another place. */
static void *move_all_the_time(void *arg)
{
	struct storm *storm = arg;
	struct screen *s = storm->screen;
	unsigned int n = 0;
	int err;

	while (!atomic_load(&storm->stop)) {
		struct drm_mode_cursor2 cursor = {
			.flags = DRM_MODE_CURSOR_MOVE,
			.crtc_id = s->crtc,
			.x = n % 100,
			.y = n % 100,
			.width = CURSOR,
			.height = CURSOR,
			.handle = s->bo[2 + (n / 4 & 1)],
		};

		if (atomic_load(&storm->hold)) {
			/* then the next move brings another image */
			n = (n + 3) / 4 * 4;
			atomic_store(&storm->held, true);
			sleep_ms(1);
			continue;
		}
		if (!(n % 4))
			cursor.flags |= DRM_MODE_CURSOR_BO;
		err = try_ioctl(s->fd, DRM_IOCTL_MODE_CURSOR2, &cursor);
		/* not every display has one */
		if (err && err != -EINTR && err != -EAGAIN)
			break;
		atomic_store(&storm->moves, ++n);
	}
	return NULL;
}

/* What is in the buffers, of which most is pending only for a moment. */
static void *export_all_the_time(void *arg)
{
	int last[4] = { -1, -1, -1, -1 };
	struct storm *storm = arg;
	unsigned int n = 0;

	while (!atomic_load(&storm->stop)) {
		struct dma_buf_export_sync_file out = {
			.flags = DMA_BUF_SYNC_RW,
		};
		bool pending, deaf = atomic_load(&storm->deaf);
		unsigned int i = n++ % 4;
		int dmabuf = storm->screen->dmabuf[i];

		/* what was asked for in time may still be done, but not for the cursor */
		if (deaf && i < 2)
			continue;
		if (dmabuf < 0 ||
		    ioctl(dmabuf, DMA_BUF_IOCTL_EXPORT_SYNC_FILE, &out)) {
			sched_yield();
			continue;
		}
		pending = !fence_status(out.fd);
		/* each pending one once, and few that are done: they are mostly stubs */
		if (pending && (deaf ? !atomic_load(&storm->undone) : fence_status(last[i]))) {
			last[i] = keep(storm, out.fd, deaf ? UNDONE : BUFFER) ? out.fd : -1;
			atomic_store(&storm->undone, deaf);
		} else if (!pending && n % 64 < 4 &&
			   atomic_load(&storm->n_kept) < MAX_FENCES / 4) {
			keep(storm, out.fd, BUFFER);
		} else {
			close(out.fd);
		}
	}
	return NULL;
}

/* All that can be done with a pending fence, and a sleep until it has signaled. */
static void use_pending(struct storm *storm, int fd, int other)
{
	struct sync_set_deadline deadline = { .deadline_ns = now_ns() };
	struct sync_merge_data merge = { .name = "early", .fd2 = other };
	struct dma_buf_import_sync_file in = { .flags = DMA_BUF_SYNC_WRITE, .fd = fd };
	struct epoll_event event = { .events = EPOLLIN };
	int err, epoll = epoll_create1(EPOLL_CLOEXEC);

	err = try_ioctl(fd, SYNC_IOC_SET_DEADLINE, &deadline) ?:
	      try_ioctl(storm->other, DMA_BUF_IOCTL_IMPORT_SYNC_FILE, &in) ?:
	      try_ioctl(fd, SYNC_IOC_MERGE, &merge);
	if (err)
		storm_failed(storm, wrong("a pending fence: %s", strerror(-err)));
	else
		keep(storm, merge.fence, MERGED);
	if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event))
		storm_failed(storm, wrong("epoll of a pending fence: %m"));
	/* storm_stop() waits less for that */
	else if (!is_ready(fd, POLLIN, 2 * GONE_MS))
		storm_failed(storm, "who sleeps in poll() is not told of the signal");
	else if (epoll_wait(epoll, &event, 1, WAIT_MS) != 1)
		storm_failed(storm, "poll sees a signal, epoll does not");
	close_fd(&epoll);
}

/* With one of the fences that were kept last. */
static void *wait_all_the_time(void *arg)
{
	struct storm *storm = arg;
	unsigned int i, n;
	int fd, other;

	while (!atomic_load(&storm->stop)) {
		pthread_mutex_lock(&storm->lock);
		n = atomic_load(&storm->n_kept);
		for (i = n; i > 1 && n - i < 16 && fence_status(storm->kept[i - 1].fd); i--)
			;
		/* the other one stays, as only the last of all is ever closed */
		fd = i ? dup(storm->kept[i - 1].fd) : -1;
		other = i > 1 ? storm->kept[i - 2].fd : fd;
		pthread_mutex_unlock(&storm->lock);
		if (fence_status(fd))
			sleep_ms(1);
		else
			use_pending(storm, fd, other);
		close_fd(&fd);
	}
	return NULL;
}

static const char *storm_start(struct storm *storm, struct screen *s, int other)
{
	__u64 start = now_ns();

	memset(storm, 0, sizeof(*storm));
	storm->screen = s;
	storm->other = other;
	pthread_mutex_init(&storm->lock, NULL);
	if (pthread_create(&storm->flipper, NULL, flip_all_the_time, storm) ||
	    pthread_create(&storm->mover, NULL, move_all_the_time, storm) ||
	    pthread_create(&storm->exporter, NULL, export_all_the_time, storm) ||
	    pthread_create(&storm->waiter, NULL, wait_all_the_time, storm))
		return "pthread_create";
	while (atomic_load(&storm->n_kept) < MIN_FENCES ||
	       !atomic_load(&storm->flips) ||
	       now_ns() < start + STORM_MS * NSEC_PER_MSEC) {
		if (now_ns() > start + WAIT_MS * NSEC_PER_MSEC)
			return wrong("only %u fences and %u flips in %u ms; %s",
				     atomic_load(&storm->n_kept),
				     atomic_load(&storm->flips), WAIT_MS,
				     storm->why);
		sleep_ms(1);
	}
	return NULL;
}

static const char *storm_stop(struct storm *storm)
{
	struct timespec ts;

	atomic_store(&storm->stop, true);
	clock_gettime(CLOCK_REALTIME, &ts);
	ts.tv_sec += GONE_MS / 1000;
	if (pthread_timedjoin_np(storm->flipper, NULL, &ts))
		return "who flips is stuck in the kernel";
	if (pthread_timedjoin_np(storm->mover, NULL, &ts))
		return "who moves the cursor is stuck in the kernel";
	if (pthread_timedjoin_np(storm->waiter, NULL, &ts))
		return "who waits for a fence sleeps on";
	pthread_join(storm->exporter, NULL);
	return storm->why[0] ? wrong("%s", storm->why) : NULL;
}

/*
 * The cursor stands still while the bus goes off. So no fence is pending in its images
 * yet, and one that is later has a job that is never done.
 */
static const char *storm_deaf(struct storm *storm, struct device *dev)
{
	__u64 end = now_ns() + WAIT_MS * NSEC_PER_MSEC;
	const char *why;

	atomic_store(&storm->hold, true);
	while (!atomic_load(&storm->held) && now_ns() < end)
		sleep_ms(1);
	why = atomic_load(&storm->held) ? set_bus_master(dev, false) :
					  "the cursor does not stand still";
	atomic_store(&storm->deaf, true);
	atomic_store(&storm->hold, false);
	end = now_ns() + WAIT_MS * NSEC_PER_MSEC;
	while (!why && !atomic_load(&storm->undone) && now_ns() < end)
		sleep_ms(1);
	return why;
}

/* ---- the fences ---- */

/* A buffer of another driver, which can have them when their issuer has gone. */
struct others {
	int vgem, dmabuf;
};

static const char *others_open(struct others *o)
{
	const char *why;
	__u32 bo;

	o->dmabuf = -1;
	/* an error shows below */
	if (!card_node("vgem"))
		module_load("vgem", "");
	o->vgem = card_open("vgem");
	if (o->vgem < 0)
		return "no vgem, which would have a buffer for the fences";
	why = buffer_create(o->vgem, &bo);
	if (!why && buffer_export(o->vgem, bo, &o->dmabuf))
		why = "vgem: no DMA-buf";
	return why;
}

static void others_close(struct others *o)
{
	close_fd(&o->dmabuf);
	close_fd(&o->vgem);
}

static const char *check_epoll(int fd)
{
	struct epoll_event event = { .events = EPOLLIN };
	int epoll = epoll_create1(EPOLL_CLOEXEC);
	const char *why = NULL;

	if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event))
		why = wrong("epoll: %m");
	else if (epoll_wait(epoll, &event, 1, 0) != 1)
		why = "epoll sees no signal";
	close_fd(&epoll);
	return why;
}

static const char *check_merge(const struct screen *s, int fd, int other)
{
	struct sync_merge_data data = { .name = "merged", .fd2 = other };
	int status, err = try_ioctl(fd, SYNC_IOC_MERGE, &data);
	const char *why;

	if (err)
		return wrong("MERGE: %s", strerror(-err));
	/* the other one may be a little later */
	why = is_ready(data.fence, POLLIN, WAIT_MS) ?
	      check_info(s, data.fence, true, &status) : "the merged fence is pending";
	close(data.fence);
	return why;
}

/* In a buffer, and waited for there. */
static const char *check_import(const struct screen *s, struct others *o,
				int fd)
{
	struct dma_buf_import_sync_file in = {
		.flags = DMA_BUF_SYNC_WRITE,
		.fd = fd,
	};
	struct dma_buf_export_sync_file out = { .flags = DMA_BUF_SYNC_RW };
	struct dma_buf_sync sync = {
		.flags = DMA_BUF_SYNC_START | DMA_BUF_SYNC_RW,
	};
	const char *why;
	int status, err;

	err = try_ioctl(o->dmabuf, DMA_BUF_IOCTL_IMPORT_SYNC_FILE, &in) ?:
	      try_ioctl(o->dmabuf, DMA_BUF_IOCTL_EXPORT_SYNC_FILE, &out);
	if (err)
		return wrong("a DMA-buf of vgem: %s", strerror(-err));
	/* those that were pending when they were imported may be a little later */
	why = is_ready(out.fd, POLLIN, WAIT_MS) ?
	      check_info(s, out.fd, true, &status) : "a fence in a DMA-buf of vgem is pending";
	close(out.fd);
	err = why ? 0 : try_ioctl(o->dmabuf, DMA_BUF_IOCTL_SYNC, &sync);
	sync.flags ^= DMA_BUF_SYNC_START | DMA_BUF_SYNC_END;
	err = err ?: try_ioctl(o->dmabuf, DMA_BUF_IOCTL_SYNC, &sync);
	return err ? wrong("DMA_BUF_IOCTL_SYNC: %s", strerror(-err)) : why;
}

static const char *use_fence(const struct screen *s, struct others *o, int fd,
			     int other)
{
	struct sync_set_deadline deadline = { .deadline_ns = now_ns() };
	const char *why;
	int status, err;

	/* names first: whoever polls may be what lets it signal */
	why = check_info(s, fd, true, &status);
	if (!why && !is_ready(fd, POLLIN, WAIT_MS))
		why = wrong("no signal after %u ms", WAIT_MS);
	why = why ?: check_info(s, fd, true, &status);
	if (!why && !status)
		why = "poll says signaled, FILE_INFO says pending";
	why = why ?: check_epoll(fd);
	why = why ?: check_merge(s, fd, other);
	why = why ?: check_import(s, o, fd);
	err = why ? 0 : try_ioctl(fd, SYNC_IOC_SET_DEADLINE, &deadline);
	return err ? wrong("SET_DEADLINE: %s", strerror(-err)) : why;
}

/* ---- the tests ---- */

struct way {
	const char *name;
	const char *(*possible)(struct device *dev);
	const char *(*go)(struct device *dev);
	const char *(*back)(struct device *dev);
};

static const struct way unbind_way = { "unbind", can_bind, unbind, bind };

static const struct way remove_way = {
	"remove", is_pci, pci_remove, pci_rescan,
};

static const struct way power_way = { "power off", has_slot, slot_off, qmp_add };

static const struct way unplug_way = { "unplug", has_plug, unplug, plug };

static const struct way unload_way = {
	"unload", can_unload, module_gone, module_back,
};

static const struct way deaf_way = {
	"deaf", is_master, deaf_unbind, deaf_bind,
};

/* In a process of its own: it may never come back. */
static const char *go(struct __test_metadata *_metadata, const struct way *way,
		      struct device *dev, bool *stuck)
{
	char text[256] = "";
	int pipe_fds[2], status;
	const char *why = NULL;
	__u64 start = now_ns();
	pid_t pid;

	if (pipe(pipe_fds))
		return wrong("pipe: %m");
	pid = fork();
	if (pid < 0)
		return wrong("fork: %m");
	if (!pid) {
		/* with no file of the display, which would keep the module */
		close_range(3, pipe_fds[1] - 1, 0);
		close_range(pipe_fds[1] + 1, UINT_MAX, 0);
		why = way->go(dev);
		if (why && write(pipe_fds[1], why, strlen(why)) < 0)
			_exit(1);
		_exit(0);
	}
	close(pipe_fds[1]);
	if (!is_ready(pipe_fds[0], POLLHUP, GONE_MS) &&
	    !is_ready(pipe_fds[0], POLLIN | POLLHUP, 0))
		why = wrong("%s takes more than %u ms", way->name, GONE_MS);
	else if (read(pipe_fds[0], text, sizeof(text) - 1) > 0)
		why = wrong("%s", text);
	close(pipe_fds[0]);
	/* what is stuck is not waited for, nor is the device touched again */
	*stuck = waitpid(pid, &status, why && !text[0] ? WNOHANG : 0) != pid;
	if (!why && !*stuck && WIFSIGNALED(status))
		why = wrong("killed in the kernel by signal %d", WTERMSIG(status));
	TH_LOG("%s: %llu ms", way->name,
	       (unsigned long long)(now_ns() - start) / NSEC_PER_MSEC);
	return why;
}

FIXTURE(gone)
{
	struct device device;
	struct others others;
	struct storm storm;
	struct screen screen;
	int kmsg;
	bool away, stuck;
};

FIXTURE_VARIANT(gone)
{
	const struct way *way;
	unsigned int rounds;
	bool closed;
};

FIXTURE_VARIANT_ADD(gone, unbind_closed)
{
	.way = &unbind_way,
	.rounds = 1,
	.closed = true,
};

FIXTURE_VARIANT_ADD(gone, unbind_closed_again)
{
	.way = &unbind_way,
	.rounds = ROUNDS,
	.closed = true,
};

FIXTURE_VARIANT_ADD(gone, unbind_in_use)
{
	.way = &unbind_way,
	.rounds = 1,
};

FIXTURE_VARIANT_ADD(gone, unbind_in_use_again)
{
	.way = &unbind_way,
	.rounds = ROUNDS,
};

FIXTURE_VARIANT_ADD(gone, remove_closed)
{
	.way = &remove_way,
	.rounds = 1,
	.closed = true,
};

FIXTURE_VARIANT_ADD(gone, remove_closed_again)
{
	.way = &remove_way,
	.rounds = ROUNDS,
	.closed = true,
};

FIXTURE_VARIANT_ADD(gone, remove_in_use)
{
	.way = &remove_way,
	.rounds = 1,
};

FIXTURE_VARIANT_ADD(gone, remove_in_use_again)
{
	.way = &remove_way,
	.rounds = ROUNDS,
};

FIXTURE_VARIANT_ADD(gone, power_off_closed)
{
	.way = &power_way,
	.rounds = 1,
	.closed = true,
};

FIXTURE_VARIANT_ADD(gone, power_off_closed_again)
{
	.way = &power_way,
	.rounds = PLUG_ROUNDS,
	.closed = true,
};

FIXTURE_VARIANT_ADD(gone, power_off_in_use)
{
	.way = &power_way,
	.rounds = 1,
};

FIXTURE_VARIANT_ADD(gone, power_off_in_use_again)
{
	.way = &power_way,
	.rounds = PLUG_ROUNDS,
};

FIXTURE_VARIANT_ADD(gone, unplug_closed)
{
	.way = &unplug_way,
	.rounds = 1,
	.closed = true,
};

FIXTURE_VARIANT_ADD(gone, unplug_closed_again)
{
	.way = &unplug_way,
	.rounds = PLUG_ROUNDS,
	.closed = true,
};

FIXTURE_VARIANT_ADD(gone, unplug_in_use)
{
	.way = &unplug_way,
	.rounds = 1,
};

FIXTURE_VARIANT_ADD(gone, unplug_in_use_again)
{
	.way = &unplug_way,
	.rounds = PLUG_ROUNDS,
};

/* A module stays while somebody has a file of it. */
FIXTURE_VARIANT_ADD(gone, unload_closed)
{
	.way = &unload_way,
	.rounds = 1,
	.closed = true,
};

FIXTURE_VARIANT_ADD(gone, unload_closed_again)
{
	.way = &unload_way,
	.rounds = ROUNDS,
	.closed = true,
};

FIXTURE_VARIANT_ADD(gone, deaf_closed)
{
	.way = &deaf_way,
	.rounds = 1,
	.closed = true,
};

FIXTURE_VARIANT_ADD(gone, deaf_closed_again)
{
	.way = &deaf_way,
	.rounds = ROUNDS,
	.closed = true,
};

FIXTURE_VARIANT_ADD(gone, deaf_in_use)
{
	.way = &deaf_way,
	.rounds = 1,
};

FIXTURE_VARIANT_ADD(gone, deaf_in_use_again)
{
	.way = &deaf_way,
	.rounds = ROUNDS,
};

FIXTURE_SETUP(gone)
{
	const char *why;

	self->kmsg = -1;
	self->screen.fd = -1;
	self->others.vgem = -1;
	self->others.dmabuf = -1;
	why = find_device(&self->device);
	why = why ?: variant->way->possible(&self->device);
	if (why)
		SKIP(return, "%s", why);
	why = screen_open(&self->screen, &self->device);
	if (why)
		SKIP(return, "%s", why);
	if (!self->screen.out_fence_prop)
		SKIP(return, "%s gives no fences", self->device.driver);
	screen_close(&self->screen);
	why = others_open(&self->others);
	if (why)
		SKIP(return, "%s", why);
	allow_open_files(2 * MAX_FENCES);
	self->kmsg = kmsg_open();
}

FIXTURE_TEARDOWN(gone)
{
	/* whatever happened, the next case wants a device */
	if (self->away && !self->stuck)
		variant->way->back(&self->device);
	others_close(&self->others);
	EXPECT_FINE(kmsg_check(self->kmsg));
}

/* Uses all that were kept, and closes them; adds to what was seen of them. */
static void use_fences(struct __test_metadata *_metadata, struct storm *storm,
		       struct others *others, struct seen *seen)
{
	unsigned int i, n = atomic_load(&storm->n_kept);
	struct kept *kept = storm->kept;
	const char *why = NULL;

	for (i = 0; i < n && !why; i++) {
		why = use_fence(storm->screen, others, kept[i].fd,
				kept[(i + 1) % n].fd);
		if (!why && kept[i].source == UNDONE && fence_status(kept[i].fd) != -ENODEV)
			why = wrong("status %d", fence_status(kept[i].fd));
		EXPECT_EQ(NULL, why)
			TH_LOG("fence %u of %u, of a %s%s: %s", i, n,
			       sources[kept[i].source],
			       kept[i].pending ? ", pending before" : "", why);
		seen->got[kept[i].source]++;
		seen->pending[kept[i].source] += kept[i].pending;
		seen->lost += fence_status(kept[i].fd) < 0;
	}
	for (i = 0; i < n; i++)
		close(kept[i].fd);
}

TEST_F_TIMEOUT(gone, then_used, 600)
{
	unsigned int round, moves = 0, rounds = variant->rounds;
	struct storm *storm = &self->storm;
	struct screen *s = &self->screen;
	struct seen seen = {};
	unsigned int *got = seen.got, *pending = seen.pending;

	/* a port of USB can be used again */
	if (rounds == PLUG_ROUNDS && gud_gadget_is_there())
		rounds = ROUNDS;
	for (round = 0; round < rounds; round++) {
		if (round && variant->way->possible(&self->device))
			break;
		ASSERT_FINE(screen_open(s, &self->device));
		ASSERT_FINE(storm_start(storm, s, self->others.dmabuf));
		if (variant->closed) {
			ASSERT_FINE(storm_stop(storm));
			screen_close(s);
		}
		self->away = true;
		/* in the other rounds the bus goes off in the middle of a job */
		if (variant->way == &deaf_way && !variant->closed && round % 2 == 0)
			ASSERT_FINE(storm_deaf(storm, &self->device));
		ASSERT_FINE(go(_metadata, variant->way, &self->device,
			       &self->stuck));
		if (!variant->closed)
			EXPECT_FINE(storm_stop(storm));
		moves += atomic_load(&storm->moves);
		use_fences(_metadata, storm, &self->others, &seen);
		/* some close it only when it is back */
		if (round % 2 == 0)
			screen_close(s);
		ASSERT_FINE(variant->way->back(&self->device));
		self->away = false;
		screen_close(s);
		ASSERT_FINE(device_again(&self->device));
		if (_metadata->exit_code)
			break;
	}
	ASSERT_FINE(screen_open(s, &self->device));
	TH_LOG("%u rounds, %u moves of the cursor, %u fences have an error",
	       round, moves, seen.lost);
	TH_LOG("pending: flip %u/%u, buffer %u/%u, syncobj %u/%u, merge %u/%u, undone %u/%u",
	       pending[FLIP], got[FLIP], pending[BUFFER], got[BUFFER],
	       pending[SYNCOBJ], got[SYNCOBJ], pending[MERGED], got[MERGED],
	       pending[UNDONE], got[UNDONE]);
	/* on a slow machine one round may see none, and all of them none of the others */
	if (round > 1) {
		EXPECT_POWER(pending[FLIP]);
		EXPECT_POWER(got[MERGED]);
	}
	if (s->syncobj)
		EXPECT_POWER(got[SYNCOBJ]);
	if (s->has_cursor)
		EXPECT_POWER(moves);
	if (variant->way == &deaf_way && !variant->closed && round > 1) {
		EXPECT_POWER(seen.lost);
		EXPECT_POWER(pending[UNDONE]);
	}
	screen_close(s);
}

/* Nothing goes here: the cursor moves, and changes its image each fourth time. */
TEST(cursor_moves)
{
	int kmsg = kmsg_open();
	static struct storm storm;
	struct device device;
	struct screen s;
	const char *why;
	__u64 end;

	why = find_device(&device);
	why = why ?: screen_open(&s, &device);
	if (why)
		SKIP(return, "%s", why);
	storm.screen = &s;
	end = now_ns() + WAIT_MS * NSEC_PER_MSEC;
	ASSERT_EQ(0, pthread_create(&storm.mover, NULL, move_all_the_time,
				    &storm));
	while (atomic_load(&storm.moves) < MOVES && now_ns() < end)
		sleep_ms(1);
	atomic_store(&storm.stop, true);
	pthread_join(storm.mover, NULL);
	TH_LOG("%u moves", atomic_load(&storm.moves));
	if (s.has_cursor)
		EXPECT_POWER(atomic_load(&storm.moves));
	screen_close(&s);
	EXPECT_FINE(kmsg_check(kmsg));
}

FIXTURE(waits)
{
	struct device device;
	int fd, other, kmsg;
	bool away, stuck;
};

static int open_card(unsigned int card)
{
	char path[64];

	snprintf(path, sizeof(path), "/dev/dri/card%u", card);
	return open(path, O_RDWR | O_CLOEXEC);
}

FIXTURE_SETUP(waits)
{
	struct device other;
	unsigned int card;
	const char *why;

	self->fd = -1;
	self->other = -1;
	self->kmsg = -1;
	why = find_device(&self->device);
	why = why ?: can_bind(&self->device);
	if (why)
		SKIP(return, "%s", why);
	self->fd = open_card(find_card(&self->device));
	for (card = 0; card < 64 && self->other < 0; card++) {
		if (read_device(&other, card) && is_second(&other))
			self->other = open_card(card);
	}
	if (!has_cap(self->fd, DRM_CAP_SYNCOBJ_TIMELINE))
		SKIP(return, "%s has no timelines", self->device.driver);
	if (self->other < 0)
		SKIP(return, "no second device that has timelines");
	self->kmsg = kmsg_open();
}

FIXTURE_TEARDOWN(waits)
{
	if (self->away && !self->stuck) {
		bind(&self->device);
		device_again(&self->device);
	}
	close_fd(&self->fd);
	close_fd(&self->other);
	EXPECT_FINE(kmsg_check(self->kmsg));
}

struct waiter {
	pthread_t thread;
	int fd, err;
	__u32 handle;
	__u64 point;
	unsigned int ms;
	atomic_bool done;
};

static int wait_for_point(struct waiter *w)
{
	struct drm_syncobj_timeline_wait wait = {
		.handles = (uintptr_t)&w->handle,
		.points = (uintptr_t)&w->point,
		.timeout_nsec = now_ns() + w->ms * NSEC_PER_MSEC,
		.count_handles = 1,
		.flags = DRM_SYNCOBJ_WAIT_FLAGS_WAIT_FOR_SUBMIT,
	};

	return try_ioctl(w->fd, DRM_IOCTL_SYNCOBJ_TIMELINE_WAIT, &wait);
}

static void *waiter(void *arg)
{
	struct waiter *w = arg;

	w->err = wait_for_point(w);
	atomic_store(&w->done, true);
	return NULL;
}

static int notify(int fd, __u32 handle, __u64 point)
{
	struct drm_syncobj_eventfd event = {
		.handle = handle,
		.point = point,
		.fd = eventfd(0, EFD_CLOEXEC),
	};

	return try_ioctl(fd, DRM_IOCTL_SYNCOBJ_EVENTFD, &event) ? -1 : event.fd;
}

static int create_timeline(int fd, __u32 *handle)
{
	struct drm_syncobj_create create = {};
	int err = try_ioctl(fd, DRM_IOCTL_SYNCOBJ_CREATE, &create);

	*handle = create.handle;
	return err;
}

/*
 * Nobody has submitted what is waited for when the device goes. A syncobj belongs
 * to no device, so the waits go on, and who shares it ends them through another.
 */
TEST_F_TIMEOUT(waits, for_submission, 120)
{
	struct waiter late = { .point = 1, .ms = GONE_MS + 2000 };
	struct waiter ends = { .point = 2, .ms = 100000 };
	struct drm_syncobj_handle share = {};
	struct drm_syncobj_timeline_array points = { .count_handles = 1 };
	int fd = self->fd, alone, event, other = self->other;
	__u32 timeline, secret, shared;
	__u64 point = 3;

	ASSERT_EQ(0, create_timeline(fd, &timeline));
	ASSERT_EQ(0, create_timeline(fd, &secret));
	share.handle = timeline;
	ASSERT_EQ(0, try_ioctl(fd, DRM_IOCTL_SYNCOBJ_HANDLE_TO_FD, &share));
	ASSERT_EQ(0, try_ioctl(other, DRM_IOCTL_SYNCOBJ_FD_TO_HANDLE, &share));
	shared = share.handle;
	close(share.fd);
	event = notify(fd, timeline, point);
	ASSERT_LE(0, event);
	alone = notify(fd, secret, 1);
	ASSERT_LE(0, alone);

	late.fd = fd;
	late.handle = secret;
	ends.fd = fd;
	ends.handle = timeline;
	ASSERT_EQ(0, pthread_create(&late.thread, NULL, waiter, &late));
	ASSERT_EQ(0, pthread_create(&ends.thread, NULL, waiter, &ends));
	sleep_ms(100);

	self->away = true;
	ASSERT_FINE(go(_metadata, &unbind_way, &self->device, &self->stuck));
	EXPECT_FALSE(atomic_load(&late.done));
	EXPECT_EQ(-ENODEV, wait_for_point(&ends));
	EXPECT_EQ(0, pthread_join(late.thread, NULL));
	EXPECT_EQ(-ETIME, late.err);
	EXPECT_FALSE(atomic_load(&ends.done));
	EXPECT_FALSE(is_ready(event, POLLIN, 0));

	points.handles = (uintptr_t)&timeline;
	points.points = (uintptr_t)&point;
	EXPECT_EQ(-ENODEV, try_ioctl(fd, DRM_IOCTL_SYNCOBJ_TIMELINE_SIGNAL, &points));
	EXPECT_FALSE(is_ready(event, POLLIN, 0));
	points.handles = (uintptr_t)&shared;
	ASSERT_EQ(0, try_ioctl(other, DRM_IOCTL_SYNCOBJ_TIMELINE_SIGNAL, &points));
	EXPECT_EQ(0, pthread_join(ends.thread, NULL));
	EXPECT_EQ(0, ends.err);
	EXPECT_TRUE(is_ready(event, POLLIN, WAIT_MS));

	/* nobody else has it, so nobody will know */
	close_fd(&self->fd);
	EXPECT_FALSE(is_ready(alone, POLLIN, 200));
	close(alone);
	close(event);
}

int main(int argc, char **argv)
{
	bool ask = false;
	int i, ret;

	for (i = 1; i < argc; i++)
		ask = ask || !strcmp(argv[i], "-h") || !strcmp(argv[i], "-l");
	if (!ask)
		find_second();
	ret = test_harness_run(argc, argv);
	gud_gadget_stop();
	return ret;
}
