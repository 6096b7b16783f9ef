//! Every fuzz target over its seeds and mutations of them: what `cargo fuzz` does for hours, for a moment, on stable.

#[path = "../../fuzz/targets.rs"]
mod targets;

/// Bytes that mean something to one of the targets.
const WORDS: [&[u8]; 16] = [
    b"..", b"%2e", b"%2F", b";", b"\"", b"\\", b"\0", b",", b":", b"[::1]", b"\r\n", b"{", b"}", b"//", b"?",
    b"\xff",
];

fn mutated(seed: &[u8], random: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..random.usize(1..6) {
        let at = random.usize(..=bytes.len());
        match random.u8(..5) {
            0 => bytes.truncate(at),
            1 => drop(bytes.splice(at..at, WORDS[random.usize(..WORDS.len())].iter().copied())),
            2 => bytes.insert(at, random.u8(..)),
            3 if at < bytes.len() => bytes[at] ^= 1 << random.u8(..8),
            _ if at < bytes.len() => drop(bytes.remove(at)),
            _ => {}
        }
    }
    bytes
}

#[test]
fn no_input_breaks_the_promise_of_a_fuzz_target() {
    let seeds = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    for (name, target) in targets::ALL {
        let mut random = fastrand::Rng::with_seed(8);
        let files: Vec<_> = std::fs::read_dir(seeds.join(name)).expect("seeds").collect();
        assert!(!files.is_empty(), "{name} has no seeds");
        for file in files {
            let path = file.expect("a file").path();
            let seed = std::fs::read(&path).expect("a file");
            target(&seed);
            for _ in 0..300 {
                let bytes = mutated(&seed, &mut random);
                let kept = bytes.clone();
                let result = std::panic::catch_unwind(move || target(&bytes));
                assert!(
                    result.is_ok(),
                    "{name}, from {}: {:?}",
                    path.display(),
                    String::from_utf8_lossy(&kept)
                );
            }
        }
    }
}
