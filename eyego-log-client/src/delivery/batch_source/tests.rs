//! Tests of the batch source.
