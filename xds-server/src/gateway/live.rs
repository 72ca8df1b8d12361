//! A gateway file as it is served: with the changes that were made to its instances meanwhile.
//!
//! A change is judged as an edit of the file would be: laid over the file, translated, and checked as
//! a whole. Only a good one is kept, and it is kept on disk before it is served.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::form::Form;
use super::model::{Gateway, Instance, Service};
use super::overlay::Overlay;
use super::reader::Reader;
use super::{Flavour, GatewayFile, Translation};
use crate::assemble::{Item, Rigour, assemble};
use crate::problem::Problem;

/// A gateway file and the changes to it; clones share them.
#[derive(Clone)]
pub struct Live(Arc<Shared>);

struct Shared {
    file: PathBuf,
    flavour: Flavour,
    /// Where the changes are kept.
    kept: Option<PathBuf>,
    overlay: Mutex<Overlay>,
    changes: watch::Sender<u64>,
}

/// Why a change was not made.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// There is no such thing.
    Unknown(String),
    /// There is one already.
    Exists(String),
    /// The request is not what it should be.
    Malformed(Vec<Problem>),
    /// The gateway file is bad, so that nothing can be laid over it.
    FileIsBad(Vec<Problem>),
    /// The change is: what would be wrong with it.
    Bad(Vec<Problem>),
    /// It could not be kept.
    NotKept(std::io::Error),
}

impl Live {
    /// A gateway file without changes.
    pub(crate) fn new(file: PathBuf, flavour: Flavour) -> Self {
        Self::with(file, flavour, None, Overlay::none())
    }

    /// The same with the changes that are kept in a file, which need not be there yet.
    pub(crate) fn keeping(&self, kept: PathBuf) -> Result<Self, Vec<Problem>> {
        let overlay = match kept.exists() {
            true => read_kept(&kept)?,
            false => Overlay::none(),
        };
        Ok(Self::with(self.0.file.clone(), self.0.flavour, Some(kept), overlay))
    }

    fn with(file: PathBuf, flavour: Flavour, kept: Option<PathBuf>, overlay: Overlay) -> Self {
        let (overlay, (changes, _)) = (Mutex::new(overlay), watch::channel(0));
        Self(Arc::new(Shared { file, flavour, kept, overlay, changes }))
    }

    /// The gateway file.
    pub(crate) fn file(&self) -> &Path {
        &self.0.file
    }

    /// Says when a change was made.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// The resources of the file with the changes, and the doubts about both.
    pub(crate) fn load(&self) -> Result<(Vec<Item>, Vec<Problem>), Vec<Problem>> {
        let file = GatewayFile::open(&self.0.file)?;
        let overlay = self.0.overlay.lock().clone();
        self.translate(&file, &overlay)
    }

    fn translate(
        &self,
        file: &GatewayFile,
        overlay: &Overlay,
    ) -> Result<(Vec<Item>, Vec<Problem>), Vec<Problem>> {
        let Translation { made, warnings } = file.translate(self.0.flavour, overlay)?;
        Ok((file.items(made)?, warnings))
    }

    /// Makes a change: `edit` sees the gateway as it is in service. Reads and writes files.
    pub(crate) fn change(
        &self,
        edit: impl FnOnce(&Gateway, &mut Overlay) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        self.edit(|_, gateway, overlay| edit(gateway, overlay))
    }

    /// Takes an instance out of service, if `may` sees no reason against it.
    pub(crate) fn remove(
        &self,
        service: &str,
        instance: &str,
        may: impl FnOnce(&Gateway) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        self.edit(|file, gateway, overlay| {
            may(gateway)?;
            let of_file = file.services.iter().filter(|of_file| of_file.name == service);
            let mut names = of_file.flat_map(|of_file| &of_file.instances).map(Instance::name);
            overlay.remove(service, instance, names.any(|name| name == instance));
            Ok(())
        })
    }

    /// The same with the file as it is written beside what is in service.
    fn edit(
        &self,
        edit: impl FnOnce(&Gateway, &Gateway, &mut Overlay) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let mut held = self.0.overlay.lock();
        let file = GatewayFile::open(&self.0.file).map_err(Refusal::FileIsBad)?;
        self.translate(&file, &held).map_err(Refusal::FileIsBad)?;
        let mut next = held.clone();
        edit(&file.gateway, &merged(&file, &held), &mut next)?;
        let (items, _) = self.translate(&file, &next).map_err(Refusal::Bad)?;
        assemble(None, items, Vec::new(), Rigour::default()).map_err(Refusal::Bad)?;
        if let Some(kept) = &self.0.kept {
            write_whole(kept, &next.text()).map_err(Refusal::NotKept)?;
        }
        *held = next;
        self.0.changes.send_modify(|count| *count += 1);
        Ok(())
    }

    /// The services as they are in service.
    pub(crate) fn services(&self) -> Result<Vec<Value>, Refusal> {
        let overlay = self.0.overlay.lock().clone();
        let file = GatewayFile::open(&self.0.file).map_err(Refusal::FileIsBad)?;
        let merged = merged(&file, &overlay);
        let of_file = |name: &str| file.gateway.services.iter().find(|s| s.name == name);
        let shown = merged.services.iter();
        Ok(shown.filter_map(|s| Some(show(s, of_file(&s.name)?, &overlay))).collect())
    }
}

fn merged(file: &GatewayFile, overlay: &Overlay) -> Gateway {
    let mut gateway = file.gateway.clone();
    overlay.apply(&mut gateway, &mut Reader::unplaced());
    gateway
}

fn show(service: &Service, file: &Service, overlay: &Overlay) -> Value {
    let instances = service.instances.iter().map(|instance| {
        let name = instance.name();
        let (from, draining) = overlay.origin(file, &name);
        json!({
            "id": name,
            "url": instance.url.shown(),
            "weight": instance.weight.0,
            "zone": instance.zone,
            "metadata": instance.metadata,
            "draining": draining,
            "from": from.word(),
        })
    });
    json!({
        "name": service.name,
        "strategy": service.strategy,
        "dns": service.dns.as_ref().map(Form::shown),
        "instances": instances.collect::<Vec<_>>(),
    })
}

fn read_kept(file: &Path) -> Result<Overlay, Vec<Problem>> {
    let document = crate::source::files::parse(file).map_err(|problem| vec![problem])?;
    let mut reader = Reader::new(file, &document.lines);
    match Overlay::read(&mut reader, "", &document.value) {
        Some(overlay) if reader.faults.is_empty() => Ok(overlay),
        _ => Err(reader.faults),
    }
}

/// Whoever reads the file finds the old text or the new one, also after a crash.
fn write_whole(file: &Path, text: &str) -> std::io::Result<()> {
    let mut partial = file.as_os_str().to_owned();
    partial.push(".partial");
    let mut aside = std::fs::File::create(&partial)?;
    aside.write_all(text.as_bytes())?;
    aside.sync_all()?;
    std::fs::rename(&partial, file)?;
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    std::fs::File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}
