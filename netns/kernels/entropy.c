/*
 * Pins the random numbers of a User-Mode Linux kernel: preloaded (LD_PRELOAD) into the kernel's
 * process, it answers getrandom(), whence the kernel takes its entropy, from a seed.
 *
 * KPROXY_ENTROPY_SEED is any text; the same text gives the same bytes, in the order in which they
 * are asked for, whatever the sizes of the questions. Without the variable the host answers.
 * Reproducible, not secret: good for experiments only.
 */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

static uint64_t given; /* bytes given out so far */

/* FNV-1a: seeds that differ in one letter differ everywhere. */
static uint64_t hash(const char *text)
{
	uint64_t value = 0xcbf29ce484222325u;

	for (; *text; text++)
		value = (value ^ (unsigned char)*text) * 0x100000001b3u;
	return value;
}

/* The n-th word of the stream (splitmix64). */
static uint64_t word(uint64_t seed, uint64_t n)
{
	uint64_t value = seed + (n + 1) * 0x9e3779b97f4a7c15u;

	value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9u;
	value = (value ^ (value >> 27)) * 0x94d049bb133111ebu;
	return value ^ (value >> 31);
}

ssize_t getrandom(void *buffer, size_t length, unsigned int flags)
{
	const char *text = getenv("KPROXY_ENTROPY_SEED");
	unsigned char *out = buffer;
	uint64_t seed, first;

	if (!text)
		return syscall(SYS_getrandom, buffer, length, flags);
	seed = hash(text);
	first = __atomic_fetch_add(&given, length, __ATOMIC_RELAXED);
	for (size_t i = 0; i < length; i++)
		out[i] = word(seed, (first + i) / 8) >> (first + i) % 8 * 8;
	return length;
}
