//! An explanation for people.

use std::fmt::{self, Display, Formatter};

use contract::MAX_BUCKETS;

use super::explanation::{Explained, Explanation, Takes};
use crate::check::finding::Shown;
use crate::quoted::Quoted;

impl Display for Explanation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let name = self.name.as_deref().unwrap_or("policies");
        writeln!(f, "{} on line {}, domain {}", Shown(name), self.line, Shown(&self.domain))?;
        for mistake in &self.route_mistakes {
            writeln!(f, "  what the route says is not heeded: {}", Shown(mistake))?;
        }
        if let Some(line) = self.disabled_on_line {
            return writeln!(f, "  the filter is disabled by line {line}: it does not get the request");
        }
        if let Some(by) = &self.exempt_by {
            return writeln!(f, "  the request is exempt from every policy: it meets {by}");
        }
        if let Some(limits) = self.too_many_limits {
            writeln!(
                f,
                "  {limits} limits govern the request, and at most {MAX_BUCKETS} can be asked for: none is, and \
                 on_error applies"
            )?;
        }
        self.policies.iter().try_for_each(|policy| policy.fmt(f))
    }
}

impl Display for Explained {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match (&self.takes, &self.why_not) {
            (Some(takes), _) => write!(f, "  {}: {takes}", Shown(&self.name)),
            (None, why_not) => {
                let why_not = why_not.as_deref().unwrap_or("match");
                writeln!(f, "  {}: does not apply ({})", Shown(&self.name), Shown(why_not))
            }
        }
    }
}

impl Display for Takes {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.cost_tokens {
            0 => write!(f, "takes nothing and only looks")?,
            1 => write!(f, "takes 1 token")?,
            tokens => write!(f, "takes {tokens} tokens")?,
        }
        if self.percent < 100.0 {
            write!(f, " of {} percent of such requests", self.percent)?;
        }
        if let Some(percent) = self.enforced_keys_percent.filter(|percent| *percent > 0.0) {
            let enforced = if self.enforced_percent > 0.0 { "enforced" } else { "in shadow" };
            write!(f, ", {enforced} for this key: it is enforced for {percent} percent of all keys")?;
        } else if self.enforced_percent <= 0.0 {
            write!(f, ", in shadow: it never denies")?;
        } else if self.enforced_percent < 100.0 {
            write!(f, ", enforced for {} percent of them, in shadow for the others", self.enforced_percent)?;
        }
        let all = if self.key.is_empty() { " (one for all)" } else { "" };
        writeln!(f, "\n    key    {}{all}", Quoted(&self.key))?;
        self.limits.iter().try_for_each(|limit| {
            let bucket = if self.limits.len() > 1 { format!(" ({})", limit.bucket) } else { String::new() };
            writeln!(f, "    limit  {}, burst {}{}", Shown(&limit.limit), limit.burst, Shown(&bucket))
        })
    }
}
