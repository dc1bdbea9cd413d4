//! `kill -9`, by a test that starts itself again as the process to be killed.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use assay_store::Store;

use crate::key;

const VICTIM: &str = "ASSAY_STORE_TEST_VICTIM";

/// Not a test of its own: the process that the next test kills. It files items and says so.
#[test]
#[expect(clippy::disallowed_methods, clippy::print_stdout, reason = "talks to its parent")]
fn victim() {
    let Ok(root) = std::env::var(VICTIM) else { return };
    let store = Store::open(root.as_ref()).unwrap();
    let _lock = store.lock_run().unwrap();
    println!();
    for n in 0_u32.. {
        store.put_item(&key("generate", 1), &n.to_string(), &n).unwrap();
        println!("filed {n}");
    }
}

#[test]
fn what_was_filed_survives_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let mut total = 0;
    for round in 1..=3 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["crash::victim", "--exact", "--nocapture"])
            .env(VICTIM, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let filed = |line: &String| line.strip_prefix("filed ")?.parse::<usize>().ok();
        let last = lines.map_while(Result::ok).filter_map(|l| filed(&l)).nth(round * 40).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();

        let store = Store::open(dir.path()).unwrap();
        let items = store.items::<u32>(&key("generate", 1)).unwrap();
        assert!((0..=last).all(|n| items.contains_key(&n.to_string())), "an item was lost");
        assert!(items.len() >= total);
        total = items.len();
        store.lock_run().expect("the system frees the lock of a killed process");
    }
}
