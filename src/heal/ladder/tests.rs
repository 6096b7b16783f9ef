//! Tests of the ladder over fakes.
