// SPDX-License-Identifier: GPL-2.0-only
/*
 * An issuer of fences as it should be: the locks of the example in "DMA Fence
 * Operations" of Documentation/driver-api/dma-buf.rst, with a timer for the
 * hardware. Unlike there it keeps a list of all its jobs, since it can be
 * unplugged. It has a timeout that resets it as well. Meant to be run with KASAN
 * and PROVE_LOCKING, and with KCSAN, on two CPUs.
 */

#include <kunit/test.h>
#include <linux/delay.h>
#include <linux/dma-fence.h>
#include <linux/hrtimer.h>
#include <linux/mutex.h>
#include <linux/rcupdate.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/workqueue.h>

#include "st-dma-fence-clients.h"

#define GPU_JOBS	(2 * ST_CLIENT_MAX_JOBS + 2)	/* in its whole life */
#define GPU_PERIOD	(200 * NSEC_PER_USEC)

struct gpu {
	char name[16];
	u64 context;

	struct mutex submit;	/* one job at a time */
	u32 emitted;

	/* The hardware. What a job writes is there before its seqno is. */
	u32 seqno;
	u64 memory[GPU_JOBS];
	bool hung;
	struct hrtimer clock;

	/* Nests inside of the locks of fences. */
	spinlock_t list_lock;
	struct list_head jobs;	/* in order, with a reference each */
	bool irq_enabled;

	struct delayed_work timeout;
	unsigned int resets;
	u32 before_irq;		/* a seqno that is done before the irq is enabled */
};

struct gpu_fence {
	struct dma_fence base;	/* first, so that it is freed by default */
	struct gpu *gpu;
	struct list_head link;
};

static struct gpu_fence *to_gpu_fence(struct dma_fence *fence)
{
	return container_of(fence, struct gpu_fence, base);
}

static bool gpu_seqno_passed(struct gpu *gpu, u32 seqno)
{
	/* Pairs with gpu_finish(). */
	return (s32)(smp_load_acquire(&gpu->seqno) - seqno) >= 0;
}

static void gpu_finish(struct gpu *gpu, u32 seqno)
{
	u32 i;

	for (i = gpu->seqno + 1; i <= seqno; i++)
		gpu->memory[i] = i;
	/* Pairs with gpu_seqno_passed(). */
	smp_store_release(&gpu->seqno, seqno);
}

static void gpu_enable_interrupt(struct gpu *gpu)
{
	if (gpu->before_irq)
		gpu_finish(gpu, gpu->before_irq);
	gpu->irq_enabled = true;
}

static const char *gpu_driver_name(struct dma_fence *fence)
{
	return "gpu";
}

static const char *gpu_timeline_name(struct dma_fence *fence)
{
	return to_gpu_fence(fence)->gpu->name;
}

static bool gpu_signaled(struct dma_fence *fence)
{
	return gpu_seqno_passed(to_gpu_fence(fence)->gpu, fence->seqno);
}

static bool gpu_enable_signaling(struct dma_fence *fence)
{
	struct gpu *gpu = to_gpu_fence(fence)->gpu;
	bool pending;

	spin_lock(&gpu->list_lock);
	/* From here on the interrupt is not missed. Was it before? */
	gpu_enable_interrupt(gpu);
	pending = !gpu_seqno_passed(gpu, fence->seqno);
	spin_unlock(&gpu->list_lock);

	return pending;
}

static const struct dma_fence_ops gpu_fence_ops = {
	.get_driver_name = gpu_driver_name,
	.get_timeline_name = gpu_timeline_name,
	.enable_signaling = gpu_enable_signaling,
	.signaled = gpu_signaled,
};

static void gpu_signal(struct list_head *done, int error)
{
	struct gpu_fence *f, *next;
	unsigned long flags;

	/* The fence lock is taken with no other lock held. */
	list_for_each_entry_safe(f, next, done, link) {
		list_del(&f->link);
		/* What dma_fence_try_set_error() does, where there is one. */
		dma_fence_lock_irqsave(&f->base, flags);
		if (error && !dma_fence_test_signaled_flag(&f->base))
			dma_fence_set_error(&f->base, error);
		dma_fence_unlock_irqrestore(&f->base, flags);
		dma_fence_signal(&f->base);
		dma_fence_put(&f->base);
	}
}

static void gpu_retire(struct gpu *gpu)
{
	struct gpu_fence *f, *next;
	unsigned long flags;
	LIST_HEAD(done);

	spin_lock_irqsave(&gpu->list_lock, flags);
	list_for_each_entry_safe(f, next, &gpu->jobs, link) {
		if (!gpu_seqno_passed(gpu, f->base.seqno))
			break;
		list_move_tail(&f->link, &done);
	}
	if (list_empty(&gpu->jobs))
		gpu->irq_enabled = false;
	spin_unlock_irqrestore(&gpu->list_lock, flags);

	gpu_signal(&done, 0);
}

/* One to four jobs at a time. An interrupt comes only if something was done. */
static enum hrtimer_restart gpu_clock(struct hrtimer *clock)
{
	struct gpu *gpu = container_of(clock, struct gpu, clock);
	u32 seqno = min(gpu->seqno + 1 + gpu->seqno % 4,
			smp_load_acquire(&gpu->emitted)); /* pairs with gpu_submit() */

	if (!READ_ONCE(gpu->hung) && seqno > gpu->seqno) {
		bool irq;

		scoped_guard(spinlock_irqsave, &gpu->list_lock) {
			gpu_finish(gpu, seqno);
			irq = gpu->irq_enabled;
		}
		if (irq)
			gpu_retire(gpu);
	}
	hrtimer_forward_now(clock, ns_to_ktime(GPU_PERIOD));

	return HRTIMER_RESTART;
}

static void gpu_stop(struct gpu *gpu, int error)
{
	LIST_HEAD(lost);

	hrtimer_cancel(&gpu->clock);
	gpu_retire(gpu);
	scoped_guard(spinlock_irqsave, &gpu->list_lock)
		list_splice_init(&gpu->jobs, &lost);
	gpu_signal(&lost, error);
	gpu_finish(gpu, gpu->emitted);
}

static void gpu_start(struct gpu *gpu)
{
	hrtimer_start(&gpu->clock, ns_to_ktime(GPU_PERIOD), HRTIMER_MODE_REL);
}

static void gpu_timeout(struct work_struct *work)
{
	struct gpu *gpu = container_of(work, struct gpu, timeout.work);

	guard(mutex)(&gpu->submit);
	if (!READ_ONCE(gpu->hung))
		return;

	gpu_stop(gpu, -ETIMEDOUT);
	gpu->resets++;
	/* Pairs with gpu_wait_reset(). */
	smp_store_release(&gpu->hung, false);
	gpu_start(gpu);
}

static void gpu_hang(struct gpu *gpu)
{
	WRITE_ONCE(gpu->hung, true);
	mod_delayed_work(system_percpu_wq, &gpu->timeout, HZ / 50);
}

static void gpu_wait_reset(struct gpu *gpu)
{
	/* Pairs with gpu_timeout(). */
	while (smp_load_acquire(&gpu->hung))
		fsleep(1000);
}

static void *gpu_probe(struct kunit *test)
{
	struct gpu *gpu = kzalloc_obj(*gpu);

	KUNIT_ASSERT_NOT_NULL(test, gpu);
	strscpy(gpu->name, "gpu-ring");
	gpu->context = dma_fence_context_alloc(1);
	mutex_init(&gpu->submit);
	spin_lock_init(&gpu->list_lock);
	INIT_LIST_HEAD(&gpu->jobs);
	INIT_DELAYED_WORK(&gpu->timeout, gpu_timeout);
	hrtimer_setup(&gpu->clock, gpu_clock, CLOCK_MONOTONIC, HRTIMER_MODE_REL);
	gpu_start(gpu);

	return gpu;
}

/* Nobody submits any more. Fences of this may be anywhere. */
static void gpu_remove(void *issuer)
{
	struct gpu *gpu = issuer;

	cancel_delayed_work_sync(&gpu->timeout);
	gpu_stop(gpu, -ENODEV);
	/* For those who found a fence pending. */
	synchronize_rcu();
	kfree(gpu);
}

static struct dma_fence *gpu_submit(void *issuer)
{
	struct gpu *gpu = issuer;
	struct gpu_fence *f = kzalloc_obj(*f);

	if (!f)
		return NULL;

	gpu_retire(gpu);

	guard(mutex)(&gpu->submit);
	WARN_ON(gpu->emitted + 1 >= GPU_JOBS);
	f->gpu = gpu;
	dma_fence_init(&f->base, &gpu_fence_ops, gpu->context,
		       gpu->emitted + 1);
	dma_fence_get(&f->base);
	scoped_guard(spinlock_irqsave, &gpu->list_lock)
		list_add_tail(&f->link, &gpu->jobs);
	/* Pairs with gpu_clock(). */
	smp_store_release(&gpu->emitted, gpu->emitted + 1);

	return &f->base;
}

static void gpu_stall(void *issuer)
{
	struct gpu *gpu = issuer;

	WRITE_ONCE(gpu->hung, true);
}

static void gpu_check(struct kunit *test, void *issuer, struct dma_fence *fence)
{
	struct gpu *gpu = issuer;

	KUNIT_EXPECT_EQ(test, fence->seqno, gpu->memory[fence->seqno]);
}

static const struct st_issuer gpu_issuer = {
	.timeline_name = "gpu-ring",
	.probe = gpu_probe,
	.submit = gpu_submit,
	.stall = gpu_stall,
	.check = gpu_check,
	.remove = gpu_remove,
};

static void clients(struct kunit *test)
{
	struct gpu *gpu = gpu_probe(test);

	st_clients_run(test, &gpu_issuer, gpu, 0, NULL);
	gpu_remove(gpu);
}

static void hang_now_and_then(void *gpu)
{
	unsigned int i;

	for (i = 0; i < 3; i++) {
		fsleep(50000);
		gpu_hang(gpu);
		gpu_wait_reset(gpu);
	}
}

static void clients_of_hung_gpu(struct kunit *test)
{
	struct gpu *gpu = gpu_probe(test);

	KUNIT_EXPECT_GT(test, st_clients_run(test, &gpu_issuer, gpu, -ETIMEDOUT,
					     hang_now_and_then), 0);
	KUNIT_EXPECT_EQ(test, gpu->resets, 3);
	gpu_remove(gpu);
}

/* The job was done just before the interrupt was enabled. */
static void done_before_interrupt(struct kunit *test)
{
	struct gpu *gpu = gpu_probe(test);
	struct dma_fence *fence;

	hrtimer_cancel(&gpu->clock);
	fence = gpu_submit(gpu);
	KUNIT_ASSERT_NOT_NULL(test, fence);
	gpu->before_irq = 1;
	KUNIT_EXPECT_GT(test, dma_fence_wait_timeout(fence, false, HZ), 0);
	KUNIT_EXPECT_EQ(test, dma_fence_get_status(fence), 1);

	gpu->before_irq = 0;
	gpu_remove(gpu);
	dma_fence_put(fence);
}

static void reset(struct kunit *test)
{
	struct gpu *gpu = gpu_probe(test);
	struct dma_fence *fence;

	hrtimer_cancel(&gpu->clock);
	fence = gpu_submit(gpu);
	KUNIT_ASSERT_NOT_NULL(test, fence);
	gpu_hang(gpu);
	KUNIT_EXPECT_GT(test, dma_fence_wait_timeout(fence, false, 10 * HZ), 0);
	KUNIT_EXPECT_EQ(test, dma_fence_get_status(fence), -ETIMEDOUT);
	dma_fence_put(fence);

	/* It works again. */
	gpu_wait_reset(gpu);
	fence = gpu_submit(gpu);
	KUNIT_ASSERT_NOT_NULL(test, fence);
	KUNIT_EXPECT_EQ(test, dma_fence_wait(fence, false), 0);
	KUNIT_EXPECT_EQ(test, dma_fence_get_status(fence), 1);
	KUNIT_EXPECT_EQ(test, gpu->resets, 1);
	gpu_remove(gpu);
	dma_fence_put(fence);
}

static void unplugged(struct kunit *test)
{
	st_clients_of_unplugged(test, &gpu_issuer);
}

static struct kunit_case issuer_cases[] = {
	KUNIT_CASE(done_before_interrupt),
	KUNIT_CASE(reset),
	KUNIT_CASE(unplugged),
	KUNIT_CASE_SLOW(clients),
	KUNIT_CASE_SLOW(clients_of_hung_gpu),
	{}
};

static struct kunit_suite issuer_suite = {
	.name = "dma-buf-fence-issuer",
	.test_cases = issuer_cases,
};

kunit_test_suite(issuer_suite);
