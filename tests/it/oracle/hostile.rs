//! Documents that nobody would write: put together at random out of all forms, and broken at random.

use fastrand::Rng;
use iiif_mender::iiif::image_url::ImageBases;
use iiif_mender::iiif::manifest;
use serde_json::{Value, json};

use super::types::TYPES;
use super::{IMAGES, agree, book_2, book_3, pairs_of, service, tile};

/// Random documents, and how many there are of each sort.
const DOCUMENTS: u64 = 3_000;

struct Maker {
    random: Rng,
    /// Images so far: each has a name of its own.
    images: usize,
    version_2: bool,
}

impl Maker {
    fn one_in(&mut self, n: u32) -> bool {
        self.random.u32(0..n) == 0
    }

    fn name(&mut self) -> String {
        self.images += 1;
        let form = ["f", "vol/f", "vol%2Ff", "ir i-", "é", "x;y=", "iip.fcgi?IIIF=vol/f"];
        format!("{}{}", self.random.choice(form).expect("a form"), self.images)
    }

    /// What is none of an image, with URLs in it that look like some.
    fn noise(&mut self, object: &mut Value) {
        let login = json!({ "@id": format!("{IMAGES}login"), "profile": "http://iiif.io/api/auth/1/login" });
        let noise = [
            ("metadata", json!([{ "label": "a", "value": tile("no") }])),
            ("seeAlso", json!({ "@id": tile("no"), "format": "image/jpeg" })),
            ("rights", json!(tile("no"))),
            ("within", json!({ "@id": tile("no"), "service": service("no") })),
            ("summary", json!({ "en": [tile("no")] })),
            ("homepage", json!([{ "id": tile("no"), "type": "Text" }])),
            ("services", json!([service("no"), login])),
            (
                "structures",
                json!([{ "@type": "sc:Range", "canvases": ["https://lib.test/svc/canvas/1"], "thumbnail": service("no") }]),
            ),
            ("navDate", json!(1e300)),
            ("behavior", json!([null, true, -1, { "a": [] }])),
            ("label", json!({ "none": [[], {}, "x"] })),
            ("label", json!([{ "@value": "x", "@language": "en" }])),
        ];
        let (key, value) = self.random.choice(noise).expect("noise");
        if key != "structures" || object["sequences"].is_array() {
            object[key] = value;
        }
    }

    fn service(&mut self, name: &str) -> Value {
        let mut own = if self.version_2 {
            service(name)
        } else {
            json!({ "id": format!("{IMAGES}{name}"), "type": "ImageService3", "profile": "level2" })
        };
        let login = json!({ "@id": format!("{IMAGES}login"), "profile": "http://iiif.io/api/auth/1/login" });
        if self.one_in(4) {
            own["service"] = json!([login.clone()]);
        }
        match self.random.u32(0..6) {
            0 => own,
            1 => json!([own]),
            2 => json!([[own], login]),
            3 => json!(["https://lib.test/login", own]),
            4 => json!([own, login, { "id": "https://lib.test/probe", "type": "AuthProbeService2" }]),
            _ => json!([own, null, []]),
        }
    }

    fn image(&mut self) -> Value {
        let name = self.name();
        let id = if self.version_2 { "@id" } else { "id" };
        let with_service = !self.one_in(3);
        let mut image = json!({ id: if with_service && self.one_in(2) { "https://lib.test/p.jpg".to_owned() } else { tile(&name) } });
        if with_service {
            image["service"] = self.service(&name);
        }
        if !self.one_in(3) {
            image[if self.version_2 { "@type" } else { "type" }] =
                if self.version_2 { "dctypes:Image" } else { "Image" }.into();
        }
        if self.one_in(5) {
            image["format"] = "image/jpeg".into();
        }
        image
    }

    fn body(&mut self, depth: u32) -> Value {
        match self.random.u32(0..8) {
            0 if depth < 3 && self.version_2 => {
                json!({ "@type": "oa:Choice", "default": self.body(depth + 1), "item": [self.body(depth + 1), "rdf:nil"] })
            }
            0 if depth < 3 => {
                json!({ "type": "Choice", "items": [self.body(depth + 1), self.body(depth + 1)] })
            }
            1 if depth < 3 && self.version_2 => {
                json!({ "@type": "oa:SpecificResource", "full": self.body(depth + 1), "style": "x" })
            }
            1 if depth < 3 => {
                json!({ "type": "SpecificResource", "source": self.body(depth + 1), "selector": { "type": "FragmentSelector" } })
            }
            2 if depth < 3 => json!([self.body(depth + 1), self.image()]),
            _ => self.image(),
        }
    }

    fn canvas(&mut self, number: usize) -> Value {
        let name = format!("https://lib.test/svc/canvas/{number}");
        let mut canvas = if self.version_2 {
            let images: Vec<Value> = (0..self.random.usize(1..3))
                .map(|_| json!({ "@type": "oa:Annotation", "motivation": "sc:painting", "resource": self.body(0), "on": name }))
                .collect();
            json!({ "@id": name, "@type": "sc:Canvas", "height": 9, "width": 9, "images": images })
        } else {
            let pages: Vec<Value> = (0..self.random.usize(1..3))
                .map(|_| {
                    let annotation = json!({ "type": "Annotation", "motivation": "painting", "body": self.body(0), "target": name });
                    json!({ "type": "AnnotationPage", "items": [annotation] })
                })
                .collect();
            json!({ "id": name, "type": "Canvas", "height": 9, "width": 9, "items": pages })
        };
        if self.one_in(4) {
            let image = self.image();
            canvas["thumbnail"] = if self.one_in(2) { image } else { json!([image]) };
        }
        for _ in 0..self.random.usize(0..3) {
            self.noise(&mut canvas);
        }
        canvas
    }

    fn document(&mut self) -> Value {
        let canvases: Vec<Value> = (0..self.random.usize(1..4)).map(|number| self.canvas(number)).collect();
        let mut document = if self.version_2 {
            json!({ "@id": "https://lib.test/svc/m", "@type": "sc:Manifest", "sequences": [{ "@type": "sc:Sequence", "canvases": canvases }] })
        } else {
            json!({ "id": "https://lib.test/svc/m", "type": "Manifest", "items": canvases })
        };
        for _ in 0..self.random.usize(0..3) {
            self.noise(&mut document);
        }
        document
    }

    /// Sets or takes away one type below the canvases' list.
    fn mistypes(&mut self, document: &mut Value) {
        let places: &[&str] = if self.version_2 {
            &["/sequences/0", "/sequences/0/canvases/0", "/sequences/0/canvases/0/images/0"]
        } else {
            &["/items/0", "/items/0/items/0", "/items/0/items/0/items/0"]
        };
        let place = *self.random.choice(places).expect("a place");
        let object = document.pointer_mut(place).expect("a place");
        let word = *self.random.choice(TYPES.iter()).expect("a word");
        object[if self.version_2 { "@type" } else { "type" }] =
            if self.random.bool() { word.into() } else { json!([word, "Thing"]) };
    }
}

/// The keys of all objects in another order: types behind what they are of, ids last.
fn turned(value: &Value, random: &mut Rng) -> String {
    match value {
        Value::Object(all) => {
            let mut pairs: Vec<_> = all.iter().collect();
            random.shuffle(&mut pairs);
            let pairs: Vec<_> = pairs
                .into_iter()
                .map(|(key, value)| format!("{}:{}", json!(key), turned(value, random)))
                .collect();
            format!("{{{}}}", pairs.join(","))
        }
        Value::Array(all) => {
            let all: Vec<_> = all.iter().map(|one| turned(one, random)).collect();
            format!("[{}]", all.join(","))
        }
        other => other.to_string(),
    }
}

#[test]
fn documents_put_together_at_random_are_read_alike() {
    for seed in 0..DOCUMENTS {
        let mut maker = Maker { random: Rng::with_seed(seed), images: 0, version_2: seed % 2 == 0 };
        let mut document = maker.document();
        if maker.one_in(2) {
            maker.mistypes(&mut document);
        }
        let expected = pairs_of(&document);
        assert_eq!(expected.len(), maker.images, "the oracle itself, seed {seed}: {document:#}");
        agree(&document, expected.len());
        let other = turned(&document, &mut maker.random);
        assert_eq!(super::walked(other.as_bytes()).1, expected, "seed {seed}, turned: {other}");
    }
}

#[test]
fn documents_broken_at_random_are_read_or_refused_and_tell_no_other_pairs() {
    for document in [book_2(), book_3()] {
        let (whole, pairs) = (document.to_string(), pairs_of(&document));
        let mut random = Rng::with_seed(7);
        for _ in 0..20_000 {
            let mut bytes = whole.clone().into_bytes();
            for _ in 0..random.usize(1..4) {
                let at = random.usize(0..bytes.len());
                match random.u32(0..5) {
                    0 => bytes.truncate(at),
                    1 => bytes[at] = random.u8(..),
                    2 => drop(bytes.splice(at..at, *b"\0")),
                    3 => drop(bytes.splice(at..at, b"[{\"\\".iter().copied())),
                    _ => drop(bytes.remove(at)),
                }
                if bytes.is_empty() {
                    bytes.push(b' ');
                }
            }
            // Whatever it is: no panic, and no more canvases than there were.
            if let Ok((_, canvases)) = manifest::read(&bytes) {
                assert!(canvases.len() <= pairs.len() + 1, "{}", String::from_utf8_lossy(&bytes));
            }
            let _ = manifest::walk_under(&*bytes, &ImageBases::default(), &mut |_| {});
        }
    }
}

#[test]
fn rubbish_at_the_end_and_zeros_are_refused() {
    for bytes in [
        [book_2().to_string().as_bytes(), b"}"].concat(),
        [book_2().to_string().as_bytes(), b"{}"].concat(),
        vec![0; 1_000_000],
        b"\xff\xfe".to_vec(),
        b"\xef\xbb\xbf".to_vec(),
        Vec::new(),
    ] {
        assert!(manifest::read(&bytes).is_err(), "{:?}", &bytes[..bytes.len().min(20)]);
        assert!(manifest::walk_under(&*bytes, &ImageBases::default(), &mut |_| {}).is_err());
    }
}
