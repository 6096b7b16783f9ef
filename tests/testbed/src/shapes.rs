//! The documents of the canvas service, in the recorded shapes.

use crate::fedora::{Fedora, Holding, Leaf, uuid_of};
use crate::json::{Json, text, texts};

const LOGO: &str = "https://library.tamu.edu/assets/images/tamu-logos/TAM-PrimaryMarkB.png";

/// Writes the documents of one testbed.
#[derive(Debug, Clone)]
pub(crate) struct Shapes {
    pub(crate) public_base: String,
    pub(crate) fedora: Fedora,
}

/// Last segment: the service's name of an object.
fn name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Name by which a manifest calls itself: a book its path, an object that is its own page its name (both recorded).
fn called(holding: &Holding) -> &str {
    let own_page = holding.leaves.iter().any(|leaf| leaf.path == holding.path);
    if own_page { name(&holding.path) } else { &holding.path }
}

fn metadata(label: &str, identifier: &str, path: &str) -> Json {
    let one = |label: &str, value: &str| Json::Object(vec![("label", text(label)), ("value", text(value))]);
    Json::List(vec![one("identifier", identifier), one("title", label), one("context", path)])
}

impl Shapes {
    pub(crate) fn url(&self, kind: &str, path: &str) -> String {
        format!("{}/iiif-service/fedora/{kind}/{path}", self.public_base)
    }

    fn service(&self, id: &str) -> Json {
        Json::Object(vec![
            ("label", text("Fedora IIIF Image Resource Service")),
            ("profile", text("http://iiif.io/api/image/2/level0.json")),
            ("@context", text("http://iiif.io/api/image/2/context.json")),
            ("@id", text(format!("{}/iiif/2/{id}", self.public_base))),
        ])
    }

    /// Canvas. `size` is the one of the nested info.json; `None` poisons. `query` is the part of the query that the service
    /// keeps in `@id` and `on` (`?allow=…`, `?disallow=…`); `?page=N` it drops (recorded: `canvas-pdf-page2.json`).
    pub(crate) fn canvas(&self, path: &str, leaf: &Leaf, size: Option<(u32, u32)>, query: &str) -> Json {
        let id = format!("{}{query}", self.url("canvas", path));
        let label = self.fedora.label(&leaf.path, &leaf.label);
        let (width, height) = size.unwrap_or((0, 0));
        let images = size.map(|size| self.annotation(leaf, &uuid_of(&self.fedora.file_url(leaf)), &id, size));
        Json::Object(vec![
            ("@id", text(&id)),
            ("@type", text("sc:Canvas")),
            ("height", Json::Number(height)),
            ("images", Json::List(images.into_iter().collect())),
            ("label", texts(&[&label, name(path)])),
            ("metadata", metadata(&label, name(path), path)),
            ("width", Json::Number(width)),
        ])
    }

    /// A PDF page inside a manifest: `?page=N`, `{uuid};N`, and `on` without the query (upstream.md "Identifiers").
    fn pdf_canvas(&self, leaf: &Leaf, page: u32, (width, height): (u32, u32)) -> Json {
        let url = self.url("canvas", &leaf.path);
        let id = format!("{};{page}", uuid_of(&self.fedora.file_url(leaf)));
        let label = self.fedora.label(&leaf.path, &leaf.label);
        Json::Object(vec![
            ("@id", text(format!("{url}?page={page}"))),
            ("@type", text("sc:Canvas")),
            ("height", Json::Number(height)),
            ("images", Json::List(vec![self.annotation(leaf, &id, &url, (width, height))])),
            ("label", text(format!("{label}?page={page}"))),
            ("width", Json::Number(width)),
        ])
    }

    fn annotation(&self, leaf: &Leaf, id: &str, on: &str, (width, height): (u32, u32)) -> Json {
        let image = format!("{}/iiif/2/{id}", self.public_base);
        let resource = Json::Object(vec![
            ("@id", text(format!("{image}/full/full/0/default.jpg"))),
            ("@type", text("dctypes:Image")),
            ("format", text(leaf.format)),
            ("height", Json::Number(height)),
            ("service", self.service(id)),
            ("width", Json::Number(width)),
        ]);
        Json::Object(vec![
            ("@id", text(format!("{image}/info.json"))),
            ("@type", text("oa:Annotation")),
            ("motivation", text("sc:painting")),
            ("on", text(on)),
            ("resource", resource),
        ])
    }

    fn canvases(&self, sized: &[(&Leaf, (u32, u32))], query: &str) -> Vec<Json> {
        let of = |(leaf, size): &(&Leaf, (u32, u32))| match leaf.pdf_pages {
            0 => vec![self.canvas(&leaf.path, leaf, Some(*size), query)],
            pages => (1..=pages).map(|page| self.pdf_canvas(leaf, page, *size)).collect(),
        };
        sized.iter().flat_map(of).collect()
    }

    /// A sequence of the leaves whose info.json came; the others are simply not in it (upstream.md "Poison").
    pub(crate) fn sequence(&self, holding: &Holding, sized: &[(&Leaf, (u32, u32))], query: &str) -> Json {
        let label = self.fedora.label(&holding.path, &holding.label);
        Json::Object(vec![
            ("@id", text(format!("{}{query}", self.url("sequence", &holding.path)))),
            ("@type", text("sc:Sequence")),
            ("canvases", Json::List(self.canvases(sized, query))),
            ("label", texts(&[&label, called(holding)])),
        ])
    }

    /// A manifest of Presentation 2.
    pub(crate) fn presentation(&self, holding: &Holding, sized: &[(&Leaf, (u32, u32))], query: &str) -> Json {
        let label = self.fedora.label(&holding.path, &holding.label);
        let mut fields = vec![
            ("@context", text("http://iiif.io/api/presentation/2/context.json")),
            ("@id", text(format!("{}{query}", self.url("presentation", &holding.path)))),
            ("@type", text("sc:Manifest")),
            ("label", texts(&[&label, called(holding)])),
            ("logo", text(LOGO)),
            ("metadata", metadata(&label, called(holding), &holding.path)),
            ("sequences", Json::List(vec![self.sequence(holding, sized, query)])),
        ];
        if let Some((leaf, _)) = sized.first() {
            let page = if leaf.pdf_pages == 0 { "" } else { ";1" };
            let id = format!("{}{page}", uuid_of(&self.fedora.file_url(leaf)));
            let image = format!("{}/iiif/2/{id}/full/!100,100/0/default.jpg", self.public_base);
            fields.push((
                "thumbnail",
                Json::Object(vec![("@id", text(image)), ("service", self.service(&id))]),
            ));
        }
        Json::Object(fields)
    }

    /// A collection: one manifest per page, the last first, as recorded.
    pub(crate) fn collection(&self, holding: &Holding) -> Json {
        let label = self.fedora.label(&holding.path, &holding.label);
        let manifest = |leaf: &Leaf| {
            Json::Object(vec![
                ("@id", text(self.url("presentation", &leaf.path))),
                ("@type", text("sc:Manifest")),
                ("label", texts(&[&self.fedora.label(&leaf.path, &leaf.label), name(&leaf.path)])),
            ])
        };
        Json::Object(vec![
            ("@context", text("http://iiif.io/api/presentation/2/context.json")),
            ("@id", text(self.url("collection", &holding.path))),
            ("@type", text("sc:Collection")),
            ("label", texts(&[&label, called(holding)])),
            ("logo", text(LOGO)),
            ("manifests", Json::List(holding.leaves.iter().rev().map(manifest).collect())),
            ("metadata", metadata(&label, called(holding), &holding.path)),
            ("viewingHint", text("multi-part")),
        ])
    }
}
