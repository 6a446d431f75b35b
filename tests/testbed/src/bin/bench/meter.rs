//! What the parts cost: CPU seconds and memory, as the kernel counts them.

use serde::Serialize;

/// Ticks of a second in `/proc`: `USER_HZ`, which Linux never changes.
const TICKS: f64 = 100.0;

/// CPU seconds of one part, by who used them.
#[derive(Debug, Clone, Copy, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Cpu {
    pub client_user: f64,
    pub client_system: f64,
    pub source: f64,
    pub target: f64,
    /// Everybody else on the machine, this program's watching included: the noise.
    pub others: f64,
}

impl Cpu {
    pub fn client(&self) -> f64 {
        self.client_user + self.client_system
    }

    /// Of all that took part.
    pub fn together(&self) -> f64 {
        self.client() + self.source + self.target
    }

    fn minus(self, earlier: Cpu) -> Cpu {
        Cpu {
            client_user: self.client_user - earlier.client_user,
            client_system: self.client_system - earlier.client_system,
            source: self.source - earlier.source,
            target: self.target - earlier.target,
            others: self.others - earlier.others,
        }
    }
}

/// Whose CPU is counted.
#[derive(Debug, Clone, Copy)]
pub struct Meter {
    pub client: u32,
    pub source: u32,
    pub target: u32,
}

/// What has been used until some moment.
#[derive(Debug, Clone, Copy)]
pub struct Reading(Cpu);

impl Meter {
    pub fn read(&self) -> Reading {
        let of = |pid| used(&format!("/proc/{pid}/stat"));
        let (user, system) = of(self.client);
        let sum = |(user, system): (f64, f64)| user + system;
        let (source, target) = (sum(of(self.source)), sum(of(self.target)));
        let others = machine() - user - system - source - target;
        Reading(Cpu { client_user: user, client_system: system, source, target, others })
    }

    pub fn since(&self, earlier: Reading) -> Cpu {
        self.read().0.minus(earlier.0)
    }
}

/// User and system seconds of a process; 0 when it is gone.
fn used(stat: &str) -> (f64, f64) {
    let text = std::fs::read_to_string(stat).unwrap_or_default();
    // The name before it may hold blanks.
    let fields: Vec<&str> = text.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect()).unwrap_or_default();
    let ticks = |n: usize| fields.get(n).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0) / TICKS;
    (ticks(11), ticks(12))
}

/// User and system seconds of children that have ended.
pub fn used_by_children() -> (f64, f64) {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = text.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect()).unwrap_or_default();
    let ticks = |n: usize| fields.get(n).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0) / TICKS;
    (ticks(13), ticks(14))
}

/// Busy seconds of all cores, those taken away by the host included.
fn machine() -> f64 {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields = text.lines().next().unwrap_or_default().split_whitespace().skip(1);
    let ticks: Vec<f64> = fields.map(|field| field.parse().unwrap_or(0.0)).collect();
    // user nice system idle iowait irq softirq steal
    let busy = [0, 1, 2, 5, 6, 7].iter().filter_map(|&n| ticks.get(n)).sum::<f64>();
    busy / TICKS
}

/// The most memory that a process has ever held, in bytes.
pub fn peak_memory(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// What the numbers were taken on.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Machine {
    pub cores: usize,
    pub processor: String,
    pub memory_bytes: u64,
    pub kernel: String,
}

impl Machine {
    pub fn this() -> Machine {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let after = |text: &str, key: &str| {
            let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default();
            line.split_once(':').map(|(_, value)| value.trim().to_string()).unwrap_or_default()
        };
        let memory = after(&read("/proc/meminfo"), "MemTotal");
        Machine {
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            processor: after(&read("/proc/cpuinfo"), "model name"),
            memory_bytes: memory.trim_end_matches(" kB").parse::<u64>().unwrap_or(0) * 1024,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_string(),
        }
    }
}
