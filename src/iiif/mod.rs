//! The standard's own things, pure: no tokio, no hyper, no clock.
//!
//! Start with [`image_request`] (what a viewer asks for), then [`manifest`] (who owns it).

pub mod canvas;
pub mod identifier;
pub mod image_request;
pub mod image_url;
pub mod manifest;
pub mod resource;
pub mod salvage;

pub use canvas::CanvasUrl;
pub use identifier::{Identifier, IdentifierKind};
pub use image_request::{ImageRequest, Target};
