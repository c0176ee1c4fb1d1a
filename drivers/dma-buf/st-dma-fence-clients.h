/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _ST_DMA_FENCE_CLIENTS_H
#define _ST_DMA_FENCE_CLIENTS_H

#include <linux/types.h>

struct dma_fence;
struct kunit;

/* The most jobs that one of two clients submits. */
#define ST_CLIENT_MAX_JOBS	2000

/**
 * struct st_issuer - an issuer of fences, for clients to use
 * @timeline_name: what its fences say until they signal
 * @probe: makes an issuer, or fails the test
 * @submit: submits a job. Returns a reference to its fence, which signals within 10
 *	seconds, or NULL if there is no memory. Called by two threads at a time, at
 *	most 2 * ST_CLIENT_MAX_JOBS times, and also after @stall.
 * @stall: optional. No job is done any more, and none is given up, until @remove.
 * @check: optional. Expects what a job has written whose fence has signaled without
 *	an error. Called by two threads at a time.
 * @remove: takes the issuer away as if it were unplugged, and frees it. Nobody
 *	submits any more. Fences and their names are used meanwhile, and fences
 *	later as well. Those that are pending signal with -ENODEV.
 */
struct st_issuer {
	const char *timeline_name;
	void *(*probe)(struct kunit *test);
	struct dma_fence *(*submit)(void *issuer);
	void (*stall)(void *issuer);
	void (*check)(struct kunit *test, void *issuer, struct dma_fence *fence);
	void (*remove)(void *issuer);
};

unsigned int st_clients_run(struct kunit *test, const struct st_issuer *ops,
			    void *issuer, int error,
			    void (*meanwhile)(void *issuer));
void st_clients_of_unplugged(struct kunit *test, const struct st_issuer *ops);

#endif
