//! Where a record is in the queue.

/// Number of a partition. The embedded queue has a single partition, 0.
pub type Partition = i32;

/// Position of a record within its partition: ascending, possibly with gaps.
pub type Offset = i64;
