#!/usr/bin/env python3
"""Joins places of a drystone vault into one directory for reader.py, written from docs/format.md alone.

    join.py PLACE... DIRECTORY

Each PLACE is a directory with what lies at a place, on whatever it was stored; any k of them are enough. Python has no
BLAKE3 of its own, so neither tags nor signatures of shards are checked: reader.py refuses what was altered, leave that place out then.
"""
import itertools, os, re, shutil, struct, sys

BLOCK, TAG, FOOTER = 16384, 16, 195
EXP = [1]
while len(EXP) < 255:
    EXP.append(EXP[-1] << 1 ^ (0x11D if EXP[-1] & 0x80 else 0))
LOG = {value: power for power, value in enumerate(EXP)}

def mul(a, b):
    return EXP[(LOG[a] + LOG[b]) % 255] if a and b else 0
def inv(a):
    return EXP[-LOG[a] % 255]
def times(factor, row):
    return row.translate(bytes(mul(factor, value) for value in range(256)))
def add(one, other):
    return (int.from_bytes(one, "big") ^ int.from_bytes(other, "big")).to_bytes(len(one), "big")

def coefficients(k, i):
    """How often shard i takes each column."""
    if i < k:
        return [int(i == j) for j in range(k)]
    return [mul(mul(i, k ^ j), inv(mul(k, i ^ j))) for j in range(k)]

def solve(k, shards):
    """The columns, from any k shards {number: payload} of equal length: Gauss-Jordan elimination."""
    rows = [(coefficients(k, number), payload) for number, payload in shards.items()]
    for column in range(k):
        pivot = next(at for at in range(column, k) if rows[at][0][column])
        rows[column], rows[pivot] = rows[pivot], rows[column]
        factors, payload = rows[column]
        scale = inv(factors[column])
        rows[column] = [mul(scale, factor) for factor in factors], times(scale, payload)
        for at in set(range(k)) - {column}:
            if factor := rows[at][0][column]:
                factors = [own ^ mul(factor, other) for own, other in zip(rows[at][0], rows[column][0])]
                rows[at] = factors, add(rows[at][1], times(factor, rows[column][1]))
    return [payload for _, payload in rows]

def payload(path, k, i):
    """What a shard holds of its pack, and the length of the pack."""
    with open(path, "rb") as file:
        object = file.read()
    if object[-8:] != b"DRYSHRD\x01" or object[-34:-32] != bytes([k, i]):
        raise ValueError(f"{path} is no such shard of version 1")
    blocks, (size,) = object[:-FOOTER], struct.unpack(">Q", object[-32:-24])
    return b"".join(blocks[at : at + BLOCK + TAG][:-TAG] for at in range(0, len(blocks), BLOCK + TAG)), size

def join(places, target):
    groups = {}
    for place in places:
        for directory, _, names in os.walk(place):
            inside = os.path.relpath(directory, place)
            for name in names:
                path, copy = os.path.join(directory, name), os.path.join(target, inside, name)
                if shard := re.fullmatch(r"([0-9a-f]{64})\.(\d+)\.(\d+)", name):
                    groups.setdefault((shard[1], int(shard[2])), {})[int(shard[3])] = path
                elif inside.split(os.sep)[0] != "tmp" and not os.path.exists(copy):
                    os.makedirs(os.path.dirname(copy), exist_ok=True)
                    shutil.copyfile(path, copy)
    for (pack, k), paths in groups.items():
        copy = os.path.join(target, "packs", pack[:2], pack)
        if len(paths) < k or os.path.exists(copy):
            continue
        shards = {i: payload(paths[i], k, i) for i in itertools.islice(sorted(paths), k)}
        size = next(size for _, size in shards.values())
        width = -(-size // k)
        columns = solve(k, {i: row.ljust(width, b"\0") for i, (row, _) in shards.items()})
        os.makedirs(os.path.dirname(copy), exist_ok=True)
        with open(copy, "xb") as file:
            file.write(b"".join(columns)[:size])

join(sys.argv[1:-1], sys.argv[-1]) if len(sys.argv) > 2 else print(__doc__)
