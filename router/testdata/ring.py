"""The ring route, written from the description in the package comment alone.

Run it to print ring.golden. Nothing in it may ever change what it prints for
the users and rings below; adding some is fine.
"""

import hashlib
import math

MASK = (1 << 64) - 1


def h(s):
    return int.from_bytes(hashlib.sha256(s.encode()).digest()[:8], "big")


def mix(x):
    x = ((x ^ x >> 30) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ x >> 27) * 0x94D049BB133111EB) & MASK
    return x ^ x >> 31


def lower(user):
    return "".join(chr(ord(c) + 32) if "A" <= c <= "Z" else c for c in user)


def shard(user, shards):
    u = h(lower(user))
    highest = max(mix(u ^ h(s)) for s in shards)
    return min((s for s in shards if mix(u ^ h(s)) == highest), key=str.encode)


def weighted(user, weights):
    u = h(lower(user))
    return max(
        (s for s in sorted(weights, key=str.encode) if weights[s] > 0),
        key=lambda s: -weights[s] / math.log((mix(u ^ h(s)) + 0.5) / 2**64),
    )


rings = [
    ["s1"],
    ["s1", "s2"],
    ["s1", "s2", "s3"],
    ["mail-" + c for c in "abcdefghi"],
    ["zürich", "geneva", "Basel"],
]
weights = [
    {"s1": 100, "s2": 50, "s3": 200, "s4": 0},
    {"mail-" + c: i + 1 for i, c in enumerate("abcdefghi")},
]
users = [
    "a",
    "alice",
    "alice@example.com",
    "bob@example.com",
    "carol@example.org",
    "dave.smith+tag@mail.example.net",
    "ünïcode@exämple.com",
    "用户@例子.中国",
    "user name@example.com",
    "x" * 200 + "@example.com",
    "0",
    "postmaster@example.com",
    "Alice@Example.COM",
] + [f"user{i:03d}@example.com" for i in range(40)]

print("# made by ring.py: users, and their shard in each ring")
for ring in rings:
    print("#ring", *ring, sep="\t")
for w in weights:
    print("#weighted", *(f"{s}={n}" for s, n in w.items()), sep="\t")
for user in users:
    print(user, *(shard(user, ring) for ring in rings), *(weighted(user, w) for w in weights), sep="\t")
