//! The contract of Chaperone.
