//! Accepts and gives up partitions, and decides where their consumption starts.

use std::time::{Duration, Instant};

use rdkafka::consumer::{Consumer, RebalanceProtocol};
use rdkafka::topic_partition_list::{TopicPartitionList, TopicPartitionListElem};

use super::context::Rebalance;
use super::start::{self, Start};
use super::{KafkaSubscription, SESSION_TIMEOUT};
use crate::domain::position::Partition;
use crate::domain::subscription::{QueueError, Signal, Subscription as _};

/// Time to wait for a check of the topic before a rebalance.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);

impl KafkaSubscription {
    /// Returns the next rebalance once it is known that the topic is still the same.
    /// When a topic is deleted, the group forgets its committed offsets and revokes
    /// its partitions, which would look as if nothing had been stored.
    pub(super) fn next_rebalance(&mut self) -> Option<Rebalance> {
        let mut rebalances = self.consumer.as_ref()?.context().rebalances.lock();
        let is_urgent = match rebalances.front()? {
            Rebalance::Assign(_) => false,
            Rebalance::Revoke { is_lost, .. } => *is_lost,
        };
        let since = *self.rebalance_since.get_or_insert_with(|| {
            let now = Instant::now();
            self.topic.check_now();
            now
        });
        let is_over = since.elapsed() >= CHECK_TIMEOUT && self.topic.is_confirmed();
        if !is_urgent && !self.topic.is_found_since(since) && !is_over {
            return None;
        }
        self.rebalance_since = None;
        // Noticed since this poll began.
        if self.topic.incarnation() != self.incarnation {
            return None;
        }
        rebalances.pop_front()
    }

    /// Accepts an assignment, or reports a revocation.
    pub(super) fn handle_rebalance(&mut self, rebalance: Rebalance) -> Result<Signal, QueueError> {
        let Some(consumer) = &self.consumer else { return Ok(Signal::None) };
        let partitions = |list: &TopicPartitionList| -> Vec<Partition> {
            list.elements().iter().map(TopicPartitionListElem::partition).collect()
        };
        match rebalance {
            Rebalance::Assign(list) => {
                let (id, known) = (self.topic_id.as_deref(), self.topic.offsets());
                let starts = match start::starts(consumer, &list, id, &known) {
                    Ok(starts) => starts,
                    Err(error) => {
                        consumer.context().rebalances.lock().push_front(Rebalance::Assign(list));
                        let reason = "cannot read the group's committed offsets";
                        return Err(QueueError::because(reason, error));
                    }
                };
                let positions = start::positions(&list, &starts);
                let assigned = match consumer.rebalance_protocol() {
                    RebalanceProtocol::Cooperative => consumer.incremental_assign(&positions),
                    RebalanceProtocol::None | RebalanceProtocol::Eager => {
                        consumer.assign(&positions)
                    }
                };
                assigned.map_err(|error| QueueError::because("cannot accept partitions", error))?;
                // Resumes even if nothing is paused now: a partition that was paused when it was
                // revoked is still paused in librdkafka.
                let flow =
                    if self.is_paused { consumer.pause(&list) } else { consumer.resume(&list) };
                flow.map_err(|error| QueueError::because("cannot pause or resume", error))?;
                self.begin(&starts);
                self.state.succeed();
                Ok(Signal::Assigned(partitions(&list)))
            }
            Rebalance::Revoke { list, is_lost } => {
                let names = partitions(&list);
                for partition in &names {
                    self.committed.remove(partition);
                    self.gaps.forget(*partition);
                }
                self.owned.retain(|partition| !names.contains(partition));
                self.uncommitted_starts.retain(|(partition, _)| !names.contains(partition));
                self.unreleased = Some(list);
                if is_lost {
                    Ok(Signal::Lost(names))
                } else {
                    Ok(Signal::Revoked(names, SESSION_TIMEOUT / 2))
                }
            }
        }
    }

    /// Notes where the consumption of assigned partitions starts.
    fn begin(&mut self, starts: &[Start]) {
        for Start { partition, offset, expired, is_new } in starts {
            self.owned.insert(*partition);
            let Some(offset) = offset else {
                self.unknown_starts.push(*partition);
                continue;
            };
            self.gaps.expect(&[(*partition, *offset)]);
            if *expired > 0 {
                self.pending.push_back(Signal::Expired(*partition, *expired));
            }
            if *is_new {
                self.uncommitted_starts.push((*partition, *offset));
            }
        }
        self.commit_starts();
    }

    /// Looks up first offsets that were unknown, as those of a new partition whose
    /// leader did not respond yet.
    pub(super) fn find_starts(&mut self) {
        let known = self.topic.offsets();
        for partition in std::mem::take(&mut self.unknown_starts) {
            if !self.owned.contains(&partition) {
                continue;
            }
            match known.get(&partition) {
                Some(offsets) if !self.gaps.expects(partition) => {
                    self.gaps.expect(&[(partition, offsets.start)]);
                    self.uncommitted_starts.push((partition, offsets.start));
                }
                // Its records are delivered already.
                Some(_) => {}
                None => self.unknown_starts.push(partition),
            }
        }
    }

    /// Commits the first offsets of partitions without a committed offset.
    pub(super) fn commit_starts(&mut self) {
        self.tried_at = Instant::now();
        let starts = std::mem::take(&mut self.uncommitted_starts);
        if let Err(error) = self.commit(&starts) {
            tracing::debug!(%error, "the first offsets are committed later");
            self.uncommitted_starts = starts;
        }
    }

    /// Counts records that were deleted while there was nothing to deliver. A gap
    /// is only noticed with the next record, which may never come.
    pub(super) fn count_deleted(&mut self) {
        for (partition, offsets) in self.topic.offsets().iter() {
            let deleted = self.gaps.skip_to(*partition, offsets.start);
            if deleted > 0 {
                self.pending.push_back(Signal::Expired(*partition, deleted));
            }
        }
    }
}
