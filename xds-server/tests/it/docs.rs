//! The commands of this program that the documents show, run in a folder with the files that they name.

use std::path::Path;

use crate::harness::*;

#[path = "../../../tests/it/docs/blocks.rs"]
mod blocks;

/// A gateway that the commands fit.
const GATEWAY: &str = "\
listeners: [{name: public, port: 0}]
services:
- name: users
  strategy: weighted
  instances:
  - {id: users-1, url: 'http://10.0.0.1:8080'}
  - {id: users-2, url: 'http://10.0.0.2:8080'}
routes:
- {prefix: /, service: users}
";

/// What else than serving it does.
const LOOKS: [&str; 5] = ["check", "explain", "diff", "schema", "openapi"];

#[tokio::test]
async fn every_command_in_the_documents_does_what_it_says() {
    let example = include_str!("../../../examples/gateway.yaml");
    let mut run = 0;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for block in blocks::all_blocks(root) {
        let folder = Folder::new(&[
            ("gateway.yaml", GATEWAY),
            ("new.yaml", &GATEWAY.replace("10.0.0.2", "10.0.0.3")),
            ("examples/gateway.yaml", example),
            ("token", "s3cret"),
        ]);
        let mut server = None;
        for shown in block.commands("xds-server") {
            let command = shown.split(" #").next().unwrap();
            let mut args: Vec<_> = command.split_whitespace().skip(1).collect();
            let api = match args[0] {
                "ctl" => {
                    if server.is_none() {
                        let token = folder.path().join("token").display().to_string();
                        let more = ["--api", "127.0.0.1:0", "--api-token-file", &token];
                        let file = folder.path().join("gateway.yaml");
                        server = Some(Server::start_from("--gateway", &file, &more).await);
                    }
                    server.as_ref().and_then(|server| server.api.clone()).unwrap()
                }
                look if LOOKS.contains(&look) => String::new(),
                _ => continue,
            };
            if !api.is_empty() {
                args.splice(1..1, ["--api", &api]);
            }
            let output = binary().args(&args).current_dir(folder.path()).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{}: {shown}: {said}", block.at);
            run += 1;
        }
    }
    assert!(run > 10, "{run} commands in all documents");
}
