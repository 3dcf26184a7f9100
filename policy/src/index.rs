//! Which policies a request may meet, without asking each: a hundred policies on a hundred paths must not cost a
//! hundred times one.
//!
//! A policy is found by texts that a value of the request must have, begin with or end with for its condition to be met.
//! What is found is asked in full, so nothing depends on which texts were chosen but the time it takes. Texts lie in
//! order, and the one next to the value tells all that the value begins with, by halving: no request can make that slow.

use std::borrow::Cow;
use std::cmp::{Ordering, Reverse};

use crate::known::Known;
use crate::matcher::{Condition, HostName, Test};
use crate::request::{self, ROUTE_NAME};

/// So many policies must be found by a value for looking it up to cost less than asking them.
const MIN_POLICIES: usize = 16;

/// The same for a value that would else not be read for every request.
const MIN_POLICIES_TO_READ: usize = 32;

/// The most policies, in words of 64.
const WORDS: usize = 16;

/// Which policies a request may meet.
#[derive(Clone, Debug)]
pub struct Index {
    tables: Vec<Table>,
    /// Those that no table has.
    always: Set,
}

/// Places of policies in the configuration.
#[derive(Clone, Copy, Debug, Default)]
struct Set([u64; WORDS]);

/// The texts that one value is looked up in.
#[derive(Clone, Debug)]
struct Table {
    field: Field<String>,
    /// Of which the value may be, or begin with, one.
    beginnings: Ordered,
    /// With which it may end, each from its end.
    ends: Ordered,
}

/// Texts in order.
#[derive(Clone, Debug, Default)]
struct Ordered(Vec<Entry>);

#[derive(Clone, Debug)]
struct Entry {
    text: Vec<u8>,
    /// The longest of the others that this one begins with.
    within: Option<usize>,
    /// The policies found by a value that is the text.
    is: Vec<usize>,
    /// Those found by a value that begins with it.
    begins: Vec<usize>,
}

/// A value of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Field<Name> {
    Path,
    Method,
    Host,
    Header(Name),
    Query(Name),
    Cookie(Name),
    RouteName,
    Metadata(Name),
}

/// That a value has a text at its beginning, or backwards at its end. In this order all that belongs to a table lies
/// together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Clue<'a> {
    field: Field<&'a str>,
    at_end: bool,
    text: Cow<'a, [u8]>,
    /// Whether the value may have more than the text.
    in_part: bool,
}

/// Of which a request has at least one if it meets a condition.
type Clues<'a> = Vec<Clue<'a>>;

/// A policy, by its place, that is found by a clue.
type Found<'a> = (&'a Clue<'a>, usize);

impl Index {
    /// Of policies by their conditions, in the order of the configuration. `None` where asking each costs less.
    pub fn new<'a>(conditions: impl ExactSizeIterator<Item = &'a Condition> + Clone) -> Option<Self> {
        if !(MIN_POLICIES..=WORDS * 64).contains(&conditions.len()) {
            return None;
        }
        let read: Vec<Field<&str>> = conditions.clone().filter_map(read_first).collect();
        let choices: Vec<Vec<Clues<'_>>> = conditions.map(choices).collect();
        let chosen = choose(&choices, &read);
        let mut always = Set::default();
        (0..).zip(&chosen).filter(|(_, clues)| clues.is_none()).for_each(|(place, _)| always.add(place));
        let found = in_order(chosen.into_iter().map(|clues| clues.map(Vec::as_slice).unwrap_or_default()));
        let tables: Vec<Table> =
            found.chunk_by(|(one, _), (other, _)| one.field == other.field).filter_map(Table::new).collect();
        (!tables.is_empty()).then_some(Self { tables, always })
    }

    /// The places of all policies that the request may meet, in the order of the configuration.
    pub fn candidates<'a>(&'a self, request: &Known<'a>) -> impl Iterator<Item = usize> + use<> {
        let mut found = self.always;
        for table in &self.tables {
            table.find(request, &mut found);
        }
        found.places()
    }
}

/// The clues of each policy in turn, with its place, in their order.
fn in_order<'a>(policies: impl Iterator<Item = &'a [Clue<'a>]>) -> Vec<Found<'a>> {
    let mut found: Vec<Found<'_>> =
        policies.enumerate().flat_map(|(place, clues)| clues.iter().map(move |clue| (clue, place))).collect();
    found.sort_unstable();
    found
}

/// The value that a condition always asks for, whatever the request is like.
fn read_first(condition: &Condition) -> Option<Field<&str>> {
    match condition {
        Condition::All(several) | Condition::Any(several) => several.first().and_then(read_first),
        Condition::Not(condition) => read_first(condition),
        leaf => field(leaf),
    }
}

/// The value that a condition on one value is about; `None` for any other.
fn field(condition: &Condition) -> Option<Field<&str>> {
    Some(match condition {
        Condition::Path(_) => Field::Path,
        Condition::Method(_) => Field::Method,
        Condition::Host(_) => Field::Host,
        Condition::Header(name, _) => Field::Header(name),
        Condition::Query(name, _) => Field::Query(name),
        Condition::Cookie(name, _) => Field::Cookie(name),
        Condition::RouteName(_) => Field::RouteName,
        Condition::Metadata(path, _) => Field::Metadata(path),
        Condition::All(_) | Condition::Any(_) | Condition::Not(_) => return None,
        Condition::ClientAddress(_) | Condition::Share(_) => return None,
    })
}

/// By which clues a condition can be found: each of them will do.
fn choices(condition: &Condition) -> Vec<Clues<'_>> {
    match condition {
        Condition::All(all) => all.iter().flat_map(choices).collect(),
        // Each of them must be found; by the first choice of each, since there would be too many together.
        Condition::Any(any) => {
            let clues: Option<Vec<Clues<'_>>> =
                any.iter().map(|one| choices(one).into_iter().next()).collect();
            Vec::from_iter(clues.map(|clues| clues.concat()))
        }
        leaf => Vec::from_iter(field(leaf).and_then(|field| clues(leaf, field))),
    }
}

/// The clues of a condition on one value.
fn clues<'a>(condition: &'a Condition, field: Field<&'a str>) -> Option<Clues<'a>> {
    let exact = |text: &'a str| Clue { field, at_end: false, text: text.as_bytes().into(), in_part: false };
    let prefix = |text: &'a str| Clue { in_part: true, ..exact(text) };
    let suffix = |text: &'a str| Clue { at_end: true, text: text.bytes().rev().collect(), ..prefix(text) };
    Some(match condition {
        Condition::Path(test)
        | Condition::Header(_, test)
        | Condition::Query(_, test)
        | Condition::Cookie(_, test)
        | Condition::Metadata(_, test) => vec![match test {
            // Every value begins with nothing.
            Test::Present => prefix(""),
            Test::Exact(text) => exact(text),
            Test::Prefix(text) => prefix(text),
            Test::Suffix(text) => suffix(text),
            Test::Regex(_) => return None,
        }],
        Condition::Method(names) | Condition::RouteName(names) => {
            names.iter().map(|name| exact(name)).collect()
        }
        Condition::Host(hosts) => {
            let host = |host: &'a HostName| match host {
                HostName::Exact(name) => exact(name),
                HostName::Below(domain) => suffix(domain),
            };
            hosts.iter().map(host).collect()
        }
        _ => return None,
    })
}

/// The clues that each policy is found by, of its `choices`; `None` where it is not worth it. `read` are the values that
/// are read for every request anyway.
fn choose<'c>(choices: &'c [Vec<Clues<'c>>], read: &[Field<&str>]) -> Vec<Option<&'c Clues<'c>>> {
    let all = in_order(choices.iter().flatten().map(Vec::as_slice));
    // With how many policies it is shared, and how many values may have it.
    let breadth = |clues: &&Clues<'_>| {
        let behind = |clue: &Clue<'_>| all.partition_point(|(other, _)| *other <= clue);
        let before = |clue: &Clue<'_>| all.partition_point(|(other, _)| *other < clue);
        let policies: usize = clues.iter().map(|clue| behind(clue) - before(clue)).sum();
        let in_part = clues.iter().any(|clue| clue.in_part);
        let shortest = clues.iter().map(|clue| clue.text.len()).min();
        (policies, in_part, Reverse(shortest))
    };
    let mut fields: Vec<Field<&str>> = all.iter().map(|(clue, _)| clue.field).collect();
    fields.dedup();
    loop {
        let place_of = |clue: &Clue<'_>| fields.binary_search(&clue.field);
        let can_be_found = |clues: &&Clues<'_>| clues.iter().all(|clue| place_of(clue).is_ok());
        let best = |of: &'c Vec<Clues<'c>>| of.iter().filter(can_be_found).min_by_key(breadth);
        let chosen: Vec<Option<&Clues<'_>>> = choices.iter().map(best).collect();
        // By each field how many policies are found, and the last of them.
        let mut counts: Vec<(usize, Option<usize>)> = vec![(0, None); fields.len()];
        for (policy, clues) in chosen.iter().enumerate() {
            for clue in clues.iter().copied().flatten() {
                let Some((count, last)) = place_of(clue).ok().and_then(|at| counts.get_mut(at)) else {
                    continue;
                };
                if last.replace(policy) != Some(policy) {
                    *count += 1;
                }
            }
        }
        // Those that too few policies would be found by are given up, and these are found by others if they can be.
        let is_worth_it = |field: &Field<&str>, count| {
            count >= if read.contains(field) { MIN_POLICIES } else { MIN_POLICIES_TO_READ }
        };
        let kept = fields.iter().zip(counts).filter(|(field, (count, _))| is_worth_it(field, *count));
        let kept: Vec<Field<&str>> = kept.map(|(field, _)| *field).collect();
        if kept.len() == fields.len() {
            return chosen;
        }
        fields = kept;
    }
}

impl Field<&str> {
    fn to_owned(self) -> Field<String> {
        match self {
            Self::Path => Field::Path,
            Self::Method => Field::Method,
            Self::Host => Field::Host,
            Self::Header(name) => Field::Header(name.to_owned()),
            Self::Query(name) => Field::Query(name.to_owned()),
            Self::Cookie(name) => Field::Cookie(name.to_owned()),
            Self::RouteName => Field::RouteName,
            Self::Metadata(path) => Field::Metadata(path.to_owned()),
        }
    }
}

impl Table {
    /// Of all that is found by one field; `None` where that is nothing.
    fn new(found: &[Found<'_>]) -> Option<Self> {
        let (clue, _) = found.first()?;
        let (beginnings, ends) = found.split_at(found.partition_point(|(clue, _)| !clue.at_end));
        Some(Self {
            field: clue.field.to_owned(),
            beginnings: Ordered::new(beginnings),
            ends: Ordered::new(ends),
        })
    }

    /// Adds the policies that the request may meet by this value of it.
    fn find<'a>(&'a self, request: &Known<'a>, to: &mut Set) {
        match &self.field {
            Field::Path => self.look_up(request.path(), to),
            Field::Method => self.look_up(request.method(), to),
            Field::Host => self.look_up(request.host(), to),
            Field::Header(name) => self.look_up(request.header(name), to),
            Field::Query(name) => self.look_up(request.query(name).as_deref(), to),
            Field::Cookie(name) => self.look_up(request.cookie(name), to),
            Field::RouteName => self.look_up(request.attribute(ROUTE_NAME), to),
            Field::Metadata(path) => {
                let value = request.attribute(path);
                self.look_up(value, to);
                self.look_up(value.and_then(request::as_json).as_ref().map(String::as_bytes), to);
            }
        }
    }

    fn look_up(&self, value: Option<&[u8]>, to: &mut Set) {
        let Some(value) = value else { return };
        self.beginnings.find(
            value.len(),
            |text| text.cmp(value),
            |text| shared(text.iter(), value.iter()),
            to,
        );
        let backwards = || value.iter().rev();
        self.ends.find(
            value.len(),
            |text| text.iter().cmp(backwards()),
            |text| shared(text.iter(), backwards()),
            to,
        );
    }
}

/// How many bytes two texts share at their beginnings.
fn shared<'a>(one: impl Iterator<Item = &'a u8>, other: impl Iterator<Item = &'a u8>) -> usize {
    one.zip(other).take_while(|(one, other)| one == other).count()
}

impl Entry {
    /// Of all that is found by one text; `None` where that is nothing.
    fn new(found: &[Found<'_>]) -> Option<Self> {
        let (clue, _) = found.first()?;
        let (is, begins) = found.split_at(found.partition_point(|(clue, _)| !clue.in_part));
        let places = |found: &[Found<'_>]| found.iter().map(|(_, place)| *place).collect();
        Some(Self { text: clue.text.to_vec(), within: None, is: places(is), begins: places(begins) })
    }
}

impl Ordered {
    fn new(found: &[Found<'_>]) -> Self {
        let by_text = found.chunk_by(|(one, _), (other, _)| one.text == other.text);
        let mut entries: Vec<Entry> = Vec::new();
        for mut entry in by_text.filter_map(Entry::new) {
            // Whatever it begins with, the one before it begins with, too, or is.
            let mut within = entries.len().checked_sub(1);
            while let Some((at, other)) = within.and_then(|at| Some((at, entries.get(at)?))) {
                if entry.text.starts_with(&other.text) {
                    entry.within = Some(at);
                    break;
                }
                within = other.within;
            }
            entries.push(entry);
        }
        Self(entries)
    }

    /// Adds the policies found by a value of `bytes` bytes that `order` compares with a text, and that shares so many
    /// bytes with its beginning.
    fn find(
        &self,
        bytes: usize,
        order: impl Fn(&[u8]) -> Ordering,
        shared: impl Fn(&[u8]) -> usize,
        to: &mut Set,
    ) {
        // The last that is not behind the value: all that the value begins with are behind none of what lies between, so
        // it begins with them as well.
        let not_behind = self.0.partition_point(|entry| order(&entry.text).is_le());
        let mut next = not_behind.checked_sub(1);
        let Some(last) = next.and_then(|at| self.0.get(at)) else { return };
        let shared = shared(&last.text);
        while let Some(entry) = next.and_then(|at| self.0.get(at)) {
            if entry.text.len() <= shared {
                entry.begins.iter().for_each(|place| to.add(*place));
                if entry.text.len() == bytes {
                    entry.is.iter().for_each(|place| to.add(*place));
                }
            }
            next = entry.within;
        }
    }
}

impl Set {
    /// Adds a place below the most that there may be.
    fn add(&mut self, place: usize) {
        if let Some(word) = self.0.get_mut(place / 64) {
            *word |= 1 << (place % 64);
        }
    }

    /// The places, from the least to the greatest.
    fn places(mut self) -> impl Iterator<Item = usize> {
        let mut at = 0;
        std::iter::from_fn(move || {
            loop {
                let word = self.0.get_mut(at)?;
                if *word != 0 {
                    let place = at * 64 + word.trailing_zeros() as usize;
                    *word &= *word - 1;
                    return Some(place);
                }
                at += 1;
            }
        })
    }
}
