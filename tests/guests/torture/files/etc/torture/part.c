#include "all.h"
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* File @ of twenty: a table, a sort, a hash and a recursion, for a compiler to chew on. */
struct entry@ {
	uint32_t key;
	uint64_t value;
	char name[16];
};

static int compare(const void *a, const void *b)
{
	const struct entry@ *x = a, *y = b;
	return x->key < y->key ? -1 : x->key > y->key;
}

static uint64_t hash(const char *text, size_t length)
{
	uint64_t h = 14695981039346656037u + @;
	for (size_t i = 0; i < length; i++)
		h = (h ^ (unsigned char)text[i]) * 1099511628211u;
	return h;
}

static unsigned long depth(unsigned long n, unsigned long x)
{
	return n < 2 ? x : depth(n - 1, x ^ (n * @)) + depth(n - 2, x + n);
}

unsigned long part@(unsigned long x)
{
	struct entry@ table[64];
	memset(table, 0, sizeof table);
	for (unsigned i = 0; i < 64; i++) {
		table[i].key = (uint32_t)((x * 2654435761u) >> 7) ^ (i * @);
		for (unsigned j = 0; j + 1 < sizeof table[i].name; j++)
			table[i].name[j] = (char)('a' + (table[i].key >> j) % 26);
		table[i].value = hash(table[i].name, sizeof table[i].name);
	}
	qsort(table, 64, sizeof table[0], compare);
	for (unsigned i = 0; i < 64; i++)
		switch (table[i].key % 5) {
		case 0: x += table[i].value; break;
		case 1: x ^= table[i].value >> 3; break;
		case 2: x *= table[i].value | 1; break;
		case 3: x -= table[i].key; break;
		default: x = x << 5 | x >> 59; break;
		}
	return x + depth(9, @);
}
