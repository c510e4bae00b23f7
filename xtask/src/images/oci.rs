//! Writing an image as an OCI layout in one tar, with neither a registry nor a container program:
//! what `ctr images import`, `podman load` and `skopeo copy oci-archive:` take.
//!
//! The bytes depend on what goes in alone: no times, no owners, names in a fixed order.
//! Source: the OCI image specification 1.1 (image-layout, manifest, config, layer).

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// One file of an image.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Where it is in the image, without the leading slash.
    path: String,
    mode: u32,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Copy(PathBuf),
    Bytes(Vec<u8>),
    Link(String),
    Folder,
}

impl Entry {
    /// A program, copied from this machine.
    pub(crate) fn program(path: &str, source: impl Into<PathBuf>) -> Self {
        Self::new(path, 0o755, Content::Copy(source.into()))
    }

    /// A file that everybody may read, of these bytes.
    pub(crate) fn bytes(path: &str, bytes: impl Into<Vec<u8>>) -> Self {
        Self::new(path, 0o644, Content::Bytes(bytes.into()))
    }

    /// A symbolic link.
    pub(crate) fn link(path: &str, target: &str) -> Self {
        Self::new(path, 0o777, Content::Link(target.to_owned()))
    }

    /// A folder with nothing in it, for example one that something is mounted on.
    pub(crate) fn folder(path: &str, mode: u32) -> Self {
        Self::new(path, mode, Content::Folder)
    }

    fn new(path: &str, mode: u32, content: Content) -> Self {
        Self {
            path: path.trim_start_matches('/').to_owned(),
            mode,
            content,
        }
    }
}

/// How the image is run.
#[derive(Debug, Default)]
pub(crate) struct ImageConfig {
    /// The program and its first arguments.
    pub(crate) entrypoint: Vec<String>,
    /// `UID:GID`; root when it is empty.
    pub(crate) user: String,
    /// `NAME=value`.
    pub(crate) environment: Vec<String>,
}

/// What an image weighs, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    /// Its files, as they lie on a node.
    pub(crate) unpacked: usize,
    /// Its layer, as it is transferred.
    pub(crate) packed: usize,
}

/// Writes the image called `name` (registry, repository and tag) to `out`.
///
/// # Errors
/// A source cannot be read, a path is in it twice, or `out` cannot be written.
pub(crate) fn write(
    name: &str,
    entries: &[Entry],
    config: &ImageConfig,
    out: &Path,
) -> Result<Size> {
    let unpacked = layer(entries).with_context(|| format!("the layer of {name}"))?;
    let layer_digest = digest(&unpacked);
    let layer = compress(&unpacked)?;
    let config = serde_json::to_vec(&json!({
        "architecture": architecture(),
        "os": "linux",
        "config": {
            "Entrypoint": config.entrypoint,
            "User": config.user,
            "Env": config.environment,
        },
        "rootfs": {"type": "layers", "diff_ids": [layer_digest]},
    }))?;
    let manifest = serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(CONFIG, &config),
        "layers": [descriptor(LAYER, &layer)],
    }))?;
    let (_, tag) = name
        .rsplit_once(':')
        .with_context(|| format!("{name} has no tag"))?;
    let mut listed = descriptor(MANIFEST, &manifest);
    // The first is what containerd names the image by, the second what others do.
    listed["annotations"] = json!({
        "io.containerd.image.name": name,
        "org.opencontainers.image.ref.name": tag,
    });
    let index = serde_json::to_vec(&json!({"schemaVersion": 2, "manifests": [listed]}))?;

    let folder = out.parent().context("the image's file has no folder")?;
    std::fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    // Renamed when it is whole, so that nobody finds half an image.
    let mut file = tempfile::Builder::new()
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(folder)?;
    let mut archive = tar::Builder::new(file.as_file_mut());
    append(
        &mut archive,
        "oci-layout",
        0o644,
        br#"{"imageLayoutVersion":"1.0.0"}"#,
    )?;
    append(&mut archive, "index.json", 0o644, &index)?;
    for blob in [&config, &layer, &manifest] {
        let digest = digest(blob);
        let path = format!("blobs/{}", digest.replace(':', "/"));
        append(&mut archive, &path, 0o644, blob)?;
    }
    archive.into_inner()?.flush()?;
    file.persist(out)
        .with_context(|| format!("write {}", out.display()))?;
    Ok(Size {
        unpacked: unpacked.len(),
        packed: layer.len(),
    })
}

fn compress(bytes: &[u8]) -> Result<Vec<u8>> {
    // The header says neither when nor from what file.
    let mut encoder = GzBuilder::new()
        .mtime(0)
        .write(Vec::new(), Compression::default());
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?)
}

/// The one layer: every folder before what is in it.
///
/// # Errors
/// A source cannot be read, or a path is in it twice.
pub(crate) fn layer(entries: &[Entry]) -> Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut seen = BTreeSet::new();
    for entry in entries {
        let mut folders: Vec<&Path> = Path::new(&entry.path).ancestors().skip(1).collect();
        folders.retain(|folder| !folder.as_os_str().is_empty());
        for folder in folders.into_iter().rev() {
            let name = format!("{}/", folder.display());
            if seen.insert(name.clone()) {
                let mut header = header(0o755, 0);
                header.set_entry_type(tar::EntryType::Directory);
                archive.append_data(&mut header, &name, std::io::empty())?;
            }
        }
        ensure!(seen.insert(entry.path.clone()), "{} twice", entry.path);
        match &entry.content {
            Content::Bytes(bytes) => append(&mut archive, &entry.path, entry.mode, bytes)?,
            Content::Copy(source) => {
                let mut file =
                    File::open(source).with_context(|| format!("open {}", source.display()))?;
                let length = file.metadata()?.len();
                archive.append_data(&mut header(entry.mode, length), &entry.path, &mut file)?;
            }
            Content::Folder => {
                let mut header = header(entry.mode, 0);
                header.set_entry_type(tar::EntryType::Directory);
                let name = format!("{}/", entry.path);
                archive.append_data(&mut header, name, std::io::empty())?;
            }
            Content::Link(target) => {
                let mut header = header(entry.mode, 0);
                header.set_entry_type(tar::EntryType::Symlink);
                archive.append_link(&mut header, &entry.path, target)?;
            }
        }
    }
    Ok(archive.into_inner()?)
}

fn append<W: Write>(
    archive: &mut tar::Builder<W>,
    path: &str,
    mode: u32,
    bytes: &[u8],
) -> Result<()> {
    let length = bytes.len().try_into()?;
    archive.append_data(&mut header(mode, length), path, bytes)?;
    Ok(())
}

/// Without a time, an owner or a name of one.
fn header(mode: u32, length: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_mode(mode);
    header.set_size(length);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": digest(bytes), "size": bytes.len()})
}

fn digest(bytes: &[u8]) -> String {
    let sum = Sha256::digest(bytes);
    let hexadecimal: String = sum.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hexadecimal}")
}

/// This machine's architecture, in the words of the specification (those of Go).
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read as _;

    use super::*;

    fn unpack(bytes: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut archive = tar::Archive::new(bytes);
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            assert_eq!(entry.header().mtime().unwrap(), 0);
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            (entry.path().unwrap().display().to_string(), content)
        });
        entries.collect()
    }

    #[test]
    fn writes_a_layout_whose_digests_hold_and_the_same_bytes_again() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("program");
        std::fs::write(&program, "elf").unwrap();
        let config = ImageConfig {
            entrypoint: vec!["/bin/program".to_owned()],
            user: "1:1".to_owned(),
            environment: Vec::new(),
        };
        let entries = [
            Entry::program("/bin/program", &program),
            Entry::link("bin/other", "program"),
            Entry::bytes("/etc/x", "y"),
            Entry::folder("/run", 0o1777),
        ];
        let write = |file: &str| {
            let out = folder.path().join(file);
            write("example.test/a:1", &entries, &config, &out).unwrap();
            std::fs::read(out).unwrap()
        };
        let image = write("first.tar");
        assert_eq!(image, write("second.tar"));

        let files = unpack(&image);
        let mut checked = 0;
        for (path, content) in &files {
            if let Some(sum) = path.strip_prefix("blobs/sha256/") {
                assert_eq!(digest(content), format!("sha256:{sum}"));
                checked += 1;
            }
        }
        assert_eq!(checked, 3);
        let blob = |descriptor: &Value| {
            let digest = descriptor["digest"].as_str().unwrap().replace(':', "/");
            files[&format!("blobs/{digest}")].clone()
        };
        let index: Value = serde_json::from_slice(&files["index.json"]).unwrap();
        let listed = &index["manifests"][0];
        assert_eq!(
            listed["annotations"]["io.containerd.image.name"],
            "example.test/a:1"
        );
        let manifest: Value = serde_json::from_slice(&blob(listed)).unwrap();
        let mut layer = Vec::new();
        flate2::read::GzDecoder::new(blob(&manifest["layers"][0]).as_slice())
            .read_to_end(&mut layer)
            .unwrap();
        let config: Value = serde_json::from_slice(&blob(&manifest["config"])).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"], json!([digest(&layer)]));
        let layer = unpack(&layer);
        let names: Vec<&str> = layer.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            ["bin/", "bin/other", "bin/program", "etc/", "etc/x", "run/",]
        );
        assert_eq!(layer["bin/program"], b"elf");
    }

    #[test]
    fn refuses_a_path_that_is_there_twice() {
        let folder = tempfile::tempdir().unwrap();
        let entries = [Entry::bytes("a", ""), Entry::bytes("/a", "")];
        let out = folder.path().join("out.tar");
        let error = write("a.test/b:1", &entries, &ImageConfig::default(), &out).unwrap_err();
        assert!(format!("{error:#}").contains("a twice"), "{error:#}");
        assert!(!out.exists());
    }
}
