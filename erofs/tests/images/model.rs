//! Random layers against a model that is a plain map of paths, and random damage.

use std::collections::BTreeMap;

use erofs::{Kind, Metadata, Reader, Special, Writer};
use proptest::prelude::*;

use crate::listing::{self, Listing, Seen, count_links, implied, seen};
use crate::{Item, What, add, path};

#[derive(Clone, Debug)]
enum Step {
    Add(Item),
    Remove(Vec<u8>),
    Clear(Vec<u8>),
    NextLayer,
}

/// What there is, and the last layer that brought it or something below it.
#[derive(Default)]
struct Model {
    layer: u32,
    there: BTreeMap<Vec<u8>, (u32, Seen, u32)>,
    numbers: u32,
}

/// Whether `path` is `above` or below it.
fn within(path: &[u8], above: &[u8]) -> bool {
    above.is_empty()
        || path == above
        || path.strip_prefix(above).is_some_and(|rest| rest.first() == Some(&b'/'))
}

impl Model {
    /// False if the step has a parent that is no directory, or links to what is no file.
    fn apply(&mut self, step: &Step) -> bool {
        match step {
            Step::NextLayer => self.layer += 1,
            Step::Remove(path) => {
                self.there.retain(|at, (layer, ..)| *layer == self.layer || !within(at, path))
            }
            Step::Clear(path) => {
                let is_directory =
                    self.there.get(path).is_some_and(|(_, seen, _)| seen.kind == Kind::Directory);
                let layer = self.layer;
                self.there
                    .retain(|at, (of, ..)| !is_directory || *of == layer || at == path || !within(at, path));
            }
            Step::Add(item) => return self.add(item),
        }
        true
    }

    fn add(&mut self, item: &Item) -> bool {
        let path = item.path.clone();
        let parents: Vec<Vec<u8>> =
            (0..path.len()).filter(|at| path[*at] == b'/').map(|at| path[..at].to_vec()).collect();
        let is_file = |path| {
            self.there.get(path).is_some_and(|(_, seen, _): &(_, Seen, _)| seen.kind != Kind::Directory)
        };
        if parents.iter().any(is_file) {
            return false;
        }
        self.numbers += 1;
        let (mut number, mut metadata) = (self.numbers, item.metadata.clone());
        let (kind, data) = match &item.what {
            What::Directory => (Kind::Directory, Vec::new()),
            What::File(data) => (Kind::Regular, data.clone()),
            What::Symlink(target) => (Kind::Symlink, target.clone()),
            What::Special(special) => (Kind::Special(*special), Vec::new()),
            What::Link(target) => match self.there.get(target) {
                Some((_, there, its_number)) if there.kind != Kind::Directory => {
                    (number, metadata) = (*its_number, there.metadata.clone());
                    (there.kind, there.data.clone())
                }
                _ => return false,
            },
        };
        for parent in parents {
            self.numbers += 1;
            let new = (self.layer, implied(&parent), self.numbers);
            self.there.entry(parent).or_insert(new).0 = self.layer;
        }
        let over_directory = self.there.get(&path).is_some_and(|(_, seen, _)| seen.kind == Kind::Directory);
        if !(over_directory && kind == Kind::Directory) {
            self.there.retain(|at, _| !within(at, &path));
        }
        self.there.insert(path, (self.layer, seen(kind, metadata, data), number));
        true
    }

    fn listing(self) -> Listing {
        let mut first: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
        for (path, (.., number)) in &self.there {
            first.entry(*number).or_insert_with(|| path.clone());
        }
        let mut listing: Listing = self
            .there
            .into_iter()
            .map(|(path, (_, seen, number))| (path, Seen { same_as: first[&number].clone(), ..seen }))
            .collect();
        listing.insert(Vec::new(), implied(b""));
        count_links(&mut listing);
        listing
    }
}

/// Few names, so that paths meet; links have names of their own, as the model does not follow them.
fn any_path(last: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let parents = prop::collection::vec(prop::sample::select(&["a", "b", "c"][..]), 0..3);
    (parents, prop::sample::select(last)).prop_map(|(mut names, last)| {
        names.push(last);
        names.join("/").into_bytes()
    })
}

const NAMES: &[&str] = &["a", "b", "c", "d"];

fn any_metadata() -> impl Strategy<Value = Metadata> {
    let xattrs = prop::collection::btree_map(
        ("(user|trusted|security)\\.[a-z]{1,20}").prop_map(String::into_bytes),
        prop::collection::vec(any::<u8>(), 0..300),
        0..3,
    );
    (0..0o10000_u16, 0..u32::MAX, 0..u32::MAX, any::<i64>(), 0..1_000_000_000_u32, xattrs).prop_map(
        |(permissions, uid, gid, mtime_s, mtime_ns, xattrs)| Metadata {
            permissions,
            uid,
            gid,
            mtime_s,
            mtime_ns,
            xattrs,
        },
    )
}

fn any_step() -> impl Strategy<Value = Step> {
    let data = prop_oneof![0..20_usize, 4090..4100_usize, 0..20_000_usize].prop_map(crate::zoo::bytes);
    let special = prop_oneof![
        Just(Special::Fifo),
        Just(Special::Socket),
        (0..4096_u32, 0..1_048_576_u32).prop_map(|(major, minor)| Special::Block { major, minor }),
    ];
    let target = prop::collection::vec(1..=255_u8, 1..4096).prop_map(What::Symlink);
    let added = prop_oneof![
        (any_path(NAMES), Just(What::Directory)),
        (any_path(NAMES), data.prop_map(What::File)),
        (any_path(NAMES), special.prop_map(What::Special)),
        (any_path(NAMES), any_path(NAMES).prop_map(What::Link)),
        // A hard link to a symbolic link is one, so it has such a name, too.
        (any_path(&["m"]), any_path(&["l"]).prop_map(What::Link)),
        (any_path(&["l", "m"]), target),
    ];
    let added =
        (added, any_metadata()).prop_map(|((path, what), metadata)| Step::Add(Item { path, metadata, what }));
    prop_oneof![
        12 => added,
        2 => any_path(NAMES).prop_map(Step::Remove),
        2 => any_path(NAMES).prop_map(Step::Clear),
        1 => Just(Step::NextLayer),
    ]
}

/// The image of those steps that are possible, and what should be in it.
fn build(steps: &[Step]) -> (Vec<u8>, Listing) {
    let (mut writer, mut model) = (Writer::new(Vec::new()), Model::default());
    for step in steps {
        if !model.apply(step) {
            continue;
        }
        match step {
            Step::Add(item) => add(&mut writer, item).unwrap(),
            Step::Remove(name) => writer.remove(&path(name)).unwrap(),
            Step::Clear(name) => writer.clear(&path(name)).unwrap(),
            Step::NextLayer => writer.next_layer(),
        }
    }
    (writer.finish().unwrap().0, model.listing())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_layers_are_what_the_model_says(steps in prop::collection::vec(any_step(), 0..60)) {
        let (image, expected) = build(&steps);
        listing::assert_same(&listing::of_image(&Reader::open(&image).unwrap()), &expected);
        prop_assert!(build(&steps).0 == image, "not reproducible");
    }

    #[test]
    fn damage_is_an_error_or_harmless(
        steps in prop::collection::vec(any_step(), 20..60),
        bits in prop::collection::vec(any::<prop::sample::Index>(), 1..20),
    ) {
        let (mut image, _) = build(&steps);
        let metadata = u32::from_le_bytes(image[1064..1068].try_into().unwrap()) as usize * 4096;
        for bit in bits {
            let bit = bit.index((image.len() - metadata) * 8);
            image[metadata + bit / 8] ^= 1 << (bit % 8);
        }
        // Neither panics nor runs on for ever; what it returns may be right or wrong.
        let _ = Reader::open(&image).map(|reader| listing::try_of_image(&reader).map(drop));
    }

    #[test]
    fn noise_is_no_image(bytes in prop::collection::vec(any::<u8>(), 0..9000)) {
        prop_assert!(Reader::open(&bytes).is_err());
    }
}
