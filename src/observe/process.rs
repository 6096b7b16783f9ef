//! Process metrics of the operating system, under the names that Prometheus clients agree on.

use std::fmt;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// Clock ticks a second in `/proc`: Linux shows times to user space in hundredths on every architecture (`USER_HZ`).
const TICKS: f64 = 100.0;

/// Collector that reads `/proc/self` at each scrape; empty where there is none.
#[derive(Debug)]
pub(super) struct Process;

/// Values read from `/proc`.
#[derive(Debug, Default, PartialEq)]
struct ProcStat {
    cpu_seconds: f64,
    threads: i64,
    virtual_bytes: i64,
    resident_bytes: i64,
    open_files: i64,
    most_files: Option<i64>,
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(seen) = ProcStat::now() else { return Ok(()) };
        let mut gauge = |name: &str, help: &str, value: i64| {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
        };
        gauge("process_resident_memory_bytes", "Memory in RAM", seen.resident_bytes)?;
        gauge("process_virtual_memory_bytes", "Memory mapped", seen.virtual_bytes)?;
        gauge("process_threads", "Threads of the operating system", seen.threads)?;
        gauge("process_open_fds", "Open files and sockets", seen.open_files)?;
        if let Some(most) = seen.most_files {
            gauge("process_max_fds", "Open files and sockets at most", most)?;
        }
        let started = ConstGauge::new(started().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64());
        let (name, help) = ("process_start_time_seconds", "Unix time of the start");
        started.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        let cpu = ConstCounter::new(seen.cpu_seconds);
        let (name, help) = ("process_cpu_seconds", "Time on a processor, user and system");
        cpu.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)
    }
}

/// Metrics of the build and the start.
#[derive(Debug)]
pub(super) struct BuildInfo {
    started: std::time::Instant,
}

impl Default for BuildInfo {
    fn default() -> Self {
        started();
        Self { started: std::time::Instant::now() }
    }
}

impl Collector for BuildInfo {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let up = ConstGauge::new(self.started.elapsed().as_secs_f64());
        let (name, help) = ("uptime_seconds", "Time since the start");
        up.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        let lost = ConstCounter::new(super::logging::lost_lines());
        let (name, help) = ("log_lines_lost", "Log lines that nobody read fast enough");
        lost.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)
    }
}

/// Time of the first call, which is the start of the process.
pub(super) fn started() -> SystemTime {
    static STARTED: OnceLock<SystemTime> = OnceLock::new();
    *STARTED.get_or_init(SystemTime::now)
}

impl ProcStat {
    fn now() -> Option<Self> {
        let read = |name: &str| std::fs::read_to_string(format!("/proc/self/{name}"));
        let mut seen = Self::read(&read("stat").ok()?, &read("status").ok()?)?;
        seen.open_files = i64::try_from(std::fs::read_dir("/proc/self/fd").ok()?.count()).unwrap_or(i64::MAX);
        let limits = read("limits").unwrap_or_default();
        seen.most_files = number(&limits, "Max open files");
        Some(seen)
    }

    /// `/proc/[pid]/stat` and `/proc/[pid]/status` (proc(5)). Field 2 of the first is a name in parentheses that may
    /// hold anything.
    fn read(stat: &str, status: &str) -> Option<Self> {
        let (_, behind) = stat.rsplit_once(") ")?;
        // The first field after the name is field 3.
        let mut ticks = behind.split_whitespace().skip(14 - 3).map(str::parse::<u32>);
        let (user, system) = (ticks.next()?.ok()?, ticks.next()?.ok()?);
        Some(Self {
            cpu_seconds: (f64::from(user) + f64::from(system)) / TICKS,
            threads: number(status, "Threads:")?,
            virtual_bytes: number(status, "VmSize:")?.saturating_mul(1024),
            resident_bytes: number(status, "VmRSS:")?.saturating_mul(1024),
            ..Self::default()
        })
    }
}

/// The first number of the line that begins so.
fn number(text: &str, name: &str) -> Option<i64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 9 0 0 0 250 50 0 0 20 0 12 0 100 8192000 300 184";
        let status = "Name:\ta) b (c\nVmSize:\t    8000 kB\nVmRSS:\t    1200 kB\nThreads:\t12\n";
        let seen = ProcStat::read(stat, status).expect("it is read");
        assert_eq!((seen.cpu_seconds, seen.threads), (3.0, 12));
        assert_eq!((seen.virtual_bytes, seen.resident_bytes), (8_192_000, 1_228_800));
        assert_eq!(ProcStat::read("nonsense", status), None);
    }
}
