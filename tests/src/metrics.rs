//! What a node counts about itself.

use crate::http::Client;

/// The value of a counter or gauge (all its labels together); 0 if the node has not counted it yet.
///
/// # Panics
/// When the node does not show its metrics.
#[must_use]
pub fn value(client: &Client, name: &str) -> u64 {
    let shown = client
        .get("/metrics")
        .unwrap_or_else(|none| panic!("/metrics of {}: {none}", client.authority()));
    assert_eq!(shown.status, 200, "/metrics of {}: {shown}", client.authority());
    let text = String::from_utf8_lossy(&shown.body);
    let lines = text
        .lines()
        .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{'])));
    let value = |line: &str| line.rsplit(' ').next()?.parse::<f64>().ok();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "counters are whole and not negative"
    )]
    let sum = lines
        .map(|line| value(line).unwrap_or_else(|| panic!("a number: {line}")))
        .sum::<f64>() as u64;
    sum
}
