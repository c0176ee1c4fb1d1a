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

/* Whether it comes to that in a second, without sleeping. */
#define spin_until(cond) ({						\
	ktime_t __end = ktime_add_ms(ktime_get(), 1000);		\
	bool __is;							\
									\
	while (!(__is = (cond)) && ktime_before(ktime_get(), __end))	\
		udelay(1);						\
	__is;								\
})

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

	/* Pairs with timer_set_handle() and drm_test_vblank_timer_off_waits(). */
	handle = smp_load_acquire(&dev->handle);
	dev->cpu = raw_smp_processor_id();
	complete(&dev->began);
	WRITE_ONCE(dev->entered, dev->entered + 1);
	if (handle)
		handle(dev);
	/* Pairs with drm_test_vblank_timer_off_waits(). */
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

static void timer_device_stop(void *data)
{
	struct timer_device *dev = data;

	drm_crtc_vblank_off(dev->crtc);
	drm_crtc_vblank_put(dev->crtc);
}

/* A CRTC whose timer has not been started yet. */
static struct timer_device *timer_device_alloc(struct kunit *test)
{
	struct drm_display_mode *mode;
	struct timer_device *dev;
	struct drm_plane *plane;
	struct device *parent;

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
	/* 60 Hz */
	mode->clock = 600;
	mode->hdisplay = 64;
	mode->htotal = 100;
	mode->vdisplay = 64;
	mode->vtotal = 100;
	drm_mode_set_crtcinfo(mode, 0);
	return dev;
}

/*
 * A CRTC whose timer runs, on another CPU than the test from here on. It stays
 * there, as long as it restarts itself.
 */
static struct timer_device *timer_device_create(struct kunit *test)
{
	const struct cpumask *cpus;
	struct task_struct *worker;
	struct timer_device *dev;
	unsigned int cpu;

	if (num_online_cpus() < 2)
		kunit_skip(test, "needs two CPUs");

	dev = timer_device_alloc(test);
	drm_crtc_vblank_on(dev->crtc);
	KUNIT_ASSERT_EQ(test, drm_crtc_vblank_get(dev->crtc), 0);
	/* Before the CRTC is freed, whatever happens. */
	KUNIT_ASSERT_EQ(test, kunit_add_action_or_reset(test, timer_device_stop, dev), 0);
	KUNIT_ASSERT_NE(test, wait_for_completion_timeout(&dev->began,
							  msecs_to_jiffies(TIMEOUT_MS)), 0);
	cpu = cpumask_any_but(cpu_online_mask, dev->cpu);
	KUNIT_ASSERT_LT(test, cpu, nr_cpu_ids);
	cpus = cpumask_of(cpu);
	KUNIT_ASSERT_EQ(test, set_cpus_allowed_ptr(current, cpus), 0);
	/* drm_crtc_vblank_off() waits for that, too. */
	worker = drm_crtc_vblank_crtc(dev->crtc)->worker->task;
	KUNIT_ASSERT_EQ(test, set_cpus_allowed_ptr(worker, cpus), 0);
	return dev;
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
static void timer_set_handle(struct kunit *test, struct timer_device *dev,
			     void (*handle)(struct timer_device *dev))
{
	/* Pairs with timer_handle(). */
	smp_store_release(&dev->handle, handle);
	KUNIT_ASSERT_TRUE(test, timer_fires(dev));
}

/* Once, so that its CPU gets to other things, and for longer than the rest takes. */
static void handle_slowly(struct timer_device *dev)
{
	WRITE_ONCE(dev->handle, NULL);
	WRITE_ONCE(dev->slow, true);
	mdelay(100);
}

/* Who frees the CRTC then must find it unused. */
static void drm_test_vblank_timer_off_waits(struct kunit *test)
{
	struct timer_device *dev = timer_device_create(test);
	unsigned int left;

	/* Pairs with timer_handle(). */
	smp_store_release(&dev->handle, handle_slowly);
	KUNIT_EXPECT_TRUE(test, spin_until(READ_ONCE(dev->slow)));

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
}

/* As drm_crtc_handle_vblank() does, but not for ever. */
static void handle_with_lock(struct timer_device *dev)
{
	if (spin_until(spin_trylock(&dev->drm.vblank_time_lock)))
		spin_unlock(&dev->drm.vblank_time_lock);
	else
		WRITE_ONCE(dev->stuck, true);
}

/* Vblanks are enabled with a lock held that the function of the timer takes. */
static void drm_test_vblank_timer_start_does_not_wait(struct kunit *test)
{
	struct timer_device *dev = timer_device_create(test);
	unsigned long flags;
	unsigned int before;
	bool entered;

	timer_set_handle(test, dev, handle_with_lock);

	spin_lock_irqsave(&dev->drm.vblank_time_lock, flags);
	before = READ_ONCE(dev->entered);
	entered = spin_until(READ_ONCE(dev->entered) != before);
	/* Vblanks are disabled and enabled. */
	drm_crtc_vblank_cancel_timer(dev->crtc);
	drm_crtc_vblank_start_timer(dev->crtc);
	spin_unlock_irqrestore(&dev->drm.vblank_time_lock, flags);

	KUNIT_EXPECT_TRUE(test, entered);
	KUNIT_EXPECT_TRUE(test, timer_fires(dev));
	KUNIT_EXPECT_FALSE(test, dev->stuck);
}

/*
 * The timer is started again while its function begins, and waits for the lock
 * that this is done under. Then that is no vblank, and nothing to forward.
 */
static void drm_test_vblank_timer_start_first(struct kunit *test)
{
	struct timer_device *dev = timer_device_create(test);
	struct drm_vblank_crtc_timer *vtimer = &drm_crtc_vblank_crtc(dev->crtc)->vblank_timer;
	unsigned long flags;
	unsigned int before;
	bool running;

	spin_lock_irqsave(&vtimer->interval_lock, flags);
	before = READ_ONCE(dev->entered);
	running = spin_until(hrtimer_active(&vtimer->timer) &&
			     !hrtimer_is_queued(&vtimer->timer));
	/* As drm_crtc_vblank_start_timer() does, but with a long frame. */
	hrtimer_start(&vtimer->timer, ms_to_ktime(1000), HRTIMER_MODE_REL);
	spin_unlock_irqrestore(&vtimer->interval_lock, flags);

	msleep(100);
	KUNIT_EXPECT_TRUE(test, running);
	KUNIT_EXPECT_EQ(test, READ_ONCE(dev->entered), before);
	KUNIT_EXPECT_TRUE(test, timer_fires(dev));
}

/* As drivers do that turn off all CRTCs when they are unloaded. */
static void drm_test_vblank_timer_cancel_unstarted(struct kunit *test)
{
	struct timer_device *dev = timer_device_alloc(test);

	drm_crtc_vblank_cancel_timer(dev->crtc);
	KUNIT_EXPECT_EQ(test, dev->entered, 0);
}

static struct kunit_case drm_vblank_timer_tests[] = {
	KUNIT_CASE(drm_test_vblank_timer_off_waits),
	KUNIT_CASE(drm_test_vblank_timer_start_does_not_wait),
	KUNIT_CASE(drm_test_vblank_timer_start_first),
	KUNIT_CASE(drm_test_vblank_timer_cancel_unstarted),
	{}
};

static struct kunit_suite drm_vblank_timer_test_suite = {
	.name = "drm_vblank_timer",
	.test_cases = drm_vblank_timer_tests,
};

kunit_test_suite(drm_vblank_timer_test_suite);

MODULE_DESCRIPTION("KUnit tests for the vblank timer");
MODULE_LICENSE("GPL");
