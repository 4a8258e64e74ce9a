//! `millrace contract deploy`: the address of a working contract on standard output, and helpful errors.

use std::process::{Command, Output};

use super::{ONE, SOON, chain_of, id, rate};
use crate::harness::{
    anvil::{Node, OTHER_KEY, OWNER_KEY},
    port::Port,
    scratch::Scratch,
};

fn deploy(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let folder = Scratch::new();
    let mut command = Command::new(env!("CARGO_BIN_EXE_millrace"));
    command.args(["contract", "deploy"]).args(arguments).env_clear().envs(variables.iter().copied());
    command.current_dir(&*folder).output().expect("millrace runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test]
async fn deploy_prints_the_address_of_a_working_contract() {
    let Some(node) = Node::start().await else { return };
    let mut addresses = Vec::new();
    for key in [OWNER_KEY, OTHER_KEY] {
        let output = deploy(&[], &[("CHAIN_RPC_URL", &node.url), ("CHAIN_PRIVATE_KEY", key)]);
        let (printed, stderr) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{stderr}");
        assert!(stderr.contains("CONTRACT_ADDRESS") && !stderr.contains(&key[2..20]), "{stderr}");
        let address = printed.strip_suffix('\n').expect("a line").to_owned();
        assert!(address.len() == 42 && address.starts_with("0x"), "{printed:?}");
        let chain = chain_of(&node.url, key, &address);
        chain.ready().await.expect("a contract of this key's");
        let prepared = chain.prepare(id(1), rate(ONE)).await.unwrap();
        chain.send(&prepared.raw).await.unwrap();
        assert!(chain.await_receipt(prepared.hash, SOON).await.unwrap().expect("a receipt").succeeded);
        addresses.push(address);
    }
    assert_ne!(addresses[0], addresses[1]);

    // An unknown key, whose account has no funds.
    let poor = format!("0x{}", "1".repeat(64));
    let output = deploy(&[], &[("CHAIN_RPC_URL", &node.url), ("CHAIN_PRIVATE_KEY", &poor)]);
    let stderr = text(&output.stderr);
    assert!(!output.status.success() && output.stdout.is_empty());
    assert!(stderr.to_lowercase().contains("insufficient funds"), "{stderr}");
}

#[test]
fn deploy_names_the_error_without_leaking_secrets() {
    // A port without a listener.
    let port = Port::free();
    let url = format!("http://user:secret@127.0.0.1:{port}/secret");
    let output = deploy(&[], &[("CHAIN_RPC_URL", &url), ("CHAIN_PRIVATE_KEY", OWNER_KEY)]);
    let stderr = text(&output.stderr);
    assert!(!output.status.success() && output.stdout.is_empty());
    assert!(stderr.contains("the chain cannot be reached") && stderr.contains("refused"), "{stderr}");
    assert!(!stderr.contains("secret") && !stderr.contains(&OWNER_KEY[2..20]), "{stderr}");

    let output = deploy(&[], &[]);
    let stderr = text(&output.stderr);
    assert!(!output.status.success() && output.stdout.is_empty());
    for variable in ["CHAIN_RPC_URL", "CHAIN_PRIVATE_KEY"] {
        assert!(stderr.contains(&format!("{variable}: must be set")), "{stderr}");
    }
    assert!(!stderr.contains("CONTRACT_ADDRESS"), "deploy does not need the address: {stderr}");

    let help = text(&deploy(&["--help"], &[]).stdout);
    assert!(
        help.contains("CHAIN_RPC_URL") && help.contains("export CONTRACT_ADDRESS=$(millrace contract deploy)"),
        "{help}"
    );
}
