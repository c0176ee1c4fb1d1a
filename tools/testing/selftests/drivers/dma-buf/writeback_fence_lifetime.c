// SPDX-License-Identifier: GPL-2.0
/*
 * What becomes of the fences of a display that goes away at a bad time?
 *
 * A writeback connector stores what a CRTC displays, and tells by a fence when
 * it is done. That fence depends on its issuer as that of a CRTC does, and on
 * one thing more: somebody has to end it if the device goes first. The test
 * makes a vkms instance of its own with such a connector, and then
 *
 *  - asks the newest fences for names and status while they signal,
 *  - takes the device away and uses the old fences in every way there is,
 *  - takes it away with writebacks that vkms will never get to, and expects
 *    their fences to end with -ENODEV or -ECANCELED,
 *  - takes it away in the middle of a storm of commits,
 *  - does all that a hundred times and looks for memory that was lost on the
 *    way. WRITEBACK_FENCE_ROUNDS=N in the environment makes that N times.
 *
 * Answers are checked, and so is the kernel log: a use after free is not an
 * errno. Only a kernel with CONFIG_KASAN reports all of them, and only with
 * "kasan_multi_shot" on its command line more than one per boot. Lost memory is
 * reported by CONFIG_DEBUG_KMEMLEAK.
 *
 * Run it as root, on a kernel with CONFIG_DRM_VKMS: ./writeback_fence_lifetime
 * It needs no free display, and leaves other DRM devices alone.
 */
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "out_fence_util.h"

#define STRESS_MS	3000	/* at least ... */
#define STRESS_FRAMES	60	/* ... and until this many, or */
#define STRESS_MAX_MS	10000
#define MAX_FENCES	1000

#define ROUNDS		100
#define MAX_ROUNDS	100000	/* it depends on the machine what is too many */

static unsigned int rounds;

TEST(kernel_reports_use_after_free)
{
	const char *why = cannot_report_use_after_free();

	if (why)
		SKIP(return, "%s", why);
}

TEST(kernel_reports_leaks)
{
	const char *why = cannot_report_leaks();

	if (why)
		SKIP(return, "%s", why);
}

/* Sets up or skips; @kmsg and @d are for the teardown. */
static bool prepare(struct __test_metadata *_metadata, struct display *d,
		    int *kmsg)
{
	const char *why;

	d->writeback = true;
	why = display_prepare(d, kmsg);
	if (why)
		SKIP(return false, "%s", why);
	return true;
}

/* A page flip with a writeback, or without if @writeback is NULL. */
static const char *writeback_start(struct display *d, struct fence *out,
				   struct fence *writeback)
{
	const struct flip flip = {
		.pipes = 1,
		.writebacks = !!writeback,
	};

	return flip_commit(d, &flip, out, writeback);
}

/* How a fence ended; and that it did, which is checked before. */
static int status_of(const struct fence *f)
{
	struct sync_fence_info fi;
	struct sync_file_info info;

	return get_info(f, 1, &info, &fi) ? INT_MIN : info.status;
}

/* The device has gone; what follows does not touch it, it only keeps fences. */
FIXTURE(after_device_gone)
{
	struct display display;
	struct fence out[6], writebacks[6];
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
	unsigned int i, n = ARRAY_SIZE(self->writebacks);

	if (!prepare(_metadata, &self->display, &self->kmsg))
		return;
	ASSERT_FINE(display_start(&self->display, NORMAL_HZ));
	for (i = 0; i < n; i++) {
		struct fence *f = &self->writebacks[i];
		struct pollfd p = { .events = POLLIN };

		ASSERT_FINE(writeback_start(&self->display, &self->out[i], f));
		/* all histories: polled never, pending, signaled; info or not */
		p.fd = f->fd;
		if (i % 3 == 1) {
			ASSERT_LE(0, poll(&p, 1, 0));
			f->polled = true;
		}
		if (i % 3 == 2)
			ASSERT_FINE(use_poll(f, NULL));
		else
			ASSERT_FINE(wait_untouched(f));
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
	unsigned int i, n = ARRAY_SIZE(self->writebacks);

	for (i = 0; i < n; i++)
		EXPECT_FINE(variant->use(&self->writebacks[i],
					 &self->writebacks[(i + 1) % n]));
	/* in this one, those that are left merge with the fences of the CRTC */
	for (i = 0; variant->use == use_merge && i < n; i++)
		EXPECT_FINE(use_merge(&self->writebacks[i], &self->out[i]));
}

FIXTURE(display)
{
	struct display display;
	struct fence *out, *writebacks;
	int kmsg;
};

FIXTURE_SETUP(display)
{
	if (!prepare(_metadata, &self->display, &self->kmsg))
		return;
	self->out = calloc(MAX_FENCES, sizeof(*self->out));
	ASSERT_NE(NULL, self->out);
	self->writebacks = calloc(MAX_FENCES, sizeof(*self->writebacks));
	ASSERT_NE(NULL, self->writebacks);
}

FIXTURE_TEARDOWN(display)
{
	EXPECT_FINE(display_destroy(&self->display));
	EXPECT_FINE(kmsg_check(self->kmsg));
}

/* Adds to @sum what readers saw; returns the number of fences, now closed. */
static unsigned int read_while_signaling(struct __test_metadata *_metadata,
					 struct display *d, struct fence *out,
					 struct fence *writebacks,
					 unsigned int max, bool polite,
					 struct reader *sum)
{
	static struct readers readers;
	unsigned int i, frames = 0;
	const char *why = NULL;
	__u64 start, time;

	ASSERT_FINE(readers_start(&readers, writebacks, 0, polite));
	start = now_ns();
	while (!why && frames < max) {
		time = (now_ns() - start) / NSEC_PER_MSEC;
		if (time > (frames < STRESS_FRAMES ? STRESS_MAX_MS : STRESS_MS))
			break;
		why = writeback_start(d, &out[frames], &writebacks[frames]);
		if (why)
			break;
		atomic_store(&readers.n_fences, ++frames);
		why = wait_untouched(&writebacks[frames - 1]);
	}
	EXPECT_EQ(NULL, why)
		TH_LOG("%s", why);
	EXPECT_FINE(readers_stop(&readers, sum));

	for (i = 0; i < frames; i++) {
		EXPECT_EQ(1, status_of(&writebacks[i]));
		EXPECT_FINE(use_all(&writebacks[i]));
		EXPECT_FINE(use_all(&out[i]));
	}
	return frames;
}

TEST_F_TIMEOUT(display, names_while_signaling, 180)
{
	unsigned int max = allow_open_files(2 * MAX_FENCES) / 2, frames = 0;
	struct reader sum = {};
	__u64 start = now_ns();

	ASSERT_FINE(display_start(&self->display, FAST_HZ));
	/* where polite readers see nothing there is no time for manners */
	do {
		frames += read_while_signaling(_metadata, &self->display,
					       self->out, self->writebacks, max,
					       !frames, &sum);
	} while (!_metadata->exit_code &&
		 time_left(start, readers_have_power(&sum)));
	EXPECT_READERS_POWER(&sum, frames);
}

/* @f is pending, and says who is to blame. */
static const char *is_pending(const struct fence *f)
{
	struct sync_fence_info fi;
	struct sync_file_info info;
	const char *why = get_info(f, 1, &info, &fi);

	if (!why && info.status)
		why = wrong("status %d of a pending fence", info.status);
	if (!why && strcmp(fi.driver_name, "vkms"))
		why = wrong("driver_name '%.32s' of a pending fence",
			    fi.driver_name);
	return why;
}

static bool is_lost(int status)
{
	/* the latter if the output was turned off before the device went */
	return status == -ENODEV || status == -ECANCELED;
}

/* Done or not, it has ended. */
static void any_end(struct __test_metadata *_metadata, struct fence *f)
{
	ASSERT_EQ(0u, still_pending(f, 1, WAIT_MS))
		TH_LOG("still pending %u ms after its device has gone", WAIT_MS);
	f->may_be_lost = true;
	EXPECT_FINE(use_all(f));
}

/*
 * Takes the device away from who has it open. Closing the file first would remove
 * the framebuffers, and wait for the frame in which that is seen.
 */
static const char *take_away(struct display *d)
{
	const char *why = display_disable(d);

	why = why ?: display_remove(d);
	display_close(d);
	return why;
}

/* The device has gone, and @f, which was pending, has gone with it. */
static void lost_end(struct __test_metadata *_metadata, struct fence *f)
{
	/* stop here: its lock is in memory that is free, and may look taken */
	ASSERT_EQ(0u, still_pending(f, 1, WAIT_MS))
		TH_LOG("still pending %u ms after its device has gone", WAIT_MS);
	EXPECT_TRUE(is_lost(status_of(f)))
		TH_LOG("status %d", status_of(f));
	EXPECT_FINE(use_all(f));
}

/*
 * vkms looks for a writeback to do once a frame. It sends the event of a modeset at
 * once, so that another commit does not have to wait for the frame. These tests use
 * that. Other drivers leave a writeback behind when the hardware hangs.
 *
 * What does not get done within a frame has to be tried with another device.
 */
struct tries {
	struct display *d;
	__u64 start;		/* before the first frame */
	unsigned int late;
};

static void try_again(struct __test_metadata *_metadata, struct tries *t,
		      const char *why)
{
	ASSERT_TRUE(frame_passed(t->start, SLOW_HZ))
		TH_LOG("%s", why);
	ASSERT_GT(MAX_LATE, t->late++)
		TH_LOG("no power: all takes longer than a frame");
	EXPECT_FINE(display_destroy(t->d));
}

/* Is @f pending? If not, that is for the frame, and for another try. */
static bool in_time(struct __test_metadata *_metadata, struct tries *t,
		    const struct fence *f)
{
	const char *why = is_pending(f);

	if (!why)
		return true;
	ASSERT_EQ(1, status_of(f))
		TH_LOG("%s", why);
	try_again(_metadata, t, why);
	return false;
}

/* The device has gone: was there a frame before, which did the writeback? */
static bool was_done(struct __test_metadata *_metadata, struct tries *t,
		     struct fence *f)
{
	if (!frame_passed(t->start, SLOW_HZ) || still_pending(f, 1, 0) ||
	    status_of(f) != 1)
		return false;
	try_again(_metadata, t, NULL);
	return true;
}

static void lost_start(struct __test_metadata *_metadata, struct tries *t,
		       struct fence *f)
{
	do {
		ASSERT_FINE(display_open(t->d));
		t->start = now_ns();
		ASSERT_FINE(display_set_mode(t->d, SLOW_HZ, f));
	} while (!in_time(_metadata, t, f));
}

TEST_F_TIMEOUT(display, closed_first, 180)
{
	struct tries t = { .d = &self->display };
	struct fence f;

	lost_start(_metadata, &t, &f);
	EXPECT_FINE(display_destroy(&self->display));
	any_end(_metadata, &f);
}

TEST_F_TIMEOUT(display, lost_when_disabled, 180)
{
	struct tries t = { .d = &self->display };
	struct fence f;

	do {
		lost_start(_metadata, &t, &f);
		EXPECT_FINE(take_away(&self->display));
	} while (was_done(_metadata, &t, &f));
	EXPECT_EQ(-ENODEV, status_of(&f));
	lost_end(_metadata, &f);
}

/* Behind another commit the device goes after the next frame only. */
TEST_F_TIMEOUT(display, behind_next_commit, 180)
{
	struct tries t = { .d = &self->display };
	struct fence f, out;

	lost_start(_metadata, &t, &f);
	ASSERT_FINE(writeback_start(&self->display, &out, NULL));
	EXPECT_FINE(take_away(&self->display));
	EXPECT_FINE(use_all(&out));
	any_end(_metadata, &f);
}

TEST_F_TIMEOUT(display, two_of_them, 180)
{
	struct tries t = { .d = &self->display };
	struct fence f[2], out;

	lost_start(_metadata, &t, &f[0]);
	ASSERT_FINE(writeback_start(&self->display, &out, &f[1]));
	EXPECT_FINE(take_away(&self->display));
	EXPECT_FINE(use_all(&out));
	any_end(_metadata, &f[0]);
	any_end(_metadata, &f[1]);
}

/* A commit without a writeback does not end the one of the commit before. */
TEST_F_TIMEOUT(display, overtaken, 180)
{
	struct tries t = { .d = &self->display };
	struct fence f, out;

	do {
		lost_start(_metadata, &t, &f);
		ASSERT_FINE(writeback_start(&self->display, &out, NULL));
	} while (!in_time(_metadata, &t, &f));
	EXPECT_FINE(use_poll(&f, NULL));
	EXPECT_EQ(1, status_of(&f));
	EXPECT_FINE(use_all(&f));
	EXPECT_FINE(use_all(&out));
}

/* The first to be committed is the first to be done, and each is done. */
TEST_F_TIMEOUT(display, two_in_order, 180)
{
	struct tries t = { .d = &self->display };
	struct fence f[2], out;
	unsigned int i;

	do {
		lost_start(_metadata, &t, &f[0]);
		ASSERT_FINE(writeback_start(&self->display, &out, &f[1]));
	} while (!in_time(_metadata, &t, &f[0]));
	for (i = 0; i < ARRAY_SIZE(f); i++) {
		EXPECT_FINE(use_poll(&f[i], NULL));
		EXPECT_EQ(1, status_of(&f[i]));
		EXPECT_FINE(use_info(&f[i], 1));
	}
	EXPECT_LT(f[0].timestamp, f[1].timestamp);
	EXPECT_FINE(use_all(&f[0]));
	EXPECT_FINE(use_all(&f[1]));
	EXPECT_FINE(use_all(&out));
}

/* An output that is turned off ends what it has not done, with the device in place. */
TEST_F_TIMEOUT(display, ended_when_turned_off, 180)
{
	struct tries t = { .d = &self->display };
	struct fence f;

	do {
		lost_start(_metadata, &t, &f);
		ASSERT_FINE(display_turn_off(&self->display));
	} while (was_done(_metadata, &t, &f));
	EXPECT_FINE(use_poll(&f, NULL));
	EXPECT_EQ(-ECANCELED, status_of(&f));
	close(f.fd);
}

TEST_F_TIMEOUT(display, lost_and_read, 180)
{
	struct tries t = { .d = &self->display };
	static struct readers readers;
	struct reader sum;
	struct fence f;

	do {
		memset(&sum, 0, sizeof(sum));
		lost_start(_metadata, &t, &f);
		ASSERT_FINE(readers_start(&readers, &f, 1, false));
		EXPECT_FINE(take_away(&self->display));
		sleep_ms(50);
		EXPECT_FINE(readers_stop(&readers, &sum));
	} while (was_done(_metadata, &t, &f));
	EXPECT_POWER(sum.pending);
	lost_end(_metadata, &f);
}

/* Merged with itself, as somebody else would have it. */
TEST_F_TIMEOUT(display, lost_when_merged, 180)
{
	struct tries t = { .d = &self->display };
	struct fence f, merged;

	do {
		lost_start(_metadata, &t, &f);
		ASSERT_FINE(merge(&f, &f, &merged));
		EXPECT_FINE(take_away(&self->display));
		ASSERT_EQ(0u, still_pending(&merged, 1, WAIT_MS))
			TH_LOG("still pending %u ms after its device has gone", WAIT_MS);
		EXPECT_FINE(use_close(&merged));
	} while (was_done(_metadata, &t, &f));
	lost_end(_metadata, &f);
}

/* Its owner is killed, and what is left is a descriptor that it passed on. */
static void start_and_die(struct __test_metadata *_metadata, struct display *d,
			  struct fence *f)
{
	int sock[2];
	char byte;
	pid_t pid;

	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_SEQPACKET, 0, sock));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		close(sock[0]);
		if (display_set_mode(d, SLOW_HZ, f) || send_fd(sock[1], f->fd))
			_exit(1);
		pause();
		_exit(0);
	}
	close(sock[1]);
	display_close(d);
	fence_init(f, "CONNECTOR", d->pipes[0].writeback);
	f->committed = 0;
	f->may_be_lost = true;
	f->fd = receive_fd(sock[0]);
	EXPECT_LE(0, f->fd);
	kill(pid, SIGKILL);
	ASSERT_EQ(pid, waitpid(pid, NULL, 0));
	ASSERT_EQ(0, read(sock[0], &byte, 1));
	close(sock[0]);
	ASSERT_LE(0, f->fd);
}

TEST_F_TIMEOUT(display, killed, 180)
{
	struct fence f;

	/* named after this process, so it is made here */
	ASSERT_FINE(display_open(&self->display));
	start_and_die(_metadata, &self->display, &f);
	EXPECT_FINE(display_destroy(&self->display));
	any_end(_metadata, &f);
}

/* ---- the device goes in the middle of everything ---- */

#define STORM_PIPES	2
#define STORM_THREADS	2	/* for each pipe */
#define N_STORMS	(STORM_PIPES * STORM_THREADS)
#define STORM_FENCES	128	/* for each thread, of both sorts */
#define STORM_ROUNDS	6
#define STORM_MIN	20	/* commits of each thread before the device goes */
#define STORM_MS	3000	/* at most */

struct storm {
	struct display *display;
	pthread_t thread;
	unsigned int pipe;
	bool alternate;		/* writebacks only every other time */
	atomic_bool *going, *stop;
	struct fence fences[2 * STORM_FENCES];
	unsigned int n_fences, writebacks;
	atomic_uint commits, refused;
	char why[256];
};

static void *storm_main(void *arg)
{
	struct storm *s = arg;
	struct fence out[MAX_PIPES], writebacks[MAX_PIPES];
	struct sync_fence_info fi;
	struct sync_file_info info;
	const char *why = NULL;
	unsigned int n = 0;
	int err;

	while (!why && !atomic_load(s->stop)) {
		struct flip flip = { .pipes = 1 << s->pipe };

		if (!s->alternate || n % 2)
			flip.writebacks = flip.pipes;
		if (s->n_fences + 2 > ARRAY_SIZE(s->fences)) {
			sleep_ms(1);
			continue;
		}
		err = flip_try(s->display, &flip, out, writebacks);
		if (err) {
			/* without a device: EINVAL, since nothing is active */
			if ((err == -EINVAL || err == -ENODEV) &&
			    atomic_load(s->going))
				atomic_fetch_add(&s->refused, 1);
			else if (err != -EBUSY)
				why = wrong("flip: %s", strerror(-err));
			usleep(200);
			continue;
		}
		n++;
		out[s->pipe].may_be_lost = true;
		s->fences[s->n_fences++] = out[s->pipe];
		if (flip.writebacks) {
			writebacks[s->pipe].may_be_lost = true;
			s->fences[s->n_fences++] = writebacks[s->pipe];
			s->writebacks++;
		}
		atomic_store(&s->commits, n);
		why = get_info(&s->fences[s->n_fences - 1], 1, &info, &fi);
	}
	if (why)
		snprintf(s->why, sizeof(s->why), "%s", why);
	return NULL;
}

static unsigned int commits_refused(struct storm *storms)
{
	unsigned int i, n = 0;

	for (i = 0; i < N_STORMS; i++)
		n += atomic_load(&storms[i].refused);
	return n;
}

TEST_F_TIMEOUT(display, storm, 180)
{
	static struct storm storms[N_STORMS];
	unsigned int round, i, j, lost, pending, fences, writebacks, refused;
	struct display *d = &self->display;
	atomic_bool going, stop;
	__u64 end;

	allow_open_files(ARRAY_SIZE(storms) * 2 * STORM_FENCES + 64);
	d->n_pipes = STORM_PIPES;
	for (round = 0; round < STORM_ROUNDS && !_metadata->exit_code; round++) {
		memset(storms, 0, sizeof(storms));
		atomic_init(&going, false);
		atomic_init(&stop, false);
		lost = 0;
		pending = 0;
		fences = 0;
		writebacks = 0;
		ASSERT_FINE(display_start(d, FAST_HZ));
		for (i = 0; i < ARRAY_SIZE(storms); i++) {
			struct storm *s = &storms[i];

			s->display = d;
			s->pipe = i % STORM_PIPES;
			s->alternate = i / STORM_PIPES;
			s->going = &going;
			s->stop = &stop;
			ASSERT_EQ(0, pthread_create(&s->thread, NULL,
						    storm_main, s));
		}
		end = now_ns() + STORM_MS * NSEC_PER_MSEC;
		for (i = 0; i < ARRAY_SIZE(storms); i++) {
			while (atomic_load(&storms[i].commits) < STORM_MIN &&
			       time_left(end, atomic_load(&storms[i].commits)))
				sleep_ms(1);
		}
		atomic_store(&going, true);
		EXPECT_FINE(display_disable(d));
		end = now_ns() + 20 * NSEC_PER_MSEC;
		while (time_left(end, commits_refused(storms)))
			sleep_ms(1);
		EXPECT_FINE(display_remove(d));
		atomic_store(&stop, true);
		for (i = 0; i < ARRAY_SIZE(storms); i++)
			ASSERT_EQ(0, pthread_join(storms[i].thread, NULL));
		display_close(d);

		for (i = 0; i < ARRAY_SIZE(storms); i++) {
			struct storm *s = &storms[i];

			EXPECT_EQ(0, s->why[0])
				TH_LOG("thread %u: %s", i, s->why);
			fences += s->n_fences;
			writebacks += s->writebacks;
			pending += still_pending(s->fences, s->n_fences,
						 pending ? 0 : WAIT_MS);
		}
		refused = commits_refused(storms);
		/* not to be touched any more, see above */
		ASSERT_EQ(0u, pending)
			TH_LOG("%u of %u fences still pending", pending, fences);
		for (i = 0; i < ARRAY_SIZE(storms); i++) {
			struct storm *s = &storms[i];

			for (j = 0; j < s->n_fences; j++) {
				if (is_lost(status_of(&s->fences[j])))
					lost++;
				EXPECT_FINE(use_all(&s->fences[j]));
			}
		}
		TH_LOG("power: round %u: %u fences, %u of writebacks, %u lost, %u commits refused",
		       round, fences, writebacks, lost, refused);
		TH_LOG("figures: signals=%u unbinds=1", fences);
		EXPECT_POWER(fences);
		EXPECT_POWER(refused);
	}
}

/* Makes, uses and ends a device; what it leaves are fences to use then. */
static const char *one_round(struct display *d, unsigned int round)
{
	struct fence fences[2];
	unsigned int i, n;
	const char *why;

	/* one in four leaves a writeback that will not be done ... */
	if (round % 4 == 3) {
		why = display_start_writeback(d, SLOW_HZ, &fences[0]);
		n = 1;
	} else {
		why = display_start(d, FAST_HZ);
		if (!why)
			why = writeback_start(d, &fences[0], &fences[1]);
		n = 2;
	}
	/* ... and two leave it to the removal to signal the last fence, or all */
	if (!why && round % 4 == 0)
		why = use_poll(&fences[1], NULL);
	if (!why && round % 4 == 1)
		why = use_poll(&fences[0], NULL);
	if (!why)
		why = round % 4 == 3 ? take_away(d) : display_destroy(d);
	if (why)
		return why;
	for (i = 0; i < n; i++)
		fences[i].may_be_lost = true;
	if (still_pending(fences, n, WAIT_MS))
		return wrong("still pending %u ms after its device has gone",
			     WAIT_MS);
	for (i = 0; !why && i < n; i++)
		why = use_all(&fences[i]);
	return why;
}

TEST_F_TIMEOUT(display, rounds, 600)
{
	const char *why;
	struct leaks leaks;
	unsigned int n;
	__u64 start;

	/* what is allocated once is there when it counts */
	for (n = 0; n < 8; n++)
		ASSERT_FINE(one_round(&self->display, n));
	ASSERT_FINE(leaks_start(&leaks));
	start = now_ns();
	for (n = 0; n < rounds; n++) {
		why = one_round(&self->display, n);
		ASSERT_EQ(NULL, why)
			TH_LOG("round %u: %s", n, why);
	}
	TH_LOG("power: %u rounds in %llu ms", n,
	       (now_ns() - start) / NSEC_PER_MSEC);
	TH_LOG("figures: unbinds=%u", n);
	why = cannot_report_leaks();
	if (why) {
		TH_LOG("leaks NOT checked: %s", why);
		return;
	}
	start = now_ns();
	/* fewer objects can be in what CPUs keep of a slab */
	EXPECT_FINE(leaks_check(&leaks, rounds / 8 > 64 ? rounds / 8 : 64));
	TH_LOG("looked for leaks for %llu ms",
	       (now_ns() - start) / NSEC_PER_MSEC);
}

int main(int argc, char **argv)
{
	rounds = env_number("WRITEBACK_FENCE_ROUNDS", ROUNDS, 1, MAX_ROUNDS);
	return test_harness_run(argc, argv);
}
