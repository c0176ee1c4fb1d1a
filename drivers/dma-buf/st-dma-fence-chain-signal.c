// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests for what it takes to signal a dma_fence_chain: how many callbacks
 * and questions, how much of it in one interrupt, and what is left over.
 */

#include <kunit/resource.h>
#include <kunit/test.h>
#include <linux/atomic.h>
#include <linux/bottom_half.h>
#include <linux/delay.h>
#include <linux/dma-fence.h>
#include <linux/dma-fence-chain.h>
#include <linux/irq_work.h>
#include <linux/irqflags.h>
#include <linux/list.h>
#include <linux/preempt.h>
#include <linux/slab.h>
#include <linux/workqueue.h>

#define LINKS		64
#define MANY_LINKS	1024
#define TIMEOUT		(10 * HZ)

struct chain_test;

/* A fence in a link. */
struct member {
	struct dma_fence base;
	struct chain_test *t;
};

/* The first and the last callback of a link. */
struct watch {
	struct dma_fence_cb first, last;
	struct chain_test *t;
};

struct chain_test {
	unsigned int n;
	struct member **members;
	struct dma_fence **links;
	struct watch *watches;
	bool eager;		/* all but the last signal when they are waited for */

	atomic_t asked;		/* how often ->signaled() was called */
	atomic_t released;	/* how many members were */
	atomic_t signaled;	/* how many links have */
	atomic_t depth;		/* callbacks of links that have begun and not ended */
	atomic_t max_depth;
	struct watch *newest;	/* that of the newest link that has signaled */
	bool disordered;	/* an older one has after it */

	atomic_t *counted;	/* @released or @signaled */
	atomic_t in_hardirq;	/* how much of that was in a hard interrupt */
	struct work_struct other; /* is queued when the first was not */
	bool queued;
	int seen;		/* @counted when that ran */
};

static void other(struct work_struct *work)
{
	struct chain_test *t = container_of(work, struct chain_test, other);

	t->seen = atomic_read(t->counted);
}

static void count(struct chain_test *t, atomic_t *counter)
{
	atomic_inc(counter);
	if (t->counted != counter)
		return;

	if (in_hardirq()) {
		atomic_inc(&t->in_hardirq);
	} else if (!t->queued) {
		t->queued = true;
		queue_work(system_bh_wq, &t->other);
	}
}

static const char *member_name(struct dma_fence *fence)
{
	return "member";
}

static bool member_signaled(struct dma_fence *fence)
{
	struct member *member = container_of(fence, struct member, base);

	atomic_inc(&member->t->asked);
	return false;
}

static bool member_enable_signaling(struct dma_fence *fence)
{
	struct member *member = container_of(fence, struct member, base);
	struct chain_test *t = member->t;

	return !t->eager || member == t->members[t->n - 1];
}

static void member_release(struct dma_fence *fence)
{
	struct member *member = container_of(fence, struct member, base);

	count(member->t, &member->t->released);
	dma_fence_free(fence);
}

static const struct dma_fence_ops member_ops = {
	.get_driver_name = member_name,
	.get_timeline_name = member_name,
	.enable_signaling = member_enable_signaling,
	.signaled = member_signaled,
	.release = member_release,
};

static void link_first(struct dma_fence *fence, struct dma_fence_cb *cb)
{
	struct watch *watch = container_of(cb, struct watch, first);
	struct chain_test *t = watch->t;
	int depth = atomic_inc_return(&t->depth);

	if (t->newest && watch < t->newest)
		t->disordered = true;
	else
		t->newest = watch;

	if (depth > atomic_read(&t->max_depth))
		atomic_set(&t->max_depth, depth);
	count(t, &t->signaled);
}

static void link_last(struct dma_fence *fence, struct dma_fence_cb *cb)
{
	atomic_dec(&container_of(cb, struct watch, last)->t->depth);
}

/* The references that the test has. */
static void put_member(struct chain_test *t, unsigned int i)
{
	dma_fence_put(&t->members[i]->base);
	t->members[i] = NULL;
}

static void put_link(struct chain_test *t, unsigned int i)
{
	dma_fence_put(t->links[i]);
	t->links[i] = NULL;
}

/* A chain of @n links, or as many chains of one. With @same, all wait for member 0. */
static struct chain_test *links_create(struct kunit *test, unsigned int n,
				       bool linked, bool same)
{
	struct chain_test *t = kzalloc_obj(*t);
	unsigned int i;

	KUNIT_ASSERT_NOT_NULL(test, t);
	INIT_WORK(&t->other, other);
	t->members = kzalloc_objs(*t->members, n);
	t->links = kzalloc_objs(*t->links, n);
	t->watches = kzalloc_objs(*t->watches, n);
	KUNIT_ASSERT_NOT_NULL(test, t->members);
	KUNIT_ASSERT_NOT_NULL(test, t->links);
	KUNIT_ASSERT_NOT_NULL(test, t->watches);

	for (i = 0; i < n; i++) {
		struct dma_fence *prev = linked && i ? t->links[i - 1] : NULL;
		struct dma_fence_chain *chain = dma_fence_chain_alloc();
		struct member *member = kzalloc_obj(*member);

		if (!chain || !member) {
			dma_fence_chain_free(chain);
			kfree(member);
			goto err;
		}

		member->t = t;
		dma_fence_init(&member->base, &member_ops, dma_fence_context_alloc(1), 1);
		t->members[i] = member;
		if (same)
			member = t->members[0];
		dma_fence_chain_init(chain, dma_fence_get(prev),
				     dma_fence_get(&member->base), i + 1);
		t->links[i] = &chain->base;
		t->watches[i].t = t;
	}
	t->n = n;
	return t;

err:
	while (i--) {
		put_link(t, i);
		put_member(t, i);
	}
	KUNIT_FAIL_AND_ABORT(test, "no memory");
	return NULL;
}

static struct chain_test *chain_test_create(struct kunit *test, unsigned int n)
{
	return links_create(test, n, true, false);
}

/* Waits for each link. */
static void watch_links(struct chain_test *t)
{
	unsigned int i;

	for (i = 0; i < t->n; i++)
		dma_fence_add_callback(t->links[i], &t->watches[i].first, link_first);
}

static void signal_member(struct chain_test *t, unsigned int i)
{
	dma_fence_signal(&t->members[i]->base);
}

static void nothing(struct irq_work *work)
{
}

/*
 * Lets the irq_works of this CPU run, also those which come of the first ones. A
 * CPU that cannot interrupt itself needs a tick for each round.
 */
static void settle(unsigned int rounds)
{
	struct irq_work work;

	while (rounds--) {
		init_irq_work(&work, nothing);
		irq_work_queue(&work);
		irq_work_sync(&work);
		usleep_range(100, 200);
	}
}

/* Signals members up to @last, not including it, and waits for what that causes. */
static void signal_members(struct chain_test *t, int first, int last, bool at_once)
{
	int step = first < last ? 1 : -1;
	unsigned long flags;
	int i;

	/* The irq_works shall be those of this CPU. */
	migrate_disable();
	if (at_once) {
		local_irq_save(flags);
		for (i = first; i != last; i += step)
			signal_member(t, i);
		local_irq_restore(flags);
		settle(4 + t->n / 16);
	} else {
		for (i = first; i != last; i += step) {
			signal_member(t, i);
			settle(2);
		}
	}
	migrate_enable();
}

static void chain_test_free(void *arg)
{
	struct chain_test *t = arg;

	kfree(t->watches);
	kfree(t->links);
	kfree(t->members);
	kfree(t);
}

/* With a link that has not signaled nothing can be freed, not even @t. */
static void chain_test_end(struct kunit *test, struct chain_test *t)
{
	unsigned int i;
	long left = TIMEOUT;

	for (i = 0; i < t->n; i++) {
		if (t->members[i])
			signal_member(t, i);
	}
	for (i = 0; i < t->n; i++) {
		if (t->links[i])
			left = dma_fence_wait_timeout(t->links[i], false, left);
		KUNIT_ASSERT_GT_MSG(test, left, 0, "link %u of %u", i, t->n);
	}

	for (i = 0; i < t->n; i++) {
		if (t->links[i])
			put_link(t, i);
		if (t->members[i])
			put_member(t, i);
	}

	/* The queue has references until it has gone on. */
	for (i = 0; i < 1000 && atomic_read(&t->released) < t->n; i++)
		schedule_timeout_uninterruptible(1);
	KUNIT_ASSERT_EQ(test, atomic_read(&t->released), t->n);
	flush_work(&t->other);
	kunit_add_action(test, chain_test_free, t);
}

/* The callbacks of who waits for a fence which has not signaled. */
static size_t callbacks(struct dma_fence *fence)
{
	unsigned long flags;
	size_t n;

	dma_fence_lock_irqsave(fence, flags);
	n = list_count_nodes(&fence->cb_list);
	dma_fence_unlock_irqrestore(fence, flags);
	return n;
}

/* The oldest signals last, and nobody has asked it more than its own link did. */
static void oldest_last(struct kunit *test, int first, int last, bool at_once)
{
	struct chain_test *t;

	if (at_once && IS_ENABLED(CONFIG_PREEMPT_RT))
		kunit_skip(test, "fences do not signal with interrupts off");

	t = chain_test_create(test, LINKS);
	watch_links(t);

	signal_members(t, first, last, at_once);
	KUNIT_EXPECT_EQ(test, atomic_read(&t->signaled), 0);
	KUNIT_EXPECT_LE(test, callbacks(&t->members[0]->base), 2);
	KUNIT_EXPECT_LE(test, callbacks(t->links[0]), 2);
	KUNIT_EXPECT_LE(test, atomic_read(&t->asked), 2 * LINKS);

	signal_member(t, 0);
	chain_test_end(test, t);
	KUNIT_EXPECT_EQ(test, atomic_read(&t->signaled), LINKS);
}

static void backwards(struct kunit *test)
{
	oldest_last(test, LINKS - 1, 0, false);
}

static void backwards_at_once(struct kunit *test)
{
	oldest_last(test, LINKS - 1, 0, true);
}

static void forwards_at_once(struct kunit *test)
{
	oldest_last(test, 1, LINKS, true);
}

/* Chains that have nothing to do with each other signal as their fences do. */
static void forwards_in_order(struct kunit *test)
{
	struct chain_test *t;

	if (IS_ENABLED(CONFIG_PREEMPT_RT))
		kunit_skip(test, "fences do not signal with interrupts off");

	t = links_create(test, LINKS, false, false);
	watch_links(t);
	signal_members(t, 0, LINKS, true);
	chain_test_end(test, t);
	KUNIT_EXPECT_EQ(test, atomic_read(&t->signaled), LINKS);
	KUNIT_EXPECT_FALSE(test, t->disordered);
}

/* The callback of one link is not called from that of another. */
static void no_nesting(struct kunit *test)
{
	struct chain_test *t;
	unsigned int i;

	t = chain_test_create(test, LINKS);
	watch_links(t);
	signal_members(t, LINKS - 1, 0, false);
	/* After those of the links that wait for links. */
	for (i = 0; i < LINKS; i++)
		dma_fence_add_callback(t->links[i], &t->watches[i].last, link_last);

	signal_member(t, 0);
	chain_test_end(test, t);
	KUNIT_EXPECT_EQ(test, atomic_read(&t->signaled), LINKS);
	KUNIT_EXPECT_EQ(test, atomic_read(&t->depth), 0);
	KUNIT_EXPECT_EQ(test, atomic_read(&t->max_depth), 1);
}

/* What was counted was little in hard interrupts, and not all in one bottom half. */
static void few_at_once(struct kunit *test, struct chain_test *t)
{
	KUNIT_EXPECT_LE(test, atomic_read(&t->in_hardirq), MANY_LINKS / 4);
	KUNIT_EXPECT_TRUE(test, t->queued);
	KUNIT_EXPECT_LE(test, t->seen, MANY_LINKS / 4);
}

/* Many members signal at once. */
static void few_links(struct kunit *test, bool linked)
{
	struct chain_test *t;

	if (IS_ENABLED(CONFIG_PREEMPT_RT))
		kunit_skip(test, "fences do not signal with interrupts off");

	t = links_create(test, MANY_LINKS, linked, false);
	watch_links(t);

	t->counted = &t->signaled;
	signal_members(t, 0, MANY_LINKS, true);
	chain_test_end(test, t);
	few_at_once(test, t);
	KUNIT_EXPECT_EQ(test, atomic_read(&t->signaled), MANY_LINKS);
}

static void few_in_one_interrupt(struct kunit *test)
{
	few_links(test, true);
}

static void few_chains_in_one_interrupt(struct kunit *test)
{
	few_links(test, false);
}

/* One fence is each point of a timeline, as importing a sync_file can have it. */
static void few_of_one_fence_in_one_interrupt(struct kunit *test)
{
	struct chain_test *t;

	if (IS_ENABLED(CONFIG_PREEMPT_RT))
		kunit_skip(test, "fences do not signal with interrupts off");

	t = links_create(test, MANY_LINKS, true, true);
	watch_links(t);

	t->counted = &t->signaled;
	signal_members(t, 0, 1, true);
	chain_test_end(test, t);
	few_at_once(test, t);
	KUNIT_EXPECT_EQ(test, atomic_read(&t->signaled), MANY_LINKS);
}

/* The same when each link waits for the one before it. */
static void few_in_one_interrupt_linked(struct kunit *test)
{
	struct chain_test *t;

	if (IS_ENABLED(CONFIG_PREEMPT_RT))
		kunit_skip(test, "fences do not signal with interrupts off");

	t = chain_test_create(test, MANY_LINKS);
	watch_links(t);
	signal_members(t, MANY_LINKS - 1, 0, true);

	t->counted = &t->signaled;
	signal_members(t, 0, 1, true);
	chain_test_end(test, t);
	few_at_once(test, t);
	KUNIT_EXPECT_EQ(test, atomic_read(&t->signaled), MANY_LINKS);
}

/* Lets the irq_works of this CPU run, without a bottom half. */
static bool settle_in_bh(void)
{
	static struct irq_work work = IRQ_WORK_INIT(nothing);
	unsigned int i;

	irq_work_queue(&work);
	for (i = 0; i < 100000 && irq_work_is_busy(&work); i++)
		udelay(5);
	return !irq_work_is_busy(&work);
}

/* After bottom halves have handled many links, one signals in an interrupt again. */
static void one_after_many(struct kunit *test)
{
	struct chain_test *t;
	unsigned int i;

	if (IS_ENABLED(CONFIG_PREEMPT_RT))
		kunit_skip(test, "fences do not signal with interrupts off");

	t = links_create(test, MANY_LINKS, false, false);
	watch_links(t);

	migrate_disable();
	signal_members(t, 1, MANY_LINKS, true);
	for (i = 1; i < MANY_LINKS; i++)
		dma_fence_wait_timeout(t->links[i], false, TIMEOUT);
	settle(2);
	t->counted = &t->signaled;
	signal_members(t, 0, 1, true);
	migrate_enable();
	KUNIT_EXPECT_EQ(test, atomic_read(&t->in_hardirq), 1);

	chain_test_end(test, t);
}

/* As long as bottom halves do not get their turn, interrupts leave the rest to them. */
static void few_in_many_interrupts(struct kunit *test)
{
	struct chain_test *t;
	unsigned long flags;
	bool settled = true;
	unsigned int i;

	if (IS_ENABLED(CONFIG_PREEMPT_RT))
		kunit_skip(test, "fences do not signal with interrupts off");

	t = links_create(test, MANY_LINKS, false, false);
	watch_links(t);
	t->counted = &t->signaled;

	local_bh_disable();
	for (i = 0; i < MANY_LINKS;) {
		local_irq_save(flags);
		do {
			signal_member(t, i++);
		} while (i % (MANY_LINKS / 8));
		local_irq_restore(flags);
		settled = settle_in_bh() && settled;
	}
	local_bh_enable();
	KUNIT_EXPECT_TRUE(test, settled);

	chain_test_end(test, t);
	few_at_once(test, t);
	KUNIT_EXPECT_EQ(test, atomic_read(&t->signaled), MANY_LINKS);
	KUNIT_EXPECT_FALSE(test, t->disordered);
}

/* Only the last link is waited for. Leaves the chain all that it can forget. */
static void signal_unwatched(struct chain_test *t)
{
	unsigned int i;

	for (i = 0; i < t->n; i++) {
		signal_member(t, i);
		put_member(t, i);
		if (i < t->n - 1)
			put_link(t, i);
	}
}

/* Links that nobody waits for are passed few at a time, too, and freed. */
static void few_passed_in_one_interrupt(struct kunit *test)
{
	struct chain_test *t;
	unsigned long flags;

	if (IS_ENABLED(CONFIG_PREEMPT_RT))
		kunit_skip(test, "fences do not signal with interrupts off");

	t = chain_test_create(test, MANY_LINKS);
	dma_fence_enable_signaling(t->links[MANY_LINKS - 1]);

	t->counted = &t->released;
	local_irq_save(flags);
	signal_unwatched(t);
	local_irq_restore(flags);

	chain_test_end(test, t);
	few_at_once(test, t);
}

/*
 * Two links pass many fences which signal when they are waited for. That uses the
 * callback of the link, which is in the same place as its entry in the queue.
 */
static void few_passed_by_each(struct kunit *test)
{
	struct chain_test *t[2];
	unsigned long flags;
	unsigned int i;

	if (IS_ENABLED(CONFIG_PREEMPT_RT))
		kunit_skip(test, "fences do not signal with interrupts off");

	for (i = 0; i < 2; i++) {
		t[i] = chain_test_create(test, MANY_LINKS);
		t[i]->eager = true;
		dma_fence_add_callback(t[i]->links[MANY_LINKS - 1],
				       &t[i]->watches[MANY_LINKS - 1].first, link_first);
	}

	local_irq_save(flags);
	for (i = 0; i < 2; i++)
		signal_member(t[i], MANY_LINKS - 1);
	local_irq_restore(flags);

	for (i = 0; i < 2; i++) {
		dma_fence_wait_timeout(t[i]->links[MANY_LINKS - 1], false, TIMEOUT);
		KUNIT_EXPECT_EQ(test, atomic_read(&t[i]->signaled), 1);
		chain_test_end(test, t[i]);
	}
}

/* To enable signaling, which is with interrupts off, passes few links as well. */
static void few_passed_when_enabled(struct kunit *test)
{
	struct chain_test *t;
	unsigned long flags;
	int released;

	if (IS_ENABLED(CONFIG_PREEMPT_RT))
		kunit_skip(test, "interrupts are on");

	t = chain_test_create(test, MANY_LINKS);
	signal_unwatched(t);

	local_irq_save(flags);
	dma_fence_enable_signaling(t->links[MANY_LINKS - 1]);
	released = atomic_read(&t->released);
	local_irq_restore(flags);
	KUNIT_EXPECT_LE(test, released, MANY_LINKS / 4);

	/* Nobody else asks whether it has signaled. */
	chain_test_end(test, t);
}

/* A short chain that has signaled says so at once. */
static void enabled_too_late(struct kunit *test)
{
	struct chain_test *t;
	unsigned long flags = 0;
	bool signaled;

	t = chain_test_create(test, 4);
	signal_unwatched(t);

	/* No interrupt of ours helps; with PREEMPT_RT locks sleep. */
	if (!IS_ENABLED(CONFIG_PREEMPT_RT))
		local_irq_save(flags);
	signaled = dma_fence_add_callback(t->links[3], &t->watches[3].first,
					  link_first) == -ENOENT;
	if (!IS_ENABLED(CONFIG_PREEMPT_RT))
		local_irq_restore(flags);
	KUNIT_EXPECT_TRUE(test, signaled);

	chain_test_end(test, t);
}

/* A link whose fence has signaled already waits behind one that waits. */
static void enabled_behind_a_waiter(struct kunit *test)
{
	struct chain_test *t = chain_test_create(test, 4);

	dma_fence_enable_signaling(t->links[2]);
	signal_members(t, 3, 1, false);

	KUNIT_EXPECT_EQ(test, dma_fence_add_callback(t->links[3], &t->watches[3].first,
						     link_first), 0);
	signal_members(t, 1, 0, false);
	KUNIT_EXPECT_EQ(test, atomic_read(&t->signaled), 0);
	KUNIT_EXPECT_EQ(test, callbacks(&t->members[0]->base), 1);
	KUNIT_EXPECT_EQ(test, callbacks(t->links[2]), 1);

	signal_member(t, 0);
	chain_test_end(test, t);
	KUNIT_EXPECT_EQ(test, atomic_read(&t->signaled), 1);
}

/* What nobody waits for, and has signaled, is freed while the chain waits on. */
static void garbage_is_collected(struct kunit *test)
{
	struct chain_test *t;
	unsigned int i;

	t = chain_test_create(test, LINKS);
	dma_fence_enable_signaling(t->links[LINKS - 1]);
	for (i = 0; i < LINKS - 1; i++)
		put_link(t, i);

	migrate_disable();
	for (i = LINKS - 1; i > 0; i--) {
		signal_member(t, i);
		put_member(t, i);
		settle(2);
	}
	migrate_enable();
	/* All but the oldest, and that of the link itself. */
	KUNIT_EXPECT_EQ(test, atomic_read(&t->released), LINKS - 2);
	KUNIT_EXPECT_EQ(test, callbacks(&t->members[0]->base), 1);

	chain_test_end(test, t);
}

#define ORDERED		4

/* A link that is waited for signals with the last of the members up to its own. */
static void order_of_members(struct kunit *test, const unsigned int *order,
			     unsigned int watched)
{
	unsigned int i, k, signaled = 0;
	struct chain_test *t;

	t = chain_test_create(test, ORDERED);
	for (i = 0; i < ORDERED; i++) {
		if (watched & BIT(i))
			dma_fence_enable_signaling(t->links[i]);
	}

	for (k = 0; k < ORDERED; k++) {
		signal_members(t, order[k], order[k] + 1, false);
		settle(1);
		signaled |= BIT(order[k]);
		for (i = 0; i < ORDERED; i++) {
			if (!(watched & BIT(i)))
				continue;
			KUNIT_EXPECT_EQ_MSG(test, dma_fence_test_signaled_flag(t->links[i]),
					    (signaled & (BIT(i + 1) - 1)) == BIT(i + 1) - 1,
					    "link %u of %x waited for, %x signaled",
					    i, watched, signaled);
		}
	}
	chain_test_end(test, t);
}

static void any_order(struct kunit *test)
{
	static const unsigned int watched[] = { 0xf, 0x8, 0xa, 0x5 };
	unsigned int order[ORDERED], i, n, used, orders = 0;

	for (n = 0; n < 1U << (2 * ORDERED); n++) {
		for (i = 0, used = 0; i < ORDERED; i++) {
			order[i] = (n >> (2 * i)) % ORDERED;
			used |= BIT(order[i]);
		}
		if (used != BIT(ORDERED) - 1)
			continue;

		orders++;
		for (i = 0; i < ARRAY_SIZE(watched); i++)
			order_of_members(test, order, watched[i]);
	}
	KUNIT_EXPECT_EQ(test, orders, 24);
}

static struct kunit_case dma_fence_chain_signal_cases[] = {
	KUNIT_CASE(backwards),
	KUNIT_CASE(backwards_at_once),
	KUNIT_CASE(forwards_at_once),
	KUNIT_CASE(forwards_in_order),
	KUNIT_CASE(no_nesting),
	KUNIT_CASE(few_in_one_interrupt),
	KUNIT_CASE(few_chains_in_one_interrupt),
	KUNIT_CASE(few_of_one_fence_in_one_interrupt),
	KUNIT_CASE(few_in_one_interrupt_linked),
	KUNIT_CASE(one_after_many),
	KUNIT_CASE(few_in_many_interrupts),
	KUNIT_CASE(few_passed_in_one_interrupt),
	KUNIT_CASE(few_passed_by_each),
	KUNIT_CASE(few_passed_when_enabled),
	KUNIT_CASE(enabled_too_late),
	KUNIT_CASE(enabled_behind_a_waiter),
	KUNIT_CASE(garbage_is_collected),
	KUNIT_CASE(any_order),
	{}
};

static struct kunit_suite dma_fence_chain_signal_suite = {
	.name = "dma-buf-fence-chain-signal",
	.test_cases = dma_fence_chain_signal_cases,
};

kunit_test_suite(dma_fence_chain_signal_suite);
