//! Rare events that are counted, a closed list.

/// Makes the enum out of one list, so that no kind can be missing in another.
macro_rules! event_kinds {
    ($($(#[$doc:meta])* $kind:ident = $label:literal,)*) => {
        /// A rare event: the label `kind` of `iiif_mender_events`. docs/METRICS.md lists them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum EventKind {
            $($(#[$doc])* $kind,)*
        }

        impl EventKind {
            /// Every kind.
            pub const ALL: [Self; [$($label),*].len()] = [$(Self::$kind),*];

            /// The label.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$kind => $label,)*
                }
            }
        }
    };
}

event_kinds! {
    /// No token or certificate, or another site's page.
    AdminRefused = "admin_refused",
    /// 429 to operators: acts, wrong tokens, live pages.
    AdminTooMany = "admin_too_many",
    /// A page after the one being read was found expired, and its heal was started.
    Ahead = "ahead",
    /// A page ahead was not healed, because `heal.max_waiting` heals run.
    AheadRefused = "ahead_refused",
    /// A whole manifest was built beside.
    BookHealed = "book_healed",
    /// A canvas service only failed, and is left alone for `heal.breaker_open`.
    BreakerOpened = "breaker_opened",
    /// A request that took longer than `heal.hang_after` passed its permit on.
    CanvasHangs = "canvas_hangs",
    /// A broken image, or another one in its place, was dropped: `heal.max_broken` is reached, or its name is too long.
    BrokenDropped = "broken_dropped",
    /// Very many heals from one address.
    ClientDemoted = "client_demoted",
    /// Too far behind the other nodes: sources, or the edition, are read again.
    ClusterBehind = "cluster_behind",
    /// The node joined the others.
    ClusterJoined = "cluster_joined",
    /// A document or file URL came from another node.
    ClusterLearned = "cluster_learned",
    /// The node lost the others, and goes on alone.
    ClusterLost = "cluster_lost",
    /// A request of another node helped here.
    ClusterShared = "cluster_shared",
    /// A document is too long for the other nodes' stream.
    ClusterTooLong = "cluster_too_long",
    /// A document came in an unknown content coding that was not requested: it passes unread.
    CodingOther = "coding_other",
    /// A viewer shared another viewer's request for a presentation.
    Collapsed = "collapsed",
    /// A rebuild did not bring back the images of a document.
    CureFailed = "cure_failed",
    /// A poisoned document was not queued for repair, because too many are.
    CureRefused = "cure_refused",
    /// A document has its images again.
    Cured = "cured",
    /// The canvas service requested info.json through us while it built a canvas.
    Echo = "echo",
    /// A part of the edition of another node could not be read: the own index stays.
    EditionBroken = "edition_broken",
    /// The edition of this node was not published: too long, or the disk.
    EditionFailed = "edition_failed",
    /// The node published the index of all nodes.
    EditionPublished = "edition_published",
    /// The node read the index of all nodes.
    EditionRead = "edition_read",
    /// A request waited for the first answer: `heal.first_asks`.
    FirstAskHeld = "first_ask_held",
    /// A request waited for the first one of its document for `heal.wait`, and went on.
    FirstDocumentLate = "first_document_late",
    /// An image was not healed, because `heal.max_flights` are being healed.
    HealRefused = "heal_refused",
    /// An answer was not held, because all that are held take `server.max_held_total` already.
    HeldRefused = "held_refused",
    /// A document was longer than `presentation.max_body`: neither shared nor watched nor repaired.
    HeldTooLong = "held_too_long",
    /// A heal is missing from the history, because too many ended at once.
    HistoryDropped = "history_dropped",
    /// A heal is missing from the history, because it could not be written.
    HistoryFailed = "history_failed",
    /// The index could not be used: another was begun.
    IndexBegunAnew = "index_begun_anew",
    /// Broken JSON that could not be repaired.
    JsonHopeless = "json_hopeless",
    /// Broken JSON of the canvas service was repaired on its way to a viewer.
    JsonRepaired = "json_repaired",
    /// A document that passed through, or a file URL, was not learned.
    LearnDropped = "learn_dropped",
    /// Very many images expired at once (`heal.mass_expiry`).
    MassExpiry = "mass_expiry",
    /// A document that lacked images was built anew and is complete.
    PoisonRefuted = "poison_refuted",
    /// A placeholder was sent for an image whose file is gone (`heal.missing_image`).
    Placeholder = "placeholder",
    /// A document lacked images that the index knows.
    PoisonSeen = "poison_seen",
    /// A canvas came back without the image that it should have.
    Poisoned = "poisoned",
    /// The image server was probed for an image.
    Probe = "probe",
    /// A probe called an image alive that is gone: another one is sought.
    ProbeDistrusted = "probe_distrusted",
    /// 429: `server.rate`.
    RateLimited = "rate_limited",
    /// A rebuild was withheld, because the service is not well.
    RebuildWithheld = "rebuild_withheld",
    /// `/resources` called an image expired that the image server shows.
    ResourcesDistrusted = "resources_distrusted",
    /// A sweep, or keeping a source warm, found an image expired.
    Swept = "swept",
    /// 503: `server.max_upgrades`.
    UpgradeRefused = "upgrade_refused",
    /// A canvas service was seen to build beside the stored canvas.
    VariantsHonoured = "variants_honoured",
    /// A canvas service was seen to ignore `disallow`: it does not build beside.
    VariantsIgnored = "variants_ignored",
    /// `heal.max_waiting` viewers wait for their turn at a canvas service.
    ViewerRefused = "viewer_refused",
    /// A viewer waited for a turn at a canvas service for `heal.wait`.
    ViewerWaitExpired = "viewer_wait_expired",
}
