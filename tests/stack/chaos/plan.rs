//! The plan: which fault hits which part, in which order and for how long. It is a pure function of
//! the random seed.
//!
//! A plan has three tracks that run concurrently: one for the servers, one for the brokers and one
//! for the members of the replica set. Within a track, a fault is over and its part has recovered
//! before the next fault begins. So at most one broker and one mongod are down at a time, and a
//! majority of each is left. Servers need no majority: all workers may be killed at once.
//!
//! A track holds pauses instead of points in time, because the recovery time of a killed broker
//! cannot be planned.

use std::fmt;
use std::time::Duration;

use super::random::{Random, mix};

/// The number of API servers.
pub(super) const APIS: usize = 2;
/// The number of workers.
pub(super) const WORKERS: usize = 3;
/// The number of Kafka brokers.
pub(super) const BROKERS: usize = 3;
/// The number of members of the replica set.
pub(super) const MEMBERS: usize = 3;

/// The part that a fault hits, numbered from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// An API server.
    Api(usize),
    /// A worker.
    Worker(usize),
    /// All workers.
    AllWorkers,
    /// A broker of Kafka.
    Broker(usize),
    /// The topic.
    Topic,
    /// A member of the replica set.
    Member(usize),
    /// The member that is primary when the fault begins.
    Primary,
}

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL, and a start afterwards.
    Kill,
    /// SIGTERM, and a start afterwards. A broker hands its partitions over to the others.
    Stop,
    /// SIGSTOP, and SIGCONT afterwards.
    Freeze,
    /// Its connections are closed, and can be opened again at once.
    Cut,
    /// Its connections are closed, and new ones are refused.
    Refuse,
    /// Its connections get this much additional latency in each direction.
    Delay(Duration),
    /// Its connections stay open, and no bytes are forwarded.
    Stall,
    /// Another member becomes primary.
    StepDown,
    /// The size limit of a group of records is only as large as a few events.
    LimitMessages,
    /// The topic gets another partition, for good.
    AddPartition,
    /// The topic is deleted and created again, while it has no event that is not stored.
    RecreateTopic,
    /// Its stderr is a full pipe that is not read.
    StallStderr,
    /// Clients read large responses a few bytes per second, or not at all.
    SlowReaders,
}

/// One fault in a track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// The pause before it.
    pub pause: Duration,
    /// The part that it hits.
    pub part: Part,
    /// The kind of fault.
    pub fault: Fault,
    /// How long it lasts.
    pub duration: Duration,
}

/// One round, which has each kind of fault at least once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The faults of the servers.
    pub servers: Vec<Step>,
    /// The faults of Kafka.
    pub brokers: Vec<Step>,
    /// The faults of MongoDB.
    pub members: Vec<Step>,
}

impl Plan {
    /// Returns the plan of a round.
    #[must_use]
    pub fn new(seed: u64, round: u64) -> Self {
        let mut random = Random::new(mix(seed, round));
        Self {
            servers: servers(&mut random),
            brokers: brokers(&mut random, round),
            members: members(&mut random),
        }
    }
}

fn track(random: &mut Random, faults: &mut [(Part, Fault, Duration)]) -> Vec<Step> {
    random.shuffle(faults);
    let step = |&(part, fault, duration): &(Part, Fault, Duration)| {
        let pause = random.millis(1_000, 4_000);
        Step { pause, part, fault, duration }
    };
    faults.iter().map(step).collect()
}

fn servers(random: &mut Random) -> Vec<Step> {
    let r = random;
    let mut faults = vec![
        (api(r), Fault::Kill, r.millis(0, 3_000)),
        (api(r), Fault::Stop, r.millis(0, 2_000)),
        (api(r), Fault::Freeze, r.millis(1_000, 4_000)),
        (api(r), Fault::Cut, Duration::ZERO),
        (api(r), Fault::Refuse, r.millis(1_000, 3_000)),
        (api(r), delay(r), r.millis(2_000, 5_000)),
        (worker(r), Fault::Kill, r.millis(0, 5_000)),
        (worker(r), Fault::Kill, r.millis(0, 1_000)),
        (worker(r), Fault::Stop, r.millis(0, 3_000)),
        (worker(r), Fault::Freeze, r.millis(1_000, 5_000)),
        // Longer than the group's session timeout: others own its partitions when it resumes.
        (worker(r), Fault::Freeze, r.millis(12_000, 16_000)),
        (Part::AllWorkers, Fault::Kill, r.millis(0, 3_000)),
        (api(r), Fault::StallStderr, r.millis(3_000, 8_000)),
        (worker(r), Fault::StallStderr, r.millis(3_000, 8_000)),
        (api(r), Fault::SlowReaders, r.millis(3_000, 8_000)),
    ];
    track(r, &mut faults)
}

fn brokers(random: &mut Random, round: u64) -> Vec<Step> {
    let r = random;
    let mut faults = vec![
        (broker(r), Fault::Kill, r.millis(1_000, 8_000)),
        (broker(r), Fault::Stop, r.millis(0, 4_000)),
        (broker(r), Fault::Freeze, r.millis(1_000, 5_000)),
        // Longer than a broker's session timeout: others lead its partitions when it resumes.
        (broker(r), Fault::Freeze, r.millis(10_000, 13_000)),
        (broker(r), Fault::Cut, Duration::ZERO),
        (broker(r), Fault::Refuse, r.millis(2_000, 7_000)),
        (broker(r), delay(r), r.millis(3_000, 8_000)),
        (broker(r), Fault::Stall, r.millis(2_000, 9_000)),
        (Part::Topic, Fault::LimitMessages, r.millis(4_000, 15_000)),
        (Part::Topic, Fault::AddPartition, Duration::ZERO),
    ];
    // Not in a short run, so that it consumes its whole topic again at the end.
    if replaces_topic(round) {
        faults.push((Part::Topic, Fault::RecreateTopic, Duration::ZERO));
    }
    track(r, &mut faults)
}

/// Returns whether the topic is replaced in this round.
fn replaces_topic(round: u64) -> bool {
    round > 1 && round.is_multiple_of(2)
}

fn members(random: &mut Random) -> Vec<Step> {
    let r = random;
    let mut faults = vec![
        (Part::Primary, Fault::Kill, r.millis(1_000, 6_000)),
        (member(r), Fault::Kill, r.millis(1_000, 6_000)),
        (Part::Primary, Fault::Stop, r.millis(0, 3_000)),
        (Part::Primary, Fault::Freeze, r.millis(2_000, 8_000)),
        (member(r), Fault::Freeze, r.millis(2_000, 8_000)),
        (Part::Primary, Fault::StepDown, r.millis(2_000, 6_000)),
        (Part::Primary, Fault::StepDown, r.millis(2_000, 6_000)),
        (Part::Primary, Fault::Cut, Duration::ZERO),
        (member(r), Fault::Refuse, r.millis(2_000, 6_000)),
        (Part::Primary, delay(r), r.millis(3_000, 8_000)),
        (Part::Primary, Fault::Stall, r.millis(2_000, 8_000)),
    ];
    track(r, &mut faults)
}

fn api(random: &mut Random) -> Part {
    Part::Api(random.below(APIS))
}

fn worker(random: &mut Random) -> Part {
    Part::Worker(random.below(WORKERS))
}

fn broker(random: &mut Random) -> Part {
    Part::Broker(random.below(BROKERS))
}

fn member(random: &mut Random) -> Part {
    Part::Member(random.below(MEMBERS))
}

fn delay(random: &mut Random) -> Fault {
    Fault::Delay(random.millis(10, 150))
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Api(n) => write!(f, "api {n}"),
            Self::Worker(n) => write!(f, "worker {n}"),
            Self::AllWorkers => f.write_str("all workers"),
            Self::Broker(n) => write!(f, "broker {n}"),
            Self::Topic => f.write_str("the topic"),
            Self::Member(n) => write!(f, "mongod {n}"),
            Self::Primary => f.write_str("the primary"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill => f.write_str("kill -9"),
            Self::Stop => f.write_str("stop"),
            Self::Freeze => f.write_str("freeze"),
            Self::Cut => f.write_str("cut the connections of"),
            Self::Refuse => f.write_str("refuse connections to"),
            Self::Delay(by) => write!(f, "delay by {} ms", by.as_millis()),
            Self::Stall => f.write_str("stall the connections of"),
            Self::StepDown => f.write_str("step down"),
            Self::LimitMessages => f.write_str("limit the messages of"),
            Self::AddPartition => f.write_str("add a partition to"),
            Self::RecreateTopic => f.write_str("delete and create"),
            Self::StallStderr => f.write_str("stall the stderr of"),
            Self::SlowReaders => f.write_str("read slowly from"),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.fault, self.part)?;
        if !self.duration.is_zero() {
            write!(f, " for {:.1} s", self.duration.as_secs_f64())?;
        }
        Ok(())
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tracks =
            [("servers", &self.servers), ("brokers", &self.brokers), ("mongods", &self.members)];
        for (name, steps) in tracks {
            let steps: Vec<_> = steps.iter().map(ToString::to_string).collect();
            writeln!(f, "  {name}: {}", steps.join("; "))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Condition = (&'static str, fn(&Step) -> bool);

    /// What each round contains, for every random seed.
    const IN_EACH_ROUND: [Condition; 21] = [
        ("an api is killed", |step| {
            matches!(step, Step { part: Part::Api(_), fault: Fault::Kill, .. })
        }),
        ("a worker is killed", |step| {
            matches!(step, Step { part: Part::Worker(_), fault: Fault::Kill, .. })
        }),
        ("all workers are killed", |step| step.part == Part::AllWorkers),
        ("a worker is frozen for longer than its session", |step| {
            matches!(step.part, Part::Worker(_))
                && step.fault == Fault::Freeze
                && step.duration > Duration::from_secs(11)
        }),
        ("callers are cut off", |step| {
            matches!(step, Step { part: Part::Api(_), fault: Fault::Cut, .. })
        }),
        ("the log of an api is not read", |step| {
            matches!(step, Step { part: Part::Api(_), fault: Fault::StallStderr, .. })
        }),
        ("the log of a worker is not read", |step| {
            matches!(step, Step { part: Part::Worker(_), fault: Fault::StallStderr, .. })
        }),
        ("clients read slowly", |step| step.fault == Fault::SlowReaders),
        ("a broker is killed", |step| {
            matches!(step, Step { part: Part::Broker(_), fault: Fault::Kill, .. })
        }),
        ("leaders move", |step| {
            matches!(step, Step { part: Part::Broker(_), fault: Fault::Stop, .. })
        }),
        ("a broker freezes", |step| {
            matches!(step, Step { part: Part::Broker(_), fault: Fault::Freeze, .. })
        }),
        ("Kafka is cut off", |step| {
            matches!(step, Step { part: Part::Broker(_), fault: Fault::Cut, .. })
        }),
        ("Kafka is slow", |step| {
            matches!(step, Step { part: Part::Broker(_), fault: Fault::Delay(_), .. })
        }),
        ("Kafka is silent", |step| {
            matches!(step, Step { part: Part::Broker(_), fault: Fault::Stall, .. })
        }),
        ("the topic's settings change", |step| step.fault == Fault::LimitMessages),
        ("the topic gets a partition", |step| step.fault == Fault::AddPartition),
        ("the primary is killed", |step| {
            matches!(step, Step { part: Part::Primary, fault: Fault::Kill, .. })
        }),
        ("the primary freezes", |step| {
            matches!(step, Step { part: Part::Primary, fault: Fault::Freeze, .. })
        }),
        ("the primary steps down", |step| step.fault == Fault::StepDown),
        ("MongoDB is slow", |step| {
            matches!(step, Step { part: Part::Primary, fault: Fault::Delay(_), .. })
        }),
        ("MongoDB is silent", |step| {
            matches!(step, Step { part: Part::Primary, fault: Fault::Stall, .. })
        }),
    ];

    proptest! {
        #[test]
        fn plan_follows_from_its_seed(seed: u64, round in 0_u64..1_000) {
            prop_assert_eq!(Plan::new(seed, round), Plan::new(seed, round));
            prop_assert_ne!(Plan::new(seed, round), Plan::new(seed, round + 1));
            prop_assert_ne!(Plan::new(seed, round), Plan::new(seed.wrapping_add(1), round));
        }

        #[test]
        fn each_round_has_each_fault_and_is_short(seed: u64, round in 0_u64..1_000) {
            let Plan { servers, brokers, members } = Plan::new(seed, round);
            let all = [servers.as_slice(), &brokers, &members].concat();
            for (what, is_it) in IN_EACH_ROUND {
                prop_assert!(all.iter().any(is_it), "missing: {what}");
            }
            let recreated = all.iter().filter(|step| step.fault == Fault::RecreateTopic).count();
            prop_assert_eq!(recreated, usize::from(replaces_topic(round)));
            for track in [&servers, &brokers, &members] {
                let planned: Duration = track.iter().map(|step| step.pause + step.duration).sum();
                prop_assert!(planned < Duration::from_secs(150), "{planned:?}");
            }
        }

        #[test]
        fn faults_have_existing_targets_and_stay_in_their_sequence(seed: u64, round in 0_u64..1_000) {
            let Plan { servers, brokers, members } = Plan::new(seed, round);
            for step in servers {
                let exists = match step.part {
                    Part::Api(n) => n < APIS,
                    Part::Worker(n) => n < WORKERS,
                    Part::AllWorkers => true,
                    _ => false,
                };
                prop_assert!(exists, "{step}");
            }
            // One track has one fault at a time, so a majority is left.
            for step in brokers {
                let exists = match step.part {
                    Part::Broker(n) => n < BROKERS,
                    Part::Topic => true,
                    _ => false,
                };
                prop_assert!(exists, "{step}");
            }
            for step in members {
                let exists = match step.part {
                    Part::Member(n) => n < MEMBERS,
                    Part::Primary => true,
                    _ => false,
                };
                prop_assert!(exists, "{step}");
            }
        }
    }
}
