//! Which requests a policy governs.

use crate::Request;

/// Conditions that a request must all fulfil; none where nothing is written.
#[derive(Clone, Debug, Default)]
pub struct Matcher {
    pub path: Option<PathMatch>,
    /// Any of these; all methods where the list is empty.
    pub methods: Vec<String>,
}

/// A condition on the path without the query. A request without a path fulfils none.
#[derive(Clone, Debug)]
pub enum PathMatch {
    Exact(String),
    Prefix(String),
}

impl Matcher {
    pub fn matches(&self, request: &impl Request) -> bool {
        let path_fits =
            self.path.as_ref().is_none_or(|path| request.path().is_some_and(|found| path.matches(found)));
        path_fits && self.fits_method(request)
    }

    /// Whether there is no condition.
    pub fn matches_all(&self) -> bool {
        self.path.is_none() && self.methods.is_empty()
    }

    fn fits_method(&self, request: &impl Request) -> bool {
        self.methods.is_empty()
            || request
                .method()
                .is_some_and(|found| self.methods.iter().any(|method| method.as_bytes() == found))
    }
}

impl PathMatch {
    fn matches(&self, path: &[u8]) -> bool {
        match self {
            Self::Exact(exact) => path == exact.as_bytes(),
            Self::Prefix(prefix) => path.starts_with(prefix.as_bytes()),
        }
    }
}
