// SPDX-License-Identifier: GPL-2.0
/* KUnit test for dependencies of one context, whose sequence numbers wrap. */

#include <linux/dma-fence.h>
#include <linux/slab.h>
#include <linux/xarray.h>

#include "sched_tests.h"

static const char *seqno_name(struct dma_fence *fence)
{
	return "seqno";
}

static const struct dma_fence_ops seqno_ops = {
	.get_driver_name = seqno_name,
	.get_timeline_name = seqno_name,
};

static struct dma_fence *new_fence(struct kunit *test, bool is_64, u64 seqno)
{
	struct dma_fence *fence = kzalloc_obj(*fence);

	KUNIT_ASSERT_NOT_NULL(test, fence);
	if (is_64)
		dma_fence_init64(fence, &seqno_ops, 1, seqno);
	else
		dma_fence_init(fence, &seqno_ops, 1, seqno);
	return fence;
}

static const struct seqno_case {
	const char *name;
	bool is_64;
	u64 earlier, later;
} seqno_cases[] = {
	{ .name = "32 bits that wrap", .earlier = U32_MAX, .later = 0 },
	{ .name = "u64 number, 32 bits compared", .earlier = U32_MAX, .later = U32_MAX + 1ull },
	{ .name = "64 bits", .is_64 = true, .earlier = U32_MAX, .later = U32_MAX + 1ull },
	{ .name = "64 bits, far apart", .is_64 = true, .earlier = 1, .later = U64_MAX },
};

KUNIT_ARRAY_PARAM_DESC(seqno, seqno_cases, name);

/* A job waits for the later one only, in whatever order it gets them. */
static void drm_sched_seqno_dependency(struct kunit *test)
{
	const struct seqno_case *c = test->param_value;
	struct drm_mock_sched_entity *entity;
	struct drm_mock_scheduler *sched;
	struct drm_mock_sched_job *job;
	struct dma_fence *fence[2];
	unsigned int first, i;
	int err;

	sched = drm_mock_sched_new(test, MAX_SCHEDULE_TIMEOUT);
	entity = drm_mock_sched_entity_new(test, DRM_SCHED_PRIORITY_NORMAL, sched);
	fence[0] = new_fence(test, c->is_64, c->earlier);
	fence[1] = new_fence(test, c->is_64, c->later);

	for (first = 0; first < 2; first++) {
		job = drm_mock_sched_job_new(test, entity);
		for (i = 0; i < 2; i++) {
			err = drm_sched_job_add_dependency(&job->base,
							   dma_fence_get(fence[first ^ i]));
			KUNIT_EXPECT_EQ(test, err, 0);
		}
		KUNIT_EXPECT_PTR_EQ(test, xa_load(&job->base.dependencies, 0), fence[1]);
		KUNIT_EXPECT_NULL(test, xa_load(&job->base.dependencies, 1));
		drm_sched_job_cleanup(&job->base);
	}

	for (i = 0; i < 2; i++) {
		dma_fence_signal(fence[i]);
		dma_fence_put(fence[i]);
	}
	drm_mock_sched_entity_free(entity);
	drm_mock_sched_fini(sched);
}

static struct kunit_case drm_sched_seqno_tests[] = {
	KUNIT_CASE_PARAM(drm_sched_seqno_dependency, seqno_gen_params),
	{}
};

static struct kunit_suite drm_sched_seqno = {
	.name = "drm_sched_seqno_tests",
	.test_cases = drm_sched_seqno_tests,
};

kunit_test_suite(drm_sched_seqno);
