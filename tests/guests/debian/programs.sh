#!/bin/sh
# What the stock guest's user programs print: the same on the bare machine and in a VM, and on any day
# (programs.txt). Nothing here depends on time, process numbers, memory sizes or the CPU's name.
# busybox' applets are in /bin, Debian's own programs in /usr/bin.

python="/usr/bin/python3 -I -S -B"
work=/tmp/programs
rm -rf $work
mkdir $work
cd $work || exit 1
echo "programs: begin"

echo "- busybox: data"
seq 1 5000 > numbers
awk 'BEGIN { x = 12345; for (i = 0; i < 5000; i++) { x = (x * 1103515245 + 12345) % 2147483648;
    printf "%d %s\n", x, (x % 7) ? "word" x % 1000 : "Wort" } }' > words
wc numbers words
for sum in md5sum sha1sum sha256sum sha512sum sha3sum; do $sum numbers words; done
sort -n words | md5sum
sort -k2,2 -k1,1nr words | md5sum
cut -d' ' -f2 words | sort | uniq -c | sort -rn | head -n 5
sed -n -e 's/^\([0-9]*\)5 word\([0-9]\)/<\2:\1>/p' words | tail -n 3
grep -c 'word[0-9]*7$' words
tr 'a-z' 'A-Z' < words | head -n 2
od -A d -t x4 words | tail -n 2
hexdump -C words | head -n 2

echo "- busybox: packing"
gzip -9 < words | gunzip | cmp - words && echo "gzip: the same"
gzip -1 < words | wc -c
bzip2 < words | bunzip2 | cmp - words && echo "bzip2: the same"
mkdir -p tree/a/b tree/c
cp numbers tree/a/b/n
cp words tree/c/w
ln -s a/b/n tree/link
tar -cf tree.tar tree
mkdir other
tar -xf tree.tar -C other
(cd other && find tree | sort)
diff -r tree other/tree && echo "tar: the same"
uuencode -m text < tree/link | tail -n 2

echo "- busybox: arithmetic"
expr 123456789 '*' 987654321 % 1000007
echo $((0x7fffffffffffffff / 3)) $((-7 % 3)) $((1 << 40))
# Its awk has no sine or logarithm.
awk 'BEGIN { for (i = 1; i <= 4000; i++) { s += 1 / (i * i); p = p * 0.999 + i / 7 }
    printf "%.15g %.9f %e %g\n", s, p, 1 / 3, 1e21 * 3; print -1 / 3, 1e300 * 1e300, int(-3.7), 1e-320 }'
echo '2 70 ^ p 1000 3 / p 2 v p' | dc
echo 'scale=40; 4*a(1); e(1); l(2); 2^200; s(1)/c(1)' | bc -l
factor 1234567890 600851475143
printf '%05d|%x|%10.4f|%e|%s\n' 42 255 3.14159265 12345.678 text

echo "- Debian's coreutils"
/usr/bin/sha256sum numbers words
/usr/bin/sha512sum words
/usr/bin/b2sum words
/usr/bin/md5sum words
/usr/bin/sort -g -r words | /usr/bin/md5sum
/usr/bin/seq 0 0.1 1 | /usr/bin/sha256sum
/usr/bin/seq -f %.20g 1 0.3 2.2
/usr/bin/printf '%.30Lg|%La|%.10f\n' 0.1 0.3 2.5e-5
/usr/bin/factor 18446744073709551557 36893488147419103231
/usr/bin/numfmt --to=iec 1234567890123 1023 999999
/usr/bin/od -A d -t fD -N 32 words

echo "- python3 -c"
$python -c 'print(2**521 - 1, 7**300 % 10**20, -7 // 2, 3**200 // 7**50)'
$python -c 'print(0.1 + 0.2, 1/3, 1e16 + 1, 2**0.5, -0.0, 5e-324, 1.7976931348623157e308)'
$python -c 'import math; print(math.pi, math.sin(1), math.exp(1), math.sqrt(2), math.fsum([.1] * 10), math.gamma(5.5))'
$python -c 'print(1e308 * 10, -1e308 * 10, float("inf") - float("inf"), (1+2j) ** 0.5, abs(3-4j))'
$python -c 'print(f"{1/7:.30f} {1e100:.3e} {255:#x} {1234567.891:,.2f}")'
$python -c 'print(1 / 0)' 2>&1
$python -c 'print(1.0 / 0.0)' 2>&1
$python -c 'print(10.0 ** 400)' 2>&1
$python -c 'import math; print(math.exp(1000))' 2>&1
$python -c 'import math; print(math.sqrt(-1))' 2>&1

echo "- python3 arithmetic.py"
$python /root/arithmetic.py all

echo "- several at once"
# They compute with floating point on one CPU, each interrupted by the others at any instruction.
for part in roots series matrix roots; do
    n=$((n + 1))
    $python /root/arithmetic.py $part > part$n &
done
awk 'BEGIN { for (i = 1; i <= 20000; i++) s += (i % 7 - 3) / i; printf "awk %.15g\n", s }' > part5 &
wait
cat part1 part2 part3 part4 part5
$python /root/arithmetic.py roots series matrix

cd /
rm -rf $work
echo "programs: end"
