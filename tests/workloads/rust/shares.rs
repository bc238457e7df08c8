// SPDX-License-Identifier: Apache-2.0

//! Truth: 60 % shares_rust::engine::heavy < shares_rust::engine::drive < shares_rust::run_round < shares_rust::main;
//! 30 % <shares_rust::Square as shares_rust::Shape>::area < shares_rust::run_round;
//! 10 % shares_rust::generic::<u64> < shares_rust::run_round.
//! The same unit of work as c/work.h: a chain of dependent operations.

use std::time::{Duration, Instant};

/// std::hint's own is younger than the compilers of some distributions.
#[inline(always)]
fn black_box<T>(x: T) -> T {
    unsafe {
        let y = std::ptr::read_volatile(&x);
        std::mem::forget(x);
        y
    }
}

#[inline(always)]
fn work(units: u64, salt: u64) -> u64 {
    let mut x = units ^ salt;
    let mut i = 0;
    while i < units * 32 {
        x = (x ^ (x >> 29)).wrapping_mul(6364136223846793005);
        i += 1;
    }
    done(x)
}

/// Compilers leave the frame out of functions that call nothing: so the leaves call this, once in hundreds of microseconds.
#[inline(never)]
fn done(x: u64) -> u64 {
    black_box(x)
}

mod engine {
    #[inline(never)]
    pub fn heavy(units: u64) -> u64 {
        super::work(units, 0x1234567)
    }

    #[inline(never)]
    pub fn drive(units: u64) -> u64 {
        super::black_box(heavy(units)) + 1
    }
}

trait Shape {
    fn area(&self, units: u64) -> u64;
}

struct Square(u64);

impl Shape for Square {
    #[inline(never)]
    fn area(&self, units: u64) -> u64 {
        work(units, 0x2345671 + self.0)
    }
}

#[inline(never)]
fn generic<T: Into<u64>>(units: T) -> u64 {
    work(units.into(), 0x3456713)
}

#[inline(never)]
fn run_round(shape: &dyn Shape, unit: u64) -> u64 {
    let mut sum = black_box(engine::drive(unit * 60));
    sum ^= black_box(shape.area(unit * 30));
    sum ^= black_box(generic::<u64>(unit * 10));
    black_box(sum) + 1
}

extern "C" {
    fn clock() -> i64;
}

#[inline(never)]
fn main() {
    let seconds: f64 = std::env::args()
        .nth(1)
        .and_then(|a| a.parse().ok())
        .unwrap_or(0.0);
    let start = Instant::now();
    let square = black_box(Square(1));
    let mut random: u64 = start.elapsed().as_nanos() as u64 | 0x9e3779b97f4a7c15;
    let mut rounds = 0u64;
    while seconds <= 0.0 || start.elapsed() < Duration::from_secs_f64(seconds) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        black_box(run_round(&square, 125 + random % 250));
        rounds += 1;
    }
    let cpu_us = unsafe { clock() };
    println!(
        "{{\"pid\": {}, \"rounds\": {}, \"cpu_ns\": {}}}",
        std::process::id(),
        rounds,
        cpu_us * 1000
    );
}
