//! `memcpy`, `memmove`, `memcmp` and `bcmp` for the static builds.
//!
//! musl copies with `rep movsq` and compares byte by byte. A string instruction takes tens of cycles to begin, and what a record, a head or a map is made of are copies of ten to a hundred bytes: in a
//! profile of the static sidecar under load they were an eighth of its time. Linking this crate into a program for x86-64 musl replaces the four symbols; on other targets it adds nothing.
//!
//! Invariant: nothing here calls what it replaces. `no_builtins` keeps the compiler from recognising a copy in these loops and making it a call, and keeps the crate out of link-time optimisation, so that
//! the symbols are there when the linker looks for them.
#![no_std]
#![no_builtins]
// The functions take raw memory by their definition in C.
#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
mod compare;
#[cfg(target_arch = "x86_64")]
mod copy;
#[cfg(target_arch = "x86_64")]
mod word;

#[cfg(target_arch = "x86_64")]
pub use compare::{compare, differ};
#[cfg(target_arch = "x86_64")]
pub use copy::{copy, shift};

#[cfg(all(target_arch = "x86_64", target_env = "musl"))]
mod symbols;
