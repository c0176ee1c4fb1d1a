// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests for the order of fences whose sequence numbers get large, or wrap:
 * of dma_fence_init(), which counts in 32 bits, and of dma_fence_init64().
 */

#include <kunit/test.h>
#include <linux/dma-fence.h>
#include <linux/dma-fence-array.h>
#include <linux/dma-fence-chain.h>
#include <linux/dma-fence-unwrap.h>
#include <linux/dma-resv.h>
#include <linux/slab.h>

#define POW_2_32	0x100000000ull

static const char *seqno_name(struct dma_fence *fence)
{
	return "seqno";
}

static const struct dma_fence_ops seqno_ops = {
	.get_driver_name = seqno_name,
	.get_timeline_name = seqno_name,
};

static void put_fence(void *fence)
{
	dma_fence_signal(fence);
	dma_fence_put(fence);
}

/* Is put at the end of the test. */
static struct dma_fence *new_fence(struct kunit *test, bool is_64, u64 context,
				   u64 seqno)
{
	struct dma_fence *fence = kzalloc_obj(*fence);

	KUNIT_ASSERT_NOT_NULL(test, fence);
	if (is_64)
		dma_fence_init64(fence, &seqno_ops, context, seqno);
	else
		dma_fence_init(fence, &seqno_ops, context, seqno);
	KUNIT_ASSERT_EQ(test, kunit_add_action_or_reset(test, put_fence, fence), 0);
	return fence;
}

/* Whether the first of two numbers is later, for each kind of fence. */
static const struct seqno_pair {
	u64 a, b;
	bool later_32, later_64;
} seqno_pairs[] = {
	{ 1, 0, true, true },
	{ 0, 1, false, false },
	{ 5, 5, false, false },
	/* a counter of 32 bits that wraps */
	{ 0, U32_MAX, true, false },
	{ U32_MAX, 0, false, true },
	{ 5, U32_MAX - 5, true, false },
	/* one of 64 bits that passes the same number */
	{ POW_2_32, U32_MAX, true, true },
	{ U32_MAX, POW_2_32, false, false },
	/* only the lower halves count, or both do */
	{ POW_2_32 + 1, 1, false, true },
	{ POW_2_32, 1, false, true },
	{ 1, POW_2_32, true, false },
	{ U64_MAX, 0, false, true },
	{ 0, U64_MAX, true, false },
	/* half of the circle: neither is later, beyond that it is the other one */
	{ S32_MAX, 0, true, true },
	{ BIT_ULL(31), 0, false, true },
	{ 0, BIT_ULL(31), false, false },
	{ BIT_ULL(31) + 1, 0, false, true },
	{ 0, BIT_ULL(31) + 1, true, false },
};

static void is_later(struct kunit *test)
{
	unsigned int i, is_64;

	for (i = 0; i < ARRAY_SIZE(seqno_pairs); i++) {
		for (is_64 = 0; is_64 < 2; is_64++) {
			const struct seqno_pair *p = &seqno_pairs[i];
			struct dma_fence *a = new_fence(test, is_64, 1, p->a);
			struct dma_fence *b = new_fence(test, is_64, 1, p->b);
			bool later = is_64 ? p->later_64 : p->later_32;

			KUNIT_EXPECT_EQ_MSG(test, dma_fence_is_later(a, b), later,
					    "%llx, %llx, %u", p->a, p->b, is_64);
			KUNIT_EXPECT_EQ(test, dma_fence_is_later_or_same(a, b), later);
			KUNIT_EXPECT_TRUE(test, dma_fence_is_later_or_same(a, a));
			KUNIT_EXPECT_PTR_EQ(test, dma_fence_later(a, b), later ? a : b);
		}
	}
}

/* What @a and @b are, one after the other, when the counter passes 2^32. */
struct seqno_case {
	const char *name;
	bool is_64;
	u64 a, b;
};

static const struct seqno_case seqno_cases[] = {
	{ .name = "32 bits that wrap", .a = U32_MAX, .b = 0 },
	{ .name = "u64 number, 32 bits compared", .a = U32_MAX, .b = POW_2_32 },
	{ .name = "64 bits", .is_64 = true, .a = U32_MAX, .b = POW_2_32 },
	{ .name = "64 bits, far apart", .is_64 = true, .a = 1, .b = U64_MAX },
};

KUNIT_ARRAY_PARAM_DESC(seqno, seqno_cases, name);

static unsigned int count_fences(struct dma_resv *resv)
{
	struct dma_resv_iter cursor;
	struct dma_fence *fence;
	unsigned int n = 0;

	dma_resv_for_each_fence(&cursor, resv, DMA_RESV_USAGE_BOOKKEEP, fence)
		n++;
	return n;
}

/*
 * The later one replaces the other. If the earlier one is added after it, it gets
 * a slot of its own.
 */
static void resv_replaces(struct kunit *test)
{
	const struct seqno_case *c = test->param_value;
	struct dma_fence *a = new_fence(test, c->is_64, 1, c->a);
	struct dma_fence *b = new_fence(test, c->is_64, 1, c->b);
	struct dma_resv resv;

	dma_resv_init(&resv);
	KUNIT_ASSERT_EQ(test, dma_resv_lock(&resv, NULL), 0);
	KUNIT_EXPECT_EQ(test, dma_resv_reserve_fences(&resv, 2), 0);
	dma_resv_add_fence(&resv, a, DMA_RESV_USAGE_WRITE);
	KUNIT_EXPECT_EQ(test, count_fences(&resv), 1);
	dma_resv_add_fence(&resv, b, DMA_RESV_USAGE_WRITE);
	KUNIT_EXPECT_EQ(test, count_fences(&resv), 1);
	KUNIT_EXPECT_EQ(test, dma_resv_reserve_fences(&resv, 1), 0);
	dma_resv_add_fence(&resv, a, DMA_RESV_USAGE_WRITE);
	KUNIT_EXPECT_EQ(test, count_fences(&resv), 2);
	dma_resv_unlock(&resv);
	dma_resv_fini(&resv);
}

/* Of a context a merge has the later one, in whatever order they come. */
static void merge_keeps_later(struct kunit *test)
{
	const struct seqno_case *c = test->param_value;
	struct dma_fence *a = new_fence(test, c->is_64, 1, c->a);
	struct dma_fence *b = new_fence(test, c->is_64, 1, c->b);
	struct dma_fence *merged;

	merged = dma_fence_unwrap_merge(a, b);
	KUNIT_EXPECT_PTR_EQ(test, merged, b);
	dma_fence_put(merged);

	merged = dma_fence_unwrap_merge(b, a);
	KUNIT_EXPECT_PTR_EQ(test, merged, b);
	dma_fence_put(merged);
}

/* Arrays are fences of 32 bits. */
static void arrays_wrap(struct kunit *test)
{
	struct dma_fence_array *array[2];
	unsigned int i;

	for (i = 0; i < 2; i++) {
		struct dma_fence **fences = kzalloc_obj(*fences);

		KUNIT_ASSERT_NOT_NULL(test, fences);
		fences[0] = dma_fence_get(new_fence(test, false, 1, i));
		array[i] = dma_fence_array_create(1, fences, 2, i ? 0 : U32_MAX);
		KUNIT_ASSERT_NOT_NULL(test, array[i]);
	}
	KUNIT_EXPECT_TRUE(test, dma_fence_is_later(&array[1]->base, &array[0]->base));
	KUNIT_EXPECT_FALSE(test, dma_fence_is_later(&array[0]->base, &array[1]->base));
	for (i = 0; i < 2; i++)
		dma_fence_put(&array[i]->base);
}

static struct dma_fence *new_link(struct kunit *test, struct dma_fence *prev, u64 point)
{
	struct dma_fence_chain *chain = dma_fence_chain_alloc();

	KUNIT_ASSERT_NOT_NULL(test, chain);
	dma_fence_chain_init(chain, dma_fence_get(prev),
			     dma_fence_get(new_fence(test, false, point, 1)), point);
	return &chain->base;
}

/* The links of a chain are of 64 bits, as the points of a timeline are. */
static void chain_does_not_wrap(struct kunit *test)
{
	static const u64 points[] = {
		1, S32_MAX, BIT_ULL(31) + 1, U32_MAX, POW_2_32, POW_2_32 + 1,
		BIT_ULL(63), U64_MAX,
	};
	struct dma_fence *links[ARRAY_SIZE(points)] = {}, *found;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(points); i++) {
		links[i] = new_link(test, i ? links[i - 1] : NULL, points[i]);
		KUNIT_EXPECT_EQ(test, links[i]->seqno, points[i]);
		KUNIT_EXPECT_EQ(test, links[i]->context, links[0]->context);
	}

	for (i = 0; i < ARRAY_SIZE(points); i++) {
		found = dma_fence_get(links[ARRAY_SIZE(points) - 1]);
		KUNIT_EXPECT_EQ(test, dma_fence_chain_find_seqno(&found, points[i]), 0);
		KUNIT_EXPECT_PTR_EQ(test, found, links[i]);
		dma_fence_put(found);

		/* What nobody has submitted comes with the next one. */
		found = dma_fence_get(links[ARRAY_SIZE(points) - 1]);
		if (points[i] != U64_MAX) {
			KUNIT_EXPECT_EQ(test, dma_fence_chain_find_seqno(&found, points[i] + 1), 0);
			KUNIT_EXPECT_PTR_EQ(test, found, links[i + 1]);
		}
		dma_fence_put(found);
	}

	for (i = 0; i < ARRAY_SIZE(points); i++)
		dma_fence_put(links[i]);
}

static struct kunit_case dma_fence_seqno_cases[] = {
	KUNIT_CASE(is_later),
	KUNIT_CASE_PARAM(resv_replaces, seqno_gen_params),
	KUNIT_CASE_PARAM(merge_keeps_later, seqno_gen_params),
	KUNIT_CASE(arrays_wrap),
	KUNIT_CASE(chain_does_not_wrap),
	{}
};

static struct kunit_suite dma_fence_seqno_suite = {
	.name = "dma-buf-fence-seqno",
	.test_cases = dma_fence_seqno_cases,
};

kunit_test_suite(dma_fence_seqno_suite);
