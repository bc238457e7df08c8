// SPDX-License-Identifier: Apache-2.0

// A Rust program as it is released: maps, iterators, trait objects, formatting, sorting through closures.

use std::collections::{BTreeMap, HashMap};

trait Step {
    fn run(&self, n: u64) -> u64;
}

struct Words;
struct Numbers(u64);

impl Step for Words {
    fn run(&self, n: u64) -> u64 {
        let mut words: HashMap<String, Vec<u64>> = HashMap::new();
        for i in 0..300 {
            words.entry(format!("w{}", (n + i) * 7919 % 211)).or_default().push(i);
        }
        let mut order: Vec<(&String, &Vec<u64>)> = words.iter().collect();
        order.sort_by(|a, b| b.1.len().cmp(&a.1.len()).then_with(|| a.0.cmp(b.0)));
        order.iter().map(|(w, v)| w.len() as u64 * v.iter().sum::<u64>()).sum()
    }
}

impl Step for Numbers {
    fn run(&self, n: u64) -> u64 {
        let tree: BTreeMap<u64, String> = (0..200).map(|i| ((n + i) * self.0 % 509, i.to_string())).collect();
        tree.range(100..400).filter_map(|(k, v)| v.parse::<u64>().ok().map(|x| x * k)).sum()
    }
}

fn main() {
    let steps: Vec<Box<dyn Step>> = vec![Box::new(Words), Box::new(Numbers(7919))];
    let mut sum = 0u64;
    for n in 0u64.. {
        for s in &steps {
            sum = sum.wrapping_add(s.run(n % 100_000));
        }
        if sum == 1 {
            println!("{sum}");
        }
    }
}
