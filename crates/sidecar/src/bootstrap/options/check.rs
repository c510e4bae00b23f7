//! What no single option can be refused for.

use super::Options;

/// Why a command line cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    /// There is no process to take over from.
    #[error(
        "--restart-epoch {0}: there is no process to take over from; add \
         --skip-hot-restart-on-no-parent or --disable-hot-restart to start all the same"
    )]
    NoParent(u32),
    /// The base id is to be that of the process before.
    #[error("--use-dynamic-base-id cannot be used with --restart-epoch above 0")]
    DynamicBaseId,
    /// A universal tag cannot be used.
    #[error("--stats-tag {tag}: {reason}")]
    StatsTag {
        /// What was given.
        tag: String,
        /// What is wrong.
        reason: &'static str,
    },
}

impl Options {
    /// Whether the options agree with each other.
    ///
    /// # Errors
    /// Those that do not.
    pub fn check(&self) -> Result<(), OptionsError> {
        if self.restart_epoch > 0 {
            if self.use_dynamic_base_id {
                return Err(OptionsError::DynamicBaseId);
            }
            if !self.skip_hot_restart_on_no_parent && !self.disable_hot_restart {
                return Err(OptionsError::NoParent(self.restart_epoch));
            }
        }
        self.tags().map(drop)
    }

    /// `--stats-tag`, by name.
    ///
    /// # Errors
    /// One that is not `tag:value`, or whose tag was given before with another value.
    pub fn tags(&self) -> Result<Vec<(String, String)>, OptionsError> {
        let mut tags: Vec<(String, String)> = Vec::new();
        for tag in &self.stats_tag {
            let error = |reason| OptionsError::StatsTag {
                tag: tag.clone(),
                reason,
            };
            let (name, value) = tag
                .split_once(':')
                .ok_or_else(|| error("is not of the form tag:value"))?;
            let is_name = |name: &str| {
                !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
            };
            if !is_name(name) {
                return Err(error("a tag consists of letters, digits and underscores"));
            }
            if value.is_empty() || value.contains('.') {
                return Err(error("a value must not be empty nor hold a dot"));
            }
            if tags.iter().any(|(known, _)| known == name) {
                return Err(error("the tag was given before"));
            }
            tags.push((name.to_owned(), value.to_owned()));
        }
        Ok(tags)
    }

    /// The base id of this process.
    pub fn own_base_id(&self) -> u32 {
        if self.use_dynamic_base_id {
            std::process::id()
        } else {
            self.base_id
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn check(arguments: &str) -> Result<(), String> {
        let arguments = ["outrider-sidecar"].into_iter().chain(arguments.split(' '));
        let options = Options::try_parse_from(arguments).map_err(|error| error.to_string())?;
        options.check().map_err(|error| error.to_string())
    }

    #[test]
    fn a_command_line_of_envoy_s_is_taken() {
        let all = "-c a.yaml --base-id 3 --base-id-path x --concurrency 2 -l warning \
            --component-log-level upstream:debug --log-format %v --log-path x --restart-epoch 1 \
            --skip-hot-restart-on-no-parent --parent-shutdown-time-s 10 --drain-time-s 5 \
            --drain-strategy immediate --service-zone z --mode init_only --disable-hot-restart \
            --local-address-ip-version v6 --allow-unknown-fields --cpuset-threads \
            --reject-unknown-dynamic-fields --file-flush-interval-msec 10 --socket-mode 600 \
            --socket-path @x --enable-core-dump --stats-tag a:b --stats-tag c:d";
        let all = all.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(check(&all), Ok(()));
        for (arguments, reason) in [
            ("--restart-epoch 1", "--skip-hot-restart-on-no-parent"),
            (
                "--restart-epoch 1 --use-dynamic-base-id --disable-hot-restart",
                "--use-dynamic-base-id cannot",
            ),
            ("--stats-tag a", "tag:value"),
            ("--stats-tag a:b --stats-tag a:c", "given before"),
            ("--stats-tag a:b.c", "dot"),
            ("--drain-strategy slow", "gradual"),
            (
                "--ignore-unknown-dynamic-fields --reject-unknown-dynamic-fields",
                "cannot be used with",
            ),
        ] {
            let error = check(arguments).unwrap_err();
            assert!(error.contains(reason), "{arguments}: {error}");
        }
    }
}
