//! How one try to mend a document ended, here or on another node.

use std::sync::Arc;
use std::time::Duration;

use crate::heal::cooldowns::CanvasRequestKey;
use crate::heal::flight_priority::FlightPriority;
use crate::heal::repair::{BELIEVED, PoisonedDocument};
use crate::heal::ward::Ward;

/// How one try ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::heal) enum RepairResult {
    Whole,
    /// It carries what its fingerprint says, and that is all there is; so it is believed for so long.
    Shorter(u64, Duration),
    Unwell,
    Failed,
}

impl RepairResult {
    /// For other nodes.
    fn words(self) -> String {
        match self {
            Self::Whole => "whole".to_owned(),
            Self::Shorter(carries, life) => format!("shorter {carries} {}", life.as_secs()),
            Self::Unwell => "unwell".to_owned(),
            Self::Failed => "failed".to_owned(),
        }
    }

    fn from_words(words: &str) -> Self {
        let shorter = words.strip_prefix("shorter ").and_then(|rest| {
            let (carries, life) = rest.split_once(' ')?;
            Some((carries.parse().ok()?, Duration::from_secs(life.parse().ok()?)))
        });
        match (words, shorter) {
            (_, Some((carries, life))) => Self::Shorter(carries, life.min(BELIEVED)),
            ("whole", _) => Self::Whole,
            ("unwell", _) => Self::Unwell,
            _ => Self::Failed,
        }
    }
}

impl Ward {
    /// One try for all who wait for this document: whichever node mends it, mends it for all.
    pub(in crate::heal) async fn mend_in_the_fleet(
        self: &Arc<Self>,
        key: &CanvasRequestKey,
        poisoned: &PoisonedDocument,
        urgency: &Arc<FlightPriority>,
    ) -> RepairResult {
        let Some(service) = self.service(poisoned.route) else { return RepairResult::Failed };
        match self.ours(&format!("mend {}", service.name_of(key))).await {
            Ok(own) => {
                let mended = self.try_to_mend(key, poisoned, urgency).await;
                own.lands(&mended.words());
                mended
            }
            Err(words) => {
                let mended = RepairResult::from_words(&words);
                if let RepairResult::Shorter(carries, life) = mended {
                    self.mends.truths.insert(key.clone(), carries, life);
                }
                mended
            }
        }
    }
}
