//! IIIF itself: identifiers, requests, canvases and manifests. Pure: no tokio, no hyper, no clock.
//!
//! Start with [`image_request`] (requests of viewers), then [`manifest`] (which canvas owns an image).
//!
//! This module is for other programs as well: its public items follow semantic versioning, and a test compares them with
//! `tests/it/surface.txt`. `examples/` has programs that use it.
//!
//! ```
//! use iiif_mender::iiif::{ImageRequest, manifest};
//!
//! let manifest = br#"{
//!     "@context": "http://iiif.io/api/presentation/3/context.json", "type": "Manifest", "id": "https://a.test/m",
//!     "items": [{"type": "Canvas", "id": "https://a.test/canvas/1", "items": [{"type": "AnnotationPage", "items": [
//!         {"type": "Annotation", "motivation": "painting", "target": "https://a.test/canvas/1", "body":
//!             {"type": "Image", "id": "https://a.test/iiif/3/abc/full/max/0/default.jpg"}}]}]}]}"#;
//! let (_, canvases) = manifest::read(manifest)?;
//!
//! let request = ImageRequest::parse("abc/full/600,/0/default.jpg").ok_or("not a request")?;
//! let owner = canvases.iter().find(|canvas| canvas.images.iter().any(|image| *image == request.identifier.key()));
//! assert_eq!(owner.map(|canvas| &*canvas.id), Some("https://a.test/canvas/1"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod canvas;
pub mod identifier;
pub mod image_path;
pub mod image_request;
pub(crate) mod image_size;
pub mod image_url;
pub mod json_repair;
pub mod manifest;
pub mod registration;

pub use canvas::CanvasUrl;
pub use identifier::{Identifier, IdentifierKind};
pub use image_request::{ImageRequest, Target};
