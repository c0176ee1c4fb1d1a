// SPDX-License-Identifier: MIT

/*
 * KUnit tests for what the fdinfo of a syncobj says of its fences.
 */

#include <kunit/test.h>

#include <linux/dma-fence.h>
#include <linux/dma-fence-chain.h>
#include <linux/fdtable.h>
#include <linux/file.h>
#include <linux/module.h>
#include <linux/seq_file.h>
#include <linux/sizes.h>
#include <linux/slab.h>

#include <drm/drm_syncobj.h>

struct drm_syncobj_fdinfo_priv {
	struct drm_syncobj *syncobj;
	struct file *file;
	struct seq_file seq;
};

static void drm_syncobj_fdinfo_test_put(void *syncobj)
{
	drm_syncobj_put(syncobj);
}

static void drm_syncobj_fdinfo_test_fput(void *file)
{
	fput(file);
}

static int drm_syncobj_fdinfo_test_init(struct kunit *test)
{
	struct drm_syncobj_fdinfo_priv *priv;
	int fd;

	priv = kunit_kzalloc(test, sizeof(*priv), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, priv);
	test->priv = priv;

	priv->seq.size = SZ_8K;
	priv->seq.buf = kunit_kzalloc(test, priv->seq.size, GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, priv->seq.buf);

	KUNIT_ASSERT_EQ(test, 0, drm_syncobj_create(&priv->syncobj, 0, NULL));
	KUNIT_ASSERT_EQ(test, 0,
			kunit_add_action_or_reset(test,
						  drm_syncobj_fdinfo_test_put,
						  priv->syncobj));

	KUNIT_ASSERT_EQ(test, 0, drm_syncobj_get_fd(priv->syncobj, &fd));
	priv->file = fget(fd);
	close_fd(fd);
	KUNIT_ASSERT_NOT_NULL(test, priv->file);
	KUNIT_ASSERT_EQ(test, 0,
			kunit_add_action_or_reset(test,
						  drm_syncobj_fdinfo_test_fput,
						  priv->file));
	return 0;
}

static const char *drm_syncobj_fdinfo_test_name(struct dma_fence *fence)
{
	return "test";
}

static const struct dma_fence_ops drm_syncobj_fdinfo_test_ops = {
	.get_driver_name = drm_syncobj_fdinfo_test_name,
	.get_timeline_name = drm_syncobj_fdinfo_test_name,
};

static struct dma_fence *drm_syncobj_fdinfo_test_fence(struct kunit *test,
						       u64 seqno)
{
	struct dma_fence *fence = kzalloc_obj(*fence);

	KUNIT_ASSERT_NOT_NULL(test, fence);
	dma_fence_init(fence, &drm_syncobj_fdinfo_test_ops, 12, seqno);
	return fence;
}

/* Does not take the reference. */
static void drm_syncobj_fdinfo_test_add(struct kunit *test,
					struct dma_fence *fence, u64 point)
{
	struct drm_syncobj_fdinfo_priv *priv = test->priv;
	struct dma_fence_chain *chain = dma_fence_chain_alloc();

	KUNIT_ASSERT_NOT_NULL(test, chain);
	drm_syncobj_add_point(priv->syncobj, chain, fence, point);
}

static const char *drm_syncobj_fdinfo_test_read(struct kunit *test)
{
	struct drm_syncobj_fdinfo_priv *priv = test->priv;
	struct seq_file *seq = &priv->seq;

	seq->count = 0;
	priv->file->f_op->show_fdinfo(seq, priv->file);
	KUNIT_ASSERT_FALSE(test, seq_has_overflowed(seq));
	seq->buf[seq->count] = '\0';
	return seq->buf;
}

static void drm_test_syncobj_fdinfo_none(struct kunit *test)
{
	KUNIT_EXPECT_STREQ(test, drm_syncobj_fdinfo_test_read(test), "");
}

static void drm_test_syncobj_fdinfo_binary(struct kunit *test)
{
	struct dma_fence *fence = drm_syncobj_fdinfo_test_fence(test, 34);
	struct drm_syncobj_fdinfo_priv *priv = test->priv;
	unsigned long long sec, nsec;
	const char *text;
	int end;

	drm_syncobj_replace_fence(priv->syncobj, fence);
	KUNIT_EXPECT_STREQ(test, drm_syncobj_fdinfo_test_read(test),
			   "fence:\t12:34 pending driver:test timeline:test\n");

	dma_fence_set_error(fence, -ENODEV);
	dma_fence_signal(fence);
	text = drm_syncobj_fdinfo_test_read(test);
	if (sscanf(text, "fence:\t12:34 error:-19 age:%llu.%9llu%n", &sec,
		   &nsec, &end) != 2)
		KUNIT_FAIL_AND_ABORT(test, "cannot parse '%s'", text);
	KUNIT_EXPECT_STREQ(test, text + end,
			   " driver:detached-driver timeline:signaled-timeline\n");

	drm_syncobj_replace_fence(priv->syncobj, NULL);
	KUNIT_EXPECT_STREQ(test, drm_syncobj_fdinfo_test_read(test), "");
	dma_fence_put(fence);
}

static void drm_test_syncobj_fdinfo_timeline(struct kunit *test)
{
	struct dma_fence *fence[3];
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(fence); i++) {
		fence[i] = drm_syncobj_fdinfo_test_fence(test, i + 1);
		drm_syncobj_fdinfo_test_add(test, fence[i], (i + 1) * 10);
	}
	KUNIT_EXPECT_STREQ(test, drm_syncobj_fdinfo_test_read(test),
			   "fence:\tpoint:30 12:3 pending driver:test timeline:test\n"
			   "fence:\tpoint:20 12:2 pending driver:test timeline:test\n"
			   "fence:\tpoint:10 12:1 pending driver:test timeline:test\n");

	/* Nobody waits for it any more. */
	dma_fence_signal(fence[0]);
	KUNIT_EXPECT_STREQ(test, drm_syncobj_fdinfo_test_read(test),
			   "fence:\tpoint:30 12:3 pending driver:test timeline:test\n"
			   "fence:\tpoint:20 12:2 pending driver:test timeline:test\n");

	for (i = 0; i < ARRAY_SIZE(fence); i++) {
		dma_fence_signal(fence[i]);
		dma_fence_put(fence[i]);
	}

	/* The last point stays. */
	KUNIT_EXPECT_TRUE(test, strstarts(drm_syncobj_fdinfo_test_read(test),
					  "fence:\tpoint:30 12:3 signaled age:"));
}

/* Userspace decides how many there are, but not for how many there are lines. */
static void drm_test_syncobj_fdinfo_bounded(struct kunit *test)
{
	struct dma_fence *fence = drm_syncobj_fdinfo_test_fence(test, 1);
	unsigned int i, lines = 0;
	const char *text;

	for (i = 0; i < DMA_FENCE_DESCRIBE_MAX + 8; i++)
		drm_syncobj_fdinfo_test_add(test, fence, i + 1);

	text = drm_syncobj_fdinfo_test_read(test);
	while (strstarts(text, "fence:\tpoint:")) {
		text = strchr(text, '\n') + 1;
		lines++;
	}
	KUNIT_EXPECT_EQ(test, lines, DMA_FENCE_DESCRIBE_MAX);
	KUNIT_EXPECT_STREQ(test, text, "more-fences:\t8\n");

	dma_fence_signal(fence);
	dma_fence_put(fence);
}

static struct kunit_case drm_syncobj_fdinfo_tests[] = {
	KUNIT_CASE(drm_test_syncobj_fdinfo_none),
	KUNIT_CASE(drm_test_syncobj_fdinfo_binary),
	KUNIT_CASE(drm_test_syncobj_fdinfo_timeline),
	KUNIT_CASE(drm_test_syncobj_fdinfo_bounded),
	{}
};

static struct kunit_suite drm_syncobj_fdinfo_test_suite = {
	.name = "drm_syncobj_fdinfo",
	.init = drm_syncobj_fdinfo_test_init,
	.test_cases = drm_syncobj_fdinfo_tests,
};

kunit_test_suite(drm_syncobj_fdinfo_test_suite);

MODULE_DESCRIPTION("KUnit tests for the fdinfo of syncobjs");
MODULE_LICENSE("Dual MIT/GPL");
