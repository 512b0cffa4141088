# SPDX-License-Identifier: Apache-2.0
"""Counts words of a made-up text in a large dictionary, three times over, and prints a checksum."""
import hashlib
import random

random.seed(1)
counts = {}
lines = []
for i in range(600_000):
    words = [f"w{random.randrange(400_000)}" for _ in range(4)]
    lines.append(" ".join(words))
for _ in range(3):
    for line in lines:
        for word in line.split():
            counts[word] = counts.get(word, 0) + 1
digest = hashlib.sha256()
for word in sorted(counts):
    digest.update(f"{word}={counts[word]};".encode())
print(len(counts), digest.hexdigest())
