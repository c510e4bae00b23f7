//! The flags.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::output::Format;
use crate::{check, completion, inject, proxy, status, validate, version};

/// The command of the Outrider service mesh: checks a cluster and an installation, shows what every
/// proxy does, and does offline what the mesh would do with a file.
#[derive(Debug, Parser)]
#[command(
    name = "outrider",
    version,
    after_long_help = "The usual way:
  outrider check                                  is this cluster fit for the mesh?
  helm install outrider charts/outrider -n outrider-system --create-namespace
  outrider check --installed                      is all of it well?
  kubectl label namespace shop outrider.dev/inject=enabled
  kubectl rollout restart deployment -n shop
  outrider status                                 is every proxy connected and up to date?

When something does not work:
  outrider proxy routes web-0.shop                where does this pod send its requests?
  outrider proxy endpoints web-0.shop             which addresses are healthy?
  outrider proxy certs web-0.shop                 who is it, and until when?
  outrider validate -f mesh/                      what will the control plane say to these files?"
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// What every verb takes.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Global {
    /// The file that tells how to reach the cluster; $KUBECONFIG or ~/.kube/config if not given.
    #[arg(long, global = true, value_name = "FILE", help_heading = "Cluster")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// The context of that file; its current one if not given.
    #[arg(long, global = true, value_name = "NAME", help_heading = "Cluster")]
    pub(crate) context: Option<String>,
    /// The namespace of the pods in question; each verb says what it is without this.
    #[arg(
        long,
        short,
        global = true,
        value_name = "NAMESPACE",
        help_heading = "Cluster"
    )]
    pub(crate) namespace: Option<String>,
    /// The namespace that Outrider is installed in.
    #[arg(
        long,
        global = true,
        value_name = "NAMESPACE",
        default_value = "outrider-system",
        env = "OUTRIDER_NAMESPACE",
        help_heading = "Cluster"
    )]
    pub(crate) system_namespace: String,
    /// The revision of the control plane in question; the default one if not given.
    #[arg(
        long,
        global = true,
        value_name = "REVISION",
        default_value = "",
        hide_default_value = true,
        help_heading = "Cluster"
    )]
    pub(crate) revision: String,
    /// How to print: a table for people, or json or yaml with everything in it for programs.
    #[arg(
        long,
        short,
        global = true,
        value_enum,
        value_name = "FORMAT",
        default_value_t,
        help_heading = "Output"
    )]
    pub(crate) output: Format,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    Check(check::Arguments),
    Inject(inject::InjectArguments),
    Uninject(inject::UninjectArguments),
    Status(status::Arguments),
    Proxy(proxy::Arguments),
    Validate(validate::Arguments),
    Version(version::Arguments),
    Completion(completion::Arguments),
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn flags_are_consistent_and_global_ones_may_follow_the_verb() {
        Cli::command().debug_assert();
        let cli = Cli::parse_from([
            "outrider",
            "check",
            "--installed",
            "-n",
            "mesh",
            "-o",
            "json",
        ]);
        assert_eq!(cli.global.namespace.as_deref(), Some("mesh"));
        assert_eq!(cli.global.output, Format::Json);
        assert_eq!(cli.global.system_namespace, "outrider-system");
        for wrong in [
            &["outrider"][..],
            &["outrider", "inject"],
            &["outrider", "proxy", "routes"],
            &["outrider", "proxy", "routes", "web", "--file", "dump.json"],
            &["outrider", "status", "-o", "xml"],
            &["outrider", "completion", "tcsh"],
        ] {
            assert!(Cli::try_parse_from(wrong).is_err(), "{wrong:?}");
        }
    }
}
