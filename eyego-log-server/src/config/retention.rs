//! Options of retention.

use std::fmt;
use std::time::Duration;

use clap::Args;
use eyego_log_core::limits::MAX_ACTION_CHARS;

/// How long events are kept.
#[derive(Debug, Clone, Args)]
#[group(skip)]
#[command(next_help_heading = "Retention")]
pub struct RetentionConfig {
    /// How long events are kept, counted from their timestamp. Older events are
    /// deleted, and refused with 400 [default: for ever]
    #[arg(
        id = "retention_default",
        long = "retention",
        env = "EYEGO_RETENTION",
        value_name = "DURATION",
        value_parser = kept
    )]
    pub default: Option<Duration>,

    /// Actions whose events are kept for another time, such as
    /// `PAGE_VIEW=30d;LOGIN=365d`. An action that contains `=`, `,` or `;` cannot be
    /// listed [default: none]
    #[arg(
        id = "retention_by_action",
        long = "retention-by-action",
        env = "EYEGO_RETENTION_BY_ACTION",
        value_name = "LIST",
        value_parser = parse_by_action
    )]
    by_action: Option<ByAction>,
}

/// Actions and how long their events are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ByAction(Vec<(String, Duration)>);

impl RetentionConfig {
    /// Returns the actions whose events are kept for another time than
    /// [`default`](Self::default).
    #[must_use]
    pub fn by_action(&self) -> Vec<(String, Duration)> {
        self.by_action.as_ref().map(|ByAction(rules)| rules.clone()).unwrap_or_default()
    }
}

impl fmt::Display for RetentionConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.default {
            Some(kept) => f.write_str(&display(kept))?,
            None => f.write_str("for ever")?,
        }
        for (action, kept) in self.by_action() {
            write!(f, "; {action}: {}", display(kept))?;
        }
        Ok(())
    }
}

/// Returns whole days as days: `humantime` would write 90 days as months and hours.
fn display(kept: Duration) -> String {
    const DAY: u64 = 24 * 60 * 60;
    let seconds = kept.as_secs();
    if kept.subsec_nanos() == 0 && seconds.is_multiple_of(DAY) {
        format!("{}d", seconds / DAY)
    } else {
        humantime::format_duration(kept).to_string()
    }
}

fn kept(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text.trim()).ok();
    duration
        .filter(|duration| *duration >= Duration::from_secs(1))
        .ok_or_else(|| "expected a duration of at least 1s, such as 90d".to_owned())
}

fn parse_by_action(text: &str) -> Result<ByAction, String> {
    const SHAPE: &str = "expected actions with a duration of at least 1s each, such as \
                         PAGE_VIEW=30d;LOGIN=365d";

    let mut rules: Vec<(String, Duration)> = Vec::new();
    for rule in text.split(';').map(str::trim) {
        let (action, duration) = rule
            .rsplit_once('=')
            .map(|(action, duration)| (action.trim(), duration))
            .filter(|(action, _)| !action.is_empty())
            .ok_or_else(|| format!("`{rule}` is not an action with a duration: {SHAPE}"))?;
        // `A=30d,B=1d` would otherwise be one action with an odd name, and `A` kept for
        // ever.
        if let Some(odd) = action.chars().find(|c| "=,\n".contains(*c)) {
            return Err(format!(
                "`{action}` contains {odd:?}, which no listed action can: {SHAPE}"
            ));
        }
        if action.chars().count() > MAX_ACTION_CHARS {
            return Err(format!(
                "`{action}` is longer than the {MAX_ACTION_CHARS} characters of an action: {SHAPE}"
            ));
        }
        let duration = kept(duration)
            .map_err(|_| format!("the duration in `{rule}` is not valid: {SHAPE}"))?;
        if rules.iter().any(|(known, _)| known == action) {
            return Err(format!("`{action}` is listed twice: {SHAPE}"));
        }
        rules.push((action.to_owned(), duration));
    }
    Ok(ByAction(rules))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    #[test]
    fn a_retention_is_at_least_a_second() {
        assert_eq!(kept("90d"), Ok(90 * DAY));
        assert_eq!(kept(" 1s "), Ok(Duration::from_secs(1)));
        for bad in ["0", "0s", "5 parsecs", "-1d", "999ms", "90", ""] {
            assert!(kept(bad).unwrap_err().contains("such as 90d"), "{bad}");
        }
    }

    #[test]
    fn the_retention_is_shown_with_all_rules() {
        let config = |default, by_action: &str| RetentionConfig {
            default,
            by_action: parse_by_action(by_action).ok(),
        };
        assert_eq!(config(Some(DAY), "A=1m;B=90d").to_string(), "1d; A: 1m; B: 90d");
        assert_eq!(config(None, "A=36h").to_string(), "for ever; A: 1day 12h");
    }

    #[test]
    fn a_list_of_actions_is_parsed_or_its_error_is_quoted() {
        let rules = parse_by_action("PAGE_VIEW=30d; a b = 1y 2h").unwrap();
        let year = humantime::parse_duration("1y 2h").unwrap();
        let expected = [("PAGE_VIEW".to_owned(), 30 * DAY), ("a b".to_owned(), year)];
        assert_eq!(rules.0, expected);
        for (bad, quoted) in [
            ("PAGE_VIEW:30d", "`PAGE_VIEW:30d` is not an action"),
            ("PAGE_VIEW=30d,LOGIN", "in `PAGE_VIEW=30d,LOGIN` is not"),
            ("PAGE_VIEW=30d,LOGIN=365d", "`PAGE_VIEW=30d,LOGIN` contains '='"),
            ("PAGE_VIEW,LOGIN=365d", "`PAGE_VIEW,LOGIN` contains ','"),
            ("A=30d\nB=1d", "contains '='"),
            (&format!("{}=1d", "a".repeat(129)), "is longer than the 128 characters"),
            ("A=30d;", "`` is not an action"),
            ("A=30d;B=0", "in `B=0` is not valid"),
            ("A=30d;B=5 parsecs", "in `B=5 parsecs` is not valid"),
            ("=30d", "`=30d` is not an action"),
            ("A=1d;A=2d", "`A` is listed twice"),
        ] {
            let error = parse_by_action(bad).unwrap_err();
            assert!(error.contains(quoted) && error.contains("LOGIN=365d"), "{error}");
        }
    }
}
