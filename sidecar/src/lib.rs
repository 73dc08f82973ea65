//! The data path of Chaperone.
