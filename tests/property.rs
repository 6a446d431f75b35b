//! The property of fidelity: whatever happens to the source, and to mongoferry meanwhile, the target ends up
//! byte-identical.
//!
//! A seed makes a history: commands of every kind on a real source, with pauses, kills and restarts of mongoferry in
//! between. It is played, handed over, and compared by the test bed's own reader. A usual run takes about a minute;
//! `MONGOFERRY_TEST_FULL_PROPERTY=1` is for hours, and `MONGOFERRY_TEST_PROPERTY_MINUTES` says how long. A history that
//! fails is shrunk and told as a scenario; `MONGOFERRY_TEST_SEED` begins with a history that was printed.

mod history;
mod play;
mod shrink;
mod structure;
mod tell;
mod updates;
mod values;

#[cfg(test)]
mod tests {
    use super::{
        history::{Step, history},
        play::SCOPE,
    };
    use crate::scenarios::notation::{Node, document};

    #[test]
    fn a_seed_is_a_history() {
        assert_eq!(history(7, 100), history(7, 100));
        assert_ne!(history(7, 100), history(8, 100));
    }

    #[test]
    fn every_step_can_be_written_as_a_command() {
        for step in (0..300).flat_map(|seed| history(seed, 60)) {
            let Step::Source(Node::Fields(fields)) = step else { continue };
            let commands = fields[0].1.list().filter(|_| fields[0].0.starts_with('$'));
            let commands = commands.map_or(vec![Node::Fields(fields.clone())], <[_]>::to_vec);
            for command in commands {
                let Node::Fields(fields) = &command else { panic!("{command:?}") };
                document(fields, SCOPE).unwrap_or_else(|why| panic!("{why}: {command:?}"));
            }
        }
    }
}

mod real {
    use super::{
        history::{Step, history},
        play::{Played, play},
        shrink::shrink,
        tell::scenario,
    };
    use crate::{
        scenarios::notation::Node,
        support::{Pair, full, seed},
    };
    use bson::doc;
    use std::{collections::BTreeMap, fs, time::Duration};
    use testbed::Options;
    use tokio::time::Instant;

    /// Steps on the source in one history.
    const STEPS: usize = 250;
    /// A usual run begins no further history after this time, and a long one after that.
    const USUAL: Duration = Duration::from_secs(40);
    const LONG: Duration = Duration::from_secs(4 * 3600);
    /// Histories that once failed: a usual run begins with them.
    const FOUND: [u64; 1] = [
        // A document of a capped collection whose `_id` became a number of another type lost its place when it was read again.
        3_991_127_991_574_984_584,
    ];
    /// Time for shrinking a failure.
    const SHRINKING: Duration = Duration::from_secs(240);

    /// A usual run plays the same histories, so that it fails by what was changed; a long one plays others each time.
    fn seeds() -> Box<dyn Iterator<Item = u64> + Send> {
        let usual = duration() == USUAL && std::env::var("MONGOFERRY_TEST_SEED").is_err();
        if usual { Box::new(FOUND.into_iter().chain(1..)) } else { Box::new(seed("property")..) }
    }

    fn duration() -> Duration {
        match std::env::var("MONGOFERRY_TEST_PROPERTY_MINUTES") {
            Ok(minutes) => Duration::from_secs(60 * minutes.parse::<u64>().expect("MONGOFERRY_TEST_PROPERTY_MINUTES is a number")),
            Err(_) if full("PROPERTY") => LONG,
            Err(_) => USUAL,
        }
    }

    /// Nothing expires: documents have all kinds of dates, and a TTL index may delete them between two readings.
    async fn pair() -> Pair {
        let options =
            || Options { extra_args: ["--setParameter", "ttlMonitorEnabled=false"].map(String::from).to_vec(), ..Options::default() };
        Pair::with(options(), options()).await
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn whatever_happens_the_target_is_byte_identical() {
        let (began, duration) = (Instant::now(), duration());
        let pair = pair().await;
        let (mut taken, mut refused) = (0, BTreeMap::<(String, i32), usize>::new());
        for (n, seed) in seeds().enumerate() {
            if began.elapsed() > duration && n > 0 {
                break;
            }
            let steps = history(seed, STEPS);
            let played = play(&pair, &steps).await;
            eprintln!("property: history {n}, seed {seed}, {:.0?}", began.elapsed());
            let nodes = steps.iter().filter_map(|step| if let Step::Source(node) = step { Some(node) } else { None });
            for (node, outcome) in nodes.zip(&played.refused) {
                taken += 1;
                if let (Node::Fields(fields), Some(why)) = (node, outcome) {
                    *refused.entry((fields[0].0.clone(), why.code)).or_default() += 1;
                }
            }
            if let Err(why) = played.verdict {
                for client in [&pair.from, &pair.to] {
                    let answer = client.database("admin").run_command(doc! {"ping": 1}).await;
                    answer.unwrap_or_else(|e| panic!("seed {seed}: a server died: {e}; {why}"));
                }
                tell(&pair, seed, &steps, &why).await;
            }
        }
        let turned_down: usize = refused.values().sum();
        eprintln!("property: {taken} steps, {turned_down} of them refused at least in part: {refused:?}");
        assert!(turned_down * 2 < taken, "most steps were refused: histories in which little happens");
        pair.end().await;
    }

    /// Each statement on its own.
    fn apart(step: &Step) -> Vec<Step> {
        let Step::Source(Node::Fields(fields)) = step else { return vec![step.clone()] };
        let Some((name, Node::List(items))) =
            fields.get(1).filter(|(name, _)| matches!(name.as_str(), "documents" | "updates" | "deletes"))
        else {
            return vec![step.clone()];
        };
        let single = |item: &Node| {
            let mut fields = fields.clone();
            fields[1] = (name.clone(), Node::List(vec![item.clone()]));
            Step::Source(Node::Fields(fields))
        };
        items.iter().map(single).collect()
    }

    /// Fails, with the smallest history that does.
    async fn tell(pair: &Pair, seed: u64, steps: &[Step], why: &str) {
        eprintln!("property: seed {seed} failed, and is shrunk: {why}");
        let deadline = Instant::now() + SHRINKING;
        let in_time = || Instant::now() < deadline;
        let mut last = None;
        let mut fails = async |steps: &[Step]| {
            let played = play(pair, steps).await;
            let failed = played.verdict.is_err();
            if failed {
                last = Some(played);
            }
            failed
        };
        let mut smallest = shrink(steps.to_vec(), in_time, &mut fails).await;
        let single: Vec<_> = smallest.iter().flat_map(apart).collect();
        if single.len() > smallest.len() && in_time() && fails(&single).await {
            smallest = shrink(single, in_time, &mut fails).await;
        }
        let Played { refused, verdict } = match last {
            Some(last) => last,
            None => play(pair, &smallest).await,
        };
        let text = scenario(seed, &smallest, &refused);
        let folder = pair.source.folder().parent().expect("a server's folder lies in another").join(format!("property_{seed}"));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("scenario.toml"), &text).unwrap();
        let (at, now) = (folder.display(), verdict.err().unwrap_or_else(|| why.to_owned()));
        panic!("MONGOFERRY_TEST_SEED={seed} fails; shrunk to {} steps in {at}\n{text}\n{now}", smallest.len());
    }
}
