// SPDX-License-Identifier: GPL-2.0
/*
 * Does a fence stay usable when the module of its issuer is unloaded?
 *
 * A sync_file does not pin the driver behind its fence. The test makes fences
 * with vgem and with vkms, closes everything but the sync_files, unloads the
 * module, loads it again at times, and uses the fences in every way there is,
 * down to the last reference.
 *
 * Run it as root, with vgem and vkms as modules that nobody else uses:
 * ./fence_module_unload
 * A module that was loaded before is loaded again when the test is through.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/dma-buf.h>
#include <drm/drm.h>
#include <drm/vgem_drm.h>

#include "kselftest_harness.h"
#include "out_fence_util.h"

#define N_FENCES	6
#define EXPIRY_MS	(10 * 1000)	/* vgem ends a fence after this time */
#define RACE_ROUNDS	20
#define RACE_FENCES	16
#define VKMS_ROUNDS	4

/* ---- modules ---- */

/* Returns why this module cannot be unloaded and loaded at will. */
static const char *module_prepare(const char *name, const char *params)
{
	char path[128];
	const char *why;

	snprintf(path, sizeof(path), "/sys/module/%s", name);
	if (!module_is_loaded(name) && !access(path, F_OK))
		return wrong("%s is built in", name);
	why = module_load(name, params);
	if (why)
		return why;
	if (!module_is_loaded(name))
		return wrong("%s is not a module", name);
	if (syscall(SYS_delete_module, name, O_NONBLOCK))
		return wrong("cannot unload %s: %m", name);
	return NULL;
}

/* ---- vgem ---- */

struct vgem {
	int fd;
	unsigned int n;
	__u32 handles[RACE_FENCES];
};

static const char *vgem_open(struct vgem *v)
{
	memset(v, 0, sizeof(*v));
	v->fd = card_open("vgem");
	return v->fd < 0 ? wrong("vgem: %s", strerror(-v->fd)) : NULL;
}

static void vgem_close(struct vgem *v)
{
	if (v->fd >= 0)
		close(v->fd);
	v->fd = -1;
}

/* A pending fence on a buffer of its own; only @f is left of that buffer. */
static const char *vgem_start(struct vgem *v, struct fence *f)
{
	struct drm_mode_create_dumb dumb = {
		.width = 64, .height = 16, .bpp = 32,
	};
	struct dma_buf_export_sync_file export = { .flags = DMA_BUF_SYNC_RW };
	struct drm_vgem_fence_attach attach = { .flags = VGEM_FENCE_WRITE };
	struct drm_prime_handle prime = { .flags = DRM_CLOEXEC };
	struct drm_gem_close end = {};
	const char *why = NULL;

	if (ioctl(v->fd, DRM_IOCTL_MODE_CREATE_DUMB, &dumb))
		return wrong("buffer: %m");
	end.handle = dumb.handle;
	attach.handle = dumb.handle;
	prime.handle = dumb.handle;
	fence_init(f, "unbound", 0);
	f->fd = -1;
	if (ioctl(v->fd, DRM_IOCTL_PRIME_HANDLE_TO_FD, &prime))
		return wrong("PRIME_HANDLE_TO_FD: %m");
	if (ioctl(v->fd, DRM_IOCTL_VGEM_FENCE_ATTACH, &attach))
		why = wrong("FENCE_ATTACH: %m");
	else if (ioctl(prime.fd, DMA_BUF_IOCTL_EXPORT_SYNC_FILE, &export))
		why = wrong("EXPORT_SYNC_FILE: %m");
	else
		f->fd = export.fd;
	close(prime.fd);
	ioctl(v->fd, DRM_IOCTL_GEM_CLOSE, &end);
	if (!why)
		v->handles[v->n++] = attach.out_fence;
	return why;
}

static int vgem_signal(struct vgem *v, unsigned int i)
{
	struct drm_vgem_fence_signal signal = { .fence = v->handles[i] };

	return ioctl(v->fd, DRM_IOCTL_VGEM_FENCE_SIGNAL, &signal) ? -errno : 0;
}

static bool is_pending(const struct fence *f)
{
	struct pollfd p = { .fd = f->fd, .events = POLLIN };

	return !poll(&p, 1, 0);
}

FIXTURE(vgem)
{
	bool was_loaded;
	struct fence fences[N_FENCES];
	struct vgem vgem;
	int kmsg;
};

/* As it was before. */
static void vgem_restore(bool was_loaded)
{
	if (was_loaded)
		module_load("vgem", "");
	else if (module_is_loaded("vgem"))
		module_unload("vgem");
}

FIXTURE_SETUP(vgem)
{
	const char *why;
	unsigned int i;

	self->kmsg = -1;
	self->vgem.fd = -1;
	for (i = 0; i < N_FENCES; i++)
		self->fences[i].fd = -1;
	self->was_loaded = module_is_loaded("vgem");
	why = module_prepare("vgem", "");
	if (!why)
		why = module_load("vgem", "");
	if (why) {
		vgem_restore(self->was_loaded);
		SKIP(return, "%s", why);
	}
	self->kmsg = kmsg_open();
	why = vgem_open(&self->vgem);
	if (why)
		vgem_restore(self->was_loaded);
	ASSERT_EQ(NULL, why)
		TH_LOG("%s", why);
}

FIXTURE_TEARDOWN(vgem)
{
	unsigned int i;

	for (i = 0; i < N_FENCES; i++) {
		if (self->fences[i].fd >= 0)
			use_close(&self->fences[i]);
	}
	vgem_close(&self->vgem);
	vgem_restore(self->was_loaded);
	EXPECT_FINE(kmsg_check(self->kmsg));
}

/* Every kind of use, for fences whose module has gone. */
static const char *use_each(struct fence *f)
{
	const char *why;

	why = use_other_process(&f[0], NULL);
	if (!why)
		why = use_dup(&f[1], NULL);
	if (!why)
		why = use_merge(&f[2], &f[3]);
	if (!why)
		why = use_all(&f[2]);
	if (!why)
		why = use_info_many(&f[3], NULL);
	if (!why)
		why = use_close_polled(&f[3], NULL);
	if (!why)
		why = use_all(&f[4]);
	/* nothing but the last reference */
	return why ?: use_close(&f[5]);
}

static const char *start_all(struct vgem *v, struct fence *f, unsigned int n)
{
	const char *why = NULL;
	unsigned int i;

	for (i = 0; !why && i < n; i++)
		why = vgem_start(v, &f[i]);
	/* a file that was polled looks for its callback when it is closed */
	for (i = 0; !why && i < n; i += 2) {
		f[i].polled = true;
		if (!is_pending(&f[i]))
			why = wrong("fence %u has signaled already", i);
	}
	return why;
}

TEST_F(vgem, signaled)
{
	unsigned int i;

	ASSERT_FINE(start_all(&self->vgem, self->fences, N_FENCES));
	for (i = 0; i < N_FENCES; i++)
		ASSERT_EQ(0, vgem_signal(&self->vgem, i));
	vgem_close(&self->vgem);
	ASSERT_FINE(module_unload("vgem"));
	EXPECT_FINE(use_each(self->fences));
}

TEST_F(vgem, ended_by_close)
{
	ASSERT_FINE(start_all(&self->vgem, self->fences, N_FENCES));
	vgem_close(&self->vgem);
	ASSERT_FINE(module_unload("vgem"));
	EXPECT_FINE(use_each(self->fences));
}

TEST_F_TIMEOUT(vgem, expired, 60)
{
	ASSERT_FINE(start_all(&self->vgem, self->fences, N_FENCES));
	ASSERT_EQ(0u, still_pending(self->fences, N_FENCES,
				    EXPIRY_MS + WAIT_MS));
	/* the handle is there until it is asked for, or the file closed */
	EXPECT_EQ(-ETIMEDOUT, vgem_signal(&self->vgem, 0));
	EXPECT_EQ(-ENOENT, vgem_signal(&self->vgem, 0));
	vgem_close(&self->vgem);
	ASSERT_FINE(module_unload("vgem"));
	EXPECT_FINE(use_each(self->fences));
}

/* Fences of vgem that only another fence holds on to. */
TEST_F(vgem, merged)
{
	struct fence *f = self->fences;

	ASSERT_FINE(start_all(&self->vgem, f, 3));
	ASSERT_FINE(merge(&f[0], &f[1], &f[3]));
	ASSERT_FINE(merge(&f[3], &f[2], &f[4]));
	EXPECT_FINE(use_close(&f[0]));
	EXPECT_FINE(use_close(&f[1]));
	ASSERT_EQ(0, vgem_signal(&self->vgem, 1));
	EXPECT_TRUE(is_pending(&f[3]));
	EXPECT_TRUE(is_pending(&f[4]));
	vgem_close(&self->vgem);
	ASSERT_FINE(module_unload("vgem"));
	ASSERT_EQ(0u, still_pending(&f[2], 3, WAIT_MS));
	EXPECT_FINE(use_merge_self(&f[3], NULL));
	EXPECT_FINE(use_merge(&f[4], &f[3]));
	EXPECT_FINE(use_all(&f[2]));
	EXPECT_FINE(use_close(&f[3]));
	EXPECT_FINE(use_close(&f[4]));
}

TEST_F(vgem, loaded_again)
{
	struct vgem again;
	unsigned int i;

	ASSERT_FINE(start_all(&self->vgem, self->fences, N_FENCES));
	ASSERT_EQ(0, vgem_signal(&self->vgem, 0));
	vgem_close(&self->vgem);
	ASSERT_FINE(module_unload("vgem"));
	ASSERT_FINE(module_load("vgem", ""));
	ASSERT_FINE(vgem_open(&again));
	EXPECT_FINE(use_each(self->fences));
	ASSERT_FINE(start_all(&again, self->fences, N_FENCES));
	for (i = 0; i < N_FENCES; i++)
		EXPECT_EQ(0, vgem_signal(&again, i));
	vgem_close(&again);
	ASSERT_FINE(module_unload("vgem"));
	EXPECT_FINE(use_each(self->fences));
}

/* Readers of names and status, while the module goes. */
struct name_reader {
	pthread_t thread;
	struct fence *fences;
	atomic_bool *stop;
	unsigned long live, gone;
	char why[256];
};

static const char *read_names(struct name_reader *r, struct fence *f,
			      bool *was_gone)
{
	struct sync_fence_info fence = {};
	struct sync_file_info info = {
		.num_fences = 1, .sync_fence_info = (uintptr_t)&fence,
	};
	bool gone;

	if (ioctl(f->fd, SYNC_IOC_FILE_INFO, &info))
		return wrong("FILE_INFO: %m");
	if (info.num_fences != 1)
		return wrong("num_fences %u", info.num_fences);
	gone = !strcmp(fence.driver_name, "detached-driver");
	if (!gone && strcmp(fence.driver_name, "vgem"))
		return wrong("driver_name '%.32s'", fence.driver_name);
	if (strcmp(fence.obj_name, "unbound") &&
	    strcmp(fence.obj_name, "signaled-timeline"))
		return wrong("obj_name '%.32s'", fence.obj_name);
	if (*was_gone && !gone)
		return "the name of a signaled fence came back";
	*was_gone = gone;
	if (gone)
		r->gone++;
	else
		r->live++;
	return NULL;
}

static void *name_reader_main(void *arg)
{
	bool gone[RACE_FENCES] = {};
	struct name_reader *r = arg;
	const char *why = NULL;
	unsigned int i;

	while (!why && !atomic_load(r->stop)) {
		for (i = 0; !why && i < RACE_FENCES; i++)
			why = read_names(r, &r->fences[i], &gone[i]);
	}
	if (why)
		snprintf(r->why, sizeof(r->why), "%s", why);
	return NULL;
}

TEST_F_TIMEOUT(vgem, unloaded_while_read, 240)
{
	unsigned long live = 0, gone = 0, signals = 0;
	struct fence fences[RACE_FENCES];
	__u64 start = now_ns();
	unsigned int i, round;

	vgem_close(&self->vgem);
	for (round = 0; round < RACE_ROUNDS || time_left(start, live && gone);
	     round++) {
		struct name_reader readers[2] = {};
		atomic_bool stop = false;
		struct vgem v;

		ASSERT_FINE(module_load("vgem", ""));
		ASSERT_FINE(vgem_open(&v));
		ASSERT_FINE(start_all(&v, fences, RACE_FENCES));
		for (i = 0; i < ARRAY_SIZE(readers); i++) {
			readers[i].fences = fences;
			readers[i].stop = &stop;
			ASSERT_EQ(0, pthread_create(&readers[i].thread, NULL,
						    name_reader_main,
						    &readers[i]));
		}
		sleep_ms(2);
		for (i = 0; i < round % RACE_FENCES; i++)
			EXPECT_EQ(0, vgem_signal(&v, i));
		vgem_close(&v);
		ASSERT_FINE(module_unload("vgem"));
		sleep_ms(2);
		atomic_store(&stop, true);
		for (i = 0; i < ARRAY_SIZE(readers); i++) {
			pthread_join(readers[i].thread, NULL);
			EXPECT_EQ('\0', readers[i].why[0])
				TH_LOG("reader %u: %s", i, readers[i].why);
			live += readers[i].live;
			gone += readers[i].gone;
		}
		for (i = 0; i < RACE_FENCES; i++)
			EXPECT_FINE(use_all(&fences[i]));
		signals += RACE_FENCES;
	}
	TH_LOG("power: %lu names read of pending fences, %lu of signaled ones",
	       live, gone);
	TH_LOG("figures: signals=%lu names=%lu unloads=%u", signals,
	       live + gone, round);
	EXPECT_POWER(live);
	EXPECT_POWER(gone);
}

/* ---- vkms ---- */

#define NO_DEFAULT_DEV	"create_default_dev=0"

FIXTURE(vkms)
{
	bool was_loaded, had_default_dev;
	struct display display;
	int kmsg;
};

static void vkms_restore(bool was_loaded, bool had_default_dev)
{
	if (module_is_loaded("vkms") && (!was_loaded || had_default_dev))
		module_unload("vkms");
	if (was_loaded)
		module_load("vkms", had_default_dev ? "" : NO_DEFAULT_DEV);
}

FIXTURE_SETUP(vkms)
{
	const char *why;

	self->kmsg = -1;
	self->display.fd = -1;
	self->display.writeback = true;
	self->was_loaded = module_is_loaded("vkms");
	self->had_default_dev = file_contains("/sys/module/vkms/parameters/create_default_dev",
					      "Y");
	why = module_prepare("vkms", NO_DEFAULT_DEV);
	if (!why)
		why = module_load("vkms", NO_DEFAULT_DEV);
	if (!why)
		why = display_prepare(&self->display, &self->kmsg);
	if (why) {
		vkms_restore(self->was_loaded, self->had_default_dev);
		SKIP(return, "%s", why);
	}
}

FIXTURE_TEARDOWN(vkms)
{
	display_destroy(&self->display);
	vkms_restore(self->was_loaded, self->had_default_dev);
	EXPECT_FINE(kmsg_check(self->kmsg));
}

TEST_F_TIMEOUT(vkms, out_fences, 120)
{
	struct display *d = &self->display;
	unsigned int i, round, most = 0, fences = 0, lost = 0;

	if (display_can_end_in_use())
		most = 4 * VKMS_ROUNDS;
	/* a frame may be over before the device goes, but not each time */
	for (round = 0; round < VKMS_ROUNDS || (!lost && round < most); round++) {
		bool pending = round % 2 && display_can_end_in_use();
		struct fence f[4];
		unsigned int n = pending ? 1 : ARRAY_SIZE(f);

		ASSERT_FINE(module_load("vkms", NO_DEFAULT_DEV));
		/* a frame takes half a second, or is over soon */
		ASSERT_FINE(display_start_writeback(d, pending ? SLOW_HZ :
						    FAST_HZ, &f[0]));
		if (pending) {
			/* to close the file first would wait for the frame */
			ASSERT_FINE(display_disable(d));
			ASSERT_FINE(display_remove(d));
			display_close(d);
		} else {
			EXPECT_FINE(wait_untouched(&f[0]));
			for (i = 1; i < n; i++) {
				ASSERT_FINE(flip_start(d, &f[i]));
				ASSERT_FINE(flip_wait(d, 1));
			}
			ASSERT_FINE(display_destroy(d));
		}
		ASSERT_FINE(module_unload("vkms"));
		f[0].may_be_lost = pending;
		EXPECT_EQ(0u, still_pending(f, n, WAIT_MS));
		lost += pending && fence_status(f[0].fd) == -ENODEV;
		for (i = 0; i < n; i++)
			EXPECT_FINE(use_all(&f[i]));
		fences += n;
	}
	if (most)
		EXPECT_POWER(lost);
	TH_LOG("figures: signals=%u unbinds=%u unloads=%u", fences, round,
	       round);
}

TEST_HARNESS_MAIN
