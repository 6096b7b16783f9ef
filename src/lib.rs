//! A self-healing reverse proxy for IIIF images.
//!
//! When the image server answers 404 for an image that some manifest says exists, iiif-mender asks for the
//! canvas that owns it, which makes the canvas service register the image anew, and then answers the viewer's
//! own request with the picture. Start reading at [`proxy`]; `docs/ARCHITECTURE.md` is the map.
//!
//! For other programs there is [`iiif`]: identifiers, image requests, and which canvas owns which image. This module
//! follows semantic versioning (`docs/decisions/0006-the-crate.md`). The other modules are public for the program and its
//! tests; they change without notice.

#[cfg_attr(docsrs, doc(hidden))]
pub mod admin;
#[cfg_attr(docsrs, doc(hidden))]
pub mod app;
#[cfg_attr(docsrs, doc(hidden))]
pub mod batch;
#[cfg_attr(docsrs, doc(hidden))]
pub mod cache;
#[cfg_attr(docsrs, doc(hidden))]
pub mod cli;
#[cfg_attr(docsrs, doc(hidden))]
pub mod cluster;
#[cfg_attr(docsrs, doc(hidden))]
pub mod config;
#[cfg_attr(docsrs, doc(hidden))]
pub mod heal;
pub mod iiif;
#[cfg_attr(docsrs, doc(hidden))]
pub mod index;
#[cfg_attr(docsrs, doc(hidden))]
pub mod listen;
mod manual;
#[cfg_attr(docsrs, doc(hidden))]
pub mod observe;
#[cfg_attr(docsrs, doc(hidden))]
pub mod outcome;
#[cfg_attr(docsrs, doc(hidden))]
pub mod presentation;
#[cfg_attr(docsrs, doc(hidden))]
pub mod proxy;
#[cfg_attr(docsrs, doc(hidden))]
pub mod setup;
#[cfg_attr(docsrs, doc(hidden))]
pub mod top;
#[cfg_attr(docsrs, doc(hidden))]
pub mod upstream;
