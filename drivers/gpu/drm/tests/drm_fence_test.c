// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit tests for the out-fences of CRTCs and writeback connectors, which
 * outlive the device that issued them.
 *
 * Most of what can go wrong is a use-after-free and needs KASAN to be seen. The
 * races need two CPUs.
 */

#include <kunit/test.h>

#include <linux/completion.h>
#include <linux/delay.h>
#include <linux/dma-fence.h>
#include <linux/kthread.h>
#include <linux/sched.h>
#include <linux/seq_file.h>
#include <linux/sizes.h>
#include <linux/slab.h>

#include <drm/drm_atomic_state_helper.h>
#include <drm/drm_connector.h>
#include <drm/drm_drv.h>
#include <drm/drm_encoder.h>
#include <drm/drm_fourcc.h>
#include <drm/drm_kunit_helpers.h>
#include <drm/drm_managed.h>
#include <drm/drm_mode_config.h>
#include <drm/drm_modeset_helper_vtables.h>
#include <drm/drm_plane.h>
#include <drm/drm_probe_helper.h>
#include <drm/drm_syncobj.h>
#include <drm/drm_writeback.h>

#include "../drm_crtc_internal.h"

static const struct drm_driver fence_kms_driver = {
	.name = "fence-kms",
	.driver_features = DRIVER_MODESET | DRIVER_ATOMIC,
};

static const struct drm_driver fence_render_driver = {
	.name = "fence-render",
	.driver_features = DRIVER_RENDER,
};

static const u32 fence_formats[] = { DRM_FORMAT_XRGB8888 };

static struct drm_device *fence_device_create(struct kunit *test,
					      const struct drm_driver *driver)
{
	struct drm_device *drm;
	struct device *dev;

	dev = drm_kunit_helper_alloc_device(test);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, dev);

	drm = __drm_kunit_helper_alloc_drm_device_with_driver(test, dev,
							      sizeof(*drm), 0,
							      driver);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, drm);

	return drm;
}

/* Unbind. The last reference to the DRM device goes with it. */
static void fence_device_destroy(struct kunit *test, struct drm_device *drm)
{
	drm_kunit_helper_free_device(test, drm->dev);
}

static struct drm_crtc *fence_crtc_create(struct kunit *test,
					  struct drm_device *drm)
{
	struct drm_plane *plane;

	plane = drm_kunit_helper_create_primary_plane(test, drm, NULL, NULL,
						      NULL, 0, NULL);
	return drm_kunit_helper_create_crtc(test, drm, plane, NULL, NULL, NULL);
}

static const struct drm_connector_funcs fence_connector_funcs = {
	.fill_modes = drm_helper_probe_single_connector_modes,
	.reset = drm_atomic_helper_connector_reset,
	.atomic_duplicate_state = drm_atomic_helper_connector_duplicate_state,
	.atomic_destroy_state = drm_atomic_helper_connector_destroy_state,
};

static struct drm_writeback_connector *
fence_writeback_create(struct kunit *test, struct drm_device *drm)
{
	struct drm_writeback_connector *wb_connector;
	struct drm_encoder *encoder;
	int ret;

	wb_connector = drmm_kzalloc(drm, sizeof(*wb_connector), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, wb_connector);
	encoder = drmm_plain_encoder_alloc(drm, NULL, DRM_MODE_ENCODER_VIRTUAL,
					   NULL);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, encoder);

	ret = drmm_writeback_connector_init(drm, wb_connector,
					    &fence_connector_funcs, encoder,
					    fence_formats,
					    ARRAY_SIZE(fence_formats));
	KUNIT_ASSERT_EQ(test, ret, 0);

	return wb_connector;
}

/* What issues the fence. */
struct fence_source {
	const char *name;
	bool writeback;
	const char *timeline;	/* how the name of the timeline begins */
};

static const struct fence_source fence_sources[] = {
	{ .name = "crtc", .timeline = "CRTC:" },
	{ .name = "writeback", .writeback = true, .timeline = "CONNECTOR:" },
};

KUNIT_ARRAY_PARAM_DESC(fence_source, fence_sources, name);

struct fence_issuer {
	struct drm_crtc *crtc;
	struct drm_writeback_connector *wb_connector;
};

static struct fence_issuer fence_issuer_create(struct kunit *test,
					       struct drm_device *drm)
{
	const struct fence_source *source = test->param_value;
	struct fence_issuer issuer = {};

	if (source->writeback)
		issuer.wb_connector = fence_writeback_create(test, drm);
	else
		issuer.crtc = fence_crtc_create(test, drm);

	return issuer;
}

static struct dma_fence *fence_try_issue(const struct fence_issuer *issuer)
{
	if (issuer->wb_connector)
		return drm_writeback_get_out_fence(issuer->wb_connector);

	return drm_crtc_create_fence(issuer->crtc);
}

static struct dma_fence *fence_issue(struct kunit *test,
				     const struct fence_issuer *issuer)
{
	struct dma_fence *fence = fence_try_issue(issuer);

	KUNIT_ASSERT_NOT_NULL(test, fence);

	return fence;
}

static struct dma_fence *fence_create(struct kunit *test, struct drm_device *drm)
{
	struct fence_issuer issuer = fence_issuer_create(test, drm);

	return fence_issue(test, &issuer);
}

struct fence_names {
	char driver[32];
	char timeline[32];
};

static void fence_read_names(struct dma_fence *fence, struct fence_names *names)
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

static void drm_test_fence_names(struct kunit *test)
{
	const struct fence_source *source = test->param_value;
	struct drm_device *drm = fence_device_create(test, &fence_kms_driver);
	struct dma_fence *fence = fence_create(test, drm);
	struct fence_names names;

	fence_read_names(fence, &names);
	KUNIT_EXPECT_STREQ(test, names.driver, "fence-kms");
	KUNIT_EXPECT_TRUE(test, strstarts(names.timeline, source->timeline));
	KUNIT_EXPECT_EQ(test, dma_fence_get_status(fence), 0);

	dma_fence_signal(fence);
	fence_read_names(fence, &names);
	KUNIT_EXPECT_STREQ(test, names.driver, "detached-driver");
	KUNIT_EXPECT_STREQ(test, names.timeline, "signaled-timeline");
	KUNIT_EXPECT_EQ(test, dma_fence_get_status(fence), 1);

	dma_fence_put(fence);
}

#ifdef CONFIG_DEBUG_FS
static struct drm_out_fence_timeline *fence_timeline(const struct fence_issuer *issuer)
{
	return issuer->wb_connector ? &issuer->wb_connector->out_fences :
				      &issuer->crtc->out_fences;
}

/* What the file in debugfs has. */
static char *fence_list(struct kunit *test, const struct fence_issuer *issuer)
{
	struct seq_file seq = { .size = SZ_16K };

	seq.buf = kunit_kzalloc(test, seq.size, GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, seq.buf);
	drm_out_fence_timeline_show(fence_timeline(issuer), &seq);
	KUNIT_ASSERT_FALSE(test, seq_has_overflowed(&seq));
	seq.buf[seq.count] = '\0';

	return seq.buf;
}

/* Parse a line. Returns the next one. */
static const char *fence_expect_line(struct kunit *test, const char *line,
				     struct dma_fence *fence)
{
	unsigned long long context, seqno, sec, nsec;
	int tgid, end = 0;

	if (sscanf(line, "%llu:%llu pending age:%llu.%9llu tgid:%d comm:%n",
		   &context, &seqno, &sec, &nsec, &tgid, &end) != 5 || !end)
		KUNIT_FAIL_AND_ABORT(test, "line: %s", line);
	KUNIT_EXPECT_EQ(test, context, fence->context);
	KUNIT_EXPECT_EQ(test, seqno, fence->seqno);
	KUNIT_EXPECT_LT(test, sec, 60);
	KUNIT_EXPECT_EQ(test, tgid, task_tgid_nr(current));
	line = strchr(line, '\n');
	KUNIT_ASSERT_NOT_NULL(test, line);

	return line + 1;
}

static void drm_test_fence_list(struct kunit *test)
{
	struct drm_device *drm = fence_device_create(test, &fence_kms_driver);
	struct fence_issuer issuer = fence_issuer_create(test, drm);
	struct dma_fence *fences[3];
	const char *line;
	unsigned int i;

	KUNIT_EXPECT_STREQ(test, fence_list(test, &issuer), "");
	for (i = 0; i < ARRAY_SIZE(fences); i++)
		fences[i] = fence_issue(test, &issuer);

	/* One is signaled, and one is of a commit that failed. */
	dma_fence_signal(fences[0]);
	dma_fence_put(fences[1]);
	line = fence_list(test, &issuer);
	line = fence_expect_line(test, line, fences[2]);
	KUNIT_EXPECT_STREQ(test, line, "");

	dma_fence_signal(fences[2]);
	KUNIT_EXPECT_STREQ(test, fence_list(test, &issuer), "");
	dma_fence_put(fences[2]);
	dma_fence_put(fences[0]);
}

struct fence_committer {
	struct fence_issuer issuer;
	struct dma_fence *fence;
	struct completion done;
};

static int fence_commit(void *data)
{
	struct fence_committer *committer = data;

	committer->fence = fence_try_issue(&committer->issuer);
	complete(&committer->done);
	while (!kthread_should_stop())
		schedule_timeout_interruptible(1);

	return 0;
}

/* The name of a process is anything. */
static void drm_test_fence_list_comm(struct kunit *test)
{
	struct drm_device *drm = fence_device_create(test, &fence_kms_driver);
	struct fence_committer committer = {
		.issuer = fence_issuer_create(test, drm),
	};
	struct task_struct *task;
	const char *line;

	init_completion(&committer.done);
	task = kthread_run(fence_commit, &committer, "%s", "a b\nc\\d");
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, task);
	wait_for_completion(&committer.done);
	kthread_stop(task);
	KUNIT_ASSERT_NOT_NULL(test, committer.fence);

	line = fence_list(test, &committer.issuer);
	KUNIT_EXPECT_NOT_NULL_MSG(test, strstr(line, " comm:a\\040b\\012c\\134d\n"),
				  "line: %s", line);
	dma_fence_put(committer.fence);
}

/* The oldest come first, and there is a bound on their number. */
static void drm_test_fence_list_many(struct kunit *test)
{
	struct drm_device *drm = fence_device_create(test, &fence_kms_driver);
	struct fence_issuer issuer = fence_issuer_create(test, drm);
	struct dma_fence *fences[67];
	const char *line;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(fences); i++)
		fences[i] = fence_issue(test, &issuer);

	line = fence_list(test, &issuer);
	for (i = 0; i < 64; i++)
		line = fence_expect_line(test, line, fences[i]);
	KUNIT_EXPECT_STREQ(test, line, "and 3 more\n");

	for (i = 0; i < ARRAY_SIZE(fences); i++)
		dma_fence_put(fences[i]);
}
#endif /* CONFIG_DEBUG_FS */

static void fence_callback(struct dma_fence *fence, struct dma_fence_cb *cb)
{
}

/* The device is gone, and everything that can be done with the fence is done. */
static void drm_test_fence_device_gone(struct kunit *test)
{
	struct drm_device *drm = fence_device_create(test, &fence_kms_driver);
	struct dma_fence *fence = fence_create(test, drm);
	struct dma_fence_cb cb;
	struct fence_names names;
	ktime_t time;

	KUNIT_ASSERT_EQ(test, 0, dma_fence_add_callback(fence, &cb,
							fence_callback));
	dma_fence_signal(fence);
	time = dma_fence_timestamp(fence);
	fence_device_destroy(test, drm);

	fence_read_names(fence, &names);
	KUNIT_EXPECT_STREQ(test, names.driver, "detached-driver");
	KUNIT_EXPECT_STREQ(test, names.timeline, "signaled-timeline");
	KUNIT_EXPECT_EQ(test, dma_fence_get_status(fence), 1);
	KUNIT_EXPECT_EQ(test, dma_fence_wait(fence, false), 0);
	KUNIT_EXPECT_FALSE(test, dma_fence_remove_callback(fence, &cb));
	dma_fence_signal(fence);
	dma_fence_set_deadline(fence, ktime_get());
	KUNIT_EXPECT_EQ(test, dma_fence_timestamp(fence), time);

	dma_fence_put(fence);
}

/* What was still pending when the device went away. Nobody may wait for ever. */
struct fence_gone_cb {
	struct dma_fence_cb base;
	int calls;
	int status;
};

static void fence_gone_callback(struct dma_fence *fence, struct dma_fence_cb *cb)
{
	struct fence_gone_cb *gone = container_of(cb, typeof(*gone), base);

	gone->calls++;
	gone->status = dma_fence_get_status_locked(fence);
}

static void fence_expect_gone(struct kunit *test, struct dma_fence *fence,
			      struct fence_gone_cb *cb)
{
	KUNIT_EXPECT_EQ(test, cb->calls, 1);
	KUNIT_EXPECT_EQ(test, cb->status, -ENODEV);
	KUNIT_EXPECT_EQ(test, dma_fence_get_status(fence), -ENODEV);
	KUNIT_EXPECT_GT(test, dma_fence_wait_timeout(fence, false, 1), 0);

	/* What is left is the reference of the caller. */
	KUNIT_EXPECT_EQ(test, kref_read(&fence->refcount), 1);
}

static void drm_test_fence_pending_device_gone(struct kunit *test)
{
	struct drm_device *drm = fence_device_create(test, &fence_kms_driver);
	struct dma_fence *fence = fence_create(test, drm);
	struct fence_gone_cb cb = {};

	KUNIT_ASSERT_EQ(test, 0, dma_fence_add_callback(fence, &cb.base,
							fence_gone_callback));
	fence_device_destroy(test, drm);
	fence_expect_gone(test, fence, &cb);

	/* The driver finishes its page flip late. */
	dma_fence_signal(fence);
	KUNIT_EXPECT_EQ(test, cb.calls, 1);
	KUNIT_EXPECT_EQ(test, dma_fence_get_status(fence), -ENODEV);

	dma_fence_put(fence);
}

/* Several in flight, as with a queue of commits. Some were on screen already. */
static void drm_test_fence_pending_some(struct kunit *test)
{
	struct drm_device *drm = fence_device_create(test, &fence_kms_driver);
	struct fence_issuer issuer = fence_issuer_create(test, drm);
	struct fence_gone_cb cb[4] = {};
	struct dma_fence *fence[4];
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(fence); i++) {
		fence[i] = fence_issue(test, &issuer);
		KUNIT_ASSERT_EQ(test, 0,
				dma_fence_add_callback(fence[i], &cb[i].base,
						       fence_gone_callback));
		if (i % 2)
			dma_fence_signal(fence[i]);
	}
	fence_device_destroy(test, drm);

	for (i = 0; i < ARRAY_SIZE(fence); i++) {
		if (i % 2) {
			KUNIT_EXPECT_EQ(test, cb[i].calls, 1);
			KUNIT_EXPECT_EQ(test, dma_fence_get_status(fence[i]), 1);
		} else {
			fence_expect_gone(test, fence[i], &cb[i]);
		}
		dma_fence_put(fence[i]);
	}
}

static int fence_prepare_job(struct drm_writeback_connector *wb_connector,
			     struct drm_writeback_job *job)
{
	return 0;
}

/* Unmapping a framebuffer takes its reservation lock and sleeps. */
static void fence_cleanup_job(struct drm_writeback_connector *wb_connector,
			      struct drm_writeback_job *job)
{
	unsigned int *cleaned = job->priv;
	unsigned int n = 1;

	/* With PREEMPT_RT a held spinlock only shows as an RCU read section. */
	if (irqs_disabled() || rcu_preempt_depth())
		n = 1000;
	else
		might_sleep();
	WRITE_ONCE(*cleaned, *cleaned + n);
}

static const struct drm_connector_helper_funcs fence_job_helper_funcs = {
	.prepare_writeback_job = fence_prepare_job,
	.cleanup_writeback_job = fence_cleanup_job,
};

static struct drm_writeback_job *
fence_job_create(struct kunit *test, struct drm_writeback_connector *wb_connector)
{
	struct drm_writeback_job *job = kzalloc_obj(*job);

	KUNIT_ASSERT_NOT_NULL(test, job);
	job->connector = wb_connector;
	job->out_fence = drm_writeback_get_out_fence(wb_connector);
	KUNIT_ASSERT_NOT_NULL(test, job->out_fence);
	KUNIT_ASSERT_EQ(test, 0, drm_writeback_prepare_job(job));

	return job;
}

static void fence_job_queue(struct drm_writeback_connector *wb_connector,
			    struct drm_writeback_job *job)
{
	struct drm_connector_state state = { .writeback_job = job };

	drm_writeback_queue_job(wb_connector, &state);
}

/* Writeback jobs that the hardware never finished. */
static void drm_test_fence_job_queued(struct kunit *test)
{
	struct drm_device *drm = fence_device_create(test, &fence_kms_driver);
	struct drm_writeback_connector *wb_connector;
	struct fence_gone_cb cb[2] = {};
	struct drm_writeback_job *job;
	struct dma_fence *fence[2];
	unsigned int cleaned = 0;
	unsigned int i;

	wb_connector = fence_writeback_create(test, drm);
	drm_connector_helper_add(&wb_connector->base, &fence_job_helper_funcs);

	for (i = 0; i < ARRAY_SIZE(fence); i++) {
		job = fence_job_create(test, wb_connector);
		job->priv = &cleaned;
		fence[i] = dma_fence_get(job->out_fence);
		KUNIT_ASSERT_EQ(test, 0,
				dma_fence_add_callback(fence[i], &cb[i].base,
						       fence_gone_callback));
		fence_job_queue(wb_connector, job);
	}
	fence_device_destroy(test, drm);

	/* Both, and none of them in atomic context. */
	KUNIT_EXPECT_EQ(test, cleaned, ARRAY_SIZE(fence));
	for (i = 0; i < ARRAY_SIZE(fence); i++) {
		fence_expect_gone(test, fence[i], &cb[i]);
		dma_fence_put(fence[i]);
	}
}

/* Not on a stack, as a worker that was given up on may still count. */
static unsigned int fence_cleaned;

static void fence_cleanup_job_slowly(struct drm_writeback_connector *wb_connector,
				     struct drm_writeback_job *job)
{
	msleep(100);
	WRITE_ONCE(fence_cleaned, fence_cleaned + 1);
}

static const struct drm_connector_helper_funcs fence_slow_job_helper_funcs = {
	.prepare_writeback_job = fence_prepare_job,
	.cleanup_writeback_job = fence_cleanup_job_slowly,
};

/* Writeback jobs that the hardware finished when the device had to go. */
static void drm_test_fence_job_done_last(struct kunit *test)
{
	struct drm_device *drm = fence_device_create(test, &fence_kms_driver);
	struct drm_writeback_connector *wb_connector;
	unsigned int i;

	wb_connector = fence_writeback_create(test, drm);
	drm_connector_helper_add(&wb_connector->base,
				 &fence_slow_job_helper_funcs);
	fence_cleaned = 0;

	for (i = 0; i < 3; i++)
		fence_job_queue(wb_connector, fence_job_create(test, wb_connector));
	for (i = 0; i < 3; i++)
		drm_writeback_signal_completion(wb_connector, 0);
	fence_device_destroy(test, drm);

	KUNIT_EXPECT_EQ(test, READ_ONCE(fence_cleaned), 3);
	/* Let a worker that was not waited for end before the next case. */
	if (READ_ONCE(fence_cleaned) != 3)
		msleep(1000);
}

/* The hardware reports an error for a job whose fence signaled in the meantime. */
static void drm_test_fence_job_fails_late(struct kunit *test)
{
	struct drm_device *drm = fence_device_create(test, &fence_kms_driver);
	struct drm_writeback_connector *wb_connector;
	struct drm_writeback_job *job;
	struct dma_fence *fence;
	unsigned int ms;

	wb_connector = fence_writeback_create(test, drm);
	drm_connector_helper_add(&wb_connector->base, &fence_job_helper_funcs);
	fence_cleaned = 0;

	job = fence_job_create(test, wb_connector);
	job->priv = &fence_cleaned;
	fence = dma_fence_get(job->out_fence);
	fence_job_queue(wb_connector, job);
	dma_fence_signal(fence);
	drm_writeback_signal_completion(wb_connector, -EIO);

	/* By a worker. */
	for (ms = 0; ms < 5000 && !READ_ONCE(fence_cleaned); ms += 20)
		msleep(20);
	KUNIT_EXPECT_EQ(test, fence_cleaned, 1);
	KUNIT_EXPECT_EQ(test, dma_fence_get_status(fence), 1);
	dma_fence_put(fence);
	fence_device_destroy(test, drm);
}

/* The same fence in a syncobj, as a compositor passes it on. */
static void drm_test_fence_device_gone_syncobj(struct kunit *test)
{
	struct drm_device *drm = fence_device_create(test, &fence_kms_driver);
	struct dma_fence *fence = fence_create(test, drm);
	struct drm_syncobj *syncobj;
	struct dma_fence *found;

	KUNIT_ASSERT_EQ(test, 0, drm_syncobj_create(&syncobj, 0, fence));
	dma_fence_signal(fence);
	dma_fence_put(fence);
	fence_device_destroy(test, drm);

	found = drm_syncobj_fence_get(syncobj);
	KUNIT_EXPECT_PTR_EQ(test, found, fence);
	KUNIT_EXPECT_EQ(test, dma_fence_wait(found, false), 0);
	KUNIT_EXPECT_EQ(test, dma_fence_get_status(found), 1);
	dma_fence_put(found);
	drm_syncobj_put(syncobj);
}

/*
 * A reader that has found the fence unsignaled and got its names, and takes its
 * time to read them. Nothing that it reads may go away before it is through.
 */
struct slow_reader {
	struct kunit *test;
	struct dma_fence *fence;
	struct completion reading;
	struct fence_names names;
	bool leave;
	bool left;
};

static int slow_reader_thread(void *arg)
{
	struct slow_reader *reader = arg;
	const char __rcu *timeline;
	const char __rcu *driver;
	unsigned int ms;

	current->kunit_test = reader->test;

	rcu_read_lock();
	driver = dma_fence_driver_name(reader->fence);
	timeline = dma_fence_timeline_name(reader->fence);
	complete(&reader->reading);
	/* Not for ever, should somebody wait for readers. */
	for (ms = 0; ms < 1000 && !READ_ONCE(reader->leave); ms++)
		mdelay(1);
	strscpy(reader->names.driver, rcu_dereference(driver));
	strscpy(reader->names.timeline, rcu_dereference(timeline));
	WRITE_ONCE(reader->left, true);
	rcu_read_unlock();

	while (!kthread_should_stop())
		schedule_timeout_interruptible(1);

	return 0;
}

/* Where there is only one, a reader in its RCU section has it. */
static void fence_needs_two_cpus(struct kunit *test)
{
	if (num_online_cpus() < 2)
		kunit_skip(test, "requires at least 2 CPUs");
}

static struct task_struct *slow_reader_start(struct kunit *test,
					     struct slow_reader *reader)
{
	struct task_struct *task;

	reader->test = test;
	init_completion(&reader->reading);
	task = kthread_run(slow_reader_thread, reader, "drm-fence-reader");
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, task);
	wait_for_completion(&reader->reading);

	return task;
}

static void slow_reader_finish(struct kunit *test, struct slow_reader *reader,
			       struct task_struct *task, const char *driver,
			       const char *timeline)
{
	WRITE_ONCE(reader->leave, true);
	kthread_stop(task);
	KUNIT_EXPECT_STREQ(test, reader->names.driver, driver);
	KUNIT_EXPECT_TRUE(test, strstarts(reader->names.timeline, timeline));
	dma_fence_put(reader->fence);
}

/* A driver that goes away, as its module does. */
static struct drm_driver *fence_driver_create(struct kunit *test)
{
	struct drm_driver *driver;

	driver = kmemdup(&fence_kms_driver, sizeof(*driver), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, driver);
	driver->name = kstrdup("fence-module", GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, driver->name);

	return driver;
}

static void fence_driver_free(struct drm_driver *driver)
{
	kfree(driver->name);
	kfree(driver);
}

/* Managed CRTC and connector: all goes with the last reference. */
static void drm_test_fence_device_gone_under_reader(struct kunit *test)
{
	const struct fence_source *source = test->param_value;
	struct slow_reader reader = {};
	struct drm_driver *driver;
	struct task_struct *task;
	struct drm_device *drm;

	fence_needs_two_cpus(test);
	driver = fence_driver_create(test);
	drm = fence_device_create(test, driver);
	reader.fence = fence_create(test, drm);
	task = slow_reader_start(test, &reader);
	dma_fence_signal(reader.fence);
	fence_device_destroy(test, drm);
	fence_driver_free(driver);
	slow_reader_finish(test, &reader, task, "fence-module", source->timeline);
}

/* A driver that frees its CRTC itself, for instance in drm_mode_config_cleanup(). */
static void fence_crtc_destroy(struct drm_crtc *crtc)
{
	drm_crtc_cleanup(crtc);
	kfree(crtc);
}

static const struct drm_crtc_funcs fence_unmanaged_crtc_funcs = {
	.destroy = fence_crtc_destroy,
	.reset = drm_atomic_helper_crtc_reset,
	.atomic_duplicate_state = drm_atomic_helper_crtc_duplicate_state,
	.atomic_destroy_state = drm_atomic_helper_crtc_destroy_state,
};

static void fence_plane_destroy(struct drm_plane *plane)
{
	drm_plane_cleanup(plane);
	kfree(plane);
}

static const struct drm_plane_funcs fence_unmanaged_plane_funcs = {
	.destroy = fence_plane_destroy,
	.reset = drm_atomic_helper_plane_reset,
	.atomic_duplicate_state = drm_atomic_helper_plane_duplicate_state,
	.atomic_destroy_state = drm_atomic_helper_plane_destroy_state,
};

static struct drm_crtc *fence_unmanaged_crtc_create(struct kunit *test,
						    struct drm_device *drm)
{
	struct drm_plane *plane;
	struct drm_crtc *crtc;

	plane = kzalloc_obj(*plane);
	KUNIT_ASSERT_NOT_NULL(test, plane);
	KUNIT_ASSERT_EQ(test, 0,
			drm_universal_plane_init(drm, plane, 0,
						 &fence_unmanaged_plane_funcs,
						 fence_formats,
						 ARRAY_SIZE(fence_formats), NULL,
						 DRM_PLANE_TYPE_PRIMARY, NULL));
	crtc = kzalloc_obj(*crtc);
	KUNIT_ASSERT_NOT_NULL(test, crtc);
	KUNIT_ASSERT_EQ(test, 0,
			drm_crtc_init_with_planes(drm, crtc, plane, NULL,
						  &fence_unmanaged_crtc_funcs,
						  NULL));

	return crtc;
}

static void fence_connector_destroy(struct drm_connector *connector)
{
	drm_connector_cleanup(connector);
	kfree(drm_connector_to_writeback(connector));
}

static const struct drm_connector_funcs fence_unmanaged_connector_funcs = {
	.fill_modes = drm_helper_probe_single_connector_modes,
	.destroy = fence_connector_destroy,
	.reset = drm_atomic_helper_connector_reset,
	.atomic_duplicate_state = drm_atomic_helper_connector_duplicate_state,
	.atomic_destroy_state = drm_atomic_helper_connector_destroy_state,
};

static struct drm_writeback_connector *
fence_unmanaged_writeback_create(struct kunit *test, struct drm_device *drm)
{
	struct drm_writeback_connector *wb_connector;

	wb_connector = kzalloc_obj(*wb_connector);
	KUNIT_ASSERT_NOT_NULL(test, wb_connector);
	KUNIT_ASSERT_EQ(test, 0,
			drm_writeback_connector_init(drm, wb_connector,
						     &fence_unmanaged_connector_funcs,
						     NULL, fence_formats,
						     ARRAY_SIZE(fence_formats), 1));

	return wb_connector;
}

static struct fence_issuer fence_unmanaged_issuer_create(struct kunit *test,
							 struct drm_device *drm)
{
	const struct fence_source *source = test->param_value;
	struct fence_issuer issuer = {};

	if (source->writeback)
		issuer.wb_connector = fence_unmanaged_writeback_create(test, drm);
	else
		issuer.crtc = fence_unmanaged_crtc_create(test, drm);

	return issuer;
}

/* What the driver frees itself, the device stays. */
static void drm_test_fence_pending_mode_config_gone(struct kunit *test)
{
	struct drm_device *drm = fence_device_create(test, &fence_kms_driver);
	struct fence_issuer issuer = fence_unmanaged_issuer_create(test, drm);
	struct dma_fence *fence = fence_issue(test, &issuer);
	struct fence_gone_cb cb = {};

	KUNIT_ASSERT_EQ(test, 0, dma_fence_add_callback(fence, &cb.base,
							fence_gone_callback));
	drm_mode_config_cleanup(drm);
	fence_expect_gone(test, fence, &cb);
	dma_fence_put(fence);

	fence_device_destroy(test, drm);
}

/*
 * A CRTC or connector that goes away by itself, as with component drivers. No one
 * waits for readers of its names.
 */
static void drm_test_fence_issuer_gone_under_reader(struct kunit *test)
{
	const struct fence_source *source = test->param_value;
	struct slow_reader reader = {};
	struct fence_issuer issuer;
	struct task_struct *task;
	struct drm_device *drm;

	fence_needs_two_cpus(test);
	drm = fence_device_create(test, &fence_kms_driver);
	issuer = fence_unmanaged_issuer_create(test, drm);
	reader.fence = fence_issue(test, &issuer);
	task = slow_reader_start(test, &reader);
	dma_fence_signal(reader.fence);
	if (issuer.wb_connector) {
		drm_encoder_cleanup(&issuer.wb_connector->encoder);
		fence_connector_destroy(&issuer.wb_connector->base);
	} else {
		fence_crtc_destroy(issuer.crtc);
	}
	slow_reader_finish(test, &reader, task, "fence-kms", source->timeline);

	drm_mode_config_cleanup(drm);
	fence_device_destroy(test, drm);
}

/*
 * Module unload: the driver's constants stay for a grace period, then they are
 * gone as well.
 */
static void drm_test_fence_module_gone(struct kunit *test)
{
	struct drm_driver *driver = fence_driver_create(test);
	struct drm_device *drm = fence_device_create(test, driver);
	struct dma_fence *fence = fence_create(test, drm);
	struct fence_names names;

	fence_read_names(fence, &names);
	KUNIT_EXPECT_STREQ(test, names.driver, "fence-module");

	dma_fence_signal(fence);
	fence_device_destroy(test, drm);
	synchronize_rcu();
	fence_driver_free(driver);

	fence_read_names(fence, &names);
	KUNIT_EXPECT_STREQ(test, names.driver, "detached-driver");
	KUNIT_EXPECT_STREQ(test, names.timeline, "signaled-timeline");
	KUNIT_EXPECT_EQ(test, dma_fence_get_status(fence), 1);
	dma_fence_put(fence);
}

/*
 * A commit that fails drops its fence unsignaled. The CRTC must not hold on to
 * it, or else userspace fills the memory with commits that fail. A reader in an
 * RCU section looks at the reference count of what is about to be freed.
 */
#define FENCES_KEPT	16	/* at most so many that nobody needs any more */

struct fence_counter {
	struct dma_fence *fence;
	struct completion reading;
	bool replaced;
	unsigned int refs;
};

static int fence_counter_thread(void *arg)
{
	struct fence_counter *counter = arg;
	unsigned int ms;

	rcu_read_lock();
	complete(&counter->reading);
	for (ms = 0; ms < 1000 && !READ_ONCE(counter->replaced); ms++)
		mdelay(1);
	if (READ_ONCE(counter->replaced))
		counter->refs = kref_read(&counter->fence->refcount);
	rcu_read_unlock();

	while (!kthread_should_stop())
		schedule_timeout_interruptible(1);

	return 0;
}

static void drm_test_fence_failed_commit(struct kunit *test)
{
	struct drm_device *drm = fence_device_create(test, &fence_kms_driver);
	struct fence_issuer issuer = fence_issuer_create(test, drm);
	struct fence_counter counter = { .refs = UINT_MAX };
	struct task_struct *task;
	unsigned int i;

	if (num_online_cpus() < 2)
		kunit_skip(test, "requires at least 2 CPUs");

	counter.fence = fence_issue(test, &issuer);

	init_completion(&counter.reading);
	task = kthread_run(fence_counter_thread, &counter, "drm-fence-counter");
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, task);
	wait_for_completion(&counter.reading);

	dma_fence_put(counter.fence);
	for (i = 0; i < FENCES_KEPT; i++)
		dma_fence_put(fence_issue(test, &issuer));
	WRITE_ONCE(counter.replaced, true);
	kthread_stop(task);
	fence_device_destroy(test, drm);

	if (counter.refs == UINT_MAX)
		kunit_skip(test, "too slow");
	KUNIT_EXPECT_EQ(test, counter.refs, 0);
}

/*
 * Nor to the fences of frames that are on screen, which userspace may keep, and
 * not even if one that came before them is never signaled.
 */
static void drm_test_fence_signaled_not_kept(struct kunit *test)
{
	struct drm_device *drm = fence_device_create(test, &fence_kms_driver);
	struct fence_issuer issuer = fence_issuer_create(test, drm);
	struct dma_fence *fence[FENCES_KEPT * 4];
	struct dma_fence *stuck;
	unsigned int kept = 0;
	unsigned int i;

	stuck = fence_issue(test, &issuer);
	for (i = 0; i < ARRAY_SIZE(fence); i++) {
		fence[i] = fence_issue(test, &issuer);
		dma_fence_signal(fence[i]);
	}
	for (i = 0; i < ARRAY_SIZE(fence); i++) {
		if (kref_read(&fence[i]->refcount) > 1)
			kept++;
		dma_fence_put(fence[i]);
	}
	KUNIT_EXPECT_LT(test, kept, FENCES_KEPT);

	dma_fence_signal(stuck);
	dma_fence_put(stuck);
	fence_device_destroy(test, drm);
}

/* A fence of a render job, with names from the device if there is one. */
struct render_fence {
	struct dma_fence base;
	struct drm_device *drm;
};

static const char *render_fence_driver(struct dma_fence *fence)
{
	struct drm_device *drm = container_of(fence, struct render_fence, base)->drm;

	return drm ? drm->driver->name : "fence-render";
}

static const char *render_fence_timeline(struct dma_fence *fence)
{
	struct drm_device *drm = container_of(fence, struct render_fence, base)->drm;

	return drm ? drm->unique : "none";
}

static const struct dma_fence_ops render_fence_ops = {
	.get_driver_name = render_fence_driver,
	.get_timeline_name = render_fence_timeline,
};

static struct dma_fence *render_fence_create(struct kunit *test,
					     struct drm_device *drm)
{
	struct render_fence *render = kzalloc_obj(*render);

	KUNIT_ASSERT_NOT_NULL(test, render);
	render->drm = drm;
	dma_fence_init(&render->base, &render_fence_ops,
		       dma_fence_context_alloc(1), 1);

	return &render->base;
}

static struct drm_device *render_device_create(struct kunit *test)
{
	struct drm_device *drm;
	struct device *dev;

	dev = drm_kunit_helper_alloc_device(test);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, dev);
	drm = __devm_drm_dev_alloc(dev, &fence_render_driver, sizeof(*drm), 0);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, drm);

	return drm;
}

/* The driver has signaled its last fence, and somebody still reads the names. */
static void drm_test_fence_release_waits_for_reader(struct kunit *test)
{
	struct slow_reader reader = {};
	struct task_struct *task;
	struct drm_device *drm;
	char unique[32];

	fence_needs_two_cpus(test);
	drm = render_device_create(test);
	strscpy(unique, drm->unique);
	reader.fence = render_fence_create(test, drm);
	KUNIT_ASSERT_EQ(test, drm_dev_register(drm, 0), 0);
	drm_dev_unregister(drm);

	task = slow_reader_start(test, &reader);
	dma_fence_signal(reader.fence);
	fence_device_destroy(test, drm);
	/* It was waited for, so it is through without being told. */
	KUNIT_EXPECT_TRUE(test, READ_ONCE(reader.left));
	slow_reader_finish(test, &reader, task, "fence-render", unique);
}

/* Nobody has a fence of a device whose probe failed, so nobody is waited for. */
static void drm_test_fence_release_unregistered(struct kunit *test)
{
	struct slow_reader reader = {};
	struct task_struct *task;
	struct drm_device *drm;
	ktime_t start;
	bool left;
	s64 ms;

	fence_needs_two_cpus(test);
	drm = render_device_create(test);
	reader.fence = render_fence_create(test, NULL);
	start = ktime_get();
	task = slow_reader_start(test, &reader);
	fence_device_destroy(test, drm);
	left = READ_ONCE(reader.left);
	ms = ktime_ms_delta(ktime_get(), start);
	dma_fence_signal(reader.fence);
	slow_reader_finish(test, &reader, task, "fence-render", "none");

	/* By then the reader leaves by itself. */
	if (left && ms >= 1000)
		kunit_skip(test, "too slow");
	KUNIT_EXPECT_FALSE(test, left);
}

/*
 * Race. Fences are signaled one after the other, as by a compositor that flips,
 * while readers on all CPUs read names, status and timestamp of whatever fence
 * there is. The first device stays for long, so that what can go wrong on a live
 * one has its chance. The others go away as the readers look.
 */
#define RACE_FENCES_LONG	12000
#define RACE_FENCES_SHORT	200
#define RACE_DEVICES_SHORT	10

struct fence_race {
	struct kunit *test;
	struct dma_fence __rcu *fence;
	ktime_t start;
	atomic_t signals;
	atomic_t begun;		/* reads that are about to ask for names */
	atomic_t reads;
	atomic_t callbacks;	/* reads that got a name from the CRTC */
	atomic_t crossed;	/* and the fence was signaled right after */
	atomic_t bad;		/* answers that no fence may give */
};

static void fence_race_read(struct fence_race *race, struct dma_fence *fence)
{
	bool before = dma_fence_test_signaled_flag(fence);
	struct fence_names names;
	ktime_t time;

	atomic_inc(&race->begun);
	fence_read_names(fence, &names);
	if (!strcmp(names.driver, "fence-kms")) {
		atomic_inc(&race->callbacks);
		if (!before && dma_fence_test_signaled_flag(fence))
			atomic_inc(&race->crossed);
	} else if (strcmp(names.driver, "detached-driver")) {
		atomic_inc(&race->bad);
	}
	if (!strstarts(names.timeline, "CRTC:") &&
	    strcmp(names.timeline, "signaled-timeline"))
		atomic_inc(&race->bad);

	if (dma_fence_get_status(fence)) {
		time = dma_fence_timestamp(fence);
		if (ktime_before(time, race->start) ||
		    ktime_after(time, ktime_get()))
			atomic_inc(&race->bad);
	}

	atomic_inc(&race->reads);
}

static int fence_race_reader(void *arg)
{
	struct fence_race *race = arg;
	struct dma_fence *fence;

	current->kunit_test = race->test;
	while (!kthread_should_stop()) {
		rcu_read_lock();
		fence = dma_fence_get_rcu_safe(&race->fence);
		rcu_read_unlock();
		if (fence) {
			fence_race_read(race, fence);
			dma_fence_put(fence);
		}
		cond_resched();
	}

	return 0;
}

/* Signal while a reader is at the names, now earlier and now later. */
static void fence_race_let_read(struct fence_race *race, unsigned int n)
{
	int begun = atomic_read(&race->begun);
	unsigned int i;

	for (i = 0; i < 2000 && atomic_read(&race->begun) == begun; i++)
		cpu_relax();
	for (i = 0; i < n; i++)
		cpu_relax();
}

static void fence_race_stop(void *task)
{
	kthread_stop(task);
}

static void drm_test_fence_race_signal_names(struct kunit *test)
{
	struct dma_fence *fence = NULL, *old;
	struct task_struct *readers[2];
	unsigned int i, j, count, total = 0;
	struct fence_race *race;
	struct drm_device *drm;
	struct drm_crtc *crtc;

	if (num_online_cpus() < 2)
		kunit_skip(test, "requires at least 2 CPUs");

	race = kunit_kzalloc(test, sizeof(*race), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, race);
	race->test = test;
	race->start = ktime_get();

	for (i = 0; i < ARRAY_SIZE(readers); i++) {
		readers[i] = kthread_run(fence_race_reader, race,
					 "drm-fence-reader:%u", i);
		KUNIT_ASSERT_NOT_ERR_OR_NULL(test, readers[i]);
		KUNIT_ASSERT_EQ(test, 0,
				kunit_add_action_or_reset(test, fence_race_stop,
							  readers[i]));
	}

	for (i = 0; i <= RACE_DEVICES_SHORT; i++) {
		/* Reported by now, and the next device would repeat it. */
		if (READ_ONCE(test->status) == KUNIT_FAILURE)
			break;

		drm = fence_device_create(test, &fence_kms_driver);
		crtc = fence_crtc_create(test, drm);

		count = i ? RACE_FENCES_SHORT : RACE_FENCES_LONG;
		total += count;
		for (j = 0; j < count; j++) {
			old = fence;
			fence = drm_crtc_create_fence(crtc);
			rcu_assign_pointer(race->fence, fence);
			dma_fence_put(old);
			if (!fence)
				break;
			fence_race_let_read(race, j % 32);
			dma_fence_signal(fence);
			atomic_inc(&race->signals);
			cond_resched();
		}

		/* The readers keep on reading the last fence. */
		fence_device_destroy(test, drm);
	}

	for (i = 0; i < ARRAY_SIZE(readers); i++)
		kunit_release_action(test, fence_race_stop, readers[i]);
	RCU_INIT_POINTER(race->fence, NULL);
	dma_fence_put(fence);

	kunit_info(test, "%d signals, %d reads, %d name callbacks, %d of them across a signal\n",
		   atomic_read(&race->signals), atomic_read(&race->reads),
		   atomic_read(&race->callbacks), atomic_read(&race->crossed));
	KUNIT_EXPECT_EQ(test, atomic_read(&race->bad), 0);
	KUNIT_EXPECT_EQ(test, atomic_read(&race->signals), total);

	/* A run in which the window never opened proves nothing. */
	KUNIT_EXPECT_GT(test, atomic_read(&race->callbacks), 0);
	if (!atomic_read(&race->crossed) && test->status == KUNIT_SUCCESS)
		kunit_mark_skipped(test, "no signal came while a name was read");
}

static struct kunit_case drm_fence_tests[] = {
	KUNIT_CASE_PARAM(drm_test_fence_names, fence_source_gen_params),
#ifdef CONFIG_DEBUG_FS
	KUNIT_CASE_PARAM(drm_test_fence_list, fence_source_gen_params),
	KUNIT_CASE_PARAM(drm_test_fence_list_comm, fence_source_gen_params),
	KUNIT_CASE_PARAM(drm_test_fence_list_many, fence_source_gen_params),
#endif
	KUNIT_CASE_PARAM(drm_test_fence_device_gone, fence_source_gen_params),
	KUNIT_CASE_PARAM(drm_test_fence_device_gone_syncobj,
			 fence_source_gen_params),
	KUNIT_CASE_PARAM(drm_test_fence_module_gone, fence_source_gen_params),
	KUNIT_CASE_PARAM(drm_test_fence_failed_commit, fence_source_gen_params),
	KUNIT_CASE_PARAM(drm_test_fence_signaled_not_kept,
			 fence_source_gen_params),
	KUNIT_CASE_PARAM(drm_test_fence_device_gone_under_reader,
			 fence_source_gen_params),
	KUNIT_CASE_PARAM(drm_test_fence_issuer_gone_under_reader,
			 fence_source_gen_params),
	KUNIT_CASE(drm_test_fence_release_waits_for_reader),
	KUNIT_CASE(drm_test_fence_release_unregistered),
	KUNIT_CASE_SLOW(drm_test_fence_race_signal_names),
	KUNIT_CASE_PARAM(drm_test_fence_pending_device_gone,
			 fence_source_gen_params),
	KUNIT_CASE_PARAM(drm_test_fence_pending_mode_config_gone,
			 fence_source_gen_params),
	KUNIT_CASE_PARAM(drm_test_fence_pending_some, fence_source_gen_params),
	KUNIT_CASE(drm_test_fence_job_queued),
	KUNIT_CASE(drm_test_fence_job_done_last),
	KUNIT_CASE(drm_test_fence_job_fails_late),
	{}
};

static struct kunit_suite drm_fence_test_suite = {
	.name = "drm_fence",
	.test_cases = drm_fence_tests,
};

kunit_test_suite(drm_fence_test_suite);

MODULE_DESCRIPTION("KUnit tests for DRM out-fences");
MODULE_LICENSE("GPL");
