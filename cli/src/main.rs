//! The command line of Chaperone.
fn main() {}
