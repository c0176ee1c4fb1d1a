// SPDX-License-Identifier: GPL-2.0
/*
 * A gadget that speaks the protocol of include/drm/gud.h, which the driver gud has
 * for displays on USB. What it is sent is not shown anywhere.
 */
#define _GNU_SOURCE
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/usb/functionfs.h>

#include "out_fence_util.h"
#include "functionfs_util.h"
#include "gud_gadget.h"

#define NAME		"gud"
#define UDC		"dummy_udc.0"
#define GADGET		"/sys/kernel/config/usb_gadget/" NAME
#define FUNCTION	GADGET "/functions/ffs." NAME
#define CONFIGURATION	GADGET "/configs/c.1"
#define FFS		"/dev/ffs-" NAME

#define WIDTH		160
#define HEIGHT		120
#define CLOCK		1152	/* kHz, for 60 Hz without any blanking */

/* The requests that need an answer of more than no bytes. */
#define GUD_REQ_GET_STATUS		0x00
#define GUD_REQ_GET_DESCRIPTOR		0x01
#define GUD_REQ_GET_FORMATS		0x40
#define GUD_REQ_GET_CONNECTORS		0x50
#define GUD_REQ_GET_CONNECTOR_STATUS	0x54
#define GUD_REQ_GET_CONNECTOR_MODES	0x55

#pragma pack(push, 1)

struct gud_descriptor {
	__le32 magic;
	__u8 version;
	__le32 flags;
	__u8 compression;
	__le32 max_buffer_size;
	__le32 min_width, max_width, min_height, max_height;
};

struct gud_connector {
	__u8 type;
	__le32 flags;
};

struct gud_mode {
	__le32 clock;
	__le16 hdisplay, hsync_start, hsync_end, htotal;
	__le16 vdisplay, vsync_start, vsync_end, vtotal;
	__le32 flags;
};

#pragma pack(pop)

/* Takes what is shown. The endpoint fails while the gadget is not plugged in. */
static void *take_frames(void *arg)
{
	static char frame[65536];
	int fd;

	do {
		fd = open(FFS "/ep1", O_RDWR | O_CLOEXEC);
	} while (fd < 0 && !poll(NULL, 0, 5));
	for (;;) {
		if (read(fd, frame, sizeof(frame)) < 0)
			sleep_ms(1);
	}
	return arg;
}

/* An answer of no bytes is "none of these". */
static ssize_t answer(int ep0, const struct usb_ctrlrequest *setup)
{
	const struct gud_descriptor descriptor = {
		.magic = htole32(0x1d50614d),
		.version = 1,
		.min_width = htole32(WIDTH),
		.max_width = htole32(WIDTH),
		.min_height = htole32(HEIGHT),
		.max_height = htole32(HEIGHT),
	};
	const __u16 w = htole16(WIDTH), h = htole16(HEIGHT);
	const struct gud_mode mode = {
		htole32(CLOCK), w, w, w, w, h, h, h, h, 0,
	};
	const struct gud_connector connector = {};
	const __u8 format = 0x80, connected = 1, ok = 0;
	const void *data = NULL;
	size_t size = 0, most = le16toh(setup->wLength);

	switch (setup->bRequest) {
	case GUD_REQ_GET_STATUS:
		data = &ok;
		size = sizeof(ok);
		break;
	case GUD_REQ_GET_DESCRIPTOR:
		data = &descriptor;
		size = sizeof(descriptor);
		break;
	case GUD_REQ_GET_FORMATS:
		data = &format;	/* XRGB8888 */
		size = sizeof(format);
		break;
	case GUD_REQ_GET_CONNECTORS:
		data = &connector;
		size = sizeof(connector);
		break;
	case GUD_REQ_GET_CONNECTOR_STATUS:
		data = &connected;
		size = sizeof(connected);
		break;
	case GUD_REQ_GET_CONNECTOR_MODES:
		data = &mode;
		size = sizeof(mode);
		break;
	}
	return write(ep0, data, size < most ? size : most);
}

/* Does what the host asks for. It may have gone in the middle of that. */
static void serve(int ep0)
{
	struct usb_functionfs_event event;
	char data[4096];
	size_t len;

	for (;;) {
		if (read(ep0, &event, sizeof(event)) != sizeof(event)) {
			sleep_ms(1);
			continue;
		}
		if (event.type != FUNCTIONFS_SETUP)
			continue;
		len = le16toh(event.u.setup.wLength);
		if (event.u.setup.bRequestType & USB_DIR_IN ?
		    answer(ep0, &event.u.setup) < 0 :
		    read(ep0, data, len < sizeof(data) ? len : sizeof(data)) < 0)
			sleep_ms(1);
	}
}

/* The process that answers, if there is a gadget. */
static pid_t server;

bool gud_gadget_is_there(void)
{
	return server;
}

const char *gud_gadget_plug(bool in)
{
	int err = write_file(GADGET "/UDC", in ? UDC : "\n");

	return err ? wrong("plug: %s", strerror(-err)) : NULL;
}

/* What another run has left. An error shows when it is made again. */
static void remove_rest(void)
{
	write_file(GADGET "/UDC", "\n");
	unlink(CONFIGURATION "/ffs." NAME);
	umount(FFS);
	rmdir(FUNCTION);
	rmdir(CONFIGURATION);
	rmdir(GADGET);
}

static const char *make(int *ep0)
{
	static const char * const dirs[] = { GADGET, FUNCTION, CONFIGURATION };
	unsigned int i;
	int err;

	/* an error shows below */
	if (access("/sys/kernel/config/usb_gadget", F_OK))
		mount("configfs", "/sys/kernel/config", "configfs", 0, NULL);
	remove_rest();
	for (i = 0; i < ARRAY_SIZE(dirs); i++) {
		if (mkdir(dirs[i], 0755))
			return wrong("mkdir %s: %m", dirs[i]);
	}
	err = write_file(GADGET "/idVendor", "0x1d50");
	err = err ?: write_file(GADGET "/idProduct", "0x614d");
	if (err)
		return wrong("attributes: %s", strerror(-err));
	if (symlink(FUNCTION, CONFIGURATION "/ffs." NAME))
		return wrong("symlink: %m");
	if (mkdir(FFS, 0755) && errno != EEXIST)
		return wrong("mkdir " FFS ": %m");
	if (mount(NAME, FFS, "functionfs", 0, NULL))
		return wrong("mount " FFS ": %m");
	*ep0 = open(FFS "/ep0", O_RDWR | O_CLOEXEC);
	if (*ep0 < 0)
		return wrong("ep0: %m");
	return ffs_write_descriptors(*ep0, NAME, false);
}

const char *gud_gadget_start(void)
{
	pthread_t thread;
	const char *why;
	int ep0 = -1;
	pid_t pid;

	why = make(&ep0);
	if (why)
		return why;
	pid = fork();
	if (pid < 0)
		return wrong("fork: %m");
	if (!pid) {
		/* with its last file the gadget is unplugged */
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (pthread_create(&thread, NULL, take_frames, NULL))
			_exit(1);
		serve(ep0);
	}
	close(ep0);
	server = pid;
	return gud_gadget_plug(true);
}

void gud_gadget_stop(void)
{
	if (!server)
		return;
	gud_gadget_plug(false);
	/* it has the files of the gadget */
	kill(server, SIGKILL);
	waitpid(server, NULL, 0);
	server = 0;
	remove_rest();
	rmdir(FFS);
}
