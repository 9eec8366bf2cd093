//! Completions and manual pages of all three binaries: real tools read them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
    process::Output,
};

use support::binary;
use testkit::{registries::skip, service_binary};
use tokio::process::Command;

/// A binary, its name, and a flag that it has.
async fn binaries() -> [(PathBuf, &'static str, &'static str); 3] {
    [
        (binary().to_owned(), "discovery", "--log-level"),
        (
            service_binary("trim-service").await.unwrap(),
            "trim-service",
            "--max-streams",
        ),
        (
            service_binary("add-service").await.unwrap(),
            "add-service",
            "--http-port",
        ),
    ]
}

async fn output(program: &Path, arguments: &[&str]) -> std::io::Result<Output> {
    // Every flag has a variable; they must not change what is generated.
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env("TRIM_PORT", "1")
        .env("LOG_LEVEL", "debug");
    command.output().await
}

async fn generate(program: &Path, arguments: &[&str]) -> String {
    let line = [&["--generate"], arguments].concat();
    let output = output(program, &line).await.unwrap();
    assert!(
        output.status.success(),
        "{} {arguments:?}: {output:?}",
        program.display()
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Formats a page with all warnings on. `None` if groff is missing.
async fn warnings(page: &Path) -> Option<String> {
    let page = page.display().to_string();
    let line = ["-man", "-Tutf8", "-ww", "-z", &page];
    match output(Path::new("groff"), &line).await {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            skip(
                "manual pages",
                "groff is missing; install Debian's groff-base",
            )
            .unwrap();
            None
        }
        output => Some(String::from_utf8(output.unwrap().stderr).unwrap()),
    }
}

#[tokio::test]
async fn manual_pages_are_formatted_without_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let mut pages = Vec::new();
    for (program, name, flag) in binaries().await {
        let text = generate(&program, &["man"]).await;
        let escaped = flag.replace('-', "\\-");
        assert!(text.contains(&escaped), "{name}: {text}");
        pages.push((format!("{name}.1"), text));
    }
    for subcommand in ["watch", "resolve", "call", "register", "doctor"] {
        let text = generate(binary(), &["man", subcommand]).await;
        assert!(
            text.contains(&format!(".TH discovery-{subcommand} 1")),
            "{text}"
        );
        pages.push((format!("discovery-{subcommand}.1"), text));
    }
    for (name, text) in pages {
        let file = folder.path().join(&name);
        std::fs::write(&file, text).unwrap();
        let Some(found) = warnings(&file).await else {
            return;
        };
        assert_eq!(found, "", "{name}");
    }
}

#[tokio::test]
async fn bash_completes_flags_and_subcommands() {
    let folder = tempfile::tempdir().unwrap();
    for (program, name, flag) in binaries().await {
        let file = folder.path().join(name);
        std::fs::write(&file, generate(&program, &["complete-bash"]).await).unwrap();
        // What a Tab after the beginning of the flag does.
        let begin = &flag[..flag.len() - 2];
        let script = format!(
            "source '{}'; COMP_WORDS=({name} {begin}); COMP_CWORD=1; \
             $(complete -p {name} | sed 's/.*-F \\([^ ]*\\).*/\\1/') {name} '{begin}' {name}; \
             echo \"${{COMPREPLY[@]}}\"",
            file.display()
        );
        let done = output(Path::new("bash"), &["--norc", "-c", &script])
            .await
            .unwrap();
        let offered = String::from_utf8(done.stdout).unwrap();
        assert_eq!(
            offered.trim(),
            flag,
            "{}",
            String::from_utf8_lossy(&done.stderr)
        );
    }
}

#[tokio::test]
async fn other_shells_have_completions_and_a_wrong_kind_is_refused() {
    for (program, name, flag) in binaries().await {
        for shell in ["zsh", "fish", "elvish", "powershell"] {
            let text = generate(&program, &[&format!("complete-{shell}")]).await;
            assert!(
                text.contains(flag.trim_start_matches('-')),
                "{name} {shell}"
            );
        }
        let wrong = output(&program, &["--generate", "complete-cmd"])
            .await
            .unwrap();
        assert_eq!(wrong.status.code(), Some(2), "{wrong:?}");
        let said = String::from_utf8(wrong.stderr).unwrap();
        assert!(said.contains("expected man or complete-bash"), "{said}");
    }
}
