//! Rare events that are counted, a closed list.

/// A rare event: the label `kind` of `iiif_mender_events`. docs/METRICS.md lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// `admin_refused`: no token or certificate, or another site's page.
    AdminRefused,
    /// `admin_too_many`: 429 to operators: acts, wrong tokens, live pages.
    AdminTooMany,
    /// `ahead`: an image was not healed, because `heal.max_flights` are being healed.
    Ahead,
    /// `ahead_refused`: an image was not healed, because `heal.max_flights` are being healed.
    AheadRefused,
    /// `book_healed`: a whole manifest was built beside.
    BookHealed,
    /// `breaker_opened`: a document that passed through, or a file URL, was not learned.
    BreakerOpened,
    /// `canvas_hangs`: a request that took longer than `heal.hang_after` gave its place to another.
    CanvasHangs,
    /// `client_demoted`: very many heals from one address.
    ClientDemoted,
    /// `cluster_behind`: too far behind the other nodes: sources, or the edition, are read again.
    ClusterBehind,
    /// `cluster_joined`: this node joined the others, or goes on alone.
    ClusterJoined,
    /// `cluster_learned`: a document or file URL came from another node.
    ClusterLearned,
    /// `cluster_lost`: this node joined the others, or goes on alone.
    ClusterLost,
    /// `cluster_shared`: a request of another node helped here.
    ClusterShared,
    /// `cluster_too_long`: a document is too long to be told to other nodes.
    ClusterTooLong,
    /// `coding_other`: a document came in a coding that is not read here, although it was not asked for: it passes, and nothing more.
    CodingOther,
    /// `collapsed`: a viewer shared another one's request for a presentation.
    Collapsed,
    /// `cure_failed`: a document that passed through, or a file URL, was not learned.
    CureFailed,
    /// `cure_refused`: a document that passed through, or a file URL, was not learned.
    CureRefused,
    /// `cured`: a document that passed through, or a file URL, was not learned.
    Cured,
    /// `echo`: very many heals from one address.
    Echo,
    /// `edition_broken`: a part of it was not to be had: ours goes on.
    EditionBroken,
    /// `edition_failed`: it was not published: too long, or the disk.
    EditionFailed,
    /// `edition_published`: the index of all nodes was published, or read anew.
    EditionPublished,
    /// `edition_read`: the index of all nodes was published, or read anew.
    EditionRead,
    /// `first_ask_held`: a request waited for what others find: `heal.first_asks`.
    FirstAskHeld,
    /// `first_document_late`: a request waited for the first one of its document for `heal.wait`, and went on.
    FirstDocumentLate,
    /// `heal_refused`: an image was not healed, because `heal.max_flights` are being healed.
    HealRefused,
    /// `held_refused`: an answer was not held, because all that are held take `server.max_held_total` already.
    HeldRefused,
    /// `held_too_long`: a document was longer than `presentation.max_body`: neither shared nor watched nor repaired.
    HeldTooLong,
    /// `history_dropped`: a heal is missing from the history: too many at once, or the disk.
    HistoryDropped,
    /// `history_failed`: a heal is missing from the history: too many at once, or the disk.
    HistoryFailed,
    /// `index_begun_anew`: the index could not be used: another was begun.
    IndexBegunAnew,
    /// `json_hopeless`: broken JSON that could not be repaired.
    JsonHopeless,
    /// `json_repaired`: this node joined the others, or goes on alone.
    JsonRepaired,
    /// `learn_dropped`: a document that passed through, or a file URL, was not learned.
    LearnDropped,
    /// `mass_expiry`: the service is not well.
    MassExpiry,
    /// `poison_refuted`: it is all there is.
    PoisonRefuted,
    /// `poison_seen`: a document lacked images that the index knows.
    PoisonSeen,
    /// `poisoned`: a document that passed through, or a file URL, was not learned.
    Poisoned,
    /// `probe`: the image server was asked whether an image is alive.
    Probe,
    /// `probe_distrusted`: such a probe was wrong.
    ProbeDistrusted,
    /// `rate_limited`: 429: `server.rate`.
    RateLimited,
    /// `rebuild_withheld`: the service is not well.
    RebuildWithheld,
    /// `resources_distrusted`: `/resources` called an image expired that the image server shows.
    ResourcesDistrusted,
    /// `swept`: the service is not well.
    Swept,
    /// `upgrade_refused`: 503: `server.max_upgrades`.
    UpgradeRefused,
    /// `variants_honoured`: whether a canvas service builds beside the stored canvas was found out.
    VariantsHonoured,
    /// `variants_ignored`: whether a canvas service builds beside the stored canvas was found out.
    VariantsIgnored,
    /// `viewer_refused`: `heal.max_waiting` viewers wait for their turn at a canvas service.
    ViewerRefused,
    /// `viewer_wait_expired`: a viewer waited for his turn there for `heal.wait`.
    ViewerWaitExpired,
}

impl EventKind {
    /// Every kind.
    pub const ALL: [Self; 50] = [
        Self::AdminRefused,
        Self::AdminTooMany,
        Self::Ahead,
        Self::AheadRefused,
        Self::BookHealed,
        Self::BreakerOpened,
        Self::CanvasHangs,
        Self::ClientDemoted,
        Self::ClusterBehind,
        Self::ClusterJoined,
        Self::ClusterLearned,
        Self::ClusterLost,
        Self::ClusterShared,
        Self::ClusterTooLong,
        Self::CodingOther,
        Self::Collapsed,
        Self::CureFailed,
        Self::CureRefused,
        Self::Cured,
        Self::Echo,
        Self::EditionBroken,
        Self::EditionFailed,
        Self::EditionPublished,
        Self::EditionRead,
        Self::FirstAskHeld,
        Self::FirstDocumentLate,
        Self::HealRefused,
        Self::HeldRefused,
        Self::HeldTooLong,
        Self::HistoryDropped,
        Self::HistoryFailed,
        Self::IndexBegunAnew,
        Self::JsonHopeless,
        Self::JsonRepaired,
        Self::LearnDropped,
        Self::MassExpiry,
        Self::PoisonRefuted,
        Self::PoisonSeen,
        Self::Poisoned,
        Self::Probe,
        Self::ProbeDistrusted,
        Self::RateLimited,
        Self::RebuildWithheld,
        Self::ResourcesDistrusted,
        Self::Swept,
        Self::UpgradeRefused,
        Self::VariantsHonoured,
        Self::VariantsIgnored,
        Self::ViewerRefused,
        Self::ViewerWaitExpired,
    ];

    /// The label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AdminRefused => "admin_refused",
            Self::AdminTooMany => "admin_too_many",
            Self::Ahead => "ahead",
            Self::AheadRefused => "ahead_refused",
            Self::BookHealed => "book_healed",
            Self::BreakerOpened => "breaker_opened",
            Self::CanvasHangs => "canvas_hangs",
            Self::ClientDemoted => "client_demoted",
            Self::ClusterBehind => "cluster_behind",
            Self::ClusterJoined => "cluster_joined",
            Self::ClusterLearned => "cluster_learned",
            Self::ClusterLost => "cluster_lost",
            Self::ClusterShared => "cluster_shared",
            Self::ClusterTooLong => "cluster_too_long",
            Self::CodingOther => "coding_other",
            Self::Collapsed => "collapsed",
            Self::CureFailed => "cure_failed",
            Self::CureRefused => "cure_refused",
            Self::Cured => "cured",
            Self::Echo => "echo",
            Self::EditionBroken => "edition_broken",
            Self::EditionFailed => "edition_failed",
            Self::EditionPublished => "edition_published",
            Self::EditionRead => "edition_read",
            Self::FirstAskHeld => "first_ask_held",
            Self::FirstDocumentLate => "first_document_late",
            Self::HealRefused => "heal_refused",
            Self::HeldRefused => "held_refused",
            Self::HeldTooLong => "held_too_long",
            Self::HistoryDropped => "history_dropped",
            Self::HistoryFailed => "history_failed",
            Self::IndexBegunAnew => "index_begun_anew",
            Self::JsonHopeless => "json_hopeless",
            Self::JsonRepaired => "json_repaired",
            Self::LearnDropped => "learn_dropped",
            Self::MassExpiry => "mass_expiry",
            Self::PoisonRefuted => "poison_refuted",
            Self::PoisonSeen => "poison_seen",
            Self::Poisoned => "poisoned",
            Self::Probe => "probe",
            Self::ProbeDistrusted => "probe_distrusted",
            Self::RateLimited => "rate_limited",
            Self::RebuildWithheld => "rebuild_withheld",
            Self::ResourcesDistrusted => "resources_distrusted",
            Self::Swept => "swept",
            Self::UpgradeRefused => "upgrade_refused",
            Self::VariantsHonoured => "variants_honoured",
            Self::VariantsIgnored => "variants_ignored",
            Self::ViewerRefused => "viewer_refused",
            Self::ViewerWaitExpired => "viewer_wait_expired",
        }
    }
}
