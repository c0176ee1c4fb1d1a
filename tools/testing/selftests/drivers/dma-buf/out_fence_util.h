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

#define DEBUGFS		"/sys/kernel/debug"
#define FAILSLAB	DEBUGFS "/failslab"
#define KMEMLEAK	DEBUGFS "/kmemleak"
#define SW_SYNC		DEBUGFS "/sync/sw_sync"

#define NSEC_PER_MSEC	1000000ull
#define NSEC_PER_SEC	1000000000ull

#define WAIT_MS		5000	/* nothing here may take longer */
#define POWER_MS	60000	/* more for a race that has not shown anything */
#define MAX_LATE	50u	/* tries, where the machine is slower than a frame */
#define MAX_READERS	64
#define MAX_PIPES	16

#define FAST_HZ		500	/* many signals for the stress tests */
#define NORMAL_HZ	25	/* slow enough to look at a pending fence */
#define SLOW_HZ		2	/* pending until somebody ends it */

/* In memory where the kernel is to store a descriptor; none is that large. */
#define UNTOUCHED	0x7e57fd

#define MANY_ALLOCATIONS 1000000	/* more than one system call makes */

/* The interface of sw_sync is in no header. */
struct sw_sync_create_fence_data {
	__u32 value;
	char name[32];
	__s32 fence;
};

#define SW_SYNC_IOC_CREATE_FENCE	\
	_IOWR('W', 0, struct sw_sync_create_fence_data)
#define SW_SYNC_IOC_INC			_IOW('W', 1, __u32)

struct fence {
	int fd;
	bool polled;
	bool may_be_lost;	/* status -ENODEV or -ECANCELED is an end, too */
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

/* An atomic request; the properties of one object have to be in a row. */
struct request {
	__u32 objects[16], counts[16], props[64];
	__u64 values[64];
	unsigned int n_objects, n_props;
	bool incomplete;
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
	atomic_uint n_reading;	/* readers that have read one */
	atomic_bool stop;
	bool polite;		/* leave the CPU to who makes the next fence */
	unsigned int n;
	struct reader reader[MAX_READERS];
};

/* Says what is wrong, in memory of this thread that the next call reuses. */
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

/* Fails if nothing was seen of what a test is about; see time_left(). */
#define EXPECT_POWER(count) do {			\
	unsigned long power = (count);			\
							\
	EXPECT_LT(0ul, power)				\
		TH_LOG("no power: %s", #count);		\
} while (0)

/* The time of CLOCK_MONOTONIC. */
__u64 now_ns(void);
/* Sleeps. */
void sleep_ms(unsigned int ms);
/* Before @end, or while there is no @power at most POWER_MS after it. */
bool time_left(__u64 end, bool power);
/* Can a frame that began after @start be over? */
bool frame_passed(__u64 start, unsigned int hz);
/* An ioctl that is tried once, and counted; returns 0 or -errno. */
int try_ioctl(int fd, unsigned long request, void *arg);
extern atomic_ulong tried_ioctls;
/* Closes a descriptor, if there is one. */
void close_fd(int *fd);
/* The number of open files. */
unsigned int count_files(void);
/* Does poll() find these events, and no others, in time? */
bool is_ready(int fd, short events, unsigned int ms);
/* Allows for @n descriptors; returns how many there may be. */
unsigned int allow_open_files(unsigned int n);
/* Is there a line with @word? */
bool file_contains(const char *path, const char *word);
/* Writes @text in one go; returns 0 or -errno. */
int write_file(const char *path, const char *text);
/* The variable @name, or @otherwise; ends the program if it is out of range. */
__u64 env_number(const char *name, __u64 otherwise, __u64 low, __u64 high);
/* Mounts debugfs where that has not been done. */
void mount_debugfs(void);
/* Loads a module with all that it needs, if modprobe can. */
void modprobe(const char *module, const char *param);
/* Is it there, and not built in? */
bool module_is_loaded(const char *name);
/* Loads it, with modprobe if need be. */
const char *module_load(const char *name, const char *params);
/* Waits a moment for what still uses it; no matter if it was not loaded. */
const char *module_unload(const char *name);

/* The kernel log. */

/* Returns a descriptor for kmsg_check(), or -1. */
int kmsg_open(void);
/* Did the kernel complain since kmsg_open()? Closes @fd. */
const char *kmsg_check(int fd);
/* Why a use after free may not be in the log, or NULL. */
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

/* Why a leak may not be found, or NULL. */
const char *cannot_report_leaks(void);
/* Leaks from here on count. */
const char *leaks_start(struct leaks *leaks);
/* Has anything been lost since? A slab cache may grow by @limit objects. */
const char *leaks_check(struct leaks *leaks, unsigned long limit);

/* Allocations that fail, one at a time. */

/* Prepares this thread for that; why it cannot be done, or NULL. */
const char *faults_open(int *fail_nth);
/* The @nth allocation of what comes next fails, none if that is 0. */
const char *faults_start(int fail_nth, unsigned int nth);
/* How many allocations are missing until one would have failed. */
unsigned int faults_end(int fail_nth);
/* All is as after boot. */
void faults_close(int *fail_nth);

/* Fences that signal when a test wants it. */

/* Returns a timeline of sw_sync, or -errno. */
int timeline_open(void);
/* Returns a fence that signals when the timeline is at @value, or -errno. */
int timeline_fence(int timeline, __u32 value);
/* Lets the timeline go on; returns 0 or -errno. */
int timeline_inc(int timeline, __u32 by);

/* Buffers, as handles of a DRM file and as DMA-bufs. */

/* Makes one without fences. */
const char *buffer_create(int fd, __u32 *handle);
/* Makes a DMA-buf of it; returns 0 or -errno. */
int buffer_export(int fd, __u32 handle, int *dmabuf);

/* An instance of vkms, step by step; these return 0 or -errno. */

/* Makes one that is not enabled; leaves what it made when that fails. */
int instance_configure(const char *name, unsigned int pipes, bool writeback);
/* Writes an attribute. */
int instance_write(const char *name, const char *attr, const char *value);
/* Ends the device. */
int instance_disable(const char *name);
/* Removes what there is of the instance. */
int instance_remove(const char *name);

/* The instance, and what is displayed on it. */

/* The node of the card on the device @device, or NULL. */
const char *card_node(const char *device);
/* Opens that node, and waits for it; returns a descriptor or -errno. */
int card_open(const char *device);
/* Opens any device that has timeline syncobjs, or returns -1. */
int open_syncobj_device(void);
/* Why there can be no test, or NULL; leaves no instance. Opens the log. */
const char *display_prepare(struct display *d, int *kmsg);
/* Makes the device and starts scanning out. */
const char *display_start(struct display *d, unsigned int hz);
/* The same with a writeback of the first frame. */
const char *display_start_writeback(struct display *d, unsigned int hz,
				    struct fence *writeback);
/* Makes the device and opens its node; returns 0 or -errno. */
int display_create(struct display *d);
/* Makes the device and everything that is needed to set a mode. */
const char *display_open(struct display *d);
/* Starts scanning out, with a writeback of the first frame unless NULL. */
const char *display_set_mode(struct display *d, unsigned int hz,
			     struct fence *writeback);
/* Can it be taken away from who has it open? */
bool display_can_end_in_use(void);
/* Turns the outputs off. */
const char *display_turn_off(struct display *d);
/* Takes the device away from who has it open. */
const char *display_disable(struct display *d);
/* Removes the instance, which has to be disabled. */
const char *display_remove(struct display *d);
/* Closes the DRM file. */
void display_close(struct display *d);
/* All three; the memory of the device is free when this returns. */
const char *display_destroy(struct display *d);

/* The property of an object, or 0 if it has none of that name. */
__u32 find_prop(int fd, __u32 object, __u32 type, const char *name);
/* Adds a property to a request. */
void request_add_id(struct request *req, __u32 object, __u32 prop, __u64 value);
/* Commits page flips without a wait or another try; returns 0 or -errno. */
int flip_try(struct display *d, const struct flip *flip, struct fence *out,
	     struct fence *writeback);
/* The same, as soon as the commit before is through. */
const char *flip_commit(struct display *d, const struct flip *flip,
			struct fence *out, struct fence *writeback);
/* One flip with an event, which tells when @f, left untouched, signaled. */
const char *flip_start(struct display *d, struct fence *f);
/* Waits for as many events of flips. */
const char *flip_wait(struct display *d, unsigned int events);

/* The fences. */

/* 0: pending, 1: signaled, -errno: with an error, INT_MIN: not a fence. */
int fence_status(int fd);
/* A fence of the object @id that somebody asks for now. */
void fence_init(struct fence *f, const char *type, __u32 id);
/* SYNC_IOC_FILE_INFO with room for @n fences, checked as far as one can. */
const char *get_info(const struct fence *f, unsigned int n,
		     struct sync_file_info *info,
		     struct sync_fence_info *fence);
/* Waits for all, at most @ms; returns how many have not signaled. */
unsigned int still_pending(struct fence *fences, unsigned int n,
			   unsigned int ms);
/* What FILE_INFO has to say about a fence that signaled long ago. */
const char *use_info(struct fence *f, unsigned int n);
/* Everything that this process can do with a signaled fence, and the end. */
const char *use_all(struct fence *f);
/* Waits for @f, but the file of @f will know nothing of that. */
const char *wait_untouched(const struct fence *f);
/* @merged is @f and @other, if these are not the same. */
const char *merge(const struct fence *f, const struct fence *other,
		  struct fence *merged);

/* Different ways to use a signaled fence; some need @other, most do not. */

/* FILE_INFO that only counts. */
const char *use_info_count(struct fence *f, struct fence *other);
/* FILE_INFO with room for one fence. */
const char *use_info_one(struct fence *f, struct fence *other);
/* FILE_INFO with room for more than there are. */
const char *use_info_many(struct fence *f, struct fence *other);
/* Polls it. */
const char *use_poll(struct fence *f, struct fence *other);
/* Sets a deadline. */
const char *use_deadline(struct fence *f, struct fence *other);
/* Merges it with @other, and uses what that makes. */
const char *use_merge(struct fence *f, struct fence *other);
/* Merges it with itself, and uses what that makes. */
const char *use_merge_self(struct fence *f, struct fence *other);
/* Uses a copy of the descriptor, and closes both. */
const char *use_dup(struct fence *f, struct fence *other);
/* Uses it in another process, which has the last reference. */
const char *use_other_process(struct fence *f, struct fence *other);
/* Closes it after a poll. */
const char *use_close_polled(struct fence *f, struct fence *other);
/* Closes it if nobody polled it. */
const char *use_close_unpolled(struct fence *f, struct fence *other);

/* Closes the descriptor, whatever became of the fence. */
const char *use_close(struct fence *f);
/* Sends a descriptor through a socket; returns 0 or -1. */
int send_fd(int sock, int fd);
/* Returns a descriptor that was sent, or -1. */
int receive_fd(int sock);

/* Threads that read fences, one on every CPU. */

/* Starts them; if there are fences, returns when each has read one. */
const char *readers_start(struct readers *rs, struct fence *fences,
			  unsigned int n_fences, bool polite);
/* Ends them and adds to @sum what they did. */
const char *readers_stop(struct readers *rs, struct reader *sum);
/* Have they seen fences pending, signaled, and in between? */
bool readers_have_power(const struct reader *sum);

/* Says what readers saw of @n fences, and fails if that was nothing. */
#define EXPECT_READERS_POWER(sum, n) do {				\
	const struct reader *s = (sum);					\
	unsigned int fences = (n);					\
									\
	TH_LOG("power: %u fences, %lu reads, %lu of pending ones",	\
	       fences, s->reads, s->pending);				\
	TH_LOG("power: status 0 then 1 seen %lu times, names 'vkms' %lu, 'detached-driver' %lu", \
	       s->both_sides, s->live_names, s->gone_names);		\
	TH_LOG("figures: signals=%u names=%lu races=%lu", fences,	\
	       s->live_names + s->gone_names, s->both_sides);		\
	EXPECT_POWER(fences);						\
	EXPECT_POWER(s->pending);					\
	EXPECT_POWER(s->both_sides);					\
	EXPECT_POWER(s->live_names);					\
	EXPECT_POWER(readers_have_power(s));				\
} while (0)

#endif
