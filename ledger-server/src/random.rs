//! Names that nobody can guess.

use crate::refusal::{Code, Refusal};

/// 256 random bits, as 64 hex digits.
///
/// # Errors
/// [`Code::Storage`] where the system has no random numbers.
pub(crate) fn name() -> Result<String, Refusal> {
    let mut random = [0; 32];
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let filled = provider.secure_random.fill(&mut random);
    filled.map_err(|_| Refusal::new(Code::Storage, "there are no random numbers"))?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}
