//! Mistakes in a configuration, in words that help the operator.
//!
//! A mistake always says where it is (file and line), which setting it is about, what is wrong, and
//! what to write instead. All mistakes are listed at once, so that an operator need not start a
//! node five times to find five typing errors.

use std::fmt;

/// One mistake in a configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The file's name as the caller gave it.
    pub file: String,
    /// The line, counted from 1; 0 if the mistake is about the whole file.
    pub line: usize,
    /// The setting in dotted form (`ledger.heartbeat`); empty if the mistake is not about one
    /// setting.
    pub setting: String,
    /// The problem, as a lower-case fragment.
    pub problem: String,
    /// The remedy, as one imperative sentence.
    pub remedy: String,
}

/// `node.yaml:7: ledger.heartbeat: 'abc' is not a duration; write e.g. 400ms`
impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        if !self.setting.is_empty() {
            write!(f, ": {}", self.setting)?;
        }
        write!(f, ": {}; {}", self.problem, self.remedy)
    }
}

/// All mistakes in one configuration file, in the order of its lines; never empty. Nothing was
/// changed, so the caller may print them and try again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", one_per_line(.0))]
pub struct Mistakes(pub Vec<Mistake>);

fn one_per_line(mistakes: &[Mistake]) -> String {
    mistakes.iter().map(Mistake::to_string).collect::<Vec<_>>().join("\n")
}
