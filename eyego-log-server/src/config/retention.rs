//! Options of retention.

use std::time::Duration;

use clap::Args;

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
    /// `PAGE_VIEW=30d;LOGIN=365d` [default: none]
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
    fn a_list_of_actions_is_parsed_or_its_error_is_quoted() {
        let rules = parse_by_action("PAGE_VIEW=30d; a=b = 1y 2h").unwrap();
        let year = humantime::parse_duration("1y 2h").unwrap();
        let expected = [("PAGE_VIEW".to_owned(), 30 * DAY), ("a=b".to_owned(), year)];
        assert_eq!(rules.0, expected);
        for (bad, quoted) in [
            ("PAGE_VIEW:30d", "`PAGE_VIEW:30d` is not an action"),
            ("PAGE_VIEW=30d,LOGIN", "in `PAGE_VIEW=30d,LOGIN` is not"),
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
