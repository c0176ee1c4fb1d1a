// SPDX-License-Identifier: GPL-2.0-only
/*
 * What others do with the fences of an issuer, while it works and when it goes.
 * Meant to be run with KASAN and PROVE_LOCKING, and with KCSAN, on two CPUs.
 */

#include <kunit/test.h>
#include <linux/completion.h>
#include <linux/cpumask.h>
#include <linux/delay.h>
#include <linux/dma-fence.h>
#include <linux/kthread.h>
#include <linux/rcupdate.h>
#include <linux/slab.h>

#include "st-dma-fence-clients.h"

/* What others can do with a fence, all of it. */
struct client {
	struct dma_fence_cb cb;
	struct completion called, finished;
	struct kunit *test;
	struct task_struct *task;
	const struct st_issuer *ops;
	void *issuer;
	int error;		/* that jobs may have */
	unsigned int errors;	/* how many had it */
	unsigned int linger;	/* ms from asking for a name to looking at it */
	bool more;
	bool failed;		/* it does not go on */
};

static void client_callback(struct dma_fence *fence, struct dma_fence_cb *cb)
{
	complete(&container_of(cb, struct client, cb)->called);
}

static void client_names(struct client *client, struct dma_fence *fence)
{
	const char __rcu *name;
	bool known;

	scoped_guard(rcu) {
		name = dma_fence_timeline_name(fence);
		mdelay(client->linger);
		known = !strcmp(rcu_dereference(name), client->ops->timeline_name) ||
			!strcmp(rcu_dereference(name), "signaled-timeline");
	}
	KUNIT_EXPECT_TRUE(client->test, known);
}

static void client_fail(struct client *client, const char *why)
{
	KUNIT_FAIL(client->test, "%s", why);
	client->failed = true;
}

/* What a job has written is there for whoever knows that its fence has signaled. */
static void client_check(struct client *client, struct dma_fence *fence)
{
	int status = dma_fence_get_status(fence);

	if (status == 1) {
		if (client->ops->check)
			client->ops->check(client->test, client->issuer, fence);
	} else if (client->error && status == client->error) {
		client->errors++;
	} else {
		KUNIT_EXPECT_EQ(client->test, status, client->error ?: 1);
		client->failed = true;
	}
}

/* Somebody else has found the fence under RCU, and has no reference to it yet. */
static void client_put(struct dma_fence *fence)
{
	struct dma_fence *found;

	scoped_guard(rcu) {
		dma_fence_put(fence);
		found = dma_fence_get_rcu(fence);
	}
	dma_fence_put(found);
}

static void client_job(struct client *client, unsigned int how)
{
	struct dma_fence *fence = client->ops->submit(client->issuer);
	unsigned long end = jiffies + 10 * HZ;

	if (!fence) {
		client_fail(client, "no memory");
		return;
	}

	client_names(client, fence);
	reinit_completion(&client->called);
	switch (how % 5) {
	case 0:
		if (dma_fence_wait_timeout(fence, false, 10 * HZ) <= 0)
			client_fail(client, "a wait did not end");
		client_check(client, fence);
		break;
	case 1:
		if (!dma_fence_add_callback(fence, &client->cb, client_callback) &&
		    !wait_for_completion_timeout(&client->called, 10 * HZ)) {
			dma_fence_remove_callback(fence, &client->cb);
			client_fail(client, "a callback was not called");
		}
		client_check(client, fence);
		break;
	case 2:
		while (!dma_fence_is_signaled(fence) && time_before(jiffies, end))
			fsleep(100);
		client_check(client, fence);
		break;
	case 3:
		if (dma_fence_add_callback(fence, &client->cb, client_callback))
			break;
		client_names(client, fence);
		if (!dma_fence_remove_callback(fence, &client->cb))
			KUNIT_EXPECT_TRUE(client->test, completion_done(&client->called));
		break;
	case 4:
		/* The rest is up to the issuer. */
		dma_fence_enable_signaling(fence);
		break;
	}
	client_names(client, fence);
	client_put(fence);
}

#define CLIENT_JOBS	100	/* each at least */

static int client_thread(void *arg)
{
	struct client *client = arg;
	unsigned int i;

	current->kunit_test = client->test;
	for (i = 0; !client->failed && i < ST_CLIENT_MAX_JOBS; i++) {
		if (i >= CLIENT_JOBS && !READ_ONCE(client->more))
			break;
		client_job(client, i);
	}
	complete(&client->finished);
	while (!kthread_should_stop())
		schedule_timeout_interruptible(1);

	return 0;
}

/**
 * st_clients_run - let two clients use the fences of an issuer in every way
 * @test: fails if they do not behave
 * @ops: what the issuer can do
 * @issuer: the issuer
 * @error: that jobs may have, or 0
 * @meanwhile: optional, they submit jobs until it returns, or as many as they may
 *
 * Return: how many jobs had the error, of those that were looked at.
 */
unsigned int st_clients_run(struct kunit *test, const struct st_issuer *ops,
			    void *issuer, int error,
			    void (*meanwhile)(void *issuer))
{
	struct client *clients = kunit_kcalloc(test, 2, sizeof(*clients), GFP_KERNEL);
	unsigned int i;

	KUNIT_ASSERT_NOT_NULL(test, clients);
	for (i = 0; i < 2; i++) {
		clients[i] = (struct client){ .test = test, .ops = ops, .issuer = issuer,
					      .error = error, .more = meanwhile };
		init_completion(&clients[i].called);
		init_completion(&clients[i].finished);
		clients[i].task = kthread_create(client_thread, &clients[i],
						 "dma-fence-client-%u", i);
		if (IS_ERR(clients[i].task)) {
			if (i)
				kthread_stop(clients[0].task);
			KUNIT_FAIL_AND_ABORT(test, "no thread");
		}
	}
	for (i = 0; i < 2; i++)
		wake_up_process(clients[i].task);
	if (meanwhile)
		meanwhile(issuer);
	for (i = 0; i < 2; i++)
		WRITE_ONCE(clients[i].more, false);
	for (i = 0; i < 2; i++) {
		wait_for_completion(&clients[i].finished);
		kthread_stop(clients[i].task);
	}

	return clients[0].errors + clients[1].errors;
}

#define LEFT	32

/* Somebody looks at fences all the time, for whatever reason. */
struct onlooker {
	struct client client;
	struct dma_fence *fences[LEFT];
	unsigned int rounds;
};

static int onlooker_thread(void *arg)
{
	struct onlooker *onlooker = arg;
	unsigned int i;

	current->kunit_test = onlooker->client.test;
	while (!kthread_should_stop()) {
		for (i = 0; i < LEFT; i++) {
			client_names(&onlooker->client, onlooker->fences[i]);
			dma_fence_is_signaled(onlooker->fences[i]);
		}
		WRITE_ONCE(onlooker->rounds, onlooker->rounds + 1);
		cond_resched();
	}

	return 0;
}

static void unplug(struct kunit *test, const struct st_issuer *ops)
{
	struct onlooker *onlooker = kunit_kzalloc(test, sizeof(*onlooker), GFP_KERNEL);
	struct dma_fence **fences;
	struct client *client;
	unsigned int i, cpu, rounds;
	void *issuer;

	KUNIT_ASSERT_NOT_NULL(test, onlooker);
	client = &onlooker->client;
	fences = onlooker->fences;
	issuer = ops->probe(test);
	KUNIT_ASSERT_EQ(test, 0, kunit_add_action_or_reset(test, ops->remove, issuer));
	client->test = test;
	client->ops = ops;
	client->linger = 2;
	init_completion(&client->called);
	if (ops->stall)
		ops->stall(issuer);
	for (i = 0; i < LEFT; i++) {
		fences[i] = ops->submit(issuer);
		KUNIT_ASSERT_NOT_NULL(test, fences[i]);
		if (i % 2)
			dma_fence_enable_signaling(fences[i]);
	}
	if (dma_fence_add_callback(fences[1], &client->cb, client_callback)) {
		if (ops->stall)
			KUNIT_FAIL(test, "a fence has signaled after ->stall()");
		complete(&client->called);
	}
	client->task = kthread_create(onlooker_thread, onlooker, "dma-fence-onlooker");
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, client->task);
	/* On this CPU it would have looked away when the issuer goes. */
	migrate_disable();
	cpu = cpumask_any_but(cpu_online_mask, smp_processor_id());
	if (cpu < nr_cpu_ids)
		kthread_bind(client->task, cpu);
	wake_up_process(client->task);
	while (!READ_ONCE(onlooker->rounds))
		fsleep(1000);

	kunit_release_action(test, ops->remove, issuer);
	migrate_enable();
	if (!completion_done(&client->called)) {
		KUNIT_FAIL(test, "a callback was not called");
		dma_fence_remove_callback(fences[1], &client->cb);
	}
	rounds = READ_ONCE(onlooker->rounds);
	while (READ_ONCE(onlooker->rounds) < rounds + 3)
		fsleep(1000);
	kthread_stop(client->task);

	for (i = 0; i < LEFT; i++) {
		KUNIT_EXPECT_TRUE(test, dma_fence_test_signaled_flag(fences[i]));
		/* It may have been done before. */
		if (ops->stall || dma_fence_get_status(fences[i]) != 1)
			KUNIT_EXPECT_EQ(test, dma_fence_get_status(fences[i]), -ENODEV);
		client_put(fences[i]);
	}
}

/**
 * st_clients_of_unplugged - take an issuer away from those who use its fences
 * @test: fails if they notice more than an error
 * @ops: what the issuer can do; it is probed and removed here
 */
void st_clients_of_unplugged(struct kunit *test, const struct st_issuer *ops)
{
	unsigned int i;

	/* The onlooker may just have looked away. */
	for (i = 0; i < 4; i++)
		unplug(test, ops);
}
