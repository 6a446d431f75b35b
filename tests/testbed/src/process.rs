//! Server processes that cannot outlive this one.
//!
//! Each is started under `setpriv --pdeathsig KILL`, where there is one, so that the kernel ends it even when this
//! process is killed. That signal is sent when the *thread* that started the child ends, not the process; therefore
//! one thread starts all children and never ends.

use std::process::{Child, Command};
use std::sync::{LazyLock, mpsc};

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};

type Order = (Command, mpsc::SyncSender<std::io::Result<Child>>);

static STARTER: LazyLock<mpsc::Sender<Order>> = LazyLock::new(|| {
    let (orders, inbox) = mpsc::channel::<Order>();
    let start = move || {
        for (mut command, answer) in inbox {
            let _ = answer.send(command.spawn());
        }
    };
    std::thread::Builder::new().name("starter".into()).spawn(start).expect("a thread can be started");
    orders
});

/// A running child; killed and reaped on drop.
#[derive(Debug)]
pub struct Process(Child);

impl Process {
    pub fn start(command: Command) -> std::io::Result<Process> {
        let (answer, reply) = mpsc::sync_channel(1);
        STARTER.send((command, answer)).expect("the starter never ends");
        reply.recv().expect("the starter answers").map(Process)
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<std::process::ExitStatus> {
        self.0.try_wait().ok().flatten()
    }

    pub fn signal(&self, signal: Signal) -> std::io::Result<()> {
        Ok(kill_process(self.pid(), signal)?)
    }

    /// None of its files may grow above so many bytes from now on.
    pub fn limit_files(&self, bytes: u64) -> std::io::Result<()> {
        prlimit(Some(self.pid()), Resource::Fsize, Rlimit { current: Some(bytes), maximum: Some(bytes) })?;
        Ok(())
    }

    fn pid(&self) -> Pid {
        i32::try_from(self.0.id()).ok().and_then(Pid::from_raw).expect("a child has a pid")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A command that dies with this process, where the system can do that.
pub fn dying_with_us(program: &std::path::Path) -> Command {
    static SETPRIV: LazyLock<bool> = LazyLock::new(|| {
        let probe = Command::new("setpriv").args(["--pdeathsig", "KILL", "true"]).output();
        probe.is_ok_and(|output| output.status.success())
    });
    if !*SETPRIV {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(program);
    command
}
