// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit tests for fences that outlive their scheduler. A driver frees a scheduler
 * when its last finished fence has signaled, and userspace keeps the fence.
 *
 * What can go wrong is a use-after-free, which needs KASAN to be seen. The cases
 * with a reader need two CPUs.
 */

#include <linux/completion.h>
#include <linux/delay.h>
#include <linux/jiffies.h>
#include <linux/kthread.h>
#include <linux/slab.h>

#include "sched_tests.h"

#define LIFETIME_NAME	"drm-mock-short-lived"

/* A scheduler with one job on the hardware. Everything is freed by hand. */
struct lifetime {
	struct drm_mock_scheduler *sched;
	struct drm_mock_sched_entity *entity;
	struct drm_mock_sched_job *job;
	char *name;
};

static void lifetime_create(struct kunit *test, struct lifetime *l)
{
	l->name = kstrdup(LIFETIME_NAME, GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, l->name);
	l->sched = drm_mock_sched_new_named(test, MAX_SCHEDULE_TIMEOUT, l->name);
	l->entity = drm_mock_sched_entity_new(test, DRM_SCHED_PRIORITY_NORMAL,
					      l->sched);
	l->job = drm_mock_sched_job_new(test, l->entity);
	drm_mock_sched_job_submit(l->job);
	KUNIT_ASSERT_TRUE(test, drm_mock_sched_job_wait_scheduled(l->job, HZ));
}

/* The driver destroys its context. There is no grace period in it. */
static void lifetime_destroy(struct kunit *test, struct lifetime *l)
{
	drm_mock_sched_entity_free(l->entity);
	drm_mock_sched_fini(l->sched);
	kunit_kfree(test, l->sched);
	kfree(l->name);
}

/* Byte by byte, so that KASAN sees it. The functions for strings hide from it. */
static void lifetime_copy(char *name, const char *from, size_t size)
{
	size_t i;

	for (i = 0; i < size - 1; i++) {
		name[i] = READ_ONCE(from[i]);
		if (!name[i])
			return;
	}
	name[i] = 0;
}

static void lifetime_read(struct dma_fence *fence, char *name, size_t size)
{
	const char __rcu *timeline;

	rcu_read_lock();
	timeline = dma_fence_timeline_name(fence);
	lifetime_copy(name, rcu_dereference(timeline), size);
	rcu_read_unlock();
}

static void drm_sched_lifetime_names(struct kunit *test)
{
	struct dma_fence *fence[2];
	struct lifetime l = {};
	unsigned int i;
	char name[32];

	lifetime_create(test, &l);
	fence[0] = dma_fence_get(&l.job->base.s_fence->scheduled);
	fence[1] = dma_fence_get(&l.job->base.s_fence->finished);

	lifetime_read(fence[1], name, sizeof(name));
	KUNIT_EXPECT_STREQ(test, name, LIFETIME_NAME);

	KUNIT_ASSERT_EQ(test, drm_mock_sched_advance(l.sched, 1), 1);
	KUNIT_ASSERT_TRUE(test, drm_mock_sched_job_wait_finished(l.job, HZ));
	lifetime_destroy(test, &l);

	for (i = 0; i < ARRAY_SIZE(fence); i++) {
		lifetime_read(fence[i], name, sizeof(name));
		KUNIT_EXPECT_STREQ(test, name, "signaled-timeline");
		KUNIT_EXPECT_EQ(test, dma_fence_get_status(fence[i]), 1);
		KUNIT_EXPECT_EQ(test, dma_fence_wait(fence[i], false), 0);
		dma_fence_set_deadline(fence[i], ktime_get());
		dma_fence_put(fence[i]);
	}
}

/* The scheduler goes away with the job on the hardware, and cancels it. */
static void drm_sched_lifetime_canceled(struct kunit *test)
{
	struct lifetime l = {};
	struct dma_fence *fence;
	char name[32];

	lifetime_create(test, &l);
	fence = dma_fence_get(&l.job->base.s_fence->finished);
	lifetime_destroy(test, &l);

	KUNIT_EXPECT_EQ(test, dma_fence_get_status(fence), -ECANCELED);
	lifetime_read(fence, name, sizeof(name));
	KUNIT_EXPECT_STREQ(test, name, "signaled-timeline");
	dma_fence_put(fence);
}

/*
 * The scheduler ends while an entity has a job that was not given to it yet, as if
 * the device was unbound under a client that waits for another one. The driver keeps
 * the scheduler for the entity. Nothing signals the fence any more.
 */
static void drm_sched_lifetime_queued(struct kunit *test)
{
	struct lifetime l = {};
	struct dma_fence *fence;
	char name[32];

	l.name = kstrdup(LIFETIME_NAME, GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, l.name);
	l.sched = drm_mock_sched_new_named(test, MAX_SCHEDULE_TIMEOUT, l.name);
	l.entity = drm_mock_sched_entity_new(test, DRM_SCHED_PRIORITY_NORMAL,
					     l.sched);
	drm_sched_wqueue_stop(&l.sched->base);
	l.job = drm_mock_sched_job_new(test, l.entity);
	drm_mock_sched_job_submit(l.job);
	fence = dma_fence_get(&l.job->base.s_fence->finished);

	drm_mock_sched_fini(l.sched);
	/* A name that was given to kfree_rcu() is gone after this. */
	kvfree_rcu_barrier();

	KUNIT_EXPECT_EQ(test, dma_fence_get_status(fence), 0);
	lifetime_read(fence, name, sizeof(name));
	KUNIT_EXPECT_STREQ(test, name, LIFETIME_NAME);

	/*
	 * Not of use to anybody, but its last reference must not complain. The name
	 * and the statistics of the entity are lost, as they would be in a driver.
	 */
	dma_fence_signal(&l.job->base.s_fence->scheduled);
	dma_fence_signal(fence);
	drm_sched_job_cleanup(&l.job->base);
	dma_fence_put(fence);
	kfree(l.name);
}

static const char *lifetime_foreign_name(struct dma_fence *fence)
{
	return "foreign";
}

static const struct dma_fence_ops lifetime_foreign_ops = {
	.get_driver_name = lifetime_foreign_name,
	.get_timeline_name = lifetime_foreign_name,
};

/*
 * A job waits for a fence of another device when its entity is killed, and the
 * scheduler ends. The memory of the scheduler stays, as that of a device does whose
 * buffers are still open. The name has to stay as long as the job has not finished.
 */
static void drm_sched_lifetime_killed(struct kunit *test)
{
	struct dma_fence *foreign, *fence;
	struct lifetime l = {};
	char name[32];

	foreign = kzalloc_obj(*foreign);
	KUNIT_ASSERT_NOT_NULL(test, foreign);
	dma_fence_init(foreign, &lifetime_foreign_ops,
		       dma_fence_context_alloc(1), 1);

	l.name = kstrdup(LIFETIME_NAME, GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, l.name);
	l.sched = drm_mock_sched_new_named(test, MAX_SCHEDULE_TIMEOUT, l.name);
	l.entity = drm_mock_sched_entity_new(test, DRM_SCHED_PRIORITY_NORMAL,
					     l.sched);
	l.job = drm_mock_sched_job_new(test, l.entity);
	KUNIT_ASSERT_EQ(test, 0,
			drm_sched_job_add_dependency(&l.job->base,
						     dma_fence_get(foreign)));
	drm_mock_sched_job_submit(l.job);
	fence = dma_fence_get(&l.job->base.s_fence->finished);

	/* Not drm_mock_sched_entity_free(), which waits for the job. */
	drm_sched_entity_fini(&l.entity->base);
	drm_mock_sched_fini(l.sched);
	kfree(l.name);
	kvfree_rcu_barrier();

	KUNIT_EXPECT_EQ(test, dma_fence_get_status(fence), 0);
	lifetime_read(fence, name, sizeof(name));
	KUNIT_EXPECT_STREQ(test, name, LIFETIME_NAME);

	dma_fence_signal(foreign);
	KUNIT_EXPECT_GT(test, dma_fence_wait_timeout(fence, false, 5 * HZ), 0L);
	KUNIT_EXPECT_EQ(test, dma_fence_get_status(fence), -ESRCH);
	/* Until the job is freed, which the scheduler has to be there for. */
	flush_work(&l.job->base.work);
	dma_fence_put(foreign);
	dma_fence_put(fence);
}

/*
 * A reader that got the name in time, and looks at it later, or that was about to
 * call the callback.
 */
struct lifetime_reader {
	struct kunit *test;
	struct dma_fence *fence;
	struct completion reading;
	bool freed;
	bool read_after_free;
	char name[32];
	char late_name[32];
};

static int lifetime_reader_thread(void *arg)
{
	struct lifetime_reader *reader = arg;
	const struct dma_fence_ops *ops;
	const char __rcu *timeline;
	unsigned int ms;

	current->kunit_test = reader->test;

	rcu_read_lock();
	ops = rcu_dereference(reader->fence->ops);
	timeline = dma_fence_timeline_name(reader->fence);
	complete(&reader->reading);
	for (ms = 0; ms < 10000 && !READ_ONCE(reader->freed); ms++)
		mdelay(1);
	reader->read_after_free = READ_ONCE(reader->freed);
	lifetime_copy(reader->name, rcu_dereference(timeline),
		      sizeof(reader->name));
	lifetime_copy(reader->late_name, ops->get_timeline_name(reader->fence),
		      sizeof(reader->late_name));
	rcu_read_unlock();

	while (!kthread_should_stop())
		schedule_timeout_interruptible(1);

	return 0;
}

static void drm_sched_lifetime_reader(struct kunit *test)
{
	struct lifetime_reader reader = { .test = test };
	struct task_struct *task;
	struct lifetime l = {};

	if (num_online_cpus() < 2)
		kunit_skip(test, "requires at least 2 CPUs");

	lifetime_create(test, &l);
	reader.fence = dma_fence_get(&l.job->base.s_fence->finished);

	init_completion(&reader.reading);
	task = kthread_run(lifetime_reader_thread, &reader, "drm-sched-reader");
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, task);
	wait_for_completion(&reader.reading);

	drm_mock_sched_advance(l.sched, 1);
	KUNIT_EXPECT_TRUE(test, drm_mock_sched_job_wait_finished(l.job, HZ));
	lifetime_destroy(test, &l);
	WRITE_ONCE(reader.freed, true);
	kthread_stop(task);

	KUNIT_EXPECT_TRUE(test, reader.read_after_free);
	KUNIT_EXPECT_STREQ(test, reader.name, LIFETIME_NAME);
	KUNIT_EXPECT_STREQ(test, reader.late_name, LIFETIME_NAME);
	dma_fence_put(reader.fence);
}

/* Names are read all the time, while schedulers come and go. */
#define LIFETIME_ROUNDS	200

struct lifetime_race {
	struct kunit *test;
	struct dma_fence __rcu *fence;
	atomic_t reads;
	atomic_t names;		/* reads that got the name of a scheduler */
	atomic_t bad;
};

static int lifetime_race_reader(void *arg)
{
	struct lifetime_race *race = arg;
	struct dma_fence *fence;
	char name[32];

	current->kunit_test = race->test;
	while (!kthread_should_stop()) {
		rcu_read_lock();
		fence = dma_fence_get_rcu_safe(&race->fence);
		rcu_read_unlock();
		if (fence) {
			lifetime_read(fence, name, sizeof(name));
			atomic_inc(&race->reads);
			if (!strcmp(name, LIFETIME_NAME))
				atomic_inc(&race->names);
			else if (strcmp(name, "signaled-timeline"))
				atomic_inc(&race->bad);
			dma_fence_put(fence);
		}
		cond_resched();
	}

	return 0;
}

/* The second of two reads began when the fence was there already. */
static void lifetime_let_read(struct lifetime_race *race)
{
	int reads = atomic_read(&race->reads);
	unsigned long timeout = jiffies + HZ / 5;

	while (atomic_read(&race->reads) - reads < 2 &&
	       time_before(jiffies, timeout))
		cond_resched();
}

static void lifetime_stop(void *task)
{
	kthread_stop(task);
}

static void drm_sched_lifetime_race(struct kunit *test)
{
	struct dma_fence *fence = NULL, *old;
	struct task_struct *reader;
	struct lifetime_race *race;
	struct lifetime l = {};
	unsigned int i;

	if (num_online_cpus() < 2)
		kunit_skip(test, "requires at least 2 CPUs");

	race = kunit_kzalloc(test, sizeof(*race), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, race);
	race->test = test;
	reader = kthread_run(lifetime_race_reader, race, "drm-sched-reader");
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, reader);
	KUNIT_ASSERT_EQ(test, 0, kunit_add_action_or_reset(test, lifetime_stop,
							   reader));

	for (i = 0; i < LIFETIME_ROUNDS; i++) {
		lifetime_create(test, &l);
		old = fence;
		fence = dma_fence_get(&l.job->base.s_fence->finished);
		rcu_assign_pointer(race->fence, fence);
		dma_fence_put(old);
		if (i % 4)
			udelay(i % 64);
		else
			lifetime_let_read(race);

		drm_mock_sched_advance(l.sched, 1);
		KUNIT_EXPECT_TRUE(test,
				  drm_mock_sched_job_wait_finished(l.job, HZ));
		lifetime_destroy(test, &l);
		if (READ_ONCE(test->status) == KUNIT_FAILURE)
			break;
	}

	kunit_release_action(test, lifetime_stop, reader);
	RCU_INIT_POINTER(race->fence, NULL);
	dma_fence_put(fence);

	kunit_info(test, "%u signals, %d reads, %d of them got the name of a scheduler\n",
		   i, atomic_read(&race->reads), atomic_read(&race->names));
	KUNIT_EXPECT_EQ(test, atomic_read(&race->bad), 0);

	/* A run in which nobody read a name proves nothing. */
	KUNIT_EXPECT_GT(test, atomic_read(&race->names), 0);
}

static struct kunit_case drm_sched_lifetime_tests[] = {
	KUNIT_CASE(drm_sched_lifetime_names),
	KUNIT_CASE(drm_sched_lifetime_canceled),
	KUNIT_CASE(drm_sched_lifetime_queued),
	KUNIT_CASE(drm_sched_lifetime_killed),
	KUNIT_CASE(drm_sched_lifetime_reader),
	KUNIT_CASE_SLOW(drm_sched_lifetime_race),
	{}
};

static struct kunit_suite drm_sched_lifetime = {
	.name = "drm_sched_lifetime_tests",
	.test_cases = drm_sched_lifetime_tests,
};

kunit_test_suite(drm_sched_lifetime);
