//! What only this adapter promises.
