//! Valid configurations that together use every part of the language. They are seeds, too.

use policy::Policies;

const WRITTEN: [&str; 3] = [
    include_str!("../seeds/configuration/keys.json"),
    include_str!("../seeds/configuration/conditions.json"),
    include_str!("../seeds/configuration/costs.json"),
];

thread_local! {
    static READ: Vec<Policies> = WRITTEN.iter().map(|text| read(text)).collect();
}

/// Does something with all of them, which are read once.
///
/// # Panics
/// Where one of them is not valid, which is a mistake in `seeds/`.
pub fn with_all<T>(run: impl FnOnce(&[Policies]) -> T) -> T {
    READ.with(|all| run(all))
}

fn read(text: &str) -> Policies {
    Policies::from_bytes(text.as_bytes()).unwrap_or_else(|error| panic!("{error} in {text}"))
}
