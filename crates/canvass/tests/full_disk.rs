//! A full disk: nothing is confirmed that is not recorded, the server lives on, and it recovers with the space.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use support::{Raw, Server, eventually, get, post};

/// A small file system of its own, gone when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(folder: &Path) -> Self {
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(folder).status();
        let mounted = mounted.is_ok_and(|status| status.success());
        assert!(mounted, "this test mounts a small tmpfs, which needs root; run the tests as root");
        SmallDisk(folder.to_owned())
    }

    /// Takes all the space that is left.
    fn fill(&self) {
        // The file system ends the copy when it is full; that is what is wanted.
        let filler = self.0.join("filler");
        let _ =
            Command::new("dd").args(["if=/dev/zero", "bs=1k", &format!("of={}", filler.display())]).output();
    }

    fn make_room(&self) {
        std::fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-l"]).arg(&self.0).status();
    }
}

fn vote(address: &str, voter: usize) -> Raw {
    let body = json!({"contest": "song", "selections": ["x"], "voter": format!("voter-{voter}")});
    post(address, "/api/v1/vote", None, Some("k"), &body)
}

#[test]
fn a_full_disk_loses_nothing_that_was_confirmed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("election.toml");
    std::fs::write(&file, support::POLL).unwrap();
    let small = folder.path().join("small");
    std::fs::create_dir(&small).unwrap();
    let disk = SmallDisk::mount(&small);
    let data = small.join("data");
    let mut server = Server::start(&data, &["--election", file.to_str().unwrap()]);
    let at = server.address.clone();
    let confirmed = (0..20).filter(|voter| vote(&at, *voter).status == 201).count();
    assert_eq!(confirmed, 20);
    disk.fill();
    // The last page of the journal may still have room for a few.
    let (refused, answer) = eventually("a refusal", {
        let mut voter = confirmed;
        move || {
            let answer = vote(&at, voter);
            voter += 1;
            (answer.status != 201).then_some((voter - 1, answer))
        }
    });
    let at = server.address.clone();
    assert_eq!((answer.status, answer.code().as_str()), (503, "log-unavailable"), "{}", answer.body);
    assert!(answer.header("retry-after").is_some());
    for _ in 0..50 {
        assert_eq!(vote(&at, refused).status, 503, "still full");
    }
    let votes = |expected: usize| {
        eventually("the count", || {
            let results: Value = get(&at, "/api/v1/results?contest=song");
            (results["selections"]["x"]["votes"] == expected).then_some(())
        });
    };
    votes(refused);
    disk.make_room();
    assert_eq!(vote(&at, refused).status, 201, "there is space again");
    assert_eq!(vote(&at, 0).status, 200, "and nobody was forgotten");
    votes(refused + 1);
    server.restart();
    votes(refused + 1);
    assert_eq!(vote(&at, refused).status, 200);
    drop(server);
}
