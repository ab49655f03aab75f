//! How each ecosystem orders versions and writes ranges of them.
