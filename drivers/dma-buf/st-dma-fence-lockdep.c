// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests for what lockdep sees of fences.
 *
 * The first suite has what is legal. Lockdep must still be on at the end of each
 * case, as a report turns it off.
 *
 * The second suite has what is not, and each case expects the report, which it
 * finds in what the kernel prints. It only runs with "dmabuf_kunit.provoke=1" on the
 * kernel command line, and needs a boot for each case:
 *
 *   kunit.py run --kunitconfig=drivers/dma-buf \
 *	--kconfig_add CONFIG_DEBUG_ATOMIC_SLEEP=y --kconfig_add CONFIG_DMABUF_DEBUG=y \
 *	--kconfig_add CONFIG_SMP=y --kernel_args seccomp=on --kernel_args ncpus=2 \
 *	--kernel_args dmabuf_kunit.provoke=1 'dma-buf-fence-violations.list_lock'
 */

#include <kunit/test.h>
#include <linux/debug_locks.h>
#include <linux/dma-fence.h>
#include <linux/dma-fence-array.h>
#include <linux/dma-fence-chain.h>
#include <linux/irq_work.h>
#include <linux/lockdep.h>
#include <linux/moduleparam.h>
#include <linux/mutex.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/string.h>

#include <trace/events/printk.h>

static bool provoke;
module_param(provoke, bool, 0400);
MODULE_PARM_DESC(provoke, "Run the cases that end in a report of lockdep");

/* Two issuers: two ops tables. */
struct lockdep_fence {
	struct dma_fence base;
	bool (*enable)(struct lockdep_fence *fence);
	struct dma_fence_cb cb;
	struct irq_work work;
	struct dma_fence *other;	/* what callback or ->enable is about */
};

static struct lockdep_fence *to_lockdep_fence(struct dma_fence *fence)
{
	return container_of(fence, struct lockdep_fence, base);
}

static const char *lockdep_name(struct dma_fence *fence)
{
	return "lockdep";
}

static bool lockdep_enable_signaling(struct dma_fence *fence)
{
	struct lockdep_fence *f = to_lockdep_fence(fence);

	return f->enable ? f->enable(f) : true;
}

#define LOCKDEP_OPS						\
	.get_driver_name = lockdep_name,			\
	.get_timeline_name = lockdep_name,			\
	.enable_signaling = lockdep_enable_signaling

static const struct dma_fence_ops gpu_ops = { LOCKDEP_OPS };
static const struct dma_fence_ops display_ops = { LOCKDEP_OPS };

static struct lockdep_fence *gpu_fence(struct kunit *test)
{
	struct lockdep_fence *f = kzalloc_obj(*f);

	KUNIT_ASSERT_NOT_NULL(test, f);
	dma_fence_init(&f->base, &gpu_ops, dma_fence_context_alloc(1), 1);
	return f;
}

static struct lockdep_fence *display_fence(struct kunit *test)
{
	struct lockdep_fence *f = kzalloc_obj(*f);

	KUNIT_ASSERT_NOT_NULL(test, f);
	dma_fence_init(&f->base, &display_ops, dma_fence_context_alloc(1), 1);
	return f;
}

static void signal_other(struct dma_fence *fence, struct dma_fence_cb *cb)
{
	dma_fence_signal(to_lockdep_fence(fence)->other);
}

static void lockdep_add_callback(struct kunit *test, struct lockdep_fence *f,
				 struct dma_fence *other)
{
	f->other = other;
	KUNIT_ASSERT_EQ(test, 0,
			dma_fence_add_callback(&f->base, &f->cb, signal_other));
}

static void lockdep_callback(struct dma_fence *fence, struct dma_fence_cb *cb)
{
}

static bool enable_arms_other(struct lockdep_fence *f)
{
	/* As dma_fence_array and dma_fence_chain do. */
	return !dma_fence_add_callback(f->other, &f->cb, lockdep_callback);
}

static int lockdep_quiet_init(struct kunit *test)
{
	if (!IS_ENABLED(CONFIG_PROVE_LOCKING))
		kunit_skip(test, "requires CONFIG_PROVE_LOCKING");
	if (!debug_locks)
		kunit_skip(test, "lockdep is off since an earlier report");

	return 0;
}

/* A job of the GPU is done, and with it a frame. */
static void nested_signal(struct kunit *test)
{
	struct lockdep_fence *gpu = gpu_fence(test);
	struct lockdep_fence *display = display_fence(test);

	lockdep_add_callback(test, gpu, &display->base);
	dma_fence_signal(&gpu->base);

	KUNIT_EXPECT_TRUE(test, dma_fence_is_signaled(&display->base));
	KUNIT_EXPECT_TRUE(test, debug_locks);
	dma_fence_put(&gpu->base);
	dma_fence_put(&display->base);
}

static void nested_enable_signaling(struct kunit *test)
{
	struct lockdep_fence *gpu = gpu_fence(test);
	struct lockdep_fence *display = display_fence(test);

	gpu->enable = enable_arms_other;
	gpu->other = &display->base;
	dma_fence_enable_signaling(&gpu->base);
	dma_fence_signal(&display->base);
	dma_fence_signal(&gpu->base);

	KUNIT_EXPECT_TRUE(test, debug_locks);
	dma_fence_put(&gpu->base);
	dma_fence_put(&display->base);
}

/* Two fences of one issuer, one after the other, and then the other issuer. */
static void signal_in_turn(struct kunit *test)
{
	struct lockdep_fence *fence[3];
	unsigned int i;

	fence[0] = gpu_fence(test);
	fence[1] = gpu_fence(test);
	fence[2] = display_fence(test);

	for (i = 0; i < ARRAY_SIZE(fence); i++) {
		KUNIT_ASSERT_EQ(test, 0,
				dma_fence_add_callback(&fence[i]->base,
						       &fence[i]->cb,
						       lockdep_callback));
		dma_fence_signal(&fence[i]->base);
	}
	for (i = 0; i < ARRAY_SIZE(fence); i++) {
		/* The lock of a fence that is signaled. */
		KUNIT_EXPECT_FALSE(test,
				   dma_fence_remove_callback(&fence[i]->base,
							     &fence[i]->cb));
		dma_fence_put(&fence[i]->base);
	}
	KUNIT_EXPECT_TRUE(test, debug_locks);
}

static void signal_in_irq_work(struct irq_work *work)
{
	dma_fence_signal(&container_of(work, struct lockdep_fence, work)->base);
}

/* One is signaled from an interrupt, the others are asked with interrupts on. */
static void status_of_signaled(struct kunit *test)
{
	struct lockdep_fence *gpu[2];
	unsigned int i;

	for (i = 0; i < 2; i++) {
		gpu[i] = gpu_fence(test);
		init_irq_work(&gpu[i]->work, signal_in_irq_work);
	}
	irq_work_queue(&gpu[0]->work);
	irq_work_sync(&gpu[0]->work);
	dma_fence_signal(&gpu[1]->base);

	for (i = 0; i < 2; i++) {
		KUNIT_EXPECT_EQ(test, dma_fence_get_status(&gpu[i]->base), 1);
		dma_fence_enable_signaling(&gpu[i]->base);
	}
	KUNIT_EXPECT_TRUE(test, debug_locks);
	for (i = 0; i < 2; i++)
		dma_fence_put(&gpu[i]->base);
}

/* Containers, the way SYNC_IOC_MERGE and timelines put them together. */
static void containers(struct kunit *test)
{
	struct dma_fence **fences = kzalloc_objs(*fences, 2);
	struct lockdep_fence *gpu = gpu_fence(test);
	struct lockdep_fence *display = display_fence(test);
	struct dma_fence_chain *chain = dma_fence_chain_alloc();
	struct dma_fence_array *array;

	KUNIT_ASSERT_NOT_NULL(test, fences);
	KUNIT_ASSERT_NOT_NULL(test, chain);
	fences[0] = dma_fence_get(&gpu->base);
	fences[1] = dma_fence_get(&display->base);
	array = dma_fence_array_create(2, fences, dma_fence_context_alloc(1), 1);
	KUNIT_ASSERT_NOT_NULL(test, array);
	dma_fence_chain_init(chain, NULL, &array->base, 1);

	dma_fence_enable_signaling(&chain->base);
	dma_fence_signal(&gpu->base);
	dma_fence_signal(&display->base);
	KUNIT_EXPECT_EQ(test, dma_fence_wait(&chain->base, false), 0);

	KUNIT_EXPECT_TRUE(test, debug_locks);
	dma_fence_put(&chain->base);
	dma_fence_put(&gpu->base);
	dma_fence_put(&display->base);
}

#if defined(CONFIG_LOCKDEP) && defined(dma_fence_init)
/*
 * The module of the issuer is gone, and with it all that dma_fence_init() has put
 * there. The same module comes back later.
 */
static void module_gone(struct kunit *test)
{
	struct lockdep_fence *gpu = gpu_fence(test);
	struct lockdep_fence *other = gpu_fence(test);
	unsigned int *site = kzalloc_obj(*site);
	char *name = kstrdup("unloaded: &ops", GFP_KERNEL);
	struct dma_fence_cb cb = {};

	KUNIT_ASSERT_NOT_NULL(test, site);
	KUNIT_ASSERT_NOT_NULL(test, name);
	__dma_fence_set_lock_class(&gpu->base, site, name);
	KUNIT_EXPECT_EQ(test, 0, dma_fence_add_callback(&gpu->base, &cb,
							lockdep_callback));
	dma_fence_signal(&gpu->base);
	KUNIT_EXPECT_STREQ(test, gpu->base.lock.dep_map.name, name);
	kfree(site);
	kfree(name);

	KUNIT_EXPECT_FALSE(test, dma_fence_remove_callback(&gpu->base, &cb));
	KUNIT_EXPECT_EQ(test, dma_fence_wait(&gpu->base, false), 0);
	KUNIT_EXPECT_EQ(test, dma_fence_get_status(&gpu->base), 1);
	KUNIT_EXPECT_STREQ(test, gpu->base.lock.dep_map.name,
			   "unloaded: &ops");

	site = kzalloc_obj(*site);
	KUNIT_ASSERT_NOT_NULL(test, site);
	__dma_fence_set_lock_class(&other->base, site, "unloaded: &ops");
	KUNIT_EXPECT_PTR_EQ(test, gpu->base.lock.dep_map.key,
			    other->base.lock.dep_map.key);
	kfree(site);

	dma_fence_signal(&other->base);
	KUNIT_EXPECT_TRUE(test, debug_locks);
	dma_fence_put(&gpu->base);
	dma_fence_put(&other->base);
}

/* One class per issuer, under its name. */
static void classes(struct kunit *test)
{
	struct lockdep_fence *gpu[2], *display;

	gpu[0] = gpu_fence(test);
	gpu[1] = gpu_fence(test);
	display = display_fence(test);

	KUNIT_EXPECT_PTR_EQ(test, gpu[0]->base.lock.dep_map.key,
			    gpu[1]->base.lock.dep_map.key);
	KUNIT_EXPECT_PTR_NE(test, gpu[0]->base.lock.dep_map.key,
			    display->base.lock.dep_map.key);
	KUNIT_EXPECT_STREQ(test, gpu[0]->base.lock.dep_map.name,
			   "dmabuf_kunit: &gpu_ops");

	dma_fence_put(&gpu[0]->base);
	dma_fence_put(&gpu[1]->base);
	dma_fence_put(&display->base);
}
#endif

static struct kunit_case lockdep_cases[] = {
	KUNIT_CASE(nested_signal),
	KUNIT_CASE(nested_enable_signaling),
	KUNIT_CASE(signal_in_turn),
	KUNIT_CASE(status_of_signaled),
	KUNIT_CASE(containers),
#if defined(CONFIG_LOCKDEP) && defined(dma_fence_init)
	KUNIT_CASE(module_gone),
	KUNIT_CASE(classes),
#endif
	{}
};

static struct kunit_suite lockdep_suite = {
	.name = "dma-buf-fence-lockdep",
	.init = lockdep_quiet_init,
	.test_cases = lockdep_cases,
};

/* What must be reported: a part of one line that the kernel prints. */
static const char *report;
static bool reported, watching;

static void watch_console(void *ignored, const char *text, size_t len)
{
	const char *expected = READ_ONCE(report);

	if (expected && strnstr(text, expected, len))
		WRITE_ONCE(reported, true);
}

static int lockdep_provoke_init(struct kunit *test)
{
	int ret;

	if (!provoke)
		kunit_skip(test, "requires dmabuf_kunit.provoke=1");

	ret = lockdep_quiet_init(test);
	if (ret)
		return ret;

	WRITE_ONCE(report, NULL);
	WRITE_ONCE(reported, false);
	if (register_trace_console(watch_console, NULL))
		kunit_skip(test, "requires CONFIG_TRACEPOINTS");

	watching = true;
	return 0;
}

static void lockdep_provoke_exit(struct kunit *test)
{
	/* Also comes here if the case was skipped before it began. */
	if (!watching)
		return;

	watching = false;
	unregister_trace_console(watch_console, NULL);
	tracepoint_synchronize_unregister();

	if (report)
		KUNIT_EXPECT_TRUE_MSG(test, reported, "not reported: %s", report);
}

static void expect_report(const char *text)
{
	WRITE_ONCE(report, text);
}

static DEFINE_SPINLOCK(list_lock_lock);

static bool enable_takes_lock(struct lockdep_fence *f)
{
	unsigned long flags;

	spin_lock_irqsave(&list_lock_lock, flags);
	spin_unlock_irqrestore(&list_lock_lock, flags);
	return true;
}

/*
 * The classic of interrupt driven issuers: ->enable_signaling() puts the fence on
 * a list, under the fence lock, and the interrupt handler signals what is on the
 * list, under the list lock.
 */
static void list_lock(struct kunit *test)
{
	struct lockdep_fence *gpu = gpu_fence(test);
	unsigned long flags;

	expect_report("possible circular locking dependency detected");
	gpu->enable = enable_takes_lock;
	dma_fence_enable_signaling(&gpu->base);

	spin_lock_irqsave(&list_lock_lock, flags);
	dma_fence_signal(&gpu->base);
	spin_unlock_irqrestore(&list_lock_lock, flags);

	KUNIT_EXPECT_FALSE(test, debug_locks);
	dma_fence_put(&gpu->base);
}

/* A fence that has signaled could as well be pending. */
static void ask_under_list_lock(struct kunit *test,
				void (*ask)(struct dma_fence *fence))
{
	struct lockdep_fence *gpu = gpu_fence(test);
	unsigned long flags;

	expect_report("possible circular locking dependency detected");
	gpu->enable = enable_takes_lock;
	dma_fence_enable_signaling(&gpu->base);
	dma_fence_signal(&gpu->base);

	spin_lock_irqsave(&list_lock_lock, flags);
	ask(&gpu->base);
	spin_unlock_irqrestore(&list_lock_lock, flags);

	KUNIT_EXPECT_FALSE(test, debug_locks);
	dma_fence_put(&gpu->base);
}

static void ask_status(struct dma_fence *fence)
{
	dma_fence_get_status(fence);
}

static void status_under_list_lock(struct kunit *test)
{
	ask_under_list_lock(test, ask_status);
}

static void enable_under_list_lock(struct kunit *test)
{
	ask_under_list_lock(test, dma_fence_enable_signaling);
}

static void add_callback(struct dma_fence *fence)
{
	struct dma_fence_cb cb;

	/* It has signaled, so nothing is added. */
	dma_fence_add_callback(fence, &cb, lockdep_callback);
}

static void add_under_list_lock(struct kunit *test)
{
	ask_under_list_lock(test, add_callback);
}

/* Two issuers that signal each other from callbacks. */
static void two_issuers(struct kunit *test)
{
	struct lockdep_fence *gpu[2], *display[2];
	unsigned int i;

	for (i = 0; i < 2; i++) {
		gpu[i] = gpu_fence(test);
		display[i] = display_fence(test);
	}
	expect_report("possible circular locking dependency detected");
	lockdep_add_callback(test, gpu[0], &display[0]->base);
	lockdep_add_callback(test, display[1], &gpu[1]->base);

	dma_fence_signal(&gpu[0]->base);
	KUNIT_EXPECT_TRUE(test, debug_locks);
	dma_fence_signal(&display[1]->base);
	KUNIT_EXPECT_FALSE(test, debug_locks);

	for (i = 0; i < 2; i++) {
		dma_fence_put(&gpu[i]->base);
		dma_fence_put(&display[i]->base);
	}
}

/* The same with one issuer, which is a deadlock as soon as it is the same fence. */
static void one_issuer(struct kunit *test)
{
	struct lockdep_fence *gpu[2];

	gpu[0] = gpu_fence(test);
	gpu[1] = gpu_fence(test);
	expect_report("possible recursive locking detected");
	lockdep_add_callback(test, gpu[0], &gpu[1]->base);
	dma_fence_signal(&gpu[0]->base);

	KUNIT_EXPECT_FALSE(test, debug_locks);
	dma_fence_put(&gpu[0]->base);
	dma_fence_put(&gpu[1]->base);
}

/* Lockdep is on when the real mistake is made after something legal. */
static void list_lock_after_nesting(struct kunit *test)
{
	nested_signal(test);
	list_lock(test);
}

/* Sleeps where it must not. */
static DEFINE_MUTEX(sleeping_lock);

static bool enable_sleeps(struct lockdep_fence *f)
{
	mutex_lock(&sleeping_lock);
	mutex_unlock(&sleeping_lock);
	return true;
}

static void sleep_in_enable_signaling(struct kunit *test)
{
	struct lockdep_fence *gpu;

	if (!IS_ENABLED(CONFIG_DEBUG_ATOMIC_SLEEP))
		kunit_skip(test, "requires CONFIG_DEBUG_ATOMIC_SLEEP");

	expect_report("sleeping function called from invalid context");
	gpu = gpu_fence(test);
	gpu->enable = enable_sleeps;
	dma_fence_enable_signaling(&gpu->base);
	dma_fence_signal(&gpu->base);
	dma_fence_put(&gpu->base);
}

static const char *sleeping_name(struct dma_fence *fence)
{
	might_sleep();
	return "sleeping";
}

static const struct dma_fence_ops sleeping_ops = {
	.get_driver_name = sleeping_name,
	.get_timeline_name = lockdep_name,
};

static void sleep_in_name(struct kunit *test)
{
	struct dma_fence *fence;

	if (!IS_ENABLED(CONFIG_DEBUG_ATOMIC_SLEEP))
		kunit_skip(test, "requires CONFIG_DEBUG_ATOMIC_SLEEP");

	expect_report("sleeping function called from invalid context");
	fence = kzalloc_obj(*fence);
	KUNIT_ASSERT_NOT_NULL(test, fence);
	dma_fence_init(fence, &sleeping_ops, dma_fence_context_alloc(1), 1);
	rcu_read_lock();
	dma_fence_driver_name(fence);
	rcu_read_unlock();
	dma_fence_signal(fence);
	dma_fence_put(fence);
}

static void name_without_rcu(struct kunit *test)
{
	struct lockdep_fence *gpu = gpu_fence(test);

	expect_report("suspicious RCU usage");
	dma_fence_driver_name(&gpu->base);
	dma_fence_signal(&gpu->base);
	dma_fence_put(&gpu->base);
}

static void signal_without_lock(struct kunit *test)
{
	struct lockdep_fence *gpu = gpu_fence(test);

	expect_report("at dma_fence_signal_timestamp_locked");
	dma_fence_signal_locked(&gpu->base);
	dma_fence_put(&gpu->base);
}

static bool enable_signals(struct lockdep_fence *f)
{
	dma_fence_signal_locked(&f->base);
	return true;
}

static void signal_in_enable_signaling(struct kunit *test)
{
	struct lockdep_fence *gpu;
	ktime_t time;

	expect_report("signaled the fence");
	gpu = gpu_fence(test);
	gpu->enable = enable_signals;
	KUNIT_EXPECT_EQ(test, dma_fence_add_callback(&gpu->base, &gpu->cb,
						     lockdep_callback),
			-ENOENT);

	/* The callback would be where the timestamp is. */
	time = dma_fence_timestamp(&gpu->base);
	KUNIT_EXPECT_TRUE(test, ktime_before(time, ktime_get()));
	KUNIT_EXPECT_TRUE(test, list_empty(&gpu->cb.node));
	dma_fence_put(&gpu->base);
}

/* What others have read of the fence is final. */
static void error_after_signal(struct kunit *test)
{
	struct lockdep_fence *gpu = gpu_fence(test);

	expect_report("include/linux/dma-fence.h:");
	dma_fence_set_error(&gpu->base, -EIO);
	dma_fence_signal(&gpu->base);
	dma_fence_set_error(&gpu->base, -ENODEV);

	KUNIT_EXPECT_EQ(test, dma_fence_get_status(&gpu->base), -EIO);
	dma_fence_put(&gpu->base);
}

/* And takes it again, so that nothing looks wrong afterwards. */
static bool enable_drops_lock(struct lockdep_fence *f)
{
	spin_unlock(&f->base.lock);
	spin_lock(&f->base.lock);
	return true;
}

static void drop_lock_in_enable_signaling(struct kunit *test)
{
	struct lockdep_fence *gpu = gpu_fence(test);

	expect_report("releasing a pinned lock");
	gpu->enable = enable_drops_lock;
	dma_fence_enable_signaling(&gpu->base);
	KUNIT_EXPECT_TRUE(test, test_bit(DMA_FENCE_FLAG_ENABLE_SIGNAL_BIT,
					 &gpu->base.flags));
	dma_fence_signal(&gpu->base);
	dma_fence_put(&gpu->base);
}

static struct kunit_case violation_cases[] = {
	KUNIT_CASE(list_lock),
	KUNIT_CASE(list_lock_after_nesting),
	KUNIT_CASE(status_under_list_lock),
	KUNIT_CASE(enable_under_list_lock),
	KUNIT_CASE(add_under_list_lock),
	KUNIT_CASE(sleep_in_enable_signaling),
	KUNIT_CASE(sleep_in_name),
	KUNIT_CASE(name_without_rcu),
	KUNIT_CASE(signal_without_lock),
	KUNIT_CASE(signal_in_enable_signaling),
	KUNIT_CASE(drop_lock_in_enable_signaling),
	KUNIT_CASE(error_after_signal),
	KUNIT_CASE(two_issuers),
	KUNIT_CASE(one_issuer),
	{}
};

static struct kunit_suite violation_suite = {
	.name = "dma-buf-fence-violations",
	.init = lockdep_provoke_init,
	.exit = lockdep_provoke_exit,
	.test_cases = violation_cases,
};

kunit_test_suites(&lockdep_suite, &violation_suite);
