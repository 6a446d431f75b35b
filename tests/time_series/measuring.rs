//! Writers that never pause.

use super::steps::{delete, insert, insert_mixed, update};
use mongodb::Client;
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::{sync::watch, task::JoinSet};

/// Somebody who measures, and sometimes deletes, until writes are blocked.
pub struct Measuring {
    tasks: JoinSet<u64>,
    commands: watch::Receiver<u64>,
}

impl Measuring {
    pub fn start(client: &Client, seed: u64) -> Self {
        let (tell, commands) = watch::channel(0);
        let (client, mut tasks) = (client.database("ts"), JoinSet::new());
        tasks.spawn(async move {
            let mut rng = StdRng::seed_from_u64(seed);
            for n in 0.. {
                let from = rng.random_range(0..2_000);
                let (_, command) = match rng.random_range(0..30) {
                    0 => delete("live", rng.random_range(0..10)),
                    1 => update("live", rng.random_range(0..10)),
                    2..10 => insert_mixed("live", from..from + rng.random_range(1..40)),
                    _ => insert("live", from..from + rng.random_range(1..40)),
                };
                match client.run_command(command).await {
                    Ok(reply) if !reply.contains_key("writeErrors") => drop(tell.send(n + 1)),
                    Ok(reply) => {
                        assert!(reply.to_string().contains("371"), "{reply:?}");
                        return n;
                    }
                    Err(error) => {
                        assert!(error.to_string().contains("blocked"), "{error}");
                        return n;
                    }
                }
            }
            0
        });
        Self { tasks, commands }
    }

    /// Waits until it has done so much more.
    pub async fn go_on(&mut self, commands: u64) {
        let wanted = *self.commands.borrow() + commands;
        self.commands.wait_for(|n| *n >= wanted).await.expect("it goes on");
    }

    /// Its end, which the fence brings.
    pub async fn ended(mut self) {
        let commands = self.tasks.join_next().await.expect("one task").unwrap();
        eprintln!("measured with {commands} commands");
        assert!(commands > 0);
    }
}
