//! `migrations/new`: it creates two files with valid names, and refuses wrong names.

use std::process::{Command, Output};

use super::root;
use crate::harness::scratch::Scratch;

/// Runs the script by its shell: a process that another test is starting may still have the copy open for writing, and
/// the kernel does not execute such a file.
fn new(scratch: &Scratch, name: &str) -> Output {
    Command::new("sh").arg(scratch.join("new")).arg(name).current_dir("/").output().expect("a script that runs")
}

fn files(scratch: &Scratch) -> Vec<String> {
    let entries = std::fs::read_dir(&**scratch).unwrap().filter_map(Result::ok);
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().display().to_string()).collect();
    names.retain(|name| name.ends_with(".sql"));
    names.sort();
    names
}

#[tokio::test]
async fn a_new_migration_has_an_up_file_and_a_down_file() {
    let scratch = Scratch::new();
    std::fs::copy(root().join("migrations/new"), scratch.join("new")).unwrap();
    std::fs::write(scratch.join("20261121090000_tune_queue_tables.up.sql"), "").unwrap();

    let made = new(&scratch, "create_invoices");
    assert!(made.status.success(), "{made:?}");
    let names = files(&scratch);
    let [older, down, up] = &names[..] else { panic!("{names:?}") };
    assert!(older < down && down.ends_with("_create_invoices.down.sql") && up.ends_with("_create_invoices.up.sql"));
    assert_eq!(down.split('_').next(), up.split('_').next(), "one version");
    assert_eq!(down.split('_').next().map(str::len), Some(14), "{down}");
    assert_eq!(String::from_utf8(made.stdout).unwrap(), format!("migrations/{up}\nmigrations/{down}\n"));
    for file in [down, up] {
        assert_eq!(std::fs::read_to_string(scratch.join(file)).unwrap(), "SET LOCAL lock_timeout = '2s';\n");
    }

    for (name, reason) in [
        ("", "verb and its object"),
        ("invoices", "verb and its object"),
        ("Create_invoices", "verb and its object"),
        ("create invoices", "verb and its object"),
        ("../create_invoices", "verb and its object"),
        ("create_invoices", "there is"),
    ] {
        let refused = new(&scratch, name);
        let stderr = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && stderr.contains(reason), "{name:?}: {stderr}");
    }
    std::fs::write(scratch.join("20991231000000_from_tomorrow.up.sql"), "").unwrap();
    let refused = new(&scratch, "create_orders");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("clock"), "{refused:?}");
    assert_eq!(files(&scratch).len(), 4, "a refused name creates no file");
}
