//! The files of the directory, and which version of each is in force.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Object, ObjectRef, RegistryError, Source, document};

/// How deep directories may lie in each other: a bound for links that lead in circles.
const MAX_DEPTH: usize = 16;

type Objects = Arc<Vec<(Source, Arc<Object>)>>;

/// The state of the directory after the last [`Directory::scan`].
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    files: BTreeMap<Arc<PathBuf>, FileState>,
}

#[derive(Debug, Default)]
struct FileState {
    content: Vec<u8>,
    /// What the content says; none while it is wrong.
    parsed: Option<Objects>,
    /// What counts: the same, or the last version that was accepted.
    in_force: Option<Objects>,
    /// Why the content is not in force, as it was last reported.
    complaint: Option<String>,
}

/// What a scan found.
#[derive(Debug, Default)]
pub struct Scan {
    /// Whether what is in force changed.
    pub changed: bool,
    /// Why files are not taken, each reported once until the file or the reason changes.
    pub refused: Vec<RegistryError>,
    /// Files that were refused before and are in force now.
    pub recovered: Vec<PathBuf>,
}

impl Directory {
    /// A directory that has not been looked at yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            files: BTreeMap::new(),
        }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Everything that is in force, by file name and in the files' order.
    pub fn objects(&self) -> impl Iterator<Item = &(Source, Arc<Object>)> {
        self.files
            .values()
            .filter_map(|file| file.in_force.as_ref())
            .flat_map(|list| list.iter())
    }

    /// Reads what changed and decides what is in force.
    ///
    /// # Errors
    /// The directory itself cannot be read; then everything stays as it is. A wrong file is no
    /// error here: it is in [`Scan::refused`].
    pub fn scan(&mut self) -> Result<Scan, RegistryError> {
        let paths = files(&self.path)?;
        let before: HashMap<_, _> = self
            .files
            .iter()
            .filter_map(|(path, file)| Some((Arc::clone(path), file.in_force.clone()?)))
            .collect();
        let mut faults = BTreeMap::new();
        self.files.retain(|path, _| paths.contains(path.as_ref()));
        for path in paths {
            let path = Arc::new(path);
            let file = self.files.entry(Arc::clone(&path)).or_default();
            if let Err(error) = file.read(&path) {
                faults.insert(path, error);
            }
        }
        self.settle(&mut faults);
        let mut scan = Scan::default();
        let mut unchanged = 0;
        for (path, file) in &mut self.files {
            let complaint = faults.get(path).map(ToString::to_string);
            if complaint.is_none() && file.parsed.is_some() && file.complaint.take().is_some() {
                scan.recovered.push(path.as_ref().clone());
            }
            if let Some(error) = faults.remove(path).filter(|_| complaint != file.complaint) {
                scan.refused.push(error);
                file.complaint = complaint;
            }
            match (before.get(path), &file.in_force) {
                (Some(old), Some(new)) if same(old, new) => unchanged += 1,
                (_, new) => scan.changed |= new.is_some(),
            }
        }
        scan.changed |= unchanged != before.len();
        Ok(scan)
    }

    /// Puts each file's new version in force, unless it declares an object that another file
    /// declares already; then its last version stays.
    fn settle(&mut self, faults: &mut BTreeMap<Arc<PathBuf>, RegistryError>) {
        let mut refused: BTreeSet<Arc<PathBuf>> = BTreeSet::new();
        // Each round refuses one more file, and versions that were in force together before do
        // not clash, so this ends.
        while let Some((path, error)) = self.first_clash(&refused) {
            refused.insert(Arc::clone(&path));
            faults.entry(path).or_insert(error);
        }
        for (path, file) in &mut self.files {
            if !refused.contains(path) && file.parsed.is_some() {
                file.in_force.clone_from(&file.parsed);
            }
        }
    }

    fn first_clash(
        &self,
        refused: &BTreeSet<Arc<PathBuf>>,
    ) -> Option<(Arc<PathBuf>, RegistryError)> {
        let mut owners: HashMap<ObjectRef, &Source> = HashMap::new();
        let is_new = |path: &Arc<PathBuf>, file: &FileState| {
            !refused.contains(path)
                && file.parsed.as_ref().is_some_and(|parsed| {
                    file.in_force
                        .as_ref()
                        .is_none_or(|in_force| !same(parsed, in_force))
                })
        };
        // What is in force already has the older right to its names.
        for wanted in [false, true] {
            for (path, file) in &self.files {
                if is_new(path, file) != wanted {
                    continue;
                }
                let version = if wanted { &file.parsed } else { &file.in_force };
                for (at, object) in version.iter().flat_map(|list| list.iter()) {
                    let reference = object.reference();
                    if let Some(other) = owners.insert(reference.clone(), at) {
                        let (at, other) = (at.clone(), other.clone());
                        let error = RegistryError::Duplicate {
                            at,
                            object: reference,
                            other,
                        };
                        return Some((Arc::clone(path), error));
                    }
                }
            }
        }
        None
    }
}

impl FileState {
    fn read(&mut self, path: &Arc<PathBuf>) -> Result<(), RegistryError> {
        let read = |source| RegistryError::Read {
            path: path.as_ref().clone(),
            source,
        };
        let content = fs::read(path.as_ref()).map_err(read)?;
        if self.parsed.is_some() && content == self.content {
            return Ok(());
        }
        self.parsed = None;
        self.content = content;
        let text = std::str::from_utf8(&self.content)
            .map_err(|error| read(io::Error::new(io::ErrorKind::InvalidData, error)))?;
        let objects = document::parse(path, text)?;
        let objects: Vec<_> = objects
            .into_iter()
            .map(|(at, object)| (at, Arc::new(object)))
            .collect();
        // The same objects as before keep their identity, so that nothing downstream changes.
        self.parsed = match self.in_force.as_ref() {
            Some(old) if **old == objects => Some(Arc::clone(old)),
            _ => Some(Arc::new(objects)),
        };
        Ok(())
    }
}

fn same(one: &Objects, other: &Objects) -> bool {
    Arc::ptr_eq(one, other)
}

/// The `.yaml`, `.yml` and `.json` files below a directory.
///
/// # Errors
/// It cannot be read.
pub fn files(directory: &Path) -> Result<BTreeSet<PathBuf>, RegistryError> {
    let mut paths = BTreeSet::new();
    list(directory, 0, &mut paths).map_err(|source| RegistryError::Read {
        path: directory.to_owned(),
        source,
    })?;
    Ok(paths)
}

/// Collects the files. Names that begin with a dot are editors'
/// temporary files and Kubernetes' volume internals.
fn list(directory: &Path, depth: usize, paths: &mut BTreeSet<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with('.'))
        {
            continue;
        }
        let is_directory = match fs::metadata(&path) {
            Ok(metadata) => metadata.is_dir(),
            // It went between the two looks, or a link leads nowhere: reading it will say so.
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(error),
        };
        if is_directory {
            if depth < MAX_DEPTH {
                list(&path, depth + 1, paths)?;
            }
        } else if path.extension().is_some_and(|suffix| {
            ["yaml", "yml", "json"]
                .iter()
                .any(|known| suffix.eq_ignore_ascii_case(known))
        }) {
            paths.insert(path);
        }
    }
    Ok(())
}
