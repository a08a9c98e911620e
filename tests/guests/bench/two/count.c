#include "count.h"
#include <stdlib.h>
#include <string.h>

unsigned primes(unsigned n)
{
	char *composite = calloc(n, 1);
	unsigned found = 0;
	if (!composite)
		return 0;
	for (unsigned i = 2; i < n; i++) {
		if (composite[i])
			continue;
		found++;
		for (unsigned long long j = (unsigned long long)i * i; j < n; j += i)
			composite[j] = 1;
	}
	free(composite);
	return found;
}

uint64_t ways(unsigned n)
{
	uint64_t c[64];
	memset(c, 0, sizeof c);
	c[0] = 1;
	for (unsigned i = 1; i <= n && i < 64; i++)
		for (unsigned j = 0; j < i; j++)
			c[i] += c[j] * c[i - 1 - j];
	return n < 64 ? c[n] : 0;
}
