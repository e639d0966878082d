//! Access: who a caller is, and how much it may do.
//!
//! | file | contents |
//! |---|---|
//! | `token` | generates, recognizes and hashes tokens |
//! | `keys` | the valid keys, their state and their counters |
//! | `limit` | events per second, for a key or for an address |

mod keys;
mod limit;
mod token;

pub use self::keys::{ActiveKey, AuthError, InUse, KeyCounts, Keys};
pub use self::limit::{AddressLimits, Exceeded, Limiter};
pub use self::token::{generate_token, hash_token, is_token};
