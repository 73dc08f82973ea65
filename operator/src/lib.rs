//! The control path of Chaperone.
