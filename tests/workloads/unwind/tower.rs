// SPDX-License-Identifier: Apache-2.0

//! A Rust program as it is released: no frame pointers; trait objects, closures, a sort with a comparison of its own,
//! a recursion, threads by std.

use std::time::{Duration, Instant};

#[inline(never)]
fn leaf(units: u64) -> u64 {
    let mut x = units ^ 0x1234567;
    let mut i = 0;
    while i < units {
        x = (x ^ (x >> 29)).wrapping_mul(6364136223846793005);
        i += 1;
    }
    x
}

trait Shape {
    fn area(&self, units: u64) -> u64;
}
struct Square(Vec<u64>);
impl Shape for Square {
    #[inline(never)]
    fn area(&self, units: u64) -> u64 {
        leaf(units) ^ self.0[(units & 1) as usize]
    }
}

#[inline(never)]
fn recurse(n: u32, shape: &dyn Shape) -> u64 {
    let text = format!("{n}");
    let below = if n > 1 { recurse(n - 1, shape) } else { shape.area(15000) };
    below ^ text.len() as u64
}

#[inline(never)]
fn compare(a: &u64, b: &u64) -> std::cmp::Ordering {
    let x = leaf(1000 + (a & 1));
    if x == 7 {
        return std::cmp::Ordering::Equal;
    }
    a.cmp(b)
}

#[inline(never)]
fn sort() -> u64 {
    let mut v: Vec<u64> = vec![5, 3, 8, 1, 7, 2, 6, 4];
    v.sort_by(compare);
    v[0]
}

#[inline(never)]
fn rounds(until: Instant) -> u64 {
    let shape: Box<dyn Shape> = Box::new(Square(vec![1, 2]));
    let mut sum = 0u64;
    while Instant::now() < until {
        sum ^= recurse(20, shape.as_ref());
        sum ^= sort();
    }
    sum
}

fn main() {
    let seconds: f64 = std::env::args().last().and_then(|s| s.parse().ok()).unwrap_or(1.0);
    let until = Instant::now() + Duration::from_secs_f64(seconds);
    let worker = std::thread::spawn(move || rounds(until));
    let sum = rounds(until) ^ worker.join().unwrap();
    println!("{{\"pid\": {}, \"sum\": {}}}", std::process::id(), sum & 1);
}
