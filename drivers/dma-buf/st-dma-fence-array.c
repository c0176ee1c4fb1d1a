// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests for dma_fence_array: when it signals, with which error, and what it
 * does to its members. The cases that race need two CPUs.
 */

#include <kunit/test.h>
#include <linux/completion.h>
#include <linux/cpumask.h>
#include <linux/delay.h>
#include <linux/dma-fence.h>
#include <linux/dma-fence-array.h>
#include <linux/irq_work.h>
#include <linux/irqflags.h>
#include <linux/kthread.h>
#include <linux/prandom.h>
#include <linux/sched.h>
#include <linux/slab.h>

#define MEMBERS		4
#define MANY		300	/* the most that a case has */
#define IN_FLIGHT	12	/* callbacks that an array has at least, if it needs them */
#define RUN_MOST	128	/* members that an irq_work may look at */
#define RACE_ROUNDS	100
#define RACE_MOST	20000	/* rounds, if a race is shy */
#define RACE_MANY	32	/* members, in every other round */
#define TIMEOUT		(10 * HZ)

struct member {
	struct dma_fence base;	/* first, so that it is freed by default */
	unsigned int enabled;	/* calls of ->enable_signaling() */
	bool done;		/* what its issuer says when it is asked */
	struct meeting *meeting; /* where it goes to, and signals, when it is enabled */
};

/* Two sides wait for each other, but not for ever: the other may have no CPU now. */
struct meeting {
	atomic_t here;
};

static void meet(struct meeting *meeting)
{
	unsigned int i;

	atomic_inc(&meeting->here);
	for (i = 0; i < 100000 && atomic_read(&meeting->here) < 2; i++)
		cpu_relax();
}

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
	if (to_member(fence)->meeting) {
		meet(to_member(fence)->meeting);
		return false;
	}
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
	unsigned int num;
	struct dma_fence **fences;
};

static int members_create(struct kunit *test, struct members *m, unsigned int num)
{
	struct dma_fence **fences;
	unsigned int i;

	memset(m, 0, sizeof(*m));

	m->num = num;
	m->fences = kunit_kcalloc(test, num, sizeof(*m->fences), GFP_KERNEL);
	fences = kzalloc_objs(*fences, num);
	if (!m->fences || !fences)
		goto err_free;

	for (i = 0; i < num; i++) {
		struct member *member = kzalloc_obj(*member);

		if (!member)
			goto err;

		dma_fence_init(&member->base, &member_ops,
			       dma_fence_context_alloc(1), 1);
		m->fences[i] = &member->base;
		fences[i] = dma_fence_get(m->fences[i]);
	}

	m->array = dma_fence_array_create(num, fences,
					  dma_fence_context_alloc(1), 1);
	if (m->array)
		return 0;

err:
	for (i = 0; i < num; i++) {
		dma_fence_put(fences[i]);
		dma_fence_put(m->fences[i]);
	}
err_free:
	kfree(fences);
	return -ENOMEM;
}

/* With PREEMPT_RT irq_work_sync() waits for RCU, also for what has been done. */
static void wait_for_work(struct dma_fence_array *array)
{
	if (irq_work_is_busy(&array->work))
		irq_work_sync(&array->work);
}

static void members_put(struct members *m)
{
	unsigned int i;

	/* Nothing may be left in flight, whatever has failed. */
	for (i = 0; i < m->num; i++)
		dma_fence_signal(m->fences[i]);
	wait_for_work(m->array);

	for (i = 0; i < m->num; i++)
		dma_fence_put(m->fences[i]);
	dma_fence_put(&m->array->base);
}

/* Orders in which many members signal. */
enum many_order {
	SAME,
	OPPOSITE,
	INWARDS,	/* the members at the ends first, in turn */
	OUTWARDS,
	SECOND_FIRST,	/* inwards, but those first that get the second callbacks */
	SECOND_LAST,	/* outwards, but those first that get the first ones */
	EVEN_THEN_ODD,
	RANDOM,
	MANY_ORDERS
};

static void many_order(enum many_order which, unsigned int num, unsigned int *order)
{
	struct rnd_state rnd;
	unsigned int i, j;

	prandom_seed_state(&rnd, num);
	for (i = 0; i < num; i++) {
		unsigned int inwards = i & 1 ? num - 1 - i / 2 : i / 2;

		switch (which) {
		case OPPOSITE:
			order[num - 1 - i] = i;
			break;
		case INWARDS:
			order[i] = inwards;
			break;
		case OUTWARDS:
			order[num - 1 - i] = inwards;
			break;
		case SECOND_FIRST:
			j = num < 2 * IN_FLIGHT || i >= 2 * IN_FLIGHT ? i :
			    (i + IN_FLIGHT) % (2 * IN_FLIGHT);
			order[j] = inwards;
			break;
		case SECOND_LAST:
			j = i < IN_FLIGHT ? i : num - 1 - (i - IN_FLIGHT);
			order[j] = inwards;
			break;
		case EVEN_THEN_ODD:
			order[i & 1 ? (num + i) / 2 : i / 2] = i;
			break;
		default:
			order[i] = i;
		}
	}

	for (i = num - 1; which == RANDOM && i; i--) {
		j = prandom_u32_state(&rnd) % (i + 1);
		swap(order[i], order[j]);
	}
}

typedef void (*order_func_t)(struct kunit *test, unsigned int num,
			     const unsigned int *order);

/* Calls @func with more members than have a callback at the same time. */
static void try_many(struct kunit *test, order_func_t func)
{
	static const unsigned int nums[] = { 11, 12, 13, 24, 25, 40 };
	enum many_order which;
	unsigned int *order, i;

	order = kunit_kcalloc(test, MANY, sizeof(*order), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, order);

	for (i = 0; i < ARRAY_SIZE(nums); i++) {
		for (which = 0; which < MANY_ORDERS; which++) {
			many_order(which, nums[i], order);
			func(test, nums[i], order);
		}
	}
}

/* Calls @func with each of the orders in which four members can signal, and with many. */
static void try_orders(struct kunit *test, order_func_t func)
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

		func(test, MEMBERS, order);
		orders++;
	}

	KUNIT_EXPECT_EQ(test, orders, 24);

	try_many(test, func);
}

/* Two bits of n for each member, and all orders of them. */
static_assert(MEMBERS == 4);

/* When the array is asked. */
enum poll_when {
	POLL_AFTER_WORK,	/* the irq_work has been done */
	POLL_AT_ONCE,		/* it cannot have been done */
};

static void poll_in_order(struct kunit *test, unsigned int num,
			  const unsigned int *order, bool enable, enum poll_when when)
{
	bool at_once = when == POLL_AT_ONCE && !IS_ENABLED(CONFIG_PREEMPT_RT);
	struct members m;
	unsigned int i;

	KUNIT_ASSERT_EQ(test, members_create(test, &m, num), 0);
	if (enable)
		dma_fence_enable_signaling(&m.array->base);
	KUNIT_EXPECT_FALSE(test, dma_fence_is_signaled(&m.array->base));

	for (i = 0; i < num; i++) {
		unsigned long flags = 0;
		bool flag, signaled;

		if (at_once)
			local_irq_save(flags);
		dma_fence_signal(m.fences[order[i]]);
		if (when == POLL_AFTER_WORK)
			wait_for_work(m.array);
		flag = dma_fence_test_signaled_flag(&m.array->base);
		signaled = dma_fence_is_signaled(&m.array->base);
		if (at_once)
			local_irq_restore(flags);

		KUNIT_EXPECT_EQ_MSG(test, signaled, i == num - 1,
				    "%u members, order %u %u %u %u, %u signaled", num,
				    order[0], order[1], order[2], order[3], i + 1);

		/* Without anybody who asks, if it was enabled. */
		if (enable && when == POLL_AFTER_WORK)
			KUNIT_EXPECT_EQ(test, flag, i == num - 1);
	}

	KUNIT_EXPECT_EQ(test, dma_fence_get_status(&m.array->base), 1);
	KUNIT_EXPECT_EQ(test, m.array->base.error, 0);

	members_put(&m);
}

static void order_enabled(struct kunit *test, unsigned int num,
			  const unsigned int *order)
{
	poll_in_order(test, num, order, true, POLL_AFTER_WORK);
}

static void order_at_once(struct kunit *test, unsigned int num,
			  const unsigned int *order)
{
	poll_in_order(test, num, order, true, POLL_AT_ONCE);
}

static void order_polled(struct kunit *test, unsigned int num,
			 const unsigned int *order)
{
	poll_in_order(test, num, order, false, POLL_AT_ONCE);
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
	static const unsigned int nums[] = { MEMBERS, 11, 12, 13, 14, 40, MANY };
	struct members m;
	unsigned int i, n;

	for (n = 0; n < ARRAY_SIZE(nums); n++) {
		KUNIT_ASSERT_EQ(test, members_create(test, &m, nums[n]), 0);
		for (i = 0; i < m.num; i++)
			KUNIT_EXPECT_EQ(test, to_member(m.fences[i])->enabled, 0);

		dma_fence_enable_signaling(&m.array->base);
		for (i = 0; i < m.num; i++)
			KUNIT_EXPECT_EQ(test, to_member(m.fences[i])->enabled, 1);

		members_put(&m);
	}
}

static void enable_when_done(struct kunit *test, unsigned int num,
			     const bool *done)
{
	struct members m;
	bool all = true;
	unsigned int i;

	KUNIT_ASSERT_EQ(test, members_create(test, &m, num), 0);
	for (i = 0; i < num; i++)
		to_member(m.fences[i])->done = done[i];

	dma_fence_enable_signaling(&m.array->base);
	for (i = 0; i < num; i++) {
		KUNIT_EXPECT_EQ(test, dma_fence_test_signaled_flag(m.fences[i]), done[i]);
		all &= done[i];
	}
	KUNIT_EXPECT_EQ(test, dma_fence_test_signaled_flag(&m.array->base), all);
	if (all) {
		KUNIT_EXPECT_EQ(test, kref_read(&m.array->base.refcount), 1);
		KUNIT_EXPECT_EQ(test, m.array->base.error, 0);
	}

	for (i = 0; i < num; i++)
		dma_fence_signal(m.fences[i]);
	KUNIT_EXPECT_GT(test, dma_fence_wait_timeout(&m.array->base, false, TIMEOUT), 0);

	members_put(&m);
}

/* There is nothing to wait for, though nobody should make such an array. */
static void enables_empty(struct kunit *test)
{
	struct dma_fence_array *array = NULL;

	kunit_warning_suppress(test) {
		array = dma_fence_array_create(0, NULL, 1, 1);
		KUNIT_EXPECT_SUPPRESSED_WARNING_COUNT(test, 1);
	}
	KUNIT_ASSERT_NOT_NULL(test, array);
	dma_fence_enable_signaling(&array->base);
	KUNIT_EXPECT_TRUE(test, dma_fence_test_signaled_flag(&array->base));
	KUNIT_EXPECT_EQ(test, kref_read(&array->base.refcount), 1);
	dma_fence_put(&array->base);
}

/* Members that turn out to be signaled when they are asked. */
static void enables_signaled(struct kunit *test)
{
	bool *done = kunit_kcalloc(test, MANY, sizeof(*done), GFP_KERNEL);
	unsigned int mask, i, n;

	KUNIT_ASSERT_NOT_NULL(test, done);
	for (mask = 0; mask < BIT(MEMBERS); mask++) {
		for (i = 0; i < MEMBERS; i++)
			done[i] = mask & BIT(i);
		enable_when_done(test, MEMBERS, done);
	}

	/* All, or all but one. */
	for (n = 0; n <= 30; n++) {
		for (i = 0; i < 30; i++)
			done[i] = i != n;
		enable_when_done(test, 30, done);
	}

	/* The first ones to have a callback, of them, or of the next. */
	for (n = 0; n < 20; n++) {
		for (i = 0; i < 40; i++)
			done[i] = i < n || i >= 40 - n;
		enable_when_done(test, 40, done);
	}

	memset(done, true, MANY * sizeof(*done));
	enable_when_done(test, MANY, done);
}

/* Who polls finds out from the issuers. */
static void try_poll_asks(struct kunit *test, unsigned int num)
{
	struct members m;
	unsigned int i;

	KUNIT_ASSERT_EQ(test, members_create(test, &m, num), 0);
	for (i = 0; i < num; i++) {
		KUNIT_EXPECT_FALSE(test, dma_fence_is_signaled(&m.array->base));
		to_member(m.fences[i])->done = true;
	}
	KUNIT_EXPECT_TRUE(test, dma_fence_is_signaled(&m.array->base));
	for (i = 0; i < num; i++)
		KUNIT_EXPECT_TRUE(test, dma_fence_test_signaled_flag(m.fences[i]));

	members_put(&m);
}

static void poll_asks(struct kunit *test)
{
	try_poll_asks(test, MEMBERS);
	try_poll_asks(test, 30);
}

/*
 * Unless they have been told to signal. Asking would signal one member below the
 * lock of another, if it is a callback of that one which polls.
 */
static void try_poll_does_not_ask(struct kunit *test, unsigned int num)
{
	unsigned int i, ends = 0;
	struct members m;
	bool signaled;

	KUNIT_ASSERT_EQ(test, members_create(test, &m, num), 0);
	dma_fence_enable_signaling(&m.array->base);
	for (i = 0; i < num; i++)
		to_member(m.fences[i])->done = true;

	/* Also if only the issuers of those that had no callback could know. */
	if (num > IN_FLIGHT && !IS_ENABLED(CONFIG_PREEMPT_RT))
		ends = IN_FLIGHT / 2;
	scoped_guard(irqsave) {
		for (i = 0; i < ends; i++) {
			dma_fence_signal(m.fences[i]);
			dma_fence_signal(m.fences[num - 1 - i]);
		}
		signaled = dma_fence_is_signaled(&m.array->base);
	}
	KUNIT_EXPECT_FALSE(test, signaled);
	for (i = ends; i < num - ends; i++)
		KUNIT_EXPECT_FALSE(test, dma_fence_test_signaled_flag(m.fences[i]));

	members_put(&m);
}

static void poll_does_not_ask(struct kunit *test)
{
	try_poll_does_not_ask(test, MEMBERS);
	try_poll_does_not_ask(test, 30);
}

/* With @often the array is asked after each of the members, not only in the end. */
static void error_in_order(struct kunit *test, unsigned int num,
			   const unsigned int *order, bool enable, enum poll_when when,
			   bool often)
{
	unsigned int bad, i, step = num == MEMBERS ? 1 : 3;
	struct members m;
	unsigned long flags;
	int status;

	for (bad = 0; bad < num; bad += step) {
		KUNIT_ASSERT_EQ(test, members_create(test, &m, num), 0);
		dma_fence_set_error(m.fences[bad], -EIO);
		if (enable)
			dma_fence_enable_signaling(&m.array->base);

		if (when == POLL_AT_ONCE && !IS_ENABLED(CONFIG_PREEMPT_RT))
			local_irq_save(flags);
		for (i = 0; i < num; i++) {
			dma_fence_signal(m.fences[order[i]]);
			if (when == POLL_AFTER_WORK)
				wait_for_work(m.array);
			if (often)
				KUNIT_EXPECT_EQ(test,
						dma_fence_is_signaled(&m.array->base),
						i == num - 1);
		}
		status = dma_fence_get_status(&m.array->base);
		if (when == POLL_AT_ONCE && !IS_ENABLED(CONFIG_PREEMPT_RT))
			local_irq_restore(flags);

		KUNIT_EXPECT_EQ_MSG(test, status, -EIO,
				    "%u members, order %u %u %u %u, error of %u", num,
				    order[0], order[1], order[2], order[3], bad);
		members_put(&m);
	}
}

static void order_error(struct kunit *test, unsigned int num,
			const unsigned int *order)
{
	error_in_order(test, num, order, true, POLL_AFTER_WORK, false);
}

static void order_error_at_once(struct kunit *test, unsigned int num,
				const unsigned int *order)
{
	error_in_order(test, num, order, true, POLL_AT_ONCE, false);
}

static void order_error_polled(struct kunit *test, unsigned int num,
			       const unsigned int *order)
{
	error_in_order(test, num, order, false, POLL_AT_ONCE, false);
}

static void order_error_polled_often(struct kunit *test, unsigned int num,
				     const unsigned int *order)
{
	error_in_order(test, num, order, false, POLL_AT_ONCE, true);
}

/* The error of any member is that of the array. */
static void error_of_any(struct kunit *test)
{
	try_orders(test, order_error);
}

/* The same, when somebody polls before the irq_work has been done. */
static void error_of_any_at_once(struct kunit *test)
{
	try_orders(test, order_error_at_once);
}

/* The same, when nobody enables signaling. */
static void error_of_any_polled(struct kunit *test)
{
	try_orders(test, order_error_polled);
}

/* And when it is asked before all members have signaled. */
static void error_of_any_polled_often(struct kunit *test)
{
	try_orders(test, order_error_polled_often);
}

/* Of several errors it is one, and it stays. */
static void error_of_several(struct kunit *test)
{
	struct members m;
	unsigned int i;
	int error;

	KUNIT_ASSERT_EQ(test, members_create(test, &m, MEMBERS), 0);
	for (i = 0; i < MEMBERS; i++)
		dma_fence_set_error(m.fences[i], -EIO - (int)i);
	dma_fence_enable_signaling(&m.array->base);

	for (i = 0; i < MEMBERS; i++)
		dma_fence_signal(m.fences[i]);
	KUNIT_EXPECT_GT(test, dma_fence_wait_timeout(&m.array->base, false, TIMEOUT), 0);

	error = dma_fence_get_status(&m.array->base);
	KUNIT_EXPECT_LE(test, error, -EIO);
	KUNIT_EXPECT_GT(test, error, -EIO - MEMBERS);
	wait_for_work(m.array);
	KUNIT_EXPECT_EQ(test, dma_fence_get_status(&m.array->base), error);

	members_put(&m);
}

/* With more members than callbacks it need not be the first in time. */
static void error_of_several_among_many(struct kunit *test)
{
	struct members m;
	unsigned int i;
	int status;

	KUNIT_ASSERT_EQ(test, members_create(test, &m, 30), 0);
	dma_fence_set_error(m.fences[15], -EIO);
	dma_fence_set_error(m.fences[0], -ENODEV);
	dma_fence_enable_signaling(&m.array->base);

	dma_fence_signal(m.fences[15]);
	for (i = 0; i < m.num; i++)
		dma_fence_signal(m.fences[i]);
	KUNIT_EXPECT_GT(test, dma_fence_wait_timeout(&m.array->base, false, TIMEOUT), 0);
	status = dma_fence_get_status(&m.array->base);
	KUNIT_EXPECT_TRUE_MSG(test, status == -EIO || status == -ENODEV, "status %d", status);

	members_put(&m);
}

/* One fence, and an array that has it again and again. */
static void same_member_again(struct kunit *test)
{
	static const unsigned int nums[] = { MEMBERS, 30 };
	unsigned int i, n;
	struct members m;

	for (n = 0; n < ARRAY_SIZE(nums); n++) {
		KUNIT_ASSERT_EQ(test, members_create(test, &m, nums[n]), 0);
		for (i = 1; i < m.num; i++) {
			dma_fence_put(m.array->fences[i]);
			m.array->fences[i] = dma_fence_get(m.fences[0]);
		}

		dma_fence_enable_signaling(&m.array->base);
		KUNIT_EXPECT_FALSE(test, dma_fence_is_signaled(&m.array->base));
		dma_fence_signal(m.fences[0]);
		KUNIT_EXPECT_GT(test, dma_fence_wait_timeout(&m.array->base, false, TIMEOUT), 0);

		members_put(&m);
	}
}

/* Nobody needs the array any more, but it has a callback on a member. */
static void put_while_pending(struct kunit *test)
{
	static const unsigned int nums[] = { MEMBERS, 30 };
	unsigned int i, n, tries;
	struct members m;

	for (n = 0; n < ARRAY_SIZE(nums); n++) {
		KUNIT_ASSERT_EQ(test, members_create(test, &m, nums[n]), 0);

		dma_fence_enable_signaling(&m.array->base);
		dma_fence_put(&m.array->base);

		for (i = 0; i < m.num; i++) {
			KUNIT_EXPECT_EQ(test, kref_read(&m.fences[i]->refcount), 2);
			dma_fence_signal(m.fences[i]);
		}

		/* Its last reference goes with the last callback, and with it the members. */
		for (tries = 0; tries < 1000; tries++) {
			if (kref_read(&m.fences[m.num - 1]->refcount) == 1)
				break;
			schedule_timeout_uninterruptible(1);
		}
		for (i = 0; i < m.num; i++) {
			KUNIT_EXPECT_EQ(test, kref_read(&m.fences[i]->refcount), 1);
			dma_fence_put(m.fences[i]);
		}
	}
}

/* What the irq_work of the array does in one case. */
static struct {
	void (*func)(struct irq_work *work);
	unsigned int runs;
	unsigned int most;	/* members that one run found signaled */
} work;

static void count_run(struct irq_work *irq_work)
{
	struct dma_fence_array *array =
		container_of(irq_work, struct dma_fence_array, work);
	unsigned int before = atomic_read(&array->num_pending);

	work.func(irq_work);
	work.most = max(work.most, before - atomic_read(&array->num_pending));
	work.runs++;
}

/* Once, or else there is an interrupt, not for each member, and not a long one. */
static void interrupts_seldom(struct kunit *test)
{
	static const unsigned int nums[] = { MEMBERS, 12, 13, 24, 25, 40, 128, MANY };
	unsigned int *order, i, n;
	enum many_order which;
	struct members m;

	order = kunit_kcalloc(test, MANY, sizeof(*order), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, order);

	for (n = 0; n < ARRAY_SIZE(nums) * MANY_ORDERS; n++) {
		which = n % MANY_ORDERS;
		KUNIT_ASSERT_EQ(test, members_create(test, &m, nums[n / MANY_ORDERS]), 0);
		many_order(which, m.num, order);
		work.func = m.array->work.func;
		work.runs = 0;
		work.most = 0;
		m.array->work.func = count_run;

		dma_fence_enable_signaling(&m.array->base);
		for (i = 0; i < m.num; i++) {
			dma_fence_signal(m.fences[order[i]]);
			wait_for_work(m.array);
		}
		/* It may have left something to bottom halves. */
		KUNIT_EXPECT_GT(test, dma_fence_wait_timeout(&m.array->base, false, TIMEOUT), 0);
		wait_for_work(m.array);

		KUNIT_EXPECT_LE_MSG(test, work.runs, DIV_ROUND_UP(m.num, IN_FLIGHT),
				    "%u members, order %u", m.num, which);
		KUNIT_EXPECT_LE_MSG(test, work.most, RUN_MOST,
				    "%u members, order %u", m.num, which);
		if (m.num <= RUN_MOST && (which == SAME || which == OPPOSITE))
			KUNIT_EXPECT_EQ_MSG(test, work.runs, 1,
					    "%u members, order %u", m.num, which);
		members_put(&m);
	}
}

/* What an array takes apart from the pointers to its members. */
static void memory_of_many(struct kunit *test)
{
	struct dma_fence_array *few = dma_fence_array_alloc(16);
	struct dma_fence_array *many = dma_fence_array_alloc(1024);

	KUNIT_EXPECT_NOT_NULL(test, few);
	KUNIT_EXPECT_NOT_NULL(test, many);
	if (few && many)
		KUNIT_EXPECT_EQ(test, ksize(few), ksize(many));
	kfree(few);
	kfree(many);
}

/* One of few takes no more than a callback for each of them and itself. */
static void memory_of_few(struct kunit *test)
{
	size_t one = sizeof(struct dma_fence_cb) + sizeof(void *);
	size_t none = sizeof(struct dma_fence) + sizeof(struct irq_work) +
		      sizeof(void *) + 4 * sizeof(int);
	unsigned int n;

	for (n = 1; n <= IN_FLIGHT; n++) {
		struct dma_fence_array *array = dma_fence_array_alloc(n);

		KUNIT_ASSERT_NOT_NULL(test, array);
		KUNIT_EXPECT_LE_MSG(test, ksize(array),
				    kmalloc_size_roundup(none + n * one),
				    "%u members", n);
		kfree(array);
	}
}

struct race {
	struct members m;
	unsigned int num, order[RACE_MANY];
	struct dma_fence_cb cb;
	struct completion signaled;	/* all members are */
	atomic_t called;		/* the callback on the array */
	struct meeting begin;
	struct dma_fence_cb poll;	/* a callback on a member */
	bool contended;			/* and somebody waits for its lock */

	/* What came out, in all rounds. */
	unsigned int removed;	/* callback removed while the members signaled */
	unsigned int ran;	/* callback ran before that */
	unsigned int pending;	/* the poller found the array unsignaled */
	unsigned int signaler;	/* the poller signaled it, before its irq_work */
	unsigned int midway;	/* members signaled while others got a callback */
};

static void count_call(struct dma_fence *fence, struct dma_fence_cb *cb)
{
	atomic_inc(&container_of(cb, struct race, cb)->called);
}

static int race_signaler(void *data)
{
	struct race *race = data;
	unsigned int i;

	meet(&race->begin);
	for (i = 0; i < race->num; i++)
		dma_fence_signal(race->m.fences[race->order[i]]);
	complete(&race->signaled);

	return 0;
}

static int race_enabler(void *data)
{
	struct race *race = data;

	dma_fence_enable_signaling(&race->m.array->base);
	return 0;
}

static void race_round(struct kunit *test, struct race *race, unsigned int round,
		       void (*func)(struct kunit *test, struct race *race,
				    unsigned int round))
{
	struct task_struct *task;
	unsigned int i;

	race->num = round & 2 ? RACE_MANY : MEMBERS;
	KUNIT_ASSERT_EQ(test, members_create(test, &race->m, race->num), 0);
	for (i = 0; i < race->num; i++)
		race->order[i] = (round + i * (round & 4 ? 1 : 3)) % race->num;
	atomic_set(&race->called, 0);
	atomic_set(&race->begin.here, 0);
	init_completion(&race->signaled);

	task = kthread_create(race_signaler, race, "fence-array-signaler");
	KUNIT_ASSERT_FALSE(test, IS_ERR(task));
	get_task_struct(task);
	wake_up_process(task);

	func(test, race, round);

	wait_for_completion(&race->signaled);
	kthread_stop_put(task);
	/* No poll, which may miss it while the irq_work is about to see it. */
	KUNIT_EXPECT_GT(test, dma_fence_wait_timeout(&race->m.array->base, false, TIMEOUT), 0);
	members_put(&race->m);
}

/* What has failed stays failed. */
static void raced(struct kunit *test, bool it_has)
{
	if (!it_has && test->status == KUNIT_SUCCESS)
		kunit_mark_skipped(test, "it did not come to a race");
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

	meet(&race->begin);
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
	raced(test, race->removed && race->ran);
}

static void poll_array(struct kunit *test, struct race *race, unsigned int round)
{
	struct dma_fence *fence = &race->m.array->base;
	bool enable = round & 1;
	unsigned int i, member;

	meet(&race->begin);
	if (enable)
		dma_fence_enable_signaling(fence);

	for (i = 0; i < 100000; i++) {
		bool before = dma_fence_test_signaled_flag(fence);

		if (!dma_fence_is_signaled(fence)) {
			race->pending++;
			continue;
		}

		for (member = 0; member < race->num; member++) {
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
	raced(test, race->pending && race->signaler);
}

static void arm_callbacks(struct kunit *test, struct race *race, unsigned int round)
{
	struct dma_fence_array *array = race->m.array;
	unsigned int i, before, after;

	dma_fence_enable_signaling(&array->base);

	/* The irq_work runs when we say so. */
	guard(irqsave)();
	for (i = 0; i < min(race->num, IN_FLIGHT / 2); i++) {
		dma_fence_signal(race->m.fences[i]);
		dma_fence_signal(race->m.fences[race->num - 1 - i]);
	}
	before = atomic_read(&array->num_pending);

	meet(&race->begin);
	for (i = 0; i < round % 512; i++)
		cpu_relax();
	irq_work_run();

	after = atomic_read(&array->num_pending);
	race->midway += after && after != before;
}

/* Members signal while the irq_work puts a callback on them. */
static void race_arm(struct kunit *test)
{
	struct race *race = race_create(test);
	unsigned int round;

	if (IS_ENABLED(CONFIG_PREEMPT_RT))
		kunit_skip(test, "the irq_work is a thread");

	for (round = 0; round < RACE_ROUNDS ||
	     (round < RACE_MOST && race->midway < 10); round++)
		race_round(test, race, round, arm_callbacks);

	kunit_info(test, "%u rounds, %u times members signaled meanwhile\n",
		   round, race->midway);
	raced(test, race->midway);
}

static void poll_from_callback(struct dma_fence *fence, struct dma_fence_cb *cb)
{
	struct race *race = container_of(cb, struct race, poll);
	unsigned int i;

	/* The other side has had no CPU, or waits for another member. */
	if (!race->contended)
		return;

	for (i = 0; i < 1000; i++) {
		if (dma_fence_is_signaled(&race->m.array->base)) {
			race->signaler++;
			return;
		}
		udelay(1);
	}
	race->pending++;
}

/* A fence begins with its lock. */
static_assert(offsetof(struct dma_fence, ops) == ALIGN(sizeof(spinlock_t), sizeof(void *)));

/*
 * A member signals while signaling is being enabled, and its callback polls the
 * array. It has the lock of the member, which the other side waits for with that of
 * the array held. All other members are signaled by then, so the poll has to say
 * no without looking at them.
 */
static void try_poll_from_callback(struct kunit *test, struct race *race,
				   unsigned int num, unsigned int enabled,
				   unsigned int polls)
{
	struct task_struct *task;
	unsigned long flags;
	unsigned int i;

	KUNIT_ASSERT_EQ(test, members_create(test, &race->m, num), 0);
	for (i = 0; i < num; i++) {
		if (i != enabled && i != polls)
			dma_fence_signal(race->m.fences[i]);
	}
	atomic_set(&race->begin.here, 0);
	to_member(race->m.fences[enabled])->meeting = &race->begin;
	dma_fence_add_callback(race->m.fences[polls], &race->poll, poll_from_callback);

	task = kthread_create(race_enabler, race, "fence-array-enabler");
	KUNIT_ASSERT_FALSE(test, IS_ERR(task));
	get_task_struct(task);
	wake_up_process(task);

	/* While we have the lock the other side goes from one member to the other. */
	dma_fence_lock_irqsave(race->m.fences[polls], flags);
	meet(&race->begin);
	for (i = 0; i < 10000; i++) {
		if (spin_is_contended((spinlock_t *)race->m.fences[polls]))
			break;
		udelay(1);
	}
	race->contended = i < 10000;
	dma_fence_signal_locked(race->m.fences[polls]);
	dma_fence_unlock_irqrestore(race->m.fences[polls], flags);

	kthread_stop_put(task);
	KUNIT_EXPECT_GT(test, dma_fence_wait_timeout(&race->m.array->base, false, TIMEOUT), 0);
	members_put(&race->m);
}

static void poll_from_callback_while_enabled(struct kunit *test)
{
	struct race *race = race_create(test);
	unsigned int round;

	if (IS_ENABLED(CONFIG_PREEMPT_RT))
		kunit_skip(test, "nobody knows who waits for a lock");

	for (round = 0; round < 10; round++) {
		try_poll_from_callback(test, race, MEMBERS, 0, 1);
		/* Both are in the middle, or get a callback at once. */
		try_poll_from_callback(test, race, RACE_MANY, IN_FLIGHT / 2, RACE_MANY / 2);
		try_poll_from_callback(test, race, RACE_MANY, 0, RACE_MANY - 1);
	}
	KUNIT_EXPECT_EQ(test, race->signaler, 0);
	kunit_info(test, "%u of %u polls\n", race->pending, 3 * round);
	raced(test, race->pending);
}

static int race_first_group(void *data)
{
	struct race *race = data;
	unsigned int i;

	for (i = 0; i < IN_FLIGHT / 2; i++) {
		dma_fence_signal(race->m.fences[i]);
		dma_fence_signal(race->m.fences[race->m.num - 1 - i]);
	}
	complete(&race->signaled);
	return 0;
}

/*
 * The irq_work puts callbacks on the second group of members, and waits for the
 * lock of one of them, which is the last to signal. Who signals it polls the array
 * before the irq_work can go on.
 */
static void poll_while_armed(struct kunit *test)
{
	struct race *race = race_create(test);
	struct dma_fence_array *array;
	struct task_struct *task;
	struct dma_fence *last;
	bool armed, signaled;
	unsigned long flags;
	unsigned int i;

	KUNIT_ASSERT_EQ(test, members_create(test, &race->m, RACE_MANY), 0);
	array = race->m.array;
	last = race->m.fences[IN_FLIGHT / 2];
	init_completion(&race->signaled);
	dma_fence_enable_signaling(&array->base);
	for (i = IN_FLIGHT / 2 + 1; i < RACE_MANY - IN_FLIGHT / 2; i++)
		dma_fence_signal(race->m.fences[i]);

	task = kthread_create(race_first_group, race, "fence-array-signaler");
	KUNIT_ASSERT_FALSE(test, IS_ERR(task));
	get_task_struct(task);
	migrate_disable();
	kthread_bind(task, cpumask_any_but(cpu_online_mask, smp_processor_id()));

	dma_fence_lock_irqsave(last, flags);
	wake_up_process(task);
	for (i = 0, armed = false; i < 1000000 && !armed; i++) {
		udelay(1);
		armed = irq_work_is_busy(&array->work) && !irq_work_is_pending(&array->work);
	}
	/* It runs. Give it the time to come to the lock. */
	mdelay(1);
	dma_fence_signal_locked(last);
	/* To signal the array, too, would take its lock inside that of a member. */
	signaled = dma_fence_array_ops.signaled(&array->base);
	dma_fence_unlock_irqrestore(last, flags);
	migrate_enable();

	KUNIT_EXPECT_TRUE(test, signaled || !armed);
	wait_for_completion(&race->signaled);
	kthread_stop_put(task);
	members_put(&race->m);
	raced(test, armed);
}

static struct kunit_case dma_fence_array_cases[] = {
	KUNIT_CASE(signaled_when_all_are),
	KUNIT_CASE(signaled_when_all_are_at_once),
	KUNIT_CASE(signaled_when_all_are_polled),
	KUNIT_CASE(enables_all_at_once),
	KUNIT_CASE(enables_empty),
	KUNIT_CASE(enables_signaled),
	KUNIT_CASE(poll_asks),
	KUNIT_CASE(poll_does_not_ask),
	KUNIT_CASE(error_of_any),
	KUNIT_CASE(error_of_any_at_once),
	KUNIT_CASE(error_of_any_polled),
	KUNIT_CASE(error_of_any_polled_often),
	KUNIT_CASE(error_of_several),
	KUNIT_CASE(error_of_several_among_many),
	KUNIT_CASE(same_member_again),
	KUNIT_CASE(put_while_pending),
	KUNIT_CASE(interrupts_seldom),
	KUNIT_CASE(memory_of_few),
	KUNIT_CASE(memory_of_many),
	KUNIT_CASE_SLOW(race_remove_callback),
	KUNIT_CASE_SLOW(race_poll),
	KUNIT_CASE(poll_while_armed),
	KUNIT_CASE_SLOW(race_arm),
	KUNIT_CASE(poll_from_callback_while_enabled),
	{}
};

static struct kunit_suite dma_fence_array_suite = {
	.name = "dma-buf-fence-array",
	.test_cases = dma_fence_array_cases,
};

kunit_test_suite(dma_fence_array_suite);
