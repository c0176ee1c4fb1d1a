// SPDX-License-Identifier: MIT

/*
 * KUnit tests for who holds a reference to a sw_sync fence that is signaled.
 */

#include <kunit/test.h>
#include <linux/completion.h>
#include <linux/cpumask.h>
#include <linux/delay.h>
#include <linux/dma-fence.h>
#include <linux/fdtable.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/kthread.h>
#include <linux/mman.h>
#include <linux/module.h>
#include <linux/sync_file.h>
#include <linux/uaccess.h>

#include "sync_debug.h"

/* There is no header for these, userspace has its own copies, too. */
struct sw_sync_create_fence_data {
	__u32	value;
	char	name[32];
	__s32	fence;
};

#define SW_SYNC_IOC_CREATE_FENCE _IOWR('W', 0, struct sw_sync_create_fence_data)
#define SW_SYNC_IOC_INC		 _IOW('W', 1, __u32)

struct timeline {
	struct file *file;
	void __user *arg;
};

static void timeline_ioctl(struct kunit *test, struct timeline *timeline,
			   unsigned int cmd, void *data, size_t size)
{
	KUNIT_EXPECT_EQ(test, 0, copy_to_user(timeline->arg, data, size));
	KUNIT_EXPECT_EQ(test, 0,
			sw_sync_debugfs_fops.unlocked_ioctl(timeline->file, cmd,
							    (unsigned long)timeline->arg));
	KUNIT_EXPECT_EQ(test, 0, copy_from_user(data, timeline->arg, size));
}

static void timeline_open(struct kunit *test, struct timeline *timeline)
{
	unsigned long addr;

	addr = kunit_vm_mmap(test, NULL, 0, PAGE_SIZE, PROT_READ | PROT_WRITE,
			     MAP_ANONYMOUS | MAP_PRIVATE, 0);
	KUNIT_ASSERT_NE(test, addr, 0);
	KUNIT_ASSERT_LT(test, addr, (unsigned long)TASK_SIZE);
	timeline->arg = (void __user *)addr;

	timeline->file = kunit_kzalloc(test, sizeof(*timeline->file),
				       GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, timeline->file);
	KUNIT_ASSERT_EQ(test, 0,
			sw_sync_debugfs_fops.open(NULL, timeline->file));
}

static void timeline_close(struct timeline *timeline)
{
	sw_sync_debugfs_fops.release(NULL, timeline->file);
}

static void timeline_inc(struct kunit *test, struct timeline *timeline, u32 inc)
{
	timeline_ioctl(test, timeline, SW_SYNC_IOC_INC, &inc, sizeof(inc));
}

/* A fence, with the only reference to it. */
static struct dma_fence *timeline_fence(struct kunit *test,
					struct timeline *timeline, u32 value)
{
	struct sw_sync_create_fence_data data = { .value = value };
	struct dma_fence *fence;

	timeline_ioctl(test, timeline, SW_SYNC_IOC_CREATE_FENCE, &data,
		       sizeof(data));
	fence = sync_file_get_fence(data.fence);
	KUNIT_ASSERT_NOT_NULL(test, fence);
	close_fd(data.fence);
	flush_delayed_fput();
	KUNIT_ASSERT_EQ(test, kref_read(&fence->refcount), 1);
	return fence;
}

struct last_user {
	struct dma_fence_cb cb;
	unsigned int refs;
};

static void last_user_cb(struct dma_fence *fence, struct dma_fence_cb *cb)
{
	container_of(cb, struct last_user, cb)->refs =
		kref_read(&fence->refcount);
}

/*
 * A callback may drop the last reference but that of whoever signals, who holds
 * the lock of the fence, in its memory.
 */
static void test_signaler_holds_reference(struct kunit *test)
{
	struct timeline timeline;
	struct last_user user = {};
	struct dma_fence *fence;

	timeline_open(test, &timeline);

	fence = timeline_fence(test, &timeline, 1);
	KUNIT_ASSERT_EQ(test, 0, dma_fence_add_callback(fence, &user.cb,
							last_user_cb));
	timeline_inc(test, &timeline, 1);
	KUNIT_EXPECT_EQ(test, dma_fence_get_status(fence), 1);
	KUNIT_EXPECT_EQ(test, user.refs, 2);
	KUNIT_EXPECT_EQ(test, kref_read(&fence->refcount), 1);
	dma_fence_put(fence);

	fence = timeline_fence(test, &timeline, 2);
	KUNIT_ASSERT_EQ(test, 0, dma_fence_add_callback(fence, &user.cb,
							last_user_cb));
	timeline_close(&timeline);
	KUNIT_EXPECT_EQ(test, dma_fence_get_status(fence), -ENOENT);
	KUNIT_EXPECT_EQ(test, user.refs, 2);
	KUNIT_EXPECT_EQ(test, kref_read(&fence->refcount), 1);
	dma_fence_put(fence);
}

struct releaser {
	struct dma_fence_cb cb;
	struct dma_fence *fence;
	struct completion go;
	bool put, met;
};

/*
 * Has the other thread drop its reference now. The timeline has one to each fence
 * that it is about to signal, so that is not the last.
 */
static void releaser_cb(struct dma_fence *fence, struct dma_fence_cb *cb)
{
	struct releaser *releaser = container_of(cb, struct releaser, cb);
	unsigned int ms;

	complete(&releaser->go);
	for (ms = 0; ms < 5000 && !releaser->met; ms++) {
		mdelay(1);
		releaser->met = READ_ONCE(releaser->put) ||
				!kref_read(&releaser->fence->refcount);
	}
}

static int releaser_thread(void *arg)
{
	struct releaser *releaser = arg;

	wait_for_completion(&releaser->go);
	dma_fence_put(releaser->fence);
	WRITE_ONCE(releaser->put, true);
	return 0;
}

/* On another CPU than this thread, which stays on its own until migrate_enable(). */
static struct task_struct *run_elsewhere(struct kunit *test, int (*fn)(void *),
					 void *arg)
{
	struct task_struct *task = kthread_create(fn, arg, "sw-sync-other");

	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, task);
	get_task_struct(task);
	migrate_disable();
	kthread_bind(task, cpumask_any_but(cpu_online_mask, smp_processor_id()));
	wake_up_process(task);
	return task;
}

static void test_released_while_signaled(struct kunit *test, bool close)
{
	struct releaser releaser = {};
	struct timeline timeline;
	struct task_struct *task;
	struct dma_fence *fence;

	if (num_online_cpus() < 2)
		kunit_skip(test, "needs two CPUs");

	timeline_open(test, &timeline);
	fence = timeline_fence(test, &timeline, 1);
	releaser.fence = timeline_fence(test, &timeline, 2);
	init_completion(&releaser.go);
	KUNIT_ASSERT_EQ(test, 0, dma_fence_add_callback(fence, &releaser.cb,
							releaser_cb));

	task = run_elsewhere(test, releaser_thread, &releaser);
	kunit_warning_suppress(test) {
		if (close)
			timeline_close(&timeline);
		else
			timeline_inc(test, &timeline, 2);
		KUNIT_EXPECT_SUPPRESSED_WARNING_COUNT(test, 0);
	}
	migrate_enable();

	KUNIT_EXPECT_TRUE_MSG(test, releaser.met, "The threads did not meet");
	complete(&releaser.go);
	kthread_stop_put(task);
	KUNIT_EXPECT_EQ(test, kref_read(&fence->refcount), 1);
	dma_fence_put(fence);
	if (!close)
		timeline_close(&timeline);
}

/* A fence without a reference is none of the timeline's business any more. */
static void test_released_while_incremented(struct kunit *test)
{
	test_released_while_signaled(test, false);
}

static void test_released_while_closed(struct kunit *test)
{
	test_released_while_signaled(test, true);
}

struct dropper {
	struct dma_fence_cb cb;
	struct sync_timeline *timeline;
	struct dma_fence *other;
};

static void dropper_cb(struct dma_fence *fence, struct dma_fence_cb *cb)
{
	struct dropper *dropper = container_of(cb, struct dropper, cb);

	/* The release takes this lock. Rather fail than hang. */
	if (!spin_trylock(&dropper->timeline->lock))
		return;
	spin_unlock(&dropper->timeline->lock);

	dma_fence_put(dropper->other);
	dropper->other = NULL;
}

/* A callback may drop the last reference to another fence of the timeline. */
static void test_callback_drops_other(struct kunit *test)
{
	struct dropper dropper = {};
	struct timeline timeline;
	struct dma_fence *fence;

	timeline_open(test, &timeline);
	dropper.timeline = timeline.file->private_data;
	fence = timeline_fence(test, &timeline, 1);
	dropper.other = timeline_fence(test, &timeline, 2);
	KUNIT_ASSERT_EQ(test, 0, dma_fence_add_callback(fence, &dropper.cb,
							dropper_cb));
	timeline_inc(test, &timeline, 1);
	KUNIT_EXPECT_EQ(test, dma_fence_get_status(fence), 1);
	KUNIT_EXPECT_NULL(test, dropper.other);
	KUNIT_EXPECT_EQ(test, list_empty(&dropper.timeline->pt_list),
			!dropper.other);

	dma_fence_put(dropper.other);
	dma_fence_put(fence);
	timeline_close(&timeline);
}

struct second {
	struct dma_fence_cb cb;
	struct timeline *timeline;
	struct mm_struct *mm;
	struct dma_fence *later;
	struct completion go;
	bool began, overtaken;
	long ret;
};

/* Has the other thread increment the timeline now, and gives it time for that. */
static void second_cb(struct dma_fence *fence, struct dma_fence_cb *cb)
{
	struct second *second = container_of(cb, struct second, cb);
	unsigned int ms;

	complete(&second->go);
	for (ms = 0; ms < 5000 && !READ_ONCE(second->began); ms++)
		mdelay(1);
	for (ms = 0; ms < 50 && !second->overtaken; ms++) {
		mdelay(1);
		second->overtaken = dma_fence_is_signaled(second->later);
	}
}

static int second_thread(void *arg)
{
	struct second *second = arg;

	kthread_use_mm(second->mm);
	wait_for_completion(&second->go);
	WRITE_ONCE(second->began, true);
	second->ret = sw_sync_debugfs_fops.unlocked_ioctl(second->timeline->file,
							  SW_SYNC_IOC_INC,
							  (unsigned long)second->timeline->arg);
	kthread_unuse_mm(second->mm);
	return 0;
}

/* Fences signal in their order, also if two increments meet. */
static void test_increments_in_order(struct kunit *test)
{
	struct second second = {};
	struct timeline timeline;
	struct task_struct *task;
	struct dma_fence *fence;

	if (num_online_cpus() < 2)
		kunit_skip(test, "needs two CPUs");

	timeline_open(test, &timeline);
	fence = timeline_fence(test, &timeline, 1);
	second.later = timeline_fence(test, &timeline, 2);
	second.timeline = &timeline;
	second.mm = current->mm;
	init_completion(&second.go);
	KUNIT_ASSERT_EQ(test, 0, dma_fence_add_callback(fence, &second.cb,
							second_cb));

	task = run_elsewhere(test, second_thread, &second);
	/* Leaves its argument, an increment by one, for the other thread. */
	timeline_inc(test, &timeline, 1);
	migrate_enable();

	complete(&second.go);
	kthread_stop_put(task);
	KUNIT_EXPECT_TRUE_MSG(test, second.began, "The threads did not meet");
	KUNIT_EXPECT_FALSE(test, second.overtaken);
	KUNIT_EXPECT_EQ(test, second.ret, 0);
	KUNIT_EXPECT_EQ(test, dma_fence_get_status(second.later), 1);

	dma_fence_put(second.later);
	dma_fence_put(fence);
	timeline_close(&timeline);
}

static struct kunit_case sw_sync_cases[] = {
	KUNIT_CASE(test_signaler_holds_reference),
	KUNIT_CASE(test_released_while_incremented),
	KUNIT_CASE(test_released_while_closed),
	KUNIT_CASE(test_callback_drops_other),
	KUNIT_CASE(test_increments_in_order),
	{}
};

static struct kunit_suite sw_sync_test_suite = {
	.name = "dma-buf-sw-sync",
	.test_cases = sw_sync_cases,
};

kunit_test_suite(sw_sync_test_suite);

MODULE_IMPORT_NS("EXPORTED_FOR_KUNIT_TESTING");
