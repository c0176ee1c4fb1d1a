// SPDX-License-Identifier: MIT
/*
 * What /proc/self/fdinfo says of the fences in a sync_file, parsed as described
 * in Documentation/filesystems/proc.rst.
 */

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/ioctl.h>

#include <linux/sync_file.h>

#include "sync.h"
#include "sw_sync.h"
#include "synctest.h"

#define MAX_LINES	32
#define READS		5000

struct fence_line {
	unsigned long long context, seqno;
	/* As SYNC_IOC_FILE_INFO has it */
	int status;
	/* Or -1 */
	double age;
	char driver[64], timeline[128];
};

struct fdinfo {
	double age;
	char name[512];
	int count;
	unsigned long long more;
	struct fence_line line[MAX_LINES];
};

static const char *skip(const char *text, const char *prefix)
{
	size_t len = strlen(prefix);

	return text && !strncmp(text, prefix, len) ? text + len : NULL;
}

static int parse_fence(char *text, struct fence_line *line)
{
	char *w, *save = NULL;
	const char *s;
	int end;

	line->age = -1;

	w = strtok_r(text, " ", &save);
	if (!w || sscanf(w, "%llu:%llu%n", &line->context, &line->seqno,
			 &end) != 2 || w[end])
		return -1;

	w = strtok_r(NULL, " ", &save);
	if (!w)
		return -1;
	if (!strcmp(w, "pending"))
		line->status = FENCE_STATUS_ACTIVE;
	else if (!strcmp(w, "signaled"))
		line->status = FENCE_STATUS_SIGNALED;
	else if (sscanf(w, "error:%d%n", &line->status, &end) != 1 || w[end])
		return -1;

	w = strtok_r(NULL, " ", &save);
	s = skip(w, "age:");
	if (s) {
		line->age = strtod(s, NULL);
		w = strtok_r(NULL, " ", &save);
	}

	s = skip(w, "driver:");
	if (!s)
		return -1;
	snprintf(line->driver, sizeof(line->driver), "%s", s);

	s = skip(strtok_r(NULL, " ", &save), "timeline:");
	if (!s)
		return -1;
	snprintf(line->timeline, sizeof(line->timeline), "%s", s);

	/* Pending and no age, or signaled with one */
	return (line->status == FENCE_STATUS_ACTIVE) == (line->age < 0) ? 0 : -1;
}

static int parse_text(char *text, struct fdinfo *info)
{
	const char *s;

	/* This should have been the last line. */
	if (info->more)
		return -1;

	s = skip(text, "age:\t");
	if (s) {
		info->age = strtod(s, NULL);
		return 0;
	}

	s = skip(text, "name:\t");
	if (s) {
		snprintf(info->name, sizeof(info->name), "%s", s);
		return 0;
	}

	s = skip(text, "more-fences:\t");
	if (s) {
		info->more = strtoull(s, NULL, 10);
		return 0;
	}

	s = skip(text, "fence:\t");
	if (s) {
		if (info->count == MAX_LINES)
			return -1;
		return parse_fence((char *)s, &info->line[info->count++]);
	}

	/* What all files have */
	return 0;
}

static int read_fdinfo(int fd, struct fdinfo *info)
{
	char path[64], text[512];
	int ret = 0;
	FILE *file;

	memset(info, 0, sizeof(*info));
	info->age = -1;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	file = fopen(path, "r");
	if (!file)
		return -1;

	while (!ret && fgets(text, sizeof(text), file)) {
		text[strcspn(text, "\n")] = '\0';
		ret = parse_text(text, info);
		if (ret)
			ksft_print_msg("unexpected line: %s\n", text);
	}

	fclose(file);
	return ret;
}

int test_fdinfo_state(void)
{
	struct fdinfo pending, signaled;
	int timeline, fence, valid;

	timeline = sw_sync_timeline_create();
	fence = sw_sync_fence_create(timeline, "fence", 3);
	valid = sw_sync_fence_is_valid(fence);
	ASSERT(valid, "Failure allocating fence\n");

	ASSERT(!read_fdinfo(fence, &pending), "Failure reading fdinfo\n");
	ASSERT(pending.count == 1, "Not one fence\n");
	ASSERT(pending.age >= 0, "The file has no age\n");
	ASSERT(!pending.name[0], "The file has a name\n");
	ASSERT(pending.line[0].status == FENCE_STATUS_ACTIVE,
	       "Fence is not pending\n");
	ASSERT(!strcmp(pending.line[0].driver, "sw_sync"),
	       "Fence has the wrong driver\n");
	ASSERT(pending.line[0].seqno == 3, "Fence has the wrong seqno\n");

	usleep(10000);
	sw_sync_timeline_inc(timeline, 3);
	usleep(10000);

	ASSERT(!read_fdinfo(fence, &signaled), "Failure reading fdinfo\n");
	ASSERT(signaled.count == 1, "Not one fence\n");
	ASSERT(signaled.line[0].status == FENCE_STATUS_SIGNALED,
	       "Fence is not signaled\n");
	ASSERT(signaled.line[0].age >= 0.01, "Fence is too young\n");
	ASSERT(signaled.age > pending.age, "File does not become older\n");

	/* The names are gone, but not these. */
	ASSERT(signaled.line[0].context == pending.line[0].context &&
	       signaled.line[0].seqno == pending.line[0].seqno,
	       "Fence is another one\n");
	ASSERT(!strcmp(signaled.line[0].driver, "detached-driver") &&
	       !strcmp(signaled.line[0].timeline, "signaled-timeline"),
	       "Fence still has names\n");

	sw_sync_fence_destroy(fence);
	sw_sync_timeline_destroy(timeline);
	return 0;
}

int test_fdinfo_error(void)
{
	int timeline, fence, valid;
	struct fdinfo info;

	timeline = sw_sync_timeline_create();
	fence = sw_sync_fence_create(timeline, "fence", 1);
	valid = sw_sync_fence_is_valid(fence);
	ASSERT(valid, "Failure allocating fence\n");

	/* Takes the fences along that are pending. */
	sw_sync_timeline_destroy(timeline);

	ASSERT(!read_fdinfo(fence, &info), "Failure reading fdinfo\n");
	ASSERT(info.count == 1, "Not one fence\n");
	ASSERT(info.line[0].status == -ENOENT, "Fence has no error\n");

	sw_sync_fence_destroy(fence);
	return 0;
}

int test_fdinfo_merge(void)
{
	int timeline[2], fence[2], merged, i;
	struct fdinfo one[2], both;

	for (i = 0; i < 2; i++) {
		timeline[i] = sw_sync_timeline_create();
		fence[i] = sw_sync_fence_create(timeline[i], "fence", i + 1);
		ASSERT(sw_sync_fence_is_valid(fence[i]),
		       "Failure allocating fence\n");
		ASSERT(!read_fdinfo(fence[i], &one[i]),
		       "Failure reading fdinfo\n");
	}

	merged = sync_merge("two\\ words\n", fence[0], fence[1]);
	ASSERT(sw_sync_fence_is_valid(merged), "Failure merging fences\n");
	sw_sync_timeline_inc(timeline[1], 2);

	ASSERT(!read_fdinfo(merged, &both), "Failure reading fdinfo\n");
	ASSERT(!strcmp(both.name, "two\\134\\040words\\012"),
	       "Name is not escaped\n");
	ASSERT(both.count == 2 && !both.more, "Not two fences\n");
	for (i = 0; i < 2; i++) {
		int j = both.line[0].context == one[i].line[0].context ? 0 : 1;

		ASSERT(both.line[j].context == one[i].line[0].context &&
		       both.line[j].seqno == one[i].line[0].seqno,
		       "Fence is missing\n");
		ASSERT(both.line[j].status == i, "Wrong fence is signaled\n");
	}

	for (i = 0; i < 2; i++) {
		sw_sync_fence_destroy(fence[i]);
		sw_sync_timeline_destroy(timeline[i]);
	}
	sw_sync_fence_destroy(merged);
	return 0;
}

int test_fdinfo_many(void)
{
	int timeline[MAX_LINES + 8], merged = -1, i;
	struct fdinfo info;

	for (i = 0; i < MAX_LINES + 8; i++) {
		int fence, next;

		timeline[i] = sw_sync_timeline_create();
		fence = sw_sync_fence_create(timeline[i], "fence", 1);
		ASSERT(sw_sync_fence_is_valid(fence),
		       "Failure allocating fence\n");
		if (merged == -1) {
			merged = fence;
			continue;
		}

		next = sync_merge("many", merged, fence);
		ASSERT(sw_sync_fence_is_valid(next),
		       "Failure merging fences\n");
		sw_sync_fence_destroy(merged);
		sw_sync_fence_destroy(fence);
		merged = next;
	}

	ASSERT(!read_fdinfo(merged, &info), "Failure reading fdinfo\n");
	ASSERT(info.count == MAX_LINES, "Wrong number of lines\n");
	ASSERT(info.more == 8, "Wrong number of fences left out\n");

	for (i = 0; i < MAX_LINES + 8; i++)
		sw_sync_timeline_destroy(timeline[i]);
	sw_sync_fence_destroy(merged);
	return 0;
}

static bool debugfs_has(const char *word)
{
	bool found = false;
	char text[512];
	FILE *file;

	file = fopen("/sys/kernel/debug/sync/info", "r");
	if (!file)
		return false;

	while (!found && fgets(text, sizeof(text), file))
		found = strstr(text, word);

	fclose(file);
	return found;
}

/* Whatever names a fence says the same two numbers, also when it is signaled. */
int test_fdinfo_same_everywhere(void)
{
	struct sync_file_info info = {};
	int timeline, fence, i;
	struct fdinfo fdinfo;
	char word[64], end[64];

	timeline = sw_sync_timeline_create();
	fence = sw_sync_fence_create(timeline, "fence", 1234567);
	ASSERT(sw_sync_fence_is_valid(fence), "Failure allocating fence\n");
	ASSERT(!read_fdinfo(fence, &fdinfo), "Failure reading fdinfo\n");

	snprintf(word, sizeof(word), ": %llu:%llu / 0",
		 fdinfo.line[0].context, fdinfo.line[0].seqno);
	ASSERT(debugfs_has(word), "Fence is missing in debugfs\n");

	snprintf(end, sizeof(end), "%llu-%llu", fdinfo.line[0].context,
		 fdinfo.line[0].seqno);
	for (i = 0; i < 2; i++) {
		info.num_fences = 0;
		ASSERT(!ioctl(fence, SYNC_IOC_FILE_INFO, &info),
		       "Failure getting file info\n");
		ASSERT(strlen(info.name) > strlen(end) &&
		       !strcmp(info.name + strlen(info.name) - strlen(end), end),
		       "Name of the file does not end with the fence\n");
		sw_sync_timeline_inc(timeline, 1234567);
	}

	sw_sync_fence_destroy(fence);
	sw_sync_timeline_destroy(timeline);
	return 0;
}

struct storm {
	int timeline;
	int fence;
	bool stop;
};

static void *storm_thread(void *data)
{
	struct storm *storm = data;
	unsigned int value = 0;

	while (!__atomic_load_n(&storm->stop, __ATOMIC_RELAXED)) {
		int fence = sw_sync_fence_create(storm->timeline, "fence",
						 ++value);

		if (fence < 0)
			continue;

		/* In one step, so that there always is a file. */
		if (dup2(fence, storm->fence) < 0)
			break;
		sw_sync_timeline_inc(storm->timeline, 1);
		/* It is signaled: who reads it may be the last one to have it. */
		close(fence);
	}

	return NULL;
}

int test_fdinfo_while_signaling(void)
{
	int pending = 0, signaled = 0, i;
	struct storm storm = {};
	struct fdinfo info;
	pthread_t thread;

	storm.timeline = sw_sync_timeline_create();
	storm.fence = sw_sync_fence_create(storm.timeline, "fence", 0);
	ASSERT(sw_sync_fence_is_valid(storm.fence),
	       "Failure allocating fence\n");
	ASSERT(!pthread_create(&thread, NULL, storm_thread, &storm),
	       "Failure creating thread\n");

	for (i = 0; i < READS; i++) {
		ASSERT(!read_fdinfo(storm.fence, &info),
		       "Failure reading fdinfo\n");
		ASSERT(info.count == 1, "Not one fence\n");
		if (info.line[0].status == FENCE_STATUS_ACTIVE)
			pending++;
		else if (info.line[0].status == FENCE_STATUS_SIGNALED)
			signaled++;
	}

	__atomic_store_n(&storm.stop, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);

	ksft_print_msg("%d pending, %d signaled\n", pending, signaled);
	ASSERT(pending + signaled == READS, "A fence has failed\n");
	ASSERT(signaled > 0, "No fence was signaled meanwhile\n");
	/* A single CPU may never come back in between. */
	if (sysconf(_SC_NPROCESSORS_ONLN) > 1)
		ASSERT(pending > 0, "No fence was pending\n");

	sw_sync_fence_destroy(storm.fence);
	sw_sync_timeline_destroy(storm.timeline);
	return 0;
}
