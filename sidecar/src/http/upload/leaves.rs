//! What is done to a request behind its head.

use chaperone_crds::record::MaskedInfo;

use crate::{
    body::{BodyFilter, Outgoing},
    http1::{HeaderEditError, Headers},
};

/// What is done to body and trailers.
#[derive(Default)]
pub(crate) struct Leaves {
    /// Filters the body, which is sent in chunks then.
    pub(crate) filter: Option<Box<BodyFilter>>,
    pub(crate) trailers: Trailers,
}

impl Leaves {
    /// What `outgoing` does, with this filter for the body. A chunked body that leaves as it is goes through a filter of nothing, for it may have trailers.
    pub(crate) fn of(outgoing: Outgoing, filter: Option<Box<BodyFilter>>, chunked: bool) -> Self {
        let altered = filter.is_some();
        let nothing = || chunked.then(|| Box::new(BodyFilter::of_nothing()));
        Self {
            filter: filter.or_else(nothing),
            trailers: Trailers {
                outgoing,
                altered,
                found: Vec::new(),
            },
        }
    }

    /// What masks found in both.
    pub(crate) fn findings(&self) -> Vec<MaskedInfo> {
        let mut all = self.trailers.found.clone();
        if let Some(filter) = &self.filter {
            all.extend_from_slice(filter.findings());
        }
        all
    }
}

/// What is done to trailers.
#[derive(Default)]
pub(crate) struct Trailers {
    outgoing: Outgoing,
    /// Whether the body may have changed, so that what trailers say of it would be false.
    altered: bool,
    found: Vec<MaskedInfo>,
}

impl Trailers {
    /// Trailers as they leave.
    pub(super) fn edited(&mut self, sent: &Headers) -> Result<Headers, HeaderEditError> {
        let mut kept = sent.clone();
        let edits = self.outgoing.trailers(sent, self.altered);
        for name in &edits.gone {
            kept.remove(name);
        }
        for (name, values) in &edits.changed {
            kept.replace(name, values)?;
        }
        self.found.extend(edits.findings);
        Ok(kept)
    }
}
