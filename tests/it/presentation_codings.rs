//! Documents in codings that nobody asked for: read, and where the host is another one rewritten, in every framing.

use std::collections::BTreeSet;
use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use iiif_mender::app::App;
use serde_json::{Value, json};
use testbed::{Client, Flow, Origin};

use crate::support::world::{checked, library_before, patiently};

const JSON: (&str, &str) = ("content-type", "application/json");

/// The codings, by what a test calls them, and their names on the wire.
const CODINGS: [(&str, &str); 6] = [
    ("gzip", "gzip"),
    ("deflate", "deflate"),
    ("raw", "deflate"),
    ("br", "br"),
    ("zstd", "zstd"),
    ("frames", "zstd"),
];

/// A manifest of many canvases, so that it does not fit into one piece.
fn manifest(name: &str, host: &str) -> String {
    let canvas = |number: usize| {
        json!({ "@id": format!("https://{host}/svc/canvas/{name}-{number}"), "@type": "sc:Canvas", "height": 9, "width": 9,
            "images": [{ "resource": { "service": { "@id": format!("https://{host}/iiif/2/{name}-{number}"), "profile": "level2" } } }] })
    };
    let canvases: Vec<Value> = (0..200).map(canvas).collect();
    json!({ "@id": format!("https://{host}/svc/{name}"), "@type": "sc:Manifest", "sequences": [{ "canvases": canvases }] })
        .to_string()
}

fn packed(coding: &str, plain: &[u8]) -> Vec<u8> {
    match coding {
        "gzip" => {
            let mut packing = flate2::write::GzEncoder::new(Vec::new(), Compression::fast());
            packing.write_all(plain).expect("memory");
            packing.finish().expect("memory")
        }
        "deflate" => {
            let mut packing = flate2::write::ZlibEncoder::new(Vec::new(), Compression::fast());
            packing.write_all(plain).expect("memory");
            packing.finish().expect("memory")
        }
        "raw" => {
            let mut packing = flate2::write::DeflateEncoder::new(Vec::new(), Compression::fast());
            packing.write_all(plain).expect("memory");
            packing.finish().expect("memory")
        }
        // Blocks that are not compressed, and an empty last one (RFC 7932 section 9.2).
        "br" => {
            let mut all = Vec::new();
            for (at, block) in plain.chunks(1 << 16).enumerate() {
                let length = u32::try_from(block.len() - 1).expect("short");
                // The first block has the size of the window before it.
                let head = if at == 0 { length << 4 | 1 << 20 } else { length << 3 | 1 << 19 };
                all.extend_from_slice(&head.to_le_bytes()[..3]);
                all.extend_from_slice(block);
            }
            all.push(3);
            all
        }
        "zstd" => ruzstd::encoding::compress_to_vec(plain, ruzstd::encoding::CompressionLevel::Fastest),
        // One that is to be skipped, then two that hold the document (RFC 8878 section 3.1).
        "frames" => {
            let (first, second) = plain.split_at(plain.len() / 2);
            [&b"\x50\x2a\x4d\x18\x01\0\0\0x"[..], &packed("zstd", first), &packed("zstd", second)].concat()
        }
        other => panic!("{other}"),
    }
}

async fn app(service: &Origin, folder: &std::path::Path, more: &str) -> App {
    let text = library_before(&service.url());
    App::start(checked(folder, &text, more)).await.expect("it starts")
}

fn service() -> Origin {
    Origin::start(|seen| {
        let name = seen.path().rsplit('/').find(|part| *part != "info.json").unwrap_or_default().to_owned();
        let (coding, framing) = name.split_once('-').unwrap_or((&name, ""));
        let Some((_, field)) = CODINGS.iter().find(|(own, _)| *own == coding) else {
            let fields = [JSON, ("content-encoding", "compress")];
            return Origin::answer(200, &fields, Flow::chunked(manifest(&name, "lib.test")));
        };
        let bytes = packed(coding, manifest(&name, "lib.test").as_bytes());
        let flow = if framing == "sized" { Flow::sized(bytes) } else { Flow::chunked(bytes) };
        Origin::answer(200, &[JSON, ("content-encoding", field), ("etag", "\"a\"")], flow)
    })
}

#[tokio::test]
async fn documents_in_every_coding_are_learned_and_pass_as_they_are() {
    let (service, folder) = (service(), tempfile::tempdir().expect("a directory"));
    let app = app(&service, folder.path(), "").await;
    let browser = [("accept-encoding", "gzip, deflate, br, zstd")];
    for (coding, field) in CODINGS {
        for framing in ["sized", "chunked"] {
            let name = format!("{coding}-{framing}");
            let url = format!("http://{}/svc/{name}", app.addresses[0]);
            let came = Client::default().get(&url, &browser).await.expect("an answer");
            assert_eq!((came.status, came.header("content-encoding")), (200, field), "{name}");
            assert_eq!(came.body, packed(coding, manifest(&name, "lib.test").as_bytes()), "{name}");
            let key = format!("{name}-199");
            patiently("it is learned", || !app.index.owners(&key).expect("an index").is_empty()).await;
        }
    }
    let url = format!("http://{}/svc/compress", app.addresses[0]);
    let other = Client::default().get(&url, &browser).await.expect("an answer");
    assert_eq!((other.status, other.text()), (200, manifest("compress", "lib.test")), "it passes as it is");
    assert!(app.metrics.scrape().contains(r#"iiif_mender_events_total{kind="coding_other"} 1"#));
    let asked: BTreeSet<_> =
        service.seen().iter().map(|seen| seen.header("accept-encoding").to_owned()).collect();
    assert_eq!(asked, BTreeSet::from(["gzip".to_owned()]));
}

#[tokio::test]
async fn documents_in_every_coding_are_rewritten_in_every_framing() {
    // Shared and held, held for nobody, and streaming by.
    for more in [
        "",
        "\npresentation.collapse = false",
        "\npresentation.collapse = false\npresentation.watch = false\npresentation.repair = false\nindex.learn = false",
    ] {
        let (service, folder) = (service(), tempfile::tempdir().expect("a directory"));
        let app = app(&service, folder.path(), &format!("rewrite.public_url = https://new.test{more}")).await;
        for (coding, _) in CODINGS {
            for framing in ["sized", "chunked"] {
                for path in ["svc/NAME", "iiif/2/NAME/info.json"] {
                    let name = format!("{coding}-{framing}");
                    let url = format!("http://{}/{}", app.addresses[0], path.replace("NAME", &name));
                    for fields in [&[][..], &[("accept-encoding", "gzip, br")]] {
                        let came = Client::default().get(&url, fields).await.expect("an answer");
                        assert_eq!(
                            came.text(),
                            manifest(&name, "new.test"),
                            "{url}{more}: {:?}",
                            came.headers
                        );
                        assert_eq!((came.status, came.header("content-encoding")), (200, ""), "{url}");
                        assert_eq!(came.header("etag"), "W/\"a\"", "{url}");
                        let length = came.header("content-length");
                        assert!(
                            length.is_empty() || length == came.body.len().to_string(),
                            "{url}: {length}"
                        );
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn a_packed_document_that_is_broken_or_too_long_is_no_short_one() {
    let service = Origin::start(|seen| {
        let coding = seen.path().rsplit('/').next().unwrap_or_default().to_owned();
        let (coding, kind) = coding.split_once('-').expect("a kind");
        let field = CODINGS.iter().find(|(own, _)| *own == coding).expect("a coding").1;
        let plain = if kind == "bomb" { vec![b' '; 3 << 20] } else { manifest("x", "lib.test").into_bytes() };
        let mut bytes = packed(coding, &plain);
        if kind == "cut" {
            bytes.truncate(bytes.len() / 2);
        }
        Origin::answer(200, &[JSON, ("content-encoding", field)], Flow::chunked(Bytes::from(bytes)))
    });
    let folder = tempfile::tempdir().expect("a directory");
    let more = "rewrite.public_url = https://new.test\npresentation.max_body = 1MiB";
    let app = app(&service, folder.path(), more).await;
    for (coding, _) in CODINGS {
        let url = |kind: &str| format!("http://{}/svc/{coding}-{kind}", app.addresses[0]);
        let cut = Client::default().get(&url("cut"), &[]).await;
        assert!(cut.is_err() || cut.is_ok_and(|answer| answer.status >= 500), "{coding}");
        // Either all of it comes, or it is an error.
        if let Ok(bomb) = Client::default().get(&url("bomb"), &[]).await {
            assert!(bomb.status >= 500 || bomb.body.len() == 3 << 20, "{coding}: {}", bomb.body.len());
        }
    }
}
