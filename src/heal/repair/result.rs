//! Result of one try to repair a document, here or on another node.

use std::sync::Arc;

use crate::heal::cooldowns::CanvasRequestKey;
use crate::heal::flight_priority::FlightPriority;
use crate::heal::repair::Repairs;
use crate::heal::repair::documents::{DocumentOrder, PoisonedDocument, RepairResult};

impl Repairs {
    /// Runs one repair of this document for all nodes: one node leads.
    pub(in crate::heal) async fn mend_in_the_fleet(
        self: &Arc<Self>,
        key: &CanvasRequestKey,
        poisoned: &PoisonedDocument,
        urgency: &Arc<FlightPriority>,
    ) -> RepairResult {
        let Some(service) = self.services.on(poisoned.route) else { return RepairResult::Failed };
        match self.services.try_lead(&format!("mend {}", service.name_of(key))).await {
            Ok(own) => {
                let mended = self.attempt_repair(DocumentOrder { service, key, poisoned, urgency }).await;
                own.finish(&mended.words());
                mended
            }
            Err(words) => {
                let mended = RepairResult::from_words(&words);
                if let RepairResult::Shorter(carries, life) = mended {
                    self.state.shortened.insert(key.clone(), carries, life);
                }
                mended
            }
        }
    }
}
