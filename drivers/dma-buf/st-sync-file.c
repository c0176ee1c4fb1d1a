// SPDX-License-Identifier: MIT

/*
 * KUnit tests for the ioctls of a sync_file, on real user memory.
 */

#include <kunit/test.h>
#include <linux/dma-buf.h>
#include <linux/dma-fence.h>
#include <linux/dma-fence-array.h>
#include <linux/dma-fence-chain.h>
#include <linux/dma-fence-unwrap.h>
#include <linux/dma-resv.h>
#include <linux/fcntl.h>
#include <linux/fdtable.h>
#include <linux/file.h>
#include <linux/mman.h>
#include <linux/module.h>
#include <linux/sched/signal.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/sync_file.h>
#include <linux/uaccess.h>
#include <uapi/linux/dma-buf.h>
#include <uapi/linux/sync_file.h>

#define SHARED_SZ 64

/* As many as no single kmalloc() can hold the information of. */
#define MANY_SZ (KMALLOC_MAX_SIZE / sizeof(struct sync_fence_info) + SHARED_SZ)

#define CANARY 0x5a

struct mock_fence {
	struct dma_fence base;
	/* To signal when the name of this fence is asked for. */
	struct dma_fence *when_named;
	unsigned int deadlines;
	/* How often this fence was asked if it has signaled, and when it has. */
	unsigned int asked, signals_when_asked;
};

static const char *mock_driver_name(struct dma_fence *f)
{
	return "mock";
}

static const char *mock_timeline_name(struct dma_fence *f)
{
	struct mock_fence *mock = container_of(f, struct mock_fence, base);

	if (mock->when_named)
		dma_fence_signal(mock->when_named);

	return "mock timeline";
}

static void mock_set_deadline(struct dma_fence *f, ktime_t deadline)
{
	container_of(f, struct mock_fence, base)->deadlines++;
}

static bool mock_signaled(struct dma_fence *f)
{
	struct mock_fence *mock = container_of(f, struct mock_fence, base);

	return ++mock->asked == mock->signals_when_asked;
}

static const struct dma_fence_ops mock_ops = {
	.get_driver_name = mock_driver_name,
	.get_timeline_name = mock_timeline_name,
	.set_deadline = mock_set_deadline,
	.signaled = mock_signaled,
};

static struct dma_fence *mock_fence(struct kunit *test)
{
	struct mock_fence *f = kzalloc_obj(*f);

	KUNIT_ASSERT_NOT_NULL(test, f);
	dma_fence_init(&f->base, &mock_ops, dma_fence_context_alloc(1), 1);
	return &f->base;
}

/* Takes the references of the fences. */
static struct dma_fence *mock_array(struct kunit *test, unsigned int count,
				    struct dma_fence **fences)
{
	struct dma_fence_array *array;
	struct dma_fence **copy;

	copy = kmemdup_array(fences, count, sizeof(*fences), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, copy);
	array = dma_fence_array_create(count, copy, dma_fence_context_alloc(1),
				       1);
	KUNIT_ASSERT_NOT_NULL(test, array);
	return &array->base;
}

/* One array that has @fence as each of its members. */
static struct dma_fence *mock_repeated(struct kunit *test, unsigned int count,
				       struct dma_fence *fence)
{
	struct dma_fence_array *array;
	struct dma_fence **fences;
	unsigned int i;

	fences = kmalloc_objs(*fences, count);
	KUNIT_ASSERT_NOT_NULL(test, fences);
	for (i = 0; i < count; i++)
		fences[i] = dma_fence_get(fence);
	array = dma_fence_array_create(count, fences,
				       dma_fence_context_alloc(1), 1);
	KUNIT_ASSERT_NOT_NULL(test, array);

	/* Or each step along a chain would look at all of the members. */
	dma_fence_enable_signaling(&array->base);
	return &array->base;
}

/* Takes the reference of @prev, and one of its own to @fence. */
static struct dma_fence *mock_chain(struct kunit *test, struct dma_fence *prev,
				    struct dma_fence *fence)
{
	struct dma_fence_chain *chain = dma_fence_chain_alloc();

	KUNIT_ASSERT_NOT_NULL(test, chain);
	dma_fence_chain_init(chain, prev, dma_fence_get(fence),
			     prev ? prev->seqno + 1 : 1);
	return &chain->base;
}

static struct sg_table *mock_map_dma_buf(struct dma_buf_attachment *attach,
					 enum dma_data_direction direction)
{
	return ERR_PTR(-EOPNOTSUPP);
}

static void mock_unmap_dma_buf(struct dma_buf_attachment *attach,
			       struct sg_table *sgt,
			       enum dma_data_direction direction)
{
}

static void mock_release_dma_buf(struct dma_buf *dmabuf)
{
}

static const struct dma_buf_ops mock_dma_buf_ops = {
	.map_dma_buf = mock_map_dma_buf,
	.unmap_dma_buf = mock_unmap_dma_buf,
	.release = mock_release_dma_buf,
};

static struct sync_file *mock_sync_file(struct kunit *test,
					struct dma_fence *fence)
{
	struct sync_file *sync_file = sync_file_create(fence);

	KUNIT_ASSERT_NOT_NULL(test, sync_file);
	return sync_file;
}

struct user_mem {
	struct sync_file_info __user *info;
	struct sync_fence_info __user *fences;
};

/* User memory with room for @count fences and one more, filled with CANARY. */
static struct user_mem user_alloc(struct kunit *test, size_t count)
{
	size_t size = PAGE_ALIGN(sizeof(struct sync_file_info) +
				 (count + 1) * sizeof(struct sync_fence_info));
	unsigned long addr, i;
	struct user_mem user;
	void *page;

	addr = kunit_vm_mmap(test, NULL, 0, size, PROT_READ | PROT_WRITE,
			     MAP_ANONYMOUS | MAP_PRIVATE, 0);
	KUNIT_ASSERT_NE_MSG(test, addr, 0, "Could not map user memory");
	KUNIT_ASSERT_LT_MSG(test, addr, (unsigned long)TASK_SIZE,
			    "Could not map user memory");

	page = kunit_kmalloc(test, PAGE_SIZE, GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, page);
	memset(page, CANARY, PAGE_SIZE);
	for (i = 0; i < size; i += PAGE_SIZE)
		KUNIT_ASSERT_EQ(test, 0, copy_to_user((void __user *)addr + i,
						      page, PAGE_SIZE));

	user.info = (void __user *)addr;
	user.fences = (void __user *)(addr + sizeof(*user.info));
	return user;
}

static long file_info(struct kunit *test, struct sync_file *sync_file,
		      struct user_mem *user, u32 num_fences,
		      struct sync_file_info *info)
{
	struct file *file = sync_file->file;
	long ret;

	memset(info, 0, sizeof(*info));
	info->num_fences = num_fences;
	info->sync_fence_info = (uintptr_t)user->fences;
	KUNIT_ASSERT_EQ(test, 0, copy_to_user(user->info, info, sizeof(*info)));

	ret = file->f_op->unlocked_ioctl(file, SYNC_IOC_FILE_INFO,
					 (unsigned long)user->info);
	KUNIT_ASSERT_EQ(test, 0, copy_from_user(info, user->info,
						sizeof(*info)));
	return ret;
}

static void get_fence_info(struct kunit *test, struct user_mem *user, size_t index,
			   struct sync_fence_info *fence)
{
	KUNIT_ASSERT_EQ(test, 0, copy_from_user(fence, &user->fences[index],
						sizeof(*fence)));
}

static void expect_filled(struct kunit *test, struct user_mem *user, size_t index,
			  int status)
{
	struct sync_fence_info fence;

	get_fence_info(test, user, index, &fence);
	KUNIT_EXPECT_EQ(test, fence.status, status);
	KUNIT_EXPECT_EQ(test, fence.flags, 0);
	KUNIT_EXPECT_EQ(test, !!fence.timestamp_ns, !!status);
	/* Without a name there is no end of it. The core names what has signaled. */
	if (status || fence.status != status)
		return;
	KUNIT_EXPECT_STREQ(test, fence.driver_name, "mock");
	KUNIT_EXPECT_STREQ(test, fence.obj_name, "mock timeline");
}

static void expect_untouched(struct kunit *test, struct user_mem *user,
			     size_t index)
{
	struct sync_fence_info fence;

	get_fence_info(test, user, index, &fence);
	KUNIT_EXPECT_NULL(test, memchr_inv(&fence, CANARY, sizeof(fence)));
}

/* Without room for the fences only their number and one status is asked for. */
static void test_file_info_count(struct kunit *test)
{
	struct dma_fence *fences[3], *array;
	struct sync_file *sync_file;
	struct sync_file_info info;
	struct user_mem user;
	int i;

	for (i = 0; i < ARRAY_SIZE(fences); i++)
		fences[i] = mock_fence(test);
	array = mock_array(test, ARRAY_SIZE(fences), fences);
	sync_file = mock_sync_file(test, array);
	user = user_alloc(test, ARRAY_SIZE(fences));

	KUNIT_EXPECT_EQ(test, file_info(test, sync_file, &user, 0, &info), 0);
	KUNIT_EXPECT_EQ(test, info.num_fences, ARRAY_SIZE(fences));
	KUNIT_EXPECT_EQ(test, info.status, 0);
	expect_untouched(test, &user, 0);

	for (i = 0; i < ARRAY_SIZE(fences); i++)
		dma_fence_signal(fences[i]);

	KUNIT_EXPECT_EQ(test, file_info(test, sync_file, &user, 0, &info), 0);
	KUNIT_EXPECT_EQ(test, info.num_fences, ARRAY_SIZE(fences));
	KUNIT_EXPECT_EQ(test, info.status, 1);
	expect_untouched(test, &user, 0);

	__fput_sync(sync_file->file);
	dma_fence_put(array);
}

/* All fences are described, and nothing else is written. */
static void test_file_info_fill(struct kunit *test)
{
	struct dma_fence *fences[3], *array;
	struct sync_file *sync_file;
	struct sync_file_info info;
	struct user_mem user;
	int i;

	for (i = 0; i < ARRAY_SIZE(fences); i++)
		fences[i] = mock_fence(test);
	array = mock_array(test, ARRAY_SIZE(fences), fences);
	sync_file = mock_sync_file(test, array);
	user = user_alloc(test, ARRAY_SIZE(fences));

	dma_fence_signal(fences[0]);
	dma_fence_set_error(fences[2], -EIO);
	dma_fence_signal(fences[2]);

	/* There may be more room than there are fences. */
	KUNIT_EXPECT_EQ(test,
			file_info(test, sync_file, &user,
				  ARRAY_SIZE(fences) + 1, &info), 0);
	KUNIT_EXPECT_EQ(test, info.num_fences, ARRAY_SIZE(fences));
	KUNIT_EXPECT_EQ(test, info.status, 0);
	expect_filled(test, &user, 0, 1);
	expect_filled(test, &user, 1, 0);
	expect_filled(test, &user, 2, -EIO);
	expect_untouched(test, &user, 3);

	dma_fence_signal(fences[1]);

	KUNIT_EXPECT_EQ(test,
			file_info(test, sync_file, &user, ARRAY_SIZE(fences),
				  &info), 0);
	KUNIT_EXPECT_EQ(test, info.num_fences, ARRAY_SIZE(fences));
	KUNIT_EXPECT_EQ(test, info.status, -EIO);
	expect_filled(test, &user, 1, 1);
	expect_untouched(test, &user, 3);

	__fput_sync(sync_file->file);
	dma_fence_put(array);
}

/* Who has no room for all of the fences is told so, and keeps what follows. */
static void test_file_info_short(struct kunit *test)
{
	struct dma_fence *fences[3], *array, *chain;
	struct sync_file *sync_file;
	struct sync_file_info info;
	struct user_mem user;
	int i;

	for (i = 0; i < ARRAY_SIZE(fences); i++)
		fences[i] = mock_fence(test);
	array = mock_array(test, ARRAY_SIZE(fences), fences);
	chain = mock_chain(test, NULL, array);
	sync_file = mock_sync_file(test, chain);
	user = user_alloc(test, ARRAY_SIZE(fences));

	for (i = 1; i < ARRAY_SIZE(fences); i++) {
		KUNIT_EXPECT_EQ(test,
				file_info(test, sync_file, &user, i, &info),
				-EINVAL);
		KUNIT_EXPECT_EQ(test, info.num_fences, i);
		expect_untouched(test, &user, i);
	}

	/* No reference is left behind, those here are ours and the file's. */
	KUNIT_EXPECT_EQ(test, kref_read(&chain->refcount), 2);

	__fput_sync(sync_file->file);
	dma_fence_put(chain);
	for (i = 0; i < ARRAY_SIZE(fences); i++)
		dma_fence_signal(fences[i]);
	dma_fence_put(array);
}

static void test_file_info_fault(struct kunit *test)
{
	struct dma_fence *fence, *chain;
	struct sync_file *sync_file;
	struct sync_file_info info;
	struct user_mem user;

	fence = mock_fence(test);
	chain = mock_chain(test, NULL, fence);
	sync_file = mock_sync_file(test, chain);
	user = user_alloc(test, 1);

	user.fences = NULL;
	KUNIT_EXPECT_EQ(test, file_info(test, sync_file, &user, 1, &info),
			-EFAULT);
	KUNIT_EXPECT_EQ(test, kref_read(&chain->refcount), 2);

	__fput_sync(sync_file->file);
	dma_fence_put(chain);
	dma_fence_signal(fence);
	dma_fence_put(fence);
}

/* Members that are shared cost nothing, so there can be very many of them. */
static void test_file_info_many(struct kunit *test)
{
	struct dma_fence *fence, *array, *chain = NULL;
	const size_t links = DIV_ROUND_UP(MANY_SZ, SHARED_SZ);
	const size_t count = links * SHARED_SZ;
	struct sync_file *sync_file;
	struct sync_file_info info;
	struct user_mem user;
	size_t i;

	if (KMALLOC_MAX_SIZE > SZ_16M)
		kunit_skip(test, "takes too much memory with pages of this size");

	fence = mock_fence(test);
	array = mock_repeated(test, SHARED_SZ, fence);
	for (i = 0; i < links; i++)
		chain = mock_chain(test, chain, array);
	sync_file = mock_sync_file(test, chain);
	user = user_alloc(test, count);

	kunit_warning_suppress(test) {
		KUNIT_EXPECT_EQ(test,
				file_info(test, sync_file, &user, count, &info),
				0);
		KUNIT_EXPECT_SUPPRESSED_WARNING_COUNT(test, 0);
	}
	KUNIT_EXPECT_EQ(test, info.num_fences, count);
	KUNIT_EXPECT_EQ(test, info.status, 0);
	expect_filled(test, &user, 0, 0);
	expect_filled(test, &user, count - 1, 0);
	expect_untouched(test, &user, count);

	__fput_sync(sync_file->file);
	dma_fence_signal(fence);
	dma_fence_put(chain);
	dma_fence_put(array);
	dma_fence_put(fence);
}

/* What has been counted can be gone by the time that it is described. */
static void test_file_info_shrinks(struct kunit *test)
{
	struct dma_fence *first, *rest, *array, *chain;
	struct sync_file *sync_file;
	struct sync_file_info info;
	struct user_mem user;

	first = mock_fence(test);
	rest = mock_fence(test);
	array = mock_repeated(test, SHARED_SZ, rest);
	chain = mock_chain(test, NULL, array);
	chain = mock_chain(test, chain, first);
	container_of(first, struct mock_fence, base)->when_named = rest;
	sync_file = mock_sync_file(test, chain);
	user = user_alloc(test, SHARED_SZ + 1);

	KUNIT_EXPECT_EQ(test,
			file_info(test, sync_file, &user, SHARED_SZ + 1, &info),
			0);
	KUNIT_EXPECT_EQ(test, info.num_fences, 1);
	KUNIT_EXPECT_EQ(test, info.status, 0);
	expect_filled(test, &user, 0, 0);
	expect_untouched(test, &user, 1);
	expect_untouched(test, &user, SHARED_SZ + 1);

	__fput_sync(sync_file->file);
	dma_fence_signal(first);
	dma_fence_put(chain);
	dma_fence_put(array);
	dma_fence_put(rest);
	dma_fence_put(first);
}

static int mock_fd(struct kunit *test, struct sync_file *sync_file)
{
	int fd = get_unused_fd_flags(O_CLOEXEC);

	KUNIT_ASSERT_GE(test, fd, 0);
	fd_install(fd, get_file(sync_file->file));
	return fd;
}

/* The ioctl itself, for what it returns, with a reference of our own. */
static struct sync_file *merge(struct kunit *test, struct user_mem *user,
			       struct sync_file *a, struct sync_file *b)
{
	struct sync_merge_data data = { .name = "merged" };
	struct file *file;

	data.fd2 = mock_fd(test, b);
	KUNIT_ASSERT_EQ(test, 0, copy_to_user(user->info, &data, sizeof(data)));
	KUNIT_ASSERT_EQ(test,
			a->file->f_op->unlocked_ioctl(a->file, SYNC_IOC_MERGE,
						      (unsigned long)user->info),
			0);
	KUNIT_ASSERT_EQ(test, 0, copy_from_user(&data, user->info,
						sizeof(data)));
	file = fget(data.fence);
	KUNIT_ASSERT_NOT_NULL(test, file);
	close_fd(data.fence);
	close_fd(data.fd2);
	return file->private_data;
}

/* A failure that is over is still one of what has been merged with it. */
static void test_merge_error(struct kunit *test)
{
	struct sync_file *bad_file, *good_file, *merged, *again;
	struct dma_fence *bad, *good;
	struct sync_file_info info;
	struct user_mem user;

	user = user_alloc(test, 2);
	bad = mock_fence(test);
	bad_file = mock_sync_file(test, bad);
	good = mock_fence(test);
	good_file = mock_sync_file(test, good);

	dma_fence_set_error(bad, -EIO);
	dma_fence_signal(bad);

	merged = merge(test, &user, bad_file, good_file);
	again = merge(test, &user, good_file, merged);
	dma_fence_enable_signaling(merged->fence);
	dma_fence_enable_signaling(again->fence);

	KUNIT_EXPECT_EQ(test, file_info(test, merged, &user, 0, &info), 0);
	KUNIT_EXPECT_EQ(test, info.num_fences, 2);
	KUNIT_EXPECT_EQ(test, info.status, 0);

	dma_fence_signal(good);
	KUNIT_EXPECT_GT(test, dma_fence_wait_timeout(merged->fence, false, HZ),
			0);
	KUNIT_EXPECT_GT(test, dma_fence_wait_timeout(again->fence, false, HZ),
			0);

	KUNIT_EXPECT_EQ(test, file_info(test, merged, &user, 0, &info), 0);
	KUNIT_EXPECT_EQ(test, info.status, -EIO);
	KUNIT_EXPECT_EQ(test, file_info(test, merged, &user, 2, &info), 0);
	KUNIT_EXPECT_EQ(test, info.num_fences, 2);
	KUNIT_EXPECT_EQ(test, info.status, -EIO);
	KUNIT_EXPECT_EQ(test, file_info(test, again, &user, 0, &info), 0);
	KUNIT_EXPECT_EQ(test, info.status, -EIO);

	flush_delayed_fput();
	__fput_sync(again->file);
	__fput_sync(merged->file);

	/* Now that all are signaled. */
	merged = merge(test, &user, good_file, bad_file);
	KUNIT_EXPECT_EQ(test, file_info(test, merged, &user, 0, &info), 0);
	KUNIT_EXPECT_EQ(test, info.num_fences, 1);
	KUNIT_EXPECT_EQ(test, info.status, -EIO);
	flush_delayed_fput();
	__fput_sync(merged->file);

	__fput_sync(good_file->file);
	__fput_sync(bad_file->file);
	dma_fence_put(good);
	dma_fence_put(bad);
}

/* Fails between the two times that a merge comes by. */
static bool late_signaled(struct dma_fence *f)
{
	if (!test_and_set_bit(DMA_FENCE_FLAG_USER_BITS, &f->flags))
		return false;

	dma_fence_set_error(f, -EIO);
	return true;
}

static const struct dma_fence_ops late_ops = {
	.get_driver_name = mock_driver_name,
	.get_timeline_name = mock_timeline_name,
	.signaled = late_signaled,
};

static void test_merge_fails_meanwhile(struct kunit *test)
{
	struct sync_file *sync_file, *other_file, *merged;
	struct dma_fence *fence, *other;
	struct sync_file_info info;
	struct user_mem user;
	struct mock_fence *f;

	user = user_alloc(test, 2);
	f = kzalloc_obj(*f);
	KUNIT_ASSERT_NOT_NULL(test, f);
	dma_fence_init(&f->base, &late_ops, dma_fence_context_alloc(1), 1);
	fence = &f->base;
	sync_file = mock_sync_file(test, fence);

	/* Once as a pending fence, and once as one that has failed. */
	merged = merge(test, &user, sync_file, sync_file);
	KUNIT_EXPECT_EQ(test, file_info(test, merged, &user, 0, &info), 0);
	KUNIT_EXPECT_EQ(test, info.num_fences, 1);
	KUNIT_EXPECT_EQ(test, info.status, -EIO);
	flush_delayed_fput();
	__fput_sync(merged->file);
	KUNIT_EXPECT_EQ(test, kref_read(&fence->refcount), 2);

	/* By now it has failed. Beside another one, which is pending, it is a second. */
	other = mock_fence(test);
	other_file = mock_sync_file(test, other);
	merged = merge(test, &user, sync_file, other_file);
	KUNIT_EXPECT_EQ(test, file_info(test, merged, &user, 0, &info), 0);
	KUNIT_EXPECT_EQ(test, info.num_fences, 2);
	flush_delayed_fput();
	__fput_sync(merged->file);
	KUNIT_EXPECT_EQ(test, kref_read(&fence->refcount), 2);
	dma_fence_signal(other);

	__fput_sync(other_file->file);
	__fput_sync(sync_file->file);
	dma_fence_put(other);
	dma_fence_put(fence);
}

static struct dma_buf *mock_dma_buf(struct kunit *test)
{
	DEFINE_DMA_BUF_EXPORT_INFO(exp_info);
	struct dma_buf *dmabuf;

	exp_info.ops = &mock_dma_buf_ops;
	exp_info.size = PAGE_SIZE;
	exp_info.priv = test;
	dmabuf = dma_buf_export(&exp_info);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, dmabuf);
	return dmabuf;
}

/* The ioctl itself, for what it returns. */
static long import(struct kunit *test, struct user_mem *user,
		   struct dma_buf *dmabuf, struct sync_file *sync_file)
{
	struct dma_buf_import_sync_file arg = { .flags = DMA_BUF_SYNC_RW };
	long ret;

	arg.fd = mock_fd(test, sync_file);
	KUNIT_ASSERT_EQ(test, 0, copy_to_user(user->info, &arg, sizeof(arg)));
	ret = dmabuf->file->f_op->unlocked_ioctl(dmabuf->file,
						 DMA_BUF_IOCTL_IMPORT_SYNC_FILE,
						 (unsigned long)user->info);
	close_fd(arg.fd);
	return ret;
}

/* How many fences have been imported. */
static unsigned int count_imported(struct dma_buf *dmabuf)
{
	struct dma_resv_iter cursor;
	struct dma_fence *fence;
	unsigned int n = 0;

	dma_resv_lock(dmabuf->resv, NULL);
	dma_resv_for_each_fence(&cursor, dmabuf->resv, DMA_RESV_USAGE_WRITE,
				fence)
		n++;
	dma_resv_unlock(dmabuf->resv);
	return n;
}

/* An importer needs room for the contexts of a sync_file, not for its members. */
static void test_import_shared(struct kunit *test)
{
	/* One more than half of what kmalloc() has room for, so twice that. */
	const size_t links = KMALLOC_MAX_SIZE / sizeof(void *) / 2 / SHARED_SZ + 1;
	struct dma_fence *fences[SHARED_SZ], *fence, *array, *chain = NULL;
	struct sync_file *sync_file;
	struct dma_resv_iter cursor;
	struct dma_buf *dmabuf;
	struct user_mem user;
	size_t i;

	if (KMALLOC_MAX_SIZE > SZ_16M)
		kunit_skip(test, "takes too much memory with pages of this size");

	dmabuf = mock_dma_buf(test);
	for (i = 0; i < SHARED_SZ; i++)
		fences[i] = mock_fence(test);
	array = mock_array(test, SHARED_SZ, fences);
	for (i = 0; i < links; i++)
		chain = mock_chain(test, chain, array);
	sync_file = mock_sync_file(test, chain);

	user = user_alloc(test, 1);
	kunit_warning_suppress(test) {
		KUNIT_EXPECT_EQ(test, import(test, &user, dmabuf, sync_file),
				0);
		KUNIT_EXPECT_SUPPRESSED_WARNING_COUNT(test, 0);
	}

	i = 0;
	dma_resv_lock(dmabuf->resv, NULL);
	dma_resv_for_each_fence(&cursor, dmabuf->resv, DMA_RESV_USAGE_WRITE,
				fence) {
		if (i < SHARED_SZ)
			KUNIT_EXPECT_PTR_EQ(test, fence, fences[i]);
		i++;
	}
	dma_resv_unlock(dmabuf->resv);
	KUNIT_EXPECT_EQ(test, i, SHARED_SZ);

	flush_delayed_fput();
	__fput_sync(dmabuf->file);
	__fput_sync(sync_file->file);
	dma_fence_put(chain);
	for (i = 0; i < SHARED_SZ; i++)
		dma_fence_signal(fences[i]);
	dma_fence_put(array);
}

#define IMPORT_SZ 1000

/* A second import does not ask each fence of the first for each that it adds. */
static void test_import_many(struct kunit *test)
{
	struct dma_fence **fences, *arrays[2];
	struct sync_file *sync_file[2];
	unsigned int i, asked = 0;
	struct dma_buf *dmabuf;
	struct user_mem user;

	fences = kunit_kmalloc_array(test, 2 * IMPORT_SZ, sizeof(*fences),
				     GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, fences);
	dmabuf = mock_dma_buf(test);
	user = user_alloc(test, 1);
	for (i = 0; i < 2 * IMPORT_SZ; i++)
		fences[i] = mock_fence(test);
	for (i = 0; i < 2; i++) {
		arrays[i] = mock_array(test, IMPORT_SZ, fences + i * IMPORT_SZ);
		sync_file[i] = mock_sync_file(test, arrays[i]);
		KUNIT_EXPECT_EQ(test, import(test, &user, dmabuf, sync_file[i]), 0);
	}
	for (i = 0; i < IMPORT_SZ; i++)
		asked = max(asked, container_of(fences[i], struct mock_fence,
						base)->asked);
	KUNIT_EXPECT_LE(test, asked, 10);
	KUNIT_EXPECT_EQ(test, count_imported(dmabuf), 2 * IMPORT_SZ);

	flush_delayed_fput();
	__fput_sync(dmabuf->file);
	for (i = 0; i < 2; i++) {
		__fput_sync(sync_file[i]->file);
		KUNIT_EXPECT_EQ(test, kref_read(&arrays[i]->refcount), 1);
	}
	for (i = 0; i < 2 * IMPORT_SZ; i++) {
		KUNIT_EXPECT_EQ(test, kref_read(&fences[i]->refcount), 1);
		dma_fence_signal(fences[i]);
	}
	for (i = 0; i < 2; i++)
		dma_fence_put(arrays[i]);
}

#define ADD_OLD 150
#define ADD_NEW 60
#define ADD_ALL (ADD_OLD + ADD_NEW)

/* Of the @n-th context, or in one of ten cases of none. */
static struct dma_fence *mock_fence_of(struct kunit *test, u64 context,
				       unsigned int n, u64 seqno)
{
	struct dma_fence *f = mock_fence(test);

	f->context = n % 10 ? context + n : 0;
	f->seqno = seqno;
	return f;
}

/* Has room for all, so that nobody looks through the slots for more. */
static void add_old(struct kunit *test, struct dma_resv *resv, struct dma_fence **f)
{
	unsigned int i;

	dma_resv_assert_held(resv);
	KUNIT_ASSERT_EQ(test, 0, dma_resv_reserve_fences(resv, ADD_ALL));
	for (i = 0; i < ADD_OLD; i++)
		dma_resv_add_fence(resv, f[i], i % 3);
}

static void import_new(struct kunit *test, struct dma_buf *dmabuf,
		       struct dma_fence **f)
{
	struct sync_file *sync_file;
	struct dma_fence *array;
	struct user_mem user;
	unsigned int i;

	for (i = ADD_OLD; i < ADD_ALL; i++)
		dma_fence_get(f[i]);
	array = mock_array(test, ADD_NEW, f + ADD_OLD);
	sync_file = mock_sync_file(test, array);
	user = user_alloc(test, 1);
	KUNIT_EXPECT_EQ(test, import(test, &user, dmabuf, sync_file), 0);
	flush_delayed_fput();
	__fput_sync(sync_file->file);
	dma_fence_put(array);
}

/* Leaves the same as dma_resv_add_fence() for each. */
static void test_import_replaces(struct kunit *test)
{
	u64 context = dma_fence_context_alloc(ADD_OLD);
	struct dma_fence **f, *fence;
	struct dma_resv_iter cursor;
	unsigned int i, r, *seen[2];
	struct dma_resv one_by_one;
	struct dma_buf *dmabuf;

	f = kunit_kcalloc(test, ADD_ALL, sizeof(*f), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, f);
	/* Three of each context, which are of different usage, in no order. */
	for (i = 0; i < ADD_OLD; i++)
		f[i] = mock_fence_of(test, context, i / 3 * 7 % (ADD_OLD / 3),
				     i % 4 + 1);
	for (; i < ADD_ALL; i++)
		f[i] = mock_fence_of(test, context, (i - ADD_OLD) * 11 % ADD_NEW,
				     i % 2 ? 2 : 5);
	/* Two are there already, one of them without a context. */
	for (i = 0; i < 2; i++) {
		dma_fence_put(f[ADD_OLD + i]);
		f[ADD_OLD + i] = dma_fence_get(f[i ? 70 : 1]);
		KUNIT_ASSERT_EQ(test, !f[ADD_OLD + i]->context, !i);
	}

	dmabuf = mock_dma_buf(test);
	dma_resv_init(&one_by_one);
	for (r = 0; r < 2; r++) {
		struct dma_resv *resv = r ? dmabuf->resv : &one_by_one;

		seen[r] = kunit_kcalloc(test, ADD_ALL, sizeof(*seen[r]),
					GFP_KERNEL);
		KUNIT_ASSERT_NOT_NULL(test, seen[r]);
		dma_resv_lock(resv, NULL);
		add_old(test, resv, f);
		for (i = ADD_OLD; !r && i < ADD_ALL; i++)
			dma_resv_add_fence(resv, f[i], DMA_RESV_USAGE_WRITE);
		dma_resv_unlock(resv);
		if (r)
			import_new(test, dmabuf, f);

		dma_resv_lock(resv, NULL);
		dma_resv_for_each_fence(&cursor, resv, DMA_RESV_USAGE_BOOKKEEP,
					fence) {
			for (i = 0; i < ADD_ALL; i++) {
				/* How often, for each usage. */
				if (fence == f[i])
					seen[r][i] += BIT(4 * dma_resv_iter_usage(&cursor));
			}
		}
		dma_resv_unlock(resv);
	}

	for (i = 0; i < ADD_ALL; i++)
		KUNIT_EXPECT_EQ_MSG(test, seen[0][i], seen[1][i], "fence %u", i);

	dma_resv_fini(&one_by_one);
	__fput_sync(dmabuf->file);
	for (i = 0; i < ADD_ALL; i++) {
		dma_fence_signal(f[i]);
		dma_fence_put(f[i]);
	}
}

/*
 * What has signaled gives its slot to one of them, and no other one does. With
 * CONFIG_DEBUG_MUTEXES there is never room before, so all are asked for that.
 */
static void test_import_signaled(struct kunit *test)
{
	unsigned int i, replaced = 0;
	struct dma_buf *dmabuf;
	struct dma_fence **f;

	f = kunit_kcalloc(test, ADD_ALL, sizeof(*f), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, f);
	for (i = 0; i < ADD_ALL; i++)
		f[i] = mock_fence(test);

	dmabuf = mock_dma_buf(test);
	dma_resv_lock(dmabuf->resv, NULL);
	add_old(test, dmabuf->resv, f);
	dma_resv_unlock(dmabuf->resv);
	for (i = 0; i < ADD_OLD; i += 3) {
		struct mock_fence *mock = container_of(f[i], typeof(*mock), base);

		mock->signals_when_asked = mock->asked + 1 +
					   IS_ENABLED(CONFIG_DEBUG_MUTEXES);
	}
	import_new(test, dmabuf, f);

	for (i = 0; i < ADD_OLD; i++) {
		bool there = kref_read(&f[i]->refcount) == 2;

		KUNIT_EXPECT_EQ_MSG(test, there, i % 3 != 0, "fence %u", i);
		replaced += !there;
	}
	KUNIT_EXPECT_EQ(test, replaced, ADD_OLD / 3);
	for (; i < ADD_ALL; i++)
		KUNIT_EXPECT_EQ_MSG(test, kref_read(&f[i]->refcount), 2,
				    "fence %u", i);

	__fput_sync(dmabuf->file);
	for (i = 0; i < ADD_ALL; i++) {
		dma_fence_signal(f[i]);
		dma_fence_put(f[i]);
	}
}

/* What a merge makes of @links times the same members if its caller is killed. */
static void merge_killed(struct kunit *test, unsigned int links,
			 unsigned int signaled, bool merges)
{
	struct dma_fence *fences[SHARED_SZ], *array, *chain = NULL, *merged;
	unsigned int i;

	for (i = 0; i < SHARED_SZ; i++)
		fences[i] = mock_fence(test);
	array = mock_array(test, SHARED_SZ, fences);
	for (i = 0; i < links; i++)
		chain = mock_chain(test, chain, array);
	for (i = 0; i < signaled; i++)
		dma_fence_signal(fences[i]);

	allow_signal(SIGKILL);
	send_sig(SIGKILL, current, 1);
	merged = dma_fence_unwrap_merge(chain);
	flush_signals(current);
	disallow_signal(SIGKILL);
	KUNIT_EXPECT_EQ(test, !!merged, merges);
	dma_fence_put(merged);

	merged = dma_fence_unwrap_merge(chain);
	KUNIT_EXPECT_NOT_NULL(test, merged);
	dma_fence_put(merged);

	dma_fence_put(chain);
	KUNIT_EXPECT_EQ(test, kref_read(&array->refcount), 1);
	for (i = signaled; i < SHARED_SZ; i++)
		dma_fence_signal(fences[i]);
	dma_fence_put(array);
}

/* What is asked about @links times the same members if the caller is killed. */
static void info_killed(struct kunit *test, unsigned int links, bool fill, long ret)
{
	struct dma_fence *fence, *array, *chain = NULL;
	const u32 count = links * SHARED_SZ;
	struct sync_file *sync_file;
	struct sync_file_info info;
	struct user_mem user;
	unsigned int i;

	fence = mock_fence(test);
	array = mock_repeated(test, SHARED_SZ, fence);
	for (i = 0; i < links; i++)
		chain = mock_chain(test, chain, array);
	sync_file = mock_sync_file(test, chain);
	user = user_alloc(test, count);

	allow_signal(SIGKILL);
	send_sig(SIGKILL, current, 1);
	KUNIT_EXPECT_EQ(test,
			file_info(test, sync_file, &user, fill ? count : 0, &info),
			ret);
	flush_signals(current);
	disallow_signal(SIGKILL);
	KUNIT_EXPECT_EQ(test,
			file_info(test, sync_file, &user, fill ? count : 0, &info),
			0);
	KUNIT_EXPECT_EQ(test, info.num_fences, count);

	__fput_sync(sync_file->file);
	dma_fence_signal(fence);
	irq_work_sync(&to_dma_fence_array(array)->work);
	dma_fence_put(chain);
	KUNIT_EXPECT_EQ(test, kref_read(&array->refcount), 1);
	dma_fence_put(array);
	dma_fence_put(fence);
}

static void test_info_killed(struct kunit *test)
{
	info_killed(test, SZ_16K / SHARED_SZ, false, -EINTR);
}

static void test_info_killed_fill(struct kunit *test)
{
	info_killed(test, SZ_16K / SHARED_SZ, true, -EINTR);
}

static void test_info_killed_few(struct kunit *test)
{
	info_killed(test, 4, false, 0);
	info_killed(test, 4, true, 0);
}

/* How many of @links times the same members get a deadline from who is killed. */
static unsigned int deadline_killed(struct kunit *test, unsigned int links, long ret)
{
	struct sync_set_deadline deadline = { .deadline_ns = 1 };
	struct dma_fence *fence, *array, *chain = NULL;
	struct sync_file *sync_file;
	unsigned int i, deadlines;
	struct user_mem user;
	struct file *file;

	fence = mock_fence(test);
	array = mock_repeated(test, SHARED_SZ, fence);
	for (i = 0; i < links; i++)
		chain = mock_chain(test, chain, array);
	sync_file = mock_sync_file(test, chain);
	file = sync_file->file;
	user = user_alloc(test, 1);
	KUNIT_ASSERT_EQ(test, 0, copy_to_user(user.info, &deadline, sizeof(deadline)));

	allow_signal(SIGKILL);
	send_sig(SIGKILL, current, 1);
	KUNIT_EXPECT_EQ(test,
			file->f_op->unlocked_ioctl(file, SYNC_IOC_SET_DEADLINE,
						   (unsigned long)user.info),
			ret);
	flush_signals(current);
	disallow_signal(SIGKILL);
	deadlines = container_of(fence, struct mock_fence, base)->deadlines;

	__fput_sync(file);
	dma_fence_signal(fence);
	irq_work_sync(&to_dma_fence_array(array)->work);
	dma_fence_put(chain);
	KUNIT_EXPECT_EQ(test, kref_read(&array->refcount), 1);
	dma_fence_put(array);
	dma_fence_put(fence);
	return deadlines;
}

static void test_deadline_killed(struct kunit *test)
{
	KUNIT_EXPECT_LT(test, deadline_killed(test, SZ_16K / SHARED_SZ, -EINTR), SZ_16K);
}

static void test_deadline_killed_few(struct kunit *test)
{
	KUNIT_EXPECT_EQ(test, deadline_killed(test, 4, 0), 4 * SHARED_SZ);
}

static void test_merge_killed(struct kunit *test)
{
	merge_killed(test, SZ_16K / SHARED_SZ, 0, false);
}

static void test_merge_killed_signaled(struct kunit *test)
{
	merge_killed(test, SZ_16K / SHARED_SZ, SHARED_SZ - 1, false);
}

static void test_merge_killed_few(struct kunit *test)
{
	merge_killed(test, 4, 0, true);
}

static struct kunit_case sync_file_cases[] = {
	KUNIT_CASE(test_file_info_count),
	KUNIT_CASE(test_file_info_fill),
	KUNIT_CASE(test_file_info_short),
	KUNIT_CASE(test_file_info_fault),
	KUNIT_CASE(test_file_info_many),
	KUNIT_CASE(test_file_info_shrinks),
	KUNIT_CASE(test_merge_error),
	KUNIT_CASE(test_merge_fails_meanwhile),
	KUNIT_CASE(test_import_shared),
	KUNIT_CASE(test_import_many),
	KUNIT_CASE(test_import_replaces),
	KUNIT_CASE(test_import_signaled),
	KUNIT_CASE(test_info_killed),
	KUNIT_CASE(test_info_killed_fill),
	KUNIT_CASE(test_info_killed_few),
	KUNIT_CASE(test_deadline_killed),
	KUNIT_CASE(test_deadline_killed_few),
	KUNIT_CASE(test_merge_killed),
	KUNIT_CASE(test_merge_killed_signaled),
	KUNIT_CASE(test_merge_killed_few),
	{}
};

static struct kunit_suite sync_file_test_suite = {
	.name = "dma-buf-sync-file",
	.test_cases = sync_file_cases,
};

kunit_test_suite(sync_file_test_suite);

MODULE_IMPORT_NS("DMA_BUF");
