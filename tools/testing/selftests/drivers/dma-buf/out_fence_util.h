/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A vkms instance whose fences a test keeps, and everything that can be done
 * with such a fence. Most functions return a description of what is wrong, or
 * NULL if all is well.
 */
#ifndef OUT_FENCE_UTIL_H
#define OUT_FENCE_UTIL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include <linux/sync_file.h>
#include <linux/types.h>

#include "kselftest.h"

#define NSEC_PER_MSEC	1000000ull
#define NSEC_PER_SEC	1000000000ull

#define WAIT_MS		5000	/* nothing here may take longer */
#define MAX_READERS	64
#define MAX_PIPES	4

#define FAST_HZ		500	/* many signals for the stress tests */
#define NORMAL_HZ	25	/* slow enough to look at a pending fence */
#define SLOW_HZ		2	/* pending until somebody ends it */

struct fence {
	int fd;
	bool polled;
	bool may_be_lost;	/* status -ENODEV is an end, too */
	char timeline[24];	/* how its name begins */
	__u64 committed;	/* CLOCK_MONOTONIC before the commit */
	__u64 timestamp;	/* as reported with the device in place, or 0 */
};

/* A CRTC and what goes with it; @writeback is a connector, or 0. */
struct pipe {
	__u32 crtc, plane, connector, writeback;
	atomic_uint flips;
};

struct display {
	/* what the test asks for; no pipe is one pipe */
	unsigned int n_pipes;
	bool writeback;

	char name[64];
	int fd;
	struct pipe pipes[MAX_PIPES];
	__u32 fb[2], writeback_fb;
	__u32 out_fence_prop, in_fence_prop, fb_prop;
	__u32 writeback_fence_prop, writeback_fb_prop;
};

/* What a commit is about; the masks have a bit for each pipe. */
struct flip {
	unsigned int pipes, writebacks;
	bool event;
};

struct readers;

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

const char *wrong(const char *fmt, ...) __printf(1, 2);

#define EXPECT_FINE(call) do {				\
	const char *why = (call);			\
							\
	EXPECT_EQ(NULL, why)				\
		TH_LOG("%s: %s", #call, why ?: "fine");	\
} while (0)

#define ASSERT_FINE(call) do {				\
	const char *why = (call);			\
							\
	ASSERT_EQ(NULL, why)				\
		TH_LOG("%s: %s", #call, why ?: "fine");	\
} while (0)

__u64 now_ns(void);
void sleep_ms(unsigned int ms);
unsigned int allow_open_files(unsigned int n);
bool file_contains(const char *path, const char *word);

/* The kernel log. */
int kmsg_open(void);
const char *kmsg_check(int fd);
const char *cannot_report_use_after_free(void);

/* Memory that the kernel has lost. */
struct leaks {
	bool kmemleak;
	unsigned int n_caches;
	struct {
		char name[64];
		unsigned long objects;
	} caches[64];
};

const char *cannot_report_leaks(void);
const char *leaks_start(struct leaks *leaks);
const char *leaks_check(struct leaks *leaks, unsigned long limit);

/* The instance, and what is displayed on it. */
const char *display_prepare(struct display *d, int *kmsg);
const char *display_start(struct display *d, unsigned int hz);
const char *display_start_writeback(struct display *d, unsigned int hz,
				    struct fence *writeback);
const char *display_open(struct display *d);
const char *display_set_mode(struct display *d, unsigned int hz,
			     struct fence *writeback);
const char *display_disable(struct display *d);
const char *display_remove(struct display *d);
void display_close(struct display *d);
const char *display_destroy(struct display *d);

int flip_try(struct display *d, const struct flip *flip, struct fence *out,
	     struct fence *writeback);
const char *flip_commit(struct display *d, const struct flip *flip,
			struct fence *out, struct fence *writeback);
const char *flip_start(struct display *d, struct fence *f);
const char *flip_wait(struct display *d, unsigned int events);

/* The fences. */
void fence_init(struct fence *f, const char *type, __u32 id);
const char *get_info(const struct fence *f, unsigned int n,
		     struct sync_file_info *info,
		     struct sync_fence_info *fence);
unsigned int still_pending(struct fence *fences, unsigned int n,
			   unsigned int ms);
const char *use_info(struct fence *f, unsigned int n);
const char *use_all(struct fence *f);

const char *wait_untouched(const struct fence *f);
const char *merge(const struct fence *f, const struct fence *other,
		  struct fence *merged);

/* Different ways to use a signaled fence; some need @other, most do not. */
const char *use_info_count(struct fence *f, struct fence *other);
const char *use_info_one(struct fence *f, struct fence *other);
const char *use_info_many(struct fence *f, struct fence *other);
const char *use_poll(struct fence *f, struct fence *other);
const char *use_deadline(struct fence *f, struct fence *other);
const char *use_merge(struct fence *f, struct fence *other);
const char *use_merge_self(struct fence *f, struct fence *other);
const char *use_dup(struct fence *f, struct fence *other);
const char *use_other_process(struct fence *f, struct fence *other);
const char *use_close_polled(struct fence *f, struct fence *other);
const char *use_close_unpolled(struct fence *f, struct fence *other);

const char *use_close(struct fence *f);
int send_fd(int sock, int fd);
int receive_fd(int sock);

/* Threads that read fences, one on every CPU. */
const char *readers_start(struct readers *rs, struct fence *fences,
			  unsigned int n_fences, bool polite);
const char *readers_stop(struct readers *rs, struct reader *sum);

#endif
