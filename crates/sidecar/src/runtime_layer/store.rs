//! The layers, and the cells that they fill.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::cell::Cell;
use super::value::Value;

/// The values of a layer, by key.
pub type Values = BTreeMap<String, Value>;

/// One layer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Layer {
    /// `name`
    pub name: String,
    /// Whether `/runtime_modify` changes it; at most one does.
    pub is_admin: bool,
    /// What it says.
    pub values: Values,
}

/// Why values cannot be changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuntimeError {
    /// There is no layer to change.
    #[error("No admin layer specified")]
    NoAdminLayer,
    /// There is no layer of that name.
    #[error("the runtime has no layer `{0}`")]
    NoLayer(String),
}

/// Layers, lowest first, and the cells that were asked for.
#[derive(Debug, Default)]
pub struct Runtime {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    layers: Vec<Layer>,
    cells: HashMap<String, Weak<Cell>>,
    /// So many cells may be known before those are forgotten that nobody holds any more.
    sweep_at: usize,
    loads: u64,
    failures: u64,
}

impl Runtime {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The cell of a key, one for all who ask; an empty key has none.
    pub fn cell(&self, key: &str) -> Option<Arc<Cell>> {
        if key.is_empty() {
            return None;
        }
        let mut inner = self.lock();
        if let Some(cell) = inner.cells.get(key).and_then(Weak::upgrade) {
            return Some(cell);
        }
        if inner.cells.len() >= inner.sweep_at {
            inner.cells.retain(|_, cell| cell.strong_count() > 0);
            inner.sweep_at = 64.max(inner.cells.len() * 2);
        }
        let cell = Arc::new(Cell::new(inner.value(key)));
        inner.cells.insert(key.to_owned(), Arc::downgrade(&cell));
        Some(cell)
    }

    /// Puts these layers in the place of all.
    pub fn set_layers(&self, layers: Vec<Layer>) {
        let mut inner = self.lock();
        inner.layers = layers;
        inner.fill();
    }

    /// Gives a layer other values.
    ///
    /// # Errors
    /// There is no layer of that name.
    pub fn replace(&self, name: &str, values: Values) -> Result<(), RuntimeError> {
        let mut inner = self.lock();
        let layer = inner.layers.iter_mut().find(|layer| layer.name == name);
        let layer = layer.ok_or_else(|| RuntimeError::NoLayer(name.to_owned()))?;
        if layer.values != values {
            layer.values = values;
            inner.fill();
        }
        Ok(())
    }

    /// `/runtime_modify`: an empty text takes the admin layer's value away.
    ///
    /// # Errors
    /// There is no admin layer.
    pub fn modify(
        &self,
        changes: impl IntoIterator<Item = (String, String)>,
    ) -> Result<(), RuntimeError> {
        let mut inner = self.lock();
        let layer = inner.layers.iter_mut().find(|layer| layer.is_admin);
        let layer = layer.ok_or(RuntimeError::NoAdminLayer)?;
        for (key, text) in changes {
            if text.is_empty() {
                layer.values.remove(&key);
            } else {
                layer.values.insert(key, Value::parse(&text));
            }
        }
        inner.fill();
        Ok(())
    }

    /// The layers as they are now.
    pub fn layers(&self) -> Vec<Layer> {
        self.lock().layers.clone()
    }

    /// A layer could not be read.
    pub fn failed(&self) {
        self.lock().failures += 1;
    }

    /// How often values were taken over, and how often not: `runtime.load_success` and
    /// `runtime.load_error`.
    pub fn loads(&self) -> (u64, u64) {
        let inner = self.lock();
        (inner.loads, inner.failures)
    }
}

impl Inner {
    fn value(&self, key: &str) -> Option<&Value> {
        let mut layers = self.layers.iter().rev();
        layers.find_map(|layer| layer.values.get(key))
    }

    fn fill(&mut self) {
        self.loads += 1;
        for (key, cell) in &self.cells {
            if let Some(cell) = cell.upgrade() {
                cell.set(self.value(key));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::cell::{Double, Flag, Fraction, Number};
    use super::*;

    fn layer(name: &str, values: &[(&str, &str)]) -> Layer {
        let value = |(key, text): &(&str, &str)| ((*key).to_owned(), Value::parse(text));
        Layer {
            name: name.to_owned(),
            is_admin: name == "admin",
            values: values.iter().map(value).collect(),
        }
    }

    fn change(runtime: &Runtime, key: &str, text: &str) -> Result<(), RuntimeError> {
        runtime.modify([(key.to_owned(), text.to_owned())])
    }

    #[test]
    fn later_layers_override_and_readers_follow() {
        let runtime = Runtime::default();
        // Asked for before there is a layer, as builders of the bootstrap's own resources may.
        let number = Number::new(1, runtime.cell("n"));
        runtime.set_layers(vec![
            layer(
                "low",
                &[("n", "2"), ("f", "{numerator: 1, denominator: MILLION}")],
            ),
            layer("high", &[("n", "3")]),
            layer("admin", &[]),
        ]);
        assert_eq!(number.get(), 3);
        runtime.replace("high", Values::new()).unwrap();
        assert_eq!(number.get(), 2);
        change(&runtime, "n", "9").unwrap();
        assert_eq!(number.get(), 9);
        change(&runtime, "n", "4294967296").unwrap();
        assert_eq!(number.get(), 1, "what does not fit is no value");
        change(&runtime, "n", "").unwrap();
        assert_eq!(number.get(), 2);
        let fraction = Fraction::new(50, 100, runtime.cell("f"));
        assert!(fraction.happens(1_000_000) && !fraction.happens(1));
        runtime.set_layers(Vec::new());
        assert!(fraction.happens(49) && !fraction.happens(50));
        assert_eq!(change(&runtime, "n", "1"), Err(RuntimeError::NoAdminLayer));
        let missing = runtime.replace("high", Values::new());
        assert_eq!(missing, Err(RuntimeError::NoLayer("high".into())));
    }

    #[test]
    fn each_type_reads_what_it_can_and_else_its_default() {
        let runtime = Runtime::default();
        runtime.set_layers(vec![layer("admin", &[])]);
        let cell = || runtime.cell("k");
        let flag = Flag::new(true, cell());
        let double = Double::new(0.5, cell());
        let fraction = Fraction::new(0, 100, cell());
        let rows = [
            ("", true, 0.5, false),
            ("0", false, 0.0, false),
            ("101", true, 101.0, true),
            ("2.5", true, 2.5, true),
            ("false", false, 0.5, false),
            ("words", true, 0.5, false),
            ("{numerator: 1}", true, 0.5, true),
        ];
        for (text, on, number, happens) in rows {
            change(&runtime, "k", text).unwrap();
            let read = (flag.get(), double.get());
            assert_eq!(read, (on, number), "{text}");
            assert_eq!(fraction.happens(0), happens, "{text}");
        }
        assert!(runtime.cell("").is_none());
    }

    #[test]
    fn cells_that_nobody_holds_are_forgotten() {
        let runtime = Runtime::default();
        for index in 0..1000 {
            runtime.cell(&index.to_string());
        }
        assert!(runtime.lock().cells.len() <= 64);
    }
}
