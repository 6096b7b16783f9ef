//! The standard's own things, pure: no tokio, no hyper, no clock.

pub mod canvas;
pub mod identifier;
pub mod image_request;
pub mod manifest;

pub use canvas::CanvasUrl;
pub use identifier::{Identifier, IdentifierKind};
pub use image_request::{ImageRequest, Target};
