// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit tests for the vblank timer: how it is started and stopped while its
 * function runs on another CPU.
 */

#include <kunit/test.h>

#include <linux/completion.h>
#include <linux/cpumask.h>
#include <linux/delay.h>
#include <linux/hrtimer.h>
#include <linux/jiffies.h>
#include <linux/kthread.h>
#include <linux/ktime.h>
#include <linux/sched.h>
#include <linux/smp.h>

#include <drm/drm_atomic_state_helper.h>
#include <drm/drm_crtc.h>
#include <drm/drm_drv.h>
#include <drm/drm_kunit_helpers.h>
#include <drm/drm_modes.h>
#include <drm/drm_modeset_helper_vtables.h>
#include <drm/drm_vblank.h>
#include <drm/drm_vblank_helper.h>

#define TIMEOUT_MS	2000

struct timer_device {
	struct drm_device drm;
	struct drm_crtc *crtc;
	/* Where the function of the timer runs. */
	struct completion began;
	int cpu;
	/* What it does from now on, and how far it is. */
	void (*handle)(struct timer_device *dev);
	unsigned int entered, left;
	bool slow, stuck;
};

static struct timer_device *to_timer_device(struct drm_device *drm)
{
	return container_of(drm, struct timer_device, drm);
}

static bool timer_handle(struct drm_crtc *crtc)
{
	struct timer_device *dev = to_timer_device(crtc->dev);
	void (*handle)(struct timer_device *dev);

	/* Pairs with timer_set_handle() and test_off_waits(). */
	handle = smp_load_acquire(&dev->handle);
	dev->cpu = raw_smp_processor_id();
	complete(&dev->began);
	WRITE_ONCE(dev->entered, dev->entered + 1);
	if (handle)
		handle(dev);
	/* Pairs with test_off_waits(). */
	smp_store_release(&dev->left, dev->left + 1);
	return true;
}

static const struct drm_crtc_helper_funcs timer_crtc_helper_funcs = {
	.handle_vblank_timeout = timer_handle,
};

static const struct drm_crtc_funcs timer_crtc_funcs = {
	.atomic_destroy_state = drm_atomic_helper_crtc_destroy_state,
	.atomic_duplicate_state = drm_atomic_helper_crtc_duplicate_state,
	.reset = drm_atomic_helper_crtc_reset,
	DRM_CRTC_VBLANK_TIMER_FUNCS,
};

/*
 * A CRTC whose timer runs, on another CPU than the test from here on. It stays
 * there, as long as it restarts itself.
 */
static struct timer_device *timer_device_create(struct kunit *test, int clock)
{
	struct drm_display_mode *mode;
	struct task_struct *worker;
	const struct cpumask *cpus;
	struct timer_device *dev;
	struct drm_plane *plane;
	struct device *parent;

	if (num_online_cpus() < 2)
		kunit_skip(test, "needs two CPUs");

	parent = drm_kunit_helper_alloc_device(test);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, parent);
	dev = drm_kunit_helper_alloc_drm_device(test, parent, struct timer_device, drm,
						DRIVER_MODESET | DRIVER_ATOMIC);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, dev);
	init_completion(&dev->began);
	KUNIT_ASSERT_EQ(test, drm_vblank_init(&dev->drm, 1), 0);

	plane = drm_kunit_helper_create_primary_plane(test, &dev->drm, NULL, NULL,
						      NULL, 0, NULL);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, plane);
	dev->crtc = drm_kunit_helper_create_crtc(test, &dev->drm, plane, NULL,
						 &timer_crtc_funcs,
						 &timer_crtc_helper_funcs);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, dev->crtc);

	mode = &dev->crtc->mode;
	mode->clock = clock;
	mode->hdisplay = 64;
	mode->htotal = 100;
	mode->vdisplay = 64;
	mode->vtotal = 100;
	drm_mode_set_crtcinfo(mode, 0);

	drm_crtc_vblank_on(dev->crtc);
	KUNIT_ASSERT_EQ(test, drm_crtc_vblank_get(dev->crtc), 0);
	KUNIT_ASSERT_NE(test, wait_for_completion_timeout(&dev->began,
							  msecs_to_jiffies(TIMEOUT_MS)), 0);
	cpus = cpumask_of(cpumask_any_but(cpu_online_mask, dev->cpu));
	KUNIT_ASSERT_EQ(test, set_cpus_allowed_ptr(current, cpus), 0);
	/* drm_crtc_vblank_off() waits for that, too. */
	worker = drm_crtc_vblank_crtc(dev->crtc)->worker->task;
	KUNIT_ASSERT_EQ(test, set_cpus_allowed_ptr(worker, cpus), 0);
	return dev;
}

static void timer_device_stop(struct timer_device *dev)
{
	set_cpus_allowed_ptr(current, cpu_possible_mask);
	drm_crtc_vblank_off(dev->crtc);
	drm_crtc_vblank_put(dev->crtc);
}

/* Whether the timer fires again. */
static bool timer_fires(struct timer_device *dev)
{
	unsigned int i, before = READ_ONCE(dev->left);

	for (i = 0; i < TIMEOUT_MS && READ_ONCE(dev->left) - before < 2; i++)
		usleep_range(1000, 2000);
	return READ_ONCE(dev->left) - before >= 2;
}

/* What the function of the timer does, from its next run on. */
static void timer_set_handle(struct timer_device *dev,
			     void (*handle)(struct timer_device *dev))
{
	/* Pairs with timer_handle(). */
	smp_store_release(&dev->handle, handle);
	timer_fires(dev);
}

/* Waits until the function of the timer begins, without sleeping. */
static bool timer_enters(struct timer_device *dev)
{
	unsigned int i, before = READ_ONCE(dev->entered);

	for (i = 0; i < 1000000 && READ_ONCE(dev->entered) == before; i++)
		udelay(1);
	return READ_ONCE(dev->entered) != before;
}

/* Once, so that its CPU gets to other things, and for longer than the rest takes. */
static void handle_slowly(struct timer_device *dev)
{
	WRITE_ONCE(dev->handle, NULL);
	WRITE_ONCE(dev->slow, true);
	mdelay(100);
}

/* Who frees the CRTC then must find it unused. */
static void test_off_waits(struct kunit *test)
{
	struct timer_device *dev = timer_device_create(test, 600);
	unsigned int i, left;

	/* Pairs with timer_handle(). */
	smp_store_release(&dev->handle, handle_slowly);
	for (i = 0; i < 1000000 && !READ_ONCE(dev->slow); i++)
		udelay(1);
	KUNIT_EXPECT_TRUE(test, dev->slow);

	drm_crtc_vblank_off(dev->crtc);
	/* Pairs with timer_handle(). */
	left = smp_load_acquire(&dev->left);
	KUNIT_EXPECT_EQ(test, left, READ_ONCE(dev->entered));
	msleep(100);
	KUNIT_EXPECT_EQ(test, READ_ONCE(dev->entered), left);

	drm_crtc_vblank_put(dev->crtc);
	/* It can be turned on again. */
	drm_crtc_vblank_on(dev->crtc);
	KUNIT_EXPECT_EQ(test, drm_crtc_vblank_get(dev->crtc), 0);
	KUNIT_EXPECT_TRUE(test, timer_fires(dev));
	timer_device_stop(dev);
}

/* As drm_crtc_handle_vblank() does, but not for ever. */
static void handle_with_lock(struct timer_device *dev)
{
	unsigned int i;

	for (i = 0; i < 1000000; i++) {
		if (spin_trylock(&dev->drm.vblank_time_lock)) {
			spin_unlock(&dev->drm.vblank_time_lock);
			return;
		}
		udelay(1);
	}
	WRITE_ONCE(dev->stuck, true);
}

/* Vblanks are enabled with a lock held that the function of the timer takes. */
static void test_start_does_not_wait(struct kunit *test)
{
	struct timer_device *dev = timer_device_create(test, 600);
	unsigned long flags;
	bool entered;

	timer_set_handle(dev, handle_with_lock);

	spin_lock_irqsave(&dev->drm.vblank_time_lock, flags);
	entered = timer_enters(dev);
	/* Vblanks are disabled and enabled. */
	drm_crtc_vblank_cancel_timer(dev->crtc);
	drm_crtc_vblank_start_timer(dev->crtc);
	spin_unlock_irqrestore(&dev->drm.vblank_time_lock, flags);

	KUNIT_EXPECT_TRUE(test, entered);
	KUNIT_EXPECT_TRUE(test, timer_fires(dev));
	KUNIT_EXPECT_FALSE(test, dev->stuck);
	timer_device_stop(dev);
}

/*
 * The timer is started again while its function begins, and waits for the lock
 * that this is done under. Hrtimers warn if it forwards a timer that is queued
 * and due.
 */
static void test_start_first(struct kunit *test)
{
	struct timer_device *dev = timer_device_create(test, 600);
	struct drm_vblank_crtc_timer *vtimer = &drm_crtc_vblank_crtc(dev->crtc)->vblank_timer;
	unsigned long flags;
	unsigned int i;
	bool running;

	spin_lock_irqsave(&vtimer->interval_lock, flags);
	for (i = 0, running = false; i < 1000000 && !running; i++) {
		udelay(1);
		running = hrtimer_active(&vtimer->timer) &&
			  !hrtimer_is_queued(&vtimer->timer);
	}
	/* As drm_crtc_vblank_start_timer() does, and a frame later. */
	hrtimer_start(&vtimer->timer, vtimer->interval, HRTIMER_MODE_REL);
	mdelay(20);
	spin_unlock_irqrestore(&vtimer->interval_lock, flags);

	KUNIT_EXPECT_TRUE(test, running);
	KUNIT_EXPECT_TRUE(test, timer_fires(dev));
	timer_device_stop(dev);
}

/* The timer is started again at any moment of its function. */
static void test_race_start(struct kunit *test)
{
	struct timer_device *dev = timer_device_create(test, 100000);
	unsigned long end = jiffies + msecs_to_jiffies(1000);
	unsigned int rounds = 0;
	ktime_t again;

	while (time_before(jiffies, end)) {
		if (rounds % 4 == 0)
			drm_crtc_vblank_cancel_timer(dev->crtc);
		drm_crtc_vblank_start_timer(dev->crtc);
		/* a frame later, before or after the timer fires */
		again = ktime_add_us(ktime_get(), 90 + rounds++ % 200);
		while (ktime_before(ktime_get(), again))
			cpu_relax();
	}

	KUNIT_EXPECT_TRUE(test, timer_fires(dev));
	kunit_info(test, "%u rounds, %u vblanks\n", rounds, dev->left);
	timer_device_stop(dev);
}

static struct kunit_case drm_vblank_timer_tests[] = {
	KUNIT_CASE(test_off_waits),
	KUNIT_CASE(test_start_does_not_wait),
	KUNIT_CASE(test_start_first),
	KUNIT_CASE(test_race_start),
	{}
};

static struct kunit_suite drm_vblank_timer_test_suite = {
	.name = "drm_vblank_timer",
	.test_cases = drm_vblank_timer_tests,
};

kunit_test_suite(drm_vblank_timer_test_suite);

MODULE_DESCRIPTION("KUnit tests for the vblank timer");
MODULE_LICENSE("GPL");
