//! Writes the generated files that are not current. `cargo e2e generate` runs it.

use anyhow::Result;

fn main() -> Result<()> {
    for path in rouse_docs::write(&rouse_docs::checkout())? {
        println!("wrote {path}");
    }
    Ok(())
}
