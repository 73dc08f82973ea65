//! Files that pages load: from the ledger itself, under addresses that change with their bytes.

use std::sync::LazyLock;

use sha2::{Digest, Sha256};

use crate::link::ROOT;

/// A file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asset {
    /// Its name.
    pub name: &'static str,
    /// Its media type.
    pub kind: &'static str,
    /// Its text.
    pub text: &'static str,
}

const ASSETS: [Asset; 5] = [
    Asset {
        name: "console.css",
        kind: "text/css; charset=utf-8",
        text: include_str!("assets/console.css"),
    },
    Asset {
        name: "icon.svg",
        kind: "image/svg+xml",
        text: include_str!("assets/icon.svg"),
    },
    Asset {
        name: "proof.js",
        kind: "text/javascript; charset=utf-8",
        text: include_str!("assets/proof.js"),
    },
    Asset {
        name: "verify.js",
        kind: "text/javascript; charset=utf-8",
        text: include_str!("assets/verify.js"),
    },
    Asset {
        name: "live.js",
        kind: "text/javascript; charset=utf-8",
        text: include_str!("assets/live.js"),
    },
];

/// A word for the bytes of all files: scripts import each other, so they change together.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let mut hash = Sha256::new();
    for asset in ASSETS {
        hash.update(asset.text);
    }
    let mut word = hex::encode(hash.finalize());
    word.truncate(16);
    word
});

/// The address of a file.
pub(crate) fn path(name: &str) -> String {
    format!("{ROOT}/assets/{}/{name}", *VERSION)
}

/// The file of this version and name.
#[must_use]
pub fn find(version: &str, name: &str) -> Option<Asset> {
    let is_this = version == *VERSION;
    ASSETS
        .into_iter()
        .find(|asset| is_this && asset.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_found_at_its_address_and_at_no_other() {
        let path = path("console.css");
        let (_, rest) = path.split_once("/assets/").unwrap();
        let (version, name) = rest.split_once('/').unwrap();
        assert_eq!(find(version, name).unwrap().name, "console.css");
        assert_eq!(find("0", name), None);
        assert_eq!(find(version, "../lib.rs"), None);
    }

    #[test]
    fn files_load_nothing_from_elsewhere() {
        for asset in ASSETS {
            let text = asset.text.replace("http://www.w3.org/2000/svg", "");
            for word in ["http:", "https:", "url(", "@import", "//cdn"] {
                assert!(!text.contains(word), "{}: {word}", asset.name);
            }
        }
    }
}
