// SPDX-License-Identifier: MIT

/*
 * KUnit tests for what a client of a render node can do with syncobjs.
 */

#include <kunit/test.h>

#include <linux/dma-fence.h>
#include <linux/dma-fence-chain.h>
#include <linux/dma-fence-unwrap.h>
#include <linux/fcntl.h>
#include <linux/fdtable.h>
#include <linux/file.h>
#include <linux/mman.h>
#include <linux/module.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/sync_file.h>
#include <linux/uaccess.h>

#include <drm/drm_device.h>
#include <drm/drm_drv.h>
#include <drm/drm_file.h>
#include <drm/drm_ioctl.h>
#include <drm/drm_kunit_helpers.h>
#include <drm/drm_syncobj.h>

/* As many handles as the array of syncobjs can be large. */
#define MOST_HANDLES (KMALLOC_MAX_SIZE / sizeof(void *))

struct drm_syncobj_priv {
	struct drm_device *drm;
	struct file *file;
	void __user *arg;
	u32 __user *handles;
};

static const struct file_operations drm_syncobj_fops = {
	.owner = THIS_MODULE,
	.open = drm_open,
	.release = drm_release,
	.unlocked_ioctl = drm_ioctl,
	.fop_flags = FOP_UNSIGNED_OFFSET,
};

static const struct drm_driver drm_syncobj_driver = {
	.driver_features = DRIVER_SYNCOBJ | DRIVER_SYNCOBJ_TIMELINE,
	.fops = &drm_syncobj_fops,
};

static void drm_syncobj_test_fput(void *file)
{
	__fput_sync(file);
}

static int drm_syncobj_test_init(struct kunit *test)
{
	const size_t size = PAGE_ALIGN((MOST_HANDLES + 1) * sizeof(u32));
	struct drm_syncobj_priv *priv;
	unsigned long addr;
	struct device *dev;

	priv = kunit_kzalloc(test, sizeof(*priv), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, priv);
	test->priv = priv;

	dev = drm_kunit_helper_alloc_device(test);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, dev);
	priv->drm = __drm_kunit_helper_alloc_drm_device_with_driver(test, dev,
								    sizeof(*priv->drm),
								    0,
								    &drm_syncobj_driver);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, priv->drm);

	priv->file = mock_drm_getfile(priv->drm->primary, O_RDWR);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, priv->file);
	KUNIT_ASSERT_EQ(test, 0,
			kunit_add_action_or_reset(test, drm_syncobj_test_fput,
						  priv->file));

	addr = kunit_vm_mmap(test, NULL, 0, PAGE_SIZE + size,
			     PROT_READ | PROT_WRITE,
			     MAP_ANONYMOUS | MAP_PRIVATE, 0);
	KUNIT_ASSERT_NE(test, addr, 0);
	KUNIT_ASSERT_LT(test, addr, (unsigned long)TASK_SIZE);
	priv->arg = (void __user *)addr;
	priv->handles = (u32 __user *)(addr + PAGE_SIZE);

	return 0;
}

static long drm_syncobj_test_ioctl(struct kunit *test, unsigned int cmd,
				   void *data)
{
	struct drm_syncobj_priv *priv = test->priv;
	long ret;

	KUNIT_ASSERT_EQ(test, 0,
			copy_to_user(priv->arg, data, _IOC_SIZE(cmd)));
	ret = drm_ioctl(priv->file, cmd, (unsigned long)priv->arg);
	KUNIT_ASSERT_EQ(test, 0,
			copy_from_user(data, priv->arg, _IOC_SIZE(cmd)));
	return ret;
}

static u32 drm_syncobj_test_create(struct kunit *test, u32 flags)
{
	struct drm_syncobj_create create = { .flags = flags };

	KUNIT_ASSERT_EQ(test, 0,
			drm_syncobj_test_ioctl(test, DRM_IOCTL_SYNCOBJ_CREATE,
					       &create));
	return create.handle;
}

static const char *drm_syncobj_test_name(struct dma_fence *fence)
{
	return "test";
}

static const struct dma_fence_ops drm_syncobj_test_ops = {
	.get_driver_name = drm_syncobj_test_name,
	.get_timeline_name = drm_syncobj_test_name,
};

static struct dma_fence *drm_syncobj_test_fence(struct kunit *test)
{
	struct dma_fence *fence = kzalloc_obj(*fence);

	KUNIT_ASSERT_NOT_NULL(test, fence);
	dma_fence_init(fence, &drm_syncobj_test_ops,
		       dma_fence_context_alloc(1), 1);
	return fence;
}

static long drm_syncobj_test_import(struct kunit *test, u32 handle, u64 point,
				    struct dma_fence *fence)
{
	struct drm_syncobj_handle args = {
		.handle = handle,
		.flags = DRM_SYNCOBJ_FD_TO_HANDLE_FLAGS_IMPORT_SYNC_FILE |
			 DRM_SYNCOBJ_FD_TO_HANDLE_FLAGS_TIMELINE,
		.point = point,
	};
	struct sync_file *sync_file;
	long ret;

	sync_file = sync_file_create(fence);
	KUNIT_ASSERT_NOT_NULL(test, sync_file);
	args.fd = get_unused_fd_flags(O_CLOEXEC);
	KUNIT_ASSERT_GE(test, args.fd, 0);
	fd_install(args.fd, sync_file->file);

	ret = drm_syncobj_test_ioctl(test, DRM_IOCTL_SYNCOBJ_FD_TO_HANDLE,
				     &args);
	close_fd(args.fd);
	flush_delayed_fput();
	return ret;
}

/* What is in a node of a timeline is not a timeline itself. */
static void drm_syncobj_test_import_chain(struct kunit *test)
{
	struct drm_syncobj_priv *priv = test->priv;
	struct drm_file *file = priv->file->private_data;
	struct dma_fence *f[2], *fence, *point;
	struct dma_fence_unwrap iter;
	u32 handle[2];
	int i, n = 0;

	handle[0] = drm_syncobj_test_create(test, 0);
	handle[1] = drm_syncobj_test_create(test, 0);
	for (i = 0; i < ARRAY_SIZE(f); i++) {
		f[i] = drm_syncobj_test_fence(test);
		KUNIT_ASSERT_EQ(test, 0,
				drm_syncobj_test_import(test, handle[0], i + 1,
							f[i]));
	}
	KUNIT_ASSERT_EQ(test, 0, drm_syncobj_find_fence(file, handle[0], 2, 0,
							&fence));
	KUNIT_ASSERT_TRUE(test, dma_fence_is_chain(fence));

	kunit_warning_suppress(test) {
		KUNIT_EXPECT_EQ(test, 0,
				drm_syncobj_test_import(test, handle[1], 1,
							fence));
		KUNIT_EXPECT_SUPPRESSED_WARNING_COUNT(test, 0);
	}
	dma_fence_put(fence);

	KUNIT_ASSERT_EQ(test, 0, drm_syncobj_find_fence(file, handle[1], 1, 0,
							&point));
	KUNIT_ASSERT_TRUE(test, dma_fence_is_chain(point));
	KUNIT_EXPECT_FALSE(test,
			   dma_fence_is_chain(dma_fence_chain_contained(point)));

	/* Nothing is missing, and it signals when both have. */
	dma_fence_unwrap_for_each(fence, &iter, point) {
		KUNIT_EXPECT_TRUE(test, fence == f[0] || fence == f[1]);
		n++;
	}
	KUNIT_EXPECT_EQ(test, n, 2);
	for (i = 0; i < ARRAY_SIZE(f); i++) {
		KUNIT_EXPECT_FALSE(test, dma_fence_is_signaled(point));
		dma_fence_signal(f[i]);
	}
	KUNIT_EXPECT_TRUE(test, dma_fence_is_signaled(point));

	dma_fence_put(point);
	for (i = 0; i < ARRAY_SIZE(f); i++)
		dma_fence_put(f[i]);
}

/* A point that has failed does not become a success where it is imported. */
static void drm_syncobj_test_import_error(struct kunit *test)
{
	struct drm_syncobj_priv *priv = test->priv;
	struct drm_file *file = priv->file->private_data;
	struct dma_fence *f[2], *fence, *point;
	u32 handle[2];
	int i;

	handle[0] = drm_syncobj_test_create(test, 0);
	handle[1] = drm_syncobj_test_create(test, 0);
	for (i = 0; i < ARRAY_SIZE(f); i++) {
		f[i] = drm_syncobj_test_fence(test);
		KUNIT_ASSERT_EQ(test, 0,
				drm_syncobj_test_import(test, handle[0], i + 1,
							f[i]));
	}
	dma_fence_set_error(f[1], -EIO);
	dma_fence_signal(f[1]);

	KUNIT_ASSERT_EQ(test, 0, drm_syncobj_find_fence(file, handle[0], 2, 0,
							&fence));
	KUNIT_ASSERT_TRUE(test, dma_fence_is_chain(fence));
	KUNIT_EXPECT_EQ(test, 0,
			drm_syncobj_test_import(test, handle[1], 1, fence));
	dma_fence_put(fence);

	KUNIT_ASSERT_EQ(test, 0, drm_syncobj_find_fence(file, handle[1], 1, 0,
							&point));
	fence = dma_fence_chain_contained(point);
	KUNIT_EXPECT_EQ(test, dma_fence_get_status(fence), 0);
	dma_fence_signal(f[0]);
	KUNIT_EXPECT_EQ(test, dma_fence_get_status(fence), -EIO);

	dma_fence_put(point);
	for (i = 0; i < ARRAY_SIZE(f); i++)
		dma_fence_put(f[i]);
}

/* A count that is too large is an error of the caller, not of the kernel. */
static void drm_syncobj_test_too_many(struct kunit *test)
{
	struct drm_syncobj_priv *priv = test->priv;
	struct drm_syncobj_wait wait = {
		.handles = (uintptr_t)priv->handles,
		.flags = DRM_SYNCOBJ_WAIT_FLAGS_WAIT_ALL,
	};
	u32 handle, i, *page;

	if (KMALLOC_MAX_SIZE > SZ_16M)
		kunit_skip(test, "takes too much memory with pages of this size");

	handle = drm_syncobj_test_create(test, DRM_SYNCOBJ_CREATE_SIGNALED);
	page = kunit_kmalloc(test, PAGE_SIZE, GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, page);
	for (i = 0; i < PAGE_SIZE / sizeof(*page); i++)
		page[i] = handle;
	for (i = 0; i < MOST_HANDLES; i += PAGE_SIZE / sizeof(*page))
		KUNIT_ASSERT_EQ(test, 0, copy_to_user(priv->handles + i, page,
						      PAGE_SIZE));
	KUNIT_ASSERT_EQ(test, 0, copy_to_user(priv->handles + MOST_HANDLES,
					      page, sizeof(*page)));

	/* That many are possible. */
	wait.count_handles = 1000;
	KUNIT_EXPECT_EQ(test, 0,
			drm_syncobj_test_ioctl(test, DRM_IOCTL_SYNCOBJ_WAIT,
					       &wait));

	kunit_warning_suppress(test) {
		/* The handles are too many. */
		wait.count_handles = KMALLOC_MAX_SIZE / sizeof(handle) + 1;
		KUNIT_EXPECT_EQ(test, -ENOMEM,
				drm_syncobj_test_ioctl(test,
						       DRM_IOCTL_SYNCOBJ_WAIT,
						       &wait));
		KUNIT_EXPECT_SUPPRESSED_WARNING_COUNT(test, 0);
	}

	kunit_warning_suppress(test) {
		/* The syncobjs are, where pointers are larger than handles. */
		wait.count_handles = MOST_HANDLES + 1;
		KUNIT_EXPECT_EQ(test, -ENOMEM,
				drm_syncobj_test_ioctl(test,
						       DRM_IOCTL_SYNCOBJ_WAIT,
						       &wait));
		KUNIT_EXPECT_SUPPRESSED_WARNING_COUNT(test, 0);
	}

	kunit_warning_suppress(test) {
		/* What has to be known for each of them is, only that. */
		wait.count_handles = MOST_HANDLES / 4;
		KUNIT_EXPECT_EQ(test, -ENOMEM,
				drm_syncobj_test_ioctl(test,
						       DRM_IOCTL_SYNCOBJ_WAIT,
						       &wait));
		KUNIT_EXPECT_SUPPRESSED_WARNING_COUNT(test, 0);
	}
}

static struct kunit_case drm_syncobj_tests[] = {
	KUNIT_CASE(drm_syncobj_test_import_chain),
	KUNIT_CASE(drm_syncobj_test_import_error),
	KUNIT_CASE(drm_syncobj_test_too_many),
	{}
};

static struct kunit_suite drm_syncobj_test_suite = {
	.name = "drm_syncobj",
	.init = drm_syncobj_test_init,
	.test_cases = drm_syncobj_tests,
};

kunit_test_suite(drm_syncobj_test_suite);

MODULE_DESCRIPTION("KUnit tests for syncobjs");
MODULE_LICENSE("GPL and additional rights");
