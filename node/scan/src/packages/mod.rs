//! The files in which packages are listed. Each reader takes bytes of strangers.
