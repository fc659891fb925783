use drystone_format::{PackId, Random, VaultId, keys::Secrets, shard::*};
use std::time::Instant;
struct C(u8);
impl Random for C {
    fn fill(&mut self, b: &mut [u8]) {
        for x in b {
            *x = self.0;
            self.0 = self.0.wrapping_add(1);
        }
    }
}
fn old(key: &[u8; 32], shape: &Shape, number: u8, payload: &[u8]) -> Vec<u8> {
    let tag = |block: u64, payload: &[u8]| {
        let mut h = blake3::Hasher::new_keyed(key);
        h.update(payload)
            .update(&shape.pack().0)
            .update(&[shape.needed(), number])
            .update(&shape.pack_bytes().to_be_bytes())
            .update(&block.to_be_bytes());
        let mut t = [0u8; 16];
        h.finalize_xof().fill(&mut t);
        t
    };
    let mut o = Vec::with_capacity(shape.object_bytes(number) as usize);
    let mut b = 0;
    for p in payload.chunks(16384) {
        o.extend_from_slice(p);
        o.extend_from_slice(&tag(b, p));
        b += 1;
    }
    o.extend_from_slice(&tag(b, &[]));
    o
}
fn main() {
    let s = Secrets::generate(&mut C(0), VaultId([1; 16])).unwrap();
    let keys = ShardKeys::new(&s);
    let key = *s.shard_key().expose();
    for bytes in [64u64 << 10, 16 << 20] {
        for k in [2u8, 10] {
            let shape = Shape::new(PackId([5; 32]), bytes, k).unwrap();
            let payload: Vec<u8> = (0..shape.payload_bytes(0)).map(|x| (x * 7 % 251) as u8).collect();
            let n = (512 << 20) / payload.len().max(1 << 15);
            let (mut a, mut b, mut c) = (vec![], vec![], vec![]);
            for _ in 0..10 {
                let t = Instant::now();
                for _ in 0..n / 10 {
                    std::hint::black_box(old(&key, &shape, 0, &payload));
                }
                a.push(t.elapsed().as_secs_f64());
                let t = Instant::now();
                for _ in 0..n / 10 {
                    std::hint::black_box(seal_shard(&keys, &shape, 0, &payload).unwrap());
                }
                b.push(t.elapsed().as_secs_f64());
                let o = seal_shard(&keys, &shape, 0, &payload).unwrap();
                let t = Instant::now();
                for _ in 0..n / 10 {
                    std::hint::black_box(open_shard(&keys, PackId([5; 32]), k, 0, &o).unwrap());
                }
                c.push(t.elapsed().as_secs_f64());
            }
            let m = |v: &mut Vec<f64>| {
                v.sort_by(f64::total_cmp);
                v[v.len() / 2]
            };
            let mb = (n / 10 * payload.len()) as f64 / 1e6;
            println!(
                "shard {} B: old {:.0} MB/s new {:.0} MB/s open {:.0} MB/s; per shard old {:.1} us new {:.1} us",
                payload.len(),
                mb / m(&mut a),
                mb / m(&mut b),
                mb / m(&mut c),
                m(&mut a) * 1e6 / (n / 10) as f64,
                m(&mut b) * 1e6 / (n / 10) as f64
            );
        }
    }
}
