//! Pages of a book, with all their names.

use bytes::Bytes;

use crate::geometry::Parameters;
use crate::picture;

/// Picture as manifests name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Identifier as in `/iiif/2/{identifier}/…`: the UUID, for a PDF's page `{uuid};{page}`.
    pub identifier: String,
    /// The UUID of the file.
    pub uuid: String,
    /// The base64 identifier of the public file URL, with `;{page}` where it has one.
    pub base64_id: String,
    /// The file, as the canvas service knows it: `uuid3(file_url) == uuid`.
    pub file_url: String,
    /// The file under the public base.
    pub public_file_url: String,
    /// The canvas `@id` in a manifest (public base, `?page=N` for a PDF).
    pub canvas_url: String,
    /// Path and query of the canvas: `/iiif-service/fedora/canvas/…`.
    pub canvas_path: String,
    /// `/iiif-service/fedora/image/{path}/files/{name}`, without `?update=true`.
    pub register_path: String,
    /// `/iiif-service/fedora/presentation/…` of the book.
    pub presentation_path: String,
    /// Path in the repository, as [`Fedora::removes_file`](crate::Fedora::removes_file) and
    /// [`Redis::forgets_canvas`](crate::Redis::forgets_canvas) take it.
    pub path: String,
    /// The number painted on it.
    pub number: u32,
    /// Width and height.
    pub size: (u32, u32),
}

impl Page {
    /// `/iiif/2/{identifier}/{rest}`
    pub fn image_path(&self, rest: &str) -> String {
        format!("/iiif/2/{}/{rest}", self.identifier)
    }

    /// A small picture of the whole page: `/iiif/2/{identifier}/full/150,/0/default.jpg`.
    pub fn thumbnail_path(&self) -> String {
        self.image_path("full/150,/0/default.jpg")
    }

    /// `/iiif/2/{identifier}/info.json`
    pub fn info_path(&self) -> String {
        self.image_path("info.json")
    }

    /// `/iiif/2/{base64_id}/{rest}`
    pub fn direct_path(&self, rest: &str) -> String {
        format!("/iiif/2/{}/{rest}", self.base64_id)
    }

    /// Bytes of the image server's answer for `{region}/{size}/{rotation}/{quality}.jpg`, without a request.
    ///
    /// # Panics
    /// Where the request is one that the image server refuses.
    pub fn picture(&self, rest: &str) -> Bytes {
        let plan = Parameters::parse(rest).and_then(|params| params.plan(self.size));
        picture::jpeg(self.number, self.size, plan.expect("a request for a picture"))
    }
}
