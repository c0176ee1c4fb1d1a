// SPDX-License-Identifier: MIT

/*
 * KUnit tests for what is printed about fences. Everything is parsed back.
 */

#include <kunit/test.h>
#include <linux/completion.h>
#include <linux/delay.h>
#include <linux/dma-buf.h>
#include <linux/dma-fence.h>
#include <linux/dma-fence-array.h>
#include <linux/dma-fence-chain.h>
#include <linux/dma-fence-unwrap.h>
#include <linux/dma-resv.h>
#include <linux/file.h>
#include <linux/jiffies.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/sched.h>
#include <linux/seq_buf.h>
#include <linux/seq_file.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/sync_file.h>

#include "dma-fence-internal.h"

#define READS 100000

/* With a space, a backslash, control characters, and one that is not ASCII. */
#define NASTY_NAME "a b\\c\nd\te\x1b[2J\xe9"
#define NASTY_NAME_ESCAPED "a\\040b\\134c\\012d\\011e\\033[2J\\351"

struct mock_fence {
	struct dma_fence base;
	/* Freed a grace period after the fence was signaled. */
	char *timeline;
	bool done;
};

static struct mock_fence *to_mock(struct dma_fence *fence)
{
	return container_of(fence, struct mock_fence, base);
}

static const char *mock_driver_name(struct dma_fence *fence)
{
	return "mock";
}

static const char *mock_timeline_name(struct dma_fence *fence)
{
	return to_mock(fence)->timeline;
}

static bool mock_signaled(struct dma_fence *fence)
{
	return READ_ONCE(to_mock(fence)->done);
}

static const struct dma_fence_ops mock_ops = {
	.get_driver_name = mock_driver_name,
	.get_timeline_name = mock_timeline_name,
	.signaled = mock_signaled,
};

static struct dma_fence *mock_fence(u64 context, u64 seqno,
				    const char *timeline)
{
	struct mock_fence *f = kzalloc_obj(*f);

	if (!f)
		return NULL;

	f->timeline = kstrdup(timeline, GFP_KERNEL);
	if (!f->timeline) {
		kfree(f);
		return NULL;
	}

	dma_fence_init(&f->base, &mock_ops, context, seqno);
	return &f->base;
}

/* Signal it, and take the name away as soon as that is allowed. */
static void mock_retire(struct dma_fence *fence)
{
	char *timeline = to_mock(fence)->timeline;

	dma_fence_signal(fence);
	kvfree_rcu_mightsleep(timeline);
	dma_fence_put(fence);
}

/* Takes the references of the fences. */
static struct dma_fence *mock_array(struct kunit *test, unsigned int count,
				    struct dma_fence **fences)
{
	struct dma_fence_array *array;
	struct dma_fence **copy;

	copy = kmemdup_array(fences, count, sizeof(*fences), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, copy);
	array = dma_fence_array_create(count, copy, dma_fence_context_alloc(1),
				       1);
	KUNIT_ASSERT_NOT_NULL(test, array);
	return &array->base;
}

/* Takes both references. */
static struct dma_fence *mock_chain(struct kunit *test, struct dma_fence *prev,
				    struct dma_fence *fence, u64 point)
{
	struct dma_fence_chain *chain = dma_fence_chain_alloc();

	KUNIT_ASSERT_NOT_NULL(test, chain);
	dma_fence_chain_init(chain, prev, fence, point);
	return &chain->base;
}

struct line {
	/* Or 0 and "" if there is none. */
	u64 point;
	char usage[16];
	u64 context, seqno;
	enum { PENDING, SIGNALED, ERROR } state;
	int error;
	/* In ns, or -1 if there is none. */
	s64 age;
	char driver[64], timeline[64];
};

/* Returns what follows in @text after @prefix, or NULL. */
static char *skip(char *text, const char *prefix)
{
	return text && strstarts(text, prefix) ? text + strlen(prefix) : NULL;
}

/* Takes the next word off the line. */
static char *word(char **text)
{
	return strsep(text, " ");
}

/* Returns what follows after the number of seconds, or NULL if it is none. */
static char *parse_age(char *text, s64 *age)
{
	int start, end;
	long nsec;
	s64 sec;

	/* Not one digit less, or the fraction is another number. */
	if (!text ||
	    sscanf(text, "%lld.%n%9ld%n", &sec, &start, &nsec, &end) != 2 ||
	    end - start != strlen("123456789"))
		return NULL;
	*age = sec * NSEC_PER_SEC + nsec;
	return text + end;
}

/* Parses a line without its newline, and without its key. */
static bool parse(char *text, struct line *line)
{
	char *state, *w;
	int end;

	memset(line, 0, sizeof(*line));
	line->age = -1;

	w = word(&text);
	if (skip(w, "point:")) {
		if (sscanf(w, "point:%llu%n", &line->point, &end) != 1 || w[end])
			return false;
		w = word(&text);
	}
	if (skip(w, "usage:")) {
		strscpy(line->usage, skip(w, "usage:"));
		w = word(&text);
	}

	if (!w)
		return false;
	if (sscanf(w, "%llu:%llu%n", &line->context, &line->seqno, &end) != 2 ||
	    w[end])
		return false;

	state = word(&text);
	if (!state)
		return false;
	if (!strcmp(state, "pending"))
		line->state = PENDING;
	else if (!strcmp(state, "signaled"))
		line->state = SIGNALED;
	else if (sscanf(state, "error:%d%n", &line->error, &end) == 1 &&
		 !state[end])
		line->state = ERROR;
	else
		return false;

	w = word(&text);
	if (skip(w, "age:")) {
		w = parse_age(skip(w, "age:"), &line->age);
		if (!w || *w)
			return false;
		w = word(&text);
	}

	w = skip(w, "driver:");
	if (!w)
		return false;
	strscpy(line->driver, w);

	w = skip(word(&text), "timeline:");
	if (!w)
		return false;
	strscpy(line->timeline, w);

	return !text;
}

/* As the seq_file of a file in proc, or a smaller one. */
static void mock_seq_init(struct kunit *test, struct seq_file *seq, size_t size)
{
	*seq = (struct seq_file) {
		.buf = kunit_kzalloc(test, size, GFP_KERNEL),
		.size = size,
	};
	KUNIT_ASSERT_NOT_NULL(test, seq->buf);
}

/* The text so far, which is terminated. What comes next begins from new. */
static char *mock_seq_text(struct kunit *test, struct seq_file *seq)
{
	KUNIT_ASSERT_FALSE(test, seq_has_overflowed(seq));
	seq->buf[seq->count] = '\0';
	seq->count = 0;
	return seq->buf;
}

static void describe(struct kunit *test, struct seq_file *seq,
		     struct dma_fence *fence, struct line *line)
{
	char *text, *end;

	dma_fence_describe(fence, seq);
	text = mock_seq_text(test, seq);
	end = strchr(text, '\n');
	KUNIT_ASSERT_NOT_NULL_MSG(test, end, "no newline in '%s'", text);
	KUNIT_ASSERT_EQ_MSG(test, end[1], '\0', "two lines in '%s'", text);
	*end = '\0';
	KUNIT_ASSERT_TRUE_MSG(test, parse(text, line), "cannot parse '%s'", text);
}

struct lines {
	unsigned int count;
	u64 more;
	bool at_least_more;
	struct line line[DMA_FENCE_DESCRIBE_MAX];
};

/* The lines about fences. There may be others before them, and none after. */
static void parse_all(struct kunit *test, struct seq_file *seq,
		      struct lines *lines)
{
	char *text = mock_seq_text(test, seq), *t, *s;
	bool end = false;
	int n;

	memset(lines, 0, sizeof(*lines));

	while ((t = strsep(&text, "\n"))) {
		if (!text) {
			KUNIT_EXPECT_STREQ_MSG(test, t, "", "no newline");
			break;
		}

		KUNIT_EXPECT_FALSE_MSG(test, end, "not the last line");

		s = skip(t, "fence:\t");
		if (s) {
			KUNIT_ASSERT_LT(test, lines->count,
					ARRAY_SIZE(lines->line));
			KUNIT_ASSERT_TRUE_MSG(test,
					      parse(s, &lines->line[lines->count]),
					      "cannot parse '%s'", s);
			lines->count++;
			continue;
		}

		s = skip(t, "more-fences:\t");
		if (s) {
			if (sscanf(s, "%llu%n", &lines->more, &n) != 1)
				KUNIT_FAIL_AND_ABORT(test, "no number: %s", s);
			lines->at_least_more = s[n] == '+';
			KUNIT_EXPECT_EQ(test, s[n + lines->at_least_more], 0);
			end = true;
			continue;
		}

		KUNIT_EXPECT_EQ(test, lines->count, 0);
	}
}

static struct lines *describe_all(struct kunit *test, struct dma_fence *head)
{
	struct lines *lines = kunit_kzalloc(test, sizeof(*lines), GFP_KERNEL);
	struct seq_file seq;

	KUNIT_ASSERT_NOT_NULL(test, lines);
	mock_seq_init(test, &seq, SZ_8K);
	dma_fence_unwrap_describe(head, &seq);
	parse_all(test, &seq, lines);
	return lines;
}

static void test_pending(struct kunit *test)
{
	struct dma_fence *f = mock_fence(U64_MAX, U64_MAX - 1, "mock-0");
	struct seq_file seq;
	struct line line;

	KUNIT_ASSERT_NOT_NULL(test, f);
	mock_seq_init(test, &seq, 256);

	describe(test, &seq, f, &line);
	KUNIT_EXPECT_EQ(test, line.context, U64_MAX);
	KUNIT_EXPECT_EQ(test, line.seqno, U64_MAX - 1);
	KUNIT_EXPECT_EQ(test, line.state, PENDING);
	KUNIT_EXPECT_EQ(test, line.age, -1);
	KUNIT_EXPECT_STREQ(test, line.driver, "mock");
	KUNIT_EXPECT_STREQ(test, line.timeline, "mock-0");

	mock_retire(f);
}

/* Context and seqno are all that is left to know it by. */
static void test_signaled(struct kunit *test)
{
	struct dma_fence *f = mock_fence(12, 34, "mock-0");
	struct seq_file seq;
	struct line line;
	ktime_t before;

	KUNIT_ASSERT_NOT_NULL(test, f);
	mock_seq_init(test, &seq, 256);

	before = ktime_get();
	dma_fence_get(f);
	mock_retire(f);

	describe(test, &seq, f, &line);
	KUNIT_EXPECT_EQ(test, line.context, 12);
	KUNIT_EXPECT_EQ(test, line.seqno, 34);
	KUNIT_EXPECT_EQ(test, line.state, SIGNALED);
	KUNIT_EXPECT_GE(test, line.age, 0);
	KUNIT_EXPECT_LE(test, line.age, ktime_get() - before);
	KUNIT_EXPECT_STREQ(test, line.driver, "detached-driver");
	KUNIT_EXPECT_STREQ(test, line.timeline, "signaled-timeline");

	dma_fence_put(f);
}

static void test_error(struct kunit *test)
{
	struct dma_fence *f = mock_fence(12, 34, "mock-0");
	struct seq_file seq;
	struct line line;

	KUNIT_ASSERT_NOT_NULL(test, f);
	mock_seq_init(test, &seq, 256);

	dma_fence_set_error(f, -ENODEV);
	describe(test, &seq, f, &line);
	KUNIT_EXPECT_EQ(test, line.state, PENDING);

	dma_fence_get(f);
	mock_retire(f);
	describe(test, &seq, f, &line);
	KUNIT_EXPECT_EQ(test, line.state, ERROR);
	KUNIT_EXPECT_EQ(test, line.error, -ENODEV);
	KUNIT_EXPECT_GE(test, line.age, 0);

	dma_fence_put(f);
}

/* The issuer knows better than the flag, and its names are still there. */
static void test_asks_issuer(struct kunit *test)
{
	struct dma_fence *f = mock_fence(12, 34, "mock-0");
	struct seq_file seq;
	struct line line;

	KUNIT_ASSERT_NOT_NULL(test, f);
	mock_seq_init(test, &seq, 256);

	WRITE_ONCE(to_mock(f)->done, true);
	describe(test, &seq, f, &line);
	KUNIT_EXPECT_EQ(test, line.state, SIGNALED);
	KUNIT_EXPECT_GE(test, line.age, 0);
	KUNIT_EXPECT_STREQ(test, line.timeline, "mock-0");
	KUNIT_EXPECT_TRUE(test, dma_fence_test_signaled_flag(f));

	mock_retire(f);
}

/* It may have been signaled with the time of an event that is still to come. */
static void test_future(struct kunit *test)
{
	struct dma_fence *f = mock_fence(12, 34, "mock-0");
	struct seq_file seq;
	struct line line;

	KUNIT_ASSERT_NOT_NULL(test, f);
	mock_seq_init(test, &seq, 256);

	dma_fence_signal_timestamp(f, ktime_add_ms(ktime_get(), MSEC_PER_SEC * 3600));
	describe(test, &seq, f, &line);
	KUNIT_EXPECT_EQ(test, line.state, SIGNALED);
	KUNIT_EXPECT_EQ(test, line.age, 0);

	mock_retire(f);
}

static void test_names_escaped(struct kunit *test)
{
	struct dma_fence *f = mock_fence(12, 34, NASTY_NAME);
	struct seq_file seq;
	struct line line;

	KUNIT_ASSERT_NOT_NULL(test, f);
	mock_seq_init(test, &seq, 256);

	describe(test, &seq, f, &line);
	KUNIT_EXPECT_STREQ(test, line.timeline, NASTY_NAME_ESCAPED);

	mock_retire(f);
}

/* seq_file tries again with a larger buffer. */
static void test_no_room(struct kunit *test)
{
	struct dma_fence *f = mock_fence(12, 34, NASTY_NAME);
	size_t size, need;
	struct seq_file seq;

	KUNIT_ASSERT_NOT_NULL(test, f);

	mock_seq_init(test, &seq, 256);
	dma_fence_describe(f, &seq);
	KUNIT_ASSERT_FALSE(test, seq_has_overflowed(&seq));
	need = seq.count;

	for (size = 1; size <= need; size++) {
		mock_seq_init(test, &seq, size);
		dma_fence_describe(f, &seq);
		KUNIT_EXPECT_TRUE(test, seq_has_overflowed(&seq));
	}

	mock_retire(f);
}

/* Not the array is what somebody waits for, but its members. */
static void test_array(struct kunit *test)
{
	struct dma_fence *f[3], *array;
	struct lines *lines;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(f); i++) {
		f[i] = mock_fence(i + 1, i + 10, "mock-0");
		KUNIT_ASSERT_NOT_NULL(test, f[i]);
		dma_fence_get(f[i]);
	}
	array = mock_array(test, ARRAY_SIZE(f), f);
	mock_retire(dma_fence_get(f[1]));

	lines = describe_all(test, array);
	KUNIT_EXPECT_EQ(test, lines->count, ARRAY_SIZE(f));
	KUNIT_EXPECT_EQ(test, lines->more, 0);
	for (i = 0; i < ARRAY_SIZE(f); i++) {
		KUNIT_EXPECT_EQ(test, lines->line[i].context, i + 1);
		KUNIT_EXPECT_EQ(test, lines->line[i].seqno, i + 10);
		KUNIT_EXPECT_EQ(test, lines->line[i].point, 0);
		KUNIT_EXPECT_EQ(test, lines->line[i].state,
				i == 1 ? SIGNALED : PENDING);
	}

	dma_fence_put(array);
	mock_retire(f[0]);
	dma_fence_put(f[1]);
	mock_retire(f[2]);
}

/* The points of a timeline that are pending, the last one first. */
static void test_chain(struct kunit *test)
{
	struct dma_fence *f[4], *chain = NULL;
	struct lines *lines;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(f); i++) {
		f[i] = mock_fence(i + 1, 1, "mock-0");
		KUNIT_ASSERT_NOT_NULL(test, f[i]);
		chain = mock_chain(test, chain, dma_fence_get(f[i]),
				   (i + 1) * 100);
	}
	mock_retire(f[0]);

	lines = describe_all(test, chain);
	KUNIT_EXPECT_EQ(test, lines->count, 3);
	KUNIT_EXPECT_EQ(test, lines->more, 0);
	for (i = 0; i < 3; i++) {
		KUNIT_EXPECT_EQ(test, lines->line[i].point, (4 - i) * 100);
		KUNIT_EXPECT_EQ(test, lines->line[i].context, 4 - i);
		KUNIT_EXPECT_EQ(test, lines->line[i].state, PENDING);
	}

	for (i = 1; i < ARRAY_SIZE(f); i++)
		mock_retire(f[i]);
	dma_fence_put(chain);
}

/* Each is one more than can be printed, or than is looked at. */
static void test_bounded(struct kunit *test)
{
	struct dma_fence *f[DMA_FENCE_DESCRIBE_MAX + 1], *fence, *array, *chain;
	struct lines *lines;
	unsigned int i;

	fence = mock_fence(1, 1, "mock-0");
	KUNIT_ASSERT_NOT_NULL(test, fence);
	for (i = 0; i < ARRAY_SIZE(f); i++)
		f[i] = dma_fence_get(fence);
	array = mock_array(test, ARRAY_SIZE(f), f);

	lines = describe_all(test, array);
	KUNIT_EXPECT_EQ(test, lines->count, DMA_FENCE_DESCRIBE_MAX);
	KUNIT_EXPECT_EQ(test, lines->more, 1);
	KUNIT_EXPECT_FALSE(test, lines->at_least_more);

	/* What is shared is counted each time, but at no cost. */
	chain = NULL;
	for (i = 0; i < 10; i++)
		chain = mock_chain(test, chain, dma_fence_get(array), i + 1);
	lines = describe_all(test, chain);
	KUNIT_EXPECT_EQ(test, lines->count, DMA_FENCE_DESCRIBE_MAX);
	KUNIT_EXPECT_EQ(test, lines->more,
			10 * ARRAY_SIZE(f) - DMA_FENCE_DESCRIBE_MAX);
	KUNIT_EXPECT_FALSE(test, lines->at_least_more);
	dma_fence_put(chain);

	chain = NULL;
	for (i = 0; i < 5000; i++)
		chain = mock_chain(test, chain, dma_fence_get(fence), i + 1);
	lines = describe_all(test, chain);
	KUNIT_EXPECT_EQ(test, lines->count, DMA_FENCE_DESCRIBE_MAX);
	KUNIT_EXPECT_GT(test, lines->more, DMA_FENCE_DESCRIBE_MAX);
	KUNIT_EXPECT_LT(test, lines->more, 5000 - DMA_FENCE_DESCRIBE_MAX);
	KUNIT_EXPECT_TRUE(test, lines->at_least_more);
	KUNIT_EXPECT_EQ(test, lines->line[0].point, 5000);
	dma_fence_put(chain);

	/* What is signaled in the middle is not in the way of what is not. */
	chain = mock_chain(test, NULL, dma_fence_get(fence), 1);
	for (i = 1; i < 5000; i++)
		chain = mock_chain(test, chain, dma_fence_get_stub(), i + 1);
	chain = mock_chain(test, chain, dma_fence_get(fence), 5001);
	lines = describe_all(test, chain);
	KUNIT_ASSERT_EQ(test, lines->count, 2);
	KUNIT_EXPECT_EQ(test, lines->more, 0);
	KUNIT_EXPECT_EQ(test, lines->line[0].point, 5001);
	KUNIT_EXPECT_EQ(test, lines->line[1].point, 1);
	dma_fence_put(chain);

	dma_fence_put(array);
	mock_retire(fence);
}

static void test_sync_file(struct kunit *test)
{
	struct dma_fence *f = mock_fence(12, 34, "mock-0");
	u64 before, created, soonest, latest;
	struct sync_file *sync_file;
	struct lines *lines;
	struct seq_file seq;
	char *rest;
	s64 age;

	if (!IS_ENABLED(CONFIG_SYNC_FILE))
		kunit_skip(test, "requires CONFIG_SYNC_FILE");

	KUNIT_ASSERT_NOT_NULL(test, f);
	lines = kunit_kzalloc(test, sizeof(*lines), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, lines);
	mock_seq_init(test, &seq, SZ_8K);

	before = get_jiffies_64();
	sync_file = sync_file_create(f);
	KUNIT_ASSERT_NOT_NULL(test, sync_file);
	created = get_jiffies_64();
	msleep(20);

	soonest = get_jiffies_64() - created;
	sync_file->file->f_op->show_fdinfo(&seq, sync_file->file);
	latest = get_jiffies_64() - before;
	rest = parse_age(skip(seq.buf, "age:\t"), &age);
	KUNIT_ASSERT_NOT_NULL(test, rest);
	KUNIT_EXPECT_EQ(test, *rest, '\n');
	KUNIT_EXPECT_GT(test, age, 0);
	KUNIT_EXPECT_GE(test, age, jiffies64_to_nsecs(soonest));
	KUNIT_EXPECT_LE(test, age, jiffies64_to_nsecs(latest));
	parse_all(test, &seq, lines);
	KUNIT_EXPECT_EQ(test, lines->count, 1);
	KUNIT_EXPECT_EQ(test, lines->line[0].context, 12);
	KUNIT_EXPECT_EQ(test, lines->line[0].seqno, 34);
	KUNIT_EXPECT_EQ(test, lines->line[0].state, PENDING);

	fput(sync_file->file);
	mock_retire(f);
}

static struct sg_table *mock_map_dma_buf(struct dma_buf_attachment *attach,
					 enum dma_data_direction direction)
{
	return ERR_PTR(-EOPNOTSUPP);
}

static void mock_unmap_dma_buf(struct dma_buf_attachment *attach,
			       struct sg_table *sgt,
			       enum dma_data_direction direction)
{
}

static void mock_release_dma_buf(struct dma_buf *dmabuf)
{
}

static const struct dma_buf_ops mock_dma_buf_ops = {
	.map_dma_buf = mock_map_dma_buf,
	.unmap_dma_buf = mock_unmap_dma_buf,
	.release = mock_release_dma_buf,
};

static struct dma_buf *mock_dma_buf(struct kunit *test)
{
	DEFINE_DMA_BUF_EXPORT_INFO(exp_info);
	struct dma_buf *dmabuf;

	exp_info.ops = &mock_dma_buf_ops;
	exp_info.size = PAGE_SIZE;
	exp_info.priv = test;
	dmabuf = dma_buf_export(&exp_info);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, dmabuf);
	return dmabuf;
}

static void mock_set_name(struct dma_buf *dmabuf, char *name)
{
	spin_lock(&dmabuf->name_lock);
	kfree(dmabuf->name);
	dmabuf->name = name;
	spin_unlock(&dmabuf->name_lock);
}

/* One line, with what is usual in a name as it is. */
static void test_dma_buf_name(struct kunit *test)
{
	static const struct {
		const char *name, *line;
	} names[] = {
		{ NULL, NULL },
		{ "", "name:\t\n" },
		{ "frame 17\t\xc3\xa9", "name:\tframe 17\t\xc3\xa9\n" },
		{ "a\nsize:\t0", "name:\ta\\012size:\t0\n" },
		{ "a\\012b", "name:\ta\\134012b\n" },
		{ "a\rsize:\t0\x1b[A\x7f\1", "name:\ta\\015size:\t0\\033[A\\177\\001\n" },
	};
	struct dma_buf *dmabuf = mock_dma_buf(test);
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(names); i++) {
		struct seq_file seq;
		char *line;

		/* As DMA_BUF_SET_NAME does, which wants it from userspace. */
		mock_set_name(dmabuf, kstrdup(names[i].name, GFP_KERNEL));
		mock_seq_init(test, &seq, 256);
		dmabuf->file->f_op->show_fdinfo(&seq, dmabuf->file);
		mock_set_name(dmabuf, NULL);

		line = strstr(mock_seq_text(test, &seq), "\nname:\t");
		if (names[i].line) {
			KUNIT_ASSERT_NOT_NULL(test, line);
			KUNIT_EXPECT_STREQ(test, line + 1, names[i].line);
		} else {
			KUNIT_EXPECT_NULL(test, line);
		}
	}

	dma_buf_put(dmabuf);
}

/* Under the lock, as there may be somebody who waits with it for the fences. */
static void describe_dma_buf(struct kunit *test, struct dma_buf *dmabuf,
			     struct lines *lines)
{
	struct seq_file seq;

	mock_seq_init(test, &seq, SZ_8K);
	dma_resv_lock(dmabuf->resv, NULL);
	dmabuf->file->f_op->show_fdinfo(&seq, dmabuf->file);
	dma_resv_unlock(dmabuf->resv);
	parse_all(test, &seq, lines);
}

static void test_dma_buf(struct kunit *test)
{
	static const char * const names[] = { "kernel", "write", "read" };
	/* And one that is not shown. */
	struct dma_fence *f[ARRAY_SIZE(names) + 1];
	struct dma_buf *dmabuf = mock_dma_buf(test);
	struct lines *lines;
	unsigned int i;

	lines = kunit_kzalloc(test, sizeof(*lines), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, lines);

	describe_dma_buf(test, dmabuf, lines);
	KUNIT_EXPECT_EQ(test, lines->count, 0);

	dma_resv_lock(dmabuf->resv, NULL);
	KUNIT_EXPECT_EQ(test, 0, dma_resv_reserve_fences(dmabuf->resv,
							 ARRAY_SIZE(f)));
	for (i = 0; i < ARRAY_SIZE(f); i++) {
		f[i] = mock_fence(i + 1, i + 10, "mock-0");
		KUNIT_ASSERT_NOT_NULL(test, f[i]);
		dma_resv_add_fence(dmabuf->resv, f[i],
				   DMA_RESV_USAGE_KERNEL + i);
	}
	dma_resv_unlock(dmabuf->resv);

	describe_dma_buf(test, dmabuf, lines);
	KUNIT_ASSERT_EQ(test, lines->count, ARRAY_SIZE(names));
	KUNIT_EXPECT_EQ(test, lines->more, 0);
	for (i = 0; i < ARRAY_SIZE(names); i++) {
		KUNIT_EXPECT_STREQ(test, lines->line[i].usage, names[i]);
		KUNIT_EXPECT_EQ(test, lines->line[i].context, i + 1);
		KUNIT_EXPECT_EQ(test, lines->line[i].seqno, i + 10);
		KUNIT_EXPECT_EQ(test, lines->line[i].state, PENDING);
	}

	/* A buffer that was in use for long has lots of those. */
	mock_retire(f[0]);
	mock_retire(f[1]);
	describe_dma_buf(test, dmabuf, lines);
	KUNIT_EXPECT_EQ(test, lines->count, 1);
	KUNIT_EXPECT_EQ(test, lines->line[0].context, 3);

	mock_retire(f[2]);
	mock_retire(f[3]);
	dma_buf_put(dmabuf);
}

struct emptied {
	struct dma_fence base;
	struct dma_buf *dmabuf;
	struct dma_resv empty;
	bool done;
};

static void mock_resv_swap(struct dma_resv *a, struct dma_resv *b)
{
	struct dma_resv_list *list;

	list = rcu_replace_pointer(b->fences, unrcu_pointer(a->fences), true);
	rcu_assign_pointer(a->fences, list);
}

/* Whoever looks at this one finds that all fences were replaced meanwhile. */
static bool emptied_signaled(struct dma_fence *fence)
{
	struct emptied *e = container_of(fence, struct emptied, base);
	struct dma_resv *resv = e->dmabuf->resv;

	if (!e->done) {
		e->done = true;
		mock_resv_swap(resv, &e->empty);
	}
	return false;
}

static const struct dma_fence_ops emptied_ops = {
	.get_driver_name = mock_driver_name,
	.get_timeline_name = mock_driver_name,
	.signaled = emptied_signaled,
};

/* What was found before is not there any more when the lookup starts again. */
static void test_dma_buf_emptied(struct kunit *test)
{
	struct dma_fence *f = mock_fence(12, 34, "mock-0");
	struct dma_buf *dmabuf = mock_dma_buf(test);
	struct lines *lines;
	struct emptied *e;

	KUNIT_ASSERT_NOT_NULL(test, f);
	lines = kunit_kzalloc(test, sizeof(*lines), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, lines);
	/* Freed by the release function of fences. */
	e = kzalloc_obj(*e);
	KUNIT_ASSERT_NOT_NULL(test, e);
	e->dmabuf = dmabuf;
	dma_resv_init(&e->empty);
	dma_resv_lock(&e->empty, NULL);
	KUNIT_EXPECT_EQ(test, 0, dma_resv_reserve_fences(&e->empty, 1));
	dma_resv_unlock(&e->empty);
	dma_fence_init(&e->base, &emptied_ops, 56, 78);

	dma_resv_lock(dmabuf->resv, NULL);
	KUNIT_EXPECT_EQ(test, 0, dma_resv_reserve_fences(dmabuf->resv, 2));
	dma_resv_add_fence(dmabuf->resv, f, DMA_RESV_USAGE_WRITE);
	dma_resv_add_fence(dmabuf->resv, &e->base, DMA_RESV_USAGE_READ);
	dma_resv_unlock(dmabuf->resv);

	describe_dma_buf(test, dmabuf, lines);
	KUNIT_EXPECT_TRUE(test, e->done);
	KUNIT_EXPECT_EQ(test, lines->count, 0);
	KUNIT_EXPECT_EQ(test, lines->more, 0);
	/* That of the buffer, and ours. */
	KUNIT_EXPECT_EQ(test, kref_read(&f->refcount), 2);

	mock_resv_swap(dmabuf->resv, &e->empty);
	dma_resv_fini(&e->empty);
	mock_retire(f);
	dma_fence_signal(&e->base);
	dma_fence_put(&e->base);
	dma_buf_put(dmabuf);
}

static void test_dma_buf_bounded(struct kunit *test)
{
	const unsigned int count = DMA_FENCE_COUNT_MAX + 2;
	struct dma_buf *dmabuf = mock_dma_buf(test);
	struct dma_fence **f;
	struct lines *lines;
	unsigned int i;

	lines = kunit_kzalloc(test, sizeof(*lines), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, lines);
	f = kunit_kcalloc(test, count, sizeof(*f), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, f);

	dma_resv_lock(dmabuf->resv, NULL);
	KUNIT_EXPECT_EQ(test, 0, dma_resv_reserve_fences(dmabuf->resv, count));
	for (i = 0; i < count; i++) {
		f[i] = mock_fence(i + 1, 1, "mock-0");
		KUNIT_ASSERT_NOT_NULL(test, f[i]);
		dma_resv_add_fence(dmabuf->resv, f[i], DMA_RESV_USAGE_READ);
	}
	dma_resv_unlock(dmabuf->resv);

	describe_dma_buf(test, dmabuf, lines);
	KUNIT_EXPECT_EQ(test, lines->count, DMA_FENCE_DESCRIBE_MAX);
	KUNIT_EXPECT_EQ(test, lines->more,
			DMA_FENCE_COUNT_MAX - DMA_FENCE_DESCRIBE_MAX);
	KUNIT_EXPECT_TRUE(test, lines->at_least_more);

	mock_retire(f[0]);
	mock_retire(f[1]);
	describe_dma_buf(test, dmabuf, lines);
	KUNIT_EXPECT_EQ(test, lines->count, DMA_FENCE_DESCRIBE_MAX);
	KUNIT_EXPECT_EQ(test, lines->more,
			DMA_FENCE_COUNT_MAX - DMA_FENCE_DESCRIBE_MAX);
	KUNIT_EXPECT_FALSE(test, lines->at_least_more);

	for (i = 2; i < count; i++)
		mock_retire(f[i]);
	dma_buf_put(dmabuf);
}

struct left {
	struct dma_fence_cb cb;
	int error;
};

static void left_callback(struct dma_fence *fence, struct dma_fence_cb *cb)
{
	container_of(cb, struct left, cb)->error = fence->error;
}

static void other_callback(struct dma_fence *fence, struct dma_fence_cb *cb)
{
	left_callback(fence, cb);
}

static void expect_pending_text(struct kunit *test, struct dma_fence *fence,
				const char *names, const void *issuer,
				const char *callbacks)
{
	const size_t size = 512;
	struct seq_buf expected, text;

	seq_buf_init(&expected, kunit_kzalloc(test, size, GFP_KERNEL), size);
	seq_buf_init(&text, kunit_kzalloc(test, size, GFP_KERNEL), size);
	KUNIT_ASSERT_NOT_NULL(test, expected.buffer);
	KUNIT_ASSERT_NOT_NULL(test, text.buffer);

	seq_buf_printf(&expected, "Fence 12:34 of %s (%ps) released with pending signals!",
		       names, issuer);
	seq_buf_printf(&expected, " Callbacks left:%s", callbacks);

	rcu_read_lock();
	dma_fence_describe_pending(fence, &text);
	rcu_read_unlock();
	KUNIT_EXPECT_STREQ(test, seq_buf_str(&text), seq_buf_str(&expected));
}

/* The text of the warning: which fence, whose, and who waits, in this order. */
static void test_release_pending_text(struct kunit *test)
{
	struct dma_fence *f = mock_fence(12, 34, "mock-0");
	DECLARE_SEQ_BUF(callbacks, 256);
	struct left left[6];
	unsigned int i;

	KUNIT_ASSERT_NOT_NULL(test, f);
	for (i = 0; i < ARRAY_SIZE(left); i++) {
		dma_fence_func_t func = i % 2 ? other_callback : left_callback;

		expect_pending_text(test, f, "mock:mock-0", mock_driver_name,
				    seq_buf_str(&callbacks));
		if (i < 4)
			seq_buf_printf(&callbacks, " %ps", func);
		else if (i == 4)
			seq_buf_puts(&callbacks, " and more");
		KUNIT_EXPECT_EQ(test, 0,
				dma_fence_add_callback(f, &left[i].cb, func));
	}
	expect_pending_text(test, f, "mock:mock-0", mock_driver_name,
			    seq_buf_str(&callbacks));

	/* Somebody without a reference was faster. */
	dma_fence_get(f);
	mock_retire(f);
	expect_pending_text(test, f, "detached-driver:signaled-timeline", NULL,
			    "");
	dma_fence_put(f);
}

/* Warns once, however many callbacks there are, and does not lose any. */
static void test_release_pending(struct kunit *test)
{
	static const unsigned int counts[] = { 1, 4, 5, 100 };
	struct left *left;
	unsigned int c, i;

	left = kunit_kcalloc(test, 100, sizeof(*left), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, left);

	for (c = 0; c < ARRAY_SIZE(counts); c++) {
		struct dma_fence *f = mock_fence(12, 34, "mock-0");
		char *timeline;

		KUNIT_ASSERT_NOT_NULL(test, f);
		timeline = to_mock(f)->timeline;

		for (i = 0; i < counts[c]; i++) {
			left[i].error = 0;
			KUNIT_EXPECT_EQ(test, 0,
					dma_fence_add_callback(f, &left[i].cb,
							       left_callback));
		}

		kunit_warning_suppress(test) {
			dma_fence_put(f);
			KUNIT_EXPECT_SUPPRESSED_WARNING_COUNT(test, 1);
		}
		for (i = 0; i < counts[c]; i++)
			KUNIT_EXPECT_EQ(test, left[i].error, -EDEADLK);

		kvfree_rcu_mightsleep(timeline);
	}
}

struct storm {
	struct dma_fence __rcu *fence;
	struct completion ready;
	struct task_struct *task;
};

static int storm_thread(void *data)
{
	struct storm *storm = data;
	u32 seqno = 1;

	while (!kthread_should_stop()) {
		struct dma_fence *f = mock_fence(12, seqno, "mock-0"), *old;

		if (!f)
			continue;
		if (seqno % 3 == 0)
			dma_fence_set_error(f, -EIO);

		old = unrcu_pointer(xchg(&storm->fence, RCU_INITIALIZER(f)));
		if (old)
			mock_retire(old);
		else
			complete(&storm->ready);
		seqno++;
		cond_resched();
	}

	return 0;
}

static void storm_end(void *data)
{
	struct storm *storm = data;

	kthread_stop(storm->task);
	mock_retire(unrcu_pointer(storm->fence));
}

/* One after the other is signaled, and loses its names, while it is read. */
static void test_while_signaling(struct kunit *test)
{
	unsigned int reads[3] = {}, i, changed = 0;
	struct storm *storm;
	struct seq_file seq;

	mock_seq_init(test, &seq, 256);
	storm = kunit_kzalloc(test, sizeof(*storm), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, storm);
	init_completion(&storm->ready);
	storm->task = kthread_run(storm_thread, storm, "dma-fence-storm");
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, storm->task);
	wait_for_completion(&storm->ready);
	KUNIT_ASSERT_EQ(test, 0,
			kunit_add_action_or_reset(test, storm_end, storm));

	for (i = 0; i < READS; i++) {
		struct dma_fence *f;
		struct line line;
		char *text;
		bool ok;

		rcu_read_lock();
		f = dma_fence_get_rcu_safe(&storm->fence);
		rcu_read_unlock();

		dma_fence_describe(f, &seq);
		text = mock_seq_text(test, &seq);
		text[strcspn(text, "\n")] = '\0';
		ok = parse(text, &line);
		if (line.state == PENDING)
			ok &= line.age == -1;
		else
			ok &= line.age >= 0 &&
			      line.error == ((u32)f->seqno % 3 ? 0 : -EIO);
		if (!ok || line.context != 12 || line.seqno != f->seqno) {
			KUNIT_FAIL(test, "unexpected '%s'", text);
			i = READS;
		}
		reads[line.state]++;
		/* It was signaled after the one and before the other was read. */
		if (line.state != PENDING && !strcmp(line.driver, "mock"))
			changed++;
		dma_fence_put(f);
		cond_resched();
	}

	kunit_release_action(test, storm_end, storm);

	kunit_info(test, "pending %u, signaled %u, failed %u, meanwhile %u\n",
		   reads[PENDING], reads[SIGNALED], reads[ERROR], changed);
	KUNIT_EXPECT_GT(test, reads[PENDING], 0);
	/* A single CPU may never come back in between. */
	if (num_online_cpus() > 1)
		KUNIT_EXPECT_GT(test, reads[SIGNALED] + reads[ERROR], 0);
}

static struct kunit_case dma_fence_describe_cases[] = {
	KUNIT_CASE(test_pending),
	KUNIT_CASE(test_signaled),
	KUNIT_CASE(test_error),
	KUNIT_CASE(test_asks_issuer),
	KUNIT_CASE(test_future),
	KUNIT_CASE(test_names_escaped),
	KUNIT_CASE(test_no_room),
	KUNIT_CASE(test_array),
	KUNIT_CASE(test_chain),
	KUNIT_CASE(test_bounded),
	KUNIT_CASE(test_sync_file),
	KUNIT_CASE(test_dma_buf_name),
	KUNIT_CASE(test_dma_buf),
	KUNIT_CASE(test_dma_buf_emptied),
	KUNIT_CASE(test_dma_buf_bounded),
	KUNIT_CASE(test_release_pending_text),
	KUNIT_CASE(test_release_pending),
	KUNIT_CASE(test_while_signaling),
	{}
};

static struct kunit_suite dma_fence_describe_test_suite = {
	.name = "dma-buf-fence-describe",
	.test_cases = dma_fence_describe_cases,
};

kunit_test_suite(dma_fence_describe_test_suite);

MODULE_IMPORT_NS("DMA_BUF");
MODULE_IMPORT_NS("EXPORTED_FOR_KUNIT_TESTING");
