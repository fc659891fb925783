#!/usr/bin/env python3
"""Reads a drystone vault of format version 1, written from docs/format.md alone. pip install zstandard cryptography

    reader.py VAULT --passphrase-file|--key-file FILE  list | ls SNAPSHOT | extract SNAPSHOT DIRECTORY

lz.py must lie beside this file if the vault holds frames of LZ4 or LZO. Python has no BLAKE3 of its own, so chunk
ids are not recomputed; all else is authenticated before it is used.
"""
import base64, bz2, contextlib, functools, glob, hashlib, hmac, os, struct, sys, time, zlib, zstandard
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

VERSION = b"\x01"
def read(path, offset=0, size=-1):
    with open(path, "rb") as file:
        file.seek(offset)
        return file.read(size)

def cbor(b, at=0):
    """The item at `at` and where it ends."""
    major, n, at = b[at] >> 5, b[at] & 31, at + 1
    if n > 27 or major > 5:
        raise ValueError("CBOR that drystone does not write")
    if n >= 24:
        n, at = int.from_bytes(b[at : at + (1 << n - 24)], "big"), at + (1 << n - 24)
    if major < 4:
        end = at + n if major > 1 else at
        return (n, -1 - n, b[at:end], major == 3 and b[at:end].decode())[major], end
    items = []
    for _ in range(n if major == 4 else 2 * n):
        item, at = cbor(b, at)
        items.append(item)
    return (items if major == 4 else dict(zip(items[::2], items[1::2]))), at

def mac(key, message):
    return hmac.digest(key or bytes(32), message, "sha256")
def hkdf(salt, secret, info):
    return mac(mac(salt, secret), info + b"\x01")  # its first 32 bytes, more is never needed
def exchange(secret, public):
    return secret.public_key().public_bytes_raw(), secret.exchange(X25519PublicKey.from_public_bytes(public))

def hpke_open(secret, info, aad, sealed):
    """RFC 9180, base mode: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20-Poly1305."""
    enc, kem, suite = sealed[:32], b"HPKE-v1KEM\0\x20", b"HPKE-v1HPKE\0\x20\0\x01\0\x03"
    own, dh = exchange(X25519PrivateKey.from_private_bytes(secret), enc)
    shared = mac(mac(b"", kem + b"eae_prk" + dh), b"\0\x20" + kem + b"shared_secret" + enc + own + b"\x01")
    context = b"\0" + mac(b"", suite + b"psk_id_hash") + mac(b"", suite + b"info_hash" + info) + b"\x01"
    secret = mac(shared, suite + b"secret")
    cipher = ChaCha20Poly1305(mac(secret, b"\0\x20" + suite + b"key" + context))
    return cipher.decrypt(mac(secret, b"\0\x0c" + suite + b"base_nonce" + context)[:12], sealed[32:], aad)

def age_open(file, passphrase, identities):
    """The plaintext of a short age file, or None if no stanza opens."""
    unbase, end = lambda text: base64.b64decode(text + "=="), file.index(b"\n--- ") + 4
    payload = file.index(b"\n", end) + 1
    for stanza in file[: end - 4].decode().split("\n-> ")[1:]:
        (kind, *args), body = stanza.split("\n", 1)[0].split(" "), unbase("".join(stanza.split("\n")[1:]))
        keys, share = [], unbase(args[0]) if kind in ("scrypt", "X25519") else b""
        if kind == "scrypt" and passphrase is not None:
            salt, n = b"age-encryption.org/v1/scrypt" + share, 1 << int(args[1])
            keys = [hashlib.scrypt(passphrase, salt=salt, n=n, r=8, p=1, maxmem=1 << 28, dklen=32)]
        for public, secret in [exchange(identity, share) for identity in identities if kind == "X25519"]:
            keys.append(hkdf(share + public, secret, b"age-encryption.org/v1/X25519"))
        for key in keys:
            with contextlib.suppress(InvalidTag):
                file_key = ChaCha20Poly1305(key).decrypt(bytes(12), body, None)
                if mac(hkdf(b"", file_key, b"header"), file[:end]) != unbase(file[end + 1 : payload - 1].decode()):
                    raise ValueError("the age header was altered")
                cipher = ChaCha20Poly1305(hkdf(file[payload : payload + 16], file_key, b"payload"))
                return cipher.decrypt(bytes(11) + b"\x01", file[payload + 16 :], None)

def age_identity(line):
    bits = [f"{'qpzry9x8gf2tvdw0s3jn54khce6mua7l'.index(c):05b}" for c in line.lower().rpartition("1")[2][:-6]]
    return X25519PrivateKey.from_private_bytes((int("".join(bits), 2) >> 4).to_bytes(32, "big"))

def verify(key, message, signature):
    Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
CODECS = [lambda s, n: s, lambda s, n: zstandard.ZstdDecompressor().decompress(s, max_output_size=n),
          lambda s, n: __import__("lz").lz4(s), lambda s, n: zlib.decompressobj().decompress(s, n + 1),
          lambda s, n: bz2.BZ2Decompressor().decompress(s, n + 1), lambda s, n: __import__("lz").lzo(s)]

class Vault:
    def __init__(self, path, passphrase, identities):
        self.path, self.index, key = path, {}, None
        for name in os.listdir(os.path.join(path, "keys")):
            slot, signed, signature = self.parse(b"DRYSLOT", "keys", name)
            if key := age_open(slot[7], passphrase, identities):
                break
        if key is None:
            raise SystemExit("this opens no key slot")
        self.id = slot[0]
        secrets, _ = cbor(hpke_open(key[:32], b"drystone slot v1", self.id + slot[1] + slot[6], slot[8]))
        self.key, self.epochs = secrets[1], {epoch[0]: epoch for epoch in secrets[3]}
        verify(key[32:], b"drystone slot v1" + signed, signature)
        if slot[2] == 1:
            raise SystemExit("this is a writer key: it can back up, but not read what is stored")
        self.check_features()
        self.ledgers = self.newest_ledgers()
        for pack in glob.glob("packs/??/*", root_dir=path):
            self.learn(os.path.join(path, pack))
    def parse(self, magic, *name):
        b = read(os.path.join(self.path, *name))
        if b[:8] != magic + VERSION:
            raise ValueError(f"{name} is no {magic} of version 1")
        return cbor(b, 8)[0], b[:-64], b[-64:]
    def writer(self, certificate):
        key, role, signature = certificate
        verify(self.key, b"drystone writer v1" + self.id + key + bytes([role]), signature)
        return key
    def notices(self, magic, label, directory):
        """What owners say in the notices of a directory, by the hash in the name."""
        said = {}
        for name in os.listdir(at) if os.path.isdir(at := os.path.join(self.path, directory)) else ():
            notice, signed, signature = self.parse(magic, directory, name)
            if notice[2][1] != 0:
                raise ValueError(f"{directory}/{name} is not signed by an owner")
            verify(self.writer(notice[2]), label + signed, signature)
            key = hkdf(notice[1], self.epochs[notice[0]][3], b"drystone trailer v1")
            said[bytes.fromhex(name.partition("-")[2])], _ = cbor(self.opener(2, key, label, 1)(0, notice[3]))
        return said
    def newest_ledgers(self):
        ledgers = self.notices(b"DRYLEDG", b"drystone ledger v1", "ledger")
        carried = {hash for ledger in ledgers.values() for hash in ledger[1][1::2]}
        return [ledger for hash, ledger in ledgers.items() if hash not in carried]
    def is_forgotten(self, registration, number, hash):
        """Whether any of the newest ledgers forgets this root."""
        for ledger in self.ledgers:
            if registration in (ledger[4][at : at + 16] for at in range(0, len(ledger[4]), 16)):
                return True
            for id, floor, live, forgotten, *end in ledger[3]:
                is_live = (number, hash) in zip(live[0::4], live[1::4])
                is_listed = (number, hash) in zip(forgotten[0::2], forgotten[1::2])
                if id == registration and (is_listed or number >= min(end, default=1 << 64) or number < floor and not is_live):
                    return True
        return False
    def check_features(self):
        """Refuses a vault whose configuration in force needs a feature to read."""
        configs = self.notices(b"DRYCONF", b"drystone config v1", "config")
        replaced = {hash for config in configs.values() for hash in config[2]}
        for hash in configs.keys() - replaced:
            if configs[hash][3][0]:
                raise SystemExit(f"this vault needs {configs[hash][3][0]} to be read: use a newer program")
    def opener(self, suite, key, label, kind):
        cipher, aad = {1: AESGCM, 2: ChaCha20Poly1305}[suite](key), label + VERSION + self.id + bytes([kind])
        return lambda number, sealed: cipher.decrypt(struct.pack(">IQ", 0, number), sealed, aad)
    def learn(self, path):
        """Opens the tail of a pack and indexes its chunks."""
        b = read(path)
        if b[-8:] != b"DRYPACK" + VERSION:
            raise ValueError(f"{path} is no pack of version 1")
        trailer_bytes, preamble_bytes = struct.unpack(">II", b[-80:-72])
        end = len(b) - 80 - preamble_bytes - trailer_bytes
        trailer, preamble = b[end : end + trailer_bytes], b[end + trailer_bytes : -80]
        p, _ = cbor(preamble)
        hashes = hashlib.sha256(preamble).digest() + hashlib.sha256(trailer).digest()
        verify(self.writer(p[6]), b"drystone pack v1" + hashes + struct.pack(">Q", end), b[-72:-8])
        _, _, open_key, index_key = self.epochs[p[3]]
        trailer_key = hkdf(p[4], index_key, b"drystone trailer v1")
        frames, _ = cbor(self.opener(p[2], trailer_key, b"drystone trailer v1", p[1])(0, trailer))
        aad = VERSION + self.id + bytes([p[1], p[2]]) + struct.pack(">Q", p[3]) + p[4]
        key, offset = hpke_open(open_key, b"drystone pack key v1", aad, p[5]), 8
        opener = self.opener(p[2], key, b"drystone frame v1", p[1])
        for number, (size, rows) in enumerate(frames[0]):
            start, frame, offset = 0, (path, opener, number, offset, size), offset + size
            for id, length in struct.iter_unpack(">32sI", rows):
                self.index[id], start = (frame, start, length), start + length
    @functools.lru_cache(maxsize=32)
    def frame(self, path, opener, number, offset, size):
        codec, length, *_ = struct.unpack_from(">BI", plain := opener(number, read(path, offset, size)))
        if len(out := CODECS[codec](plain[5:], length)) != length:
            raise ValueError(f"{path}: frame {number} has the wrong length")
        return out
    def content(self, recipe):
        """Pieces of a file: bytes, or the length of a run of zeros or of a hole."""
        for what, size in recipe[2]:
            if isinstance(what, bytes):
                frame, start, length = self.index[what]
                chunk = self.frame(*frame)[start : start + length]
                yield from [chunk] if recipe[1] == 0 else self.content((size, recipe[1] - 1, cbor(chunk)[0]))
            else:
                yield size
    def walk(self, recipe, path=b""):
        stream, at = b"".join(self.content(recipe)), 0
        while at < len(stream):
            entry, at = cbor(stream, at + 4)
            if entry[0] in (b"", b".", b"..") or b"/" in entry[0] or b"\0" in entry[0]:
                raise ValueError(f"{entry[0]} is no name")
            yield path + entry[0], entry
            yield from self.walk(entry[8], path + entry[0] + b"/") if entry[1] == 1 else ()
    def snapshots(self):
        for name in os.listdir(os.path.join(self.path, "roots", "snapshot")):
            root, signed, signature = self.parse(b"DRYROOT", "roots", "snapshot", name)
            registration, number, id = name.split("-")
            if self.is_forgotten(bytes.fromhex(registration), int(number), bytes.fromhex(id)):
                continue
            verify(writer := self.writer(root[5]), b"drystone root v1" + signed, signature)
            aad = VERSION + self.id + b"snapshot" + bytes.fromhex(registration) + struct.pack(">Q", int(number)) + writer
            yield id, cbor(hpke_open(self.epochs[root[4]][2], b"drystone root v1", aad, root[6]))[0]
    def extract(self, recipe, target):
        first, made = {}, []
        for path, entry in self.walk(recipe):
            full, link = os.path.join(os.fsencode(target), path), tuple(entry.get(12, (path,)))
            if entry[1] == 1:
                os.makedirs(full)
            elif entry[1] == 2:
                os.symlink(entry[9], full)
            elif entry[1] > 2 or link in first:
                os.link(first[link], full) if link in first else print("left out, no file:", full, file=sys.stderr)
            else:
                first[link] = full
                with open(full, "xb") as file:
                    for piece in self.content(entry[8]):
                        file.seek(piece, 1) if isinstance(piece, int) else file.write(piece)
                    file.truncate(entry[8][0])
            made += [(full, entry)] if entry[1] < 2 else []
        for full, entry in reversed(made):
            with contextlib.suppress(OSError):
                [os.setxattr(full, name, value) for name, value in entry.get(11, ())]
            os.chmod(full, entry[2])
            os.utime(full, ns=2 * (entry[7][0] * 10**9 + entry[7][1],))

def main(path, option, secret, command, id=None, target=None):
    text, is_passphrase = read(secret).decode(), option == "--passphrase-file"
    identities = [age_identity(line) for line in text.split() if line.startswith("AGE-SECRET-KEY-1")]
    vault = Vault(path, text.rstrip("\r\n").encode() if is_passphrase else None, identities)
    for name, snapshot in vault.snapshots():
        if command == "list":
            when = time.strftime("%F %T", time.gmtime(snapshot[0][0]))
            print(name, when, snapshot[2], b" ".join(snapshot[4]).decode(errors="replace"), *snapshot[5])
        elif id == name and command == "ls":
            for path, entry in vault.walk(snapshot[6]):
                print("fdlbcps"[entry[1]], f"{entry[2]:04o}", entry.get(8, [0])[0], repr(path)[2:-1])
        elif id == name and command == "extract":
            vault.extract(snapshot[6], target)

main(*sys.argv[1:]) if len(sys.argv) >= 5 else print(__doc__)
