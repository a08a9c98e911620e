#include "count.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(void)
{
	printf("two: %u primes, %" PRIu64 " ways\n", primes(26411), ways(24));
	return 0;
}
