//! The USB adapter that a port belongs to, by sysfs.

use std::fs;
use std::path::{Path, PathBuf};

use crate::device::discover::read;

/// A USB device that a port belongs to.
#[derive(Debug)]
pub(in crate::device) struct Usb {
    pub folder: PathBuf,
    pub vendor: String,
    pub model: String,
    pub maker: String,
    pub product: String,
    pub serial: Option<String>,
}

/// The USB device that this port belongs to.
pub(in crate::device) fn usb(root: &Path, tty: &str) -> Option<Usb> {
    let device = fs::canonicalize(root.join("sys/class/tty").join(tty).join("device")).ok()?;
    let folder = device.ancestors().find(|folder| folder.join("idVendor").exists())?;
    let of = |file: &str| read(&folder.join(file));
    Some(Usb {
        folder: folder.to_owned(),
        vendor: of("idVendor")?,
        model: of("idProduct")?,
        maker: of("manufacturer").unwrap_or_default(),
        product: of("product").unwrap_or_default(),
        serial: of("serial").filter(|serial| !serial.is_empty()),
    })
}

impl Usb {
    /// Whether nothing but its place tells it from that one.
    pub(in crate::device) fn is_twin(&self, other: &Usb) -> bool {
        let known_by = |usb: &Usb| (usb.vendor.clone(), usb.model.clone(), usb.serial.clone());
        self.folder != other.folder && known_by(self) == known_by(other)
    }
}
