// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit benchmark of the operations on a dma_fence.
 *
 * Each case checks that the operations did what they are for, and says in the
 * kernel log how long they took:
 *
 *	bench op=signal kind=external ps=12345
 *
 * is the mean of picoseconds for one operation, with the loop around it, which
 * is "op=nothing". Operations that begin with "2cpu-" were done by two CPUs at once
 * to the same fence; then it is the time that passed, by the number of operations
 * of both.
 *
 * Nothing fails for being slow. Compare kernels on the same machine, built without
 * debug options, and where time is not to be trusted, let an emulator count
 * instructions: with "-icount shift=0" of QEMU one of them takes one nanosecond.
 * (But then two CPUs take turns.)
 */

#include <kunit/test.h>
#include <linux/completion.h>
#include <linux/cpumask.h>
#include <linux/dma-fence.h>
#include <linux/dma-fence-array.h>
#include <linux/dma-fence-chain.h>
#include <linux/file.h>
#include <linux/irq_work.h>
#include <linux/kthread.h>
#include <linux/ktime.h>
#include <linux/math64.h>
#include <linux/module.h>
#include <linux/prandom.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/sort.h>
#include <linux/spinlock.h>
#include <linux/sync_file.h>

#define BENCH_FENCES	128	/* operations in a batch, each on another fence */
#define BENCH_BATCHES	101
#define BENCH_CALLBACKS	8
#define BENCH_HAMMER	256	/* operations of one of two CPUs at a time */
#define BENCH_HAMMER_NS	NSEC_PER_MSEC
#define BENCH_HAMMERS	31

/* The kinds of issuer that there are, but for those with a ->wait(). */
struct bench_kind {
	const char *name;
	bool inline_lock;
	bool release;	/* has ->release(), so its fences never detach */
};

static const struct bench_kind bench_kinds[] = {
	{ .name = "external" },
	{ .name = "external-release", .release = true },
	{ .name = "inline", .inline_lock = true },
	{ .name = "inline-release", .inline_lock = true, .release = true },
};

KUNIT_ARRAY_PARAM_DESC(bench_kind, bench_kinds, name);

struct bench {
	const struct bench_kind *kind;
	spinlock_t lock;	/* of all fences that have no inline one */
	u64 context;
	struct dma_fence *fences[BENCH_FENCES];
	struct dma_fence_cb cbs[BENCH_FENCES][BENCH_CALLBACKS];
	u64 samples[BENCH_BATCHES];
	unsigned int sum;	/* what the operations returned */
	struct dma_fence_array *array;	/* the last one created */
};

static const char *bench_name(struct dma_fence *fence)
{
	return "bench";
}

static bool bench_enable_signaling(struct dma_fence *fence)
{
	return true;
}

static bool bench_signaled(struct dma_fence *fence)
{
	return false;
}

static void bench_release(struct dma_fence *fence)
{
	dma_fence_free(fence);
}

#define BENCH_OPS					\
	.get_driver_name = bench_name,			\
	.get_timeline_name = bench_name,		\
	.enable_signaling = bench_enable_signaling,	\
	.signaled = bench_signaled

static const struct dma_fence_ops detaching_ops = { BENCH_OPS };
static const struct dma_fence_ops release_ops = {
	BENCH_OPS,
	.release = bench_release,
};

static unsigned int fence_init(struct bench *bench, struct dma_fence *fence)
{
	const struct dma_fence_ops *ops =
		bench->kind->release ? &release_ops : &detaching_ops;

	/* Where fences have one lock, "external" is what became of those issuers. */
#ifdef dma_fence_init_once
	dma_fence_init(fence, ops, bench->context, 1);
#else
	dma_fence_init(fence, ops, bench->kind->inline_lock ? NULL : &bench->lock,
		       bench->context, 1);
#endif
	return 1;
}

static int compare_u64(const void *a, const void *b)
{
	u64 x = *(const u64 *)a, y = *(const u64 *)b;

	return x < y ? -1 : x > y;
}

/*
 * The mean of the middle half: as robust as the median, and finer than a clock that
 * ticks every 256 ns, as that of UML does.
 */
static void report(struct kunit *test, const char *op, const char *kind,
		   u64 *samples, unsigned int count, unsigned int ops)
{
	unsigned int i, skip = count / 4;
	u64 sum = 0;

	sort(samples, count, sizeof(*samples), compare_u64, NULL);
	for (i = skip; i < count - skip; i++)
		sum += samples[i];
	kunit_info(test, "bench op=%s kind=%s ps=%llu\n", op, kind,
		   div_u64(sum * 1000, ops * (count - 2 * skip)));
}

/*
 * One operation on each fence of a batch. The compiler sees each loop by itself, so
 * that no call through a pointer is measured.
 */
#define BENCH_LOOP(name, result)					\
static noinline void name(struct bench *bench)				\
{									\
	unsigned int sum = 0;						\
	int i;								\
									\
	for (i = 0; i < BENCH_FENCES; i++) {				\
		struct dma_fence *fence = bench->fences[i];		\
									\
		sum += result(bench, fence, i);				\
	}								\
	bench->sum = sum;						\
}

static __always_inline unsigned int
do_nothing(struct bench *bench, struct dma_fence *fence, int i)
{
	barrier_data(fence);
	return 1;
}

BENCH_LOOP(run_nothing, do_nothing)

static __always_inline unsigned int
do_init_signal_put(struct bench *bench, struct dma_fence *fence, int i)
{
	fence_init(bench, fence);
	dma_fence_signal(fence);
	dma_fence_put(fence);
	return 1;
}

BENCH_LOOP(run_init_signal_put, do_init_signal_put)

static __always_inline unsigned int
do_signal(struct bench *bench, struct dma_fence *fence, int i)
{
	dma_fence_signal(fence);
	return 1;
}

BENCH_LOOP(run_signal, do_signal)

static void empty_call(struct dma_fence *fence, struct dma_fence_cb *cb)
{
}

static __always_inline unsigned int
do_add_remove(struct bench *bench, struct dma_fence *fence, int i)
{
	if (dma_fence_add_callback(fence, &bench->cbs[i][0], empty_call))
		return 0;
	return dma_fence_remove_callback(fence, &bench->cbs[i][0]);
}

BENCH_LOOP(run_add_remove, do_add_remove)

static __always_inline unsigned int
do_is_signaled(struct bench *bench, struct dma_fence *fence, int i)
{
	return dma_fence_is_signaled(fence);
}

BENCH_LOOP(run_is_signaled, do_is_signaled)

static __always_inline unsigned int
do_test_flag(struct bench *bench, struct dma_fence *fence, int i)
{
	return dma_fence_test_signaled_flag(fence);
}

BENCH_LOOP(run_test_flag, do_test_flag)

static __always_inline unsigned int
do_get_status(struct bench *bench, struct dma_fence *fence, int i)
{
	return dma_fence_get_status(fence);
}

BENCH_LOOP(run_get_status, do_get_status)

static __always_inline unsigned int
do_names(struct bench *bench, struct dma_fence *fence, int i)
{
	const char __rcu *timeline;
	const char __rcu *driver;
	unsigned int ret;

	rcu_read_lock();
	driver = dma_fence_driver_name(fence);
	timeline = dma_fence_timeline_name(fence);
	ret = *rcu_dereference(driver) && *rcu_dereference(timeline);
	rcu_read_unlock();

	return ret;
}

BENCH_LOOP(run_names, do_names)

static __always_inline unsigned int
do_wait(struct bench *bench, struct dma_fence *fence, int i)
{
	return dma_fence_wait_timeout(fence, false, 1);
}

BENCH_LOOP(run_wait, do_wait)

static __always_inline unsigned int
do_timestamp(struct bench *bench, struct dma_fence *fence, int i)
{
	return !!dma_fence_timestamp(fence);
}

BENCH_LOOP(run_timestamp, do_timestamp)

#if IS_ENABLED(CONFIG_SYNC_FILE)
static __always_inline unsigned int
do_sync_file(struct bench *bench, struct dma_fence *fence, int i)
{
	struct sync_file *sync_file = sync_file_create(fence);

	if (!sync_file)
		return 0;
	__fput_sync(sync_file->file);
	return 1;
}

BENCH_LOOP(run_sync_file, do_sync_file)
#endif

struct bench_op {
	const char *name;
	void (*run)(struct bench *bench);
	unsigned int callbacks;	/* on each fence, before */
	bool signaled;		/* each fence is, before */
	bool zero;		/* what each operation returns is 0, not 1 */
	bool put;		/* takes uninitialized fences, and the reference */
};

static const struct bench_op bench_ops[] = {
	{ .name = "nothing", .run = run_nothing },
	{ .name = "init-signal-put", .run = run_init_signal_put, .put = true },
	{ .name = "signal", .run = run_signal },
	{ .name = "signal-1-callback", .run = run_signal, .callbacks = 1 },
	{ .name = "signal-8-callbacks", .run = run_signal, .callbacks = 8 },
	{ .name = "signal-signaled", .run = run_signal, .signaled = true },
	{ .name = "add-remove-callback", .run = run_add_remove },
	{ .name = "test-flag-unsignaled", .run = run_test_flag, .zero = true },
	{ .name = "test-flag-signaled", .run = run_test_flag, .signaled = true },
	{ .name = "is-signaled-unsignaled", .run = run_is_signaled, .zero = true },
	{ .name = "is-signaled-signaled", .run = run_is_signaled, .signaled = true },
	{ .name = "get-status-unsignaled", .run = run_get_status, .zero = true },
	{ .name = "get-status-signaled", .run = run_get_status, .signaled = true },
	{ .name = "names-unsignaled", .run = run_names },
	{ .name = "names-signaled", .run = run_names, .signaled = true },
	{ .name = "wait-signaled", .run = run_wait, .signaled = true },
	{ .name = "timestamp-signaled", .run = run_timestamp, .signaled = true },
#if IS_ENABLED(CONFIG_SYNC_FILE)
	{ .name = "sync-file-and-close", .run = run_sync_file },
#endif
};

static bool fences_alloc(struct bench *bench, const struct bench_op *op)
{
	unsigned int i, j;

	for (i = 0; i < BENCH_FENCES; i++) {
		struct dma_fence *fence = kzalloc_obj(*fence);

		if (!fence) {
			while (i--)
				dma_fence_put(bench->fences[i]);
			return false;
		}

		bench->fences[i] = fence;
		if (op->put)
			continue;

		fence_init(bench, fence);
		for (j = 0; j < op->callbacks; j++)
			dma_fence_add_callback(fence, &bench->cbs[i][j], empty_call);
		if (op->signaled)
			dma_fence_signal(fence);
	}

	return true;
}

static void bench_run(struct kunit *test, struct bench *bench,
		      const struct bench_op *op)
{
	unsigned int batch, i;
	u64 start;

	for (batch = 0; batch < BENCH_BATCHES; batch++) {
		KUNIT_ASSERT_TRUE(test, fences_alloc(bench, op));

		start = ktime_get_ns();
		op->run(bench);
		bench->samples[batch] = ktime_get_ns() - start;

		KUNIT_ASSERT_EQ(test, bench->sum, op->zero ? 0 : BENCH_FENCES);
		for (i = 0; i < BENCH_FENCES && !op->put; i++) {
			dma_fence_signal(bench->fences[i]);
			dma_fence_put(bench->fences[i]);
		}
	}

	report(test, op->name, bench->kind->name, bench->samples, BENCH_BATCHES,
	       BENCH_FENCES);
}

static struct bench *bench_create(struct kunit *test,
				  const struct bench_kind *kind)
{
	struct bench *bench = kunit_kzalloc(test, sizeof(*bench), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, bench);
	bench->kind = kind;
	spin_lock_init(&bench->lock);
	bench->context = dma_fence_context_alloc(2);

	return bench;
}

static void bench_alone(struct kunit *test)
{
	struct bench *bench = bench_create(test, test->param_value);
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(bench_ops); i++)
		bench_run(test, bench, &bench_ops[i]);
}

/*
 * What a container of some size costs, from the beginning to the end. Where an
 * irq_work comes by an interrupt, that is in it.
 */
struct bench_container {
	const char *name;
	unsigned int members;
	/* in which they signal; INWARDS is from both ends in turn */
	enum { FORWARDS, BACKWARDS, SHUFFLED, INWARDS } order;
};

static const struct bench_container bench_containers[] = {
	{ .name = "2", .members = 2 },
	{ .name = "16", .members = 16 },
	{ .name = "128", .members = 128 },
	{ .name = "2-backwards", .members = 2, .order = BACKWARDS },
	{ .name = "16-backwards", .members = 16, .order = BACKWARDS },
	{ .name = "128-backwards", .members = 128, .order = BACKWARDS },
	{ .name = "16-shuffled", .members = 16, .order = SHUFFLED },
	{ .name = "128-shuffled", .members = 128, .order = SHUFFLED },
	{ .name = "8", .members = 8 },
	{ .name = "8-backwards", .members = 8, .order = BACKWARDS },
	{ .name = "8-shuffled", .members = 8, .order = SHUFFLED },
	{ .name = "16-inwards", .members = 16, .order = INWARDS },
	{ .name = "128-inwards", .members = 128, .order = INWARDS },
};

KUNIT_ARRAY_PARAM_DESC(bench_container, bench_containers, name);

static const struct bench_op container_op = { .name = "container" };

static void report_container(struct kunit *test, struct bench *bench,
			     const char *what, unsigned int ops)
{
	const struct bench_container *container = test->param_value;
	char op[32];

	scnprintf(op, sizeof(op), "%s-%s", what, container->name);
	report(test, op, bench->kind->name, bench->samples, BENCH_BATCHES, ops);
}

static struct dma_fence *array_create(struct bench *bench, unsigned int members)
{
	struct dma_fence **fences;
	unsigned int i;

	fences = kmalloc_objs(*fences, members);
	if (!fences)
		return NULL;
	for (i = 0; i < members; i++)
		fences[i] = dma_fence_get(bench->fences[i]);

	bench->array = dma_fence_array_create(members, fences,
					      bench->context + 1, 1);
	return bench->array ? &bench->array->base : NULL;
}

/* Takes over the references of the nodes, as dma_fence_chain_init() does. */
static struct dma_fence *chain_create(struct bench *bench, unsigned int members)
{
	struct dma_fence *prev = NULL;
	unsigned int i;

	for (i = 0; i < members; i++) {
		struct dma_fence_chain *chain = dma_fence_chain_alloc();

		if (!chain)
			return NULL;
		dma_fence_chain_init(chain, prev, dma_fence_get(bench->fences[i]),
				     i + 1);
		prev = &chain->base;
	}

	return prev;
}

/* Which member signals when. Another order in each batch, the same in each run. */
static void container_order(const struct bench_container *container,
			    struct rnd_state *rnd, u8 *order)
{
	unsigned int members = container->members, i, j;

	for (i = 0; i < members; i++)
		order[i] = i;
	if (container->order == BACKWARDS) {
		for (i = 0; i < members; i++)
			order[i] = members - 1 - i;
	} else if (container->order == INWARDS) {
		for (i = 0; i < members; i++)
			order[i] = i & 1 ? members - 1 - i / 2 : i / 2;
	}

	for (i = members - 1; container->order == SHUFFLED && i; i--) {
		j = prandom_u32_state(rnd) % (i + 1);
		swap(order[i], order[j]);
	}
}

static void container_run(struct kunit *test, const char *what,
			  struct dma_fence *(*create)(struct bench *bench,
						      unsigned int members))
{
	const struct bench_container *container = test->param_value;
	struct bench *bench = bench_create(test, &bench_kinds[0]);
	unsigned int members = container->members, batch, i;
	struct dma_fence *fence;
	bool early = true, late = false;
	u8 order[BENCH_FENCES];
	struct rnd_state rnd;
	u64 start;

	prandom_seed_state(&rnd, members);

	for (batch = 0; batch < BENCH_BATCHES; batch++) {
		KUNIT_ASSERT_TRUE(test, fences_alloc(bench, &container_op));
		container_order(container, &rnd, order);
		bench->array = NULL;

		start = ktime_get_ns();
		fence = create(bench, members);
		if (fence) {
			dma_fence_enable_signaling(fence);
			early = dma_fence_is_signaled(fence);
			for (i = 0; i < members; i++)
				dma_fence_signal(bench->fences[order[i]]);
			late = dma_fence_is_signaled(fence);
		}
		bench->samples[batch] = ktime_get_ns() - start;

		KUNIT_ASSERT_NOT_NULL(test, fence);
		KUNIT_ASSERT_FALSE(test, early);
		/* An irq_work on another CPU may not have counted the last one. */
		KUNIT_ASSERT_TRUE(test, late ||
				  dma_fence_wait_timeout(fence, false, HZ) > 0);

		if (bench->array)
			irq_work_sync(&bench->array->work);
		dma_fence_put(fence);
		for (i = 0; i < BENCH_FENCES; i++) {
			dma_fence_signal(bench->fences[i]);
			dma_fence_put(bench->fences[i]);
		}
	}

	report_container(test, bench, what, 1);
}

static void bench_array(struct kunit *test)
{
	container_run(test, "array", array_create);
}

static void bench_chain(struct kunit *test)
{
	container_run(test, "chain", chain_create);
}

/* An array that waits, asked again and again. */
static void bench_array_poll(struct kunit *test)
{
	const struct bench_container *container = test->param_value;
	struct bench *bench = bench_create(test, &bench_kinds[0]);
	struct dma_fence *fence;
	unsigned int batch, i;
	u64 start;

	if (container->order != FORWARDS)
		kunit_skip(test, "nothing signals here");

	KUNIT_ASSERT_TRUE(test, fences_alloc(bench, &container_op));
	fence = array_create(bench, container->members);
	KUNIT_ASSERT_NOT_NULL(test, fence);
	dma_fence_enable_signaling(fence);

	for (batch = 0; batch < BENCH_BATCHES; batch++) {
		unsigned int sum = 0;

		start = ktime_get_ns();
		for (i = 0; i < BENCH_FENCES; i++)
			sum += dma_fence_is_signaled(fence);
		bench->samples[batch] = ktime_get_ns() - start;
		KUNIT_EXPECT_EQ(test, sum, 0);
	}
	report_container(test, bench, "array-poll", BENCH_FENCES);

	for (i = 0; i < BENCH_FENCES; i++) {
		dma_fence_signal(bench->fences[i]);
		dma_fence_put(bench->fences[i]);
	}
	KUNIT_EXPECT_TRUE(test, dma_fence_is_signaled(fence));
	irq_work_sync(&bench->array->work);
	dma_fence_put(fence);
}

/* Two CPUs and one fence. */
struct hammer {
	struct dma_fence *fence;
	void (*run)(struct hammer *hammer, struct dma_fence_cb *cb,
		    unsigned int *sum);
	atomic_t ready;
	struct completion done;
	struct hammer_side {
		unsigned int ops, sum;
		u64 start, end;
	} here, there;
};

/* Bounded: a loop of reads that waits for the other CPU may keep that from running. */
static void hammer_meet(struct hammer *hammer)
{
	unsigned int i;

	atomic_inc(&hammer->ready);
	for (i = 0; i < 1000000 && atomic_read(&hammer->ready) < 2; i++)
		cpu_relax();
}

#define HAMMER_LOOP(name, result)					\
static void name(struct hammer *hammer, struct dma_fence_cb *cb,	\
		 unsigned int *sum)					\
{									\
	struct dma_fence *fence = hammer->fence;			\
	unsigned int n = 0, i;						\
									\
	for (i = 0; i < BENCH_HAMMER; i++)				\
		n += (result);						\
	*sum = n;							\
}

HAMMER_LOOP(hammer_get_status, dma_fence_get_status(fence))
HAMMER_LOOP(hammer_is_signaled, dma_fence_is_signaled(fence))
HAMMER_LOOP(hammer_wait, dma_fence_wait_timeout(fence, false, 1))
HAMMER_LOOP(hammer_names, do_names(NULL, fence, 0))
HAMMER_LOOP(hammer_add_remove,
	    !dma_fence_add_callback(fence, cb, empty_call) &&
	    dma_fence_remove_callback(fence, cb))

struct hammer_op {
	const char *name;
	void (*run)(struct hammer *hammer, struct dma_fence_cb *cb,
		    unsigned int *sum);
	bool signaled;
	bool zero;
};

static const struct hammer_op hammer_ops[] = {
	{ .name = "2cpu-is-signaled-unsignaled", .run = hammer_is_signaled, .zero = true },
	{ .name = "2cpu-is-signaled-signaled", .run = hammer_is_signaled, .signaled = true },
	{ .name = "2cpu-get-status-signaled", .run = hammer_get_status, .signaled = true },
	{ .name = "2cpu-wait-signaled", .run = hammer_wait, .signaled = true },
	{ .name = "2cpu-names-unsignaled", .run = hammer_names },
	{ .name = "2cpu-names-signaled", .run = hammer_names, .signaled = true },
	{ .name = "2cpu-add-remove-callback", .run = hammer_add_remove },
};

static void hammer_run(struct hammer *hammer, struct hammer_side *side)
{
	struct dma_fence_cb cb;
	unsigned int sum;

	hammer_meet(hammer);
	side->start = ktime_get_ns();
	do {
		hammer->run(hammer, &cb, &sum);
		side->sum += sum;
		side->ops += BENCH_HAMMER;
		side->end = ktime_get_ns();
	} while (side->end - side->start < BENCH_HAMMER_NS);
}

static int hammer_thread(void *data)
{
	struct hammer *hammer = data;

	hammer_run(hammer, &hammer->there);
	complete(&hammer->done);

	return 0;
}

/*
 * Returns ps per operation. On a busy host the two may not have been at work at the
 * same time: then again.
 */
static u64 hammer_once(struct kunit *test, struct bench *bench,
		       const struct hammer_op *op)
{
	unsigned int tries, ops = 1, there;
	u64 first, last, both, all = 0;

	for (tries = 0; tries < 10; tries++) {
		struct hammer hammer = { .run = op->run };
		struct task_struct *task;

		hammer.fence = kzalloc_obj(*hammer.fence);
		KUNIT_ASSERT_NOT_NULL(test, hammer.fence);
		fence_init(bench, hammer.fence);
		if (op->signaled)
			dma_fence_signal(hammer.fence);
		init_completion(&hammer.done);

		task = kthread_create(hammer_thread, &hammer, "fence-bench");
		KUNIT_ASSERT_FALSE(test, IS_ERR(task));
		get_task_struct(task);

		migrate_disable();
		there = cpumask_any_but(cpu_online_mask, raw_smp_processor_id());
		if (there < nr_cpu_ids)
			kthread_bind(task, there);
		wake_up_process(task);
		hammer_run(&hammer, &hammer.here);
		migrate_enable();

		wait_for_completion(&hammer.done);
		kthread_stop_put(task);
		dma_fence_signal(hammer.fence);
		dma_fence_put(hammer.fence);

		ops = hammer.here.ops + hammer.there.ops;
		KUNIT_EXPECT_EQ(test, hammer.here.sum + hammer.there.sum,
				op->zero ? 0 : ops);

		first = min(hammer.here.start, hammer.there.start);
		last = max(hammer.here.end, hammer.there.end);
		both = min(hammer.here.end, hammer.there.end) -
		       max(hammer.here.start, hammer.there.start);
		all = last - first;
		if ((s64)both > 0 && both > all / 4 * 3)
			break;
	}

	return div_u64(all * 1000, ops);
}

static void bench_two_cpus(struct kunit *test)
{
	struct bench *bench = bench_create(test, test->param_value);
	unsigned int i, n;

	if (num_online_cpus() < 2)
		kunit_skip(test, "needs two CPUs");

	for (i = 0; i < ARRAY_SIZE(hammer_ops); i++) {
		for (n = 0; n < BENCH_HAMMERS; n++)
			bench->samples[n] = hammer_once(test, bench, &hammer_ops[i]);
		/* these are ps already */
		report(test, hammer_ops[i].name, bench->kind->name, bench->samples,
		       BENCH_HAMMERS, 1000);
	}
}

/* Memory: as declared, and by ksize(), since arrays differ between kernels. */
static void bench_bytes(struct kunit *test)
{
	static const unsigned int sizes[] = { 1, 2, 16, 128 };
	struct bench *bench = bench_create(test, &bench_kinds[0]);
	unsigned int i;

	kunit_info(test, "bench bytes dma_fence=%zu\n", sizeof(struct dma_fence));
	kunit_info(test, "bench bytes dma_fence_array=%zu\n",
		   sizeof(struct dma_fence_array));
	kunit_info(test, "bench bytes dma_fence_chain=%zu\n",
		   sizeof(struct dma_fence_chain));

	KUNIT_ASSERT_TRUE(test, fences_alloc(bench, &container_op));
	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		struct dma_fence *fence = array_create(bench, sizes[i]);

		KUNIT_ASSERT_NOT_NULL(test, fence);
		kunit_info(test, "bench bytes array-%u=%zu\n", sizes[i],
			   ksize(bench->array) + ksize(bench->array->fences));
		dma_fence_put(fence);
	}
	for (i = 0; i < BENCH_FENCES; i++) {
		dma_fence_signal(bench->fences[i]);
		dma_fence_put(bench->fences[i]);
	}
}

static struct kunit_case dma_fence_bench_cases[] = {
	KUNIT_CASE(bench_bytes),
	KUNIT_CASE_PARAM(bench_alone, bench_kind_gen_params),
	KUNIT_CASE_PARAM(bench_array, bench_container_gen_params),
	KUNIT_CASE_PARAM(bench_array_poll, bench_container_gen_params),
	KUNIT_CASE_PARAM(bench_chain, bench_container_gen_params),
	KUNIT_CASE_PARAM(bench_two_cpus, bench_kind_gen_params),
	{}
};

static struct kunit_suite dma_fence_bench_suite = {
	.name = "dma-buf-fence-bench",
	.test_cases = dma_fence_bench_cases,
};

kunit_test_suite(dma_fence_bench_suite);

MODULE_DESCRIPTION("KUnit benchmark of dma_fence");
MODULE_LICENSE("GPL");
