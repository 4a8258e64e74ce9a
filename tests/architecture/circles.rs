//! No circle of imports between the files of a crate: a type lives below everything that uses it.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    assert_none,
    source::{imports, product_code},
};

type Module = Vec<String>;

/// The path of the module in a file, without the crate's name.
fn module_of(path: &str) -> Module {
    let mut steps: Module = path.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    if steps.last().is_some_and(|last| ["lib", "main", "mod"].contains(&last.as_str())) {
        steps.pop();
    }
    steps
}

/// The module that an import names: the longest path that is a module.
fn target(modules: &BTreeMap<Module, String>, from: &Module, import: &str) -> Option<Module> {
    let steps: Vec<&str> = import.split("::").collect();
    let (base, rest) = match steps.split_first()? {
        (&"crate", rest) => (Module::new(), rest),
        (&"self", rest) => (from.clone(), rest),
        (&"super", _) => {
            let up = steps.iter().take_while(|step| **step == "super").count();
            (from[..from.len().checked_sub(up)?].to_vec(), &steps[up..])
        }
        _ => return None,
    };
    let path: Module = base.into_iter().chain(rest.iter().map(|step| (*step).to_owned())).collect();
    let prefixes = (0..=path.len()).rev().map(|length| path[..length].to_vec());
    prefixes.into_iter().find(|prefix| modules.contains_key(prefix))
}

/// The modules that can be reached from `start` by one or more imports.
fn reachable<'m>(edges: &'m BTreeMap<Module, BTreeSet<Module>>, start: &'m Module) -> BTreeSet<&'m Module> {
    let (mut found, mut open) = (BTreeSet::new(), vec![start]);
    while let Some(module) = open.pop() {
        for next in edges.get(module).into_iter().flatten() {
            if found.insert(next) {
                open.push(next);
            }
        }
    }
    found
}

#[test]
fn files_do_not_import_each_other_in_a_circle() {
    let mut crates: BTreeMap<String, BTreeMap<Module, String>> = BTreeMap::new();
    for file in product_code() {
        let (name, path) = file.path.split_once("/src/").expect("a file of a crate");
        crates.entry(name.to_owned()).or_default().insert(module_of(path), file.text);
    }
    let mut broken = Vec::new();
    for (name, modules) in &crates {
        let mut edges: BTreeMap<Module, BTreeSet<Module>> = BTreeMap::new();
        for (module, text) in modules {
            let targets = imports(text).into_iter().filter_map(|import| target(modules, module, &import));
            // A module may import what its own children define.
            edges.insert(module.clone(), targets.filter(|target| !target.starts_with(module)).collect());
        }
        for module in modules.keys().filter(|module| reachable(&edges, module).contains(module)) {
            broken.push(format!("{name}: {} is part of a circle", module.join("::")));
        }
    }
    assert_none("move the shared type to a file below both, such as model.rs", broken);
}
