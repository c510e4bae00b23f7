//! What the data path reads.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

use super::value::Value;

/// What stands for "no layer has a value of this type" in a [`Cell`].
const NO_FRACTION: u64 = 0;
const NO_INTEGER: u64 = u64::MAX;
/// A NaN that no text is read as.
const NO_DOUBLE: u64 = u64::MAX;
const NO_BOOLEAN: u8 = 2;

/// The present value of one key, as each type in which it may be read.
#[derive(Debug)]
pub struct Cell {
    /// The numerator, and above it the denominator.
    fraction: AtomicU64,
    integer: AtomicU64,
    /// The bits.
    double: AtomicU64,
    boolean: AtomicU8,
}

impl Cell {
    /// A cell with this value.
    pub fn new(value: Option<&Value>) -> Self {
        let cell = Cell {
            fraction: AtomicU64::new(NO_FRACTION),
            integer: AtomicU64::new(NO_INTEGER),
            double: AtomicU64::new(NO_DOUBLE),
            boolean: AtomicU8::new(NO_BOOLEAN),
        };
        cell.set(value);
        cell
    }

    /// Takes another value; `None`: no layer has one any more.
    pub fn set(&self, value: Option<&Value>) {
        let fraction = value.and_then(Value::fraction);
        let fraction = fraction.map_or(NO_FRACTION, |(numerator, denominator)| {
            packed(numerator, denominator)
        });
        let integer = value.and_then(Value::integer).unwrap_or(NO_INTEGER);
        let double = value.and_then(Value::double);
        let boolean = value.and_then(Value::boolean);
        self.fraction.store(fraction, Relaxed);
        self.integer.store(integer, Relaxed);
        self.double
            .store(double.map_or(NO_DOUBLE, f64::to_bits), Relaxed);
        self.boolean
            .store(boolean.map_or(NO_BOOLEAN, u8::from), Relaxed);
    }
}

fn packed(numerator: u32, denominator: u32) -> u64 {
    u64::from(denominator) << 32 | u64::from(numerator)
}

/// `RuntimeFractionalPercent`: how often something happens.
#[derive(Clone)]
pub struct Fraction {
    default: u64,
    cell: Option<Arc<Cell>>,
}

impl fmt::Debug for Fraction {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (numerator, denominator) = (self.default & u64::from(u32::MAX), self.default >> 32);
        let by = if self.cell.is_some() {
            " unless the runtime says"
        } else {
            ""
        };
        write!(out, "{numerator}/{denominator}{by}")
    }
}

impl Fraction {
    pub(super) fn new(numerator: u32, denominator: u32, cell: Option<Arc<Cell>>) -> Self {
        Fraction {
            default: packed(numerator, denominator.max(1)),
            cell,
        }
    }

    /// Whether it happens this time.
    pub fn happens(&self, random: u64) -> bool {
        let fraction = match &self.cell {
            None => self.default,
            Some(cell) => match cell.fraction.load(Relaxed) {
                NO_FRACTION => self.default,
                fraction => fraction,
            },
        };
        random % (fraction >> 32) < fraction & u64::from(u32::MAX)
    }
}

/// `RuntimeFeatureFlag`: whether something is on.
#[derive(Clone, Debug)]
pub struct Flag {
    default: bool,
    cell: Option<Arc<Cell>>,
}

impl Flag {
    pub(super) fn new(default: bool, cell: Option<Arc<Cell>>) -> Self {
        Flag { default, cell }
    }

    /// Whether it is on now.
    pub fn get(&self) -> bool {
        let value = self.cell.as_ref().map(|cell| cell.boolean.load(Relaxed));
        match value {
            Some(0) => false,
            Some(1) => true,
            _ => self.default,
        }
    }
}

/// `RuntimeUInt32`: a count.
#[derive(Clone, Debug)]
pub struct Number {
    default: u32,
    cell: Option<Arc<Cell>>,
}

impl Number {
    pub(super) fn new(default: u32, cell: Option<Arc<Cell>>) -> Self {
        Number { default, cell }
    }

    /// The number now; a value of the runtime that does not fit 32 bits is as none.
    pub fn get(&self) -> u32 {
        let value = self.cell.as_ref().map(|cell| cell.integer.load(Relaxed));
        value
            .and_then(|value| u32::try_from(value).ok())
            .unwrap_or(self.default)
    }
}

/// `RuntimeDouble`.
#[derive(Clone, Debug)]
pub struct Double {
    default: f64,
    cell: Option<Arc<Cell>>,
}

impl Double {
    pub(super) fn new(default: f64, cell: Option<Arc<Cell>>) -> Self {
        Double { default, cell }
    }

    /// The number now.
    pub fn get(&self) -> f64 {
        match self.cell.as_ref().map(|cell| cell.double.load(Relaxed)) {
            None | Some(NO_DOUBLE) => self.default,
            Some(bits) => f64::from_bits(bits),
        }
    }
}
