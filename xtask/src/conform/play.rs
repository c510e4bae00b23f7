//! Runs the cases of a file on both proxies in step.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use outrider_testkit::proxy::Kind;
use tokio::time::Instant;

use super::compare::{comparable, difference};
use super::differences::Differences;
use super::file::{Case, CaseFile, Compare, Rejects, Setup, Step};
use super::side::{self, Side};
use super::tls::Certificates;

/// How long what has been seen must stay the same.
const QUIET: Duration = Duration::from_millis(15);
/// How long a side may lag behind.
const LAG: Duration = Duration::from_secs(3);

/// What came of a case.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    Agreed,
    /// A difference that is meant.
    Explained,
    Differs(Vec<String>),
}

/// What came of a file's cases, in their order.
pub(super) struct Outcome {
    pub(super) verdicts: Vec<(String, Verdict)>,
}

/// Runs a file's cases.
pub(super) async fn file(file: &CaseFile, differences: &Differences) -> Outcome {
    let mut pair: Option<Pair> = None;
    let mut verdicts = Vec::new();
    for case in &file.cases {
        let found = match run(case, &mut pair).await {
            Ok(found) => found,
            Err(error) => {
                pair = None;
                vec![format!("      {error:#}")]
            }
        };
        let verdict = match (&case.script.differs, found.is_empty()) {
            (None, true) => Verdict::Agreed,
            (None, false) => Verdict::Differs(found),
            (Some(key), _) if !differences.has(key) => Verdict::Differs(vec![format!(
                "      differs: {key}: differences.md has no such heading"
            )]),
            (Some(_), false) => Verdict::Explained,
            (Some(key), true) => Verdict::Differs(vec![format!(
                "      both do the same now: take `differs: {key}` away"
            )]),
        };
        verdicts.push((case.script.about.clone(), verdict));
    }
    Outcome { verdicts }
}

async fn run(case: &Case, pair: &mut Option<Pair>) -> Result<Vec<String>> {
    if case.script.rejects != Rejects::Nobody {
        return rejects(case);
    }
    let reusable = pair.as_ref().is_some_and(|pair| pair.setup == case.setup);
    if case.script.fresh || !reusable {
        *pair = None;
        *pair = Some(Pair::start(&case.setup)?);
    }
    let pair = pair.as_mut().context("no pair")?;
    let result = pair.play(&case.script.steps, &case.script.compare).await;
    if case.script.fresh {
        pair.setup = Setup::default();
    }
    result
}

fn rejects(case: &Case) -> Result<Vec<String>> {
    let certificates = Arc::new(Certificates::new(&case.setup.certificates)?);
    let ours = side::refuses(Kind::Ours, &case.setup, &certificates)?;
    let envoy = side::refuses(Kind::Envoy, &case.setup, &certificates)?;
    let mut found = Vec::new();
    let wanted = case.script.rejects == Rejects::Both;
    match &envoy {
        None if wanted => found.push("      Envoy: takes it".to_owned()),
        Some(said) if !wanted => found.push(format!("      Envoy: refuses it: {}", said.trim())),
        _ => {}
    }
    match ours {
        None => found.push("      ours:  takes it".to_owned()),
        Some(said) => {
            for name in &case.script.names {
                if !said.contains(name.as_str()) {
                    found.push(format!(
                        "      ours:  does not name {name}: {}",
                        said.trim()
                    ));
                }
            }
        }
    }
    Ok(found)
}

/// Both proxies with the same setup.
pub(super) struct Pair {
    pub(super) setup: Setup,
    pub(super) ours: Side,
    pub(super) envoy: Side,
}

impl Pair {
    /// Starts both.
    ///
    /// # Errors
    /// When one does not start.
    pub(super) fn start(setup: &Setup) -> Result<Self> {
        let certificates = Arc::new(Certificates::new(&setup.certificates)?);
        let start = |kind| {
            let certificates = Arc::clone(&certificates);
            move || Side::start(kind, setup, &certificates).with_context(|| format!("{kind:?}"))
        };
        let handle = tokio::runtime::Handle::current();
        let (ours, envoy) = tokio::task::block_in_place(|| {
            std::thread::scope(|scope| {
                let ours = scope.spawn(|| {
                    let _context = handle.enter();
                    start(Kind::Ours)()
                });
                let envoy = start(Kind::Envoy)();
                (ours.join(), envoy)
            })
        });
        let Ok(ours) = ours else {
            bail!("the start of ours panicked");
        };
        match (ours, envoy) {
            (Ok(ours), Ok(envoy)) => Ok(Self {
                setup: setup.clone(),
                ours,
                envoy,
            }),
            (Err(ours), Err(envoy)) => bail!("neither starts:\n{ours:#}\n{envoy:#}"),
            (Err(error), Ok(_)) => bail!("Envoy starts, and {error:#}"),
            (Ok(_), Err(error)) => bail!("ours starts, and {error:#}"),
        }
    }

    /// Lets reads wait that long.
    pub(super) fn set_patience(&mut self, patience: Duration) {
        self.ours.set_patience(patience);
        self.envoy.set_patience(patience);
    }

    /// Does the steps on both; what differs.
    ///
    /// # Errors
    /// When a step is wrong or a proxy has ended.
    pub(super) async fn play(&mut self, steps: &[Step], compare: &Compare) -> Result<Vec<String>> {
        let mut found = Vec::new();
        for (index, step) in steps.iter().enumerate() {
            let what = name(step);
            let (ours, envoy) = tokio::join!(self.ours.act(step), self.envoy.act(step));
            let at = || format!("step {} ({what})", index + 1);
            let acted = (ours.with_context(at)?, envoy.with_context(at)?);
            self.settle(&what, index, Some(step), acted, compare, &mut found)
                .await?;
            self.ours.end_connections(false);
            self.envoy.end_connections(false);
        }
        self.ours.end_connections(true);
        self.envoy.end_connections(true);
        let nothing = (Vec::new(), Vec::new());
        self.settle(
            "afterwards",
            steps.len(),
            None,
            nothing,
            compare,
            &mut found,
        )
        .await?;
        Ok(found)
    }

    /// Waits until both have told the same, or one lags too far behind.
    async fn settle(
        &mut self,
        what: &str,
        index: usize,
        step: Option<&Step>,
        acted: (Vec<String>, Vec<String>),
        compare: &Compare,
        found: &mut Vec<String>,
    ) -> Result<()> {
        let began = Instant::now();
        let same = |ours: &[String], envoy: &[String], pair: &Self| {
            let ours = comparable(ours, &pair.ours.names, compare);
            let envoy = comparable(envoy, &pair.envoy.names, compare);
            (ours == envoy, ours, envoy)
        };
        let (acted_alike, ..) = same(&acted.0, &acted.1, self);
        // What is different already needs no long wait for the rest.
        let deadline = began + if acted_alike { LAG } else { LAG / 6 };
        let mut last = None;
        loop {
            let now = (self.ours.rest(step, false)?, self.envoy.rest(step, false)?);
            let (alike, ..) = same(&now.0, &now.1, self);
            let quiet = last.as_ref() == Some(&now) && began.elapsed() >= QUIET;
            if (alike && quiet) || Instant::now() >= deadline {
                break;
            }
            last = Some(now);
            tokio::time::sleep(QUIET / 3).await;
        }
        let (mut ours, mut envoy) = acted;
        ours.extend(self.ours.rest(step, true)?);
        envoy.extend(self.envoy.rest(step, true)?);
        let (alike, ours, envoy) = same(&ours, &envoy, self);
        if !alike {
            found.push(format!("    step {}: {what}", index + 1));
            found.extend(difference(&ours, &envoy));
        }
        for side in [&mut self.ours, &mut self.envoy] {
            let kind = side.proxy.kind;
            let signalled = step.is_some_and(|step| step.signal.is_some());
            if !signalled && let Some(status) = side.proxy.process.exited()? {
                let said = side.proxy.process.output();
                bail!(
                    "step {} ({what}): {kind:?} ended ({status}):\n{}",
                    index + 1,
                    said.trim()
                );
            }
        }
        Ok(())
    }
}

/// A step in a few words.
fn name(step: &Step) -> String {
    if let Some(about) = &step.about {
        return about.clone();
    }
    let sent = [
        &step.request,
        &step.text,
        &step.raw,
        &step.hex,
        &step.admin,
        &step.release,
    ];
    let sent = sent.into_iter().flatten().next();
    let mut name = match sent {
        Some(text) => text
            .lines()
            .next()
            .unwrap_or_default()
            .chars()
            .take(100)
            .collect(),
        None if !step.stats.is_empty() => "stats".to_owned(),
        None if step.update.is_some() => "update".to_owned(),
        None => "read".to_owned(),
    };
    if !step.headers.is_empty() {
        name = format!("{name} [{}]", step.headers.join(", "));
    }
    name
}
