//! Background work: the pages ahead of a reader, mass expiries, sweeps, sources that are kept warm.

pub(in crate::heal) mod book;
pub(in crate::heal) mod keep_warm;
pub(in crate::heal) mod mass_expiry;
pub(in crate::heal) mod mass_expiry_detector;
pub(in crate::heal) mod prefetch;
pub(in crate::heal) mod reading;
mod scan;
pub(in crate::heal) mod start_heal;
pub(in crate::heal) mod sweep;
