// SPDX-License-Identifier: GPL-2.0
/*
 * Does the kernel say which fence somebody waits for?
 *
 * What is pending is in the fdinfo of the sync_file, syncobj or DMA-buf that has
 * the fence, see Documentation/filesystems/proc.rst, and in the file out_fences
 * that each CRTC and writeback connector has in debugfs, see
 * Documentation/gpu/drm-uapi.rst. The test makes a vkms instance of its own, and
 * reads all of them while fences of its frames are pending, while they signal,
 * and while the device goes. Lines are parsed as they are described there.
 *
 * Run it as root, on a kernel with CONFIG_DEBUG_FS and CONFIG_DRM_VKMS:
 * ./fence_describe
 * Two cases need CONFIG_SW_SYNC, two a device with syncobjs, such as a virtio-gpu,
 * and one of these trace events.
 * FENCE_DESCRIBE_READS is the number of files that are read beside flips.
 */
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <pthread.h>
#include <regex.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <drm/drm.h>
#include <linux/dma-buf.h>

#include "kselftest_harness.h"
#include "out_fence_util.h"

#define READS		100000
#define N_READERS	4
#define TEXT		16384
#define MAX_LISTED	64	/* lines of out_fences about a fence each */
#define COARSE_S	0.05	/* fdinfo counts in ticks */

#define NUMBER		"[0-9]+"
#define SECONDS		NUMBER "\\.[0-9]{9}"
#define NAME		"[!-~]*"
#define WHICH		"(" NUMBER "):(" NUMBER ")"
#define MORE		"( [!-~]+)*"	/* words of a newer kernel */

/* The words of a line, with its fence, the age and names in these places. */
enum { ALL, CONTEXT, SEQNO, STATE, AGE, FIRST, SECOND, N_WORDS };

static regex_t fdinfo_start, fdinfo_line, debugfs_line;

static void __attribute__((constructor)) compile(void)
{
	if (regcomp(&fdinfo_start, "^(point:" NUMBER
		    "|usage:(kernel|write|read)) ", REG_EXTENDED) ||
	    regcomp(&fdinfo_line, "^" WHICH " (pending|signaled|error:-" NUMBER
		    ")( age:" SECONDS ")? driver:(" NAME ") timeline:(" NAME
		    ")" MORE "$", REG_EXTENDED) ||
	    regcomp(&debugfs_line, "^" WHICH " (pending) age:(" SECONDS
		    ") tgid:(" NUMBER ") comm:(" NAME ")" MORE "$", REG_EXTENDED))
		exit(KSFT_FAIL);
}

struct line {
	unsigned long long point, context, seqno;
	char state[24], first[64], second[128];
	double age;		/* of the file in fdinfo, of the fence in debugfs */
};

/* The fences that one file tells of, in its order. */
struct lines {
	unsigned int n, more;
	struct line line[MAX_LISTED];
};

static void get_word(const char *text, const regmatch_t *m, char *to, size_t size)
{
	snprintf(to, size, "%.*s", (int)(m->rm_eo - m->rm_so), text + m->rm_so);
}

static const char *parse_line(const regex_t *form, const char *text,
			      struct lines *lines)
{
	struct line *line = &lines->line[lines->n];
	regmatch_t m[N_WORDS];

	if (lines->n == MAX_LISTED)
		return wrong("more than %u lines", MAX_LISTED);
	if (lines->more)
		return wrong("not the end: %s", text);
	if (form == &fdinfo_line && !regexec(&fdinfo_start, text, 1, m, 0)) {
		if (!strncmp(text, "point:", 6))
			line->point = strtoull(text + 6, NULL, 10);
		text += m[0].rm_eo;
	}
	if (regexec(form, text, N_WORDS, m, 0))
		return wrong("cannot parse '%s'", text);

	line->context = strtoull(text + m[CONTEXT].rm_so, NULL, 10);
	line->seqno = strtoull(text + m[SEQNO].rm_so, NULL, 10);
	get_word(text, &m[STATE], line->state, sizeof(line->state));
	get_word(text, &m[FIRST], line->first, sizeof(line->first));
	get_word(text, &m[SECOND], line->second, sizeof(line->second));
	if (form == &debugfs_line)
		line->age = strtod(text + m[AGE].rm_so, NULL);
	/* in fdinfo it is the time since the fence was signaled */
	else if ((m[AGE].rm_so < 0) != !strcmp(line->state, "pending"))
		return wrong("pending with an age, or signaled without: %s", text);
	lines->n++;
	return NULL;
}

/* Returns the number of bytes, or -errno; the end is a 0. */
static int read_text(const char *path, char *text, int size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), len = 0;
	ssize_t n;

	if (fd < 0)
		return -errno;
	do {
		n = read(fd, text + len, size - 1 - len);
		if (n < 0)
			len = -errno;
		else
			len += n;
	} while (n > 0);
	close(fd);
	if (len >= 0)
		text[len] = '\0';
	return len;
}

static const char *parse_fdinfo(char *text, struct lines *lines)
{
	const char *why = NULL, *t;
	double age = -1;
	char *save;

	memset(lines, 0, sizeof(*lines));
	for (t = strtok_r(text, "\n", &save); t && !why;
	     t = strtok_r(NULL, "\n", &save)) {
		if (sscanf(t, "age:\t%lf", &age) == 1)
			continue;
		if (sscanf(t, "more-fences:\t%u", &lines->more) == 1)
			continue;
		if (!strncmp(t, "fence:\t", 7)) {
			why = parse_line(&fdinfo_line, t + 7, lines);
			if (!why)
				lines->line[lines->n - 1].age = age;
		}
	}
	return why;
}

static const char *read_fdinfo(int fd, struct lines *lines)
{
	char path[64], text[TEXT];
	int err;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	err = read_text(path, text, sizeof(text));
	return err < 0 ? wrong("%s: %s", path, strerror(-err)) :
			 parse_fdinfo(text, lines);
}

static const char *parse_out_fences(char *text, struct lines *lines)
{
	const char *why = NULL, *t;
	char *save;

	memset(lines, 0, sizeof(*lines));
	for (t = strtok_r(text, "\n", &save); t && !why;
	     t = strtok_r(NULL, "\n", &save)) {
		if (sscanf(t, "and %u more", &lines->more) != 1)
			why = parse_line(&debugfs_line, t, lines);
	}
	return why;
}

/* Path of the out_fences of a CRTC, by its index, or of the writeback connector. */
static const char *find_out_fences(const struct display *d, const char *owner,
				   char *path, size_t size)
{
	const char *why = NULL;
	char pattern[128];
	struct stat st;
	glob_t found;

	if (fstat(d->fd, &st))
		return wrong("fstat: %m");
	snprintf(pattern, sizeof(pattern), DEBUGFS "/dri/%u/%s/out_fences",
		 minor(st.st_rdev), owner);
	if (glob(pattern, 0, NULL, &found))
		return wrong("there is no %s", pattern);
	if (found.gl_pathc == 1)
		snprintf(path, size, "%s", found.gl_pathv[0]);
	else
		why = wrong("%zu times %s", found.gl_pathc, pattern);
	globfree(&found);
	return why;
}

static const char *read_out_fences(const struct display *d, const char *owner,
				   struct lines *lines)
{
	char path[160], text[TEXT];
	const char *why = find_out_fences(d, owner, path, sizeof(path));
	int err;

	if (why)
		return why;
	err = read_text(path, text, sizeof(text));
	return err < 0 ? wrong("%s: %s", path, strerror(-err)) :
			 parse_out_fences(text, lines);
}

/* Is it a line about a pending fence of a commit that this process made? */
static const char *check_ours(const struct line *line)
{
	char tgid[16], comm[64];
	int len = read_text("/proc/self/comm", comm, sizeof(comm));

	snprintf(tgid, sizeof(tgid), "%d", getpid());
	if (strcmp(line->first, tgid))
		return wrong("tgid %s, not %s", line->first, tgid);
	if (len < 1)
		return wrong("comm: %s", strerror(-len));
	comm[len - 1] = '\0';
	return strcmp(line->second, comm) ?
		wrong("comm '%s', not '%s'", line->second, comm) : NULL;
}

/* Fences have the names of their CRTC or connector, or those of no driver. */
static const char *check_names(const struct line *line, const char *timeline)
{
	bool live = !strcmp(line->first, "vkms");
	bool named = !strncmp(line->second, timeline, strlen(timeline));

	/* it can signal in between */
	if ((live || !strcmp(line->first, "detached-driver")) &&
	    (named || !strcmp(line->second, "signaled-timeline")))
		return NULL;
	return wrong("names %s and %s", line->first, line->second);
}

static const char *read_line(int fd, struct line *line)
{
	struct lines lines;
	const char *why = read_fdinfo(fd, &lines);

	if (why)
		return why;
	if (lines.n != 1 || lines.more)
		return wrong("%u fences and %u more", lines.n, lines.more);
	*line = lines.line[0];
	return NULL;
}

/* Is what fdinfo says of @f in @state, and is it the fence of @other? */
static const char *check_line(const struct line *line, const struct fence *f,
			      const char *state, const struct line *other)
{
	if (strcmp(line->state, state))
		return wrong("%s, not %s", line->state, state);
	if (line->context != other->context || line->seqno != other->seqno)
		return wrong("%llu:%llu, not %llu:%llu", line->context,
			     line->seqno, other->context, other->seqno);
	if (strcmp(line->first,
		   strcmp(state, "pending") ? "detached-driver" : "vkms"))
		return wrong("driver %s", line->first);
	return check_names(line, f->timeline);
}

static const char *check_signaled(const struct fence *f, const struct line *other)
{
	struct line line;
	const char *why = read_line(f->fd, &line);

	return why ?: check_line(&line, f, "signaled", other);
}

/* What a file says, for the log. */
static void show(const char *path)
{
	char text[TEXT], *t, *save;

	if (read_text(path, text, sizeof(text)) < 0)
		return;
	ksft_print_msg("%s\n", path);
	for (t = strtok_r(text, "\n", &save); t; t = strtok_r(NULL, "\n", &save))
		ksft_print_msg("    %s\n", t);
}

static const char *export_syncobj(int device, __u32 *handle, int *fd)
{
	struct drm_syncobj_create create = {};
	struct drm_syncobj_handle export = {};

	if (ioctl(device, DRM_IOCTL_SYNCOBJ_CREATE, &create))
		return wrong("syncobj: %m");
	*handle = export.handle = create.handle;
	if (ioctl(device, DRM_IOCTL_SYNCOBJ_HANDLE_TO_FD, &export))
		return wrong("export of a syncobj: %m");
	*fd = export.fd;
	return NULL;
}

FIXTURE(describe)
{
	struct display display;
	int kmsg;
};

FIXTURE_SETUP(describe)
{
	const char *why = display_prepare(&self->display, &self->kmsg);

	mount_debugfs();
	if (!why && access(DEBUGFS "/dri", F_OK))
		why = "no debugfs";
	if (why)
		SKIP(return, "%s", why);
}

FIXTURE_TEARDOWN(describe)
{
	display_destroy(&self->display);
	EXPECT_FINE(kmsg_check(self->kmsg));
}

/*
 * The same fence in both places, while it is pending and after that. Who is too
 * slow to look at it in time tries again with the next frame.
 */
TEST_F_TIMEOUT(describe, frame, 120)
{
	struct display *d = &self->display;
	struct line first, pending;
	struct fence f, signaled;
	struct lines before, after;
	unsigned int late;
	char path[160];
	double passed;

	ASSERT_FINE(display_start(d, SLOW_HZ));
	/* one before, that is not pending any more */
	ASSERT_FINE(flip_start(d, &signaled));
	ASSERT_FINE(flip_wait(d, 1));
	ASSERT_FINE(read_line(signaled.fd, &first));
	for (late = 0; ; late++) {
		ASSERT_GT(MAX_LATE, late)
			TH_LOG("no power: all takes longer than a frame");
		ASSERT_FINE(flip_start(d, &f));
		ASSERT_FINE(read_out_fences(d, "crtc-0", &before));
		ASSERT_FINE(read_line(f.fd, &pending));
		passed = (now_ns() - f.committed) / 1e9;
		sleep_ms(50);
		ASSERT_FINE(read_out_fences(d, "crtc-0", &after));
		if (!fence_status(f.fd))
			break;
		ASSERT_FINE(flip_wait(d, 1));
		ASSERT_FINE(use_close(&f));
	}
	if (!find_out_fences(d, "crtc-0", path, sizeof(path)))
		show(path);

	ASSERT_EQ(1u, before.n);
	EXPECT_EQ(0u, before.more);
	EXPECT_FINE(check_ours(&before.line[0]));
	EXPECT_FINE(check_line(&pending, &f, "pending", &before.line[0]));
	EXPECT_EQ(first.context, pending.context);
	EXPECT_LT(first.seqno, pending.seqno);
	/* the age is that of the fence, and not of the read */
	EXPECT_GE(passed, before.line[0].age);
	ASSERT_EQ(1u, after.n);
	EXPECT_EQ(pending.seqno, after.line[0].seqno);
	EXPECT_LE(before.line[0].age + 0.05, after.line[0].age);

	ASSERT_FINE(flip_wait(d, 1));
	ASSERT_FINE(read_out_fences(d, "crtc-0", &after));
	EXPECT_EQ(0u, after.n);
	EXPECT_FINE(check_signaled(&f, &pending));
	EXPECT_FINE(display_destroy(d));
	EXPECT_FINE(check_signaled(&f, &pending));
	EXPECT_FINE(check_signaled(&signaled, &first));
	EXPECT_FINE(use_all(&f));
	EXPECT_FINE(use_all(&signaled));
}

/*
 * A sync_file that waits for a frame, which is shown, and for something else, which
 * is not. Its age is at least the time for which that has been stuck.
 */
TEST_F_TIMEOUT(describe, stuck, 120)
{
	struct sync_merge_data data = { .name = "both" };
	int timeline = timeline_open(), i, n_pending = 0;
	struct display *d = &self->display;
	unsigned int late;
	struct lines lines;
	char path[64];
	struct fence f;
	double passed;

	if (timeline < 0)
		SKIP(return, "sw_sync: %s", strerror(-timeline));
	data.fd2 = timeline_fence(timeline, 1);
	ASSERT_LE(0, data.fd2);
	ASSERT_FINE(display_start(d, SLOW_HZ));
	for (late = 0; ; late++) {
		ASSERT_GT(MAX_LATE, late)
			TH_LOG("no power: all takes longer than a frame");
		ASSERT_FINE(flip_start(d, &f));
		ASSERT_EQ(0, ioctl(f.fd, SYNC_IOC_MERGE, &data));
		/* what has signaled is not merged */
		if (!fence_status(f.fd))
			break;
		ASSERT_FINE(flip_wait(d, 1));
		ASSERT_FINE(use_close(&f));
		close(data.fence);
	}
	ASSERT_FINE(flip_wait(d, 1));
	sleep_ms(1500);

	ASSERT_FINE(read_fdinfo(data.fence, &lines));
	passed = (now_ns() - f.committed) / 1e9;
	ASSERT_EQ(2u, lines.n);
	for (i = 0; i < 2; i++) {
		const struct line *line = &lines.line[i];

		if (!strcmp(line->state, "pending")) {
			n_pending++;
			EXPECT_STREQ("sw_sync", line->first);
		} else {
			EXPECT_STREQ("signaled", line->state);
			EXPECT_STREQ("detached-driver", line->first);
		}
		EXPECT_LE(1.5 - COARSE_S, line->age);
		EXPECT_GE(passed + COARSE_S, line->age);
	}
	EXPECT_EQ(1, n_pending);
	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", data.fence);
	show(path);

	close(data.fence);
	close(data.fd2);
	close(timeline);
	EXPECT_FINE(use_close(&f));
}

/* A syncobj that has no fence has no line, a timeline has a line for each point. */
TEST_F(describe, syncobj)
{
	struct drm_syncobj_transfer transfer = {};
	struct drm_syncobj_handle import = {
		.flags = DRM_SYNCOBJ_FD_TO_HANDLE_FLAGS_IMPORT_SYNC_FILE,
	};
	int device = open_syncobj_device(), timeline, fd[2], i;
	struct lines lines;
	__u32 handle[2];

	if (device < 0)
		SKIP(return, "no device has syncobjs");
	timeline = timeline_open();
	if (timeline < 0)
		SKIP(return, "sw_sync: %s", strerror(-timeline));
	for (i = 0; i < 2; i++) {
		ASSERT_FINE(export_syncobj(device, &handle[i], &fd[i]));
		ASSERT_FINE(read_fdinfo(fd[i], &lines));
		EXPECT_EQ(0u, lines.n);
	}

	import.handle = handle[0];
	transfer.src_handle = handle[0];
	transfer.dst_handle = handle[1];
	for (i = 1; i <= 2; i++) {
		import.fd = timeline_fence(timeline, i);
		ASSERT_LE(0, import.fd);
		ASSERT_EQ(0, ioctl(device, DRM_IOCTL_SYNCOBJ_FD_TO_HANDLE, &import));
		transfer.dst_point = 10 * i;
		ASSERT_EQ(0, ioctl(device, DRM_IOCTL_SYNCOBJ_TRANSFER, &transfer));
		close(import.fd);
	}

	ASSERT_FINE(read_fdinfo(fd[0], &lines));
	ASSERT_EQ(1u, lines.n);
	EXPECT_EQ(0ull, lines.line[0].point);
	EXPECT_STREQ("sw_sync", lines.line[0].first);
	ASSERT_FINE(read_fdinfo(fd[1], &lines));
	ASSERT_EQ(2u, lines.n);
	EXPECT_EQ(30ull, lines.line[0].point + lines.line[1].point);
	for (i = 0; i < 2; i++)
		EXPECT_EQ(10 * lines.line[i].seqno, lines.line[i].point);

	close(fd[0]);
	close(fd[1]);
	close(timeline);
	close(device);
}

static const char *write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	const char *why = NULL;

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		why = wrong("%s: %m", path);
	close_fd(&fd);
	return why;
}

/*
 * Trace events have all digits. For fences of a driver with 32-bit numbers there is
 * nothing to see, but userspace chooses the points of a timeline.
 */
TEST_F(describe, trace)
{
	static const char dir[] = "/sys/kernel/tracing/instances/fence_describe";
	const __u64 point = (1ull << 32) + 7;
	struct drm_syncobj_timeline_array signal = { .count_handles = 1 };
	int device = open_syncobj_device(), fd, err;
	char path[160], text[TEXT];
	__u32 handle;

	if (device < 0)
		SKIP(return, "no device has syncobjs");
	ASSERT_FINE(export_syncobj(device, &handle, &fd));
	if (access("/sys/kernel/tracing/instances", F_OK))
		mount("tracefs", "/sys/kernel/tracing", "tracefs", 0, NULL);
	if (mkdir(dir, 0700) && errno != EEXIST)
		SKIP(return, "%s: %s", dir, strerror(errno));
	snprintf(path, sizeof(path), "%s/events/dma_fence/dma_fence_init/enable", dir);
	EXPECT_FINE(write_text(path, "1"));
	signal.handles = (uintptr_t)&handle;
	signal.points = (uintptr_t)&point;
	EXPECT_EQ(0, ioctl(device, DRM_IOCTL_SYNCOBJ_TIMELINE_SIGNAL, &signal));
	EXPECT_FINE(write_text(path, "0"));

	snprintf(path, sizeof(path), "%s/trace", dir);
	err = read_text(path, text, sizeof(text));
	EXPECT_LT(0, err);
	snprintf(path, sizeof(path), " seqno=%llu\n", (unsigned long long)point);
	EXPECT_TRUE(err > 0 && strstr(text, path))
		TH_LOG("no '%.*s' in: %s", (int)strlen(path) - 1, path,
		       err > 0 ? text : "");

	EXPECT_EQ(0, rmdir(dir));
	close(fd);
	close(device);
}

/* A name of a buffer cannot look like another line. */
TEST_F(describe, dmabuf_name)
{
	static const char bufinfo[] = DEBUGFS "/dma_buf/bufinfo";
	static const char name[] = "a\\b c\nsize:\t0";
	static const char line[] = "\ta\\134b c\\012size:\t0\n";
	struct display *d = &self->display;
	char path[64], text[TEXT];
	__u32 handle;
	int fd;

	ASSERT_FINE(display_start(d, FAST_HZ));
	ASSERT_FINE(buffer_create(d->fd, &handle));
	ASSERT_EQ(0, buffer_export(d->fd, handle, &fd));
	ASSERT_EQ(0, ioctl(fd, DMA_BUF_SET_NAME_B, (uintptr_t)name));

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	ASSERT_LT(0, read_text(path, text, sizeof(text)));
	EXPECT_NE(NULL, strstr(text, line))
		TH_LOG("%s", text);
	ASSERT_LT(0, read_text(bufinfo, text, sizeof(text)));
	EXPECT_NE(NULL, strstr(text, line))
		TH_LOG("%s", text);
	close(fd);
}

#define N_CRTCS	3

struct committer {
	struct display *display;
	const struct flip *flip;
	struct fence *fences;
	const char *why;
};

/* The commit is one of the process, whatever its threads are called. */
static void *commit_main(void *arg)
{
	struct committer *c = arg;
	const char *why;

	pthread_setname_np(pthread_self(), "committer");
	why = flip_commit(c->display, c->flip, c->fences, NULL);
	c->why = why ? strdup(why) : NULL;
	return NULL;
}

/* Each CRTC has its own. */
TEST_F_TIMEOUT(describe, several_crtcs, 120)
{
	const struct flip flip = { .pipes = 1 << 0 | 1 << 2, .event = true };
	struct display *d = &self->display;
	struct lines lines[N_CRTCS];
	struct line line[N_CRTCS];
	struct fence f[N_CRTCS];
	struct committer c = { .display = d, .flip = &flip, .fences = f };
	unsigned int i, late;
	pthread_t thread;
	char owner[16];

	if (!display_can_end_in_use())
		SKIP(return, "vkms has one CRTC without configfs");
	d->n_pipes = N_CRTCS;
	ASSERT_FINE(display_start(d, SLOW_HZ));
	for (late = 0; ; late++) {
		ASSERT_GT(MAX_LATE, late)
			TH_LOG("no power: all takes longer than a frame");
		ASSERT_EQ(0, pthread_create(&thread, NULL, commit_main, &c));
		pthread_join(thread, NULL);
		ASSERT_FINE(c.why);
		for (i = 0; i < N_CRTCS; i++) {
			snprintf(owner, sizeof(owner), "crtc-%u", i);
			ASSERT_FINE(read_out_fences(d, owner, &lines[i]));
			if (flip.pipes & 1 << i)
				ASSERT_FINE(read_line(f[i].fd, &line[i]));
		}
		if (!fence_status(f[0].fd) && !fence_status(f[2].fd))
			break;
		ASSERT_FINE(flip_wait(d, 2));
		for (i = 0; i < N_CRTCS; i += 2)
			ASSERT_FINE(use_close(&f[i]));
	}

	EXPECT_EQ(0u, lines[1].n);
	for (i = 0; i < N_CRTCS; i += 2) {
		ASSERT_EQ(1u, lines[i].n);
		EXPECT_FINE(check_ours(&lines[i].line[0]));
		EXPECT_FINE(check_line(&line[i], &f[i], "pending",
				       &lines[i].line[0]));
	}
	ASSERT_FINE(flip_wait(d, 2));
	for (i = 0; i < N_CRTCS; i += 2)
		EXPECT_FINE(use_all(&f[i]));
}

/* A writeback connector has one as well. */
TEST_F_TIMEOUT(describe, writeback, 120)
{
	struct display *d = &self->display;
	struct lines lines, later;
	unsigned int late;
	struct line line;
	struct fence f;

	if (!display_can_end_in_use())
		SKIP(return, "vkms has no writeback without configfs");
	d->writeback = true;
	for (late = 0; ; late++) {
		ASSERT_GT(MAX_LATE, late)
			TH_LOG("no power: all takes longer than a frame");
		ASSERT_FINE(display_start_writeback(d, SLOW_HZ, &f));
		ASSERT_FINE(read_out_fences(d, "Writeback-*", &lines));
		ASSERT_FINE(read_line(f.fd, &line));
		if (!fence_status(f.fd))
			break;
		ASSERT_FINE(use_close(&f));
		ASSERT_FINE(display_destroy(d));
	}

	ASSERT_EQ(1u, lines.n);
	EXPECT_FINE(check_ours(&lines.line[0]));
	EXPECT_FINE(check_line(&line, &f, "pending", &lines.line[0]));
	EXPECT_FINE(use_poll(&f, NULL));
	ASSERT_FINE(read_out_fences(d, "Writeback-*", &later));
	EXPECT_EQ(0u, later.n);
	EXPECT_FINE(use_all(&f));
}

/* What the readers look at. Each of the descriptors stays a file of its kind. */
enum { SYNC_FILE, SYNCOBJ, DMA_BUF, OUT_FENCES, N_KINDS };

static const char * const kinds[] = {
	[SYNC_FILE] = "sync_file",
	[SYNCOBJ] = "syncobj",
	[DMA_BUF] = "DMA-buf",
	[OUT_FENCES] = "out_fences",
};

struct storm {
	int fds[N_KINDS];	/* or -1 if there is none of that kind */
	char path[160];		/* of out_fences */
	atomic_ulong reads[N_KINDS], pending[N_KINDS], signaled;
	atomic_bool stop, failed;
	bool going;		/* the device may be gone */
};

struct storm_reader {
	struct storm *storm;
	pthread_t thread;
	char why[256];
};

/* One timeline, with a time that does not go back, and nothing that is early. */
static const char *check_lines(const struct lines *lines, int kind,
			       struct line *last)
{
	const char *why;
	unsigned int i;

	if (lines->more || (kind != OUT_FENCES && lines->n > 1) ||
	    (kind == SYNC_FILE && !lines->n))
		return wrong("%u fences and %u more", lines->n, lines->more);
	for (i = 0; i < lines->n; i++) {
		const struct line *line = &lines->line[i];

		if (last->context && line->context != last->context)
			return wrong("fence %llu:%llu on timeline %llu",
				     line->context, line->seqno, last->context);
		if (line->seqno < last->seqno ||
		    (i && line->seqno == last->seqno))
			return wrong("fence %llu after %llu", line->seqno,
				     last->seqno);
		*last = *line;
		why = kind == OUT_FENCES ? check_ours(line) :
					   check_names(line, "CRTC:");
		if (why)
			return why;
	}
	return NULL;
}

static const char *storm_read(struct storm *storm, int kind, struct lines *lines)
{
	char text[TEXT];
	int len;

	if (kind != OUT_FENCES)
		return read_fdinfo(storm->fds[kind], lines);
	len = read_text(storm->path, text, sizeof(text));
	if (len < 0 && storm->going) {
		memset(lines, 0, sizeof(*lines));
		/* taken away before or while it was open */
		return len == -ENOENT || len == -EIO || len == -ENODEV ? NULL :
			wrong("%s", strerror(-len));
	}
	return len < 0 ? wrong("%s: %s", storm->path, strerror(-len)) :
			 parse_out_fences(text, lines);
}

static void *storm_main(void *arg)
{
	struct storm_reader *r = arg;
	struct storm *storm = r->storm;
	struct line last[N_KINDS] = {};
	const char *why = NULL;
	struct lines *lines;
	int kind;

	lines = malloc(sizeof(*lines));
	if (!lines) {
		snprintf(r->why, sizeof(r->why), "no memory");
		storm->failed = true;
	}
	for (kind = 0; lines && !why && !storm->stop; kind = (kind + 1) % N_KINDS) {
		if (kind != OUT_FENCES && storm->fds[kind] < 0)
			continue;
		why = storm_read(storm, kind, lines);
		why = why ?: check_lines(lines, kind, &last[kind]);
		if (why) {
			snprintf(r->why, sizeof(r->why), "%s: %s", kinds[kind], why);
			storm->failed = true;
			break;
		}
		storm->reads[kind]++;
		if (lines->n && !strcmp(lines->line[0].state, "pending"))
			storm->pending[kind]++;
		else if (kind == SYNC_FILE)
			storm->signaled++;
	}
	free(lines);
	return NULL;
}

static unsigned long storm_reads(struct storm *storm)
{
	unsigned long all = 0;
	int kind;

	for (kind = 0; kind < N_KINDS; kind++)
		all += storm->reads[kind];
	return all;
}

static const char *storm_start(struct storm *storm, struct storm_reader *r)
{
	int i, err = 0;

	for (i = 0; i < N_READERS && !err; i++) {
		r[i].storm = storm;
		r[i].why[0] = '\0';
		err = pthread_create(&r[i].thread, NULL, storm_main, &r[i]);
	}
	return err ? wrong("thread: %s", strerror(err)) : NULL;
}

static const char *storm_stop(struct storm *storm, struct storm_reader *r)
{
	const char *why = NULL;
	int i;

	storm->stop = true;
	for (i = 0; i < N_READERS; i++) {
		pthread_join(r[i].thread, NULL);
		if (!why && r[i].why[0])
			why = wrong("%s", r[i].why);
	}
	return why;
}

/* Puts the fence where the readers look, in place of the one before. */
static const char *storm_publish(struct storm *storm, int device, __u32 syncobj,
				 struct fence *f)
{
	struct drm_syncobj_handle to_syncobj = {
		.handle = syncobj,
		.flags = DRM_SYNCOBJ_FD_TO_HANDLE_FLAGS_IMPORT_SYNC_FILE,
		.fd = f->fd,
	};
	struct dma_buf_import_sync_file to_dmabuf = {
		.flags = DMA_BUF_SYNC_WRITE,
		.fd = f->fd,
	};

	if (device >= 0 && ioctl(device, DRM_IOCTL_SYNCOBJ_FD_TO_HANDLE, &to_syncobj))
		return wrong("syncobj: %m");
	if (ioctl(storm->fds[DMA_BUF], DMA_BUF_IOCTL_IMPORT_SYNC_FILE, &to_dmabuf))
		return wrong("DMA-buf: %m");
	if (storm->fds[SYNC_FILE] < 0) {
		storm->fds[SYNC_FILE] = f->fd;
		f->fd = -1;
	} else if (dup2(f->fd, storm->fds[SYNC_FILE]) < 0) {
		return wrong("dup2: %m");
	}
	close_fd(&f->fd);
	return NULL;
}

/* 100,000 reads of all files while fences are made and signaled. */
TEST_F_TIMEOUT(describe, read_beside_flips, 500)
{
	unsigned long wanted = env_number("FENCE_DESCRIBE_READS", READS, 1000, 1ul << 30);
	struct storm storm = { .fds = { -1, -1, -1, -1 } };
	struct storm_reader readers[N_READERS];
	struct display *d = &self->display;
	__u32 handle, syncobj = 0;
	unsigned int flips = 0;
	struct fence f;
	int kind, device;

	ASSERT_FINE(display_start(d, FAST_HZ));
	ASSERT_FINE(find_out_fences(d, "crtc-0", storm.path, sizeof(storm.path)));
	ASSERT_FINE(buffer_create(d->fd, &handle));
	ASSERT_EQ(0, buffer_export(d->fd, handle, &storm.fds[DMA_BUF]));
	device = open_syncobj_device();
	if (device >= 0)
		ASSERT_FINE(export_syncobj(device, &syncobj, &storm.fds[SYNCOBJ]));
	else
		TH_LOG("no device has syncobjs");

	ASSERT_FINE(flip_start(d, &f));
	ASSERT_FINE(storm_publish(&storm, device, syncobj, &f));
	ASSERT_FINE(flip_wait(d, 1));
	ASSERT_FINE(storm_start(&storm, readers));
	while (!storm.failed && storm_reads(&storm) < wanted) {
		const char *problem = flip_start(d, &f);

		problem = problem ?: storm_publish(&storm, device, syncobj, &f);
		problem = problem ?: flip_wait(d, 1);
		EXPECT_FINE(problem);
		if (problem)
			break;
		flips++;
	}
	EXPECT_FINE(storm_stop(&storm, readers));

	for (kind = 0; kind < N_KINDS; kind++) {
		TH_LOG("power: %s: %lu reads, %lu with a pending fence",
		       kinds[kind], storm.reads[kind], storm.pending[kind]);
		if (kind == SYNCOBJ && device < 0)
			continue;
		EXPECT_POWER(storm.pending[kind]);
	}
	TH_LOG("power: %u flips, %lu reads of a signaled fence", flips,
	       storm.signaled);
	EXPECT_LE(wanted, storm_reads(&storm));
	EXPECT_POWER(storm.signaled);
	for (kind = 0; kind < N_KINDS; kind++)
		close_fd(&storm.fds[kind]);
	close_fd(&device);
}

/* The files go while they are open and read, and a fence in them is pending. */
TEST_F_TIMEOUT(describe, device_going, 120)
{
	struct display *d = &self->display;
	struct storm_reader readers[N_READERS];
	unsigned long reads = 0, pending = 0;
	char text[TEXT];
	int round, fd;

	if (!display_can_end_in_use())
		SKIP(return, "without configfs an open DRM file keeps vkms");
	for (round = 0; round < 5; round++) {
		struct storm storm = { .fds = { -1, -1, -1, -1 }, .going = true };
		struct fence f;

		ASSERT_FINE(display_start(d, SLOW_HZ));
		ASSERT_FINE(find_out_fences(d, "crtc-0", storm.path,
					    sizeof(storm.path)));
		fd = open(storm.path, O_RDONLY);
		ASSERT_LE(0, fd);
		/* closing the DRM file would wait for the frame */
		ASSERT_FINE(flip_start(d, &f));
		storm.fds[SYNC_FILE] = f.fd;
		ASSERT_FINE(storm_start(&storm, readers));
		sleep_ms(20);
		pending += !fence_status(f.fd);
		EXPECT_FINE(display_disable(d));
		EXPECT_EQ(-1, read(fd, text, sizeof(text)));
		EXPECT_EQ(-1, access(storm.path, F_OK));
		EXPECT_FINE(display_destroy(d));
		EXPECT_FINE(storm_stop(&storm, readers));
		close(fd);
		reads += storm_reads(&storm);
		EXPECT_FINE(use_all(&f));
	}
	TH_LOG("power: %lu reads, a frame pending in %lu of %u rounds", reads,
	       pending, round);
	EXPECT_POWER(pending);
	EXPECT_POWER(reads);
}

TEST_HARNESS_MAIN
