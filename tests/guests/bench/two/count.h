#include <stdint.h>

/* How many primes there are below n. */
unsigned primes(unsigned n);

/* In how many ways n pairs of parentheses can be written: the Catalan numbers. */
uint64_t ways(unsigned n);
