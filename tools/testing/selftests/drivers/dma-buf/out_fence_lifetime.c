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
 *  - takes it away while fences are read or still pending,
 *  - does so with several CRTCs.
 *
 * Answers are checked, and so is the kernel log: a use after free is not an
 * errno. Only a kernel with CONFIG_KASAN reports all of them, and only with
 * "kasan_multi_shot" on its command line more than one per boot.
 *
 * Run it as root, on a kernel with CONFIG_DRM_VKMS: ./out_fence_lifetime
 * It needs no free display, and leaves other DRM devices alone. Where vkms
 * has no configfs it has to be a module that nobody uses: the test loads and
 * unloads it.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "kselftest_harness.h"
#include "out_fence_util.h"

#define STRESS_MS	3000	/* at least ... */
#define STRESS_FLIPS	1000	/* ... and until this many, or */
#define STRESS_MAX_MS	10000
#define MAX_FENCES	4000

TEST(kernel_reports_use_after_free)
{
	const char *why = cannot_report_use_after_free();

	if (why)
		SKIP(return, "%s", why);
}

/* Sets up or skips; @kmsg and @d are for the teardown. */
static bool prepare(struct __test_metadata *_metadata, struct display *d,
		    int *kmsg)
{
	const char *why = display_prepare(d, kmsg);

	if (why)
		SKIP(return false, "%s", why);
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
		ASSERT_FINE(flip_wait(&self->display, 1));
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
	EXPECT_FINE(kmsg_check(self->kmsg));
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
	EXPECT_FINE(kmsg_check(self->kmsg));
}

TEST_F_TIMEOUT(device_going, signaled_and_read, 60)
{
	static struct readers readers;
	struct fence fences[8];
	unsigned int round, i;

	for (round = 0; round < 5; round++) {
		struct reader sum = {};

		ASSERT_FINE(display_start(&self->display, FAST_HZ));
		for (i = 0; i < ARRAY_SIZE(fences); i++) {
			ASSERT_FINE(flip_start(&self->display, &fences[i]));
			ASSERT_FINE(flip_wait(&self->display, 1));
		}
		ASSERT_FINE(readers_start(&readers, fences, i, false));
		sleep_ms(20);
		EXPECT_FINE(display_destroy(&self->display));
		sleep_ms(50);
		EXPECT_FINE(readers_stop(&readers, &sum));
		EXPECT_POWER(sum.reads);
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
	unsigned int late;
	__u64 start;

	for (late = 0; ; late++) {
		ASSERT_FINE(display_open(d));
		start = now_ns();
		ASSERT_FINE(display_set_mode(d, SLOW_HZ, NULL));
		ASSERT_FINE(flip_start(d, fence));
		ASSERT_FINE(get_info(fence, 1, &info, &fi));
		if (!info.status)
			break;
		/* on a busy machine, try again */
		ASSERT_TRUE(frame_passed(start, SLOW_HZ))
			TH_LOG("signaled in less than a frame of %u ms",
			       1000 / SLOW_HZ);
		ASSERT_GT(MAX_LATE, late)
			TH_LOG("no power: all takes longer than a frame");
		EXPECT_FINE(use_all(fence));
		ASSERT_FINE(display_destroy(d));
	}
	EXPECT_STREQ("vkms", fi.driver_name);
}

TEST_F_TIMEOUT(device_going, pending_then_closed, 90)
{
	struct fence fence;

	pending_start(_metadata, &self->display, &fence);
	EXPECT_FINE(display_destroy(&self->display));
	EXPECT_FINE(use_all(&fence));
}

TEST_F_TIMEOUT(device_going, pending_then_disabled, 90)
{
	struct fence fence;

	if (!display_can_end_in_use())
		SKIP(return, "without configfs an open DRM file keeps vkms");
	pending_start(_metadata, &self->display, &fence);
	/* the open DRM file keeps the memory, but not the device */
	EXPECT_FINE(display_disable(&self->display));
	EXPECT_FINE(use_poll(&fence, NULL));
	EXPECT_FINE(use_info(&fence, 1));
	EXPECT_FINE(display_destroy(&self->display));
	EXPECT_FINE(use_all(&fence));
}

TEST_F_TIMEOUT(device_going, pending_and_read, 90)
{
	static struct readers readers;
	struct reader sum = {};
	struct fence fence;

	pending_start(_metadata, &self->display, &fence);
	ASSERT_FINE(readers_start(&readers, &fence, 1, false));
	EXPECT_FINE(display_destroy(&self->display));
	sleep_ms(50);
	EXPECT_FINE(readers_stop(&readers, &sum));
	EXPECT_FINE(use_all(&fence));
}

/* Several CRTCs, each with a plane, an encoder and a connector of its own. */
#define N_CRTCS		4
#define N_FLIPS		12

FIXTURE(several_crtcs)
{
	struct display display;
	int kmsg;
};

FIXTURE_SETUP(several_crtcs)
{
	self->display.n_pipes = N_CRTCS;
	if (!prepare(_metadata, &self->display, &self->kmsg))
		return;
	ASSERT_FINE(display_start(&self->display, NORMAL_HZ));
}

FIXTURE_TEARDOWN(several_crtcs)
{
	EXPECT_FINE(display_destroy(&self->display));
	EXPECT_FINE(kmsg_check(self->kmsg));
}

/* One commit makes a fence for each CRTC, and no two have the same name. */
TEST_F(several_crtcs, one_commit)
{
	const struct flip flip = {
		.pipes = (1 << N_CRTCS) - 1,
		.event = true,
	};
	struct fence fences[3][N_CRTCS];
	struct sync_fence_info fi[N_CRTCS];
	struct sync_file_info info;
	unsigned int n, i, j, late = 0;

	for (n = 0; n < ARRAY_SIZE(fences); n++) {
		struct fence *f = fences[n];
		bool pending = true;

		ASSERT_FINE(flip_commit(&self->display, &flip, f, NULL));
		for (i = 0; i < N_CRTCS; i++) {
			ASSERT_FINE(get_info(&f[i], 1, &info, &fi[i]));
			pending &= !info.status;
		}
		if (!pending) {
			/* no name any more; on a busy machine, try again */
			ASSERT_GT(MAX_LATE, late++)
				TH_LOG("no power: all takes longer than a frame");
			ASSERT_FINE(flip_wait(&self->display, N_CRTCS));
			for (i = 0; i < N_CRTCS; i++)
				EXPECT_FINE(use_close(&f[i]));
			n--;
			continue;
		}
		for (i = 0; i < N_CRTCS; i++) {
			for (j = 0; j < i; j++)
				EXPECT_STRNE(fi[j].obj_name, fi[i].obj_name);
		}
		/* the last fences are pending when the device goes */
		if (n + 1 < ARRAY_SIZE(fences))
			ASSERT_FINE(flip_wait(&self->display, N_CRTCS));
	}
	TH_LOG("names '%s' to '%s'", fi[0].obj_name, fi[N_CRTCS - 1].obj_name);
	EXPECT_FINE(display_destroy(&self->display));

	for (n = 0; n < ARRAY_SIZE(fences); n++) {
		for (i = 0; i < N_CRTCS; i++)
			EXPECT_FINE(use_merge(&fences[n][i],
					      &fences[n][(i + 1) % N_CRTCS]));
	}
	for (n = 0; n < ARRAY_SIZE(fences); n++) {
		for (i = 0; i < N_CRTCS; i++)
			EXPECT_FINE(use_all(&fences[n][i]));
	}
}

struct committer {
	struct display *display;
	pthread_t thread;
	unsigned int pipe;
	struct fence fences[N_FLIPS];
	unsigned int pending;
	char why[256];
};

static void *committer_main(void *arg)
{
	struct committer *c = arg;
	const struct flip flip = { .pipes = 1 << c->pipe };
	struct fence out[MAX_PIPES];
	struct sync_fence_info fi;
	struct sync_file_info info;
	__u64 start = now_ns();
	const char *why = NULL;
	unsigned int i;

	for (i = 0; !why && i < N_FLIPS; i++) {
		why = flip_commit(c->display, &flip, out, NULL);
		if (why)
			break;
		c->fences[i] = out[c->pipe];
		why = get_info(&c->fences[i], 1, &info, &fi);
		if (!why && !info.status)
			c->pending++;
		/* the last one is pending when the device goes */
		if (!why && i + 1 < N_FLIPS)
			why = use_poll(&c->fences[i], NULL);
		/* who came too late for all of them tries again */
		if (!why && i + 2 == N_FLIPS && !c->pending &&
		    time_left(start, false))
			why = use_close(&c->fences[i--]);
	}
	if (why)
		snprintf(c->why, sizeof(c->why), "%s", why);
	return NULL;
}

/* Each CRTC is served by a thread of its own. */
TEST_F_TIMEOUT(several_crtcs, parallel_commits, 120)
{
	struct committer *c, committers[N_CRTCS] = {};
	unsigned int i, j;

	for (i = 0; i < N_CRTCS; i++) {
		c = &committers[i];
		c->display = &self->display;
		c->pipe = i;
		ASSERT_EQ(0, pthread_create(&c->thread, NULL, committer_main, c));
	}
	for (i = 0; i < N_CRTCS; i++) {
		c = &committers[i];
		ASSERT_EQ(0, pthread_join(c->thread, NULL));
		ASSERT_EQ(0, c->why[0])
			TH_LOG("CRTC %u: %s", i, c->why);
		EXPECT_POWER(c->pending);
	}
	EXPECT_FINE(display_destroy(&self->display));

	for (i = 0; i < N_CRTCS; i++) {
		for (j = 0; j < N_FLIPS; j++)
			EXPECT_FINE(use_all(&committers[i].fences[j]));
	}
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
	EXPECT_FINE(kmsg_check(self->kmsg));
}

/* Adds to @sum what readers saw; returns the number of fences, now closed. */
static unsigned int read_while_signaling(struct __test_metadata *_metadata,
					 struct display *d,
					 struct fence *fences, unsigned int max,
					 bool polite, struct reader *sum)
{
	static struct readers readers;
	unsigned int i, flips = 0;
	const char *why = NULL;
	__u64 start, time;

	ASSERT_FINE(readers_start(&readers, fences, 0, polite));
	start = now_ns();
	while (!why && flips < max) {
		time = (now_ns() - start) / NSEC_PER_MSEC;
		if (time > (flips < STRESS_FLIPS ? STRESS_MAX_MS : STRESS_MS))
			break;
		why = flip_start(d, &fences[flips]);
		if (why)
			break;
		atomic_store(&readers.n_fences, ++flips);
		why = flip_wait(d, 1);
	}
	EXPECT_EQ(NULL, why)
		TH_LOG("%s", why);
	sleep_ms(20);
	EXPECT_FINE(readers_stop(&readers, sum));

	for (i = 0; i < flips; i++)
		EXPECT_FINE(use_info(&fences[i], 1));
	for (i = 0; i < flips; i++)
		EXPECT_FINE(use_close(&fences[i]));
	return flips;
}

TEST_F_TIMEOUT(device_present, names_while_signaling, 180)
{
	unsigned int max = allow_open_files(MAX_FENCES), flips = 0;
	struct reader sum = {};
	__u64 start = now_ns();

	/* where polite readers see nothing there is no time for manners */
	do {
		flips += read_while_signaling(_metadata, &self->display,
					      self->fences, max, !flips, &sum);
	} while (!_metadata->exit_code &&
		 time_left(start, readers_have_power(&sum)));
	EXPECT_READERS_POWER(&sum, flips);
}

TEST_HARNESS_MAIN
