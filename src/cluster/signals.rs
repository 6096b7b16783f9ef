//! Signals from one node to all. Each expires by Redis's clock.

use std::net::IpAddr;
use std::time::Duration;

use super::Cluster;
use super::link::millis;
use super::scripts::{COUNT, EXPIRED};

/// Clients are counted by the minute, as on one node.
const MINUTE: Duration = Duration::from_mins(1);

/// Channel that announces a mass expiry to every node.
pub(super) const MASS_EXPIRY: &str = "mass-expiry";

impl Cluster {
    /// Signals that the file behind `name` (an identifier of some image server) is gone; believed for `time`.
    pub fn tell_missing(&self, name: &str, time: Duration) {
        let key = self.link.key(&super::about(name), "missing");
        self.send_in_background(redis::cmd("SET").arg(key).arg(1).arg("PX").arg(millis(time)).take());
    }

    /// Signals that the file should be checked again.
    pub fn tell_not_missing(&self, name: &str) {
        self.send_in_background(redis::cmd("DEL").arg(self.link.key(&super::about(name), "missing")).take());
    }

    /// Time for which some node believes that the file behind `name` is gone.
    pub async fn missing(&self, name: &str) -> Option<Duration> {
        let key = self.link.key(&super::about(name), "missing");
        let left: i64 = self.link.send(redis::cmd("PTTL").arg(key)).await?;
        u64::try_from(left).ok().filter(|left| *left > 0).map(Duration::from_millis)
    }

    /// Signals whether this canvas service builds a canvas beside the stored one; believed for `time`.
    pub fn tell_variants(&self, service: &str, honoured: bool, time: Duration) {
        let key = self.link.key(&super::about(service), "variants");
        self.send_in_background(
            redis::cmd("SET").arg(key).arg(u8::from(honoured)).arg("PX").arg(millis(time)).take(),
        );
    }

    /// Answer that some node recorded.
    pub async fn honours_variants(&self, service: &str) -> Option<bool> {
        let key = self.link.key(&super::about(service), "variants");
        let known: Option<u8> = self.link.send(redis::cmd("GET").arg(key)).await?;
        known.map(|honoured| honoured == 1)
    }

    /// Counts a heal for this client; returns how many all nodes have begun for it within a minute.
    pub async fn heals_of(&self, client: IpAddr) -> Option<u32> {
        let mut count = COUNT.key(self.link.key(&super::about(&client.to_string()), "client"));
        count.arg(millis(MINUTE));
        self.link.run(&count).await
    }

    /// Counts an expired identifier. True for the one node with which a mass expiry begins: `ids` of them within `within`,
    /// on all nodes together. The other nodes get a message.
    pub async fn expired(&self, identifier: &str, ids: usize, within: Duration, lasts: Duration) -> bool {
        let mut expired = EXPIRED.key(self.link.key("expiry", "ids"));
        expired.key(self.link.key("expiry", "mass"));
        expired.arg(super::about(identifier)).arg(millis(within)).arg(ids).arg(millis(lasts));
        let begins = self.link.run::<i64>(&expired).await == Some(1);
        if begins {
            let news = format!("{MASS_EXPIRY} {}", self.link.node);
            self.send_in_background(
                redis::cmd("PUBLISH").arg(format!("{}:all", self.link.settings.prefix)).arg(news).take(),
            );
        }
        begins
    }
}
