//! What is wrong with a configuration, in words an operator can act on.
//!
//! A mistake always says where (file and line), which setting, what is wrong and what to write
//! instead. Mistakes come in a list because an operator should not have to start a node five times
//! to learn of five typing errors.

use std::fmt;

/// One thing that is wrong in a configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The file as the caller named it.
    pub file: String,
    /// The line, counted from 1; 0 when the mistake is about the file as a whole.
    pub line: usize,
    /// The setting in dotted form (`ledger.heartbeat`); empty when no single setting is meant.
    pub setting: String,
    /// What is wrong, as a lowercase fragment.
    pub problem: String,
    /// What to do about it, as one imperative sentence.
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

/// Every mistake found in one configuration file, in the order of its lines; never empty. Nothing
/// was changed and nothing was opened: the caller may print it and try again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", one_per_line(.0))]
pub struct Mistakes(pub Vec<Mistake>);

fn one_per_line(mistakes: &[Mistake]) -> String {
    mistakes.iter().map(Mistake::to_string).collect::<Vec<_>>().join("\n")
}
