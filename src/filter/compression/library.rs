//! Envoy's compressor and decompressor libraries, to our settings.

use prost_types::Any;

use crate::coding::{Brotli, BrotliMode, Coding, Decoding, Encoding, Zlib, ZlibStrategy, Zstd};
use crate::config::{Errors, Fault, OrFault, fields};
use crate::proto::any::{effective_type, unpack};
use crate::proto::envoy::config::core::v3::TypedExtensionConfig;
use crate::proto::envoy::extensions::compression::brotli::compressor::v3 as brotli;
use crate::proto::envoy::extensions::compression::brotli::decompressor::v3 as unbrotli;
use crate::proto::envoy::extensions::compression::gzip::compressor::v3 as gzip;
use crate::proto::envoy::extensions::compression::gzip::decompressor::v3 as gunzip;
use crate::proto::envoy::extensions::compression::zstd::compressor::v3 as zstd;
use crate::proto::envoy::extensions::compression::zstd::decompressor::v3 as unzstd;

/// What Envoy lets come out of a decompressor for each byte that goes in.
const ENVOYS_RATIO: u32 = 100;

/// A library under the name that statistics give it.
#[derive(Debug, Clone)]
pub(super) struct Library<T> {
    pub(super) name: String,
    pub(super) settings: T,
}

/// How a decompressor reads, and how much may come of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reading {
    pub(super) decoding: Decoding,
    pub(super) max_ratio: u32,
}

/// What Envoy calls the library of a coding in the names of statistics.
pub(super) fn stat_name(coding: Coding) -> &'static str {
    match coding {
        Coding::Brotli => "brotli",
        other => other.name(),
    }
}

/// Compiles a `compressor_library`.
pub(super) fn compressor(
    library: Option<&TypedExtensionConfig>,
) -> Result<Library<Encoding>, Errors> {
    compile(library, |config, kind| match kind {
        "envoy.extensions.compression.gzip.compressor.v3.Gzip" => compile_gzip(&decode(config)?),
        "envoy.extensions.compression.brotli.compressor.v3.Brotli" => {
            compile_brotli(&decode(config)?)
        }
        "envoy.extensions.compression.zstd.compressor.v3.Zstd" => compile_zstd(&decode(config)?),
        other => Err(Fault::UnknownExtension(other.to_owned()).into()),
    })
}

/// Compiles a `decompressor_library`.
pub(super) fn decompressor(
    library: Option<&TypedExtensionConfig>,
) -> Result<Library<Reading>, Errors> {
    compile(library, |config, kind| match kind {
        "envoy.extensions.compression.gzip.decompressor.v3.Gzip" => {
            compile_gunzip(&decode(config)?)
        }
        "envoy.extensions.compression.brotli.decompressor.v3.Brotli" => {
            let unbrotli::Brotli {} = decode(config)?;
            Ok(Reading { decoding: Decoding::Brotli, max_ratio: ENVOYS_RATIO })
        }
        "envoy.extensions.compression.zstd.decompressor.v3.Zstd" => {
            let unzstd::Zstd {} = decode(config)?;
            let decoding = Decoding::Zstd { window_bits: Decoding::ZSTD_WINDOW_BITS };
            Ok(Reading { decoding, max_ratio: ENVOYS_RATIO })
        }
        other => Err(Fault::UnknownExtension(other.to_owned()).into()),
    })
}

fn compile<T>(
    library: Option<&TypedExtensionConfig>,
    settings: impl Fn(&Any, &str) -> Result<T, Errors>,
) -> Result<Library<T>, Errors> {
    let TypedExtensionConfig { name, typed_config } = fields::required(library)?;
    let mut errors = Errors::new();
    errors.take(fields::non_empty(name).at("name"));
    let compiled = fields::required(typed_config.as_ref()).and_then(|config| {
        let kind = effective_type(config).map_err(|e| Fault::Undecodable(e.to_string()))?;
        settings(config, &kind)
    });
    let settings = errors.take(compiled.at("typed_config"));
    errors.finish()?;
    let settings = settings.ok_or_else(Errors::new)?;
    Ok(Library { name: name.clone(), settings })
}

fn decode<T: prost::Message + prost::Name + Default>(config: &Any) -> Result<T, Errors> {
    unpack(config).map_err(|e| Fault::Undecodable(e.to_string()).into())
}

/// A number of bits; `usual` unless set.
fn bits(value: Option<u32>, range: std::ops::RangeInclusive<u32>, usual: u8) -> Result<u8, Errors> {
    let number = fields::in_range(value.unwrap_or(u32::from(usual)), range)?;
    Ok(u8::try_from(number).unwrap_or(usual))
}

fn compile_gzip(message: &gzip::Gzip) -> Result<Encoding, Errors> {
    use gzip::gzip::{CompressionLevel as Level, CompressionStrategy as Strategy};
    let gzip::Gzip { memory_level, compression_level, compression_strategy, window_bits } = message;
    let mut errors = Errors::new();
    let memory_level = errors.take(bits(*memory_level, 1..=9, 5).at("memory_level"));
    let window_bits = errors.take(bits(*window_bits, 9..=15, 12).at("window_bits"));
    let level = fields::enumeration::<Level>(*compression_level).at("compression_level");
    let level = errors.take(level).map(|level| match level {
        Level::DefaultCompression => Zlib::default().level,
        set => set as u32,
    });
    let strategy = fields::enumeration::<Strategy>(*compression_strategy);
    let strategy = errors.take(strategy.at("compression_strategy")).map(|set| match set {
        Strategy::DefaultStrategy => ZlibStrategy::Default,
        Strategy::Filtered => ZlibStrategy::Filtered,
        Strategy::HuffmanOnly => ZlibStrategy::HuffmanOnly,
        Strategy::Rle => ZlibStrategy::Rle,
        Strategy::Fixed => ZlibStrategy::Fixed,
    });
    match (level, window_bits, memory_level, strategy) {
        (Some(level), Some(window_bits), Some(memory_level), Some(strategy)) => {
            Ok(Encoding::Gzip(Zlib { level, window_bits, memory_level, strategy }))
        }
        _ => Err(errors),
    }
}

fn compile_brotli(message: &brotli::Brotli) -> Result<Encoding, Errors> {
    use brotli::brotli::EncoderMode;
    let brotli::Brotli {
        quality,
        encoder_mode,
        window_bits,
        input_block_bits,
        disable_literal_context_modeling,
    } = message;
    let usual = Brotli::default();
    let mut errors = Errors::new();
    let quality = fields::in_range(quality.unwrap_or(usual.quality), 0..=11).at("quality");
    let quality = errors.take(quality);
    let window = fields::in_range(window_bits.unwrap_or(usual.window_bits), 10..=24);
    let window = errors.take(window.at("window_bits"));
    let block = fields::in_range(input_block_bits.unwrap_or(24), 16..=24).at("input_block_bits");
    let block = errors.take(block);
    let mode = errors.take(fields::enumeration::<EncoderMode>(*encoder_mode).at("encoder_mode"));
    let mode = mode.map(|mode| match mode {
        EncoderMode::Default | EncoderMode::Generic => BrotliMode::Generic,
        EncoderMode::Text => BrotliMode::Text,
        EncoderMode::Font => BrotliMode::Font,
    });
    match (quality, window, block, mode) {
        (Some(quality), Some(window_bits), Some(block_bits), Some(mode)) => {
            Ok(Encoding::Brotli(Brotli {
                quality,
                window_bits,
                block_bits,
                mode,
                literal_context: !disable_literal_context_modeling,
            }))
        }
        _ => Err(errors),
    }
}

fn compile_zstd(message: &zstd::Zstd) -> Result<Encoding, Errors> {
    use zstd::zstd::Strategy;
    let zstd::Zstd { compression_level, enable_checksum, strategy } = message;
    let usual = Zstd::default();
    let mut errors = Errors::new();
    let level = match *compression_level {
        None | Some(0) => Some(usual.level),
        Some(set) => {
            let level = fields::in_range(set, 1..=22).at("compression_level");
            errors.take(level).and_then(|level| i32::try_from(level).ok())
        }
    };
    let strategy = errors.take(fields::enumeration::<Strategy>(*strategy).at("strategy"));
    match (level, strategy) {
        (Some(level), Some(strategy)) => Ok(Encoding::Zstd(Zstd {
            level,
            checksum: *enable_checksum,
            strategy: (strategy != Strategy::Default).then_some(strategy as u32),
        })),
        _ => Err(errors),
    }
}

fn compile_gunzip(message: &gunzip::Gzip) -> Result<Reading, Errors> {
    let gunzip::Gzip { window_bits, max_inflate_ratio } = message;
    let mut errors = Errors::new();
    let window_bits = errors.take(bits(*window_bits, 9..=15, 15).at("window_bits"));
    let ratio = fields::in_range(max_inflate_ratio.unwrap_or(ENVOYS_RATIO), 1..=1032);
    let ratio = errors.take(ratio.at("max_inflate_ratio"));
    match (window_bits, ratio) {
        (Some(window_bits), Some(max_ratio)) => {
            Ok(Reading { decoding: Decoding::Gzip { window_bits }, max_ratio })
        }
        _ => Err(errors),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::any::pack;

    fn library(config: &impl prost::Name) -> TypedExtensionConfig {
        TypedExtensionConfig { name: "l".into(), typed_config: Some(pack(config)) }
    }

    #[test]
    fn without_settings_they_are_envoys() {
        let gzip = compressor(Some(&library(&gzip::Gzip::default()))).unwrap().settings;
        let zlib = Zlib { level: 6, window_bits: 12, memory_level: 5, ..Zlib::default() };
        assert_eq!(gzip, Encoding::Gzip(zlib));
        let brotli = compressor(Some(&library(&brotli::Brotli::default()))).unwrap().settings;
        assert!(matches!(brotli, Encoding::Brotli(Brotli { quality: 3, block_bits: 24, .. })));
        let zstd = compressor(Some(&library(&zstd::Zstd::default()))).unwrap().settings;
        assert_eq!(zstd, Encoding::Zstd(Zstd::default()));
        for (config, coding) in [
            (library(&gunzip::Gzip::default()), Coding::Gzip),
            (library(&unbrotli::Brotli::default()), Coding::Brotli),
            (library(&unzstd::Zstd::default()), Coding::Zstd),
        ] {
            let reading = decompressor(Some(&config)).unwrap().settings;
            assert_eq!((reading.decoding.coding(), reading.max_ratio), (coding, 100));
        }
    }

    #[test]
    fn faults_name_their_fields() {
        let bad_gzip = gzip::Gzip {
            memory_level: Some(10),
            window_bits: Some(8),
            compression_level: 10,
            compression_strategy: 9,
        };
        let bad_brotli = brotli::Brotli {
            quality: Some(12),
            window_bits: Some(25),
            input_block_bits: Some(15),
            ..Default::default()
        };
        let bad_zstd = zstd::Zstd { compression_level: Some(23), ..Default::default() };
        for (config, fields) in [
            (
                library(&bad_gzip),
                &["memory_level: 10", "window_bits: 8", "compression_level", "strategy"][..],
            ),
            (library(&bad_brotli), &["quality: 12", "window_bits: 25", "input_block_bits: 15"]),
            (library(&bad_zstd), &["typed_config.compression_level: 23 is not in 1..=22"]),
            (library(&unzstd::Zstd {}), &["unknown extension type"]),
            (TypedExtensionConfig::default(), &["name: is required", "typed_config: is required"]),
        ] {
            let text = compressor(Some(&config)).unwrap_err().to_string();
            assert!(fields.iter().all(|field| text.contains(field)), "{text}");
        }
        let bad = gunzip::Gzip { window_bits: Some(16), max_inflate_ratio: Some(1033) };
        let text = decompressor(Some(&library(&bad))).unwrap_err().to_string();
        assert!(text.contains("window_bits: 16") && text.contains("max_inflate_ratio: 1033"));
    }
}
