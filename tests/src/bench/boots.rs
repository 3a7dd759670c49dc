//! What several boots of the machine have measured of networks of VMs. Any of them may have ended before its time (`patience`): what was
//! measured until then counts.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::Error;
use crate::metadata::Waited;
use crate::network::{Network, VM_WAYS};
use crate::ways::Way;

/// Writes down what one boot has measured so far.
pub fn write(path: &Path, ways: &[Way], metadata_ms: &Waited) -> Result<(), Error> {
    let ways = ways.iter().map(|way| (way.name.to_owned(), json!([way.stream, way.round_trip])));
    let waited = metadata_ms.iter().map(|(isolation, times)| ((*isolation).to_owned(), json!(times)));
    let measured = json!({ "ways": Map::from_iter(ways), "metadata_ms": Map::from_iter(waited) });
    Ok(fs::write(path, measured.to_string())?)
}

/// What these boots have written, as if one had measured it.
pub fn join(paths: &[PathBuf]) -> Result<Network, Error> {
    let mut network = Network::default();
    network.ways.extend(VM_WAYS.map(|(name, ..)| Way::new(name)));
    network.metadata_ms.extend(["nspawn", "kvm"].map(|isolation| (isolation, Vec::new())));
    for path in paths {
        let boot: Value = serde_json::from_slice(&fs::read(path)?)?;
        let figures = |pointer: String| figures(boot.pointer(&pointer));
        for way in &mut network.ways {
            way.stream.extend(figures(format!("/ways/{}/0", way.name)));
            way.round_trip.extend(figures(format!("/ways/{}/1", way.name)));
        }
        for (isolation, times) in &mut network.metadata_ms {
            times.extend(figures(format!("/metadata_ms/{isolation}")));
        }
    }
    // Those of a peer that is not here.
    network.ways.retain(|way| !way.stream.is_empty());
    if network.ways.is_empty() {
        return Err("no boot has come to the end of a round".into());
    }
    Ok(network)
}

fn figures(list: Option<&Value>) -> Vec<f64> {
    let list = list.and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_f64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boots_are_joined_in_order() {
        let files = [(); 2].map(|()| tempfile::NamedTempFile::new().unwrap());
        let paths = [files[0].path().to_owned(), files[1].path().to_owned()];
        let way = |stream, round_trip| Way { stream, round_trip, ..Way::new("host to kvm") };
        write(&paths[0], &[way(vec![600.0, 610.0], vec![70.0, 71.0])], &vec![("kvm", vec![3.0])]).unwrap();
        write(&paths[1], &[way(vec![620.0], vec![72.0]), Way::new("kvm to kvm")], &Vec::new()).unwrap();
        let network = join(&paths).unwrap();
        assert_eq!(network.ways.len(), 1);
        assert_eq!(network.ways[0].stream, [600.0, 610.0, 620.0]);
        assert_eq!(network.ways[0].round_trip, [70.0, 71.0, 72.0]);
        assert_eq!(network.metadata_ms, [("nspawn", vec![]), ("kvm", vec![3.0])]);
        assert!(join(&[]).is_err());
    }
}
