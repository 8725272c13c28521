//! Class folders as people have them: what systems leave in them, links, and names that are no plain text.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};

use crate::common::{data_prep, expect, files, jpeg, open, put};

/// What it said where it ended well.
fn said(output: Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn what_systems_leave_is_passed_over_at_any_depth() {
    let folder = tempfile::tempdir().unwrap();
    let photo = jpeg(20, 20, 1);
    for name in ["ant/1.jpg", "ant/deep/2.jpg", "bee/3.jpg"] {
        put(folder.path(), &format!("clean/{name}"), &photo);
        put(folder.path(), &format!("p/{name}"), &photo);
    }
    for stray in [".ipynb_checkpoints", ".Trash-1000", ".thumbnails", ".AppleDouble", "__MACOSX", "lost+found", "@eaDir", "$RECYCLE.BIN"] {
        for place in ["", "ant/", "ant/deep/", "bee/"] {
            put(folder.path(), &format!("p/{place}{stray}/1.jpg"), &photo);
        }
    }
    put(folder.path(), "p/System Volume Information/1.jpg", &photo);
    put(folder.path(), "p/ant/._1.jpg", &photo);
    put(folder.path(), "p/bee/.DS_Store", &photo);
    put(folder.path(), "p/labels.csv", b"beside");
    let told = said(data_prep(folder.path(), "folder --images p --out out"));
    // Eight in four places, the one with blanks in its name, and the photo.
    assert!(
        told.contains("hidden files and folders, and those of systems, are passed over: 34, namely $RECYCLE.BIN, .AppleDouble, .Trash-1000 and 31 more"),
        "{told}"
    );
    assert!(told.contains("files beside the class folders are passed over: 1, namely labels.csv"), "{told}");
    expect(folder.path(), "folder --images clean --out expected", 0);
    let [found, expected] = ["out", "expected"].map(|name| open(&folder.path().join(name)));
    assert_eq!(found.class_names(), ["ant", "bee"]);
    assert_eq!((found.len(), found.fingerprint()), (3, expected.fingerprint()));
}

#[test]
fn links_are_followed_once_and_never_in_a_circle() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for (number, name) in ["p/ant/1.jpg", "p/bee/2.jpg", "pool/deep/3.jpg", "cats/4.jpg", "single.jpg"].into_iter().enumerate() {
        put(folder.path(), name, &jpeg(20, 20, number as u32));
    }
    let links = [
        ("../../pool", "p/ant/pool"),
        ("../cats", "p/cat"),
        ("../../single.jpg", "p/bee/5.jpg"),
        ("pool/deep", "p/ant/pool2"),
        ("none", "p/ant/x"),
    ];
    for (to, link) in links {
        symlink(to, path(link)).unwrap();
    }
    symlink("none", path("p/dog")).unwrap();
    let told = said(data_prep(folder.path(), "folder --images p --out out"));
    assert!(told.contains("links that lead nowhere are passed over: 2, namely ant/x, dog"), "{told}");
    assert!(told.contains("folders to which another path has led before are passed over: 1, namely ant/pool2"), "{told}");
    let dataset = open(&path("out"));
    assert_eq!(dataset.class_names(), ["ant", "bee", "cat"]);
    // 1 and 3 in ant, 2 and the single one in bee, 4 in cat.
    assert_eq!((0..dataset.len()).map(|index| dataset.label(index)).collect::<Vec<_>>(), [0, 0, 1, 1, 2]);

    let refused = |to: &str, link: &str, part: &str| {
        symlink(to, path(link)).unwrap();
        let said = expect(folder.path(), "folder --images p --out x", 2);
        assert!(said.contains(link) && said.contains(part), "{link}: {said}");
        // What it says to do helps.
        fs::remove_file(path(link)).unwrap();
        expect(folder.path(), "folder --images p --out x", 0);
        fs::remove_dir_all(path("x")).unwrap();
    };
    refused("..", "p/ant/up", "leads back to a folder that it lies in; remove this link");
    refused("../../p", "p/ant/top", "leads back to a folder that it lies in");
    refused(".", "p/bee/self", "leads back to a folder that it lies in");
    refused("../../pool", "p/bee/pool", "p/ant/pool and p/bee/pool are one folder, whose photos would be in two classes");
    refused("ant", "p/emmet", "p/ant and p/emmet are one folder");
    let inside = |out: &str| {
        let said = expect(folder.path(), &format!("folder --images p --out {out}"), 2);
        assert!(said.contains("give a folder outside of it"), "{said}");
        assert!(!path(out).exists());
    };
    inside("p/out");
    inside("p/ant/deep/out");
    inside("pool/deep/out");
    inside("cats/out");
}

#[test]
fn names_may_hold_anything_and_none_reaches_the_terminal_raw() {
    let folder = tempfile::tempdir().unwrap();
    let class = "red\u{1b}[31m \u{9b}2J two\nlines\t\u{7f}";
    put(folder.path(), &format!("p/{class}/a b\n\u{1b}[2J.jpg"), &jpeg(20, 20, 0));
    put(folder.path(), &format!("p/{class}/broken\n\u{1b}[2J.jpg"), b"no photo");
    put(folder.path(), &format!("p/{class}/\u{1b}[2J.txt"), b"no photo");
    put(folder.path(), "p/\u{1b}[2J/notes.txt", b"no photo");
    for (at, arguments) in [
        "folder --images p --out out",
        "info out",
        "stats out",
        "verify out",
        "info out --json",
        "stats out --json",
        "show out --out sheet.png",
    ]
    .into_iter()
    .enumerate()
    {
        let output = data_prep(folder.path(), arguments);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(text.chars().all(|letter| letter == '\n' || !letter.is_control()), "{text:?}");
        assert_eq!(text.contains("\\u{1b}[2J"), at == 0 || at == 1, "{text:?}");
        assert_eq!(text.contains("\\u001b[2J"), at == 4, "{text:?}");
        if arguments == "info out" {
            assert!(text.contains("1  red\\u{1b}[31m \\u{9b}2J two\\nlines\\t\\u{7f}\n"), "{text}");
        }
    }
    let json: serde_json::Value = serde_json::from_str(&expect(folder.path(), "info out --json", 0)).unwrap();
    assert_eq!(json["class_names"][1], class);
    let report = fs::read_to_string(folder.path().join("out/unreadable.txt")).unwrap();
    assert!(report.lines().count() == 1 && report.contains("broken\\n\\u{1b}[2J.jpg: it is neither"), "{report:?}");
    let missing = data_prep(folder.path(), "info \u{1b}[2J");
    assert!(missing.status.code() == Some(2) && !missing.stderr.contains(&0x1b), "{missing:?}");
}

#[test]
fn names_that_are_no_utf8_are_refused_or_work() {
    let folder = tempfile::tempdir().unwrap();
    let [images, class, photo, out] = [b"p\xe9".as_slice(), b"caf\xe9", b"\xff\xfe.jpg", b"out\xe9"].map(OsStr::from_bytes);
    let root = folder.path().join(images);
    fs::create_dir_all(root.join("ant")).unwrap();
    fs::write(root.join("ant").join(photo), jpeg(20, 20, 0)).unwrap();
    fs::write(root.join("ant").join(OsStr::from_bytes(b"\xfe.jpg")), b"broken").unwrap();
    let run =
        |arguments: &[&OsStr]| Command::new(env!("CARGO_BIN_EXE_data-prep")).current_dir(folder.path()).args(arguments).output().unwrap();
    let prepare = [OsStr::new("folder"), OsStr::new("--images"), images, OsStr::new("--out"), out];
    let output = run(&prepare);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(open(&folder.path().join(out)).len(), 1);
    for command in ["info", "stats", "verify"] {
        assert_eq!(run(&[OsStr::new(command), out]).status.code(), Some(0));
    }
    fs::remove_dir_all(folder.path().join(out)).unwrap();
    fs::create_dir(root.join(class)).unwrap();
    let output = run(&prepare);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && said.contains("caf\\xE9\" has a name that is no UTF-8 text; rename it"), "{said}");
    assert!(!folder.path().join(out).exists());
}

#[test]
fn an_interrupted_job_is_known_by_the_photos() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let noise = |seed: u32| -> Vec<u8> {
        let image = image::RgbImage::from_fn(600, 600, |x, y| image::Rgb([(x * y + seed) as u8, (x * 7 + y * 13) as u8, (x ^ y) as u8]));
        let mut bytes = std::io::Cursor::new(Vec::new());
        image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
        bytes.into_inner()
    };
    for number in 0..4 {
        put(folder.path(), &format!("p/a/{number}.jpg"), &jpeg(20, 20, number));
        put(folder.path(), &format!("p/b/{number}.png"), &noise(number));
    }
    let command = |out: &str| format!("folder --images p --out {out} --shard-mib 1");
    expect(folder.path(), &command("whole"), 0);
    // A photo per shard, and the first of the large ones exceeds the longest file that is allowed: there it ends.
    let interrupt = |out: &str| {
        let limited = format!("ulimit -f 512; exec \"$0\" {}", command(out));
        let output =
            Command::new("bash").args(["-c", &limited, env!("CARGO_BIN_EXE_data-prep")]).current_dir(folder.path()).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(path(out).join("00001.shard").exists() && !path(out).join("00004.shard").exists());
    };
    // The tree's folders get other times, and the photos, too.
    interrupt("touched");
    put(folder.path(), "p/new", b"");
    fs::remove_file(path("p/new")).unwrap();
    let bytes = fs::read(path("p/a/1.jpg")).unwrap();
    fs::write(path("p/a/1.jpg"), &bytes).unwrap();
    expect(folder.path(), &command("touched"), 0);
    assert!(files(&path("touched")) == files(&path("whole")));

    let refused = |part: &str| {
        let said = expect(folder.path(), &command("other"), 2);
        assert!(said.contains(part) && said.contains("delete other to begin anew, or give another folder"), "{said}");
    };
    interrupt("other");
    let mut replaced = bytes.clone();
    let last = replaced.len() - 10;
    replaced[last] ^= 1;
    fs::write(path("p/a/1.jpg"), &replaced).unwrap();
    refused("(photos.contents is ");
    fs::write(path("p/a/1.jpg"), &bytes[1..]).unwrap();
    refused("(photos.sizes is ");
    fs::rename(path("p/a/1.jpg"), path("p/a/9.jpg")).unwrap();
    refused("(photos.names is ");
    fs::remove_dir_all(path("other")).unwrap();
    expect(folder.path(), &command("other"), 0);
}

#[test]
fn a_data_set_that_is_looked_at_may_lie_anywhere() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "p/a/0.jpg", &jpeg(8, 8, 0));
    expect(folder.path(), "folder --images p --out p/../out", 0);
    assert!(Path::new(&folder.path().join("out/manifest.json")).exists());
}
