// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests for the lifetime of a dma_fence: what it may touch of its issuer,
 * and until when.
 *
 * A mock issuer keeps its names and, if the fence detaches, its ops table in one
 * heap allocation. It frees that as early as the contract in
 * dma-fence.h allows: one RCU grace period after the fence was signaled. Any
 * access after that is a use-after-free, which KASAN turns into a failure of
 * the case. Without KASAN most of them go unnoticed and only the results are
 * checked, and without "kasan_multi_shot" on the kernel command line only the
 * first one per boot is seen. The races need two CPUs.
 */

#include <kunit/test.h>
#include <linux/delay.h>
#include <linux/dma-fence.h>
#include <linux/dma-fence-array.h>
#include <linux/dma-fence-chain.h>
#include <linux/file.h>
#include <linux/kthread.h>
#include <linux/poll.h>
#include <linux/rcupdate.h>
#include <linux/sched/signal.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/sync_file.h>

/* The kinds of issuer that there are. */
struct issuer_kind {
	const char *name;
	bool release;		/* has ->release(), never detaches */
	bool wait;		/* has ->wait(), never detaches */
};

static const struct issuer_kind issuer_kinds[] = {
	{ .name = "detaching" },
	{ .name = "release", .release = true },
	{ .name = "wait", .wait = true },
};

KUNIT_ARRAY_PARAM_DESC(issuer_kind, issuer_kinds, name);

#define RACE_ROUNDS	400
#define RACE_SPINS	2000

/* How often things happened. Outlives the issuers that count here. */
struct power {
	atomic_t signals;
	atomic_t reads;
	atomic_t callbacks;	/* a name callback was called */
	atomic_t crossed;	/* the fence signaled while it ran */
	atomic_t dead;		/* reads after the issuer was freed */
};

struct mock_issuer {
	char driver_name[32];
	char timeline_name[32];
	struct dma_fence_ops ops;
	bool done;		/* what ->signaled() says */
	atomic_t inside;	/* calls of slow name callbacks */
	ktime_t deadline;
	struct power *power;
	bool enabled;
};

struct mock_fence {
	struct dma_fence base;	/* first, so that it is freed by default */
	struct mock_issuer *issuer;
};

static struct mock_issuer *fence_issuer(struct dma_fence *fence)
{
	return container_of(fence, struct mock_fence, base)->issuer;
}

static const char *mock_name(struct dma_fence *fence, const char *name)
{
	struct mock_issuer *issuer = fence_issuer(fence);
	unsigned int i;

	if (!issuer->power)
		return name;

	/* A slow callback, so that the fence signals under it. */
	atomic_inc(&issuer->power->callbacks);
	atomic_inc(&issuer->inside);
	for (i = 0; i < RACE_SPINS; i++) {
		if (test_bit(DMA_FENCE_FLAG_SIGNALED_BIT, &fence->flags)) {
			atomic_inc(&issuer->power->crossed);
			break;
		}
		cpu_relax();
	}

	return name;
}

static const char *mock_driver_name(struct dma_fence *fence)
{
	return mock_name(fence, fence_issuer(fence)->driver_name);
}

static const char *mock_timeline_name(struct dma_fence *fence)
{
	return mock_name(fence, fence_issuer(fence)->timeline_name);
}

static bool mock_enable_signaling(struct dma_fence *fence)
{
	fence_issuer(fence)->enabled = true;
	return true;
}

static bool mock_signaled(struct dma_fence *fence)
{
	/* Pairs with issuer_done(): whoever signals has the error as well. */
	return smp_load_acquire(&fence_issuer(fence)->done);
}

static void issuer_done(struct mock_issuer *issuer)
{
	/* Pairs with mock_signaled(). */
	smp_store_release(&issuer->done, true);
}

static void mock_set_deadline(struct dma_fence *fence, ktime_t deadline)
{
	WRITE_ONCE(fence_issuer(fence)->deadline, deadline);
}

static signed long mock_wait(struct dma_fence *fence, bool intr,
			     signed long timeout)
{
	/* What radeon and qxl do: look at the device first. */
	if (READ_ONCE(fence_issuer(fence)->done))
		return timeout ? timeout : 1;

	return dma_fence_default_wait(fence, intr, timeout);
}

static void mock_release(struct dma_fence *fence)
{
	dma_fence_free(fence);
}

#define MOCK_OPS					\
	.get_driver_name = mock_driver_name,		\
	.get_timeline_name = mock_timeline_name,	\
	.enable_signaling = mock_enable_signaling,	\
	.signaled = mock_signaled,			\
	.set_deadline = mock_set_deadline

static const struct dma_fence_ops detaching_ops = { MOCK_OPS };

/* These two stay with the fence, so their table has to stay as well. */
static const struct dma_fence_ops release_ops = {
	MOCK_OPS,
	.release = mock_release,
};

static const struct dma_fence_ops wait_ops = {
	MOCK_OPS,
	.wait = mock_wait,
};

static struct mock_issuer *issuer_alloc(void)
{
	struct mock_issuer *issuer;

	issuer = kzalloc_obj(*issuer);
	if (!issuer)
		return NULL;

	issuer->ops = detaching_ops;
	strscpy(issuer->driver_name, "mock-driver");
	strscpy(issuer->timeline_name, "mock-timeline");

	return issuer;
}

static struct mock_issuer *issuer_create(struct kunit *test)
{
	struct mock_issuer *issuer = issuer_alloc();

	KUNIT_ASSERT_NOT_NULL(test, issuer);
	return issuer;
}

static void fence_init(struct mock_fence *fence, struct mock_issuer *issuer,
		       const struct issuer_kind *kind)
{
	const struct dma_fence_ops *ops = &issuer->ops;

	if (kind->release)
		ops = &release_ops;
	else if (kind->wait)
		ops = &wait_ops;

	fence->issuer = issuer;
	dma_fence_init(&fence->base, ops, dma_fence_context_alloc(1), 1);
}

static struct dma_fence *fence_alloc(struct mock_issuer *issuer,
				     const struct issuer_kind *kind)
{
	struct mock_fence *fence;

	fence = kzalloc_obj(*fence);
	if (!fence)
		return NULL;
	fence_init(fence, issuer, kind);

	return &fence->base;
}

static struct dma_fence *fence_create(struct kunit *test,
				      struct mock_issuer *issuer,
				      const struct issuer_kind *kind)
{
	struct dma_fence *fence = fence_alloc(issuer, kind);

	KUNIT_ASSERT_NOT_NULL(test, fence);
	return fence;
}

/*
 * The issuer has signaled its fences and waits for the readers it may still
 * have. The expedited variant is a grace period like any other.
 */
static void issuer_die(struct mock_issuer *issuer)
{
	synchronize_rcu_expedited();
	kfree(issuer);
}

/* A signaled fence whose issuer is gone. */
static struct dma_fence *orphan_create(struct kunit *test)
{
	struct mock_issuer *issuer = issuer_create(test);
	struct dma_fence *fence = fence_create(test, issuer, test->param_value);

	dma_fence_signal(fence);
	issuer_die(issuer);

	return fence;
}

static void orphan_get_status(struct kunit *test)
{
	struct dma_fence *fence = orphan_create(test);

	KUNIT_EXPECT_EQ(test, dma_fence_get_status(fence), 1);
	dma_fence_put(fence);
}

static void orphan_get_status_error(struct kunit *test)
{
	struct mock_issuer *issuer = issuer_create(test);
	struct dma_fence *fence = fence_create(test, issuer, test->param_value);

	dma_fence_set_error(fence, -EIO);
	dma_fence_signal(fence);
	issuer_die(issuer);

	KUNIT_EXPECT_EQ(test, dma_fence_get_status(fence), -EIO);
	dma_fence_put(fence);
}

static void orphan_is_signaled(struct kunit *test)
{
	struct dma_fence *fence = orphan_create(test);

	KUNIT_EXPECT_TRUE(test, dma_fence_is_signaled(fence));
	dma_fence_put(fence);
}

struct names {
	char driver[32];
	char timeline[32];
};

static void read_names(struct dma_fence *fence, struct names *names)
{
	const char __rcu *timeline;
	const char __rcu *driver;

	rcu_read_lock();
	driver = dma_fence_driver_name(fence);
	timeline = dma_fence_timeline_name(fence);
	strscpy(names->driver, rcu_dereference(driver));
	strscpy(names->timeline, rcu_dereference(timeline));
	rcu_read_unlock();
}

static void orphan_names(struct kunit *test)
{
	struct dma_fence *fence = orphan_create(test);
	struct names names;

	read_names(fence, &names);
	KUNIT_EXPECT_STREQ(test, names.driver, "detached-driver");
	KUNIT_EXPECT_STREQ(test, names.timeline, "signaled-timeline");
	dma_fence_put(fence);
}

/*
 * What a reader can find while a fence signals: the ops are detached, and the flag
 * is not set yet or not visible. Done by hand.
 */
static void names_of_detached(struct kunit *test)
{
	struct mock_issuer *issuer = issuer_create(test);
	struct dma_fence *fence = fence_create(test, issuer, test->param_value);
	const struct dma_fence_ops *ops;
	struct names names;

	ops = unrcu_pointer(xchg(&fence->ops, NULL));
	read_names(fence, &names);
	KUNIT_EXPECT_STREQ(test, names.driver, "detached-driver");
	KUNIT_EXPECT_STREQ(test, names.timeline, "signaled-timeline");

	rcu_assign_pointer(fence->ops, ops);
	dma_fence_signal(fence);
	issuer_die(issuer);
	dma_fence_put(fence);
}

static void orphan_timestamp(struct kunit *test)
{
	const ktime_t time = ktime_get();
	struct mock_issuer *issuer = issuer_create(test);
	struct dma_fence *fence = fence_create(test, issuer, test->param_value);

	dma_fence_signal_timestamp(fence, time);
	issuer_die(issuer);

	KUNIT_EXPECT_EQ(test, dma_fence_timestamp(fence), time);
	dma_fence_put(fence);
}

struct counted_cb {
	struct dma_fence_cb base;
	unsigned int calls;
	int error;
};

static void count_callback(struct dma_fence *fence, struct dma_fence_cb *cb)
{
	struct counted_cb *counted = container_of(cb, struct counted_cb, base);

	counted->calls++;
	counted->error = fence->error;
}

static void orphan_add_callback(struct kunit *test)
{
	struct dma_fence *fence = orphan_create(test);
	struct counted_cb cb = {};

	KUNIT_EXPECT_EQ(test, -ENOENT,
			dma_fence_add_callback(fence, &cb.base, count_callback));
	KUNIT_EXPECT_TRUE(test, list_empty(&cb.base.node));
	KUNIT_EXPECT_FALSE(test, dma_fence_remove_callback(fence, &cb.base));
	KUNIT_EXPECT_EQ(test, cb.calls, 0);
	dma_fence_put(fence);
}

static void orphan_remove_callback(struct kunit *test)
{
	struct mock_issuer *issuer = issuer_create(test);
	struct dma_fence *fence = fence_create(test, issuer, test->param_value);
	struct counted_cb cb = {};

	KUNIT_EXPECT_EQ(test, 0,
			dma_fence_add_callback(fence, &cb.base, count_callback));
	KUNIT_EXPECT_TRUE(test, issuer->enabled);
	dma_fence_signal(fence);
	issuer_die(issuer);

	KUNIT_EXPECT_FALSE(test, dma_fence_remove_callback(fence, &cb.base));
	KUNIT_EXPECT_EQ(test, cb.calls, 1);
	dma_fence_put(fence);
}

static void orphan_enable_signaling(struct kunit *test)
{
	struct dma_fence *fence = orphan_create(test);

	dma_fence_enable_signaling(fence);
	KUNIT_EXPECT_TRUE(test, dma_fence_is_signaled(fence));
	dma_fence_put(fence);
}

static void orphan_signal(struct kunit *test)
{
	struct dma_fence *fence = orphan_create(test);
	ktime_t time = dma_fence_timestamp(fence);

	dma_fence_signal(fence);
	KUNIT_EXPECT_EQ(test, dma_fence_timestamp(fence), time);
	dma_fence_put(fence);
}

static void orphan_signal_timestamp(struct kunit *test)
{
	struct dma_fence *fence = orphan_create(test);
	ktime_t time = dma_fence_timestamp(fence);

	dma_fence_signal_timestamp(fence, ktime_add_ns(time, 1));
	KUNIT_EXPECT_EQ(test, dma_fence_timestamp(fence), time);
	dma_fence_put(fence);
}

static void orphan_check_and_signal(struct kunit *test)
{
	struct dma_fence *fence = orphan_create(test);

	KUNIT_EXPECT_TRUE(test, dma_fence_check_and_signal(fence));
	dma_fence_put(fence);
}

static void orphan_wait(struct kunit *test)
{
	struct dma_fence *fence = orphan_create(test);

	KUNIT_EXPECT_EQ(test, dma_fence_wait(fence, false), 0);
	KUNIT_EXPECT_EQ(test, dma_fence_wait(fence, true), 0);
	dma_fence_put(fence);
}

static void orphan_wait_timeout(struct kunit *test)
{
	struct dma_fence *fence = orphan_create(test);

	KUNIT_EXPECT_EQ(test, dma_fence_wait_timeout(fence, false, 0), 1);
	KUNIT_EXPECT_EQ(test, dma_fence_wait_timeout(fence, true, 7), 7);
	dma_fence_put(fence);
}

static void orphan_default_wait(struct kunit *test)
{
	struct dma_fence *fence = orphan_create(test);

	KUNIT_EXPECT_EQ(test, dma_fence_default_wait(fence, false, 7), 7);
	dma_fence_put(fence);
}

static void orphan_wait_any(struct kunit *test)
{
	struct mock_issuer *issuer = issuer_create(test);
	struct dma_fence *pending = fence_create(test, issuer, &issuer_kinds[0]);
	struct dma_fence *fences[2] = { pending, orphan_create(test) };
	u32 first = 0;

	KUNIT_EXPECT_GT(test, dma_fence_wait_any_timeout(fences, 2, false, HZ,
							 &first), 0);
	KUNIT_EXPECT_EQ(test, first, 1);
	KUNIT_EXPECT_EQ(test, dma_fence_wait_any_timeout(fences, 2, false, 0,
							 &first), 1);

	dma_fence_signal(pending);
	issuer_die(issuer);
	dma_fence_put(fences[0]);
	dma_fence_put(fences[1]);
}

static void orphan_set_deadline(struct kunit *test)
{
	struct dma_fence *fence = orphan_create(test);

	dma_fence_set_deadline(fence, ktime_get());
	dma_fence_put(fence);
}

static void orphan_describe(struct kunit *test)
{
	struct dma_fence *fence = orphan_create(test);
	char buf[128] = {};
	struct seq_file seq = { .buf = buf, .size = sizeof(buf) };

	dma_fence_describe(fence, &seq);
	KUNIT_EXPECT_GT(test, seq.count, 0);
	KUNIT_EXPECT_NULL(test, strstr(buf, "mock"));
	dma_fence_put(fence);
}

static bool polls_signaled(struct sync_file *sync_file)
{
	return vfs_poll(sync_file->file, NULL) & EPOLLIN;
}

/* poll() arms a callback, close() removes it, long after the fence signaled. */
static void orphan_sync_file(struct kunit *test)
{
	struct sync_file *polled, *polled_late, *untouched;
	struct mock_issuer *issuer;
	struct dma_fence *fence;

	if (!IS_ENABLED(CONFIG_SYNC_FILE))
		kunit_skip(test, "requires CONFIG_SYNC_FILE");

	issuer = issuer_create(test);
	fence = fence_create(test, issuer, test->param_value);
	polled = sync_file_create(fence);
	polled_late = sync_file_create(fence);
	untouched = sync_file_create(fence);
	KUNIT_ASSERT_NOT_NULL(test, polled);
	KUNIT_ASSERT_NOT_NULL(test, polled_late);
	KUNIT_ASSERT_NOT_NULL(test, untouched);

	KUNIT_EXPECT_FALSE(test, polls_signaled(polled));
	dma_fence_signal(fence);
	issuer_die(issuer);
	dma_fence_put(fence);

	KUNIT_EXPECT_TRUE(test, polls_signaled(polled));
	KUNIT_EXPECT_TRUE(test, polls_signaled(polled_late));

	/* What close() does. From a kthread, fput() would leave it to a worker. */
	__fput_sync(polled->file);
	__fput_sync(polled_late->file);
	__fput_sync(untouched->file);
}

static void orphan_array(struct kunit *test)
{
	struct mock_issuer *issuer = issuer_create(test);
	struct dma_fence **fences = kcalloc(2, sizeof(*fences), GFP_KERNEL);
	struct dma_fence_array *array;

	KUNIT_ASSERT_NOT_NULL(test, fences);
	fences[0] = fence_create(test, issuer, test->param_value);
	fences[1] = orphan_create(test);
	dma_fence_get(fences[0]);
	array = dma_fence_array_create(2, fences, dma_fence_context_alloc(1), 1);
	KUNIT_ASSERT_NOT_NULL(test, array);

	dma_fence_enable_signaling(&array->base);
	KUNIT_EXPECT_EQ(test, dma_fence_get_status(&array->base), 0);
	dma_fence_signal(fences[0]);
	dma_fence_put(fences[0]);
	issuer_die(issuer);

	KUNIT_EXPECT_EQ(test, dma_fence_wait(&array->base, false), 0);
	KUNIT_EXPECT_EQ(test, dma_fence_get_status(&array->base), 1);
	KUNIT_EXPECT_EQ(test, dma_fence_get_status(dma_fence_array_first(&array->base)), 1);
	dma_fence_set_deadline(&array->base, ktime_get());
	dma_fence_put(&array->base);
}

static void orphan_chain(struct kunit *test)
{
	struct mock_issuer *issuer = issuer_create(test);
	struct dma_fence_chain *first = dma_fence_chain_alloc();
	struct dma_fence_chain *second = dma_fence_chain_alloc();
	struct dma_fence *fence;

	KUNIT_ASSERT_NOT_NULL(test, first);
	KUNIT_ASSERT_NOT_NULL(test, second);
	fence = fence_create(test, issuer, test->param_value);
	dma_fence_chain_init(first, NULL, orphan_create(test), 1);
	dma_fence_chain_init(second, &first->base, dma_fence_get(fence), 2);

	dma_fence_enable_signaling(&second->base);
	KUNIT_EXPECT_EQ(test, dma_fence_get_status(&second->base), 0);
	dma_fence_signal(fence);
	dma_fence_put(fence);
	issuer_die(issuer);

	KUNIT_EXPECT_EQ(test, dma_fence_wait(&second->base, false), 0);
	KUNIT_EXPECT_EQ(test, dma_fence_get_status(&second->base), 1);
	dma_fence_set_deadline(&second->base, ktime_get());
	dma_fence_put(&second->base);
}

/* Somebody else notices through ->signaled() that the fence is done. */
static void orphan_signaled_by_consumer(struct kunit *test)
{
	struct mock_issuer *issuer = issuer_create(test);
	struct dma_fence *fence = fence_create(test, issuer, test->param_value);
	struct counted_cb cb = {};

	KUNIT_EXPECT_EQ(test, 0,
			dma_fence_add_callback(fence, &cb.base, count_callback));
	issuer_done(issuer);
	KUNIT_EXPECT_EQ(test, dma_fence_get_status(fence), 1);
	KUNIT_EXPECT_EQ(test, cb.calls, 1);
	dma_fence_signal(fence);
	issuer_die(issuer);

	KUNIT_EXPECT_FALSE(test, dma_fence_remove_callback(fence, &cb.base));
	dma_fence_put(fence);
}

/* The last reference is lost before the fence is signaled, a bug elsewhere. */
static void released_unsignaled(struct kunit *test)
{
	struct mock_issuer *issuer = issuer_create(test);
	struct dma_fence *fence = fence_create(test, issuer, test->param_value);
	struct counted_cb cb = {};

	KUNIT_EXPECT_EQ(test, 0,
			dma_fence_add_callback(fence, &cb.base, count_callback));
	kunit_warning_suppress(test) {
		dma_fence_put(fence);
		KUNIT_EXPECT_SUPPRESSED_WARNING_COUNT(test, 1);
	}
	issuer_die(issuer);

	KUNIT_EXPECT_EQ(test, cb.calls, 1);
	KUNIT_EXPECT_EQ(test, cb.error, -EDEADLK);
}

/* With nobody dead: the result of a wait is what it has always been. */
static void wait_timed_out(struct kunit *test)
{
	struct mock_issuer *issuer = issuer_create(test);
	struct dma_fence *fence = fence_create(test, issuer, test->param_value);

	KUNIT_EXPECT_EQ(test, dma_fence_wait_timeout(fence, false, 0), 0);
	KUNIT_EXPECT_EQ(test, dma_fence_wait_timeout(fence, false, 1), 0);
	KUNIT_EXPECT_TRUE(test, list_empty(&fence->cb_list));
	dma_fence_signal(fence);
	issuer_die(issuer);
	dma_fence_put(fence);
}

/*
 * The memory of a fence becomes the next one, while somebody who looked for the
 * old one has its lock.
 */
static void reinit_keeps_lock(struct kunit *test)
{
	struct mock_issuer *issuer = issuer_create(test);
	struct mock_fence *fence = kzalloc_obj(*fence);
	struct counted_cb cb = {};
	unsigned long flags;
	unsigned int life;

	KUNIT_ASSERT_NOT_NULL(test, fence);
	fence->issuer = issuer;
	dma_fence_init_once(&fence->base, &issuer->ops);

	for (life = 1; life <= 3; life++) {
		spin_lock_irqsave(&fence->base.lock, flags);
		dma_fence_reinit(&fence->base, &issuer->ops, 10 + life, life);
		if (IS_ENABLED(CONFIG_SMP))
			KUNIT_EXPECT_FALSE(test, spin_trylock(&fence->base.lock));
		spin_unlock_irqrestore(&fence->base.lock, flags);

		KUNIT_EXPECT_FALSE(test, dma_fence_is_signaled(&fence->base));
		KUNIT_EXPECT_EQ(test, fence->base.context, 10 + life);
		KUNIT_EXPECT_EQ(test, fence->base.seqno, life);
		KUNIT_EXPECT_EQ(test, kref_read(&fence->base.refcount), 1);
		KUNIT_EXPECT_EQ(test, 0, dma_fence_add_callback(&fence->base,
								&cb.base,
								count_callback));
		dma_fence_set_error(&fence->base, -EIO);
		dma_fence_signal(&fence->base);
		KUNIT_EXPECT_EQ(test, cb.calls, life);
		KUNIT_EXPECT_EQ(test, dma_fence_get_status(&fence->base), -EIO);
	}
	issuer_die(issuer);
	dma_fence_put(&fence->base);
}

struct waiter {
	struct kunit *test;
	struct dma_fence *fence;
	struct completion started;
	signed long ret;
};

static int interrupted_waiter(void *arg)
{
	struct waiter *waiter = arg;

	current->kunit_test = waiter->test;
	allow_signal(SIGUSR1);
	complete(&waiter->started);
	waiter->ret = dma_fence_wait_timeout(waiter->fence, true, 10 * HZ);
	while (!kthread_should_stop()) {
		flush_signals(current);
		schedule_timeout_interruptible(1);
	}

	return 0;
}

static void wait_interrupted(struct kunit *test)
{
	struct mock_issuer *issuer = issuer_create(test);
	struct waiter waiter = {
		.test = test,
		.fence = fence_create(test, issuer, test->param_value),
	};
	struct task_struct *task;

	init_completion(&waiter.started);
	task = kthread_run(interrupted_waiter, &waiter, "dma-fence-waiter");
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, task);
	wait_for_completion(&waiter.started);
	send_sig(SIGUSR1, task, 1);
	kthread_stop(task);

	KUNIT_EXPECT_EQ(test, waiter.ret, -ERESTARTSYS);
	KUNIT_EXPECT_TRUE(test, list_empty(&waiter.fence->cb_list));
	dma_fence_signal(waiter.fence);
	issuer_die(issuer);
	dma_fence_put(waiter.fence);
}

/*
 * Barriers against a callback that is running on another CPU. One thread
 * signals the fence, and a callback takes its time. Whoever is to wait for
 * callbacks must not come back before it is done.
 */
struct slow_signal {
	struct kunit *test;
	struct mock_issuer *issuer;
	struct dma_fence *fence;
	struct task_struct *task;
	struct dma_fence_cb cb;
	unsigned int ms;	/* how long the callback takes at most */
	bool for_sleeper;	/* signals once somebody waits as well */
	bool entered, leave, done, slept;
};

static void slow_callback(struct dma_fence *fence, struct dma_fence_cb *cb)
{
	struct slow_signal *slow = container_of(cb, struct slow_signal, cb);
	unsigned int i;

	WRITE_ONCE(slow->entered, true);
	for (i = 0; i < slow->ms && !READ_ONCE(slow->leave); i++)
		mdelay(1);
	WRITE_ONCE(slow->done, true);
}

static bool has_sleeper(struct dma_fence *fence)
{
	unsigned long flags;
	bool ret;

	dma_fence_lock_irqsave(fence, flags);
	ret = !list_is_singular(&fence->cb_list);
	dma_fence_unlock_irqrestore(fence, flags);

	return ret;
}

static int slow_signaler(void *arg)
{
	struct slow_signal *slow = arg;
	unsigned int ms;

	current->kunit_test = slow->test;
	if (slow->for_sleeper) {
		for (ms = 0; ms < 10000 && !has_sleeper(slow->fence); ms++)
			fsleep(1000);
		slow->slept = has_sleeper(slow->fence);
	}
	dma_fence_signal(slow->fence);
	while (!kthread_should_stop())
		schedule_timeout_interruptible(1);

	return 0;
}

/* The signaler gets a CPU of its own, as it will not give it away for a while. */
static void slow_signal_start(struct kunit *test, struct slow_signal *slow)
{
	unsigned int cpu;

	if (num_online_cpus() < 2)
		kunit_skip(test, "requires at least 2 CPUs");

	slow->test = test;
	slow->issuer = issuer_create(test);
	slow->fence = fence_create(test, slow->issuer, test->param_value);
	KUNIT_ASSERT_EQ(test, 0, dma_fence_add_callback(slow->fence, &slow->cb,
							slow_callback));
	slow->task = kthread_create(slow_signaler, slow, "dma-fence-signaler");
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, slow->task);

	migrate_disable();
	cpu = cpumask_any_but(cpu_online_mask, smp_processor_id());
	kthread_bind(slow->task, cpu);
}

static void slow_signal_run(struct slow_signal *slow)
{
	wake_up_process(slow->task);
	while (!READ_ONCE(slow->entered))
		cond_resched();
}

static void slow_signal_finish(struct slow_signal *slow)
{
	migrate_enable();
	kthread_stop(slow->task);
	issuer_die(slow->issuer);
	dma_fence_put(slow->fence);
}

static void barrier_remove_callback(struct kunit *test)
{
	struct slow_signal slow = { .ms = 20 };

	slow_signal_start(test, &slow);
	slow_signal_run(&slow);
	KUNIT_EXPECT_FALSE(test, dma_fence_remove_callback(slow.fence, &slow.cb));
	KUNIT_EXPECT_TRUE(test, READ_ONCE(slow.done));
	slow_signal_finish(&slow);
}

static void barrier_wait(struct kunit *test)
{
	struct slow_signal slow = { .ms = 20 };

	slow_signal_start(test, &slow);
	slow_signal_run(&slow);
	KUNIT_EXPECT_EQ(test, dma_fence_wait(slow.fence, false), 0);
	KUNIT_EXPECT_TRUE(test, READ_ONCE(slow.done));
	slow_signal_finish(&slow);
}

static void barrier_signal(struct kunit *test)
{
	struct slow_signal slow = { .ms = 20 };

	slow_signal_start(test, &slow);
	slow_signal_run(&slow);
	dma_fence_signal(slow.fence);
	KUNIT_EXPECT_TRUE(test, READ_ONCE(slow.done));
	slow_signal_finish(&slow);
}

/* The sleeper's own callback is first on the list, the slow one comes after. */
static void barrier_sleeping_wait(struct kunit *test)
{
	struct slow_signal slow = { .ms = 20, .for_sleeper = true };

	slow_signal_start(test, &slow);
	wake_up_process(slow.task);
	KUNIT_EXPECT_EQ(test, dma_fence_wait(slow.fence, false), 0);
	KUNIT_EXPECT_TRUE(test, READ_ONCE(slow.done));
	KUNIT_EXPECT_TRUE(test, slow.slept);
	slow_signal_finish(&slow);
}

/*
 * A signaler without a reference, as an interrupt handler that finds the fence on
 * a list may be, and at the same time the last reference is dropped. The moment
 * before the flag is set is too short to hit, so it is done by hand: the ops are
 * detached, and the timestamp has replaced the list.
 */
static int reference_dropper(void *arg)
{
	struct slow_signal *slow = arg;

	current->kunit_test = slow->test;
	WRITE_ONCE(slow->entered, true);
	while (!READ_ONCE(slow->leave))
		cpu_relax();
	dma_fence_put(slow->fence);
	WRITE_ONCE(slow->done, true);
	while (!kthread_should_stop())
		schedule_timeout_interruptible(1);

	return 0;
}

static void released_while_signaling(struct kunit *test)
{
	struct slow_signal slow = { .test = test };
	const struct issuer_kind *kind = test->param_value;
	struct counted_cb cb = {};
	unsigned long flags;
	bool waited;

	if (num_online_cpus() < 2)
		kunit_skip(test, "requires at least 2 CPUs");

	slow.issuer = issuer_create(test);
	slow.fence = fence_create(test, slow.issuer, kind);
	KUNIT_ASSERT_EQ(test, 0, dma_fence_add_callback(slow.fence, &cb.base,
							count_callback));
	slow.task = kthread_create(reference_dropper, &slow, "dma-fence-dropper");
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, slow.task);

	kunit_warning_suppress(test) {
		migrate_disable();
		kthread_bind(slow.task, cpumask_any_but(cpu_online_mask,
							smp_processor_id()));
		slow_signal_run(&slow);
		rcu_read_lock();
		dma_fence_lock_irqsave(slow.fence, flags);
		list_del_init(&cb.base.node);
		slow.fence->timestamp = ktime_get();
		if (!kind->release && !kind->wait)
			RCU_INIT_POINTER(slow.fence->ops, NULL);

		WRITE_ONCE(slow.leave, true);
		mdelay(5);
		waited = !READ_ONCE(slow.done);
		set_bit(DMA_FENCE_FLAG_SIGNALED_BIT, &slow.fence->flags);
		dma_fence_unlock_irqrestore(slow.fence, flags);
		rcu_read_unlock();
		migrate_enable();

		kthread_stop(slow.task);
		KUNIT_EXPECT_SUPPRESSED_WARNING_COUNT(test, 0);
	}
	KUNIT_EXPECT_TRUE(test, waited);
	issuer_die(slow.issuer);
}

/* Sees the fence pending, and gets its lock when it has signaled. */
static int latecomer(void *arg)
{
	struct slow_signal *slow = arg;
	struct counted_cb cb = {};

	current->kunit_test = slow->test;
	WRITE_ONCE(slow->entered, true);
	while (!READ_ONCE(slow->leave))
		cpu_relax();

	slow->slept = !dma_fence_test_signaled_flag(slow->fence);
	switch (slow->ms % 3) {
	case 0:
		KUNIT_EXPECT_EQ(slow->test, -ENOENT,
				dma_fence_add_callback(slow->fence, &cb.base,
						       count_callback));
		break;
	case 1:
		KUNIT_EXPECT_EQ(slow->test, 0, dma_fence_wait(slow->fence, true));
		break;
	case 2:
		dma_fence_enable_signaling(slow->fence);
		break;
	}
	KUNIT_EXPECT_EQ(slow->test, cb.calls, 0);
	while (!kthread_should_stop())
		schedule_timeout_interruptible(1);

	return 0;
}

static void signaled_before_lock(struct kunit *test)
{
	unsigned long flags, end = jiffies + 10 * HZ;
	unsigned int round, seen[3] = {};

	if (num_online_cpus() < 2)
		kunit_skip(test, "requires at least 2 CPUs");

	for (round = 0; !(seen[0] && seen[1] && seen[2]) && time_before(jiffies, end);
	     round++) {
		struct slow_signal slow = { .test = test, .ms = round };

		slow.issuer = issuer_create(test);
		slow.fence = fence_create(test, slow.issuer, test->param_value);
		slow.task = kthread_create(latecomer, &slow, "dma-fence-latecomer");
		KUNIT_ASSERT_NOT_ERR_OR_NULL(test, slow.task);

		migrate_disable();
		kthread_bind(slow.task, cpumask_any_but(cpu_online_mask,
							smp_processor_id()));
		slow_signal_run(&slow);
		dma_fence_lock_irqsave(slow.fence, flags);
		WRITE_ONCE(slow.leave, true);
		mdelay(2);
		dma_fence_signal_locked(slow.fence);
		dma_fence_unlock_irqrestore(slow.fence, flags);
		migrate_enable();

		kthread_stop(slow.task);
		KUNIT_EXPECT_FALSE(test, slow.issuer->enabled);
		seen[round % 3] += slow.slept;
		issuer_die(slow.issuer);
		dma_fence_put(slow.fence);
	}

	/* Each of the three was late at least once, unless the CPUs take turns. */
	if (!(seen[0] && seen[1] && seen[2]) && test->status == KUNIT_SUCCESS)
		kunit_mark_skipped(test, "nobody came between the signal and its lock");
}

/*
 * The status tells that the fence is signaled, not that its callbacks have
 * returned, and does not wait for them.
 */
static void status_does_not_wait(struct kunit *test)
{
	struct slow_signal slow = { .ms = 2000 };

	slow_signal_start(test, &slow);
	slow_signal_run(&slow);
	KUNIT_EXPECT_EQ(test, dma_fence_get_status(slow.fence), 1);
	KUNIT_EXPECT_FALSE(test, READ_ONCE(slow.done));
	WRITE_ONCE(slow.leave, true);
	slow_signal_finish(&slow);
}

/*
 * xe keeps fences on the stack, and the stack frame is gone as soon as the wait
 * returns. Here it is memory that is freed at once, so that KASAN sees the
 * signaler if it comes late.
 */
struct owned_fence {
	struct kunit *test;
	struct dma_fence *fence;
};

static int owned_fence_signaler(void *arg)
{
	struct owned_fence *owned = arg;
	struct dma_fence *fence;

	current->kunit_test = owned->test;
	while (!kthread_should_stop()) {
		fence = xchg(&owned->fence, NULL);
		if (fence)
			dma_fence_signal(fence);
		else
			cond_resched();
	}

	return 0;
}

static void owned_fence_freed_after_wait(struct kunit *test)
{
	struct owned_fence owned = { .test = test };
	struct mock_issuer *issuer;
	struct mock_fence *fence;
	struct task_struct *task;
	unsigned int i;

	if (num_online_cpus() < 2)
		kunit_skip(test, "requires at least 2 CPUs");

	issuer = issuer_create(test);
	task = kthread_run(owned_fence_signaler, &owned, "dma-fence-signaler");
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, task);

	for (i = 0; i < 5000; i++) {
		fence = kzalloc_obj(*fence);
		if (!fence)
			break;
		fence_init(fence, issuer, test->param_value);
		xchg(&owned.fence, &fence->base);
		/* Sometimes the fence is signaled before, sometimes not. */
		if (i & 1)
			while (!dma_fence_test_signaled_flag(&fence->base))
				cond_resched();
		dma_fence_wait(&fence->base, false);
		kfree(fence);
	}
	KUNIT_EXPECT_EQ(test, i, 5000);

	kthread_stop(task);
	issuer_die(issuer);
}

/*
 * The same with a signaler that has signaled under the lock and keeps the lock
 * for a while, which is part of the memory that the waiter is about to free.
 */
static int owned_fence_slow_signaler(void *arg)
{
	struct slow_signal *slow = arg;
	spinlock_t *lock = &slow->fence->lock;
	unsigned long flags;

	current->kunit_test = slow->test;
	spin_lock_irqsave(lock, flags);
	dma_fence_signal_locked(slow->fence);
	WRITE_ONCE(slow->entered, true);
	mdelay(slow->ms);
	spin_unlock_irqrestore(lock, flags);

	while (!kthread_should_stop())
		schedule_timeout_interruptible(1);

	return 0;
}

static void owned_fence_freed(struct kunit *test,
			      signed long (*wait)(struct dma_fence *fence,
						  bool intr, signed long timeout))
{
	struct slow_signal slow = { .test = test, .ms = 20 };
	struct mock_fence *fence;
	unsigned int cpu;

	if (num_online_cpus() < 2)
		kunit_skip(test, "requires at least 2 CPUs");

	slow.issuer = issuer_create(test);
	fence = kzalloc_obj(*fence);
	KUNIT_ASSERT_NOT_NULL(test, fence);
	fence_init(fence, slow.issuer, test->param_value);
	slow.fence = &fence->base;
	slow.task = kthread_create(owned_fence_slow_signaler, &slow,
				   "dma-fence-signaler");
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, slow.task);

	migrate_disable();
	cpu = cpumask_any_but(cpu_online_mask, smp_processor_id());
	kthread_bind(slow.task, cpu);
	slow_signal_run(&slow);
	KUNIT_EXPECT_GT(test, wait(slow.fence, false, MAX_SCHEDULE_TIMEOUT), 0);
	kfree(fence);
	migrate_enable();

	kthread_stop(slow.task);
	issuer_die(slow.issuer);
}

static void owned_fence_freed_under_lock(struct kunit *test)
{
	owned_fence_freed(test, dma_fence_wait_timeout);
}

/* It can signal between the two times that a wait takes the lock. */
static void owned_fence_freed_by_default_wait(struct kunit *test)
{
	owned_fence_freed(test, dma_fence_default_wait);
}

/*
 * A watcher on another CPU waits for the flag of a fence. When it is set, it looks
 * at the rest of the fence at once. What the signaler writes after the flag comes
 * too late, more often so as the flag is in another cache line than the rest, and
 * that one is shared with the watcher.
 *
 * How often that is noticed depends on the machine and on what else runs there. So
 * every other fence has its timestamp written too late on purpose, until enough of
 * these were noticed.
 */
#define WATCH_SECONDS	10
#define WATCH_ENOUGH	100
#define WATCH_SPINS	5000
#define WATCH_TIME	4711

struct watch {
	struct kunit *test;
	struct dma_fence *fence;
	const void *ops;	/* of a signaled fence */
	bool watching;
	bool late;		/* on purpose */
	unsigned int noticed;	/* of these */
	unsigned int seen;	/* others that signaled while watched */
	unsigned int bad_ops, bad_time, bad_error;
};

static void watch_signal(struct watch *watch, struct dma_fence *fence)
{
	unsigned long flags;
	const void *ops;
	unsigned int i;
	ktime_t time;
	int error;

	WRITE_ONCE(watch->watching, true);
	for (i = 0; i < WATCH_SPINS; i++) {
		/* Keeps the cache line here. What it reads does not matter. */
		data_race(READ_ONCE(fence->timestamp));

		/* Pairs with the write in dma_fence_signal_timestamp_locked(). */
		flags = smp_load_acquire(&fence->flags);
		if (flags & BIT(DMA_FENCE_FLAG_SIGNALED_BIT))
			break;
	}

	time = READ_ONCE(fence->timestamp);
	ops = rcu_access_pointer(fence->ops);
	error = READ_ONCE(fence->error);
	if (!i || i == WATCH_SPINS)
		return;

	if (watch->late) {
		watch->noticed += time != WATCH_TIME;
		return;
	}

	watch->seen++;
	watch->bad_ops += ops != watch->ops;
	watch->bad_time += time != WATCH_TIME;
	watch->bad_error += error != -EIO;
}

static int watcher_thread(void *arg)
{
	struct watch *watch = arg;
	struct dma_fence *fence;

	current->kunit_test = watch->test;
	while (!kthread_should_stop()) {
		/* Pairs with the store of the fence in race_watch_signal(). */
		fence = smp_load_acquire(&watch->fence);
		if (fence) {
			watch_signal(watch, fence);
			/* Pairs with the loop in race_watch_signal(). */
			smp_store_release(&watch->fence, NULL);
		}
		cond_resched();
	}

	return 0;
}

static void race_watch_signal(struct kunit *test)
{
	const struct issuer_kind *kind = test->param_value;
	struct watch watch = { .test = test };
	struct mock_issuer *issuer;
	struct mock_fence *fence;
	struct task_struct *task;
	unsigned long end;
	unsigned int i, j;
	void *mem;

	if (num_online_cpus() < 2)
		kunit_skip(test, "requires at least 2 CPUs");

	/* The flags begin a cache line. */
	mem = kunit_kzalloc(test, sizeof(*fence) + 2 * SMP_CACHE_BYTES,
			    GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, mem);
	fence = PTR_ALIGN(mem + offsetof(struct mock_fence, base.flags),
			  SMP_CACHE_BYTES) -
		offsetof(struct mock_fence, base.flags);

	issuer = issuer_create(test);
	if (kind->release)
		watch.ops = &release_ops;
	else if (kind->wait)
		watch.ops = &wait_ops;
	task = kthread_run(watcher_thread, &watch, "dma-fence-watcher");
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, task);

	end = jiffies + WATCH_SECONDS * HZ;
	for (i = 0; READ_ONCE(watch.noticed) < WATCH_ENOUGH; i++) {
		if (time_after(jiffies, end))
			break;

		fence_init(fence, issuer, kind);
		dma_fence_set_error(&fence->base, -EIO);
		watch.late = i % 2;
		WRITE_ONCE(watch.watching, false);
		/* Pairs with the load of the fence in watcher_thread(). */
		smp_store_release(&watch.fence, &fence->base);

		for (j = 0; j < WATCH_SPINS && !READ_ONCE(watch.watching); j++)
			cpu_relax();
		for (j = 0; j < 32 + i % 32; j++)
			cpu_relax();
		if (watch.late) {
			set_bit(DMA_FENCE_FLAG_SIGNALED_BIT, &fence->base.flags);
			WRITE_ONCE(fence->base.timestamp, WATCH_TIME);
		} else {
			dma_fence_signal_timestamp(&fence->base, WATCH_TIME);
		}

		/* Pairs with the release of the fence in watcher_thread(). */
		while (smp_load_acquire(&watch.fence))
			cond_resched();
	}
	kthread_stop(task);
	issuer_die(issuer);

	kunit_info(test, "%u signals, %u of them watched, too early for %u ops, %u timestamps, %u errors; on purpose: %u\n",
		   i, watch.seen, watch.bad_ops, watch.bad_time,
		   watch.bad_error, watch.noticed);
	kunit_info(test, "figures: signals=%u races=%u\n", i, watch.noticed);
	KUNIT_EXPECT_EQ(test, watch.bad_ops, 0);
	KUNIT_EXPECT_EQ(test, watch.bad_time, 0);
	KUNIT_EXPECT_EQ(test, watch.bad_error, 0);

	/* A run in which the watcher was always late proves nothing. */
	if (!(watch.seen && watch.noticed) && test->status == KUNIT_SUCCESS)
		kunit_mark_skipped(test, "what came too late on purpose was not noticed");
}

/*
 * Races. The issuer signals, dies and is replaced, round after round. Readers
 * on all CPUs use whatever fence there is, before, while and after.
 */
struct race {
	struct kunit *test;
	const struct issuer_kind *kind;
	struct dma_fence __rcu *fence;
	struct power power;
	ktime_t start;
	atomic_t issuer_dead;
	atomic_t bad;		/* answers that no fence may give */
};

static void race_read_names(struct race *race, struct dma_fence *fence)
{
	struct names names;

	read_names(fence, &names);
	if (strcmp(names.driver, "mock-driver") &&
	    strcmp(names.driver, "detached-driver"))
		atomic_inc(&race->bad);
	if (strcmp(names.timeline, "mock-timeline") &&
	    strcmp(names.timeline, "signaled-timeline"))
		atomic_inc(&race->bad);
}

static void race_read_status(struct race *race, struct dma_fence *fence)
{
	ktime_t time;
	int status;

	status = dma_fence_get_status(fence);
	if (status != 0 && status != -EIO)
		atomic_inc(&race->bad);
	if (!dma_fence_is_signaled(fence))
		return;

	time = dma_fence_timestamp(fence);
	if (ktime_before(time, race->start) || ktime_after(time, ktime_get()))
		atomic_inc(&race->bad);
}

/* As SYNC_IOC_FILE_INFO does it. */
static void race_read(struct race *race, struct dma_fence *fence,
		      unsigned int n)
{
	race_read_names(race, fence);
	race_read_status(race, fence);
}

/* All the others, one after the other. */
static void race_use(struct race *race, struct dma_fence *fence,
		     unsigned int n)
{
	struct counted_cb *cb;
	bool removed;

	switch (n % 7) {
	case 0:
	case 1:
		cb = kzalloc_obj(*cb);
		if (!cb)
			break;
		if (!dma_fence_add_callback(fence, &cb->base, count_callback)) {
			udelay(n % 5);
			removed = dma_fence_remove_callback(fence, &cb->base);
			if (cb->calls != !removed)
				atomic_inc(&race->bad);
		}
		/* From here on nobody may run it any more. */
		kfree(cb);
		break;
	case 2:
		/* A ->wait() that has begun may outlive the issuer, see there. */
		if (!race->kind->wait)
			dma_fence_wait_timeout(fence, false, n % 2);
		break;
	case 3:
		dma_fence_set_deadline(fence, ktime_get());
		break;
	case 4:
		dma_fence_enable_signaling(fence);
		break;
	case 5:
		race_read_names(race, fence);
		break;
	case 6:
		race_read_status(race, fence);
		break;
	}
}

struct racer {
	struct race *race;
	struct task_struct *task;
	void (*use)(struct race *race, struct dma_fence *fence, unsigned int n);
};

static int racer_thread(void *arg)
{
	struct racer *racer = arg;
	struct race *race = racer->race;
	struct dma_fence *fence;
	unsigned int n = 0;

	current->kunit_test = race->test;
	while (!kthread_should_stop()) {
		rcu_read_lock();
		fence = dma_fence_get_rcu_safe(&race->fence);
		rcu_read_unlock();
		if (fence) {
			if (atomic_read(&race->issuer_dead))
				atomic_inc(&race->power.dead);
			racer->use(race, fence, n++);
			atomic_inc(&race->power.reads);
			dma_fence_put(fence);
		}
		cond_resched();
	}

	return 0;
}

/* Give the readers a chance to get at the fence as it is now. */
static void race_let_read(struct race *race)
{
	int reads = atomic_read(&race->power.reads);
	unsigned long timeout = jiffies + HZ / 5;

	while (atomic_read(&race->power.reads) - reads < 2 &&
	       time_before(jiffies, timeout))
		cond_resched();
}

/* Signal while a reader is in a name callback, if there is one in time. */
static void race_let_enter(struct mock_issuer *issuer)
{
	int inside = atomic_read(&issuer->inside);
	unsigned int i;

	for (i = 0; i < RACE_SPINS; i++) {
		if (atomic_read(&issuer->inside) != inside)
			return;
		cpu_relax();
	}
}

static void race_stop_thread(void *task)
{
	kthread_stop(task);
}

static void race_run(struct kunit *test,
		     void (*use)(struct race *, struct dma_fence *, unsigned int))
{
	struct dma_fence *fence = NULL, *old;
	struct mock_issuer *issuer;
	struct racer *racers;
	struct race *race;
	unsigned int i;

	if (num_online_cpus() < 2)
		kunit_skip(test, "requires at least 2 CPUs");

	race = kunit_kzalloc(test, sizeof(*race), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, race);
	racers = kunit_kcalloc(test, 2, sizeof(*racers), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, racers);
	race->test = test;
	race->kind = test->param_value;
	race->start = ktime_get();

	for (i = 0; i < 2; i++) {
		racers[i].race = race;
		racers[i].use = use;
		racers[i].task = kthread_run(racer_thread, &racers[i],
					     "dma-fence-racer:%u", i);
		KUNIT_ASSERT_NOT_ERR_OR_NULL(test, racers[i].task);
		KUNIT_ASSERT_EQ(test, 0,
				kunit_add_action_or_reset(test, race_stop_thread,
							  racers[i].task));
	}

	for (i = 0; i < RACE_ROUNDS; i++) {
		/* Reported by now, and each further round would repeat it. */
		if (READ_ONCE(test->status) == KUNIT_FAILURE)
			break;

		issuer = issuer_alloc();
		if (!issuer)
			break;
		issuer->power = &race->power;
		old = fence;
		fence = fence_alloc(issuer, race->kind);
		atomic_set(&race->issuer_dead, 0);
		rcu_assign_pointer(race->fence, fence);
		dma_fence_put(old);
		if (!fence) {
			issuer_die(issuer);
			break;
		}
		race_let_read(race);
		if (i % 4)
			race_let_enter(issuer);

		/* In every other round a reader may notice first. */
		dma_fence_set_error(fence, -EIO);
		if (i & 1) {
			issuer_done(issuer);
			udelay(i % 20);
		}
		dma_fence_signal(fence);
		atomic_inc(&race->power.signals);
		issuer_die(issuer);
		atomic_set(&race->issuer_dead, 1);
		race_let_read(race);
	}

	for (i = 0; i < 2; i++)
		kunit_release_action(test, race_stop_thread, racers[i].task);
	RCU_INIT_POINTER(race->fence, NULL);
	dma_fence_put(fence);

	kunit_info(test, "%d signals, %d reads (%d of a dead issuer's fence), %d name callbacks, %d of them across a signal\n",
		   atomic_read(&race->power.signals),
		   atomic_read(&race->power.reads),
		   atomic_read(&race->power.dead),
		   atomic_read(&race->power.callbacks),
		   atomic_read(&race->power.crossed));
	kunit_info(test, "figures: signals=%d names=%d races=%d\n",
		   atomic_read(&race->power.signals),
		   atomic_read(&race->power.callbacks),
		   atomic_read(&race->power.crossed));
	KUNIT_EXPECT_EQ(test, atomic_read(&race->bad), 0);
	KUNIT_EXPECT_EQ(test, atomic_read(&race->power.signals), RACE_ROUNDS);

	/* A run in which the window never opened proves nothing. */
	KUNIT_EXPECT_GT(test, atomic_read(&race->power.dead), 0);
	KUNIT_EXPECT_GT(test, atomic_read(&race->power.callbacks), 0);
	if (!atomic_read(&race->power.crossed) && test->status == KUNIT_SUCCESS)
		kunit_mark_skipped(test, "no signal came while a name was asked for");
}

static void race_signal_names(struct kunit *test)
{
	race_run(test, race_read);
}

static void race_signal_all(struct kunit *test)
{
	race_run(test, race_use);
}

static int dma_fence_lifetime_suite_init(struct kunit_suite *suite)
{
	if (!IS_ENABLED(CONFIG_KASAN))
		pr_info("dma-buf-fence-lifetime: without CONFIG_KASAN a use-after-free may go unnoticed\n");

	return 0;
}

#define ISSUER_CASE(name) KUNIT_CASE_PARAM(name, issuer_kind_gen_params)

static struct kunit_case dma_fence_lifetime_cases[] = {
	ISSUER_CASE(orphan_get_status),
	ISSUER_CASE(orphan_get_status_error),
	ISSUER_CASE(orphan_is_signaled),
	ISSUER_CASE(orphan_names),
	ISSUER_CASE(names_of_detached),
	ISSUER_CASE(orphan_timestamp),
	ISSUER_CASE(orphan_add_callback),
	ISSUER_CASE(orphan_remove_callback),
	ISSUER_CASE(orphan_enable_signaling),
	ISSUER_CASE(orphan_signal),
	ISSUER_CASE(orphan_signal_timestamp),
	ISSUER_CASE(orphan_check_and_signal),
	ISSUER_CASE(orphan_wait),
	ISSUER_CASE(orphan_wait_timeout),
	ISSUER_CASE(orphan_default_wait),
	ISSUER_CASE(orphan_wait_any),
	ISSUER_CASE(orphan_set_deadline),
	ISSUER_CASE(orphan_describe),
	ISSUER_CASE(orphan_sync_file),
	ISSUER_CASE(orphan_array),
	ISSUER_CASE(orphan_chain),
	ISSUER_CASE(orphan_signaled_by_consumer),
	ISSUER_CASE(released_unsignaled),
	KUNIT_CASE(reinit_keeps_lock),
	ISSUER_CASE(wait_timed_out),
	ISSUER_CASE(wait_interrupted),
	ISSUER_CASE(barrier_remove_callback),
	ISSUER_CASE(barrier_wait),
	ISSUER_CASE(barrier_signal),
	ISSUER_CASE(barrier_sleeping_wait),
	ISSUER_CASE(released_while_signaling),
	ISSUER_CASE(signaled_before_lock),
	ISSUER_CASE(status_does_not_wait),
	ISSUER_CASE(owned_fence_freed_after_wait),
	ISSUER_CASE(owned_fence_freed_under_lock),
	ISSUER_CASE(owned_fence_freed_by_default_wait),
	ISSUER_CASE(race_watch_signal),
	KUNIT_CASE_PARAM_ATTR(race_signal_names, issuer_kind_gen_params,
			      { .speed = KUNIT_SPEED_SLOW }),
	KUNIT_CASE_PARAM_ATTR(race_signal_all, issuer_kind_gen_params,
			      { .speed = KUNIT_SPEED_SLOW }),
	{}
};

static struct kunit_suite dma_fence_lifetime_suite = {
	.name = "dma-buf-fence-lifetime",
	.suite_init = dma_fence_lifetime_suite_init,
	.test_cases = dma_fence_lifetime_cases,
};

kunit_test_suite(dma_fence_lifetime_suite);
