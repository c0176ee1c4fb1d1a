// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests for dma_fence_array: when it signals, with which error, and what it
 * does to its members. The cases that race need two CPUs.
 */

#include <kunit/test.h>
#include <linux/completion.h>
#include <linux/cpumask.h>
#include <linux/dma-fence.h>
#include <linux/dma-fence-array.h>
#include <linux/irq_work.h>
#include <linux/irqflags.h>
#include <linux/kthread.h>
#include <linux/sched.h>
#include <linux/slab.h>

#define MEMBERS		4
#define RACE_ROUNDS	100
#define RACE_MOST	20000	/* rounds, if a race is shy */
#define TIMEOUT		(10 * HZ)

struct member {
	struct dma_fence base;	/* first, so that it is freed by default */
	unsigned int enabled;	/* calls of ->enable_signaling() */
	bool done;		/* what its issuer says when it is asked */
};

static struct member *to_member(struct dma_fence *fence)
{
	return container_of(fence, struct member, base);
}

static const char *member_name(struct dma_fence *fence)
{
	return "member";
}

static bool member_enable_signaling(struct dma_fence *fence)
{
	to_member(fence)->enabled++;
	return !to_member(fence)->done;
}

static bool member_signaled(struct dma_fence *fence)
{
	return to_member(fence)->done;
}

static const struct dma_fence_ops member_ops = {
	.get_driver_name = member_name,
	.get_timeline_name = member_name,
	.enable_signaling = member_enable_signaling,
	.signaled = member_signaled,
};

/* An array, and a reference of our own to each of its members. */
struct members {
	struct dma_fence_array *array;
	struct dma_fence *fences[MEMBERS];
};

static int members_create(struct kunit *test, struct members *m)
{
	struct dma_fence **fences;
	unsigned int i;

	memset(m, 0, sizeof(*m));

	fences = kzalloc_objs(*fences, MEMBERS);
	if (!fences)
		return -ENOMEM;

	for (i = 0; i < MEMBERS; i++) {
		struct member *member = kzalloc_obj(*member);

		if (!member)
			goto err;

		dma_fence_init(&member->base, &member_ops,
			       dma_fence_context_alloc(1), 1);
		m->fences[i] = &member->base;
		fences[i] = dma_fence_get(m->fences[i]);
	}

	m->array = dma_fence_array_create(MEMBERS, fences,
					  dma_fence_context_alloc(1), 1);
	if (m->array)
		return 0;

err:
	for (i = 0; i < MEMBERS; i++) {
		dma_fence_put(fences[i]);
		dma_fence_put(m->fences[i]);
	}
	kfree(fences);
	return -ENOMEM;
}

static void members_put(struct members *m)
{
	unsigned int i;

	/* Nothing may be left in flight, whatever has failed. */
	for (i = 0; i < MEMBERS; i++)
		dma_fence_signal(m->fences[i]);
	irq_work_sync(&m->array->work);

	for (i = 0; i < MEMBERS; i++)
		dma_fence_put(m->fences[i]);
	dma_fence_put(&m->array->base);
}

/* Calls @func with each of the orders in which the members can signal. */
static void try_orders(struct kunit *test,
		       void (*func)(struct kunit *test, const unsigned int *order))
{
	unsigned int order[MEMBERS], n, used, orders = 0;

	for (n = 0; n < 1U << (2 * MEMBERS); n++) {
		unsigned int i;

		for (i = 0, used = 0; i < MEMBERS; i++) {
			order[i] = (n >> (2 * i)) % MEMBERS;
			used |= BIT(order[i]);
		}
		if (used != BIT(MEMBERS) - 1)
			continue;

		func(test, order);
		orders++;
	}

	KUNIT_EXPECT_EQ(test, orders, 24);
}

/* Two bits of n for each member, and all orders of them. */
static_assert(MEMBERS == 4);

/* When the array is asked. */
enum poll_when {
	POLL_AFTER_WORK,	/* the irq_work has been done */
	POLL_AT_ONCE,		/* it cannot have been done */
};

static void poll_in_order(struct kunit *test, const unsigned int *order,
			  bool enable, enum poll_when when)
{
	bool at_once = when == POLL_AT_ONCE && !IS_ENABLED(CONFIG_PREEMPT_RT);
	struct members m;
	unsigned int i;

	KUNIT_ASSERT_EQ(test, members_create(test, &m), 0);
	if (enable)
		dma_fence_enable_signaling(&m.array->base);
	KUNIT_EXPECT_FALSE(test, dma_fence_is_signaled(&m.array->base));

	for (i = 0; i < MEMBERS; i++) {
		unsigned long flags = 0;
		bool flag, signaled;

		if (at_once)
			local_irq_save(flags);
		dma_fence_signal(m.fences[order[i]]);
		if (when == POLL_AFTER_WORK)
			irq_work_sync(&m.array->work);
		flag = dma_fence_test_signaled_flag(&m.array->base);
		signaled = dma_fence_is_signaled(&m.array->base);
		if (at_once)
			local_irq_restore(flags);

		KUNIT_EXPECT_EQ_MSG(test, signaled, i == MEMBERS - 1,
				    "order %u %u %u %u, %u signaled", order[0],
				    order[1], order[2], order[3], i + 1);

		/* Without anybody who asks, if it was enabled. */
		if (enable && when == POLL_AFTER_WORK)
			KUNIT_EXPECT_EQ(test, flag, i == MEMBERS - 1);
	}

	KUNIT_EXPECT_EQ(test, dma_fence_get_status(&m.array->base), 1);
	KUNIT_EXPECT_EQ(test, m.array->base.error, 0);

	members_put(&m);
}

static void order_enabled(struct kunit *test, const unsigned int *order)
{
	poll_in_order(test, order, true, POLL_AFTER_WORK);
}

static void order_at_once(struct kunit *test, const unsigned int *order)
{
	poll_in_order(test, order, true, POLL_AT_ONCE);
}

static void order_polled(struct kunit *test, const unsigned int *order)
{
	poll_in_order(test, order, false, POLL_AT_ONCE);
}

/*
 * Signaled when all members are, and not before, whatever their order. An array
 * that has a callback on one member after the other must not take those that have
 * had theirs for all.
 */
static void signaled_when_all_are(struct kunit *test)
{
	try_orders(test, order_enabled);
}

/* The same, when the callback has not moved on yet. */
static void signaled_when_all_are_at_once(struct kunit *test)
{
	try_orders(test, order_at_once);
}

/* The same, when nobody enables signaling. */
static void signaled_when_all_are_polled(struct kunit *test)
{
	try_orders(test, order_polled);
}

/* Issuers that wait to be asked begin at the same time, not one after the other. */
static void enables_all_at_once(struct kunit *test)
{
	struct members m;
	unsigned int i;

	KUNIT_ASSERT_EQ(test, members_create(test, &m), 0);
	for (i = 0; i < MEMBERS; i++)
		KUNIT_EXPECT_EQ(test, to_member(m.fences[i])->enabled, 0);

	dma_fence_enable_signaling(&m.array->base);
	for (i = 0; i < MEMBERS; i++)
		KUNIT_EXPECT_EQ(test, to_member(m.fences[i])->enabled, 1);

	members_put(&m);
}

/* Members that turn out to be signaled when they are asked. */
static void enables_signaled(struct kunit *test)
{
	struct members m;
	unsigned int done, i;

	for (done = 0; done < BIT(MEMBERS); done++) {
		KUNIT_ASSERT_EQ(test, members_create(test, &m), 0);
		for (i = 0; i < MEMBERS; i++)
			to_member(m.fences[i])->done = done & BIT(i);

		dma_fence_enable_signaling(&m.array->base);
		for (i = 0; i < MEMBERS; i++)
			KUNIT_EXPECT_EQ(test, dma_fence_test_signaled_flag(m.fences[i]),
					!!(done & BIT(i)));
		KUNIT_EXPECT_EQ(test, dma_fence_test_signaled_flag(&m.array->base),
				done == BIT(MEMBERS) - 1);

		for (i = 0; i < MEMBERS; i++)
			dma_fence_signal(m.fences[i]);
		KUNIT_EXPECT_GT(test, dma_fence_wait_timeout(&m.array->base, false, TIMEOUT), 0);

		members_put(&m);
	}
}

/* Who polls finds out from the issuers. */
static void poll_asks(struct kunit *test)
{
	struct members m;
	unsigned int i;

	KUNIT_ASSERT_EQ(test, members_create(test, &m), 0);
	for (i = 0; i < MEMBERS; i++) {
		KUNIT_EXPECT_FALSE(test, dma_fence_is_signaled(&m.array->base));
		to_member(m.fences[i])->done = true;
	}
	KUNIT_EXPECT_TRUE(test, dma_fence_is_signaled(&m.array->base));
	for (i = 0; i < MEMBERS; i++)
		KUNIT_EXPECT_TRUE(test, dma_fence_test_signaled_flag(m.fences[i]));

	members_put(&m);
}

/*
 * Unless they have been told to signal. Asking would signal one member below the
 * lock of another, if it is a callback of that one which polls.
 */
static void poll_does_not_ask(struct kunit *test)
{
	struct members m;
	unsigned int i;

	KUNIT_ASSERT_EQ(test, members_create(test, &m), 0);
	dma_fence_enable_signaling(&m.array->base);
	for (i = 0; i < MEMBERS; i++)
		to_member(m.fences[i])->done = true;

	KUNIT_EXPECT_FALSE(test, dma_fence_is_signaled(&m.array->base));
	for (i = 0; i < MEMBERS; i++)
		KUNIT_EXPECT_FALSE(test, dma_fence_test_signaled_flag(m.fences[i]));

	members_put(&m);
}

static void error_in_order(struct kunit *test, const unsigned int *order,
			   bool enable)
{
	unsigned int bad, i;
	struct members m;

	for (bad = 0; bad < MEMBERS; bad++) {
		KUNIT_ASSERT_EQ(test, members_create(test, &m), 0);
		dma_fence_set_error(m.fences[bad], -EIO);
		if (enable)
			dma_fence_enable_signaling(&m.array->base);

		for (i = 0; i < MEMBERS; i++) {
			dma_fence_signal(m.fences[order[i]]);
			if (enable)
				irq_work_sync(&m.array->work);
		}

		KUNIT_EXPECT_EQ_MSG(test, dma_fence_get_status(&m.array->base), -EIO,
				    "order %u %u %u %u, error of %u", order[0],
				    order[1], order[2], order[3], bad);
		members_put(&m);
	}
}

static void order_error(struct kunit *test, const unsigned int *order)
{
	error_in_order(test, order, true);
}

static void order_error_polled(struct kunit *test, const unsigned int *order)
{
	error_in_order(test, order, false);
}

/* The error of any member is that of the array. */
static void error_of_any(struct kunit *test)
{
	try_orders(test, order_error);
}

/* The same, when nobody enables signaling. */
static void error_of_any_polled(struct kunit *test)
{
	try_orders(test, order_error_polled);
}

/* Of several errors it is one, and it stays. */
static void error_of_several(struct kunit *test)
{
	struct members m;
	unsigned int i;
	int error;

	KUNIT_ASSERT_EQ(test, members_create(test, &m), 0);
	for (i = 0; i < MEMBERS; i++)
		dma_fence_set_error(m.fences[i], -EIO - (int)i);
	dma_fence_enable_signaling(&m.array->base);

	for (i = 0; i < MEMBERS; i++)
		dma_fence_signal(m.fences[i]);
	KUNIT_EXPECT_GT(test, dma_fence_wait_timeout(&m.array->base, false, TIMEOUT), 0);

	error = dma_fence_get_status(&m.array->base);
	KUNIT_EXPECT_LE(test, error, -EIO);
	KUNIT_EXPECT_GT(test, error, -EIO - MEMBERS);
	irq_work_sync(&m.array->work);
	KUNIT_EXPECT_EQ(test, dma_fence_get_status(&m.array->base), error);

	members_put(&m);
}

/* One fence, and an array that has it four times. */
static void same_member_again(struct kunit *test)
{
	struct members m;
	unsigned int i;

	KUNIT_ASSERT_EQ(test, members_create(test, &m), 0);
	for (i = 1; i < MEMBERS; i++) {
		dma_fence_put(m.array->fences[i]);
		m.array->fences[i] = dma_fence_get(m.fences[0]);
	}

	dma_fence_enable_signaling(&m.array->base);
	KUNIT_EXPECT_FALSE(test, dma_fence_is_signaled(&m.array->base));
	dma_fence_signal(m.fences[0]);
	KUNIT_EXPECT_GT(test, dma_fence_wait_timeout(&m.array->base, false, TIMEOUT), 0);

	members_put(&m);
}

/* Nobody needs the array any more, but it has a callback on a member. */
static void put_while_pending(struct kunit *test)
{
	struct dma_fence *fences[MEMBERS];
	unsigned int i, tries;
	struct members m;

	KUNIT_ASSERT_EQ(test, members_create(test, &m), 0);
	memcpy(fences, m.fences, sizeof(fences));

	dma_fence_enable_signaling(&m.array->base);
	dma_fence_put(&m.array->base);

	for (i = 0; i < MEMBERS; i++) {
		KUNIT_EXPECT_EQ(test, kref_read(&fences[i]->refcount), 2);
		dma_fence_signal(fences[i]);
	}

	/* Its last reference goes with the last callback, and with it the members. */
	for (tries = 0; tries < 1000; tries++) {
		if (kref_read(&fences[MEMBERS - 1]->refcount) == 1)
			break;
		schedule_timeout_uninterruptible(1);
	}
	for (i = 0; i < MEMBERS; i++) {
		KUNIT_EXPECT_EQ(test, kref_read(&fences[i]->refcount), 1);
		dma_fence_put(fences[i]);
	}
}

struct race {
	struct members m;
	unsigned int order[MEMBERS];
	struct dma_fence_cb cb;
	struct completion signaled;	/* all members are */
	atomic_t called;		/* the callback on the array */
	atomic_t begun;			/* both sides are ready */

	/* What came out, in all rounds. */
	unsigned int removed;	/* callback removed while the members signaled */
	unsigned int ran;	/* callback ran before that */
	unsigned int pending;	/* the poller found the array unsignaled */
	unsigned int signaler;	/* the poller signaled it, before its irq_work */
};

static void count_call(struct dma_fence *fence, struct dma_fence_cb *cb)
{
	atomic_inc(&container_of(cb, struct race, cb)->called);
}

/* Meet the other side. Bounded, since it may have no CPU for now. */
static void race_begin(struct race *race)
{
	unsigned int i;

	atomic_inc(&race->begun);
	for (i = 0; i < 100000 && atomic_read(&race->begun) < 2; i++)
		cpu_relax();
}

static int race_signaler(void *data)
{
	struct race *race = data;
	unsigned int i;

	race_begin(race);
	for (i = 0; i < MEMBERS; i++)
		dma_fence_signal(race->m.fences[race->order[i]]);
	complete(&race->signaled);

	return 0;
}

static void race_round(struct kunit *test, struct race *race, unsigned int round,
		       void (*func)(struct kunit *test, struct race *race,
				    unsigned int round))
{
	struct task_struct *task;
	unsigned int i;

	KUNIT_ASSERT_EQ(test, members_create(test, &race->m), 0);
	for (i = 0; i < MEMBERS; i++)
		race->order[i] = (round + i * (round & 4 ? 1 : 3)) % MEMBERS;
	atomic_set(&race->called, 0);
	atomic_set(&race->begun, 0);
	init_completion(&race->signaled);

	task = kthread_create(race_signaler, race, "fence-array-signaler");
	KUNIT_ASSERT_FALSE(test, IS_ERR(task));
	get_task_struct(task);
	wake_up_process(task);

	race_begin(race);
	func(test, race, round);

	wait_for_completion(&race->signaled);
	kthread_stop_put(task);
	KUNIT_EXPECT_TRUE(test, dma_fence_is_signaled(&race->m.array->base));
	members_put(&race->m);
}

static struct race *race_create(struct kunit *test)
{
	struct race *race;

	if (num_online_cpus() < 2)
		kunit_skip(test, "needs two CPUs");

	race = kunit_kzalloc(test, sizeof(*race), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, race);

	return race;
}

static void remove_callback(struct kunit *test, struct race *race,
			    unsigned int round)
{
	struct dma_fence *fence = &race->m.array->base;
	unsigned int i;

	if (dma_fence_add_callback(fence, &race->cb, count_call))
		return;

	/* Sooner or later, and every other time it is us who signal the array. */
	for (i = 0; i < round % 512; i++) {
		if (round & 1 && dma_fence_is_signaled(fence))
			break;
		cpu_relax();
	}

	if (dma_fence_remove_callback(fence, &race->cb)) {
		KUNIT_EXPECT_EQ(test, atomic_read(&race->called), 0);
		race->removed++;
	} else {
		KUNIT_EXPECT_EQ(test, atomic_read(&race->called), 1);
		race->ran++;
	}
}

/* A callback on the array is removed, or has run, while the members signal. */
static void race_remove_callback(struct kunit *test)
{
	struct race *race = race_create(test);
	unsigned int round;

	for (round = 0; round < RACE_ROUNDS ||
	     (round < RACE_MOST && !(race->removed && race->ran)); round++)
		race_round(test, race, round, remove_callback);

	kunit_info(test, "%u rounds, %u callbacks removed, %u ran before that\n",
		   round, race->removed, race->ran);
	KUNIT_EXPECT_GT(test, race->removed, 0);
	KUNIT_EXPECT_GT(test, race->ran, 0);
}

static void poll_array(struct kunit *test, struct race *race, unsigned int round)
{
	struct dma_fence *fence = &race->m.array->base;
	bool enable = round & 1;
	unsigned int i, member;

	if (enable)
		dma_fence_enable_signaling(fence);

	for (i = 0; i < 100000; i++) {
		bool before = dma_fence_test_signaled_flag(fence);

		if (!dma_fence_is_signaled(fence)) {
			race->pending++;
			continue;
		}

		for (member = 0; member < MEMBERS; member++) {
			fence = race->m.fences[member];
			KUNIT_EXPECT_TRUE(test, dma_fence_test_signaled_flag(fence));
		}
		/* The irq_work has not begun, so it is not what signaled. */
		race->signaler += enable && !before &&
				  irq_work_is_pending(&race->m.array->work);
		break;
	}
}

/* Whoever sees the array signaled sees that of each of its members. */
static void race_poll(struct kunit *test)
{
	struct race *race = race_create(test);
	unsigned int round;

	for (round = 0; round < RACE_ROUNDS ||
	     (round < RACE_MOST && !(race->pending && race->signaler)); round++)
		race_round(test, race, round, poll_array);

	kunit_info(test, "%u rounds, %u polls of pending members, %u before the irq_work\n",
		   round, race->pending, race->signaler);
	KUNIT_EXPECT_GT(test, race->pending, 0);
	KUNIT_EXPECT_GT(test, race->signaler, 0);
}

static struct kunit_case dma_fence_array_cases[] = {
	KUNIT_CASE(signaled_when_all_are),
	KUNIT_CASE(signaled_when_all_are_at_once),
	KUNIT_CASE(signaled_when_all_are_polled),
	KUNIT_CASE(enables_all_at_once),
	KUNIT_CASE(enables_signaled),
	KUNIT_CASE(poll_asks),
	KUNIT_CASE(poll_does_not_ask),
	KUNIT_CASE(error_of_any),
	KUNIT_CASE(error_of_any_polled),
	KUNIT_CASE(error_of_several),
	KUNIT_CASE(same_member_again),
	KUNIT_CASE(put_while_pending),
	KUNIT_CASE_SLOW(race_remove_callback),
	KUNIT_CASE_SLOW(race_poll),
	{}
};

static struct kunit_suite dma_fence_array_suite = {
	.name = "dma-buf-fence-array",
	.test_cases = dma_fence_array_cases,
};

kunit_test_suite(dma_fence_array_suite);
