"""LZ4 blocks and LZO1X in plain Python, for reader.py, which works without this file on vaults without these codecs."""


def copy(out, distance, length):
    if not 0 < distance <= len(out):
        raise ValueError("a match before the start")
    for _ in range(length):
        out.append(out[-distance])


def lz4(s):
    def length(n, i):
        more = 255 if n == 15 else 0
        while more == 255:
            more, i = s[i], i + 1
            n += more
        return n, i

    out, i = bytearray(), 0
    while True:
        token = s[i]
        n, i = length(token >> 4, i + 1)
        out, i = out + s[i : i + n], i + n
        if i >= len(s):
            return bytes(out)
        distance = s[i] | s[i + 1] << 8
        n, i = length(token & 15, i + 2)
        copy(out, distance, n + 4)


def lzo(s):
    """LZO1X, as Documentation/staging/lzo.rst of the Linux kernel describes it (version 0 of the bitstream)."""
    out, i, state = bytearray(), 0, 0

    def length(n, base, i):
        if n == 0:
            while s[i] == 0:
                n, i = n + 255, i + 1
            n, i = n + base + s[i], i + 1
        return n, i

    if s[0] > 17:
        state, i = min(s[0] - 17, 4), s[0] - 16
        out += s[1:i]
    while True:
        t, i = s[i], i + 1
        if t >= 64:
            distance, n, tail, i = (s[i] << 3) + (t >> 2 & 7) + 1, (t >> 5) + 1, t & 3, i + 1
        elif t >= 16:
            n, i = length(t & 31, 31, i) if t >= 32 else length(t & 7, 7, i)
            word, i = s[i] | s[i + 1] << 8, i + 2
            distance, n, tail = (word >> 2) + (1 if t >= 32 else (t & 8) << 11), n + 2, word & 3
            if t < 32 and distance == 0:
                return bytes(out)
            distance += 0 if t >= 32 else 16384
        elif state == 0:
            n, i = length(t, 15, i)
            out, i, state = out + s[i : i + n + 3], i + n + 3, 4
            continue
        else:
            distance, n = (t >> 2) + (s[i] << 2) + (2049 if state == 4 else 1), 3 if state == 4 else 2
            tail, i = t & 3, i + 1
        copy(out, distance, n)
        out, i, state = out + s[i : i + tail], i + tail, tail
