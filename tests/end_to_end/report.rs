//! The report says what the runs' files say, beside what the paper printed.

use std::path::Path;

use serde_json::Value;

use crate::site::{Site, write_images};

/// A configuration that comes with the project.
fn config(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("configs").join(name).to_str().unwrap().to_owned()
}

/// The paper's network for MNIST on a few images in a folder of that name.
fn train(site: &Site, name: &str, out: &str, more: &[&str]) {
    let config = config(name);
    let mut arguments = vec!["train", &config, "--out", out, "--set", "data.train=\"mnist/train\"", "--set", "data.test=\"mnist/test\""];
    arguments.extend(["--set", "training.log_every_steps=2", "--set", "data.batch_size=20"]);
    more.iter().for_each(|set| arguments.extend(["--set", set]));
    site.succeed(1, &arguments);
}

fn site() -> Site {
    let site = Site::new();
    std::fs::create_dir(site.path("mnist")).unwrap();
    write_images(&site.path("mnist/train"), 200, 10);
    write_images(&site.path("mnist/test"), 53, 10);
    site
}

/// A report on `runs`: Markdown and HTML.
fn report(site: &Site, runs: &[&str]) -> (String, String) {
    let mut arguments = vec!["report"];
    arguments.extend(runs);
    arguments.extend(["--out", "report"]);
    let outcome = site.succeed(1, &arguments);
    assert!(outcome.stdout.contains("report/report.html"), "{outcome:?}");
    let read = |file: &str| std::fs::read_to_string(site.path("report").join(file)).unwrap();
    (read("report.md"), read("report.html"))
}

/// The cells of the first row of a table of Markdown that begins with `first`, after a heading that contains `after`.
fn row(markdown: &str, after: &str, first: &str) -> Vec<String> {
    let from = markdown.find(after).unwrap_or_else(|| panic!("{after} in {markdown}"));
    // After the name may come signs of notes.
    let is_it = |line: &&str| line.strip_prefix(&format!("| {first}")).is_some_and(|rest| rest.starts_with([' ', '\u{a0}']));
    let line = markdown[from..].lines().find(is_it).unwrap_or_else(|| panic!("{first} in {markdown}"));
    line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
}

/// All lines of a split.
fn measured(site: &Site, run: &str, split: &str, key: &str) -> Vec<(u64, f64)> {
    let value = |line: Value| (line["split"] == split).then(|| (line["step"].as_u64().unwrap(), line[key].as_f64().unwrap()));
    site.metrics(run).into_iter().filter_map(value).collect()
}

/// Two values in per cent as mean and sample standard deviation: half their distance times the root of two.
fn of_two(a: f64, b: f64) -> String {
    format!("{:.2} ± {:.2}", 50.0 * (a + b), 100.0 * (a - b).abs() / 2f64.sqrt())
}

#[test]
fn numbers_are_those_of_the_metrics_and_of_the_paper() {
    let site = site();
    for seed in 0..2 {
        train(&site, "mnist_fc_bp.toml", &format!("bp-{seed}"), &["training.epochs=3", &format!("experiment.seed={seed}")]);
    }
    train(&site, "mnist_fc_dtp_parallel.toml", "dtp", &["training.epochs=2"]);
    // As a run looks that has not come to its end.
    let written = site.path("dtp/config.toml");
    let text = std::fs::read_to_string(&written).unwrap();
    std::fs::write(&written, text.replace("epochs = 2\n", "epochs = 5\n")).unwrap();
    let small = site.configure("small", "rule = \"fa\"", "[training]\nepochs = 6\nlog_every_steps = 4");
    site.succeed(1, &["train", &small, "--out", "small"]);

    // What has the name of a configuration that comes with the project, where the report is made, is not that one.
    std::fs::copy(site.path("bp-0/config.toml"), site.path("mnist_fc_bp.toml")).unwrap();
    // What was cleared away to save space is not missed.
    std::fs::remove_dir_all(site.path("bp-0/checkpoints")).unwrap();
    let (markdown, html) = report(&site, &["bp-1", "dtp", "small", "bp-0", "bp-1/"]);
    let last = |run: &str| measured(&site, run, "test", "top1_error").last().unwrap().1;
    let least = |run: &str| measured(&site, run, "test", "top1_error").iter().map(|(_, error)| *error).fold(1.0, f64::min);
    // Ten steps an epoch, five lines of two steps each: the plain mean.
    let trained = |run: &str| measured(&site, run, "train", "top1_error").iter().rev().take(5).map(|(_, error)| error / 5.0).sum::<f64>();
    let bp = row(&markdown, "Table 1 (a)", "BP");
    assert_eq!(bp[1..3], ["0.00", "1.48"], "Table 1 (a)");
    assert_eq!(bp[3], of_two(trained("bp-0"), trained("bp-1")));
    assert_eq!(bp[4], of_two(last("bp-0"), last("bp-1")));
    assert_eq!(bp[6], of_two(least("bp-0"), least("bp-1")));
    assert_eq!(bp[7..], ["3", "2"]);
    assert!(markdown.contains("Trained on 200 images, where MNIST has 60000"), "{markdown}");
    assert!(markdown.contains("¹ batch\\_size = 20 (128)."), "{markdown}");
    assert_eq!(markdown.matches("Values in brackets are those of the configuration").count(), 1, "said once");
    let dtp = row(&markdown, "Table 1 (a)", "DTP, parallel");
    assert_eq!(dtp[1..3], ["0.44", "2.86"]);
    assert_eq!(dtp[4], format!("{:.2}", 100.0 * last("dtp")));
    assert_eq!(dtp[7..], ["2 of 5", "1"]);
    assert_eq!(row(&markdown, "Table 1 (a)", "AO-SDTP, alternating")[1..], ["0.00", "1.86", "–", "–", "–", "–", "–", "–"]);
    assert!(!markdown.contains("Table 1 (b)") && !markdown.contains("Locally connected") && !markdown.contains("## Autoencoders"));

    // Of a folder of several seeds, all; and of an earlier report's figures, none.
    let seeds = site.path("seeds");
    std::fs::create_dir(&seeds).unwrap();
    for run in ["bp-0", "bp-1"] {
        std::os::unix::fs::symlink(site.path(run), seeds.join(run)).unwrap();
    }
    for file in ["curves-9.svg", "of-the-user.svg"] {
        std::fs::write(site.path("report/figures").join(file), "old").unwrap();
    }
    std::fs::write(site.path("report/report.md"), "![a](figures/curves-9.svg) [b](figures/../report.md)\n").unwrap();
    let (of_seeds, _) = report(&site, &["seeds"]);
    assert_eq!(row(&of_seeds, "Table 1 (a)", "BP")[1..], bp[1..]);
    assert!(!site.path("report/figures/curves-9.svg").exists() && site.path("report/figures/of-the-user.svg").exists());

    // A variant says what it is.
    train(&site, "mnist_fc_dtp_parallel.toml", "hybrid", &["training.epochs=1", "learning.hybrid=0.5"]);
    let (with_hybrid, _) = report(&site, &["hybrid"]);
    // Diagnostics make no other experiment of it.
    train(&site, "mnist_fc_dtp_parallel.toml", "seen", &["training.epochs=5", "training.diagnostics=true", "experiment.seed=1"]);
    let (both, _) = report(&site, &["dtp", "seen"]);
    assert_eq!(row(&both, "Table 1 (a)", "DTP, parallel")[8], "2", "{both}");
    assert!(
        both.contains("## Inside the network") && both.contains("![DTP, parallel, MNIST, fully connected](figures/layers-1.svg)"),
        "{both}"
    );
    assert!(with_hybrid.contains("| DTP, parallel (hybrid\u{a0}=\u{a0}0.5) |") && !with_hybrid.contains("Table 1"), "{with_hybrid}");

    // The run that is not the paper's has a validation split: it is chosen from as best.json does.
    let best: Value = serde_json::from_slice(&std::fs::read(site.path("small/best.json")).unwrap()).unwrap();
    let (errors, losses) = (measured(&site, "small", "validation", "top1_error"), measured(&site, "small", "validation", "loss"));
    let scores = errors.iter().zip(&losses).map(|((step, error), (_, loss))| (*error, *loss, *step));
    let chosen = scores.min_by(|a, b| a.partial_cmp(b).unwrap()).unwrap().2;
    assert_eq!(best["step"].as_u64(), Some(chosen), "{best}");
    let test = measured(&site, "small", "test", "top1_error");
    let small = row(&markdown, "Without a cell", "FA");
    assert_eq!(small[3], format!("{:.2}", 100.0 * test.iter().find(|(step, _)| *step == chosen).unwrap().1));
    assert_eq!(small[2], format!("{:.2}", 100.0 * test.last().unwrap().1));

    for text in [&bp[4], &dtp[4], &small[3]] {
        assert!(html.contains(&format!(">{text}</td>")), "{text}");
    }
    assert_eq!(html.matches("<figure>").count(), 2);
    assert!(html.contains("BP, epoch 3: "), "tooltips");
    self_contained(&html);
    for figure in ["curves-1.svg", "curves-2.svg"] {
        assert!(markdown.contains(&format!("](figures/{figure})")));
    }
    for_papers(&site, last("dtp"), &dtp[4]);
}

/// What a paper takes: figures that are as wide as was asked, points and tables as numbers, tables as LaTeX.
fn for_papers(site: &Site, error: f64, shown: &str) {
    let outcome = site.succeed(1, &["report", "dtp", "bp-0", "--width-mm", "85"]);
    assert_eq!(outcome.stdout.trim(), "2 runs: report/report.html and report/report.md");
    let file = |name: &str| std::fs::read(site.path("report").join(name)).unwrap();
    let text = |name: &str| String::from_utf8(file(name)).unwrap();
    let svg = text("figures/curves-1.svg");
    assert!(svg.starts_with("<svg") && svg.contains(" width=\"85mm\" height=\""), "{}", &svg[..300]);
    let pdf = file("figures/curves-1.pdf");
    let points = "/MediaBox [0 0 240.94 ";
    assert!(pdf.starts_with(b"%PDF-1.") && pdf.windows(points.len()).any(|part| part == points.as_bytes()));
    let curves = text("figures/curves-1.csv");
    let last = curves.lines().rev().find(|line| line.starts_with("Test,\"DTP, parallel")).unwrap();
    let value: f64 = last.rsplit(',').nth(1).unwrap().parse().unwrap();
    assert!(curves.starts_with("panel,line,epoch,value,deviation\n") && (value - 100.0 * error).abs() < 1e-9, "{last}");
    let (csv, latex) = (text("tables/errors-mnist.csv"), text("tables/errors-mnist.tex"));
    assert!(csv.lines().any(|line| line.starts_with("Fully connected,\"DTP, parallel") && line.contains(&format!(",{shown},"))), "{csv}");
    assert!(latex.contains(&format!(" & {shown} & ")) && latex.contains("\\toprule") && latex.contains("\\cmidrule(lr){2-3}"), "{latex}");
    assert!(text("tables/runs.csv").contains("\nbp-0,BP,"));
}

#[test]
fn runs_that_diverged_are_in_no_mean() {
    let site = site();
    // Decay makes weights many times what they were in every step: epoch 1 is measured, and epoch 2 ends in numbers that are not finite.
    let start = |out: &str, ranks: usize, sets: &[&str]| {
        let bp = config("mnist_fc_bp.toml");
        let mut arguments = vec!["train", &bp, "--out", out, "--resume", "--set", "data.train=\"mnist/train\""];
        let always = ["data.test=\"mnist/test\"", "data.batch_size=20", "training.log_every_steps=2", "optimizer.forward.method=\"sgd\""];
        always.iter().chain(sets).for_each(|set| arguments.extend(["--set", set]));
        site.run(ranks, &arguments)
    };
    let grows = ["optimizer.forward.learning_rate=0.01", "optimizer.forward.weight_decay=7e2"];
    let of_seed = |seed: usize, length: &str| {
        let of_it = [format!("experiment.seed={seed}"), format!("training.{length}")];
        start(&format!("seed-{seed}"), 1, &[grows[0], grows[1], &of_it[0], &of_it[1]])
    };
    for seed in 0..3 {
        assert_eq!(of_seed(seed, "epochs=1").code, Some(0));
        let written = site.path(&format!("seed-{seed}/config.toml"));
        let text = std::fs::read_to_string(&written).unwrap();
        std::fs::write(&written, text.replace("epochs = 1\n", "epochs = 2\n")).unwrap();
    }
    let diverged_at = |run: &str| -> Option<u64> {
        let about: Value = serde_json::from_slice(&std::fs::read(site.path(run).join("run.json")).unwrap()).unwrap();
        about["diverged_at_step"].as_u64()
    };
    let late = of_seed(3, "epochs=2");
    let step = diverged_at("seed-3").unwrap_or_else(|| panic!("{late:?}"));
    assert!(late.code == Some(77) && late.stderr.contains(&format!(" at step {step} ")) && (13..20).contains(&step), "{late:?}");
    let at_once = start("wild", 2, &["optimizer.forward.learning_rate=1e36", "training.epochs=2"]);
    assert!(at_once.code == Some(77) && diverged_at("wild").is_some_and(|step| step < 5), "{at_once:?}");

    let (markdown, _) = report(&site, &["seed-0", "seed-1", "seed-2", "seed-3", "wild"]);
    assert!(markdown.contains("5 runs (3 not finished, 2 diverged)"), "{markdown}");
    let bp = row(&markdown, "Table 1 (a)", "BP");
    let last = |seed: usize| 100.0 * measured(&site, &format!("seed-{seed}"), "test", "top1_error").last().unwrap().1;
    let mean = (last(0) + last(1) + last(2)) / 3.0;
    assert!(bp[4].starts_with(&format!("{mean:.2} ± ")) && bp[7..] == ["1 of 2", "3"], "{bp:?}, mean {mean}");
    assert!(markdown.contains(" 3 of 4 seeds; 1 diverged."), "{markdown}");
    assert_eq!(row(&markdown, "## Runs", "seed-3").last().unwrap(), &format!("diverged at step {step}"));
    assert!(row(&markdown, "## Runs", "wild").last().unwrap().starts_with("diverged at step "), "{markdown}");
    assert!(markdown.contains("every run of the experiment diverged: BP on MNIST, fully connected (1 run)"), "{markdown}");

    // It goes on from before, and ends in time.
    let outcome = of_seed(3, "max_steps=12");
    assert!(outcome.code == Some(0) && diverged_at("seed-3").is_none(), "{outcome:?}");
    let (markdown, _) = report(&site, &["seed-3"]);
    assert_eq!(row(&markdown, "## Runs", "seed-3").last().unwrap(), "finished");
}

/// In Figures 2, 6 and 8 test and training are apart here, in Figure 3 top-1 and top-5; alternating schedules are dashed.
#[test]
fn curves_are_apart_where_they_mean_different_things() {
    let site = site();
    train(&site, "mnist_fc_bp.toml", "classes", &["training.epochs=1"]);
    train(&site, "mnist_fc_dtp_alternating.toml", "alternating", &["training.epochs=2"]);
    train(&site, "mnist_autoencoder_bp.toml", "images", &["training.epochs=1"]);
    std::fs::create_dir(site.path("photos")).unwrap();
    std::fs::write(site.path("photos/config.toml"), format!("include = [{:?}]\n", config("imagenet_bp.toml"))).unwrap();
    let line = |epoch: usize| {
        let (step, error) = (10 * epoch, 1.0 / epoch as f64);
        format!("{{\"split\":\"test\",\"step\":{step},\"epoch\":{epoch},\"loss\":1.5,\"top1_error\":{error},\"top5_error\":0.25}}\n")
    };
    std::fs::write(site.path("photos/metrics.jsonl"), line(1) + &line(2)).unwrap();
    let (markdown, html) = report(&site, &["classes", "alternating", "images", "photos"]);
    let panels = |name: &str| -> Vec<String> {
        let svg = std::fs::read_to_string(site.path("report/figures").join(name)).unwrap();
        let titles = svg.split("font-weight=\"bold\">").skip(1).map(|title| title.split('<').next().unwrap().to_owned());
        titles.collect()
    };
    assert_eq!(panels("curves-1.svg"), ["Test", "Train"]);
    assert_eq!(panels("curves-2.svg"), ["Top-1", "Top-5"]);
    assert_eq!(panels("reconstruction-curves-1.svg"), ["Test", "Train"]);
    let dashed = |name: &str| {
        let entry = html.split("<li>").find(|entry| entry.contains(&format!("<span>{name}"))).unwrap_or_else(|| panic!("{name} in {html}"));
        entry.contains("stroke-dasharray")
    };
    assert!(dashed("DTP, alternating") && !dashed("BP"));
    assert_eq!(row(&markdown, "Table 2 of the paper", "BP")[1..5], ["71.43", "49.07", "50.00", "25.00"]);
}

/// A page tells of each run what it takes to get it again.
#[test]
fn a_page_says_where_its_runs_come_from() {
    let site = site();
    train(&site, "mnist_fc_bp.toml", "run", &["training.epochs=1"]);
    let (_, html) = report(&site, &["run"]);
    let details = html.split("<details>").nth(1).unwrap().split("</details>").next().unwrap();
    let about: Value = serde_json::from_slice(&std::fs::read(site.path("run/run.json")).unwrap()).unwrap();
    assert_eq!(about["program"], "biodist");
    let fact = |name: &str| details.split(&format!("<dt>{name}</dt><dd>")).nth(1).unwrap_or_else(|| panic!("{name} in {details}"));
    assert!(fact("Command").split("</dd>").next().unwrap().ends_with("--set training.epochs=1"), "{details}");
    assert!(
        fact("Commit").starts_with(about["commit"].as_str().unwrap()) && fact("Hosts").starts_with(about["hosts"][0].as_str().unwrap())
    );
    assert!(fact("Started").contains(" UTC</dd>") && fact("Processes").starts_with("1, of "), "{details}");
    assert!(details.contains("rule = &quot;bp&quot;") && details.contains("batch_size = 20"), "{details}");
    assert!(html.contains("prefers-color-scheme: dark") && html.contains("scope=\"col\"") && html.contains("scope=\"row\""));
}

/// Nothing that a browser would fetch.
fn self_contained(html: &str) {
    for (attribute, allowed) in [("src=\"", "data:"), ("href=\"", "#"), ("url(", "#")] {
        for (at, _) in html.match_indices(attribute) {
            let target = &html[at + attribute.len()..];
            assert!(target.starts_with(allowed), "{attribute}{}", &target[..60.min(target.len())]);
        }
    }
    assert!(!html.contains("<script") && !html.contains("<link") && !html.contains("@import"));
    assert_eq!(html.matches("http").count(), html.matches("xmlns=\"http://www.w3.org/2000/svg\"").count());
}

#[test]
fn autoencoders_have_losses_and_pictures() {
    let site = site();
    train(&site, "mnist_autoencoder_sdtp.toml", "ae", &["training.epochs=2"]);
    let (markdown, html) = report(&site, &["ae"]);
    let loss = measured(&site, "ae", "test", "loss").last().unwrap().1;
    let shown: f64 = row(&markdown, "## Autoencoders", "SDTP, parallel")[2].parse().unwrap();
    assert!((shown - loss).abs() < 1e-3 * loss, "{shown} for {loss}");
    assert!(html.contains("src=\"data:image/png;base64,iVBOR") && !markdown.contains("## Results"));
    self_contained(&html);
    let png = std::fs::read(site.path("report/figures/reconstructions-1.png")).unwrap();
    assert_eq!(png[..8], *b"\x89PNG\r\n\x1a\n");
    // Twelve images of 6 x 6 beside each other with gaps of 2, in two rows.
    assert_eq!([&png[16..20], &png[20..24]], [94u32.to_be_bytes(), 14u32.to_be_bytes()]);

    std::fs::rename(site.path("mnist"), site.path("elsewhere")).unwrap();
    let (markdown, html) = report(&site, &["ae"]);
    assert!(markdown.contains("There is no picture of reconstructions by ae") && !html.contains("<img"), "{markdown}");
    // One that was kept stands for parameters that were not.
    std::fs::write(site.path("ae/reconstructions.png"), &png).unwrap();
    let (markdown, html) = report(&site, &["ae"]);
    assert!(html.contains("src=\"data:image/png;base64,iVBOR") && !markdown.contains("There is no picture"), "{markdown}");
    assert_eq!(std::fs::read(site.path("report/figures/reconstructions-1.png")).unwrap(), png);
}

#[test]
fn studies_and_searches_have_their_figures() {
    let site = site();
    let mut runs = Vec::new();
    for units in [4, 16, 64] {
        let out = format!("ao-{units}");
        let set = format!("learning.auxiliary_units={units}");
        train(&site, "mnist_fc_ao_sdtp_parallel.toml", &out, &["training.epochs=1", &set]);
        runs.push(out);
    }
    let sweep = site.path("sweep");
    std::fs::create_dir_all(sweep.join("trials/000")).unwrap();
    std::fs::copy(site.path("ao-4/config.toml"), sweep.join("trials/000/config.toml")).unwrap();
    let line = |trial: usize, error: f64| {
        format!(
            "{{\"trial\":{trial},\"values\":{{\"learning.sigma\":0.{trial}}},\"validation_error\":{error},\"epochs\":1,\"status\":\"done\"}}\n"
        )
    };
    std::fs::write(sweep.join("results.jsonl"), line(1, 0.5) + &line(2, 0.25) + &line(3, 0.75)).unwrap();
    runs.push("sweep".to_owned());
    let (markdown, html) = report(&site, &runs.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(markdown.contains("## Auxiliary outputs") && markdown.contains("](figures/auxiliary-1.svg)"), "{markdown}");
    assert!(html.contains("AO-SDTP, parallel, 1 epoch, auxiliary outputs: 16: "), "{html}");
    assert_eq!(row(&markdown, "## Random searches", "2")[..3], ["2", "done", "25.00"]);
    assert!(html.contains("3 trials"));
}

#[test]
fn damaged_and_absent_runs_are_named() {
    let site = Site::new();
    let config = site.configure("short", "rule = \"bp\"", "[training]\nepochs = 1");
    site.succeed(1, &["train", &config, "--out", "good"]);
    site.succeed(1, &["train", &config, "--out", "bad"]);
    let metrics = site.path("bad/metrics.jsonl");
    let refused = |code: i32, words: &[&str]| {
        let outcome = site.run(1, &["report", "good", "bad", "--out", "report"]);
        assert_eq!(outcome.code, Some(code), "{outcome:?}");
        assert_eq!(outcome.stderr.lines().count(), 1, "{outcome:?}");
        words.iter().for_each(|word| assert!(outcome.stderr.contains(word), "{word} in {outcome:?}"));
        assert!(!site.path("report").exists());
    };
    let whole = std::fs::read_to_string(&metrics).unwrap();
    std::fs::write(&metrics, whole.replacen('{', "", 1)).unwrap();
    refused(1, &["bad/metrics.jsonl is damaged", "line 1"]);
    std::fs::remove_dir_all(site.path("bad")).unwrap();
    refused(2, &["bad: no such folder"]);
    // What `*` names too holds nothing up, and nothing at all is refused.
    std::fs::create_dir_all(site.path("bad/inner")).unwrap();
    std::fs::write(site.path("notes.txt"), "").unwrap();
    let outcome = site.succeed(1, &["report", "good", "bad", "notes.txt", "--out", "some"]);
    assert!(outcome.stdout.starts_with("passed over, for no run and no random search is there: bad, notes.txt\n1 run, 2 passed over: "));
    let outcome = site.run(1, &["report", "bad", "notes.txt"]);
    let words = "bad, notes.txt: nothing to report: of 2 folders looked at none holds a run (config.toml)";
    assert!(outcome.code == Some(2) && outcome.stderr.contains(words), "{outcome:?}");
    let usage = site.run(1, &["report", "--out", "report"]);
    assert!(usage.code == Some(2) && usage.stderr.contains("<RUNS>"), "{usage:?}");
    // What has just begun is listed, and keeps nothing else from being reported.
    std::fs::create_dir(site.path("begun")).unwrap();
    let text = std::fs::read_to_string(site.path("good/config.toml")).unwrap();
    std::fs::write(site.path("begun/config.toml"), text.replacen("seed = 0\n", "seed = 1\n", 1)).unwrap();
    std::fs::create_dir(site.path("search")).unwrap();
    std::fs::write(site.path("search/sweep.json"), "{}").unwrap();
    site.succeed(1, &["report", "good", "begun", "search", "--out", "early"]);
    let early = std::fs::read_to_string(site.path("early/report.md")).unwrap();
    let begun = row(&early, "## Runs", "begun");
    assert_eq!(begun[begun.len() - 3..], ["0", "0", "no result yet"]);
    assert!(early.contains("search has no result yet") && row(&early, "## Runs", "good").last().unwrap() == "finished", "{early}");
    // Folders are searched, and what is no run is named.
    std::fs::create_dir_all(site.path("all/deep/er")).unwrap();
    std::fs::create_dir_all(site.path("all/notes")).unwrap();
    for (from, to) in [("good", "all/deep/er/good"), ("begun", "all/begun"), ("search", "all/deep/search")] {
        std::fs::rename(site.path(from), site.path(to)).unwrap();
    }
    let outcome = site.succeed(1, &["report", "all", "--out", "found"]);
    let told = "passed over, for no run and no random search is there: all/notes\n2 runs, 1 sweep, 1 passed over: ";
    assert!(outcome.stdout.starts_with(told), "{outcome:?}");
    let found = std::fs::read_to_string(site.path("found/report.md")).unwrap();
    assert!(row(&found, "## Runs", "all/begun").last().unwrap() == "no result yet", "{found}");
    assert!(row(&found, "## Runs", "all/deep/er/good").last().unwrap() == "finished", "{found}");
    assert!(found.contains("all/deep/search has no result yet"), "{found}");
    std::fs::rename(site.path("all/deep/er/good"), site.path("good")).unwrap();
    // A rank would do as well as any: one writes.
    site.succeed(2, &["report", "good", "--out", "report"]);
    assert!(site.path("report/report.html").exists());
}
