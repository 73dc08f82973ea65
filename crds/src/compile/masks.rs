//! Which masks apply to which destination, compiled once per combination.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    detect::{CompiledMasks, MaskError},
    hosts::{HostPattern, normalize_host},
    resources::{Direction, Mask},
    tokenize::TokenKey,
};

/// Most combinations that are kept. A combination beyond that is compiled each time it is needed: slower, never wrong. Policies have a few.
const MAX_COMBINATIONS: usize = 64;

/// What is masked at one destination.
#[derive(Clone, Debug)]
pub struct MaskSet {
    /// For responses on their way to the agent; `None` when no mask applies and they pass untouched.
    pub response: Option<Arc<CompiledMasks>>,
    /// For requests on their way out; `None` when no mask applies.
    pub request: Option<Arc<CompiledMasks>>,
    /// For records: the same masks, after the secrets that are masked in every record.
    pub records: Arc<CompiledMasks>,
    /// For requests on their way out: finds the tokens that become values again here; `None` when there are none.
    pub restore: Option<Arc<CompiledMasks>>,
}

impl Default for MaskSet {
    /// No policy's mask: responses pass untouched, records lose their secrets.
    fn default() -> Self {
        Self {
            response: None,
            request: None,
            records: CompiledMasks::secrets(),
            restore: None,
        }
    }
}

/// One mask and where it applies.
#[derive(Debug)]
pub(super) struct CompiledMask {
    pub(super) hosts: Vec<HostPattern>,
    pub(super) ports: Vec<u16>,
    /// Where its tokens are restored.
    pub(super) restore_to: Vec<HostPattern>,
    pub(super) mask: Mask,
}

/// All masks of a snapshot.
#[derive(Debug, Default)]
pub(super) struct Masks {
    masks: Vec<CompiledMask>,
    /// What makes and restores tokens and hashes; without it, they are redacted.
    key: Option<Arc<TokenKey>>,
    /// All masks together.
    all: MaskSet,
    /// By the numbers of the masks that apply.
    combinations: Mutex<HashMap<Vec<usize>, MaskSet>>,
}

impl Masks {
    /// Compiles all masks together. Whatever part of them applies somewhere then compiles too.
    ///
    /// # Errors
    /// Why they do not compile together, as a sentence.
    pub(super) fn new(
        masks: Vec<CompiledMask>,
        key: Option<Arc<TokenKey>>,
    ) -> Result<Self, String> {
        let all = together(masks.iter().map(|mask| &mask.mask), key.as_ref())?;
        Ok(Self {
            masks,
            key,
            all,
            combinations: Mutex::default(),
        })
    }

    pub(super) fn for_destination(&self, host: Option<&str>, ip: IpAddr, port: u16) -> MaskSet {
        let host = host.map(normalize_host);
        MaskSet {
            restore: self.restoring(host.as_deref(), ip),
            ..self.applying(|mask| mask.applies(host.as_deref(), ip, port))
        }
    }

    /// The masks that apply at any of these places. They restore nothing.
    pub(super) fn for_any(&self, places: &[(Option<&str>, IpAddr, u16)]) -> MaskSet {
        let places: Vec<_> = places
            .iter()
            .map(|&(host, ip, port)| (host.map(normalize_host), ip, port))
            .collect();
        self.applying(|mask| {
            let mut places = places.iter();
            places.any(|(host, ip, port)| mask.applies(host.as_deref(), *ip, *port))
        })
    }

    fn applying(&self, applies: impl Fn(&CompiledMask) -> bool) -> MaskSet {
        let numbers: Vec<usize> = self
            .masks
            .iter()
            .enumerate()
            .filter(|(_, mask)| applies(mask))
            .map(|(number, _)| number)
            .collect();
        match numbers.len() {
            0 => MaskSet::default(),
            n if n == self.masks.len() => self.all.clone(),
            _ => self.combination(numbers),
        }
    }

    /// Finds the tokens of all masks that restore theirs at a destination.
    fn restoring(&self, host: Option<&str>, ip: IpAddr) -> Option<Arc<CompiledMasks>> {
        let key = self.key.as_ref()?;
        let detectors: Vec<&str> = self
            .masks
            .iter()
            .filter(|mask| matches_any(&mask.restore_to, host, ip))
            .flat_map(|mask| mask.mask.detector_names())
            .collect();
        (!detectors.is_empty())
            .then(|| Arc::new(CompiledMasks::restoring(Arc::clone(key), &detectors)))
    }

    fn combination(&self, numbers: Vec<usize>) -> MaskSet {
        // A poisoned lock holds whole entries all the same: they are inserted after they were made.
        let mut combinations = self
            .combinations
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(set) = combinations.get(&numbers) {
            return set.clone();
        }
        let masks = numbers
            .iter()
            .filter_map(|number| self.masks.get(*number))
            .map(|mask| &mask.mask);
        // A part of what compiled together compiles; if it did not, masking more would be the safe side.
        let set = together(masks, self.key.as_ref()).unwrap_or_else(|_| self.all.clone());
        if combinations.len() < MAX_COMBINATIONS {
            combinations.insert(numbers, set.clone());
        }
        set
    }
}

/// Compiles masks into one set.
///
/// # Errors
/// All that is wrong with them.
pub(super) fn together<'m>(
    masks: impl Iterator<Item = &'m Mask> + Clone,
    key: Option<&Arc<TokenKey>>,
) -> Result<MaskSet, String> {
    let compile = || {
        let towards = |other: Direction| {
            let some = masks.clone().filter(move |mask| mask.direction != other);
            let compiled = CompiledMasks::compile(some)?.with_key(key.cloned());
            Ok::<_, Vec<MaskError>>((!compiled.is_empty()).then(|| Arc::new(compiled)))
        };
        let records = CompiledMasks::compile_for_records(masks.clone())?.with_key(key.cloned());
        Ok(MaskSet {
            response: towards(Direction::Request)?,
            request: towards(Direction::Response)?,
            records: Arc::new(records),
            restore: None,
        })
    };
    compile().map_err(|errors: Vec<MaskError>| {
        let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
        errors.join("; ")
    })
}

impl CompiledMask {
    fn applies(&self, host: Option<&str>, ip: IpAddr, port: u16) -> bool {
        (self.ports.is_empty() || self.ports.contains(&port))
            && (self.hosts.is_empty() || matches_any(&self.hosts, host, ip))
    }
}

fn matches_any(patterns: &[HostPattern], host: Option<&str>, ip: IpAddr) -> bool {
    patterns.iter().any(|pattern| pattern.matches(host, ip))
}
