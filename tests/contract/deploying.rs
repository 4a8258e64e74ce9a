//! `millrace contract deploy`: an address on standard output that works, and an error that helps.

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
async fn the_printed_address_is_a_contract_of_the_keys() {
    let Some(node) = Node::start().await else { return };
    let mut addresses = Vec::new();
    for key in [OWNER_KEY, OTHER_KEY] {
        let output = deploy(&[], &[("CHAIN_RPC_URL", &node.url), ("CHAIN_PRIVATE_KEY", key)]);
        let (printed, told) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{told}");
        assert!(told.contains("CONTRACT_ADDRESS") && !told.contains(&key[2..20]), "{told}");
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

    // A key of nobody's, whose account cannot pay.
    let poor = format!("0x{}", "1".repeat(64));
    let output = deploy(&[], &[("CHAIN_RPC_URL", &node.url), ("CHAIN_PRIVATE_KEY", &poor)]);
    let told = text(&output.stderr);
    assert!(!output.status.success() && output.stdout.is_empty());
    assert!(told.to_lowercase().contains("insufficient funds"), "{told}");
}

#[test]
fn what_is_wrong_is_said() {
    // Nothing listens there.
    let port = Port::free();
    let url = format!("http://user:secret@127.0.0.1:{port}/secret");
    let output = deploy(&[], &[("CHAIN_RPC_URL", &url), ("CHAIN_PRIVATE_KEY", OWNER_KEY)]);
    let told = text(&output.stderr);
    assert!(!output.status.success() && output.stdout.is_empty());
    assert!(told.contains("the chain cannot be reached") && told.contains("refused"), "{told}");
    assert!(!told.contains("secret") && !told.contains(&OWNER_KEY[2..20]), "{told}");

    let output = deploy(&[], &[]);
    let told = text(&output.stderr);
    assert!(!output.status.success() && output.stdout.is_empty());
    for variable in ["CHAIN_RPC_URL", "CHAIN_PRIVATE_KEY"] {
        assert!(told.contains(&format!("{variable}: must be set")), "{told}");
    }
    assert!(!told.contains("CONTRACT_ADDRESS"), "it is not known before: {told}");

    let help = text(&deploy(&["--help"], &[]).stdout);
    assert!(
        help.contains("CHAIN_RPC_URL") && help.contains("export CONTRACT_ADDRESS=$(millrace contract deploy)"),
        "{help}"
    );
}
