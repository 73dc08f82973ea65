//! Copies and comparisons do what slices do, at every length, distance and alignment.
#![cfg(target_arch = "x86_64")]
#![allow(unsafe_code)]

use chaperone_mem::{compare, copy, differ, shift};
use proptest::prelude::*;

/// Longer than any length at which another way is taken.
const MOST: usize = 2500;

fn numbered(n: usize) -> Vec<u8> {
    (0..n).map(|i| (i * 31 % 251) as u8).collect()
}

fn copied(memory: &[u8], to: usize, from: usize, n: usize) -> Vec<u8> {
    let mut memory = memory.to_vec();
    assert!(to + n <= memory.len() && from + n <= memory.len());
    let base = memory.as_mut_ptr();
    // SAFETY: both ranges are in the vector.
    unsafe { shift(base.add(to), base.add(from), n) };
    memory
}

fn expected(memory: &[u8], to: usize, from: usize, n: usize) -> Vec<u8> {
    let mut memory = memory.to_vec();
    memory.copy_within(from..from + n, to);
    memory
}

#[test]
fn every_length_is_copied_and_nothing_around_it_touched() {
    let from = numbered(MOST);
    for n in 0..MOST {
        for offset in [0, 1, 7] {
            let mut to = vec![0xee; n + offset + 9];
            // SAFETY: both are long enough, and they are two vectors.
            unsafe { copy(to.as_mut_ptr().add(offset), from.as_ptr(), n) };
            assert_eq!(&to[offset..offset + n], &from[..n], "{n} at {offset}");
            assert!(to[..offset].iter().all(|b| *b == 0xee), "{n} at {offset}");
            assert!(
                to[offset + n..].iter().all(|b| *b == 0xee),
                "{n} at {offset}"
            );
        }
    }
}

#[test]
fn every_short_length_may_overlap_at_every_distance() {
    let memory = numbered(700);
    for n in 0..300 {
        for distance in 0..n + 2 {
            let (low, high) = (3, 3 + distance);
            for (to, from) in [(low, high), (high, low)] {
                let there = copied(&memory, to, from, n);
                assert_eq!(
                    there,
                    expected(&memory, to, from, n),
                    "{n} from {from} to {to}"
                );
            }
        }
    }
}

#[test]
fn one_byte_that_differs_is_seen_wherever_it_is() {
    for n in 1..200 {
        let left = numbered(n);
        for at in 0..n {
            let mut right = left.clone();
            right[at] ^= 0x80;
            let order = i32::from(left[at]) - i32::from(right[at]);
            // SAFETY: both are n bytes.
            unsafe {
                assert_eq!(
                    compare(left.as_ptr(), right.as_ptr(), n),
                    order,
                    "{n} at {at}"
                );
                assert!(differ(left.as_ptr(), right.as_ptr(), n), "{n} at {at}");
                assert!(!differ(left.as_ptr(), left.as_ptr(), n));
                assert_eq!(compare(left.as_ptr(), left.as_ptr(), n), 0);
            }
        }
    }
}

proptest! {
    #[test]
    fn long_ranges_may_overlap(to in 0..3000_usize, from in 0..3000_usize, n in 0..5000_usize) {
        let memory = numbered(8000);
        prop_assert_eq!(copied(&memory, to, from, n), expected(&memory, to, from, n));
    }

    #[test]
    fn order_is_that_of_slices(left in prop::collection::vec(0..3_u8, 0..80), right in prop::collection::vec(0..3_u8, 0..80)) {
        let n = left.len().min(right.len());
        // SAFETY: both are at least n bytes.
        let (order, differs) = unsafe { (compare(left.as_ptr(), right.as_ptr(), n), differ(left.as_ptr(), right.as_ptr(), n)) };
        prop_assert_eq!(order.cmp(&0), left[..n].cmp(&right[..n]));
        prop_assert_eq!(differs, left[..n] != right[..n]);
    }
}
