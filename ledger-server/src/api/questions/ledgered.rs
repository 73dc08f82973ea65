//! Reading, recorded within bounds: a question costs a record, so there are only so many questions a second, answered or refused; and refusals are recorded once a minute with their number.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use chaperone_crds::record::ReadInfo;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::super::Api;
use crate::{
    authenticate::Reader,
    refusal::{Code, Refusal},
};

/// Questions of one user: so many at once, and then so many a second.
const USER: Rate = Rate {
    burst: 40.0,
    each_second: 10.0,
};
/// Questions of all users together: some 30 kB of records a second at most.
const ALL: Rate = Rate {
    burst: 100.0,
    each_second: 50.0,
};
/// How often a refusal of one user about one namespace is recorded.
const REFUSED_EVERY: Duration = Duration::from_secs(60);
/// Users (and their refusals) that are remembered.
const MAX_KNOWN: usize = 4096;
/// Answers under way at a time, until their last byte has left: 8 MiB each at most.
const MAX_ANSWERS: usize = 16;
/// Looks for new records that wait for some.
const MAX_WATCHING: usize = 64;
/// Groups of a user that are recorded.
const MAX_GROUPS: usize = 32;

#[derive(Clone, Copy)]
struct Rate {
    burst: f64,
    each_second: f64,
}

/// What is left of a rate.
struct Bucket {
    left: f64,
    at: Instant,
}

/// Refusals since the last record of one.
struct Refused {
    count: u64,
    recorded: Instant,
}

/// By user and namespace.
type Refusals = HashMap<(String, Option<String>), Refused>;

/// Who has asked how much.
pub(in crate::api) struct Reads {
    all: Mutex<Bucket>,
    users: Mutex<HashMap<String, Bucket>>,
    refusals: Mutex<Refusals>,
    answers: Arc<Semaphore>,
    watching: Arc<Semaphore>,
}

impl Default for Reads {
    fn default() -> Self {
        Self {
            all: Mutex::new(Bucket::new(ALL)),
            users: Mutex::default(),
            refusals: Mutex::default(),
            answers: Arc::new(Semaphore::new(MAX_ANSWERS)),
            watching: Arc::new(Semaphore::new(MAX_WATCHING)),
        }
    }
}

impl Reads {
    /// Lets a question in, if there is room in the user's rate and in that of all.
    pub(super) fn admit(&self, reader: &Reader) -> Result<(), Refusal> {
        let often = |whose: &str| {
            let why = format!("{whose} ask more than is recorded; ask again in a second");
            Err(Refusal::new(Code::Busy, why))
        };
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        if users.len() >= MAX_KNOWN {
            users.retain(|_, bucket| !bucket.is_full(USER));
        }
        if users.len() >= MAX_KNOWN {
            return often("too many users");
        }
        let name = reader.user.name.clone();
        let bucket = users.entry(name).or_insert_with(|| Bucket::new(USER));
        if !bucket.take(USER) {
            return often("you");
        }
        drop(users);
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        match all.take(ALL) {
            true => Ok(()),
            false => often("all users together"),
        }
    }

    /// An answer's room.
    pub(super) fn room(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        let room = Arc::clone(&self.answers).try_acquire_owned();
        room.map_err(|_| {
            let why = format!("{MAX_ANSWERS} answers are under way already");
            Refusal::new(Code::Busy, why)
        })
    }

    /// Room to wait for new records.
    pub(super) fn waits(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        let room = Arc::clone(&self.watching).try_acquire_owned();
        room.map_err(|_| {
            let why = format!("{MAX_WATCHING} wait for new records already");
            Refusal::new(Code::Busy, why)
        })
    }

    /// Records a refusal, or counts it towards the next record.
    pub(super) async fn refused(
        &self,
        api: &Api,
        reader: &Reader,
        what: &'static str,
        namespace: Option<&str>,
    ) -> Result<(), Refusal> {
        let Some(refused) = self.count(&reader.user.name, namespace, Instant::now()) else {
            return Ok(());
        };
        let namespace = namespace.map(|name| ("namespace".to_owned(), name.to_owned()));
        let read = ReadInfo {
            query: namespace.into_iter().collect(),
            refused,
            ..reader.info(what)
        };
        api.ledger(read).await
    }

    /// How many refusals a record is due for; none where one was written lately. Where there are too many to be remembered each is recorded: the rate of questions bounds them.
    fn count(&self, user: &str, namespace: Option<&str>, now: Instant) -> Option<u64> {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        let is_over = |refused: &Refused| now.duration_since(refused.recorded) >= REFUSED_EVERY;
        if refusals.len() >= MAX_KNOWN {
            refusals.retain(|(user, namespace), refused| {
                let goes = is_over(refused);
                if goes && refused.count > 0 {
                    let more = refused.count;
                    tracing::warn!(user, namespace, more, "refused again, and not since");
                }
                !goes
            });
        }
        let is_crowded = refusals.len() >= MAX_KNOWN;
        let key = (user.to_owned(), namespace.map(str::to_owned));
        match refusals.get_mut(&key) {
            Some(refused) if !is_over(refused) => {
                refused.count = refused.count.saturating_add(1);
                None
            }
            Some(refused) => {
                let count = refused.count.saturating_add(1);
                *refused = Refused {
                    count: 0,
                    recorded: now,
                };
                Some(count)
            }
            None if is_crowded => Some(1),
            None => {
                let refused = Refused {
                    count: 0,
                    recorded: now,
                };
                refusals.insert(key, refused);
                Some(1)
            }
        }
    }
}

impl Reader {
    /// Who reads what, without the rest.
    pub(super) fn info(&self, what: &str) -> ReadInfo {
        let groups = self.user.groups.iter().take(MAX_GROUPS).cloned();
        ReadInfo {
            user: self.user.name.clone(),
            uid: self.user.uid.clone(),
            groups: groups.collect(),
            what: what.to_owned(),
            ..ReadInfo::default()
        }
    }
}

impl Bucket {
    fn new(rate: Rate) -> Self {
        Self {
            left: rate.burst,
            at: Instant::now(),
        }
    }

    fn fill(&mut self, rate: Rate) {
        let more = self.at.elapsed().as_secs_f64() * rate.each_second;
        self.left = (self.left + more).min(rate.burst);
        self.at = Instant::now();
    }

    fn take(&mut self, rate: Rate) -> bool {
        self.fill(rate);
        let has_room = self.left >= 1.0;
        if has_room {
            self.left -= 1.0;
        }
        has_room
    }

    fn is_full(&mut self, rate: Rate) -> bool {
        self.fill(rate);
        self.left >= rate.burst
    }
}

#[cfg(test)]
mod tests {
    use chaperone_server::reviews::User;

    use super::*;

    fn reader(name: &str) -> Reader {
        let user = User {
            name: name.to_owned(),
            ..User::default()
        };
        Reader {
            user: Arc::new(user),
            is_allowed: true,
        }
    }

    #[test]
    fn a_user_who_asks_too_often_waits_and_others_do_not() {
        let reads = Reads::default();
        let admitted = (0..100).filter(|_| reads.admit(&reader("a")).is_ok());
        let admitted = admitted.count();
        assert!((40..60).contains(&admitted), "{admitted}");
        assert!(reads.admit(&reader("b")).is_ok());
        let refusal = reads.admit(&reader("a")).unwrap_err();
        assert_eq!(refusal.code, Code::Busy);
        let all: usize = (0..100)
            .map(|user| reader(&format!("u{user}")))
            .filter(|reader| reads.admit(reader).is_ok())
            .count();
        assert!(all < 80, "{all}: all together have a rate too");
    }

    #[test]
    fn refusals_are_recorded_once_a_minute_with_their_number() {
        let reads = Reads::default();
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let agents = Some("agents");
        assert_eq!(reads.count("a", agents, at(0)), Some(1));
        for second in 1..60 {
            assert_eq!(reads.count("a", agents, at(second)), None);
        }
        assert_eq!(reads.count("a", None, at(59)), Some(1));
        assert_eq!(reads.count("b", agents, at(59)), Some(1));
        assert_eq!(reads.count("a", agents, at(60)), Some(60));
        assert_eq!(reads.count("a", agents, at(61)), None);
    }

    #[test]
    fn refusals_beyond_what_is_remembered_are_each_recorded() {
        let reads = Reads::default();
        let begin = Instant::now();
        // One user, who makes up namespaces and asks about each twice.
        for number in 0..MAX_KNOWN {
            let made_up = number.to_string();
            assert_eq!(reads.count("prober", Some(&made_up), begin), Some(1));
            assert_eq!(reads.count("prober", Some(&made_up), begin), None);
        }
        assert_eq!(reads.count("one more", None, begin), Some(1));
        assert_eq!(reads.count("one more", None, begin), Some(1));
        // A minute later all that is forgotten.
        let later = begin + REFUSED_EVERY;
        assert_eq!(reads.count("one more", None, later), Some(1));
        assert_eq!(reads.count("one more", None, later), None);
        assert_eq!(reads.refusals.lock().unwrap().len(), 1);
    }
}
