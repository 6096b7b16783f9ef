//! A self-healing reverse proxy for IIIF images.
//!
//! When the image server answers 404 for an image that some manifest says exists, iiif-mender asks for the
//! canvas that owns it, which makes the canvas service register the image anew, and then answers the viewer's
//! own request with the picture. Start reading at [`proxy`]; `docs/ARCHITECTURE.md` is the map.

pub mod admin;
pub mod app;
pub mod batch;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod heal;
pub mod iiif;
pub mod index;
pub mod listen;
pub mod observe;
pub mod outcome;
pub mod presentation;
pub mod proxy;
pub mod top;
pub mod upstream;
