"""What every room stands on: errors, grids, seeds, records, atomic files, provenance. No torch at import."""
