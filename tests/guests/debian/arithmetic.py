"""Arithmetic whose results are known in advance: prints values, and SHA-256 of many."""

import cmath
import hashlib
import math
import random
import struct
import sys
import zlib


def digest(values):
    """The SHA-256 of floats as their bits."""
    return hashlib.sha256(b"".join(struct.pack("<d", value) for value in values)).hexdigest()


def values(count, seed):
    """Floats of all magnitudes, from a seeded generator: denormals, both signs, no NaN."""
    source = random.Random(seed)
    found = []
    while len(found) < count:
        value = struct.unpack("<d", source.getrandbits(64).to_bytes(8, "little"))[0]
        if not math.isnan(value):
            found.append(value)
    return found


def attempt(function, *arguments):
    """What a function returns, or the exception it raises."""
    try:
        return function(*arguments)
    except (ArithmeticError, ValueError) as error:
        return f"{type(error).__name__}: {error}"


def big_integers():
    product = 1
    for number in range(1, 400):
        product *= number
    print("400!/400", hashlib.sha256(str(product).encode()).hexdigest())
    print(pow(3, 10**40 + 1, 2**127 - 1), math.isqrt(10**61), math.gcd(2**90 * 3**5, 6**40))
    print(divmod(-(10**30), 7**20), (1 << 200) ^ 12345, hash(2**61 - 2), int("zz9", 36))


def formats():
    sample = values(2000, 1)
    print("repr", hashlib.sha256(" ".join(map(repr, sample)).encode()).hexdigest())
    print("read", digest(float(repr(value)) for value in sample))
    print("hex", hashlib.sha256(" ".join(v.hex() for v in sample).encode()).hexdigest())
    print("%", hashlib.sha256(" ".join("%.17e %g" % (v, v) for v in sample).encode()).hexdigest())
    print(repr(sample[:4]), round(2.675, 2), round(-1e15 / 7, 3), int(1e23), 1e23)


def operations():
    sample = values(1500, 2)
    found = []
    for a, b in zip(sample, sample[1:]):
        results = [a + b, a - b, a * b, attempt(lambda: a / b), -a, abs(b), math.fmod(a, 1e9)]
        found += [result if isinstance(result, float) else 0.0 for result in results]
    # A NaN's bits are those that the FPU makes.
    print("+-*/", digest(found))
    print("single", hashlib.sha256(b"".join(
        struct.pack("<f", math.ldexp(math.frexp(v)[0], i % 250 - 140))
        for i, v in enumerate(sample) if math.isfinite(v))).hexdigest())
    print("floor", hashlib.sha256(" ".join(
        str((math.floor(v), math.ceil(v), round(v)))
        for v in sample if abs(v) < 1e30).encode()).hexdigest())
    print("compare", sum(a < b for a in sample[:200] for b in sample[:200]),
          float("nan") == float("nan"), 0.0 == -0.0, math.copysign(1, -0.0))


def functions():
    points = [i * 0.37 - 50 for i in range(300)]
    for name in ("sin", "cos", "tan", "atan", "exp", "expm1", "sinh", "tanh", "asinh", "erf", "cbrt"):
        print(name, digest(getattr(math, name)(x) for x in points)[:32])
    positive = [abs(x) + 0.01 for x in points]
    for name in ("log", "log2", "log10", "log1p", "sqrt", "gamma", "lgamma"):
        print(name, digest(getattr(math, name)(x) for x in positive)[:32])
    print("pow", digest(math.pow(x, y) for x, y in zip(positive, points))[:32])
    print("large", math.sin(1e22), math.cos(2.0**1000), math.tan(1e300))
    print("complex", cmath.sqrt(-2), cmath.exp(1j), cmath.phase(-1 - 1j), (2 + 3j) ** (1 - 1j))
    print("fsum", math.fsum(value * 1e-300 for value in values(500, 3)), math.dist((1, 2), (4, 6)))


def denormals():
    least = 5e-324
    print(least / 2, least * 3, least * 0.5 + least, sys.float_info.min / 3, 1e-310 * 1e10)
    print(math.nextafter(0, 1), math.ulp(1e-320), math.frexp(3e-320), math.ldexp(1.0, -1074))
    x, count = 1.0, 0
    while x:
        x, count = x / 2, count + 1
    print("halved", count, digest(3e-308 / (i + 1) for i in range(1000))[:32])
    print("sum", sum(least for _ in range(1000)) == 1000 * least, math.fsum([least] * 1000))


def exceptions():
    big = sys.float_info.max
    for function, *arguments in (
        (lambda: 1 // 0,), (lambda: 1 % 0,), (lambda: 1.0 / 0.0,), (lambda: 0.0 // 0.0,),
        (lambda: 0j / 0j,), (lambda: 2.0 ** 5000,), (lambda: (-8.0) ** -1e400 * 0,),
        (lambda: 0.0 ** -1,), (math.exp, 710), (math.log, 0), (math.sqrt, -1), (math.acos, 2),
        (math.gamma, -1), (math.fmod, 1, 0), (math.ldexp, 1.0, 5000), (int, float("inf")),
        (int, float("nan")), (lambda: 10**400 / 3,), (float, 10**400), (struct.pack, "<d", 1.5),
        (math.cosh, 1000), (lambda: big * 2,), (lambda: big + big - big,), (math.pow, big, 2),
    ):
        print(attempt(function, *arguments))


def packing():
    for value in (1.0, -2.5, math.pi, 5e-324, float("inf"), -0.0, float("nan")):
        print(struct.pack(">d", value).hex(), struct.pack(">f", value).hex(), end=" ")
    print()
    print(struct.pack("<e3bxHiqQ", 0.1, -1, 2, -3, 65535, -(2**31), -(2**63), 2**64 - 1).hex())
    data = b"".join(struct.pack("<d", value) for value in values(4000, 4))
    for name in ("md5", "sha1", "sha256", "sha3_256", "blake2b"):
        print(name, hashlib.new(name, data).hexdigest()[:40])
    # Whose code that was: OpenSSL's, and Python's own.
    print(type(hashlib.sha256()).__module__, type(hashlib.blake2b()).__module__)
    squeezed = zlib.compress(bytes(range(256)) * 300, 9)
    print("zlib", zlib.crc32(data), zlib.adler32(data), zlib.decompress(squeezed) == bytes(range(256)) * 300)


def roots():
    """Newton's method on many numbers: square roots and divisions."""
    found = []
    for number in range(1, 1501):
        x = float(number)
        for _ in range(8):
            x = 0.5 * (x + number / x)
        found.append(x - math.sqrt(number + 0.25))
    print("roots", digest(found))


def series():
    """Sums that lose digits in one order and not in the other."""
    terms = [(-1) ** i / (2 * i + 1) for i in range(12000)]
    print("series", repr(4 * sum(terms)), repr(4 * sum(reversed(terms))), repr(4 * math.fsum(terms)))


def matrix():
    """Products of a matrix with itself, scaled."""
    size = 14
    a = [[math.sin(i * size + j) for j in range(size)] for i in range(size)]
    for _ in range(6):
        columns = list(zip(*a))
        a = [[sum(x * y for x, y in zip(row, column)) / size for column in columns] for row in a]
    print("matrix", digest(value for row in a for value in row))


PARTS = (big_integers, formats, operations, functions, denormals, exceptions, packing, roots, series, matrix)

for name in sys.argv[1:]:
    for part in PARTS:
        if name in ("all", part.__name__):
            part()
