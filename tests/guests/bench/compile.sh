#!/bin/sh
# A program of two files, from nothing to its output.
cp -r /etc/bench/two /tmp/two && cd /tmp/two && make && [ "$(./two)" = "two: 2901 primes, 1289904147324 ways" ]
